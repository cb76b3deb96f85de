"""The request ledger: who asked for which rows when, append-only, each entry chained to the last.

A subject is a pseudonym and rows are tokens under a secret salt: with the link from pseudonym to
person and the salt destroyed, entries are about nobody. Knows SQLite and plain values; no model.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.unlearning.certificate import canonical

State = Literal["received", "batched", "refused", "unlearned", "audited", "released", "failed"]

NEXT: Mapping[str, tuple[State, ...]] = MappingProxyType(
    {
        "received": ("batched", "refused"),
        "batched": ("unlearned", "failed"),
        "failed": ("batched", "refused"),
        "unlearned": ("audited", "failed"),
        "audited": ("released", "failed"),
        "released": (),
        "refused": (),
    }
)
"""State → the states that may follow it."""
BASES = ("rectification", "erasure", "objection")
"""Legal bases: articles 16, 17 and 21 of the GDPR."""
DUE = timedelta(days=30)
"""One month, article 12(3)."""
FIRST = "0" * 64
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


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        number: From 1.
        request: Id of the request.
        state: Its state from here on.
        at: When, ISO 8601 in UTC.
        content: What belongs to the state: subject, rows, basis, due, batch, reason, certificate.
        previous: Hash of the entry before.
        hash: SHA-256 over all of the above.
    """

    number: int
    request: str
    state: str
    at: str
    content: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True)
class OpenRequest:
    """Where a request stands.

    Attributes:
        request: Its id.
        subject: Pseudonym.
        basis: One of `BASES`.
        rows: Row tokens.
        received, due: ISO 8601 in UTC.
        state: Its state.
        batch: Id of its batch, None before.
    """

    request: str
    subject: str
    basis: str
    rows: tuple[str, ...]
    received: str
    due: str
    state: str
    batch: str | None


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
            basis: One of `BASES`.

        Raises:
            InvalidArgumentError: The id is taken, there are no rows, or the basis is unknown.
        """
        if basis not in BASES:
            raise InvalidArgumentError(f"`basis` must be one of {', '.join(BASES)}, got {basis!r}.")
        if not rows or not request or not subject:
            raise InvalidArgumentError(
                "A request must have an id, a subject and at least one row, got "
                f"{request!r} with {len(rows)} rows. Look the subject up in the data."
            )
        now = self.clock()
        content = {
            "subject": subject, "rows": list(rows), "basis": basis, "due": _text(now + DUE),
        }  # fmt: skip
        return self._append([(request, "received", content)], now)[0]

    def batch(self, batch: str) -> tuple[OpenRequest, ...]:
        """Put every request that waits, or failed before, into a batch; the most urgent first."""
        waiting = [one for one in self.requests() if one.state in ("received", "failed")]
        waiting.sort(key=lambda one: (one.due, one.request))
        self._append([(one.request, "batched", {"batch": batch}) for one in waiting], self.clock())
        chosen = {one.request for one in waiting}
        now = {one.request: one for one in self.requests() if one.request in chosen}
        return tuple(now[one.request] for one in waiting)

    def move(self, requests: Sequence[str], state: State, **content: str) -> tuple[Entry, ...]:
        """Move requests on together: all of them or, where one may not, none.

        Args:
            requests: Ids.
            state: What may follow each one's state, see `NEXT`.
            content: What is to be kept with it, such as reason or certificate.

        Raises:
            InvalidArgumentError: A request is unknown, or the state may not follow its own.
        """
        return self._append([(one, state, content) for one in requests], self.clock())

    def requests(self) -> tuple[OpenRequest, ...]:
        """Return where every request stands, in the order they came."""
        return tuple(_standing(self.entries()).values())

    def overdue(self) -> tuple[OpenRequest, ...]:
        """Return the requests past their due date that are neither released nor refused."""
        now = _text(self.clock())
        return tuple(one for one in self.requests() if NEXT[one.state] and one.due < now)

    def entries(self) -> tuple[Entry, ...]:
        """Return the whole ledger."""
        with self._connected() as database:
            return _entries(database)

    def verify(self) -> tuple[str, ...]:
        """Return what does not fit in the chain, one sentence each; empty where all fits.

        Entries cut off at the end leave a chain that fits: compare `head` with one kept elsewhere.
        """
        problems, previous = [], FIRST
        for place, entry in enumerate(self.entries(), 1):
            if entry.number != place or entry.previous != previous:
                problems.append(f"Entry {entry.number} does not follow the entry before it.")
            if entry.hash != _hash(entry):
                problems.append(f"Entry {entry.number} was edited.")
            previous = entry.hash
        return tuple(problems)

    def head(self) -> str:
        """Return the hash of the last entry, which stands for the whole ledger."""
        entries = self.entries()
        return entries[-1].hash if entries else FIRST

    def _append(
        self, lines: Sequence[tuple[str, State, Mapping[str, Any]]], at: datetime
    ) -> tuple[Entry, ...]:
        added = []
        with self._connected() as database:
            # The lock comes before reading: two writers never continue the same entry.
            database.execute("BEGIN IMMEDIATE")
            entries = list(_entries(database))
            for request, state, content in lines:
                _check_move(_standing(entries), request, state)
                previous = entries[-1].hash if entries else FIRST
                bare = Entry(len(entries) + 1, request, state, _text(at), content, previous, "")
                entry = replace(bare, hash=_hash(bare))
                database.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        entry.number, request, state, entry.at, canonical(content).decode(),
                        previous, entry.hash,
                    ),
                )  # fmt: skip
                entries.append(entry)
                added.append(entry)
            database.execute("COMMIT")
        return tuple(added)

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


def _entries(database: sqlite3.Connection) -> tuple[Entry, ...]:
    rows = database.execute("SELECT * FROM entries ORDER BY number")
    return tuple(
        Entry(number, request, state, at, json.loads(content), previous, digest)
        for number, request, state, at, content, previous, digest in rows
    )


def _standing(entries: Sequence[Entry]) -> dict[str, OpenRequest]:
    first: dict[str, Entry] = {}
    state: dict[str, str] = {}
    batch: dict[str, str] = {}
    for entry in entries:
        first.setdefault(entry.request, entry)
        state[entry.request] = entry.state
        if "batch" in entry.content:
            batch[entry.request] = str(entry.content["batch"])
    return {
        name: OpenRequest(
            name, str(one.content["subject"]), str(one.content["basis"]),
            tuple(one.content["rows"]), one.at, str(one.content["due"]), state[name],
            batch.get(name),
        )
        for name, one in first.items()
    }  # fmt: skip


def _check_move(standing: Mapping[str, OpenRequest], request: str, state: State) -> None:
    if state == "received":
        if request in standing:
            raise InvalidArgumentError(
                f"A request's id must be new, got {request!r} again. Number requests anew."
            )
        return
    if request not in standing:
        raise InvalidArgumentError(
            f"`request` must be in the ledger, got {request!r}. Receive it first."
        )
    allowed = NEXT[standing[request].state]
    if state not in allowed:
        raise InvalidArgumentError(
            f"A request that is {standing[request].state} may become "
            f"{' or '.join(allowed) or 'nothing else'}, got {state!r} for {request!r}."
        )


def _hash(entry: Entry) -> str:
    body = {
        "number": entry.number, "request": entry.request, "state": entry.state, "at": entry.at,
        "content": dict(entry.content), "previous": entry.previous,
    }  # fmt: skip
    return hashlib.sha256(canonical(body)).hexdigest()


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
