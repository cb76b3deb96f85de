"""Photos → numbers: what recogniser, detector, landmarks, code and predictors say of each face.

Keeps no pixel. Knows photos, backends and instruments; not people's parts or metrics.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from privacy_core.anonymize import Anonymizer, OpenPhoto
from privacy_core.attributes import ita_angle
from privacy_core.audit.anonymization.instruments import Instruments
from privacy_core.audit.anonymization.landmarks import (
    ZOOM,
    expression_of,
    landmark_errors,
)
from privacy_core.audit.anonymization.people import ChosenPhoto
from privacy_core.audit.anonymization.settings import Setting
from privacy_core.backends.base import Backend, GeneratedFace
from privacy_core.diffusion.code import surroundings_of
from privacy_core.errors import FaceFailedError, NoFaceError, PhotoError
from privacy_core.faces import FaceDetector, find_again, fit_alignment, read_photo, template_mask
from privacy_core.faces.align import opaque_mask, warp_to_template
from privacy_core.faces.support import regions_of
from privacy_core.noise import NoiseKey
from privacy_core.recognition import embed_all
from privacy_core.records import Arrays
from privacy_core.schema import ATTRIBUTES, RGB, Face, Photo


@dataclass
class _Known:
    """A detector that repeats what another one found before."""

    faces: tuple[Face, ...]
    name: str = "known"

    def detect(self, pixels: RGB) -> list[Face]:  # noqa: ARG002
        return list(self.faces)


@dataclass(frozen=True)
class Opened:
    """One photo of the audit, cut out once for all settings.

    Attributes:
        chosen: Where it comes from.
        place: Its place in the part.
        photo: The photo, opened with some backend.
    """

    chosen: ChosenPhoto
    place: int
    photo: OpenPhoto = field(repr=False)

    @property
    def landmarks(self) -> NDArray[np.float64]:
        """Return the landmarks of the largest face, the one that is measured."""
        return self.photo.faces[0].landmarks


def open_photos(
    photos: Sequence[ChosenPhoto],
    first_place: int,
    backend: Backend,
    detector: FaceDetector,
    *,
    known: Mapping[int, tuple[Face, ...]] | None = None,
    key: NoiseKey | None = None,
) -> tuple[list[Opened], list[str]]:
    """Open photos; what cannot be opened is listed by its reason.

    Args:
        photos: A chunk of one part.
        first_place: The place of the first one in the part.
        backend: Any; each setting brings its own.
        detector: Finds the faces.
        known: Place → faces found before; other photos are passed over. None asks the detector.
        key: Of the noise of all photos of the part; fresh noise when None.
    """
    opened, failures = [], []
    for place, chosen in enumerate(photos, first_place):
        if known is not None and place not in known:
            continue
        finds: FaceDetector = detector if known is None else _Known(known[place])
        own = NoiseKey.fresh() if key is None else key.child(f"{place}")
        try:
            photo: Photo = read_photo(chosen.image)
            found = Anonymizer(backend, finds).open(photo, key=own)
        except (NoFaceError, FaceFailedError, PhotoError) as error:
            failures.append(type(error).__name__)
            continue
        opened.append(Opened(chosen, place, found))
    return opened, failures


def faces_as_rows(opened: Sequence[Opened]) -> NDArray[np.float64]:
    """Return every face of the photos as (m, 16): place, score, box, landmarks."""
    return np.array(
        [
            [o.place, face.score, *face.box, *face.landmarks.ravel()]
            for o in opened
            for face in o.photo.faces
        ]
    ).reshape(-1, 16)


def faces_from_rows(rows: NDArray[np.float64]) -> dict[int, tuple[Face, ...]]:
    """Return place → faces, as `faces_as_rows` wrote them."""
    found: dict[int, tuple[Face, ...]] = {}
    for place, score, *rest in rows.tolist():
        face = Face(tuple(rest[:4]), np.array(rest[4:]).reshape(5, 2), score, "known")
        found[int(place)] = (*found.get(int(place), ()), face)
    return found


def frames_of(opened: Sequence[Opened]) -> NDArray[np.uint8]:
    """Return the (n, 128, 128, 3) template frames of the originals."""
    frames = [warp_to_template(o.photo.photo.pixels, fit_alignment(o.landmarks)) for o in opened]
    return np.stack(frames)


def observe_originals(
    opened: Sequence[Opened], instruments: Instruments, *, complete: bool
) -> Arrays:
    """Return what is known of the originals, one row per photo.

    Args:
        opened: At least one photo.
        instruments: What measures.
        complete: Also landmarks and predictors, which adversaries do not need.
    """
    pictures, landmarks = [o.photo.photo.pixels for o in opened], [o.landmarks for o in opened]
    frames = frames_of(opened)
    requested = np.stack([o.photo.requests[0].pixels for o in opened])
    contexts = torch.from_numpy(np.stack([o.photo.requests[0].context for o in opened]))
    outside = torch.from_numpy(~template_mask())
    arrays: Arrays = {
        "place": np.array([o.place for o in opened]),
        "person": np.array([o.chosen.person for o in opened]),
        "slot": np.array([o.chosen.slot for o in opened]),
        "labels": np.array([o.chosen.labels for o in opened]),
        "source": np.array([o.chosen.source for o in opened], dtype="U24"),
        "ita": np.array([ita_angle(frame) for frame in frames]),
        **_codes(instruments, frames),
        # In the very pixels that a backend gets: what k-Same averages must be found again.
        "request_code": instruments.code.encode(torch.from_numpy(requested)).numpy(),
        "outside": surroundings_of(contexts, outside).half().numpy(),
        "embedding": embed_all(instruments.recogniser, pictures, landmarks),
    }
    if complete:
        if instruments.second is not None:
            arrays["second_embedding"] = embed_all(instruments.second, pictures, landmarks)
        points = np.stack([_points(instruments, o.photo.photo.pixels, o) for o in opened])
        arrays |= {"points": points} | expression_of(points)
        arrays |= _predicted(instruments, frames)
        unread = np.zeros((len(opened), len(ATTRIBUTES)))
        own = instruments.kept
        arrays["request_kept"] = unread if own is None else own.predict(requested)
    return arrays


def observe_variants(
    opened: Sequence[Opened],
    setting: Setting,
    backend: Backend,
    instruments: Instruments,
    *,
    points: NDArray[np.float64] | None,
) -> Arrays:
    """Anonymize photos at one setting and return what is seen of the largest face.

    Args:
        opened: At least one photo.
        setting: Method, strength and policy.
        backend: The method.
        instruments: What measures.
        points: (n, 68, 2) landmarks of the originals; None looks for no face, for training.
    """
    images, seconds = _images(opened, setting, backend)
    # A face that was withheld keeps its row: nothing is read off it, since `released` is False.
    released = np.array([image is not None for image in images])
    shown = [
        o.photo.photo.pixels if image is None else image
        for o, image in zip(opened, images, strict=True)
    ]
    frames = np.stack(
        [
            warp_to_template(image, fit_alignment(o.landmarks))
            for o, image in zip(opened, shown, strict=True)
        ]
    )
    frames[~released] = 0
    arrays: Arrays = {
        "released": released,
        **{name: codes.astype(np.float16) for name, codes in _codes(instruments, frames).items()},
    }
    if points is None:
        seen = embed_all(instruments.recogniser, shown, [o.landmarks for o in opened])
        seen[~released] = 0
        return arrays | {"embedding": seen}
    arrays["seconds"] = np.full(len(opened), seconds / len(opened))
    arrays |= _predicted(instruments, frames)
    return arrays | _looked_at(opened, shown, released, instruments, points)


def _looked_at(
    opened: Sequence[Opened],
    shown: Sequence[RGB],
    released: NDArray[np.bool_],
    instruments: Instruments,
    points: NDArray[np.float64],
) -> Arrays:
    """Return what finder, recogniser and landmarks see in whole pictures."""
    found = [
        find_again(instruments.finder, image, o.landmarks) if was_released else None
        for o, image, was_released in zip(opened, shown, released, strict=True)
    ]
    arrays: Arrays = {}
    where = [
        o.landmarks if marks is None else marks for o, marks in zip(opened, found, strict=True)
    ]
    recognisers = {"embedding": instruments.recogniser, "second_embedding": instruments.second}
    for name, recogniser in recognisers.items():
        if recogniser is not None:
            arrays[name] = embed_all(recogniser, shown, where)
            arrays[name][~released] = 0
    arrays |= {
        "detected": np.array([marks is not None for marks in found]),
        "changed_outside": np.array(
            [_changed_outside(o.photo, image) for o, image in zip(opened, shown, strict=True)]
        ),
    }
    now = np.stack([_points(instruments, i, o) for i, o in zip(shown, opened, strict=True)])
    return arrays | landmark_errors(now, points) | expression_of(now)


def _images(
    opened: Sequence[Opened], setting: Setting, backend: Backend
) -> tuple[list[RGB | None], float]:
    """Return each photo anonymized, None where that failed, and the seconds it took."""
    started = time.perf_counter()
    jobs = [
        (i, face, replace(request, strength=setting.strength, policy=setting.policy))
        for i, o in enumerate(opened)
        for face, request in o.photo.requests.items()
    ]
    results: list[dict[int, GeneratedFace]] = [{} for _ in opened]
    made = backend.generate([request for *_, request in jobs])
    for (i, face, _), result in zip(jobs, made, strict=True):
        results[i][face] = result
    images: list[RGB | None] = []
    for o, result_of in zip(opened, results, strict=True):
        try:
            images.append(o.photo.assemble(setting.strength, result_of).image)
        except FaceFailedError:
            images.append(None)
    return images, time.perf_counter() - started


def _changed_outside(opened: OpenPhoto, image: RGB) -> int:
    """Return how many pixels outside every face's M differ from the original."""
    outside = np.ones(image.shape[:2], np.bool_)
    for region in regions_of(opened.faces, image.shape[:2]):
        outside[region.window] &= ~region.mask
    return int((image != opened.photo.pixels).any(2)[outside].sum())


def _points(instruments: Instruments, pixels: RGB, opened: Opened) -> NDArray[np.float64]:
    frame = warp_to_template(pixels, fit_alignment(opened.landmarks), zoom=ZOOM)
    return instruments.points.find(frame)


def _codes(instruments: Instruments, frames: NDArray[np.uint8]) -> Arrays:
    """Return the code of all of M, and of its part through which no surroundings shine."""
    opaque = np.where(opaque_mask()[..., None], frames, np.uint8(128))
    return {
        name: instruments.code.encode(torch.from_numpy(seen)).numpy()
        for name, seen in (("code", frames), ("opaque_code", opaque))
    }


def _predicted(instruments: Instruments, frames: NDArray[np.uint8]) -> Arrays:
    return {name: one.predict(frames) for name, one in instruments.predictors.items()}
