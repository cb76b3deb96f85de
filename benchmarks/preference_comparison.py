"""How fast the preference model is, and how it compares with other packages on the same answers.

The packages live in environments of their own, made by pip on first use and run as processes:
questplus is GPL-3 and AEPsych CC-BY-NC, and neither is a dependency of this project.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np

from feedback.preference.judgement import Judgement
from feedback.preference.posterior import Posterior, RaterModel
from feedback.preference.response import (
    LAPSE_WEIGHTS,
    LAPSES,
    NOISE_WEIGHTS,
    NOISES,
    STRENGTHS,
    Array,
)
from feedback.preference.selection import choose_page
from feedback.simulate.raters import answer, draw_people
from feedback.simulate.run import RUNGS

ROOT = Path(__file__).resolve().parents[1]
_PEERS = {"questplus": ("questplus==2023.1",), "aepsych": ("aepsych==0.8.0",)}
_QUESTPLUS_RATERS, _QUESTPLUS_ANSWERS = 60, 20
_AEPSYCH_RATERS, _AEPSYCH_ANSWERS = 40, (6, 10, 20, 40)


def speed() -> dict[str, float]:
    """Return milliseconds on one core: choosing and updating, replay, import."""
    figures: dict[str, float] = {}
    for n_shown, kind in ((1, "jar5"), (4, "best_of_n")):
        times, history = [], []
        generator, posterior = np.random.default_rng(0), Posterior()
        people = draw_people(1, generator)
        for turn in range(200):
            photo = str(turn // 8)
            started = time.perf_counter()
            page = choose_page(
                posterior,
                rungs=RUNGS,
                n_shown=n_shown,
                floor=0.5,
                generator=generator,
                photo_id=photo,
            )
            middle = time.perf_counter()
            clicked = answer(people, kind, np.asarray([page.strengths]), generator)
            judgement = Judgement(
                kind=kind, strengths=page.strengths, response=int(clicked[0]), photo_id=photo
            )
            resumed = time.perf_counter()
            posterior = posterior.update(judgement)
            _ = posterior.mean
            times.append(1000 * (time.perf_counter() - resumed + middle - started))
            history.append(judgement)
        replays = []
        for _ in range(9):
            started = time.perf_counter()
            _ = Posterior.replay(history).mean
            replays.append(1000 * (time.perf_counter() - started))
        figures[f"choose_and_update_{kind}_ms"] = round(statistics.median(times), 3)
        figures[f"replay_of_200_{kind}_ms"] = round(statistics.median(replays), 3)
    probe = "import time; t = time.perf_counter(); import feedback; print(time.perf_counter() - t)"
    done = [
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for _ in range(3)
    ]
    figures["import_feedback_s"] = round(min(float(d.stdout) for d in done), 3)
    return figures


def peers(folder: Path, seed: int) -> dict[str, Any]:
    """Return the comparison with questplus and AEPsych on the same simulated answers."""
    return {
        "questplus": _against_questplus(_environment(folder, "questplus"), seed),
        "aepsych": _against_aepsych(_environment(folder, "aepsych"), seed),
    }


def _environment(folder: Path, name: str) -> Path:
    """Return the Python of a peer's own environment, made on first use."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        venv.create(folder / name, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *_PEERS[name]]
        subprocess.run(command, check=True)  # noqa: S603
    return python


def _ask(python: Path, name: str, task: dict[str, Any]) -> dict[str, Any]:
    script = Path(__file__).with_name("preference_peers.py")
    done = subprocess.run(  # noqa: S603
        [str(python), str(script), name],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def _answered(kind: str, raters: int, n: int, seed: int) -> tuple[Array, Array, Array]:
    """Return ideals, random strengths and simulated answers, (raters,) and (raters, n)."""
    generator = np.random.default_rng(seed)
    people = draw_people(raters, generator)
    strengths = generator.choice(RUNGS, (raters, n))
    answers = [answer(people, kind, strengths[:, [t]], generator) for t in range(n)]
    return people.ideal, strengths, np.stack(answers, axis=1)


def _ours(kind: str, strengths: Array, answers: Array) -> tuple[Array, float]:
    """Return our densities, (raters, 51), and milliseconds per rater for a replay."""
    model, densities, times = RaterModel(photo_sd=0.0), [], []
    for shown, given in zip(strengths.tolist(), answers.tolist(), strict=True):
        history = [
            Judgement(kind=kind, strengths=(s,), response=y, photo_id="one")
            for s, y in zip(shown, given, strict=True)
        ]
        started = time.perf_counter()
        densities.append(Posterior.replay(history, model=model).density())
        times.append(1000 * (time.perf_counter() - started))
    return np.asarray(densities), float(np.median(times))


def _against_questplus(python: Path, seed: int) -> dict[str, Any]:
    ideals, strengths, answers = _answered("binary", _QUESTPLUS_RATERS, _QUESTPLUS_ANSWERS, seed)
    task = {
        "rungs": RUNGS,
        "grid": STRENGTHS.tolist(),
        "noises": NOISES,
        "noise_weights": NOISE_WEIGHTS,
        "lapses": LAPSES,
        "lapse_weights": LAPSE_WEIGHTS,
        "strengths": strengths.tolist(),
        "answers": answers.tolist(),
    }
    theirs = _ask(python, "questplus", task)
    densities, ms = _ours("binary", strengths, answers)
    other = np.asarray(theirs["densities"])
    return {
        "raters": _QUESTPLUS_RATERS,
        "answers": _QUESTPLUS_ANSWERS,
        "largest_difference_of_a_probability": float(np.abs(densities - other).max()),
        "rmse": [round(float(_rmse(d @ STRENGTHS, ideals)), 4) for d in (densities, other)],
        "ms_for_all_answers_ours": round(ms, 3),
        "ms_per_update_and_choice_theirs": round(theirs["ms"], 3),
    }


def _against_aepsych(python: Path, seed: int) -> list[dict[str, Any]]:
    most = max(_AEPSYCH_ANSWERS)
    ideals, strengths, answers = _answered("jar5", _AEPSYCH_RATERS, most, seed)
    rows = []
    for n in _AEPSYCH_ANSWERS:
        task = {
            "grid": STRENGTHS.tolist(),
            "strengths": strengths[:, :n].tolist(),
            "answers": answers[:, :n].tolist(),
        }
        theirs = _ask(python, "aepsych", task)
        densities, ms = _ours("jar5", strengths[:, :n], answers[:, :n])
        reached = densities.cumsum(axis=1)
        low, high = (STRENGTHS[(reached >= q).argmax(axis=1)] for q in (0.05, 0.95))
        inside = (np.asarray(theirs["lows"]) <= ideals) & (ideals <= np.asarray(theirs["highs"]))
        rows.append(
            {
                "raters": _AEPSYCH_RATERS,
                "answers": n,
                "rmse_ours": round(_rmse(densities @ STRENGTHS, ideals), 4),
                "rmse_theirs": round(_rmse(np.asarray(theirs["means"]), ideals), 4),
                "coverage90_ours": float(((low - 0.01 <= ideals) & (ideals <= high + 0.01)).mean()),
                "coverage90_theirs": float(inside.mean()),
                "ms_ours": round(ms, 3),
                "ms_theirs": round(1000 * statistics.median(theirs["seconds"]), 1),
            }
        )
    return rows


def _rmse(found: Array, truth: Array) -> float:
    return float(np.sqrt(((found - truth) ** 2).mean()))
