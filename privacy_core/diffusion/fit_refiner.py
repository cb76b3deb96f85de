"""Fit the detail stage: a refiner against an adversary, with checkpoints to resume from.

Half of each batch are photos' codes with little noise, generated again: there the refiner learns
what the photo shows. The others are drawn at high noise: there an adversary (Goodfellow et al.
2014) judges. Knows examples; not where they come from, DATA or strength.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from privacy_core.diffusion.code import LinearCode, known_mask
from privacy_core.diffusion.denoiser import CodeDenoiser
from privacy_core.diffusion.fit_code import AlignedFaces, Report
from privacy_core.diffusion.refiner import Refiner, surrounded
from privacy_core.diffusion.refiner_examples import (
    RefinerExamples,
    RefinerFitConfig,
    draw_examples,
    sharpest,
)
from privacy_core.diffusion.training import average_in, rate_share
from privacy_core.wholefile import whole_file

_COARSE, _COARSE_WEIGHT = 8, 0.2
"""Pixels of the squares whose mean colours a drawn face is to keep, and what a change costs over
what it costs to miss a photo."""
_FAINT, _ABSENT = 0.1, 0.1
"""Shares of faces whose surroundings are told at a quarter, as where something is hidden, or not
at all."""
_MIRRORED = 0.5
_WARMUP_STEPS = 100


def fit_refiner(
    code: LinearCode,
    denoiser: CodeDenoiser,
    faces: AlignedFaces,
    *,
    config: RefinerFitConfig,
    folder: Path,
    report: Report,
) -> Refiner | None:
    """Fit a refiner to the sharpest of the faces; None where the settings ask for no step.

    Args:
        code: Fitted.
        denoiser: Fitted, in evaluation mode.
        faces: That the weights may see.
        config: Settings; a resumed run must have the same.
        folder: Where a killed run goes on.
        report: Progress.
    """
    if not config.n_steps:
        return None
    sharp = faces.take(sharpest(faces, config.sharpest))
    drawn = folder / "examples.pt"
    if not drawn.is_file():
        examples = draw_examples(code, denoiser, sharp, config=config, report=report)
        with whole_file(drawn) as draft:
            torch.save(vars(examples), draft)
    examples = RefinerExamples(**torch.load(drawn, weights_only=True))
    trainer = RefinerTrainer(code, sharp, examples, config=config, folder=folder)
    trainer.resume()
    return trainer.run(report=report)


class Critic(nn.Module):
    """Judges patches of pictures (Isola et al. 2017), with spectral norms (Miyato et al. 2018)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for one, other in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(one, other, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1)))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (n, 1, 8, 8): large where (n, 3, 128, 128) pictures look like photos."""
        judged: Tensor = self.layers(pictures)
        return judged


@dataclass(frozen=True)
class _Batch:
    """Faces of one step, (n, 3, 128, 128) in [-1, 1], in the surroundings that are told.

    Attributes:
        clean: Generated.
        relit: The same in another light, which the refiner is shown.
        target: Photos.
        paired: (n,) bool, whether the photo shows the generated face.
    """

    clean: Tensor
    relit: Tensor
    target: Tensor
    paired: Tensor


class RefinerTrainer:
    """One training run in a folder, with a checkpoint to resume from."""

    def __init__(
        self,
        code: LinearCode,
        faces: AlignedFaces,
        examples: RefinerExamples,
        *,
        config: RefinerFitConfig,
        folder: Path,
    ) -> None:
        self.code, self.faces, self.examples = code, faces, examples
        self.config, self.folder = config, folder
        torch.manual_seed(config.seed)
        self.refiner, self.critic = Refiner(config.sizes), Critic()
        self.average = {n: p.detach().clone() for n, p in self.refiner.named_parameters()}
        self.optimizers = [
            torch.optim.Adam(network.parameters(), config.learning_rate, (0.5, 0.99))
            for network in (self.refiner, self.critic)
        ]
        self.generator = torch.Generator().manual_seed(config.seed + 1)
        self.step_index = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """The file a killed run resumes from."""
        return self.folder / "refining.pt"

    def resume(self) -> bool:
        """Load the checkpoint of an earlier run with the same settings; False without one."""
        if not self.checkpoint.is_file():
            return False
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.refiner.load_state_dict(state["refiner"])
        self.critic.load_state_dict(state["critic"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.average = state["average"]
        self.generator.set_state(state["generator"])
        self.step_index, self.seconds = int(state["step"]), float(state["seconds"])
        return True

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "refiner": self.refiner.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "generator": self.generator.get_state(),
            "step": self.step_index,
            "seconds": self.seconds,
            "config": asdict(self.config),
        }
        with whole_file(self.checkpoint) as draft:
            torch.save(state, draft)

    def run(self, *, report: Report) -> Refiner:
        """Train to the end; return the refiner with averaged weights, in evaluation mode."""
        torch.set_num_threads(self.config.threads)
        saved = time.monotonic()
        while self.step_index < self.config.n_steps:
            started = time.monotonic()
            self._step()
            self.step_index += 1
            self.seconds += time.monotonic() - started
            report("refiner", self.step_index, self.config.n_steps)
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        self.save()
        refiner = Refiner(self.config.sizes)
        refiner.load_state_dict(self.average)
        return refiner.eval()

    def _step(self) -> None:
        config, step = self.config, self.step_index
        rate = config.learning_rate * rate_share(
            step, config.n_steps, warmup_steps=_WARMUP_STEPS, decay_share=config.decay_share
        )
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
        batch, mask = self._batch(), self.code.mask
        with torch.autocast("cpu", torch.bfloat16):
            refined = self.refiner(batch.relit)
        refined = torch.where(mask, refined.float(), batch.relit)
        loss = _likeness(refined, batch, mask)
        if step >= config.alone * config.n_steps:
            self._teach_critic(batch.target, refined.detach())
            with torch.autocast("cpu", torch.bfloat16):
                judged = self.critic(refined).float()
            loss = loss - config.adversary * judged.mean()
        self.optimizers[0].zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.refiner.parameters(), 1.0)
        self.optimizers[0].step()
        average_in(self.average, self.refiner, ema=config.ema, step=step)

    def _teach_critic(self, real: Tensor, generated: Tensor) -> None:
        """Take one step of the hinge loss (Lim & Ye 2017)."""
        with torch.autocast("cpu", torch.bfloat16):
            on_real, on_generated = self.critic(real).float(), self.critic(generated).float()
        loss = (1 - on_real).relu().mean() + (1 + on_generated).relu().mean()
        self.optimizers[1].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[1].step()

    def _batch(self) -> _Batch:
        half = self.config.batch_size // 2
        paired = self.examples.paired
        index = torch.cat(
            [self._some(paired, half), self._some(~paired, self.config.batch_size - half)]
        )
        part = self.faces.take(self.examples.photo[index].numpy())
        photos = torch.from_numpy(np.array(part.frames))
        context = self.code.context(photos, known_mask(part.quads))
        chance = torch.rand(len(index), 1, generator=self.generator)
        faint = torch.where(chance < _FAINT, 0.25, 1.0)
        context = context * torch.where(chance > 1 - _ABSENT, 0.0, faint)
        faces = self.code.decode(self.examples.codes[index].float())
        clean, target = (surrounded(self.code, f, context) for f in (faces, photos))
        # M is symmetric, so a mirrored face still fills it.
        if float(torch.rand(1, generator=self.generator)) < _MIRRORED:
            clean, target = clean.flip(3), target.flip(3)
        layout = {"memory_format": torch.channels_last}
        relit = torch.where(self.code.mask, self._relit(clean), clean)
        clean, relit, target = (one.contiguous(**layout) for one in (clean, relit, target))
        return _Batch(clean, relit, target, paired[index])

    def _some(self, among: Tensor, n: int) -> Tensor:
        places = torch.nonzero(among)[:, 0]
        return places[torch.randint(len(places), (n,), generator=self.generator)]

    def _relit(self, pictures: Tensor) -> Tensor:
        """Change brightness and colour of each picture as a whole, and in blotches."""
        n = len(pictures)

        def normal(*shape: int) -> Tensor:
            return torch.randn(n, *shape, generator=self.generator)

        gain, tint = 1 + 0.06 * normal(1, 1, 1), 1 + 0.02 * normal(3, 1, 1)
        blotches = functional.interpolate(
            0.04 * normal(1, 6, 6) + 0.015 * normal(3, 6, 6), pictures.shape[2:], mode="bicubic"
        )
        return ((pictures * gain + 0.04 * normal(1, 1, 1)) * tint + blotches).clamp(-1, 1)


def _likeness(refined: Tensor, batch: _Batch, mask: Tensor) -> Tensor:
    """Return how far the refined are from the photo, in pixels and edges, or in mean colours."""
    inside = mask.float()
    share, paired, drawn = inside.mean(), batch.paired, ~batch.paired
    difference = (refined - batch.target)[paired]
    pixels = (difference.abs() * inside).mean() / share
    for dim in (2, 3):
        pixels = pixels + 0.5 * difference.diff(dim=dim).abs().mean() / share
    change = functional.avg_pool2d((refined - batch.clean)[drawn], _COARSE)
    return pixels + _COARSE_WEIGHT * change.abs().mean() / share
