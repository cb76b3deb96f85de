"""The softmax linear head in float64: loss, gradient, Hessian, Newton's method to a tolerance.

Rows are features (n, d) with a last column of ones; weights are (C, d). The objective is the mean
cross entropy plus (wd/2)|W|² and, where it was perturbed, ⟨B, W⟩/n with a secret B (Guo et al.
2020). Knows no pictures and no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.unlearning.training import Cost

Matrix = NDArray[np.float64]

_DIRECT = 6000
"""Largest number of weights whose Hessian is factorized; above, and for many labels, CG solves."""
_DIRECT_LABELS = 10
_HALVINGS = 30
_CG_TOLERANCE = 1e-12


@dataclass(frozen=True)
class HeadProblem:
    """The convex objective of a head on one set of rows.

    Attributes:
        features: A, (n, d) float64, last column ones.
        labels: (n,) int64.
        n_labels: C.
        weight_decay: wd, positive: without it adding one vector to every label's weights changes
            nothing, and the Hessian cannot be inverted.
        perturbation: B, (C, d), or None.

    Raises:
        InvalidArgumentError: `weight_decay` is not positive, or there are no rows.
    """

    features: Matrix = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    n_labels: int
    weight_decay: float
    perturbation: Matrix | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check what makes the objective strictly convex."""
        if not self.weight_decay > 0 or len(self.labels) == 0:
            raise InvalidArgumentError(
                "`weight_decay` of a head must be positive and there must be rows, got "
                f"{self.weight_decay!r} and {len(self.labels)} rows. Try 0.001."
            )

    def loss(self, w: Matrix) -> float:
        """Return the objective at W."""
        logs = log_softmax(self.features @ w.T, axis=1)
        mean = -logs[np.arange(len(self.labels)), self.labels].mean()
        return float(mean + 0.5 * self.weight_decay * (w**2).sum() + (self._linear() * w).sum())

    def gradient(self, w: Matrix) -> Matrix:
        """Return the gradient at W, (C, d): (1/n)(P − Y)ᵀ A + wd W + B/n."""
        p = softmax(self.features @ w.T, axis=1)
        p[np.arange(len(self.labels)), self.labels] -= 1
        gradient: Matrix = p.T @ self.features / len(self.labels)
        return gradient + self.weight_decay * w + self._linear()

    def hessian_product(self, w: Matrix, v: Matrix) -> Matrix:
        """Return H(W) v in O(n C d), without forming H."""
        return self._product(softmax(self.features @ w.T, axis=1), v)

    def hessian(self, w: Matrix) -> Matrix:
        """Return H(W), (C d, C d), for W in row-major order."""
        n, d = self.features.shape
        p = softmax(self.features @ w.T, axis=1)
        h = np.zeros((self.n_labels, d, self.n_labels, d))
        for i in range(self.n_labels):
            for j in range(i + 1, self.n_labels):
                scaled = np.sqrt(p[:, i] * p[:, j] / n)[:, None] * self.features
                block = scaled.T @ scaled
                h[i, :, j, :] = h[j, :, i, :] = -block
                # p sums to one, so each row of blocks sums to zero.
                h[i, :, i, :] += block
                h[j, :, j, :] += block
        flat = h.reshape(self.n_labels * d, self.n_labels * d)
        flat[np.diag_indices_from(flat)] += self.weight_decay
        return flat

    def newton_direction(self, w: Matrix, *, damping: float = 0.0) -> Matrix:
        """Return −(H(W) + damping I)⁻¹ ∇L(W), H being taken on these rows at this W."""
        gradient = self.gradient(w)
        if w.size <= _DIRECT and self.n_labels <= _DIRECT_LABELS:
            h = self.hessian(w)
            h[np.diag_indices_from(h)] += damping
            solved = cho_solve(cho_factor(h, overwrite_a=True), gradient.ravel())
            return -np.asarray(solved, dtype=np.float64).reshape(w.shape)
        p = softmax(self.features @ w.T, axis=1)
        return -_cg(lambda v: self._product(p, v) + damping * v, gradient)

    def _product(self, p: Matrix, v: Matrix) -> Matrix:
        m = self.features @ v.T
        pm = p * m
        change: Matrix = (pm - p * pm.sum(1, keepdims=True)).T @ self.features
        return change / len(p) + self.weight_decay * v

    def _linear(self) -> Matrix | float:
        return 0.0 if self.perturbation is None else self.perturbation / len(self.labels)


