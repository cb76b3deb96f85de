"""Many threads' writes in one commit; knows threads and one function, no SQL.

Eight threads that each commit for themselves queue for one lock that nobody hands on fairly, and
each of their statements waits for the interpreter again. Here whoever comes first writes what all
wait for, in the order they came.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from feedback.errors import StoreError

Work = TypeVar("Work")


@dataclass(eq=False)
class _Entry(Generic[Work]):
    """One thread's work; `error` counts once `is_done`."""

    work: Work
    is_done: bool = False
    error: Exception | None = None


class GroupCommit(Generic[Work]):
    """Hands the work of all waiting threads to one function, one batch at a time."""

    def __init__(self, write: Callable[[Sequence[Work]], Sequence[Exception | None]]) -> None:
        """Remember the function.

        Args:
            write: Makes a batch durable and returns what went wrong with each piece of work, None
                where nothing did.
        """
        self._write = write
        self._condition = threading.Condition()
        self._waiting: list[_Entry[Work]] = []
        self._is_led = False

    def submit(self, work: Work) -> None:
        """Return when `work` is durable.

        Raises:
            Exception: What `write` returned for this work.
            StoreError: The thread that wrote for this one was interrupted.
        """
        entry = _Entry(work)
        with self._condition:
            self._waiting.append(entry)
            while self._is_led and not entry.is_done:
                self._condition.wait()
            batch = [] if entry.is_done else self._waiting
            if batch:
                self._waiting, self._is_led = [], True
        if batch:
            self._lead(batch)
        if entry.error is not None:
            raise entry.error

    def _lead(self, batch: Sequence[_Entry[Work]]) -> None:
        """Write a batch and tell everyone in it."""
        errors: Sequence[Exception | None] | None = None
        try:
            errors = self._write([entry.work for entry in batch])
        finally:
            with self._condition:
                for number, entry in enumerate(batch):
                    entry.error = _interrupted() if errors is None else errors[number]
                    entry.is_done = True
                self._is_led = False
                self._condition.notify_all()


def _interrupted() -> StoreError:
    return StoreError("A write must run to its end, got it interrupted. Send the answer again.")
