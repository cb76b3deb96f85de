"""Retrain exactly: the original's recipe from its first weights, on the revised data.

The reference every other method is measured against. Reads no original rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.base import Guarantee, Outcome, Problem
from privacy_core.unlearning.head import HeadProblem, fit_head
from privacy_core.unlearning.training import Pass, cross_entropy, run_loop


@dataclass(frozen=True)
class Settings:
    """Nothing to set: the recipe decides."""


_EXACT = Guarantee(
    0.0, 0.0, "Trained without the rows to be forgotten; covers the trained weights only."
)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Train from scratch, or from the same public base."""
    del settings
    if problem.kind == "head":
        return _retrain_head(problem)
    module = problem.fresh(problem.seed)
    result = run_loop(
        module,
        lambda _epoch: [Pass(problem.train, cross_entropy)],
        replace(problem.recipe.loop(), seed=problem.seed),
        watch=problem.watch,
    )
    return Outcome(module, result.cost, _EXACT)


def _retrain_head(problem: Problem) -> Outcome:
    fit = fit_head(
        head_problem(problem), tolerance=problem.recipe.tolerance, solver=problem.recipe.optimizer
    )
    module = problem.module
    set_weights(module, fit.weights)
    return Outcome(module, fit.cost, _EXACT, {"gradient_norm": fit.gradient_norm})


def head_problem(problem: Problem) -> HeadProblem:
    """Return the objective of the head on D'.

    Raises:
        InvalidArgumentError: The head was trained with a secret term that is not given.
    """
    if problem.recipe.perturbation_sd > 0 and problem.perturbation is None:
        raise InvalidArgumentError(
            "`perturbation` must be the secret the head was trained with, got none. Give the key "
            "file that `train --certify` wrote."
        )
    return HeadProblem(
        problem.train.x.numpy(),
        problem.train.y.numpy(),
        problem.module.get_parameter("weight").shape[0],
        problem.recipe.weight_decay,
        problem.perturbation,
    )


@torch.no_grad()
def set_weights(
    module: torch.nn.Module, weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    """Put a head's weights (C, d + 1) into its module."""
    module.get_parameter("weight").copy_(torch.from_numpy(weights))
