"""The columns of the rating row and their rules; knows no row class, page, key or file.

`COLUMNS` is the only list of columns: the checks, the `datasets` features and the JSON form all
follow it. No column holds an address, a browser, a name, a picture, an embedding or free text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import datasets

SCHEMA_VERSION = 2
"""Of the rows written now; rows of every earlier version are read."""
RESPONSE_TYPES = ("jar5", "best_of_n", "likert5", "slider")
CLIENTS = ("web", "mobile", "api")
SOURCES = ("own_photo", "demo_photo", "synthetic_face")
CONSENT_SCOPES = ("personal_only", "aggregate", "publish_row")
"""From the narrowest to the widest; each includes those before it."""
MAX_SHOWN = 16
MAX_RESPONSE_MS = 86_400_000

ResponseType = Literal["jar5", "best_of_n", "likert5", "slider"]
Client = Literal["web", "mobile", "api"]
Source = Literal["own_photo", "demo_photo", "synthetic_face"]
ConsentScope = Literal["personal_only", "aggregate", "publish_row"]

NO_ATTRIBUTES = "none"
"""The text of the empty attribute policy; what was not recorded is null."""
_NAMES = "{item}(?:,{item})*"
_NAME = "[a-z][a-z0-9_]{0,31}"
_SECTIONS = (
    "keep=" + _NAMES.format(item=_NAME),
    "hide=" + _NAMES.format(item=_NAME),
    "set=" + _NAMES.format(item=_NAME + ":[a-z0-9_.+-]{1,32}"),
)
# Every section once at most, in this order; not empty; at most 256 characters.
_ATTRIBUTES = re.compile(
    rf"(?=.{{1,256}}\Z)(?:{NO_ATTRIBUTES}|(?!;)"
    + rf"(?:{_SECTIONS[0]})?(?:(?:^|;)(?:{_SECTIONS[1]}))?(?:(?:^|;)(?:{_SECTIONS[2]}))?)"
)
_FLOAT32_MIN, _FLOAT32_MAX = 1.2e-38, 3.4e38
_HIGHEST_RESPONSE = {"jar5": 4, "best_of_n": 1, "likert5": 4}


@dataclass(frozen=True)
class Column:
    """One column of the rating row.

    Attributes:
        name: The column's and the field's name.
        dtype: The `datasets.Value` type; "label" for a closed list.
        accepts: Whether a value other than None is allowed.
        rule: The rule in words, after "must be".
        nullable: Whether None is allowed.
        labels: The closed list, in the order of its integers.
        since: The schema version that brought it; rows of earlier ones lack it.
    """

    name: str
    dtype: str
    accepts: Callable[[Any], bool]
    rule: str
    nullable: bool = False
    labels: tuple[str, ...] = ()
    since: int = 1


def _text(name: str, pattern: str, rule: str) -> Column:
    compiled = re.compile(pattern)
    return Column(
        name, "string", lambda v: isinstance(v, str) and compiled.fullmatch(v) is not None, rule
    )


def _id(name: str) -> Column:
    return _text(name, r"[0-9a-f]{32}", "32 lower-case hexadecimal digits")


def _word(name: str) -> Column:
    rule = "1 to 128 letters, digits and ._/+- without spaces"
    return _text(name, r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}", rule)


def _integer(name: str, dtype: str, low: int, high: int, *, step: int = 1) -> Column:
    rule = f"an integer from {low} to {high}" + (f" in steps of {step}" if step > 1 else "")
    return Column(
        name, dtype, lambda v: _is_integer(v) and low <= v <= high and v % step == 0, rule
    )


def _unit(name: str) -> Column:
    return Column(name, "float32", lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]")


def _quantity(name: str) -> Column:
    rule = "a finite number from 0, or null"
    return Column(name, "float32", lambda v: _is_number(v) and 0 <= v <= _FLOAT32_MAX, rule, True)


def _flag(name: str) -> Column:
    return Column(name, "bool", lambda v: isinstance(v, bool), "true or false")


def _label(name: str, labels: tuple[str, ...]) -> Column:
    return Column(
        name,
        "label",
        lambda v: isinstance(v, str) and v in labels,
        f"one of {', '.join(labels)}",
        labels=labels,
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_propensity(value: Any) -> bool:
    return _is_number(value) and _FLOAT32_MIN <= value <= 1


def _is_utc_ms(value: Any) -> bool:
    is_utc = isinstance(value, datetime) and value.utcoffset() == timedelta(0)
    return is_utc and value.microsecond % 1000 == 0


def _is_attribute_policy(value: Any) -> bool:
    """Return whether it is the one spelling of an attribute policy: sorted, each name once."""
    if not isinstance(value, str) or not _ATTRIBUTES.fullmatch(value):
        return False
    if value == NO_ATTRIBUTES:
        return True
    sections = [section.split("=")[1].split(",") for section in value.split(";")]
    names = [[item.split(":")[0] for item in section] for section in sections]
    every = [name for section in names for name in section]
    return len(set(every)) == len(every) and all(section == sorted(section) for section in names)


COLUMNS: tuple[Column, ...] = (
    _id("rating_id"),
    _integer("schema_version", "int16", 1, SCHEMA_VERSION),
    _id("rater_id"),
    _integer("rater_epoch", "int16", 1, 32_767),
    _id("session_id"),
    _id("page_id"),
    _id("photo_id"),
    _integer("position", "int8", 0, MAX_SHOWN - 1),
    _integer("n_shown", "int8", 1, MAX_SHOWN),
    _word("method"),
    _word("model_revision"),
    _unit("strength"),
    _quantity("epsilon"),
    _quantity("quality"),
    _label("response_type", RESPONSE_TYPES),
    Column("response", "int8", _integer("", "", 0, 4).accepts, "from 0 to 4, or null", True),
    Column("response_value", "float32", _unit("").accepts, "a number in [0, 1], or null", True),
    _flag("is_catch"),
    _flag("is_repeat"),
    _word("policy"),
    Column("propensity", "float32", _is_propensity, "a number above 0, at most 1"),
    _integer("response_ms", "int32", 0, MAX_RESPONSE_MS, step=100),
    _label("client", CLIENTS),
    _label("source", SOURCES),
    _word("consent_version"),
    _label("consent_scope", CONSENT_SCOPES),
    Column("created_at", "timestamp[ms, tz=UTC]", _is_utc_ms, "a UTC time in whole milliseconds"),
    _word("app_version"),
    Column(
        "attributes",
        "string",
        _is_attribute_policy,
        "none or keep=a,b;hide=c;set=d:value with sorted names, each once, or null",
        nullable=True,
        since=2,
    ),
)
"""The columns, in order; new ones will be nullable, last, and raise `SCHEMA_VERSION`."""


def six_digits(value: float) -> float:
    """Return `value` at six significant digits, which survive float32 both ways.

    What is too small for float32's full precision becomes 0.
    """
    kept = float(f"{value:.6g}")
    return kept if abs(kept) >= _FLOAT32_MIN else 0.0


def whole_ms(value: datetime) -> datetime:
    """Return `value` cut to whole milliseconds, what the rows hold."""
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def row_problems(record: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each broken rule among the columns present in `record`."""
    bad = {
        c.name: f"`{c.name}` must be {c.rule}, got {describe(record[c.name])}."
        for c in COLUMNS
        if c.name in record and not _is_accepted(c, record[c.name])
    }
    fine = {name: value for name, value in record.items() if name not in bad}
    problems = list(bad.values())
    if fine.keys() >= {"response_type", "response", "response_value"}:
        problems += _response_problems(
            fine["response_type"], fine["response"], fine["response_value"]
        )
    if fine.keys() >= {"position", "n_shown"} and fine["position"] >= fine["n_shown"]:
        problems.append(
            f"`position` must be below `n_shown` ({fine['n_shown']}), got {fine['position']}."
        )
    version = fine.get("schema_version", SCHEMA_VERSION)
    problems += [
        f"`{c.name}` must be null in a row of schema {version}, got {describe(fine[c.name])}."
        for c in COLUMNS
        if c.since > version and fine.get(c.name) is not None
    ]
    return problems


