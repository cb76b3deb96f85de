"""Relearn time: how few steps on the forgotten rows bring them back.

Knows a target model and labelled rows; not how the model came about.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from privacy_core.audit.metrics import losses
from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.targets import TargetModel
from privacy_core.unlearning.tensors import draw


def mean_loss(model: TargetModel, rows: LabelledImages) -> float:
    """Return a model's mean cross entropy on rows, in nats."""
    return float(losses(model.logits(rows.images), rows.labels).mean())


def relearn_steps(
    model: TargetModel,
    forget: LabelledImages,
    *,
    loss_below: float,
    learning_rate: float,
    max_steps: int = 200,
    seed: int = 0,
) -> int | None:
    """Return how many plain SGD steps on the forget rows bring their loss under a bound.

    The model is not changed. Batch norm's statistics stay as they are.

    Args:
        model: Where to start.
        forget: The original rows.
        loss_below: The bound: the original model's own mean loss on them.
        learning_rate: Of every step; the same for all models compared.
        max_steps: When to give up.
        seed: Seed of the batches.

    Returns:
        0 where the model is there already; None where `max_steps` were not enough.

    Raises:
        InvalidArgumentError: There are no rows.
    """
    if len(forget) == 0:
        raise InvalidArgumentError(
            "`forget` must hold at least one row, got none. Leave the metric out."
        )
    rows, module = model.rows(forget), model.module().eval()
    generator = torch.Generator().manual_seed(seed)
    n_batch = min(len(rows), model.record.recipe.batch_size)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for step in range(max_steps + 1):
        with torch.no_grad():
            parts = [
                functional.cross_entropy(module(part.x), part.y, reduction="sum")
                for part in rows.batches(256)
            ]
        if float(sum(parts)) / len(rows) <= loss_below:
            return step
        batch = draw(rows, n_batch, generator)
        loss = functional.cross_entropy(module(batch.x), batch.y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=learning_rate)
    return None
