"""The audit from end to end: shadow models, measurements, gate, `audit.json`, plots.

Knows models and rows in memory, and the folder the evidence goes to; no command line, no Hub.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from privacy_core.audit import metrics
from privacy_core.audit.gate import GAPS, GateResult, decide
from privacy_core.audit.measure import (
    Measured,
    Outputs,
    Part,
    control_of,
    measure,
    outputs_of,
    parts_of,
)
from privacy_core.audit.plots import draw_plots
from privacy_core.audit.relearn import mean_loss, relearn_steps
from privacy_core.audit.shadows import Maker, Request, Role, Shadow
from privacy_core.audit.ulira import Control
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.unlearning.base import load_method
from privacy_core.unlearning.targets import TargetModel, versions, write_json
from privacy_core.unlearning.training import Cost, quiet

SCHEMA_VERSION = 1
AUDIT, PLOTS = "audit.json", "plots"
LIMITS = (
    "The attacks are those listed; others may find more.",
    "The per-example attack is on models made as the released one was, not on that one alone.",
    "A revised picture is still learned from: this is rectification with evidence, not erasure.",
    "Leaving a model out draws the attack below one half: compare with the control row.",
)
_MOST_STEPS = 200


@dataclass(frozen=True)
class AuditSettings:
    """How much is measured; stored in `audit.json`.

    Attributes:
        n_models: K, shadow models per role; 0 measures the given models only.
        relearn_models: On how many of each group relearning is timed; 0 leaves it out.
        share: See `shadows.Request`.
        seed: Seed of shadow models and bootstraps.
    """

    n_models: int = 8
    relearn_models: int = 2
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            InvalidArgumentError: They cannot be.
        """
        if self.n_models not in {0, *range(3, 1025)}:
            raise InvalidArgumentError(
                "`n_models` must be 0 or from 3 to 1024, got "
                f"{self.n_models!r}: the attack leaves one out. Take 8, or 16 for a release."
            )
        if self.relearn_models < 0:
            raise InvalidArgumentError(
                f"`relearn_models` must be at least 0, got {self.relearn_models!r}."
            )


@dataclass(frozen=True)
class AuditRequest:
    """What is audited.

    Attributes:
        unlearned: The model to be released.
        against: The original model.
        shadows: Data, people and method that shadow models share.
        test: Rows of people who are not in the data; None where there are none.
        attribute: (n,) whether each original row has the attribute the revision hid.
        reference: A retrained model; None to rely on shadow models.
        digests: Further digests to state, such as the revised folder's.
        provenance: Where data and preferences come from, as plain JSON values for the card.
    """

    unlearned: TargetModel
    against: TargetModel
    shadows: Request
    test: Part | None = None
    attribute: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None = field(
        default=None, repr=False
    )
    reference: TargetModel | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """What was found: `audit.json` as plain values, the gate, and what the plots need."""

    values: Mapping[str, Any]
    gate: GateResult
    curves: Mapping[str, Any] = field(repr=False)

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write `audit.json` and `plots/` into a model folder and return their paths.

        Raises:
            OutputError: A file cannot be written.
        """
        groups = self.values["models"]
        plots = draw_plots(
            folder / PLOTS,
            accuracies={name: one["accuracy"] for name, one in groups.items() if name in _DRAWN},
            curves=self.curves,
            costs=self.values["costs"],
        )
        path = folder / AUDIT
        temporary = folder / f".{AUDIT}.part"
        try:
            write_json(temporary, self.values)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(
                f"The audit in {folder.name!r} cannot be written ({error.strerror}). "
                "Free space or choose another place."
            ) from error
        return (path, *plots)


_DRAWN = ("original", "unlearned", "reference")


def hardware_line() -> str:
    """Return what the costs were measured on, in one line without a name of the machine."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{platform.system()}, no GPU"
    )


