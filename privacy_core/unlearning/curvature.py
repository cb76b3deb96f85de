"""Gradients and curvature in evaluation mode: sums over rows, Gauss–Newton products, CG.

Knows a module that returns logits, and rows; no method. A vector is a list of tensors, one per
weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.tensors import Rows

Vector = list[Tensor]


def weights_of(module: nn.Module) -> Vector:
    """Return the weights that are trained, in the module's order."""
    return [weight for weight in module.parameters() if weight.requires_grad]


def summed_gradient(module: nn.Module, rows: Rows, *, batch_size: int = 256) -> Vector:
    """Return the gradient of the summed cross entropy, the module in evaluation mode."""
    module.eval()
    weights = weights_of(module)
    total = [torch.zeros_like(weight) for weight in weights]
    for batch in rows.batches(batch_size):
        loss = functional.cross_entropy(module(batch.x), batch.y, reduction="sum")
        for part, found in zip(total, torch.autograd.grad(loss, weights), strict=True):
            part.add_(found)
    return total


def ggn_product(
    module: nn.Module, rows: Rows, vector: Sequence[Tensor], *, batch_size: int = 256
) -> Vector:
    """Return (1/n) Σ Jᵀ (diag p − p pᵀ) J v over the rows, by double backward.

    Jv is the derivative with respect to u of ⟨Jᵀu, v⟩, which is linear in u: cheaper than
    forward mode, and the same to rounding.
    """
    module.eval()
    weights = weights_of(module)
    total = [torch.zeros_like(weight) for weight in weights]
    for batch in rows.batches(batch_size):
        logits = module(batch.x)
        u = torch.zeros_like(logits, requires_grad=True)
        jtu = torch.autograd.grad(logits, weights, u, create_graph=True)
        (jv,) = torch.autograd.grad(dot(jtu, vector), u, retain_graph=True)
        p = logits.detach().softmax(1)
        hjv = p * (jv - (p * jv).sum(1, keepdim=True))
        for part, found in zip(total, torch.autograd.grad(logits, weights, hjv), strict=True):
            part.add_(found / len(rows))
    return total


@dataclass(frozen=True)
class Solution:
    """What CG found: x, its iterations, |b − Ax| / |b|, and whether curvature stayed positive."""

    x: Vector
    iterations: int
    residual: float
    is_positive: bool


def conjugate_gradient(
    product: Callable[[Vector], Vector],
    b: Sequence[Tensor],
    *,
    tolerance: float,
    max_iterations: int,
) -> Solution:
    """Solve A x = b for symmetric positive A; stop early where A proves not to be positive.

    Args:
        product: v → A v.
        b: The right-hand side.
        tolerance: Stop at |b − Ax| ≤ tolerance |b|.
        max_iterations: Stop there in any case.
    """
    x = [torch.zeros_like(part) for part in b]
    residual = [part.clone() for part in b]
    direction = [part.clone() for part in b]
    start = square = float(dot(residual, residual))
    iteration, is_positive = 0, True
    while iteration < max_iterations and square > tolerance**2 * start:
        image = product(direction)
        curvature = float(dot(direction, image))
        if curvature <= 0:
            is_positive = False
            break
        step = square / curvature
        add_scaled(x, direction, step)
        add_scaled(residual, image, -step)
        before, square = square, float(dot(residual, residual))
        direction = [r + square / before * d for r, d in zip(residual, direction, strict=True)]
        iteration += 1
    relative = (square / start) ** 0.5 if start > 0 else 0.0
    return Solution(x, iteration, relative, is_positive)


def largest_eigenvalue(
    product: Callable[[Vector], Vector], like: Sequence[Tensor], *, seed: int, iterations: int = 12
) -> float:
    """Return the largest eigenvalue of a positive operator, by power iteration; a lower bound."""
    generator = torch.Generator().manual_seed(seed)
    v = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in like]
    value = 0.0
    for _ in range(iterations):
        length = norm(v)
        if length == 0:
            return 0.0
        v = [part / length for part in v]
        image = product(v)
        value, v = float(dot(v, image)), image
    return value


def dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Return ⟨one, other⟩ over all parts."""
    total: Tensor = sum(
        ((a * b).sum() for a, b in zip(one, other, strict=True)), start=torch.zeros(())
    )
    return total


def norm(vector: Sequence[Tensor]) -> float:
    """Return the Euclidean norm over all parts."""
    with torch.no_grad():
        return math.sqrt(float(dot(vector, vector)))


@torch.no_grad()
def add_scaled(to: Sequence[Tensor], vector: Sequence[Tensor], scale: float) -> None:
    """Add `scale` times `vector` to `to` in place."""
    for part, change in zip(to, vector, strict=True):
        part.add_(change, alpha=scale)
