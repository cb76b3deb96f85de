"""What every backend takes and gives: one aligned face at one strength, in; a face, out.

Knows records only. A backend reads no photo: it gets the pixels inside the mask, the surroundings
with the mask filled, and a noise key that belongs to this face alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.output import DigitalSourceType
from privacy_core.noise import NoiseKey
from privacy_core.schema import RGB, AttributePolicy, PrivacyStatement, StrengthCurve


@dataclass(frozen=True)
class FaceRequest:
    """One face to be anonymized at one strength.

    Attributes:
        pixels: (128 z, 128 z, 3) uint8 template frame, zero outside M; all that is known of the
            face. z is the backend's zoom.
        context: (128 z, 128 z, 3) uint8 template frame of the photo with every M filled.
        quad: (4, 2) corners of the photo in template pixels, clockwise.
        strength: In [0, 1].
        key: This face's own key.
        policy: Treatment of attributes.
    """

    pixels: RGB = field(repr=False)
    context: RGB = field(repr=False)
    quad: NDArray[np.float64]
    strength: float
    key: NoiseKey
    policy: AttributePolicy


@dataclass(frozen=True)
class GeneratedFace:
    """What a backend made of one request.

    Attributes:
        frame: (128 z, 128 z, 3) uint8 template frame, None when it failed.
        strength: The strength that was used, after rounding to the backend's rungs.
        sigma: Standard deviation of the noise in code space; None where the backend adds none.
        privacy: What is guaranteed.
        protects: Whether the original face is hidden at all: False at strength 0 and for filters.
        failure: Why there is no frame, None when there is one.
        matches_colour: Whether its rim may take on colours of the surroundings.
    """

    frame: RGB | None = field(repr=False)
    strength: float
    sigma: float | None
    privacy: PrivacyStatement
    protects: bool
    failure: str | None = None
    matches_colour: bool = True


class Backend(Protocol):
    """Makes anonymized faces.

    Attributes:
        name: Its name.
        revision: Digest of its weights, a commit, or a version.
        zoom: Frame pixels per template pixel that it takes.
        digital_source_type: How a picture made with it is marked.
    """

    name: str
    revision: str
    zoom: int
    digital_source_type: DigitalSourceType

    @property
    def curve(self) -> StrengthCurve | None:
        """Return the strength curve, None where strength means no noise."""
        ...

    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Return one result per request, in order; a failed face is a result with `failure`."""
        ...


def refuse_policies(requests: Sequence[FaceRequest], name: str) -> None:
    """Refuse wishes about attributes, for a backend that knows none.

    Raises:
        InvalidArgumentError: A request keeps, hides or sets an attribute.
    """
    for request in requests:
        named = [*request.policy.keep, *request.policy.hide, *request.policy.set]
        if named:
            raise InvalidArgumentError(
                f"`policy` must name no attribute for the backend {name!r}, which knows none, got "
                f"{', '.join(named)}. Use the embedded backend, or drop keep, hide and set."
            )
