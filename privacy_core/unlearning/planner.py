"""What retraining would cost, and whether to retrain exactly or to take a method: in one sentence.

Knows recipes, costs and one timed probe; not the methods themselves.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.base import method_of
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.targets import TargetModel
from privacy_core.unlearning.training import cross_entropy

_DEFAULTS = {"head": "newton-head", "network": "finetune-restart"}
_PROBE_BATCHES = 3


@dataclass(frozen=True)
class Plan:
    """What to do and why.

    Attributes:
        method: A name of the registry.
        retraining_seconds: What exact retraining on the revised data is estimated to cost, in
            process seconds.
        basis: "recorded" (the original's own training) or "probe" (a few timed batches).
        budget: Seconds that may be spent, None where no budget was given.
        reason: The choice in a sentence, for the person who asked.
    """

    method: str
    retraining_seconds: float
    basis: Literal["recorded", "probe"]
    budget: float | None
    reason: str


def plan(
    model: TargetModel,
    revised: LabelledImages,
    *,
    method: str = "auto",
    budget: float | None = None,
    clock: Callable[[], float] = time.process_time,
) -> Plan:
    """Choose: exact retraining where it fits the budget, else the default for the kind of model.

    Args:
        model: The original model.
        revised: The revised data.
        method: "auto", or a name that is then kept.
        budget: Seconds that exact retraining may take; None: it is not asked for.
        clock: Source of process seconds for the probe.

    Raises:
        InvalidArgumentError: The method is unknown or the budget is not positive.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise InvalidArgumentError(
            f"`--budget` must be a positive number of seconds, got {budget!r}. Leave it out to "
            "take the default method."
        )
    seconds, basis = retraining_seconds(model, revised, clock=clock)
    about = f"exact retraining is estimated at {seconds:.3g} s ({basis})"
    if method != "auto":
        method_of(method)
        return Plan(method, seconds, basis, budget, f"{method}, as asked for; {about}.")
    default = _DEFAULTS[model.kind]
    if budget is None:
        reason = f"{default}, the default for a {model.kind}, as no budget was given; {about}."
        return Plan(default, seconds, basis, budget, reason)
    if seconds <= budget:
        reason = f"retrain: {about}, within the budget of {budget:g} s, and nothing is more exact."
        return Plan("retrain", seconds, basis, budget, reason)
    reason = (
        f"{default}, the default for a {model.kind}: {about}, above the budget of {budget:g} s."
    )
    return Plan(default, seconds, basis, budget, reason)


def retraining_seconds(
    model: TargetModel,
    revised: LabelledImages,
    *,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, Literal["recorded", "probe"]]:
    """Estimate exact retraining in process seconds, from the record or by timing a few batches."""
    rows = revised.labelled()
    record = model.record
    cost, n_rows = record.full_training()
    if cost.seconds > 0 and n_rows > 0:
        return cost.seconds * len(rows) / n_rows, "recorded"
    data = model.rows(rows)
    module = copy.deepcopy(model.module()).train()
    size = min(record.recipe.batch_size, len(data))
    batch = data.take(torch.arange(size))
    torch.autograd.backward(cross_entropy(module, batch))  # the first is slower
    started = clock()
    for _ in range(_PROBE_BATCHES):
        torch.autograd.backward(cross_entropy(module, batch))
    each = (clock() - started) / _PROBE_BATCHES
    steps = math.ceil(len(data) / size) * record.recipe.epochs
    return each * steps, "probe"
