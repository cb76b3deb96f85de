"""The denoiser D(y; σ, context, attributes): a residual MLP over the code, in EDM form.

Knows nothing of pixels, photos or how it is trained. Symbols follow Karras et al. 2022; σ_data is
one number per coordinate, and the noise level may differ between attribute coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from privacy_core.schema import ATTRIBUTES

NULL = 2
"""The attribute token that says nothing; 0 and 1 are the two values of `ATTRIBUTES`."""
KEEP_FACTOR = 4.0
"""How much an attribute's direction is scaled up before the noise when the attribute is kept."""
_FREQUENCIES = 16


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of a denoiser.

    Attributes:
        n_components: K, numbers per code.
        n_context: Numbers per context.
        groups: Attribute → how many of the first coordinates belong to it, in order.
        width: Hidden width.
        depth: Residual blocks.
        condition_width: Width of the conditioning vector.
        dropout: Share of hidden values dropped in training.
    """

    n_components: int
    n_context: int
    groups: Mapping[str, int]
    width: int = 1024
    depth: int = 8
    condition_width: int = 384
    dropout: float = 0.1


class _Block(nn.Module):
    """x + gate · W₂ silu(W₁ modulate(norm(x))), modulated by `modulation` of the condition."""

    def __init__(self, width: int, condition_width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition_width, 3 * width)
        self.up = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale, gate = modulation.chunk(3, dim=-1)
        hidden = nn.functional.silu(self.up(self.norm(x) * (1 + scale) + shift))
        result: Tensor = x + (1 + gate) * self.down(self.dropout(hidden))
        return result


class CodeDenoiser(nn.Module):
    """D(y; σ) = c_skip y + c_out F(c_in y; σ, context, attributes), per coordinate."""

    sd: Tensor

    def __init__(self, sizes: DenoiserConfig) -> None:
        super().__init__()
        self.sizes = sizes
        width, condition_width = sizes.width, sizes.condition_width
        self.register_buffer("sd", torch.ones(sizes.n_components))
        n_levels = 1 + len(sizes.groups)
        self.level = nn.Linear(2 * _FREQUENCIES * n_levels, condition_width)
        self.context = nn.Linear(sizes.n_context, condition_width)
        self.null_context = nn.Parameter(torch.zeros(sizes.n_context))
        self.attributes = nn.ModuleList(nn.Embedding(3, condition_width) for _ in ATTRIBUTES)
        self.mix = nn.Linear(condition_width, condition_width)
        self.into = nn.Linear(sizes.n_components + sizes.n_context, width)
        self.blocks = nn.ModuleList(
            _Block(width, condition_width, sizes.dropout) for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sizes.n_components)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        y: Tensor,
        sigma: Tensor,
        group_sigma: Tensor,
        context: Tensor | None,
        attributes: Tensor,
        *,
        guidance: float = 0.0,
        memo: dict[str, list[Tensor]] | None = None,
    ) -> Tensor:
        """Return the (n, K) estimate of the clean code.

        Args:
            y: (n, K) noisy codes.
            sigma: (n,) noise level of every coordinate that belongs to no attribute.
            group_sigma: (n, G) noise level of each attribute's coordinates.
            context: (n, n_context) codes of the surroundings; rows of NaN, or None, mean unknown.
            attributes: (n, 5) int64 tokens: 0, 1 or `NULL`.
            guidance: How far the estimate is moved on, away from that of the same network without
                its two middle blocks: a bad version of itself (Karras et al. 2024; by skipped
                layers: Hyung et al. 2024). 0 in training.
            memo: Filled with what depends on all but `y`, and used if it is filled already: a third
                of the work, shared by two calls at one noise level.
        """
        levels = torch.cat([sigma[:, None], group_sigma], 1)  # (n, 1 + G)
        noise = self.per_coordinate(levels)  # (n, K)
        total = (noise**2 + self.sd**2).sqrt()
        estimate = self._network(y / total, levels, context, attributes, guidance, memo)
        c_skip, c_out = (self.sd / total) ** 2, noise * self.sd / total
        return c_skip * y + c_out * estimate.float()

    def per_coordinate(self, levels: Tensor) -> Tensor:
        """Spread (n, 1 + G) noise levels over the (n, K) coordinates."""
        widths = list(self.sizes.groups.values())
        parts = [levels[:, 1 + i : 2 + i].expand(-1, width) for i, width in enumerate(widths)]
        rest = self.sizes.n_components - sum(widths)
        return torch.cat([*parts, levels[:, :1].expand(-1, rest)], 1)

    def _network(
        self,
        scaled: Tensor,
        levels: Tensor,
        context: Tensor | None,
        attributes: Tensor,
        guidance: float,
        memo: dict[str, list[Tensor]] | None,
    ) -> Tensor:
        dtype = self.into.weight.dtype
        surroundings = self.null_context.expand(len(scaled), -1)
        if context is not None:
            known = ~context.isnan().any(1, keepdim=True)
            surroundings = torch.where(known, context.to(dtype), surroundings)
        memo = {} if memo is None else memo
        blocks = cast("list[_Block]", list(self.blocks))
        if not memo:
            condition = self._condition(levels, surroundings, attributes)
            memo["modulations"] = [block.modulation(condition) for block in blocks]
        steps = list(zip(blocks, memo["modulations"], strict=True))
        middle = range(max(0, len(blocks) // 2 - 1), len(blocks) // 2 + 1)
        x = self.into(torch.cat([scaled.to(dtype), surroundings], 1))
        worse = x
        for place, (block, modulation) in enumerate(steps):
            x = block(x, modulation)
            if guidance and place not in middle:
                worse = block(worse, modulation) if place > middle[-1] else x
        result: Tensor = self.out(self.norm(x))
        if guidance:
            result = result + guidance * (result - self.out(self.norm(worse)))
        return result

    def _condition(self, levels: Tensor, surroundings: Tensor, attributes: Tensor) -> Tensor:
        dtype = self.into.weight.dtype
        condition = self.level(_fourier(levels).to(dtype)) + self.context(surroundings)
        for embedding, tokens in zip(self.attributes, attributes.T, strict=True):
            condition = condition + embedding(tokens)
        mixed: Tensor = nn.functional.silu(self.mix(nn.functional.silu(condition)))
        return mixed


def _fourier(levels: Tensor) -> Tensor:
    """Return (n, 2 · 16 · levels) features of log σ."""
    frequencies = 2.0 ** torch.linspace(-4, 3, _FREQUENCIES, device=levels.device)
    angles = (levels.log()[..., None] * frequencies * math.pi).flatten(1)
    return torch.cat([angles.cos(), angles.sin()], 1)
