"""A backbone's features of pictures, kept beside a model so that the next command need not wait.

One file that only its owner can read and that `erase-originals` erases: features of a face tell
who is shown. Knows pictures and a backbone; no label and no model.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from privacy_core.crew import Crew
from privacy_core.revise.erase import FEATURES
from privacy_core.revise.revision import write_atomically
from privacy_core.schema import RGB
from privacy_core.unlearning.head import Matrix
from privacy_core.unlearning.head_model import Backbone


class KeptFeatures:
    """A backbone that reads each picture once, whatever command comes after.

    Args:
        backbone: Reads the pictures that are not known yet, one by one.
        folder: Where the features are kept; made when it is missing.
        identity: What else than its name decides what the backbone says, such as a version.
        progress: Called with stage, pictures read and pictures to read.
        tell: Called with a sentence where the features cannot be kept.
        crew: The processes that share the reading; each asks for the same pictures.
    """

    def __init__(
        self,
        backbone: Backbone,
        folder: Path,
        *,
        identity: str,
        progress: Callable[[str, int, int], None],
        tell: Callable[[str], None],
        crew: Crew | None = None,
    ) -> None:
        self.name, self.n_features = backbone.name, backbone.n_features
        self._backbone, self._path = backbone, folder / FEATURES
        self._identity = f"{backbone.name} {identity}"
        self._progress, self._tell, self._crew = progress, tell, crew or Crew()

    def features(self, images: RGB) -> Matrix:
        """Return the (n, d) features of (n, h, w, 3) uint8 pictures.

        What an interrupted call has read is kept, of several processes what the first has.
        """
        keys = [_key(image) for image in images]
        missing = {key: place for place, key in enumerate(keys) if key not in self._known}
        n_before = len(self._known)
        try:
            for n_done, (key, place) in enumerate(missing.items(), 1):
                if self._crew.does(n_done):
                    self._known[key] = self._backbone.features(images[place : place + 1])[0]
                self._progress("Reading pictures", n_done, len(missing))
            if missing:
                self._exchange(list(missing))
        finally:
            if len(self._known) > n_before and self._crew.is_first:
                self._keep()
        return np.stack([self._known[key] for key in keys])

    def _exchange(self, keys: list[bytes]) -> None:
        """Tell the other processes what this one has read, and hear from them."""
        nothing = np.zeros(self.n_features)
        read = np.array([self._known.get(key, nothing) for key in keys], np.float64)
        numbers = torch.from_numpy(read)
        self._crew.sum_up(numbers)
        self._known.update(zip(keys, numbers.numpy(), strict=True))

    @cached_property
    def _known(self) -> dict[bytes, NDArray[np.float64]]:
        """Picture → features; nothing where the file is missing, damaged or another backbone's."""
        try:
            with np.load(self._path, allow_pickle=False) as kept:
                keys, values = kept["keys"], np.asarray(kept["features"], np.float64)
                is_mine = str(kept["identity"]) == self._identity
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return {}
        if not is_mine or values.shape != (len(keys), self.n_features):
            return {}
        return {key.tobytes(): value for key, value in zip(keys, values, strict=True)}

    def _keep(self) -> None:
        keys = np.frombuffer(b"".join(self._known), np.uint8).reshape(len(self._known), -1)
        content = io.BytesIO()
        np.savez(
            content,
            keys=keys,
            features=np.stack(list(self._known.values())),
            identity=np.array(self._identity),
        )
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path, content.getvalue(), mode=0o600)
        except OSError as error:
            self._tell(
                "The pictures' features could not be kept beside the model "
                f"({error.strerror or type(error).__name__}): the next command reads them again."
            )


def _key(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(f"{image.shape} ".encode() + image.tobytes()).digest()
