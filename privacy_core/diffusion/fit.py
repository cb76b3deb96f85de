"""`fit-model`: DATA → a model folder, in resumable stages, with its model card's facts.

Stages: align faces → fit the code → encode augmented copies → train the denoiser → train the
refiner → train the attribute predictor → save → sample sheet. Each stage leaves a file in
`OUT/work`; a killed run goes on from the last one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from privacy_core.attributes import AttributePredictor, PredictorConfig
from privacy_core.diffusion.code import CodeConfig, LinearCode
from privacy_core.diffusion.denoiser import NULL, CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.fit_code import CodeFitConfig, encode_copies, fit_code
from privacy_core.diffusion.fit_refiner import fit_refiner
from privacy_core.diffusion.model import save_model
from privacy_core.diffusion.prepare import PreparedFaces, prepare_faces
from privacy_core.diffusion.refiner import Refiner, pictures_of
from privacy_core.diffusion.refiner_examples import RefinerFitConfig
from privacy_core.diffusion.sampler import sample
from privacy_core.diffusion.training import SIGMA_MAX, CodeBatch, Trainer, TrainingConfig
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.detect import FaceDetector
from privacy_core.schema import ATTRIBUTES
from privacy_core.wholefile import whole_file

_SHARE_POWER = 0.75
FIT = (0, 56)
VALIDATION = (57, 59)
"""Splits (sha256(identity) mod 100) that the weights and the early stopping may see."""
PREDICTED = (0, 29)
"""Splits that the predictor of kept attributes may see: who judges pictures learns from others."""
PREDICTOR = PredictorConfig(width=24, depth=4, epochs=10, whole_crop=False)
_MOST_PREDICTED = 12_000
"""Faces the predictor is fitted to at most: they are held in memory."""


@dataclass(frozen=True)
class FitConfig:
    """All settings of a fit; saved beside the weights.

    Attributes:
        code: Linear code.
        training: Denoiser training.
        refiner: Refiner training.
        width, depth: Size of the denoiser.
        margin: Template pixels to show around the template, for codes of the whole head.
    """

    code: CodeFitConfig = field(default_factory=CodeFitConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    refiner: RefinerFitConfig = field(default_factory=RefinerFitConfig)
    width: int = 1024
    depth: int = 8
    margin: float = 0.0


def fit_model(  # noqa: PLR0913 - the last two with a default
    rows: Iterable[Mapping[str, Any]],
    n_rows: int,
    out: Path,
    *,
    config: FitConfig,
    detector: FaceDetector,
    report: Callable[[str, int, int], None],
    talk: Callable[[str], None],
    digest: str = "",
    provenance: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Fit a model to faces and write it to `out`, uncalibrated.

    Args:
        rows: See `prepare_faces`.
        n_rows: Number of rows.
        out: Model folder; `out/work` keeps what a killed run needs and may be deleted after.
        config: Settings; a resumed run must have the same.
        detector: The product's detector.
        report: Progress as (stage, done, total).
        talk: One line per validation.
        digest: Of the rows; a resumed run must have the same. Where no run gives one, rows are
            told apart by their number alone.
        provenance: What the card says of the run: command, data and its digest.

    Returns:
        The facts of `fit.json`: settings, counts, losses, seconds.

    Raises:
        InvalidArgumentError: `out` holds a run with other settings or data, or too few faces.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    _check_settings(work, config, digest)
    prepared = prepare_faces(
        rows, n_rows, work, detector=detector, report=report, margin=config.margin
    )
    if prepared.counts["rows"] != n_rows:
        raise InvalidArgumentError(
            f"`out` must be new or hold a run on the same data, got one on "
            f"{prepared.counts['rows']} rows where `DATA` has {n_rows}. Choose another folder."
        )
    code, train, validation = _fitted_codes(prepared, work, config, report)
    denoiser = _new_denoiser(code, config)
    trainer = Trainer(
        denoiser,
        train,
        validation,
        pixel_weight(code.inverse_metric, code.sd),
        config=config.training,
        folder=work,
    )
    if trainer.resume():
        talk(f"Resumed after {trainer.step_index * config.training.batch_size} faces.")
    best = trainer.run(report=lambda row: talk(_line(row)))
    denoiser.load_state_dict(best, strict=False)
    refiner = fit_refiner(
        code,
        denoiser.eval(),
        prepared.faces.take(prepared.between(*FIT)),
        config=config.refiner,
        folder=work,
        report=report,
    )
    save_model(
        out,
        code,
        denoiser,
        population=_population(prepared),
        curve=None,
        predictor=_fitted_predictor(prepared, work, report),
        refiner=refiner,
    )
    Image.fromarray(sample_sheet(code, denoiser, refiner)).save(out / "samples.png")
    facts: dict[str, Any] = {
        "provenance": dict(provenance or {}),
        "config": asdict(config),
        "counts": dict(prepared.counts),
        "fit_faces": len(prepared.between(*FIT)),
        "validation_faces": len(prepared.between(*VALIDATION)),
        "seconds_of_training": trainer.seconds,
        "best_validation_loss": trainer.best[0],
        "losses": trainer.log,
    }
    (out / "fit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_card(facts), encoding="utf-8")
    return facts


def _card(facts: Mapping[str, Any]) -> str:
    """Return a model card with what is known of the run; terms are for its owner to add."""
    rows = {
        **facts["provenance"],
        "seed": facts["config"]["training"]["seed"],
        "fitted faces": facts["fit_faces"],
        "validation faces": facts["validation_faces"],
        "minutes of training": round(facts["seconds_of_training"] / 60, 1),
        "best validation loss": round(facts["best_validation_loss"], 4),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "---\nlibrary_name: diffusers\n---\n\n# A face model of Privacy Dial\n\n"
        "Say here whose faces it was fitted to, on what terms, and what it may be used for.\n\n"
        f"| | |\n|---|---|\n{table}\n\nLosses and all settings: `fit.json`.\n\n"
        "![Faces from pure noise, without any surroundings](samples.png)\n"
    )


def _check_settings(work: Path, config: FitConfig, digest: str) -> None:
    path = work / "settings.json"
    text = json.dumps({"data": digest, "config": asdict(config)}, indent=1)
    settings = json.loads(text)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    if "data" not in found:
        raise InvalidArgumentError(
            "`out` must be new or hold a run that noted which data it has, got one of an earlier "
            f"version. Choose another folder, or delete {str(work)!r} to begin anew."
        )
    if found["data"] != digest:
        raise InvalidArgumentError(
            "`out` must be new or hold a run on the same data, got one on rows with the digest "
            f"{found['data']!r} where `DATA` has {digest!r}. Choose another folder, or delete "
            f"{str(work)!r} to begin anew."
        )
    if found != settings:
        raise InvalidArgumentError(
            "`out` must be new or hold a run with the same settings, got one with others. "
            "Choose another folder, or repeat the command with the settings in "
            f"{work.name}/settings.json."
        )
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _fitted_codes(
    prepared: PreparedFaces,
    work: Path,
    config: FitConfig,
    report: Callable[[str, int, int], None],
) -> tuple[LinearCode, CodeBatch, CodeBatch]:
    """Fit and encode, or read what an earlier run left."""
    fit, held_out = prepared.between(*FIT), prepared.between(*VALIDATION)
    if len(fit) < 2 * config.code.n_components or not len(held_out):
        raise InvalidArgumentError(
            f"`DATA` must hold at least {2 * config.code.n_components} faces to fit "
            f"{config.code.n_components} components and one to validate, got {len(fit)} and "
            f"{len(held_out)}. Use more faces or fewer `--components`."
        )
    code_path, codes_path = work / "code.pt", work / "codes.pt"
    if not code_path.is_file():
        fitted = fit_code(prepared.faces.take(fit), config=config.code, report=report)
        _save({"state": fitted.state_dict(), "config": asdict(fitted.sizes)}, code_path)
    stored = torch.load(code_path, weights_only=True)
    code = LinearCode(CodeConfig(**stored["config"]))
    code.load_state_dict(stored["state"])
    if not codes_path.is_file():
        train = encode_copies(code, prepared.faces.take(fit), config=config.code, report=report)
        plain = CodeFitConfig(**(asdict(config.code) | {"copies": 0}))
        validation = encode_copies(code, prepared.faces.take(held_out), config=plain, report=report)
        _save([vars(train), vars(validation)], codes_path)
    train_state, validation_state = torch.load(codes_path, weights_only=True)
    return code, CodeBatch(**train_state), CodeBatch(**validation_state)


def _fitted_predictor(
    prepared: PreparedFaces, work: Path, report: Callable[[str, int, int], None]
) -> AttributePredictor | None:
    """Fit what reads kept attributes, or read what an earlier run left; None without labels."""
    index = prepared.between(*PREDICTED)
    labels = prepared.faces.attributes[index]
    labelled = np.flatnonzero((labels >= 0).any(1))[:_MOST_PREDICTED]
    both = [{0, 1} <= set(column.tolist()) for column in labels[labelled].T]
    if not any(both):
        return None
    predictor, path = AttributePredictor(PREDICTOR), work / "predictor.pt"
    if path.is_file():
        return predictor.load_state(torch.load(path, weights_only=True))
    report("attribute predictor", 0, len(labelled))
    predictor.fit(np.asarray(prepared.faces.frames[index[labelled]]), labels[labelled])
    report("attribute predictor", len(labelled), len(labelled))
    _save(predictor.state(), path)
    return predictor


def _save(state: Any, path: Path) -> None:
    with whole_file(path) as draft:
        torch.save(state, draft)


def _new_denoiser(code: LinearCode, config: FitConfig) -> CodeDenoiser:
    torch.manual_seed(config.training.seed)
    sizes = DenoiserConfig(
        code.sizes.n_components,
        code.sizes.n_context,
        code.sizes.groups,
        width=config.width,
        depth=config.depth,
    )
    denoiser = CodeDenoiser(sizes)
    denoiser.sd.copy_(code.sd)
    return denoiser


def pixel_weight(inverse_metric: Tensor, sd: Tensor) -> Tensor:
    """Return (K,) the pixel variance that each coordinate stands for, to the power ¾, mean one."""
    share = ((inverse_metric**2).sum(0) * sd**2) ** _SHARE_POWER
    return share / share.mean()


def _population(prepared: PreparedFaces) -> dict[str, float]:
    """Return each attribute's share of value 1 among labelled fit faces, 0.5 without labels."""
    labels = prepared.faces.attributes[prepared.between(*FIT)]
    shares = {}
    for i, name in enumerate(ATTRIBUTES):
        known = labels[:, i][labels[:, i] >= 0]
        shares[name] = float(known.mean()) if len(known) else 0.5
    return shares


def _line(row: Mapping[str, float]) -> str:
    return (
        f"{row['faces'] / 1e6:.2f} M faces, {row['seconds'] / 60:.1f} min: "
        f"training loss {row['train_loss']:.4f}, validation loss {row['validation_loss']:.4f}"
    )


def sample_sheet(
    code: LinearCode,
    denoiser: CodeDenoiser,
    refiner: Refiner | None = None,
    *,
    n: int = 32,
    seed: int = 0,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a sheet of `n` faces generated from pure noise without context, eight in a row."""
    generator = torch.Generator().manual_seed(seed)
    k = code.sizes.n_components
    codes = sample(
        denoiser,
        SIGMA_MAX * torch.randn(n, k, generator=generator),
        torch.full((n,), SIGMA_MAX),
        torch.ones(n, k),
        context=None,
        attributes=torch.full((n, len(ATTRIBUTES)), NULL),
    )
    frames = pictures_of(code, refiner, codes, None).numpy()
    rows = math.ceil(n / 8)
    padded = np.zeros((rows * 8, *frames.shape[1:]), np.uint8)
    padded[:n] = frames
    grid = padded.reshape(rows, 8, *frames.shape[1:]).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * frames.shape[1], 8 * frames.shape[2], 3)
