"""Erasing raters from a remote down to its history, and the receipt; knows no schedule.

The order is what makes a crash harmless: tombstones are kept here before the remote is touched,
and are done only after the remote was read again without a row of theirs.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self

from feedback.dataset.shard import Cut, cut_rows
from feedback.errors import StaleSnapshotError
from feedback.remote.base import Purge, Snapshot
from feedback.store.tombstones import Graves, Tombstone
from feedback.sync import layout
from feedback.sync.carrier import Carrier, Change, Reader

DUE = timedelta(hours=24)
"""Within which the remote is cleared, said on the receipt."""
_TIMES = ("requested", "finished", "due")


@dataclass(frozen=True)
class Receipt:
    """What an erasure removed; no id of anyone is in it.

    Attributes:
        number: Random.
        requested: When it was asked for.
        finished: When the remote was read again without a row; None while that is pending.
        due: When it will be, at the latest; None once finished, and where the remote that has
            rows of this store is not attached, so that nobody can say when.
        remote: The remote's name.
        rows_local: Ratings removed from the store.
        rows_remote: Ratings removed from the remote.
        shards: Files of the remote that were rewritten or deleted.
        revisions: Old commits that no longer answer.
        blobs: Old contents that were deleted for good.
        refs: Branches, tags and pull request refs that were removed.
        unreadable_shards: Damaged or foreign parquet files of the remote, left alone and not
            searched.
    """

    number: str
    requested: datetime
    finished: datetime | None
    due: datetime | None
    remote: str
    rows_local: int
    rows_remote: int = 0
    shards: int = 0
    revisions: int = 0
    blobs: int = 0
    refs: int = 0
    unreadable_shards: int = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is pending."""
        return self.finished is not None

    def sentence(self) -> str:
        """Return the receipt in words, for the one who asked."""
        text = f"Receipt {self.number}: {self.rows_local} ratings were erased here"
        if self.due is not None:
            return (
                f"{text}. {self.remote[:1].upper()}{self.remote[1:]} is cleared by "
                f"{self.due:%Y-%m-%d %H:%M} UTC."
            )
        if self.finished is None:
            return (
                f"{text}. {self.remote[:1].upper()}{self.remote[1:]} has its copy still, which is "
                "cleared as soon as this store is carried there again."
            )
        if self.shards or self.revisions or self.rows_remote:
            text += (
                f" and {self.rows_remote} in {self.remote}, with {self.revisions} old revisions "
                f"and {self.blobs} old files"
            )
        if self.unreadable_shards:
            text += f"; {self.unreadable_shards} files there cannot be read and were left alone"
        return f"{text}."

    def as_record(self) -> dict[str, Any]:
        """Return the receipt as JSON values."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in _TIMES:
            record[name] = record[name] and record[name].isoformat(timespec="seconds")
        return record

    def as_json(self) -> str:
        """Return the receipt as one line of JSON."""
        return json.dumps(self.as_record(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return a receipt kept as JSON."""
        record = json.loads(text)
        for name in _TIMES:
            record[name] = record[name] and datetime.fromisoformat(record[name])
        return cls(**record)


def request(carrier: Carrier, rater_ids: Sequence[str]) -> Receipt:
    """Erase raters from the store at once, and note that the remote has to follow.

    Args:
        carrier: The store's way to its remote.
        rater_ids: Whose rows go.

    Returns:
        A receipt; done already if this store was never carried anywhere.

    Raises:
        BusyStoreError: The rows are gone, but another process kept their traces; erase again.
    """
    outbox = carrier.outbox
    now = outbox.store.clock().replace(microsecond=0)
    number = secrets.token_hex(8)
    rows = outbox.store.remove_raters(rater_ids, receipt=number)
    receipt = Receipt(number, now, None, now + DUE, carrier.remote.name, rows)
    if not carrier.remote.keeps:
        # A remote that is attached later still gets the tombstones.
        linked = outbox.linked()
        receipt = replace(
            receipt, due=None, remote=linked or receipt.remote, finished=None if linked else now
        )
    _put(carrier, receipt)
    outbox.store.scrub()
    return receipt


def clear_remote(carrier: Carrier) -> None:
    """Remove from the remote, and from its history, what erased raters left there, verified.

    Does nothing if no erasure is pending. Safe to repeat after any failure.

    Raises:
        RemoteError: It does not answer or refused; the erasure stays pending.
    """
    requests = carrier.outbox.requests()
    if requests:
        search = _Search(carrier)
        purges: list[Purge] = []
        carrier.steady(lambda: purges.append(_clear_once(carrier, search, requests)))
        _finish(carrier, search, requests, purges[-1])


