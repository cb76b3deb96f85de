"""From rating rows to judgements, the answers as the preference model reads them; knows no model.

The rows of a page say more than once what was clicked: a choice among n is n rows and one
judgement. Rows that contradict each other are left out and counted, never guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from feedback.columns import describe
from feedback.errors import InvalidRatingError
from feedback.preference.response import KINDS, n_outcomes
from feedback.schema import Rating

FAST_MS = 600
"""An answer to a page of pictures given in less was hardly looked at."""
_CHOICE = "best_of_n"
_SLIDER = "slider"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One answer to one question about one photo.

    Attributes:
        kind: One of `response.KINDS`.
        strengths: What was shown: one strength, or all of a best_of_n page.
        response: best_of_n: the index in `strengths` of the chosen one; slider: the strength it
            was left at; otherwise the answer's number from 0.
        photo_id: Which photo; judgements of one photo share its shift.
        session_id: Which web session; between sessions tastes may drift.
        response_ms: Time to answer, 0 if not known.
        created_at: When, None if not known; without it nothing drifts.

    Raises:
        InvalidRatingError: A value breaks a rule; all of them are listed.
    """

    kind: str
    strengths: tuple[float, ...]
    response: float
    photo_id: str
    session_id: str = ""
    response_ms: int = 0
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        """Check everything at once."""
        if problems := _judgement_problems(self):
            raise InvalidRatingError(*problems)

    @property
    def is_fast(self) -> bool:
        """Whether it was given faster than pictures can be compared; unknown times are not."""
        return 0 < self.response_ms < FAST_MS


@dataclass(frozen=True)
class History:
    """What one rater's rows say.

    Attributes:
        judgements: In the order of time.
        n_duplicates: Rows left out because the same judgement was there already.
        n_contradictory: Rows left out because they contradict each other.
        n_incomplete: Rows of choices left out because nothing, or not every variant, is there;
            "none is good enough" is such a page, and its jar5 row carries the answer.
    """

    judgements: tuple[Judgement, ...]
    n_duplicates: int = 0
    n_contradictory: int = 0
    n_incomplete: int = 0


def judgements_of(ratings: Iterable[Rating]) -> tuple[Judgement, ...]:
    """Return the judgements of one rater's rows; see `history_of`."""
    return history_of(ratings).judgements


def history_of(ratings: Iterable[Rating]) -> History:
    """Read one rater's rows, in any order.

    Args:
        ratings: Rows of one rater and of one model, as only then strengths mean the same.

    Raises:
        InvalidRatingError: The rows have several raters.
    """
    histories = histories_of(ratings)
    if len(histories) > 1:
        raise InvalidRatingError(
            f"`ratings` must be the rows of one rater, got {len(histories)} raters. "
            "Use `histories_of`."
        )
    return next(iter(histories.values()), History(()))


def histories_of(ratings: Iterable[Rating]) -> dict[str, History]:
    """Read the rows of many raters, each by its `rater_id`."""
    by_rater: dict[str, list[Rating]] = {}
    for rating in ratings:
        by_rater.setdefault(rating.rater_id, []).append(rating)
    return {rater: _history(rows) for rater, rows in by_rater.items()}


def _history(rows: list[Rating]) -> History:
    unique: dict[str, Rating] = {}
    for row in rows:
        unique.setdefault(row.rating_id, row)
    n_duplicates = len(rows) - len(unique)
    spots: dict[tuple[str, str, int], list[Rating]] = {}
    for row in unique.values():
        spots.setdefault((row.page_id, row.response_type, row.position), []).append(row)
    kept: list[Rating] = []
    torn: set[tuple[str, str]] = set()
    n_contradictory = 0
    for (page_id, kind, _), same in spots.items():
        if len({(row.response, row.response_value, row.strength) for row in same}) > 1:
            n_contradictory += len(same)
            torn.add((page_id, kind))
        else:
            kept.append(same[0])
            n_duplicates += len(same) - 1
    choices, contradictory, incomplete = _choices(kept, torn)
    read = [(row, _single(row)) for row in kept if row.response_type != _CHOICE] + choices
    return History(
        tuple(judgement for _, judgement in sorted(read, key=_order)),
        n_duplicates=n_duplicates,
        n_contradictory=n_contradictory + contradictory,
        n_incomplete=incomplete,
    )


