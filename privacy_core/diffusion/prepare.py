"""DATA → aligned faces on disk: the first stage of `fit-model`.

Finds the one face each picture is about, aligns it as the product does, and keeps labels, split
and the photographed area. Knows rows and detectors; not codes or training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.diffusion.fit_code import AlignedFaces
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces.align import MASK_CENTRE, SIZE, Alignment, fit_alignment, warp_to_template
from privacy_core.faces.detect import FaceDetector
from privacy_core.faces.photo import read_photo
from privacy_core.schema import ATTRIBUTES, RGB, Face
from privacy_core.wholefile import whole_file

CELEBA_ATTRIBUTES = {"mouth_open": 21, "smiling": 31, "eyeglasses": 15, "no_beard": 24}
"""Places of the used labels among CelebA's 40 attributes."""
_N_CELEBA = 40
_UNKNOWN = -1


@dataclass(frozen=True)
class PreparedFaces:
    """Aligned faces with the split each belongs to.

    Attributes:
        faces: The faces, memory-mapped.
        split: (n,) int64 in [0, 99], the same for all pictures of a person.
        source: (n,) names of the sources, "" where DATA has none.
        counts: Rows read, without a face, unreadable, and exact duplicates left out.
    """

    faces: AlignedFaces
    split: NDArray[np.int64]
    source: NDArray[np.str_]
    counts: Mapping[str, int]

    def between(self, low: int, high: int) -> NDArray[np.int64]:
        """Return the indices of faces whose split is in [low, high]."""
        return np.flatnonzero((self.split >= low) & (self.split <= high))


