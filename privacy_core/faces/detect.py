"""Photo → faces: detectors behind one Protocol, and landmarks that do not depend on which.

Knows nothing of strength, models or files other than dlib's own.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from privacy_core.errors import ModelError
from privacy_core.faces.align import TEMPLATE, fit_alignment, warp_to_template, window_of
from privacy_core.schema import RGB, Face

CANONICAL_BOX = (11.0, 22.0, 115.0, 126.0)
"""dlib's detection box in the template: its median over 1 450 shared development faces."""
_REFINE_ZOOM = 2
_HOG_WINDOW = 80
_CNN_FIELD = 96
SAME_FACE = 1 / 3
"""Overlap above which two boxes show one face."""
_CLOSE_UP = 2.0
_CLOSE_UP_FACE = 100
_CONFIRMED = 0.45

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in photo pixels, right and bottom exclusive."""


class FaceDetector(Protocol):
    """Finds every face in a photo."""

    name: str

    def detect(self, pixels: RGB) -> list[Face]:
        """Return the faces of a (height, width, 3) photo, the largest first."""
        ...


def dlib_model(file_name: str) -> str:
    """Return the path of one of dlib's weight files, installed as `face_recognition_models`.

    Raises:
        ModelError: The package or the file is missing.
    """
    # The package itself is not imported: it needs `pkg_resources`, which newer setuptools lack.
    spec = importlib.util.find_spec("face_recognition_models")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / "models" / file_name
        if path.is_file():
            return str(path)
    raise ModelError(
        f"The face weights {file_name!r} are missing. "
        "Install them with `pip install face_recognition_models==0.3.0`."
    )


class Landmarks:
    """dlib's five-point predictor, refined in the template frame.

    The first prediction from a detector's box aligns the face; the second runs on the aligned
    face in the canonical box, so that the result depends little on the detector and its box.
    """

    @cached_property
    def _predictor(self) -> Any:
        return dlib.shape_predictor(dlib_model("shape_predictor_5_face_landmarks.dat"))

    def find(self, pixels: RGB, box: tuple[float, float, float, float]) -> NDArray[np.float64]:
        """Return the (5, 2) landmarks of the face in `box`, in photo pixels."""
        first = fit_alignment(self._predict(pixels, box))
        frame = warp_to_template(pixels, first, zoom=_REFINE_ZOOM)
        canonical = tuple(_REFINE_ZOOM * edge for edge in CANONICAL_BOX)
        second = self._predict(frame, (canonical[0], canonical[1], canonical[2], canonical[3]))
        return first.to_photo((second - (_REFINE_ZOOM - 1) / 2) / _REFINE_ZOOM)

    def _predict(self, pixels: RGB, box: tuple[float, float, float, float]) -> NDArray[np.float64]:
        left, top, right, bottom = (round(edge) for edge in box)
        shape = self._predictor(pixels, dlib.rectangle(left, top, right, bottom))
        points = [(shape.part(i).x, shape.part(i).y) for i in range(len(TEMPLATE))]
        return np.array(points, dtype=np.float64)


class HogDetector:
    """dlib's frontal HOG detector.

    Args:
        longest_side: Photos are searched at most at this size, in pixels.
        smallest_face: Faces down to about this many pixels of the searched photo are looked for;
            the detector's own window is 80 pixels, so smaller faces need an enlarged photo.
        threshold: Smallest accepted score.
    """

    name = "dlib-hog"

    def __init__(
        self, *, longest_side: int = 1024, smallest_face: int = 40, threshold: float = 0.0
    ) -> None:
        self.longest_side = longest_side
        self.smallest_face = smallest_face
        self.threshold = threshold
        self._landmarks = Landmarks()

    @cached_property
    def _detector(self) -> Any:
        return dlib.get_frontal_face_detector()

    def detect(self, pixels: RGB) -> list[Face]:
        """Return the faces of a (height, width, 3) photo, the largest first."""
        enlarge = _HOG_WINDOW / self.smallest_face
        zoom = min(enlarge, enlarge * self.longest_side / max(pixels.shape[:2]))
        found, scores, _ = self._detector.run(_resized(pixels, zoom), 0, self.threshold)
        boxes = [_box(rectangle, zoom) for rectangle in found]
        return _faces(pixels, boxes, list(scores), self._landmarks, self.name)


class CnnDetector:
    """dlib's convolutional detector (max-margin object detection, King 2015).

    Surer than HOG on turned and partly hidden faces, far slower, and blind to faces below about
    50 pixels of the searched photo.

    Args:
        longest_side: Photos are searched at this size or below, in pixels; the time grows with
            its square.
        threshold: Smallest accepted score.
    """

    name = "dlib-cnn"

    def __init__(self, *, longest_side: int = 512, threshold: float = 0.0) -> None:
        self.longest_side = longest_side
        self.threshold = threshold
        self._landmarks = Landmarks()

    @cached_property
    def _detector(self) -> Any:
        return dlib.cnn_face_detection_model_v1(dlib_model("mmod_human_face_detector.dat"))

    def detect(self, pixels: RGB) -> list[Face]:
        """Return the faces of a (height, width, 3) photo, the largest first."""
        zoom = min(1.0, self.longest_side / max(pixels.shape[:2]))
        found = self._search(pixels, zoom)
        boxes, scores = [box for box, _ in found], [score for _, score in found]
        return _faces(pixels, boxes, scores, self._landmarks, self.name)

    def confirms(self, pixels: RGB, face: Face) -> bool:
        """Look at one face of a photo closely and say whether it is one."""
        left, top, right, bottom = face.box
        half = _CLOSE_UP * (right - left) / 2
        centre = ((left + right) / 2, (top + bottom) / 2)
        corner = (round(centre[0] - half), round(centre[1] - half))
        around = window_of(pixels, *corner, round(centre[0] + half), round(centre[1] + half))
        zoom = _CLOSE_UP_FACE / (right - left)
        there = (left - corner[0], top - corner[1], right - corner[0], bottom - corner[1])
        return any(overlap(box, there) > _CONFIRMED for box, _ in self._search(around, zoom))

    def _search(self, pixels: RGB, zoom: float) -> list[tuple[Box, float]]:
        searched = _resized(pixels, zoom)
        # The network fails on pictures smaller than its own field of view.
        missing = [(0, max(0, _CNN_FIELD - side)) for side in searched.shape[:2]]
        found = self._detector(np.pad(searched, [*missing, (0, 0)]), 0)
        return [
            (_box(one.rect, zoom), float(one.confidence))
            for one in found
            if one.confidence >= self.threshold
        ]


def width(face: Face) -> float:
    """Return the width of the detector's box in photo pixels."""
    return face.box[2] - face.box[0]


