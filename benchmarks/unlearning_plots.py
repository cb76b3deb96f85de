"""Figures of the unlearning benchmark: attack against cost, all methods, and the dial's effect.

Knows the results as plain values. Colours are Okabe & Ito's, told apart by marker too; every
interval is 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from privacy_core.audit.gate import AUC_FLOOR, AUC_MARGIN, MOST_GAP

Cells = Sequence[Mapping[str, Any]]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DEFAULT = {"network": "finetune-restart", "head": "newton-head"}
_FORMATS = ("png", "svg")
_TICKS = (0, 1, 2, 5, 10, 20, 50)


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Write the figures that there are numbers for, as PNG and SVG."""
    mpl.rcParams["svg.hashsalt"] = "privacy-dial"
    first = [c for c in result["cells"] if c["request"] == {"share": 0.2, "number": 0}]
    for kind in ("network", "head"):
        own = [cell for cell in first if cell["kind"] == kind]
        if len(own) < 3:
            continue
        _save(_forest([c for c in own if not c["variant"]], kind), folder / f"unlearning-{kind}")
        if kind == "network":
            _save(_curve(own), folder / "unlearning-cost")
            _save(_strengths(own, result.get("judge", {})), folder / "unlearning-strength")


def _save(figure: Figure, path: Path) -> None:
    for kind in _FORMATS:
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(path.with_suffix(f".{kind}"), dpi=130, metadata=metadata)


def _auc(cell: Mapping[str, Any]) -> tuple[float, float, float]:
    found = cell["measured"]["u_lira"]["auc"]
    return found["value"], found["low"], found["high"]


def _bar(value: float, low: float, high: float) -> list[list[float]]:
    return [[max(value - low, 0)], [max(high - value, 0)]]


def _curve(cells: Cells) -> Figure:
    """Return per-example AUC against cost, one line per method over its budgets."""
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.subplots()
    methods = [c["method"] for c in cells if not c["variant"] and "ratio_seconds" in c["cost"]]
    for number, method in enumerate(methods):
        own = sorted((c for c in cells if c["method"] == method and "factor" not in c["variant"]),
                     key=lambda cell: cell["cost"]["ratio_seconds"])  # fmt: skip
        costs = [cell["cost"]["ratio_seconds"] for cell in own]
        aucs = [_auc(cell) for cell in own]
        axes.errorbar(
            costs, [value for value, _, _ in aucs],
            yerr=[[v - low for v, low, _ in aucs], [high - v for v, _, high in aucs]],
            color=_COLOURS[number % 8], marker=_MARKERS[(number + number // 8) % 8], capsize=2,
            linewidth=2.4 if method == _DEFAULT["network"] else 1.1,
            linestyle="-" if number < 8 else "--", label=method,
        )  # fmt: skip
    _limits(axes.axhline, axes.axhspan, cells)
    axes.axvline(0.35, color="0.6", linewidth=1, linestyle=":")
    axes.set(
        xscale="log", xlabel="cost, share of retraining to the validation optimum (process time)",
        ylabel="per-example attack AUC (lower is better)",
        title="Forgetting against cost: ResNet, 20 % of people revised",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _limits(line: Any, span: Any, cells: Cells) -> None:
    """Draw the untouched model, the control's spread and the gate."""
    control = cells[0]["control"]["auc"]
    span(control["low"], control["high"], color="0.88", zorder=0, label="control (retrained)")
    gate = max(AUC_FLOOR, control["value"] + AUC_MARGIN)
    line(gate, color="0.35", linewidth=1, linestyle="--", label=f"gate, {gate:.2f}")
    for cell in cells:
        if cell["method"] == "original":
            line(_auc(cell)[0], color="#b2182b", linewidth=1.2, label="original, untouched")


def _forest(cells: Cells, kind: str) -> Figure:
    """Return AUC and gaps to retraining of every method."""
    ordered = sorted(cells, key=lambda cell: _auc(cell)[0], reverse=True)
    figure = Figure(figsize=(9.5, 1.4 + 0.34 * len(ordered)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, cell in enumerate(ordered):
        value, low, high = _auc(cell)
        is_default = cell["method"] == _DEFAULT[kind]
        left.errorbar(value, place, xerr=_bar(value, low, high), marker="o", capsize=3,
                      color=_COLOURS[1] if is_default else _COLOURS[0])  # fmt: skip
        for number, rows in enumerate(("retain", "test", "revised")):
            right.plot(cell["measured"]["gap_to_retrain"][rows], place, _MARKERS[number],
                       color=_COLOURS[number], label=rows if place == 0 else None)  # fmt: skip
    names = ["control" if c["method"] == "retrain" else c["method"] for c in ordered]
    left.set_yticks(range(len(ordered)), names)
    _limits(left.axvline, left.axvspan, [c for c in ordered if c["method"] != "original"])
    right.axvline(MOST_GAP, color="0.35", linewidth=1, linestyle="--", label="goal, 2 points")
    right.set_xscale("symlog", linthresh=MOST_GAP)
    right.set_xticks(_TICKS, [str(tick) for tick in _TICKS])
    left.set(xlabel="per-example attack AUC, 95 % over models")
    right.set(xlabel="gap to retraining, points of accuracy", xlim=(0, None))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    what = {"network": "ResNet", "head": "head on the dlib descriptor"}[kind]
    figure.suptitle(f"Unlearning, {what}, 20 % of people revised")
    return figure


def _strengths(cells: Cells, judged: Mapping[str, Any]) -> Figure:
    """Return what the dial does to the attack and to the attributes."""
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = {"original": "original", "retrain": "control", _DEFAULT["network"]: "unlearned"}
    for number, (method, name) in enumerate(shown.items()):
        for cell in (c for c in cells if c["method"] == method and not c["variant"]):
            bins = cell["by_strength"]
            aucs = [one["auc"] for one in bins]
            left.errorbar(
                [(one["low"] + one["high"]) / 2 + 0.008 * number for one in bins],
                [one["value"] for one in aucs],
                yerr=[
                    [one["value"] - one["low"] for one in aucs],
                    [one["high"] - one["value"] for one in aucs],
                ],
                color=_COLOURS[number], marker=_MARKERS[number], capsize=2, label=name,
            )  # fmt: skip
            _accuracies(right, bins, f"{name}, revised pictures", number, "revised")
    if "network" in judged:
        _accuracies(right, judged["network"][1:], "judge, revised pictures", 3, "after")
    left.set(xlabel="strength", ylabel="per-example attack AUC", title="Attack on those who asked")
    right.set(xlabel="strength", ylabel="gender told rightly, %", title="Gender by strength")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    return figure


def _accuracies(axes: Any, bins: Cells, label: str, number: int, which: str) -> None:
    found = [one["tasks"]["gender"][which] for one in bins]
    values = [100 * one["value"] for one in found]
    bars = [
        [v - 100 * one["low"] for v, one in zip(values, found, strict=True)],
        [100 * one["high"] - v for v, one in zip(values, found, strict=True)],
    ]
    axes.errorbar([(one["low"] + one["high"]) / 2 + 0.008 * number for one in bins], values,
                  yerr=bars, color=_COLOURS[number], marker=_MARKERS[number], capsize=2,
                  label=label)  # fmt: skip
