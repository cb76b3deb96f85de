"""Where a visitor's dial stands after some answers, for the photo at hand; plain values only.

Puts the preference model's numbers beside the model's privacy floor; knows no page and no store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from feedback.errors import ReleaseError
from feedback.population.account import ReleaseAccount
from feedback.population.pooling import prior_of
from feedback.preference.belief import Belief, Prior
from feedback.preference.decision import (
    PreferenceTarget,
    Provenance,
    answers_left,
    decide,
    is_settled,
)
from feedback.preference.judgement import Judgement
from feedback.preference.posterior import Posterior
from privacy_core.report import verified_share_at
from privacy_core.schema import DEFAULT_STRENGTH, StrengthCurve

QUANTILE = 0.8
"""Of what is believed: above 0.5, as being recognised costs more than being changed too much."""
FLOOR_SHARE = 0.5
SCALE_FLOOR = 0.5
"""The scale's own definition: at 0.5 half of the variants are still verified as their original."""
STEPS = 20
"""The dial's steps from 0 to 1."""
_ALMOST = 1e-6


@dataclass(frozen=True)
class Standing:
    """Where a dial stands.

    Attributes:
        density: Probability of each of the posterior's strengths, for this photo.
        mean: The expected ideal strength.
        low: Lower end of the 90 % interval.
        high: Its upper end.
        target: The decision.
        strength: The decision on the dial, rounded up to its steps.
        floor: The model's privacy floor.
        answers_left: About how many answers are missing.
        is_settled: Whether more answers would hardly change anything.
    """

    density: tuple[float, ...] = field(repr=False)
    mean: float
    low: float
    high: float
    target: PreferenceTarget
    strength: float
    floor: float
    answers_left: int
    is_settled: bool


def standing_of(
    judgements: Sequence[Judgement],
    posterior: Posterior,
    *,
    photo_id: str,
    floor: float,
    model: str,
) -> Standing:
    """Return where a visitor's dial stands for one photo.

    Args:
        judgements: What they answered.
        posterior: What is known of them by that.
        photo_id: The photo, as the judgements name it.
        floor: From `privacy_floor`.
        model: Revision of the model.
    """
    belief = posterior.photo(photo_id)
    low, high = belief.interval(0.9)
    digest = hashlib.sha256(repr(tuple(judgements)).encode()).hexdigest()[:16]
    prior = posterior.prior
    target = decide(
        posterior,
        # What is known of everyone, until the visitor's own answers say enough.
        population=DEFAULT_STRENGTH
        if prior == Prior.flat()
        else Belief(prior.density).quantile(QUANTILE),
        floor=floor,
        quantile=QUANTILE,
        provenance=Provenance(
            model_version=model, feedback_revision=digest, consent_scope="personal_only"
        ),
        photo_id=photo_id,
    )
    return Standing(
        density=tuple(belief.density.tolist()),
        mean=belief.mean,
        low=low,
        high=high,
        target=target,
        strength=_rounded_up(target.strength),
        floor=floor,
        answers_left=answers_left(posterior, photo_id=photo_id),
        is_settled=is_settled(posterior, photo_id=photo_id),
    )


def starting_prior(
    account: ReleaseAccount, *, model_version: str
) -> tuple[Prior | None, str | None]:
    """Return what is believed of a visitor before their first answer, and what to say about it.

    Comes from the newest differentially private release about this model, or from nothing: what
    others answered reaches a visitor in no other way. An account that cannot be read is said, and
    the page starts without.

    Args:
        account: Of the releases that `feedback fit` drew.
        model_version: The method and revision that rating rows name.

    Returns:
        The prior, None for the flat one; and a sentence for the operator, None without one.
    """
    try:
        release = account.latest(model_version)
    except ReleaseError as error:
        return None, f"{error} Dials start from the public default."
    if release is None:
        return None, None
    start = (
        f"Dials start from release {release.name} about {release.n_raters} raters "
        f"(ε = {release.epsilon})."
    )
    return prior_of(release), " ".join(filter(None, (start, release.warning)))


def privacy_floor(curve: StrengthCurve | None) -> float:
    """Return the least strength the app decides for: one value per model, the same for every face.

    The least step of the dial at which no more than half of the held-out calibration faces were
    still verified as their original; where none were measured, what the scale says by definition.
    """
    if curve is None:
        return SCALE_FLOOR
    sigmas = curve.rung_sigmas()
    for step in range(1, STEPS):
        share = verified_share_at(float(sigmas[100 * step // STEPS - 1]), curve)
        if share is None:
            return SCALE_FLOOR
        if share <= FLOOR_SHARE:
            return step / STEPS
    return 1.0


def _rounded_up(strength: float) -> float:
    """Return the least step of the dial that is not below."""
    return max(0, math.ceil((strength - _ALMOST) * STEPS)) / STEPS
