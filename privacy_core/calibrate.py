"""Fit the strength curve: how much noise each strength means, in a recogniser's own distance.

Anchors (design §3): 0 the code's own reconstruction, 0.5 at most half of the variants verified as
their original, 0.8 at most 2 %, 1 pure noise. Knows photos of held-out people and a recogniser;
not how the weights were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import beta

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.backends.inpainting import InpaintingBackend
from privacy_core.diffusion.model import EmbeddedModel
from privacy_core.diffusion.prepare import identity_of, pixel_digest, split_of
from privacy_core.diffusion.sampler import CAUTION
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.errors import FaceFailedError, InvalidArgumentError, NoFaceError, PhotoError
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.faces.detect import FaceDetector
from privacy_core.faces.photo import read_photo
from privacy_core.noise import NoiseKey
from privacy_core.recognition import Recogniser
from privacy_core.schema import Photo, StrengthCurve

FALSE_ACCEPT_RATE = 1e-3
CALIBRATION_SPLIT = (70, 79)
ANCHORS = ((0.5, 0.5), (0.8, 0.02))
"""Strength → largest share of variants still verified as their original."""
_LOWEST_SIGMA = 0.02
_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Measurement:
    """Distances of variants to their originals, on one grid of strengths.

    Attributes:
        strengths: (r,) grid.
        distances: (r, n) distance of each variant to its original.
        detected: (r, n) whether the detector still finds a face there.
        originals: (n, d) embeddings of the originals.
        variants: (r, n, d) embeddings of the variants.
        people: (n,) who is shown; -1 where unknown.
        no_face: Photos left out because no face was detected in the original.
    """

    strengths: NDArray[np.float64]
    distances: NDArray[np.float64]
    detected: NDArray[np.bool_]
    originals: NDArray[np.float64]
    variants: NDArray[np.float64]
    people: NDArray[np.int64]
    no_face: int


def measure_variants(
    anonymizer: Anonymizer,
    photos: Sequence[Photo],
    people: Sequence[int],
    *,
    strengths: Sequence[float],
    recogniser: Recogniser,
    keys: Sequence[NoiseKey],
    report: Callable[[str, int, int], None],
) -> Measurement:
    """Anonymize each photo at each strength and embed original and variants.

    The largest face counts. A variant in which no face is found any more is aligned by the
    landmarks of the original, so that a broken picture does not pass for privacy.

    Raises:
        InvalidArgumentError: No photo has a face.
    """
    originals, variants, detected, shown = [], [], [], []
    no_face = 0
    for i, (photo, person, key) in enumerate(zip(photos, people, keys, strict=True)):
        report("measured photos", i, len(photos))
        try:
            opened = anonymizer.open(photo, key=key)
        except (NoFaceError, FaceFailedError):
            no_face += 1
            continue
        landmarks = opened.faces[0].landmarks
        originals.append(recogniser.embed(photo.pixels, landmarks))
        shown.append(person)
        row, seen = [], []
        for variant in opened.ladder(strengths):
            found = _same_face(anonymizer.detector, variant.image, landmarks)
            seen.append(found is not None)
            row.append(recogniser.embed(variant.image, landmarks if found is None else found))
        variants.append(row)
        detected.append(seen)
    if not originals:
        raise InvalidArgumentError(
            f"`DATA` must hold photos in which a face is detected, got {len(photos)} without. "
            "Use upright, mostly frontal portraits."
        )
    embedded = np.array(variants).transpose(1, 0, 2)
    first = np.array(originals)
    return Measurement(
        np.asarray(strengths, dtype=np.float64),
        np.linalg.norm(embedded - first, axis=2),
        np.array(detected).T,
        first,
        embedded,
        np.asarray(shown, dtype=np.int64),
        no_face,
    )


def _same_face(
    detector: FaceDetector, pixels: NDArray[np.uint8], landmarks: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the landmarks of the detected face whose middle lies in the original's, or None."""
    middle = landmarks.mean(0)
    for face in detector.detect(pixels):
        left, top, right, bottom = face.box
        if left <= middle[0] <= right and top <= middle[1] <= bottom:
            return face.landmarks
    return None


