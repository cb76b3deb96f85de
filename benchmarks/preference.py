"""Measure the preference model: recovery, honesty, speed; writes `docs/results/preference.json`.

With `--draw` it only draws what was measured before. With `--peers DIR` it also compares with
questplus and AEPsych, each installed by pip into an environment of its own in DIR and run there as
a process. Everything is simulated, see `feedback.simulate.raters`; nothing here is about real
people.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy.stats import chi2

from benchmarks.preference_comparison import peers, speed
from feedback.population.release import Release, noisy, total_units, units_of
from feedback.preference.decision import SETTLED_ANSWERS, SETTLED_SD
from feedback.preference.posterior import Prior
from feedback.simulate.raters import HABITS
from feedback.simulate.run import SimulationSettings, run_simulation, trace

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
GOLDEN = ROOT / "tests" / "golden" / "preference.json"
_BINS = 20
_POPULATION_SEEDS = 5


def recovery(raters: int, seed: int) -> dict[str, Any]:
    """Return RMSE and coverage of every design beside the reference's numbers."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found: dict[str, Any] = {"answers": [], "pages": [], "photos": [], "habits": []}
    for part in ("answers", "pages"):
        after = golden[part]["after"]
        cases = golden[part]["rmse"]
        if part == "pages":  # what the app does; not in the reference
            cases = [*cases, {"response": "best_then_jar5", "select": "active", "rmse": None}]
        for case in cases:
            result = run_simulation(
                SimulationSettings(
                    n_raters=raters,
                    n_answers=max(after),
                    seed=seed,
                    response=case["response"],
                    select=case["select"],
                )
            )
            found[part].append(
                {
                    "response": case["response"],
                    "select": case["select"],
                    "after": after,
                    "rmse": [round(result.rmse[n], 4) for n in after],
                    "coverage90": [round(result.coverage90[n], 4) for n in after],
                    "reference": case["rmse"],
                }
            )
    for case in golden["photos"]["cases"]:
        row = {"photos": case["photos"], "each": case["each"]}
        for name in ("naive", "two_level"):
            result = run_simulation(
                SimulationSettings(
                    n_raters=raters,
                    n_answers=case["photos"] * case["each"],
                    seed=seed,
                    n_photos=case["photos"],
                    is_two_level=name == "two_level",
                )
            )
            row[name] = [round(result.rmse[-1], 4), round(result.coverage90[-1], 4)]
        found["photos"].append(row)
    found["habits"] = misspecified(raters, seed)
    return found


def misspecified(raters: int, seed: int) -> list[dict[str, Any]]:
    """Return RMSE and coverage of raters who differ from the model."""
    cases: list[tuple[str, int, dict[str, Any]]] = [(name, 8, {}) for name in HABITS]
    cases += [("careless", 8, {"knows_careless": False})]
    cases += [("drift", 20, {}), ("drift", 20, {"assumed_drift": 0.03})]
    rows = []
    for name, n, changes in cases:
        settings = SimulationSettings(
            n_raters=raters, n_answers=n, seed=seed, habits=name, **changes
        )
        result = run_simulation(settings)
        rows.append(
            {
                "habits": name,
                "after": n,
                **changes,
                "rmse": round(result.rmse[n], 4),
                "coverage90": round(result.coverage90[n], 4),
            }
        )
    return rows


def stopping(raters: int, seed: int) -> dict[str, Any]:
    """Return when raters settle, how well, and what the decision's quantile costs."""
    traces = trace(SimulationSettings(n_raters=raters, n_answers=25, seed=seed))
    turns = np.arange(26)[:, None]
    is_settled = (traces.sds < SETTLED_SD) & (turns >= SETTLED_ANSWERS)
    ever = is_settled.any(axis=0)
    first = np.where(ever, is_settled.argmax(axis=0), 25)
    errors = (traces.means - traces.ideals)[first, np.arange(raters)]
    decisions = []
    for n in (4, 8):
        for q in (0.5, 0.8, 0.9):
            over = traces.quantiles(q)[n] - traces.ideals[n]
            decisions.append(
                {
                    "answers": n,
                    "quantile": q,
                    "share_weaker_by_0.05": round(float((over < -0.05).mean()), 4),
                    "mean_overshoot": round(float(over.mean()), 4),
                }
            )
    return {
        "median_answers": float(np.median(first)),
        "p90_answers": float(np.quantile(first, 0.9)),
        "share_not_settled_by_25": round(float(1 - ever.mean()), 4),
        "rmse_at_stop": round(float(np.sqrt((errors[ever] ** 2).mean())), 4),
        "decisions": decisions,
    }


def calibration(simulations: int, seed: int) -> list[dict[str, Any]]:
    """Return p-values of the ranks of the truth being uniform (Talts et al. 2018)."""
    rows = []
    for response, select, n_photos in (
        ("jar5", "active", None),
        ("jar5", "random", None),
        ("jar5", "active", 3),
        ("likert5", "active", None),
        ("likert5", "random", None),
        ("acceptable", "active", None),
        ("best_of_n", "active", None),
    ):
        settings = SimulationSettings(
            n_raters=simulations,
            n_answers=8,
            seed=seed,
            response=response,
            select=select,
            n_photos=n_photos,
            truth="grid",
        )
        traces = trace(settings)
        believed, rows_of = traces.densities[-1], np.arange(simulations)
        point = np.rint(traces.ideals[-1] * 50).astype(int)
        here = believed[rows_of, point]
        jitter = np.random.default_rng(seed).random(simulations)
        rank = np.cumsum(believed, axis=1)[rows_of, point] - here * (1 - jitter)
        counts = np.histogram(rank, bins=_BINS, range=(0, 1))[0]
        expected = simulations / _BINS
        statistic = float(((counts - expected) ** 2 / expected).sum())
        rows.append(
            {
                "response": response,
                "select": select,
                "photos": n_photos,
                "simulations": simulations,
                "p": round(float(chi2.sf(statistic, _BINS - 1)), 4),
            }
        )
    return rows


