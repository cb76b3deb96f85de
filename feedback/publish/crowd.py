"""What published answers say together: shares and intervals by tenth of the dial; knows rows.

Every rater counts as often as they answered, and intervals are drawn over raters, not over rows:
answers of one person resemble each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from feedback.columns import Source
from feedback.population.release import N_BINS
from feedback.preference.response import Array
from feedback.schema import Rating

_JUST_RIGHT = 2
_DRAWS = 400
_SEED = 20261121


@dataclass(frozen=True)
class Tenth:
    """What raters said of variants in one tenth of the dial.

    Attributes:
        low: Strength from which it goes, in [0, 1).
        n_answers: Just-about-right answers.
        n_raters: Raters who gave them.
        too_recognisable: Share of "too recognisable", in [0, 1].
        just_right: Share of "just right".
        too_changed: Share of "changed too much".
        interval: 90 % interval of `just_right`, a bootstrap over raters.
    """

    low: float
    n_answers: int
    n_raters: int
    too_recognisable: float
    just_right: float
    too_changed: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class CrowdView:
    """Answers of one kind of photo.

    Attributes:
        n_rows: Rows of any kind.
        n_raters: Whose they are.
        tenths: Those tenths of which somebody said something.
    """

    n_rows: int
    n_raters: int
    tenths: tuple[Tenth, ...]


def crowd_view(ratings: Iterable[Rating], *, source: Source | None = None) -> CrowdView:
    """Return what raters said at each tenth of the dial.

    Args:
        ratings: Published rows.
        source: Only of photos from there, None for all.
    """
    rows = [row for row in ratings if source in (None, row.source)]
    judged = [
        (row, row.response)
        for row in rows
        if row.response_type == "jar5" and row.response is not None
    ]
    raters = sorted({row.rater_id for row, _ in judged})
    counts = _counts(judged, raters)
    weights = _drawn_raters(len(raters))
    return CrowdView(
        n_rows=len(rows),
        n_raters=len({row.rater_id for row in rows}),
        tenths=tuple(
            _tenth(number, counts[:, number], weights)
            for number in range(N_BINS)
            if counts[:, number].sum()
        ),
    )


def _drawn_raters(n: int) -> Array:
    """Return how often each of n raters counts in each draw of the bootstrap, (draws, n)."""
    if n == 0:
        return np.zeros((_DRAWS, 0))
    draws = np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    return draws.astype(np.float64)


def _counts(judged: Sequence[tuple[Rating, int]], raters: Sequence[str]) -> Array:
    """Return answers by rater, tenth, and too recognisable / just right / too changed."""
    place = {rater: number for number, rater in enumerate(raters)}
    counts = np.zeros((len(raters), N_BINS, 3))
    for row, response in judged:
        tenth = min(int(row.strength * N_BINS), N_BINS - 1)
        counts[place[row.rater_id], tenth, 1 + int(np.sign(response - _JUST_RIGHT))] += 1
    return counts


def _tenth(number: int, counts: Array, weights: Array) -> Tenth:
    total = counts.sum()
    shares = counts.sum(axis=0) / total
    answers = weights @ counts.sum(axis=1)
    drawn = (weights @ counts[:, 1])[answers > 0] / answers[answers > 0]
    low, high = np.quantile(drawn, (0.05, 0.95))
    return Tenth(
        low=number / N_BINS,
        n_answers=int(total),
        n_raters=int((counts.sum(axis=1) > 0).sum()),
        too_recognisable=float(shares[0]),
        just_right=float(shares[1]),
        too_changed=float(shares[2]),
        interval=(float(low), float(high)),
    )
