"""The unlearning benchmark's results in one place: JSON, a table in Markdown, figures.

Reads kept cells only and makes no model, so it can be run while the queue is running.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.unlearning_plots import draw
from privacy_core.audit.evidence import hardware_line
from privacy_core.unlearning.base import METHODS
from privacy_core.unlearning.targets import versions

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
_ADVANTAGE = "share_of_rows_with_advantage_above_half"
PROTOCOL = {
    "data": (
        "the development faces (CelebA), people of splits 80-99: four in five are trained on, "
        "the others are the test rows; lengths of training chosen on people of splits 70-79"
    ),
    "task": "smiling and gender as one label of four, 64 px",
    "revised": "revise, embedded model, smiling kept, labels kept, strengths of simulated raters",
    "caution": (
        "The dlib descriptor may have been trained on the same celebrities, so a head's figures "
        "say nothing about what its backbone remembers."
    ),
    "attack": "per-example U-LiRA, leave one model out; compare with the control, never with 0.5",
}


def write_report(work: Path) -> dict[str, Any]:
    """Write `docs/results/unlearning.json`, `.md` and figures from the kept cells."""
    cells = _cells(work)
    result: dict[str, Any] = {
        "protocol": PROTOCOL,
        "hardware": hardware_line(),
        "versions": versions(),
        "cells": cells,
        "heads": {p.stem: json.loads(p.read_text()) for p in sorted((work / "heads").glob("*"))},
        "pooled": pooled(cells),
    }
    for name in ("judge", "recipe"):
        if (work / f"{name}.json").exists():
            result[name] = json.loads((work / f"{name}.json").read_text())
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "unlearning.json").write_text(json.dumps(_rounded(result), indent=1) + "\n")
    (RESULTS / "unlearning.md").write_text(markdown(result))
    draw(result, RESULTS)
    return result


def _cells(work: Path) -> list[dict[str, Any]]:
    """Return the kept cells, of those with other numbers of models only the largest."""
    found = [json.loads(path.read_text()) for path in (work / "cells").glob("*.json")]
    best = {_place(cell): cell for cell in sorted(found, key=lambda cell: int(cell["n_models"]))}
    return [best[place] for place in sorted(best)]


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    order = ["original", *METHODS]
    request = cell["request"]
    return (
        cell["kind"], request["share"] != 0.2, request["share"], request["number"],
        cell["variant"], order.index(cell["method"]),
    )  # fmt: skip


def pooled(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each method's means over the request sets of one share that it was run on."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        key = (cell["kind"], cell["request"]["share"], cell["variant"], cell["method"])
        groups.setdefault(key, []).append(cell)
    rows = []
    for (kind, share, variant, method), group in groups.items():
        values = [_figures(cell) for cell in group]
        found: dict[str, Any] = {
            "kind": kind,
            "share": share,
            "variant": variant,
            "method": method,
            "n_sets": len(group),
            "n_models": min(cell["n_models"] for cell in group),
        }
        for name in values[0]:
            column = [one[name] for one in values if one[name] is not None]
            found[name] = float(np.mean(column)) if column else None
        found["auc_by_set"] = [one["auc"] for one in values]
        rows.append(found)
    return rows


def _figures(cell: Mapping[str, Any]) -> dict[str, Any]:
    measured, leak = cell["measured"], cell["measured"].get("attribute_leak", {})
    attack = measured["u_lira"]
    shares = cell["control"][_ADVANTAGE]
    gender = leak.get("attribute_probe_auc", {}).get("leak", {})
    return {
        "auc": attack["auc"]["value"],
        "auc_low": attack["auc"]["low"],
        "auc_high": attack["auc"]["high"],
        "control": cell["control"]["auc"]["value"],
        "control_high": cell["control"]["auc"]["high"],
        "auc_retain": measured.get("u_lira_on_retain", {}).get("auc", {}).get("value"),
        "auc_person": measured["u_lira_by_person"]["auc"]["value"],
        "advantage": attack[_ADVANTAGE],
        "control_advantage": shares["value"],
        "control_advantage_high": shares["high"],
        "js": measured["js_divergence"]["value"],
        "score": measured.get("forgetting_score"),
        "population": measured.get("population_attack_auc", {}).get("value"),
        "leak_gender": None if not gender else 100 * gender["value"],
        "leak_young": 100 * cell["young"]["leak"]["value"],
        "cost": cell["cost"].get("ratio_seconds"),
        "cost_gradients": cell["cost"].get("ratio_gradient_evaluations"),
        "passed": float(cell["gate"]["passed"]),
        **{f"gap_{n}": measured["gap_to_retrain"][n] for n in
           ("retain", "forget", "revised", "test")},
        **{f"accuracy_{n}": 100 * measured["accuracy"][n]["value"] for n in
           ("retain", "forget", "revised", "test")},
    }  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """Return the tables."""
    said = [f"- {name}: {text}" for name, text in PROTOCOL.items()]
    lines = ["# Unlearning on real faces", "", *said, "", *_READING, ""]
    for kind in ("network", "head"):
        rows = [row for row in result["pooled"] if row["kind"] == kind]
        for share in sorted({row["share"] for row in rows}, key=lambda one: (one != 0.2, one)):
            chosen = [row for row in rows if row["share"] == share]
            lines += [f"## {kind}, {share:.0%} of people revised", "", *_table(chosen), ""]
    lines += _head_table(result["heads"]) + _strengths(result["cells"])
    lines += _paper_rows(result)
    return "\n".join(lines) + "\n"


_READING = (
    "Each row is the mean over request sets (ends of intervals too), K models of each kind; "
    "`original` is the untouched model, `retrain` the control: retrained models attacked by "
    "retrained ones. Rows > .5: share of rows on which the attack's advantage is above one half "
    "(the control's). Gaps: points of accuracy on the joint label. Leak: AUC, in points, above "
    "the reference's of a probe that reads the original's attribute from the revised picture; "
    "gender is part of the label, young is not. Cost: share of retraining, in process seconds "
    "and in rows whose gradient was taken. Gate: passed of run.",
)

_COLUMNS = (
    "method", "sets × K", "AUC (95 %)", "control", "rows > .5", "AUC on retain", "gap retain",
    "gap test", "gap revised", "gap forget", "leak gender", "leak young", "cost (s)",
    "cost (gradients)", "gate",
)  # fmt: skip
_NUMBERS = {
    "auc_retain": 3, "gap_retain": 1, "gap_test": 1, "gap_revised": 1, "gap_forget": 1,
    "leak_gender": 1, "leak_young": 1, "cost": 3, "cost_gradients": 3,
}  # fmt: skip
"""Column → digits."""


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for row in sorted(rows, key=lambda one: bool(one["variant"])):
        name = f"{row['method']} {row['variant']}".strip()
        cells = [
            name, f"{row['n_sets']} × {row['n_models']}",
            f"{row['auc']:.3f} ({row['auc_low']:.3f}–{row['auc_high']:.3f})",
            f"{row['control']:.3f}",
            f"{100 * row['advantage']:.1f} % ({100 * row['control_advantage']:.1f})",
            *(_shown(row[column], digits) for column, digits in _NUMBERS.items()),
            f"{row['passed'] * row['n_sets']:.0f}/{row['n_sets']}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _head_table(heads: Mapping[str, Any]) -> list[str]:
    lines = [
        "## head: distance of the weights to the retrained head, relative to the original's", "",
        "| request | method | distance left | seconds | over Newton from zero | over L-BFGS |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for request, found in heads.items():
        exact = found["retraining_seconds"]
        for name, one in found["methods"].items():
            lines.append(
                f"| {request} | {name} | {100 * one['distance']:.3f} % | {one['seconds']:.4f} | "
                f"{one['seconds'] / exact['newton']:.2f} | {one['seconds'] / exact['lbfgs']:.2f} |"
            )
    return [*lines, ""]


def _strengths(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = [
        "## By strength (20 %, first set)", "",
        "| model | method | strength | rows | AUC (95 %) | smiling, revised | gender, revised | "
        "smiling, originals | gender, originals |", "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for cell in cells:
        request = cell["request"]
        is_shown = cell["method"] in {"original", "retrain", "finetune-restart", "newton-head"}
        if request["share"] != 0.2 or request["number"] or cell["variant"] or not is_shown:
            continue
        for one in cell["by_strength"]:
            tasks = [one["tasks"][t][s]["value"] for s in ("revised", "forget")
                     for t in ("smiling", "gender")]  # fmt: skip
            auc = one["auc"]
            lines.append(
                f"| {cell['kind']} | {cell['method']} | {one['low']:g}–{one['high']:g} | "
                f"{one['n_rows']} | {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f}) | "
                + " | ".join(f"{100 * value:.1f} %" for value in tasks) + " |"
            )  # fmt: skip
    return [*lines, ""]


def _paper_rows(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Rows of the source paper's kind, under our own protocol (20 %, first set)", "",
        "| model | who judges | attribute | originals of those who asked | their revised pictures |"
        " test |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind, rows in result.get("judge", {}).items():
        for task, found in rows[0]["tasks"].items():
            before, after = (100 * found[when]["value"] for when in ("before", "after"))
            lines.append(f"| {kind} | judge, none of these people | {task} | {before:.1f} % | "
                         f"{after:.1f} % | – |")  # fmt: skip
    for cell in result["cells"]:
        if cell["request"] != {"share": 0.2, "number": 0} or cell["variant"]:
            continue
        for task, found in cell["tasks"].items():
            values = [f"{100 * found[s]['value']:.1f} %" for s in ("forget", "revised", "test")]
            lines.append(f"| {cell['kind']} | {cell['method']} | {task} | "
                         + " | ".join(values) + " |")  # fmt: skip
    return [*lines, ""]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
