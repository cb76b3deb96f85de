"""What noise is worth: Gaussian-DP accounting for one release, a ladder, several photos.

Knows standard deviations and the radius of clipped codes; draws nothing, knows no strength.

The mechanism is y = c + σ n, n ~ N(0, I), on codes clipped to ‖c‖₂ ≤ C. Any two such codes lie
at most 2C apart, so "replace the pixels in the mask by any others" is μ-Gaussian-DP with μ = 2C/σ
(Dong, Roth & Su 2022), and whatever is made from y alone is no worse.

Limits of the proof on a computer. It is stated for ideal noise. Floating-point noise reaches only
some values, and its lowest bits can betray the code to whoever sees y itself to full precision
(Mironov 2012): pictures are 8-bit functions of y, and y is never published. The noise is also cut
at 8.6 standard deviations (`privacy_core.noise`), a deviation of 3e-14 for 512 numbers, which
counts e^ε times in δ: nothing up to ε ≈ 15; beyond, ε speaks of ideal noise only. And it is
expanded from a 256-bit secret, hence secret against bounded computation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtr, ndtri

from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import PrivacyStatement

DELTA: Final = 1e-5
"""δ at which ε is reported."""
NO_NOISE: Final = "strength 0 adds no noise"
PUBLIC_NOISE: Final = "noise not secret"
NOT_COVERED: Final = (
    "Pixels outside the mask: hair, clothes and background.",
    "The place, size and pose of the face in the photo.",
    "Attributes that are kept.",
    "Faces that were not detected.",
    "The people in the training data of the public weights.",
    "A choice made by someone who sees the original: a variant picked that way is outside ε.",
    "Further releases: several photos of one person, and several noises of one face, compose to "
    "μ_total = √(Σ μᵢ²).",
    "The difference between ideal and floating-point noise (Mironov 2012).",
)
"""What ε does not cover, one sentence each; print all of them wherever ε is printed."""


def mu_of(sigma: float, clip_radius: float) -> float:
    """Return the Gaussian-DP parameter μ = 2C/σ of one release.

    Args:
        sigma: Standard deviation of the noise in code space, in [0, ∞]; 0 adds none (μ = ∞), ∞
            leaves pure noise (μ = 0).
        clip_radius: C, the largest norm of a code, above 0.

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    if not sigma >= 0:
        raise InvalidArgumentError(
            f"`sigma` must be at least 0, got {sigma!r}. Use math.inf for pure noise."
        )
    if not 0 < clip_radius < math.inf:
        raise InvalidArgumentError(
            f"`clip_radius` must be a finite number above 0, got {clip_radius!r}. "
            "Take it from the model's configuration."
        )
    return math.inf if sigma == 0 else 2 * float(clip_radius) / float(sigma)


def compose(mus: Iterable[float]) -> float:
    """Return √(Σ μ²), the μ of independent releases about one subject together; 0 for none.

    Raises:
        InvalidArgumentError: A μ is negative or not a number.
    """
    return math.hypot(*[_checked_mu(mu) for mu in mus])


def ladder_mu(sigmas: Iterable[float], clip_radius: float) -> float:
    """Return the μ of all released rungs of one `BrownianLadder` together.

    Every rung can be made from the weakest one, so all of them cost what that one costs.

    Args:
        sigmas: The rungs released; a rung of 0 publishes the code itself (μ = ∞), ∞ is the pure
            start and costs nothing.
        clip_radius: C, as in `mu_of`.

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    return max((mu_of(sigma, clip_radius) for sigma in sigmas), default=0.0)


def epsilon_of(mu: float, *, delta: float = DELTA) -> float:
    """Return the smallest ε for which a μ-Gaussian-DP mechanism is (ε, δ)-DP.

    Solves δ = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2) (Balle & Wang 2018, theorem 8) in log space.

    Args:
        mu: In [0, ∞]; accurate to at least nine digits from 1e-6 to 1e4 and beyond.
        delta: δ, in (0, 1).

    Returns:
        ε in [0, ∞]; exactly 0 when μ is so small that δ alone covers it.

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    mu, log_target = _checked_mu(mu), _checked_log_delta(delta)
    if math.isinf(mu):
        return math.inf
    if _log_delta(-mu / 2, mu) <= log_target:
        return 0.0
    # The unknown is t = ε/μ − μ/2, bounded from above by δ ≤ Φ(−t) ≤ exp(−t²/2)/2.
    highest = math.sqrt(-2 * log_target)
    t = brentq(lambda t: _log_delta(t, mu) - log_target, -mu / 2, highest, xtol=1e-15, maxiter=1000)
    return mu * (mu / 2 + float(t))


