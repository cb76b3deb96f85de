"""dlib's face descriptor in torch: the same network and weights, many times faster.

The dlib that pip installs multiplies matrices without BLAS. Reads the one weight file that
`face_recognition_models` ships, and no other network of dlib's. Knows 150-pixel chips; cutting
them from photos is left to `recognition`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.faces.detect import dlib_model

_CHIP = 150
N_NUMBERS = 128
WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
_BATCH = 64
_MEAN = (122.782, 117.001, 104.298)
_STEM = (32, 3, 7, 7)
_LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Channels, residual blocks, and whether the first of them halves the picture."""

_WAY_OUT = (
    "Install them again with `pip install --force-reinstall --no-deps "
    "face_recognition_models==0.3.0`."
)

Convolution = tuple[Tensor, Tensor]
"""(out, in, h, w) filters and (out,) biases, the affine layer behind them folded in."""


class DescriptorNetwork:
    """A chip → dlib's 128 numbers; may be used from several threads at once.

    Args:
        stem: The first convolution.
        blocks: Two convolutions each, and whether the block halves the picture.
        projection: (256, 128) map of the last averages.
    """

    def __init__(
        self,
        stem: Convolution,
        blocks: Sequence[tuple[Convolution, Convolution, bool]],
        projection: Tensor,
    ) -> None:
        self._stem = stem
        self._blocks = blocks
        self._projection = projection

    def describe(self, chips: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Return the (n, 128) descriptors of n chips.

        The last digits depend on how many chips are seen together: at most 64 at once, which are
        only then drawn from `chips`.

        Args:
            chips: (150, 150, 3) RGB each, or (n, 150, 150, 3).

        Raises:
            InvalidArgumentError: A chip is of another size or type.
        """
        rest = iter(chips)
        found = [np.zeros((0, N_NUMBERS))]
        while part := list(islice(rest, _BATCH)):
            found.append(self._forward(torch.from_numpy(_stacked(part))))
        return np.concatenate(found)

    @torch.inference_mode()
    def _forward(self, chips: Tensor) -> NDArray[np.float64]:
        seen = ((chips.float() - torch.tensor(_MEAN)) / 256).permute(0, 3, 1, 2)
        seen = max_pool2d(conv2d(seen, *self._stem, stride=2).relu_(), 3, stride=2)
        for first, second, halves in self._blocks:
            stride, padding = (2, 0) if halves else (1, 1)
            change = conv2d(seen, *first, stride=stride, padding=padding).relu_()
            change = conv2d(change, *second, padding=1)
            seen = _sum(change, avg_pool2d(seen, 2) if halves else seen).relu_()
        descriptors = seen.mean((2, 3)) @ self._projection
        return np.asarray(descriptors.double().numpy())


def load_network(path: Path) -> DescriptorNetwork:
    """Read the weights that dlib published.

    Raises:
        ModelError: The file cannot be read, or is not byte for byte dlib's.
    """
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The face weights {path.name!r} must be readable, got {type(error).__name__}. "
            f"{_WAY_OUT}"
        ) from error
    digest = hashlib.sha256(stored).hexdigest()
    if digest != _SHA256:
        raise ModelError(
            f"The face weights {path.name!r} must be dlib's own (SHA-256 {_SHA256[:12]}…), got "
            f"{len(stored):,} bytes with {digest[:12]}…: damaged, or of another network. {_WAY_OUT}"
        )
    return _read(_Reader(stored))


@cache
def shared_network() -> DescriptorNetwork:
    """Return the network of the installed weights, read once per process.

    Raises:
        ModelError: The weights are missing or damaged.
    """
    return load_network(Path(dlib_model(WEIGHTS)))


class _Reader:
    """Walks through what `dlib::serialize` wrote, from the network's input to its output.

    Args:
        stored: The whole file, already known to be the right one.
    """

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._at = 0

    def parameters(self, layer: str, skip: int = 0) -> Tensor:
        """Return the flat parameters of the next layer of a kind.

        Args:
            layer: dlib's name of the kind, with its version.
            skip: How many integers stand before the parameters.
        """
        # The search passes over settings only: the parameters of the layer before are behind it.
        name = bytes((1, len(layer))) + layer.encode()
        self._at = self._stored.index(name, self._at) + len(name)
        _version, *sizes = [self._integer() for _ in range(skip + 5)][skip:]
        start, n = self._at, int(np.prod(sizes))
        self._at += 4 * n
        return torch.from_numpy(np.frombuffer(self._stored, "<f4", n, start).astype(np.float32))

    def convolution(self, *shape: int) -> Convolution:
        """Return the next convolution, with `shape` filters, and the affine layer behind it."""
        n = shape[0]
        weights, affine = self.parameters("con_4"), self.parameters("affine_")
        scale, shift = affine[:n], affine[n:]
        filters = weights[:-n].reshape(shape) * scale[:, None, None, None]
        # Pixels come with their channels last, and torch is a quarter faster if they stay so.
        filters = filters.contiguous(memory_format=torch.channels_last)
        return filters, weights[-n:] * scale + shift

    def _integer(self) -> int:
        """Return an unsigned integer: a byte that says how many follow, then those."""
        end = self._at + 1 + self._stored[self._at]
        found = int.from_bytes(self._stored[self._at + 1 : end], "little")
        self._at = end
        return found


def _read(reader: _Reader) -> DescriptorNetwork:
    stem = reader.convolution(*_STEM)
    blocks, before = [], _STEM[0]
    for channels, n_blocks, halves in _LEVELS:
        for index in range(n_blocks):
            first = reader.convolution(channels, before, 3, 3)
            second = reader.convolution(channels, channels, 3, 3)
            blocks.append((first, second, halves and index == 0))
            before = channels
    projection = reader.parameters("fc_2", skip=2).reshape(before, N_NUMBERS)
    return DescriptorNetwork(stem, blocks, projection)


def _sum(change: Tensor, skip: Tensor) -> Tensor:
    """Return the sum of two layers; what only one of them has is added to zero, as in dlib.

    `change` is overwritten. It may be smaller and `skip` may have fewer channels.
    """
    down, across = (skip.shape[axis] - change.shape[axis] for axis in (2, 3))
    if down or across:
        change = pad(change, (0, across, 0, down))
    change[:, : skip.shape[1]] += skip
    return change


def _stacked(chips: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    for chip in chips:
        if chip.shape != (_CHIP, _CHIP, 3) or chip.dtype != np.uint8:
            raise InvalidArgumentError(
                f"`chips` must be ({_CHIP}, {_CHIP}, 3) of uint8 each, got {chip.shape} of "
                f"{chip.dtype}. Cut them with `dlib.get_face_chip(…, {_CHIP})`, or resize them."
            )
    return np.stack(chips)
