"""Simulated raters' rows for a store: the real pages, choices and rows, with made-up answers.

For demonstrations, load tests and the whole loop. Every id and time follows from the seed, so a
study is repeatable to the byte; nothing in the rows tells the truth about a simulated rater.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np

from feedback.columns import MAX_SHOWN, describe
from feedback.errors import InvalidRatingError
from feedback.page import Answer, Consent, Page, Rater, Shown, rows_of_page
from feedback.preference.judgement import judgements_of
from feedback.preference.posterior import Posterior
from feedback.preference.selection import PageChoice, choose_page, uniform_page
from feedback.schema import Rating
from feedback.simulate.raters import HABITS, PHOTO_SD, Crowd, answer, draw_people
from feedback.simulate.run import N_SHOWN, RUNGS

_PAGE_SECONDS = 30
_TOKEN_HOURS = 2
_EPOCH = 1
_SELECTIONS = ("active", "random")


@dataclass(frozen=True, kw_only=True)
class SimulatedStudy:
    """A study whose raters are made up.

    Attributes:
        n_raters: How many raters.
        n_pages: How many pages each answers: the best of those shown, then "just right?" on it.
        seed: Makes the study repeatable.
        started_at: UTC time of the first page.
        method: Backend the pages claim to show.
        model_revision: Its revision.
        n_photos: Photos of each rater, answered about one after the other.
        select: active, as the app does, or random.
        floor: Privacy floor that each page reaches, in [0, 1].
        rungs: Strengths that can be shown.
        n_shown: Variants on a page.
        habits: A name in `raters.HABITS`.
    """

    n_raters: int
    n_pages: int
    seed: int
    started_at: datetime
    method: str = "embedded"
    model_revision: str = "simulated"
    n_photos: int = 1
    select: str = "active"
    floor: float = 0.0
    rungs: tuple[float, ...] = RUNGS
    n_shown: int = N_SHOWN
    habits: str = "none"

    def __post_init__(self) -> None:
        """Check what the pages do not check."""
        problems = [
            f"`{name}` must be an integer from {low}, got {describe(getattr(self, name))}."
            for name, low in {"n_raters": 1, "n_pages": 0, "seed": 0, "n_photos": 1}.items()
            if not isinstance(getattr(self, name), int) or getattr(self, name) < low
        ]
        if self.select not in _SELECTIONS:
            problems.append(f"`select` must be active or random, got {describe(self.select)}.")
        if self.habits not in HABITS:
            problems.append(
                f"`habits` must be one of {', '.join(HABITS)}, got {describe(self.habits)}."
            )
        if not 1 < self.n_shown <= MAX_SHOWN:
            problems.append(f"`n_shown` must be 2 to {MAX_SHOWN}, got {self.n_shown}.")
        if problems:
            raise InvalidRatingError(*problems)


def study_raters(study: SimulatedStudy) -> tuple[Rater, ...]:
    """Return the raters' pseudonyms, in the order of `study_crowd`."""
    return tuple(Rater(_id(study, "rater", i), _EPOCH) for i in range(study.n_raters))


def study_crowd(study: SimulatedStudy) -> Crowd:
    """Return the truth about the raters."""
    generator = np.random.default_rng(np.random.SeedSequence(study.seed))
    return draw_people(study.n_raters, generator, habits=HABITS[study.habits])


def simulated_pages(
    study: SimulatedStudy, *, key: bytes, consent: Consent
) -> Iterator[tuple[Page, tuple[Rating, ...]]]:
    """Yield each answered page with its rows, for `RatingStore.add_page`.

    Args:
        study: What is simulated.
        key: Secret bytes for the rating ids, `Keys.derive("rating")`.
        consent: What the raters agreed to.

    Raises:
        InvalidRatingError: The study breaks a rule of pages.
    """
    crowd, raters = study_crowd(study), study_raters(study)
    seeds = np.random.SeedSequence(study.seed).spawn(study.n_raters)
    for number, (rater, seed) in enumerate(zip(raters, seeds, strict=True)):
        person = crowd.part(slice(number, number + 1))
        to_rows = partial(rows_of_page, rater=rater, consent=consent, key=key)
        yield from _visit(study, number, person, to_rows, np.random.default_rng(seed))


