"""Shadow models: originals, references and unlearned ones with other seeds, kept on disk for reuse.

A file is named by everything its weights depend on, so what is there is never wrong, an interrupted
run goes on where it stopped, and another method reuses the originals and references. Knows
training and unlearning; no metric.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.noise import NoiseKey
from privacy_core.unlearning.base import UnlearnRequest, load_method
from privacy_core.unlearning.newton_head import draw_perturbation
from privacy_core.unlearning.rows import LabelledImages, split_revised
from privacy_core.unlearning.run import unlearn
from privacy_core.unlearning.targets import TargetModel, versions
from privacy_core.unlearning.tensors import module_digest
from privacy_core.unlearning.training import Cost, Watch, quiet
from privacy_core.wholefile import whole_file

SCHEMA_VERSION = 1
Role = Literal["original", "reference", "control", "unlearned"]
_FIRST_SEED = {"original": 0, "unlearned": 0, "reference": 10_000, "control": 20_000}
_HEAD_SHARE = 0.8


@dataclass(frozen=True)
class Request:
    """What all shadow models of an audit share.

    Attributes:
        model: The original model: its recipe and shape, not its weights.
        original: D, pictures or features as `model.prepare` returns them.
        revised: D', the same way.
        people: (n,) who is shown in each row of `original`.
        method: How to unlearn.
        settings: The method's own; its defaults when None.
        seed: Seed of the whole audit.
        share: Share of the retained people each model is trained on, drawn anew per model;
            None: all for networks, 0.8 for heads, whose training draws nothing else.
    """

    model: TargetModel
    original: LabelledImages
    revised: LabelledImages
    people: NDArray[Any] = field(repr=False)
    method: str
    settings: Any | None = None
    seed: int = 0
    share: float | None = None

    def __post_init__(self) -> None:
        """Check shapes and the share.

        Raises:
            InvalidArgumentError: `people` has another length, or the share is not in (0, 1].
        """
        if len(self.people) != len(self.original):
            raise InvalidArgumentError(
                f"`people` must name one person per row, got {len(self.people)} for "
                f"{len(self.original)} rows. Read them with the rows."
            )
        if not 0 < self.shown_share <= 1:
            raise InvalidArgumentError(f"`share` must be in (0, 1], got {self.shown_share!r}.")

    @property
    def shown_share(self) -> float:
        """Share of the retained people each model is trained on."""
        if self.share is not None:
            return self.share
        return _HEAD_SHARE if self.model.kind == "head" else 1.0


@dataclass(frozen=True)
class Shadow:
    """One shadow model, its seed, and what making it cost."""

    role: Role
    seed: int
    model: TargetModel = field(repr=False)
    cost: Cost


@dataclass(frozen=True)
class Maker:
    """Makes shadow models, or finds them.

    Attributes:
        request: What they share.
        folder: Where they are kept; made when missing.
        progress: Called with stage, models done and models in all.
    """

    request: Request
    folder: Path
    progress: Callable[[str, int, int], None] = quiet

    def make(self, role: Role, n_models: int) -> tuple[Shadow, ...]:
        """Return shadow models of one role.

        Raises:
            OutputError: The folder cannot be written.
        """
        made = []
        self.progress(f"{role} models", 0, n_models)
        for k in range(n_models):
            made.append(self._one(role, k))
            self.progress(f"{role} models", k + 1, n_models)
        return tuple(made)

    def _one(self, role: Role, k: int) -> Shadow:
        request = self.request
        seed = request.seed + _FIRST_SEED[role] + k
        path = self.folder / f"{role}-{self._key(role, seed)}.safetensors"
        found = _load(path, request.model)
        if found is not None:
            return Shadow(role, seed, *found)
        start = self._one("original", k).model if role == "unlearned" else request.model
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint = path.with_suffix(".run.pt")
            result = unlearn(self._update(role, seed, start), watch=Watch(quiet, checkpoint))
            _save(path, result.model, result.cost)
            checkpoint.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:  # the latter where the disk is full
            raise OutputError(
                f"`--shadows` must be a folder you can write to, got {self.folder.name!r} "
                f"({getattr(error, 'strerror', None) or error}). Make room, or choose another "
                "place."
            ) from error
        return Shadow(role, seed, result.model, result.cost)

    def _update(self, role: Role, seed: int, start: TargetModel) -> UnlearnRequest:
        request = self.request
        retained = split_revised(request.revised, request.original).retain.row_ids
        seen = self._shown(seed, retained)
        original = request.original.take(seen(request.original.row_ids))
        if role == "original":
            # Retraining on data of which nothing is revised is training.
            nothing = np.zeros(len(original), dtype=np.bool_)
            rows, method = replace(original, revised=nothing), "retrain"
        else:
            rows = request.revised.take(seen(request.revised.row_ids))
            method = request.method if role == "unlearned" else "retrain"
        is_unlearned = role == "unlearned"
        return UnlearnRequest(
            start,
            rows,
            method,
            settings=request.settings if is_unlearned else None,
            open_original=(lambda: original) if is_unlearned else None,
            perturbation=self._perturbation(seed),
            seed=seed,
        )

    def _perturbation(self, seed: int) -> NDArray[np.float64] | None:
        """Return a shadow's own secret term, where the recipe has one."""
        model = self.request.model
        if model.record.recipe.perturbation_sd == 0:
            return None
        shape = model.module().get_parameter("weight").shape
        key = NoiseKey.from_seed(seed)
        return draw_perturbation(key, (shape[0], shape[1]), model.record.recipe.perturbation_sd)

    def _shown(
        self, seed: int, retained: NDArray[np.int64]
    ) -> Callable[[NDArray[np.int64]], NDArray[np.bool_]]:
        """Return row ids → which of them a model is trained on: all but some retained people's."""
        request = self.request
        is_retained = np.isin(request.original.row_ids, retained)
        names = np.unique(request.people[is_retained])
        n_hidden = len(names) - max(1, round(request.shown_share * len(names)))
        hidden = np.random.default_rng([7, seed]).permutation(names)[: max(n_hidden, 0)]
        left_out = is_retained & np.isin(request.people, hidden)
        return lambda ids: ~np.isin(ids, request.original.row_ids[left_out])

    def _key(self, role: Role, seed: int) -> str:
        request = self.request
        parts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "first_weights": module_digest(request.model.fresh(seed)),
            "recipe": asdict(request.model.record.recipe),
            "seed": seed,
            "share": request.shown_share,
            "versions": versions(),
            "retained": None,
        }
        if role in {"original", "unlearned"}:
            parts["original"] = request.original.digest()
        if request.shown_share < 1:
            parts["people"] = hashlib.sha256(
                json.dumps([str(name) for name in request.people]).encode()
            ).hexdigest()
            retained = split_revised(request.revised, request.original).retain.row_ids
            parts["retained"] = hashlib.sha256(retained.tobytes()).hexdigest()
        if role != "original":
            parts["revised"] = request.revised.digest()
        if role == "unlearned":
            settings = request.settings or load_method(request.method).Settings()
            parts |= {"method": request.method, "settings": asdict(settings)}
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _save(path: Path, model: TargetModel, cost: Cost) -> None:
    state = {name: value.contiguous() for name, value in model.module().state_dict().items()}
    metadata = {"cost": json.dumps(asdict(cost)), "format": "pt"}
    with whole_file(path) as draft:
        save_file(state, draft, metadata=metadata)


def _load(path: Path, like: TargetModel) -> tuple[TargetModel, Cost] | None:
    """Return a kept model; None where there is none, or a damaged one that is made again."""
    try:
        with safe_open(path, "pt") as file:
            cost = Cost(**json.loads(file.metadata()["cost"]))
        module = like.module()
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        return None
    return like.updated(module, replace(like.record, cost=cost)), cost
