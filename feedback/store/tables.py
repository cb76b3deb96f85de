"""The statements by which rows and tombstones enter a store's tables; no file, thread or network.

Every function works inside a transaction of its caller.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from feedback.errors import ErasedRaterError, InvalidRatingError, UsedPageError
from feedback.schema import Rating, parse_ratings
from feedback.store.tombstones import Tombstone, digest_of, to_ms

# One statement for all rows: each statement waits for the interpreter's lock again.
_INSERT = (
    "INTO event (rating_id, rater_id, page_id, body, created, state) SELECT value ->> 0,"
    " value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?)"
    " ORDER BY key"
)


@dataclass(frozen=True)
class PageRows:
    """An answered page, ready to be written.

    Attributes:
        digest: Of its page id.
        expires: When its token does, in milliseconds since 1970.
        rows: All of one rater.
    """

    digest: str
    expires: int
    rows: tuple[Rating, ...]


def insert_pages(connection: sqlite3.Connection, pages: Sequence[PageRows]) -> None:
    """Keep all rows of all pages, and that these pages were answered.

    Raises:
        ErasedRaterError: A rater was erased after answering.
        UsedPageError: A page was answered before, or one of its ratings is kept or undone.
    """
    rows = [row for page in pages for row in page.rows]
    if refuse_erased(connection, rows):
        raise _used_page("one that was answered and taken back")
    marks = json.dumps([(page.digest, page.expires) for page in pages])
    try:
        connection.execute(
            "INSERT INTO page SELECT value ->> 0, value ->> 1 FROM json_each(?)", (marks,)
        )
        connection.execute(f"INSERT {_INSERT}", (_encoded(rows, "new"),))
    except sqlite3.IntegrityError as error:
        raise _used_page("a second answer") from error


def insert_rows(connection: sqlite3.Connection, rows: Sequence[Rating], *, state: str) -> int:
    """Keep the rows that are not here yet and return how many those were."""
    return connection.execute(
        f"INSERT OR IGNORE {_INSERT}",
        (_encoded(rows, state),),
    ).rowcount


def refuse_erased(connection: sqlite3.Connection, rows: Sequence[Rating]) -> set[str]:
    """Return the ids among the rows that were undone.

    Raises:
        ErasedRaterError: A row was made before the erasure of its rater.
    """
    buried = {(t.kind, t.digest): t.requested for t in tombstones_of(connection, rows)}
    if not buried:
        return set()
    if any(buried.get(("rater", digest_of(r.rater_id)), -1) >= to_ms(r.created_at) for r in rows):
        raise ErasedRaterError(
            "Answers must be given after the last erasure of their rater, got earlier ones. "
            "Nothing was stored; go on with a new page."
        )
    return {row.rating_id for row in rows if ("rating", digest_of(row.rating_id)) in buried}


def tombstones_of(connection: sqlite3.Connection, rows: Sequence[Rating]) -> list[Tombstone]:
    """Return the tombstones of these rows' raters and of these ratings."""
    names = {("rater", digest_of(rater)) for rater in {row.rater_id for row in rows}}
    names |= {("rating", digest_of(row.rating_id)) for row in rows}
    found = connection.execute(
        "SELECT t.kind, t.digest, t.requested FROM json_each(?) AS name JOIN tombstone AS t"
        " ON t.kind = name.value ->> 0 AND t.digest = name.value ->> 1",
        (json.dumps(sorted(names)),),
    ).fetchall()
    return [Tombstone(*each) for each in found]


def bury(
    connection: sqlite3.Connection,
    tombstones: Iterable[Tombstone],
    *,
    receipt: str | None = None,
    carried: int | None = None,
) -> None:
    """Set tombstones; of two for one name the later counts.

    Args:
        connection: In a transaction.
        tombstones: What must stay away.
        receipt: Number of the request they are for; a rater erased again before the remote
            followed is on both receipts.
        carried: When they were read from the remote, None for those of this store.
    """
    # One that the remote knows already, at least as late, changes nothing.
    connection.executemany(
        "INSERT INTO tombstone (kind, digest, requested, carried, done, receipt)"
        " VALUES (:kind, :digest, :requested, :carried, :carried, :receipt)"
        " ON CONFLICT DO UPDATE SET requested = max(requested, excluded.requested),"
        " carried = excluded.carried, done = CASE WHEN done IS NULL OR excluded.carried IS NULL"
        "  THEN NULL ELSE excluded.done END,"
        " receipt = CASE WHEN done IS NULL AND receipt IS NOT NULL AND excluded.receipt IS NOT NULL"
        "  THEN receipt || ',' || excluded.receipt ELSE coalesce(excluded.receipt, receipt) END"
        " WHERE excluded.carried IS NULL OR excluded.requested > requested",
        [
            {
                "kind": t.kind,
                "digest": t.digest,
                "requested": t.requested,
                "carried": carried,
                "receipt": receipt,
            }
            for t in tombstones
        ],
    )


def remove_raters(
    connection: sqlite3.Connection, rater_ids: Sequence[str], *, now: int, receipt: str | None
) -> int:
    """Remove every row of these raters, bury them, and return how many rows went."""
    names = json.dumps(list(rater_ids))
    chosen = "FROM event WHERE rater_id IN (SELECT value FROM json_each(?))"
    # A row may be dated by a clock that runs ahead of this one: it must not survive either.
    newest = dict(
        connection.execute(f"SELECT rater_id, max(created) {chosen} GROUP BY rater_id", (names,))
    )
    removed = connection.execute(f"DELETE {chosen}", (names,)).rowcount
    tombstones = [
        Tombstone("rater", digest_of(rater_id), max(now, newest.get(rater_id, now)))
        for rater_id in rater_ids
    ]
    bury(connection, tombstones, receipt=receipt)
    mark_unscrubbed(connection)
    return removed


def is_buried(connection: sqlite3.Connection, kind: str, name: str) -> bool:
    """Return whether there is a tombstone for a rating or a rater."""
    statement = "SELECT 1 FROM tombstone WHERE kind = ? AND digest = ?"
    return connection.execute(statement, (kind, digest_of(name))).fetchone() is not None


def mark_unscrubbed(connection: sqlite3.Connection) -> str:
    """Remember that traces of removed rows may be in the files, and return the mark."""
    mark = secrets.token_hex(8)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('unscrubbed', ?)", (mark,))
    return mark


def unscrubbed(connection: sqlite3.Connection) -> str | None:
    """Return the mark of the last removal whose traces may be in the files, None without any."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'unscrubbed'").fetchone()
    return None if found is None else str(found[0])


def mark_scrubbed(connection: sqlite3.Connection, mark: str) -> None:
    """Remember that there are no traces, unless rows were removed since the mark was read."""
    connection.execute("DELETE FROM meta WHERE key = 'unscrubbed' AND value = ?", (mark,))


def parse_body(rater_id: str, body: str) -> Rating | tuple[str, ...]:
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


def _encoded(rows: Iterable[Rating], state: str) -> str:
    return json.dumps(
        [
            (r.rating_id, r.rater_id, r.page_id, r.as_json(), to_ms(r.created_at), state)
            for r in rows
        ]
    )


def _used_page(got: str) -> UsedPageError:
    return UsedPageError(
        f"A page must be answered once, got {got}; what is kept stays. "
        "Go on to the next page, or undo the first answer."
    )
