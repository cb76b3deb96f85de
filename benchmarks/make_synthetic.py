"""Make people who do not exist: several photos of each, for examples, tests and screenshots.

A whole-head version of the embedded model (not shipped) draws subjects. A subject is a draw of the
coordinates that tell people apart; each photo keeps those, nearly, and draws all others anew
(between- and within-person covariance of codes). A photo that is nearer to a fitted face than 95 %
of held-out faces are, or that the recogniser matches with one of its nearest fitted faces, is
thrown away with its subject.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from development_faces import folder
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from privacy_core.dataset import read_dataset
from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.fit import FIT, VALIDATION, FitConfig, fit_model
from privacy_core.diffusion.fit_code import CodeFitConfig
from privacy_core.diffusion.model import EmbeddedModel, load_model
from privacy_core.diffusion.prepare import PreparedFaces, prepare_faces
from privacy_core.diffusion.sampler import sample
from privacy_core.diffusion.training import SIGMA_MAX, TrainingConfig
from privacy_core.faces.detect import HogDetector
from privacy_core.faces.output import write_png
from privacy_core.recognition import DlibRecogniser
from privacy_core.schema import ATTRIBUTES

MARGIN = 20
IDENTITY_NOISE = 0.25
"""Noise on the identity coordinates of each photo: how alike two photos of one subject are."""
SIDE = 256
SAME_PERSON = 0.55
CONFIG = FitConfig(
    code=CodeFitConfig(
        n_components=384, n_context=4, gain=0.5, copies=1, identity_width=64
    ),
    training=TrainingConfig(n_faces=1_500_000, independent_groups=True, context_drop=1.0),
    width=768,
    margin=MARGIN,
)


def usable_rows(source: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the development faces whose whole crop was photographed."""
    for row in read_dataset(f"{source}/faces-*.parquet"):
        corners = np.array(row["frame"]).reshape(4, 2)
        if corners.min() <= 0 and corners.max(0).min() >= 167:
            yield row


def draw(
    model: EmbeddedModel, n_subjects: int, n_photos: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return (n_subjects, n_photos, K) codes and (n_subjects,) gender tokens."""
    k = model.code.sizes.n_components
    width = sum(model.code.sizes.groups.values())
    gender = torch.arange(n_subjects) % 2
    tokens = torch.full((n_subjects, len(ATTRIBUTES)), NULL)
    tokens[:, list(ATTRIBUTES).index("gender")] = gender

    def solve(y: Tensor, factors: Tensor, tokens: Tensor) -> Tensor:
        sigma = torch.full((len(y),), SIGMA_MAX)
        return sample(
            model.denoiser, y, sigma, factors.expand(len(y), k), context=None, attributes=tokens
        )

    def noise(n: int) -> Tensor:
        return SIGMA_MAX * torch.randn(n, k, generator=generator)

    subjects = solve(noise(n_subjects), torch.ones(k), tokens)
    subjects[:, width:] = 0
    factors = torch.ones(k)
    factors[:width] = SIGMA_MAX / IDENTITY_NOISE
    each = subjects.repeat_interleave(n_photos, 0)
    y = factors * each + noise(len(each))
    codes = solve(y, factors, tokens.repeat_interleave(n_photos, 0))
    return codes.reshape(n_subjects, n_photos, k), gender


def nearest(codes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance and index of the nearest of `others`, per code."""
    distances = torch.cdist(codes.float(), others.float())
    values, indices = distances.min(1)
    return values, indices


def matches(
    model: EmbeddedModel, codes: Tensor, prepared: PreparedFaces, fitted: Tensor, rows: Any
) -> NDArray[np.bool_]:
    """Say per code whether the recogniser takes it for one of its 20 nearest fitted faces."""
    recogniser = DlibRecogniser()
    pictures = model.code.decode(codes).numpy()
    closest = torch.cdist(codes.float(), fitted.float()).topk(20, largest=False).indices.numpy()

    def embed(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        middle = Image.fromarray(frame).resize((168 * 2, 168 * 2), Image.Resampling.BICUBIC)
        inner = middle.crop((2 * MARGIN, 2 * MARGIN, 2 * (168 - MARGIN), 2 * (168 - MARGIN)))
        return recogniser.embed_frame(np.asarray(inner))

    found = []
    for picture, near in zip(pictures, closest, strict=True):
        own = embed(picture)
        others = [embed(np.asarray(prepared.faces.frames[rows[i]])) for i in near]
        found.append(min(recogniser.distance(own, other) for other in others) < SAME_PERSON)
    return np.array(found)


def main() -> None:
    """Fit the whole-head model unless it is there, draw people, check and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the whole-head model")
    parser.add_argument("--out", type=Path, default=Path("examples"))
    parser.add_argument("--subjects", type=int, default=24)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = list(usable_rows(folder()))
    bar = tqdm(file=sys.stderr)

    def report(stage: str, done: int, total: int) -> None:
        bar.set_description(f"{stage} {done}/{total}")

    detector = HogDetector(longest_side=168, smallest_face=80)
    if not (arguments.model / "model_index.json").is_file():
        fit_model(
            rows, len(rows), arguments.model, config=CONFIG, detector=detector,
            report=report, talk=bar.write,
        )  # fmt: skip
    model = load_model(arguments.model, dtype=torch.float32)
    work = arguments.model / "work"
    prepared = prepare_faces(
        rows, len(rows), work, detector=detector, report=report, margin=MARGIN
    )
    fit_index = prepared.between(*FIT)

    def encode(index: NDArray[np.int64]) -> Tensor:
        parts = np.array_split(index, max(1, len(index) // 512))
        frames = prepared.faces.frames
        return torch.cat([model.code.encode(torch.from_numpy(frames[part])) for part in parts])

    fitted, held_out = encode(fit_index), encode(prepared.between(*VALIDATION))
    limit = float(nearest(held_out, fitted)[0].quantile(0.05))
    generator = torch.Generator().manual_seed(arguments.seed)
    codes, gender = draw(model, 3 * arguments.subjects, arguments.photos, generator)
    flat = codes.flatten(0, 1)
    distance = nearest(flat, fitted)[0].reshape(codes.shape[:2])
    fresh = (distance > limit).all(1)
    chosen: list[int] = []
    for subject in torch.nonzero(fresh).flatten().tolist():
        if len(chosen) == arguments.subjects:
            break
        if not matches(model, codes[subject], prepared, fitted, fit_index).any():
            chosen.append(subject)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, subject in enumerate(chosen, 1):
        for letter, frame in zip("abcdefgh", model.code.decode(codes[subject]).numpy()):
            large = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            path = arguments.out / f"person-{number:02d}-{letter}.png"
            write_png(path, np.asarray(large), digital_source_type="trainedAlgorithmicMedia")
    facts = {
        "subjects": len(chosen),
        "photos_of_each": arguments.photos,
        "seed": arguments.seed,
        "gender_asked": [list(ATTRIBUTES["gender"])[int(gender[i])] for i in chosen],
        "nearest_fitted_face": {
            "drawn_median": float(distance[chosen].median()),
            "drawn_smallest": float(distance[chosen].min()),
            "held_out_median": float(nearest(held_out, fitted)[0].median()),
            "held_out_5th_percentile": limit,
            "drawn_subjects_rejected_by_distance": int((~fresh).sum()),
        },
        "config": json.loads(json.dumps(replace(CONFIG), default=vars)),
    }
    (arguments.out / "people.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
