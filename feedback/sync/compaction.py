"""Many small shards into few large ones, under a lease; knows no schedule but when one is due.

Everything happens in one commit: rows move, duplicates and buried rows go, the list of what was
taken up appears, and small files that everyone has read are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from feedback.dataset.shard import Cut, merge_shards, same_rows
from feedback.errors import ForeignShardError
from feedback.remote.base import Snapshot
from feedback.store.tombstones import Graves, Tombstone, to_ms
from feedback.sync import layout
from feedback.sync.carrier import Carrier, Change
from feedback.sync.lease import MOST_AHEAD, holds_lease, take_lease


@dataclass(frozen=True)
class CompactionSettings:
    """When to compact, and how far.

    Attributes:
        every_seconds: Least time between two compactions.
        max_files: More files than this are compacted at once.
        max_rows: Most rows of a shard that is made.
        lease_seconds: For how long one process compacts undisturbed.
        keep_seconds: For how long tombstones and lists stay, for replicas that are away; one that
            is away longer may bring erased rows back.
    """

    every_seconds: float = 86_400.0
    max_files: int = 400
    max_rows: int = 250_000
    lease_seconds: float = 600.0
    keep_seconds: float = 30 * 86_400.0


@dataclass(frozen=True)
class Compaction:
    """What a compaction did.

    Attributes:
        files_before: Shards before.
        files_after: Shards after.
        rows: Rows in the shards that were made.
        duplicates: Rows dropped because another shard had the same rating.
        erased: Rows dropped because they were erased or taken back.
    """

    files_before: int
    files_after: int
    rows: int
    duplicates: int
    erased: int


def is_due(carrier: Carrier, snapshot: Snapshot, settings: CompactionSettings) -> bool:
    """Return whether there is something to compact, and the time for it has come."""
    if len(snapshot.files) <= settings.max_files:
        now = carrier.outbox.store.clock()
        since = _last(snapshot, now) or _newest(layout.shards_in(snapshot.files)[:1], now)
        if since is not None and now - since < timedelta(seconds=settings.every_seconds):
            return False
    return bool(_sources(carrier, snapshot, settings))


def compact(carrier: Carrier, settings: CompactionSettings, *, holder: str) -> Compaction | None:
    """Merge what can be merged, and remove what is buried, from the history too.

    Args:
        carrier: The way to the remote.
        settings: How far.
        holder: Name of this process.

    Returns:
        None if there is nothing to do, or another process does it.

    Raises:
        RemoteError: It does not answer or refused; the remote is as before or compacted.
    """
    snapshot = carrier.newest()
    if not _sources(carrier, snapshot, settings) or not take_lease(
        carrier, holder, seconds=settings.lease_seconds
    ):
        return None
    work = _Work(carrier, settings, holder)
    carrier.swap(work.plan)
    if work.done is None:
        return None
    if work.needs_purge:
        carrier.steady(carrier.purge)
        carrier.look()
    carrier.outbox.mark_done([t for t in work.tombstones if t.kind == "rating"])
    return work.done


class _Work:
    """What one compaction commits, made again only if its sources changed.

    Attributes:
        done: What the last plan does, None if the lease was lost.
        tombstones: Those it applies.
        needs_purge: Whether older states hold rows that must not be there.
    """

    def __init__(self, carrier: Carrier, settings: CompactionSettings, holder: str) -> None:
        self._carrier = carrier
        self._settings = settings
        self._holder = holder
        self._key: object = None
        self._made: dict[str, bytes] = {}
        self._rows: dict[str, int] = {}
        self._taken: list[str] = []
        self._counts = (0, 0, 0)
        self.done: Compaction | None = None
        self.tombstones: list[Tombstone] = []
        self.needs_purge = False

    def plan(self, snapshot: Snapshot) -> Change:
        """Return the change for a state of the remote."""
        self.done = None
        if not holds_lease(self._carrier, snapshot, self._holder):
            return Change()
        sources = _sources(self._carrier, snapshot, self._settings)
        tombstones = self._carrier.outbox.tombstones()
        key = {path: snapshot.files[path] for path in sources}, tombstones
        if key != self._key:
            self._merge(snapshot, sources, tombstones)
            self._key = key
        else:
            # Bytes that were sent once may be on somebody's list of what to delete for good.
            self._made = {path: same_rows(data) for path, data in self._made.items()}
        if self.needs_purge:
            # Before the commit: after it the list says that this was done.
            self._carrier.outbox.note_purge_due()
        n_shards = len(layout.shards_in(snapshot.files))
        self.done = Compaction(
            n_shards, n_shards - len(self._taken) + len(self._made), *self._counts
        )
        add, dropped = self._small_files(snapshot)
        change = self._carrier.with_tombstones(
            Change("Compaction", self._made | add, [*self._taken, *dropped, layout.LEASE])
        )
        # Made last: tombstones newer than this list are news for the next compaction.
        listed = layout.compaction_bytes(self._taken, self._rows)
        path = layout.compaction_path(self._carrier.outbox.store.clock())
        return replace(change, add={**change.add, path: listed})

    def _merge(
        self, snapshot: Snapshot, sources: Sequence[str], tombstones: list[Tombstone]
    ) -> None:
        """Merge the sources folder by folder, which are months."""
        graves = Graves(tombstones)
        now = self._carrier.outbox.store.clock()
        self._made, self._rows, self._taken = {}, {}, []
        n_cut = 0
        for folder in sorted({layout.folder_of(path) for path in sources}):
            inside = [path for path in sources if layout.folder_of(path) == folder]
            for paths, cut in self._merged(snapshot, inside, graves):
                self._taken += paths
                n_cut += cut.n_cut
                if cut.data is not None:
                    path = layout.path_in(folder, self._carrier.outbox.instance, now)
                    self._made[path], self._rows[path] = cut.data, cut.n_kept
        n_erased = sum(graves.buried.values())
        self._counts = sum(self._rows.values()), n_cut - n_erased, n_erased
        self.tombstones = tombstones
        self.needs_purge = n_erased > 0 or _has_news(snapshot, self._carrier)

    def _merged(
        self, snapshot: Snapshot, paths: Sequence[str], graves: Graves
    ) -> Iterator[tuple[list[str], Cut]]:
        """Yield groups of a folder's shards and what they become, where that is a change."""
        seen: set[str] = set()
        for group in self._groups(snapshot, paths):
            filtered = _Filter(graves, seen)
            while group:
                try:
                    cut = merge_shards(group.items(), is_cut=filtered.is_cut)
                except ForeignShardError as error:
                    self._carrier.foreign.add(error.path)
                    del group[error.path]
                    filtered.begin_again()
                    continue
                seen |= filtered.fresh
                if len(group) > 1 or cut.n_cut:
                    yield list(group), cut
                break

    def _groups(self, snapshot: Snapshot, paths: Sequence[str]) -> Iterator[dict[str, bytes]]:
        """Yield contents of shards that together have at most the rows of one shard."""
        group: dict[str, bytes] = {}
        n_rows = 0
        for path in paths:
            data = self._carrier.understood(_as_it_is, snapshot, path)
            if data is None:
                continue
            n_more = _n_rows(data)
            if group and n_rows + n_more > self._settings.max_rows:
                yield group
                group, n_rows = {}, 0
            group[path] = data
            n_rows += n_more
        if group:
            yield group

    def _small_files(self, snapshot: Snapshot) -> tuple[dict[str, bytes], list[str]]:
        """Return one file of all tombstones that are still of use, and what it replaces."""
        now = self._carrier.outbox.store.clock()
        horizon = now - timedelta(seconds=self._settings.keep_seconds)
        old = [
            path
            for path in layout.compactions_in(snapshot.files)
            if (made := layout.made_at(path)) is not None and made < horizon
        ]
        self._carrier.outbox.forget_tombstones(horizon)
        kept: dict[tuple[str, str], Tombstone] = {}
        replaced = []
        for path in layout.tombstone_files_in(snapshot.files):
            found = self._carrier.understood(layout.read_tombstones, snapshot, path)
            if found is not None:
                replaced.append(path)
                for t in found:
                    key = t.kind, t.digest
                    if t.requested >= to_ms(horizon) and (
                        key not in kept or kept[key].requested < t.requested
                    ):
                        kept[key] = t
        if not kept:
            return {}, [*old, *replaced]
        if len(replaced) == 1:
            return {}, old
        path = layout.tombstones_path(self._carrier.outbox.instance, now)
        return {path: layout.tombstones_bytes(list(kept.values()))}, [*old, *replaced]


