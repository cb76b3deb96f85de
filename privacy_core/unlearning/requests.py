"""What a revision asks of a model: one request per subject who asked, recorded as one batch.

Knows `revision.json`, rows by number and the ledger; no model and no picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from privacy_core.unlearning.certificate import row_tokens
from privacy_core.unlearning.chain import NEXT, Line, OpenRequest, State, received
from privacy_core.unlearning.ledger import Ledger, utc_now

OTHERS = "others"
"""Stands for everybody whose rows were revised though they did not ask."""


@dataclass(frozen=True)
class Asked:
    """What one subject asked for.

    Attributes:
        request: Id, the same for the same subject and revised data.
        subject: Pseudonym, a keyed hash that `revise` made; or `OTHERS`.
        rows: Places in the original data.
        basis: One of `chain.BASES`.
    """

    request: str
    subject: str
    rows: tuple[int, ...]
    basis: str


def asked_of(
    revision: Mapping[str, Any],
    forgotten: Sequence[int],
    subject_of: Mapping[int, str | None],
) -> tuple[Asked, ...]:
    """Return what a revision asks: a request per subject with a preference, one for the rest.

    Args:
        revision: `revision.json`.
        forgotten: Rows that are not in the revised data as they were.
        subject_of: Row → pseudonym; empty where the pseudonyms were erased, and then all is one.
    """
    digest, mode = str(revision["data_digest"]), str(revision["mode"])
    source = {str(one["subject_key"]): str(one["source"]) for one in revision["subjects"]}
    withheld = {int(one["row"]) for one in revision["withheld"]}
    rows: dict[str, list[int]] = {}
    for row in forgotten:
        subject = subject_of.get(row)
        # A row that was dropped leaves no account; only those who asked are dropped.
        is_dropped = mode == "drop-row" and subject not in source and row not in withheld
        has_asked = subject is not None and (source.get(subject) == "own" or is_dropped)
        rows.setdefault(subject if subject is not None and has_asked else OTHERS, []).append(row)
    basis = "rectification" if mode == "replace" else "erasure"
    return tuple(
        Asked(
            hashlib.sha256(f"{digest} {subject}".encode()).hexdigest()[:16], subject,
            tuple(places), "rectification" if subject == OTHERS else basis,
        )
        for subject, places in sorted(rows.items())
    )  # fmt: skip


def record_batch(
    path: Path,
    asked: Sequence[Asked],
    *,
    digest: str,
    salt: bytes,
    work: Callable[[str], str],
    clock: Callable[[], datetime] = utc_now,
) -> str:
    """Record requests that were unlearned together, and return the batch's name.

    Requests that were released or refused before stay as they are; those of an earlier batch are
    taken up again.

    Args:
        path: The ledger; made where it is missing.
        asked: From `asked_of`.
        digest: Of the revised data; the name begins with the batch's number, which no batch
            entered before has, and ends with it.
        salt: Secret salt of this ledger's row tokens.
        work: Called with the batch's name while nobody else can write; saves the model and returns
            its certificate's digest. Where it raises, the ledger stays as it was.
        clock: Source of the time, in UTC.

    Raises:
        OutputError: The ledger cannot be written.
    """
    ledger, now = Ledger(path, clock=clock), clock()
    known = {one.request: one for one in ledger.requests()}
    # A batch that another took over counts too: a model made for it still points to its name.
    entered = {str(one.content["batch"]) for one in ledger.entries() if "batch" in one.content}
    name = f"{len(entered) + 1}-{digest[:12]}"
    lines: list[Line] = []
    for one in asked:
        before = known.get(one.request)
        if before is None:
            tokens = row_tokens(salt, one.rows)
            lines.append(received(one.request, one.subject, tokens, basis=one.basis, at=now))
        elif "batched" not in NEXT[before.state]:
            continue
        lines += [
            Line(one.request, "batched", {"batch": name}),
            Line(one.request, "unlearned", {}),
        ]
    ledger.append(lines, at=now, work=lambda: {"certificate": work(name)})
    return name


def move_batch(ledger: Ledger, batch: str, state: State, **content: str) -> tuple[OpenRequest, ...]:
    """Move on the requests of a batch that may be, and return where all of them stand.

    What the ledger says already, such as an audit that found the same again, is not said twice.
    """
    last = {entry.request: entry for entry in ledger.entries()}
    moving = [
        one.request
        for one in ledger.requests()
        if one.batch == batch
        and state in NEXT[one.state]
        and (one.state != state or dict(last[one.request].content) != content)
    ]
    ledger.move(moving, state, **content)
    return tuple(one for one in ledger.requests() if one.batch == batch)
