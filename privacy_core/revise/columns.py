"""Which columns say who somebody is, and which columns a revised data set has.

Goes by names and types alone and knows no row: a name inside a harmless column is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Features, Image, Value

from privacy_core.errors import InvalidArgumentError

ADDED: Mapping[str, Any] = {
    "row_id": "int64",
    "revised": "bool",
    "strength": "float64",
    "epsilon": "float64",
    "status": "string",
}
"""Column → type of what every revised row carries besides its own columns."""
_SAYS_WHO = {
    "identity", "identities", "subject", "subjects", "person", "persons", "people", "celeb",
    "celebrity", "name", "names", "surname", "firstname", "lastname", "fullname", "user",
    "username", "owner", "author", "photographer", "email", "mail", "phone", "address", "birth",
    "birthday", "dob", "ssn", "passport", "id", "ids", "uuid", "guid", "path", "paths", "file",
    "files", "filename", "filenames", "url", "urls", "uri", "link", "origin", "source", "exif",
    "iptc", "xmp", "metadata", "gps", "latitude", "longitude", "lat", "lon", "lng", "location",
    "datetime", "timestamp", "landmark", "landmarks", "keypoint", "keypoints", "bbox", "bboxes",
    "box", "boxes", "frame", "embedding", "embeddings", "descriptor", "descriptors", "encoding",
    "encodings", "feature", "features", "vector", "hash", "md5", "sha1", "sha256", "phash",
    "caption", "captions", "text", "description", "comment", "title",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+[0-9]*|[0-9]+")


@dataclass(frozen=True)
class ColumnPlan:
    """What becomes of each column.

    Attributes:
        dropped: Columns that do not enter the revised data set, in the order of the data.
        kept_though_identifying: Columns that look identifying and were kept by name.
        features: Columns of the revised data set, as `datasets` describes them.
    """

    dropped: tuple[str, ...]
    kept_though_identifying: tuple[str, ...]
    features: Features = field(repr=False)


def identifying_columns(
    features: Mapping[str, Any],
    *,
    image_column: str,
    subject_column: str,
    label_column: str | None = None,
) -> tuple[str, ...]:
    """Return the columns besides the subject's that may say who somebody is.

    By a word of the name (identity, origin, landmarks, file_name, …), or because they hold encoded
    media or arrays, which may be the original once more.
    """
    own = {image_column, subject_column, label_column}
    return tuple(
        name
        for name, feature in features.items()
        if name not in own and (_holds_media(feature) or not _SAYS_WHO.isdisjoint(_words(name)))
    )


def plan_columns(
    features: Mapping[str, Any],
    *,
    image_column: str,
    subject_column: str,
    label_column: str | None = None,
    drop: Sequence[str] | None = None,
) -> ColumnPlan:
    """Return what becomes of each column.

    Args:
        features: Columns of the data.
        image_column: Holds the photo.
        subject_column: Says who is shown; always dropped.
        label_column: What models learn, never taken for identifying.
        drop: Columns to drop; None if nobody was asked, which is refused where any should go.

    Raises:
        InvalidArgumentError: A column is missing, nobody confirmed what is to be dropped, or the
            data has a column that the revised data set adds.
    """
    _check_columns(features, subject_column, label_column, drop or ())
    found = identifying_columns(
        features,
        image_column=image_column,
        subject_column=subject_column,
        label_column=label_column,
    )
    if drop is None and found:
        raise InvalidArgumentError(
            f"`DATA` must have no identifying columns but the subject's, got {', '.join(found)}. "
            "Confirm with `--yes` that they are dropped, or name the columns to drop with "
            "`--drop-columns`."
        )
    media = [name for name in found if _holds_media(features[name])]
    wanted = {subject_column, *media, *(drop or ())}
    wanted -= {image_column}
    taken = [name for name in ADDED if name in features and name not in wanted]
    if taken:
        raise InvalidArgumentError(
            f"`DATA` must not have the column {taken[0]!r}, which a revised data set adds. "
            "Revise the original data, or name it in `--drop-columns`."
        )
    kept = {name: f for name, f in features.items() if name not in wanted}
    return ColumnPlan(
        tuple(name for name in features if name in wanted),
        tuple(name for name in found if name not in wanted),
        Features(
            {name: Image() if name == image_column else f for name, f in kept.items()}
            | {name: Value(kind) for name, kind in ADDED.items()}
        ),
    )


def _check_columns(
    features: Mapping[str, Any],
    subject_column: str,
    label_column: str | None,
    drop: Iterable[str],
) -> None:
    named = [("--subject-column", subject_column), *(("--drop-columns", name) for name in drop)]
    if label_column is not None:
        named.append(("--label-column", label_column))
    for argument, name in named:
        if name not in features:
            raise InvalidArgumentError(
                f"`{argument}` must name columns of `DATA`, got {name!r}; it has "
                f"{', '.join(features)}. Name one of them."
            )
    if label_column is not None and label_column in {subject_column, *drop}:
        raise InvalidArgumentError(
            f"`--label-column` must name a column that stays, got {label_column!r}, which is "
            "dropped. Name another."
        )


def _words(name: str) -> set[str]:
    """Return the words of `name`, with and without numbers at their end, in small letters."""
    words = {word.lower() for word in _WORD.findall(name)}
    return words | {word.rstrip("0123456789") for word in words}


def _holds_media(feature: Any) -> bool:
    """Return whether a column may hold pictures, sound or arrays of pixels."""
    if isinstance(feature, Mapping):
        return any(_holds_media(part) for part in feature.values())
    if isinstance(feature, list | tuple):
        return any(_holds_media(part) for part in feature)
    if isinstance(feature, Value):
        return "binary" in feature.dtype
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return _holds_media(inner)
    return type(feature).__name__ not in {"ClassLabel", "Translation"}
