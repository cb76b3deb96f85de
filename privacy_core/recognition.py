"""Identity embeddings and distances: dlib's ResNet descriptor behind one Protocol.

Measures; never steers a variant. Euclidean distance: dlib's descriptors are not unit vectors.
Others come from the user's own Python, named `MODULE:FUNCTION`.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import dlib
import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import SIZE, TEMPLATE, fit_alignment, warp_to_template
from privacy_core.faces.detect import CANONICAL_BOX, dlib_model
from privacy_core.schema import RGB

_ZOOM = 2
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


class DlibRecogniser:
    """dlib's 128-d ResNet descriptor (dlib_face_recognition_resnet_model_v1)."""

    name = "dlib-resnet-v1"

    @cached_property
    def _network(self) -> Any:
        return dlib.face_recognition_model_v1(
            dlib_model("dlib_face_recognition_resnet_model_v1.dat")
        )

    def embed(self, pixels: RGB, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (128,) descriptor; the face is reduced to 256 px first, where it is larger."""
        frame = warp_to_template(pixels, fit_alignment(landmarks), zoom=_ZOOM)
        return self.embed_frame(frame)

    def embed_frame(self, frame: RGB) -> NDArray[np.float64]:
        """Return the (128,) descriptor of a (128 z, 128 z, 3) frame aligned to the template."""
        zoom = frame.shape[0] / SIZE
        points = [dlib.point(round(x * zoom), round(y * zoom)) for x, y in TEMPLATE]
        box = dlib.rectangle(*(round(edge * zoom) for edge in CANONICAL_BOX))
        shape = dlib.full_object_detection(box, points)
        chip = dlib.get_face_chip(np.ascontiguousarray(frame), shape, 150, 0.25)
        return np.array(self._network.compute_face_descriptor(chip))

    def distance(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        """Return the Euclidean distance; around 0.55 one in 1 000 pairs of strangers is nearer."""
        return float(np.linalg.norm(one - other))


def find_recogniser(name: str) -> Recogniser:
    """Return `DLIB`, the project's own (`MARGIN`), or what `MODULE:FUNCTION` returns.

    Raises:
        InvalidArgumentError: There is no such function, or it returns something else.
    """
    if name == DLIB:
        return DlibRecogniser()
    if name == MARGIN:
        # torch is slow to load, and dlib's needs none.
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
