"""Newton steps of a linear head on the revised data's own Hessian; certified where it can be.

The gradient of the revised objective is taken itself, so no original row is read and what training
left undone is removed too.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from privacy_core.noise import NoiseKey, standard_normals
from privacy_core.unlearning.base import Guarantee, Outcome, Problem, check_range
from privacy_core.unlearning.head import Matrix, halved_step
from privacy_core.unlearning.retrain import head_problem, set_weights
from privacy_core.unlearning.targets import Recipe
from privacy_core.unlearning.training import Cost

_MOST_STEPS = 100


@dataclass(frozen=True)
class Settings:
    """How far to go.

    Attributes:
        steps: Newton steps at first.
        accuracy: More are taken while the next would be longer than this share of the way so far:
            near the minimum a Newton step is as long as the way that is left. A certified head
            goes on to the recipe's tolerance in any case, because its ε rests on it.
        damping: Added to the Hessian's diagonal, for the steps only.
        delta: δ of the certificate.
    """

    steps: int = 2
    accuracy: float = 5e-3
    damping: float = 0.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("steps", self.steps, 1, _MOST_STEPS)
        check_range("accuracy", self.accuracy, 0, math.inf)
        check_range("damping", self.damping, 0, math.inf)
        check_range("delta", self.delta, 1e-300, 0.5)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Return the head after the steps, each halved while it would raise the objective."""
    started, objective = time.process_time(), head_problem(problem)
    start = problem.module.get_parameter("weight").detach().numpy().copy()
    w, n_steps, left = start, 0, 0.0
    while (size := float(np.linalg.norm(objective.gradient(w)))) > problem.recipe.tolerance:
        direction = objective.newton_direction(w, damping=settings.damping)
        gone = float(np.linalg.norm(w - start))
        left = float(np.linalg.norm(direction)) / gone if gone > 0 else math.inf
        if _is_enough(problem.recipe, settings, n_steps, left):
            break
        w, _, is_lower = halved_step(objective, w, direction)
        if not is_lower:
            break
        n_steps, left = n_steps + 1, 0.0
    set_weights(problem.module, w)
    n_rows = len(objective.labels)
    guarantee = certify(problem.recipe, n_rows, size, delta=settings.delta)
    measured = {"gradient_norm": size, "newton_steps": float(n_steps), "share_left": left}
    # The gradient, and the Hessian's product with the step, once each.
    cost = Cost(time.process_time() - started, (2 * n_steps + 1) * n_rows)
    return Outcome(problem.module, cost, guarantee, measured)


def _is_enough(recipe: Recipe, settings: Settings, n_steps: int, left: float) -> bool:
    """Return whether to stop above the tolerance; a certified head does not."""
    if n_steps >= _MOST_STEPS:
        return True
    is_certified = recipe.perturbation_sd > 0
    return n_steps >= settings.steps and left <= settings.accuracy and not is_certified


def certify(recipe: Recipe, n_rows: int, gradient_norm: float, *, delta: float) -> Guarantee:
    """Return (ε, δ) of a perturbed head (Guo et al. 2020, theorem 3).

    ε = r √(2 ln(1.5/δ)) / σ with r the bound on the gradient of the summed objective. Here r is
    twice n times the recipe's tolerance, once for the update and once for the retraining it is
    compared with: a number fixed before the data was seen, so that ε itself tells nothing.

    Args:
        recipe: Its `perturbation_sd` is σ.
        n_rows: n of the revised data.
        gradient_norm: Where the update ended, of the mean objective.
        delta: δ.
    """
    if recipe.perturbation_sd <= 0:
        return Guarantee(None, None, "The head was trained without a secret term (`--certify`).")
    if not recipe.perturbation_is_secret:
        return Guarantee(None, None, "noise not secret")
    if gradient_norm > recipe.tolerance:
        return Guarantee(
            None, None, "The update did not reach the tolerance that the proof rests on; retrain."
        )
    residual = 2 * n_rows * recipe.tolerance
    epsilon = residual * math.sqrt(2 * math.log(1.5 / delta)) / recipe.perturbation_sd
    return Guarantee(
        epsilon, delta,
        "Covers the head given the revised data, for one request; ε adds up over requests. Says "
        "nothing about what the revised pictures reveal, nor about the backbone's own training.",
    )  # fmt: skip


def draw_perturbation(key: NoiseKey, shape: tuple[int, int], sd: float) -> Matrix:
    """Return the secret linear term B ~ N(0, sd²), (C, d + 1), that belongs to `key`."""
    n_labels, width = shape
    normals = standard_normals(key, "privacy-dial objective perturbation", n_labels * width)
    return sd * normals.reshape(shape)
