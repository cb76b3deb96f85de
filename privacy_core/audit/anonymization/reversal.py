"""Reversal: a network trained on pairs restores the original's code from a variant's.

The restored face is decoded, put into its surroundings, and shown to the recogniser. `repainting`
does the same on pixels. Knows codes and a recogniser; not what made the variants.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.learning import (
    LearningConfig,
    held_out,
    projection_at,
    ridge,
    train_on_rows,
)
from privacy_core.audit.estimates import Floats
from privacy_core.diffusion.code import LinearCode
from privacy_core.faces.align import TEMPLATE
from privacy_core.recognition import Recogniser, embed_all


class Restorer:
    """Variant's features → the original's code.

    Args:
        config: Training.
    """

    def __init__(self, config: LearningConfig | None = None) -> None:
        self.config = config or LearningConfig()

    def fit(self, variants: Tensor, codes: Tensor, people: Ints) -> Restorer:
        """Train on row-aligned features of variants and codes of their originals."""
        out = held_out(people, seed=self.config.seed)
        mean = codes[~out].mean(0)
        targets = codes - mean
        spread = targets[~out].pow(2).mean(0).clamp_min(1e-6)
        projection = projection_at(ridge(variants[~out], targets[~out]), self.config)

        def error(rows: Tensor) -> Tensor:
            apart: Tensor = (projection(variants[rows]) - targets[rows]) ** 2 / spread
            return apart.mean()

        self.validation_ = train_on_rows(projection, error, out, self.config)
        self._projection, self._mean = projection, mean
        return self

    @torch.inference_mode()
    def restore(self, variants: Tensor) -> Floats:
        """Return (n, K) estimates of the originals' codes."""
        restored: Tensor = self._projection(variants) + self._mean
        return np.asarray(restored.double().numpy())


def pictures_of(
    codes: NDArray[np.floating], frames: NDArray[np.uint8], code: LinearCode
) -> NDArray[np.uint8]:
    """Return (n, 128, 128, 3) template frames of decoded faces in their surroundings.

    Args:
        codes: (n, K).
        frames: (n, 128, 128, 3) template frames of the surroundings.
        code: Decodes.
    """
    decoded = code.decode(torch.from_numpy(codes).float()).numpy()
    return np.where(code.mask.numpy()[..., None], decoded, frames)


def recognised(pictures: NDArray[np.uint8], recogniser: Recogniser) -> Floats:
    """Return (n, d) embeddings of (n, 128, 128, 3) template frames."""
    return embed_all(recogniser, list(pictures), [TEMPLATE] * len(pictures))
