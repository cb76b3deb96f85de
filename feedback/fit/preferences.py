"""From ratings and links to `preferences.json`: whose faces get which strength; knows no network.

A subject's strength comes from their rater's own answers where these say enough, otherwise from
the population. The population is known by a differentially private release or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from feedback.columns import CONSENT_SCOPES, ConsentScope
from feedback.errors import InvalidRatingError
from feedback.population.pooling import model_version_of, prior_of, rows_by_rater
from feedback.population.release import Release
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
_DIGITS = 6


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

    @property
    def n_own(self) -> int:
        """How many subjects' strengths come from their rater's own answers."""
        return sum(found.source == "own" for found in self.subjects.values())

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
        ratings: All rows, of every model and every consent: one's own dial needs no other.
        links: Subject to rater_id.
        release: The population's, None for the public default.
        spent: ε of all releases together.
        feedback_revision: Commit of the data set, or `digest_of_rows` of the store.
        model_version: The model whose strengths are decided; rows about others are left out.
        settings: Floor and quantile.
        generated_at: UTC time.
    """
    prior = Prior.flat() if release is None else prior_of(release)
    curve = Belief(prior.density)
    wanted = curve.quantile(settings.quantile)
    consented = rows_by_rater(ratings, scope="aggregate", model_version=model_version)
    population = Population(
        strength=max(wanted, settings.floor),
        sd=curve.sd,
        n_raters=len(consented) if release is None else release.n_raters,
        epsilon=float(spent),
        release=None if release is None else release.name,
    )
    by_rater: dict[str, list[Rating]] = {rater: [] for rater in links.values()}
    for rating in ratings:
        if rating.rater_id in by_rater and model_version_of(rating) == model_version:
            by_rater[rating.rater_id].append(rating)
    dials = {
        rater: _dial(
            rows,
            prior,
            population=wanted,
            settings=settings,
            provenance=Provenance(
                model_version=model_version,
                feedback_revision=feedback_revision,
                consent_scope=_narrowest(rows),
            ),
        )
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
    rows: Sequence[Rating],
    prior: Prior,
    *,
    population: float,
    settings: FitSettings,
    provenance: Provenance,
) -> SubjectPreference:
    """Return what one rater's own rows, and nobody else's, say of the strength they want."""
    target = decide(
        Posterior.replay(judgements_of(rows), prior=prior),
        population=population,
        floor=settings.floor,
        provenance=provenance,
        quantile=settings.quantile,
    )
    return SubjectPreference(
        **{field.name: getattr(target, field.name) for field in fields(SubjectPreference)}
    )


def _narrowest(rows: Iterable[Rating]) -> ConsentScope:
    """Return the narrowest consent among rows; without rows, the narrowest there is."""
    return min(
        (row.consent_scope for row in rows), key=CONSENT_SCOPES.index, default="personal_only"
    )


def _rounded(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in record.items()
    }