def populations(raters: int, seed: int) -> list[dict[str, Any]]:
    """Return RMSE of new raters from a flat prior and from released ones (ε = 1), mean of seeds."""
    rows = []
    for sd in (0.17, 0.08):
        for n_public in (None, 50, 200):
            runs = [
                run_simulation(
                    SimulationSettings(
                        n_raters=raters,
                        n_answers=8,
                        seed=seed + repeat,
                        taste=(0.55, sd),
                        prior=None if n_public is None else _released(n_public, sd, repeat),
                    )
                ).rmse
                for repeat in range(_POPULATION_SEEDS)
            ]
            after = (0, 1, 2, 3, 4, 6, 8)
            rmse = np.mean(runs, axis=0)
            rows.append(
                {
                    "taste_sd": sd,
                    "prior": "flat" if n_public is None else f"released, {n_public} raters, ε = 1",
                    "after": list(after),
                    "rmse": [round(float(rmse[n]), 4) for n in after],
                }
            )
    return rows


def _released(n_public: int, sd: float, seed: int) -> Prior:
    """Return the prior that a release about simulated raters with six answers each gives."""
    settings = SimulationSettings(
        n_raters=n_public, n_answers=6, seed=1000 + seed, taste=(0.55, sd)
    )
    units = total_units([units_of(density) for density in trace(settings).densities[-1]])
    generator = np.random.default_rng(seed)
    histogram = noisy(units, epsilon=Fraction(1), randbelow=lambda n: int(generator.integers(n)))
    release = Release(
        "simulated", "1", "2026-11-20T00:00:00+00:00", "simulated", n_public, histogram
    )
    return Prior("simulated", tuple(release.curve().tolist()))


def plot(result: dict[str, Any], *paths: Path) -> None:
    """Draw recovery by design, and coverage with and without the photo level; endings say how."""
    mpl.use("Agg")
    # The same numbers give the same file: no ids drawn at random, and below no date.
    mpl.rcParams["svg.hashsalt"] = "preference"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for row in result["recovery"]["answers"]:
        if (row["response"], row["select"]) in _DRAWN:
            left.plot(row["after"], row["rmse"], label=f"{row['response']}, {row['select']}")
            left.plot(row["after"], row["reference"], ".", color="0.6", markersize=3)
    left.set(
        xlabel="answers",
        ylabel="RMSE of the preferred strength",
        ylim=(0, 0.2),
        title="Recovery (dots: reference)",
    )
    left.legend(fontsize=8)
    rows = result["recovery"]["photos"]
    names = [f"{row['photos']} × {row['each']}" for row in rows]
    for offset, name, colour in ((-0.2, "naive", "0.7"), (0.2, "two_level", "tab:blue")):
        heights = [row[name][1] for row in rows]
        right.bar(
            np.arange(len(rows)) + offset,
            heights,
            0.4,
            color=colour,
            label=name.replace("_", "-"),
        )
    right.axhspan(0.87, 0.95, color="tab:green", alpha=0.15)
    right.set_xticks(range(len(rows)), names)
    right.set(
        xlabel="photos × answers on each",
        ylabel="coverage of the 90 % interval",
        ylim=(0.6, 1),
        title="Honesty when photos differ",
    )
    right.legend(fontsize=8, loc="lower left")
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=110, metadata=metadata)
    plt.close(figure)


_DRAWN = {
    ("jar5", "active"),
    ("jar5", "random"),
    ("binary", "active"),
    ("likert5", "random"),
    ("acceptable", "active"),
}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raters", type=int, default=2000)
    parser.add_argument("--simulations", type=int, default=4000, help="for the calibration")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", type=Path, metavar="DIR", help="compare, installing into DIR")
    parser.add_argument("--draw", action="store_true", help="only draw the results there are")
    options = parser.parse_args()
    path = RESULTS / "preference.json"
    figures = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    if options.draw:
        plot(json.loads(path.read_text(encoding="utf-8")), *figures)
        return
    result: dict[str, Any] = {
        "machine": platform.machine(),
        "numpy": np.__version__,
        "raters": options.raters,
        "seed": options.seed,
    }
    started = time.perf_counter()
    run_simulation(SimulationSettings(n_raters=options.raters, seed=options.seed))
    simulated = round(time.perf_counter() - started, 2)
    result["speed"] = speed() | {"simulation_of_20_active_answers_s": simulated}
    result["recovery"] = recovery(options.raters, options.seed)
    result["stopping"] = stopping(options.raters, options.seed)
    result["calibration"] = calibration(options.simulations, options.seed)
    result["populations"] = populations(options.raters, options.seed)
    if options.peers is not None:
        result["peers"] = peers(options.peers, options.seed)
    elif path.exists():
        # What was measured with `--peers` stays until it is measured again.
        result["peers"] = json.loads(path.read_text(encoding="utf-8")).get("peers")
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    plot(result, *figures)
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
