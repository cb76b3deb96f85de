"""Rows → the photos of the audit: whose, in which part, with which labels.

Splits people by the design's rule (§4). Knows rows; opens no photo.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from privacy_core.attributes import labels_of
from privacy_core.audit.anonymization.settings import AuditConfig
from privacy_core.diffusion.prepare import identity_of, split_of
from privacy_core.errors import InvalidArgumentError

PARTS = ("test", "adversary", "predictor", "judge")
PHOTOS_OF_ONE = {"test": 2, "adversary": 6, "predictor": 8, "judge": 8}
"""Photos of one person at most: the test compares one with the other."""


@dataclass(frozen=True)
class ChosenPhoto:
    """One photo of the audit.

    Attributes:
        image: Its file's bytes.
        person: Number of the person shown; the same in all parts.
        slot: Which of the person's photos: 0, 1, …
        labels: 0, 1 or -1 per attribute.
        source: Which collection; "" where DATA does not say.
    """

    image: bytes = field(repr=False)
    person: int
    slot: int
    labels: tuple[int, ...]
    source: str


def choose(
    rows: Iterable[Mapping[str, Any]], config: AuditConfig, *, image_column: str = "image"
) -> dict[str, tuple[ChosenPhoto, ...]]:
    """Return the photos of each part, at most as many as the configuration asks for.

    In the test part people with two photos come first, since one photo is compared with the other.

    Args:
        rows: With encoded pictures and `identity`.
        config: Sizes, splits and seed.
        image_column: Where the pictures are.

    Raises:
        InvalidArgumentError: No row says who is shown, or none is of the people tested.
    """
    found: dict[str, dict[str, list[ChosenPhoto]]] = {part: {} for part in PARTS}
    numbers: dict[str, int] = {}
    n_rows = 0
    for row in rows:
        n_rows += 1
        identity = identity_of(row)
        part = None if identity is None else _part_of(split_of(identity, ""), config)
        if identity is None or part is None or not row[image_column]:
            continue
        number = numbers.setdefault(identity, len(numbers))
        photos = found[part].setdefault(identity, [])
        photos.append(
            ChosenPhoto(row[image_column], number, len(photos), labels_of(row),
                        str(row.get("source") or ""))
        )  # fmt: skip
    if not numbers:
        raise InvalidArgumentError(
            f"`DATA` must say in a column `identity` who is shown, got {n_rows} rows without. "
            "Add the column, with one value per person."
        )
    if not found["test"]:
        low, high = config.test
        raise InvalidArgumentError(
            f"`DATA` must hold people of the splits {low} to {high} (SHA-256 of the identity "
            f"modulo 100), got none among {len(numbers)}. Use more people."
        )
    limits = (config.n_faces, config.n_adversary, config.n_predictor, config.n_predictor)
    return {
        part: _limited(list(found[part].values()), limit, PHOTOS_OF_ONE[part], config.seed)
        for part, limit in zip(PARTS, limits, strict=True)
    }


def _part_of(split: int, config: AuditConfig) -> str | None:
    bounds = (config.test, config.adversary, config.predictor, config.judge)
    for part, (low, high) in zip(PARTS, bounds, strict=True):
        if low <= split <= high:
            return part
    return None


def _limited(
    people: Sequence[list[ChosenPhoto]], limit: int, of_one: int, seed: int
) -> tuple[ChosenPhoto, ...]:
    """Return whole people in a drawn order, those with at least two photos first."""
    order = np.random.default_rng(seed).permutation(len(people))
    several = [i for i in order if len(people[i]) > 1]
    single = [i for i in order if len(people[i]) == 1]
    chosen: list[ChosenPhoto] = []
    for i in (*several, *single):
        if len(chosen) >= limit:
            break
        chosen += people[i][:of_one]
    return tuple(chosen[:limit])
