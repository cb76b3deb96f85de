"""Measured distances → the strength curve: a threshold, and the noise at which each anchor lies.

Anchors (design §3): 0 the code's own reconstruction, 0.5 at most half of the variants verified as
their original, 0.8 at most 2 %, 1 pure noise. Knows numbers; no photo and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from privacy_core.calibrate.measuring import Measurement
from privacy_core.diffusion.sampler import CAUTION
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import StrengthCurve

FALSE_ACCEPT_RATE = 1e-3
ANCHORS = ((0.5, 0.5), (0.8, 0.02))
"""Strength → largest share of variants still verified as their original."""
_CONFIDENCE = 0.9


def verification_threshold(
    embeddings: NDArray[np.float64],
    people: NDArray[np.int64],
    *,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
) -> tuple[float, int]:
    """Return the distance below which that share of different people's originals match.

    Args:
        embeddings: (n, d) embeddings of originals.
        people: (n,) who is shown; -1 counts as a person of their own.
        false_accept_rate: Share of pairs of strangers that may match.

    Returns:
        Threshold and number of pairs.

    Raises:
        InvalidArgumentError: Fewer than 10 / `false_accept_rate` pairs of strangers.
    """
    squared = (embeddings**2).sum(1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * embeddings @ embeddings.T, 0))
    strangers = (people[:, None] != people) | (people[:, None] < 0)
    pairs = distances[np.triu(strangers, 1)]
    if len(pairs) < 10 / false_accept_rate:
        raise InvalidArgumentError(
            f"`DATA` must give at least {10 / false_accept_rate:.0f} pairs of different people, "
            f"got {len(pairs)}. Use more people."
        )
    return float(np.quantile(pairs, false_accept_rate)), len(pairs)


@dataclass(frozen=True)
class Verified:
    """How often one recogniser verifies variants as their original.

    Attributes:
        measured: What it found.
        threshold: Its verification threshold, of `n_pairs` pairs of strangers.
        n_pairs: How many.
    """

    measured: Measurement
    threshold: float
    n_pairs: int

    @classmethod
    def of(cls, measured: Measurement) -> Verified:
        """Fix the threshold on the originals.

        Raises:
            InvalidArgumentError: There are too few pairs of strangers.
        """
        return cls(measured, *verification_threshold(measured.originals, measured.people))

    @property
    def shares(self) -> NDArray[np.float64]:
        """Return (r,) the share verified at each strength, over photos and draws of noise."""
        found: NDArray[np.float64] = (self.measured.distances < self.threshold).mean((1, 2))
        return found

    @property
    def rates(self) -> NDArray[np.float64]:
        """Return (r - 1,) the shares of all strengths but the first, made to fall."""
        found: NDArray[np.float64] = isotonic_regression(self.shares[1:], increasing=False).x
        return found

    def facts(self) -> dict[str, object]:
        """Return what the curve tells of this recogniser."""
        return {
            "threshold": self.threshold,
            "n_pairs": self.n_pairs,
            "verified": self.shares.tolist(),
            "median_distance": np.median(self.measured.distances, axis=(1, 2)).tolist(),
        }


def fit_curve(
    measured: Sequence[Measurement], sigmas: NDArray[np.float64], *, top: float | None = None
) -> StrengthCurve:
    """Place the anchors on a measured grid of noise levels.

    The share verified is made monotone (isotonic regression) and each anchor takes the smallest
    noise at which the upper 90 % confidence bound (Clopper & Pearson 1934) meets its share, in
    ln σ between grid points. Draws of noise of one photo are not independent: the bound counts
    photos.

    Args:
        measured: By each recogniser, on provisional strengths whose noise is `sigmas`; the first
            strength is 0. The first recogniser sets the anchors, the others stand beside it.
        sigmas: (r - 1,) increasing noise levels of all strengths but the first.
        top: Noise of the last knot, above all of `sigmas`; the embedded model's when None.

    Raises:
        InvalidArgumentError: Even the strongest noise does not meet an anchor, the weakest
            meets it already, or there are too few pairs of strangers.
    """
    found = [Verified.of(one) for one in measured]
    first, n = found[0], measured[0].distances.shape[1]
    rates, base = first.rates, first.shares[0]
    upper = np.array([_upper_bound(rate, n) for rate in rates])
    # Where anything at all begins to be lost: the first grid point, or the last that keeps 98 %.
    kept = np.flatnonzero(rates >= 0.98 * base)
    knots = [float(sigmas[kept[-1]] if len(kept) else sigmas[0])]
    for _, share in ANCHORS:
        knots.append(_crossing(np.log(sigmas), upper, share))
    if not np.all(np.diff(knots) > 0):
        raise InvalidArgumentError(
            "The model must keep more than half of the faces verified without noise, and lose them "
            f"step by step, got {base:.0%} without noise and anchors at σ = "
            f"{', '.join(f'{knot:.3g}' for knot in knots)}. Fit it longer or measure more rungs."
        )
    if top is None:
        # What the denoiser is told stays within the noise that it was trained on.
        top = min(max(SIGMA_MAX / 2, 1.5 * knots[-1]), 1.25 * SIGMA_MAX / CAUTION)
    return StrengthCurve(
        (0.0, *(strength for strength, _ in ANCHORS), 1.0),
        (*knots, top),
        {
            "false_accept_rate": FALSE_ACCEPT_RATE,
            "n_faces": n,
            "n_draws": measured[0].distances.shape[2],
            "no_face": measured[0].no_face,
            "sigmas": sigmas.tolist(),
            "detected": measured[0].detected.mean((1, 2)).tolist(),
            "recogniser": measured[0].recogniser,
            **first.facts(),
            "others": {one.measured.recogniser: one.facts() for one in found[1:]},
        },
    )


def _upper_bound(rate: float, n: int) -> float:
    hits = rate * n
    return 1.0 if hits >= n else float(beta.ppf(_CONFIDENCE, hits + 1, n - hits))


def _crossing(log_sigmas: NDArray[np.float64], rates: NDArray[np.float64], share: float) -> float:
    """Return σ at which the falling `rates` first reach `share`, by linear interpolation."""
    below = np.flatnonzero(rates <= share)
    if not len(below):
        raise InvalidArgumentError(
            f"The model must bring the share of verified variants down to {share:.0%}, got "
            f"{rates[-1]:.1%} at its strongest noise. Measure on more faces or fit it longer."
        )
    i = int(below[0])
    if i == 0:
        return float(np.exp(log_sigmas[0]))
    fraction = (rates[i - 1] - share) / (rates[i - 1] - rates[i])
    return float(np.exp(log_sigmas[i - 1] + fraction * (log_sigmas[i] - log_sigmas[i - 1])))
