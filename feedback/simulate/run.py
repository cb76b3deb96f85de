"""How well the preference model recovers known tastes: whole crowds at once, on the same tables.

The arithmetic is that of `preference` and `selection`, for many raters side by side; a test holds
the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from feedback.columns import describe
from feedback.errors import InvalidRatingError
from feedback.preference.belief import Belief, Prior, photo_kernel
from feedback.preference.decision import SETTLED_ANSWERS, SETTLED_SD
from feedback.preference.response import STEP, STRENGTHS, Array
from feedback.preference.selection import admissible_sets, quantile_page
from feedback.simulate.batch import Ints, PosteriorBatch, Traces
from feedback.simulate.raters import HABITS, PHOTO_SD, Crowd, answer, draw_from_grid, draw_people

RUNGS = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))
"""The ladder of ten that the reference's figures use."""
N_SHOWN = 4
SINGLES = ("jar5", "jar3", "binary", "likert5", "acceptable")
PAGES = ("best_of_n", "best_then_jar5", "jar5_each")
SELECTIONS = ("active", "random", "fixed", "quantile")
_FIXED_ORDER = (4, 6, 2, 8, 5, 3, 7, 1, 9, 0)
_CHUNK = 250
_MOST_RATERS = 1_000_000
_MOST_ANSWERS = 1_000


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """What is simulated.

    Attributes:
        n_raters: How many raters.
        n_answers: How many questions each answers; for pages, how many pages.
        seed: Makes it repeatable.
        response: A question about one strength (`SINGLES`) or about a page of four (`PAGES`).
        select: How strengths are chosen: active; random; fixed (one order for all, one strength
            at a time); quantile (pages at quantiles of what is believed).
        n_photos: Over how many photos the answers are spread, one after the other, each shifting
            the ideal; None for no shift at all, as in the reference's main table.
        habits: A name in `raters.HABITS`: how the raters differ from the model.
        truth: people, or grid: drawn from the model's own prior, for calibration.
        taste: Mean and standard deviation of the ideals, instead of the usual mixture.
        prior: What the model starts from; flat by default.
        is_two_level: Whether the model knows that photos shift the ideal.
        knows_careless: Whether the model knows that some answer carelessly.
        assumed_drift: The drift with each answer that the model allows for, in strength.
    """

    n_raters: int = 2000
    n_answers: int = 20
    seed: int = 0
    response: str = "jar5"
    select: str = "active"
    n_photos: int | None = None
    habits: str = "none"
    truth: str = "people"
    taste: tuple[float, float] | None = None
    prior: Prior | None = None
    is_two_level: bool = True
    knows_careless: bool = True
    assumed_drift: float = 0.0

    def __post_init__(self) -> None:
        """Check everything at once."""
        if problems := _setting_problems(self):
            raise InvalidRatingError(*problems)


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """How well tastes were recovered after 0, 1, …, n answers.

    Attributes:
        raters: How many raters.
        answers: How many answers, or pages, each gave.
        seed: As set.
        response: As set.
        select: As set.
        photos: As set.
        rmse: Root mean square error of the expected ideal, by number of answers from 0.
        coverage90: Share of raters whose 90 % interval holds their ideal.
        median_answers_to_settle: After how many answers half have an sd below 0.06 (and at least
            three answers); None if fewer than half got there.
    """

    raters: int
    answers: int
    seed: int
    response: str
    select: str
    photos: int | None
    rmse: tuple[float, ...]
    coverage90: tuple[float, ...]
    median_answers_to_settle: float | None


def run_simulation(settings: SimulationSettings) -> SimulationResult:
    """Simulate a crowd and return how well its tastes were recovered.

    Keeps sums over raters, not what was believed of each: memory does not grow with their number.
    """
    squares = np.zeros(settings.n_answers + 1)
    covered = np.zeros(settings.n_answers + 1)
    first: list[Array] = []
    for part in _parts(settings):
        squares += ((part.means - part.ideals) ** 2).sum(axis=1)
        covered += part.covered().sum(axis=1)
        settled = part.sds < SETTLED_SD
        settled[:SETTLED_ANSWERS] = False
        first.append(np.where(settled.any(axis=0), settled.argmax(axis=0), np.inf))
    median = float(np.median(np.concatenate(first)))
    return SimulationResult(
        raters=settings.n_raters,
        answers=settings.n_answers,
        seed=settings.seed,
        response=settings.response,
        select=settings.select,
        photos=settings.n_photos,
        rmse=tuple(np.sqrt(squares / settings.n_raters).round(5).tolist()),
        coverage90=tuple((covered / settings.n_raters).round(5).tolist()),
        median_answers_to_settle=median if np.isfinite(median) else None,
    )


def trace(settings: SimulationSettings) -> Traces:
    """Simulate a crowd and return all that was true and believed on the way, 408 bytes a belief."""
    parts = list(_parts(settings))
    return Traces(
        np.concatenate([part.ideals for part in parts], axis=1),
        np.concatenate([part.densities for part in parts], axis=1),
    )


