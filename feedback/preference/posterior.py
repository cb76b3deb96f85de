"""What one rater prefers, and how sure that is: the exact two-level posterior; knows no rows.

A rater has an ideal strength μ and answers with their own noise, leniency and carelessness. Each
photo shifts the ideal: m ~ N(μ, 0.08²). Everything lives on a grid of 51 strengths by 30 nuisance
cells, in log space, so that ten thousand answers are as safe as one. Nothing is sampled: the same
judgements give the same posterior.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from feedback.errors import InvalidRatingError
from feedback.preference.belief import Belief, Prior, drift_kernel, log_message, photo_kernel
from feedback.preference.judgement import Judgement
from feedback.preference.response import LAPSES, Array, likelihood, nuisances, slider_likelihood

__all__ = ["STANDARD_MODEL", "Belief", "Posterior", "Prior", "RaterModel"]

_SECONDS_PER_DAY = 86_400
_SESSION_DAYS = 1 / 24
_LEAST_PHOTO_SD = 0.03


@dataclass(frozen=True)
class RaterModel:
    """What is assumed about all raters alike.

    Attributes:
        photo_sd: Standard deviation of a photo's shift, in strength; 0 takes all photos for one
            (too sure of itself, for comparison only), otherwise at least 0.03.
        drift_sd_per_day: Standard deviation of a day's drift of taste, in strength, from 0.
    """

    photo_sd: float = 0.08
    drift_sd_per_day: float = 0.01

    def __post_init__(self) -> None:
        """Check both."""
        if not (self.photo_sd == 0 or _LEAST_PHOTO_SD <= self.photo_sd <= 1):
            raise InvalidRatingError(
                f"`photo_sd` must be 0 or in [{_LEAST_PHOTO_SD}, 1], got {self.photo_sd}."
            )
        if not 0 <= self.drift_sd_per_day <= 1:
            raise InvalidRatingError(
                f"`drift_sd_per_day` must be in [0, 1], got {self.drift_sd_per_day}."
            )


STANDARD_MODEL = RaterModel()


class _Photo(NamedTuple):
    """One photo's answers: their log likelihood, and what they say of the rater, (51, 30) each."""

    log_likelihood: Array
    log_message: Array


class _Pending(NamedTuple):
    """A photo's log likelihood while answers come in, and the one answer if it is only one."""

    log_likelihood: Array
    only: Judgement | None


