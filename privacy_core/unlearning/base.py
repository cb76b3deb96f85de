"""What every unlearning method has in common: the registry, a request, a problem, an outcome.

A method is one module with `Settings` (a frozen dataclass) and `unlearn(problem, settings)`, and
holds its loss or update and nothing else. Knows methods by name only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import NoiseKey
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.targets import Kind, Recipe, TargetModel
from privacy_core.unlearning.tensors import Rows
from privacy_core.unlearning.training import Cost, Watch


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        module: Where it is, below `privacy_core.unlearning`.
        needs_original: Whether it reads the rows to be forgotten.
        is_baseline: Whether it is here only so that claims about it can be rerun.
        kinds: Kinds of model it applies to.
        source: Where the method is from.
        takes_original: Whether it reads those rows where they are given, and does without.
    """

    module: str
    needs_original: bool
    is_baseline: bool
    kinds: tuple[Kind, ...]
    source: str
    takes_original: bool = False


_NETWORK: tuple[Kind, ...] = ("network",)
_BOTH: tuple[Kind, ...] = ("head", "network")

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "retrain": Method("retrain", False, False, _BOTH, "exact: the recipe on the revised data"),
        "newton-head": Method(
            "newton_head", False, False, ("head",), "Guo, Goldstein, Hannun & van der Maaten 2020"
        ),
        "finetune-restart": Method(
            "finetune_restart", False, False, _NETWORK, "warm restart, Loshchilov & Hutter 2017"
        ),
        "reinit-finetune": Method(
            "reinit_finetune",
            False,
            False,
            _NETWORK,
            "MSG, NeurIPS 2023 unlearning challenge",
            takes_original=True,
        ),
        "l1-sparse": Method("l1_sparse", False, False, _NETWORK, "Jia et al. 2023"),
        "clipped-noise": Method(
            "clipped_noise", False, False, _BOTH, "Koloskova, Allouah, Jha, Guerraoui & Koyejo 2025"
        ),
        "scrub": Method("scrub", True, False, _NETWORK, "Kurmanji et al. 2023"),
        "neggrad-plus": Method("neggrad_plus", True, False, _NETWORK, "Kurmanji et al. 2023"),
        "first-order": Method(
            "first_order", True, True, _BOTH, "Warnecke, Pirch, Wressnegger & Rieck 2023"
        ),
        "second-order": Method(
            "second_order", True, True, _BOTH, "Warnecke, Pirch, Wressnegger & Rieck 2023"
        ),
        "salun": Method("salun", True, True, _NETWORK, "Fan et al. 2024"),
        "ssd": Method("ssd", True, True, _NETWORK, "Foster, Schoepf & Brintrup 2024"),
        "random-labels": Method(
            "random_labels", True, True, _NETWORK, "Graves, Nagisetty & Ganesh 2021"
        ),
        "teacher": Method("teacher", True, True, _NETWORK, "Chundawat et al. 2023"),
    }
)
"""Name → method; those not marked as baselines first."""


@dataclass(frozen=True)
class UnlearnRequest:
    """What is asked for.

    Attributes:
        model: The original model; it is not changed.
        revised: The revised data.
        method: A name of `METHODS`.
        settings: The method's own; its defaults when None.
        open_original: Reads the original data; called only where the method needs it.
        held_out: Rows of the people's kind that no model was trained on, for what needs them.
        perturbation: The secret linear term B of a certified head, (C, d + 1).
        seed: Seed of every draw; for `retrain` of the first weights too. None: a method whose
            guarantee rests on secret noise draws it from the operating system, and every other
            takes 0.
    """

    model: TargetModel
    revised: LabelledImages
    method: str
    settings: Any | None = None
    open_original: Callable[[], LabelledImages] | None = None
    held_out: LabelledImages | None = None
    perturbation: NDArray[np.float64] | None = field(default=None, repr=False)
    seed: int | None = None


