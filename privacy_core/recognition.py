"""Identity embeddings and distances: dlib's ResNet descriptor behind one Protocol.

Measures; never steers a variant. Euclidean distance: dlib's descriptors are not unit vectors.
Others come from the user's own Python, named `MODULE:FUNCTION`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import dlib
import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import SIZE, TEMPLATE, fit_alignment, warp_to_template
from privacy_core.faces.detect import CANONICAL_BOX
from privacy_core.schema import RGB

_ZOOM = 2
_CHIP_PADDING = 0.25
CHIP = 150
"""Side of the picture that dlib's network is shown, in pixels."""
DLIB, MARGIN = "dlib", "margin"


@runtime_checkable
class Recogniser(Protocol):
    """Turns a face into an embedding whose distances tell people apart.

    The audit compares embeddings by Euclidean distance: one that compares angles, such as ArcFace,
    returns unit vectors.

    Attributes:
        name: Stands beside everything measured with it; name the weights' revision too.
    """

    name: str

    def embed(self, pixels: RGB, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the embedding of the face with these (5, 2) landmarks."""
        ...

    def distance(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        """Return how far apart two embeddings are; smaller is more alike."""
        ...


@runtime_checkable
class BatchRecogniser(Recogniser, Protocol):
    """A recogniser that is faster with many faces at once; no recogniser has to be."""

    def embed_many(
        self, pictures: Sequence[RGB], landmarks: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return the (n, d) embeddings of one face in each of n ≥ 1 pictures."""
        ...


def embed_all(
    recogniser: Recogniser, pictures: Sequence[RGB], landmarks: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the (n, d) embeddings of one face in each picture, together where that is possible.

    Args:
        recogniser: Any.
        pictures: n ≥ 1 of any size.
        landmarks: (5, 2) of the face in each.
    """
    if isinstance(recogniser, BatchRecogniser):
        return recogniser.embed_many(pictures, landmarks)
    return np.array([recogniser.embed(*one) for one in zip(pictures, landmarks, strict=True)])


class DlibRecogniser:
    """dlib's 128-d ResNet descriptor (dlib_face_recognition_resnet_model_v1), run in torch."""

    name = "dlib-resnet-v1"

    def embed(self, pixels: RGB, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (128,) descriptor; the face is reduced to 256 px first, where it is larger."""
        found: NDArray[np.float64] = self.embed_chips([face_chip(pixels, landmarks)])[0]
        return found

    def embed_many(
        self, pictures: Sequence[RGB], landmarks: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return the (n, 128) descriptors of one face in each picture."""
        return self.embed_chips(face_chip(*one) for one in zip(pictures, landmarks, strict=True))

    def embed_frame(self, frame: RGB) -> NDArray[np.float64]:
        """Return the (128,) descriptor of a (128 z, 128 z, 3) frame aligned to the template."""
        found: NDArray[np.float64] = self.embed_frames(frame[None])[0]
        return found

    def embed_frames(self, frames: RGB) -> NDArray[np.float64]:
        """Return (n, 128) descriptors of (n, 128 z, 128 z, 3) frames aligned to the template."""
        return self.embed_chips(_frame_chip(frame) for frame in frames)

    def embed_chips(self, chips: Iterable[RGB]) -> NDArray[np.float64]:
        """Return (n, 128) descriptors of n pictures of (150, 150, 3), as `face_chip` cuts them.

        Raises:
            ModelError: The weights are missing or damaged.
        """
        # torch is slow to load, and naming the recogniser needs none.
        from privacy_core.dlib_resnet import shared_network  # noqa: PLC0415

        return shared_network().describe(chips)

    def distance(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        """Return the Euclidean distance; around 0.55 one in 1 000 pairs of strangers is nearer."""
        return float(np.linalg.norm(one - other))


def face_chip(pixels: RGB, landmarks: NDArray[np.float64]) -> RGB:
    """Return what dlib's network is shown of the face with these (5, 2) landmarks."""
    return _frame_chip(warp_to_template(pixels, fit_alignment(landmarks), zoom=_ZOOM))


def _frame_chip(frame: RGB) -> RGB:
    zoom = frame.shape[0] / SIZE
    points = [dlib.point(round(x * zoom), round(y * zoom)) for x, y in TEMPLATE]
    box = dlib.rectangle(*(round(edge * zoom) for edge in CANONICAL_BOX))
    shape = dlib.full_object_detection(box, points)
    chip = dlib.get_face_chip(np.ascontiguousarray(frame), shape, CHIP, _CHIP_PADDING)
    return np.asarray(chip)


def find_recogniser(name: str) -> Recogniser:
    """Return `DLIB`, the project's own (`MARGIN`), or what `MODULE:FUNCTION` returns.

    Raises:
        InvalidArgumentError: There is no such function, or it returns something else.
    """
    if name == DLIB:
        return DlibRecogniser()
    if name == MARGIN:
        # torch is slow to load, and naming dlib's needs none.
        from privacy_core.margin_recogniser import load_recogniser  # noqa: PLC0415

        return load_recogniser()
    module, _, function = name.partition(":")
    rule = f"`--recogniser` must be {DLIB!r}, {MARGIN!r} or MODULE:FUNCTION of your own Python"
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{rule}, got {name!r} ({type(error).__name__}). Start where Python finds the module, "
            "or install it."
        ) from error
    found = make()
    if not isinstance(found, Recogniser):
        raise InvalidArgumentError(
            f"{rule} that returns an object with `name`, `embed` and `distance`, got a "
            f"{type(found).__name__} from {name!r}. See `privacy_core.recognition.Recogniser`."
        )
    return found
