"""Where a pipeline starts to denoise: exactly at one noise level, with one face in it.

A pipeline's own `strength` is rounded to its steps, and several pipelines show the model the whole
photo besides. Here the noise level is exact, and a face enters through its noised latents alone;
all else that the pipeline reads is the photo with the face filled. Knows schedulers, no faces.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TOO_SHORT = 0.25
"""A first step shorter than this share of the scheduled one is left out."""


def start_at(scheduler: Any, sigma: float) -> Tensor:
    """Cut a scheduler's steps to those from a noise level on.

    Args:
        scheduler: With its steps set, from pure noise.
        sigma: Standard deviation of the noise over that of clean latents, > 0.

    Returns:
        (n,) timesteps, n ≥ 1; the first belongs to `sigma` exactly, where the scheduler takes
        any noise level, else to the nearest that it takes.
    """
    timesteps = _STARTS[type(scheduler).__name__](scheduler, sigma)
    scheduler.timesteps = timesteps
    scheduler.num_inference_steps = len(timesteps)
    scheduler.set_begin_index(0)
    return timesteps


def _flow(scheduler: Any, sigma: float) -> Tensor:
    """Start where x = (1 − t) clean + t noise, so σ = t / (1 − t)."""
    time = sigma / (1 + sigma)
    times = scheduler.sigmas[:-1].to("cpu", torch.float64)
    times = torch.cat([torch.tensor([time], dtype=torch.float64), times[_below(times, time)]])
    times = times.to(scheduler.sigmas)
    scheduler.sigmas = torch.cat([times, times.new_zeros(1)])
    timesteps: Tensor = times * scheduler.config.num_train_timesteps
    return timesteps


def _euler(scheduler: Any, sigma: float) -> Tensor:
    """Start where x = clean + σ noise."""
    sigmas = scheduler.sigmas[:-1].to("cpu", torch.float64)
    kept = _below(sigmas, sigma)
    grid = _noise_levels(scheduler)
    first = float(np.interp(np.log(sigma), np.log(grid), np.arange(len(grid))))
    start = torch.tensor([sigma], dtype=torch.float64)
    levels = torch.cat([start, sigmas[kept]]).to(scheduler.sigmas)
    scheduler.sigmas = torch.cat([levels, levels.new_zeros(1)])
    before = scheduler.timesteps
    rest = before.cpu()[kept].to(before)
    return torch.cat([torch.tensor([first]).to(before), rest])


def _consistency(scheduler: Any, sigma: float) -> Tensor:
    """Start at the one of the steps it was trained at whose noise is nearest."""
    grid = _noise_levels(scheduler)
    first = int(np.abs(np.log(grid) - np.log(sigma)).argmin())
    before = scheduler.timesteps
    rest = before[_below(before.cpu(), first).to(before.device)]
    return torch.cat([before.new_tensor([first]), rest])


def _noise_levels(scheduler: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    kept = scheduler.alphas_cumprod.double().cpu().numpy()
    levels: np.ndarray[Any, np.dtype[np.float64]] = np.sqrt((1 - kept) / kept)
    return levels


def _below(levels: Tensor, start: float) -> Tensor:
    """Return which scheduled levels follow `start`, less a first one that is all but reached."""
    kept: Tensor = levels < start
    index = int(kept.int().argmax()) if bool(kept.any()) else 0
    if bool(kept.any()) and index > 0:
        before, after = float(levels[index - 1]), float(levels[index])
        if start - after < _TOO_SHORT * (before - after):
            kept[index] = False
    return kept


_STARTS: Mapping[str, Callable[[Any, float], Tensor]] = MappingProxyType(
    {
        "FlowMatchEulerDiscreteScheduler": _flow,
        "EulerDiscreteScheduler": _euler,
        "LCMScheduler": _consistency,
    }
)


@contextlib.contextmanager
def starting_at(
    pipeline: Any, sigma: float, faces: Sequence[Any], generators: Sequence[torch.Generator]
) -> Iterator[None]:
    """Let a pipeline's next call start from faces at one noise level.

    Args:
        pipeline: Of diffusers; its `get_timesteps` and `prepare_latents` are replaced for the
            time of the context.
        sigma: As in `start_at`.
        faces: One picture per face, of the size the pipeline paints.
        generators: The ones given to the call; the noise is the same as without this context.
    """
    prepare = pipeline.prepare_latents
    signature = inspect.signature(prepare)

    def get_timesteps(*_: object, **__: object) -> tuple[Tensor, int]:
        timesteps = start_at(pipeline.scheduler, sigma)
        return timesteps, len(timesteps)

    def prepare_latents(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named)
        filled = bound.arguments["image"]
        height, width = filled.shape[-2:]
        states = [generator.get_state() for generator in generators]
        bound.arguments["image"] = pipeline.image_processor.preprocess(
            list(faces), height=height, width=width
        )
        noised = prepare(*bound.args, **bound.kwargs)[0]
        # The filled photo with the same noise: what the model is shown and what is blended in.
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        return (noised, *prepare(*arguments, **named)[1:])

    pipeline.get_timesteps, pipeline.prepare_latents = get_timesteps, prepare_latents
    try:
        yield
    finally:
        del pipeline.get_timesteps, pipeline.prepare_latents
