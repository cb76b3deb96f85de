"""Who is recognised: self re-identification, cross-photo verification, ranks, linkability.

Knows embeddings of originals and variants and who is shown; not how they were made. A variant that
was withheld counts against the method in every share, as if it were recognised; distances and the
area under the curve have none for it and are of those released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.audit.anonymization.distances import (
    Ints,
    frechet_over_people,
    linkability,
    ranks,
    share_over_people,
    threshold_of,
)
from privacy_core.audit.estimates import Estimate, Floats, interval
from privacy_core.errors import InvalidArgumentError

Metrics = dict[str, Any]
ONE_PHOTO = "nobody tested has a second photo"
NOTHING = "too few variants were released"
_FEWEST = 10


@dataclass(frozen=True)
class Gallery:
    """Originals of the people tested, in one recogniser's embedding.

    Attributes:
        recogniser: Its name.
        embeddings: (n, d).
        people: (n,) who is shown.
        slots: (n,) which of the person's photos.
        threshold: Distance below which two photos are verified as one person.
        n_pairs: Pairs of strangers the threshold is from.
    """

    recogniser: str
    embeddings: Floats
    people: Ints
    slots: Ints
    threshold: float
    n_pairs: int

    @classmethod
    def of(
        cls, recogniser: str, embeddings: Floats, people: Ints, slots: Ints, *, rate: float
    ) -> Gallery:
        """Fix the threshold on the originals.

        Raises:
            InvalidArgumentError: There are too few pairs of strangers.
        """
        threshold, n_pairs = threshold_of(embeddings, people, false_accept_rate=rate)
        return cls(recogniser, embeddings, people, slots, threshold, n_pairs)

    def places(self) -> tuple[Ints, Ints]:
        """Return each photo that has another of its person, and the place of that other one."""
        where = {(p, s): i for i, (p, s) in enumerate(zip(self.people, self.slots, strict=True))}
        pairs = [
            (i, where[p, 1 - s])
            for (p, s), i in where.items()
            if s in (0, 1) and (p, 1 - s) in where
        ]
        found = np.array(pairs, np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]


def measure_identity(
    gallery: Gallery, variants: Floats, released: NDArray[np.bool_], *, seed: int
) -> Metrics:
    """Return every identity metric of one setting in one recogniser's distance.

    Args:
        gallery: The originals.
        variants: (n, d) one per original; rows that were not released are not read.
        released: (n,) False where the face failed and nothing was released.
        seed: Seed of the bootstraps.

    Returns:
        Metric → Estimate, or a sentence that says why it is absent.
    """
    people = gallery.people
    apart = np.linalg.norm(variants - gallery.embeddings, axis=1)
    verified = (apart < gallery.threshold) | ~released
    found: Metrics = {
        "self_reidentified": share_over_people(verified, people, seed=seed),
        "self_distance": median_over_people(apart[released], people[released], seed=seed)
        if released.any()
        else NOTHING,
        "self_rank_1": _self_rank(gallery, variants, released, seed),
    }
    found |= _across_photos(gallery, variants, released, seed)
    found["frechet"] = (
        frechet_over_people(
            gallery.embeddings[released], variants[released], people[released], seed=seed
        )
        if released.sum() > 1
        else NOTHING
    )
    return found


def _self_rank(
    gallery: Gallery, variants: Floats, released: NDArray[np.bool_], seed: int
) -> Estimate:
    """Return how often the exact original is found first among one photo of each person."""
    hits = np.ones(len(variants))
    for slot in np.unique(gallery.slots):
        index = np.flatnonzero(gallery.slots == slot)
        own = np.arange(len(index))
        hits[index] = ranks(variants[index], gallery.embeddings[index], own) == 1
    return share_over_people(np.where(released, hits, 1.0), gallery.people, seed=seed)


def _across_photos(
    gallery: Gallery, variants: Floats, released: NDArray[np.bool_], seed: int
) -> Metrics:
    names = ("cross_tar", "cross_rank_1", "cross_rank_5", "anonymity_set", "linkability_auc")
    probes, others = gallery.places()
    if len(probes) < 2:  # noqa: PLR2004
        return dict.fromkeys(names, ONE_PHOTO)
    people, out = gallery.people[probes], ~released[probes]
    apart = np.linalg.norm(variants[probes] - gallery.embeddings[others], axis=1)
    rank = np.zeros(len(probes), np.int64)
    for slot in (0, 1):
        mine = np.flatnonzero(gallery.slots[probes] == slot)
        rank[mine] = ranks(
            variants[probes[mine]], gallery.embeddings[others[mine]], np.arange(len(mine))
        )
    rank = np.where(out, 1, rank)
    first = probes[(gallery.slots[probes] == 0)]
    second = others[(gallery.slots[probes] == 0)]
    both = released[first] & released[second]
    found: Metrics = {
        "cross_tar": share_over_people((apart < gallery.threshold) | out, people, seed=seed),
        "cross_rank_1": share_over_people(rank == 1, people, seed=seed),
        "cross_rank_5": share_over_people(rank <= 5, people, seed=seed),  # noqa: PLR2004
        "anonymity_set": median_over_people(rank, people, seed=seed),
        "linkability_auc": linkability(variants[first[both]], variants[second[both]], seed=seed)
        if both.sum() > 1
        else NOTHING,
    }
    return found


def gallery_size(gallery: Gallery) -> int:
    """Return how many people a cross-photo search chooses from."""
    probes, _ = gallery.places()
    return len(np.unique(gallery.people[probes]))


def by_group(
    gallery: Gallery,
    variants: Floats,
    released: NDArray[np.bool_],
    groups: Mapping[str, NDArray[np.str_]],
    *,
    seed: int,
) -> dict[str, dict[str, Metrics]]:
    """Return verified shares by group: stratum → value → metric; small groups say why not.

    Args:
        gallery: The originals.
        variants: (n, d) one per original.
        released: (n,) False where nothing was released.
        groups: Stratum → (n,) value of each photo, "" where unknown.
        seed: Seed of the bootstraps.
    """
    apart = np.linalg.norm(variants - gallery.embeddings, axis=1)
    verified = (apart < gallery.threshold) | ~released
    probes, others = gallery.places()
    across = np.linalg.norm(variants[probes] - gallery.embeddings[others], axis=1)
    matched = (across < gallery.threshold) | ~released[probes]
    result: dict[str, dict[str, Metrics]] = {}
    for stratum, values in groups.items():
        result[stratum] = {}
        for value in np.unique(values[values != ""]):
            own, pair = values == value, values[probes] == value
            result[stratum][str(value)] = {
                "n_faces": int(own.sum()),
                "self_reidentified": _of_some(verified[own], gallery.people[own], seed),
                "cross_tar": _of_some(matched[pair], gallery.people[probes][pair], seed),
            }
    return result


def _of_some(hits: NDArray[np.bool_], people: Ints, seed: int) -> Estimate | str:
    if len(hits) < _FEWEST:
        return f"fewer than {_FEWEST} faces"
    return share_over_people(hits, people, seed=seed)


def of_originals(gallery: Gallery, *, seed: int) -> Metrics:
    """Return how well the recogniser knows the originals themselves, across photos."""
    everything = np.ones(len(gallery.people), dtype=np.bool_)
    found = _across_photos(gallery, gallery.embeddings, everything, seed)
    return {"threshold": gallery.threshold, "n_pairs": gallery.n_pairs, **found}


def median_over_people(
    values: NDArray[Any], people: Ints, *, seed: int, n_draws: int = 400
) -> Estimate:
    """Return a median over photos with an interval over people drawn anew.

    Raises:
        InvalidArgumentError: There are no values.
    """
    if len(values) == 0:
        raise InvalidArgumentError(
            "`values` must hold at least one value, got none. Leave the metric out."
        )
    _, number = np.unique(people, return_inverse=True)
    n, order = int(number.max()) + 1, np.argsort(values, kind="stable")
    ordered, owner = np.asarray(values, np.float64)[order], number[order]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        total = np.cumsum(rng.multinomial(n, np.full(n, 1 / n))[owner])
        draws.append(ordered[np.searchsorted(total, total[-1] / 2)])
    return interval(float(np.median(ordered)), draws)