def pixel_digest(pixels: RGB) -> str:
    """Return the SHA-256 of the pixels, in hex; the identity of a picture of nobody known."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def split_of(identity: str | None, digest: str) -> int:
    """Return the split in [0, 99] of a person, or of a picture without one, by SHA-256."""
    return int(hashlib.sha256((identity or digest).encode()).hexdigest(), 16) % 100


def identity_of(row: Mapping[str, Any]) -> str | None:
    """Return who a row says it shows, as text; None where that is missing or empty."""
    identity = row.get("identity")
    return None if identity is None or identity == "" else str(identity)


def prepare_faces(
    rows: Iterable[Mapping[str, Any]],
    n_rows: int,
    folder: Path,
    *,
    detector: FaceDetector,
    report: Callable[[str, int, int], None],
    margin: float = 0.0,
) -> PreparedFaces:
    """Align every row's face into `folder`; an earlier complete result there is used as it is.

    Args:
        rows: With `image` (encoded bytes) and, where known, `identity`, `source`, `frame` (four
            corners of the photographed area in picture pixels), attribute columns, or
            `attributes` (CelebA's 40).
        n_rows: Number of rows.
        folder: For `frames.npy`, `faces.npz` and `counts.json`.
        detector: The product's detector.
        report: Progress.
        margin: Template pixels to show around the template, for codes of the whole head.

    Raises:
        InvalidArgumentError: No row has a face.
    """
    if not (folder / "counts.json").is_file():
        _align_rows(rows, n_rows, folder, detector, report, margin)
    table = np.load(folder / "faces.npz")
    frames = np.load(folder / "frames.npy", mmap_mode="r")[: len(table["split"])]
    faces = AlignedFaces(
        frames, table["quads"], table["identity"], table["attributes"], table["mouth_open"]
    )
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    return PreparedFaces(faces, table["split"], table["source"], counts)


def _align_rows(
    rows: Iterable[Mapping[str, Any]],
    n_rows: int,
    folder: Path,
    detector: FaceDetector,
    report: Callable[[str, int, int], None],
    margin: float,
) -> None:
    frames = np.lib.format.open_memmap(
        folder / "frames.npy", "w+", np.uint8, (n_rows, SIZE, SIZE, 3)
    )
    counts = {"rows": 0, "unreadable": 0, "no_face": 0, "duplicates": 0}
    people: dict[str, int] = {}
    seen: set[str] = set()
    columns: dict[str, list[Any]] = {
        name: [] for name in ("split", "source", "identity", "quads", "attributes", "mouth_open")
    }
    for row in rows:
        counts["rows"] += 1
        report("aligned faces", counts["rows"], n_rows)
        try:
            pixels = read_photo(row["image"] or b"").pixels
        except PhotoError:
            counts["unreadable"] += 1
            continue
        digest = pixel_digest(pixels)
        if digest in seen:
            counts["duplicates"] += 1
            continue
        seen.add(digest)
        alignment = _central_face(detector.detect(pixels), pixels)
        if alignment is None:
            counts["no_face"] += 1
            continue
        alignment = widened(alignment, margin)
        frames[len(columns["split"])] = warp_to_template(pixels, alignment)
        identity = identity_of(row)
        columns["split"].append(split_of(identity, digest))
        columns["source"].append(row.get("source") or "")
        number = people.setdefault(identity, len(people)) if identity else _UNKNOWN
        columns["identity"].append(number)
        columns["quads"].append(_quad(row, pixels, alignment))
        labels = _labels(row)
        columns["attributes"].append([labels[name] for name in ATTRIBUTES])
        columns["mouth_open"].append(labels["mouth_open"])
    if not columns["split"]:
        raise InvalidArgumentError(
            f"`DATA` must hold pictures with faces that can be detected, got {counts}. "
            "Use upright, mostly frontal portraits."
        )
    frames.flush()
    arrays: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    np.savez(folder / "faces.npz", **arrays)
    # Written last and whole: it says that the other two files are complete.
    with whole_file(folder / "counts.json") as draft:
        draft.write_text(json.dumps(counts) + "\n", encoding="utf-8")


def widened(alignment: Alignment, margin: float) -> Alignment:
    """Return the alignment whose 128 px frame shows `margin` template pixels more on each side."""
    zoom = (SIZE + 2 * margin) / SIZE
    shift = (zoom - 1) / 2 - margin
    matrix = alignment.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ np.full(2, shift)
    matrix[:, :2] *= zoom
    return Alignment(matrix)


def _central_face(faces: list[Face], pixels: RGB) -> Alignment | None:
    """Return the alignment of the face nearest to the middle, if it is near; else None."""
    middle = np.array([pixels.shape[1] / 2, pixels.shape[0] / 2])
    best: tuple[float, Alignment | None] = (0.15 * float(max(pixels.shape)), None)
    for face in faces:
        alignment = fit_alignment(face.landmarks)
        offset = alignment.to_photo(np.array([MASK_CENTRE]))[0] - middle
        distance = float(np.hypot(*offset))
        if distance < best[0]:
            best = (distance, alignment)
    return best[1]


def _quad(row: Mapping[str, Any], pixels: RGB, alignment: Alignment) -> NDArray[np.float32]:
    height, width = pixels.shape[:2]
    corners = row.get("frame")
    if corners is None:
        corners = (0, 0, width - 1, 0, width - 1, height - 1, 0, height - 1)
    points = np.asarray(corners, dtype=np.float64).reshape(4, 2)
    return alignment.to_template(points).astype(np.float32)


def _labels(row: Mapping[str, Any]) -> dict[str, int]:
    """Return 0, 1 or -1 per attribute and for an open mouth."""
    labels = dict.fromkeys((*ATTRIBUTES, "mouth_open"), _UNKNOWN)
    listed = row.get("attributes")
    if listed is not None and len(listed) == _N_CELEBA:
        for name, place in CELEBA_ATTRIBUTES.items():
            labels[name] = int(listed[place] > 0)  # CelebA's own files say -1 for no
        labels["beard"] = 1 - labels.pop("no_beard")
    for name, values in ATTRIBUTES.items():
        if row.get(name) in values:
            labels[name] = values.index(row[name])
    return labels
