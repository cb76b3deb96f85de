"""Selective synaptic dampening: shrink the weights that matter more for Z than for all rows.

A labelled baseline; on memorized rows, whose gradients are next to nothing, it does nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.curvature import Vector, weights_of
from privacy_core.unlearning.tensors import Rows
from privacy_core.unlearning.training import Cost


@dataclass(frozen=True)
class Settings:
    """What is shrunk, and how much.

    Attributes:
        selection: a; weights with I_Z > a I_D are shrunk.
        dampening: λ; by min(λ I_D / I_Z, 1).
        batch_size: Rows whose mean gradient is squared at a time.
    """

    selection: float = 10.0
    dampening: float = 1.0
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("selection", self.selection, 0, 1e9)
        check_range("dampening", self.dampening, 0, 1e9)
        check_range("batch_size", self.batch_size, 1, 1e9)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Shrink in place; I_D is taken on the data the original was trained on."""
    started, forget = time.process_time(), problem.to_forget()
    rows = Rows(torch.cat([problem.retain.x, forget.x]), torch.cat([problem.retain.y, forget.y]))
    # Mixed, so that a batch is a sample of the data and not one person.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))
    on_all = importance(problem.module, rows.take(order), batch_size=settings.batch_size)
    on_forget = importance(problem.module, forget, batch_size=settings.batch_size)
    n_shrunk = 0
    with torch.no_grad():
        for weight, whole, part in zip(weights_of(problem.module), on_all, on_forget, strict=True):
            factor = dampening_factors(whole, part, settings)
            n_shrunk += int((factor < 1).sum())
            weight.mul_(factor)
    cost = Cost(time.process_time() - started, len(rows) + len(forget))
    return Outcome(problem.module, cost, measured={"n_shrunk": float(n_shrunk)})


def importance(module: nn.Module, rows: Rows, *, batch_size: int) -> Vector:
    """Return the mean over batches of the squared batch gradient, in evaluation mode."""
    module.eval()
    weights = weights_of(module)
    batches = list(rows.batches(batch_size))
    total = [torch.zeros_like(weight) for weight in weights]
    for batch in batches:
        loss = functional.cross_entropy(module(batch.x), batch.y)
        for part, found in zip(total, torch.autograd.grad(loss, weights), strict=True):
            part.add_(found**2 / len(batches))
    return total


def dampening_factors(whole: Tensor, part: Tensor, settings: Settings) -> Tensor:
    """Return min(λ I_D / I_Z, 1) where I_Z > a I_D, else 1."""
    ratio = (settings.dampening * whole / part.clamp(min=1e-30)).clamp(max=1)
    return torch.where(part > settings.selection * whole, ratio, torch.ones_like(ratio))