def audit(
    request: AuditRequest,
    settings: AuditSettings,
    *,
    shadow_folder: Path,
    hardware: str,
    progress: Callable[[str, int, int], None] = quiet,
) -> Audit:
    """Run the whole audit; an interrupted one goes on from the shadow models that are there.

    Args:
        request: Models and rows.
        settings: How much.
        shadow_folder: Where shadow models are kept.
        hardware: See `hardware_line`.
        progress: Called with stage, steps done and steps in all.

    Raises:
        InvalidArgumentError: Models or rows do not belong together.
        OutputError: Shadow models cannot be kept.
    """
    shared = request.shadows
    _check(request)
    parts = parts_of(
        shared.original,
        shared.revised,
        shared.people,
        attribute=request.attribute,
        test=request.test,
    )
    groups = _groups(request, settings, shadow_folder, progress)
    outputs = {name: [outputs_of(one.model, parts) for one in g] for name, g in groups.items()}
    measured = _measured(outputs, parts, settings.seed)
    models = {name: dict(one.values) for name, one in measured.items()}
    _add_relearning(models, groups, parts, settings)
    costs = _costs(groups)
    control = control_of(
        outputs.get("reference", []), outputs.get("control", []), parts, seed=settings.seed
    )
    gate = _gate(measured, outputs, parts, control=control, is_shadowed=settings.n_models > 0)
    if control is not None:
        models["reference"]["u_lira_control"] = control.as_json()
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "method": shared.method,
        "method_settings": _method_settings(shared),
        "settings": asdict(settings) | {"share": shared.shown_share},
        "seeds": {name: [one.seed for one in g] for name, g in groups.items() if name in _ROLES},
        "rows": {name: len(part.rows) for name, part in parts.items()},
        "people": {name: len(np.unique(part.people)) for name, part in parts.items()},
        "models": models,
        "costs": costs,
        "gate": gate.as_json(),
        "digests": _digests(request),
        "provenance": dict(request.provenance),
        "hardware": hardware,
        "versions": versions(),
        "limits": list(LIMITS),
    }
    curves = {name: one.attack.roc for name, one in measured.items() if one.attack is not None}
    return Audit(values, gate, {name: c for name, c in curves.items() if name in _DRAWN})


_ROLES: tuple[Role, ...] = ("original", "unlearned", "reference", "control")


def _check(request: AuditRequest) -> None:
    names = request.against.label_names
    for one in (request.unlearned, request.reference):
        if one is not None and one.label_names != names:
            raise InvalidArgumentError(
                f"All models must tell the same labels, got {', '.join(one.label_names)} and "
                f"{', '.join(names)}. Audit models of one `train`."
            )