@dataclass(frozen=True)
class Problem:
    """What a method is given.

    Attributes:
        kind: Kind of the model.
        module: A copy of the original's trained part; the method may change it.
        fresh: Seed → the trained part as it was before training.
        train: D', every labelled row of the revised data.
        retain: Its unrevised rows.
        replacement: Its revised rows.
        forget: The original rows to be forgotten; None unless the method needs them.
        held_out: Rows of the same kind never trained on, or None.
        recipe: How the original was trained.
        perturbation: The secret linear term of a certified head.
        seed: Seed of every draw.
        noise: Key of noise on which a guarantee rests.
        watch: Progress and checkpoint.
    """

    kind: Kind
    module: nn.Module
    fresh: Callable[[int], nn.Module]
    train: Rows
    retain: Rows
    replacement: Rows
    forget: Rows | None
    held_out: Rows | None
    recipe: Recipe
    perturbation: NDArray[np.float64] | None = field(repr=False)
    seed: int
    noise: NoiseKey
    watch: Watch

    def to_forget(self) -> Rows:
        """Return the rows to be forgotten.

        Raises:
            InvalidArgumentError: There are none.
        """
        if self.forget is None or len(self.forget) == 0:
            raise InvalidArgumentError(
                "`original` must hold rows that the revised data replaced, got none. Name the "
                "data that `revise` was given, or choose a method that needs no originals."
            )
        return self.forget


@dataclass(frozen=True)
class Guarantee:
    """What is proved about the update: (ε, δ)-indistinguishability from retraining, or why not.

    Attributes:
        epsilon: ε, None where nothing is proved.
        delta: δ, None where there is no ε.
        reason: Why there is no ε, else what the proof covers.
    """

    epsilon: float | None
    delta: float | None
    reason: str


NOTHING_PROVED = Guarantee(None, None, "The method proves nothing; the audit measures.")


@dataclass(frozen=True)
class Outcome:
    """What a method returns: the trained part, its cost, a guarantee, and numbers worth keeping."""

    module: nn.Module
    cost: Cost
    guarantee: Guarantee = NOTHING_PROVED
    measured: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class UnlearnResult:
    """What was done.

    Attributes:
        model: The unlearned model.
        method: A name of `METHODS`.
        settings: The method's settings, as plain values.
        seed: What `UnlearnRequest.seed` was.
        cost: What it cost.
        guarantee: What is proved.
        measured: Numbers the method kept.
        n_train, n_retain, n_replacement: Rows of the revised data with a label.
        n_forget: Rows to be forgotten, None where the originals were not read.
    """

    model: TargetModel
    method: str
    settings: Mapping[str, Any]
    seed: int | None
    cost: Cost
    guarantee: Guarantee
    measured: Mapping[str, float | str]
    n_train: int
    n_retain: int
    n_replacement: int
    n_forget: int | None

    def as_json(self) -> dict[str, Any]:
        """Return everything but the model as plain JSON values."""
        return {
            "method": self.method,
            "source": METHODS[self.method].source,
            "settings": dict(self.settings),
            "seed": self.seed,
            "cost": asdict(self.cost),
            "guarantee": asdict(self.guarantee),
            "measured": dict(self.measured),
            "n_train": self.n_train,
            "n_retain": self.n_retain,
            "n_replacement": self.n_replacement,
            "n_forget": self.n_forget,
        }


class MethodModule(Protocol):
    """What a method's module holds."""

    Settings: Callable[[], Any]

    def unlearn(self, problem: Problem, settings: Any) -> Outcome:
        """Return the updated module."""
        ...


def method_of(name: str) -> Method:
    """Return a method's entry.

    Raises:
        InvalidArgumentError: There is no such method.
    """
    if name not in METHODS:
        raise InvalidArgumentError(
            f"Unknown unlearning method {name!r}. Choose one of: {', '.join(METHODS)}."
        )
    return METHODS[name]


def load_method(name: str) -> MethodModule:
    """Import a method's module.

    Raises:
        InvalidArgumentError: There is no such method.
    """
    module: Any = importlib.import_module(f"privacy_core.unlearning.{method_of(name).module}")
    found: MethodModule = module
    return found


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check a setting.

    Raises:
        InvalidArgumentError: It is not in [low, high].
    """
    if not low <= value <= high:
        raise InvalidArgumentError(f"`{name}` must be in [{low:g}, {high:g}], got {value!r}.")
