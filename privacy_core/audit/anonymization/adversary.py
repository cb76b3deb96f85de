"""The trained adversary: finds a person from a variant of one photo among originals of another.

A recogniser of two towers, one for variants and one for originals, begun from linear discriminants
and fine-tuned on pairs of people who are not tested. Knows features; no picture, no setting.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.learning import (
    LearningConfig,
    held_out,
    projection_at,
    ridge,
    train,
)
from privacy_core.audit.estimates import Floats
from privacy_core.errors import InvalidArgumentError

_MARGIN = 0.1
_TEMPERATURE = 0.08
_N_DISCRIMINANTS = 96
_SHRINKAGE = 0.1


class LinkingAdversary:
    """Two towers that put variants and originals of one person close together.

    Args:
        config: Training.
    """

    def __init__(self, config: LearningConfig | None = None) -> None:
        self.config = config or LearningConfig()

    def fit(self, variants: Tensor, originals: Tensor, people: Ints) -> LinkingAdversary:
        """Train on row-aligned variants and originals of the same photos.

        Args:
            variants: (n, d) features.
            originals: (n, e) features.
            people: (n,) who is shown; people with one photo only help the linear start.

        Raises:
            InvalidArgumentError: Fewer than two people have two photos.
        """
        out = held_out(people, seed=self.config.seed)
        fitted, left_out = _Pairs(people, np.flatnonzero(~out)), _Pairs(people, np.flatnonzero(out))
        if len(fitted.several) < 2:  # noqa: PLR2004
            raise InvalidArgumentError(
                "`people` must hold at least two with two photos each, got "
                f"{len(fitted.several)}. Leave the trained adversary out."
            )
        start = discriminants(originals[~out], people[~out])
        self.originals_ = projection_at(start, self.config)
        self.variants_ = projection_at(ridge(variants[~out], originals[~out] @ start), self.config)
        towers = nn.ModuleList([self.variants_, self.originals_])
        rows = np.random.default_rng(self.config.seed)

        def loss(_: torch.Generator) -> Tensor:
            probe, other = fitted.drawn(rows, self.config.batch)
            return self._loss(variants[probe], originals[other], _MARGIN)

        check = left_out if len(left_out.several) > 1 else fitted
        probe, other = check.drawn(np.random.default_rng(0), 10_000)
        self.validation_ = train(
            towers,
            loss,
            lambda: float(self._loss(variants[probe], originals[other], 0.0)),
            self.config,
        )
        return self

    @torch.inference_mode()
    def embed_variants(self, variants: Tensor) -> Floats:
        """Return (n, m) unit vectors."""
        return _unit(self.variants_(variants)).double().numpy()

    @torch.inference_mode()
    def embed_originals(self, originals: Tensor) -> Floats:
        """Return (n, m) unit vectors."""
        return _unit(self.originals_(originals)).double().numpy()

    def _loss(self, variants: Tensor, originals: Tensor, margin: float) -> Tensor:
        """Cross entropy over the batch of cosines, the true pair's less a margin."""
        cosines = _unit(self.variants_(variants)) @ _unit(self.originals_(originals)).T
        logits = (cosines - margin * torch.eye(len(cosines))) / _TEMPERATURE
        truth = torch.arange(len(cosines))
        both = nn.functional.cross_entropy(logits, truth) + nn.functional.cross_entropy(
            logits.T, truth
        )
        half: Tensor = both / 2
        return half


def discriminants(rows: Tensor, people: Ints, *, n_directions: int = _N_DISCRIMINANTS) -> Tensor:
    """Return (d, m) directions that tell people apart, whitened within people (Fisher 1936)."""
    x = rows.double()
    _, number, counts = np.unique(people, return_inverse=True, return_counts=True)
    owner = torch.from_numpy(number)
    sums = torch.zeros(len(counts), x.shape[1], dtype=torch.float64).index_add_(0, owner, x)
    means = sums / torch.from_numpy(counts)[:, None]
    within = x - means[owner]
    spread = within.T @ within / max(1, len(x) - len(counts))
    spread += _SHRINKAGE * x.var(0).mean() * torch.eye(x.shape[1], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(spread)
    white = vectors / values.sqrt()
    turned = (means - means.mean(0)) @ white
    _, axes = torch.linalg.eigh(turned.T @ turned)
    found: Tensor = white @ axes[:, -n_directions:]
    return found.float()


class _Pairs:
    """Rows of people with at least two photos, to draw a pair of each from."""

    def __init__(self, people: Ints, rows: Ints) -> None:
        found: dict[int, list[int]] = {}
        for row in rows:
            found.setdefault(int(people[row]), []).append(int(row))
        self.several = [np.array(own) for own in found.values() if len(own) > 1]

    def drawn(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Return rows of at most `n` different people: one photo, and another of the same."""
        chosen = rng.permutation(len(self.several))[:n]
        pairs = [rng.choice(self.several[i], 2, replace=False) for i in chosen]
        probe, other = np.array(pairs).T
        return torch.from_numpy(probe), torch.from_numpy(other)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = nn.functional.normalize(rows, dim=1)
    return unit
