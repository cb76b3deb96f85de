"""When the next round is due and what the last one came to; knows no remote, thread or store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from feedback.errors import (
    FeedbackError,
    RemoteBusyError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.sync.compaction import CompactionSettings

PASSING = (RemoteBusyError, UncertainCommitError, StaleSnapshotError)
"""What another try may cure."""
_MOST_DOUBLINGS = 30


@dataclass(frozen=True)
class SyncSettings:
    """How often the background thread asks the remote, and how patiently.

    Attributes:
        floor_seconds: Least time between two rounds that carry rows.
        idle_seconds: Least time between two rounds that only look what others did.
        jitter: Share in [0, 1] by which waits are lengthened at random.
        backoff_seconds: Wait after a failure, doubled with each in a row.
        backoff_cap_seconds: Longest such wait, unless the remote asked for a longer one.
        refused_seconds: Wait after a refusal, which waiting alone does not cure.
        max_shard_rows: Most rows of one file and commit.
        max_tries: How often a change is tried while others change the remote.
        compaction: When and how far to compact.
    """

    floor_seconds: float = 60.0
    idle_seconds: float = 900.0
    jitter: float = 0.2
    backoff_seconds: float = 30.0
    backoff_cap_seconds: float = 900.0
    refused_seconds: float = 3600.0
    max_shard_rows: int = 50_000
    max_tries: int = 6
    compaction: CompactionSettings = field(default_factory=CompactionSettings)


class Rhythm:
    """The times of one `Sync`, in seconds of a clock that never runs backwards.

    Attributes:
        last_success: When a round last succeeded, UTC.
        last_error: What went wrong since, for a visitor.
        retry_at: Before then nothing is tried.
    """

    def __init__(self, settings: SyncSettings, uniform: Callable[[], float]) -> None:
        """Begin with a round that is due."""
        self.last_success: datetime | None = None
        self.last_error: str | None = None
        self.retry_at = -math.inf
        self._settings = settings
        self._uniform = uniform
        self._floor_at = -math.inf
        self._idle_at = -math.inf
        self._tried_at = -math.inf
        self._n_failures = 0
        self._is_refused = False

    def is_due(self, now: float, *, is_dirty: bool) -> bool:
        """Return whether a round should start."""
        return now >= max(self.retry_at, self._floor_at if is_dirty else self._idle_at)

    def seconds_to_next(self, now: float) -> float:
        """Return for how long nothing can become due unless something new comes."""
        wait = max(self.retry_at, self._floor_at) - now
        return wait if wait > 0 else self._settings.floor_seconds

    def succeeded(self, time: datetime, now: float) -> None:
        """Remember a round that did all it wanted."""
        self.last_success, self.last_error = time, None
        self.retry_at, self._n_failures, self._is_refused = -math.inf, 0, False
        self._floor_at = now + self._longer(self._settings.floor_seconds)
        self._idle_at = now + self._longer(self._settings.idle_seconds)

    def failed(self, error: Exception, now: float) -> None:
        """Remember a round that failed, and wait longer after each."""
        self._n_failures += 1
        self._tried_at = now
        self._is_refused = isinstance(error, RemoteRefusedError)
        settings = self._settings
        wait = settings.refused_seconds
        if not self._is_refused:
            doublings = min(self._n_failures - 1, _MOST_DOUBLINGS)
            wait = min(settings.backoff_seconds * 2**doublings, settings.backoff_cap_seconds)
            wait = max(wait, getattr(error, "retry_after", None) or 0.0)
        self.retry_at = now + self._longer(wait)
        if isinstance(error, FeedbackError):
            self.last_error = str(error)
        else:
            # A bug's own words may hold anything.
            self.last_error = (
                f"Copying ratings failed by a bug ({type(error).__name__}). They are safe on this "
                "disk; please report it."
            )

    def forgive(self) -> None:
        """After a refusal, which someone may have cured, wait no longer than between two rounds."""
        if self._is_refused:
            again = self._tried_at + self._settings.floor_seconds
            self.retry_at = min(self.retry_at, again)

    def _longer(self, seconds: float) -> float:
        """Return a wait that differs between replicas."""
        return seconds * (1 + self._settings.jitter * self._uniform())
