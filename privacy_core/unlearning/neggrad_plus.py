"""Descend on the revised data while ascending, up to a bound, on the rows to be forgotten."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.finetune_restart import restart
from privacy_core.unlearning.tensors import Rows, draw
from privacy_core.unlearning.training import Moment, Pass, run_loop


@dataclass(frozen=True)
class Settings:
    """How descent and ascent are weighed.

    Attributes:
        weight: a in a CE(D') − (1 − a) min(CE(Z), 2 ln C), in [0.5, 1].
        forget_batch: Rows to be forgotten in each step.
        clip: Largest norm of a step's gradient.
        factor: Learning rate as a multiple of the recipe's.
        epochs: Epochs.
    """

    weight: float = 0.95
    forget_batch: int = 32
    clip: float = 5.0
    factor: float = 1.0
    epochs: int = 5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("weight", self.weight, 0.5, 1)
        check_range("forget_batch", self.forget_batch, 1, 1e6)
        check_range("clip", self.clip, 1e-9, 1e9)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Minimise the weighed difference, both in one forward pass."""
    forget = problem.to_forget()

    def loss(module: nn.Module, batch: Rows, moment: Moment) -> Tensor:
        away = draw(forget, settings.forget_batch, moment.generator)
        logits = module(torch.cat([batch.x, away.x]))
        keep, leave = logits.split([len(batch), len(away)])
        return weighed(
            functional.cross_entropy(keep, batch.y),
            functional.cross_entropy(leave, away.y),
            weight=settings.weight,
            n_labels=logits.shape[1],
        )

    loop = restart(problem, factor=settings.factor, epochs=settings.epochs)
    result = run_loop(
        problem.module,
        lambda _epoch: [Pass(problem.train, loss)],
        replace(loop, schedule="cosine", clip=settings.clip),
        watch=problem.watch,
        stage="ascending",
    )
    return Outcome(problem.module, result.cost)


def weighed(keep: Tensor, leave: Tensor, *, weight: float, n_labels: int) -> Tensor:
    """Return a·keep − (1 − a) min(leave, 2 ln C): no gain beyond twice the loss of guessing."""
    return weight * keep - (1 - weight) * leave.clamp(max=2 * math.log(n_labels))
