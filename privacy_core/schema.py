"""The frozen records that cross modules; plain values only, no torch, no files, no models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError

SCHEMA_VERSION = 1
ATTRIBUTES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "gender": ("female", "male"),
        "age_group": ("not young", "young"),
        "smiling": ("no", "yes"),
        "eyeglasses": ("no", "yes"),
        "beard": ("no", "yes"),
    }
)
"""Attribute name → its two values, in the order 0, 1 of the labels."""

DEFAULT_STRENGTH = 0.95
"""What is used where nobody said anything: a multiple of 0.05 from which on at most 0.5 % of people
are still verified as their original, in the runs of the audit so far (`docs/LOG.md`)."""
RGB = NDArray[np.uint8]
"""Pixels, shape (height, width, 3), sRGB, 0-255."""


def check_strength(strength: float) -> float:
    """Return `strength` as a float.

    Raises:
        InvalidArgumentError: It is not a number in [0, 1].
    """
    try:
        value = float(strength)
    except (TypeError, ValueError):
        value = float("nan")
    if isinstance(strength, bool) or not 0.0 <= value <= 1.0:
        raise InvalidArgumentError(
            f"`strength` must be a number in [0, 1], got {strength!r}. "
            f"0 keeps the face, 1 replaces it completely; {DEFAULT_STRENGTH:g} is a good start."
        )
    return value


@dataclass(frozen=True)
class Photo:
    """A decoded photo without any metadata.

    Attributes:
        pixels: (height, width, 3) uint8, sRGB, upright, read-only.
        notes: What was changed in reading, in words ("first frame of 12", "flattened on white").
    """

    pixels: RGB = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Face:
    """One detected face.

    Attributes:
        box: (left, top, right, bottom) in photo pixels, right and bottom exclusive; may reach
            beyond the photo.
        landmarks: (5, 2) float64, x and y in photo pixels, the five dlib points: outer and inner
            corner of the eye on the picture's right, outer and inner corner of the eye on its
            left, base of the nose.
        score: The detector's confidence, larger is surer; comparable within one detector only.
        detector: Name of the detector.
        n_inside: Smaller faces detected within its M; they are replaced with it, so it is never
            left as it is.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float64]
    score: float
    detector: str
    n_inside: int = 0


