"""Train a target model and unlearn from it: the steps that are the same whatever the method.

Reads the originals only where the method needs them, and takes batch norm's statistics anew from
the revised data after every method.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import NoiseKey
from privacy_core.unlearning import retrain
from privacy_core.unlearning.base import (
    METHODS,
    Method,
    Outcome,
    Problem,
    UnlearnRequest,
    UnlearnResult,
    load_method,
    method_of,
)
from privacy_core.unlearning.rows import LabelledImages, RevisedSplit, split_revised
from privacy_core.unlearning.targets import TargetModel, TrainingRecord, versions
from privacy_core.unlearning.tensors import Rows, recalibrate
from privacy_core.unlearning.training import Cost, Watch


def train(
    model: TargetModel,
    rows: LabelledImages,
    *,
    perturbation: NDArray[np.float64] | None = None,
    watch: Watch | None = None,
) -> TargetModel:
    """Train a model by its recipe.

    Args:
        model: Untrained; its record's recipe says how.
        rows: Pictures, or features that `model.prepare` made; rows without a label are left out.
        perturbation: The secret linear term of a certified head, (C, d + 1).
        watch: Progress and checkpoint.

    Raises:
        InvalidArgumentError: There are no two labels to tell apart.
    """
    labelled = rows.labelled()
    if len(np.unique(labelled.labels)) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            "`DATA` must hold rows of at least two labels, got fewer. Choose another label column."
        )
    found = model.rows(labelled)
    problem = Problem(
        model.kind, model.module(), model.fresh, found, found, found.take(found.y < 0), None, None,
        model.record.recipe, perturbation, model.record.recipe.seed, NoiseKey.from_seed(0),
        watch or Watch(),
    )  # fmt: skip
    outcome = retrain.unlearn(problem, retrain.Settings())
    cost = outcome.cost + _recalibrated(outcome.module, found)
    return model.updated(outcome.module, _record(model, rows, len(labelled), cost))


def unlearn(request: UnlearnRequest, *, watch: Watch | None = None) -> UnlearnResult:
    """Update a model to revised data.

    Args:
        request: The original model, the revised data, the method.
        watch: Progress and checkpoint; with a checkpoint a killed run resumes.

    Raises:
        InvalidArgumentError: The method is unknown, does not apply to this kind of model, needs
            originals that are not given, or the originals are others than those revised.
    """
    method = method_of(request.method)
    _check(request, method)
    module = load_method(request.method)
    settings = module.Settings() if request.settings is None else request.settings
    split = _split(request, method)
    problem = _problem(request, split, watch or Watch(), settings)
    outcome: Outcome = module.unlearn(problem, settings)
    cost = outcome.cost + _recalibrated(outcome.module, problem.train)
    record = _record(request.model, request.revised, len(split.train), cost)
    if request.method != "retrain":
        # The next request is to be told what retraining costs, not what this update did.
        full_cost, full_rows = request.model.record.full_training()
        record = replace(record, full_cost=full_cost, full_rows=full_rows)
    return UnlearnResult(
        model=request.model.updated(outcome.module, record),
        method=request.method,
        settings=asdict(settings),
        seed=request.seed,
        cost=cost,
        guarantee=outcome.guarantee,
        measured=outcome.measured,
        n_train=len(split.train),
        n_retain=len(split.retain),
        n_replacement=len(split.replacement),
        n_forget=None if split.forget is None else len(split.forget),
    )


def _check(request: UnlearnRequest, method: Method) -> None:
    if request.model.kind not in method.kinds:
        fitting = [name for name, one in METHODS.items() if request.model.kind in one.kinds]
        raise InvalidArgumentError(
            f"`method` must apply to a {request.model.kind} model, got {request.method!r}. "
            f"Choose one of: {', '.join(fitting)}."
        )
    if method.needs_original and request.open_original is None:
        free = [
            name for name, one in METHODS.items()
            if request.model.kind in one.kinds and not one.needs_original
        ]  # fmt: skip
        raise InvalidArgumentError(
            f"`original` must be given for the method {request.method!r}, which reads the rows to "
            f"be forgotten, got none. Give it, or choose one of: {', '.join(free)}."
        )
    if request.revised.labels.max(initial=-1) >= len(request.model.label_names):
        raise InvalidArgumentError(
            f"`revised` must hold the model's {len(request.model.label_names)} labels, got "
            "others. Name the column the model was trained on."
        )


def _split(request: UnlearnRequest, method: Method) -> RevisedSplit:
    """Open the originals only for a method that reads them."""
    is_read = method.needs_original or method.takes_original
    original = request.open_original() if is_read and request.open_original else None
    return split_revised(request.revised, original)


def _problem(request: UnlearnRequest, split: RevisedSplit, watch: Watch, settings: Any) -> Problem:
    model = request.model
    train = model.rows(split.train)
    marked = train.y.new_tensor(split.train.revised).bool()
    key = NoiseKey.fresh() if request.seed is None else NoiseKey.from_seed(request.seed)

    def rows(part: LabelledImages | None) -> Rows | None:
        return None if part is None else model.rows(part)

    return Problem(
        kind=model.kind,
        module=model.module(),
        fresh=model.fresh,
        train=replace(train, marked=marked),
        retain=train.take(~marked),
        replacement=train.take(marked),
        forget=rows(split.forget),
        held_out=rows(request.held_out),
        recipe=model.record.recipe,
        perturbation=request.perturbation,
        seed=request.seed or 0,
        noise=key,
        watch=replace(
            watch, identity=_identity(request, split, settings) if watch.checkpoint else ""
        ),
    )


def _identity(request: UnlearnRequest, split: RevisedSplit, settings: Any) -> str:
    """Return what a checkpoint belongs to."""
    parts = [
        request.method, asdict(settings), request.seed, request.model.digest(),
        split.train.digest(), None if split.forget is None else split.forget.digest(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _recalibrated(module: nn.Module, rows: Rows) -> Cost:
    started = time.process_time()
    recalibrate(module, rows)
    return Cost(time.process_time() - started, 0)


def _record(model: TargetModel, rows: LabelledImages, n_rows: int, cost: Cost) -> TrainingRecord:
    column = model.record.label_column
    return TrainingRecord(model.record.recipe, rows.digest(), n_rows, cost, column, versions())
