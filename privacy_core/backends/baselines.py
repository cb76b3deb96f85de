"""Weak baselines for comparison: blur, pixelate, solid.

No noise, hence no guarantee: blurred and pixelated faces can be matched and partly restored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageFilter

from privacy_core.backends.base import FaceRequest, GeneratedFace, refuse_policies
from privacy_core.faces.align import SIZE, template_mask
from privacy_core.faces.output import DigitalSourceType
from privacy_core.privacy import measured_only
from privacy_core.schema import RGB, check_strength

_LARGEST_BLUR = 24.0
_LARGEST_BLOCK = 64


class BaselineBackend:
    """A filter on the face's own pixels.

    Args:
        name: Name of the backend.
        reason: Why it guarantees nothing.
        filter_face: Frame and strength → frame.
        reads_no_face: The filter sees the surroundings only, so the face is hidden.
    """

    revision = "1"
    curve = None
    zoom = 1
    digital_source_type: DigitalSourceType = "algorithmicallyEnhanced"

    def __init__(
        self,
        name: str,
        reason: str,
        filter_face: Callable[[RGB, float], RGB],
        *,
        reads_no_face: bool = False,
    ) -> None:
        self.name = name
        self._reason = reason
        self._filter = filter_face
        self._reads_no_face = reads_no_face

    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Filter each face; the context stands in for what lies outside the mask.

        Raises:
            InvalidArgumentError: A request keeps, hides or sets an attribute; no filter can.
        """
        refuse_policies(requests, self.name)
        inside = template_mask()[..., None]
        results = []
        for request in requests:
            strength = check_strength(request.strength)
            frame = request.context
            if not self._reads_no_face:
                frame = np.where(inside, request.pixels, frame)
            filtered, privacy = self._filter(frame, strength), measured_only(self._reason)
            results.append(
                GeneratedFace(filtered, strength, None, privacy, protects=self._reads_no_face)
            )
        return results


def blur() -> BaselineBackend:
    """Gaussian blur; its radius grows with strength to 24 template pixels."""

    def apply(frame: RGB, strength: float) -> RGB:
        radius = _LARGEST_BLUR * strength
        return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)))

    return BaselineBackend("blur", "blur adds no noise and can be partly reversed", apply)


def pixelate() -> BaselineBackend:
    """Mosaic; its blocks grow with strength from 1 to 64 template pixels."""

    def apply(frame: RGB, strength: float) -> RGB:
        side = max(1, round(SIZE / _LARGEST_BLOCK**strength))
        small = Image.fromarray(frame).resize((side, side), Image.Resampling.BOX)
        return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.NEAREST))

    return BaselineBackend("pixelate", "pixelation adds no noise and can be matched", apply)


def solid() -> BaselineBackend:
    """One colour, the mean of the surroundings' fill, whatever the strength."""

    def apply(frame: RGB, _: float) -> RGB:
        colour = frame[template_mask()].mean(0).round().astype(np.uint8)
        return np.broadcast_to(colour, frame.shape).copy()

    reason = "a solid patch adds no noise; it shows nothing of the face"
    return BaselineBackend("solid", reason, apply, reads_no_face=True)
