"""Where a model runs and in which precision: chosen from the device, never from the photo.

Knows memory and number formats only; no model and no face.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from privacy_core.errors import ModelError

Offload = Literal["none", "model", "sequential"]
_GIB = 2.0**30
_ROOM = 1.25
"""Memory for the weights and for what is computed from them, over the weights alone."""
_LARGEST_PART = 0.6
"""Share of the weights in a pipeline's largest component, which alone is on the device at once."""
_LEAST_GB = 3.0
_TOO_LITTLE = ("out of memory", "not enough memory", "can't allocate memory")
"""How mps and cpu put it, whose errors have no kind of their own."""


@dataclass(frozen=True)
class Machine:
    """What a model can run on.

    Attributes:
        device: "cuda", "mps" or "cpu".
        memory_gb: Free memory of the device in GiB.
        has_bfloat16: Whether it computes in bfloat16.
    """

    device: str
    memory_gb: float
    has_bfloat16: bool

    @classmethod
    def here(cls) -> Machine:
        """Return the best device of this machine."""
        if torch.cuda.is_available():
            free, _ = torch.cuda.mem_get_info()
            return cls("cuda", free / _GIB, torch.cuda.is_bf16_supported())
        if torch.backends.mps.is_available():
            return cls("mps", torch.mps.recommended_max_memory() / _GIB, has_bfloat16=True)
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls("cpu", pages / _GIB, has_bfloat16=True)


@dataclass(frozen=True)
class Placement:
    """How a model is loaded.

    Attributes:
        device: Where it computes.
        dtype: Its precision.
        offload: What waits in main memory: nothing, all components but the one at work, or all
            layers but the one at work.
    """

    device: str
    dtype: torch.dtype
    offload: Offload


def place(machine: Machine, needed_gb: float, *, name: str) -> Placement:
    """Choose device, precision and offload.

    Args:
        machine: What there is.
        needed_gb: Gigabytes of the weights in 16 bits.
        name: Of the model, for messages.

    Raises:
        ModelError: It does not fit.
    """
    if machine.device == "cpu":
        return _on_cpu(machine, needed_gb, name)
    half = torch.bfloat16 if machine.has_bfloat16 else torch.float16
    if machine.memory_gb >= _ROOM * needed_gb:
        return Placement(machine.device, half, "none")
    if machine.device == "cuda" and machine.memory_gb >= _ROOM * _LARGEST_PART * needed_gb:
        return Placement("cuda", half, "model")
    if machine.device == "cuda" and machine.memory_gb >= _LEAST_GB:
        return Placement("cuda", half, "sequential")
    raise _too_small(machine, _LEAST_GB if machine.device == "cuda" else _ROOM * needed_gb, name)


def _on_cpu(machine: Machine, needed_gb: float, name: str) -> Placement:
    if machine.memory_gb >= _ROOM * 2 * needed_gb:
        return Placement("cpu", torch.float32, "none")
    if machine.memory_gb >= _ROOM * needed_gb:
        return Placement("cpu", torch.bfloat16, "none")
    raise _too_small(machine, _ROOM * needed_gb, name)


def _too_small(machine: Machine, least_gb: float, name: str) -> ModelError:
    return ModelError(
        f"`backend` {name} needs at least {least_gb:.0f} GB of free memory on {machine.device}, "
        f"got {machine.memory_gb:.1f} GB. Close other programs, or take a smaller backend: "
        "`python -m privacy_core backends` lists what each needs."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device had too little memory; each kind of device says so differently."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TOO_LITTLE)
