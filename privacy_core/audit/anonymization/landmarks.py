"""Landmarks of an aligned face: how far they moved, how open the mouth is, how turned the head.

Knows a template frame and points; not where they come from.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import dlib
import numpy as np
from numpy.typing import NDArray

from privacy_core.faces.detect import CANONICAL_BOX, dlib_model
from privacy_core.records import Arrays
from privacy_core.schema import RGB

ZOOM = 2
"""Frame pixels per template pixel that `FacePoints` reads."""
_LEFT_EYE, _RIGHT_EYE, _NOSE, _MOUTH = slice(36, 42), slice(42, 48), slice(27, 36), slice(48, 68)
_UPPER_LIP, _LOWER_LIP, _NOSE_TIP = 62, 66, 30


class FacePoints:
    """dlib's 68 landmarks of an aligned face; they add the mouth, which the five points lack."""

    @cached_property
    def _predictor(self) -> Any:
        return dlib.shape_predictor(dlib_model("shape_predictor_68_face_landmarks.dat"))

    def find(self, frame: RGB) -> NDArray[np.float64]:
        """Return (68, 2) points in template pixels of a (256, 256, 3) frame."""
        box = dlib.rectangle(*(round(ZOOM * edge) for edge in CANONICAL_BOX))
        shape = self._predictor(np.ascontiguousarray(frame), box)
        points = [(shape.part(i).x, shape.part(i).y) for i in range(shape.num_parts)]
        return np.array(points, np.float64) / ZOOM


def _eye_distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    apart = points[:, _LEFT_EYE].mean(1) - points[:, _RIGHT_EYE].mean(1)
    return np.asarray(np.linalg.norm(apart, axis=1))


def landmark_errors(now: NDArray[np.float64], before: NDArray[np.float64]) -> Arrays:
    """Return mean distances of landmarks, as shares of the original's eye distance."""
    apart = np.linalg.norm(now - before, axis=2) / _eye_distance(before)[:, None]
    eyes = np.concatenate([apart[:, _LEFT_EYE], apart[:, _RIGHT_EYE]], 1)
    return {
        "error_eyes": eyes.mean(1),
        "error_nose": apart[:, _NOSE].mean(1),
        "error_mouth": apart[:, _MOUTH].mean(1),
    }


def expression_of(points: NDArray[np.float64]) -> Arrays:
    """Return how far the mouth is open and how far the head is turned, in eye distances."""
    eyes = (points[:, _LEFT_EYE].mean(1) + points[:, _RIGHT_EYE].mean(1)) / 2
    gap = points[:, _LOWER_LIP] - points[:, _UPPER_LIP]
    scale = _eye_distance(points)
    return {
        "mouth_gap": gap[:, 1] / scale,
        "turn": (points[:, _NOSE_TIP, 0] - eyes[:, 0]) / scale,
    }
