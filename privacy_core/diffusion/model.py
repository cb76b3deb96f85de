"""The embedded model as one object: code, denoiser and strength curve, loaded from a folder.

Reads the Hub's pipeline layout (`model_index.json`, `code/`, `denoiser/`) without importing
diffusers, whose import alone takes seconds; `pipeline.py` is the same folder as a
`DiffusionPipeline`. Knows no photo, no secret and no strength.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from privacy_core.attributes import AttributePredictor, PredictorConfig
from privacy_core.diffusion.code import CodeConfig, LinearCode
from privacy_core.diffusion.denoiser import KEEP_FACTOR, CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.kept import KEPT_SHARE
from privacy_core.diffusion.refiner import Refiner, RefinerConfig, pictures_of
from privacy_core.diffusion.sampler import SETTINGS, sample
from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.schema import ATTRIBUTES, StrengthCurve

WEIGHTS = "diffusion_pytorch_model.safetensors"
CALIBRATION = "calibration.json"
PREDICTOR = "attributes"
"""The folder of the attribute predictor; not a component of the diffusers pipeline."""
REFINER = "refiner"
"""The folder of the detail stage, an optional component of the pipeline."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A trained code-space diffusion model.

    Attributes:
        code: Pixels ↔ codes.
        denoiser: D(y; σ, context, attributes), in evaluation mode.
        curve: Strength ↔ σ, None while uncalibrated.
        revision: First 12 hex digits of the SHA-256 over weights and sizes.
        population: Attribute → share of value 1 in the training data, for hidden attributes.
        predictor: Reads kept attributes off M; None where the training data had no labels, and
            kept attributes are then no more than the code's own directions.
        refiner: Adds detail to decoded faces; None where none was fitted.
    """

    code: LinearCode
    denoiser: CodeDenoiser
    curve: StrengthCurve | None
    revision: str
    population: Mapping[str, float]
    predictor: AttributePredictor | None = None
    refiner: Refiner | None = None

    def pictures(self, codes: Tensor, context: Tensor) -> Tensor:
        """Return (n, 128, 128, 3) uint8 frames of (n, K) codes, with detail; grey outside M.

        Args:
            codes: Clean codes.
            context: (n, n_context) codes of what surrounds the faces, rows of NaN where unknown.
        """
        return pictures_of(self.code, self.refiner, codes, context)

    @torch.inference_mode()
    def generate(
        self, y: Tensor, sigma: Tensor, factors: Tensor, *, context: Tensor, attributes: Tensor
    ) -> Tensor:
        """Return (n, 128, 128, 3) uint8 frames from mapped noisy codes; see `sampler.sample`."""
        codes = sample(self.denoiser, y, sigma, factors, context=context, attributes=attributes)
        return self.pictures(codes, context)


def save_model(
    folder: Path,
    code: LinearCode,
    denoiser: CodeDenoiser,
    *,
    population: Mapping[str, float],
    curve: StrengthCurve | None,
    predictor: AttributePredictor | None = None,
    refiner: Refiner | None = None,
) -> None:
    """Write all parts (denoiser and refiner in fp16) in the Hub's layout into `folder`.

    The strength curve of earlier weights there is removed when `curve` is None, and so are the
    predictor and the refiner.
    """
    parts: tuple[tuple[str, torch.nn.Module, dict[str, Any]], ...] = (
        ("code", code, asdict(code.sizes)),
        ("denoiser", denoiser, asdict(denoiser.sizes) | {"population": dict(population)}),
    )
    index: dict[str, Any] = {"_class_name": "CodeDiffusionPipeline", "_diffusers_version": "0.42.1"}
    for name, module, config in parts:
        class_name = {"code": "LinearCodeModel", "denoiser": "CodeDenoiserModel"}[name]
        index[name] = ["privacy_core.diffusion.pipeline", class_name]
        (folder / name).mkdir(exist_ok=True)
        # As pairs: diffusers sorts dictionaries when it saves, and the order of groups counts.
        config["groups"] = list(config["groups"].items())
        _write_json(folder / name / "config.json", {"_class_name": class_name, **config})
        state = {key: _stored(key, value) for key, value in module.state_dict().items()}
        save_file(state, folder / name / WEIGHTS, metadata={"format": "pt"})
    index[REFINER] = [None, None]
    if refiner is not None:
        index[REFINER] = ["privacy_core.diffusion.pipeline", "RefinerModel"]
    _write_json(folder / "model_index.json", index)
    _save_refiner(folder / REFINER, refiner)
    _save_predictor(folder / PREDICTOR, predictor)
    if curve is None:
        (folder / CALIBRATION).unlink(missing_ok=True)
    else:
        save_curve(folder, curve)


def save_curve(folder: Path, curve: StrengthCurve) -> None:
    """Write the strength curve beside the weights, with their digest."""
    _write_json(
        folder / CALIBRATION,
        {"schema_version": 1, "weights": weights_digest(folder), **asdict(curve)},
    )


def load_model(
    folder: Path, *, dtype: torch.dtype | None = None, with_curve: bool = True
) -> EmbeddedModel:
    """Load a model folder.

    Args:
        folder: As written by `save_model`.
        dtype: Precision of the denoiser; bfloat16 where the processor computes in it, else float32.
        with_curve: False leaves the strength curve unread, to replace one that does not fit.

    Raises:
        ModelError: A file is missing or damaged, or the calibration is for other weights.
    """
    try:
        code = LinearCode(CodeConfig(**_read_sizes(folder / "code")))
        code.load_state_dict(load_file(folder / "code" / WEIGHTS))
        sizes = _read_sizes(folder / "denoiser")
        shares = sizes.pop("population")
        population = {name: float(shares[name]) for name in ATTRIBUTES}
        denoiser = CodeDenoiser(DenoiserConfig(**sizes))
        denoiser.load_state_dict(load_file(folder / "denoiser" / WEIGHTS))
        predictor = _load_predictor(folder / PREDICTOR)
        refiner = _load_refiner(folder / REFINER)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The model folder {folder.name!r} cannot be loaded ({type(error).__name__}): a file "
            "is missing or damaged. Download it again, or fit one with `fit-model`."
        ) from error
    sd = denoiser.sd.clone()
    denoiser = denoiser.to(dtype or native_dtype()).eval()
    denoiser.sd = sd.float()  # preconditioning stays in full precision
    digest = weights_digest(folder)
    curve = _load_curve(folder, digest) if with_curve else None
    if refiner is not None:
        refiner = refiner.to(dtype or native_dtype())
    return EmbeddedModel(code.eval(), denoiser, curve, digest[:12], population, predictor, refiner)


def native_dtype() -> torch.dtype:
    """Return bfloat16 where this processor multiplies in it, else float32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 over weights and sizes of all parts and the settings beside them, in hex.

    Sizes count because the radius of clipped codes and the order of the groups stand there: the
    digest separates noise keys, and one noise vector may serve one code only. Settings count
    because the strength curve was measured with them.
    """
    settings = {**SETTINGS, "keep_factor": KEEP_FACTOR, "kept_share": KEPT_SHARE}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in ("code", "denoiser"):
        with (folder / name / WEIGHTS).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        sizes = _read_sizes(folder / name)
        sizes["groups"] = list(sizes["groups"].items())
        digest.update(hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).digest())
    for name in (PREDICTOR, REFINER):
        if (folder / name).is_dir():
            sizes = _own_settings(folder / name)
            digest.update(json.dumps(sizes, sort_keys=True).encode())
            digest.update((folder / name / WEIGHTS).read_bytes())
    return digest.hexdigest()


def _save_predictor(folder: Path, predictor: AttributePredictor | None) -> None:
    if predictor is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    folder.mkdir(exist_ok=True)
    _write_json(folder / "config.json", asdict(predictor.config))
    save_file({key: value.contiguous() for key, value in predictor.state().items()},
              folder / WEIGHTS, metadata={"format": "pt"})  # fmt: skip


def _load_predictor(folder: Path) -> AttributePredictor | None:
    if not folder.is_dir():
        return None
    predictor = AttributePredictor(PredictorConfig(**_read_json(folder / "config.json")))
    return predictor.load_state(load_file(folder / WEIGHTS))


def _save_refiner(folder: Path, refiner: Refiner | None) -> None:
    if refiner is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    folder.mkdir(exist_ok=True)
    _write_json(folder / "config.json", {"_class_name": "RefinerModel", **asdict(refiner.sizes)})
    state = {key: value.half().contiguous() for key, value in refiner.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def _load_refiner(folder: Path) -> Refiner | None:
    if not folder.is_dir():
        return None
    refiner = Refiner(RefinerConfig(**_own_settings(folder)))
    refiner.load_state_dict(load_file(folder / WEIGHTS))
    return refiner.eval()


def _load_curve(folder: Path, digest: str) -> StrengthCurve | None:
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    again = "Run `python -m privacy_core calibrate` again."
    try:
        stored = _read_json(path)
        curve = StrengthCurve(
            tuple(stored["strengths"]), tuple(stored["sigmas"]), stored.get("measured", {})
        )
        weights = stored["weights"]
    except (OSError, KeyError, TypeError, ValueError, InvalidArgumentError) as error:
        raise ModelError(
            f"The calibration in {folder.name!r} cannot be read ({type(error).__name__}). {again}"
        ) from error
    if weights != digest:
        raise ModelError(
            f"The calibration in {folder.name!r} belongs to other weights or another sampler. "
            f"{again}"
        )
    return curve


def _stored(key: str, value: Tensor) -> Tensor:
    """Halve what can be: everything but int8 components and the metric with its inverse."""
    full = value.dtype != torch.float32 or "metric" in key or key in ("sd", "component_scale")
    return value.contiguous() if full else value.half().contiguous()


def _read_sizes(folder: Path) -> dict[str, Any]:
    """Return a part's settings without those of diffusers, its groups in their order."""
    sizes = _own_settings(folder)
    sizes["groups"] = dict(sizes["groups"])
    return sizes


def _own_settings(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError(path.name)
    return value
