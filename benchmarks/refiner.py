"""What the detail stage does to held-out people's faces, with and without it; `docs/results/`.

Fréchet distance of dlib's descriptors to the photos, edges inside M over those of the photos, and
milliseconds a face. Faces are laid into their photos hard, without the colours being matched.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.development_faces import prepared_faces
from privacy_core.audit.anonymization.distances import frechet_distance
from privacy_core.backends.embedded import MODEL_FOLDER
from privacy_core.diffusion.code import known_mask
from privacy_core.diffusion.fit_code import AlignedFaces
from privacy_core.diffusion.model import EmbeddedModel, load_model
from privacy_core.diffusion.refiner_examples import generated
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.recognition import DlibRecogniser

HELD_OUT = (70, 79)
"""The calibration split: people with known surroundings that no part of the model has seen."""
SIGMAS = (0.5, 5.4, SIGMA_MAX)
RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "refiner.json"
BATCH = 50


def drawn_codes(model: EmbeddedModel, faces: AlignedFaces, sigma: float) -> Tensor:
    """Return (n, K) generated codes of the faces at one noise level; pure noise at the largest."""
    generator = torch.Generator().manual_seed(5)
    parts = []
    for places in torch.arange(len(faces.frames)).split(BATCH):
        part, level = faces.take(places.numpy()), torch.full((len(places),), sigma)
        parts.append(generated(model.code, model.denoiser, part, level, generator))
    return torch.cat(parts)


def pictures(model: EmbeddedModel, codes: Tensor, context: Tensor) -> tuple[Tensor, float]:
    """Return (n, 128, 128, 3) faces and the milliseconds that each took from its code."""
    started = time.perf_counter()
    pairs = zip(codes.split(BATCH), context.split(BATCH), strict=True)
    made = torch.cat([model.pictures(part, told) for part, told in pairs])
    return made, 1000 * (time.perf_counter() - started) / len(made)


def edges(frames: NDArray[np.uint8], inside: NDArray[np.bool_]) -> float:
    """Return the mean difference of neighbouring pixels' grey inside M."""
    grey = frames.astype(np.float32).mean(3)
    across, down = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    both = across[:, :-1] + down[:, :, :-1]
    return float(both[:, inside[:-1, :-1]].mean())


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="work folder of fit-model")
    parser.add_argument("--faces", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, prepared = prepared_faces(arguments.work)
    held_out = prepared.between(*HELD_OUT)
    photographed = np.char.startswith(prepared.source[held_out], "celeba")
    faces = prepared.faces.take(held_out[photographed][: arguments.faces])
    refined = load_model(MODEL_FOLDER)
    frames, inside = np.array(faces.frames), refined.code.mask.numpy()
    context = refined.code.context(torch.from_numpy(frames), known_mask(faces.quads))
    embed = DlibRecogniser().embed_frames
    originals, sharpness = embed(frames), edges(frames, inside)
    found: dict[str, Any] = {"revision": refined.revision, "n_faces": len(frames)}
    for sigma in SIGMAS:
        codes = drawn_codes(refined, faces, sigma)
        for name, model in (("plain", replace(refined, refiner=None)), ("refined", refined)):
            made, milliseconds = pictures(model, codes, context)
            laid = np.where(inside[..., None], made.numpy(), frames)
            found[f"{name}, sigma {sigma:g}"] = {
                "frechet_distance": frechet_distance(embed(laid), originals),
                "edges_over_those_of_photos": edges(laid, inside) / sharpness,
                "ms_per_face": milliseconds,
            }
    text = json.dumps(found, indent=1) + "\n"
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
