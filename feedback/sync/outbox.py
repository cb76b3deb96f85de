"""The store's side of carrying: which rows wait, which shard they go in, what the remote has.

Knows the store's tables, no network. A row is `new` until its shard was seen in the remote.
Long work is cut in pieces, between which other threads write.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from feedback.schema import Rating
from feedback.store.log import RatingStore
from feedback.store.tables import bury, insert_rows, parse_body
from feedback.store.tombstones import Graves, Tombstone, to_ms
from feedback.sync.layout import shard_path

UNREADABLE = "unreadable"
"""In place of a shard's path: the row breaks a rule and is carried nowhere."""
_NEVER = 1 << 48
_PIECE = 1000
_MANY = 10_000
Item = TypeVar("Item")


@dataclass(frozen=True)
class Counts:
    """What is where, without reading the rows.

    Attributes:
        new: Ratings that are only here.
        in_remote: Ratings that the remote has.
        oldest_new: When the oldest of the new ones was made, None without any.
        erasures: Raters whose erasure the remote has not finished.
        undone: Tombstones of single ratings that no file of the remote holds.
        unreadable: Rows that break a rule and are carried nowhere.
    """

    new: int
    in_remote: int
    oldest_new: datetime | None
    erasures: int
    undone: int
    unreadable: int