class Posterior:
    """What is known of one rater after some answers; never changes, `update` makes a new one.

    Attributes:
        prior: What was believed before.
        model: What is assumed about all raters.
        n_answers: How many judgements it has seen.
        n_photos: How many photos they were about.

    Example:
        >>> from feedback.preference.judgement import Judgement
        >>> too_weak = Judgement(kind="jar5", strengths=(0.4,), response=0, photo_id="a")
        >>> posterior = Posterior().update(too_weak)
        >>> posterior.mean > Posterior().mean, posterior.n_answers
        (True, 1)
    """

    def __init__(self, prior: Prior | None = None, *, model: RaterModel = STANDARD_MODEL) -> None:
        """Start from a prior, flat by default."""
        self.prior = prior if prior is not None else Prior.flat()
        self.model = model
        self.n_answers = 0
        *_, weights = nuisances()
        self._base: Array = np.log(self.prior.density)[:, None] + np.log(weights)
        self._photos: dict[str, _Photo] = {}
        self._seen: frozenset[str] = frozenset()
        self._session: str | None = None
        self._drifted_until: datetime | None = None

    @classmethod
    def replay(
        cls,
        judgements: Iterable[Judgement],
        *,
        prior: Prior | None = None,
        model: RaterModel = STANDARD_MODEL,
    ) -> Posterior:
        """Return the posterior after all judgements, in their order; what `update` would give."""
        return cls(prior, model=model)._after(judgements)

    def update(self, judgement: Judgement) -> Posterior:
        """Return the posterior after one more judgement.

        An answer of another session, an hour or more after the last drift, first lets the taste
        drift for the time between.
        """
        return self._after((judgement,))

    def next_session(self, days: float) -> Posterior:
        """Return the posterior after days without answers: the taste has drifted at random.

        Photos answered before count as they are; answered again, they are taken for new ones.

        Args:
            days: From 0; drifts add up, so two days are twice one day.

        Raises:
            InvalidRatingError: `days` is negative or not finite.
        """
        if not 0 <= days < np.inf:
            raise InvalidRatingError(f"`days` must be a finite number from 0, got {days}.")
        later = self._copy()
        later._drift(days)
        later._session = later._drifted_until = None
        return later

    @property
    def n_photos(self) -> int:
        """How many photos were answered about."""
        return len(self._seen)

    @cached_property
    def rater(self) -> Belief:
        """What is believed about the rater's ideal."""
        return Belief(self.joint.sum(axis=1))

    @property
    def mean(self) -> float:
        """The expected ideal strength of the rater."""
        return self.rater.mean

    @property
    def sd(self) -> float:
        """Its standard deviation."""
        return self.rater.sd

    def quantile(self, q: float) -> float:
        """Return a quantile of the rater's ideal; see `Belief.quantile`."""
        return self.rater.quantile(q)

    def interval(self, share: float = 0.9) -> tuple[float, float]:
        """Return the central interval of the rater's ideal; see `Belief.interval`."""
        return self.rater.interval(share)

    def density(self) -> Array:
        """Return the probabilities of the rater's ideal over `response.STRENGTHS`, (51,)."""
        return self.rater.density

    @cached_property
    def p_careless(self) -> float:
        """The probability that this rater answers at random three times in ten."""
        *_, lapse, _weights = nuisances()
        return float(self.joint[:, lapse == LAPSES[-1]].sum())

    def photo(self, photo_id: str) -> Belief:
        """Return what is believed about the ideal for one photo, or for one not yet seen."""
        cavity, own = self.cavity(photo_id)
        density = (own * (photo_kernel(self.model.photo_sd).T @ cavity)).sum(axis=1)
        return Belief(density / density.sum())

    def cavity(self, photo_id: str) -> tuple[Array, Array]:
        """Return what is known without one photo, and what that photo's answers say.

        Returns:
            Weights over (μ, nuisance) and the likelihood over (m, nuisance), (51, 30) each, scaled
            so that neither under- nor overflows; their product's scale means nothing.
        """
        total = self._log_total(without=photo_id)
        if photo_id not in self._photos:
            return np.exp(total - total.max()), np.ones_like(total)
        own = self._photos[photo_id].log_likelihood
        top = own.max(axis=0, keepdims=True)
        total = total + top
        return np.exp(total - total.max()), np.exp(own - top)

    @cached_property
    def joint(self) -> Array:
        """Probabilities over (μ, nuisance), (51, 30), sum 1."""
        total = self._log_total()
        weights = np.exp(total - total.max())
        joint: Array = weights / weights.sum()
        return joint

    def _log_total(self, *, without: str | None = None) -> Array:
        """Return log weights over (μ, nuisance), summed in the order photos were first seen."""
        total = self._base
        for name, photo in self._photos.items():
            if name != without:
                total = total + photo.log_message
        return total

    def _copy(self) -> Posterior:
        twin = Posterior.__new__(Posterior)
        cached = ("rater", "p_careless", "joint")
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if k not in cached})
        twin._photos = dict(self._photos)
        return twin

    def _after(self, judgements: Iterable[Judgement]) -> Posterior:
        """Return the posterior after judgements; each photo's message is computed once."""
        later = self._copy()
        pending: dict[str, _Pending] = {}
        seen: set[str] = set()
        for judgement in judgements:
            if days := later._days_since_drift(judgement):
                later._settle(pending)
                later._drift(days)
                pending = {}
                later._drifted_until = judgement.created_at
            later._session = judgement.session_id
            later._drifted_until = later._drifted_until or judgement.created_at
            later.n_answers += 1
            seen.add(judgement.photo_id)
            later._collect(pending, judgement)
        later._settle(pending)
        later._seen = self._seen | seen
        return later

    def _days_since_drift(self, judgement: Judgement) -> float:
        """Return how long the taste has drifted when a new session begins, otherwise 0."""
        until, now = self._drifted_until, judgement.created_at
        is_new = self._session is not None and judgement.session_id != self._session
        if not is_new or until is None or now is None or not self.model.drift_sd_per_day:
            return 0.0
        days = (now - until).total_seconds() / _SECONDS_PER_DAY
        return days if days >= _SESSION_DAYS else 0.0

    def _collect(self, pending: dict[str, _Pending], judgement: Judgement) -> None:
        added, name = _log_likelihood(judgement), judgement.photo_id
        if name in pending:
            pending[name] = _Pending(pending[name].log_likelihood + added, None)
        elif name in self._photos:
            pending[name] = _Pending(self._photos[name].log_likelihood + added, None)
        else:
            pending[name] = _Pending(added, judgement)

    def _settle(self, pending: dict[str, _Pending]) -> None:
        """Work out what the photos with new answers say of the rater."""
        sd = self.model.photo_sd
        many = [name for name, p in pending.items() if p.only is None or p.only.kind == "slider"]
        messages = {
            name: _messages(photo.only.kind, photo.only.strengths, sd)[int(photo.only.response)]
            for name, photo in pending.items()
            if photo.only is not None and photo.only.kind != "slider"
        }
        if many:
            stacked = np.stack([pending[name].log_likelihood for name in many])
            messages |= zip(many, log_message(stacked, sd), strict=True)
        for name, photo in pending.items():
            self._photos[name] = _Photo(photo.log_likelihood, messages[name])

    def _drift(self, days: float) -> None:
        """Fold the photos into the base and let μ walk at random."""
        variance = days * self.model.drift_sd_per_day**2
        if not variance:
            return
        total = self._log_total()
        top = total.max(axis=0, keepdims=True)
        spread = top + np.log(drift_kernel(variance) @ np.exp(total - top))
        self._base = spread - spread.max()
        self._photos = {}


@lru_cache(maxsize=128)
def _log_table(kind: str, strengths: tuple[float, ...]) -> Array:
    return np.asarray(np.log(likelihood(kind, strengths)))


@lru_cache(maxsize=128)
def _messages(kind: str, strengths: tuple[float, ...], photo_sd: float) -> Array:
    """Return the message of a photo with one answer, for each answer, (answers, 51, 30)."""
    return log_message(_log_table(kind, strengths), photo_sd)


def _log_likelihood(judgement: Judgement) -> Array:
    """Return log P(answer | m, nuisance), (51, 30)."""
    if judgement.kind == "slider":
        return np.asarray(np.log(slider_likelihood(judgement.response)))
    return np.asarray(_log_table(judgement.kind, judgement.strengths)[int(judgement.response)])
