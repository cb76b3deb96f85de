"""Fine-tune on the revised data under a fading L1 penalty on the weights.

Reads no original rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.finetune_restart import restart
from privacy_core.unlearning.training import Hooks, Moment, Pass, cross_entropy, run_loop


@dataclass(frozen=True)
class Settings:
    """The penalty and the fine-tuning.

    Attributes:
        alpha: The penalty's factor a at the start; a (1 − t) at share t of the steps.
        factor: Peak learning rate as a multiple of the recipe's.
        epochs: Epochs; as `finetune-restart` when None.
    """

    alpha: float = 1e-3
    factor: float = 1.0
    epochs: int | None = 5

    def __post_init__(self) -> None:
        """Check the factor.

        Raises:
            InvalidArgumentError: It is negative.
        """
        check_range("alpha", self.alpha, 0, 1e3)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Minimise CE(D') + a (1 − t) |w|₁; the penalty's gradient is a (1 − t) sign(w)."""

    @torch.no_grad()
    def penalise(module: nn.Module, moment: Moment) -> None:
        for weight in module.parameters():
            if weight.grad is not None:
                weight.grad.add_(weight.sign(), alpha=settings.alpha * (1 - moment.progress))

    result = run_loop(
        problem.module,
        lambda _epoch: [Pass(problem.train, cross_entropy)],
        restart(problem, factor=settings.factor, epochs=settings.epochs),
        hooks=Hooks(edit_gradients=penalise),
        watch=problem.watch,
        stage="sparse fine-tuning",
    )
    return Outcome(problem.module, result.cost)
