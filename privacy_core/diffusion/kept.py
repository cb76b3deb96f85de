"""Kept attributes as numbers beside the code: one each, noised with it, read again from the noise.

The code's own attribute directions are far too short to outlive the noise at which a face becomes
a stranger's. So a kept attribute, as predicted from M, is one more coordinate of ±A in what is
noised: the Gaussian mechanism then holds for both together, with √(C² + n A²) in the place of C.
Knows no photo and no secret. Shapes: n faces, five attributes in the order of `ATTRIBUTES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from privacy_core.attributes import AttributePredictor
from privacy_core.schema import ATTRIBUTES, AttributePolicy

KEPT_SHARE = 0.5
"""A over the C of a code without a policy; fixed with the weights' digest."""


def keeps(predictor: AttributePredictor | None, policy: AttributePolicy) -> Tensor:
    """Return (5,) bool, which attributes have a coordinate: kept, and the predictor knows them."""
    if predictor is None:
        return torch.zeros(len(ATTRIBUTES), dtype=torch.bool)
    kept = torch.tensor([name in policy.keep for name in ATTRIBUTES])
    return kept & torch.from_numpy(predictor.classes_)


def kept_coordinates(
    predictor: AttributePredictor | None, frames: Tensor, kept: Tensor, amplitude: float
) -> Tensor:
    """Return (n, 5): ±`amplitude` as predicted where an attribute is kept, else 0.

    Args:
        predictor: Reads the pixels of M only.
        frames: (n, 128, 128, 3) uint8.
        kept: (n, 5) bool, from `keeps`.
        amplitude: A.
    """
    likely = torch.zeros(kept.shape)
    rows = kept.any(1)
    if predictor is not None and bool(rows.any()):
        likely[rows] = torch.from_numpy(predictor.predict(frames[rows].numpy()))
    return coordinates_of(likely, kept, amplitude)


def coordinates_of(likely: Tensor, kept: Tensor, amplitude: float) -> Tensor:
    """Return (n, 5): ±`amplitude` by how likely value 1 is where an attribute is kept, else 0."""
    signs = torch.where(likely > 0.5, amplitude, -amplitude)  # noqa: PLR2004
    return torch.where(kept, signs, 0.0)


def values_drawn(
    noised: Sequence[float],
    *,
    sigma: float,
    amplitude: float,
    population: Mapping[str, float],
    uniforms: Mapping[str, float],
) -> dict[str, int]:
    """Draw each kept attribute's value from what its noised coordinate leaves open (Bayes).

    Args:
        noised: (5,) noised coordinates.
        sigma: Noise level, positive; infinite where nothing but noise is left.
        amplitude: A.
        population: Attribute → share of value 1, the prior.
        uniforms: Attribute → a number in [0, 1] that depends on no face; names what is kept.
    """
    drawn = {}
    for place, name in enumerate(ATTRIBUTES):
        if name not in uniforms:
            continue
        prior = torch.tensor(population[name], dtype=torch.float64)
        evidence = 2 * amplitude * noised[place] / sigma**2
        drawn[name] = int(uniforms[name] < float(torch.sigmoid(torch.logit(prior) + evidence)))
    return drawn
