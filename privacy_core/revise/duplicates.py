"""Which photos are nearly the same: difference hashes of two sizes, and a search that scales.

Knows pixels and row numbers; no subjects, no splits, no files. Copies that were resized, saved
again or brightened have hashes a few bits apart. Another photo of the same person is not found,
and neither is a crop or a mirrored copy. Sixty-four bits alone call many portraits with a centred
face the same; 256 more tell them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import RGB

DISTANCE = 4
"""Bits of 64 in which two copies of one photo may differ."""
CONFIRMED = 24
"""Bits of 256 in which they may differ."""
WORDS = 5
"""64-bit words of a fingerprint: one to search by, four to confirm."""
_MOST_DISTANCE = 7
_SIDES = (8, 16)
_BLOCK = 256

Prints = NDArray[np.uint64]
"""(n, 5) fingerprints."""


def fingerprint(pixels: RGB) -> Prints:
    """Return one bit per pair of horizontal neighbours of the photo shrunk to 9 × 8 and 17 × 16.

    A bit is set where the brightness rises from left to right; flat regions give zeros.

    Args:
        pixels: (height, width, 3) uint8.

    Returns:
        (5,) uint64.
    """
    grey, bits = Image.fromarray(pixels).convert("L"), []
    for side in _SIDES:
        small = grey.resize((side + 1, side), Image.Resampling.BOX)
        brightness = np.asarray(small, dtype=np.int16)
        bits.append((brightness[:, 1:] > brightness[:, :-1]).ravel())
    return np.packbits(np.concatenate(bits)).view(">u8").astype(np.uint64)


def near_pairs(
    prints: Prints, *, distance: int = DISTANCE, confirmed: int = CONFIRMED
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield every pair of photos whose fingerprints nearly agree, each once.

    Two hashes with at most `distance` different bits agree in at least one of `distance` + 1
    parts, so photos are sorted by one part after the other and compared within equal parts only.

    Args:
        prints: (n, 5) uint64, from `fingerprint`.
        distance: Most different bits of the first 64, 0 to 7.
        confirmed: Most different bits of the other 256.

    Yields:
        Blocks of (first, second), two equally long arrays of indices with first < second.

    Raises:
        InvalidArgumentError: `distance` is out of range.
    """
    if not 0 <= distance <= _MOST_DISTANCE:
        raise InvalidArgumentError(
            f"`distance` must be from 0 to {_MOST_DISTANCE} bits, got {distance!r}. "
            f"{DISTANCE} is usual."
        )
    edges = np.linspace(0, 64, distance + 2).astype(int).tolist()
    masks = [np.uint64(((1 << (high - low)) - 1) << low) for low, high in itertools.pairwise(edges)]
    for place, mask in enumerate(masks):
        for group in _groups(prints[:, 0] & mask):
            for first, second in _close(prints[:, 0], group, distance, masks[:place]):
                differing = np.bitwise_count(prints[first, 1:] ^ prints[second, 1:])
                sure = differing.sum(1) <= confirmed
                if sure.any():
                    yield first[sure], second[sure]


def _groups(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of equal keys, ascending, where there is more than one."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order])) + 1
    bounds = np.concatenate([[0], starts, [len(keys)]])
    for place in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[place] : bounds[place + 1]]


def _close(
    hashes: NDArray[np.uint64],
    group: NDArray[np.int64],
    distance: int,
    earlier: list[np.uint64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of a group that no earlier part has found, in blocks."""
    values = hashes[group]
    for start in range(0, len(group), _BLOCK):
        for other in range(start, len(group), _BLOCK):
            rows, columns = slice(start, start + _BLOCK), slice(other, other + _BLOCK)
            differing = values[rows, None] ^ values[None, columns]
            near = np.bitwise_count(differing) <= distance
            if other == start:
                near &= np.triu(np.ones_like(near), 1)
            for mask in earlier:
                # Equal in an earlier part: found there already.
                near &= (differing & mask) != 0
            first, second = np.nonzero(near)
            if len(first):
                yield group[rows][first], group[columns][second]
