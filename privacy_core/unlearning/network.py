"""Networks: any `transformers` image classifier as a target model, and a small ResNet of our own.

Imports transformers, which takes seconds; nothing else in this package does. Knows no method.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, ResNetConfig

from privacy_core.errors import ModelError
from privacy_core.unlearning.head import Matrix
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.targets import (
    CONFIG,
    PREPROCESSOR,
    TRAINING,
    WEIGHTS,
    Recipe,
    TrainingRecord,
    damaged,
    read_json,
    write_json,
)
from privacy_core.unlearning.tensors import Rows, module_digest
from privacy_core.unlearning.training import Cost

_BATCH = 256
_MEAN = _SD = (0.5, 0.5, 0.5)


class PictureClassifier(nn.Module):
    """uint8 pictures (n, h, w, 3) → logits: the normalisation and a transformers classifier.

    Args:
        network: The classifier.
        mean: Mean of each colour in [0, 1], subtracted.
        sd: What is divided by.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], sd: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("sd", torch.tensor(sd).reshape(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (n, C) logits."""
        pixels = pictures.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        logits: Tensor = self.network(pixel_values=(pixels - self.mean) / self.sd).logits
        return logits

    def last_linear(self) -> nn.Linear:
        """Return the layer that gives the logits.

        Raises:
            ModelError: The network does not end in a linear layer.
        """
        layers = [part for part in self.network.modules() if isinstance(part, nn.Linear)]
        if not layers:
            raise ModelError(
                "The model must end in a linear layer, got a network without any. Choose an "
                "image classifier such as a ResNet or a ViT."
            )
        return layers[-1]


@dataclass(frozen=True)
class NetworkModel:
    """A `transformers` image classifier on pictures of one size.

    Attributes:
        classifier: In evaluation mode; not changed by anything here.
        label_names: Names of the labels.
        record: How it was trained.
    """

    classifier: PictureClassifier = field(repr=False)
    label_names: tuple[str, ...]
    record: TrainingRecord

    kind: Literal["network"] = field(default="network", init=False)

    @torch.inference_mode()
    def logits(self, images: NDArray[Any]) -> Matrix:
        """Return (n, C)."""
        found = [self.classifier(part) for part in _batches(images)]
        return torch.cat(found).double().numpy()

    @torch.inference_mode()
    def features(self, images: NDArray[Any]) -> Matrix:
        """Return what the last linear layer reads, (n, d)."""
        seen: list[Tensor] = []
        hook = self.classifier.last_linear().register_forward_pre_hook(
            lambda _layer, inputs: seen.append(inputs[0].flatten(1))
        )
        try:
            for part in _batches(images):
                self.classifier(part)
        finally:
            hook.remove()
        return torch.cat(seen).double().numpy()

    def prepare(self, rows: LabelledImages) -> LabelledImages:
        """Return the rows as they are."""
        return rows

    def rows(self, rows: LabelledImages) -> Rows:
        """Return pictures and labels."""
        return Rows(torch.from_numpy(rows.images), torch.from_numpy(rows.labels))

    def module(self) -> nn.Module:
        """Return a copy of the classifier."""
        return copy.deepcopy(self.classifier)

    def fresh(self, seed: int) -> nn.Module:
        """Return the classifier as it was before training: the public base, or drawn weights."""
        recipe, config = self.record.recipe, self.classifier.network.config
        network = _untrained(config, recipe, self.label_names, seed)
        mean, sd = self.classifier.mean.flatten().tolist(), self.classifier.sd.flatten().tolist()
        return PictureClassifier(network, mean, sd).eval()

    def updated(self, module: nn.Module, record: TrainingRecord) -> NetworkModel:
        """Return the model with another classifier."""
        if not isinstance(module, PictureClassifier):
            raise ModelError(
                f"A network's trained part is a PictureClassifier, got {type(module).__name__}."
            )
        return NetworkModel(module.eval(), self.label_names, record)

    def write(self, folder: Path) -> None:
        """Write weights, settings and record in the Hub's layout."""
        network: Any = self.classifier.network
        network.config.architectures = [type(network).__name__]
        network.config.to_json_file(folder / CONFIG)
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        size = self.record.recipe.image_size
        preprocessor = {
            "image_processor_type": "ViTImageProcessor", "do_resize": True,
            "size": {"height": size, "width": size}, "resample": 2, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": self.classifier.mean.flatten().tolist(),
            "image_std": self.classifier.sd.flatten().tolist(),
        }  # fmt: skip
        write_json(folder / PREPROCESSOR, preprocessor)
        write_json(folder / TRAINING, self.record.as_json())

    def digest(self) -> str:
        """Return the SHA-256 over all weights and buffers."""
        return module_digest(self.classifier)


def small_resnet(
    label_names: Sequence[str],
    record: TrainingRecord,
    *,
    widths: Sequence[int] = (32, 64, 128),
    depths: Sequence[int] = (1, 1, 2),
) -> NetworkModel:
    """Return an untrained ResNet, with the default sizes of 0.6 M weights for two labels.

    Args:
        label_names: Names of the labels.
        record: Its recipe's seed draws the first weights.
        widths: Channels of each stage.
        depths: Blocks of each stage.
    """
    config_class: Any = ResNetConfig  # its keywords for labels are unknown to mypy
    config = config_class(
        num_channels=3, embedding_size=widths[0], hidden_sizes=list(widths), depths=list(depths),
        layer_type="basic", num_labels=len(label_names), id2label=dict(enumerate(label_names)),
        label2id={name: number for number, name in enumerate(label_names)},
    )  # fmt: skip
    network = _untrained(config, record.recipe, tuple(label_names), record.recipe.seed)
    return NetworkModel(PictureClassifier(network, _MEAN, _SD).eval(), tuple(label_names), record)


def from_base(label_names: Sequence[str], record: TrainingRecord) -> NetworkModel:
    """Return the recipe's public base with a new last layer, ready to be trained.

    Raises:
        ModelError: The base cannot be loaded.
    """
    recipe = record.recipe
    try:
        config = AutoConfig.from_pretrained(str(recipe.base), revision=recipe.base_revision)
    except (OSError, ValueError, KeyError) as error:
        raise _no_base(recipe, error) from error
    network = _untrained(config, recipe, tuple(label_names), recipe.seed)
    return NetworkModel(PictureClassifier(network, _MEAN, _SD).eval(), tuple(label_names), record)


def load_network(folder: Path, *, recipe: Recipe | None = None) -> NetworkModel:
    """Load a network's folder: config.json, model.safetensors, preprocessor_config.json.

    Args:
        folder: As `NetworkModel.write` or `save_pretrained` writes it.
        recipe: For a folder without `training.json`; then what it was trained on is unknown.

    Raises:
        ModelError: A file is missing or damaged, or it is not known how the model was trained.
    """
    try:
        settings = read_json(folder / PREPROCESSOR)
        mean, sd = settings.get("image_mean", _MEAN), settings.get("image_std", _SD)
        network = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        known = (folder / TRAINING).is_file()
        record = TrainingRecord.from_json(read_json(folder / TRAINING)) if known else None
        size = settings.get("size", {})
        side = int(size.get("height", size.get("shortest_edge", 224)))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise damaged(folder, error) from error
    if record is None:
        if recipe is None:
            raise ModelError(
                f"The model folder {folder.name!r} has no training.json, so its training cannot "
                "be repeated. Give a `recipe`, or train one with `train`."
            )
        record = TrainingRecord(replace(recipe, image_size=side), "", 0, Cost())
    names = tuple(str(network.config.id2label[i]) for i in range(network.config.num_labels))
    classifier = PictureClassifier(network, mean, sd).eval()
    return NetworkModel(classifier, names, record)


def _untrained(config: Any, recipe: Recipe, names: tuple[str, ...], seed: int) -> nn.Module:
    automatic: Any = AutoModelForImageClassification
    # First weights come from the global generator: seeded here, and put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.base is None:
            network = automatic.from_config(config)
        else:
            try:
                network = automatic.from_pretrained(
                    recipe.base, revision=recipe.base_revision, num_labels=len(names),
                    id2label=dict(enumerate(names)),
                    label2id={name: number for number, name in enumerate(names)},
                    ignore_mismatched_sizes=True, dtype=torch.float32,
                )  # fmt: skip
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                raise _no_base(recipe, error) from error
    found: nn.Module = network.eval()
    return found


def _no_base(recipe: Recipe, error: Exception) -> ModelError:
    return ModelError(
        f"The public base {recipe.base!r} cannot be loaded ({type(error).__name__}). Check its "
        "name and revision, or train from scratch."
    )


def _batches(images: NDArray[Any]) -> list[Tensor]:
    return list(torch.from_numpy(np.ascontiguousarray(images)).split(_BATCH))
