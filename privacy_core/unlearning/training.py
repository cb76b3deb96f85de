"""The one training loop: epochs of passes over rows, deterministic for a seed, resumable, costed.

Knows tensors and a module that returns logits; not pictures on disk, forgetting or revisions: what
is minimised comes in as a loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.crew import Crew
from privacy_core.errors import OutputError
from privacy_core.unlearning.parallel import (
    Shared,
    share_weights,
    shared_norms,
    sum_gradients,
)
from privacy_core.unlearning.schedule import LoopSettings, learning_rate, optimizer_of
from privacy_core.unlearning.tensors import Rows, flip_and_shift, module_digest, split_evenly
from privacy_core.wholefile import whole_file

_RANK_BITS = 40


@dataclass(frozen=True)
class Moment:
    """Where the loop is: epoch from 0, share of all steps done in [0, 1), source of draws."""

    epoch: int
    progress: float
    generator: torch.Generator


Loss = Callable[[nn.Module, Rows, Moment], Tensor]
"""What one step minimises: module, batch and moment → a scalar."""


@dataclass(frozen=True)
class Pass:
    """One pass over rows with one loss; several may make an epoch."""

    rows: Rows
    loss: Loss
    batch_size: int | None = None


@dataclass(frozen=True)
class Cost:
    """What an update cost, evaluation and checkpoints left out.

    Attributes:
        seconds: Process time, so that a busy machine does not count; of all processes together.
        gradient_evaluations: Rows whose gradient was taken, counted each time.
    """

    seconds: float = 0.0
    gradient_evaluations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds, self.gradient_evaluations + other.gradient_evaluations
        )


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Watch:
    """Who is told of the progress, and where an interrupted run is kept.

    Attributes:
        progress: Called with stage, steps done and steps in all.
        checkpoint: File to resume from, None to keep none.
        identity: What the run depends on beside settings, first weights and rows, in words.
        crew: The processes that train together, each with the same rows.
    """

    progress: Callable[[str, int, int], None] = quiet
    checkpoint: Path | None = None
    identity: str = ""
    crew: Crew = field(default_factory=Crew)


@dataclass(frozen=True)
class Hooks:
    """What a method does around a step.

    Attributes:
        edit_gradients: Called after backward with the module and the moment.
        after_step: Called after the optimizer's step with the module.
        keep_epochs: Return the weights after every epoch.
    """

    edit_gradients: Callable[[nn.Module, Moment], None] | None = None
    after_step: Callable[[nn.Module], None] | None = None
    keep_epochs: bool = False


@dataclass(frozen=True)
class LoopResult:
    """What a run cost, and the weights after each epoch where they were asked for."""

    cost: Cost
    epochs: tuple[dict[str, Tensor], ...] = field(default=(), repr=False)


def cross_entropy(module: nn.Module, batch: Rows, _moment: Moment | None = None) -> Tensor:
    """Return the mean cross entropy of a batch."""
    return functional.cross_entropy(module(batch.x), batch.y)


def run_loop(
    module: nn.Module,
    passes: Callable[[int], Sequence[Pass]],
    settings: LoopSettings,
    *,
    hooks: Hooks | None = None,
    watch: Watch | None = None,
    stage: str = "training",
) -> LoopResult:
    """Update `module` in place, in training mode, and leave it in evaluation mode.

    The same module, rows, settings and passes give the same weights to the bit on one machine,
    also when a run is killed and started again with the same `watch.checkpoint`. Several processes
    give those of one up to rounding; a network with dropout drops other values in each.

    Args:
        module: Inputs → logits.
        passes: Epoch → its passes.
        settings: How weights are updated.
        hooks: What a method does around a step.
        watch: Progress and checkpoint; a checkpoint of another run is not touched by resuming.
        stage: What the progress is called.
    """
    run = _Run(module, passes, settings, hooks or Hooks(), watch or Watch(), stage)
    run.resume()
    with run.together():
        while run.epoch < settings.epochs:
            run.one_epoch()
            run.save()
            run.watch.progress(stage, run.step, run.total_steps)
    module.eval()
    return LoopResult(run.cost, tuple(run.kept))


class _Run:
    def __init__(
        self,
        module: nn.Module,
        passes: Callable[[int], Sequence[Pass]],
        settings: LoopSettings,
        hooks: Hooks,
        watch: Watch,
        stage: str,
    ) -> None:
        self.module, self.passes, self.settings = module, passes, settings
        self.hooks, self.watch, self.stage = hooks, watch, stage
        self.optimizer = optimizer_of(module, settings)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.total_steps = sum(
            math.ceil(len(one.rows) / (one.batch_size or settings.batch_size))
            for epoch in range(settings.epochs)
            for one in passes(epoch)
        )
        self.epoch, self.step, self.cost = 0, 0, Cost()
        self.kept: list[dict[str, Tensor]] = []
        self.identity = self._identity() if watch.checkpoint else ""
        self.crew = watch.crew
        self.callable = module if self.crew.size == 1 else Shared(module, self.crew)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Begin where the first process is, and count batch norm's statistics over all rows."""
        if self.crew.size == 1:
            yield
            return
        where = torch.tensor([float(self.step)])
        self.crew.sum_up(where)
        if where.item() != self.crew.size * self.step:
            raise OutputError(
                "The place to write must be one folder that all processes see, got a checkpoint "
                "in some only. Use a shared disk, and run the same again."
            )
        share_weights(self.module, self.crew)
        with shared_norms(self.module, self.crew):
            yield

    def one_epoch(self) -> None:
        # Dropout draws from the global generator: seeded here per epoch, put back afterwards.
        with torch.random.fork_rng(devices=[]):
            # Other rows of a batch are to lose other values.
            torch.manual_seed(
                self.settings.seed * 1_000_003 + self.epoch + (self.crew.rank << _RANK_BITS)
            )
            used, n_rows = torch.zeros(1, dtype=torch.float64), 0
            for one in self.passes(self.epoch):
                order = torch.randperm(len(one.rows), generator=self.generator)
                size = one.batch_size or self.settings.batch_size
                for index in split_evenly(order, size):
                    started = time.process_time()
                    self._step(one, index)
                    used += time.process_time() - started
                    n_rows += len(index)
        self.crew.sum_up(used)
        self.cost += Cost(used.item(), n_rows)
        self.epoch += 1
        if self.hooks.keep_epochs:
            self.kept.append({k: v.detach().clone() for k, v in self.module.state_dict().items()})

    def _step(self, one: Pass, index: Tensor) -> None:
        self.module.train()
        moment = Moment(self.epoch, self.step / self.total_steps, self.generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step, self.total_steps)
        batch = one.rows.take(index)
        if self.settings.augmentation != "none":
            batch = replace(batch, x=flip_and_shift(batch.x, self.generator))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(one.loss(self.callable, batch, moment))
        if self.crew.size > 1:
            sum_gradients(self.module, self.crew)
        if self.hooks.edit_gradients:
            self.hooks.edit_gradients(self.module, moment)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()
        if self.hooks.after_step:
            self.hooks.after_step(self.module)
        self.step += 1

    def save(self) -> None:
        path = self.watch.checkpoint
        if path is None or not self.crew.is_first:
            return
        state = {
            "identity": self.identity,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "step": self.step,
            "cost": asdict(self.cost),
            "kept": self.kept,
        }
        try:
            with whole_file(path) as draft:
                torch.save(state, draft)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
            raise OutputError(
                f"The checkpoint {path.name!r} cannot be written ({type(error).__name__}). Make "
                "room, and run the same again."
            ) from error

    def resume(self) -> None:
        path = self.watch.checkpoint
        if path is None or not path.is_file():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["identity"] != self.identity:
            return
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.cost, self.kept = Cost(**state["cost"]), state["kept"]

    def _identity(self) -> str:
        """Return what tells this run from every other: settings, first weights, first rows."""
        # A run that kept no epochs cannot go on as one that returns all of them.
        keeps = self.hooks.keep_epochs
        total = hashlib.sha256(
            json.dumps([self.watch.identity, self.stage, asdict(self.settings), keeps]).encode()
        )
        total.update(module_digest(self.module).encode())
        for one in self.passes(0):
            for part in (one.rows.x, one.rows.y):
                total.update(part.contiguous().numpy().tobytes())
        return total.hexdigest()