class _Search:
    """Looks for rows of the erased in a remote's shards, each state of each shard once.

    Attributes:
        tombstones: What must be found.
        found: Rows to be removed in the last plan, by the digest of their rater, for each shard.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._clean: dict[str, str] = {}
        self.tombstones: list[Tombstone] = []
        self.found: dict[str, Counter[str]] = {}

    def plan(self, snapshot: Snapshot) -> Change:
        """Return the change after which no row of the erased is in the newest state."""
        self.tombstones = self._carrier.outbox.tombstones()
        self.found = {}
        add: dict[str, bytes] = {}
        delete: list[str] = []
        # All files that may hold rows, not only those where this program puts them.
        for path in layout.parquets_in(snapshot.files):
            if self._clean.get(path) == snapshot.files[path]:
                continue
            graves = Graves(self.tombstones)
            cut = self._carrier.understood(_cutter(graves), snapshot, path)
            if cut is None:
                continue
            if cut.n_cut == 0:
                self._clean[path] = snapshot.files[path]
                continue
            self.found[path] = graves.buried
            if cut.data is None:
                delete.append(path)
            else:
                add[path] = cut.data
        return self._carrier.with_tombstones(Change("Ratings erased", add, delete))


def _cutter(graves: Graves) -> Reader[Cut]:
    def read(data: bytes, /, *, path: str) -> Cut:
        return cut_rows(data, graves.has_row, path=path)

    return read


def _clear_once(
    carrier: Carrier, search: _Search, requests: Mapping[str, Sequence[Tombstone]]
) -> Purge:
    """Rewrite what has rows of the erased, purge what had, and look again.

    Raises:
        StaleSnapshotError: Others changed the remote meanwhile.
    """
    found: dict[str, Counter[str]] = {}

    def plan(snapshot: Snapshot) -> Change:
        change = search.plan(snapshot)
        found.clear()
        found.update(search.found)
        return change

    carrier.swap(plan)
    _note(carrier, requests, found)
    purge = carrier.purge()
    search.plan(carrier.look())
    if search.found:
        raise StaleSnapshotError(
            f"{carrier.remote.name} must hold no row of the erased after the purge, got some that "
            "came meanwhile. They are removed in the next try."
        )
    return purge


def _note(
    carrier: Carrier,
    requests: Mapping[str, Sequence[Tombstone]],
    found: Mapping[str, Counter[str]],
) -> None:
    """Add what was removed from the remote to the receipts, before a crash can forget it."""
    for number, tombstones in requests.items():
        digests = [tombstone.digest for tombstone in tombstones]
        rows = [sum(buried[digest] for digest in digests) for buried in found.values()]
        if (receipt := receipt_of(carrier, number)) is not None and any(rows):
            _put(
                carrier,
                replace(
                    receipt,
                    rows_remote=receipt.rows_remote + sum(rows),
                    shards=receipt.shards + sum(map(bool, rows)),
                ),
            )


def _finish(
    carrier: Carrier,
    search: _Search,
    requests: Mapping[str, Sequence[Tombstone]],
    purge: Purge,
) -> None:
    """Complete the receipts, then mark the tombstones, so that no receipt stays pending."""
    now = carrier.outbox.store.clock().replace(microsecond=0)
    for number in requests:
        if (receipt := receipt_of(carrier, number)) is not None:
            _put(
                carrier,
                replace(
                    receipt,
                    finished=now,
                    due=None,
                    remote=carrier.remote.name,
                    revisions=purge.revisions,
                    blobs=purge.blobs,
                    refs=purge.refs,
                    unreadable_shards=len(layout.parquets_in(carrier.foreign)),
                ),
            )
    # What was asked for meanwhile has its own receipt, and is done with that.
    mine = {tombstone for asked in requests.values() for tombstone in asked}
    carrier.outbox.mark_done([t for t in search.tombstones if t.kind == "rating" or t in mine])


def receipt_of(carrier: Carrier, number: str) -> Receipt | None:
    """Return the newest state of a receipt, None if this store gave none of that number."""
    body = carrier.outbox.receipt(number)
    return None if body is None else Receipt.from_json(body)


def _put(carrier: Carrier, receipt: Receipt) -> None:
    carrier.outbox.put_receipt(receipt.number, receipt.as_json())
