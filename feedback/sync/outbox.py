"""The store's side of carrying: which rows wait, which shard they go in, what the remote has.

Knows the store's tables, no network. A row is `new` until its shard was seen in the remote.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feedback.schema import Rating
from feedback.store.tables import insert_rows, parse_body, tombstones_of
from feedback.store.tombstones import Graves, to_ms
from feedback.sync import memory
from feedback.sync.layout import shard_path
from feedback.sync.memory import UNREADABLE, Memory, forget_gone, pieces

_NEVER = 1 << 48


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


class Outbox(Memory):
    """The rows of a store, seen from the way to its remote."""

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

    def last_row(self) -> int:
        """Return a number that no row kept so far exceeds."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()[0])

    def cut(self, *, max_rows: int, last: int) -> str | None:
        """Record a new shard of the oldest new rows, of one month, and return its path.

        In one step: another process may send the shard as soon as it is recorded, and what is
        recorded later would be taken for sent.

        Args:
            max_rows: Most rows of the shard.
            last: From `last_row`: rows that came later wait for the next round.

        Returns:
            None if no row waits for a shard.
        """
        with self._database.transaction() as connection:
            oldest = connection.execute(
                "SELECT created FROM event WHERE state = 'new' AND shard IS NULL AND seq <= ?"
                " ORDER BY created LIMIT 1",
                (last,),
            ).fetchone()
            if oldest is None:
                return None
            now = self.store.clock()
            first = datetime.fromtimestamp(oldest[0] / 1000, UTC)
            next_month = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
            midnight = next_month.replace(hour=0, minute=0, second=0, microsecond=0)
            path = shard_path(self.instance, f"{first.year:04}-{first.month:02}", now)
            connection.execute("INSERT INTO shard VALUES (?, ?, ?)", (path, to_ms(now), oldest[0]))
            connection.execute(
                "UPDATE event SET shard = ? WHERE seq IN (SELECT seq FROM event"
                " WHERE state = 'new' AND shard IS NULL AND created < ? AND seq <= ?"
                " ORDER BY created LIMIT ?)",
                (path, to_ms(midnight), last, max_rows),
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
        for piece in pieces(unreadable):
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
            with self._writing() as connection:
                n_found = connection.execute(
                    "UPDATE event SET state = 'in_remote', shard = NULL WHERE seq IN"
                    " (SELECT seq FROM event WHERE shard = ? LIMIT ?)",
                    (path, memory.PIECE),
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
        with self._writing() as connection:
            forget_gone(connection, files)

    def see(self, path: str, digest: str) -> None:
        """Remember that a file of the remote was read."""
        with self._writing() as connection:
            _see(connection, path, digest)

    def take_in(self, rows: Sequence[Rating], path: str, digest: str) -> int:
        """Keep a shard's rows as rows the remote has, and return how many are new here.

        Buried ones are passed over.
        """
        n_new = 0
        for piece in pieces(rows):
            with self._writing() as connection:
                # In the same transaction: an erasure by another thread must not slip in between.
                graves = Graves(tombstones_of(connection, piece))
                wanted = [
                    r for r in piece if not graves.has_row(r.rater_id, r.rating_id, r.created_at)
                ]
                n_new += insert_rows(connection, wanted, state="in_remote")
                connection.execute(
                    "UPDATE event SET state = 'in_remote', shard = NULL WHERE state = 'new'"
                    " AND rating_id IN (SELECT value FROM json_each(?))",
                    (json.dumps([row.rating_id for row in wanted]),),
                )
        self.see(path, digest)
        return n_new

    def gone(self, files: Mapping[str, str]) -> list[str]:
        """Return the paths that were read or sent and that a snapshot does not have any more."""
        with self._database.reading() as connection:
            seen = connection.execute("SELECT path FROM seen").fetchall()
        return [path for (path,) in seen if path not in files]

    def give_back(self, there: AbstractSet[str]) -> int:
        """Make those rows new again that are not there any more, and return how many.

        Args:
            there: Ids of all ratings in the remote.
        """
        lost = (
            seq
            for seq, rating_id in self._walk("event WHERE state = 'in_remote'", "rating_id")
            if rating_id not in there
        )
        n_lost = 0
        for piece in pieces(lost):
            with self._writing() as connection:
                n_lost += connection.execute(
                    "UPDATE event SET state = 'new' WHERE seq IN (SELECT value FROM json_each(?))",
                    (json.dumps(piece),),
                ).rowcount
                # Whoever else gives rows back must know first which ones not to.
                connection.execute("UPDATE tombstone SET carried = NULL")
        return n_lost


def _see(connection: sqlite3.Connection, path: str, digest: str) -> None:
    connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (path, digest))
