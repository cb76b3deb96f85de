"""Reversal on pixels: an image-to-image network trained on pairs paints the original's face again.

A small U-Net (Ronneberger, Fischer & Brox 2015) at half the template's size, which begins as doing
nothing. Knows pictures; not what made the variants.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.learning import LearningConfig, held_out, train_on_rows
from privacy_core.faces.align import template_mask

_WIDTHS = (32, 64, 96, 128)
"""Channels at 32, 16, 8 and 4 px on the way down."""
_UP_WIDTHS = (64, 32, 24)
"""Channels at 8, 16 and 32 px on the way up."""
_BATCH = 32
"""Pictures per step at most."""


class Repainter:
    """Variant's picture → the original's picture.

    Args:
        config: Training; of its batch no more than 32 are taken.
    """

    def __init__(self, config: LearningConfig | None = None) -> None:
        config = config or LearningConfig()
        self.config = replace(config, batch=min(_BATCH, config.batch))

    def fit(
        self, variants: NDArray[np.uint8], originals: NDArray[np.uint8], people: Ints
    ) -> Repainter:
        """Train on pairs of (n, 128, 128, 3) template frames, some people left out to know when.

        Args:
            variants: Template frames of variants.
            originals: Of the same photos.
            people: (n,) who is shown.
        """
        given, wanted = _halved(variants), _halved(originals)
        out = held_out(people, seed=self.config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            painter = _Painter()

        def error(rows: Tensor) -> Tensor:
            apart: Tensor = (given[rows] + painter(given[rows]) - wanted[rows]).abs()
            return apart.mean()

        self.validation_ = train_on_rows(painter, error, out, self.config, chunk=_BATCH)
        self._painter = painter
        return self

    @torch.inference_mode()
    def restore(self, variants: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (n, 128, 128, 3) template frames with the face inside M painted again."""
        painted = []
        for start in range(0, len(variants), _BATCH):
            part = variants[start : start + _BATCH]
            change = nn.functional.interpolate(
                self._painter(_halved(part)), scale_factor=2, mode="bilinear", align_corners=False
            )
            painted.append(127.5 * change.permute(0, 2, 3, 1).numpy())
        change_of_all = np.concatenate(painted) * template_mask()[..., None]
        return np.clip(np.round(variants + change_of_all), 0, 255).astype(np.uint8)


class _Painter(nn.Module):
    """What is to be added to a picture; nothing at first, and nothing outside M."""

    inside: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Four pixels become channels of one: as much is seen in a fraction of the time.
        narrower = zip((12, *_WIDTHS[:-1]), _WIDTHS, strict=True)
        self.down = nn.ModuleList(
            _layer(before, after, stride=1 if i == 0 else 2)
            for i, (before, after) in enumerate(narrower)
        )
        self.middle = _layer(_WIDTHS[-1], _WIDTHS[-1])
        wider = zip((_WIDTHS[-1], *_UP_WIDTHS[:-1]), _WIDTHS[-2::-1], _UP_WIDTHS, strict=True)
        self.up = nn.ModuleList(_layer(before + skipped, after) for before, skipped, after in wider)
        self.last = nn.Conv2d(_UP_WIDTHS[-1], 12, 3, padding=1, bias=False)
        nn.init.zeros_(self.last.weight)
        inside = torch.from_numpy(template_mask()).float()[None, None]
        self.register_buffer("inside", nn.functional.avg_pool2d(inside, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 3, 64, 64) for pictures of that shape."""
        seen: list[Tensor] = []
        x = nn.functional.pixel_unshuffle(x, 2)
        for layer in self.down:
            x = layer(x)
            seen.append(x)
        x = self.middle(seen.pop())
        for layer in self.up:
            x = nn.functional.interpolate(x, scale_factor=2)
            x = layer(torch.cat([x, seen.pop()], 1))
        change: Tensor = nn.functional.pixel_shuffle(self.last(x), 2) * self.inside
        return change


def _layer(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1), nn.GroupNorm(8, after), nn.SiLU()
    )


def _halved(frames: NDArray[np.uint8]) -> Tensor:
    """Return (n, 3, 64, 64) values in [-1, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    return nn.functional.avg_pool2d(values / 127.5 - 1, 2)
