"""The 128 px template, its mask, and the similarity transform between template and photo.

Knows geometry and resampling only: no detector, no model, no file. Coordinates are (x, y) with
pixel centres at whole numbers, as dlib reports them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from privacy_core.schema import RGB

SIZE = 128
"""Side of the template in pixels."""
TEMPLATE = np.array([[92.85, 51.7], [76.0, 52.6], [34.15, 51.7], [51.0, 52.6], [63.5, 84.3]])
"""The five dlib landmarks in the template: their means over 1 466 shared development faces in the
frame of those crops, made symmetric so that a mirrored face aligns to the mirrored template."""
MASK_CENTRE = (63.5, 69.5)
MASK_RADII = (51.5, 58.0)
"""The ellipse of the mask M in the template: forehead to chin, ear to ear."""
FEATHER = 0.14
"""Share of the ellipse's radius, from the rim inwards, over which a variant fades into the fill."""


@dataclass(frozen=True)
class Alignment:
    """Similarity transform from template to photo coordinates: p = matrix @ (x, y, 1).

    Attributes:
        matrix: (2, 3) float64.
    """

    matrix: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Photo pixels per template pixel."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def to_photo(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (n, 2) template points into the photo."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_template(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (n, 2) photo points into the template."""
        return (points - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T


def fit_alignment(landmarks: NDArray[np.float64]) -> Alignment:
    """Fit the least-squares similarity that takes `TEMPLATE` to `landmarks` (Umeyama 1991).

    Args:
        landmarks: (5, 2) points in photo pixels, in the order of `Face.landmarks`.
    """
    template_mean, photo_mean = TEMPLATE.mean(0), landmarks.mean(0)
    a = TEMPLATE - template_mean
    b = landmarks - photo_mean
    # With complex numbers a similarity is one factor: b ≈ z a.
    ac, bc = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    z = complex((ac.conj() @ bc) / (ac.conj() @ ac))
    linear = np.array([[z.real, -z.imag], [z.imag, z.real]])
    return Alignment(np.column_stack([linear, photo_mean - linear @ template_mean]))


def mask_radius(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the elliptical radius of (n, 2) template points: 0 at the centre, 1 on M's rim."""
    offset = (points - np.asarray(MASK_CENTRE)) / np.asarray(MASK_RADII)
    radius: NDArray[np.float64] = np.hypot(offset[:, 0], offset[:, 1])
    return radius


def template_mask(zoom: int = 1) -> NDArray[np.bool_]:
    """Return M in the template frame, (128 * zoom, 128 * zoom) bool."""
    return template_radius(zoom) <= 1.0


def opaque_mask() -> NDArray[np.bool_]:
    """Return the part of M inside the feather, (128, 128) bool: nothing else shines through."""
    return template_radius() <= 1.0 - FEATHER


def template_radius(zoom: int = 1) -> NDArray[np.float64]:
    """Return `mask_radius` of every pixel of the template frame, (128 * zoom, 128 * zoom)."""
    side = SIZE * zoom
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / zoom - 0.5
    points = np.stack([x.ravel(), y.ravel()], 1)
    return mask_radius(points).reshape(side, side)


def warp_to_template(pixels: RGB, alignment: Alignment, *, zoom: int = 1) -> RGB:
    """Resample a photo into the template frame.

    Large faces are reduced with an area filter first, so that nothing aliases. Points beyond the
    photo's edge take the colour of the nearest edge pixel.

    Args:
        pixels: (height, width, 3) uint8.
        alignment: Template → photo.
        zoom: Frame pixels per template pixel.

    Returns:
        (128 * zoom, 128 * zoom, 3) uint8.
    """
    side = SIZE * zoom
    corners = alignment.to_photo(np.array([[-1, -1], [-1, SIZE], [SIZE, -1], [SIZE, SIZE]], float))
    margin = 4 * max(1.0, alignment.scale)
    left, top = np.floor(corners.min(0) - margin).astype(int)
    right, bottom = np.ceil(corners.max(0) + margin).astype(int)
    window = window_of(pixels, left, top, right, bottom)
    reduction = max(1, int(alignment.scale / zoom))
    image = Image.fromarray(window)
    if reduction > 1:
        image = image.reduce(reduction)
    # Frame pixel → template point → photo point → window pixel → reduced-window pixel, all affine.
    linear = alignment.matrix[:, :2] / zoom
    shift = alignment.to_photo(np.full((1, 2), (1 - zoom) / (2 * zoom)))[0] - (left, top)
    linear, shift = linear / reduction, (shift + 0.5) / reduction - 0.5
    # Pillow maps the centre of output pixel (i + .5) and samples at (value - .5).
    offset = shift + 0.5 - linear @ np.array([0.5, 0.5])
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    warped = image.transform(
        (side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    return np.asarray(warped)


def window_of(pixels: RGB, left: int, top: int, right: int, bottom: int) -> RGB:
    """Cut a window that may reach beyond the photo; the outside repeats the nearest edge pixel."""
    height, width = pixels.shape[:2]
    rows = np.clip(np.arange(top, bottom), 0, height - 1)
    columns = np.clip(np.arange(left, right), 0, width - 1)
    return np.ascontiguousarray(pixels[np.ix_(rows, columns)])
