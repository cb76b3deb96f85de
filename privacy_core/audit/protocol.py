"""The audit from end to end: shadow models, measurements, gate.

Knows models and rows in memory; no command line, no Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from privacy_core.audit import metrics
from privacy_core.audit.evidence import DRAWN, LIMITS, SCHEMA_VERSION, Audit
from privacy_core.audit.gate import GAPS, GateResult, decide
from privacy_core.audit.measure import Measured, control_of, measure
from privacy_core.audit.parts import Outputs, Part, outputs_of, parts_of
from privacy_core.audit.relearn import add_relearning
from privacy_core.audit.request import AuditRequest, AuditSettings
from privacy_core.audit.shadows import Maker, Role, Shadow
from privacy_core.audit.ulira import Control
from privacy_core.unlearning.base import load_method
from privacy_core.unlearning.targets import TargetModel, versions
from privacy_core.unlearning.training import Cost, quiet

_ROLES: tuple[Role, ...] = ("original", "unlearned", "reference", "control")
_GIVEN = ("released", "given reference")
"""Groups of one model that was given, beside shadow models of its role."""


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
        hardware: See `evidence.hardware_line`.
        progress: Called with stage, steps done and steps in all.

    Raises:
        InvalidArgumentError: Models or rows do not belong together.
        OutputError: Shadow models cannot be kept.
    """
    is_shadowed = settings.n_models > 0
    request.check()
    parts = _parts(request, is_shadowed=is_shadowed)
    # Without the originals, what was given is measured on the rows that are left.
    left = parts if request.stand_in is None else request.stand_in.parts
    groups = _groups(request, settings, shadow_folder, progress)
    outputs = {
        name: [outputs_of(one.model, left if name in _GIVEN else parts) for one in group]
        for name, group in groups.items()
    }
    measured = _measured(outputs, parts, left, settings.seed)
    models = {name: dict(one.values) for name, one in measured.items()}
    add_relearning(models, groups, parts, n_models=settings.relearn_models, seed=settings.seed)
    absent: dict[str, str] = {}
    control = control_of(
        outputs.get("reference", []), outputs.get("control", []), parts, seed=settings.seed,
        absent=absent,
    )  # fmt: skip
    released = _released(outputs, parts, left) if is_shadowed else None
    gate = _gate(measured, [*parts, *left], control=control, released=released)
    if control is not None:
        models["reference"]["u_lira_control"] = control.as_json()
    for name, why in absent.items():
        models["reference"]["absent"][name] = why
    values = {
        **_stated(request, settings, groups, parts),
        "models": models,
        "costs": _costs(groups),
        "gate": gate.as_json(),
        "hardware": hardware,
    }
    curves = {name: one.attack.roc for name, one in measured.items() if one.attack is not None}
    return Audit(values, gate, {name: c for name, c in curves.items() if name in DRAWN})


def _stated(
    request: AuditRequest,
    settings: AuditSettings,
    groups: Mapping[str, Sequence[Shadow]],
    parts: Mapping[str, Part],
) -> dict[str, Any]:
    """Return what the measurements rest on."""
    shared = request.shadows
    return {
        "schema_version": SCHEMA_VERSION,
        "method": shared.method,
        "method_settings": asdict(shared.settings or load_method(shared.method).Settings()),
        "settings": asdict(settings) | {"share": shared.shown_share},
        "seeds": {name: [one.seed for one in g] for name, g in groups.items() if name in _ROLES},
        "rows": {name: len(part.rows) for name, part in parts.items()},
        "people": {name: len(np.unique(part.people)) for name, part in parts.items()},
        "stand_in": None if request.stand_in is None else request.stand_in.as_json(),
        "digests": request.digests_of_all(),
        "provenance": dict(request.provenance),
        "versions": versions(),
        "limits": list(LIMITS),
    }


def _parts(request: AuditRequest, *, is_shadowed: bool) -> Mapping[str, Part]:
    if request.stand_in is not None and not is_shadowed:
        return request.stand_in.parts
    shared = request.shadows
    return parts_of(
        shared.original,
        shared.revised,
        shared.people,
        attribute=request.attribute,
        group=request.group,
        test=request.test,
    )


def _groups(
    request: AuditRequest,
    settings: AuditSettings,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> dict[str, Sequence[Shadow]]:
    """Return the models of each group; those of `_GIVEN` are single ones."""

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
        groups |= dict(zip(_GIVEN, (released, reference), strict=True))
    return {name: group for name, group in groups.items() if group}


def _measured(
    outputs: Mapping[str, Sequence[Outputs]],
    parts: Mapping[str, Part],
    left: Mapping[str, Part],
    seed: int,
) -> dict[str, Measured]:
    """Measure every group against the references; the references against the control."""
    result = {}
    for name, group in outputs.items():
        if name == "control":
            continue
        is_apart = name in _GIVEN and left is not parts
        against = "control" if name == "reference" else "reference"
        if is_apart:
            # Shadow models were trained on other rows: only a reference that was given compares.
            against = "given reference" if name == "released" else "none"
        rows = left if is_apart else parts
        result[name] = measure(group, outputs.get(against, []), rows, seed=seed)
    return result


def _gate(
    measured: Mapping[str, Measured],
    names: Sequence[str],
    *,
    control: Control | None,
    released: Mapping[str, tuple[float | None, float]] | None,
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
        rows=[name for name in GAPS if name != "revised" or name in names],
        released=released,
    )


def _released(
    outputs: Mapping[str, Sequence[Outputs]], parts: Mapping[str, Part], left: Mapping[str, Part]
) -> dict[str, tuple[float | None, float]]:
    """Return rows → the released model's gap, and the largest of a reference model.

    Where the originals are gone the gap is to the reference that was given, None without one.
    """

    def accuracies(group: str, name: str, rows: Mapping[str, Part]) -> list[float]:
        labels = rows[name].rows.labels
        return [
            float(metrics.is_correct(one.logits[name], labels).mean())
            for one in outputs.get(group, [])
        ]

    result: dict[str, tuple[float | None, float]] = {}
    for name in (name for name in GAPS if name in left):
        references = accuracies("reference", name, parts) if name in parts else []
        spread = max((metrics.gap(value, references) for value in references), default=0.0)
        known = references if left is parts else accuracies("given reference", name, left)
        mine = accuracies("released", name, left)[0]
        result[name] = (metrics.gap(mine, known) if known else None, spread)
    return result


def _costs(groups: Mapping[str, Sequence[Shadow]]) -> dict[str, dict[str, float]]:
    """Return mean costs per model of each group, and the ratio to retraining."""
    costs = {
        name: {
            "seconds": float(np.mean([one.cost.seconds for one in groups[name]])),
            "gradient_evaluations": float(
                np.mean([one.cost.gradient_evaluations for one in groups[name]])
            ),
        }
        for name in DRAWN
        if name in groups and any(one.cost != Cost() for one in groups[name])
    }
    if {"unlearned", "reference"} <= costs.keys():
        costs["ratio_to_retraining"] = {
            name: costs["unlearned"][name] / costs["reference"][name]
            for name in ("seconds", "gradient_evaluations")
            if costs["reference"][name] > 0
        }
    return costs
