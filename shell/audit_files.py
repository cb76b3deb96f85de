"""What the audit's charts are saved as: the same numbers as CSV, and the pictures; draws nothing.

Knows `audit.json` as plain values and the files beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shell.audit_chart import GROUPS, ROWS
from shell.evidence import Evidence
from shell.saving import PNG, SVG, chart_files, save_links, table


def accuracy_csv(audit: Mapping[str, Any]) -> bytes:
    """Return each model's accuracy on each kind of rows, with its 95 % interval."""
    models = audit["models"]
    return table(
        ("model", "rows", "accuracy", "low", "high"),
        [
            (group, rows, *_interval(models[group]["accuracy"][rows]))
            for group in GROUPS
            if group in models
            for rows in ROWS
            if rows in models[group]["accuracy"]
        ],
    )


def attack_csv(audit: Mapping[str, Any]) -> bytes:
    """Return how well the attack tells each model from retrained ones."""
    models = audit["models"]
    return table(
        ("model", "auc", "low", "high"),
        [
            (group, *_interval(models[group]["u_lira"]["auc"]))
            for group in GROUPS
            if "u_lira" in models.get(group, {})
        ],
    )


def cost_csv(audit: Mapping[str, Any]) -> bytes:
    """Return unlearning's cost as a share of retraining's."""
    ratios = audit["costs"].get("ratio_to_retraining", {})
    return table(("cost", "share_of_retraining"), list(ratios.items()))


def audit_links(name: str, svg: str, numbers: bytes, *, label: Callable[[str], str]) -> str:
    """Return the links that save one of the page's charts; "" where there is none."""
    return save_links(name, chart_files(svg, numbers), label=label) if svg else ""


def plot_links(evidence: Evidence, name: str, *, label: Callable[[str], str]) -> str:
    """Return the links that save one of the audit's own plots; "" where it drew none."""
    found = {kind: evidence.files.get(f"plots/{name}.{kind}") for kind in (SVG, PNG)}
    files = {kind: data for kind, data in found.items() if data is not None}
    return save_links(f"{name}-curve", files, label=label) if files else ""


def _interval(values: Mapping[str, float | None]) -> tuple[float | None, ...]:
    return values["value"], values["low"], values["high"]
