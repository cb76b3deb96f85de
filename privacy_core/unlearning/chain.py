"""The ledger's entries: states and what may follow, the chain of hashes, where each request stands.

Knows plain values; no file and no database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.certificate import canonical

State = Literal["received", "batched", "refused", "unlearned", "audited", "released", "failed"]

NEXT: Mapping[str, tuple[State, ...]] = MappingProxyType(
    {
        "received": ("batched", "refused"),
        "batched": ("unlearned", "failed"),
        "failed": ("batched", "refused"),
        # A later batch takes up again what another method shall unlearn; by force, a release
        # needs no audit.
        "unlearned": ("audited", "released", "batched", "failed"),
        "audited": ("audited", "released", "batched", "failed"),
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


@dataclass(frozen=True)
class Line:
    """What is to be added about a request: its new state and what belongs to that."""

    request: str
    state: State
    content: Mapping[str, Any]


def received(request: str, subject: str, rows: Sequence[str], *, basis: str, at: datetime) -> Line:
    """Return the first line of a request.

    Raises:
        InvalidArgumentError: There are no rows, a name is missing, or the basis is unknown.
    """
    if basis not in BASES:
        raise InvalidArgumentError(f"`basis` must be one of {', '.join(BASES)}, got {basis!r}.")
    if not rows or not request or not subject:
        raise InvalidArgumentError(
            "A request must have an id, a subject and at least one row, got "
            f"{request!r} with {len(rows)} rows. Look the subject up in the data."
        )
    content = {"subject": subject, "rows": list(rows), "basis": basis, "due": as_text(at + DUE)}
    return Line(request, "received", content)


def continued(entries: Sequence[Entry], lines: Iterable[Line], at: datetime) -> tuple[Entry, ...]:
    """Return the entries that follow `entries`: one per line, each chained to the one before.

    Raises:
        InvalidArgumentError: A request is unknown or new twice, or a state may not follow its own.
    """
    state = {entry.request: entry.state for entry in entries}
    number, previous = len(entries), entries[-1].hash if entries else FIRST
    added = []
    for line in lines:
        _check_move(state, line)
        number += 1
        bare = Entry(number, line.request, line.state, as_text(at), line.content, previous, "")
        added.append(replace(bare, hash=entry_hash(bare)))
        state[line.request], previous = line.state, added[-1].hash
    return tuple(added)


def standing(entries: Iterable[Entry]) -> dict[str, OpenRequest]:
    """Return request → where it stands, in the order they came."""
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


def problems_of(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return what does not fit in a chain, one sentence each; empty where all fits."""
    problems, previous = [], FIRST
    for place, entry in enumerate(entries, 1):
        if entry.number != place or entry.previous != previous:
            problems.append(f"Entry {entry.number} does not follow the entry before it.")
        if entry.hash != entry_hash(entry):
            problems.append(f"Entry {entry.number} was edited.")
        previous = entry.hash
    return tuple(problems)


def entry_hash(entry: Entry) -> str:
    """Return the SHA-256, in hex, over all of an entry but its own hash."""
    body = {
        "number": entry.number, "request": entry.request, "state": entry.state, "at": entry.at,
        "content": dict(entry.content), "previous": entry.previous,
    }  # fmt: skip
    return hashlib.sha256(canonical(body)).hexdigest()


def as_text(at: datetime) -> str:
    """Return a time as the ledger writes it: ISO 8601 in UTC, to the second."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _check_move(state: Mapping[str, str], line: Line) -> None:
    request = line.request
    if line.state == "received":
        if request in state:
            raise InvalidArgumentError(
                f"A request's id must be new, got {request!r} again. Number requests anew."
            )
        return
    if request not in state:
        raise InvalidArgumentError(
            f"`request` must be in the ledger, got {request!r}. Receive it first."
        )
    allowed = NEXT[state[request]]
    if line.state not in allowed:
        raise InvalidArgumentError(
            f"A request that is {state[request]} may become "
            f"{' or '.join(allowed) or 'nothing else'}, got {line.state!r} for {request!r}."
        )
