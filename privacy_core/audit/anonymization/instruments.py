"""What measures faces: detectors, recogniser, landmarks, code and attribute predictors, together.

Knows no photo and no setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from privacy_core.attributes import AttributePredictor
from privacy_core.audit.anonymization.landmarks import FacePoints
from privacy_core.diffusion.code import LinearCode
from privacy_core.faces import FaceDetector
from privacy_core.recognition import Recogniser
from privacy_core.schema import RGB, Face


class QuickFirst:
    """A detector that asks a quick one first and the thorough one only where that finds nothing.

    Args:
        quick: Asked first.
        thorough: Asked where the quick one finds nothing.
    """

    def __init__(self, quick: FaceDetector, thorough: FaceDetector) -> None:
        self.name = f"{quick.name} then {thorough.name}"
        self._quick, self._thorough = quick, thorough

    def detect(self, pixels: RGB) -> list[Face]:
        """Return the faces of a (height, width, 3) photo, the largest first."""
        return self._quick.detect(pixels) or self._thorough.detect(pixels)


@dataclass(frozen=True)
class Instruments:
    """What measures.

    Attributes:
        detector: The product's detector, for the originals.
        finder: Says whether a variant still shows a face.
        recogniser: Its embedding is the first recogniser's.
        points: 68 landmarks.
        code: Reads the pixels inside M, of any variant.
        predictors: Name → attribute predictor.
    """

    detector: FaceDetector
    finder: FaceDetector
    recogniser: Recogniser
    points: FacePoints
    code: LinearCode = field(repr=False)
    predictors: Mapping[str, AttributePredictor] = field(default_factory=dict)