@dataclass(frozen=True)
class AttributePolicy:
    """What happens to each attribute, independent of strength; unnamed ones are unconditioned.

    Attributes:
        keep: Names whose direction in the code is protected from the noise.
        hide: Names whose direction in the code is dropped before the noise and whose value is
            drawn from the population.
        set: Name → value the variant is asked to show.
    """

    keep: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    set: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names, values and that no attribute is given twice.

        Raises:
            InvalidArgumentError: A name or value is unknown, or one name has two treatments.
        """
        treatments = (("keep", self.keep), ("hide", self.hide), ("set", self.set))
        named = [(argument, name) for argument, names in treatments for name in names]
        for argument, name in named:
            if name not in ATTRIBUTES:
                raise InvalidArgumentError(
                    f"`{argument}` must name attributes of {', '.join(ATTRIBUTES)}, got {name!r}."
                )
            if [other for _, other in named].count(name) > 1:
                raise InvalidArgumentError(
                    f"`{argument}` must give an attribute its one treatment, got {name!r} again. "
                    "Name it once, in one of keep, hide or set."
                )
        for name, value in self.set.items():
            if value not in ATTRIBUTES[name]:
                raise InvalidArgumentError(
                    f"`set` {name} must be one of {', '.join(ATTRIBUTES[name])}, got {value!r}."
                )

    def as_json(self) -> dict[str, object]:
        """Return the policy as plain JSON values."""
        return {"keep": list(self.keep), "hide": list(self.hide), "set": dict(self.set)}


@dataclass(frozen=True)
class PrivacyStatement:
    """What one release is worth against an adversary who sees everything but the noise.

    Attributes:
        mu: Gaussian-DP parameter μ (Dong, Roth & Su 2022), None without one.
        epsilon: ε at `delta` by the analytic Gaussian mechanism (Balle & Wang 2018), None where
            there is none.
        delta: δ, None where there is no ε.
        reason: Why there is no ε, None where there is one.
        basis: "gaussian mechanism" or "measured only".
    """

    mu: float | None
    epsilon: float | None
    delta: float | None
    reason: str | None
    basis: Literal["gaussian mechanism", "measured only"]


@dataclass(frozen=True)
class FaceOutcome:
    """What became of one face in a variant.

    Attributes:
        treatment: "generated", "covered" with a solid patch, or "left" as it is.
        strength: In [0, 1], after rounding to the backend's rungs; None unless generated.
        sigma: Standard deviation of the noise in code space, None where there is none.
        privacy: What is guaranteed for this face.
        protects: Whether the original face is hidden at all.
    """

    treatment: Literal["generated", "covered", "left"]
    strength: float | None
    sigma: float | None
    privacy: PrivacyStatement
    protects: bool


@dataclass(frozen=True)
class Variant:
    """One anonymized face, or all faces of a photo, at one strength or at one each.

    Attributes:
        image: (height, width, 3) uint8, the whole photo with the faces replaced.
        strength: In [0, 1], after rounding to the backend's rungs.
        sigma: Standard deviation of the noise in code space, None where there is none.
        privacy: What is guaranteed for one face of this variant; nothing where one is left as it
            is.
        policy: Treatment of attributes.
        model_id: Backend name or repository id.
        model_revision: Digest of the weights, or the version of a baseline.
        protected: True only if every detected face was replaced or covered; False at strength 0,
            which keeps the face, and for filters such as blur.
        n_faces: Detected faces.
        covered: Indices (from 1) of faces that failed and were covered with a solid patch.
        faces: What became of each face, in the order of the photo's faces.
    """

    image: RGB = field(repr=False)
    strength: float
    sigma: float | None
    privacy: PrivacyStatement
    policy: AttributePolicy
    model_id: str
    model_revision: str
    protected: bool
    n_faces: int
    covered: tuple[int, ...] = ()
    faces: tuple[FaceOutcome, ...] = ()

    @property
    def left(self) -> tuple[int, ...]:
        """Return the indices (from 1) of faces that are left as they are."""
        return tuple(i for i, face in enumerate(self.faces, 1) if face.treatment == "left")

    @property
    def is_mixed(self) -> bool:
        """Return whether one face is treated differently from another."""
        treatments = {(f.treatment, f.strength) for f in self.faces if f.treatment != "covered"}
        return len(treatments) > 1 or bool(self.left)


@dataclass(frozen=True)
class StrengthCurve:
    """Strength ↔ noise of one backend: linear in ln σ between knots, on rungs of 0.01.

    Attributes:
        strengths: Increasing knots from 0 to 1.
        sigmas: Increasing noise levels at the knots. Strength 0 itself adds no noise and strength
            1 is pure noise; the first and last knot bound what lies between.
        measured: How the curve was fitted: data, counts, threshold, rates.
    """

    strengths: tuple[float, ...]
    sigmas: tuple[float, ...]
    measured: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the knots.

        Raises:
            InvalidArgumentError: They do not increase from 0 to 1, or the lengths differ.
        """
        ends = (self.strengths[0], self.strengths[-1]) if self.strengths else None
        increasing = bool(
            np.all(np.diff(self.strengths) > 0)
            and np.all(np.diff(self.sigmas) > 0)
            and np.all(np.array(self.sigmas) > 0)
        )
        if ends != (0.0, 1.0) or len(self.strengths) != len(self.sigmas) or not increasing:
            raise InvalidArgumentError(
                "`strengths` must increase from 0 to 1 with as many increasing positive `sigmas`, "
                f"got {self.strengths} and {self.sigmas}. Run `calibrate` again."
            )

    def rung(self, strength: float) -> int:
        """Return the rung, 0 to 100, nearest to a strength in [0, 1]."""
        return round(100 * check_strength(strength))

    def rung_sigmas(self) -> NDArray[np.float64]:
        """Return σ of the rungs 1 to 99, (99,) increasing."""
        strengths = np.arange(1, 100) / 100
        return np.exp(np.interp(strengths, self.strengths, np.log(self.sigmas)))
