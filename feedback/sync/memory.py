"""What a store remembers of its remote besides rows: the link, tombstones, receipts, what is due.

Knows the store's tables, no network. Long work is cut in pieces, between which other threads write.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from feedback.errors import StaleSnapshotError
from feedback.store.log import RatingStore
from feedback.store.tables import bury, mark_unscrubbed
from feedback.store.tombstones import Graves, Tombstone, to_ms

PIECE = 1000
"""Rows written in one transaction."""
_MANY = 10_000
UNREADABLE = "unreadable"
"""In place of a shard's path: the row breaks a rule and is carried nowhere."""
_RECEIPTS = ","
Item = TypeVar("Item")


class Memory:
    """What a store remembers of its remote.

    Attributes:
        store: The store.
        instance: Its random name.
    """

    def __init__(self, store: RatingStore) -> None:
        """Remember the store."""
        self.store = store
        self.instance = store.instance_id
        self._database = store.database
        self._remote: str | None = None
        self._note_place()

    # --- The link ------------------------------------------------------------------------------

    def link(self, remote: str) -> bool:
        """Remember that this remote was reached; rows that another one has are new to it.

        Returns:
            Whether another one, or none, was reached before.
        """
        self._remote = remote
        if self.store.is_remote_known(remote):
            return False
        with self._database.transaction() as connection:
            for statement in (
                "UPDATE event SET state = 'new', shard = NULL WHERE state <> 'new'",
                "UPDATE event SET shard = NULL WHERE shard IS NOT NULL",
                "DELETE FROM shard",
                "DELETE FROM seen",
                "DELETE FROM meta WHERE key = 'looked'",
                "UPDATE tombstone SET carried = NULL, done = NULL",
            ):
                connection.execute(statement)
            if "remote" in meta(connection):
                remember(connection, relinked="1")
            remember(connection, remote=remote)
        return True

    def linked(self) -> str | None:
        """Return the name of the remote that was reached last, None if none ever was."""
        with self._database.reading() as connection:
            return meta(connection).get("remote")

    def is_relinked(self) -> bool:
        """Return whether the remote may have rows that wait here, as after a change of remotes.

        So it is too when this store's file is a copy: what the first one carried waits in it.
        """
        with self._database.reading() as connection:
            return "relinked" in meta(connection)

    def mark_restored(self) -> None:
        """Remember that the remote was read whole."""
        with self._writing() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'relinked'")

    def note_look(self, files: Mapping[str, str], *, trust: timedelta) -> None:
        """Remember that the remote's tombstones are known.

        Args:
            files: What the remote holds.
            trust: After a longer absence nothing is concluded from files that are gone: the
                tombstones that would explain it may be gone too.
        """
        with self._writing() as connection:
            now = to_ms(self.store.clock())
            last = int(meta(connection).get("looked", now))
            if now - last > trust / timedelta(milliseconds=1):
                forget_gone(connection, files)
            remember(connection, looked=str(now))

    # --- What a purge still has to do ----------------------------------------------------------

    def is_purge_due(self) -> bool:
        """Return whether the remote may store rows that no file names and that must go."""
        with self._database.reading() as connection:
            found = meta(connection)
        return "purge_due" in found and found["purge_due"] == found.get("remote")

    def note_purge_due(self) -> None:
        """Remember that."""
        with self._writing() as connection:
            _note_purge_due(connection)

    def old_revisions(self) -> list[str]:
        """Return the commits that a purge, perhaps of an earlier process, removed unverified."""
        with self._database.reading() as connection:
            found: list[str] = json.loads(meta(connection).get("old_revisions", "[]"))
        return found

    def note_old_revisions(self, revisions: Collection[str]) -> None:
        """Remember the commits that a purge is about to remove."""
        with self._writing() as connection:
            remember(connection, old_revisions=json.dumps(sorted(revisions)))

    def note_purged(self) -> None:
        """Remember that a purge removed and verified everything."""
        with self._writing() as connection:
            connection.execute("DELETE FROM meta WHERE key IN ('purge_due', 'old_revisions')")

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
        """Remember that these are in a file of the remote.

        Raises:
            StaleSnapshotError: The store is carried to another one meanwhile, as for all below.
        """
        self._mark("carried", tombstones)

    def mark_done(self, tombstones: Sequence[Tombstone]) -> None:
        """Remember that the remote holds no row these forbid, nor did in any state it serves."""
        self._mark("done", tombstones)

    def learn(self, tombstones: Sequence[Tombstone]) -> int:
        """Bury what another replica was asked to forget, and return how many rows went.

        The tombstones are kept before the rows go: after a crash at any point the next call goes
        on. The rows' traces are left to the store's `scrub`.
        """
        with self._writing() as connection:
            known = _known(connection)
            # Unless a removal was cut short, what is known has done its work here.
            is_whole = "unburied" not in meta(connection)
            fresh = [t for t in tombstones if known.get((t.kind, t.digest), -1) < t.requested]
            wanted = fresh if is_whole else tombstones
            if not wanted:
                return 0
            remember(connection, unburied="1")
            bury(connection, fresh, carried=to_ms(self.store.clock()))
        n_removed = sum(map(self._remove, pieces(self._dead(Graves(wanted)))))
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM meta WHERE key = 'unburied'")
        return n_removed

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
        for numbers, *tombstone in rows:
            for number in numbers.split(_RECEIPTS):
                found.setdefault(number, []).append(Tombstone(*tombstone))
        return found

    def _mark(self, column: str, tombstones: Sequence[Tombstone]) -> None:
        now = to_ms(self.store.clock())
        with self._writing() as connection:
            # With the time: a later request for the same rater is another one.
            connection.executemany(
                f"UPDATE tombstone SET {column} = ?"  # noqa: S608
                " WHERE kind = ? AND digest = ? AND requested = ?",
                [(now, t.kind, t.digest, t.requested) for t in tombstones],
            )

    # --- For this class and those made of it ----------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a transaction in which the store is still linked to the remote that was reached.

        Raises:
            StaleSnapshotError: Somebody else carries this store to another one.
        """
        with self._database.transaction() as connection:
            if self._remote is not None and meta(connection).get("remote") != self._remote:
                raise StaleSnapshotError(
                    "A store must be carried to one remote at a time, got another one meanwhile. "
                    "Nothing is lost; end the other program that uses this store."
                )
            yield connection

    def _note_place(self) -> None:
        """Notice that the store's file is a copy: then the remote has to be read first."""
        found = self.store.path.stat()
        place = f"{found.st_dev}:{found.st_ino}"
        with self._database.transaction() as connection:
            before = meta(connection).get("place")
            if before not in (None, place):
                remember(connection, relinked="1")
            if before != place:
                remember(connection, place=place)

    def _dead(self, graves: Graves) -> Iterator[int]:
        """Yield `seq` of the rows that are buried."""
        columns = "rater_id, rating_id, created"
        for seq, rater_id, rating_id, created in self._walk("event WHERE 1", columns):
            if graves.has_row(rater_id, rating_id, datetime.fromtimestamp(created / 1000, UTC)):
                yield seq

    def _remove(self, seqs: Sequence[int]) -> int:
        """Remove rows and return how many those were."""
        chosen = "FROM event WHERE seq IN (SELECT value FROM json_each(?))"
        given = json.dumps(seqs)
        with self._database.transaction() as connection:
            # What was cut into a shard may be stored in the remote, by a commit that failed.
            sent = f"SELECT 1 {chosen} AND shard <> ? LIMIT 1"
            if connection.execute(sent, (given, UNREADABLE)).fetchone():
                _note_purge_due(connection)
            mark_unscrubbed(connection)
            return connection.execute(f"DELETE {chosen}", (given,)).rowcount

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


def meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what is remembered by name."""
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def remember(connection: sqlite3.Connection, **values: str) -> None:
    """Remember values by name, in place of earlier ones."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def pieces(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in lists that fit into one transaction."""
    piece: list[Item] = []
    for item in items:
        piece.append(item)
        if len(piece) == PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def forget_gone(connection: sqlite3.Connection, files: Iterable[str]) -> None:
    """Drop what is remembered of files that are not there any more."""
    connection.execute(
        "DELETE FROM seen WHERE path NOT IN (SELECT value FROM json_each(?))",
        (json.dumps(list(files)),),
    )


def _note_purge_due(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta SELECT 'purge_due', value FROM meta WHERE key = 'remote'"
    )


def _known(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Return when each tombstone was asked for."""
    rows = connection.execute("SELECT kind, digest, requested FROM tombstone").fetchall()
    return {(kind, digest): requested for kind, digest, requested in rows}