class _Filter:
    """Passes the first row of each rating that is not buried.

    Attributes:
        fresh: The ratings asked about since the beginning.
    """

    def __init__(self, graves: Graves, seen: AbstractSet[str]) -> None:
        self._graves = graves
        self._seen = seen
        self._before = graves.buried.copy()
        self.fresh: set[str] = set()

    def is_cut(self, rater_id: str, rating_id: str, created_at: datetime) -> bool:
        """Return whether a row goes."""
        if rating_id in self._seen:
            return True
        self.fresh.add(rating_id)
        return self._graves.has_row(rater_id, rating_id, created_at)

    def begin_again(self) -> None:
        """Forget what was asked."""
        self._graves.buried = self._before.copy()
        self.fresh = set()


def _sources(carrier: Carrier, snapshot: Snapshot, settings: CompactionSettings) -> list[str]:
    """Return the shards that a compaction would take up."""
    readable = [p for p in layout.shards_in(snapshot.files) if p not in carrier.foreign]
    if _has_news(snapshot, carrier):
        return readable
    rows: Mapping[str, int] = {
        path: n for _, outputs in carrier.compactions(snapshot) for path, n in outputs.items()
    }
    # Two of more than half the size would not fit into one.
    loose = [path for path in readable if rows.get(path, 0) <= settings.max_rows // 2]
    folders = [layout.folder_of(path) for path in loose]
    return [path for path in loose if folders.count(layout.folder_of(path)) > 1]


def _has_news(snapshot: Snapshot, carrier: Carrier) -> bool:
    """Return whether rows were erased or taken back since the last compaction."""
    now = carrier.outbox.store.clock()
    last = _last(snapshot, now)
    made = _newest(layout.tombstone_files_in(snapshot.files), now)
    is_newer = made is not None and (last is None or made > last)
    # Where nothing sees that two change the same, one may have put back what the other erased.
    is_doubtful = made is not None and not carrier.remote.swaps
    return is_newer or is_doubtful or bool(carrier.outbox.tombstones("done IS NULL"))


def _last(snapshot: Snapshot, now: datetime) -> datetime | None:
    """Return when the last compaction was."""
    return _newest(layout.compactions_in(snapshot.files), now)


def _newest(paths: Iterable[str], now: datetime) -> datetime | None:
    """Return when the newest of these files was made, None if no name says so.

    One by a clock that runs far ahead says nothing: it would stop every compaction until then.
    """
    times = [layout.made_at(path) for path in paths]
    return max(
        (time for time in times if time is not None and time <= now + MOST_AHEAD), default=None
    )


def _as_it_is(data: bytes, /, *, path: str) -> bytes:  # noqa: ARG001
    return data


def _n_rows(data: bytes) -> int:
    """Return the rows of a shard, 0 if it cannot be read."""
    # Imported here: Arrow is only needed for parquet.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
    except (pa.ArrowException, OSError):
        return 0