def mu_for_epsilon(epsilon: float, *, delta: float = DELTA) -> float:
    """Return the largest μ whose `epsilon_of` is at most `epsilon`.

    Args:
        epsilon: In [0, ∞].
        delta: δ, in (0, 1).

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    log_target = _checked_log_delta(delta)
    if not epsilon >= 0:
        raise InvalidArgumentError(f"`epsilon` must be at least 0, got {epsilon!r}.")
    if math.isinf(epsilon):
        return math.inf
    # Below both of these δ is too small: δ(0) < μ/2, and t must not exceed √(−2 ln δ). Half of it
    # stands clear of rounding.
    t = math.sqrt(-2 * log_target)
    lowest = max(delta, 2 * epsilon / (t + math.sqrt(t * t + 2 * epsilon))) / 2
    highest = 4 * lowest
    while _log_delta(epsilon / highest - highest / 2, highest) < log_target:
        highest *= 2
    mu = brentq(
        lambda mu: _log_delta(epsilon / mu - mu / 2, mu) - log_target,
        lowest,
        highest,
        xtol=1e-300,
        maxiter=1000,
    )
    return float(mu)


def matched_filter_tpr(distance: float, sigma: float, *, fpr: float) -> float:
    """Return how often the best possible test recognises the true one of two known faces.

    The adversary of the worst case: holds the exact original and one other photo, inverts the
    generator to y, and projects it on the line between the two codes. No test does better at its
    false-positive rate (Neyman & Pearson 1933): TPR = Φ(Φ⁻¹(FPR) + d/σ). At d = 2C, the largest
    distance, this is the whole guarantee of μ-Gaussian-DP.

    Args:
        distance: d = ‖c − c'‖₂ between the two clipped codes, at least 0.
        sigma: Standard deviation of the noise, in [0, ∞].
        fpr: False-positive rate, in (0, 1).

    Returns:
        True-positive rate, from `fpr` (nothing to see) to 1.

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    if not 0 < fpr < 1:
        raise InvalidArgumentError(f"`fpr` must be in (0, 1), got {fpr!r}. 0.001 is usual.")
    if not 0 <= distance < math.inf:
        raise InvalidArgumentError(f"`distance` must be finite, at least 0, got {distance!r}.")
    if distance == 0:
        return float(fpr)
    return float(ndtr(ndtri(fpr) + mu_of(sigma, distance / 2)))


def statement(
    sigma: float, clip_radius: float, *, secret: bool, n_releases: int = 1, delta: float = DELTA
) -> PrivacyStatement:
    """State what releases at one noise level guarantee.

    Args:
        sigma: As in `mu_of`.
        clip_radius: As in `mu_of`.
        secret: `NoiseKey.secret` of the key the noise came from.
        n_releases: Releases about one subject with independent noise, at least 1.
        delta: δ, in (0, 1).

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    if n_releases < 1:
        raise InvalidArgumentError(f"`n_releases` must be at least 1, got {n_releases!r}.")
    mu = mu_of(sigma, clip_radius) * math.sqrt(n_releases)
    return total_statement([mu], secret=secret, delta=delta)


def total_statement(
    mus: Iterable[float], *, secret: bool, delta: float = DELTA
) -> PrivacyStatement:
    """State what several independent releases about one subject guarantee together.

    Args:
        mus: μ per release (a whole ladder is one: `ladder_mu`).
        secret: Whether the noise of all of them is secret.
        delta: δ, in (0, 1).

    Raises:
        InvalidArgumentError: An argument is outside its range.
    """
    mu = compose(mus)
    epsilon = epsilon_of(mu, delta=delta)
    if math.isinf(epsilon):
        return measured_only(NO_NOISE)
    if not secret:
        return measured_only(PUBLIC_NOISE)
    return PrivacyStatement(mu, epsilon, float(delta), None, "gaussian mechanism")


def measured_only(reason: str) -> PrivacyStatement:
    """State that nothing is guaranteed, for example for a baseline, and why."""
    return PrivacyStatement(None, None, None, reason, "measured only")


def _checked_mu(mu: float) -> float:
    if not mu >= 0:
        raise InvalidArgumentError(f"`mu` must be at least 0, got {mu!r}. See `mu_of`.")
    return float(mu)


def _checked_log_delta(delta: float) -> float:
    if not 0 < delta < 1:
        raise InvalidArgumentError(f"`delta` must be in (0, 1), got {delta!r}. 1e-5 is usual.")
    return math.log(delta)


def _log_delta(t: float, mu: float) -> float:
    """Return ln δ(ε) at ε = μ (μ/2 + t).

    There e^ε φ(t + μ) = φ(t), so δ = Φ(−t) − e^ε Φ(−t − μ) = Φ(−t) (1 − R(t + μ)/R(t)) with Mills'
    ratio R(x) = Φ(−x)/φ(x): e^ε is never formed and nothing large cancels.
    """
    share = -math.expm1(_log_mills(t + mu) - _log_mills(t))
    return float(log_ndtr(-t)) + math.log(share) if share > 0 else -math.inf


def _log_mills(x: float) -> float:
    """Return ln(Φ(−x)/φ(x)) less the constant ln √(2π)."""
    if x > 0:
        return math.log(erfcx(x / math.sqrt(2)) / 2)
    return float(log_ndtr(-x)) + x * x / 2
