"""Bad teaching: follow an untrained network on Z, the original elsewhere; a labelled baseline."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.schedule import LoopSettings
from privacy_core.unlearning.tensors import Rows
from privacy_core.unlearning.training import Moment, Pass, run_loop


@dataclass(frozen=True)
class Settings:
    """Who is followed for how long.

    Attributes:
        retain_share: Share of the retained rows that are shown.
        learning_rate: Adam's.
        epochs: Epochs.
    """

    retain_share: float = 0.3
    learning_rate: float = 1e-4
    epochs: int = 1

    def __post_init__(self) -> None:
        """Check the share.

        Raises:
            InvalidArgumentError: It is not in [0, 1].
        """
        check_range("retain_share", self.retain_share, 0, 1)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Minimise KL(teacher ‖ student), the teacher chosen by row."""
    forget, student = problem.to_forget(), problem.module
    good = copy.deepcopy(student).eval().requires_grad_(requires_grad=False)
    bad = problem.fresh(problem.seed).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(problem.seed)
    n = round(settings.retain_share * len(problem.retain))
    retain = problem.retain.take(torch.randperm(len(problem.retain), generator=generator)[:n])
    is_forgotten = torch.arange(n + len(forget)) >= n
    rows = Rows(torch.cat([retain.x, forget.x]), torch.cat([retain.y, forget.y]), is_forgotten)

    def loss(module: nn.Module, batch: Rows, _moment: Moment) -> Tensor:
        marked = torch.zeros(len(batch)) if batch.marked is None else batch.marked.float()
        told = (1 - marked[:, None]) * good(batch.x).softmax(1) + marked[:, None] * bad(
            batch.x
        ).softmax(1)
        # Summed over labels, mean over rows: kl_div's own default also divides by the labels.
        return functional.kl_div(module(batch.x).log_softmax(1), told, reduction="batchmean")

    loop = LoopSettings(
        settings.epochs, problem.recipe.batch_size, settings.learning_rate, "adam",
        schedule="constant", seed=problem.seed,
    )  # fmt: skip
    result = run_loop(
        student, lambda _epoch: [Pass(rows, loss)], loop, watch=problem.watch, stage="teaching"
    )
    return Outcome(student, result.cost)