def _is_accepted(column: Column, value: Any) -> bool:
    return column.nullable if value is None else column.accepts(value)


def _response_problems(kind: str, response: int | None, value: float | None) -> list[str]:
    """Return what is wrong with an answer whose columns are each valid."""
    if kind == "slider":
        if response is not None or value is None:
            return ["A slider row must have a `response_value` and no `response`."]
        return []
    if response is None or value is not None:
        return [f"A {kind} row must have a `response` and no `response_value`."]
    highest = _HIGHEST_RESPONSE[kind]
    if response > highest:
        return [f"`response` of a {kind} row must be from 0 to {highest}, got {response}."]
    return []


def describe(value: object) -> str:
    """Return a value fit for a message: numbers and short words as they are, texts by length."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        is_word = re.fullmatch(r"[a-z0-9_]{1,24}", value) is not None
        return repr(value) if is_word else f"a text of {len(value)} characters"
    if isinstance(value, float | bool) or (isinstance(value, int) and abs(value) < _FLOAT32_MAX):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else f"a {type(value).__name__}"


def features(version: int = SCHEMA_VERSION) -> datasets.Features:
    """Return the columns of a schema version as `datasets.Features`, those of every shard."""
    # Imported here: `datasets` takes most of a second, and rating does not need it.
    from datasets import ClassLabel, Features, Value  # noqa: PLC0415

    return Features(
        {
            c.name: ClassLabel(names=list(c.labels)) if c.labels else Value(c.dtype)
            for c in COLUMNS
            if c.since <= version
        }
    )