def find_again(
    detector: FaceDetector, pixels: RGB, landmarks: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the landmarks of the face that stands where one stood in the original.

    Args:
        detector: Looks at the picture.
        pixels: (height, width, 3) variant or copy of the original photo.
        landmarks: (5, 2) of the original's face.

    Returns:
        (5, 2) landmarks of the largest face whose box holds the middle of `landmarks`; None where
        there is none.
    """
    x, y = landmarks.mean(0)
    for face in detector.detect(pixels):
        left, top, right, bottom = face.box
        if left <= x <= right and top <= y <= bottom:
            return face.landmarks
    return None


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union, in [0, 1]."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return across * down / (areas - across * down)


def _faces(
    pixels: RGB, boxes: list[Box], scores: list[float], landmarks: Landmarks, name: str
) -> list[Face]:
    faces = [
        Face(box, landmarks.find(pixels, box), float(score), name)
        for box, score in zip(boxes, scores, strict=True)
    ]
    return sorted(faces, key=width, reverse=True)


def _resized(pixels: RGB, zoom: float) -> RGB:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _box(rectangle: Any, zoom: float) -> Box:
    """Return dlib's rectangle, whose last row and column belong to it, in photo pixels."""
    left, top = rectangle.left() / zoom, rectangle.top() / zoom
    return left, top, (rectangle.right() + 1) / zoom, (rectangle.bottom() + 1) / zoom
