"""A page of blinded variants, the answer to it, and the rows they make; no key, file or clock.

A page lists what was really shown, in the order shown. Rows take everything about a variant from
the page and nothing from the browser but a position, two answers and two durations.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from feedback.columns import (
    MAX_RESPONSE_MS,
    MAX_SHOWN,
    Client,
    ConsentScope,
    ResponseType,
    Source,
    describe,
    row_problems,
    six_digits,
    whole_ms,
)
from feedback.errors import InvalidRatingError
from feedback.schema import Rating


def new_id() -> str:
    """Return a random 128-bit identifier, 32 hexadecimal digits, for a page or a photo."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Consent:
    """What a rater agreed to; no consent is None, and then nothing is stored.

    Attributes:
        version: Version of the text that was agreed to, such as "2026-11".
        scope: personal_only: their own preference; aggregate: also published totals and models;
            publish_row: also the row itself, with its date rounded to the day.
    """

    version: str
    scope: ConsentScope

    def __post_init__(self) -> None:
        """Check version and scope."""
        _check({"consent_version": self.version, "consent_scope": self.scope})


@dataclass(frozen=True)
class Rater:
    """Who answers: a pseudonym, and the key epoch it was made in."""

    rater_id: str
    rater_epoch: int

    def __post_init__(self) -> None:
        """Check the pseudonym's form."""
        _check(asdict(self))


@dataclass(frozen=True)
class Shown:
    """One variant on a page.

    Attributes:
        strength: In [0, 1], as shown.
        epsilon: Its ε, None where there is none.
        quality: Measured picture quality, None if not measured.
        is_catch: Shown to see whether the rater pays attention.
        is_repeat: Shown before, to see whether the rater agrees with themselves.
    """

    strength: float
    epsilon: float | None = None
    quality: float | None = None
    is_catch: bool = False
    is_repeat: bool = False

    def __post_init__(self) -> None:
        """Check the values, then keep six digits, as the rows do."""
        _check(asdict(self))
        for name in ("strength", "epsilon", "quality"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, six_digits(value))


