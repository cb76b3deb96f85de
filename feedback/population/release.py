"""The differentially private population curve; knows densities and units, no rating and no file.

Neighbours differ in one rater, whose number is public: ε-differential privacy in the bounded sense.
One rater is one pseudonym: someone who rated under j of them has a loss of j·ε.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from feedback.errors import ReleaseError
from feedback.population.laplace import RandBelow, discrete_laplace
from feedback.preference.response import N_STRENGTHS, STRENGTHS, Array

N_BINS = 10
UNITS = 1000
"""What one rater contributes in all: replacing a rater moves the histogram by 2 UNITS in L1."""
MIN_RATERS = 20
LEAST_SIGNAL = 20
"""Raters times ε below which the noise of a release outweighs what its raters said."""
_POINTS_PER_BIN = 5
_ALPHA = 2.0
_SMOOTHING_SD = 0.04
_BLUR_SD = 0.12
"""What a handful of answers leaves open of a rater, twice: they err, and know that they may."""
_ROUNDS = 10
_MIN_EPSILON, _MAX_EPSILON, _MAX_DENOMINATOR = Fraction(1, 1000), Fraction(100), 1_000_000
_BIN_OF_POINT = np.minimum(np.arange(N_STRENGTHS) // _POINTS_PER_BIN, N_BINS - 1)


@dataclass(frozen=True)
class Release:
    """One differentially private histogram; may be shown to anyone, as often as wanted.

    Attributes:
        name: Such as "dp-eps1-2026Q4".
        epsilon: What drawing it cost, as a fraction: "1", "1/2".
        drawn_at: UTC time in ISO 8601.
        model_version: The model whose strengths were rated.
        n_raters: How many raters it is about; public.
        histogram: Noisy units per tenth of the dial, below 0 too; None where the program died
            between accounting and drawing.
    """

    name: str
    epsilon: str
    drawn_at: str
    model_version: str
    n_raters: int
    histogram: tuple[int, ...] | None

    @property
    def warning(self) -> str | None:
        """A sentence for the operator where raters times ε is below `LEAST_SIGNAL`, else None."""
        signal = self.n_raters * Fraction(self.epsilon)
        if signal >= LEAST_SIGNAL:
            return None
        return (
            f"Release {self.name} is mostly noise: raters times ε should be at least "
            f"{LEAST_SIGNAL}, got {float(signal):g}. Collect more ratings before the next one, or "
            "give it more ε."
        )

    def curve(self) -> Array:
        """Return the population's density over `response.STRENGTHS`, shape (51,), summing to 1.

        Everything here is post-processing of the noisy histogram and costs nothing.
        """
        if self.histogram is None:
            raise ReleaseError(
                f"Release {self.name} must have been drawn, got one that was only accounted for. "
                "Draw another with `--new-release`."
            )
        bins = np.maximum(np.array(self.histogram, dtype=np.float64) / UNITS, 0.0)
        return smooth(_sharpened(bins + _ALPHA / N_BINS))


def smooth(density: Array) -> Array:
    """Return a density over `response.STRENGTHS`, smoothed by a Gaussian of sd 0.04, sum 1."""
    kernel = np.exp(-0.5 * ((STRENGTHS[:, None] - STRENGTHS[None, :]) / _SMOOTHING_SD) ** 2)
    # Columns sum to 1, so that nothing is lost over the ends.
    spread = (kernel / kernel.sum(axis=0)) @ density
    return np.asarray(spread / spread.sum(), dtype=np.float64)


def _sharpened(bins: Array) -> Array:
    """Return the density over the grid, (51,), that blurred gives `bins`, (10,) from above 0.

    A sum of posteriors is wider than the raters are: a new rater's first answer would count for
    too much. Richardson (1972) and Lucy (1974), stopped early.
    """
    distance = STRENGTHS[:, None] - STRENGTHS[None, :]
    blur = np.exp(-0.5 * (distance / _BLUR_SD) ** 2)
    in_bins = np.eye(N_BINS)[:, _BIN_OF_POINT] @ (blur / blur.sum(axis=0))
    shares = bins / bins.sum()
    density: Array = np.full(N_STRENGTHS, 1 / N_STRENGTHS)
    for _ in range(_ROUNDS):
        density = density * (in_bins.T @ (shares / (in_bins @ density)))
    return density


def units_of(density: Array) -> tuple[int, ...]:
    """Return a rater's contribution: the histogram of a density in whole units.

    Largest remainders are rounded up, the lower bin first among equals, so the same density always
    gives the same units.

    Args:
        density: Weights from 0 over `response.STRENGTHS`, shape (51,), not all 0.

    Returns:
        `N_BINS` integers from 0 that sum to exactly `UNITS`.

    Raises:
        ReleaseError: `density` is no density.
    """
    values = np.asarray(density, dtype=np.float64)
    is_density = values.shape == STRENGTHS.shape and bool(np.isfinite(values).all())
    if not is_density or values.min() < 0 or values.max() == 0:
        raise ReleaseError(
            f"`density` must be {N_STRENGTHS} finite weights from 0, not all 0, got something else."
        )
    bins = np.bincount(_BIN_OF_POINT, weights=values / values.max(), minlength=N_BINS)
    exact = bins / bins.sum() * UNITS
    units = np.floor(exact).astype(int)
    by_remainder = np.argsort(units - exact, kind="stable")
    units[by_remainder[: UNITS - int(units.sum())]] += 1
    return tuple(int(unit) for unit in units)


def total_units(contributions: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the sum over raters, before noise; replacing one moves it by at most 2 UNITS in L1.

    Raises:
        ReleaseError: There are fewer than `MIN_RATERS`, or a contribution has another total.
    """
    if len(contributions) < MIN_RATERS:
        raise ReleaseError(
            f"A release must be about at least {MIN_RATERS} raters who agreed to published totals, "
            f"got {len(contributions)}. Collect more ratings; until then the public default holds."
        )
    for units in contributions:
        # The proof of privacy rests on this line: it is checked where the sum is made.
        if len(units) != N_BINS or min(units) < 0 or sum(units) != UNITS:
            raise ReleaseError(
                f"A contribution must be {N_BINS} whole numbers from 0 that sum to {UNITS}, "
                "got another. Make it with `units_of`."
            )
    return tuple(sum(column) for column in zip(*contributions, strict=True))


def parse_epsilon(text: str) -> Fraction:
    """Return ε as an exact fraction.

    Raises:
        ReleaseError: It is no number from 0.001 to 100 with at most six decimals.
    """
    try:
        # Long texts are refused unread: "1e999999999" would fill the memory.
        epsilon = Fraction(text) if len(text) <= 12 and "e" not in text.lower() else Fraction(0)  # noqa: PLR2004
    except (ValueError, ZeroDivisionError):
        epsilon = Fraction(0)
    if not _MIN_EPSILON <= epsilon <= _MAX_EPSILON or epsilon.denominator > _MAX_DENOMINATOR:
        raise ReleaseError(
            "`epsilon` must be a number from 0.001 to 100 with at most six decimals, got another. "
            "1 is usual for a release a quarter."
        )
    return epsilon


def noisy(units: Sequence[int], *, epsilon: Fraction, randbelow: RandBelow) -> tuple[int, ...]:
    """Return a histogram with two-sided geometric noise of scale 2 UNITS / ε on every bin."""
    scale = Fraction(2 * UNITS) / epsilon
    return tuple(unit + discrete_laplace(scale, randbelow=randbelow) for unit in units)
