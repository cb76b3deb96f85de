"""SCRUB+R: a student leaves its teacher on what is to be forgotten and stays with it elsewhere.

The teacher is the original, frozen. It is followed on retained rows only: on revised pictures it is
wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.schedule import LoopSettings
from privacy_core.unlearning.tensors import Rows, error_rate, recalibrate
from privacy_core.unlearning.training import Hooks, LoopResult, Moment, Pass, run_loop


@dataclass(frozen=True)
class Settings:
    """How far the student leaves and how it is held.

    Attributes:
        ascent_epochs: Epochs that begin with a pass away from the teacher on Z.
        epochs: Epochs in all.
        gamma: Weight of CE(D').
        alpha: Weight of KL(teacher ‖ student) on retained rows.
        temperature: T of both.
        learning_rate: Adam's.
        forget_batch: Rows per step on Z.
        clip: Largest norm of a step's gradient.
    """

    ascent_epochs: int = 2
    epochs: int = 5
    gamma: float = 0.99
    alpha: float = 0.1
    temperature: float = 4.0
    learning_rate: float = 2e-3
    forget_batch: int = 64
    clip: float = 5.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("ascent_epochs", self.ascent_epochs, 0, self.epochs)
        check_range("temperature", self.temperature, 1e-3, 1e3)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Alternate both passes; with held-out rows, return the epoch whose error on Z fits theirs."""
    forget, student = problem.to_forget(), problem.module
    teacher = copy.deepcopy(student).eval().requires_grad_(requires_grad=False)

    def leave(module: nn.Module, batch: Rows, _moment: Moment) -> Tensor:
        return -divergence(teacher(batch.x), module(batch.x), settings.temperature)

    def stay(module: nn.Module, batch: Rows, _moment: Moment) -> Tensor:
        logits = module(batch.x)
        loss = settings.gamma * functional.cross_entropy(logits, batch.y)
        retained = torch.ones(len(batch), dtype=torch.bool)
        if batch.marked is not None:
            retained = ~batch.marked
        if retained.any():
            told = teacher(batch.x[retained])
            loss += settings.alpha * divergence(told, logits[retained], settings.temperature)
        return loss

    def passes(epoch: int) -> Sequence[Pass]:
        away = [Pass(forget, leave, settings.forget_batch)]
        return [*(away if epoch < settings.ascent_epochs else []), Pass(problem.train, stay)]

    loop = LoopSettings(
        settings.epochs, problem.recipe.batch_size, settings.learning_rate, "adam",
        schedule="constant", clip=settings.clip, augmentation=problem.recipe.augmentation,
        seed=problem.seed,
    )  # fmt: skip
    hooks = Hooks(keep_epochs=problem.held_out is not None)
    result = run_loop(student, passes, loop, hooks=hooks, watch=problem.watch, stage="scrubbing")
    return Outcome(student, result.cost, measured=_rewind(problem, result))


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return T² KL(teacher ‖ student) of logits at temperature T, mean over rows."""
    return temperature**2 * functional.kl_div(
        (student / temperature).log_softmax(1),
        (teacher / temperature).log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )


def _rewind(problem: Problem, result: LoopResult) -> dict[str, float | str]:
    """Put the epoch back whose error on Z is nearest the final model's on held-out rows."""
    if problem.held_out is None:
        return {"rewound_to": "none: no held-out rows were given"}
    module, forget = problem.module, problem.to_forget()
    recalibrate(module, problem.train)
    goal = error_rate(module, problem.held_out)
    errors = []
    for state in result.epochs:
        module.load_state_dict(state)
        recalibrate(module, problem.train)
        errors.append(error_rate(module, forget))
    best = min(range(len(errors)), key=lambda epoch: abs(errors[epoch] - goal))
    module.load_state_dict(result.epochs[best])
    return {"rewound_to": float(best + 1), "error_held_out": goal, "error_forget": errors[best]}
