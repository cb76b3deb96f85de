"""Distributions over preferred strength, and how they spread; knows no answer and no rater.

Everything is on the grid `response.STRENGTHS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from feedback.errors import InvalidRatingError
from feedback.preference.response import N_STRENGTHS, STEP, STRENGTHS, Array

POPULATION_SHARE = 0.9
"""The rest of every prior is uniform, so that nobody's taste is impossible."""
_LEAST_KERNEL = 1e-18


@dataclass(frozen=True)
class Prior:
    """What is believed about a rater before their first answer.

    Attributes:
        name: Where it comes from, such as "flat" or "dp-eps1-2026Q4".
        weights: 51 numbers from 0 over `response.STRENGTHS`; scaled to sum to one.
    """

    name: str
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check and scale the weights."""
        given = np.asarray(self.weights, dtype=float)
        if given.shape != (N_STRENGTHS,) or not (given >= 0).all() or not 0 < given.sum() < np.inf:
            raise InvalidRatingError(
                f"`weights` must be {N_STRENGTHS} finite numbers from 0, not all 0, "
                f"got {given.size} that are not. Use `Prior.flat()`."
            )
        object.__setattr__(self, "weights", tuple((given / given.sum()).tolist()))

    @classmethod
    def flat(cls) -> Prior:
        """Return the prior that favours no strength."""
        return cls("flat", (1.0,) * N_STRENGTHS)

    @property
    def density(self) -> Array:
        """What a posterior starts from: 0.9 of the weights and 0.1 uniform, (51,), sum 1."""
        uniform = (1 - POPULATION_SHARE) / N_STRENGTHS
        mixed: Array = POPULATION_SHARE * np.asarray(self.weights) + uniform
        mixed /= mixed.sum()
        return mixed


@dataclass(frozen=True, eq=False)
class Belief:
    """A distribution over strength.

    Attributes:
        density: Probability of each of `response.STRENGTHS`, (51,), sum 1, read-only.
    """

    density: Array = field(repr=False)

    def __post_init__(self) -> None:
        """Make the numbers read-only."""
        self.density.setflags(write=False)

    @cached_property
    def mean(self) -> float:
        """The expected strength."""
        return float(self.density @ STRENGTHS)

    @cached_property
    def sd(self) -> float:
        """The standard deviation."""
        return float(np.sqrt(self.density @ (STRENGTHS - self.mean) ** 2))

    def quantile(self, q: float) -> float:
        """Return the least strength of the grid with at least probability `q` at or below it.

        Raises:
            InvalidRatingError: `q` is not in [0, 1].
        """
        if not 0 <= q <= 1:
            raise InvalidRatingError(f"`q` must be in [0, 1], got {q}.")
        position = int(np.searchsorted(np.cumsum(self.density), q - 1e-12))
        return float(STRENGTHS[min(position, N_STRENGTHS - 1)])

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Return the central interval, widened by half a step of the grid on both sides.

        Args:
            share: Probability inside, in [0, 1].
        """
        low, high = self.quantile((1 - share) / 2), self.quantile((1 + share) / 2)
        return max(0.0, low - STEP / 2), min(1.0, high + STEP / 2)


@lru_cache(maxsize=8)
def photo_kernel(photo_sd: float) -> Array:
    """Return P(m | μ), (51, 51), one row per μ, each summing to one over m; read-only."""
    if photo_sd == 0:
        kernel = np.eye(N_STRENGTHS)
    else:
        shift = (STRENGTHS[None, :] - STRENGTHS[:, None]) / photo_sd
        kernel = np.exp(-(shift**2) / 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
    kernel.setflags(write=False)
    return kernel


def log_message(log_likelihood: Array, photo_sd: float) -> Array:
    """Return log Σ_m P(m | μ) Λ(m, nuisance) for any number of photos, (…, 51, 30) both."""
    if photo_sd == 0:
        return log_likelihood
    top = log_likelihood.max(axis=-2, keepdims=True)
    message: Array = top + np.log(photo_kernel(photo_sd) @ np.exp(log_likelihood - top))
    return message


def drift_kernel(variance: float) -> Array:
    """Return the random walk's kernel over the grid, (51, 51), with reflecting ends.

    The heat kernel of the grid, not a sampled normal curve: it loses no variance when the drift
    is smaller than a step, and the drift of two times is the drift of their sum.
    """
    k = np.arange(N_STRENGTHS)
    waves = np.cos(np.pi * k * (k[:, None] + 0.5) / N_STRENGTHS)
    waves /= np.linalg.norm(waves, axis=0)
    decay = np.exp(-variance / STEP**2 * (1 - np.cos(np.pi * k / N_STRENGTHS)))
    kernel: Array = np.maximum((waves * decay) @ waves.T, _LEAST_KERNEL)
    kernel /= kernel.sum(axis=0)
    return kernel
