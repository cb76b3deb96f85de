"""Runs of the loop for the visitors of the *Models* page: one at a time, the others in a queue.

Each run has a folder that nobody else reads and that is gone when the run ends, however it ends.
Knows steps as command lines, and no page.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from feedback import FeedbackError
from privacy_core.errors import InvalidArgumentError, PrivacyDialError
from shell.child import run_command
from shell.evidence import Evidence, read_evidence
from shell.loop import UNLEARNED, LoopSettings, Step, child_environment

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 600.0
"""A run may take this long in all."""
UNSEEN_SECONDS = 90.0
"""After so long without a look at it, a run ends: its page is closed. Browsers let a page in the
background look once a minute."""
_CLOSED = "It was ended as its page seemed to be closed."
MOST_WAITING = 4
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")
"""What a command may know of the app's environment: where programs are, and no secret."""
_PROGRESS = re.compile(r"(?P<stage>[^:|%]{1,60}):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)")
_REFUSED = 2
"""Exit code of a command that says in its last line why it refused."""

State = Literal["waiting", "running", "done", "cancelled", "failed"]
Plan = Callable[[LoopSettings, Path], Sequence[Step]]


@dataclass(frozen=True)
class StepView:
    """How far one step is.

    Attributes:
        name: The step's.
        state: "waiting", "running", "done", or how the run ended in it.
        seconds: Spent in it.
        stage: What it is at, in its own words; empty before it says so.
        done: Of `total`, in that stage.
        total: 0 where unknown.
    """

    name: str
    state: State = "waiting"
    seconds: float = 0.0
    stage: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class RunView:
    """A run at one moment.

    Attributes:
        state: Where it is.
        ahead: Runs before it in the queue, the one that runs included.
        steps: Every step, in order; none before it starts.
        message: Why it failed or ended, for the visitor; empty otherwise.
    """

    state: State
    ahead: int = 0
    steps: tuple[StepView, ...] = ()
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "running")


class _StoppedError(Exception):
    """A run must end before its end."""


@dataclass(eq=False)
class LoopRun:
    """One visitor's run; only they hold it.

    Attributes:
        settings: What was chosen.
        finished: Set when it is over and its folder is gone.
        evidence: What it found; None until it is done.
    """

    settings: LoopSettings
    seen_at: float
    finished: threading.Event = field(default_factory=threading.Event)
    evidence: Evidence | None = field(default=None, repr=False)
    state: State = "waiting"
    steps: tuple[StepView, ...] = ()
    message: str = ""
    is_cancelled: bool = False


