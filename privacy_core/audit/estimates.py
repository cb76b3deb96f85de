"""Numbers with intervals: the bootstrap over people and over models.

Knows values per model and row; not what they measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy_core.errors import InvalidArgumentError

Floats = NDArray[np.float64]
LEVEL = 0.95
"""Share of the bootstrap's draws that an interval holds."""
N_DRAWS = 400


@dataclass(frozen=True)
class Estimate:
    """A number and the interval that holds 95 % of its bootstrap draws.

    Attributes:
        value: The number itself, not the draws' mean.
        low: Lower end; None where nothing could be resampled.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, float | None]:
        """Return plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def interval(value: float, draws: ArrayLike) -> Estimate:
    """Return a value with the middle 95 % of its draws."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(np.asarray(draws, np.float64), (tail, 100 - tail))
    return Estimate(float(value), float(low), float(high))


def mean_over_people(
    values: ArrayLike, people: ArrayLike, *, seed: int, n_draws: int = N_DRAWS
) -> Estimate:
    """Return a mean over rows, with an interval over people (and models) drawn anew.

    The photos of one person are drawn together: they are no independent evidence.

    Args:
        values: (n,) one per row, or (K, n) for K models.
        people: (n,) who is shown.
        seed: Seed of the bootstrap.
        n_draws: How often to resample.

    Raises:
        InvalidArgumentError: There are no rows, or `people` has another length.
    """
    table = np.atleast_2d(np.asarray(values, np.float64))
    _, number = np.unique(np.asarray(people), return_inverse=True)
    if table.shape[1] == 0 or table.shape[1] != len(number):
        raise InvalidArgumentError(
            "`values` and `people` must have one entry per row and at least one, got "
            f"{table.shape[1]} and {len(number)}. Leave a metric without rows out."
        )
    counts = np.bincount(number).astype(np.float64)
    sums = np.stack([np.bincount(number, row) for row in table])
    rng = np.random.default_rng(seed)
    n_models, n_people = sums.shape
    by_person = rng.multinomial(n_people, np.full(n_people, 1 / n_people), n_draws)
    by_model = rng.multinomial(n_models, np.full(n_models, 1 / n_models), n_draws) / n_models
    draws = np.einsum("bk,kp,bp->b", by_model, sums, by_person) / (by_person @ counts)
    return interval(float(table.mean()), draws)


def mean_over_models(values: ArrayLike, *, seed: int, n_draws: int = N_DRAWS) -> Estimate:
    """Return the mean of one value per model, with an interval over models drawn anew.

    Raises:
        InvalidArgumentError: There is no model.
    """
    found = np.asarray(values, np.float64).ravel()
    if len(found) == 0:
        raise InvalidArgumentError(
            "`values` must hold at least one model's value, got none. Leave the metric out."
        )
    if len(found) == 1:
        return Estimate(float(found[0]))
    rng = np.random.default_rng(seed)
    draws = found[rng.integers(0, len(found), (n_draws, len(found)))].mean(1)
    return interval(float(found.mean()), draws)
