"""Relearn time: how few steps on the forgotten rows bring them back.

Knows models and labelled rows; not how the models came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from privacy_core.audit.metrics import losses
from privacy_core.audit.parts import Part
from privacy_core.audit.shadows import Shadow
from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.targets import TargetModel
from privacy_core.unlearning.tensors import draw

MOST_STEPS = 200


def mean_loss(model: TargetModel, rows: LabelledImages) -> float:
    """Return a model's mean cross entropy on rows, in nats."""
    return float(losses(model.logits(rows.images), rows.labels).mean())


def relearn_steps(
    model: TargetModel,
    forget: LabelledImages,
    *,
    loss_below: float,
    learning_rate: float,
    max_steps: int = MOST_STEPS,
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


def add_relearning(
    values: Mapping[str, dict[str, Any]],
    groups: Mapping[str, Sequence[Shadow]],
    parts: Mapping[str, Part],
    *,
    n_models: int,
    seed: int,
) -> None:
    """Add relearn times in steps to each group's values, and their ratio to the references'.

    Args:
        values: Group → its metrics.
        groups: Group → its models.
        parts: The rows; nothing is added where none are to be forgotten.
        n_models: On how many of each group it is timed.
        seed: Seed of the batches.
    """
    if "forget" not in parts or "reference" not in groups or n_models == 0:
        return
    forget = parts["forget"].rows
    bound = float(np.mean([mean_loss(one.model, forget) for one in groups["original"]]))
    rate = groups["original"][0].model.record.recipe.learning_rate / 10
    steps: dict[str, float] = {}
    for name in ("unlearned", "reference"):
        found = [
            relearn_steps(
                one.model, forget, loss_below=bound, learning_rate=rate, max_steps=MOST_STEPS,
                seed=seed,
            )
            for one in groups[name][:n_models]
        ]  # fmt: skip
        values[name]["relearn"] = {
            "steps": found,
            "most_steps": MOST_STEPS,
            "learning_rate": rate,
            "loss_below": bound,
        }
        if None not in found:
            steps[name] = float(np.mean([step for step in found if step is not None]))
    if len(steps) == 2 and steps["reference"] > 0:  # noqa: PLR2004
        values["unlearned"]["relearn"]["ratio_to_reference"] = (
            steps["unlearned"] / steps["reference"]
        )
