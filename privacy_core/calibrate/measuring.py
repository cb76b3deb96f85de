"""Photos of held-out people → distances of their variants to the originals.

Knows an anonymizer, a recogniser and whose photos count; no anchor and no curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.anonymize import Anonymizer
from privacy_core.diffusion.prepare import identity_of, pixel_digest, split_of
from privacy_core.errors import FaceFailedError, InvalidArgumentError, NoFaceError, PhotoError
from privacy_core.faces.detect import FaceDetector, find_again
from privacy_core.faces.photo import read_photo
from privacy_core.noise import NoiseKey
from privacy_core.recognition import Recogniser, embed_all
from privacy_core.records import Arrays, Records, joined
from privacy_core.schema import Photo

CALIBRATION_SPLIT = (70, 79)
_CHUNK = 16
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measurement:
    """Distances of variants to their originals for one recogniser, on one grid of strengths.

    Attributes:
        recogniser: Its name.
        strengths: (r,) grid.
        distances: (r, n, k) distance of each variant to its original, k draws of noise per photo.
        detected: (r, n, k) whether the detector still finds a face there.
        originals: (n, d) embeddings of the originals.
        people: (n,) who is shown; -1 where unknown.
        no_face: Photos left out because no face was detected in the original, too many were, or
            one could not be anonymized.
    """

    recogniser: str
    strengths: NDArray[np.float64]
    distances: NDArray[np.float64]
    detected: NDArray[np.bool_]
    originals: NDArray[np.float64]
    people: NDArray[np.int64]
    no_face: int


@dataclass(frozen=True)
class CalibrationSet:
    """Photos of people a model was not fitted to, and what looks at them.

    Attributes:
        photos: What is measured.
        people: Who is shown on each, -1 where unknown.
        detector: The product's detector, for the originals.
        finder: Says whether a variant still shows a face.
        recognisers: The first one sets the anchors; what the others find is kept beside it.
        records: Where measured photos are kept, so that an interrupted run goes on and processes
            share them.
        report: Progress.
    """

    photos: Sequence[Photo] = field(repr=False)
    people: Sequence[int] = field(repr=False)
    detector: FaceDetector
    finder: FaceDetector
    recognisers: Sequence[Recogniser]
    records: Records
    report: Report

    def in_chunks(self, stage: str, make: Callable[[slice], Arrays]) -> list[Arrays]:
        """Return what is made of every few photos, shared out among processes and kept.

        Args:
            stage: Names the chunks, and the progress.
            make: Slice of the photos → arrays.
        """
        n = len(self.photos)
        parts = [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]
        return self.records.made_together(
            [f"{stage} {part.start:06}" for part in parts],
            lambda place: make(parts[place]),
            report=lambda done: self.report(stage, min(done * _CHUNK, n), n),
        )


def measure_variants(
    anonymizer: Anonymizer,
    chosen: CalibrationSet,
    *,
    strengths: Sequence[float],
    keys: Sequence[Sequence[NoiseKey]],
) -> tuple[Measurement, ...]:
    """Anonymize each photo at each strength and embed original and variants.

    The largest face counts. A variant in which no face is found any more is aligned by the
    landmarks of the original, so that a broken picture does not pass for privacy.

    Args:
        anonymizer: Finds and makes faces.
        chosen: What is measured.
        strengths: Ascending.
        keys: Of each photo, one for each draw of its noise.

    Returns:
        What each recogniser found, in their order.

    Raises:
        InvalidArgumentError: No photo has a face.
    """

    def observe(part: slice) -> Arrays:
        rows = zip(chosen.photos[part], chosen.people[part], keys[part], strict=True)
        return _observed(anonymizer, chosen, rows, strengths)

    parts = chosen.in_chunks("measured photos", observe)
    return _measurements(parts, [one.name for one in chosen.recognisers], strengths)


def held_out(
    rows: Iterable[Mapping[str, Any]], *, image_column: str = "image"
) -> tuple[list[Photo], list[int]]:
    """Return the readable photos of the calibration split (design §4) and a number per person.

    Args:
        rows: With encoded images and, where known, `identity`.
        image_column: Where the images are.

    Returns:
        Photos, and who is shown on each: 0, 1, … or -1 where unknown.
    """
    photos: list[Photo] = []
    numbers: list[int] = []
    people: dict[str, int] = {}
    for row in rows:
        identity = identity_of(row)
        if identity and not _in_split(split_of(identity, "")):
            continue
        try:
            photo = read_photo(row[image_column] or b"")
        except PhotoError:
            continue
        if not identity and not _in_split(split_of(None, pixel_digest(photo.pixels))):
            continue
        photos.append(photo)
        numbers.append(people.setdefault(identity, len(people)) if identity else -1)
    return photos, numbers


def spread(photos: Sequence[Photo], people: Sequence[int], n: int) -> tuple[list[Photo], list[int]]:
    """Return at most `n` photos, evenly spaced, of known people only where there are enough.

    A picture of nobody known may show a person whose other pictures were fitted.
    """
    known = [i for i, person in enumerate(people) if person >= 0]
    index = known if len(known) >= n else list(range(len(photos)))
    chosen = [index[int(i)] for i in np.linspace(0, len(index) - 1, min(n, len(index)))]
    return [photos[i] for i in chosen], [people[i] for i in chosen]


def _observed(
    anonymizer: Anonymizer,
    chosen: CalibrationSet,
    rows: Iterable[tuple[Photo, int, Sequence[NoiseKey]]],
    strengths: Sequence[float],
) -> Arrays:
    """Return what `Measurement`s hold, photo by photo; of those left out only how many."""
    found: dict[str, list[Any]] = {}
    no_face = 0
    for photo, person, keys in rows:
        try:
            opened = anonymizer.open(photo, key=keys[0])
            draws = [replace(opened, key=key).ladder(strengths) for key in keys]
        except (NoFaceError, FaceFailedError, PhotoError):
            no_face += 1
            continue
        landmarks = opened.faces[0].landmarks
        seen = [
            [find_again(chosen.finder, variant.image, landmarks) for variant in ladder]
            for ladder in draws
        ]
        where = [[landmarks if marks is None else marks for marks in row] for row in seen]
        one = {"people": person, "detected": [[s is not None for s in row] for row in seen]}
        for place, recogniser in enumerate(chosen.recognisers):
            original = recogniser.embed(photo.pixels, landmarks)
            one[f"originals {place}"] = original
            one[f"distances {place}"] = [
                np.linalg.norm(
                    embed_all(recogniser, [v.image for v in ladder], row) - original, axis=1
                )
                for ladder, row in zip(draws, where, strict=True)
            ]
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return {"no_face": np.array([no_face]), **{n: np.array(v) for n, v in found.items()}}


def _measurements(
    parts: Sequence[Arrays], recognisers: Sequence[str], strengths: Sequence[float]
) -> tuple[Measurement, ...]:
    found = joined([part for part in parts if "people" in part])
    no_face = sum(int(part["no_face"][0]) for part in parts)
    if not found:
        raise InvalidArgumentError(
            f"`DATA` must hold photos in which a face is detected, got {no_face} without. "
            "Use upright, mostly frontal portraits."
        )
    return tuple(
        Measurement(
            name,
            np.asarray(strengths, dtype=np.float64),
            found[f"distances {place}"].transpose(2, 0, 1),
            found["detected"].transpose(2, 0, 1),
            found[f"originals {place}"],
            found["people"],
            no_face,
        )
        for place, name in enumerate(recognisers)
    )


def _in_split(split: int) -> bool:
    return CALIBRATION_SPLIT[0] <= split <= CALIBRATION_SPLIT[1]
