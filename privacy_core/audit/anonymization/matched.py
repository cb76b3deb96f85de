"""The worst case: someone who has the exact original photo and inverts the generator to y.

Knows what is noised, its radius and σ; compares what is found with what μ allows. Without noise
there is no y, and only the picture's own code can be compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from privacy_core.audit.anonymization.distances import Ints, ranks, share_over_people
from privacy_core.audit.anonymization.identity import Metrics
from privacy_core.audit.estimates import Floats
from privacy_core.privacy import matched_filter_tpr

FALSE_POSITIVE_RATE = 1e-3
_STRANGERS = 20


def measure_matched_filter(
    clipped: Floats, people: Ints, slots: Ints, *, sigma: float, radius: float, seed: int
) -> Metrics:
    """Draw y = c + σ n anew and return how often the exact original is told from others.

    Args:
        clipped: (n, K') what of the originals is noised: clipped codes and kept attributes.
        people: (n,) who is shown.
        slots: (n,) which photo: the gallery holds one of each person.
        sigma: Standard deviation of the noise; 0 adds none, ∞ leaves pure noise.
        radius: The largest norm that what is noised can have.
        seed: Seed of noise and bootstraps.

    Returns:
        `rank_1` in the gallery; `pair_tpr` of the best test between the original and another at
        FPR 1e-3; `pair_tpr_expected` by theory for these codes; `pair_tpr_allowed` by μ alone.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=clipped.shape)
    is_pure = np.isinf(sigma)
    y = noise if is_pure else clipped + sigma * noise
    hits = np.zeros(len(y))
    for slot in np.unique(slots):
        index = np.flatnonzero(slots == slot)
        hits[index] = ranks(y[index], clipped[index], np.arange(len(index))) == 1
    found: Metrics = {
        "rank_1": share_over_people(hits, people, seed=seed),
        "pair_tpr_allowed": matched_filter_tpr(2 * radius, sigma, fpr=FALSE_POSITIVE_RATE),
    }
    if is_pure or sigma == 0:
        return found
    return found | _pairs(clipped, y, people, sigma, rng, seed)


def _pairs(
    codes: Floats, y: Floats, people: Ints, sigma: float, rng: np.random.Generator, seed: int
) -> Metrics:
    limit = -float(ndtri(FALSE_POSITIVE_RATE))
    detected, expected = np.zeros(len(codes)), np.zeros(len(codes))
    for i in range(len(codes)):
        strangers = np.flatnonzero(people != people[i])
        chosen = rng.choice(strangers, min(_STRANGERS, len(strangers)), replace=False)
        away = codes[i] - codes[chosen]
        length = np.linalg.norm(away, axis=1)
        # Under "it is the other one" the projection is N(0, σ²) from the other's code.
        score = ((y[i] - codes[chosen]) * away).sum(1) / (length * sigma)
        detected[i] = (score > limit).mean()
        tprs = [matched_filter_tpr(float(d), sigma, fpr=FALSE_POSITIVE_RATE) for d in length]
        expected[i] = np.mean(tprs)
    return {
        "pair_tpr": share_over_people(detected, people, seed=seed),
        "pair_tpr_expected": float(expected.mean()),
    }


def picture_rank_1(
    originals: Floats, variants: Floats, people: Ints, slots: Ints,
    *, released: NDArray[np.bool_], seed: int,
) -> Metrics:  # fmt: skip
    """Return how often the exact original's code is the nearest to the variant's own.

    Each code is centred on the mean of its own side first, as anyone who holds many variants can. A
    face that was withheld counts as found.
    """
    one = originals - originals.mean(0)
    other = variants - variants[released].mean(0) if released.any() else variants
    hits = np.zeros(len(one))
    for slot in np.unique(slots):
        index = np.flatnonzero(slots == slot)
        # Cosines: a variant that was shrunk or noised has another length.
        own, theirs = _unit(other[index]), _unit(one[index])
        hits[index] = ranks(own, theirs, np.arange(len(index))) == 1
    return {
        "rank_1_from_picture": share_over_people(np.where(released, hits, 1.0), people, seed=seed)
    }


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))
