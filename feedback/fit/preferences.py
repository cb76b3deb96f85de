"""From ratings and links to `preferences.json`: whose faces get which strength; knows no network.

A subject's strength comes from their rater's own answers where these say enough, otherwise from
the population. The population is known by a differentially private release or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from feedback.errors import InvalidRatingError, ReleaseError
from feedback.population.account import ReleaseAccount
from feedback.population.pooling import contributions, model_version_of, prior_of, rows_by_rater
from feedback.population.release import MIN_RATERS, Release
from feedback.preference.belief import Belief, Prior
from feedback.preference.decision import Provenance, decide
from feedback.preference.judgement import judgements_of
from feedback.preference.posterior import Posterior
from feedback.schema import Rating
from feedback.wholefile import whole_file

PREFERENCES_VERSION = 1
DEFAULT_FLOOR = 0.5
"""The strength from which on at most half of the variants are verified as their original."""
DEFAULT_QUANTILE = 0.8
DEFAULT_EPSILON = Fraction(1)
_DIGITS = 6
# A decision is asked for its provenance; here the file states it once for all subjects.
_UNUSED = Provenance(model_version="", feedback_revision="", consent_scope="personal_only")


@dataclass(frozen=True)
class FitSettings:
    """What is decided without looking at any rating.

    Attributes:
        floor: Least strength, in [0, 1]; one value per model, from held-out calibration.
        quantile: Of a posterior, in (0, 1): above 0.5, as too little protection costs more.
    """

    floor: float = DEFAULT_FLOOR
    quantile: float = DEFAULT_QUANTILE

    def __post_init__(self) -> None:
        """Check both."""
        problems = []
        if not 0 <= self.floor <= 1:
            problems.append(f"`floor` must be in [0, 1], got {self.floor}.")
        if not 0 < self.quantile < 1:
            problems.append(f"`quantile` must be between 0 and 1, got {self.quantile}. Try 0.8.")
        if problems:
            raise InvalidRatingError(*problems)


@dataclass(frozen=True)
class Population:
    """What everyone gets of whom too little is known.

    Attributes:
        strength: In [0, 1], the floor applied.
        sd: Standard deviation of the curve.
        n_raters: Raters the release is about; without one, raters who agreed to published totals.
        epsilon: What all releases from these ratings have cost together, 0 without any.
        release: Name of the release; None for the public default, a flat curve.
    """

    strength: float
    sd: float
    n_raters: int
    epsilon: float
    release: str | None


@dataclass(frozen=True)
class SubjectPreference:
    """One subject's strength and where it comes from; the fields are the file's."""

    strength: float
    mean: float
    sd: float
    n_ratings: int
    n_photos: int
    source: str
    floor_applied: bool


@dataclass(frozen=True)
class Preferences:
    """The content of `preferences.json`; no rater stands in it.

    Attributes:
        generated_at: UTC time.
        feedback_revision: Commit of the data set, or digest of the store's rows.
        model_version: The model whose strengths these are.
        population: For everyone else.
        subjects: By subject.
    """

    generated_at: datetime
    feedback_revision: str
    model_version: str
    population: Population
    subjects: Mapping[str, SubjectPreference]

    def as_record(self) -> dict[str, Any]:
        """Return the file's JSON values."""
        return {
            "schema_version": PREFERENCES_VERSION,
            "generated_at": self.generated_at.isoformat(timespec="seconds"),
            "feedback_revision": self.feedback_revision,
            "model_version": self.model_version,
            "population": _rounded(asdict(self.population)),
            "subjects": {name: _rounded(asdict(found)) for name, found in self.subjects.items()},
        }


def choose_model(ratings: Iterable[Rating], asked: str | None = None) -> str:
    """Return which model's rows to use: strengths of two models do not mean the same.

    Args:
        ratings: All rows.
        asked: A model version, or its revision alone; may be None where there is only one.

    Raises:
        InvalidRatingError: There is not exactly one that fits; those there are listed.
    """
    counts = Counter(model_version_of(rating) for rating in ratings)
    if asked is not None:
        counts_of_asked = [v for v in counts if asked in (v, v.partition("@")[2])]
        if len(counts_of_asked) == 1:
            return counts_of_asked[0]
    elif len(counts) == 1:
        return next(iter(counts))
    if not counts:
        raise InvalidRatingError(
            "There must be at least one rating to fit, got none. Collect ratings, or make some "
            "with `python -m feedback simulate --store DIR`."
        )
    there = ", ".join(f"{version} ({n} rows)" for version, n in sorted(counts.items()))
    got = "several" if asked is None else "none or several with that name"
    raise InvalidRatingError(
        f"`model_version` must name one model the ratings are about, got {got}. "
        f"Choose one of: {there}."
    )


