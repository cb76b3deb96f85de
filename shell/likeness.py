"""How far a picture still is from the original, for a face recogniser; knows no web page.

For the eyes of the photo's owner, after a tick of their own: measured, shown, and kept nowhere.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from html import escape

from privacy_core.anonymize import OpenPhoto
from privacy_core.recognition import Recogniser
from privacy_core.schema import StrengthCurve, Variant
from shell.languages import ENGLISH, Speaker, message

MEASURE = message("Measure how far this is from my original")
MEASURE_INFO = message(
    "A face recogniser compares the two here and now; nothing of it is kept. A strength chosen by "
    "it is outside ε."
)
_STILL = message(
    "The recogniser still takes this for the same person: a distance of {distance:.2f}, where up "
    "to {threshold:.2f} counts as the same."
)
_NO_LONGER = message(
    "The recogniser no longer takes this for the same person: a distance of {distance:.2f}, where "
    "up to {threshold:.2f} counts as the same."
)
_GO_ON = message("The nearer the strength is to 1, the less of the face is left.")
_NEAREST = message("Of {n} faces this is the nearest.")
_ONE_OPINION = message("Others, above all one trained against this model, may do better.")
_NOTHING = message("There is no anonymized face to measure.")
_LABEL = message("Distance from the original")
_FARTHEST = 1.2
"""The end of the bar; dlib's descriptors of strangers lie 0.8 apart or so."""


@dataclass(frozen=True)
class Likeness:
    """What a recogniser finds.

    Attributes:
        distance: Of the nearest face from its original.
        threshold: Up to here it counts as the same person.
        n_faces: Faces measured.
    """

    distance: float
    threshold: float
    n_faces: int


class LikenessMeter:
    """Measures with one recogniser, one picture at a time: dlib's network is not safe in threads.

    Args:
        recogniser: Measures distances.
        threshold: Up to here two faces count as the same person.
    """

    def __init__(self, recogniser: Recogniser, *, threshold: float) -> None:
        self._recogniser, self._threshold = recogniser, threshold
        self._lock = threading.Lock()

    def look(self, opened: OpenPhoto, variant: Variant) -> Likeness | None:
        """Return what is found for the nearest face; None where every face is covered or left."""
        faces = [
            face
            for number, face in enumerate(opened.faces, 1)
            if number not in variant.covered and number not in variant.left
        ]
        if not faces:
            return None
        embed = self._recogniser.embed
        with self._lock:
            nearest = min(
                self._recogniser.distance(
                    embed(opened.photo.pixels, face.landmarks), embed(variant.image, face.landmarks)
                )
                for face in faces
            )
        return Likeness(nearest, self._threshold, len(faces))


def find_meter(recogniser: Recogniser, curve: StrengthCurve | None) -> LikenessMeter | None:
    """Return a meter with the calibration's threshold; None where that is another recogniser's."""
    threshold = None if curve is None else curve.measured.get("threshold")
    if curve is None or not isinstance(threshold, float):
        return None
    if curve.measured.get("recogniser") != recogniser.name:
        return None
    return LikenessMeter(recogniser, threshold=threshold)


def likeness_html(found: Likeness | None, *, say: Speaker = ENGLISH) -> str:
    """Return a bar, red up to the threshold, and the same in words."""
    if found is None:
        return f"<p>{escape(say(_NOTHING))}</p>"
    is_same = found.distance <= found.threshold
    words = say(
        _STILL if is_same else _NO_LONGER, distance=found.distance, threshold=found.threshold
    )
    more = [say(_NEAREST, n=found.n_faces)] if found.n_faces > 1 else []
    sentence = escape(" ".join([words, *more, say(_GO_ON if is_same else _ONE_OPINION)]))
    return (
        f'<meter min="0" max="{_FARTHEST}" low="{found.threshold:.3f}" '
        f'high="{found.threshold:.3f}" optimum="{_FARTHEST}" '
        f'value="{min(found.distance, _FARTHEST):.3f}" aria-label="{escape(say(_LABEL))}">'
        f"</meter><p>{sentence}</p>"
    )
