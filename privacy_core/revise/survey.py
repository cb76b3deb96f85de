"""One look at all rows before any is changed: digest, who is shown where, near-duplicates.

Knows rows and subjects; no strength, no face, nothing that is written. Takes about fifty bytes a
row, whatever the photos weigh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.dataset import RowSource, row_digest
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import read_photo
from privacy_core.revise.duplicates import (
    CONFIRMED,
    DISTANCE,
    WORDS,
    Prints,
    fingerprint,
    near_pairs,
)

MOST_PAIRS = 1000
"""Pairs listed of each kind; all are counted."""

Report = Callable[[str, int, int], None]
"""Called with stage, done, total."""


@dataclass(frozen=True)
class NearDuplicates:
    """Photos that are nearly the same, by row number.

    Attributes:
        n_across_subjects: Pairs of rows of different subjects.
        n_within_subject: Pairs of rows of one subject, or of two rows without one.
        n_across_splits: Pairs of a row and one of another split.
        pairs: (row, row) across subjects, at most `MOST_PAIRS`.
        split_pairs: (row, split, row there), at most `MOST_PAIRS`.
    """

    n_across_subjects: int = 0
    n_within_subject: int = 0
    n_across_splits: int = 0
    pairs: tuple[tuple[int, int], ...] = ()
    split_pairs: tuple[tuple[int, str, int], ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "method": f"difference hash: at most {DISTANCE} of 64 and {CONFIRMED} of 256 bits",
            "n_across_subjects": self.n_across_subjects,
            "n_within_subject": self.n_within_subject,
            "n_across_splits": self.n_across_splits,
            "pairs_across_subjects": [list(pair) for pair in self.pairs],
            "pairs_across_splits": [list(pair) for pair in self.split_pairs],
            "n_listed_at_most": MOST_PAIRS,
        }


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        digest: `RowSource.digest` of the rows.
        n_rows: Number of rows.
        subjects: Everyone who is shown, in order of appearance.
        subject_of: (n_rows,) int32, index into `subjects`, -1 for a row without a subject.
        duplicates: Photos that are nearly the same.
    """

    digest: str
    n_rows: int
    subjects: tuple[str, ...] = field(repr=False)
    subject_of: NDArray[np.int32] = field(repr=False)
    duplicates: NearDuplicates = field(repr=False)

    def subject(self, number: int) -> str | None:
        """Return who is shown in a row, None where nobody is named."""
        place = int(self.subject_of[number])
        return None if place < 0 else self.subjects[place]


def survey_rows(
    source: RowSource,
    *,
    subject_column: str,
    other_splits: Mapping[str, RowSource] | None = None,
    report: Report | None = None,
) -> Survey:
    """Read every row once.

    Args:
        source: The rows.
        subject_column: Says who is shown; text, whole numbers or class labels.
        other_splits: Name → rows that near-duplicates are searched in too.
        report: Called with stage, done, total.

    Raises:
        InvalidArgumentError: There is no such column, or it names nobody in any row.
    """
    if subject_column not in source.column_names:
        raise InvalidArgumentError(
            f"`--subject-column` must name the column that says who is shown, got "
            f"{subject_column!r}; `DATA` has {', '.join(source.column_names)}. Name one of them, "
            "or add one."
        )
    names = getattr(source.features.get(subject_column), "names", None)
    total = hashlib.sha256()
    places: dict[str, int] = {}
    subject_of = np.full(len(source), -1, np.int32)
    prints = np.zeros((len(source), WORDS), np.uint64)
    for number, row in enumerate(source):
        total.update(row_digest(row, source.image_column))
        subject = _name(row[subject_column], names)
        if subject is not None:
            subject_of[number] = places.setdefault(subject, len(places))
        prints[number] = _print_of(row[source.image_column])
        if report is not None:
            report("Reading the rows", number + 1, len(source))
    if not places:
        raise InvalidArgumentError(
            f"`--subject-column` must name the column that says who is shown, got "
            f"{subject_column!r}, which is empty in every row. Name another."
        )
    beside = [(name, _prints_of(name, rows, report)) for name, rows in (other_splits or {}).items()]
    duplicates = _near_duplicates(prints, subject_of, beside)
    return Survey(total.hexdigest(), len(source), tuple(places), subject_of, duplicates)


def _name(value: Any, names: Sequence[str] | None) -> str | None:
    """Return a subject as it stands in preferences.json: the name of a class, or plain text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if names is None:
        return str(value)
    return names[value] if 0 <= value < len(names) else None


def _prints_of(name: str, rows: RowSource, report: Report | None) -> Prints:
    found = np.zeros((len(rows), WORDS), np.uint64)
    for number, row in enumerate(rows):
        found[number] = _print_of(row[rows.image_column])
        if report is not None:
            report(f"Reading the split {name}", number + 1, len(rows))
    return found


def _print_of(encoded: bytes | None) -> Prints:
    """Return a photo's fingerprint, zeros for one that cannot be read."""
    try:
        pixels = None if encoded is None else read_photo(encoded).pixels
    except PhotoError:
        pixels = None
    return np.zeros(WORDS, np.uint64) if pixels is None else fingerprint(pixels)


def _near_duplicates(
    prints: Prints, subject_of: NDArray[np.int32], beside: Sequence[tuple[str, Prints]]
) -> NearDuplicates:
    n_own = len(prints)
    splits = [("", prints), *beside]
    everything = np.concatenate([found for _, found in splits])
    split_of = np.repeat(np.arange(len(splits)), [len(found) for _, found in splits])
    first_row = np.concatenate([[0], np.cumsum([len(found) for _, found in splits])])
    # Zeros: no photo, or one without any structure to compare.
    seen = np.flatnonzero(everything.any(1))
    counts = np.zeros(3, np.int64)
    pairs: list[tuple[int, int]] = []
    split_pairs: list[tuple[int, str, int]] = []
    for block in near_pairs(everything[seen]):
        a, b = seen[block[0]], seen[block[1]]
        own, crossing = b < n_own, (a < n_own) & (b >= n_own)
        apart = own & (subject_of[a % n_own] != subject_of[b % n_own])
        counts += [apart.sum(), (own & ~apart).sum(), crossing.sum()]
        room = MOST_PAIRS - len(pairs)
        pairs += zip(a[apart][:room].tolist(), b[apart][:room].tolist(), strict=True)
        for row, other in zip(a[crossing], b[crossing], strict=True):
            if len(split_pairs) < MOST_PAIRS:
                place = int(split_of[other])
                split_pairs.append((int(row), splits[place][0], int(other - first_row[place])))
    across, within, between = (int(count) for count in counts)
    return NearDuplicates(across, within, between, tuple(sorted(pairs)), tuple(sorted(split_pairs)))
