"""Rows → the photos of the audit: whose, in which part, with which labels.

Splits people by the design's rule (§4). Knows rows; opens no photo.
"""

from __future__ import annotations

import hashlib
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


def digest_of(photos: Iterable[ChosenPhoto]) -> str:
    """Return 16 hex digits that differ for other photos, labels or people."""
    total = hashlib.sha256()
    for photo in photos:
        row = f"{photo.person} {photo.slot} {photo.labels} {photo.source}"
        total.update(hashlib.sha256(photo.image).digest() + row.encode())
    return total.hexdigest()[:16]


def choose(
    rows: Iterable[Mapping[str, Any]],
    config: AuditConfig,
    *,
    image_column: str = "image",
    subject_column: str = "identity",
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, tuple[ChosenPhoto, ...]]:
    """Return the photos of each part, at most as many as the configuration asks for.

    In the test part people with two photos come first, since one photo is compared with the other.

    Args:
        rows: With encoded pictures and a column that says who is shown.
        config: Sizes, splits and seed.
        image_column: Where the pictures are.
        subject_column: Says who is shown.
        class_names: Column → names of its classes, where rows hold their numbers.

    Raises:
        InvalidArgumentError: No row says who is shown, or none is of the people tested.
    """
    found: dict[str, dict[str, list[ChosenPhoto]]] = {part: {} for part in PARTS}
    numbers: dict[str, int] = {}
    n_rows = 0
    for row in rows:
        n_rows += 1
        identity = identity_of({"identity": row.get(subject_column)})
        part = None if identity is None else _part_of(split_of(identity, ""), config)
        if identity is None or part is None or not row[image_column]:
            continue
        number = numbers.setdefault(identity, len(numbers))
        photos = found[part].setdefault(identity, [])
        if len(photos) < PHOTOS_OF_ONE[part]:
            labels, source = labels_of(_named(row, class_names)), str(row.get("source") or "")
            photos.append(ChosenPhoto(row[image_column], number, len(photos), labels, source))
    _check_people(len(numbers), len(found["test"]), subject_column, n_rows, config)
    limits = (config.n_faces, config.n_adversary, config.n_predictor, config.n_predictor)
    return {
        part: _limited(list(found[part].values()), limit, config.seed)
        for part, limit in zip(PARTS, limits, strict=True)
    }


def _check_people(
    n_people: int, n_tested: int, subject_column: str, n_rows: int, config: AuditConfig
) -> None:
    if n_people == 0:
        raise InvalidArgumentError(
            f"`--subject-column` must name the column that says who is shown, got "
            f"{subject_column!r}, which is empty in all of {n_rows} rows. Name another."
        )
    if n_tested == 0:
        raise InvalidArgumentError(
            f"`DATA` must hold people of the splits {config.test[0]} to {config.test[1]} (SHA-256 "
            f"of the identity modulo 100), got none among {n_people}. Use more people."
        )


def _named(
    row: Mapping[str, Any], class_names: Mapping[str, Sequence[str]] | None
) -> Mapping[str, Any]:
    """Return a row with the names of its classes in place of their numbers."""
    named = {
        column: names[row[column]]
        for column, names in (class_names or {}).items()
        if isinstance(row.get(column), int) and 0 <= row[column] < len(names)
    }
    return {**row, **named} if named else row


def _part_of(split: int, config: AuditConfig) -> str | None:
    bounds = (config.test, config.adversary, config.predictor, config.judge)
    for part, (low, high) in zip(PARTS, bounds, strict=True):
        if low <= split <= high:
            return part
    return None


def _limited(people: Sequence[list[ChosenPhoto]], limit: int, seed: int) -> tuple[ChosenPhoto, ...]:
    """Return whole people in a drawn order, those with at least two photos first."""
    order = np.random.default_rng(seed).permutation(len(people))
    several = [i for i in order if len(people[i]) > 1]
    single = [i for i in order if len(people[i]) == 1]
    chosen: list[ChosenPhoto] = []
    for i in (*several, *single):
        if len(chosen) >= limit:
            break
        chosen += people[i]
    return tuple(chosen[:limit])
