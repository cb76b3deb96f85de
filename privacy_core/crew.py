"""The processes of one run: which of them this is, what it does, and what they say to each other.

Knows no row, no model and no launcher; a run of its own is a crew of one that never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def _alone() -> None:
    return None


def _whole(_numbers: Tensor) -> None:
    return None


@dataclass(frozen=True)
class Crew:
    """This process among those that share a run and its folders.

    Attributes:
        rank: Of this process, from 0.
        size: Number of processes.
        wait: Returns once every process has called it.
        sum_up: Puts the sum over all processes' tensors of one shape in the place of each; every
            process must call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], None] = _alone
    sum_up: Callable[[Tensor], None] = _whole

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that begins, ends and talks."""
        return self.rank == 0

    def does(self, shard: int) -> bool:
        """Return whether a shard is this process's to make."""
        return shard % self.size == self.rank

    def take_from_first(self, numbers: Tensor) -> None:
        """Put the first process's numbers in the place of every process's."""
        if not self.is_first:
            numbers.zero_()
        self.sum_up(numbers)