def digest_of(ratings: Iterable[Rating]) -> str:
    """Return a digest of rows that does not depend on their order, as `feedback_revision`."""
    digest = hashlib.sha256()
    for line in sorted(rating.as_json() for rating in ratings):
        digest.update(line.encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def release_for(
    ratings: Sequence[Rating],
    account: ReleaseAccount,
    *,
    model_version: str,
    epsilon: Fraction | None = None,
    is_new: bool = False,
) -> Release | None:
    """Return the release these ratings' population is known by, drawing it only if it must be.

    Args:
        ratings: Rows about one model.
        account: Where releases are kept and accounted for.
        model_version: That model.
        epsilon: What a new release may cost, 1 by default; must be that of a kept one.
        is_new: Draw another release even if there is one.

    Returns:
        None if there is no release and there are too few raters to make one.

    Raises:
        ReleaseError: A new one was asked for and there are too few raters, `epsilon` is another
            than that of the kept release, or the account cannot be read.
    """
    kept = account.latest(model_version)
    if kept is not None and not is_new:
        if epsilon is not None and epsilon != Fraction(kept.epsilon):
            raise ReleaseError(
                f"`epsilon` must be that of the release in use, {kept.epsilon}, got {epsilon}. "
                "Leave it out, or add `--new-release`: then both count."
            )
        return kept
    units = contributions(ratings)
    if len(units) < MIN_RATERS and not is_new:
        return None
    return account.draw(
        units, epsilon=epsilon or DEFAULT_EPSILON, model_version=model_version, after=kept
    )


def fit_preferences(
    ratings: Sequence[Rating],
    links: Mapping[str, str],
    *,
    release: Release | None,
    spent: Fraction,
    feedback_revision: str,
    model_version: str,
    settings: FitSettings,
    generated_at: datetime,
) -> Preferences:
    """Decide every linked subject's strength, and everyone else's.

    Args:
        ratings: Rows about one model, of raters of every consent: one's own dial needs no other.
        links: Subject to rater_id.
        release: The population's, None for the public default.
        spent: ε of all releases together.
        feedback_revision: Commit of the data set, or `digest_of` the store's rows.
        model_version: That model.
        settings: Floor and quantile.
        generated_at: UTC time.
    """
    prior = Prior.flat() if release is None else prior_of(release)
    curve = Belief(prior.density)
    wanted = curve.quantile(settings.quantile)
    consented = rows_by_rater(ratings, scope="aggregate")
    population = Population(
        strength=max(wanted, settings.floor),
        sd=curve.sd,
        n_raters=len(consented) if release is None else release.n_raters,
        epsilon=float(spent),
        release=None if release is None else release.name,
    )
    by_rater: dict[str, list[Rating]] = {rater: [] for rater in links.values()}
    for rating in ratings:
        if rating.rater_id in by_rater:
            by_rater[rating.rater_id].append(rating)
    dials = {
        rater: _dial(rows, prior, population=wanted, settings=settings)
        for rater, rows in by_rater.items()
    }
    return Preferences(
        generated_at=generated_at,
        feedback_revision=feedback_revision,
        model_version=model_version,
        population=population,
        subjects={subject: dials[rater] for subject, rater in links.items()},
    )


def write_preferences(preferences: Preferences, path: Path) -> None:
    """Write `preferences.json`, replacing it; only its owner may read it.

    Raises:
        ExportError: The file cannot be written.
    """
    text = json.dumps(preferences.as_record(), indent=2, ensure_ascii=False)
    with whole_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def _dial(
    rows: Sequence[Rating], prior: Prior, *, population: float, settings: FitSettings
) -> SubjectPreference:
    """Return what one rater's own rows, and nobody else's, say of the strength they want."""
    target = decide(
        Posterior.replay(judgements_of(rows), prior=prior),
        population=population,
        floor=settings.floor,
        provenance=_UNUSED,
        quantile=settings.quantile,
    )
    return SubjectPreference(
        **{field.name: getattr(target, field.name) for field in fields(SubjectPreference)}
    )


def _rounded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in record.items()
    }
