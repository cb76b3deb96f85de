"""A smooth fill for blanked pixels, computed from the others only; knows nothing of faces.

Push-pull (Gortler et al. 1996) with relaxation towards the membrane on every level: known pixels
are averaged down a pyramid, and coming up again each level fills its holes from the coarser one
and relaxes them, so that the fill meets its surroundings without a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from privacy_core.schema import RGB

_RELAXATIONS = 4
_LEAST_WEIGHT = 0.25
_EMPTY = 128.0
"""Grey level where not one pixel is known."""


def fill_unknown(values: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill a picture where its weight is below 1.

    Args:
        values: (height, width, channels) float32; ignored where `weight` is 0.
        weight: (height, width) float32 in [0, 1], how far a pixel is known.

    Returns:
        (height, width, channels) float32: `values` where `weight` is 1, smooth where it is 0.
    """
    weighted = np.where(weight[..., None] > 0, values, np.float32(0)) * weight[..., None]
    return _pull(weighted, weight)


def fill_blanked(pixels: RGB, blanked: NDArray[np.bool_], *, reduction: int) -> RGB:
    """Return a copy of a window whose blanked pixels are filled from the others.

    Args:
        pixels: (height, width, 3) uint8.
        blanked: (height, width) bool; the pixels there are never read.
        reduction: The fill is computed at this fraction of the size and enlarged.
    """
    known = ~blanked
    # uint8, and zero wherever the photo is blanked: nothing below can read M.
    values = pixels * known[..., None]
    total, weight = values.astype(np.float32), known.astype(np.float32)
    if reduction > 1:
        total, weight = _reduced(values, known, reduction)
    fill = np.clip(np.rint(_pull(total, weight)), 0, 255).astype(np.uint8)
    if reduction > 1:
        height, width = pixels.shape[:2]
        size = (fill.shape[1] * reduction, fill.shape[0] * reduction)
        enlarged = Image.fromarray(fill).resize(size, Image.Resampling.BILINEAR)
        fill = np.asarray(enlarged)[:height, :width]
    np.copyto(values, fill, where=blanked[..., None])
    return values


def _reduced(
    values: RGB, known: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Average over blocks, unknown pixels counting as zeros of no weight."""
    total = np.asarray(Image.fromarray(values).reduce(factor), dtype=np.float32)
    share = Image.fromarray(known.view(np.uint8) * np.uint8(255)).reduce(factor)
    weight = np.asarray(share, dtype=np.float32) / np.float32(255)
    # Both are rounded to whole levels, which blocks of little weight would magnify.
    enough = weight >= _LEAST_WEIGHT
    return total * enough[..., None], weight * enough


def _pull(total: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Recurse to a coarser level, then fill this one from it (`total` is value times weight)."""
    height, width = weight.shape
    share = weight[..., None]
    if bool((weight >= 1).all()):
        return total
    if max(height, width) <= 1:
        # One pixel stands for the whole window, and nothing in it may be known.
        return np.where(share > 0, total / np.where(share > 0, share, 1), np.float32(_EMPTY))
    below = _double(_pull(*_push(total, weight)))[:height, :width]
    unknown = 1 - share
    level = total + unknown * below
    for _ in range(_RELAXATIONS):
        level = _neighbours(level)
        level *= unknown
        level += total
    return level


def _push(
    total: NDArray[np.float32], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sum 2 x 2 blocks, then scale so that no weight exceeds 1."""
    both = np.concatenate([total, weight[..., None]], axis=2)
    padded = np.pad(both, ((0, both.shape[0] % 2), (0, both.shape[1] % 2), (0, 0)))
    sums = padded[0::2, 0::2] + padded[1::2, 0::2] + padded[0::2, 1::2] + padded[1::2, 1::2]
    sums /= np.maximum(sums[..., -1:], 1)
    return sums[..., :-1], sums[..., -1]


def _double(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Enlarge twofold, linear between pixel centres."""
    for axis in (0, 1):
        values = values.swapaxes(0, axis)
        padded = np.concatenate([values[:1], values, values[-1:]])
        doubled = np.repeat(0.75 * values, 2, axis=0)
        doubled[0::2] += 0.25 * padded[:-2]
        doubled[1::2] += 0.25 * padded[2:]
        values = doubled.swapaxes(0, axis)
    return values


def _neighbours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the four neighbours; beyond the border the pixel stands for itself."""
    height, width, channels = values.shape
    # What `np.pad` does, but for the corners, which are not read; it takes as long as the sums.
    padded = np.empty((height + 2, width + 2, channels), np.float32)
    padded[1:-1, 1:-1] = values
    padded[0, 1:-1], padded[-1, 1:-1] = values[0], values[-1]
    padded[1:-1, 0], padded[1:-1, -1] = values[:, 0], values[:, -1]
    mean = padded[:-2, 1:-1] + padded[2:, 1:-1]
    mean += padded[1:-1, :-2]
    mean += padded[1:-1, 2:]
    mean *= np.float32(0.25)
    return mean