@dataclass(frozen=True, kw_only=True)
class Page:
    """Variants of one photo shown together, in the order shown.

    Attributes:
        session_id: Pseudonym of the web session, from `identity.session_id`.
        photo_id: From `new_id`, never derived from the photo.
        method: Backend name or repository id.
        model_revision: Digest or commit of the weights, or version of a baseline.
        shown: The variants, 2 to 16, no strength twice.
        source: Whose photo it is.
        app_version: Version of the app that showed it.
        expires_at: UTC time from which it can no longer be answered.
        policy: How the strengths and their order were chosen.
        propensity: Probability in (0, 1] with which `policy` chose this set of strengths.
        page_id: Random.
        attributes: What the variants keep, hide and set, as the row says it; None: not recorded.
    """

    session_id: str
    photo_id: str
    method: str
    model_revision: str
    shown: tuple[Shown, ...]
    source: Source
    app_version: str
    expires_at: datetime
    policy: str = "fixed_ladder"
    propensity: float = 1.0
    page_id: str = field(default_factory=new_id)
    attributes: str | None = None

    def __post_init__(self) -> None:
        """Check all fields at once."""
        problems = row_problems({name: getattr(self, name) for name in _PAGE_COLUMNS})
        problems += _time_problems("expires_at", self.expires_at)
        strengths = [variant.strength for variant in self.shown]
        if not 1 < len(strengths) <= MAX_SHOWN or len(set(strengths)) < len(strengths):
            problems.append(
                f"`shown` must be 2 to {MAX_SHOWN} variants of different strengths, "
                f"got {len(strengths)} with {len(set(strengths))} strengths."
            )
        if problems:
            raise InvalidRatingError(*problems)
        object.__setattr__(self, "propensity", six_digits(self.propensity))
        object.__setattr__(self, "expires_at", whole_ms(self.expires_at))

    def columns_at(self, position: int) -> dict[str, Any]:
        """Return the columns of a row that the page decides, for one position."""
        columns = {name: getattr(self, name) for name in _PAGE_COLUMNS}
        variant = asdict(self.shown[position])
        return columns | variant | {"position": position, "n_shown": len(self.shown)}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The clicks on one page.

    Attributes:
        best: Position, from 0, of the variant they would post; None if none is good enough.
        just_right: Of that variant: 0 far too recognisable, 1 slightly, 2 just right, 3 changed
            slightly too much, 4 far too much. Where none is good enough, of all of them: 0 or 1
            all too recognisable, 3 or 4 all changed too much.
        best_ms: Milliseconds until the first click.
        just_right_ms: Milliseconds from there to the second.
        client: Where the answer came from.
        answered_at: UTC time.
    """

    best: int | None
    just_right: int
    best_ms: int
    just_right_ms: int
    client: Client
    answered_at: datetime


def rating_id(key: bytes, *, page_id: str, position: int, response_type: ResponseType) -> str:
    """Return the one possible id of a judgement: HMAC of page, position and question.

    Args:
        key: Secret bytes, `Keys.derive("rating")`.
        page_id: 32 hexadecimal digits.
        position: From 0.
        response_type: The question.

    Returns:
        32 hexadecimal digits; the same judgement has the same id however often it is sent.
    """
    message = f"v1|{page_id}|{position}|{response_type}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]


def rows_of_page(
    page: Page, answer: Answer, *, rater: Rater, consent: Consent | None, key: bytes
) -> tuple[Rating, ...]:
    """Turn an answered page into rows: one best_of_n row per variant, one jar5 row for the best.

    Where none is good enough every best_of_n row is 0, and the jar5 row is of the variant that
    says most: the strongest if all are too recognisable, the weakest if all are changed too much.

    Args:
        page: As opened from its token.
        answer: The clicks.
        rater: Who answered.
        consent: What they agreed to; None makes no rows.
        key: Secret bytes for `rating_id`.

    Raises:
        InvalidRatingError: The answer names a position that was not shown, or breaks a rule.
    """
    _check_answer(page, answer)
    if consent is None:
        return ()
    shared = {
        **asdict(rater),
        "client": answer.client,
        "consent_version": consent.version,
        "consent_scope": consent.scope,
        "created_at": whole_ms(answer.answered_at),
    }

    def row(position: int, kind: ResponseType, response: int, elapsed_ms: int) -> Rating:
        return Rating(
            rating_id=rating_id(key, page_id=page.page_id, position=position, response_type=kind),
            response_type=kind,
            response=response,
            response_ms=elapsed_ms // 100 * 100,
            **page.columns_at(position),
            **shared,
        )

    choices = (
        row(i, "best_of_n", int(i == answer.best), answer.best_ms) for i in range(len(page.shown))
    )
    judged = _judged_position(page, answer)
    return (*choices, row(judged, "jar5", answer.just_right, answer.just_right_ms))


def check_rows(page: Page, rows: Sequence[Rating]) -> None:
    """Check that rows say about the page only what is true of it.

    Raises:
        InvalidRatingError: A row differs from the page in what was shown, two rows are the same
            judgement, or the rows have more than one rater; every difference is listed.
    """
    problems = []
    for number, row in enumerate(rows, 1):
        if row.position >= len(page.shown):
            problems.append(f"Row {number}: `position` {row.position} was not shown on the page.")
            continue
        problems += [
            f"Row {number}: `{name}` must be what the page showed."
            for name, value in page.columns_at(row.position).items()
            if getattr(row, name) != value
        ]
    if len({row.rating_id for row in rows}) < len(rows):
        problems.append("Each variant must be rated once per question, got the same row twice.")
    if len({row.rater_id for row in rows}) > 1:
        problems.append("All rows of a page must have one rater, got several.")
    if problems:
        raise InvalidRatingError(*problems)


_PAGE_COLUMNS = (
    "page_id",
    "session_id",
    "photo_id",
    "method",
    "model_revision",
    "source",
    "app_version",
    "policy",
    "propensity",
    "attributes",
)
_JUST_RIGHT = 2


def _judged_position(page: Page, answer: Answer) -> int:
    """Return the position the second answer is about."""
    if answer.best is not None:
        return answer.best
    strengths = [variant.strength for variant in page.shown]
    extreme = max(strengths) if answer.just_right < _JUST_RIGHT else min(strengths)
    return strengths.index(extreme)


def _check(columns: dict[str, Any]) -> None:
    """Raise for columns that break the row's rules."""
    if problems := row_problems(columns):
        raise InvalidRatingError(*problems)


def _check_answer(page: Page, answer: Answer) -> None:
    """Raise for an answer the page does not allow, naming the answer's own fields."""
    problems = []
    limits = {} if answer.best is None else {"best": len(page.shown) - 1}
    limits |= {"just_right": 4, "best_ms": MAX_RESPONSE_MS, "just_right_ms": MAX_RESPONSE_MS}
    for name, highest in limits.items():
        value = getattr(answer, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
            problems.append(
                f"`{name}` must be an integer from 0 to {highest}, got {describe(value)}."
            )
    if answer.best is None and answer.just_right == _JUST_RIGHT:
        problems.append(
            "`just_right` must be 0, 1, 3 or 4 where `best` is None, got 2. Say whether all are "
            "too recognisable or all are changed too much, or name the `best`."
        )
    problems += row_problems({"client": answer.client})
    problems += _time_problems("answered_at", answer.answered_at)
    if problems:
        raise InvalidRatingError(*problems)


def _time_problems(name: str, value: object) -> list[str]:
    """Return what is wrong with a time that may have microseconds."""
    if isinstance(value, datetime) and value.utcoffset() == timedelta(0):
        return []
    return [f"`{name}` must be a time in UTC, got {describe(value)}. Use `datetime.now(UTC)`."]