def _visit(
    study: SimulatedStudy,
    number: int,
    person: Crowd,
    to_rows: Callable[[Page, Answer], tuple[Rating, ...]],
    generator: np.random.Generator,
) -> Iterator[tuple[Page, tuple[Rating, ...]]]:
    """Yield one rater's pages."""
    posterior, drift = Posterior(), 0.0
    shown: list[float] = []
    photo = -1
    for turn in range(study.n_pages):
        if turn * study.n_photos // study.n_pages != photo:
            photo = turn * study.n_photos // study.n_pages
            shift, shown = PHOTO_SD * generator.standard_normal(), []
        page = _page(study, (number, turn, photo), posterior, shown, generator)
        ideal = np.clip(person.ideal + drift + shift, 0.0, 1.0)
        clicks = _clicks(page, person.at(ideal), generator)
        rows = to_rows(page, clicks)
        for judgement in judgements_of(rows):
            posterior = posterior.update(judgement)
        shown += [variant.strength for variant in page.shown]
        drift += person.habits.drift_sd * generator.standard_normal()
        yield page, rows


def _page(
    study: SimulatedStudy,
    numbers: tuple[int, int, int],
    posterior: Posterior,
    shown: list[float],
    generator: np.random.Generator,
) -> Page:
    number, turn, photo = numbers
    photo_id = _id(study, "photo", number, photo)
    choice = _choice(study, posterior, photo_id, shown, generator)
    time = study.started_at + timedelta(seconds=_PAGE_SECONDS * turn)
    return Page(
        session_id=_id(study, "session", number),
        photo_id=photo_id,
        method=study.method,
        model_revision=study.model_revision,
        shown=tuple(
            Shown(strength, is_catch=i == choice.catch, is_repeat=i == choice.repeat)
            for i, strength in enumerate(choice.strengths)
        ),
        source="synthetic_face",
        app_version="simulate",
        expires_at=time + timedelta(hours=_TOKEN_HOURS),
        policy=choice.policy,
        propensity=choice.propensity,
        page_id=_id(study, "page", number, turn),
    )


def _choice(
    study: SimulatedStudy,
    posterior: Posterior,
    photo_id: str,
    shown: list[float],
    generator: np.random.Generator,
) -> PageChoice:
    rungs, n_shown, floor = study.rungs, study.n_shown, study.floor
    if study.select == "random":
        return uniform_page(rungs=rungs, n_shown=n_shown, floor=floor, generator=generator)
    return choose_page(
        posterior,
        rungs=rungs,
        n_shown=n_shown,
        floor=floor,
        generator=generator,
        photo_id=photo_id,
        history=shown,
    )


def _clicks(page: Page, person: Crowd, generator: np.random.Generator) -> Answer:
    strengths = np.asarray([[variant.strength for variant in page.shown]])
    best = int(answer(person, "best_of_n", strengths, generator)[0])
    just_right = int(answer(person, "jar5", strengths[:, [best]], generator)[0])
    seconds = generator.lognormal(np.log([4.0, 1.5]), 0.4)
    return Answer(
        best=best,
        just_right=just_right,
        best_ms=int(1000 * seconds[0]),
        just_right_ms=int(1000 * seconds[1]),
        client="web",
        answered_at=page.expires_at
        - timedelta(hours=_TOKEN_HOURS)
        + timedelta(seconds=float(seconds.sum())),
    )


def _id(study: SimulatedStudy, *parts: str | int) -> str:
    text = "|".join(str(part) for part in ("simulated", study.seed, *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
