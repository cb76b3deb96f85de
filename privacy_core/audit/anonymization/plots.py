"""The audit's figure: what each attack finds over strength, and each method's price.

Knows the result as plain values. Draws without a screen and without pyplot's global state.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

_METHODS = {
    "embedded": "#2166ac",
    "blur": "#b2182b",
    "pixelate": "#ef8a62",
    "solid": "#4d4d4d",
    "k-same": "#1b7837",
    "latent-laplace": "#762a83",
}


def draw(result: Mapping[str, Any]) -> bytes:
    """Return the figure as PNG, the same bytes for the same result."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    first = result["recognisers"][0]
    _curves(left, result, first)
    _price(right, result, first)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110, metadata={"Software": None})
    return target.getvalue()


def _curves(axes: Any, result: Mapping[str, Any], first: str) -> None:
    rows = [one for one in result["settings"] if one["method"] == "embedded" and not one["policy"]]
    lines = {
        "verified as its original": ("identity", first, "self_reidentified"),
        "verified as another photo": ("identity", first, "cross_tar"),
        "found among others' photos": ("identity", first, "cross_rank_1"),
        "trained adversary, inside the mask": ("adversary", "inside", "rank_1"),
        "trained adversary, whole crop": ("adversary", "whole_crop", "rank_1"),
    }
    for label, path in lines.items():
        points = [(one["strength"], found) for one in rows if (found := _value(one, path))]
        if not points:
            continue
        strengths = [strength for strength, _ in points]
        (line,) = axes.plot(
            strengths, [100 * found["value"] for _, found in points], "o-", label=label
        )
        if all(found["low"] is not None for _, found in points):
            ends = [[100 * found[end] for _, found in points] for end in ("low", "high")]
            axes.fill_between(strengths, *ends, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(100 / max(1, result["gallery"]), color="0.5", linewidth=1, linestyle=":")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="strength", ylabel="% of faces (dotted: chance)", ylim=(0, 110))
    axes.set_title("The embedded model under attack")
    axes.legend(frameon=False, fontsize=8)


def _price(axes: Any, result: Mapping[str, Any], first: str) -> None:
    for method, colour in _METHODS.items():
        rows = [one for one in result["settings"] if one["method"] == method and not one["policy"]]
        pairs = _pairs(rows, first)
        if pairs:
            axes.plot(*zip(*pairs, strict=True), "o-", color=colour, label=method)
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="verified as its original, %", ylabel="Fréchet distance of descriptors")
    axes.set_title("What a method costs at equal re-identification")
    axes.legend(frameon=False, fontsize=8)


def _pairs(rows: Sequence[Mapping[str, Any]], first: str) -> list[tuple[float, float]]:
    found = []
    for one in rows:
        x = _value(one, ("identity", first, "self_reidentified"))
        y = _value(one, ("identity", first, "frechet"))
        if x and y:
            found.append((100 * x["value"], y["value"]))
    return sorted(found)


def _value(one: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any] | None:
    found: Any = one
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, Mapping) and "value" in found else None
