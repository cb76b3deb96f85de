"""Train the denoiser on codes: batches, loss, schedule, checkpoints that can be resumed.

Needs torch and numpy only, so that it also runs where nothing else is installed. Knows codes,
contexts and attribute tokens; not pixels, photos or where the data came from.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from privacy_core.diffusion.denoiser import KEEP_FACTOR, NULL, CodeDenoiser
from privacy_core.wholefile import whole_file

SIGMA_MAX = 20.0
"""Noise at which a code is as good as gone: pure noise starts here."""
_LOWEST = 0.003
_NORMAL_SHARE = 0.85
"""Share of ln σ drawn from the normal; the rest is uniform over the whole range."""
_PLAIN, _KEPT, _NO_POLICY = 0.5, 0.25, 0.25
"""Shares of groups left plain and kept (the rest is noisier), and of faces without any policy."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the denoiser is trained; saved beside the weights.

    Attributes:
        n_faces: Training faces to see, augmented copies counted each time.
        batch_size: Faces per step.
        learning_rate: Peak rate of AdamW.
        weight_decay: AdamW's.
        warmup_steps: Steps of linear warm-up.
        decay_share: Last share of the steps, over which the rate falls linearly to zero.
        ema: Decay of the averaged weights that are kept.
        log_sigma_mean, log_sigma_sd: ln σ ~ N(mean, sd²) for 85 % of the draws.
        independent_groups: Draw each group's noise level independently instead of by policy
            (synthetic people: an identity kept while all else is drawn anew).
        context_drop, attribute_drop: Share of contexts and of tokens replaced by null.
        validate_every: Faces between validations.
        patience: Validations without a new best after which training stops.
        checkpoint_minutes: Minutes between checkpoints.
        threads: torch threads.
        seed: Seed of every draw.
    """

    n_faces: int = 7_000_000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 300
    decay_share: float = 0.3
    ema: float = 0.999
    log_sigma_mean: float = -1.6
    log_sigma_sd: float = 1.7
    independent_groups: bool = False
    context_drop: float = 0.1
    attribute_drop: float = 0.5
    validate_every: int = 250_000
    patience: int = 8
    checkpoint_minutes: float = 5.0
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class CodeBatch:
    """Clean codes with their conditions.

    Attributes:
        codes: (n, K).
        context: (n, n_context), rows of NaN where unknown.
        attributes: (n, 5) int64 tokens.
    """

    codes: Tensor
    context: Tensor
    attributes: Tensor

    def take(self, index: Tensor) -> CodeBatch:
        """Return the rows at `index`, in float32."""
        return CodeBatch(
            self.codes[index].float(), self.context[index].float(), self.attributes[index]
        )


@dataclass(frozen=True)
class Noise:
    """Noise levels: σ (n,), σ per attribute group (n, G), and per coordinate (n, K)."""

    sigma: Tensor
    group_sigma: Tensor
    per_coordinate: Tensor


def draw_noise(
    model: CodeDenoiser, n: int, config: TrainingConfig, generator: torch.Generator
) -> Noise:
    """Draw noise levels; each group is plain, kept (σ/4), noisier, or independent."""
    n_groups = len(model.sizes.groups)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    low, high = math.log(_LOWEST), math.log(1.25 * SIGMA_MAX)

    def log_level(*shape: int) -> Tensor:
        normal = torch.randn(*shape, generator=generator) * config.log_sigma_sd
        wide = low + (high - low) * uniform(*shape)
        level = torch.where(uniform(*shape) < _NORMAL_SHARE, normal + config.log_sigma_mean, wide)
        return level.clamp(low, high)

    log_sigma = log_level(n)
    plain = log_sigma[:, None].expand(n, n_groups)
    noisier = plain + (high - plain) * uniform(n, n_groups)
    if config.independent_groups:
        noisier = log_level(n, n_groups)
    choice = uniform(n, n_groups)
    kept = noisier if config.independent_groups else plain - math.log(KEEP_FACTOR)
    group = torch.where(choice < _PLAIN, plain, torch.where(choice < _PLAIN + _KEPT, kept, noisier))
    group = torch.where(uniform(n, 1) < _NO_POLICY, plain, group)
    levels = torch.cat([log_sigma[:, None], group], 1).exp()
    return Noise(levels[:, 0], levels[:, 1:], model.per_coordinate(levels))


def denoising_loss(
    model: CodeDenoiser,
    batch: CodeBatch,
    weight: Tensor,
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    drop: bool,
) -> Tensor:
    """Return EDM's weighted squared error, one where the network predicts nothing.

    Args:
        model: D.
        batch: Clean codes and their conditions.
        weight: (K,) importance of each coordinate, mean one.
        config: Noise levels and shares of null.
        generator: Source of every draw.
        drop: Replace contexts and tokens by null at random (training).
    """
    n = len(batch.codes)
    noise = draw_noise(model, n, config, generator)
    context, attributes = batch.context, batch.attributes
    if drop:
        gone = torch.rand(n, 1, generator=generator) < config.context_drop
        context = torch.where(gone, torch.nan, context)
        keep = torch.rand(attributes.shape, generator=generator) >= config.attribute_drop
        attributes = torch.where(keep, attributes, NULL)
    normal = torch.randn(batch.codes.shape, generator=generator)
    y = batch.codes + noise.per_coordinate * normal
    estimate = model(y, noise.sigma, noise.group_sigma, context, attributes)
    scale = 1 / noise.per_coordinate**2 + 1 / model.sd**2  # 1 / c_out²
    loss: Tensor = (weight * scale * (estimate - batch.codes) ** 2).mean()
    return loss


def rate_share(step: int, n_steps: int, *, warmup_steps: int, decay_share: float) -> float:
    """Return the share of the peak rate at a step: up, level, and down to zero at the end."""
    decay = (n_steps - step) / (decay_share * n_steps)
    return min(1.0, (step + 1) / warmup_steps, decay)


@torch.no_grad()
def average_in(average: Mapping[str, Tensor], module: nn.Module, *, ema: float, step: int) -> None:
    """Move averaged weights towards a module's, faster than `ema` says in the first steps."""
    momentum = min(ema, (1 + step) / (10 + step))
    for name, parameter in module.named_parameters():
        average[name].lerp_(parameter, 1 - momentum)


