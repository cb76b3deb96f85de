"""Rows to the remote and back: look, learn, restore, push, each change a compare-and-swap.

Knows when a change got in and when to look again, not when to start: that is `sync`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol, TypeVar

from feedback.dataset.card import dataset_card
from feedback.dataset.shard import read_shard, shard_bytes
from feedback.errors import ForeignShardError, StaleSnapshotError, UncertainCommitError
from feedback.remote.base import Purge, Remote, Snapshot, seconds_left
from feedback.store.tombstones import Tombstone
from feedback.sync import layout
from feedback.sync.outbox import Outbox

Result = TypeVar("Result")
Content_co = TypeVar("Content_co", covariant=True)


class Reader(Protocol[Content_co]):
    """Reads a file, or raises `ForeignShardError`."""

    def __call__(self, data: bytes, /, *, path: str) -> Content_co:
        """Return what the file says."""
        ...


@dataclass(frozen=True)
class Change:
    """What one commit adds and deletes.

    Attributes:
        message: For the remote's history.
        add: Content by path.
        delete: Paths.
        tombstones: Those that a file among `add` holds, new to the remote.
    """

    message: str = ""
    add: Mapping[str, bytes] = field(default_factory=dict)
    delete: Sequence[str] = ()
    tombstones: Sequence[Tombstone] = ()


class Carrier:
    """One store's way to one remote; used by one thread at a time.

    Attributes:
        outbox: The store's side.
        remote: The other side.
        foreign: Files there that are damaged or not ours, left alone.
        restored: Rows brought back that were not here, None before a restore began.
    """

    def __init__(
        self,
        outbox: Outbox,
        remote: Remote,
        *,
        max_tries: int,
        pause: Callable[[float], object],
        uniform: Callable[[], float],
        trust: timedelta,
    ) -> None:
        """Remember both sides.

        Args:
            outbox: The store's side.
            remote: The other side.
            max_tries: How often a change is tried when others change the remote meanwhile.
            pause: Waits for some seconds.
            uniform: Gives numbers in [0, 1), for waits of different lengths in each replica.
            trust: After an absence of this length it is not concluded from a missing file that
                its rows are lost.
        """
        self.outbox = outbox
        self.remote = remote
        self.foreign: set[str] = set()
        self.restored: int | None = None
        self._max_tries = max_tries
        self._pause = pause
        self._uniform = uniform
        self._trust = trust
        self._newest: Snapshot | None = None
        self._lists: dict[str, tuple[list[str], dict[str, int]]] = {}

    def look(self) -> Snapshot:
        """Return what the remote holds now, having buried what others were asked to forget.

        Traces of rows that go may remain until the store is scrubbed.

        Raises:
            RemoteError: It does not answer or refused.
        """
        self._newest = self.steady(self._look_once)
        return self._newest

    def newest(self) -> Snapshot:
        """Return the state that the last look or commit of this carrier saw.

        A commit on an old one fails as stale; `look` before work that commits nothing.
        """
        return self._newest or self.look()

    def swap(self, plan: Callable[[Snapshot], Change]) -> Snapshot:
        """Commit what `plan` makes of the newest state, again whenever that has changed.

        Args:
            plan: Called with each newer state; a change without paths commits nothing.

        Returns:
            The newest state, with the change.

        Raises:
            StaleSnapshotError: Others changed the remote in every try.
            RemoteError: It does not answer or refused.
        """
        return self.steady(lambda: self._swap_once(plan))

    def steady(self, action: Callable[[], Result]) -> Result:
        """Return the result of an action, done again while others change the remote.

        Raises:
            StaleSnapshotError: They did so in every try, or there is no time for another one.
        """
        for attempt in range(1, self._max_tries):
            try:
                return action()
            except StaleSnapshotError:
                self._newest = None
                seconds = 2**attempt / 20 * (0.5 + self._uniform())
                if seconds > seconds_left(math.inf):
                    raise
                self._pause(seconds)
        return action()

    def restore(self) -> int:
        """Bring rows that the remote has and this store has not, and return how many.

        Raises:
            RemoteError: It does not answer or refused.
        """
        before = self.restored or 0
        self.steady(self._restore_once)
        self.restored = self.restored or 0
        self.outbox.mark_restored()
        return self.restored - before

    def reconcile(self) -> int:
        """Find rows that left the remote without our doing, to be carried again; return them.

        They do where somebody empties the repository, or deletes it and makes it anew. A file
        that is gone says so; then all are read.

        Raises:
            RemoteError: It does not answer or refused.
        """
        return self.steady(self._reconcile_once)

    def purge(self) -> Purge:
        """Remove from the remote, and from its history, what its newest state lacks.

        Raises:
            RemoteError: It does not answer or refused, or changed meanwhile; it stays due.
        """
        outbox = self.outbox
        done = self.remote.purge(
            self.newest(), old=outbox.old_revisions(), remember=outbox.note_old_revisions
        )
        outbox.note_purged()
        # The state has another name now.
        self._newest = None
        return done

    def push(self, *, max_rows: int) -> int:
        """Carry the rows and tombstones that wait now, one shard a commit; return the rows.

        Raises:
            RemoteError: It does not answer or refused; what got in is marked, the rest waits.
        """
        last = self.outbox.last_row()
        n_rows = sum(self._push_shard(path, is_new=False) for path in self.outbox.shards())
        # Up to the last row: answers that keep coming must not keep the rest of a round away.
        while path := self.outbox.cut(max_rows=max_rows, last=last):
            n_rows += self._push_shard(path, is_new=True)
        self.swap(lambda _: self.with_tombstones(Change("Ratings taken back")))
        return n_rows

    def with_tombstones(self, change: Change) -> Change:
        """Return the change with the tombstones that no file of the remote holds."""
        tombstones = self.outbox.uncarried()
        if not tombstones:
            return change
        path = layout.tombstones_path(self.outbox.instance, self.outbox.store.clock())
        add = {**change.add, path: layout.tombstones_bytes(tombstones)}
        return replace(change, add=add, tombstones=tombstones)

    def understood(
        self, reader: Reader[Content_co], snapshot: Snapshot, path: str
    ) -> Content_co | None:
        """Return what a file says, or None, and remember the path, if it cannot be read.

        It is damaged then, not ours, too large, or listed and not served.

        Raises:
            StaleSnapshotError: The state of the snapshot is not served any more.
        """
        try:
            content = reader(self.remote.read(snapshot, path), path=path)
        except ForeignShardError:
            self.foreign.add(path)
            return None
        except StaleSnapshotError:
            if self.remote.snapshot() != snapshot:
                raise
            self.foreign.add(path)
            return None
        self.foreign.discard(path)
        return content

    def compactions(self, snapshot: Snapshot) -> list[tuple[list[str], dict[str, int]]]:
        """Return the shards taken up and made by each compaction that is still listed."""
        for path in layout.compactions_in(snapshot.files):
            if path not in self._lists:
                found = self.understood(layout.read_compaction, snapshot, path)
                self._lists[path] = found or ([], {})
        return list(self._lists.values())

    def _look_once(self) -> Snapshot:
        snapshot = self.remote.snapshot()
        if self.outbox.link(self.remote.name):
            self.restored = None
        self.foreign &= snapshot.files.keys()
        paths = layout.tombstone_files_in(snapshot.files)
        for path in self.outbox.unseen(snapshot.files, paths):
            tombstones = self.understood(layout.read_tombstones, snapshot, path)
            if tombstones is not None:
                self.outbox.learn(tombstones)
                self.outbox.see(path, snapshot.files[path])
        self.outbox.note_look(snapshot.files, trust=self._trust)
        return snapshot

    def _swap_once(self, plan: Callable[[Snapshot], Change]) -> Snapshot:
        snapshot = self.newest()
        change = plan(snapshot)
        if not change.add and not change.delete:
            return snapshot
        add = dict(change.add)
        if layout.CARD not in snapshot.files:
            name = self.remote.name.rsplit(" ", 1)[-1]
            add[layout.CARD] = dataset_card(name=name).encode()
        # Whatever happens now, that state is not the newest any more.
        self._newest = None
        self._newest = self.remote.commit(
            snapshot, add=add, delete=change.delete, message=change.message
        )
        self.outbox.mark_carried(change.tombstones)
        return self._newest

    def _restore_once(self) -> None:
        snapshot = self.newest()
        paths = layout.shards_in(snapshot.files)
        for path in self.outbox.unseen(snapshot.files, paths):
            rows = self.understood(read_shard, snapshot, path)
            if rows is not None:
                n_new = self.outbox.take_in(rows, path, snapshot.files[path])
                self.restored = (self.restored or 0) + n_new

    def _reconcile_once(self) -> int:
        snapshot = self.newest()
        gone = self.outbox.gone(snapshot.files)
        n_lost = 0
        if not all(self._is_taken_up(snapshot, path) for path in layout.shards_in(gone)):
            there: set[str] = set()
            for path in layout.shards_in(snapshot.files):
                rows = self.understood(read_shard, snapshot, path)
                there.update(row.rating_id for row in rows or ())
            n_lost = self.outbox.give_back(there)
        if gone:
            self.outbox.forget_gone(snapshot.files)
        return n_lost

    def _push_shard(self, path: str, *, is_new: bool) -> int:
        """Carry one shard, or forget it if no row of it is left; return the rows.

        Args:
            path: The shard.
            is_new: Whether it was surely never sent.
        """
        n_sent = 0

        def plan(snapshot: Snapshot) -> Change:
            nonlocal n_sent
            n_sent = 0
            if path in snapshot.files or (not is_new and self._is_taken_up(snapshot, path)):
                return Change()
            # Read again for each state: rows may have been erased meanwhile.
            rows = self.outbox.rows_of(path)
            n_sent = len(rows)
            if not rows:
                return Change()
            return self.with_tombstones(Change(f"{n_sent} ratings", {path: shard_bytes(rows)}))

        newest = self.swap(plan)
        if n_sent and path not in newest.files:
            raise UncertainCommitError(
                f"{self.remote.name} must list a file it took, got a list without the newest one. "
                "Nothing is lost: the ratings stay here and are sent again."
            )
        self.outbox.settle(path, newest.files.get(path))
        return n_sent

    def _is_taken_up(self, snapshot: Snapshot, path: str) -> bool:
        """Return whether a compaction put the shard's rows into another one."""
        return any(path in sources for sources, _ in self.compactions(snapshot))
