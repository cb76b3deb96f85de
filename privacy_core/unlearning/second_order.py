"""One Newton step on the Gauss–Newton matrix by CG (Warnecke et al. 2023), a labelled baseline.

The matrix is taken on the revised data. Memorized rows have next to no gradient, so the step learns
the replacement and forgets little: that is the method, not this code.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.curvature import (
    Vector,
    add_scaled,
    conjugate_gradient,
    ggn_product,
    largest_eigenvalue,
)
from privacy_core.unlearning.step import influence_gradient, revised_gradient, take_step
from privacy_core.unlearning.training import Cost

_CONDITION = 400
"""Damping is at least the largest eigenvalue over this: below, CG diverges on networks."""


@dataclass(frozen=True)
class Settings:
    """Gradient, damping and solver.

    Attributes:
        gradient: "influence" (the paper's difference, reads Z) or "revised" (the revised
            objective's own, which also removes what training left undone).
        damping: Added to the diagonal beside weight decay; λ_max/400 when None.
        curvature_rows: Rows of D' that the matrix is taken on at most.
        iterations: CG's at most.
        tolerance: CG's, relative.
        reach: Largest step as a share of the weights' own length.
    """

    gradient: Literal["influence", "revised"] = "influence"
    damping: float | None = None
    curvature_rows: int = 2048
    iterations: int = 50
    tolerance: float = 1e-2
    reach: float = 0.1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        if self.damping is not None:
            check_range("damping", self.damping, 0, 1e9)
        check_range("curvature_rows", self.curvature_rows, 1, 1e9)
        check_range("reach", self.reach, 1e-6, 1e3)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Return w − (GGN + (wd + λ) I)⁻¹ G."""
    started, module = time.process_time(), problem.module
    is_influence = settings.gradient == "influence"
    gradient = influence_gradient(problem) if is_influence else revised_gradient(problem)
    generator = torch.Generator().manual_seed(problem.seed)
    order = torch.randperm(len(problem.train), generator=generator)
    rows = problem.train.take(order[: settings.curvature_rows])
    products = 0

    def plain(v: Vector) -> Vector:
        nonlocal products
        products += 1
        return ggn_product(module, rows, v)

    damping = settings.damping
    if damping is None:
        damping = largest_eigenvalue(plain, gradient, seed=problem.seed) / _CONDITION
    shift = damping + problem.recipe.weight_decay

    def damped(v: Vector) -> Vector:
        image = plain(v)
        add_scaled(image, v, shift)
        return image

    found = conjugate_gradient(
        damped, gradient, tolerance=settings.tolerance, max_iterations=settings.iterations
    )
    measured = take_step(problem, [-part for part in found.x], reach=settings.reach)
    measured |= {
        "damping": damping, "cg_iterations": float(found.iterations), "cg_residual": found.residual,
    }  # fmt: skip
    # A product is a double backward, counted as two gradients.
    n_rows = 2 * products * len(rows) + len(problem.train)
    return Outcome(module, Cost(time.process_time() - started, n_rows), measured=measured)
