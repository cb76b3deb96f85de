"""What the detail stage is fitted to: sharp photos, and faces generated in their surroundings.

Knows aligned frames and codes; not how the refiner learns, DATA or strength.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy_core.diffusion.code import LinearCode, known_mask
from privacy_core.diffusion.denoiser import NULL, CodeDenoiser
from privacy_core.diffusion.fit_code import AlignedFaces, Report
from privacy_core.diffusion.refiner import RefinerConfig
from privacy_core.diffusion.sampler import sample
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.schema import ATTRIBUTES

_PAIRED_SIGMA = (0.05, 0.7)
"""Noise under which a generated face still is the photo's."""
_DRAWN_SIGMA = (1.0, 8.0)
_PURE_SHARE = 0.5
"""Share of drawn faces that come from pure noise."""
_MIDDLE = slice(32, 96)
"""Rows and columns whose edges say how sharp a photo is."""
_BATCH = 64


@dataclass(frozen=True)
class RefinerFitConfig:
    """How the refiner is fitted.

    Attributes:
        sizes: Of the network.
        n_steps: Steps; 0 leaves the model without a refiner.
        n_paired, n_drawn: Generated faces with and without a photo to compare with.
        batch_size: Faces per step, half of them paired.
        sharpest: Share of the photos that is learned from: soft ones teach softness.
        learning_rate: Adam's, of both networks.
        adversary: Weight of the adversary's loss.
        alone: First share of the steps, without the adversary.
        decay_share: Last share of the steps, over which the rate falls linearly to zero.
        ema: Decay of the averaged weights that are kept.
        checkpoint_minutes: Minutes between checkpoints.
        threads: torch threads.
        seed: Seed of every draw.
    """

    sizes: RefinerConfig = field(default_factory=RefinerConfig)
    n_steps: int = 3_000
    n_paired: int = 4_000
    n_drawn: int = 4_000
    batch_size: int = 16
    sharpest: float = 0.6
    learning_rate: float = 4e-4
    adversary: float = 0.12
    alone: float = 0.1
    decay_share: float = 0.3
    ema: float = 0.999
    checkpoint_minutes: float = 5.0
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class RefinerExamples:
    """Generated codes with the photos they belong to.

    Attributes:
        codes: (n, K) float16, generated.
        photo: (n,) int64, whose surroundings a face was generated in.
        paired: (n,) bool, whether it still shows that photo.
    """

    codes: Tensor
    photo: Tensor
    paired: Tensor


def sharpest(faces: AlignedFaces, share: float) -> NDArray[np.int64]:
    """Return the indices of the share of the faces with the strongest edges, in order."""
    strength = []
    for start in range(0, len(faces.frames), _BATCH):
        grey = torch.from_numpy(np.array(faces.frames[start : start + _BATCH])).float().mean(3)
        across, down = grey.diff(dim=2)[:, _MIDDLE, _MIDDLE], grey.diff(dim=1)[:, _MIDDLE, _MIDDLE]
        contrast = grey[:, _MIDDLE, _MIDDLE].flatten(1).std(1)
        strength.append((across.abs() + down.abs()).mean((1, 2)) / contrast.clamp_min(1.0))
    order = np.argsort(-torch.cat(strength).numpy(), kind="stable")
    return np.sort(order[: max(1, round(share * len(order)))])


def draw_examples(
    code: LinearCode,
    denoiser: CodeDenoiser,
    faces: AlignedFaces,
    *,
    config: RefinerFitConfig,
    report: Report,
) -> RefinerExamples:
    """Generate faces from the photos' noised codes, in the photos' surroundings."""
    generator = torch.Generator().manual_seed(config.seed)
    n = config.n_paired + config.n_drawn
    photo = torch.randint(len(faces.frames), (n,), generator=generator)
    paired = torch.arange(n) < config.n_paired
    uniform = torch.rand(2, n, generator=generator)
    low, high = (torch.where(paired, _PAIRED_SIGMA[i], _DRAWN_SIGMA[i]) for i in range(2))
    sigma = low * (high / low) ** uniform[0]
    pure = ~paired & (uniform[1] < _PURE_SHARE)
    sigma[pure] = SIGMA_MAX
    parts = []
    for start in range(0, n, _BATCH):
        rows = slice(start, start + _BATCH)
        part = faces.take(photo[rows].numpy())
        parts.append(generated(code, denoiser, part, sigma[rows], generator).half())
        report("generated faces", min(start + _BATCH, n), n)
    return RefinerExamples(torch.cat(parts), photo, paired)


def generated(
    code: LinearCode,
    denoiser: CodeDenoiser,
    faces: AlignedFaces,
    sigma: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Return (n, K) codes of faces generated from n photos' noised codes, in their surroundings.

    Args:
        code: Fitted.
        denoiser: Fitted, in evaluation mode.
        faces: The photos.
        sigma: (n,) noise levels; `SIGMA_MAX` is pure noise, which holds nothing of the photo.
        generator: Of the noise.
    """
    frames = torch.from_numpy(np.array(faces.frames))
    codes = code.encode(frames) * (sigma < SIGMA_MAX)[:, None]
    ones = torch.ones_like(codes)
    noise = torch.randn(codes.shape, generator=generator)
    return sample(
        denoiser,
        code.clip(codes, code.clip_radius(ones)) + sigma[:, None] * noise,
        sigma,
        ones,
        context=code.context(frames, known_mask(faces.quads)),
        attributes=torch.full((len(codes), len(ATTRIBUTES)), NULL),
    )
