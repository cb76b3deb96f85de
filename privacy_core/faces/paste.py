"""Photo + faces → blanked, filled photo; generated faces → photo again (design §3.2).

The support M of every face is blanked and filled before anything else reads the photo. One
method, `PreparedPhoto.face_pixels`, gives out original pixels of M, for the code alone; what is
pasted depends on the fill and the generated faces only. Knows no model and no strength.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from privacy_core.errors import FaceFailedError, InvalidArgumentError
from privacy_core.faces.align import (
    FEATHER,
    SIZE,
    Alignment,
    template_mask,
    template_radius,
    warp_to_template,
)
from privacy_core.faces.fill import fill_unknown
from privacy_core.faces.support import Region, blank, regions_of
from privacy_core.schema import RGB, Face, Photo

_COLOUR_TOLERANCE = 30.0
"""Difference in levels above which fill and face are taken to differ for good reason (hair)."""
_COLOUR_SMOOTHING = 10.0
_COLOUR_REACH = 0.4
"""Elliptical radius at which the colour correction has faded to nothing."""


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo whose faces are cut out and filled, ready for generated ones.

    Attributes:
        filled: (height, width, 3) uint8, read-only: the photo with all of M replaced by a fill.
        regions: One per face, in the order given to `prepare`.
        is_grey: What is outside M has no colour, so pasted faces lose theirs.
    """

    filled: RGB = field(repr=False)
    regions: tuple[Region, ...]
    is_grey: bool
    _original: RGB = field(repr=False)

    @property
    def failures(self) -> dict[int, str]:
        """Index of each face that cannot be anonymized → why, in words for a visitor."""
        return {i: region.failure for i, region in enumerate(self.regions) if region.failure}

    def alignment(self, index: int) -> Alignment:
        """Return the alignment of face `index` (from 0).

        Raises:
            FaceFailedError: The face has none, see `failures`.
        """
        region = self.regions[index]
        if region.failure is not None or region.alignment is None:
            raise FaceFailedError(index + 1, len(self.regions), region.failure or "No alignment.")
        return region.alignment

    def face_pixels(self, index: int, *, zoom: int = 1) -> RGB:
        """Return face `index` for the backend: uint8, zero outside M.

        The only reader of original pixels in M; of faces that overlap, it reads only the pixels
        that are this face's own.

        Args:
            index: From 0.
            zoom: Frame pixels per template pixel.

        Returns:
            (128 * zoom, 128 * zoom, 3) uint8.

        Raises:
            FaceFailedError: The face cannot be aligned.
        """
        alignment, region = self.alignment(index), self.regions[index]
        seen = self.filled.copy()
        np.copyto(seen[region.window], self._original[region.window], where=region.own[..., None])
        frame = warp_to_template(seen, alignment, zoom=zoom)
        return frame * template_mask(zoom)[..., None]

    def context_pixels(self, index: int, *, zoom: int = 1) -> RGB:
        """Return the surroundings of face `index`, with every M filled; see `face_pixels`.

        Raises:
            FaceFailedError: The face cannot be aligned.
        """
        return warp_to_template(self.filled, self.alignment(index), zoom=zoom)

    def solid_colour(self, index: int) -> tuple[int, int, int]:
        """Return the mean colour of the fill in region `index`."""
        region = self.regions[index]
        if not region.mask.any():
            return (128, 128, 128)
        red, green, blue = self.filled[region.window][region.mask].mean(0).round().astype(int)
        return (int(red), int(green), int(blue))

    def solid_patch(self, index: int) -> RGB:
        """Return a face of one colour, (128, 128, 3) uint8, made from the fill only."""
        return np.full((SIZE, SIZE, 3), self.solid_colour(index), dtype=np.uint8)

    def paste(
        self,
        generated: Mapping[int, RGB],
        *,
        covered: Collection[int] = (),
        left: Collection[int] = (),
        unmatched: Collection[int] = (),
    ) -> RGB:
        """Put generated faces into the photo.

        Args:
            generated: Index of a face → (128 z, 128 z, 3) uint8 picture in the template frame,
                for a whole z ≥ 1; only the part in M is used.
            covered: Indices of faces to cover wholly with one colour instead.
            left: Indices of faces to leave as they are; what another face's M holds of them is
                replaced all the same.
            unmatched: Indices of faces that keep their colours; the rim of every other one is
                shifted softly towards the fill.

        Returns:
            (height, width, 3) uint8: the original to the bit outside M and in faces left as they
            are; inside a function of the fill and of `generated`.

        Raises:
            FaceFailedError: A face has neither a generated picture nor a cover.
            InvalidArgumentError: An index names no face, or a picture has another shape or type.
        """
        self._check(generated, covered, left)
        photo = self.filled.copy()
        # The largest face comes first in the list and lies on top where faces overlap.
        for index in reversed(range(len(self.regions))):
            region = self.regions[index]
            if index in left:
                continue
            below = photo[region.window]
            if index in covered:
                below[region.mask] = self.solid_colour(index)
                continue
            face = generated[index]
            if index not in unmatched:
                face = _match_colour(face, self.context_pixels(index))
            if self.is_grey:
                face = np.asarray(Image.fromarray(face).convert("L").convert("RGB"))
            np.copyto(below, _blend(face, below, region), where=region.mask[..., None])
        if left:
            shown = ~self._replaced(left)
            np.copyto(photo, self._original, where=shown[..., None])
        return photo

    def _replaced(self, left: Collection[int]) -> NDArray[np.bool_]:
        """Return the M of all faces but those left as they are, (height, width) bool."""
        replaced = np.zeros(self.filled.shape[:2], np.bool_)
        for index, region in enumerate(self.regions):
            if index not in left:
                replaced[region.window] |= region.mask
        return replaced

    def _check(
        self, generated: Mapping[int, RGB], covered: Collection[int], left: Collection[int]
    ) -> None:
        n_faces = len(self.regions)
        for index in [*generated, *covered, *left]:
            if index not in range(n_faces):
                raise InvalidArgumentError(
                    f"`generated`, `covered` and `left` must name faces from 0 to {n_faces - 1}, "
                    f"got {index!r}. Use the order given to `prepare`."
                )
        for index in range(n_faces):
            if index in covered or index in left:
                continue
            self.alignment(index)
            if index not in generated:
                raise FaceFailedError(index + 1, n_faces, "No new face was generated for it.")
            _check_picture(generated[index])


