"""Ratings as lines of JSON, the rest of each row filled in; knows a store, no page and no network.

A line is stored whole or not at all, and its `rating_id` is given out only when it is durable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from feedback.columns import SCHEMA_VERSION, describe, whole_ms
from feedback.errors import ErasedRaterError, InvalidRatingError
from feedback.page import new_id
from feedback.schema import Rating, parse_ratings
from feedback.store.log import RatingStore

MAX_LINE_BYTES = 65_536


@dataclass(frozen=True)
class Person:
    """Who answers the lines that name nobody: one rater in one session, both random."""

    rater_id: str = field(default_factory=new_id)
    session_id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class Outcome:
    """What became of one line.

    Attributes:
        line: Its number, from 1.
        rating_id: Of the row that is durable now; None if nothing was stored.
        problem: Why nothing was stored, in words; None if it was.
    """

    line: int
    rating_id: str | None = None
    problem: str | None = None


def take_lines(
    lines: BinaryIO, store: RatingStore, *, person: Person, clock: Callable[[], datetime]
) -> Iterator[Outcome]:
    """Store one rating per line and say of each, as soon as it is so, what became of it.

    Empty lines are passed over. A bad line is not stored and the others go on. A `rating_id` that
    is stored already is acknowledged again, if the line agrees with what is stored.

    Args:
        lines: JSON objects in UTF-8 with any columns of a row; `strength` and `response` (of a
            slider, `response_value`) must be among them.
        store: Where they go.
        person: Who answers the lines that name nobody.
        clock: Gives the time in UTC, for rows that do not say when.

    Raises:
        StoreError: The store cannot be written; the line it happened at was not acknowledged.
    """
    for number, raw in _numbered(lines):
        if raw is not None and not raw.strip():
            continue
        try:
            given = _object_of(raw)
            rating = _filled(given, person, clock())
            _keep(store, rating, given)
        except (InvalidRatingError, ErasedRaterError) as error:
            yield Outcome(number, problem=str(error).replace("Row 1: ", ""))
        else:
            yield Outcome(number, rating_id=rating.rating_id)


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number, None for one that is too long to be read."""
    number = 0
    while line := lines.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = lines.readline(MAX_LINE_BYTES)
        yield number, None


def _object_of(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise InvalidRatingError(
            f"a line must have at most {MAX_LINE_BYTES} bytes, got a longer one."
        )
    try:
        given = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidRatingError(
            f"a line must be one JSON object in UTF-8, got something else ({type(error).__name__})."
        ) from error
    if not isinstance(given, dict):
        raise InvalidRatingError(f"a line must be one JSON object, got {describe(given)}.")
    return given


def _filled(given: Mapping[str, Any], person: Person, now: datetime) -> Rating:
    """Return the row of a line; what it does not say is random, now, or the narrowest."""
    if "response" not in given and "response_value" not in given:
        missing = [name for name in ("strength", "response") if name not in given]
        raise InvalidRatingError(*(f"`{name}` is missing." for name in missing))
    position = given.get("position", 0)
    filled: dict[str, Any] = {
        "rating_id": new_id(),
        "schema_version": SCHEMA_VERSION,
        "rater_id": person.rater_id,
        "rater_epoch": 1,
        "session_id": person.session_id,
        "page_id": new_id(),
        "photo_id": new_id(),
        "position": 0,
        "n_shown": position + 1 if isinstance(position, int) and position in range(16) else 1,
        "method": "embedded",
        "model_revision": "unknown",
        "epsilon": None,
        "quality": None,
        "response_type": "jar5",
        "response": None,
        "response_value": None,
        "is_catch": False,
        "is_repeat": False,
        "policy": "given",
        "propensity": 1.0,
        "response_ms": 0,
        "client": "api",
        "source": "synthetic_face",
        "consent_version": "given",
        "consent_scope": "personal_only",
        "created_at": whole_ms(now),
        "app_version": "stdin",
        "attributes": None,
    }
    (rating,) = parse_ratings([{**filled, **given}])
    return rating


def _keep(store: RatingStore, rating: Rating, given: Mapping[str, Any]) -> None:
    """Store a row, or check that it is stored and says what the line says."""
    if store.add_rows([rating]):
        return
    kept = store.rating(rating.rating_id)
    if kept is None:
        raise InvalidRatingError(
            "`rating_id` must not be one that was taken back, got such a one. Leave it out to "
            "rate anew."
        )
    if any(getattr(kept, name) != getattr(rating, name) for name in given):
        raise InvalidRatingError(
            "`rating_id` must not be that of another rating, got one that is stored with other "
            "values. Leave it out to rate anew."
        )
