"""The processes of one run: which of them this is, what it does, and how they wait for each other.

Knows no row and no launcher; a run of its own is a crew of one that never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _alone() -> None:
    return None


@dataclass(frozen=True)
class Crew:
    """This process among those that share a run and its folders.

    Attributes:
        rank: Of this process, from 0.
        size: Number of processes.
        wait: Returns once every process has called it.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], None] = _alone

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that begins, ends and talks."""
        return self.rank == 0

    def does(self, shard: int) -> bool:
        """Return whether a shard is this process's to make."""
        return shard % self.size == self.rank
