"""The rating row and its forms: record, JSON, and back; knows no page, key, file or network.

One row is one judgement of one shown variant; its columns and rules stand in `columns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feedback.columns import (
    COLUMNS,
    SCHEMA_VERSION,
    Client,
    ConsentScope,
    ResponseType,
    Source,
    describe,
    row_problems,
    six_digits,
)
from feedback.errors import InvalidRatingError

_BY_NAME = {column.name: column for column in COLUMNS}
_FLOATS = tuple(column.name for column in COLUMNS if column.dtype == "float32")


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One judgement of one shown variant, always valid; the fields are `COLUMNS`, in order.

    Numbers keep six significant digits, what float32 holds in both directions, so that a row read
    back from parquet equals the row stored.

    Attributes:
        strength: In [0, 1].
        epsilon: ε of the variant, None where there is none.
        response: jar5: 0 far too recognisable, 2 just right, 4 changed far too much; best_of_n: 1
            for the chosen variant, 0 for the others shown; likert5: 0 to 4; slider: None.
        response_value: slider: the strength in [0, 1] it was left at; otherwise None.
        propensity: Probability in (0, 1] with which `policy` showed this variant.
        response_ms: Time to answer in steps of 100 ms.

    Raises:
        InvalidRatingError: Values break rules; all of them are listed.
    """

    rating_id: str
    schema_version: int = SCHEMA_VERSION
    rater_id: str
    rater_epoch: int
    session_id: str
    page_id: str
    photo_id: str
    position: int
    n_shown: int
    method: str
    model_revision: str
    strength: float
    epsilon: float | None
    quality: float | None = None
    response_type: ResponseType
    response: int | None
    response_value: float | None = None
    is_catch: bool
    is_repeat: bool
    policy: str
    propensity: float
    response_ms: int
    client: Client
    source: Source
    consent_version: str
    consent_scope: ConsentScope
    created_at: datetime
    app_version: str

    def __post_init__(self) -> None:
        """Check everything at once, then keep six digits of the numbers."""
        record = {column.name: getattr(self, column.name) for column in COLUMNS}
        if problems := row_problems(record):
            raise InvalidRatingError(*problems)
        for name in _FLOATS:
            if record[name] is not None:
                object.__setattr__(self, name, six_digits(record[name]))

    def as_record(self) -> dict[str, Any]:
        """Return the row as plain JSON values: labels by name, the time in ISO 8601."""
        record = {column.name: getattr(self, column.name) for column in COLUMNS}
        record["created_at"] = self.created_at.isoformat(timespec="milliseconds")
        return record

    def as_json(self) -> str:
        """Return the row as one line of JSON."""
        return json.dumps(self.as_record(), separators=(",", ":"))


def parse_ratings(records: Iterable[object]) -> list[Rating]:
    """Turn records (JSON objects, or rows read with `datasets`) into ratings, or list every fault.

    Args:
        records: Mappings from column to value. Labels by name or by integer; the time as text in
            ISO 8601 or as `datetime`.

    Raises:
        InvalidRatingError: Each problem of each bad row, by the row's number counted from 1.
    """
    ratings: list[Rating] = []
    problems: list[str] = []
    for number, record in enumerate(records, 1):
        parsed = _parse_rating(record)
        if isinstance(parsed, Rating):
            ratings.append(parsed)
        else:
            problems += [f"Row {number}: {problem}" for problem in parsed]
    if problems:
        raise InvalidRatingError(*problems)
    return ratings


def _parse_rating(record: object) -> Rating | tuple[str, ...]:
    """Return the rating, or its problems."""
    if not isinstance(record, Mapping):
        return (f"a row must be a JSON object, got {describe(record)}.",)
    values = {name: _from_storage(name, value) for name, value in record.items()}
    faults = [f"`{c.name}` is missing." for c in COLUMNS if c.name not in values]
    if unknown := [describe(name) for name in values if name not in _BY_NAME]:
        faults.append(
            f"columns must be those of schema {SCHEMA_VERSION}, got {', '.join(unknown)}."
        )
    if faults:
        return (*faults, *row_problems(values))
    try:
        return Rating(**values)
    except InvalidRatingError as error:
        return error.problems


def _from_storage(name: object, value: Any) -> Any:
    """Return a stored value as the field's: a label's integer by name, ISO text as a time."""
    column = _BY_NAME.get(str(name))
    if column is None:
        return value
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if column.labels and is_integer and 0 <= value < len(column.labels):
        return column.labels[value]
    if column.name == "created_at" and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value
