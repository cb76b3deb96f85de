"""The linear code of a face: pixels inside the mask ↔ K numbers, and the context outside it.

Knows linear algebra only: not how weights are fitted (`fit.py`), noised or generated. Shapes:
n faces, P = 3 × pixels of M, K components, G attribute coordinates (the first G of K).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.diffusion.denoiser import KEEP_FACTOR
from privacy_core.faces.align import SIZE, template_mask
from privacy_core.schema import ATTRIBUTES, AttributePolicy

CONTEXT_SIZE = 32
"""Side of the small picture of the surroundings that the context codes."""
_CONTEXT_LIMIT = 4.0
"""Standard deviations at which a context's numbers are cut, so that odd photos stay in range."""


@dataclass(frozen=True)
class CodeConfig:
    """Sizes of a linear code.

    Attributes:
        n_components: K, numbers per face.
        n_context: Numbers per context.
        groups: Attribute → how many of the first coordinates belong to it, in order.
        clip_ratio: C over the root mean square norm of a code; fixed with the weights.
        whole_frame: Code the whole frame instead of M (synthetic people only; there is no
            context then).
    """

    n_components: int
    n_context: int
    groups: Mapping[str, int]
    clip_ratio: float
    whole_frame: bool = False


class LinearCode(nn.Module):
    """c = S Vᵀ(f − μ) and back, with an attribute policy's scaling of S (design §3.3).

    The components V are kept in int8 with one scale each; S and its inverse in float32.
    """

    components: Tensor
    component_scale: Tensor
    mean: Tensor
    metric: Tensor
    inverse_metric: Tensor
    sd: Tensor
    context_components: Tensor
    context_mean: Tensor
    attribute_means: Tensor

    def __init__(self, sizes: CodeConfig) -> None:
        super().__init__()
        self.sizes = sizes
        k, n_pixels = sizes.n_components, 3 * int(self.mask.sum())
        n_surroundings = 3 * CONTEXT_SIZE**2
        self.register_buffer("components", torch.zeros(k, n_pixels, dtype=torch.int8))
        self.register_buffer("component_scale", torch.ones(k))
        self.register_buffer("mean", torch.zeros(n_pixels))
        self.register_buffer("metric", torch.eye(k))
        self.register_buffer("inverse_metric", torch.eye(k))
        self.register_buffer("sd", torch.ones(k))
        self.register_buffer("context_components", torch.zeros(sizes.n_context, n_surroundings))
        self.register_buffer("context_mean", torch.zeros(n_surroundings))
        self.register_buffer("attribute_means", torch.zeros(len(ATTRIBUTES), 2, k))
        self._basis: Tensor | None = None

    @cached_property
    def mask(self) -> Tensor:
        """M, (128, 128) bool, or the whole frame."""
        return torch.from_numpy(template_mask()) | self.sizes.whole_frame

    @property
    def basis(self) -> Tensor:
        """V, (K, P) float32, expanded from int8 once and kept."""
        if self._basis is None:
            self._basis = self.components.float() * self.component_scale[:, None]
        return self._basis

    def forget_basis(self) -> None:
        """Expand V again at its next use: call this after changing the components."""
        self._basis = None

    def pixels(self, frames: Tensor) -> Tensor:
        """Return the (n, P) pixels of M in [-1, 1] from (n, 128, 128, 3) uint8 frames."""
        return frames[:, self.mask].flatten(1).float() / 127.5 - 1

    def encode(self, frames: Tensor) -> Tensor:
        """Return the (n, K) codes of (n, 128, 128, 3) uint8 frames; only M is read."""
        return (self.pixels(frames) - self.mean) @ self.basis.T @ self.metric.T

    def decode(self, codes: Tensor) -> Tensor:
        """Return (n, 128, 128, 3) uint8 frames from (n, K) codes; outside M they are mid-grey."""
        pixels = self.mean + codes @ self.inverse_metric.T @ self.basis
        frames = torch.full((len(codes), SIZE, SIZE, 3), 128, dtype=torch.uint8)
        values = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        frames[:, self.mask] = values.reshape(len(codes), -1, 3)
        return frames

    def context(self, frames: Tensor, known: Tensor | None = None) -> Tensor:
        """Return the (n, n_context) code of what surrounds the mask.

        Args:
            frames: (n, 128, 128, 3) uint8; pixels inside M are not read.
            known: (n, 128, 128) bool, pixels that were photographed; all when None.
        """
        outside = ~torch.from_numpy(template_mask())
        surroundings = surroundings_of(frames, outside if known is None else known & outside)
        coded = (surroundings - self.context_mean) @ self.context_components.T
        return coded.clamp(-_CONTEXT_LIMIT, _CONTEXT_LIMIT)

    def surroundings(self, context: Tensor) -> Tensor:
        """Return the (n, 3 · 32²) pixels in about [-1, 1] that a context stands for.

        Args:
            context: (n, n_context), rows of NaN where unknown: the mean of all surroundings.
        """
        inverse = self.context_components / (self.context_components**2).sum(1, keepdim=True)
        return self.context_mean + context.nan_to_num(0.0) @ inverse

    def policy_factors(self, policy: AttributePolicy) -> Tensor:
        """Return the (K,) factors on the code's coordinates: up where kept, else one."""
        factors = torch.ones(self.sizes.n_components)
        start = 0
        for name, width in self.sizes.groups.items():
            if name in policy.keep:
                factors[start : start + width] = KEEP_FACTOR
            start += width
        return factors

    def without_hidden(self, codes: Tensor, policy: AttributePolicy) -> Tensor:
        """Return (n, K) codes less the directions in which hidden attributes' means differ.

        With equal class means no linear reader of the code beats a constant guess (Belrose et al.
        2023); others may. A projection: no code gets longer.
        """
        span = self._hidden_span(policy)
        return codes - codes @ span @ span.T

    def hidden_values(self, policy: AttributePolicy, tokens: Sequence[int]) -> Tensor:
        """Return the (K,) part of a code that shows hidden attributes with the given values.

        Args:
            policy: Names the hidden attributes.
            tokens: (5,) values 0 or 1 of the hidden attributes; others are not read.
        """
        span = self._hidden_span(policy)
        means = torch.zeros(self.sizes.n_components)
        for name, token, pair in zip(ATTRIBUTES, tokens, self.attribute_means, strict=True):
            if name in policy.hide:
                means = means + pair[token]
        return span @ (span.T @ means)

    def _hidden_span(self, policy: AttributePolicy) -> Tensor:
        """Return (K, h) orthonormal columns; attributes that had no labels have no direction."""
        hidden = torch.tensor([name in policy.hide for name in ATTRIBUTES])
        differences = (self.attribute_means[:, 1] - self.attribute_means[:, 0])[hidden]
        differences = differences[differences.norm(dim=1) > 0]
        span: Tensor = torch.linalg.qr(differences.T).Q
        return span

    def clip_radius(self, factors: Tensor) -> Tensor:
        """Return C, (n,), for (n, K) factors: of weights and policy, never of a photo."""
        radius: Tensor = self.sizes.clip_ratio * (factors * self.sd).norm(dim=1)
        return radius

    def clip(self, mapped: Tensor, radius: Tensor) -> Tensor:
        """Scale (n, K) mapped codes down to Euclidean norm `radius`, (n,), where they exceed it."""
        norms = mapped.norm(dim=1)
        return mapped * (radius / torch.maximum(norms, radius))[:, None]


