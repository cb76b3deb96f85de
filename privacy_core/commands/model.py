"""`fit-model` and `calibrate`: DATA → weights, and what strength means with them."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from privacy_core.commands.output import Progress, say, unwritable
from privacy_core.commands.shell import (
    PROGRAM,
    Commands,
    Tools,
    add_backend,
    add_data,
    add_recogniser,
    rows_of,
    whole_number,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.calibrate import CalibrationSet
    from privacy_core.crew import Crew
    from privacy_core.dataset import RowSource
    from privacy_core.records import Records
    from privacy_core.schema import Photo


def add_commands(commands: Commands) -> None:
    """Add `fit-model` and `calibrate`."""
    fit = commands.add("fit-model", _fit_model, "train the embedded model on faces")
    add_data(fit)
    fit.add_argument("--out", required=True, metavar="DIR", help="model folder; a rerun resumes")
    fit.add_argument("--components", default=512, metavar="K", help="numbers per face")
    fit.add_argument("--faces", default=7_000_000, metavar="N", help="faces to train on, repeated")
    fit.add_argument("--refiner-steps", default=3_000, metavar="N", help="0: no detail stage")
    fit.add_argument("--seed", default=0, metavar="N")
    text = "fit what strength means to held-out people"
    calibrate = commands.add("calibrate", _calibrate, text, shares_work=True)
    add_data(calibrate)
    add_backend(calibrate)
    calibrate.add_argument("--model", metavar="DIR", help="model folder (default: the shipped one)")
    add_recogniser(calibrate)
    calibrate.add_argument("--faces", default=600, metavar="N", help="photos to measure at most")


def _fit_model(options: argparse.Namespace, tools: Tools) -> None:
    components, n_faces, refiner_steps, seed = (
        whole_number(getattr(options, name.replace("-", "_")), f"--{name}", at_least=low)
        for name, low in (("components", 8), ("faces", 1), ("refiner-steps", 0), ("seed", 0))
    )
    rows = rows_of(options)
    from privacy_core.diffusion.fit import FitConfig, fit_model
    from privacy_core.diffusion.fit_code import CodeFitConfig
    from privacy_core.diffusion.refiner_examples import RefinerFitConfig
    from privacy_core.diffusion.training import TrainingConfig

    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable("--out", out, error) from error
    config = FitConfig(
        code=CodeFitConfig(n_components=components, seed=seed),
        training=TrainingConfig(n_faces=n_faces, seed=seed),
        refiner=RefinerFitConfig(n_steps=refiner_steps, seed=seed),
    )
    digest = rows.digest()
    fit_model(
        ({**row, "image": row[options.image_column]} for row in rows),
        len(rows),
        out,
        config=config,
        detector=tools.detector(),
        report=Progress(),
        talk=say,
        digest=digest,
        provenance={
            "command": f"`{PROGRAM} fit-model DATA --out DIR --components {components} "
            f"--faces {n_faces} --refiner-steps {refiner_steps} --seed {seed}`",
            "rows": str(len(rows)),
            "SHA-256 of the rows": digest,
        },
    )
    say(f"Wrote the model to {out}. Next: {PROGRAM} calibrate {options.data} --model {out}")


def _calibrate(options: argparse.Namespace, tools: Tools) -> None:
    if options.backend != "embedded":
        _calibrate_backend(options, tools)
        return
    rows = rows_of(options)
    from privacy_core.backends.embedded import MODEL_FOLDER
    from privacy_core.calibrate import calibrate_model
    from privacy_core.diffusion.model import load_model, save_curve

    folder = Path(options.model) if options.model else MODEL_FOLDER
    model = load_model(folder, with_curve=False)
    chosen = _chosen(rows, options, tools, place=folder, model=model.revision)
    curve = calibrate_model(model, chosen)
    _finish(chosen.records, tools.crew, lambda: save_curve(folder, curve))
    of_it = f" --model {folder}" if options.model else ""
    tools.say(
        f"Wrote the strength curve to {folder}. "
        f"Next: {PROGRAM} anonymize PHOTO --out OUT.png{of_it}"
    )


def _calibrate_backend(options: argparse.Namespace, tools: Tools) -> None:
    """Measure a model of the Hub; its curve is stored for its name, commit and steps."""
    from privacy_core.backends import HUB_MODELS

    name = options.backend.partition("@")[0]
    if name not in HUB_MODELS or options.model:
        raise InvalidArgumentError(
            f"`--backend` must be one with a strength curve (embedded, {', '.join(HUB_MODELS)}), "
            f"and `--model` goes with embedded only, got {options.backend!r}."
        )
    rows = rows_of(options)
    backend = tools.load_backend(options.backend, accept_licence=options.accept_licence)
    from privacy_core.backends import curves
    from privacy_core.backends.inpainting import InpaintingBackend
    from privacy_core.calibrate import calibrate_backend

    if not isinstance(backend, InpaintingBackend):
        raise InvalidArgumentError(
            f"`--backend` must be a model of the Hub, got {options.backend!r}. Choose another."
        )
    folder = backend.curves or curves.CURVES
    path = curves.curve_file(folder, backend.model, backend.revision)
    steps = f"{backend.model.steps} steps, {backend.model.side} px"
    chosen = _chosen(rows, options, tools, place=path, model=steps)
    curve = calibrate_backend(backend, chosen)
    _finish(
        chosen.records,
        tools.crew,
        lambda: curves.save(folder, backend.model, backend.revision, curve),
    )
    tools.say(
        f"Wrote the strength curve to {path}. "
        f"Next: {PROGRAM} anonymize PHOTO --out OUT.png --backend {options.backend}"
    )


def _chosen(
    rows: RowSource, options: argparse.Namespace, tools: Tools, *, place: Path, model: str
) -> CalibrationSet:
    """Return the photos of held-out people, what looks at them, and what keeps the measured ones.

    Args:
        rows: The data.
        options: How many photos, where they are, and the recogniser.
        tools: What looks at them.
        place: What the curve is for; measured photos are kept beside it.
        model: Tells what is measured from other models in the same place.
    """
    from privacy_core.calibrate import CalibrationSet, held_out, spread

    n_faces = whole_number(options.faces, "--faces", at_least=1)
    photos, people = spread(*held_out(rows, image_column=options.image_column), n_faces)
    recognisers = tools.recognisers(options.recogniser)
    names = tuple(one.name for one in recognisers)
    records = _records(place, (model, *names), photos, people, tools.crew)
    return CalibrationSet(
        photos, people, tools.detector(), tools.finder(), recognisers, records, tools.progress()
    )


def _records(
    place: Path, model: tuple[str, ...], photos: list[Photo], people: list[int], crew: Crew
) -> Records:
    """Return what keeps measured photos, beside the place that the curve is for."""
    from privacy_core.calibrate.calibration import N_DRAWS
    from privacy_core.diffusion.prepare import pixel_digest
    from privacy_core.records import Records

    shown = hashlib.sha256(repr(people).encode())
    for photo in photos:
        shown.update(pixel_digest(photo.pixels).encode())
    folder = place.absolute().parent / f".{place.name}.calibration"
    return Records.anew(
        folder, {"model": model, "photos": shown.hexdigest(), "draws": N_DRAWS}, crew
    )


def _finish(records: Records, crew: Crew, save: Callable[[], object]) -> None:
    """Let the first process save the curve, and remove what was measured of faces."""
    if crew.is_first:
        save()
    records.forget()
