"""The durable local log of ratings; knows rows, pages and one SQLite file, no network, no keys.

What `RatingStore.add_page` has returned from survives the death of the process. What
`RatingStore.erase_rater` has returned from is in none of the store's files any more.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from feedback.database import Database
from feedback.errors import (
    CorruptStoreError,
    ErasedRaterError,
    InvalidRatingError,
    UsedPageError,
)
from feedback.page import Page, check_rows
from feedback.schema import Rating, parse_ratings

DATABASE_NAME = "ratings.sqlite3"
"""The store's file in a `--store` folder."""
_BATCH = 500
_ALL_ROWS = "SELECT seq, rater_id, body FROM event WHERE seq > :last ORDER BY seq LIMIT :batch"
_ONE_RATERS_ROWS = _ALL_ROWS.replace("WHERE", "WHERE rater_id = :rater AND")


@dataclass(frozen=True)
class StoreStats:
    """Counts of a store.

    Attributes:
        rows: Ratings kept.
        raters: Raters with at least one rating.
        pages: Pages with at least one rating.
        outbox_rows: Ratings not yet carried to a remote.
        tombstones: Undone ratings and erased raters that other copies must not bring back.
    """

    rows: int
    raters: int
    pages: int
    outbox_rows: int
    tombstones: int


class RatingStore:
    """One SQLite file of ratings, safe for threads of one process and for several processes.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RatingStore(pathlib.Path(folder) / "ratings.sqlite3") as store:
        ...         store.stats().rows
        0
    """

    def __init__(
        self,
        path: Path | str,
        *,
        create: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open the store, or make it.

        Args:
            path: The database file; its folder is made if missing.
            create: Whether a missing file is made.
            clock: Gives the time in UTC.

        Raises:
            StoreError: `path` is a folder, is missing and not to be made, or cannot be written.
            CorruptStoreError: The file is damaged or is no store; it is left as it is.
        """
        self.path = Path(path)
        self._clock = clock
        self._database = Database(self.path, create=create)

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the store; closing twice is fine."""
        self._database.close()

    def add_page(self, page: Page, rows: Sequence[Rating]) -> None:
        """Keep all rows of an answered page, or none; durable when it returns.

        Without rows, as without consent, nothing at all is written.

        Args:
            page: As opened from its token.
            rows: From `rows_of_page`.

        Raises:
            InvalidRatingError: A row says something else than the page showed.
            UsedPageError: The page was answered before.
            ErasedRaterError: The rater was erased after these answers were given.
            StoreError: The store cannot be written.
        """
        if not rows:
            return
        check_rows(page, rows)
        with self._database.transaction() as connection:
            _refuse_erased(connection, rows)
            self._forget_expired_pages(connection)
            try:
                connection.execute(
                    "INSERT INTO page (digest, expires) VALUES (?, ?)",
                    (_digest(page.page_id), _to_ms(page.expires_at)),
                )
                connection.executemany(
                    "INSERT INTO event (rating_id, rater_id, page_id, body, created) "
                    "VALUES (?, ?, ?, ?, ?)",
                    [
                        (r.rating_id, r.rater_id, r.page_id, r.as_json(), _to_ms(r.created_at))
                        for r in rows
                    ],
                )
            except sqlite3.IntegrityError as error:
                raise UsedPageError(
                    "A page must be answered once, got a second answer; the first one is kept. "
                    "Go on to the next page, or undo the first answer."
                ) from error

    def undo(self, rating_ids: Sequence[str], *, rater_id: str) -> int:
        """Take back ratings of one rater for good, leaving a tombstone for each.

        Args:
            rating_ids: The ratings; those already taken back are passed over.
            rater_id: Whose they must be.

        Returns:
            How many rows were removed.

        Raises:
            InvalidRatingError: A rating is not here or is another rater's; nothing is removed.
        """
        removed = 0
        with self._database.transaction() as connection:
            for rating_id in rating_ids:
                if _buried_at(connection, "rating", rating_id) is not None:
                    continue
                found = connection.execute(
                    "DELETE FROM event WHERE rating_id = ? AND rater_id = ?", (rating_id, rater_id)
                ).rowcount
                if not found:
                    raise InvalidRatingError(
                        "`rating_ids` must be ratings of this rater that are kept here, got "
                        "another. Nothing was undone."
                    )
                self._bury(connection, "rating", rating_id)
                removed += found
        return removed

    def erase_rater(self, rater_id: str) -> int:
        """Remove every rating of a rater, down to the bytes of the store's files.

        What they answer later is kept again, if they consent again.

        Returns:
            How many rows were removed.

        Raises:
            BusyStoreError: The rows are gone, but another process kept their traces in the
                write-ahead log; erase again.
        """
        with self._database.transaction() as connection:
            removed = connection.execute(
                "DELETE FROM event WHERE rater_id = ?", (rater_id,)
            ).rowcount
            self._bury(connection, "rater", rater_id)
        self._database.scrub()
        return removed

    def ratings(self, rater_id: str | None = None) -> Iterator[Rating]:
        """Yield the ratings in the order they were kept, all or one rater's.

        Raises:
            CorruptStoreError: A row does not follow its rules.
        """
        for row_rater, body in self._bodies(rater_id):
            parsed = _parse_body(row_rater, body)
            if not isinstance(parsed, Rating):
                raise CorruptStoreError(
                    f"Every row of {self.path} must follow the schema, got one that does not. "
                    "List the faults with `python -m feedback validate`."
                )
            yield parsed

    def stats(self) -> StoreStats:
        """Return counts of rows, raters, pages, outbox and tombstones."""
        with self._database.reading() as connection:
            counts = connection.execute(
                "SELECT count(*), count(DISTINCT rater_id), count(DISTINCT page_id),"
                " count(*) FILTER (WHERE state = 'new'), (SELECT count(*) FROM tombstone)"
                " FROM event"
            ).fetchone()
        return StoreStats(*counts)

    def problems(self) -> Iterator[str]:
        """Yield one sentence for each fault of the file and of every row in it."""
        with self._database.reading() as connection:
            verdicts = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        yield from (f"The database file: {verdict}." for verdict in verdicts if verdict != "ok")
        for number, (rater_id, body) in enumerate(self._bodies(None), 1):
            parsed = _parse_body(rater_id, body)
            if not isinstance(parsed, Rating):
                yield from (f"Row {number}: {fault}" for fault in parsed)

    def _bodies(self, rater_id: str | None) -> Iterator[tuple[str, str]]:
        """Yield rater id and body in batches, so that no reader holds back an erasure."""
        statement = _ALL_ROWS if rater_id is None else _ONE_RATERS_ROWS
        last = -1
        while True:
            with self._database.reading() as connection:
                values = {"rater": rater_id, "last": last, "batch": _BATCH}
                rows = connection.execute(statement, values).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from ((row[1], row[2]) for row in rows)

    def _bury(self, connection: sqlite3.Connection, kind: str, name: str) -> None:
        connection.execute(
            "INSERT INTO tombstone (kind, digest, requested) VALUES (?, ?, ?) ON CONFLICT DO "
            "UPDATE SET requested = excluded.requested, done = NULL",
            (kind, _digest(name), _to_ms(self._clock())),
        )

    def _forget_expired_pages(self, connection: sqlite3.Connection) -> None:
        """Drop the marks of answered pages whose tokens have been worthless for a day."""
        horizon = _to_ms(self._clock() - timedelta(days=1))
        connection.execute("DELETE FROM page WHERE expires < ?", (horizon,))


def _refuse_erased(connection: sqlite3.Connection, rows: Sequence[Rating]) -> None:
    erased = _buried_at(connection, "rater", rows[0].rater_id)
    if erased is not None and any(_to_ms(row.created_at) <= erased for row in rows):
        raise ErasedRaterError(
            "Answers must be given after the last erasure of their rater, got earlier ones. "
            "Nothing was stored; go on with a new page."
        )


def _buried_at(connection: sqlite3.Connection, kind: str, name: str) -> int | None:
    """Return when a tombstone was set, None without one."""
    row = connection.execute(
        "SELECT requested FROM tombstone WHERE kind = ? AND digest = ?", (kind, _digest(name))
    ).fetchone()
    return None if row is None else row[0]


def _parse_body(rater_id: str, body: str) -> Rating | tuple[str, ...]:
    """Return the stored rating, or what is wrong with it."""
    try:
        (rating,) = parse_ratings([json.loads(body)])
    except json.JSONDecodeError:
        return ("the row must be JSON, got something else.",)
    except InvalidRatingError as error:
        return tuple(problem.removeprefix("Row 1: ") for problem in error.problems)
    if rating.rater_id != rater_id:
        return ("`rater_id` must be the one the row is filed under, got another.",)
    return rating


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _to_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
