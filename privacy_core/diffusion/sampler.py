"""From noised code to clean code: the probability-flow ODE, Heun's method (Karras et al. 2022).

Knows the denoiser and noise levels; not photos, secrets or strength.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from privacy_core.diffusion.denoiser import NULL, CodeDenoiser

SIGMA_MIN = 0.005
"""Where the integration ends; the last step goes from here to zero."""
RHO = 7.0
N_STEPS = 12
"""Steps of Heun's method."""
CAUTION = 1.0
"""How much higher than the true noise level is what the denoiser is told; more makes faces plainer.
Post-processing of y, like all of sampling."""
GUIDANCE = 1.0
"""How far each estimate moves away from that of a worse denoiser, see `CodeDenoiser.forward`: eyes,
teeth and glasses become sharper."""
ATTRIBUTE_GUIDANCE = 1.0
"""How far each estimate moves away from the one without attribute tokens (Ho & Salimans 2022), so
that a face shows what its tokens say."""

CONTEXT_TRUST = 0.7
"""How much of the surroundings' code the denoiser is told: less of them links less, and colours
are matched again when the face is pasted."""
SETTINGS: Mapping[str, float] = MappingProxyType(
    {
        "steps": N_STEPS,
        "caution": CAUTION,
        "context_trust": CONTEXT_TRUST,
        "guidance": GUIDANCE,
        "attribute_guidance": ATTRIBUTE_GUIDANCE,
    }
)
"""What a strength curve was measured with, beside the weights."""


def karras_sigmas(sigma: float, n_steps: int) -> Tensor:
    """Return (n_steps + 1,) noise levels from `sigma` down to `SIGMA_MIN`, then 0 (eq. 5)."""
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    low, high = min(SIGMA_MIN, sigma) ** (1 / RHO), sigma ** (1 / RHO)
    return torch.cat([(high + ramp * (low - high)) ** RHO, torch.zeros(1, dtype=torch.float64)])


@torch.inference_mode()
def sample(  # noqa: PLR0913 - the last three with a default
    denoiser: CodeDenoiser,
    y: Tensor,
    sigma: Tensor,
    factors: Tensor,
    *,
    context: Tensor | None,
    attributes: Tensor,
    n_steps: int = N_STEPS,
    caution: float = CAUTION,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Integrate mapped noisy codes down to clean codes.

    Args:
        denoiser: D(y; σ, context, attributes).
        y: (n, K) mapped noisy codes, factors ∘ c + σ n.
        sigma: (n,) noise level of each row, positive; rows may differ.
        factors: (n, K) each row's policy factors, positive.
        context: (n, n_context), rows of NaN or None where unknown.
        attributes: (n, 5) tokens.
        n_steps: Steps of Heun's method; each but the last calls the denoiser twice.
        caution: Factor on the noise level that the denoiser is told; 1 follows the flow exactly.
        guidance: See `GUIDANCE`; 0 follows the flow exactly.

    Returns:
        (n, K) codes in the unmapped space, ready to decode.
    """
    group_scale = 1 / _first_of_groups(denoiser.sizes.groups, factors)  # (n, G)
    x = y / factors
    steps = torch.stack([karras_sigmas(float(value), n_steps) for value in sigma], 1).float()

    trusted = None if context is None else CONTEXT_TRUST * context

    asked = (attributes != NULL).any(1)
    memo: dict[str, list[Tensor]] = {}
    open_memo: dict[str, list[Tensor]] = {}

    def estimate(x: Tensor, level: Tensor) -> Tensor:
        told, groups = caution * level, caution * level[:, None] * group_scale
        clean: Tensor = denoiser(x, told, groups, trusted, attributes, guidance=guidance, memo=memo)
        if bool(asked.any()):
            surroundings = None if trusted is None else trusted[asked]
            nothing = torch.full_like(attributes[asked], NULL)
            left_open = denoiser(
                x[asked], told[asked], groups[asked], surroundings, nothing,
                guidance=guidance, memo=open_memo,
            )  # fmt: skip
            clean[asked] += ATTRIBUTE_GUIDANCE * (clean[asked] - left_open)
        return clean

    for now, after in pairwise(steps):
        slope = (x - estimate(x, now)) / now[:, None]
        step = (after - now)[:, None]
        euler: Tensor = x + step * slope
        if float(after[0]) == 0.0:
            return euler
        memo.clear()
        open_memo.clear()  # The next step begins at the level where this one ends.
        corrected = (euler - estimate(euler, after)) / after[:, None]
        x = x + step * (slope + corrected) / 2
    return x


def _first_of_groups(groups: Mapping[str, int], values: Tensor) -> Tensor:
    """Return (n, G): the value of each group's first coordinate, of (n, K)."""
    starts, start = [], 0
    for width in groups.values():
        starts.append(start)
        start += width
    return values[:, starts]
