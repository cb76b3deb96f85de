"""Certified unlearning by clipped weights and secret noise, then fine-tuning.

Model clipping (Koloskova et al. 2025): assumes neither convexity nor smoothness and reads no
original rows. The noise grows with the root of the number of weights, so it is for heads and small
networks.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from scipy.special import log_ndtr, ndtr
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import standard_normals
from privacy_core.unlearning.base import Guarantee, Outcome, Problem, check_range
from privacy_core.unlearning.curvature import norm, weights_of
from privacy_core.unlearning.finetune_restart import restart
from privacy_core.unlearning.head import newton
from privacy_core.unlearning.retrain import head_problem, set_weights
from privacy_core.unlearning.tensors import draw, recalibrate
from privacy_core.unlearning.training import Cost, Pass, cross_entropy, run_loop


@dataclass(frozen=True)
class Settings:
    """What is to be proved, and with which noise; fixed without looking at data or weights.

    Attributes:
        epsilon, delta: The goal.
        first_clip, clip: C0, C2: radii of the balls that weights are projected on.
        first_noise, noise: s0, s: standard deviations.
        learning_rate: g of a noisy step.
        batch_size: Rows of a noisy step.
        max_steps: Noisy steps at most.
        finetune_epochs: Noise-free epochs afterwards, of a network; a head is taken to its minimum.
    """

    epsilon: float = 1.0
    delta: float = 1e-5
    first_clip: float = 10.0
    clip: float = 10.0
    first_noise: float = 5.0
    noise: float = 5.0
    learning_rate: float = 0.1
    batch_size: int = 256
    max_steps: int = 200
    finetune_epochs: int = 5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("epsilon", self.epsilon, 1e-9, 1e4)
        check_range("delta", self.delta, 1e-300, 0.5)
        for name in ("first_clip", "clip", "first_noise", "noise", "learning_rate"):
            check_range(name, getattr(self, name), 1e-12, 1e12)


def hockey_stick(epsilon: float, r: float) -> float:
    """Return Th_ε(r) = Q(ε/r − r/2) − e^ε Q(ε/r + r/2), the δ of a Gaussian with sensitivity r s.

    The second term is taken as exp(ε + log Q), which stays finite where e^ε does not.
    """
    if r == 0:
        return 0.0
    second = math.exp(epsilon + float(log_ndtr(-(epsilon / r + r / 2))))
    return max(0.0, float(ndtr(-(epsilon / r - r / 2))) - second)


def noisy_steps(settings: Settings) -> int:
    """Return how many noisy steps the goal takes.

    Raises:
        InvalidArgumentError: It is not reached within `max_steps`.
    """
    delta = hockey_stick(settings.epsilon, 2 * settings.first_clip / settings.first_noise)
    ratio, steps = 2 * settings.clip / settings.noise, 0
    while delta > settings.delta and steps < settings.max_steps:
        shifted = math.log1p(math.expm1(settings.epsilon) / delta)
        delta *= hockey_stick(shifted, ratio)
        steps += 1
    if delta > settings.delta:
        raise InvalidArgumentError(
            f"`max_steps` must let δ fall to {settings.delta:g}, got {delta:.2g} after "
            f"{steps} steps. Raise `noise`, lower `clip`, or raise `epsilon`."
        )
    return steps


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Clip and add noise, take noisy steps on D' until δ is met, then fine-tune without noise."""
    started, module, steps = time.process_time(), problem.module, noisy_steps(settings)
    generator = torch.Generator().manual_seed(problem.seed)
    _project(module, settings.first_clip)
    _add_noise(problem, settings.first_noise, "first")
    # The old running statistics hold Z and are under no noise: they go before any gradient.
    recalibrate(module, problem.train)
    for step in range(steps):
        batch = draw(problem.train, settings.batch_size, generator)
        loss = functional.cross_entropy(module(batch.x), batch.y)
        gradient = torch.autograd.grad(loss, weights_of(module))
        _descend(module, gradient, settings.learning_rate, problem.recipe.weight_decay)
        _project(module, settings.clip)
        _add_noise(problem, settings.noise, f"step {step}")
        problem.watch.progress("noisy steps", step + 1, steps)
    recalibrate(module, problem.train)
    cost = Cost(time.process_time() - started, steps * settings.batch_size)
    cost += _finetune(problem, settings)
    guarantee = Guarantee(None, None, "noise not secret")
    if problem.noise.secret:
        guarantee = Guarantee(
            settings.epsilon, settings.delta,
            "Covers the trained weights against the same procedure started from any others.",
        )  # fmt: skip
    return Outcome(module, cost, guarantee, {"noisy_steps": float(steps)})


def _finetune(problem: Problem, settings: Settings) -> Cost:
    if problem.kind == "head":
        start = problem.module.get_parameter("weight").detach().numpy()
        fit = newton(
            head_problem(problem), start, tolerance=problem.recipe.tolerance, max_steps=100
        )
        set_weights(problem.module, fit.weights)
        return fit.cost
    loop = restart(problem, factor=1.0, epochs=settings.finetune_epochs)
    # A resumed run would draw other noise: nothing of this method is kept half-way.
    watch = replace(problem.watch, checkpoint=None)
    passes = [Pass(problem.train, cross_entropy)]
    return run_loop(problem.module, lambda _e: passes, loop, watch=watch, stage="fine-tuning").cost


@torch.no_grad()
def _project(module: nn.Module, radius: float) -> None:
    length = norm(weights_of(module))
    if length > radius:
        for weight in weights_of(module):
            weight.mul_(radius / length)


@torch.no_grad()
def _add_noise(problem: Problem, sd: float, label: str) -> None:
    weights = weights_of(problem.module)
    n = sum(weight.numel() for weight in weights)
    normals = torch.from_numpy(standard_normals(problem.noise, f"clipped noise {label}", n))
    parts = normals.split([weight.numel() for weight in weights])
    for weight, part in zip(weights, parts, strict=True):
        weight.add_((sd * part).view_as(weight).to(weight.dtype))


@torch.no_grad()
def _descend(
    module: nn.Module, gradient: tuple[Tensor, ...], rate: float, weight_decay: float
) -> None:
    for weight, part in zip(weights_of(module), gradient, strict=True):
        weight.sub_(rate * (part + weight_decay * weight))
