"""Where rows are carried to: files under one roof, changed in whole steps; knows no rating.

A remote holds files by path. `NullRemote` holds nothing and says so, so that nobody asks whether
there is a network. No remote repeats a refused request or sleeps: that is for the caller.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from feedback.errors import StaleSnapshotError

_DEADLINE: ContextVar[float | None] = ContextVar("deadline of remote calls", default=None)


@dataclass(frozen=True)
class Snapshot:
    """What a remote held at one moment.

    Attributes:
        revision: Commit id, "" where there are no commits.
        files: Path to a digest of the content, which changes with the content.
    """

    revision: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Purge:
    """What a purge made unreachable, verified.

    Attributes:
        revisions: Old commits that no longer answer.
        blobs: Stored contents that were deleted for good.
        refs: Branches, tags and pull request refs that were removed.
    """

    revisions: int
    blobs: int
    refs: int


class Remote(Protocol):
    """Files under one roof; safe to use by one thread at a time."""

    @property
    def name(self) -> str:
        """What it is, for people: "the private dataset name/repo"."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether what is committed is kept: False for `NullRemote`."""
        ...

    @property
    def swaps(self) -> bool:
        """Whether `commit` sees that something changed since the snapshot: False for buckets."""
        ...

    def snapshot(self) -> Snapshot:
        """List what is there now, making the place if it never existed.

        Raises:
            RemoteBusyError: Not reachable now.
            RemoteRefusedError: Missing, renamed, public, someone else's, or no rights.
        """
        ...

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a file as the snapshot had it.

        Raises:
            StaleSnapshotError: That state is no longer served.
            RemoteBusyError: Not reachable now.
        """
        ...

    def commit(
        self,
        snapshot: Snapshot,
        *,
        add: Mapping[str, bytes],
        delete: Sequence[str] = (),
        message: str,
    ) -> Snapshot:
        """Change everything in one step, if nothing changed since `snapshot`.

        Returns:
            The new state.

        Raises:
            StaleSnapshotError: Something changed; nothing was written.
            RemoteBusyError: Surely nothing was written.
            UncertainCommitError: It may have been written; take a snapshot and look.
            RemoteRefusedError: As `snapshot`.
        """
        ...

    def purge(
        self,
        snapshot: Snapshot,
        *,
        old: Collection[str] = (),
        remember: Callable[[Collection[str]], object] | None = None,
    ) -> Purge:
        """Make unreachable, and verify, everything that `snapshot`, the newest state, lacks.

        Safe to repeat after any failure.

        Args:
            snapshot: The newest state.
            old: What `remember` was told by an earlier purge that did not finish.
            remember: Called, before anything is removed, with the old states to be verified.

        Raises:
            StaleSnapshotError: Something changed since; take a snapshot and purge again.
            RemoteBusyError: Not finished; purge again.
            RemoteRefusedError: As `snapshot`, or something old is still served.
        """
        ...


class NullRemote:
    """No remote: takes everything, keeps nothing."""

    name = "no remote"
    keeps = False
    swaps = True

    def snapshot(self) -> Snapshot:
        """Return that nothing is there."""
        return Snapshot("", {})

    def read(self, snapshot: Snapshot, path: str) -> bytes:  # noqa: ARG002
        """Refuse: nothing is there to be read.

        Raises:
            StaleSnapshotError: Always.
        """
        raise StaleSnapshotError(
            f"{path} must be read from a remote, got none. Name a dataset to keep ratings in."
        )

    def commit(
        self,
        snapshot: Snapshot,  # noqa: ARG002
        *,
        add: Mapping[str, bytes],  # noqa: ARG002
        delete: Sequence[str] = (),  # noqa: ARG002
        message: str,  # noqa: ARG002
    ) -> Snapshot:
        """Return that nothing is there: what is committed here is not kept."""
        return Snapshot("", {})

    def purge(
        self,
        snapshot: Snapshot,  # noqa: ARG002
        *,
        old: Collection[str] = (),  # noqa: ARG002
        remember: Callable[[Collection[str]], object] | None = None,  # noqa: ARG002
    ) -> Purge:
        """Return that nothing had to go."""
        return Purge(0, 0, 0)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let the remote calls that this thread makes inside the block end in `seconds` in all.

    A call that would take longer fails as one whose remote does not answer. Blocks nest; the
    narrower one counts.
    """
    deadline, outer = time.monotonic() + seconds, _DEADLINE.get()
    token = _DEADLINE.set(deadline if outer is None else min(deadline, outer))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def seconds_left(at_most: float) -> float:
    """Return how long a remote call may take that by itself takes `at_most` seconds."""
    deadline = _DEADLINE.get()
    return at_most if deadline is None else min(at_most, deadline - time.monotonic())
