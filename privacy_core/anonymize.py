"""A photo and a strength → a variant; several strengths of one photo → a ladder.

Joins detector, paste and backend and fails closed: a variant exists only if every detected face
was anonymized, or covered where the caller asked for that. Knows no file format and no weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from privacy_core.backends.base import Backend, FaceRequest, GeneratedFace
from privacy_core.errors import FaceFailedError, NoFaceError, PhotoError
from privacy_core.faces.detect import FaceDetector
from privacy_core.faces.paste import PreparedPhoto, prepare
from privacy_core.noise import NoiseKey
from privacy_core.schema import (
    RGB,
    AttributePolicy,
    Face,
    Photo,
    PrivacyStatement,
    Variant,
    check_strength,
)

MOST_FACES = 32
"""Faces in one photo: more would take a visitor's patience and a server's memory."""
LADDER = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Strengths of a ladder unless others are asked for."""


@dataclass(frozen=True)
class OpenPhoto:
    """A photo with its faces found and cut out, one noise key, and a backend.

    Every variant made from it lies on the same noise path per face, so that all of them together
    tell no more than the weakest.

    Attributes:
        photo: The photo.
        faces: Detected faces, the largest first.
        policy: Treatment of attributes.
        key: The photo's noise key.
        solid_on_failure: Cover a face that fails instead of withholding the photo.
        backend: Makes the faces.
    """

    photo: Photo = field(repr=False)
    faces: tuple[Face, ...]
    policy: AttributePolicy
    key: NoiseKey
    solid_on_failure: bool
    backend: Backend = field(repr=False)
    _prepared: PreparedPhoto = field(repr=False)

    def variant(self, strength: float) -> Variant:
        """Return the photo with every face anonymized at one strength; see `ladder`."""
        return self.ladder([strength])[0]

    def ladder(self, strengths: Sequence[float] = LADDER) -> list[Variant]:
        """Return one variant per strength.

        Raises:
            InvalidArgumentError: A strength is not a number in [0, 1].
            FaceFailedError: A face could not be anonymized and is not to be covered.
        """
        variants = anonymize_batch([(self, strength) for strength in strengths])
        for variant in variants:
            if isinstance(variant, FaceFailedError):
                raise variant
        return [variant for variant in variants if isinstance(variant, Variant)]

    @cached_property
    def requests(self) -> Mapping[int, FaceRequest]:
        """Index → what the backend gets of each face that can be anonymized, at strength 0."""
        height, width = self.photo.pixels.shape[:2]
        zoom = self.backend.zoom
        corners = np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)])
        return {
            i: FaceRequest(
                self._prepared.face_pixels(i, zoom=zoom),
                self._prepared.context_pixels(i, zoom=zoom),
                self._prepared.alignment(i).to_template(corners.astype(np.float64)),
                0.0,
                self.key.child(f"face {i}"),
                self.policy,
            )
            for i in range(len(self.faces))
            if i not in self._prepared.failures
        }

    def assemble(self, strength: float, results: Mapping[int, GeneratedFace]) -> Variant:
        """Return the photo with generated faces pasted in.

        Raises:
            FaceFailedError: A face could not be anonymized and is not to be covered.
        """
        failures = dict(self._prepared.failures)
        failures |= {i: result.failure for i, result in results.items() if result.failure}
        if failures and not self.solid_on_failure:
            index = min(failures)
            raise FaceFailedError(index + 1, len(self.faces), failures[index])
        frames: dict[int, RGB] = {
            i: result.frame
            for i, result in results.items()
            if result.frame is not None and i not in failures
        }
        said = _least_noised(list(results.values()))
        return Variant(
            image=self._prepared.paste(frames, covered=tuple(failures)),
            strength=said.strength if said else strength,
            sigma=said.sigma if said else None,
            privacy=said.privacy if said else _covered_only(),
            policy=self.policy,
            model_id=self.backend.name,
            model_revision=self.backend.revision,
            protected=all(i in failures or results[i].protects for i in range(len(self.faces))),
            n_faces=len(self.faces),
            covered=tuple(sorted(i + 1 for i in failures)),
        )


