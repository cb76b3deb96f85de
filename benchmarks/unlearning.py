"""Measure unlearning on real faces: all methods against retraining, on heads and on a ResNet.

`PRIVACY_DIAL_DATA=... python -m benchmarks.unlearning --work DIR` goes through a queue, the most
important first, and keeps every model, so that it can be killed at any point and started again;
`--report` writes `docs/results/unlearning.*` and the README's table from what is there, without
making a model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.unlearning_cells import RETRAIN, UNTOUCHED, Bench, Cell, Kind
from benchmarks.unlearning_head import compare_heads, head_methods
from benchmarks.unlearning_judge import judge
from benchmarks.unlearning_readme import ROOT, write
from benchmarks.unlearning_recipe import lengths
from benchmarks.unlearning_report import write_report
from benchmarks.unlearning_requests import RequestSet
from privacy_core.unlearning.base import METHODS, load_method

DEFAULT = "finetune-restart"
SLOWEST = "second-order"
"""It costs three times what retraining does, half of all the time the methods take together."""
ALL = FIRST, SECOND, THIRD = tuple(RequestSet(0.2, number) for number in range(3))
FEW, MANY = RequestSet(0.05), RequestSet(0.5)
K_NETWORK, K_FEW, K_HEAD = 8, 4, 16
NETWORK_METHODS = (
    DEFAULT, "reinit-finetune", "l1-sparse", "neggrad-plus", "scrub", "second-order", "first-order",
    "salun", "random-labels", "ssd", "teacher", "clipped-noise",
)  # fmt: skip
BUDGETS: dict[str, tuple[int, ...]] = {
    DEFAULT: (2, 4, 14), "reinit-finetune": (2, 14), "l1-sparse": (2, 14), "neggrad-plus": (2, 10),
    "scrub": (3, 10), "salun": (2, 10), "random-labels": (2, 10), "teacher": (4,),
}  # fmt: skip
"""Method → further numbers of epochs, for the curve of attack against cost."""


def _seven_epochs(method: str) -> Any:
    settings: Any = load_method(method).Settings
    return settings(epochs=7)


SETTINGS: dict[str, Any] = {
    name: _seven_epochs(name) for name in (DEFAULT, "reinit-finetune", "l1-sparse")
}
"""Their defaults for a recipe of 20 epochs, by number."""
RATES = ((2.0, 5), (1.0, 5), (2.0, 7), (0.5, 7))
"""Peak rates of the default, as multiples of the recipe's, and epochs that were tried."""


def queue(kind: Kind) -> list[Cell]:
    """Return cells, the most important first; every prefix gives a consistent table."""
    if kind == "head":
        methods = (UNTOUCHED, RETRAIN, *head_methods())
        requests = (FIRST, SECOND, THIRD, FEW, MANY)
        return [Cell(kind, request, name, K_HEAD) for request in requests for name in methods]
    short = (UNTOUCHED, DEFAULT, RETRAIN)

    def cells(request: RequestSet, n: int, methods: Sequence[str]) -> list[Cell]:
        return [Cell(kind, request, name, n, settings=SETTINGS.get(name)) for name in methods]

    tried = [with_rate(Cell(kind, FIRST, DEFAULT, K_FEW), *rate) for rate in RATES]
    curve = [
        at_epochs(Cell(kind, FIRST, name, K_FEW), epochs)
        for name, budgets in BUDGETS.items()
        for epochs in budgets
    ]
    others = NETWORK_METHODS[1:]
    quick = [name for name in others if name != SLOWEST]
    # The default was chosen on the first request set, so the second is next.
    return [
        *cells(FIRST, K_FEW, short), *tried, *cells(SECOND, K_FEW, short),
        *cells(FIRST, K_FEW, others), *cells(THIRD, K_FEW, short),
        *cells(FEW, K_FEW, short), *cells(MANY, K_FEW, short),
        *curve,
        *[cell for request in ALL for cell in cells(request, K_NETWORK, (*short, *quick))],
        *cells(SECOND, K_FEW, [SLOWEST]), *cells(THIRD, K_FEW, [SLOWEST]),
        *[cell for request in ALL for cell in cells(request, K_NETWORK, [SLOWEST])],
    ]  # fmt: skip


def with_rate(cell: Cell, factor: float, epochs: int) -> Cell:
    """Return a cell with another peak rate and number of epochs."""
    settings: Any = replace(load_method(cell.method).Settings(), factor=factor, epochs=epochs)
    return replace(cell, settings=settings, variant=f"{epochs} epochs, factor {factor:g}")


def at_epochs(cell: Cell, epochs: int) -> Cell:
    """Return a cell with another number of epochs; ascent of `scrub` ends before they do."""
    settings: Any = replace(load_method(cell.method).Settings(), epochs=epochs)
    return replace(cell, settings=settings, variant=f"{epochs} epochs")


def run_head(work: Path) -> None:
    """Run everything about heads."""
    bench = Bench("head", work)
    for request in (FIRST, SECOND, THIRD, FEW, MANY):
        path = work / "heads" / f"{request.name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(compare_heads(bench, request)))
        print(request.name, path.read_text()[:400], flush=True)
    run_cells(bench, work)


def run_cells(bench: Bench, work: Path) -> None:
    """Go through the queue of one kind of model; `work/stop` ends it after a cell."""
    for cell in queue(bench.kind):
        started = time.monotonic()
        print(f"{cell.file_name} ...", flush=True)
        result = bench.run(cell)
        auc = result["measured"]["u_lira"]["auc"]["value"]
        control = result["control"]["auc"]["value"]
        gaps = {n: round(v, 2) for n, v in result["measured"]["gap_to_retrain"].items()}
        print(
            f"{cell.file_name}: AUC {auc:.3f} (control {control:.3f}), gaps {gaps}, cost "
            f"{result['cost'].get('ratio_seconds', 1):.2f}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        if (work / "stop").exists():
            return


def main() -> None:
    """Run, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, kept")
    parser.add_argument("--only", choices=("head", "network", "judge"))
    parser.add_argument("--report", action="store_true", help="write the results and stop")
    arguments = parser.parse_args()
    work: Path = arguments.work
    torch.set_num_threads(1)
    unknown = set(NETWORK_METHODS) - set(METHODS)
    if unknown:
        raise SystemExit(f"Unknown methods: {', '.join(sorted(unknown))}.")
    if not arguments.report:
        if arguments.only in {None, "head"}:
            run_head(work)
        if arguments.only in {None, "judge"}:
            judge(work)
            lengths(work)
        if arguments.only in {None, "network"}:
            run_cells(Bench("network", work), work)
    result = write_report(work)
    write(ROOT / "README.md", result)


if __name__ == "__main__":
    main()