def _choices(
    rows: list[Rating], torn: set[tuple[str, str]]
) -> tuple[list[tuple[Rating, Judgement]], int, int]:
    """Return one judgement for each whole page, and how many rows contradict or are incomplete."""
    pages: dict[str, list[Rating]] = {}
    for row in rows:
        if row.response_type == _CHOICE:
            pages.setdefault(row.page_id, []).append(row)
    judgements, n_contradictory, n_incomplete = [], 0, 0
    for page_id, shown in pages.items():
        shown.sort(key=lambda row: row.position)
        chosen = [i for i, row in enumerate(shown) if row.response]
        strengths = tuple(row.strength for row in shown)
        is_one_page = len({(row.photo_id, row.session_id, row.n_shown) for row in shown}) == 1
        is_distinct = len(set(strengths)) == len(strengths)
        if (page_id, _CHOICE) in torn or len(chosen) > 1 or not (is_one_page and is_distinct):
            n_contradictory += len(shown)
        elif not chosen or len(shown) < shown[0].n_shown or len(shown) == 1:
            n_incomplete += len(shown)
        else:
            judgements.append((shown[0], _judgement(shown[0], strengths, chosen[0])))
    return judgements, n_contradictory, n_incomplete


def _single(row: Rating) -> Judgement:
    answer = row.response_value if row.response_type == _SLIDER else row.response
    # A valid row has the one that its question asks for.
    return _judgement(row, (row.strength,), cast("float", answer))


def _judgement(row: Rating, strengths: tuple[float, ...], answer: float) -> Judgement:
    return Judgement(
        kind=row.response_type,
        strengths=strengths,
        response=answer,
        photo_id=row.photo_id,
        session_id=row.session_id,
        response_ms=row.response_ms,
        created_at=row.created_at,
    )


def _order(read: tuple[Rating, Judgement]) -> tuple[datetime, str, bool, int]:
    """Sort by time, the choice of a page first; ties by content, so that row order is nothing."""
    row = read[0]
    return row.created_at, row.page_id, row.response_type != _CHOICE, row.position


def _judgement_problems(judgement: Judgement) -> list[str]:
    kind, strengths = judgement.kind, judgement.strengths
    if kind not in KINDS:
        return [
            f"`kind` must be one of {', '.join(KINDS)}, got {describe(kind)}. "
            "Leave out answers to other questions."
        ]
    problems = [
        f"`strengths` must be in [0, 1], got {describe(s)}. Use the strengths of the rows."
        for s in strengths
        if not (_is_number(s) and 0 <= s <= 1)
    ]
    least, most = (2, len(strengths)) if kind == _CHOICE else (1, 1)
    if not least <= len(strengths) <= most or len(set(strengths)) < len(strengths):
        rule = "at least two different strengths" if kind == _CHOICE else "one strength"
        problems.append(f"`strengths` of a {kind} answer must be {rule}, got {len(strengths)}.")
    return problems + _response_problems(kind, judgement.response, len(strengths))


def _response_problems(kind: str, response: float, n_shown: int) -> list[str]:
    if kind == _SLIDER:
        if _is_number(response) and 0 <= response <= 1:
            return []
        return [f"`response` of a slider must be in [0, 1], got {describe(response)}."]
    highest = n_outcomes(kind, n_shown) - 1
    is_integer = isinstance(response, int) and not isinstance(response, bool)
    if is_integer and 0 <= response <= highest:
        return []
    return [
        f"`response` of a {kind} answer must be an integer from 0 to {highest}, "
        f"got {describe(response)}."
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