def _parts(settings: SimulationSettings) -> Iterator[Traces]:
    """Yield what happened, for some of the raters at a time."""
    people_seed, *chunk_seeds = np.random.SeedSequence(settings.seed).spawn(
        1 + -(-settings.n_raters // _CHUNK)
    )
    crowd = _draw(settings, np.random.default_rng(people_seed))
    for i, seed in enumerate(chunk_seeds):
        yield _trace_part(settings, crowd.part(slice(i * _CHUNK, (i + 1) * _CHUNK)), seed)


def _draw(settings: SimulationSettings, generator: np.random.Generator) -> Crowd:
    n = settings.n_raters
    if settings.truth == "grid":
        prior = settings.prior if settings.prior is not None else Prior.flat()
        return draw_from_grid(n, generator, prior=prior.density)
    habits = HABITS[settings.habits]
    return draw_people(n, generator, habits=habits, taste=settings.taste)


def _trace_part(settings: SimulationSettings, crowd: Crowd, seed: np.random.SeedSequence) -> Traces:
    """Simulate some of the raters, from the first answer to the last."""
    generator = np.random.default_rng(seed)
    has_photos = settings.n_photos is not None
    batch = PosteriorBatch(
        len(crowd.ideal),
        prior=settings.prior,
        photo_sd=PHOTO_SD if has_photos and settings.is_two_level else 0.0,
        knows_careless=settings.knows_careless,
    )
    ideal, ideals, densities = crowd.ideal, [crowd.ideal], [batch.density()]
    shown_photo = -1
    for turn in range(settings.n_answers):
        photo = turn * (settings.n_photos or 1) // settings.n_answers
        if photo != shown_photo:
            batch.next_photo()
            shift = _photo_shift(settings, ideal, generator)
            shown_photo = photo
        _ask(settings, turn, crowd.at(ideal + shift), batch, generator)
        if crowd.habits.drift_sd:
            moved = ideal + crowd.habits.drift_sd * generator.standard_normal(len(ideal))
            ideal = np.clip(moved, 0.0, 1.0)
        batch.drift(settings.assumed_drift)
        ideals.append(ideal)
        densities.append(batch.density())
    return Traces(np.stack(ideals), np.stack(densities))


def _photo_shift(
    settings: SimulationSettings, ideal: Array, generator: np.random.Generator
) -> Array:
    if settings.n_photos is None:
        return np.zeros_like(ideal)
    if settings.truth == "people":
        return PHOTO_SD * generator.standard_normal(len(ideal))
    chances = photo_kernel(PHOTO_SD)[np.rint(ideal / STEP).astype(int)]
    reached = np.cumsum(chances, axis=1) >= generator.random((len(ideal), 1))
    shift: Array = STRENGTHS[np.argmax(reached, axis=1)] - ideal
    return shift


def _ask(
    settings: SimulationSettings,
    turn: int,
    crowd: Crowd,
    batch: PosteriorBatch,
    generator: np.random.Generator,
) -> None:
    """Show each rater something, let them answer, and learn from it."""
    ladder, n = np.asarray(RUNGS), len(crowd.ideal)
    if settings.response in SINGLES:
        rungs = _single_rungs(settings, turn, batch, generator)
        _learn(settings.response, ladder[rungs][:, None], crowd, batch, generator)
        return
    strengths = ladder[_page_rungs(settings, batch, generator)]
    if settings.response == "jar5_each":
        for column in range(strengths.shape[1]):
            _learn("jar5", strengths[:, column, None], crowd, batch, generator)
        return
    best = _learn("best_of_n", strengths, crowd, batch, generator)
    if settings.response == "best_then_jar5":
        _learn("jar5", strengths[np.arange(n), best][:, None], crowd, batch, generator)


def _learn(
    kind: str,
    strengths: Array,
    crowd: Crowd,
    batch: PosteriorBatch,
    generator: np.random.Generator,
) -> Ints:
    answers = answer(crowd, kind, strengths, generator)
    batch.update(kind, strengths, answers)
    return answers


def _single_rungs(
    settings: SimulationSettings,
    turn: int,
    batch: PosteriorBatch,
    generator: np.random.Generator,
) -> Ints:
    if settings.select == "random":
        return generator.integers(len(RUNGS), size=batch.n)
    if settings.select == "fixed":
        return np.full(batch.n, _FIXED_ORDER[turn % len(_FIXED_ORDER)], dtype=np.intp)
    return batch.best_single(settings.response, RUNGS)


def _page_rungs(
    settings: SimulationSettings, batch: PosteriorBatch, generator: np.random.Generator
) -> Ints:
    if settings.select == "random":
        return np.argsort(generator.random((batch.n, len(RUNGS))), axis=1)[:, :N_SHOWN]
    if settings.select == "quantile":
        pages = [quantile_page(Belief(d), RUNGS, N_SHOWN) for d in batch.density()]
        return np.asarray(pages, dtype=np.intp)
    return batch.best_set(RUNGS, admissible_sets(RUNGS, N_SHOWN, 0.0))


def _setting_problems(settings: SimulationSettings) -> list[str]:
    problems = [
        f"`{name}` must be one of {', '.join(choices)}, got {describe(getattr(settings, name))}."
        for name, choices in {
            "response": SINGLES + PAGES,
            "select": SELECTIONS,
            "habits": tuple(HABITS),
            "truth": ("people", "grid"),
        }.items()
        if getattr(settings, name) not in choices
    ]
    limits = {"n_raters": (1, _MOST_RATERS), "n_answers": (0, _MOST_ANSWERS), "seed": (0, 2**63)}
    if settings.n_photos is not None:
        limits["n_photos"] = (1, max(1, settings.n_answers))
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            problems.append(
                f"`{name}` must be an integer from {low} to {high}, got {describe(value)}."
            )
    unfit = {"quantile": SINGLES, "fixed": PAGES}.get(settings.select, ())
    if settings.response in unfit:
        problems.append(
            f"`select` must fit the response, got {settings.select} for {settings.response}. "
            "Choose active or random."
        )
    return problems