class Outbox:
    """What a store remembers of its remote."""

    def __init__(self, store: RatingStore) -> None:
        """Remember the store."""
        self.store = store
        self.instance = store.instance_id
        self._database = store.database

    def link(self, remote: str) -> None:
        """Remember that this remote was reached; rows that another one has are new to it."""
        if self.store.is_remote_known(remote):
            return
        with self._database.transaction() as connection:
            for statement in (
                "UPDATE event SET state = 'new', shard = NULL WHERE state <> 'new'",
                "UPDATE event SET shard = NULL WHERE shard IS NOT NULL",
                "DELETE FROM shard",
                "DELETE FROM seen",
                "UPDATE tombstone SET carried = NULL, done = NULL",
            ):
                connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('remote', ?)", (remote,))

    def counts(self) -> Counts:
        """Return how many rows and requests wait."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT (SELECT n FROM tally WHERE state = 'new'),"
                " (SELECT n FROM tally WHERE state = 'in_remote'),"
                " min(coalesce((SELECT min(created) FROM event"
                "  WHERE state = 'new' AND shard IS NULL), 1 << 49),"
                "  coalesce((SELECT min(oldest) FROM shard), 1 << 49)),"
                " (SELECT count(*) FROM tombstone WHERE done IS NULL AND kind = 'rater'),"
                " (SELECT count(*) FROM tombstone WHERE carried IS NULL AND kind = 'rating'),"
                " (SELECT count(*) FROM event WHERE shard = ?)",
                (UNREADABLE,),
            ).fetchone()
        oldest = None if row[2] > _NEVER else datetime.fromtimestamp(row[2] / 1000, UTC)
        return Counts(row[0], row[1], oldest, *row[3:])

    # --- Shards --------------------------------------------------------------------------------

    def shards(self) -> list[str]:
        """Return the paths of shards that were cut and are not known to be in the remote."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT path FROM shard ORDER BY made, path").fetchall()
        return [path for (path,) in rows]

    def cut(self, *, max_rows: int) -> str | None:
        """Record a new shard of the oldest new rows, of one month, and return its path.

        In one step: another process may send the shard as soon as it is recorded, and what is
        recorded later would be taken for sent.

        Returns:
            None if no row waits for a shard.
        """
        with self._database.transaction() as connection:
            oldest = connection.execute(
                "SELECT created FROM event WHERE state = 'new' AND shard IS NULL"
                " ORDER BY created LIMIT 1"
            ).fetchone()
            if oldest is None:
                return None
            now = self.store.clock()
            first = datetime.fromtimestamp(oldest[0] / 1000, UTC)
            next_month = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
            midnight = next_month.replace(hour=0, minute=0, second=0, microsecond=0)
            path = shard_path(self.instance, f"{first:%Y-%m}", now)
            connection.execute("INSERT INTO shard VALUES (?, ?, ?)", (path, to_ms(now), oldest[0]))
            connection.execute(
                "UPDATE event SET shard = ? WHERE seq IN (SELECT seq FROM event"
                " WHERE state = 'new' AND shard IS NULL AND created < ? ORDER BY created LIMIT ?)",
                (path, to_ms(midnight), max_rows),
            )
        return path

    def rows_of(self, path: str) -> list[Rating]:
        """Return the rows of a shard that are still wanted, in the order they were kept."""
        rows: list[Rating] = []
        unreadable: list[int] = []
        for seq, rater_id, body in self._walk("event WHERE shard = :path", path=path):
            parsed = parse_body(rater_id, body)
            if isinstance(parsed, Rating):
                rows.append(parsed)
            else:
                unreadable.append(seq)
        for piece in _cut(unreadable, _PIECE):
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE event SET shard = ? WHERE seq IN (SELECT value FROM json_each(?))",
                    (UNREADABLE, json.dumps(piece)),
                )
        return rows

    def settle(self, path: str, digest: str | None) -> None:
        """Mark the rows of a shard as in the remote, and forget the shard.

        Args:
            path: The shard.
            digest: Its digest there, None if its rows came to lie in another shard.
        """
        while True:
            with self._database.transaction() as connection:
                n_found = connection.execute(
                    "UPDATE event SET state = 'in_remote', shard = NULL WHERE seq IN"
                    " (SELECT seq FROM event WHERE shard = ? LIMIT ?)",
                    (path, _PIECE),
                ).rowcount
                if n_found == 0:
                    connection.execute("DELETE FROM shard WHERE path = ?", (path,))
                    if digest is not None:
                        _see(connection, path, digest)
                    return

    # --- What the remote has -------------------------------------------------------------------

    def unseen(self, files: Mapping[str, str], paths: Iterable[str]) -> list[str]:
        """Return those paths of a snapshot that were not read yet in this state."""
        with self._database.reading() as connection:
            seen = dict(connection.execute("SELECT path, digest FROM seen").fetchall())
        return [path for path in paths if seen.get(path) != files[path]]

    def forget_gone(self, files: Mapping[str, str]) -> None:
        """Drop what is remembered of files that a snapshot does not have any more."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM seen WHERE path NOT IN (SELECT value FROM json_each(?))",
                (json.dumps(list(files)),),
            )

    def see(self, path: str, digest: str) -> None:
        """Remember that a file of the remote was read."""
        with self._database.transaction() as connection:
            _see(connection, path, digest)

    def take_in(self, rows: Sequence[Rating], path: str, digest: str) -> int:
        """Keep a shard's rows as rows the remote has, and return how many are new here.

        Buried ones are passed over.
        """
        graves = Graves(self.tombstones())
        wanted = [r for r in rows if not graves.has_row(r.rater_id, r.rating_id, r.created_at)]
        n_new = 0
        for piece in _cut(wanted, _PIECE):
            with self._database.transaction() as connection:
                n_new += insert_rows(connection, piece, state="in_remote")
                connection.execute(
                    "UPDATE event SET state = 'in_remote', shard = NULL WHERE state = 'new'"
                    " AND rating_id IN (SELECT value FROM json_each(?))",
                    (json.dumps([row.rating_id for row in piece]),),
                )
        self.see(path, digest)
        return n_new

    # --- Tombstones ----------------------------------------------------------------------------

    def tombstones(self, condition: str = "1") -> list[Tombstone]:
        """Return the tombstones that satisfy a condition of this module's own."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT kind, digest, requested FROM tombstone WHERE {condition}"  # noqa: S608
            ).fetchall()
        return [Tombstone(*row) for row in rows]

    def uncarried(self) -> list[Tombstone]:
        """Return the tombstones that no file of the remote holds."""
        return self.tombstones("carried IS NULL")

    def mark_carried(self, tombstones: Sequence[Tombstone]) -> None:
        """Remember that these are in a file of the remote."""
        self._mark("carried", tombstones)

    def mark_done(self, tombstones: Sequence[Tombstone]) -> None:
        """Remember that the remote holds no row these forbid, nor did in any state it serves."""
        self._mark("done", tombstones)

    def learn(self, tombstones: Sequence[Tombstone]) -> int:
        """Bury what another replica was asked to forget, and return how many rows went.

        The tombstones are kept before the rows go, and the rows before their traces: after a
        crash at any point the next call goes on.
        """
        with self._database.transaction() as connection:
            known = _known(connection)
            # Unless a removal was cut short, what is known has done its work here.
            is_whole = "unscrubbed" not in _meta(connection)
            fresh = [t for t in tombstones if known.get((t.kind, t.digest), -1) < t.requested]
            wanted = fresh if is_whole else tombstones
            if not wanted:
                return 0
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('unscrubbed', '1')")
            bury(connection, fresh, carried=to_ms(self.store.clock()))
        graves = Graves(wanted)
        n_removed = 0
        dead = (
            seq
            for seq, rater_id, rating_id, created in self._walk(
                "event WHERE 1", "rater_id, rating_id, created"
            )
            if graves.has_row(rater_id, rating_id, datetime.fromtimestamp(created / 1000, UTC))
        )
        for piece in _cut(dead, _PIECE):
            with self._database.transaction() as connection:
                n_removed += connection.execute(
                    "DELETE FROM event WHERE seq IN (SELECT value FROM json_each(?))",
                    (json.dumps(piece),),
                ).rowcount
        self.scrub(is_needed=n_removed > 0 or not is_whole)
        return n_removed

    def scrub(self, *, is_needed: bool = True) -> None:
        """Remove the traces of rows that were erased, if that was asked for and is not done.

        Raises:
            BusyStoreError: Another process reads; the next call tries again.
        """
        with self._database.reading() as connection:
            is_due = "unscrubbed" in _meta(connection)
        if is_due:
            if is_needed:
                self._database.scrub()
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM meta WHERE key = 'unscrubbed'")

    def forget_tombstones(self, before: datetime) -> None:
        """Drop tombstones that did their work before a time."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM tombstone WHERE done IS NOT NULL AND requested < ?", (to_ms(before),)
            )

    # --- Receipts ------------------------------------------------------------------------------

    def put_receipt(self, number: str, body: str) -> None:
        """Keep the newest state of a receipt."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO receipt VALUES (?, ?)", (number, body))

    def receipt(self, number: str) -> str | None:
        """Return the newest state of a receipt, None if this store gave none of that number."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT body FROM receipt WHERE number = ?", (number,)
            ).fetchone()
        return None if row is None else str(row[0])

    def requests(self) -> dict[str, list[Tombstone]]:
        """Return the erasures the remote has not finished, by receipt; "" for those without."""
        found: dict[str, list[Tombstone]] = {}
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT coalesce(receipt, ''), kind, digest, requested FROM tombstone"
                " WHERE done IS NULL AND kind = 'rater' ORDER BY requested"
            ).fetchall()
        for number, *tombstone in rows:
            found.setdefault(number, []).append(Tombstone(*tombstone))
        return found

    def _mark(self, column: str, tombstones: Sequence[Tombstone]) -> None:
        now = to_ms(self.store.clock())
        with self._database.transaction() as connection:
            # With the time: a later request for the same rater is another one.
            connection.executemany(
                f"UPDATE tombstone SET {column} = ?"  # noqa: S608
                " WHERE kind = ? AND digest = ? AND requested = ?",
                [(now, t.kind, t.digest, t.requested) for t in tombstones],
            )

    def _walk(
        self, source: str, columns: str = "rater_id, body", **values: object
    ) -> Iterator[tuple[Any, ...]]:
        """Yield `seq` and columns of rows in the order they were kept, without holding the lock."""
        last = -1
        statement = f"SELECT seq, {columns} FROM {source} AND seq > :last ORDER BY seq LIMIT :n"  # noqa: S608
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(statement, values | {"last": last, "n": _MANY}).fetchall()
            yield from rows
            if len(rows) < _MANY:
                return
            last = rows[-1][0]


def _meta(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def _known(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Return when each tombstone was asked for."""
    rows = connection.execute("SELECT kind, digest, requested FROM tombstone").fetchall()
    return {(kind, digest): requested for kind, digest, requested in rows}


def _see(connection: sqlite3.Connection, path: str, digest: str) -> None:
    connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (path, digest))


def _cut(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of at most `size`."""
    piece: list[Item] = []
    for item in items:
        piece.append(item)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
