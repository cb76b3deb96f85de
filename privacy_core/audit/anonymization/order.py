"""How well strength orders each face's distance to its original.

For a recogniser as it is, and for an adversary that was trained on variants. Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import spearmanr

from privacy_core.audit.anonymization.adversary import LinkingAdversary
from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.identity import Metrics
from privacy_core.audit.anonymization.learning import LearningConfig, Scale
from privacy_core.audit.estimates import Floats

FEW_STRENGTHS = "fewer than three strengths were measured"
_FEWEST = 3
_ORDERED_BELOW = 0.7


def order_of(
    originals: Floats, variants: Mapping[float, Floats], *, below: float = _ORDERED_BELOW
) -> Metrics:
    """Return how well strength orders each face's distance to its original.

    Args:
        originals: (n, d) embeddings.
        variants: Strength → (n, d) embeddings, all on one noise path per face.
        below: Strength up to which it is told apart, since from there on all are strangers.
    """
    strengths = np.array(sorted(variants))
    if len(strengths) < _FEWEST:
        return {"spearman": FEW_STRENGTHS}
    apart = np.stack([np.linalg.norm(variants[s] - originals, axis=1) for s in strengths], 1)

    def ranked(n: int) -> list[float]:
        return [spearmanr(strengths[:n], row[:n]).statistic for row in apart]

    of_all, steps = ranked(len(strengths)), strengths[1:]
    falls = (apart[:, 1:] < apart[:, :-1]).mean(0)
    found: Metrics = {
        "strengths": strengths.tolist(),
        "spearman_median": float(np.median(of_all)),
        "spearman_5th_percentile": float(np.quantile(of_all, 0.05)),
        "adjacent_violations": falls.tolist(),
    }
    n_low = int((strengths <= below).sum())
    if n_low >= _FEWEST:
        found[f"spearman_median_below_{below:g}"] = float(np.median(ranked(n_low)))
    for name, counted in (("below", steps <= below), ("above", steps > below)):
        if counted.any():
            found[f"adjacent_violations_{name}_{below:g}"] = float(falls[counted].mean())
    return found


@dataclass(frozen=True)
class Ladders:
    """What an adversary sees of faces at several strengths.

    Attributes:
        variants: Strength → (n, d) features, all on one noise path per face.
        originals: (n, e) features.
    """

    variants: Mapping[float, Floats] = field(repr=False)
    originals: Floats = field(repr=False)


def order_for_adversary(
    fitted: Ladders, tested: Ladders, people: Ints, *, learning: LearningConfig
) -> Metrics:
    """Return the order for one adversary that was trained on variants of all strengths at once.

    Adversaries of one strength each have no common scale of distances; this one has.

    Args:
        fitted: Who it is trained on; a pair may show one photo at two strengths.
        tested: Other people.
        people: Who is shown in `fitted`.
        learning: How it is trained.

    Raises:
        InvalidArgumentError: Too few people have two photos.
    """
    if len(fitted.variants) < _FEWEST:
        return {"spearman": FEW_STRENGTHS}
    shown = np.concatenate(list(fitted.variants.values()))
    of_variants, of_originals = Scale(shown), Scale(fitted.originals)
    n_strengths = len(fitted.variants)
    adversary = LinkingAdversary(learning).fit(
        of_variants(shown),
        of_originals(fitted.originals).repeat(n_strengths, 1),
        np.tile(people, n_strengths),
    )
    return order_of(
        adversary.embed_originals(of_originals(tested.originals)),
        {s: adversary.embed_variants(of_variants(rows)) for s, rows in tested.variants.items()},
    )
