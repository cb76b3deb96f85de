"""A linear map and a small network added to it: rows of numbers → rows of others.

Knows no picture, no loss and no training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """A linear map and, added to it, a network with one hidden layer that begins at zero.

    Args:
        n_in: Numbers per row, d.
        n_out: Numbers per row that come out, m.
        hidden: Hidden width.
        dropout: Share of hidden values and inputs dropped in training.
    """

    def __init__(self, n_in: int, n_out: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.hidden = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(n_in, hidden), nn.SiLU(), nn.Dropout(dropout)
        )
        self.last = nn.Linear(hidden, n_out)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @torch.no_grad()
    def begin_at(self, linear: Tensor) -> None:
        """Let the linear map be the (d, m) one given."""
        self.linear.weight.copy_(linear.T)
        self.linear.bias.zero_()

    def forward(self, rows: Tensor) -> Tensor:
        """Return (n, m) for (n, d) rows."""
        out: Tensor = self.linear(rows) + self.last(self.hidden(rows))
        return out
