"""One cell of the unlearning benchmark: one method on one request set, measured against retraining.

The library makes the models (`audit.shadows`), measures them and applies its gate; what is added
here is accuracy per task, a second attribute, and everything by strength. Every model and every
cell is kept, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.unlearning_data import SIZE, Store, backbone
from benchmarks.unlearning_requests import Faces, RequestSet
from privacy_core.audit.estimates import mean_over_people
from privacy_core.audit.gate import GAPS, decide
from privacy_core.audit.leak import View, cross_probe_auc, difference
from privacy_core.audit.measure import Measured, control_of, measure
from privacy_core.audit.metrics import margin
from privacy_core.audit.parts import Outputs, Part, outputs_of
from privacy_core.audit.parts import parts_of as split_parts
from privacy_core.audit.shadows import Maker, Request, Role, Shadow
from privacy_core.audit.ulira import Scores, evaluate, leave_one_out
from privacy_core.unlearning.head_model import new_head
from privacy_core.unlearning.network import small_resnet
from privacy_core.unlearning.targets import Recipe, TargetModel, TrainingRecord
from privacy_core.unlearning.training import Cost

LABELS = ("female, not smiling", "female, smiling", "male, not smiling", "male, smiling")
WIDTHS = (16, 32, 128)
NETWORK = Recipe("sgd", 5e-4, image_size=SIZE, learning_rate=0.1, epochs=20, batch_size=64)
HEAD = Recipe("newton", 1e-4, image_size=SIZE)
BINS = (0.0, 0.35, 0.45, 0.55, 0.70, 1.0)
"""Edges of the bins of strength."""
UNTOUCHED, RETRAIN = "original", "retrain"
SEED = 0
_FEWEST_ROWS = 20
Kind = Literal["head", "network"]


@dataclass(frozen=True)
class Cell:
    """What is run.

    Attributes:
        kind: Which kind of model.
        request: Whose rows are revised.
        method: "original", "retrain" (the control), or a name of the registry.
        n_models: K of the unlearned models, the references and the control each.
        settings: The method's own, its defaults when None.
        variant: What tells the settings from the defaults, "" for these.
    """

    kind: Kind
    request: RequestSet
    method: str
    n_models: int
    settings: Any | None = field(default=None)
    variant: str = ""

    @property
    def file_name(self) -> str:
        """Return where its result is kept."""
        share = round(100 * self.request.share)
        name = f"{self.kind}-{share}-{self.request.number}-{self.method}-{self.n_models}"
        return f"{name}{'-' if self.variant else ''}{self.variant.replace(' ', '_')}.json"


def base_model(kind: Kind) -> TargetModel:
    """Return the untrained model."""
    if kind == "network":
        record = TrainingRecord(NETWORK, "", 0, Cost(), "smiling and gender")
        return small_resnet(LABELS, record, widths=WIDTHS)
    return new_head(backbone(), LABELS, TrainingRecord(HEAD, "", 0, Cost(), "smiling and gender"))


@dataclass(frozen=True)
class _Made:
    shadow: Shadow
    outputs: Outputs


class Bench:
    """Runs cells of one kind of model.

    Args:
        kind: Which kind.
        work: The work folder.
    """

    def __init__(self, kind: Kind, work: Path) -> None:
        self.kind, self.work = kind, work
        self.faces: Faces = Store(work).faces("64 px" if kind == "network" else "dlib")
        self.model = base_model(kind)
        self._kept: dict[tuple[RequestSet, Role], list[_Made]] = {}

    def run(self, cell: Cell) -> dict[str, Any]:
        """Return a cell's result, which is kept; one that is there is read."""
        path = self.work / "cells" / cell.file_name
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        result = self._measure(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(result))
        temporary.replace(path)
        return result

    def parts(self, request: RequestSet) -> dict[str, Part]:
        """Return the rows by split; the attribute is the original's gender."""
        faces = self.faces
        return split_parts(
            faces.original, faces.requested(request), faces.people,
            attribute=faces.original.labels >= 2,
            test=Part(faces.test, faces.test_people),
        )  # fmt: skip

    def _measure(self, cell: Cell) -> dict[str, Any]:
        parts = self.parts(cell.request)
        references = self._group(cell, "reference", parts)
        controls = self._group(cell, "control", parts)
        models = controls if cell.method == RETRAIN else self._models(cell, parts)
        mine, theirs = _outputs(models), _outputs(references)
        measured = measure(mine, theirs, parts, seed=SEED)
        absent: dict[str, str] = {}
        control = control_of(theirs, _outputs(controls), parts, seed=SEED, absent=absent)
        if control is None:
            raise SystemExit(f"The control could not be run: {absent}.")
        return {
            "kind": cell.kind,
            "request": asdict(cell.request),
            "method": cell.method,
            "variant": cell.variant,
            "settings": None if cell.settings is None else asdict(cell.settings),
            "n_models": cell.n_models,
            "rows": {name: len(part.rows) for name, part in parts.items()},
            "people": {name: len(np.unique(part.people)) for name, part in parts.items()},
            "measured": dict(measured.values),
            "control": control.as_json(),
            "gate": _gate(measured, control.auc.value, control.share_advantage.high).as_json(),
            "cost": _cost(models, references, is_update=cell.method not in {UNTOUCHED, RETRAIN}),
            "tasks": {name: _task(mine, parts, name) for name in TASKS},
            "young": self._young(mine, theirs, parts),
            "by_strength": self._by_strength(mine, theirs, parts),
        }

    def _models(self, cell: Cell, parts: Mapping[str, Part]) -> list[_Made]:
        role: Role = "original" if cell.method == UNTOUCHED else "unlearned"
        return self._group(cell, role, parts)

    def _group(self, cell: Cell, role: Role, parts: Mapping[str, Part]) -> list[_Made]:
        """Return a role's models and what they say; all but unlearned ones are remembered."""
        if any(request != cell.request for request, _ in self._kept):
            self._kept.clear()
        kept = self._kept.get((cell.request, role), [])
        if role != "unlearned" and len(kept) >= cell.n_models:
            return kept[: cell.n_models]
        method = cell.method if role == "unlearned" else "retrain"
        settings = cell.settings if role == "unlearned" else None
        request = Request(
            self.model, self.faces.original, self.faces.requested(cell.request), self.faces.people,
            method, settings, SEED,
        )  # fmt: skip
        shadows = Maker(request, self.work / "shadows", _say).make(role, cell.n_models)
        made = [_Made(one, outputs_of(one.model, parts)) for one in shadows]
        if role != "unlearned":
            self._kept[cell.request, role] = made
        return made

    def _young(
        self, mine: Sequence[Outputs], theirs: Sequence[Outputs], parts: Mapping[str, Part]
    ) -> dict[str, Any]:
        """Return how well a probe reads from revised pictures whether the original is young."""
        part = parts["revised"]
        place = np.searchsorted(self.faces.original.row_ids, part.rows.row_ids)
        young = self.faces.young[place]
        values = [
            [cross_probe_auc(View(one.features["revised"], young, part.people)) for one in side]
            for side in (mine, theirs)
        ]
        return {
            "value": float(np.mean(values[0])),
            "reference": float(np.mean(values[1])),
            "leak": difference(values[0], values[1], seed=SEED).as_json(),
        }

    def _by_strength(
        self, mine: Sequence[Outputs], theirs: Sequence[Outputs], parts: Mapping[str, Part]
    ) -> list[dict[str, Any]]:
        """Return attack and accuracies in each bin of strength."""
        strength_of, forget = self.faces.strength_of, parts["forget"]
        labels = forget.rows.labels
        one, two = (
            np.stack([margin(made.logits["forget"], labels) for made in side])
            for side in (mine, theirs)
        )
        scores = leave_one_out(one, two)
        strength = {
            name: np.array([strength_of.get(int(i), np.nan) for i in parts[name].rows.row_ids])
            for name in ("forget", "revised")
        }
        result = []
        for low, high in pairwise(BINS):
            inside = {name: (low <= s) & (s < high) for name, s in strength.items()}
            if inside["forget"].sum() < _FEWEST_ROWS:
                continue
            chosen = inside["forget"]
            attack = evaluate(Scores(scores.unlearned[:, chosen], scores.reference[:, chosen]),
                              seed=SEED)  # fmt: skip
            result.append(
                {
                    "low": low,
                    "high": high,
                    "n_rows": int(chosen.sum()),
                    "n_people": len(np.unique(forget.people[chosen])),
                    "auc": attack.auc.as_json(),
                    "tasks": {
                        name: {
                            split: _right(mine, parts[split], split, name, mask)
                            for split, mask in inside.items()
                        }
                        for name in TASKS
                    },
                }
            )
        return result


