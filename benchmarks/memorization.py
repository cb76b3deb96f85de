"""Check that the embedded model repeats no face it was fitted to; writes `docs/results/`.

Draws faces from pure noise, with the surroundings of held-out faces, and compares each one's
nearest fitted face with that of held-out faces: the distance in pixels of the mask, and the same
over the distance to the 50th nearest (a copy stands out by a small ratio, a plain face does not).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm

from benchmarks.development_faces import prepared_faces
from privacy_core.backends.embedded import MODEL_FOLDER
from privacy_core.diffusion.code import known_mask
from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.fit import FIT
from privacy_core.diffusion.model import EmbeddedModel, load_model
from privacy_core.diffusion.prepare import PreparedFaces
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.schema import ATTRIBUTES

HELD_OUT = (60, 99)
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def scores_of(model: EmbeddedModel, prepared: PreparedFaces, index: NDArray[np.int64]) -> Tensor:
    """Return principal components, in which distances are those of pixels inside the mask."""
    parts = np.array_split(index, max(1, len(index) // 512))
    frames = prepared.faces.frames
    codes = [model.code.encode(torch.from_numpy(np.array(frames[part]))) for part in parts]
    return torch.cat(codes) @ model.code.inverse_metric.T


def drawn_scores(model: EmbeddedModel, prepared: PreparedFaces, index: NDArray[np.int64]) -> Tensor:
    """Return the components of one face from pure noise per held-out surroundings."""
    generator = torch.Generator().manual_seed(0)
    k = model.code.sizes.n_components
    parts = []
    for part in tqdm(np.array_split(index, max(1, len(index) // 256)), "drawn", file=sys.stderr):
        n = len(part)
        frames = torch.from_numpy(np.array(prepared.faces.frames[part]))
        context = model.code.context(frames, known_mask(prepared.faces.quads[part]))
        drawn = model.generate(
            SIGMA_MAX * torch.randn(n, k, generator=generator),
            torch.full((n,), SIGMA_MAX),
            torch.ones(n, k),
            context=context,
            attributes=torch.full((n, len(ATTRIBUTES)), NULL),
        )
        parts.append(model.code.encode(drawn))
    return torch.cat(parts) @ model.code.inverse_metric.T


def nearest(scores: Tensor, fitted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest fitted face, and that over the 50th nearest."""
    parts = [torch.cdist(part, fitted).topk(50, largest=False).values for part in scores.split(256)]
    distances = torch.cat(parts)
    return distances[:, 0], distances[:, 0] / distances[:, -1]


def compared(drawn: Tensor, held_out: Tensor) -> dict[str, Any]:
    """Return quantiles of both, and whether more drawn than held-out faces are very near."""
    limit = float(held_out.quantile(0.01))
    near = int((drawn < limit).sum())
    return {
        "held_out_median": float(held_out.median()),
        "drawn_median": float(drawn.median()),
        "held_out_smallest": float(held_out.min()),
        "drawn_smallest": float(drawn.min()),
        "held_out_1st_percentile": limit,
        "drawn_below_it": near / len(drawn),
        "p_value_of_an_excess_over_1_percent": float(
            binomtest(near, len(drawn), 0.01, alternative="greater").pvalue
        ),
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="work folder of fit-model")
    parser.add_argument("--faces", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, prepared = prepared_faces(arguments.work)
    model = load_model(MODEL_FOLDER)
    fitted = scores_of(model, prepared, prepared.between(*FIT))
    held_out = prepared.between(*HELD_OUT)
    chosen = np.sort(np.random.default_rng(0).permutation(held_out)[: arguments.faces])
    drawn = nearest(drawn_scores(model, prepared, chosen), fitted)
    others = nearest(scores_of(model, prepared, chosen), fitted)
    result = {
        "revision": model.revision,
        "n_drawn": len(chosen),
        "n_fitted": len(fitted),
        "distance": compared(drawn[0], others[0]),
        "distance_over_50th_nearest": compared(drawn[1], others[1]),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    (RESULTS / "memorization.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
