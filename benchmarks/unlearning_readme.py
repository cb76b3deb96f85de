"""Write the README's table of unlearning from `docs/results/unlearning.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "unlearning.json"
BEGIN, END = "<!-- unlearning -->", "<!-- end of unlearning -->"
SHARE = 0.2
ROWS = (
    ("network", "original", "ResNet (0.5 M weights, 64 px), untouched"),
    ("network", "finetune-restart", "**finetune-restart, the default**"),
    ("network", "neggrad-plus", "neggrad-plus"),
    ("network", "scrub", "scrub"),
    ("network", "reinit-finetune", "reinit-finetune"),
    ("network", "l1-sparse", "l1-sparse"),
    ("network", "second-order", "second-order (Warnecke et al.)"),
    ("network", "first-order", "first-order (Warnecke et al.)"),
    ("network", "retrain", "retrained"),
    ("head", "original", "head on the dlib descriptor, untouched"),
    ("head", "newton-head", "**newton-head, the default**"),
    ("head", "second-order", "second-order (Warnecke et al.)"),
    ("head", "first-order", "first-order (Warnecke et al.)"),
    ("head", "retrain", "retrained"),
)
"""Kind of model, method, label."""
_HEADER = """\
| | sets × models | attack AUC (95 %) | retrained ones' | gaps: retain / test / revised \
| cost of retraining: time / gradients | gate passed |
|---|---|---|---|---|---|---|"""


def line(found: dict[str, Any], label: str) -> str:
    """Return a method's row."""
    cost = "–" if found["cost"] is None else f"{found['cost']:.2f} / {found['cost_gradients']:.2f}"
    cells = (
        label,
        f"{found['n_sets']} × {found['n_models']}",
        f"{found['auc']:.3f} ({found['auc_low']:.3f}–{found['auc_high']:.3f})",
        f"{found['control']:.3f}",
        " / ".join(f"{found[f'gap_{part}']:.1f}" for part in ("retain", "test", "revised")),
        cost,
        f"{found['passed'] * found['n_sets']:.0f} of {found['n_sets']}",
    )
    return f"| {' | '.join(cells)} |"


def heads(result: dict[str, Any]) -> str:
    """Return what newton-head leaves, and what it costs."""
    found = [one["methods"]["newton-head"] for one in result["heads"].values()]
    times = [one["retraining_seconds"] for one in result["heads"].values()]

    def span(values: list[float], pattern: str) -> str:
        return f"{min(values):{pattern}} to {max(values):{pattern}}"

    newton, slow = (
        span([own["seconds"] / time[name] for own, time in zip(found, times, strict=True)], ".2f")
        for name in ("newton", "lbfgs")
    )
    return (
        f"newton-head leaves {span([100 * one['distance'] for one in found], '.3f')} % of the "
        f"original's distance to the retrained head, at {newton} of the time of exact retraining "
        f"by Newton from zero ({slow} of L-BFGS). On 100 000 rows of 128 numbers and two labels it "
        "takes 0.9 to 1.3 s of one core, retraining as long (1.1 to 1.2 s by Newton); with eight "
        "labels 5 to 7 s, retraining by L-BFGS 1 to 4 s (`docs/results/unlearning_speed.json`)."
    )


def write(readme: Path, result: dict[str, Any]) -> None:
    """Replace the table in a README; a method that was not run has no row.

    Raises:
        ValueError: The marks are missing.
    """
    pooled = {
        (one["kind"], one["method"]): one
        for one in result["pooled"]
        if one["share"] == SHARE and not one["variant"]
    }
    lines = [
        line(pooled[kind, name], label) for kind, name, label in ROWS if (kind, name) in pooled
    ]
    text = readme.read_text(encoding="utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    block = "\n".join([_HEADER, *lines, "", heads(result)])
    readme.write_text(f"{text[:before]}\n{block}\n{text[after:]}", encoding="utf-8")


if __name__ == "__main__":
    write(ROOT / "README.md", json.loads(RESULT.read_text(encoding="utf-8")))