class LoopQueue:
    """Takes runs in, and runs them one after the other in a thread of its own.

    Args:
        plan: Writes a run's data into its folder and returns its steps.
        environment: What commands may see of the app's own.
        read: Reads what a finished run left.
        limit_seconds: For one run in all.
        most_waiting: Runs that may wait beside the one that runs.
        clock: Gives seconds.
        place: Where folders are made; the system's own place when None.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        environment: Mapping[str, str],
        read: Callable[[Path], Evidence] = read_evidence,
        limit_seconds: float = LIMIT_SECONDS,
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
        place: Path | None = None,
    ) -> None:
        self._plan = plan
        self._environment = dict(environment)
        self._read = read
        self._limit_seconds = limit_seconds
        self._most_waiting = most_waiting
        self._clock = clock
        self._place = place
        self._lock = threading.Lock()
        self._waiting: deque[LoopRun] = deque()
        self._thread: threading.Thread | None = None
        self._current: LoopRun | None = None
        self._is_closed = False

    def enter(self, settings: LoopSettings) -> LoopRun:
        """Put a run at the end of the queue.

        Raises:
            InvalidArgumentError: Too many wait, or the app is stopping.
        """
        with self._lock:
            self._drop_unseen()
            if self._is_closed or len(self._waiting) >= self._most_waiting:
                raise InvalidArgumentError(
                    f"At most {self._most_waiting} runs may wait here, and as many do. Please "
                    "try again in a few minutes."
                )
            run = LoopRun(settings, self._clock())
            self._waiting.append(run)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="loop-runs", daemon=True)
                self._thread.start()
        return run

    def look(self, run: LoopRun) -> RunView:
        """Return how far a run is, and note that somebody still wants to know."""
        with self._lock:
            run.seen_at = self._clock()
            self._drop_unseen()
            waiting = list(self._waiting)
            ahead = waiting.index(run) + (self._current is not None) if run in waiting else 0
            return RunView(run.state, ahead, run.steps, run.message)

    def cancel(self, run: LoopRun) -> None:
        """End a run: one that waits at once, one that runs within moments."""
        with self._lock:
            run.is_cancelled = True
            if run in self._waiting:
                self._drop(run)

    def close(self, *, seconds: float = 5.0) -> None:
        """End every run and take no more; return when their folders are gone."""
        with self._lock:
            self._is_closed = True
            runs = [*self._waiting, *([self._current] if self._current else [])]
            thread = self._thread
        for run in runs:
            self.cancel(run)
        if thread is not None:
            thread.join(seconds)

    def _drop(self, run: LoopRun, message: str = "") -> None:
        """End a run that waits; the lock is held."""
        self._waiting.remove(run)
        run.state, run.message = "cancelled", message
        run.finished.set()

    def _drop_unseen(self) -> None:
        """End the runs that wait for nobody, so that they keep no place; the lock is held."""
        for run in [run for run in self._waiting if self._is_unseen(run)]:
            self._drop(run, _CLOSED)

    def _is_unseen(self, run: LoopRun) -> bool:
        return self._clock() - run.seen_at > UNSEEN_SECONDS

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._current = self._waiting.popleft() if self._waiting else None
                if self._current is None:
                    self._thread = None
                    return
                run = self._current
            self._run(run)

    def _run(self, run: LoopRun) -> None:
        """Run all steps, and say how it ended only once nothing is left of it on disk."""
        state: State = "failed"
        evidence, message = None, ""
        try:
            with tempfile.TemporaryDirectory(prefix="privacy-dial-loop-", dir=self._place) as name:
                evidence = self._do_all(run, Path(name))
            state = "done"
        except _StoppedError as error:
            state, message = "cancelled", str(error)
        except (PrivacyDialError, FeedbackError) as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 - the queue goes on, whatever it was
            sys.stderr.write(f"A run of the loop failed: {type(error).__name__}\n")
            message = "Something went wrong here. Please try again."
        with self._lock:
            run.steps = tuple(
                replace(step, state=state) if step.state == "running" else step
                for step in run.steps
            )
            run.state, run.evidence, run.message = state, evidence, message
            self._current = None
        run.finished.set()

    def _do_all(self, run: LoopRun, folder: Path) -> Evidence:
        deadline = self._clock() + self._limit_seconds
        self._check(run, deadline)
        steps = self._plan(run.settings, folder)
        with self._lock:
            run.state, run.steps = "running", tuple(StepView(step.name) for step in steps)
        for place, step in enumerate(steps):
            self._do(run, place, step, folder=folder, deadline=deadline)
        return self._read(folder / UNLEARNED)

    def _do(self, run: LoopRun, place: int, step: Step, *, folder: Path, deadline: float) -> None:
        started, said = self._clock(), ""

        def note(**changes: Any) -> None:
            now = replace(run.steps[place], seconds=self._clock() - started, **changes)
            with self._lock:
                run.steps = (*run.steps[:place], now, *run.steps[place + 1 :])

        def hear(line: str) -> None:
            nonlocal said
            if bar := _PROGRESS.match(line):
                done, total = int(bar["done"]), int(bar["total"])
                note(stage=bar["stage"], done=min(done, total), total=total)
            else:
                said = line

        def stop() -> bool:
            note()
            return self._why_stop(run, deadline) is not None

        note(state="running")
        code = run_command(
            step.arguments,
            folder=folder,
            environment=child_environment(self._environment, root=ROOT, folder=folder),
            hear=hear,
            stop=stop,
        )
        if code is None:
            self._check(run, deadline)
        if code == _REFUSED:
            raise InvalidArgumentError(said)
        if code != 0:
            raise RuntimeError(step.name)
        note(state="done")

    def _check(self, run: LoopRun, deadline: float) -> None:
        if (reason := self._why_stop(run, deadline)) is not None:
            raise _StoppedError(reason)

    def _why_stop(self, run: LoopRun, deadline: float) -> str | None:
        if run.is_cancelled:
            return ""
        if self._is_unseen(run):
            return _CLOSED
        if self._clock() > deadline:
            return (
                f"A run may take {self._limit_seconds / 60:.0f} minutes, and this one took longer. "
                "Choose fewer people, fewer shadow models or the head."
            )
        return None
