"""A step of training on several processes: each reads its part of a batch, all take the same step.

The parts' logits are put together before a loss is taken, so that any loss of logits means what it
means in one process, and batch norm counts over all parts. Knows no loss, no loop and no files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from privacy_core.crew import Crew


class Shared(nn.Module):
    """A module whose rows are shared out among processes, which call it all with the same rows.

    A loss may read nothing of the module but its logits.

    Args:
        module: Rows → logits.
        crew: The processes.
    """

    def __init__(self, module: nn.Module, crew: Crew) -> None:
        super().__init__()
        self.module, self._crew = module, crew

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of all rows."""
        bounds = [len(x) * rank // self._crew.size for rank in range(self._crew.size + 1)]
        mine = slice(*bounds[self._crew.rank : self._crew.rank + 2])
        return _applied(_Together, self.module(x[mine]), mine, len(x), self._crew)


def share_weights(module: nn.Module, crew: Crew) -> None:
    """Give every process the first one's weights and buffers."""
    for value in module.state_dict().values():
        crew.take_from_first(value)


def sum_gradients(module: nn.Module, crew: Crew) -> None:
    """Add up what each process's rows say: one exchange for all weights."""
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    crew.sum_up(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def shared_norms(module: nn.Module, crew: Crew) -> Iterator[None]:
    """Let batch norm count over all processes' rows while it is in training mode."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.forward = partial(_normalised, norm, crew)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Together(torch.autograd.Function):
    """This process's logits → all of them; a gradient goes back to the rows it belongs to."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, place: slice, n: int, crew: Crew) -> Tensor:
        ctx.place = place
        whole = mine.new_zeros((n, *mine.shape[1:]))
        whole[place] = mine
        crew.sum_up(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0][ctx.place], None, None, None


class _Scaled(torch.autograd.Function):
    """Rows → rows of mean 0 and variance 1 over all processes, which its gradient knows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, per_sd: Tensor, n: float, crew: Crew) -> Tensor:
        scaled = (x - _wide(mean, x)) * _wide(per_sd, x)
        ctx.save_for_backward(scaled, per_sd)
        ctx.n, ctx.crew = n, crew
        return scaled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (scaled, per_sd), gradient = ctx.saved_tensors, gradients[0]
        over = _all_but_channels(scaled)
        sums = torch.stack(
            [gradient.double().sum(over), (gradient.double() * scaled.double()).sum(over)]
        )
        ctx.crew.sum_up(sums)
        level, slope = (sums / ctx.n).to(scaled.dtype)
        inner = gradient - _wide(level, scaled) - scaled * _wide(slope, scaled)
        return _wide(per_sd, scaled) * inner, None, None, None, None


def _normalised(norm: nn.modules.batchnorm._BatchNorm, crew: Crew, x: Tensor) -> Tensor:
    """Return what `norm` makes of the rows of this process, given those of all."""
    if not norm.training:
        return type(norm).forward(norm, x)
    mean, variance, n = _statistics(x.detach(), crew)
    seen = norm.num_batches_tracked
    if norm.running_mean is not None and norm.running_var is not None and seen is not None:
        seen.add_(1)
        momentum = 1 / float(seen) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (n / max(n - 1, 1)), momentum)
    scaled = _applied(_Scaled, x, mean, (variance + norm.eps).rsqrt(), n, crew)
    return scaled * _wide(norm.weight, x) + _wide(norm.bias, x) if norm.affine else scaled


def _applied(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    out: Tensor = function.apply(*arguments)
    return out


def _statistics(x: Tensor, crew: Crew) -> tuple[Tensor, Tensor, float]:
    """Return mean and variance of each channel over all processes, and of how many numbers."""
    over, wide = _all_but_channels(x), x.double()
    sums = torch.cat([wide.sum(over), wide.new_tensor([x.numel() / x.shape[1]])])
    crew.sum_up(sums)
    n = float(sums[-1])
    mean = sums[:-1] / n
    squares = (wide - _wide(mean, x)).square().sum(over)
    crew.sum_up(squares)
    return mean.to(x.dtype), (squares / n).to(x.dtype), n


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    return channels.reshape(1, -1, *[1] * (x.ndim - 2))
