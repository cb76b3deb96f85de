"""Joins the processes that a launcher (`accelerate launch`, `torchrun`) started for one command.

Knows the variables such launchers set, which are given; no command and no data.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

_PATIENCE = timedelta(days=365)
"""A process may be done long before the slowest; whoever fails ends the others at once."""


def size_of(environment: Mapping[str, str]) -> int:
    """Return how many processes were started together.

    Raises:
        InvalidArgumentError: The launcher said nothing usable.
    """
    size = environment.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise InvalidArgumentError(
            f"WORLD_SIZE must be the number of processes, got {size!r}. Unset it, or start with "
            "`accelerate launch`."
        )
    return int(size)


@contextlib.contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[Crew]:
    """Join the other processes, if any, for the time of the context.

    Raises:
        OutputError: Another process ended before its work was done.
    """
    if size_of(environment) == 1:
        yield Crew()
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # gloo: what is exchanged lies in the memory of processors.
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Crew(
            distributed.get_rank(),
            distributed.get_world_size(),
            _together(distributed.barrier),
            _together(distributed.all_reduce),
        )
    finally:
        distributed.destroy_process_group()


def _together(act: Callable[..., object]) -> Callable[..., None]:
    """Return what all processes do at once, with a sentence for where one of them is gone."""

    def acted(*numbers: Tensor) -> None:
        try:
            act(*numbers)
        except RuntimeError as error:
            raise OutputError(
                "Another process of this run ended early; what it said comes before or after "
                "this. Then go on by the same command, `revise` with `--resume`."
            ) from error

    return acted
