"""How likely each answer is for each possible rater, as tables on one grid; knows no row, no prior.

Strength is the row's own: the embedded model's scale is calibrated on the share of faces a
recogniser still knows, so equal steps are already roughly equal steps of what people see.

Symbols: m the ideal strength for one photo, d = strength − m, σ the rater's noise, ρ their
leniency, λ the probability of a careless answer, Φ the normal distribution function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feedback.columns import describe
from feedback.errors import InvalidRatingError

Array = NDArray[np.float64]

N_STRENGTHS = 51
STEP = 1 / (N_STRENGTHS - 1)
STRENGTHS: Array = np.round(np.linspace(0.0, 1.0, N_STRENGTHS), 2)
"""The grid of preferred strengths: 0, 0.02, …, 1."""
STRENGTHS.setflags(write=False)

NOISES = (0.05, 0.08, 0.12, 0.18, 0.27)
NOISE_WEIGHTS = (0.10, 0.25, 0.30, 0.25, 0.10)
LENIENCIES = (0.7, 1.0, 1.4)
LENIENCY_WEIGHTS = (0.25, 0.50, 0.25)
LAPSES = (0.02, 0.30)
LAPSE_WEIGHTS = (0.90, 0.10)
N_NUISANCES = len(NOISES) * len(LENIENCIES) * len(LAPSES)

CUTS = {"jar5": (-0.28, -0.10, 0.10, 0.28), "jar3": (-0.10, 0.10), "binary": (0.0,)}
"""Where answers from too weak to too strong change over, in strength beyond the ideal."""
BOUNDS = {"likert5": (0.10, 0.19, 0.28, 0.40), "acceptable": (0.19,)}
"""How far from the ideal each answer from best to worst reaches."""
CHOICE_WIDTH = 0.20
CHOICE_NOISE = 0.12
SLIDER_SD = 0.15
_CHOICES = "best_of_n"
_SLIDER = "slider"
KINDS = (*CUTS, *BOUNDS, _CHOICES, _SLIDER)
"""Kinds of answers; rows have jar5, best_of_n, likert5 and slider, simulations have all."""


def nuisances() -> tuple[Array, Array, Array, Array]:
    """Return σ, ρ, λ and the prior weight of each of the 30 nuisance cells, (30,) each."""
    axes = np.meshgrid(NOISES, LENIENCIES, LAPSES, indexing="ij")
    weights = np.einsum("i,j,k->ijk", NOISE_WEIGHTS, LENIENCY_WEIGHTS, LAPSE_WEIGHTS)
    noise, leniency, lapse = (axis.ravel() for axis in axes)
    return noise, leniency, lapse, weights.ravel()


def n_outcomes(kind: str, n_shown: int = 1) -> int:
    """Return how many answers a kind of question has; a slider has no such number.

    Raises:
        InvalidRatingError: The kind is unknown or is slider.
    """
    if kind in CUTS:
        return len(CUTS[kind]) + 1
    if kind in BOUNDS:
        return len(BOUNDS[kind]) + 1
    if kind == _CHOICES:
        return n_shown
    raise InvalidRatingError(
        f"`kind` must have a list of answers, got {describe(kind)}. "
        f"Choose one of: {', '.join(k for k in KINDS if k != _SLIDER)}."
    )


def likelihood(kind: str, strengths: tuple[float, ...]) -> Array:
    """Return P(answer | m, nuisance) for one question with listed answers.

    Args:
        kind: One of `KINDS` but slider.
        strengths: What was shown: one strength, several for best_of_n.

    Returns:
        (answers, 51, 30), read-only; every entry is positive and the answers sum to one.

    Raises:
        InvalidRatingError: The kind is unknown or is slider.
    """
    n_outcomes(kind)
    return _table(kind, strengths)


def slider_likelihood(value: float) -> Array:
    """Return the density of a slider left at `value`, (51, 30): N(m, 0.15²) cut to [0, 1]."""
    ndtr = _ndtr()
    *_, lapse, _weights = nuisances()
    scaled = (value - STRENGTHS) / SLIDER_SD
    inside = ndtr((1 - STRENGTHS) / SLIDER_SD) - ndtr(-STRENGTHS / SLIDER_SD)
    density = np.exp(-(scaled**2) / 2) / (SLIDER_SD * np.sqrt(2 * np.pi) * inside)
    table: Array = (1 - lapse) * density[:, None] + lapse
    return table


def choice_shares(strengths: Array, noise: Array) -> Array:
    """Return the softmax of best-of-n without lapses, (sets, n, 51, noises).

    Args:
        strengths: (sets, n).
        noise: (noises,).
    """
    distance = (strengths[..., None] - STRENGTHS) / CHOICE_WIDTH  # (sets, n, 51)
    worth = -(CHOICE_NOISE / noise) * (distance**2)[..., None]  # (sets, n, 51, noises)
    worth -= worth.max(axis=1, keepdims=True)
    np.exp(worth, out=worth)
    worth /= worth.sum(axis=1, keepdims=True)
    return worth


@lru_cache(maxsize=128)
def _table(kind: str, strengths: tuple[float, ...]) -> Array:
    """Build the table once for each question."""
    if kind == _CHOICES:
        table = _choice_table(strengths)
    elif kind in CUTS:
        table = _cut_table(strengths[0], CUTS[kind])
    else:
        table = _folded_table(strengths[0], BOUNDS[kind])
    table.setflags(write=False)
    return table


def _choice_table(strengths: tuple[float, ...]) -> Array:
    noise, _, lapse, _ = nuisances()
    shares = choice_shares(np.asarray([strengths]), noise)[0]  # (n, 51, 30)
    table: Array = (1 - lapse) * shares + lapse / len(strengths)
    return table


def _cut_table(strength: float, cuts: tuple[float, ...]) -> Array:
    """Answers in order: P(y ≤ k) = (1−λ) Φ((ρ c_k − d)/σ) + λ (k+1)/K."""
    noise, leniency, lapse, _ = nuisances()
    offset = (strength - STRENGTHS)[None, :, None]
    bounds = np.asarray(cuts)[:, None, None]
    reached = _ndtr()((leniency * bounds - offset) / noise)  # (K−1, 51, 30)
    return _from_cumulative(reached, lapse)


def _folded_table(strength: float, bounds: tuple[float, ...]) -> Array:
    """Distance alone: P(y ≥ 4−k) = (1−λ)[Φ((ρ b_k − d)/σ) − Φ((−ρ b_k − d)/σ)] + λ (k+1)/K."""
    ndtr = _ndtr()
    noise, leniency, lapse, _ = nuisances()
    offset = (strength - STRENGTHS)[None, :, None]
    reach = leniency * np.asarray(bounds)[:, None, None]
    near = ndtr((reach - offset) / noise) - ndtr((-reach - offset) / noise)
    return _from_cumulative(near, lapse)[::-1].copy()


def _from_cumulative(cumulative: Array, lapse: Array) -> Array:
    """Turn P(first k+1 answers), (K−1, 51, 30), into P(each answer), (K, 51, 30)."""
    n = len(cumulative) + 1
    edges = np.concatenate([np.zeros((1, *cumulative.shape[1:])), cumulative])
    edges = np.concatenate([edges, np.ones((1, *cumulative.shape[1:]))])
    table: Array = (1 - lapse) * np.diff(edges, axis=0) + lapse / n
    return table


def _ndtr() -> Callable[[Array], Array]:
    # Imported here: scipy.special takes longer than all of this package.
    from scipy.special import ndtr  # noqa: PLC0415

    known: Callable[[Array], Array] = ndtr
    return known