def anonymize_batch(
    jobs: Sequence[tuple[OpenPhoto, float]],
) -> list[Variant | FaceFailedError]:
    """Return one variant per (photo, strength), all faces generated together; fastest for many.

    A photo whose face fails gives the error in its place, and the others are not touched.

    Raises:
        InvalidArgumentError: A strength is not a number in [0, 1].
    """
    strengths = [check_strength(strength) for _, strength in jobs]
    faces = {id(photo): photo.requests for photo, _ in jobs}
    requests = [
        replace(request, strength=strength)
        for (photo, _), strength in zip(jobs, strengths, strict=True)
        for request in faces[id(photo)].values()
    ]
    results = iter(jobs[0][0].backend.generate(requests)) if jobs else iter(())
    variants: list[Variant | FaceFailedError] = []
    for (photo, _), strength in zip(jobs, strengths, strict=True):
        try:
            variants.append(photo.assemble(strength, {i: next(results) for i in faces[id(photo)]}))
        except FaceFailedError as error:
            variants.append(error)
    return variants


class Anonymizer:
    """Detector and backend, ready for photos.

    Args:
        backend: Makes faces.
        detector: Finds faces.

    Example:
        >>> from skimage.data import astronaut
        >>> from privacy_core.backends import load_backend
        >>> from privacy_core.faces import default_detector, photo_from_pixels
        >>> anonymizer = Anonymizer(load_backend("solid"), default_detector())
        >>> opened = anonymizer.open(photo_from_pixels(astronaut()), key=NoiseKey.fresh())
        >>> opened.variant(0.8).protected
        True
    """

    def __init__(self, backend: Backend, detector: FaceDetector) -> None:
        self.backend = backend
        self.detector = detector
        self._one_at_a_time = threading.Lock()

    def find_faces(self, pixels: RGB) -> tuple[Face, ...]:
        """Return the faces of a photo; dlib's detectors serve one thread at a time."""
        with self._one_at_a_time:
            return tuple(self.detector.detect(pixels))

    def open(
        self,
        photo: Photo,
        *,
        key: NoiseKey,
        policy: AttributePolicy | None = None,
        solid_on_failure: bool = False,
    ) -> OpenPhoto:
        """Find the faces of a photo and cut them out.

        Args:
            photo: The photo.
            key: Noise key for this photo alone; one key never serves two photos.
            policy: Treatment of attributes; none is kept, hidden or set when absent.
            solid_on_failure: Cover a face that fails instead of withholding the photo.

        Raises:
            NoFaceError: No face was detected.
            PhotoError: Too many faces were detected.
            FaceFailedError: A face cannot be aligned and is not to be covered.
        """
        faces = self.find_faces(photo.pixels)
        if len(faces) > MOST_FACES:
            raise PhotoError(
                f"`photo` must show at most {MOST_FACES} faces, found {len(faces)}. "
                "Cut the photo into parts."
            )
        if not faces:
            raise NoFaceError(
                "`photo` must show at least one face that can be detected, found none. "
                "Nothing was written. Use a larger, brighter or more frontal picture of the face."
            )
        prepared = prepare(photo, faces)
        if prepared.failures and not solid_on_failure:
            index, reason = min(prepared.failures.items())
            raise FaceFailedError(index + 1, len(faces), reason)
        policy = policy or AttributePolicy()
        return OpenPhoto(photo, faces, policy, key, solid_on_failure, self.backend, prepared)


def _least_noised(faces: Sequence[GeneratedFace]) -> GeneratedFace | None:
    """Return the face for which the least holds, of those at the strength of the first."""
    return min(
        (face for face in faces if face.strength == faces[0].strength),
        key=lambda face: math.inf if face.sigma is None else face.sigma,
        default=None,
    )


def _covered_only() -> PrivacyStatement:
    return PrivacyStatement(
        None, None, None, "every face was covered with a solid patch", "measured only"
    )