def known_mask(quads: NDArray[np.floating]) -> Tensor:
    """Return (n, 128, 128) bool: template pixels inside (n, 4, 2) quadrilaterals.

    Args:
        quads: Corners of the photographed area in template pixels, clockwise as seen.
    """
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    corners = torch.from_numpy(np.asarray(quads, np.float32))
    inside = torch.ones(len(corners), SIZE, SIZE, dtype=torch.bool)
    for i in range(4):
        a, b = corners[:, i, :, None, None], corners[:, (i + 1) % 4, :, None, None]
        edge = b - a
        inside &= edge[:, 0] * (y - a[:, 1]) - edge[:, 1] * (x - a[:, 0]) >= 0
    return inside


def surroundings_of(frames: Tensor, known: Tensor) -> Tensor:
    """Return (n, 3 · 32²) pixels in [-1, 1]: means of known pixels, gaps filled from coarser ones.

    Args:
        frames: (n, 128, 128, 3) uint8.
        known: (128, 128) or (n, 128, 128) bool; other pixels are never read.
    """
    weight = known.float().expand(len(frames), SIZE, SIZE)[:, None]
    values = (frames.permute(0, 3, 1, 2).float() / 127.5 - 1) * weight
    ratio = SIZE // CONTEXT_SIZE
    values, weight = functional.avg_pool2d(values, ratio), functional.avg_pool2d(weight, ratio)
    return _fill(values, weight).flatten(1)


def _fill(values: Tensor, weight: Tensor) -> Tensor:
    """Divide weighted sums by weights; where the weight is small, blend in a coarser level."""
    if values.shape[-1] == 1:
        return values / weight.clamp_min(1e-6)
    coarse = _fill(functional.avg_pool2d(values, 2), functional.avg_pool2d(weight, 2))
    coarse = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    trust = (weight * 4).clamp(0, 1)
    return trust * values / weight.clamp_min(1e-6) + (1 - trust) * coarse
