"""A photo and a strength → a variant; several strengths of one photo → a ladder.

Joins detector, paste and backend and fails closed: a variant exists only if every detected face
was anonymized, or covered or left as it is where the caller asked for that. Knows no file format
and no weights.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from privacy_core.backends.base import Backend, FaceRequest, GeneratedFace
from privacy_core.errors import FaceFailedError, InvalidArgumentError, NoFaceError, PhotoError
from privacy_core.faces.align import warp_to_template
from privacy_core.faces.detect import FaceDetector
from privacy_core.faces.paste import PreparedPhoto, prepare
from privacy_core.noise import NoiseKey
from privacy_core.privacy import measured_only
from privacy_core.schema import (
    RGB,
    AttributePolicy,
    Face,
    FaceOutcome,
    Photo,
    PrivacyStatement,
    Variant,
    check_strength,
)

MOST_FACES = 32
"""Faces in one photo: more would take a visitor's patience and a server's memory."""
LADDER = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Strengths of a ladder unless others are asked for."""
COVERED = "covered with a solid patch that is made from the surroundings"
_COVERED = FaceOutcome("covered", None, None, measured_only(COVERED), protects=True)
_LEFT = FaceOutcome("left", None, None, measured_only("left as it is"), protects=False)


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

    def variant(
        self,
        strength: float,
        *,
        strengths: Mapping[int, float] | None = None,
        left: Collection[int] = (),
    ) -> Variant:
        """Return the photo with every face anonymized, at one strength unless told otherwise.

        Args:
            strength: Of every face that `strengths` does not name.
            strengths: Index of a face (from 0) → its own strength.
            left: Indices of faces to leave as they are, which only the people shown can allow.

        Raises:
            InvalidArgumentError: A strength is not a number in [0, 1], an index names no face, or
                a face cannot be left.
            FaceFailedError: A face could not be anonymized and is not to be covered.
        """
        wanted = dict.fromkeys(range(len(self.faces)), check_strength(strength))
        own = {i: check_strength(value) for i, value in (strengths or {}).items()}
        if unknown := (set(own) | set(left)) - set(wanted):
            raise InvalidArgumentError(
                f"`strengths` and `left` must name faces from 0 to {len(self.faces) - 1}, got "
                f"{sorted(unknown)}. The largest face is 0."
            )
        self.check_left(left)
        wanted |= own
        requests = {
            i: replace(request, strength=wanted[i])
            for i, request in self.requests.items()
            if i not in left
        }
        made = self.backend.generate(list(requests.values())) if requests else []
        variant = self.assemble(strength, dict(zip(requests, made, strict=True)), left=left)
        return _as_weakest(variant) if own or left else variant

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

    def check_left(self, left: Collection[int]) -> None:
        """Check that faces can be left as they are: nothing that was found is inside them.

        Args:
            left: Indices of faces.

        Raises:
            InvalidArgumentError: A smaller face was found inside one of them. It is replaced with
                that face and is none of `faces`, so nobody could anonymize it.
        """
        for index in sorted(left):
            if n_inside := self.faces[index].n_inside:
                raise InvalidArgumentError(
                    "`left` must name no face that has a smaller one inside it, got face "
                    f"{index + 1} of {len(self.faces)} (smaller faces found inside: {n_inside}). "
                    "Nobody could anonymize what is inside. Give the face a strength, or cut the "
                    "photo down to the other faces."
                )

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

    def frame(self, index: int, pixels: RGB) -> RGB:
        """Return a face of the photo, or of a variant of it, where it was found.

        Args:
            index: Of the face, from 0.
            pixels: (height, width, 3) uint8, the photo or a variant.

        Returns:
            (128, 128, 3) uint8 template frame, with the surroundings.

        Raises:
            FaceFailedError: The face has no alignment.
        """
        return warp_to_template(pixels, self._prepared.alignment(index))

    def assemble(
        self,
        strength: float,
        results: Mapping[int, GeneratedFace],
        *,
        left: Collection[int] = (),
    ) -> Variant:
        """Return the photo with generated faces pasted in.

        Args:
            strength: Of the variant, where no face was generated.
            results: Index of a face → what the backend made of it.
            left: Indices of faces to leave as they are.

        Raises:
            InvalidArgumentError: A face cannot be left.
            FaceFailedError: A face could not be anonymized and is not to be covered.
        """
        self.check_left(left)
        failures = {i: why for i, why in self._prepared.failures.items() if i not in left}
        failures |= {i: result.failure for i, result in results.items() if result.failure}
        if failures and not self.solid_on_failure:
            index = min(failures)
            raise FaceFailedError(index + 1, len(self.faces), failures[index])
        frames: dict[int, RGB] = {
            i: result.frame
            for i, result in results.items()
            if result.frame is not None and i not in failures
        }
        outcomes = tuple(
            _LEFT if i in left else _COVERED if i in failures else _outcome(results[i])
            for i in range(len(self.faces))
        )
        said = _least_noised(list(results.values()))
        return Variant(
            image=self._prepared.paste(
                frames,
                covered=tuple(failures),
                left=left,
                unmatched=[i for i, result in results.items() if not result.matches_colour],
            ),
            strength=said.strength if said else strength,
            sigma=said.sigma if said else None,
            privacy=said.privacy if said else _covered_only(),
            policy=self.policy,
            model_id=self.backend.name,
            model_revision=self.backend.revision,
            protected=all(face.protects for face in outcomes),
            n_faces=len(self.faces),
            covered=tuple(sorted(i + 1 for i in failures)),
            faces=outcomes,
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


def _outcome(face: GeneratedFace) -> FaceOutcome:
    return FaceOutcome("generated", face.strength, face.sigma, face.privacy, face.protects)


def _as_weakest(variant: Variant) -> Variant:
    """State of a variant with several strengths what holds for its weakest face.

    A face left as it is ends every guarantee for the picture; what holds for the others stands
    with each of them.
    """
    made = [(f.strength, f.sigma, f.privacy) for f in variant.faces if f.strength is not None]
    strength, sigma, privacy = min(
        ((s, math.inf if sigma is None else sigma, privacy) for s, sigma, privacy in made),
        key=lambda face: face[:2],
        default=(variant.strength, math.inf, variant.privacy),
    )
    if n_left := len(variant.left):
        faces = "1 face is left as it is" if n_left == 1 else f"{n_left} faces are left as they are"
        sigma, privacy = math.inf, measured_only(f"{faces}, of {variant.n_faces}")
    known = None if math.isinf(sigma) else sigma
    return replace(variant, strength=strength, sigma=known, privacy=privacy)


def _covered_only() -> PrivacyStatement:
    return PrivacyStatement(
        None, None, None, "every face was covered with a solid patch", "measured only"
    )
