"""What strength means for a model of the Hub, as measured here: one file per model and commit.

Knows files and curves only; nothing is measured here.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from privacy_core.backends.registry import Family, HubModel
from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.schema import SCHEMA_VERSION, StrengthCurve
from privacy_core.wholefile import whole_file

CURVES = Path(__file__).resolve().parents[2] / "models" / "curves"
"""Where `calibrate --backend` writes, unless told otherwise."""
LOWEST_SIGMA = 0.1
_HIGHEST: dict[Family, float] = {"noise level": 14.0, "flow time": 99.0}


def highest_sigma(model: HubModel) -> float:
    """Return the most noise a model can start from, short of noise alone."""
    return _HIGHEST[model.family]


def provisional(model: HubModel) -> StrengthCurve:
    """Return what strength means before it was measured: even steps in ln σ."""
    return StrengthCurve((0.0, 1.0), (LOWEST_SIGMA, highest_sigma(model)))


def curve_file(folder: Path, model: HubModel, revision: str) -> Path:
    """Return where the curve of a model at a commit is stored."""
    return folder / f"{model.name}@{revision}.json"


def save(folder: Path, model: HubModel, revision: str, curve: StrengthCurve) -> Path:
    """Store a curve and return its file.

    Raises:
        OutputError: It cannot be written.
    """
    path = curve_file(folder, model, revision)
    text = json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "repo_id": model.repo_id,
            "revision": revision,
            "steps": model.steps,
            "side": model.side,
            "diffusers": version("diffusers"),
            **asdict(curve),
        },
        indent=1,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as draft:
            draft.write_text(text + "\n")
    except OSError as error:
        raise OutputError(
            f"The strength curve could not be written to {str(path)!r} "
            f"({error.strerror or type(error).__name__}). Make the folder writable."
        ) from error
    return path


def load(folder: Path, model: HubModel, revision: str) -> StrengthCurve | None:
    """Return the stored curve, None where this model, commit and step count was not measured.

    Raises:
        ModelError: The file is damaged.
    """
    path = curve_file(folder, model, revision)
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        if (stored["steps"], stored["side"]) != (model.steps, model.side):
            return None
        return StrengthCurve(
            tuple(stored["strengths"]), tuple(stored["sigmas"]), dict(stored["measured"])
        )
    except (OSError, KeyError, TypeError, ValueError, InvalidArgumentError) as error:
        raise ModelError(
            f"The strength curve {path.name!r} cannot be read ({type(error).__name__}). Delete it "
            "and run `python -m privacy_core calibrate` again."
        ) from error