def _groups(
    request: AuditRequest,
    settings: AuditSettings,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> dict[str, Sequence[Shadow]]:
    """Return the models of each group; "released" and "given reference" are single ones."""

    def given(role: Role, model: TargetModel) -> tuple[Shadow, ...]:
        return (Shadow(role, model.record.recipe.seed, model, model.record.cost),)

    released = given("unlearned", request.unlearned)
    reference = () if request.reference is None else given("reference", request.reference)
    groups: dict[str, Sequence[Shadow]]
    if settings.n_models == 0:
        groups = {
            "original": given("original", request.against),
            "unlearned": released,
            "reference": reference,
        }
    else:
        maker = Maker(request.shadows, folder, progress)
        groups = {role: maker.make(role, settings.n_models) for role in _ROLES}
        groups |= {"released": released, "given reference": reference}
    return {name: group for name, group in groups.items() if group}


def _measured(
    outputs: Mapping[str, Sequence[Outputs]],
    parts: Mapping[str, Part],
    seed: int,
) -> dict[str, Measured]:
    """Measure every group against the references; the references against the control."""
    references = outputs.get("reference", [])
    result = {}
    for name, group in outputs.items():
        if name == "control":
            continue
        against = outputs.get("control", []) if name == "reference" else references
        result[name] = measure(group, against, parts, seed=seed)
    return result


def _gate(
    measured: Mapping[str, Measured],
    outputs: Mapping[str, Sequence[Outputs]],
    parts: Mapping[str, Part],
    *,
    control: Control | None,
    is_shadowed: bool,
) -> GateResult:
    mine = measured["unlearned"].attack
    gaps = measured["unlearned"].values.get("gap_to_retrain", {})
    return decide(
        auc=None if mine is None else mine.auc.value,
        control_auc=None if control is None else control.auc.value,
        share_advantage=None if mine is None else mine.share_advantage,
        # One split's share is a draw, so the upper end of many is the limit.
        control_share_advantage=None if control is None else control.share_advantage.high,
        gaps={name: gaps[name] for name in GAPS if name in gaps},
        rows=[name for name in GAPS if name != "revised" or name in parts],
        released=_released(outputs, parts) if is_shadowed else None,
    )


def _released(
    outputs: Mapping[str, Sequence[Outputs]], parts: Mapping[str, Part]
) -> dict[str, tuple[float, float]]:
    """Return rows → the released model's gap, and the largest of a reference model."""
    result = {}
    for name in (name for name in GAPS if name in parts):
        labels = parts[name].rows.labels

        def accuracy(one: Outputs, name: str = name, labels: Any = labels) -> float:
            return float(metrics.is_correct(one.logits[name], labels).mean())

        references = [accuracy(one) for one in outputs["reference"]]
        spread = max(metrics.gap(value, references) for value in references)
        result[name] = (metrics.gap(accuracy(outputs["released"][0]), references), spread)
    return result


def _add_relearning(
    models: dict[str, dict[str, Any]],
    groups: Mapping[str, Sequence[Shadow]],
    parts: Mapping[str, Part],
    settings: AuditSettings,
) -> None:
    """Add relearn times in steps, and their ratio to the references'."""
    if "forget" not in parts or "reference" not in groups or settings.relearn_models == 0:
        return
    forget = parts["forget"].rows
    bound = float(np.mean([mean_loss(one.model, forget) for one in groups["original"]]))
    recipe = groups["original"][0].model.record.recipe
    rate = recipe.learning_rate / 10
    steps: dict[str, float] = {}
    for name in ("unlearned", "reference"):
        found = [
            relearn_steps(
                one.model, forget, loss_below=bound, learning_rate=rate, max_steps=_MOST_STEPS,
                seed=settings.seed,
            )
            for one in groups[name][: settings.relearn_models]
        ]  # fmt: skip
        models[name]["relearn"] = {
            "steps": found,
            "most_steps": _MOST_STEPS,
            "learning_rate": rate,
            "loss_below": bound,
        }
        if None not in found:
            steps[name] = float(np.mean([step for step in found if step is not None]))
    if len(steps) == 2 and steps["reference"] > 0:  # noqa: PLR2004
        ratio = steps["unlearned"] / steps["reference"]
        models["unlearned"]["relearn"]["ratio_to_reference"] = ratio


def _costs(groups: Mapping[str, Sequence[Shadow]]) -> dict[str, dict[str, float]]:
    """Return mean costs per model of each group, and the ratio to retraining."""
    costs = {
        name: {
            "seconds": float(np.mean([one.cost.seconds for one in groups[name]])),
            "gradient_evaluations": float(
                np.mean([one.cost.gradient_evaluations for one in groups[name]])
            ),
        }
        for name in _DRAWN
        if name in groups and any(one.cost != Cost() for one in groups[name])
    }
    if {"unlearned", "reference"} <= costs.keys():
        costs["ratio_to_retraining"] = {
            name: costs["unlearned"][name] / costs["reference"][name]
            for name in ("seconds", "gradient_evaluations")
            if costs["reference"][name] > 0
        }
    return costs


def _method_settings(shared: Request) -> dict[str, Any]:
    return asdict(shared.settings or load_method(shared.method).Settings())


def _digests(request: AuditRequest) -> dict[str, str]:
    found = {
        "original_weights": request.against.digest(),
        "unlearned_weights": request.unlearned.digest(),
        "original_rows": request.shadows.original.digest(),
        "revised_rows": request.shadows.revised.digest(),
    }
    if request.test is not None:
        found["test_rows"] = request.test.rows.digest()
    if request.reference is not None:
        found["reference_weights"] = request.reference.digest()
    return {**found, **request.digests}
