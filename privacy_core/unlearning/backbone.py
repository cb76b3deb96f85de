"""The public backbone that works offline: dlib's face descriptor of a picture's largest face.

Frozen; never trained here. Knows pictures, not labels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from privacy_core.faces import FaceDetector
from privacy_core.recognition import CHIP, DlibRecogniser, face_chip
from privacy_core.schema import RGB
from privacy_core.unlearning.head import Matrix


class DlibBackbone:
    """dlib's 128-d descriptor of the largest face, or of the whole picture where none is found.

    The descriptor may have been trained on the people of public data sets: say so beside any
    figure.
    """

    n_features = 128

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self.detector = detector
        self.name = "dlib-resnet-v1" + ("" if detector is None else f"+{detector.name}")

    def features(self, images: RGB) -> Matrix:
        """Return (n, 128) descriptors of (n, h, w, 3) pictures."""
        chips = (self._chip(np.ascontiguousarray(image)) for image in images)
        return DlibRecogniser().embed_chips(chips)

    def _chip(self, image: RGB) -> RGB:
        faces = [] if self.detector is None else self.detector.detect(image)
        if faces:
            largest = max(faces, key=lambda face: face.box[2] - face.box[0])
            return face_chip(image, largest.landmarks)
        whole = Image.fromarray(image).resize((CHIP, CHIP), Image.Resampling.BILINEAR)
        return np.asarray(whole)
