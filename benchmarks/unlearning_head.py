"""The head model of the unlearning benchmark: distance to the retrained head, and cost.

Knows one head on one request set; the attacks on heads are cells like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.unlearning_cells import Bench
from benchmarks.unlearning_requests import RequestSet
from privacy_core.unlearning.base import METHODS, UnlearnRequest
from privacy_core.unlearning.head_model import HeadModel
from privacy_core.unlearning.run import train, unlearn
from privacy_core.unlearning.targets import TargetModel
from privacy_core.unlearning.training import Cost

REPEATS = 15


def head_methods() -> tuple[str, ...]:
    """Return the methods that apply to heads, less retraining itself."""
    return tuple(n for n, one in METHODS.items() if "head" in one.kinds and n != "retrain")


def compare_heads(bench: Bench, request: RequestSet) -> dict[str, Any]:
    """Return each method's distance to the retrained head, and costs, as plain JSON values.

    Distances are of the weights, relative to the original's; retraining is to the same tolerance
    by Newton's method from zero and by L-BFGS. Costs are medians over repeated runs.
    """
    faces, revised = bench.faces, bench.faces.requested(request)
    original = train(bench.model, faces.original)
    exact, newton = _repeated(lambda: _retrained(original, revised, "newton"))
    _, lbfgs = _repeated(lambda: _retrained(original, revised, "lbfgs"))
    apart = _distance(original, exact)
    methods = {}
    for name in head_methods():

        def run(name: str = name) -> tuple[TargetModel, Cost]:
            found = unlearn(
                UnlearnRequest(
                    original, revised, name, open_original=lambda: faces.original, seed=0
                )
            )
            return found.model, found.cost

        model, cost = _repeated(run)
        methods[name] = {"distance": _distance(model, exact) / apart, "seconds": cost}
    return {
        "n_rows": len(revised),
        "n_forget": int((faces.original.labels >= 0).sum() - (~revised.revised).sum()),
        "n_features": bench.faces.original.images.shape[1],
        "original_distance": apart,
        "weights_norm": float(np.linalg.norm(_weights(exact))),
        "retraining_seconds": {"newton": newton, "lbfgs": lbfgs},
        "repeats": REPEATS,
        "methods": methods,
    }


def _retrained(original: TargetModel, revised: Any, solver: Any) -> tuple[TargetModel, Cost]:
    recipe = replace(original.record.recipe, optimizer=solver)
    model = replace(original, record=replace(original.record, recipe=recipe))  # type: ignore[type-var]
    found = unlearn(UnlearnRequest(model, revised, "retrain", seed=0))
    return found.model, found.cost


def _repeated(run: Callable[[], tuple[TargetModel, Cost]]) -> tuple[TargetModel, float]:
    runs = [run() for _ in range(REPEATS)]
    return runs[0][0], float(np.median([cost.seconds for _, cost in runs]))


def _weights(model: TargetModel) -> Any:
    if not isinstance(model, HeadModel):
        raise TypeError(type(model).__name__)
    return model.weights


def _distance(one: TargetModel, other: TargetModel) -> float:
    return float(np.linalg.norm(_weights(one) - _weights(other)))
