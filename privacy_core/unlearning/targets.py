"""Target models: the classifiers that are trained, unlearned and audited, and their folders.

One interface over heads on a frozen backbone and over networks. Knows how a model is stored; not
how it is trained or unlearned, and no command line.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from privacy_core.errors import ModelError, OutputError
from privacy_core.unlearning.head import Matrix
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.schedule import LoopSettings
from privacy_core.unlearning.tensors import Rows
from privacy_core.unlearning.training import Cost

SCHEMA_VERSION = 1
WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
TRAINING = "training.json"

Kind = Literal["head", "network"]


@dataclass(frozen=True)
class Recipe:
    """How a target model is trained; unlearning and the reference model repeat it.

    Attributes:
        optimizer: "newton" or "lbfgs" (heads), "sgd", "adam" or "adamw" (networks).
        weight_decay: wd.
        seed: Seed of first weights and of every draw.
        image_size: Side of the square pictures, in pixels.
        learning_rate, epochs, batch_size, augmentation: A network's, see `LoopSettings`.
        tolerance: A head's |∇L| at which training stops.
        perturbation_sd: Standard deviation of the secret linear term of a certified head, 0
            without one.
        perturbation_is_secret: False where a seed repeats it; then it proves nothing.
        base: Public model that training starts from, a folder or Hub id; None from scratch.
        base_revision: Its commit on the Hub.
    """

    optimizer: Literal["newton", "lbfgs", "sgd", "adam", "adamw"]
    weight_decay: float
    seed: int = 0
    image_size: int = 64
    learning_rate: float = 0.1
    epochs: int = 15
    batch_size: int = 64
    augmentation: Literal["flip and shift", "none"] = "flip and shift"
    tolerance: float = 1e-9
    perturbation_sd: float = 0.0
    perturbation_is_secret: bool = True
    base: str | None = None
    base_revision: str | None = None

    def loop(self) -> LoopSettings:
        """Return a network's recipe as the loop's settings.

        Raises:
            ModelError: It is the recipe of a head.
        """
        if self.optimizer == "newton" or self.optimizer == "lbfgs":  # noqa: PLR1714  (for mypy)
            raise ModelError(
                f"The recipe's `optimizer` is {self.optimizer!r}, which trains no network. "
                "Train the network with sgd, adam or adamw."
            )
        return LoopSettings(
            self.epochs, self.batch_size, self.learning_rate, self.optimizer,
            weight_decay=self.weight_decay, augmentation=self.augmentation, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class TrainingRecord:
    """What a model was made of and what that cost; `training.json` beside the weights.

    Attributes:
        recipe: How it was trained.
        data_digest: `LabelledImages.digest` of the rows, before features were taken.
        n_rows: How many.
        cost: What training cost.
        label_column: The column of the data that held the labels, "" where that is not known.
        versions: Versions of what decides the last bits, and the number of threads.
        full_cost: Of an unlearned model, whose `cost` is the update's: what the last training by
            the recipe cost. None where `cost` is that of training.
        full_rows: How many rows that training had, None with `full_cost`.
    """

    recipe: Recipe
    data_digest: str
    n_rows: int
    cost: Cost
    label_column: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    full_cost: Cost | None = None
    full_rows: int | None = None

    def full_training(self) -> tuple[Cost, int]:
        """Return what training by the recipe cost and on how many rows, also after updates."""
        if self.full_cost is None or self.full_rows is None:
            return self.cost, self.n_rows
        return self.full_cost, self.full_rows

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingRecord:
        """Return the record that `as_json` wrote."""
        full_cost, full_rows = value.get("full_cost"), value.get("full_rows")
        return cls(
            Recipe(**value["recipe"]),
            str(value["data_digest"]),
            int(value["n_rows"]),
            Cost(**value["cost"]),
            str(value["label_column"]),
            dict(value["versions"]),
            None if full_cost is None else Cost(**full_cost),
            None if full_rows is None else int(full_rows),
        )


class TargetModel(Protocol):
    """A classifier of pictures, in evaluation mode.

    `images` are (n, h, w, 3) uint8 of the recipe's size, or the rows of `LabelledImages` as
    `prepare` returns them.
    """

    @property
    def kind(self) -> Kind:
        """Which methods apply."""
        ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the logits."""
        ...

    @property
    def record(self) -> TrainingRecord:
        """How it was trained."""
        ...

    def logits(self, images: NDArray[Any]) -> Matrix:
        """Return (n, C) float64."""
        ...

    def features(self, images: NDArray[Any]) -> Matrix:
        """Return what the last linear layer reads, (n, d) float64."""
        ...

    def prepare(self, rows: LabelledImages) -> LabelledImages:
        """Return rows ready for repeated use: a head's pictures become features."""
        ...

    def rows(self, rows: LabelledImages) -> Rows:
        """Return labelled rows as the tensors `module` reads."""
        ...

    def module(self) -> nn.Module:
        """Return a copy of the trained part: tensors of `rows` → logits."""
        ...

    def fresh(self, seed: int) -> nn.Module:
        """Return the trained part as it was before training, first weights drawn from `seed`."""
        ...

    def updated(self, module: nn.Module, record: TrainingRecord) -> TargetModel:
        """Return the model with another trained part."""
        ...

    def write(self, folder: Path) -> None:
        """Write the model's files into an existing folder."""
        ...

    def digest(self) -> str:
        """Return the SHA-256 over the trained weights, in hex."""
        ...


def save_target(
    model: TargetModel, folder: Path, *, files: Mapping[str, bytes] | None = None
) -> None:
    """Write a model folder whole or not at all.

    Args:
        model: What to write.
        folder: A new or empty folder.
        files: Further files, name → content.

    Raises:
        OutputError: The folder holds files, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or next(folder.iterdir(), None) is not None):
        raise OutputError(
            f"`--out` must be a new or empty folder, got {folder.name!r} with files in it. "
            "Choose another name."
        )
    temporary = folder.absolute().parent / f".{folder.absolute().name}.{secrets.token_hex(4)}.part"
    try:
        temporary.mkdir(parents=True)
        model.write(temporary)
        for name, content in (files or {}).items():
            (temporary / name).write_bytes(content)
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:  # the latter where the disk is full
        raise OutputError(
            f"`--out` must be in a place you can write to, got {folder.name!r} "
            f"({_reason(error)}). Make room, or choose another place."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reason(error: Exception) -> str:
    """Return what the system says, without a path."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def model_type(folder: Path) -> str:
    """Return what kind of model a folder holds.

    Raises:
        ModelError: It holds none.
    """
    try:
        return str(read_json(folder / CONFIG)["model_type"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> ModelError:
    """Return what to raise where a model folder cannot be loaded."""
    return ModelError(
        f"The model folder {folder.name!r} cannot be loaded ({type(error).__name__}): a file is "
        "missing or damaged. Check the path, or train one with `train`."
    )


def versions(packages: Sequence[str] = ("torch", "numpy", "transformers")) -> dict[str, str]:
    """Return versions of what decides a result's last bits, and the number of threads."""
    found = {name: version(name) for name in packages}
    return {**found, "threads": str(torch.get_num_threads())}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError(path.name)
    return value
