"""How the training loop updates weights: its settings, the learning rate of a step, the optimizer.

Knows numbers and a module's weights; no rows and no loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from privacy_core.errors import InvalidArgumentError


@dataclass(frozen=True)
class LoopSettings:
    """How weights are updated; stored beside the result.

    Attributes:
        epochs: Passes over the rows, at least 1.
        batch_size: Rows per step at most; batches of an epoch have nearly equal sizes.
        learning_rate: Peak rate.
        optimizer: SGD with Nesterov momentum, Adam or AdamW.
        momentum: SGD's.
        weight_decay: The optimizer's.
        schedule: "one cycle" (linear warm-up from zero, then a cosine to zero), "cosine" (without
            warm-up) or "constant".
        warmup: Share of the steps that "one cycle" warms up over.
        clip: Largest norm of a step's gradient, None for any.
        augmentation: "flip and shift" (pictures only) or "none".
        seed: Seed of every draw.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["one cycle", "cosine", "constant"] = "one cycle"
    warmup: float = 0.2
    clip: float | None = None
    augmentation: Literal["flip and shift", "none"] = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        rules = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "weight_decay": 0 <= self.weight_decay < math.inf,
        }
        for name, holds in rules.items():
            if not holds:
                raise InvalidArgumentError(
                    f"`{name}` must be positive and finite (`weight_decay` may be 0), "
                    f"got {getattr(self, name)!r}."
                )


def learning_rate(settings: LoopSettings, step: int, total_steps: int) -> float:
    """Return the rate of a step, counted from 0."""
    peak, warm = settings.learning_rate, settings.warmup * total_steps
    if settings.schedule == "constant":
        return peak
    if settings.schedule == "cosine":
        warm = 0.0
    if step + 1 < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm + 1) / (total_steps - warm + 1)))


def optimizer_of(module: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """Return the optimizer of a module's trainable weights."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(weights, rate, momentum, weight_decay=decay, nesterov=momentum > 0)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(weights, rate, weight_decay=decay)
