"""What raters have in common: their consented contributions, and pooling for analysis.

Knows rows, posteriors and releases; no file. Two paths that never meet: a release is noisy, and is
what new raters start from; pooling is exact, and is for looking at, never for choosing a page or
another person's strength.

A rater is a pseudonym: nothing here can tell that two of them are one person, whose loss is then
the sum of both. Rows sent by programs (client api), which can make up any number of raters, say
something about their own rater only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from feedback.columns import CONSENT_SCOPES, ConsentScope
from feedback.population.release import Release, smooth, units_of
from feedback.preference.belief import Belief, Prior
from feedback.preference.judgement import judgements_of
from feedback.preference.posterior import Posterior, RaterModel
from feedback.preference.response import N_STRENGTHS, Array
from feedback.schema import Rating

MAX_ROUNDS = 30
_UNIFORM_RATERS = 2.0
_PROGRAM = "api"
_TOLERANCE = 1e-6
# Without drift a posterior from the flat prior is the likelihood, which pooling needs.
_STILL = RaterModel(drift_sd_per_day=0.0)


def model_version_of(rating: Rating) -> str:
    """Return which strengths a row is about: the method and its revision."""
    return f"{rating.method}@{rating.model_revision}"


def rows_by_rater(
    ratings: Iterable[Rating],
    *,
    scope: ConsentScope = "personal_only",
    model_version: str | None = None,
) -> dict[str, list[Rating]]:
    """Group rows by rater, only those that may be used for `scope`.

    A row counts if it was given under `scope` or a wider one, and its rater's newest row, about
    whatever model, was too: who has narrowed their consent is out with all their rows. For others'
    use (any scope but the narrowest) rows of client api do not count.

    Args:
        ratings: All rows, of every model, in any order: consent is narrowed for all models at once.
        scope: What the rows are to be used for.
        model_version: Return rows about this model only; None for all.
    """
    width = CONSENT_SCOPES.index
    by_rater: dict[str, list[Rating]] = {}
    for rating in ratings:
        by_rater.setdefault(rating.rater_id, []).append(rating)
    consented = {}
    for rater, rows in by_rater.items():
        newest = max(row.created_at for row in rows)
        last = min(width(row.consent_scope) for row in rows if row.created_at == newest)
        usable = [
            row
            for row in rows
            if width(row.consent_scope) >= width(scope)
            and model_version in (None, model_version_of(row))
            and (scope == CONSENT_SCOPES[0] or row.client != _PROGRAM)
        ]
        if usable and last >= width(scope):
            consented[rater] = usable
    return consented


def n_from_programs(ratings: Iterable[Rating]) -> int:
    """Return how many rows were sent by programs, and count for their own rater only."""
    return sum(rating.client == _PROGRAM for rating in ratings)


def contributions(
    ratings: Iterable[Rating], *, model_version: str | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return what each consenting rater gives to a release: one histogram each, of one size.

    A contribution depends on its rater's own rows, the flat prior and fixed constants only, so
    replacing a rater changes one of them and nothing else. Ten thousand answers give one
    contribution, and so do answers that say nothing.

    Args:
        ratings: All rows, of every model.
        model_version: The model the release is about; None where there is only one.
    """
    consented = rows_by_rater(ratings, scope="aggregate", model_version=model_version)
    return tuple(_contribution(consented[rater]) for rater in sorted(consented))


def prior_of(release: Release) -> Prior:
    """Return a release as what is believed of a rater before their first answer."""
    return Prior(release.name, tuple(release.curve().tolist()))


@dataclass(frozen=True, eq=False)
class Pooled:
    """The population as EM sees it; exact, so for the operator's eyes only.

    Attributes:
        belief: Distribution of the preferred strength over raters.
        n_raters: Consenting raters.
        weight: Raters counted by the probability that they pay attention.
        rounds: Rounds until nothing moved, at most `MAX_ROUNDS`.
    """

    belief: Belief = field(repr=False)
    n_raters: int
    weight: float
    rounds: int

    def as_record(self) -> dict[str, float]:
        """Return the numbers to look at: mean and sd of the strength, raters, attentive raters."""
        numbers = {"mean": self.belief.mean, "sd": self.belief.sd, "weight": self.weight}
        return {"n_raters": self.n_raters} | {k: round(v, 3) for k, v in numbers.items()}


def pool(ratings: Iterable[Rating], *, model_version: str | None = None) -> Pooled:
    """Estimate the population of consenting raters by EM, with careless ones counting less.

    Not differentially private: nothing derived from it may be published or shown to other raters.

    Args:
        ratings: All rows, of every model.
        model_version: The model whose strengths are asked for; None where there is only one.
    """
    consented = rows_by_rater(ratings, scope="aggregate", model_version=model_version)
    posteriors = [_from_flat(rows, _STILL) for _, rows in sorted(consented.items())]
    likelihoods = np.array([p.density() for p in posteriors]).reshape(-1, N_STRENGTHS)
    weights = np.array([1 - p.p_careless for p in posteriors])
    curve, rounds = _em(likelihoods, weights)
    return Pooled(Belief(curve), len(posteriors), float(weights.sum()), rounds)


def pool_by_model(ratings: Sequence[Rating]) -> dict[str, Pooled]:
    """Return `pool` for each model there are rows about; strengths of two do not mean the same."""
    versions = sorted({model_version_of(rating) for rating in ratings})
    return {version: pool(ratings, model_version=version) for version in versions}


def _contribution(rows: Sequence[Rating]) -> tuple[int, ...]:
    return units_of(_from_flat(rows, RaterModel()).density())


def _from_flat(rows: Sequence[Rating], model: RaterModel) -> Posterior:
    """Return what one rater's rows alone say, without any other rater or release."""
    return Posterior.replay(judgements_of(rows), prior=Prior.flat(), model=model)


def _em(likelihoods: Array, weights: Array) -> tuple[Array, int]:
    """Return the smoothed population curve, (51,), and the rounds it took."""
    curve: Array = np.full(N_STRENGTHS, 1 / N_STRENGTHS)
    for number in range(1, MAX_ROUNDS + 1):
        joint = likelihoods * Prior("pooled", tuple(curve.tolist())).density
        shares = joint / joint.sum(axis=1, keepdims=True)
        before, curve = curve, smooth(weights @ shares + _UNIFORM_RATERS / N_STRENGTHS)
        if np.abs(curve - before).max() < _TOLERANCE:
            return curve, number
    return curve, MAX_ROUNDS
