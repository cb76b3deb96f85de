"""Exact discrete Laplace noise from whole random numbers; knows no histogram, rating or file.

Canonne, Kamath & Steinke (2020), "The Discrete Gaussian for Differential Privacy", algorithms 1
and 2. No floating-point number is made anywhere: rounding would leak (Mironov 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

RandBelow = Callable[[int], int]
"""A uniform integer from 0 to n - 1, as `secrets.randbelow`."""


def discrete_laplace(scale: Fraction, *, randbelow: RandBelow) -> int:
    """Draw an integer y with probability proportional to exp(-|y| / scale).

    Args:
        scale: Above 0; an L1 sensitivity divided by ε.
        randbelow: The source of randomness, `secrets.randbelow` wherever privacy is claimed.

    Raises:
        ValueError: `scale` is not above 0.
    """
    if scale <= 0:
        raise ValueError(f"`scale` must be above 0, got {scale}.")
    t, s = scale.numerator, scale.denominator
    while True:
        u = randbelow(t)
        if not _bernoulli_exp(u, t, randbelow):
            continue
        v = 0
        while _bernoulli_exp(1, 1, randbelow):
            v += 1
        y = (u + t * v) // s
        is_negative = randbelow(2) == 1
        # Zero has one sign: with two it would be drawn twice as often.
        if not (is_negative and y == 0):
            return -y if is_negative else y


def _bernoulli_exp(numerator: int, denominator: int, randbelow: RandBelow) -> bool:
    """Draw True with probability exp(-γ), γ = numerator / denominator in [0, 1]."""
    k = 1
    while randbelow(denominator * k) < numerator:
        k += 1
    return k % 2 == 1
