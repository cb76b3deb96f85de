"""Rows as tensors, and what is done to them without gradients: augmenting, batch norm, errors.

Knows modules that return logits; no loop, no loss and no files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_SHIFT = 1 / 16
"""Largest shift of the augmentation, as a share of the side."""


@dataclass(frozen=True)
class Rows:
    """Rows as a module reads them.

    Attributes:
        x: (n, h, w, 3) uint8 or (n, d) float.
        y: (n,) int64 labels.
        marked: (n,) bool, what a loss treats differently; None for no row.
    """

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    marked: Tensor | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Rows:
        """Return the rows at `index`."""
        marked = None if self.marked is None else self.marked[index]
        return Rows(self.x[index], self.y[index], marked)

    def batches(self, batch_size: int) -> Iterator[Rows]:
        """Return the rows in their order, in batches of nearly equal size."""
        for part in split_evenly(torch.arange(len(self)), batch_size):
            yield self.take(part)


def flip_and_shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures (n, h, w, 3) mirrored or not and shifted by up to a sixteenth of a side."""
    if x.ndim != 4:  # noqa: PLR2004  (features have no sides)
        return x
    n, height, width, _ = x.shape
    mirrored = torch.rand(n, generator=generator) < 0.5  # noqa: PLR2004
    x = torch.where(mirrored[:, None, None, None], x.flip(2), x)
    reach = round(_SHIFT * height)
    shift = torch.randint(-reach, reach + 1, (n, 2), generator=generator)
    rows = (torch.arange(height) + shift[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[:, 1:]).clamp(0, width - 1)
    return x[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


@torch.no_grad()
def recalibrate(module: nn.Module, rows: Rows, *, batch_size: int = 256) -> None:
    """Take every batch norm's running statistics anew, from `rows` only.

    Whatever rows earlier batches held, nothing of them stays in the statistics. Leaves the module
    in evaluation mode.
    """
    norms = [
        part for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]  # fmt: skip
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    if norms:
        for batch in rows.batches(batch_size):
            module(batch.x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


def split_evenly(index: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Return parts of nearly equal size, at most `batch_size`: no batch norm meets a lone row."""
    if len(index) == 0:
        return ()
    return torch.tensor_split(index, math.ceil(len(index) / batch_size))


def module_digest(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes and values of all weights and buffers, in hex."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        total.update(value.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def draw(rows: Rows, n: int, generator: torch.Generator) -> Rows:
    """Return `n` rows drawn with replacement."""
    return rows.take(torch.randint(len(rows), (n,), generator=generator))


@torch.inference_mode()
def error_rate(module: nn.Module, rows: Rows) -> float:
    """Return the share of rows that the module, in evaluation mode, labels wrongly."""
    module.eval()
    wrong = sum(int((module(part.x).argmax(1) != part.y).sum()) for part in rows.batches(256))
    return wrong / len(rows)
