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


class Reader(nn.Module):
    """A linear map and, added to it, a network with one hidden layer that begins at zero.

    Args:
        linear: (d, m) where the linear map begins.
        config: Width and dropout.
    """

    def __init__(self, linear: Tensor, config: LearningConfig) -> None:
        super().__init__()
        n_in, n_out = linear.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.linear = nn.Linear(n_in, n_out)
            self.hidden = nn.Sequential(
                nn.Dropout(config.dropout),
                nn.Linear(n_in, config.width),
                nn.SiLU(),
                nn.Dropout(config.dropout),
            )
            self.last = nn.Linear(config.width, n_out)
        with torch.no_grad():
            self.linear.weight.copy_(linear.T)
            self.linear.bias.zero_()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (n, m)."""
        out: Tensor = self.linear(rows) + self.last(self.hidden(rows))
        return out


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
    optimizer = torch.optim.AdamW(module.parameters(), config.learning_rate, weight_decay=0.05)
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