TASKS = ("smiling", "gender")


def task_of(labels: NDArray[Any], task: str) -> NDArray[Any]:
    """Return a task's answer from the joint label."""
    return labels % 2 if task == "smiling" else labels // 2


def _task(models: Sequence[Outputs], parts: Mapping[str, Part], task: str) -> dict[str, Any]:
    return {
        name: _right(models, part, name, task, np.ones(len(part.rows), dtype=np.bool_))
        for name, part in parts.items()
    }


def _right(
    models: Sequence[Outputs], part: Part, split: str, task: str, mask: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return accuracy on one task over the masked rows."""
    truth = task_of(part.rows.labels, task)
    right = np.stack(
        [task_of(one.logits[split].argmax(1), task) == truth for one in models]
    ).astype(np.float64)
    return mean_over_people(right[:, mask], part.people[mask], seed=SEED).as_json()


def _outputs(made: Sequence[_Made]) -> list[Outputs]:
    return [one.outputs for one in made]


def _gate(measured: Measured, control_auc: float, control_share: float | None) -> Any:
    attack = measured.attack
    gaps = measured.values["gap_to_retrain"]
    return decide(
        auc=None if attack is None else attack.auc.value,
        control_auc=control_auc,
        share_advantage=None if attack is None else attack.share_advantage,
        control_share_advantage=control_share,
        gaps={name: gaps[name] for name in GAPS},
    )


def _cost(
    models: Sequence[_Made], references: Sequence[_Made], *, is_update: bool
) -> dict[str, float]:
    """Return mean costs of models and references, and their ratio where the models are updates."""

    def mean(group: Sequence[_Made], name: str) -> float:
        return float(np.mean([getattr(one.shadow.cost, name) for one in group]))

    result = {}
    for name in ("seconds", "gradient_evaluations"):
        result[name], result[f"retraining_{name}"] = mean(models, name), mean(references, name)
        if is_update:
            result[f"ratio_{name}"] = result[name] / result[f"retraining_{name}"]
    return result


def _say(stage: str, done: int, total: int) -> None:
    print(f"  {stage}: {done} of {total}", flush=True)
