"""Where in the photo the faces are: the support M of each, its checks, and blanking it.

Knows geometry and the fill only; which pixels replace M is the business of `paste`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import (
    FEATHER,
    MASK_CENTRE,
    MASK_RADII,
    TEMPLATE,
    Alignment,
    fit_alignment,
    mask_radius,
)
from privacy_core.faces.fill import fill_blanked
from privacy_core.schema import RGB, Face

SMALLEST_EYE_DISTANCE = 10.0
"""Photo pixels between the eyes below which landmarks are guesses."""
_CENTRAL = 0.4
"""Share of a detector's box, in each direction, that M must cover."""
_ENLARGED = 1.3
"""A face without an alignment is blanked in its box, enlarged by this factor."""
_MARGIN = 0.12
"""Surroundings read for the fill, as a share of the region's size."""
_LARGEST_FILL = 400_000
"""Pixels of a window at which a fill is computed; larger windows are reduced first."""
_TEMPLATE_EYES = float(np.hypot(*(TEMPLATE[:2].mean(0) - TEMPLATE[2:4].mean(0))))

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Region:
    """The part of the photo that one face gives up.

    Attributes:
        window: Rows and columns of the photo that hold the region.
        mask: bool of the window's shape: M of this face.
        own: bool of the window's shape: the part of `mask` whose pixels go into this face's code.
            Where faces overlap each pixel goes to the face whose centre is nearer, in units of
            its mask, so that nobody's pixels enter two codes.
        opacity: uint8 of the window's shape: how far a generated face covers what is below, 0 on
            M's rim and beyond, 255 from the feather inwards.
        alignment: Template → photo, None where it could not be fitted.
        failure: Why the face cannot be anonymized, None if it can.
    """

    window: Window
    mask: NDArray[np.bool_] = field(repr=False)
    own: NDArray[np.bool_] = field(repr=False)
    opacity: NDArray[np.uint8] = field(repr=False)
    alignment: Alignment | None
    failure: str | None

    @property
    def scale(self) -> float:
        """Photo pixels per template pixel; 1 where there is no alignment."""
        return self.alignment.scale if self.alignment else 1.0


def regions_of(faces: Sequence[Face], shape: tuple[int, int]) -> tuple[Region, ...]:
    """Return the region of each face in a photo of `shape` (height, width).

    The face's own M where its landmarks can be trusted, else its detector box, enlarged.

    Raises:
        InvalidArgumentError: A face's box is no box at all.
    """
    regions = [_region(face, shape) for face in faces]
    return tuple(
        replace(region, own=_own(region, index, regions)) for index, region in enumerate(regions)
    )


def checked_alignment(face: Face) -> tuple[Alignment | None, str]:
    """Return the alignment of a face, or None and why its landmarks cannot be trusted.

    A face without one has no M: its detector box, enlarged, is replaced instead.
    """
    if face.landmarks.shape != TEMPLATE.shape or not np.isfinite(face.landmarks).all():
        return None, "its landmarks were not found."
    alignment = fit_alignment(face.landmarks)
    eye_distance = alignment.scale * _TEMPLATE_EYES
    if not eye_distance >= SMALLEST_EYE_DISTANCE:
        return None, (
            f"it is too small, its eyes are {eye_distance:.0f} pixels apart and "
            f"{SMALLEST_EYE_DISTANCE:.0f} are needed."
        )
    left, top, right, bottom = face.box
    steps = np.linspace(0.5 - _CENTRAL / 2, 0.5 + _CENTRAL / 2, 5)
    x, y = np.meshgrid(left + steps * (right - left), top + steps * (bottom - top))
    central = alignment.to_template(np.stack([x.ravel(), y.ravel()], 1))
    if not bool((mask_radius(central) <= 1).all()):
        return None, "its eyes and nose were not found where the face is."
    return alignment, ""


def blank(pixels: RGB, regions: Sequence[Region]) -> RGB:
    """Return a copy of the photo in which every region is replaced by a smooth fill.

    The fill is computed from pixels outside all regions only.
    """
    height, width = pixels.shape[:2]
    blanked = np.zeros((height, width), dtype=np.bool_)
    for region in regions:
        blanked[region.window] |= region.mask
    filled = np.array(pixels)
    for window, scale in _clusters(regions, height, width):
        rows, columns = window
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        # Twice the template's resolution is as fine as a generated face will be.
        reduction = max(1, int(scale / 2), int(np.ceil(np.sqrt(area / _LARGEST_FILL))))
        filled[window] = fill_blanked(filled[window], blanked[window], reduction=reduction)
    return filled


