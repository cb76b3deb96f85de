"""Attributes of a face: labels from a row, a predictor that reads pixels, skin tone for strata.

Knows aligned template frames and labels; no photo, no code, no strength. Skin tone (ITA) serves to
stratify reports only: nothing is conditioned on it, and race is never predicted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import SIZE, template_mask
from privacy_core.schema import ATTRIBUTES

UNKNOWN = -1
"""The label of an attribute that nobody gave."""
_CELEBA = {"smiling": 31, "eyeglasses": 15}
_CELEBA_NO_BEARD = 24
_N_CELEBA = 40
_CHEEKS = ((slice(70, 86), slice(34, 46)), (slice(70, 86), slice(81, 93)))
"""Rows and columns of the template below the eyes and beside the nose."""
SKIN_TONES = ("dark", "brown", "tan", "intermediate", "light", "very light")
_TONE_LIMITS = (-30.0, 10.0, 28.0, 41.0, 55.0)
_SIDE = 64
PREDICTOR_FOLDER = Path(__file__).resolve().parents[1] / "models" / "attributes"
PREDICTOR_WEIGHTS = "predictor.safetensors"
PREDICTOR_CONFIG = "predictor.json"


def labels_of(row: Mapping[str, Any]) -> tuple[int, ...]:
    """Return 0, 1 or -1 per attribute, in the order of `ATTRIBUTES`.

    Args:
        row: With a column per attribute that holds one of its two values, or CelebA's 40
            `attributes`; the former wins.
    """
    labels = dict.fromkeys(ATTRIBUTES, UNKNOWN)
    listed = row.get("attributes")
    if listed is not None and len(listed) == _N_CELEBA:
        # CelebA's own files say -1 for no.
        labels |= {name: int(listed[place] > 0) for name, place in _CELEBA.items()}
        labels["beard"] = 1 - int(listed[_CELEBA_NO_BEARD] > 0)
    for name, values in ATTRIBUTES.items():
        if row.get(name) in values:
            labels[name] = values.index(row[name])
    return tuple(labels.values())


def ita_angle(frame: NDArray[np.uint8]) -> float:
    """Return the individual typology angle of the cheeks in degrees; smaller is darker.

    atan2(L* − 50, b*) of the median CIELAB colour (Chardon, Cretois & Hourseau 1991).

    Args:
        frame: (128, 128, 3) uint8 template frame.
    """
    cheeks = np.concatenate([frame[window].reshape(-1, 3) for window in _CHEEKS])
    colour = np.median(cheeks, axis=0) / 255
    # From sRGB to CIELAB under D65 (IEC 61966-2-1, CIE 15).
    is_low = colour <= 0.04045  # noqa: PLR2004
    linear = np.where(is_low, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175],
         [0.0193339, 0.119192, 0.9503041]]
    )  # fmt: skip
    ratio = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, b = 116 * f[1] - 16, 200 * (f[1] - f[2])
    return float(np.degrees(np.arctan2(lightness - 50, b)))


def skin_tone(angle: float) -> str:
    """Return the class of an ITA angle, one of `SKIN_TONES` (Del Bino & Bernerd 2013)."""
    return SKIN_TONES[int(np.searchsorted(_TONE_LIMITS, angle))]


def balanced_accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of the two classes' hit rates; unknown labels are left out.

    Args:
        predicted: (n,) 0 or 1.
        labels: (n,) 0, 1 or -1.

    Raises:
        InvalidArgumentError: One of the classes has no label.
    """
    guess, truth = np.asarray(predicted), np.asarray(labels)
    if not ((truth == 0).any() and (truth == 1).any()):
        raise InvalidArgumentError(
            f"`labels` must hold both classes, got {int((truth == 0).sum())} of the first and "
            f"{int((truth == 1).sum())} of the second. Leave the metric out."
        )
    return float(np.mean([(guess[truth == value] == value).mean() for value in (0, 1)]))


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes and training of an `AttributePredictor`.

    Attributes:
        width: Channels of the first layer.
        depth: Layers, each halving the picture.
        epochs: Passes over the faces.
        whole_crop: Read the whole frame; else the pixels of M only.
        seed: Seed of weights, order and mirroring.
    """

    width: int = 16
    depth: int = 4
    epochs: int = 8
    whole_crop: bool = True
    seed: int = 0


class AttributePredictor:
    """A small convolutional network that predicts all attributes of a frame at once.

    Args:
        config: Sizes and training.

    Attributes:
        classes_: (5,) bool, which attributes had both classes and can be predicted.

    Example:
        >>> frames = np.zeros((4, 128, 128, 3), np.uint8)
        >>> frames[::2] += 200
        >>> labels = np.array([[1, 0, -1, -1, -1], [0, 0, -1, -1, -1]] * 2)
        >>> fitted = AttributePredictor(PredictorConfig(width=4, epochs=1)).fit(frames, labels)
        >>> fitted.predict(frames).shape, fitted.classes_.tolist()
        ((4, 5), [True, False, False, False, False])
    """

    def __init__(self, config: PredictorConfig) -> None:
        self.config = config

    def fit(self, frames: NDArray[np.uint8], labels: NDArray[np.integer]) -> AttributePredictor:
        """Train on (n, 128, 128, 3) frames with (n, 5) labels of 0, 1 or -1.

        Raises:
            InvalidArgumentError: No attribute has both classes.
        """
        truth = torch.from_numpy(np.asarray(labels, np.int64))
        counts = torch.stack([(truth == value).sum(0) for value in (0, 1)]).float()
        both = (counts > 0).all(0)
        if not bool(both.any()):
            raise InvalidArgumentError(
                "`labels` must hold both classes of at least one attribute, got none. "
                "Give labelled faces, or leave the predictor out."
            )
        self.classes_: NDArray[np.bool_] = both.numpy()
        # Each class of each attribute weighs one half, unknown labels nothing.
        weights = torch.zeros(truth.shape)
        for value in (0, 1):
            weights += (truth == value) * (len(truth) / (2 * counts[value].clamp_min(1)))
        weights *= both
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self._network = _network(self.config)
            _train(self._network, self._pixels(frames), truth.clamp_min(0).float(), weights,
                   self.config)  # fmt: skip
        return self

    @torch.inference_mode()
    def predict(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (n, 5) probabilities of the value 1; NaN for attributes that had one class only.

        Raises:
            InvalidArgumentError: The predictor is not fitted.
        """
        if not hasattr(self, "_network"):
            raise InvalidArgumentError("Call `fit` before `predict`.")
        parts = [torch.sigmoid(self._network(part)) for part in self._pixels(frames).split(64)]
        found: NDArray[np.float32] = torch.cat(parts).numpy()
        return np.where(self.classes_, found, np.float32("nan"))

    def state(self) -> dict[str, Tensor]:
        """Return the weights and which attributes they predict.

        Raises:
            InvalidArgumentError: The predictor is not fitted.
        """
        if not hasattr(self, "_network"):
            raise InvalidArgumentError("Call `fit` before `state`.")
        return {**self._network.state_dict(), "classes": torch.from_numpy(self.classes_)}

    def load_state(self, state: Mapping[str, Tensor]) -> AttributePredictor:
        """Take what `state` returned for the same configuration.

        Raises:
            InvalidArgumentError: It belongs to another configuration.
        """
        weights = dict(state)
        try:
            self.classes_ = weights.pop("classes").numpy()
            self._network = _network(self.config).eval()
            self._network.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise InvalidArgumentError(
                "`state` must be what `state` returned for the same configuration, got "
                f"{len(state)} tensors that do not fit. Fit the predictor again."
            ) from error
        return self

    def _pixels(self, frames: NDArray[np.uint8]) -> Tensor:
        """Return (n, 3, 64, 64) pixels in [-1, 1], mid-grey outside M unless all is read."""
        values = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
        values = values / 127.5 - 1
        if not self.config.whole_crop:
            values = values * torch.from_numpy(template_mask())
        return nn.functional.avg_pool2d(values, SIZE // _SIDE)


@dataclass(frozen=True)
class MeasuredPredictor:
    """A fitted predictor with how well it did on people it never saw.

    Attributes:
        predictor: The predictor.
        accuracy: Attribute → balanced accuracy, in [0, 1], on held-out people's originals.
        protected: Strength → the same on their variants, without an attribute policy.
    """

    predictor: AttributePredictor = field(repr=False)
    accuracy: Mapping[str, float]
    protected: Mapping[float, Mapping[str, float]] = field(default_factory=dict)


def load_predictor(folder: Path = PREDICTOR_FOLDER) -> MeasuredPredictor:
    """Read what `benchmarks/predictor.py` wrote.

    Raises:
        InvalidArgumentError: The folder holds no predictor, or its files do not fit.
    """
    try:
        stored = json.loads((folder / PREDICTOR_CONFIG).read_text(encoding="utf-8"))
        predictor = AttributePredictor(PredictorConfig(**stored["config"]))
        predictor.load_state(load_file(folder / PREDICTOR_WEIGHTS))
        accuracy = _accuracy(stored["held_out"]["all"])
        strengths = stored["protected"]["strengths"]
        protected = {float(strength): _accuracy(found) for strength, found in strengths.items()}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidArgumentError(
            f"`folder` must hold {PREDICTOR_CONFIG} and {PREDICTOR_WEIGHTS} that fit together, "
            f"got others in {folder.name!r}. Run `python -m benchmarks.predictor` again."
        ) from error
    return MeasuredPredictor(predictor, accuracy, protected)


def _accuracy(measured: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(found["balanced_accuracy"]) for name, found in measured.items()}


def _network(config: PredictorConfig) -> nn.Module:
    layers: list[nn.Module] = []
    before, width = 3, config.width
    for _ in range(config.depth):
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(1, width)]
        layers.append(nn.SiLU())
        before, width = width, min(2 * width, 128)
    side = _SIDE // 2**config.depth
    head = nn.Linear(before * side * side, len(ATTRIBUTES))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), head)


def _train(
    network: nn.Module, pixels: Tensor, truth: Tensor, weights: Tensor, config: PredictorConfig
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    batches = -(-len(pixels) // 64)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=config.epochs * batches
    )
    for _ in range(config.epochs):
        for index in torch.randperm(len(pixels)).split(64):
            shown = pixels[index]
            mirrored = torch.rand(len(shown)) < 0.5  # noqa: PLR2004
            shown = torch.where(mirrored[:, None, None, None], shown.flip(3), shown)
            losses = nn.functional.binary_cross_entropy_with_logits(
                network(shown), truth[index], weights[index], reduction="mean"
            )
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
            rates.step()
    network.eval()