def verification_threshold(
    embeddings: NDArray[np.float64],
    people: NDArray[np.int64],
    *,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
) -> tuple[float, int]:
    """Return the distance below which that share of different people's originals match.

    Args:
        embeddings: (n, d) embeddings of originals.
        people: (n,) who is shown; -1 counts as a person of their own.
        false_accept_rate: Share of pairs of strangers that may match.

    Returns:
        Threshold and number of pairs.

    Raises:
        InvalidArgumentError: Fewer than 10 / `false_accept_rate` pairs of strangers.
    """
    squared = (embeddings**2).sum(1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * embeddings @ embeddings.T, 0))
    strangers = (people[:, None] != people) | (people[:, None] < 0)
    pairs = distances[np.triu(strangers, 1)]
    if len(pairs) < 10 / false_accept_rate:
        raise InvalidArgumentError(
            f"`DATA` must give at least {10 / false_accept_rate:.0f} pairs of different people, "
            f"got {len(pairs)}. Use more people."
        )
    return float(np.quantile(pairs, false_accept_rate)), len(pairs)


def fit_curve(
    measured: Measurement,
    sigmas: NDArray[np.float64],
    threshold: float,
    *,
    top: float | None = None,
) -> StrengthCurve:
    """Place the anchors on a measured grid of noise levels.

    The share verified is made monotone (isotonic regression) and each anchor takes the smallest
    noise at which the upper 90 % confidence bound (Clopper & Pearson 1934) meets its share, in
    ln σ between grid points.

    Args:
        measured: On provisional strengths whose noise is `sigmas`; the first is strength 0.
        sigmas: (r - 1,) increasing noise levels of all strengths but the first.
        threshold: Verification threshold.
        top: Noise of the last knot, above all of `sigmas`; the embedded model's when None.

    Raises:
        InvalidArgumentError: Even the strongest noise does not meet an anchor, or the weakest
            meets it already.
    """
    verified = (measured.distances < threshold).mean(1)
    n = measured.distances.shape[1]
    rates = isotonic_regression(verified[1:], increasing=False).x
    upper = np.array([_upper_bound(rate, n) for rate in rates])
    # Where anything at all begins to be lost: the first grid point, or the last that keeps 98 %.
    kept = np.flatnonzero(rates >= 0.98 * verified[0])
    knots = [float(sigmas[kept[-1]] if len(kept) else sigmas[0])]
    for _, share in ANCHORS:
        knots.append(_crossing(np.log(sigmas), upper, share))
    if not np.all(np.diff(knots) > 0):
        raise InvalidArgumentError(
            "The model must keep more than half of the faces verified without noise, and lose them "
            f"step by step, got {verified[0]:.0%} without noise and anchors at σ = "
            f"{', '.join(f'{knot:.3g}' for knot in knots)}. Fit it longer or measure more rungs."
        )
    if top is None:
        # What the denoiser is told stays within the noise that it was trained on.
        top = min(max(SIGMA_MAX / 2, 1.5 * knots[-1]), 1.25 * SIGMA_MAX / CAUTION)
    return StrengthCurve(
        (0.0, *(strength for strength, _ in ANCHORS), 1.0),
        (*knots, top),
        {
            "threshold": threshold,
            "false_accept_rate": FALSE_ACCEPT_RATE,
            "n_faces": n,
            "no_face": measured.no_face,
            "sigmas": sigmas.tolist(),
            "verified": verified.tolist(),
            "detected": measured.detected.mean(1).tolist(),
            "median_distance": np.median(measured.distances, axis=1).tolist(),
        },
    )


def _upper_bound(rate: float, n: int) -> float:
    hits = rate * n
    return 1.0 if hits >= n else float(beta.ppf(_CONFIDENCE, hits + 1, n - hits))


def _crossing(log_sigmas: NDArray[np.float64], rates: NDArray[np.float64], share: float) -> float:
    """Return σ at which the falling `rates` first reach `share`, by linear interpolation."""
    below = np.flatnonzero(rates <= share)
    if not len(below):
        raise InvalidArgumentError(
            f"The model must bring the share of verified variants down to {share:.0%}, got "
            f"{rates[-1]:.1%} at its strongest noise. Measure on more faces or fit it longer."
        )
    i = int(below[0])
    if i == 0:
        return float(np.exp(log_sigmas[0]))
    fraction = (rates[i - 1] - share) / (rates[i - 1] - rates[i])
    return float(np.exp(log_sigmas[i - 1] + fraction * (log_sigmas[i] - log_sigmas[i - 1])))


