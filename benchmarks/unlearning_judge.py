"""What anonymization does to attributes, by judges that saw none of the people.

Rows of the source paper's kind, under a protocol of our own. A judge is a head on the dlib
descriptor, or a network of the benchmark's recipe, trained on people of other splits. Knows no
unlearning.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.unlearning_cells import BINS, TASKS, Kind, base_model, task_of
from benchmarks.unlearning_data import Store
from benchmarks.unlearning_requests import Faces
from privacy_core.audit.estimates import mean_over_people
from privacy_core.unlearning.run import train

SEED = 0
KINDS: tuple[Kind, ...] = ("head", "network")


def judge(work: Path) -> dict[str, Any]:
    """Return accuracies on originals and on their revised pictures; kept, and read if there."""
    path = work / "judge.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    result: dict[str, Any] = {kind: _judged(kind, work) for kind in KINDS}
    path.write_text(json.dumps(result))
    return result


def _judged(kind: Kind, work: Path) -> list[dict[str, Any]]:
    """Return one row per bin of strength, the first over all strengths."""
    store, representation = Store(work), "64 px" if kind == "network" else "dlib"
    faces = store.faces(representation)
    model = train(base_model(kind), store.validation(representation))
    place = np.searchsorted(faces.original.row_ids, faces.revised.row_ids)
    answers = {
        "before": model.logits(faces.original.images[place]).argmax(1),
        "after": model.logits(faces.revised.images).argmax(1),
    }
    bins = ((0.0, 1.0), *pairwise(BINS))
    return [
        _row(answers, faces, people=faces.people[place], low=low, high=high) for low, high in bins
    ]


def _row(
    answers: dict[str, NDArray[Any]],
    faces: Faces,
    *,
    people: NDArray[Any],
    low: float,
    high: float,
) -> dict[str, Any]:
    inside = (low <= faces.strength) & (faces.strength < high)
    truth = faces.revised.labels
    return {
        "low": low,
        "high": high,
        "n_rows": int(inside.sum()),
        "tasks": {
            task: {
                when: mean_over_people(
                    (task_of(found, task) == task_of(truth, task))[inside].astype(np.float64),
                    people[inside],
                    seed=SEED,
                ).as_json()
                for when, found in answers.items()
            }
            for task in TASKS
        },
    }
