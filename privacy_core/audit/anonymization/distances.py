"""From embeddings to numbers: threshold, verified, ranks, linkability, Fréchet distance.

Knows arrays; not what embedded them. Smaller distances are more alike. Rows of one person are drawn
together in every bootstrap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy_core.audit.estimates import (
    LEVEL,
    N_DRAWS,
    Estimate,
    Floats,
    interval,
    mean_over_people,
)
from privacy_core.calibrate import verification_threshold
from privacy_core.errors import InvalidArgumentError

Ints = NDArray[np.int64]
_PAIRS = 40_000
"""Pairs of strangers that an area under the curve is computed from at most."""


def distances(one: Floats, other: Floats) -> Floats:
    """Return the (n, m) Euclidean distances of (n, d) and (m, d) embeddings."""
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def check_strangers(people: Ints, *, false_accept_rate: float) -> int:
    """Return how many pairs of photos show two people.

    Raises:
        InvalidArgumentError: They are fewer than 10 / `false_accept_rate`, too few for a threshold.
    """
    _, counts = np.unique(people, return_counts=True)
    n_pairs = int((len(people) ** 2 - (counts**2).sum()) // 2)
    if n_pairs < 10 / false_accept_rate:
        raise InvalidArgumentError(
            f"`DATA` must give at least {10 / false_accept_rate:.0f} pairs of different people, "
            f"got {n_pairs} in the part that is tested. Use more people, or a higher "
            "false-accept rate."
        )
    return n_pairs


def threshold_of(originals: Floats, people: Ints, *, false_accept_rate: float) -> tuple[float, int]:
    """Return the distance below which that share of strangers' originals match, and the pairs.

    Raises:
        InvalidArgumentError: Fewer than 10 / `false_accept_rate` pairs of strangers.
    """
    check_strangers(people, false_accept_rate=false_accept_rate)
    return verification_threshold(originals, people, false_accept_rate=false_accept_rate)


def share_over_people(
    hits: NDArray[np.bool_ | np.floating], people: Ints, *, seed: int
) -> Estimate:
    """Return a share with an interval over people; where all rows agree, the exact binomial one.

    A bootstrap of nothing but misses would give [0, 0], which n people cannot show: none among n
    is compatible with a share of up to 1 − 0.025^(1/n) (Clopper & Pearson 1934).

    Args:
        hits: (n,) each in [0, 1].
        people: (n,) who is shown.
        seed: Seed of the bootstrap.
    """
    found = mean_over_people(hits, people, seed=seed)
    reach = 1 - ((1 - LEVEL) / 2) ** (1 / len(np.unique(people)))
    if not np.any(hits):
        return Estimate(0.0, 0.0, reach)
    if np.all(np.asarray(hits) == 1):
        return Estimate(1.0, 1 - reach, 1.0)
    return found


def ranks(probes: Floats, gallery: Floats, own: Ints) -> Ints:
    """Return how many gallery entries are at least as near as the probe's own, itself included.

    1 is a hit; a tie counts against the adversary, who would have to guess.

    Args:
        probes: (n, d).
        gallery: (m, d).
        own: (n,) each probe's own entry.
    """
    apart = distances(probes, gallery)
    true = apart[np.arange(len(probes)), own]
    return np.asarray((apart <= true[:, None]).sum(1), np.int64)


class WeightedAuc:
    """The chance that a positive distance is smaller than a negative one, ties half, for weights.

    Sorted once, since a bootstrap asks with hundreds of weights.

    Args:
        positive: (n,) distances of pairs that belong together.
        negative: (m,) distances of pairs that do not.
    """

    def __init__(self, positive: Floats, negative: Floats) -> None:
        self._order = np.argsort(negative, kind="stable")
        ordered = negative[self._order]
        self._below = np.searchsorted(ordered, positive, "left")
        self._at = np.searchsorted(ordered, positive, "right")

    def __call__(self, up: Floats, down: Floats) -> float:
        """Return the area for (n,) and (m,) weights, neither all zero."""
        total = np.concatenate([[0.0], np.cumsum(down[self._order])])
        wins = total[-1] - (total[self._below] + total[self._at]) / 2
        return float((wins * up).sum() / (up.sum() * total[-1]))


def linkability(one: Floats, other: Floats, *, seed: int, n_draws: int = N_DRAWS) -> Estimate:
    """Return the AUC of telling variants of one person's two photos from those of two people.

    Args:
        one: (n, d) variants of each person's first photo.
        other: (n, d) variants of the same people's second photos.
        seed: Seed of the pairs and of the bootstrap over people.
        n_draws: How often to resample.

    Raises:
        InvalidArgumentError: There are fewer than two people.
    """
    n = len(one)
    if n < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"Linking needs two photos of at least two people, got {n}. Leave the metric out."
        )
    rng = np.random.default_rng(seed)
    apart = distances(one, other)
    i, j = np.nonzero(~np.eye(n, dtype=bool))
    if len(i) > _PAIRS:
        kept = rng.choice(len(i), _PAIRS, replace=False)
        i, j = i[kept], j[kept]
    area = WeightedAuc(np.diag(apart), apart[i, j])
    value = area(np.ones(n), np.ones(len(i)))
    draws = []
    for _ in range(n_draws):
        times = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
        if (pairs := times[i] * times[j]).any():
            draws.append(area(times, pairs))
    return interval(value, draws)


def frechet_distance(one: Floats, other: Floats) -> float:
    """Return ‖m₁ − m₂‖² + tr(S₁ + S₂ − 2 (S₁ S₂)^½) of two samples (Dowson & Landau 1982).

    Args:
        one: (n, d), at least two rows.
        other: (m, d), at least two rows.

    Raises:
        InvalidArgumentError: One side has fewer than two rows.
    """
    if min(len(one), len(other)) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"Both sides must have at least two rows, got {len(one)} and {len(other)}. "
            "Leave the metric out."
        )
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    # tr (S₁ S₂)^½ from the symmetric S₁^½ S₂ S₁^½, which has the same eigenvalues.
    inner = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(inner, 0)).sum()
    mean = ((one.mean(0) - other.mean(0)) ** 2).sum()
    return float(mean + np.trace(first) + np.trace(second) - 2 * cross)


def frechet_over_people(
    originals: Floats, variants: Floats, people: Ints, *, seed: int, n_draws: int = 100
) -> Estimate:
    """Return the Fréchet distance with an interval over people drawn anew on both sides at once.

    A bootstrap of it is biased upwards, since a sample with repeats is poorer than the sample; the
    draws are shifted to lie around the value.
    """
    value = frechet_distance(originals, variants)
    _, number = np.unique(people, return_inverse=True)
    rows = [np.flatnonzero(number == k) for k in range(number.max() + 1)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        drawn = rng.integers(0, len(rows), len(rows))
        index = np.concatenate([rows[k] for k in drawn])
        if len(index) > 1:
            draws.append(frechet_distance(originals[index], variants[index]))
    centred = np.asarray(draws) - np.mean(draws) + value
    return interval(value, centred)
