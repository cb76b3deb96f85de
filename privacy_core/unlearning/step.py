"""One update of all weights at once: its gradient, its trust region and its backtracking.

What `first-order` and `second-order` share. Knows the objective CE + (wd/2)|w|²; no directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.base import Problem
from privacy_core.unlearning.curvature import Vector, add_scaled, dot, norm, weights_of
from privacy_core.unlearning.curvature import summed_gradient as summed
from privacy_core.unlearning.tensors import Rows

_HALVINGS = 20


def influence_gradient(problem: Problem) -> Vector:
    """Return what revising changes in the objective's gradient, were it zero on the old data.

    With n rows before and n' after: G = (1/n') [Σ ∇l(z̃) − Σ ∇l(z) − (n − n') wd w]. Labels kept,
    n = n'; rows or labels removed, the old rows' gradients and decay go.
    """
    forget, weights = problem.to_forget(), weights_of(problem.module)
    away = summed(problem.module, forget)
    new = summed(problem.module, problem.replacement)
    fewer = len(problem.retain) + len(forget) - len(problem.train)
    decay = fewer * problem.recipe.weight_decay
    return [
        (b - a - decay * w.detach()) / len(problem.train)
        for a, b, w in zip(away, new, weights, strict=True)
    ]


def revised_gradient(problem: Problem) -> Vector:
    """Return the gradient of the revised objective itself; reads no original row."""
    decay = problem.recipe.weight_decay
    found = summed(problem.module, problem.train)
    return [
        part / len(problem.train) + decay * weight.detach()
        for part, weight in zip(found, weights_of(problem.module), strict=True)
    ]


@torch.inference_mode()
def objective(module: nn.Module, rows: Rows, weight_decay: float) -> float:
    """Return mean CE + (wd/2)|w|² in evaluation mode."""
    module.eval()
    total = sum(
        float(functional.cross_entropy(module(part.x), part.y, reduction="sum"))
        for part in rows.batches(256)
    )
    weights: list[Tensor] = weights_of(module)
    return total / len(rows) + 0.5 * weight_decay * float(dot(weights, weights))


def take_step(problem: Problem, direction: Sequence[Tensor], *, reach: float) -> dict[str, float]:
    """Move the weights along `direction`, cut to `reach` |w| and halved while D' gets worse.

    Args:
        problem: Its module is moved in place.
        direction: The full step.
        reach: Largest length as a share of the weights' own.

    Returns:
        The share of the direction that was taken (0 where no length helped), and its length as a
        share of the weights'.
    """
    module, decay = problem.module, problem.recipe.weight_decay
    weights = weights_of(module)
    length, size = norm(direction), norm(weights)
    scale = min(1.0, reach * size / length) if length > 0 else 0.0
    before = objective(module, problem.train, decay)
    start = [weight.detach().clone() for weight in weights]
    for _ in range(_HALVINGS):
        add_scaled(weights, direction, scale)
        if objective(module, problem.train, decay) <= before:
            return {"step_share": scale, "step_length": scale * length / size}
        with torch.no_grad():
            for weight, old in zip(weights, start, strict=True):
                weight.copy_(old)
        scale /= 2
    return {"step_share": 0.0, "step_length": 0.0}
