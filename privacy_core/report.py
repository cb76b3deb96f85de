"""Variants → plain JSON values: what was done, what it guarantees, and what it does not.

Writes no file. No seed, key or pixel ever enters a report, and no identity similarity unless the
caller hands one in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from privacy_core.anonymize import COVERED
from privacy_core.errors import InvalidArgumentError
from privacy_core.privacy import (
    NOT_COVERED,
    PUBLIC_NOISE,
    matched_filter_tpr,
    total_statement,
)
from privacy_core.recognition import Recogniser
from privacy_core.schema import (
    RGB,
    SCHEMA_VERSION,
    AttributePolicy,
    Face,
    PrivacyStatement,
    StrengthCurve,
    Variant,
)

FALSE_POSITIVE_RATE = 1e-3
"""At which the worst-case test is stated."""
OWNERS_EYES = (
    "For the eyes of the photo's owner only: do not publish it, and do not pick a variant by it, "
    "since a choice made by looking at the original is outside ε."
)
_LADDER = "All variants lie on one noise path, so together they cost what the weakest costs."
_NO_PATH = (
    "Nothing is guaranteed for them together: several variants may tell more of a face than each "
    "of them alone."
)
_FACES = (
    "Each face has its own noise, and ε holds for each; this is for all of them together, or for "
    "someone who is shown in all of them."
)


def variant_report(
    variant: Variant,
    *,
    photo_notes: Sequence[str] = (),
    curve: StrengthCurve | None = None,
    measured: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the report of one variant.

    Args:
        variant: The variant.
        photo_notes: What was changed in reading the photo.
        curve: The backend's strength curve, for the worst case; None where it has none.
        measured: From `identity_report`, for the owner; left out when None.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "variant",
        **_common(variant, photo_notes),
        **_one(variant, curve),
        **({} if measured is None else {"measured": dict(measured)}),
        "not_covered": list(NOT_COVERED),
    }


def ladder_report(
    variants: Mapping[str, Variant],
    *,
    photo_notes: Sequence[str] = (),
    curve: StrengthCurve | None = None,
    measured: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, object]:
    """Return the report of several variants of one photo.

    Args:
        variants: File name → variant, at least one.
        photo_notes: As in `variant_report`.
        curve: As in `variant_report`.
        measured: File name → result of `identity_report`; left out when None.
    """
    first = next(iter(variants.values()))
    together = ladder_statement(list(variants.values()))
    parts: list[dict[str, object]] = []
    for name, variant in variants.items():
        part = {"file": name, **_one(variant, curve)}
        parts.append(part if measured is None else part | {"measured": dict(measured[name])})
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "ladder",
        **_common(first, photo_notes),
        "variants": parts,
        "ladder": {
            **asdict(together),
            "note": _NO_PATH if together.basis == "measured only" else _LADDER,
        },
        "not_covered": list(NOT_COVERED),
    }


def ladder_statement(variants: Sequence[Variant]) -> PrivacyStatement:
    """Return what all variants of one face together guarantee: as much as the weakest one.

    A ladder with a variant that guarantees nothing guarantees nothing.
    """
    return weakest_statement([v.privacy for v in variants])


def weakest_statement(statements: Sequence[PrivacyStatement]) -> PrivacyStatement:
    """Return the statement that guarantees least, of at least one."""
    return max(statements, key=lambda p: math.inf if p.mu is None else p.mu)


def of_face(variant: Variant, number: int) -> Variant:
    """Return the record, without pixels, of a generated face (from 1) as if it were alone.

    Raises:
        InvalidArgumentError: It names no generated face.
    """
    face = variant.faces[number - 1] if 1 <= number <= len(variant.faces) else None
    if face is None or face.strength is None:
        raise InvalidArgumentError(
            f"`number` must name a generated face of {len(variant.faces)}, got {number!r}. "
            "Faces that are covered or left have no strength."
        )
    return replace(
        variant,
        image=np.empty((0, 0, 3), np.uint8),
        strength=face.strength,
        sigma=face.sigma,
        privacy=face.privacy,
        protected=face.protects,
        n_faces=1,
        covered=(),
        faces=(face,),
    )


def identity_report(
    original: RGB,
    variant: Variant,
    faces: Sequence[Face],
    *,
    recogniser: Recogniser,
    curve: StrengthCurve | None = None,
) -> dict[str, object]:
    """Measure how far each face moved from its original; see `OWNERS_EYES`.

    Args:
        original: (height, width, 3) uint8, the photo.
        variant: One variant of it.
        faces: The photo's faces, in the order of the variant.
        recogniser: Measures distances.
        curve: Names the threshold below which two faces count as the same person, if it was
            measured with this recogniser.
    """
    is_its_own = curve is not None and curve.measured.get("recogniser") == recogniser.name
    threshold = _number(curve, "threshold") if curve is not None and is_its_own else None
    rows: list[dict[str, object]] = []
    for number, face in enumerate(faces, 1):
        if number in variant.covered:
            rows.append({"face": number, "distance": None, "reason": COVERED})
            continue
        before, after = (
            recogniser.embed(pixels, face.landmarks) for pixels in (original, variant.image)
        )
        rows.append({"face": number, "distance": recogniser.distance(before, after)})
    return {
        "note": OWNERS_EYES,
        "recogniser": recogniser.name,
        "threshold": threshold,
        "faces": rows,
    }


def _common(variant: Variant, photo_notes: Sequence[str]) -> dict[str, object]:
    """Return what all variants of a photo share."""
    return {
        "model_id": variant.model_id,
        "model_revision": variant.model_revision,
        "policy": variant.policy.as_json(),
        "n_faces": variant.n_faces,
        "photo_notes": list(photo_notes),
    }


def _one(variant: Variant, curve: StrengthCurve | None) -> dict[str, object]:
    faces = [
        {
            "face": i,
            "covered": face.treatment == "covered",
            "left": face.treatment == "left",
            "strength": face.strength,
            "sigma": face.sigma,
            **asdict(face.privacy),
        }
        for i, face in enumerate(variant.faces, 1)
    ]
    together = asdict(_together(variant))
    return {
        "strength": variant.strength,
        "sigma": variant.sigma,
        **asdict(variant.privacy),
        "protected": variant.protected,
        "covered": list(variant.covered),
        "left": list(variant.left),
        "faces": faces,
        "all_faces": {**together, "note": _FACES},
        "recogniser": _recognised(variant, curve),
        "worst_case": worst_case(variant, curve),
    }


def verified_share(variant: Variant, curve: StrengthCurve | None) -> float | None:
    """Return the share of calibration faces still verified at a variant's strength, in [0, 1].

    Of the strength, not of the variant's own noise: a face that was given more noise because it
    was too like its original is no calibration face. None where nothing was measured: without a
    curve or noise, and under an attribute policy.
    """
    if curve is None or not variant.protected or variant.policy != AttributePolicy():
        return None
    # 1 has no level of its own: see `verified_share_at`.
    sigmas = [*curve.rung_sigmas().tolist(), None]
    return verified_share_at(sigmas[curve.rung(variant.strength) - 1], curve)


def verified_share_at(sigma: float | None, curve: StrengthCurve) -> float | None:
    """Return the share of calibration faces still verified at a noise level, in [0, 1].

    Args:
        sigma: Standard deviation of the noise, None for pure noise.
        curve: With what was measured.

    Returns:
        Linear in ln σ between measured noise levels; None where nothing was measured.
    """
    sigmas, verified = (curve.measured.get(name) for name in ("sigmas", "verified"))
    if not isinstance(sigmas, list) or not isinstance(verified, list):
        return None
    # Strength 1 has no σ: pure noise, as good as the strongest that was measured.
    return float(np.interp(math.log(sigma or sigmas[-1]), np.log(sigmas), verified[1:]))


def _recognised(variant: Variant, curve: StrengthCurve | None) -> dict[str, object]:
    share = verified_share(variant, curve)
    name = None if curve is None else curve.measured.get("recogniser")
    reason = None if share is not None else "not measured for this backend, strength or policy"
    return {"name": name, "verified_share_at_calibration": share, "reason": reason}


def _together(variant: Variant) -> PrivacyStatement:
    """Return the statement of all generated faces with a noise each."""
    made = [face.privacy for face in variant.faces if face.treatment == "generated"]
    if variant.left or not made:
        return variant.privacy
    least = weakest_statement(made)
    if least.mu is None or least.delta is None:
        return least
    mus = [one.mu for one in made if one.mu is not None]
    return total_statement(mus, secret=True, delta=least.delta)


def worst_case(variant: Variant, curve: StrengthCurve | None) -> dict[str, object]:
    """Return how often the best possible test recognises a face among two known ones."""
    distance = None if curve is None else _number(curve, "typical_code_distance")
    reason = None
    if variant.privacy.reason == PUBLIC_NOISE:
        reason = PUBLIC_NOISE
    elif variant.left or variant.n_faces == len(variant.covered):
        reason = variant.privacy.reason
    elif distance is None:
        reason = "not measured for this backend"
    elif variant.policy.keep:
        reason = "not measured for kept attributes"
    found: dict[str, object] = {
        "test": "matched_filter",
        "adversary": "holds the original and the noised numbers; no test of these does better",
        "false_positive_rate": FALSE_POSITIVE_RATE,
        "code_distance": distance,
    }
    if reason is not None or distance is None:
        return found | {"true_positive_rate": None, "reason": reason}
    # A model with a curve leaves σ out where the variant was started from noise alone.
    sigma = math.inf if variant.sigma is None else variant.sigma
    rate = matched_filter_tpr(distance, sigma, fpr=FALSE_POSITIVE_RATE)
    return found | {"true_positive_rate": rate, "reason": None}


def _number(curve: StrengthCurve, name: str) -> float | None:
    value = curve.measured.get(name)
    return float(value) if isinstance(value, int | float) else None