class Trainer:
    """One training run in a folder: `step`s, validations, a log, a checkpoint to resume from."""

    def __init__(
        self,
        model: CodeDenoiser,
        train: CodeBatch,
        validation: CodeBatch,
        weight: Tensor,
        *,
        config: TrainingConfig,
        folder: Path,
    ) -> None:
        self.model, self.train, self.validation, self.weight = model, train, validation, weight
        self.config, self.folder = config, folder
        self.total_steps = max(1, config.n_faces // config.batch_size)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=config.weight_decay
        )
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.step_index = 0
        self.seconds = 0.0
        self.best: tuple[float, int] = (math.inf, 0)
        self.log: list[dict[str, float]] = []

    @property
    def checkpoint(self) -> Path:
        """The file a killed run resumes from."""
        return self.folder / "training.pt"

    def resume(self) -> bool:
        """Load the checkpoint of an earlier run with the same settings; False without one."""
        if not self.checkpoint.is_file():
            return False
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["dropout"])
        self.step_index, self.seconds = int(state["step"]), float(state["seconds"])
        self.best = (float(state["best"][0]), int(state["best"][1]))
        self.log = state["log"]
        return True

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "generator": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
            "step": self.step_index,
            "seconds": self.seconds,
            "best": self.best,
            "log": self.log,
            "config": asdict(self.config),
        }
        with whole_file(self.checkpoint) as draft:
            torch.save(state, draft)

    def run(self, *, report: Callable[[dict[str, float]], None]) -> dict[str, Tensor]:
        """Train to the end or until validation stops improving; return the best weights."""
        torch.set_num_threads(self.config.threads)
        saved = time.monotonic()
        every = max(1, self.config.validate_every // self.config.batch_size)
        running = 0.0
        while self.step_index < self.total_steps:
            started = time.monotonic()
            running += self._step()
            self.step_index += 1
            self.seconds += time.monotonic() - started
            if self.step_index % every == 0 or self.step_index == self.total_steps:
                self._validate(running / every, report)
                running = 0.0
                if self.step_index - self.best[1] >= self.config.patience * every:
                    break
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        self.save()
        best: dict[str, Tensor] = torch.load(self.folder / "best.pt", weights_only=True)
        return best

    def _step(self) -> float:
        step, config = self.step_index, self.config
        rate = config.learning_rate * rate_share(
            step, self.total_steps, warmup_steps=config.warmup_steps, decay_share=config.decay_share
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        index = torch.randint(len(self.train.codes), (config.batch_size,), generator=self.generator)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = denoising_loss(
                self.model, self.train.take(index), self.weight, config, self.generator, drop=True
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        average_in(self.average, self.model, ema=config.ema, step=step)
        return float(loss.detach())

    @torch.no_grad()
    def _validate(self, train_loss: float, report: Callable[[dict[str, float]], None]) -> None:
        current = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.load_state_dict(self.average, strict=False)
        self.model.eval()
        generator = torch.Generator().manual_seed(1)
        losses = []
        for start in range(0, len(self.validation.codes), 1024):
            index = torch.arange(start, min(start + 1024, len(self.validation.codes)))
            with torch.autocast("cpu", torch.bfloat16):
                loss = denoising_loss(
                    self.model, self.validation.take(index), self.weight, self.config, generator,
                    drop=False,
                )  # fmt: skip
            losses.append((float(loss), len(index)))
        self.model.load_state_dict(current, strict=False)
        value = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
        if value < self.best[0]:
            self.best = (value, self.step_index)
            with whole_file(self.folder / "best.pt") as draft:
                torch.save(self.average, draft)
        faces = self.step_index * self.config.batch_size
        row = {
            "faces": faces, "train_loss": train_loss, "validation_loss": value,
            "seconds": self.seconds,
        }  # fmt: skip
        self.log.append(row)
        with (self.folder / "loss.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        report(row)
