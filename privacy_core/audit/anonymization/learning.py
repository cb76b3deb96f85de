"""What every adversary shares: features put to scale, a small network, training that stops in time.

Knows arrays and losses; not what is attacked. Validation is on people left out of the training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.estimates import Floats
from privacy_core.projection import Projection

_HELD_OUT = 0.15
_FEWEST = 4


@dataclass(frozen=True)
class LearningConfig:
    """How an adversary is trained.

    Attributes:
        width: Hidden width.
        steps: At most.
        batch: Rows per step.
        learning_rate: The highest.
        dropout: Share of hidden values and inputs dropped.
        check_every: Steps between two looks at the people left out.
        seed: Seed of weights, batches and the choice of people.
    """

    width: int = 256
    steps: int = 240
    batch: int = 192
    learning_rate: float = 2e-3
    dropout: float = 0.2
    check_every: int = 30
    seed: int = 0


class Scale:
    """Features less their mean, over their spread, rare outliers cut.

    Args:
        rows: (n, d) training rows.
        n_components: Principal components to keep; all numbers as they are when None.
    """

    def __init__(self, rows: Floats, n_components: int | None = None) -> None:
        values = np.asarray(rows, np.float64)
        self._mean = values.mean(0)
        self._basis: Floats | None = None
        if n_components is not None:
            _, _, basis = np.linalg.svd(values - self._mean, full_matrices=False)
            self._basis = basis[:n_components]
        self._sd = np.maximum(self._turned(values).std(0), 1e-6)

    def __call__(self, rows: NDArray[np.floating]) -> Tensor:
        """Return (n, d) float32 features."""
        scaled = self._turned(np.asarray(rows, np.float64)) / self._sd
        return torch.from_numpy(np.clip(scaled, -6, 6)).float()

    def _turned(self, rows: Floats) -> Floats:
        turned: Floats = rows - self._mean
        if self._basis is not None:
            turned = turned @ self._basis.T
        return turned


def held_out(people: Ints, *, seed: int) -> NDArray[np.bool_]:
    """Return (n,) True for the rows of the people left out of the training."""
    who = np.unique(people)
    n = max(1, round(_HELD_OUT * len(who))) if len(who) >= _FEWEST else 0
    out = np.random.default_rng(seed).permutation(who)[:n]
    return np.isin(people, out)


def ridge(rows: Tensor, targets: Tensor, *, penalty: float = 0.1) -> Tensor:
    """Return the (d, m) map that minimises squared error plus a share of the rows' energy."""
    x, y = rows.double(), targets.double()
    gram = x.T @ x
    gram += penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(gram, x.T @ y)
    return solution.float()


def projection_at(start: Tensor, config: LearningConfig) -> Projection:
    """Return a projection, to be trained, that begins at a (d, m) linear map."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        projection = Projection(*start.shape, hidden=config.width, dropout=config.dropout)
    projection.begin_at(start)
    return projection


def train_on_rows(
    module: nn.Module,
    error: Callable[[Tensor], Tensor],
    out: NDArray[np.bool_],
    config: LearningConfig,
    *,
    chunk: int | None = None,
) -> float:
    """Train a module on rows drawn at random, and return its error on those left out.

    Args:
        module: All weights.
        error: Numbers of rows → their mean error.
        out: (n,) rows left out to validate on; where there are none, on all of them.
        config: Steps, batch and rates.
        chunk: Rows that are validated on at once, their errors averaged; all when None.
    """
    index = torch.from_numpy(np.flatnonzero(~out))
    left = torch.from_numpy(np.flatnonzero(out)) if out.any() else index

    def loss(generator: torch.Generator) -> Tensor:
        return error(index[torch.randint(len(index), (config.batch,), generator=generator)])

    def validate() -> float:
        return float(torch.stack([error(rows) for rows in left.split(chunk or len(left))]).mean())

    return train(module, loss, validate, config)


def train(
    module: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    validate: Callable[[], float],
    config: LearningConfig,
) -> float:
    """Train a module, keep it as it was when validation was best, and return that value.

    Where it begins counts too, so that training never makes an adversary weaker.

    Args:
        module: All weights.
        loss: Random generator → loss of one batch.
        validate: Smaller is better; called in evaluation mode.
        config: Steps and rates.
    """
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        module.parameters(), config.learning_rate, weight_decay=0.05, fused=True
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps
    )
    best, state = _checked(module, validate), _copy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for step in range(1, config.steps + 1):
            module.train()
            value = loss(generator)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            rates.step()
            if step % config.check_every == 0 and (now := _checked(module, validate)) < best:
                best, state = now, _copy(module)
    module.load_state_dict(state)
    module.eval()
    return best


def _checked(module: nn.Module, validate: Callable[[], float]) -> float:
    module.eval()
    with torch.inference_mode():
        return validate()


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
