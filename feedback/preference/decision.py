"""When to stop asking, and what strength to use: the decision handed to the rest; knows no rows.

Showing someone too recognisably costs more than changing them too much, so the decision is a high
quantile of what is believed, never below the model's privacy floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from feedback.columns import ConsentScope
from feedback.errors import InvalidRatingError
from feedback.preference.belief import Belief
from feedback.preference.posterior import Posterior

SETTLED_SD = 0.06
SETTLED_ANSWERS = 3
OWN_SD = 0.10
OWN_ANSWERS = 4
_USUAL_PACE = 33.0
"""What an answer usually adds to 1/variance."""
_PACE_WEIGHT = 8
"""After how many answers the rater's own pace counts as much as the usual one."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a decision comes from.

    Attributes:
        model_version: Which model's strengths were rated.
        feedback_revision: Revision or digest of the ratings.
        consent_scope: The narrowest scope among the ratings used.
    """

    model_version: str
    feedback_revision: str
    consent_scope: ConsentScope


@dataclass(frozen=True, kw_only=True)
class PreferenceTarget:
    """The strength to use for a rater's faces, with everything needed to audit it.

    Attributes:
        strength: The decision, in [0, 1].
        mean: Expected ideal strength.
        sd: Its standard deviation.
        quantile: Which quantile of the ideal was asked for.
        n_ratings: How many answers it rests on.
        n_photos: How many photos they were about.
        source: Whether the rater's own answers or the population decided.
        floor_applied: Whether the privacy floor raised the strength.
        model_version: Which model's strengths were rated.
        feedback_revision: Revision or digest of the ratings.
        consent_scope: The narrowest scope among the ratings used.
        prior: Name of the prior before the first answer.
    """

    strength: float
    mean: float
    sd: float
    quantile: float
    n_ratings: int
    n_photos: int
    source: Literal["own", "population"]
    floor_applied: bool
    model_version: str
    feedback_revision: str
    consent_scope: ConsentScope
    prior: str


def is_settled(posterior: Posterior, *, photo_id: str | None = None) -> bool:
    """Return whether to stop asking: sd below 0.06 after at least 3 answers.

    Args:
        posterior: What is known of the rater.
        photo_id: Ask about this photo's ideal instead of the rater's, which one photo alone can
            never settle.
    """
    belief = _belief(posterior, photo_id)
    return belief.sd < SETTLED_SD and posterior.n_answers >= SETTLED_ANSWERS


def answers_left(posterior: Posterior, *, photo_id: str | None = None) -> int:
    """Return about how many more answers `is_settled` will take, 0 if it is.

    An estimate: answers add to 1/variance at a nearly steady pace, which is the usual one at first
    and more and more the rater's own. A page that asks for the best and then "just right?" has
    two answers.
    """
    if is_settled(posterior, photo_id=photo_id):
        return 0
    now = 1 / _belief(posterior, photo_id).sd ** 2
    start = 1 / Belief(posterior.prior.density).sd ** 2
    n = posterior.n_answers
    pace = (_USUAL_PACE * _PACE_WEIGHT + max(0.0, now - start)) / (_PACE_WEIGHT + n)
    missing = max(0.0, 1 / SETTLED_SD**2 - now)
    return max(1, SETTLED_ANSWERS - n, math.ceil(missing / pace))


def decide(
    posterior: Posterior,
    *,
    population: float,
    floor: float,
    provenance: Provenance,
    quantile: float = 0.8,
    photo_id: str | None = None,
) -> PreferenceTarget:
    """Return the strength to use.

    Args:
        posterior: What is known of the rater.
        population: The population's strength in [0, 1], used while the rater is too little known.
        floor: The model's privacy floor in [0, 1]; it raises the strength, never lowers it.
        provenance: Where the answers come from.
        quantile: In [0, 1]: the cost of too weak over the cost of both errors.
        photo_id: Decide for this photo instead of for the rater.

    Raises:
        InvalidRatingError: A number is not in [0, 1].
    """
    _check_unit(population=population, floor=floor, quantile=quantile)
    belief = _belief(posterior, photo_id)
    is_own = belief.sd <= OWN_SD and posterior.n_answers >= OWN_ANSWERS
    wanted = belief.quantile(quantile) if is_own else population
    return PreferenceTarget(
        strength=max(wanted, floor),
        mean=belief.mean,
        sd=belief.sd,
        quantile=quantile,
        n_ratings=posterior.n_answers,
        n_photos=posterior.n_photos,
        source="own" if is_own else "population",
        floor_applied=floor > wanted,
        model_version=provenance.model_version,
        feedback_revision=provenance.feedback_revision,
        consent_scope=provenance.consent_scope,
        prior=posterior.prior.name,
    )


def _belief(posterior: Posterior, photo_id: str | None) -> Belief:
    return posterior.rater if photo_id is None else posterior.photo(photo_id)


def _check_unit(**numbers: float) -> None:
    problems = [
        f"`{name}` must be in [0, 1], got {number}."
        for name, number in numbers.items()
        if not 0 <= number <= 1
    ]
    if problems:
        raise InvalidRatingError(*problems)
