"""A stand-in request, for an audit after the originals were erased.

Some retained people are taken for people who asked: of them the originals are still there, as of
nobody else. Their pictures are revised in the same way, and the attack is on their rows. Knows rows
in memory; not how a picture is revised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.rows import REMOVED, LabelledImages

_WAY_OUT = "Audit without shadow models (`--models 0`), or before the originals are erased."


def choose_rows(
    revised: LabelledImages, people: NDArray[Any], *, n_rows: int, seed: int
) -> NDArray[np.bool_]:
    """Return which rows stand for the request: all rows of some people who were not revised.

    Args:
        revised: D'.
        people: (n,) who is shown.
        n_rows: Rows of the real request; the first people drawn who have as many are taken.
        seed: Seed of the draw.

    Raises:
        InvalidArgumentError: Too few rows were retained to stand for the request and leave some.
    """
    touched = np.unique(people[revised.revised | (revised.labels == REMOVED)])
    free = np.setdiff1d(np.unique(people), touched)
    chosen = np.zeros(len(revised), dtype=np.bool_)
    order = np.random.default_rng([11, seed]).permutation(free)
    for number, person in enumerate(order, 1):
        chosen |= people == person
        if chosen.sum() >= n_rows and number < len(order):
            return chosen
    raise InvalidArgumentError(
        f"The revised data must retain more people than a stand-in of {n_rows} rows takes, got "
        f"{int(np.isin(people, free).sum())} rows of {len(free)} people. {_WAY_OUT}"
    )


def stand_in_rows(
    revised: LabelledImages,
    chosen: NDArray[np.bool_],
    *,
    mode: str,
    pictures: Mapping[int, NDArray[np.uint8]],
) -> tuple[LabelledImages, LabelledImages]:
    """Return D and D' of the stand-in.

    Args:
        revised: D' of the real request, which is the stand-in's D: nothing of it is revised yet.
        chosen: From `choose_rows`.
        mode: What the real revision did: "replace", "drop-label" or "drop-row".
        pictures: Row id → the picture in its place, for "replace"; a row without one goes.
    """
    nothing = np.zeros(len(revised), dtype=np.bool_)
    original = LabelledImages(revised.images, revised.labels, revised.row_ids, nothing)
    is_left = ~chosen | (mode != "drop-row")
    images, labels = revised.images.copy(), revised.labels.copy()
    if mode == "drop-label":
        labels[chosen] = REMOVED
    elif mode == "replace":
        for place in np.flatnonzero(chosen):
            row = int(revised.row_ids[place])
            if row in pictures:
                images[place] = pictures[row]
            else:
                is_left[place] = False
    return original, LabelledImages(images, labels, revised.row_ids, chosen).take(is_left)
