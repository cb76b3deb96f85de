"""Fit what strength means: a model, and photos of people it was not fitted to → its curve.

Joins measuring and anchors; knows not how the weights were trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.backends.inpainting import InpaintingBackend
from privacy_core.calibrate.anchors import fit_curve
from privacy_core.calibrate.measuring import CalibrationSet, measure_variants
from privacy_core.diffusion.model import EmbeddedModel
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.noise import NoiseKey
from privacy_core.records import Arrays, joined
from privacy_core.schema import StrengthCurve

_LOWEST_SIGMA = 0.02
N_DRAWS = 2
"""Draws of noise per photo."""


def calibrate_model(
    model: EmbeddedModel, chosen: CalibrationSet, *, n_rungs: int = 10
) -> StrengthCurve:
    """Measure a model on held-out people and return its strength curve.

    Args:
        model: The weights; a curve they already have is not used.
        chosen: At least 500 photos of people the weights were not fitted to.
        n_rungs: Noise levels to measure, evenly spaced in ln σ.
    """
    provisional = StrengthCurve((0.0, 1.0), (_LOWEST_SIGMA, SIGMA_MAX))
    anonymizer = Anonymizer(EmbeddedBackend(replace(model, curve=provisional)), chosen.detector)
    curve = _measured_curve(anonymizer, chosen, _Grid(provisional, n_rungs, None))
    distance = _typical_code_distance(model, chosen)
    return replace(curve, measured={**curve.measured, "typical_code_distance": distance})


def calibrate_backend(
    backend: InpaintingBackend, chosen: CalibrationSet, *, n_rungs: int = 10
) -> StrengthCurve:
    """Measure a model of the Hub and return its strength curve.

    Args:
        backend: The loaded model; a curve it already has is not used, and nothing is repaired.
        chosen: Photos of people; whom the public weights have seen is not known.
        n_rungs: Noise levels to measure, evenly spaced in ln σ.
    """
    provisional = backend.uncalibrated
    anonymizer = Anonymizer(backend.with_curve(provisional), chosen.detector)
    return _measured_curve(anonymizer, chosen, _Grid(provisional, n_rungs, provisional.sigmas[-1]))


@dataclass(frozen=True)
class _Grid:
    """Where to measure: rungs of a provisional curve, and the noise of the fitted one's end."""

    provisional: StrengthCurve
    n_rungs: int
    top: float | None


def _measured_curve(anonymizer: Anonymizer, chosen: CalibrationSet, grid: _Grid) -> StrengthCurve:
    rungs = np.unique(np.linspace(10, 99, grid.n_rungs).round().astype(int))
    strengths = [0.0, *(rungs / 100)]
    # Kept with what was measured: a photo's noise is the same whoever measures it, and when.
    secret = chosen.records.secret()
    keys = [
        [NoiseKey.from_row(secret, f"{number}").child(f"{draw}") for draw in range(N_DRAWS)]
        for number in range(len(chosen.photos))
    ]
    measured = measure_variants(anonymizer, chosen, strengths=strengths, keys=keys)
    return fit_curve(measured, grid.provisional.rung_sigmas()[rungs - 1], top=grid.top)


def _typical_code_distance(model: EmbeddedModel, chosen: CalibrationSet) -> float:
    """Return the median distance between the clipped codes of two photos' faces."""

    def encode(part: slice) -> Arrays:
        frames = []
        for photo in chosen.photos[part]:
            faces = chosen.detector.detect(photo.pixels)
            if faces:
                frames.append(warp_to_template(photo.pixels, fit_alignment(faces[0].landmarks)))
        return (
            {"codes": model.code.encode(torch.from_numpy(np.stack(frames))).numpy()}
            if frames
            else {}
        )

    parts = chosen.in_chunks("codes", encode)
    codes = torch.from_numpy(joined([part for part in parts if part])["codes"])
    radius = model.code.clip_radius(torch.ones(1, codes.shape[1]))
    clipped = model.code.clip(codes, radius.expand(len(codes)))
    return float(torch.pdist(clipped).median())
