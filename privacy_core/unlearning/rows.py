"""Labelled pictures in memory: read from a data set, split into what changed and what did not.

Knows files only as rows that someone else opened; knows no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import read_photo

REMOVED = -1
"""The label of a row whose label was taken away."""


@dataclass(frozen=True)
class LabelledImages:
    """Pictures of one size with labels, or the features of a frozen backbone in their place.

    Attributes:
        images: (n, h, w, 3) uint8 pixels, or (n, d) float64 features.
        labels: (n,) int64, 0 to C - 1, or -1 where the label was taken away.
        row_ids: (n,) int64, strictly increasing: each row's place in the original data set.
        revised: (n,) bool, True where the picture was replaced.

    Example:
        >>> rows = LabelledImages(np.zeros((2, 3)), np.array([0, 1]), np.array([0, 4]))
        >>> len(rows), rows.revised.tolist()
        (2, [False, False])
    """

    images: NDArray[Any] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    row_ids: NDArray[np.int64] = field(repr=False)
    revised: NDArray[np.bool_] = field(
        repr=False, default_factory=lambda: np.empty(0, dtype=np.bool_)
    )

    def __post_init__(self) -> None:
        """Check shapes and row ids; a missing `revised` means that no row was.

        Raises:
            InvalidArgumentError: The lengths differ, or row ids do not increase.
        """
        if len(self.revised) == 0:
            object.__setattr__(self, "revised", np.zeros(len(self.labels), dtype=np.bool_))
        lengths = {len(self.images), len(self.labels), len(self.row_ids), len(self.revised)}
        if len(lengths) != 1 or not np.all(np.diff(self.row_ids) > 0):
            raise InvalidArgumentError(
                "`images`, `labels`, `row_ids` and `revised` must have one length and `row_ids` "
                f"must increase, got the lengths {sorted(lengths)}. Read the rows in their order."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[Any]) -> LabelledImages:
        """Return the rows at `index`, a mask or increasing places."""
        return LabelledImages(
            self.images[index], self.labels[index], self.row_ids[index], self.revised[index]
        )

    def labelled(self) -> LabelledImages:
        """Return the rows that have a label."""
        return self.take(self.labels != REMOVED)

    def with_images(self, images: NDArray[Any]) -> LabelledImages:
        """Return the same rows with other pictures, or with features in their place."""
        return LabelledImages(images, self.labels, self.row_ids, self.revised)

    def digest(self) -> str:
        """Return the SHA-256 over pictures, labels, row ids and marks, in hex."""
        total = hashlib.sha256(f"{self.images.shape} {self.images.dtype}".encode())
        for part in (self.images, self.labels, self.row_ids, self.revised):
            total.update(np.ascontiguousarray(part).tobytes())
        return total.hexdigest()


def read_labelled(
    rows: Iterable[Mapping[str, Any]],
    *,
    label_column: str,
    image_size: int,
    image_column: str = "image",
    label_names: Sequence[str] | None = None,
) -> tuple[LabelledImages, tuple[str, ...]]:
    """Decode the rows of a data set.

    A row's id is its `row_id` where there is such a column, else its place. Rows without a picture
    (those that could not be anonymized) are left out; rows without a label keep none.

    Args:
        rows: Dictionaries in which the picture is the bytes of its file or None, such as a
            `privacy_core.dataset.RowSource`.
        label_column: The column that holds the label, whatever its type.
        image_size: Side of the square that pictures are reduced or enlarged to, in pixels.
        image_column: The column that holds the picture.
        label_names: The names a model already has for its labels; without them the distinct
            labels found, in their order.

    Returns:
        The rows, and the names of the labels.

    Raises:
        InvalidArgumentError: There is no such column, a label the model does not know, fewer than
            two labels, or a picture cannot be decoded.
    """
    images, values, ids, revised = [], [], [], []
    for place, row in enumerate(rows):
        if label_column not in row:
            raise InvalidArgumentError(
                f"`label_column` must name a column of the data, got {label_column!r}; the data "
                f"has the columns {', '.join(row)}. Name one of them."
            )
        if row[image_column] is None:
            continue
        images.append(_decoded(row[image_column], image_size, place))
        values.append(row[label_column])
        ids.append(int(row.get("row_id", place)))
        revised.append(bool(row.get("revised", False)))
    if not images:
        raise InvalidArgumentError(
            "`DATA` must have at least one row with a picture, got none. Check how it was made."
        )
    names = _names_of(values, label_column) if label_names is None else tuple(label_names)
    return (
        LabelledImages(
            np.stack(images), _numbered(values, names), np.array(ids), np.array(revised)
        ),
        names,
    )


@dataclass(frozen=True)
class RevisedSplit:
    """What the revision left alone, what it put in place, and what is to be forgotten.

    Attributes:
        train: Every labelled row of the revised data, D'.
        retain: Its rows that were not revised, R.
        replacement: Its revised rows that still have a label.
        forget: The original rows that are not in D' as they were, Z; None without originals.
    """

    train: LabelledImages
    retain: LabelledImages
    replacement: LabelledImages
    forget: LabelledImages | None = None


def split_revised(revised: LabelledImages, original: LabelledImages | None = None) -> RevisedSplit:
    """Split revised data, and find what is to be forgotten in the originals where they are given.

    Raises:
        InvalidArgumentError: Nothing is left to learn from, or the originals are not those that
            were revised.
    """
    train = revised.labelled()
    if len(train) == 0:
        raise InvalidArgumentError(
            "`revised` must have at least one row with a picture and a label, got none. "
            "Revise fewer people, or delete the model."
        )
    retain, replacement = train.take(~train.revised), train.take(train.revised)
    if original is None:
        return RevisedSplit(train, retain, replacement)
    kept = np.isin(original.row_ids, retain.row_ids)
    _check_same_rows(retain, original.take(kept), revised, original)
    return RevisedSplit(train, retain, replacement, original.take(~kept).labelled())


def _check_same_rows(
    retain: LabelledImages,
    untouched: LabelledImages,
    revised: LabelledImages,
    original: LabelledImages,
) -> None:
    known = np.isin(revised.row_ids, original.row_ids).all()
    if (
        not known
        or retain.images.shape != untouched.images.shape
        or not np.array_equal(retain.labels, untouched.labels)
        or not np.array_equal(retain.images, untouched.images)
    ):
        raise InvalidArgumentError(
            "`original` must be the data that was revised: its unrevised rows must be the same as "
            "in `revised`, got others. Name the data `revise` was given, in the same order."
        )


def as_square(pixels: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) reduced or enlarged to a square of `image_size` pixels."""
    square = (image_size, image_size)
    return np.asarray(Image.fromarray(pixels).resize(square, Image.Resampling.BILINEAR))


def _decoded(data: bytes, image_size: int, place: int) -> NDArray[np.uint8]:
    # Decoded as `revise` does: a row it kept has the same pixels as the original.
    try:
        pixels = read_photo(data).pixels
    except PhotoError as error:
        raise InvalidArgumentError(
            f"`DATA` must hold pictures that can be read, got a damaged one in row {place}. "
            "Replace or remove the row."
        ) from error
    return as_square(pixels, image_size)


def _names_of(values: Sequence[Any], label_column: str) -> tuple[str, ...]:
    found = {value for value in values if value is not None}
    if len(found) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"`label_column` must hold at least two different labels, got {len(found)} in "
            f"{label_column!r}. Choose another column."
        )
    numeric = all(isinstance(value, int | float) for value in found)
    return tuple(str(value) for value in sorted(found, key=float if numeric else str))


def _numbered(values: Sequence[Any], names: tuple[str, ...]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(names)}
    unknown = {str(value) for value in values if value is not None} - set(number)
    if unknown:
        raise InvalidArgumentError(
            f"`label_column` must hold the model's labels ({', '.join(names)}), got "
            f"{len(unknown)} others. Name the column the model was trained on."
        )
    return np.array([REMOVED if value is None else number[str(value)] for value in values])