@dataclass(frozen=True)
class HeadFit:
    """Where a fit ended.

    Attributes:
        weights: W, (C, d).
        gradient_norm: |∇L(W)| of the mean objective.
        steps: Newton steps, halvings not counted.
        cost: Process seconds and rows whose gradient was taken.
        losses: The objective before the first step and after each.
    """

    weights: Matrix = field(repr=False)
    gradient_norm: float
    steps: int
    cost: Cost
    losses: tuple[float, ...] = ()


def newton(
    problem: HeadProblem,
    start: Matrix,
    *,
    tolerance: float,
    max_steps: int,
    damping: float = 0.0,
) -> HeadFit:
    """Minimise by Newton steps, each halved until the objective does not rise.

    Args:
        problem: The objective.
        start: W to start from, (C, d).
        tolerance: Stop at |∇L| ≤ tolerance.
        max_steps: Stop there in any case.
        damping: Added to the Hessian's diagonal.
    """
    started, evaluations, w, steps = time.process_time(), 0, start.copy(), 0
    losses = [problem.loss(w)]
    size = float(np.linalg.norm(problem.gradient(w)))
    while size > tolerance and steps < max_steps:
        w, loss, is_lower = halved_step(problem, w, problem.newton_direction(w, damping=damping))
        losses.append(loss)
        steps += 1
        evaluations += 2 * len(problem.labels)
        size = float(np.linalg.norm(problem.gradient(w)))
        if not is_lower:
            break
    cost = Cost(time.process_time() - started, evaluations)
    return HeadFit(w, size, steps, cost, tuple(losses))


def fit_head(problem: HeadProblem, *, tolerance: float = 1e-9, solver: str = "newton") -> HeadFit:
    """Train a head from zero to |∇L| ≤ tolerance.

    Args:
        problem: The objective.
        tolerance: At which norm of the mean objective's gradient to stop.
        solver: "newton", or "lbfgs", whose last digits Newton steps add.

    Raises:
        InvalidArgumentError: There is no such solver.
        ModelError: The tolerance was not reached.
    """
    if solver not in {"newton", "lbfgs"}:
        raise InvalidArgumentError(f"`solver` must be newton or lbfgs, got {solver!r}.")
    start = np.zeros((problem.n_labels, problem.features.shape[1]))
    cost = Cost()
    if solver == "lbfgs":
        start, cost = _lbfgs(problem, start, tolerance)
    fit = newton(problem, start, tolerance=tolerance, max_steps=100)
    if fit.gradient_norm > tolerance:
        raise ModelError(
            f"The head's gradient stopped at {fit.gradient_norm:.2g} above the `tolerance` of "
            f"{tolerance:.2g}. Raise `tolerance` or `weight_decay`."
        )
    return HeadFit(fit.weights, fit.gradient_norm, fit.steps, cost + fit.cost, fit.losses)


def with_ones(features: NDArray[Any]) -> Matrix:
    """Return features (n, d) in float64 with a column of ones, (n, d + 1)."""
    return np.column_stack([np.asarray(features, dtype=np.float64), np.ones(len(features))])


def _lbfgs(problem: HeadProblem, start: Matrix, tolerance: float) -> tuple[Matrix, Cost]:
    started, evaluations = time.process_time(), 0

    def value(flat: Matrix) -> tuple[float, Matrix]:
        nonlocal evaluations
        evaluations += len(problem.labels)
        w = flat.reshape(start.shape)
        return problem.loss(w), problem.gradient(w).ravel()

    found = minimize(
        value, start.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": 2000, "gtol": tolerance / start.size**0.5, "ftol": 0.0, "maxcor": 20},
    )  # fmt: skip
    weights = np.asarray(found.x, dtype=np.float64).reshape(start.shape)
    return weights, Cost(time.process_time() - started, evaluations)


def halved_step(problem: HeadProblem, w: Matrix, direction: Matrix) -> tuple[Matrix, float, bool]:
    """Take the largest halved step that does not raise the objective.

    Returns:
        The weights, their objective, and False where no length helped.
    """
    before, scale = problem.loss(w), 1.0
    # Rounding: near the minimum the objective is flat to its last digits.
    allowed = before + 1e-13 * abs(before)
    for _ in range(_HALVINGS):
        after = problem.loss(w + scale * direction)
        if after <= allowed:
            return w + scale * direction, after, True
        scale /= 2
    return w, before, False


def _cg(product: Callable[[Matrix], Matrix], b: Matrix) -> Matrix:
    x, residual, direction = np.zeros_like(b), b.copy(), b.copy()
    start = square = float((b * b).sum())
    for _ in range(10 * b.size):
        if square <= _CG_TOLERANCE**2 * start:
            break
        image = product(direction)
        step = square / float((direction * image).sum())
        x, residual = x + step * direction, residual - step * image
        before, square = square, float((residual * residual).sum())
        direction = residual + square / before * direction
    return x
