"""SalUn: random labels for what is to be forgotten, on the weights that matter for it only.

A labelled baseline: by the per-example attack it is easier to detect than doing nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.curvature import summed_gradient, weights_of
from privacy_core.unlearning.finetune_restart import restart
from privacy_core.unlearning.random_labels import random_label_loss
from privacy_core.unlearning.training import Cost, Hooks, Moment, Pass, run_loop


@dataclass(frozen=True)
class Settings:
    """The mask and the loss.

    Attributes:
        share: Share of all weights that may move: those with the largest gradients on Z.
        weight: b in CE(D') + b CE(Z, random labels).
        forget_batch: Rows to be forgotten in each step.
        factor: Peak learning rate as a multiple of the recipe's.
        epochs: Epochs.
    """

    share: float = 0.5
    weight: float = 0.15
    forget_batch: int = 32
    factor: float = 1.0
    epochs: int = 5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("share", self.share, 0, 1)
        check_range("weight", self.weight, 0, 1e3)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Minimise over the unmasked weights; the others are put back after every step.

    Masking the gradient alone is not enough: momentum and weight decay would move them.
    """
    started, forget = time.process_time(), problem.to_forget()
    masks = saliency_masks(summed_gradient(problem.module, forget), share=settings.share)
    saliency = Cost(time.process_time() - started, len(forget))
    first = [weight.detach().clone() for weight in weights_of(problem.module)]

    @torch.no_grad()
    def mask_gradients(module: nn.Module, _moment: Moment) -> None:
        for weight, mask in zip(weights_of(module), masks, strict=True):
            if weight.grad is not None:
                weight.grad.mul_(mask)

    @torch.no_grad()
    def put_back(module: nn.Module) -> None:
        for weight, mask, old in zip(weights_of(module), masks, first, strict=True):
            weight.copy_(torch.where(mask, weight, old))

    result = run_loop(
        problem.module,
        lambda _epoch: [
            Pass(problem.train, random_label_loss(forget, settings.weight, settings.forget_batch))
        ],
        restart(problem, factor=settings.factor, epochs=settings.epochs),
        hooks=Hooks(edit_gradients=mask_gradients, after_step=put_back),
        watch=problem.watch,
        stage="masked relabelling",
    )
    return Outcome(problem.module, saliency + result.cost)


def saliency_masks(gradient: list[Tensor], *, share: float) -> list[Tensor]:
    """Return True for the `share` of all weights whose gradients are largest in absolute value."""
    flat = torch.cat([part.abs().flatten() for part in gradient])
    chosen = torch.zeros(len(flat), dtype=torch.bool)
    chosen[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    parts = chosen.split([part.numel() for part in gradient])
    return [part.view_as(like) for part, like in zip(parts, gradient, strict=True)]
