"""The public backbone that works offline: dlib's face descriptor of a picture's largest face.

Frozen; never trained here. Knows pictures, not labels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import dlib
import numpy as np
from PIL import Image

from privacy_core.faces import FaceDetector
from privacy_core.faces.detect import dlib_model
from privacy_core.recognition import DlibRecogniser
from privacy_core.schema import RGB
from privacy_core.unlearning.head import Matrix

_CHIP = 150


class DlibBackbone:
    """dlib's 128-d descriptor of the largest face, or of the whole picture where none is found.

    The descriptor may have been trained on the people of public data sets: say so beside any
    figure.
    """

    n_features = 128

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self.detector = detector
        self.name = "dlib-resnet-v1" + ("" if detector is None else f"+{detector.name}")

    @cached_property
    def _recogniser(self) -> DlibRecogniser:
        return DlibRecogniser()

    @cached_property
    def _network(self) -> Any:
        return dlib.face_recognition_model_v1(
            dlib_model("dlib_face_recognition_resnet_model_v1.dat")
        )

    def features(self, images: RGB) -> Matrix:
        """Return (n, 128) descriptors of (n, h, w, 3) pictures."""
        return np.stack([self._one(np.ascontiguousarray(image)) for image in images])

    def _one(self, image: RGB) -> Matrix:
        faces = [] if self.detector is None else self.detector.detect(image)
        if faces:
            largest = max(faces, key=lambda face: face.box[2] - face.box[0])
            return self._recogniser.embed(image, largest.landmarks)
        chip = Image.fromarray(image).resize((_CHIP, _CHIP), Image.Resampling.BILINEAR)
        return np.array(self._network.compute_face_descriptor(np.asarray(chip)))
