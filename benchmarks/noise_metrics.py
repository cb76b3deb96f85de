"""Compare metrics of the noise: pixels, whitened, identity-aware, on generated faces.

Isotropic noise takes away first what is short in the code's metric. For each metric the same small
denoiser is trained equally long on the same codes, held-out faces are noised and generated at the
same noise levels, and attackers are retrained on what comes out: one that links two photos of a
person, and non-linear readers of every attribute, both on M. Writes
`docs/results/noise_metrics.json` and `.md`. Killed, it goes on from `--work`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks.anonymization_readme import ROOT
from benchmarks.development_faces import prepared_faces
from privacy_core.audit.anonymization.adversary import LinkingAdversary
from privacy_core.audit.anonymization.distances import ranks, share_over_people
from privacy_core.audit.anonymization.inference import measure_inference
from privacy_core.audit.anonymization.learning import LearningConfig, Scale
from privacy_core.audit.estimates import Estimate
from privacy_core.backends.embedded import MODEL_FOLDER
from privacy_core.calibrate import verification_threshold
from privacy_core.diffusion.code import LinearCode, known_mask
from privacy_core.diffusion.denoiser import NULL, CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.fit import FIT, VALIDATION, pixel_weight
from privacy_core.diffusion.fit_code import CodeFitConfig, encode_copies
from privacy_core.diffusion.model import load_model
from privacy_core.diffusion.prepare import PreparedFaces
from privacy_core.diffusion.sampler import sample
from privacy_core.diffusion.training import CodeBatch, Trainer, TrainingConfig
from privacy_core.privacy import mu_of
from privacy_core.recognition import DlibRecogniser
from privacy_core.schema import ATTRIBUTES

RESULT = ROOT / "docs" / "results" / "noise_metrics"
METRICS = ("pixels", "whitened", "identity-aware")
SIGMAS = (0.35, 0.7, 1.4, 2.8, 5.6)
TRAINING = TrainingConfig(n_faces=600_000, validate_every=200_000)
WIDTH, DEPTH = 640, 6
ADVERSARY, TESTED = (60, 69), (70, 79)
FITTING = CodeFitConfig(copies=0)
"""Its ridge and clip quantile are those of the shipped code."""
VERIFIED, MUS = (0.5, 0.1, 0.03), (60.0, 30.0, 15.0)
"""Shares still verified, and μ, at which the metrics are compared."""


@dataclass(frozen=True)
class Metric:
    """A linear map of the scores, the coordinates of the orthonormal components.

    Attributes:
        forward: (K, K), scores → codes of mean variance one.
        radius: C, the norm to which codes are clipped.
    """

    forward: Tensor = field(repr=False)
    radius: float

    @cached_property
    def inverse(self) -> Tensor:
        """(K, K), codes → scores."""
        inverse: Tensor = torch.linalg.inv(self.forward.double())
        return inverse.float()


@dataclass(frozen=True)
class Faces:
    """Held-out faces of people with two photos, two of each.

    Attributes:
        frames: (n, 128, 128, 3) uint8.
        scores: (n, K).
        context: (n, n_context).
        labels: (n, 5) of 0, 1 or -1.
        people: (n,) one's two photos stand side by side.
    """

    frames: NDArray[np.uint8] = field(repr=False)
    scores: Tensor = field(repr=False)
    context: Tensor = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    people: NDArray[np.int64] = field(repr=False)


def metric_of(name: str, code: LinearCode, scores: Tensor) -> Metric:
    """Return a metric, fitted to (n, K) scores."""
    if name == "pixels":
        forward = torch.eye(scores.shape[1])
    elif name == "whitened":
        covariance = torch.cov(scores.T).double()
        n = len(covariance)
        values, vectors = torch.linalg.eigh(
            covariance + FITTING.ridge * covariance.trace() / n * torch.eye(n)
        )
        forward = (vectors / values.sqrt()).T.float()
    else:
        forward = code.metric
    codes = scores @ forward.T
    scale = codes.var(0).mean().sqrt()
    radius = float((codes / scale).norm(dim=1).quantile(FITTING.clip_quantile))
    return Metric(forward / scale, radius)


def trained(
    metric: Metric, parts: Sequence[CodeBatch], code: LinearCode, folder: Path
) -> CodeDenoiser:
    """Return a denoiser for codes in a metric, trained unless the folder holds it."""
    fitted, held_out = (
        CodeBatch(
            (part.codes.float() @ code.inverse_metric.T @ metric.forward.T).half(),
            part.context, torch.full_like(part.attributes, NULL),
        )
        for part in parts
    )  # fmt: skip
    sizes = DenoiserConfig(
        fitted.codes.shape[1], fitted.context.shape[1], {}, width=WIDTH, depth=DEPTH
    )
    torch.manual_seed(TRAINING.seed)
    denoiser = CodeDenoiser(sizes)
    denoiser.sd.copy_(fitted.codes[:50_000].float().std(0))
    weight = pixel_weight(metric.inverse, denoiser.sd)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(denoiser, fitted, held_out, weight, config=TRAINING, folder=folder)
    trainer.resume()
    best = trainer.run(report=lambda row: tqdm.write(f"{folder.name}: {row}"))
    denoiser.load_state_dict(best, strict=False)
    return denoiser.eval()


def chosen(prepared: PreparedFaces, code: LinearCode, splits: tuple[int, int], n: int) -> Faces:
    """Return two photos of each of at most `n` people."""
    index = prepared.between(*splits)
    identity = np.asarray(prepared.faces.identity)[index]
    rows = [
        index[identity == person][:2]
        for person in np.unique(identity[identity >= 0])
        if (identity == person).sum() > 1
    ]
    picked = np.concatenate(rows[:n])
    faces = prepared.faces.take(picked)
    frames = torch.from_numpy(np.array(faces.frames))
    return Faces(
        frames.numpy(),
        code.encode(frames) @ code.inverse_metric.T,
        code.context(frames, known_mask(faces.quads)),
        faces.attributes,
        faces.identity,
    )


def generated(
    denoiser: CodeDenoiser, metric: Metric, eyes: Eyes, faces: Faces, sigma: float
) -> Tensor:
    """Return (n, K) scores of new faces; the noise of the people tested is not the others'."""
    codes = faces.scores @ metric.forward.T
    clipped = eyes.code.clip(codes, torch.full((len(codes),), metric.radius))
    seed = int(faces is eyes.tested)
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(seed))
    y = clipped + sigma * noise
    made = [
        sample(
            denoiser, part, torch.full((len(part),), sigma), torch.ones_like(part),
            context=context, attributes=torch.full((len(part), len(ATTRIBUTES)), NULL),
        )
        for part, context in zip(y.split(128), faces.context.split(128), strict=True)
    ]  # fmt: skip
    return torch.cat(made) @ metric.inverse.T


