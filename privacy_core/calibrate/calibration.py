"""Fit what strength means: a model, and photos of people it was not fitted to → its curve.

Joins measuring and anchors; knows not how the weights were trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.backends.inpainting import InpaintingBackend
from privacy_core.calibrate.anchors import fit_curve, verification_threshold
from privacy_core.calibrate.measuring import Report, in_chunks, measure_variants
from privacy_core.diffusion.model import EmbeddedModel
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.faces.detect import FaceDetector
from privacy_core.noise import NoiseKey
from privacy_core.recognition import Recogniser
from privacy_core.records import Arrays, Records, joined
from privacy_core.schema import Photo, StrengthCurve

_LOWEST_SIGMA = 0.02


def calibrate_model(
    model: EmbeddedModel,
    photos: Sequence[Photo],
    people: Sequence[int],
    *,
    detector: FaceDetector,
    recogniser: Recogniser,
    n_rungs: int = 10,
    report: Report,
    records: Records | None = None,
) -> StrengthCurve:
    """Measure a model on held-out people and return its strength curve.

    Args:
        model: The weights; a curve they already have is not used.
        photos: At least 500 photos of people the weights were not fitted to.
        people: Who is shown on each, -1 where unknown.
        detector: The product's detector.
        recogniser: Its distance defines the anchors.
        n_rungs: Noise levels to measure, evenly spaced in ln σ.
        report: Progress.
        records: Where measured photos are kept, so that an interrupted run goes on and processes
            share them; None keeps nothing.
    """
    provisional = StrengthCurve((0.0, 1.0), (_LOWEST_SIGMA, SIGMA_MAX))
    anonymizer = Anonymizer(EmbeddedBackend(replace(model, curve=provisional)), detector)
    grid = _Grid(provisional, n_rungs, None)
    curve = _measured_curve(
        anonymizer, photos, people, grid, recogniser=recogniser, report=report, records=records
    )
    distance = _typical_code_distance(model, photos, detector, records)
    return replace(curve, measured={**curve.measured, "typical_code_distance": distance})


def calibrate_backend(
    backend: InpaintingBackend,
    photos: Sequence[Photo],
    people: Sequence[int],
    *,
    detector: FaceDetector,
    recogniser: Recogniser,
    n_rungs: int = 10,
    report: Report,
    records: Records | None = None,
) -> StrengthCurve:
    """Measure a model of the Hub and return its strength curve; see `calibrate_model`.

    Args:
        backend: The loaded model; a curve it already has is not used, and nothing is repaired.
        photos: Photos of people; whom the public weights have seen is not known.
        people: Who is shown on each, -1 where unknown.
        detector: The product's detector.
        recogniser: Its distance defines the anchors.
        n_rungs: Noise levels to measure, evenly spaced in ln σ.
        report: Progress.
        records: Where measured photos are kept, so that an interrupted run goes on and processes
            share them; None keeps nothing.
    """
    provisional = backend.uncalibrated
    anonymizer = Anonymizer(backend.with_curve(provisional), detector)
    grid = _Grid(provisional, n_rungs, provisional.sigmas[-1])
    return _measured_curve(
        anonymizer, photos, people, grid, recogniser=recogniser, report=report, records=records
    )


@dataclass(frozen=True)
class _Grid:
    """Where to measure: rungs of a provisional curve, and the noise of the fitted one's end."""

    provisional: StrengthCurve
    n_rungs: int
    top: float | None


def _measured_curve(
    anonymizer: Anonymizer,
    photos: Sequence[Photo],
    people: Sequence[int],
    grid: _Grid,
    *,
    recogniser: Recogniser,
    report: Report,
    records: Records | None,
) -> StrengthCurve:
    rungs = np.unique(np.linspace(10, 99, grid.n_rungs).round().astype(int))
    strengths = [0.0, *(rungs / 100)]
    keys = [NoiseKey.fresh() for _ in photos]
    if records is not None:
        # Kept with what was measured: a photo's noise is the same whoever measures it, and when.
        secret = records.secret()
        keys = [NoiseKey.from_row(secret, str(number)) for number in range(len(photos))]
    measured = measure_variants(
        anonymizer, photos, people, strengths=strengths, recogniser=recogniser, keys=keys,
        report=report, records=records,
    )  # fmt: skip
    threshold, n_pairs = verification_threshold(measured.originals, measured.people)
    sigmas = grid.provisional.rung_sigmas()[rungs - 1]
    curve = fit_curve(measured, sigmas, threshold, top=grid.top)
    facts = {"recogniser": recogniser.name, "n_pairs": n_pairs}
    return replace(curve, measured={**curve.measured, **facts})


def _typical_code_distance(
    model: EmbeddedModel, photos: Sequence[Photo], detector: FaceDetector, records: Records | None
) -> float:
    """Return the median distance between the clipped codes of two photos' faces."""

    def encode(part: slice) -> Arrays:
        frames = []
        for photo in photos[part]:
            faces = detector.detect(photo.pixels)
            if faces:
                frames.append(warp_to_template(photo.pixels, fit_alignment(faces[0].landmarks)))
        return (
            {"codes": model.code.encode(torch.from_numpy(np.stack(frames))).numpy()}
            if frames
            else {}
        )

    if records is None:
        parts = [encode(slice(None))]
    else:
        parts = in_chunks("codes", len(photos), encode, records, lambda *_: None)
    codes = torch.from_numpy(joined([part for part in parts if part])["codes"])
    radius = model.code.clip_radius(torch.ones(1, codes.shape[1]))
    clipped = model.code.clip(codes, radius.expand(len(codes)))
    return float(torch.pdist(clipped).median())