def _region(face: Face, shape: tuple[int, int]) -> Region:
    left, top, right, bottom = face.box
    if not (np.isfinite(face.box).all() and left < right and top < bottom):
        raise InvalidArgumentError(
            f"`faces` must have finite boxes with left < right and top < bottom, got {face.box} "
            f"from the detector {face.detector!r}. Use another detector."
        )
    alignment, failure = checked_alignment(face)
    if alignment is None:
        return _box_region(face, shape, failure)
    reach = np.hypot(*(alignment.matrix[:, :2] * MASK_RADII).T)
    centre = alignment.to_photo(np.array([MASK_CENTRE]))[0]
    (left, top), (right, bottom) = centre - reach, centre + reach
    window = _clipped(left, top, right, bottom, shape)
    radius = _radius_in(window, alignment)
    mask = radius <= 1
    if not mask.any():
        return _box_region(face, shape, "it lies outside the photo.")
    t = np.clip((1 - radius) / FEATHER, 0, 1)
    opacity = np.rint(255 * t * t * (3 - 2 * t)).astype(np.uint8)
    return Region(window, mask, mask, opacity, alignment, None)


def _own(region: Region, index: int, regions: Sequence[Region]) -> NDArray[np.bool_]:
    own = region.mask
    if region.alignment is None:
        return np.zeros_like(own)
    for other_index, other in enumerate(regions):
        if other_index == index or other.alignment is None:
            continue
        if not _touch(region.window, other.window):
            continue
        here = _radius_in(region.window, region.alignment)
        there = _radius_in(region.window, other.alignment)
        nearer = here <= there if index < other_index else here < there
        own = own & (nearer | (there > 1))
    return own


def _box_region(face: Face, shape: tuple[int, int], failure: str) -> Region:
    left, top, right, bottom = face.box
    more_x, more_y = ((_ENLARGED - 1) / 2 * side for side in (right - left, bottom - top))
    window = _clipped(left - more_x, top - more_y, right + more_x, bottom + more_y, shape)
    size = tuple(part.stop - part.start for part in window)
    mask, none = np.ones(size, np.bool_), np.zeros(size, np.uint8)
    return Region(window, mask, mask, none, None, failure)


def _clipped(
    left: float, top: float, right: float, bottom: float, shape: tuple[int, int]
) -> Window:
    """Return the window of whole pixels that holds the rectangle, within the photo."""
    height, width = shape
    top_row, bottom_row = np.clip([np.floor(top), np.ceil(bottom) + 1], 0, height).astype(int)
    left_column, right_column = np.clip([np.floor(left), np.ceil(right) + 1], 0, width).astype(int)
    return slice(int(top_row), int(bottom_row)), slice(int(left_column), int(right_column))


def _radius_in(window: Window, alignment: Alignment) -> NDArray[np.float64]:
    """Return the elliptical radius of every pixel centre in a window, as `mask_radius` does.

    Written as sums of a row and a column, since windows may hold millions of pixels.
    """
    rows, columns = (np.arange(part.start, part.stop, dtype=np.float64) for part in window)
    inverse = np.linalg.inv(alignment.matrix[:, :2])
    shift = -inverse @ alignment.matrix[:, 2] - np.asarray(MASK_CENTRE)
    squares = np.zeros((rows.size, columns.size))
    for (per_x, per_y), constant, length in zip(inverse, shift, MASK_RADII, strict=True):
        along = (per_y * rows + constant)[:, None] / length + (per_x * columns / length)[None, :]
        squares += along * along
    return np.sqrt(squares)


def _clusters(regions: Sequence[Region], height: int, width: int) -> list[tuple[Window, float]]:
    """Merge the regions' windows, with a margin, until none touch; keep the finest scale."""
    clusters: list[tuple[Window, float]] = []
    for region in regions:
        if not region.mask.any():
            continue
        window, scale = _with_margin(region.window, height, width), region.scale
        # A window that has grown may touch one that it did not touch before.
        while touching := [other for other in clusters if _touch(window, other[0])]:
            clusters = [other for other in clusters if not _touch(window, other[0])]
            for other, other_scale in touching:
                window, scale = _around(window, other), min(scale, other_scale)
        clusters.append((window, scale))
    return clusters


def _with_margin(window: Window, height: int, width: int) -> Window:
    rows, columns = window
    margin = 2 + int(_MARGIN * max(rows.stop - rows.start, columns.stop - columns.start))
    return (
        slice(max(0, rows.start - margin), min(height, rows.stop + margin)),
        slice(max(0, columns.start - margin), min(width, columns.stop + margin)),
    )


def _touch(one: Window, other: Window) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _around(one: Window, other: Window) -> Window:
    rows, columns = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, columns
