"""The request ledger: who asked for which rows when, append-only, in one SQLite file.

A subject is a pseudonym and rows are tokens under a secret salt: with the link from pseudonym to
person and the salt destroyed, entries are about nobody. Knows SQLite and entries; no model.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from privacy_core.errors import ModelError, OutputError
from privacy_core.unlearning.certificate import canonical
from privacy_core.unlearning.chain import (
    FIRST,
    NEXT,
    Entry,
    Line,
    OpenRequest,
    State,
    as_text,
    continued,
    problems_of,
    received,
    standing,
)

_APPLICATION = 0x50444C31
_SCHEMA = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    at TEXT NOT NULL,
    content TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE
);
CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Ledger:
    """A ledger in one SQLite file.

    Args:
        path: The file; made where it is missing.
        clock: Source of the time, in UTC.

    Raises:
        OutputError: The file cannot be opened or written.
        ModelError: It is another program's.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.path, self.clock = path, clock
        with self._connected() as database:
            (mark,) = database.execute("PRAGMA application_id").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if mark != _APPLICATION and tables:
                raise ModelError(
                    f"The ledger {path.name!r} belongs to another program. Choose another file."
                )
            if not tables:
                database.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
                database.execute(f"PRAGMA application_id = {_APPLICATION}")

    def receive(self, request: str, subject: str, rows: Sequence[str], *, basis: str) -> Entry:
        """Note a new request.

        Args:
            request: An id that no other request has.
            subject: Pseudonym of who asks.
            rows: Tokens of the rows it is about, `certificate.row_tokens`.
            basis: One of `chain.BASES`.

        Raises:
            InvalidArgumentError: The id is taken, there are no rows, or the basis is unknown.
        """
        now = self.clock()
        return self.append([received(request, subject, rows, basis=basis, at=now)], at=now)[0]

    def batch(self, batch: str) -> tuple[OpenRequest, ...]:
        """Put every request that waits, or failed before, into a batch; the most urgent first."""
        waiting = [one for one in self.requests() if one.state in {"received", "failed"}]
        waiting.sort(key=lambda one: (one.due, one.request))
        self.append([Line(one.request, "batched", {"batch": batch}) for one in waiting])
        chosen = {one.request for one in waiting}
        now = {one.request: one for one in self.requests() if one.request in chosen}
        return tuple(now[one.request] for one in waiting)

    def move(self, requests: Sequence[str], state: State, **content: str) -> tuple[Entry, ...]:
        """Move requests on together: all of them or, where one may not, none.

        Args:
            requests: Ids.
            state: What may follow each one's state, see `chain.NEXT`.
            content: What is to be kept with it, such as reason or certificate.

        Raises:
            InvalidArgumentError: A request is unknown, or the state may not follow its own.
        """
        return self.append([Line(one, state, content) for one in requests])

    def append(
        self,
        lines: Sequence[Line],
        *,
        at: datetime | None = None,
        work: Callable[[], Mapping[str, str]] | None = None,
    ) -> tuple[Entry, ...]:
        """Add lines, all of them or none.

        Args:
            lines: What is to be added, in order.
            at: When; now where it is not given.
            work: Called once the lines are known to be allowed and nobody else can write; where it
                raises, nothing is added. What it returns is kept with the last state of each
                request.

        Raises:
            InvalidArgumentError: A request is unknown, or a state may not follow its own.
            OutputError: The file cannot be written.
        """
        with self._connected() as database:
            # The lock comes before reading: two writers never continue the same entry.
            database.execute("BEGIN IMMEDIATE")
            entries = _entries(database)
            moment = at or self.clock()
            added = continued(entries, lines, moment)
            if work is not None:
                added = continued(entries, _with_result(lines, work()), moment)
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", [_row(one) for one in added]
            )
            database.execute("COMMIT")
        return added

    def requests(self) -> tuple[OpenRequest, ...]:
        """Return where every request stands, in the order they came."""
        return tuple(standing(self.entries()).values())

    def overdue(self) -> tuple[OpenRequest, ...]:
        """Return the requests past their due date that are neither released nor refused."""
        now = as_text(self.clock())
        return tuple(one for one in self.requests() if NEXT[one.state] and one.due < now)

    def entries(self) -> tuple[Entry, ...]:
        """Return the whole ledger."""
        with self._connected() as database:
            return _entries(database)

    def verify(self) -> tuple[str, ...]:
        """Return what does not fit in the chain, one sentence each; empty where all fits.

        Entries cut off at the end leave a chain that fits: compare `head` with one kept elsewhere.
        """
        return problems_of(self.entries())

    def head(self) -> str:
        """Return the hash of the last entry, which stands for the whole ledger."""
        entries = self.entries()
        return entries[-1].hash if entries else FIRST

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            database.execute("PRAGMA synchronous = FULL")
            yield database
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        finally:
            database.close()  # an open transaction is rolled back

    def _unusable(self, error: sqlite3.Error) -> OutputError:
        return OutputError(
            f"The ledger {self.path.name!r} cannot be read or written ({error}). "
            "Check the place, the rights and the free space; nothing was changed."
        )


def _with_result(lines: Sequence[Line], result: Mapping[str, str]) -> list[Line]:
    last = {line.request: place for place, line in enumerate(lines)}
    return [
        Line(line.request, line.state, {**line.content, **result})
        if last[line.request] == place
        else line
        for place, line in enumerate(lines)
    ]


def _row(entry: Entry) -> tuple[int, str, str, str, str, str, str]:
    content = canonical(entry.content).decode()
    return (
        entry.number, entry.request, entry.state, entry.at, content, entry.previous, entry.hash,
    )  # fmt: skip


def _entries(database: sqlite3.Connection) -> tuple[Entry, ...]:
    rows = database.execute("SELECT * FROM entries ORDER BY number")
    return tuple(
        Entry(number, request, state, at, json.loads(content), previous, digest)
        for number, request, state, at, content, previous, digest in rows
    )