class Eyes:
    """What looks at generated faces: a recogniser, and attackers that are trained anew.

    Args:
        code: Turns scores into pictures.
        trained_on: People the attackers are trained on.
        tested: Others.
    """

    def __init__(self, code: LinearCode, trained_on: Faces, tested: Faces) -> None:
        self.code, self.trained_on, self.tested = code, trained_on, tested
        self.recogniser = DlibRecogniser()
        self.originals = self._embed(tested.frames)
        self.threshold, _ = verification_threshold(self.originals, tested.people)

    def _embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return self.recogniser.embed_frames(frames)

    def look(self, fitted: Tensor, tested: Tensor) -> dict[str, Any]:
        """Return what is found in the (n, K) scores of both people's new faces."""
        inside = self.code.mask.numpy()
        pictures = self.tested.frames.copy()
        pictures[:, inside] = self.code.decode(tested @ self.code.metric.T).numpy()[:, inside]
        away = np.linalg.norm(self._embed(pictures) - self.originals, axis=1)
        people = self.tested.people
        return {
            "verified": asdict(share_over_people(away < self.threshold, people, seed=0)),
            "linked": asdict(self._linked(fitted, tested)),
            **self._attributes(fitted, tested),
        }

    def _linked(self, fitted: Tensor, tested: Tensor) -> Estimate:
        """Return how often the other photo's original is found first, by a trained adversary."""
        variants, originals = Scale(fitted.numpy()), Scale(self.trained_on.scores.numpy())
        adversary = LinkingAdversary(LearningConfig())
        adversary.fit(
            variants(fitted.numpy()),
            originals(self.trained_on.scores.numpy()),
            self.trained_on.people,
        )
        mine = adversary.embed_variants(variants(tested.numpy()))
        theirs = adversary.embed_originals(originals(self.tested.scores.numpy()))
        places = np.arange(len(mine) // 2)
        rank = np.empty(len(mine), np.int64)
        rank[0::2] = ranks(mine[0::2], theirs[1::2], places)
        rank[1::2] = ranks(mine[1::2], theirs[0::2], places)
        return share_over_people(rank == 1, self.tested.people, seed=0)

    def _attributes(self, fitted: Tensor, tested: Tensor) -> dict[str, Any]:
        scale = Scale(fitted.numpy())
        found = measure_inference(
            scale(fitted.numpy()), self.trained_on.labels, self.trained_on.people,
            scale(tested.numpy()), self.tested.labels, self.tested.people,
            config=LearningConfig(),
        )  # fmt: skip
        return {
            name: asdict(value) if isinstance(value, Estimate) else {"absent": value}
            for name, value in found.items()
        }


def at(rows: Sequence[Mapping[str, Any]], column: str, level: float, name: str) -> float | None:
    """Return a figure where a falling column has a level, linear in ln σ; None beyond its ends."""
    known = np.array([_number(row[column]) for row in rows])
    values = np.array([_number(row[name]) for row in rows])
    sigma = np.log([row["sigma"] for row in rows])
    falling = np.minimum.accumulate(known)
    if not falling[-1] <= level <= falling[0]:
        return None
    place = float(np.interp(-level, -falling, sigma))
    return float(np.interp(place, sigma, values))


def _number(value: Any) -> float:
    return float(value["value"]) if isinstance(value, Mapping) else float(value)


def markdown(result: Mapping[str, Any]) -> str:
    """Return the tables: at equal shares verified, and at equal μ."""
    names = ("verified", "linked", *ATTRIBUTES)
    parts = ["# Metrics of the noise", result["protocol"]]
    for column, levels, title in (
        ("verified", VERIFIED, "verified as the own original"), ("mu", MUS, "μ"),
    ):  # fmt: skip
        parts.append(f"## At equal {title}")
        lines = [f"| {title} | metric | σ | μ | " + " | ".join(names) + " |"]
        lines.append("|---" * (4 + len(names)) + "|")
        for level in levels:
            for metric, rows in result["metrics"].items():
                sigma, mu = (at(rows, column, level, name) for name in ("sigma", "mu"))
                cells = [f"{level:g}", metric, _text(sigma, ".2f"), _text(mu, ".1f")]
                cells += [_text(at(rows, column, level, name), ".1%") for name in names]
                lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _text(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


def main() -> None:
    """Train, generate, attack, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces-work", type=Path, required=True, help="work folder of fit-model")
    parser.add_argument("--work", type=Path, required=True, help="kept, so that a rerun goes on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, prepared = prepared_faces(arguments.faces_work)
    code = load_model(MODEL_FOLDER).code
    fitted = chosen(prepared, code, ADVERSARY, 500)
    eyes = Eyes(code, fitted, chosen(prepared, code, TESTED, 300))
    parts = [
        encode_copies(code, prepared.faces.take(prepared.between(*splits)),
                      config=FITTING, report=lambda *_: None)
        for splits in (FIT, VALIDATION)
    ]  # fmt: skip
    scores = parts[0].codes[:40_000].float() @ code.inverse_metric.T
    found: dict[str, list[dict[str, Any]]] = {}
    metrics = {name: metric_of(name, code, scores) for name in METRICS}
    for name, metric in metrics.items():
        denoiser = trained(metric, parts, code, arguments.work / name)
        found[name] = []
        for sigma in tqdm(SIGMAS, desc=name):
            made = [
                generated(denoiser, metric, eyes, faces, sigma) for faces in (fitted, eyes.tested)
            ]
            row = {"sigma": sigma, "mu": mu_of(sigma, metric.radius), **eyes.look(*made)}
            found[name].append(row)
            tqdm.write(json.dumps(row))
    result = {
        "protocol": (
            f"{len(eyes.tested.people)} photos of {len(eyes.tested.people) // 2} people of splits "
            f"70-79, attackers trained on {len(fitted.people)} photos of splits 60-69; a denoiser "
            f"of width {WIDTH} and depth {DEPTH} for each metric, {TRAINING.n_faces / 1e6:g} M "
            "faces, without attribute coordinates. verified: by dlib's descriptor, one false match "
            "in 1 000 pairs of strangers. linked: found first by a trained adversary from the "
            f"other photo, chance {2 / len(eyes.tested.people):.1%}. Attributes: balanced "
            "accuracy of a non-linear classifier retrained on the new faces. Pixels of M only, "
            "but for `verified`; interpolated in ln σ."
        ),
        "radius": {name: metric.radius for name, metric in metrics.items()},
        "typical_distance": {name: _typical(metric, scores) for name, metric in metrics.items()},
        "metrics": found,
    }
    RESULT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    RESULT.with_suffix(".md").write_text(markdown(result))


def _typical(metric: Metric, scores: Tensor) -> float:
    """Return the median distance between two faces' codes; worst-case μ allows for 2 C."""
    codes = scores[:: max(1, len(scores) // 1000)] @ metric.forward.T
    return float(torch.pdist(codes).median()) if len(codes) > 1 else math.nan


if __name__ == "__main__":
    main()
