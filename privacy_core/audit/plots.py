"""The audit's figures, each as SVG and PNG: accuracies, the attack's curves, costs.

Knows plain numbers. Draws without a screen and without pyplot's global state.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.audit.estimates import Floats
from privacy_core.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"original": "#b2182b", "unlearned": "#2166ac", "reference": "#4d4d4d"}
_SIZE = (6.4, 3.6)
FORMATS = ("svg", "png")


def draw_plots(
    folder: Path,
    *,
    accuracies: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    curves: Mapping[str, Floats],
    costs: Mapping[str, Mapping[str, float]],
) -> tuple[Path, ...]:
    """Write the figures that there are numbers for.

    Args:
        folder: Made when missing.
        accuracies: Group → split → value, low and high, in [0, 1].
        curves: Group → (2, m) false- and true-positive rates.
        costs: Group → "seconds" and "gradient_evaluations".

    Returns:
        The files.

    Raises:
        OutputError: A file cannot be written.
    """
    figures = {"accuracy": _bars(accuracies)}
    if curves:
        figures["attack"] = _curves(curves)
    if {"unlearned", "reference"} <= costs.keys():
        figures["cost"] = _costs(costs)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            for kind in FORMATS:
                path = folder / f"{name}.{kind}"
                # No date and no random ids, so that the same audit draws the same bytes.
                metadata = {"Date": None} if kind == "svg" else {"Software": None}
                figure.savefig(path, format=kind, dpi=120, metadata=metadata)
                paths.append(path)
    except OSError as error:
        raise OutputError(
            f"The plots in {folder.name!r} cannot be written "
            f"({error.strerror or type(error).__name__}). Free space or choose another place."
        ) from error
    return tuple(paths)


def _figure() -> tuple[Figure, Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "privacy-dial"
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bars(groups: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Figure:
    figure, axes = _figure()
    splits = list(dict.fromkeys(split for values in groups.values() for split in values))
    width = 0.8 / max(len(groups), 1)
    for number, (group, values) in enumerate(groups.items()):
        for place, split in enumerate(splits):
            if split not in values:
                continue
            one = values[split]
            value = 100 * float(one["value"] or 0)
            low, high = (value if end is None else 100 * end for end in (one["low"], one["high"]))
            axes.bar(
                place + (number - (len(groups) - 1) / 2) * width, value, width,
                yerr=[[max(value - low, 0)], [max(high - value, 0)]], capsize=2,
                color=_COLOURS.get(group), label=group if place == 0 else None,
            )  # fmt: skip
    axes.set_xticks(range(len(splits)), splits)
    axes.set(ylabel="accuracy, %", ylim=(0, 105), title="Accuracy, 95 % intervals over people")
    axes.legend(frameon=False, ncols=3, loc="lower right")
    return figure


def _curves(curves: Mapping[str, Floats]) -> Figure:
    figure, axes = _figure()
    for group, (alarms, hits) in curves.items():
        label = "control: reference" if group == "reference" else group
        axes.plot(alarms, hits, color=_COLOURS.get(group), label=label)
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    axes.set(
        xlabel="false-positive rate", ylabel="true-positive rate",
        title="Per-example attack against retrained models",
    )  # fmt: skip
    axes.legend(frameon=False, loc="lower right")
    return figure


def _costs(costs: Mapping[str, Mapping[str, float]]) -> Figure:
    figure, axes = _figure()
    names = [
        name for name in ("seconds", "gradient_evaluations") if costs["reference"].get(name, 0) > 0
    ]
    shares = [100 * costs["unlearned"][name] / costs["reference"][name] for name in names]
    axes.barh([name.replace("_", " ") for name in names], shares, color=_COLOURS["unlearned"])
    axes.axvline(100, color=_COLOURS["reference"], linewidth=1)
    axes.set(xlabel="cost of unlearning, % of retraining", title="Cost")
    return figure
