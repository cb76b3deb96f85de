"""How long the network is trained: accuracy and loss on validation people by number of epochs.

The length with the lowest validation loss is the benchmark's, and what costs are measured against.
Knows no unlearning.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.unlearning_cells import LABELS, NETWORK, WIDTHS
from benchmarks.unlearning_data import Store
from privacy_core.audit.metrics import is_correct, losses
from privacy_core.unlearning.network import small_resnet
from privacy_core.unlearning.run import train
from privacy_core.unlearning.targets import TrainingRecord
from privacy_core.unlearning.training import Cost

EPOCHS = (10, 20, 40)
SEED = 5


def lengths(work: Path) -> list[dict[str, Any]]:
    """Return one row per length; each is kept, and read if there."""
    path = work / "recipe.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for epochs in EPOCHS:
        if all(row["epochs"] != epochs for row in rows):
            rows.append(_row(work, epochs))
            path.write_text(json.dumps(rows, indent=1))
    return rows


def _row(work: Path, epochs: int) -> dict[str, Any]:
    store = Store(work)
    original, validation = store.faces().original, store.validation()
    recipe = replace(NETWORK, epochs=epochs, seed=SEED)
    untrained = small_resnet(LABELS, TrainingRecord(recipe, "", 0, Cost()), widths=WIDTHS)
    model = train(untrained, original)
    row: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": recipe.learning_rate,
        "weights": sum(p.numel() for p in model.module().parameters()),
        "seconds": model.record.cost.seconds,
    }
    for name, rows in (("validation", validation), ("train", original)):
        logits = model.logits(rows.images)
        row[f"{name}_accuracy"] = float(is_correct(logits, rows.labels).mean())
        row[f"{name}_loss"] = float(losses(logits, rows.labels).mean())
    return row
