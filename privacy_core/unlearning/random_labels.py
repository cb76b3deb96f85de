"""Train what is to be forgotten on random wrong labels, as a labelled baseline.

By the per-example attack it is easier to detect than doing nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.finetune_restart import restart
from privacy_core.unlearning.tensors import Rows, draw
from privacy_core.unlearning.training import Loss, Moment, Pass, run_loop


@dataclass(frozen=True)
class Settings:
    """The loss and the fine-tuning.

    Attributes:
        weight: b in CE(D') + b CE(Z, random labels).
        forget_batch: Rows to be forgotten in each step.
        factor: Peak learning rate as a multiple of the recipe's.
        epochs: Epochs.
    """

    weight: float = 1.0
    forget_batch: int = 32
    factor: float = 1.0
    epochs: int = 5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("weight", self.weight, 0, 1e3)
        check_range("forget_batch", self.forget_batch, 1, 1e6)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Minimise the loss over all weights."""
    loss = random_label_loss(problem.to_forget(), settings.weight, settings.forget_batch)
    result = run_loop(
        problem.module,
        lambda _epoch: [Pass(problem.train, loss)],
        restart(problem, factor=settings.factor, epochs=settings.epochs),
        watch=problem.watch,
        stage="relabelling",
    )
    return Outcome(problem.module, result.cost)


def random_label_loss(forget: Rows, weight: float, forget_batch: int) -> Loss:
    """Return CE(D') + b CE(Z, labels drawn anew in each step), both in one forward pass."""

    def loss(module: nn.Module, batch: Rows, moment: Moment) -> Tensor:
        away = draw(forget, forget_batch, moment.generator)
        logits = module(torch.cat([batch.x, away.x]))
        keep, leave = logits.split([len(batch), len(away)])
        wrong = wrong_labels(away.y, logits.shape[1], moment.generator)
        return functional.cross_entropy(keep, batch.y) + weight * functional.cross_entropy(
            leave, wrong
        )

    return loss


def wrong_labels(labels: Tensor, n_labels: int, generator: torch.Generator) -> Tensor:
    """Return a uniformly drawn label other than its own for each row."""
    return (labels + torch.randint(1, n_labels, labels.shape, generator=generator)) % n_labels