def held_out(
    rows: Iterable[Mapping[str, Any]], *, image_column: str = "image"
) -> tuple[list[Photo], list[int]]:
    """Return the readable photos of the calibration split (design §4) and a number per person.

    Args:
        rows: With encoded images and, where known, `identity`.
        image_column: Where the images are.

    Returns:
        Photos, and who is shown on each: 0, 1, … or -1 where unknown.
    """
    photos: list[Photo] = []
    numbers: list[int] = []
    people: dict[str, int] = {}
    for row in rows:
        identity = identity_of(row)
        if identity and not _in_split(split_of(identity, "")):
            continue
        try:
            photo = read_photo(row[image_column] or b"")
        except PhotoError:
            continue
        if not identity and not _in_split(split_of(None, pixel_digest(photo.pixels))):
            continue
        photos.append(photo)
        numbers.append(people.setdefault(identity, len(people)) if identity else -1)
    return photos, numbers


def spread(photos: Sequence[Photo], people: Sequence[int], n: int) -> tuple[list[Photo], list[int]]:
    """Return at most `n` photos, evenly spaced, of known people only where there are enough.

    A picture of nobody known may show a person whose other pictures were fitted.
    """
    known = [i for i, person in enumerate(people) if person >= 0]
    index = known if len(known) >= n else list(range(len(photos)))
    chosen = [index[int(i)] for i in np.linspace(0, len(index) - 1, min(n, len(index)))]
    return [photos[i] for i in chosen], [people[i] for i in chosen]


def _in_split(split: int) -> bool:
    return CALIBRATION_SPLIT[0] <= split <= CALIBRATION_SPLIT[1]


def calibrate_model(
    model: EmbeddedModel,
    photos: Sequence[Photo],
    people: Sequence[int],
    *,
    detector: FaceDetector,
    recogniser: Recogniser,
    n_rungs: int = 10,
    report: Callable[[str, int, int], None],
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
    """
    provisional = StrengthCurve((0.0, 1.0), (_LOWEST_SIGMA, SIGMA_MAX))
    anonymizer = Anonymizer(EmbeddedBackend(replace(model, curve=provisional)), detector)
    grid = _Grid(provisional, n_rungs, None)
    curve = _measured_curve(anonymizer, photos, people, grid, recogniser=recogniser, report=report)
    distance = _typical_code_distance(model, photos, detector)
    return replace(curve, measured={**curve.measured, "typical_code_distance": distance})


def calibrate_backend(
    backend: InpaintingBackend,
    photos: Sequence[Photo],
    people: Sequence[int],
    *,
    detector: FaceDetector,
    recogniser: Recogniser,
    n_rungs: int = 10,
    report: Callable[[str, int, int], None],
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
    """
    provisional = backend.uncalibrated
    anonymizer = Anonymizer(backend.with_curve(provisional), detector)
    grid = _Grid(provisional, n_rungs, provisional.sigmas[-1])
    return _measured_curve(anonymizer, photos, people, grid, recogniser=recogniser, report=report)


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
    report: Callable[[str, int, int], None],
) -> StrengthCurve:
    rungs = np.unique(np.linspace(10, 99, grid.n_rungs).round().astype(int))
    measured = measure_variants(
        anonymizer,
        photos,
        people,
        strengths=[0.0, *(rungs / 100)],
        recogniser=recogniser,
        keys=[NoiseKey.fresh() for _ in photos],
        report=report,
    )
    threshold, n_pairs = verification_threshold(measured.originals, measured.people)
    sigmas = grid.provisional.rung_sigmas()[rungs - 1]
    curve = fit_curve(measured, sigmas, threshold, top=grid.top)
    facts = {"recogniser": recogniser.name, "n_pairs": n_pairs}
    return replace(curve, measured={**curve.measured, **facts})


def _typical_code_distance(
    model: EmbeddedModel, photos: Sequence[Photo], detector: FaceDetector
) -> float:
    """Return the median distance between the clipped codes of two photos' faces."""
    frames = []
    for photo in photos:
        faces = detector.detect(photo.pixels)
        if faces:
            frames.append(warp_to_template(photo.pixels, fit_alignment(faces[0].landmarks)))
    codes = model.code.encode(torch.from_numpy(np.stack(frames)))
    radius = model.code.clip_radius(torch.ones(1, codes.shape[1]))
    clipped = model.code.clip(codes, radius.expand(len(codes)))
    return float(torch.pdist(clipped).median())