def prepare(photo: Photo, faces: Sequence[Face]) -> PreparedPhoto:
    """Align the faces of a photo, blank the union of their masks and fill it.

    A face that cannot be aligned is listed in `failures`; its detector box, enlarged, is blanked
    all the same.

    Args:
        photo: From `read_photo`.
        faces: Every detected face, the largest first.
    """
    regions = regions_of(faces, photo.pixels.shape[:2])
    filled = blank(photo.pixels, regions)
    filled.setflags(write=False)
    # Judged without the pixels in M: whatever stood there must not colour the new face.
    is_grey = bool((filled == filled[..., :1]).all())
    return PreparedPhoto(filled, regions, is_grey, photo.pixels)


def _check_picture(picture: RGB) -> None:
    side = picture.shape[0] if picture.ndim else 0
    whole = side >= SIZE and side % SIZE == 0
    if picture.dtype != np.uint8 or picture.shape != (side, side, 3) or not whole:
        raise InvalidArgumentError(
            f"`generated` pictures must be uint8 of shape ({SIZE} z, {SIZE} z, 3) for a whole z, "
            f"got {picture.dtype} {picture.shape}. Resize them to the template frame."
        )


def _match_colour(face: RGB, context: RGB) -> RGB:
    """Add the smooth difference between fill and face at the rim, fading towards the centre."""
    zoom = face.shape[0] // SIZE
    small = np.asarray(Image.fromarray(face).reduce(zoom)) if zoom > 1 else face
    radius = template_radius()
    rim = ((radius <= 1) & (radius >= 1 - FEATHER)).astype(np.float32)
    difference = context.astype(np.float32) - small
    # Where the two differ strongly there is a real edge (hair, collar): leave it to the feather.
    weight = rim * np.exp(-((np.abs(difference).max(2) / _COLOUR_TOLERANCE) ** 2))
    smooth = gaussian_filter(difference * weight[..., None], (_COLOUR_SMOOTHING,) * 2 + (0,))
    total = gaussian_filter(weight, _COLOUR_SMOOTHING)
    confidence = np.clip(4 * total, 0, 1) * rim
    spread = fill_unknown(smooth / (total[..., None] + 1e-3), confidence)
    fade = _smoothstep((radius - _COLOUR_REACH) / (1 - FEATHER - _COLOUR_REACH))
    shift = (spread * fade[..., None]).astype(np.float32)
    if zoom > 1:
        planes = [
            Image.fromarray(shift[..., i]).resize(face.shape[:2], Image.Resampling.BILINEAR)
            for i in range(3)
        ]
        shift = np.stack([np.asarray(plane) for plane in planes], axis=2)
    shifted: RGB = np.clip(np.rint(face + shift), 0, 255).astype(np.uint8)
    return shifted


def _smoothstep(t: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _blend(face: RGB, below: RGB, region: Region) -> RGB:
    """Draw a template picture over the window `below`, feathered by the region's opacity."""
    alignment = region.alignment
    if alignment is None:
        raise InvalidArgumentError("`generated` needs an aligned face. Put it in `covered`.")
    image = Image.fromarray(face)
    side = min(face.shape[0], max(1, round(SIZE * alignment.scale)))
    if side < face.shape[0]:
        image = image.resize((side, side), Image.Resampling.BOX)
    zoom = side / SIZE
    # Two more pixels around, so that no sample at the rim falls beyond the picture.
    image = Image.fromarray(np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)), mode="edge"))
    # Window pixel → photo point → template point → picture pixel, centres at + 0.5 in Pillow.
    inverse = np.linalg.inv(alignment.matrix[:, :2])
    linear = zoom * inverse
    corner = np.array([region.window[1].start, region.window[0].start], dtype=np.float64)
    origin = inverse @ (corner - 0.5 - alignment.matrix[:, 2])
    offset = zoom * (origin + 0.5) + 2
    drawn = image.transform(
        (below.shape[1], below.shape[0]),
        Image.Transform.AFFINE,
        (*linear[0], offset[0], *linear[1], offset[1]),
        Image.Resampling.BICUBIC,
    )
    opacity = Image.fromarray(region.opacity)
    return np.asarray(Image.composite(drawn, Image.fromarray(below), opacity))
