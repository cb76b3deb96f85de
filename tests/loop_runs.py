"""Small steps in place of the loop's commands, and an audit as the real ones write it."""

from __future__ import annotations

import sys

from shell.evidence import Evidence
from shell.loop import Step

NAMES = ("simulate", "fit", "revise", "train", "unlearn", "audit")
REFUSAL = "`--out` must be a new folder, got one with files in it."
BAR = "Anonymizing:  40%|####      | 2/5 [00:01<00:01]"


def step(name, code):
    """Return a step that runs a line of Python."""
    return Step(name, (sys.executable, "-P", "-c", code))


def says(text):
    return f"import sys; sys.stderr.write({text!r})"


def quick_plan(settings, folder):
    """Return six steps that do next to nothing, the last writes a folder."""
    del settings, folder
    leave = "import os; os.mkdir('unlearned'); open('unlearned/audit.json', 'w').write('{}')"
    return (*(step(name, "") for name in NAMES[:-1]), step("audit", leave))


def stuck_plan(settings, folder):
    """Return a step that shows a bar, starts a process of its own, and never ends."""
    del settings, folder
    code = (
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('processes').write_text(f'{child.pid}')\n"
        f"sys.stderr.write({BAR!r} + chr(13)); sys.stderr.flush()\n"
        "time.sleep(600)\n"
    )
    return (step("simulate", code), step("fit", ""))


def refused_plan(settings, folder):
    del settings, folder
    text = f"Opening: 100%|####| 3/3\nsome talk\n{REFUSAL}\n"
    return (step("simulate", ""), step("fit", f"{says(text)}; sys.exit(2)"))


def broken_plan(settings, folder):
    """Return a step that fails as a bug does, with a path in what it says."""
    del settings
    return (step("simulate", f"raise KeyError({str(folder)!r})"),)


class Hold:
    """A plan whose run waits until it is let go, so that a test sees it run.

    Args:
        folder: Where the sign to go on lies.
    """

    def __init__(self, folder):
        self.flag = folder / "go"

    def __call__(self, settings, folder):
        wait = f"import pathlib, time\nwhile not pathlib.Path({str(self.flag)!r}).exists():"
        held = step("simulate", f"{wait} time.sleep(0.02)")
        return (held, *quick_plan(settings, folder)[1:])

    def let_go(self):
        self.flag.touch()


def interval(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.04}


def audit_values(*, auc=0.5, passed=True):
    """Return what `audit.json` holds, as far as the page reads it."""
    check = {"name": "per-example attack AUC", "passed": passed, "value": auc, "limit": 0.6}
    rows = ("retain", "forget", "revised", "test")
    models = {
        name: {
            "accuracy": {row: interval(0.9 - 0.1 * i - 0.02 * j) for j, row in enumerate(rows)},
            "u_lira": {"auc": interval(value)},
        }
        for i, (name, value) in enumerate(
            {"original": 0.86, "unlearned": auc, "reference": 0.46}.items()
        )
    }
    return {
        "settings": {"n_models": 3},
        "people": {"retain": 18, "forget": 6, "revised": 6, "test": 8},
        "models": models,
        "costs": {"ratio_to_retraining": {"seconds": 0.25, "gradient_evaluations": 0.5}},
        "gate": {
            "passed": passed,
            "reasons": [] if passed else ["The per-example attack AUC is too large."],
            "checks": [check],
        },
        "limits": ["The attacks are those listed; others may find more."],
    }


def evidence(**changes):
    """Return what a run leaves, with a plot and weights."""
    line = b'<path d="M0 5L9 0" stroke="#555" stroke-width=".1"/>'
    plot = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 5">' + line + b"</svg>"
    files = {
        "audit.json": b"{}",
        "README.md": b"# card\n",
        "plots/attack.svg": plot,
        "model.safetensors": b"weights",
    }
    return Evidence(audit_values(**changes), files)
