"""Many raters' posteriors side by side, for simulations: the arithmetic of `preference` in bulk.

Answers come in step, one per rater, on one photo after another. Knows no judgement and no truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedback.preference.belief import Prior, drift_kernel, photo_kernel
from feedback.preference.response import (
    LAPSES,
    LENIENCIES,
    NOISES,
    STEP,
    STRENGTHS,
    Array,
    choice_shares,
    likelihood,
    nuisances,
)
from feedback.preference.selection import Sets, choice_variance, least, moments, single_variance

Ints = NDArray[np.intp]


class PosteriorBatch:
    """The posteriors of `n` raters who are asked in step.

    Attributes:
        n: How many raters.
        photo_sd: As in `RaterModel`.
    """

    def __init__(
        self, n: int, *, prior: Prior | None, photo_sd: float, knows_careless: bool = True
    ) -> None:
        """Start all raters from one prior, flat by default.

        Args:
            n: How many raters.
            prior: What is believed of each.
            photo_sd: As in `RaterModel`.
            knows_careless: Whether some may be careless.
        """
        *_, lapse, weights = nuisances()
        known = weights if knows_careless else weights * (lapse != LAPSES[-1])
        start = (prior if prior is not None else Prior.flat()).density[:, None] * known
        self.n = n
        self.photo_sd = photo_sd
        self._cavity: Array = np.tile(start / start.sum(), (n, 1, 1))
        self._own: Array = np.ones_like(self._cavity)

    def density(self) -> Array:
        """Return what is believed about each rater's ideal, (n, 51)."""
        weights = (self._cavity * self._message()).sum(axis=-1)
        believed: Array = weights / weights.sum(axis=-1, keepdims=True)
        return believed

    def best_single(self, kind: str, rungs: tuple[float, ...]) -> Ints:
        """Return the index of the rung whose answer teaches most about each rater, (n,)."""
        of = moments(self._cavity, self._own, self.photo_sd)
        return least(single_variance(of, kind, rungs))

    def best_set(self, rungs: tuple[float, ...], sets: Sets) -> Ints:
        """Return the indices of the rungs whose comparison teaches most, (n, shown)."""
        of = moments(self._cavity, self._own, self.photo_sd)
        best: Ints = sets[least(choice_variance(of, rungs, sets))]
        return best

    def update(self, kind: str, strengths: Array, answers: Ints) -> None:
        """Learn one answer of each rater.

        Args:
            kind: A kind of question with listed answers.
            strengths: What each was shown, (n, shown).
            answers: What each answered, (n,).
        """
        if kind == "best_of_n":
            seen = _choice_likelihood(strengths, answers)
        else:
            rungs, which = np.unique(strengths[:, 0], return_inverse=True)
            tables = np.stack([likelihood(kind, (float(rung),)) for rung in rungs])
            seen = tables[which, answers]
        self._own *= seen
        self._own /= self._own.max(axis=(-1, -2), keepdims=True)

    def next_photo(self) -> None:
        """Go on to another photo, whose shift is not yet known."""
        self._cavity *= self._message()
        self._cavity /= self._cavity.sum(axis=(-1, -2), keepdims=True)
        self._own = np.ones_like(self._cavity)

    def drift(self, sd: float) -> None:
        """Let each taste walk at random, with this standard deviation in strength."""
        if sd:
            self.next_photo()
            self._cavity = drift_kernel(sd**2) @ self._cavity

    def _message(self) -> Array:
        if not self.photo_sd:
            return self._own
        message: Array = photo_kernel(self.photo_sd) @ self._own
        return message


@dataclass(frozen=True, eq=False)
class Traces:
    """What happened to every rater.

    Attributes:
        ideals: The truth after 0, 1, … answers, (answers + 1, raters).
        densities: What was believed, (answers + 1, raters, 51).
    """

    ideals: Array
    densities: Array

    @property
    def means(self) -> Array:
        """Expected ideal, (answers + 1, raters)."""
        expected: Array = self.densities @ STRENGTHS
        return expected

    @property
    def sds(self) -> Array:
        """Standard deviation, (answers + 1, raters)."""
        variance = self.densities @ STRENGTHS**2 - self.means**2
        deviation: Array = np.sqrt(np.maximum(variance, 0))
        return deviation

    def quantiles(self, q: float) -> Array:
        """Return the least grid strength with at least probability q at or below it."""
        reached = np.cumsum(self.densities, axis=-1) >= q - 1e-12
        found: Array = STRENGTHS[np.argmax(reached, axis=-1)]
        return found

    def covered(self, share: float = 0.9) -> NDArray[np.bool_]:
        """Return whether the widened central interval holds the truth, (answers + 1, raters)."""
        low = self.quantiles((1 - share) / 2) - STEP / 2
        high = self.quantiles((1 + share) / 2) + STEP / 2
        inside: NDArray[np.bool_] = (low <= self.ideals) & (self.ideals <= high)
        return inside


def _choice_likelihood(strengths: Array, chosen: Ints) -> Array:
    """Return P(chosen | m, nuisance) for each rater's own page, (n, 51, 30)."""
    shares = choice_shares(strengths, np.asarray(NOISES))  # (n, shown, 51, noises)
    picked = shares[np.arange(len(chosen)), chosen]
    *_, lapse, _weights = nuisances()
    by_cell = np.repeat(picked, len(LENIENCIES) * len(LAPSES), axis=-1)
    likely: Array = (1 - lapse) * by_cell + lapse / strengths.shape[1]
    return likely
