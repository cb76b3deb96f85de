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


@dataclass(frozen=True)
class Instruments:
    """What measures.

    Attributes:
        detector: The product's detector, for the originals.
        finder: Says whether a variant still shows a face.
        recogniser: Its embedding is the first recogniser's.
        second: Another recogniser's, for what the first alone might miss; None without one.
        points: 68 landmarks.
        code: Reads the pixels inside M, of any variant.
        predictors: Name → attribute predictor.
        kept: The model's own predictor, whose word on a kept attribute is noised with the code.
    """

    detector: FaceDetector
    finder: FaceDetector
    recogniser: Recogniser
    points: FacePoints
    code: LinearCode = field(repr=False)
    second: Recogniser | None = None
    predictors: Mapping[str, AttributePredictor] = field(default_factory=dict)
    kept: AttributePredictor | None = field(default=None, repr=False)
