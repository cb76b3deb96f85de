"""The durable local log of ratings; knows rows, pages and one SQLite file, no network, no keys.

What `RatingStore.add_page` has returned from survives the death of the process. What
`RatingStore.remove_raters` removed is in none of the store's files any more after `scrub`.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from feedback.errors import CorruptStoreError, FeedbackError, InvalidRatingError
from feedback.page import Page, check_rows
from feedback.schema import Rating
from feedback.store.database import Database
from feedback.store.group_commit import GroupCommit
from feedback.store.tables import (
    PageRows,
    bury,
    insert_pages,
    insert_rows,
    is_buried,
    mark_scrubbed,
    parse_body,
    refuse_erased,
    remove_raters,
    unscrubbed,
)
from feedback.store.tombstones import Tombstone, digest_of, to_ms

DATABASE_NAME = "ratings.sqlite3"
"""The store's file in a `--store` folder."""
MOST_AHEAD = timedelta(minutes=5)
"""How far a row's time may lie ahead of this clock: clocks of several machines differ."""
_BATCH = 500
_PAGES_BETWEEN_TIDYING = 250
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
        self.clock = clock
        self.database = Database(self.path, create=create)
        self._pages = GroupCommit(self._write_pages)
        self._n_untidied = 0

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
        self.database.close()

    def add_page(self, page: Page, rows: Sequence[Rating]) -> None:
        """Keep all rows of an answered page, or none; durable when it returns.

        Without rows, as without consent, nothing at all is written.

        Args:
            page: As opened from its token.
            rows: From `rows_of_page`.

        Raises:
            InvalidRatingError: A row says something else than the page showed, or is dated more
                than `MOST_AHEAD` after now.
            UsedPageError: The page was answered before.
            ErasedRaterError: The rater was erased after these answers were given.
            StoreError: The store cannot be written.
        """
        if rows:
            check_rows(page, rows)
            self._refuse_future(rows)
            self._pages.submit(
                PageRows(digest_of(page.page_id), to_ms(page.expires_at), tuple(rows))
            )
            # By the thread whose page is durable, so that no other waits for it.
            if self._n_untidied >= _PAGES_BETWEEN_TIDYING:
                self._n_untidied = 0
                self.database.tidy()

    def add_rows(self, rows: Sequence[Rating]) -> int:
        """Keep rows that no page of this server made, all or none; durable when it returns.

        A rating that is kept already, or was undone, is passed over: sending rows again is safe.

        Args:
            rows: Valid rows, of any raters.

        Returns:
            How many were not here before.

        Raises:
            InvalidRatingError: A row is dated more than `MOST_AHEAD` after now.
            ErasedRaterError: A rater was erased after a row was made.
            StoreError: The store cannot be written.
        """
        self._refuse_future(rows)
        with self.database.transaction() as connection:
            undone = refuse_erased(connection, rows)
            wanted = [row for row in rows if row.rating_id not in undone]
            return insert_rows(connection, wanted, state="new")

    def undo(self, rating_ids: Sequence[str], *, rater_id: str) -> int:
        """Take back ratings of one rater for good, leaving a tombstone for each.

        Args:
            rating_ids: The ratings; those already taken back are passed over, and so are those
                that are not here any more of a rater who was erased, here or elsewhere.
            rater_id: Whose they must be.

        Returns:
            How many rows were removed.

        Raises:
            InvalidRatingError: A rating is not here or is another rater's; nothing is removed.
        """
        removed = 0
        with self.database.transaction() as connection:
            for rating_id in rating_ids:
                if is_buried(connection, "rating", rating_id):
                    continue
                found = connection.execute(
                    "DELETE FROM event WHERE rating_id = ? AND rater_id = ?", (rating_id, rater_id)
                ).rowcount
                if not found and self._may_be_erased(connection, rating_id, rater_id):
                    continue
                if not found:
                    raise InvalidRatingError(
                        "`rating_ids` must be ratings of this rater that are kept here, got "
                        "another. Nothing was undone."
                    )
                tombstone = Tombstone("rating", digest_of(rating_id), to_ms(self.clock()))
                bury(connection, [tombstone])
                removed += found
        return removed

    @staticmethod
    def _may_be_erased(connection: sqlite3.Connection, rating_id: str, rater_id: str) -> bool:
        """Return whether a rating may have gone with its rater: it is not another one's here."""
        kept = connection.execute("SELECT 1 FROM event WHERE rating_id = ?", (rating_id,))
        return kept.fetchone() is None and is_buried(connection, "rater", rater_id)

    def remove_raters(self, rater_ids: Sequence[str], *, receipt: str | None = None) -> int:
        """Remove every rating of these raters and leave a tombstone for each, in one step.

        Their bytes may still be in the files: `scrub` removes those too. What the raters answer
        later is kept again, if they consent again.

        Args:
            rater_ids: The raters.
            receipt: Number under which the removal from a remote is followed.

        Returns:
            How many rows were removed.
        """
        with self.database.transaction() as connection:
            now = to_ms(self.clock())
            return remove_raters(connection, rater_ids, now=now, receipt=receipt)

    def scrub(self) -> None:
        """Remove the traces of rows that were erased, if there are any.

        Raises:
            BusyStoreError: Another process kept them in the write-ahead log; scrub again.
        """
        with self.database.reading() as connection:
            mark = unscrubbed(connection)
        if mark is not None:
            self.database.scrub()
            with self.database.transaction() as connection:
                mark_scrubbed(connection, mark)

    def ratings(self, rater_id: str | None = None) -> Iterator[Rating]:
        """Yield the ratings in the order they were kept, all or one rater's.

        Raises:
            CorruptStoreError: A row does not follow its rules.
        """
        for row_rater, body in self._bodies(rater_id):
            yield self._parsed(row_rater, body)

    def rating(self, rating_id: str) -> Rating | None:
        """Return one rating, None if it is not kept here.

        Raises:
            CorruptStoreError: The row does not follow its rules.
        """
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT rater_id, body FROM event WHERE rating_id = ?", (rating_id,)
            ).fetchone()
        return None if row is None else self._parsed(*row)

    def stats(self) -> StoreStats:
        """Return counts of rows, raters, pages, outbox and tombstones."""
        with self.database.reading() as connection:
            counts = connection.execute(
                "SELECT count(*), count(DISTINCT rater_id), count(DISTINCT page_id),"
                " count(*) FILTER (WHERE state = 'new'), (SELECT count(*) FROM tombstone)"
                " FROM event"
            ).fetchone()
        return StoreStats(*counts)

    def problems(self) -> Iterator[str]:
        """Yield one sentence for each fault of the file and of every row in it."""
        with self.database.reading() as connection:
            verdicts = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        yield from (f"The database file: {verdict}." for verdict in verdicts if verdict != "ok")
        for number, (rater_id, body) in enumerate(self._bodies(None), 1):
            parsed = parse_body(rater_id, body)
            if not isinstance(parsed, Rating):
                yield from (f"Row {number}: {fault}" for fault in parsed)

    def _parsed(self, rater_id: str, body: str) -> Rating:
        parsed = parse_body(rater_id, body)
        if not isinstance(parsed, Rating):
            raise CorruptStoreError(
                f"Every row of {self.path} must follow the schema, got one that does not. "
                "List the faults with `python -m feedback validate`."
            )
        return parsed

    def _bodies(self, rater_id: str | None) -> Iterator[tuple[str, str]]:
        """Yield rater id and body in batches, so that no reader holds back an erasure."""
        statement = _ALL_ROWS if rater_id is None else _ONE_RATERS_ROWS
        last = -1
        while True:
            with self.database.reading() as connection:
                values = {"rater": rater_id, "last": last, "batch": _BATCH}
                rows = connection.execute(statement, values).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from ((row[1], row[2]) for row in rows)

    @property
    def instance_id(self) -> str:
        """A random name of this store, 12 hexadecimal digits, part of every path it writes."""
        with self.database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO meta VALUES ('instance', ?)", (secrets.token_hex(6),)
            )
            found = connection.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        return str(found[0])

    @property
    def remote_name(self) -> str | None:
        """The remote that was reached last, None if none ever was."""
        with self.database.reading() as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = 'remote'").fetchone()
        return None if found is None else str(found[0])

    def is_remote_known(self, name: str) -> bool:
        """Return whether the remote of this name was reached before: it must not be made anew."""
        return self.remote_name == name

    def _refuse_future(self, rows: Sequence[Rating]) -> None:
        """Refuse rows that no erasure by this clock would reach."""
        if any(row.created_at > self.clock() + MOST_AHEAD for row in rows):
            raise InvalidRatingError(
                f"`created_at` must be at most {MOST_AHEAD.seconds // 60} minutes ahead of this "
                "machine's clock, got a later time. Nothing was stored; set the clocks right."
            )

    def _write_pages(self, pages: Sequence[PageRows]) -> list[Exception | None]:
        """Write pages in one commit; if that fails, each in its own, so that none fails another."""
        errors: list[Exception | None] = []
        self._n_untidied += len(pages)
        for batch in [pages] if len(pages) > 1 else []:
            with contextlib.suppress(FeedbackError), self.database.transaction() as connection:
                self._insert(connection, batch)
                return [None] * len(pages)
        for page in pages:
            try:
                with self.database.transaction() as connection:
                    self._insert(connection, [page])
                errors.append(None)
            except (FeedbackError, sqlite3.Error) as error:
                errors.append(error)
        return errors

    def _insert(self, connection: sqlite3.Connection, pages: Sequence[PageRows]) -> None:
        """Keep pages, and drop the marks of pages whose tokens were worthless for a day."""
        horizon = to_ms(self.clock() - timedelta(days=1))
        connection.execute("DELETE FROM page WHERE expires < ?", (horizon,))
        insert_pages(connection, pages)
