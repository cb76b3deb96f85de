"""A remote in memory that keeps its history and refuses what a dataset repository refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from feedback.errors import (
    RemoteBusyError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.remote.base import Purge, Snapshot


class MemoryRemote:
    """What several replicas share; `plan` what goes wrong next.

    Faults are pairs of a call's name and a kind: "busy", "refused", "stale", "uncertain" (the
    change got in), "lost" (it did not, and nobody knows) and "pass" (nothing goes wrong), or a
    function to call first.
    """

    name = "the private dataset anna/ratings"
    keeps = True
    swaps = True

    def __init__(self) -> None:
        self.revisions: dict[str, dict[str, bytes]] = {"": {}}
        self.head = ""
        self.faults: list[tuple[str, str | Callable[[], object]]] = []
        self.calls: list[str] = []
        self.messages: list[str] = []
        self.retry_after: float | None = None

    @property
    def files(self) -> dict[str, bytes]:
        return self.revisions[self.head]

    def put(self, **files: bytes) -> None:
        """Change files past every replica."""
        self._advance({path.replace("__", "/"): data for path, data in files.items()}, ())

    def remove(self, path: str) -> None:
        """Delete a file past every replica."""
        self._advance({}, (path,))

    def every_byte(self) -> Iterator[bytes]:
        for files in self.revisions.values():
            yield from files.values()

    def snapshot(self) -> Snapshot:
        self._begin("snapshot")
        return self._snapshot()

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        self._begin("read")
        if snapshot.revision not in self.revisions:
            raise StaleSnapshotError("gone")
        return self.revisions[snapshot.revision][path]

    def commit(
        self,
        snapshot: Snapshot,
        *,
        add: Mapping[str, bytes],
        delete: Sequence[str] = (),
        message: str,
    ) -> Snapshot:
        kind = self._begin("commit")
        if kind == "lost":
            raise UncertainCommitError("lost")
        if snapshot.revision != self.head or not self.files.keys() >= set(delete):
            raise StaleSnapshotError("moved")
        self.messages.append(message)
        self._advance(add, delete)
        if kind == "uncertain":
            raise UncertainCommitError("uncertain")
        return self._snapshot()

    def purge(self, snapshot: Snapshot, *, old: Any = (), remember: Any = None) -> Purge:
        self._begin("purge")
        if snapshot.revision != self.head:
            raise StaleSnapshotError("moved")
        files, n_old = self.files, len({*self.revisions, *old} - {self.head})
        if remember:
            remember(self.revisions.keys() - {self.head} | set(old))
        old = {data for files_then in self.revisions.values() for data in files_then.values()}
        self.revisions = {}
        self._set(files, salt=f"{n_old}")
        return Purge(revisions=n_old, blobs=len(old - set(files.values())), refs=0)

    def _begin(self, call: str) -> str:
        self.calls.append(call)
        while self.faults and self.faults[0][0] == call:
            kind = self.faults.pop(0)[1]
            if callable(kind):
                kind()
                continue
            if kind == "busy":
                raise RemoteBusyError("It must answer, got nothing.", retry_after=self.retry_after)
            if kind == "refused":
                raise RemoteRefusedError("The token must be allowed to write, got one that is not.")
            if kind == "stale":
                raise StaleSnapshotError("moved")
            return kind
        return ""

    def _advance(self, add: Mapping[str, bytes], delete: Sequence[str]) -> None:
        files = {path: data for path, data in self.files.items() if path not in delete}
        self._set(files | dict(add))

    def _set(self, files: dict[str, bytes], salt: str = "") -> None:
        self.head = hashlib.sha256(f"{self.head}{salt}{sorted(files)}".encode()).hexdigest()[:40]
        self.revisions[self.head] = files

    def _snapshot(self) -> Snapshot:
        digests = {p: hashlib.sha256(data).hexdigest() for p, data in self.files.items()}
        return Snapshot(self.head, digests)
