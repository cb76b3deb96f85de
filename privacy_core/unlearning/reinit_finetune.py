"""Draw part of the weights anew, then fine-tune on the revised data (MSG).

With the originals the weights whose gradients on retained and forgotten rows are most alike are
drawn anew; without them, random ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.curvature import summed_gradient, weights_of
from privacy_core.unlearning.finetune_restart import restart
from privacy_core.unlearning.training import Cost, Pass, cross_entropy, run_loop


@dataclass(frozen=True)
class Settings:
    """How much is drawn anew, and the fine-tuning after it.

    Attributes:
        share: Share of each layer's weights, in [0, 1].
        factor: Peak learning rate as a multiple of the recipe's.
        epochs: Epochs of fine-tuning; as `finetune-restart` when None.
    """

    share: float = 0.5
    factor: float = 1.0
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Check the share.

        Raises:
            InvalidArgumentError: It is not in [0, 1].
        """
        check_range("share", self.share, 0, 1)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Reinitialize, then minimise the cross entropy on D'."""
    generator = torch.Generator().manual_seed(problem.seed)
    scores, cost = _scores(problem, generator)
    reinitialize(problem.module, scores, share=settings.share, generator=generator)
    result = run_loop(
        problem.module,
        lambda _epoch: [Pass(problem.train, cross_entropy)],
        restart(problem, factor=settings.factor, epochs=settings.epochs),
        watch=problem.watch,
        stage="fine-tuning",
    )
    chosen_by = "random" if problem.forget is None else "gradient"
    return Outcome(problem.module, cost + result.cost, measured={"chosen_by": chosen_by})


def _scores(problem: Problem, generator: torch.Generator) -> tuple[list[Tensor], Cost]:
    weights = weights_of(problem.module)
    if problem.forget is None:
        return [torch.rand(w.shape, generator=generator) for w in weights], Cost()
    forget = problem.to_forget()
    n = min(len(forget), len(problem.retain))
    retain = problem.retain.take(torch.randperm(len(problem.retain), generator=generator)[:n])
    on_retain = summed_gradient(problem.module, retain)
    on_forget = summed_gradient(problem.module, forget)
    scores = [
        (r / max(n, 1) - f / len(forget)).abs() for r, f in zip(on_retain, on_forget, strict=True)
    ]
    return scores, Cost(0.0, n + len(forget))


@torch.no_grad()
def reinitialize(
    module: nn.Module, scores: list[Tensor], *, share: float, generator: torch.Generator
) -> None:
    """Draw the `share` of each layer's weights with the smallest scores anew, in place.

    Convolutions only where there are any, else all matrices; Kaiming normal over the fan-out.
    """
    weights = weights_of(module)
    is_convolution = [weight.ndim > 2 for weight in weights]  # noqa: PLR2004
    for weight, score, chosen in zip(weights, scores, is_convolution, strict=True):
        if not (chosen if any(is_convolution) else weight.ndim > 1):
            continue
        n = round(share * weight.numel())
        index = score.flatten().argsort(stable=True)[:n]
        fan_out = weight.shape[0] * math.prod(weight.shape[2:])
        new = torch.randn(n, generator=generator, dtype=weight.dtype) * math.sqrt(2 / fan_out)
        weight.view(-1)[index] = new
