"""Where a visitor's dial stands after some answers, for the photo at hand; plain values only.

Puts the preference model's numbers beside the model's privacy floor; knows no page and no store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from privacy_core.schema import StrengthCurve

POPULATION_STRENGTH = 0.8
"""Where every dial starts, and stays until the visitor's own answers say enough."""
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
    target = decide(
        posterior,
        population=POPULATION_STRENGTH,
        floor=floor,
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
