"""Head models: a softmax linear head in float64 on a frozen public backbone, and its folder.

Knows a backbone as features; not how a head is trained or unlearned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.schema import RGB
from privacy_core.unlearning.head import Matrix, with_ones
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.targets import (
    CONFIG,
    PREPROCESSOR,
    TRAINING,
    WEIGHTS,
    TrainingRecord,
    damaged,
    read_json,
    write_json,
)
from privacy_core.unlearning.tensors import Rows

HEAD_TYPE = "privacy-dial-head"


class Backbone(Protocol):
    """A frozen public model that turns pictures into features; never trained here.

    Attributes:
        name: What a head's folder names it by.
        n_features: d.
    """

    name: str
    n_features: int

    def features(self, images: RGB) -> Matrix:
        """Return the (n, d) features of (n, h, w, 3) uint8 pictures."""
        ...


@dataclass(frozen=True)
class HeadModel:
    """A softmax linear head in float64 on a frozen public backbone.

    Attributes:
        backbone: What reads the pictures.
        weights: W, (C, d + 1), the bias last.
        label_names: Names of the labels.
        record: How it was trained.
    """

    backbone: Backbone
    weights: Matrix = field(repr=False)
    label_names: tuple[str, ...]
    record: TrainingRecord

    kind: Literal["head"] = field(default="head", init=False)

    def logits(self, images: NDArray[Any]) -> Matrix:
        """Return (n, C)."""
        return with_ones(self.features(images)) @ self.weights.T

    def features(self, images: NDArray[Any]) -> Matrix:
        """Return (n, d); features are returned as they are.

        Raises:
            InvalidArgumentError: They are not the backbone's.
        """
        is_features = images.ndim == 2  # noqa: PLR2004
        found = np.asarray(images if is_features else self.backbone.features(images), np.float64)
        if found.shape[1] != self.backbone.n_features:
            raise InvalidArgumentError(
                f"`images` must be pictures or {self.backbone.n_features} features of "
                f"{self.backbone.name!r}, got {found.shape[1]} features."
            )
        return found

    def prepare(self, rows: LabelledImages) -> LabelledImages:
        """Return the rows with features in place of pictures."""
        return rows.with_images(self.features(rows.images))

    def rows(self, rows: LabelledImages) -> Rows:
        """Return features with a column of ones, and labels."""
        return Rows(
            torch.from_numpy(with_ones(self.features(rows.images))), torch.from_numpy(rows.labels)
        )

    def module(self) -> nn.Module:
        """Return the head as a linear layer in float64."""
        return _linear(self.weights)

    def fresh(self, seed: int) -> nn.Module:
        """Return a head of zeros, whatever the seed: its minimum is unique."""
        del seed
        return _linear(np.zeros_like(self.weights))

    def updated(self, module: nn.Module, record: TrainingRecord) -> HeadModel:
        """Return the head with a linear layer's weights."""
        weights = module.get_parameter("weight").detach().double().numpy().copy()
        return HeadModel(self.backbone, weights, self.label_names, record)

    def write(self, folder: Path) -> None:
        """Write weights, settings and record."""
        names = dict(enumerate(self.label_names))
        config = {
            "model_type": HEAD_TYPE, "architectures": ["HeadModel"], "backbone": self.backbone.name,
            "n_features": self.backbone.n_features, "id2label": names,
            "label2id": {name: number for number, name in names.items()},
        }  # fmt: skip
        size = self.record.recipe.image_size
        preprocessor = {"backbone": self.backbone.name, "size": {"height": size, "width": size}}
        write_json(folder / CONFIG, config)
        write_json(folder / PREPROCESSOR, preprocessor)
        write_json(folder / TRAINING, self.record.as_json())
        save_file({"weight": self.weights}, folder / WEIGHTS, metadata={"format": "pt"})

    def digest(self) -> str:
        """Return the SHA-256 over W."""
        return hashlib.sha256(np.ascontiguousarray(self.weights).tobytes()).hexdigest()


def new_head(backbone: Backbone, label_names: Sequence[str], record: TrainingRecord) -> HeadModel:
    """Return an untrained head: zeros."""
    weights = np.zeros((len(label_names), backbone.n_features + 1))
    return HeadModel(backbone, weights, tuple(label_names), record)


def load_head(folder: Path, backbone: Backbone) -> HeadModel:
    """Load a head's folder.

    Raises:
        ModelError: A file is missing or damaged, or the head belongs to another backbone.
    """
    try:
        config = read_json(folder / CONFIG)
        weights = load_file(folder / WEIGHTS)["weight"]
        record = TrainingRecord.from_json(read_json(folder / TRAINING))
        names = tuple(config["id2label"][str(i)] for i in range(len(config["id2label"])))
        wanted = str(config["backbone"])
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise damaged(folder, error) from error
    shape = (len(names), backbone.n_features + 1)
    if wanted != backbone.name or weights.shape != shape:
        raise ModelError(
            f"The head in {folder.name!r} was trained on the backbone {wanted!r}, got "
            f"{backbone.name!r}. Load it with its own."
        )
    return HeadModel(backbone, np.asarray(weights, np.float64), names, record)


def _linear(weights: Matrix) -> nn.Module:
    n_labels, width = weights.shape
    with torch.random.fork_rng(devices=[]):  # a new layer draws weights that are replaced
        layer = nn.Linear(width, n_labels, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
    return layer
