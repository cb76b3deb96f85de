"""A second recogniser, trained for this project: reads the opaque part of M only.

Histograms of oriented gradients (Dalal & Triggs 2005) and small colours, reduced and mapped by a
network with a margin softmax over pairs (`benchmarks/recogniser`). What no surroundings shine
through is all it sees, so it judges faces and not pictures. Weaker than dlib's descriptor by far;
how much stands beside its weights. Measures; never steers a variant.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import fit_alignment, opaque_mask, warp_to_template
from privacy_core.projection import Projection
from privacy_core.schema import RGB

RECOGNISER_FOLDER = Path(__file__).resolve().parents[1] / "models" / "recogniser"
RECOGNISER_WEIGHTS = "recogniser.safetensors"
RECOGNISER_CONFIG = "recogniser.json"
_ROWS, _COLUMNS = slice(22, 118), slice(16, 112)
"""Of the template: what holds the opaque part of M, but for two rows at each end."""
_CELL, _N_ANGLES, _COLOUR_CELL = 8, 8, 4
_BATCH = 64
_SIDE = _ROWS.stop - _ROWS.start
N_FEATURES = (
    sum(4 * _N_ANGLES * (side // _CELL - 1) ** 2 for side in (_SIDE, _SIDE // 2))
    + 3 * (_SIDE // _COLOUR_CELL) ** 2
)


@dataclass(frozen=True)
class RecogniserConfig:
    """Sizes of the network.

    Attributes:
        n_components: Principal components of the features.
        hidden: Hidden width.
        embedding: Numbers per face.
        dropout: Share of hidden values and inputs dropped in training.
    """

    n_components: int = 500
    hidden: int = 512
    embedding: int = 256
    dropout: float = 0.2


class MarginNetwork(Projection):
    """Features of a face → an embedding that is compared by angle.

    Principal components, then their projection. It is one rather than holds one, because the
    stored weights are named so.

    Args:
        config: Sizes.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__(
            config.n_components, config.embedding, hidden=config.hidden, dropout=config.dropout
        )
        self.config = config
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("basis", torch.zeros(N_FEATURES, config.n_components))

    def forward(self, features: Tensor) -> Tensor:
        """Return (n, embedding) for (n, `N_FEATURES`) features of `features_of`."""
        return self.embed_components((features - self.mean) @ self.basis)

    def embed_components(self, rows: Tensor) -> Tensor:
        """Return (n, embedding) for (n, n_components) principal components."""
        return super().forward(rows)


class MarginRecogniser:
    """Embeds a face as a unit vector; a face and its mirror image count as one.

    Args:
        network: In evaluation mode.
        name: Stands beside everything measured with it.
    """

    def __init__(self, network: MarginNetwork, name: str) -> None:
        self.name = name
        self._network = network.eval()

    def embed(self, pixels: RGB, landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the unit vector of the face with these (5, 2) landmarks."""
        found: NDArray[np.float64] = self.embed_many([pixels], [landmarks])[0]
        return found

    def embed_many(
        self, pictures: Sequence[RGB], landmarks: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return the (n, d) unit vectors of one face in each of n ≥ 1 pictures."""
        pairs = zip(pictures, landmarks, strict=True)
        return self.embed_frames(
            np.stack([warp_to_template(picture, fit_alignment(marks)) for picture, marks in pairs])
        )

    @torch.inference_mode()
    def embed_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (n, d) unit vectors of (n, 128, 128, 3) template frames."""
        found = [torch.zeros(0, self._network.config.embedding)]
        for start in range(0, len(frames), _BATCH):
            part = frames[start : start + _BATCH]
            both = sum(self._network(features_of(seen)) for seen in (part, part[:, :, ::-1]))
            found.append(nn.functional.normalize(torch.as_tensor(both), dim=1))
        return np.asarray(torch.cat(found).double().numpy())

    def distance(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        """Return the Euclidean distance, in [0, 2]."""
        return float(np.linalg.norm(one - other))


def features_of(frames: NDArray[np.uint8]) -> Tensor:
    """Return (n, `N_FEATURES`) numbers of the opaque part of M of (n, 128, 128, 3) frames."""
    inside = torch.from_numpy(opaque_mask())[_ROWS, _COLUMNS].float()
    seen = torch.from_numpy(np.array(frames[:, _ROWS, _COLUMNS])).permute(0, 3, 1, 2) / 127.5 - 1
    colours = nn.functional.avg_pool2d(seen * inside, _COLOUR_CELL)
    # Light and contrast tell about the photo more than about the face.
    grey, n = seen.mean(1) * inside, inside.sum()
    mean = grey.sum((1, 2), keepdim=True) / n
    spread = ((grey - mean) ** 2 * inside).sum((1, 2), keepdim=True).div(n).sqrt() + 1e-3
    grey = ((grey - mean) / spread * inside)[:, None]
    parts = (_gradients(grey), _gradients(grey[:, :, ::2, ::2]), colours.flatten(1))
    return torch.cat(parts, 1)


def _gradients(grey: Tensor) -> Tensor:
    """Return the square roots of histograms of gradients, normalised in blocks of 2 x 2 cells."""
    padded = nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    place = torch.atan2(dy, dx).remainder(torch.pi) * (_N_ANGLES / torch.pi)
    angles = torch.arange(_N_ANGLES)[None, :, None, None]
    away = (place - angles).abs()
    # Each gradient is shared by the two angles next to its own; the last is next to the first.
    share = (1 - torch.minimum(away, _N_ANGLES - away)).clamp_min(0)
    cells = nn.functional.avg_pool2d(share * torch.hypot(dx, dy), _CELL)
    blocks = nn.functional.unfold(cells, 2)
    return nn.functional.normalize(blocks, dim=1).sqrt().flatten(1)


def load_recogniser(folder: Path = RECOGNISER_FOLDER) -> MarginRecogniser:
    """Read what `benchmarks/recogniser.py` wrote.

    Raises:
        InvalidArgumentError: The folder holds no recogniser, or its files do not fit.
    """
    try:
        stored = json.loads((folder / RECOGNISER_CONFIG).read_text(encoding="utf-8"))
        network = MarginNetwork(RecogniserConfig(**stored["config"]))
        weights = load_file(folder / RECOGNISER_WEIGHTS)
        network.load_state_dict({key: value.float() for key, value in weights.items()})
        name = f"margin-{stored['revision']}"
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InvalidArgumentError(
            f"`folder` must hold {RECOGNISER_CONFIG} and {RECOGNISER_WEIGHTS} that fit together, "
            f"got others in {folder.name!r}. Check the installation, or run "
            "`python -m benchmarks.recogniser` again."
        ) from error
    return MarginRecogniser(network, name)
