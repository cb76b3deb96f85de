"""The rating row and its forms: record, JSON, and back; knows no page, key, file or network.

One row is one judgement of one shown variant; its columns and rules stand in `columns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


# The columns whose rules are about each other.
_TOGETHER = (
    ("response_type", "response", "response_value"),
    ("position", "n_shown"),
    ("schema_version", "attributes"),
)


@dataclass(frozen=True)
class EncodedColumn:
    """A column as its different values and, for each row, the place of its value among them."""

    values: Sequence[Any]
    indices: Sequence[int]

    def each(self) -> Iterator[Any]:
        """Yield the value of each row."""
        return map(self.values.__getitem__, self.indices)


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
        attributes: What the variant keeps, hides and sets, as `keep=smiling;hide=age_group`;
            "none" for the empty policy, None where it was not recorded.

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
    attributes: str | None = None

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

    Rows of earlier schema versions are read; what they lack is None, and they keep their version.

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


def ratings_of_columns(columns: Mapping[str, EncodedColumn]) -> list[Rating]:
    """Make ratings from columns, holding every rule against each different value once.

    For many rows this is far quicker than making them one by one, and as strict.

    Args:
        columns: Every column of `COLUMNS`, all of one length; labels by name, times in UTC.

    Raises:
        InvalidRatingError: Values break rules; the rows are not named.
    """
    problems = [
        problem
        for name, column in columns.items()
        for value in column.values
        for problem in row_problems({name: value})
    ]
    if not problems:
        for group in _TOGETHER:
            rows = zip(*(columns[name].each() for name in group), strict=True)
            for values in dict.fromkeys(rows):
                problems += row_problems(dict(zip(group, values, strict=True)))
    if problems:
        raise InvalidRatingError(*problems)
    names = [column.name for column in COLUMNS]
    cells = [_normal(name, columns[name]).each() for name in names]
    return [_unchecked(dict(zip(names, row, strict=True))) for row in zip(*cells, strict=True)]


def _normal(name: str, column: EncodedColumn) -> EncodedColumn:
    """Return the column with six digits of its numbers."""
    if name not in _FLOATS:
        return column
    values = [None if value is None else six_digits(value) for value in column.values]
    return EncodedColumn(values, column.indices)


def _unchecked(record: dict[str, Any]) -> Rating:
    """Return the rating of a record whose every rule has been checked."""
    rating = object.__new__(Rating)
    rating.__dict__.update(record)
    return rating


def _parse_rating(record: object) -> Rating | tuple[str, ...]:
    """Return the rating, or its problems."""
    if not isinstance(record, Mapping):
        return (f"a row must be a JSON object, got {describe(record)}.",)
    values = {name: _from_storage(name, value) for name, value in record.items()}
    version: Any = values.get("schema_version")
    is_number = isinstance(version, int) and not isinstance(version, bool)
    if is_number and version > SCHEMA_VERSION:
        return (
            f"`schema_version` must be at most {SCHEMA_VERSION}, got {version}. "
            "Update the program to read this row.",
        )
    known = version if is_number and version > 0 else SCHEMA_VERSION
    faults = [
        f"`{c.name}` is missing." for c in COLUMNS if c.name not in values and c.since <= known
    ]
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
