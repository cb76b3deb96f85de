"""The detector the product uses, made of dlib's two, and the table of detectors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import mask_radius
from privacy_core.faces.detect import (
    SAME_FACE,
    CnnDetector,
    FaceDetector,
    HogDetector,
    overlap,
    width,
)
from privacy_core.faces.support import checked_alignment
from privacy_core.schema import RGB, Face

DEFAULT_DETECTOR = "dlib"


class CascadeDetector:
    """Cheap detectors propose, a slow one judges what they doubt or miss.

    Args:
        proposers: Their faces are pooled; of two boxes of one face the surer stays, so their
            scores must be comparable.
        judge: Looks closely at each doubtful proposal, and at the whole photo if no face remains.
        sure: Score from which a proposal needs no judge.
        most_doubts: Doubtful proposals judged at most, the surest first; the rest count as
            faces, since a face that is missed is worse than one too many.
    """

    name = DEFAULT_DETECTOR

    def __init__(
        self,
        proposers: Sequence[FaceDetector],
        judge: CnnDetector,
        *,
        sure: float = 0.3,
        most_doubts: int = 8,
    ) -> None:
        self.proposers = proposers
        self.judge = judge
        self.sure = sure
        self.most_doubts = most_doubts

    def detect(self, pixels: RGB) -> list[Face]:
        """Return the faces of a (height, width, 3) photo, the largest first."""
        proposals = [face for proposer in self.proposers for face in proposer.detect(pixels)]
        proposals.sort(key=lambda face: face.score, reverse=True)
        proposals = without_repetition(proposals)
        found = [face for face in proposals if face.score >= self.sure]
        doubts = proposals[len(found) : len(found) + self.most_doubts]
        unjudged = proposals[len(found) + len(doubts) :]
        found += [face for face in doubts if self.judge.confirms(pixels, face)]
        found += unjudged
        return without_hidden(found or self.judge.detect(pixels))


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


def finder_of_one(thorough: FaceDetector) -> FaceDetector:
    """Return what says whether a picture still shows its one large face, ten times faster."""
    return QuickFirst(HogDetector(longest_side=256, smallest_face=80, threshold=-0.3), thorough)


def default_detector() -> FaceDetector:
    """Return the best trade of `benchmarks/detectors.py`.

    HOG searches twice, for faces from 80 pixels and from 27, with thresholds far below dlib's
    own; its convolutional network judges what scores low.
    """
    proposers = [
        HogDetector(longest_side=720, smallest_face=80, threshold=-0.6),
        HogDetector(longest_side=720, smallest_face=27, threshold=-0.3),
    ]
    return CascadeDetector(proposers, CnnDetector())


DETECTORS: Mapping[str, Callable[[], FaceDetector]] = MappingProxyType(
    {
        DEFAULT_DETECTOR: default_detector,
        HogDetector.name: HogDetector,
        CnnDetector.name: CnnDetector,
    }
)
"""Name → how to build it."""


def detector(name: str = DEFAULT_DETECTOR) -> FaceDetector:
    """Return a detector by name; its weights are loaded at the first photo.

    Raises:
        InvalidArgumentError: There is no detector of that name.
    """
    if name not in DETECTORS:
        raise InvalidArgumentError(
            f"Unknown `detector` {name!r}. Choose one of: {', '.join(DETECTORS)}."
        )
    return DETECTORS[name]()


def without_repetition(faces: Sequence[Face]) -> list[Face]:
    """Keep the first of several boxes that show one face."""
    kept: list[Face] = []
    for face in faces:
        if all(overlap(face.box, other.box) <= SAME_FACE for other in kept):
            kept.append(face)
    return kept


def without_hidden(faces: Sequence[Face]) -> list[Face]:
    """Return faces, the largest first, less those whose box lies in the mask M of a larger one.

    Their pixels are replaced with that face, so that nothing of them is left to anonymize; each
    face that is returned counts those in it. A face whose landmarks cannot be trusted has no M and
    hides none.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=width, reverse=True):
        around = [i for i, larger in enumerate(kept) if _lies_in_mask(face, larger)]
        for i in around:
            kept[i] = replace(kept[i], n_inside=kept[i].n_inside + 1)
        if not around:
            kept.append(face)
    return kept


def _lies_in_mask(face: Face, larger: Face) -> bool:
    alignment, _ = checked_alignment(larger)
    if alignment is None:
        return False
    left, top, right, bottom = face.box
    corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]])
    radius = mask_radius(alignment.to_template(corners))
    return bool((radius <= 1).all())
