"""Which strengths to show next: mostly those that teach most; knows the posterior, no rows.

Four pages in five are active (least expected variance of the rater's ideal), one in ten is drawn
evenly, one in ten repeats a strength or checks attention. Each page records the probability of
its set of strengths under that whole mixture, so that later analyses can undo the choice.

A page of several is chosen for what picking the best of it teaches. That also serves pages which
then ask "just right?" about the best: it beat pages at quantiles in `benchmarks/preference.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from feedback.columns import MAX_SHOWN, describe
from feedback.errors import InvalidRatingError
from feedback.preference.belief import Belief, photo_kernel
from feedback.preference.posterior import Posterior
from feedback.preference.response import (
    LAPSES,
    LENIENCIES,
    NOISES,
    STRENGTHS,
    Array,
    choice_shares,
    likelihood,
    nuisances,
)

ACTIVE_SHARE, UNIFORM_SHARE, CHECK_SHARE = 0.8, 0.1, 0.1
POLICY = "mix80"
CATCH_BELOW = 0.1
"""A strength up to this is expected to be far too weak, which makes it a check of attention."""
MOST_ACTIVE_SETS = 500
_TIE_DIGITS = 12
_PAGE_QUANTILES = (0.10, 0.37, 0.63, 0.90)

Sets = NDArray[np.intp]


@dataclass(frozen=True)
class PageChoice:
    """What to show on the next page.

    Attributes:
        strengths: In the order of display, all different, in [0, 1].
        policy: "mix80/" and the part of the mixture that was drawn: active, uniform, repeat,
            catch.
        propensity: Probability in (0, 1] of this set of strengths under the whole mixture.
        catch: Position shown to check attention, None without one.
        repeat: Position shown before, to see whether the rater agrees with themselves, or None.
    """

    strengths: tuple[float, ...]
    policy: str
    propensity: float
    catch: int | None = None
    repeat: int | None = None


def choose_page(
    posterior: Posterior,
    *,
    rungs: Sequence[float],
    n_shown: int,
    floor: float,
    generator: np.random.Generator,
    photo_id: str = "",
    history: Iterable[float] = (),
) -> PageChoice:
    """Choose the strengths of the next page and their order.

    Args:
        posterior: What is known of the rater.
        rungs: The strengths that can be shown, up to 16, all different, in [0, 1].
        n_shown: How many to show; one asks "just right?", several ask for the best.
        floor: The privacy floor in [0, 1]; at least one strength shown is not below it.
        generator: Draws the part of the mixture, the set and the order.
        photo_id: The photo to be shown; its earlier answers count.
        history: Strengths of this photo shown before; those among `rungs` may be repeated.

    Raises:
        InvalidRatingError: An argument is out of range, or no rung reaches the floor.
    """
    ladder = tuple(sorted(float(rung) for rung in rungs))
    _check_request(ladder, n_shown, floor)
    sets = admissible_sets(ladder, n_shown, floor)
    checks = _checks(ladder, sets, history)
    active = _active_set(posterior, ladder, sets, photo_id)
    part = _draw_part(generator, checks)
    rung: int | None = None
    if part == "active":
        chosen = active
    elif part == "uniform":
        chosen = int(generator.integers(len(sets)))
    else:
        rung = int(generator.choice(checks[part]))
        chosen = int(generator.choice(np.flatnonzero((sets == rung).any(axis=1))))
    order = generator.permutation(sets[chosen])
    position = None if rung is None else int(np.flatnonzero(order == rung)[0])
    return PageChoice(
        strengths=tuple(ladder[i] for i in order),
        policy=f"{POLICY}/{part}",
        propensity=_propensity(sets, chosen, active, checks),
        catch=position if part == "catch" else None,
        repeat=position if part == "repeat" else None,
    )


def uniform_page(
    *, rungs: Sequence[float], n_shown: int, floor: float, generator: np.random.Generator
) -> PageChoice:
    """Draw a page evenly from all that may be shown; the arguments are those of `choose_page`."""
    ladder = tuple(sorted(float(rung) for rung in rungs))
    _check_request(ladder, n_shown, floor)
    sets = admissible_sets(ladder, n_shown, floor)
    order = generator.permutation(sets[generator.integers(len(sets))])
    return PageChoice(tuple(ladder[i] for i in order), "uniform", 1 / len(sets))


def moments(cavity: Array, own: Array, photo_sd: float) -> Array:
    """Return Σ_μ P(m | μ) cavity(μ, ·) own(m, ·) μ^k for k = 0, 1, 2.

    Args:
        cavity: Weights over (μ, nuisance), (…, 51, 30), of any scale.
        own: The photo's likelihood over (m, nuisance), (…, 51, 30).
        photo_sd: As in `RaterModel`.

    Returns:
        (…, 3, 51, 30), from which `expected_variance` predicts any question about the photo.
    """
    powers = STRENGTHS ** np.arange(3)[:, None]  # (3, 51)
    weighted = cavity[..., None, :, :] * powers[:, :, None]
    if photo_sd:
        weighted = photo_kernel(photo_sd).T @ weighted
    product: Array = weighted * own[..., None, :, :]
    return product


def single_variance(of: Array, kind: str, rungs: tuple[float, ...]) -> Array:
    """Return the expected posterior variance of μ after one answer about each rung.

    Args:
        of: From `moments`, (…, 3, 51, 30).
        kind: A kind of question about one strength.
        rungs: The strengths that can be asked about.

    Returns:
        (…, rungs).
    """
    table, n_answers = _question_table(kind, rungs)
    sums = of.reshape(*of.shape[:-2], -1) @ table  # (…, 3, rungs · answers)
    return _variance(sums, n_answers)


def choice_variance(of: Array, rungs: tuple[float, ...], sets: Sets) -> Array:
    """Return the expected posterior variance of μ after a choice among each set of rungs.

    Args:
        of: From `moments`, (…, 3, 51, 30).
        rungs: The strengths that can be shown.
        sets: Indices in `rungs`, (sets, n).

    Returns:
        (…, sets).
    """
    n_shown = sets.shape[1]
    *_, lapse, _weights = nuisances()
    lead = of.shape[:-1]
    by_noise = (len(NOISES), len(LENIENCIES) * len(LAPSES))
    # Leniency and carelessness do not change what is chosen when it is chosen with care.
    careful = (of * (1 - lapse)).reshape(*lead, *by_noise).sum(axis=-1)  # (…, 3, 51, noises)
    at_random = (of * lapse).sum(axis=(-1, -2)) / n_shown  # (…, 3)
    table = _choice_table(rungs, sets.tobytes(), n_shown)
    sums = careful.reshape(*lead[:-1], -1) @ table + at_random[..., None]
    return _variance(sums, n_shown)


def least(variance: Array) -> Sets:
    """Return the index of the least variance; equals, up to rounding, go to the first."""
    return np.asarray(np.argmin(variance.round(_TIE_DIGITS), axis=-1))


def quantile_page(believed: Belief, ladder: tuple[float, ...], n_shown: int) -> list[int]:
    """Return the indices of distinct rungs next to evenly spread quantiles of a belief, sorted."""
    shares = np.interp(np.linspace(0, 1, n_shown), np.linspace(0, 1, 4), _PAGE_QUANTILES)
    free = list(range(len(ladder)))
    chosen = []
    for share in shares:
        wanted = believed.quantile(float(share))
        nearest = min(free, key=lambda i: (abs(ladder[i] - wanted), i))
        free.remove(nearest)
        chosen.append(nearest)
    return sorted(chosen)


@lru_cache(maxsize=32)
def admissible_sets(ladder: tuple[float, ...], n_shown: int, floor: float) -> Sets:
    """Return the sets of rungs that may be shown, (sets, n_shown), rising; one reaches the floor.

    Args:
        ladder: Strengths, rising.
        n_shown: How many to show.
        floor: At least one strength of a set is not below it.
    """
    sets = [s for s in combinations(range(len(ladder)), n_shown) if ladder[s[-1]] >= floor]
    return np.asarray(sets, dtype=np.intp)


def _check_request(ladder: tuple[float, ...], n_shown: int, floor: float) -> None:
    n_rungs = len(ladder)
    problems = [
        f"`rungs` must be in [0, 1], got {describe(rung)}." for rung in ladder if not 0 <= rung <= 1
    ]
    if not 1 <= n_rungs <= MAX_SHOWN or len(set(ladder)) < n_rungs:
        problems.append(f"`rungs` must be 1 to {MAX_SHOWN} different strengths, got {n_rungs}.")
    if not 1 <= n_shown <= n_rungs:
        problems.append(f"`n_shown` must be 1 to {n_rungs}, the number of rungs, got {n_shown}.")
    if not 0 <= floor <= 1:
        problems.append(f"`floor` must be in [0, 1], got {floor}.")
    elif not problems and ladder[-1] < floor:
        problems.append(
            f"`rungs` must reach the floor {floor}, got {ladder[-1]} at most. Add a stronger one."
        )
    if problems:
        raise InvalidRatingError(*problems)


def _checks(ladder: tuple[float, ...], sets: Sets, history: Iterable[float]) -> dict[str, Sets]:
    """Return which rungs a repeat or a catch may use; a part without one is left out."""
    possible = set(np.unique(sets).tolist())
    shown = {round(strength, 6) for strength in history}
    repeats = [i for i in possible if round(ladder[i], 6) in shown]
    catches = [0] if 0 in possible and ladder[0] <= CATCH_BELOW else []
    parts = {"repeat": repeats, "catch": catches}
    return {name: np.asarray(sorted(found)) for name, found in parts.items() if found}


def _draw_part(generator: np.random.Generator, checks: dict[str, Sets]) -> str:
    draw = generator.random()
    if draw < ACTIVE_SHARE:
        return "active"
    if draw < ACTIVE_SHARE + UNIFORM_SHARE or not checks:
        return "uniform"
    return str(generator.choice(sorted(checks)))


def _propensity(sets: Sets, chosen: int, active: int, checks: dict[str, Sets]) -> float:
    """Return the probability of the chosen set under the mixture, whichever part drew it."""
    total = ACTIVE_SHARE * (chosen == active) + UNIFORM_SHARE / len(sets)
    if not checks:
        return float(total + CHECK_SHARE / len(sets))
    for rungs in checks.values():
        inside = [rung for rung in rungs if rung in sets[chosen]]
        ways = sum(1 / np.count_nonzero((sets == rung).any(axis=1)) for rung in inside)
        total += CHECK_SHARE / len(checks) * ways / len(rungs)
    return float(total)


def _active_set(posterior: Posterior, ladder: tuple[float, ...], sets: Sets, photo_id: str) -> int:
    """Return the index of the set expected to leave the least variance of the rater's ideal."""
    if len(sets) > MOST_ACTIVE_SETS:
        wanted = np.asarray(quantile_page(posterior.rater, ladder, sets.shape[1]))
        return int(np.argmin(np.abs(sets - wanted).sum(axis=1)))
    of = moments(*posterior.cavity(photo_id), posterior.model.photo_sd)
    if sets.shape[1] == 1:
        variance = single_variance(of, "jar5", ladder)[sets[:, 0]]
    else:
        variance = choice_variance(of, ladder, sets)
    return int(least(variance))


def _variance(sums: Array, n_answers: int) -> Array:
    """Return Σ_y (A₂ − A₁²/A₀) / Σ_y A₀ from sums (…, 3, questions · answers)."""
    zeroth, first, second = (
        sums[..., k, :].reshape(*sums.shape[:-2], -1, n_answers) for k in range(3)
    )
    spread: Array = (second - first**2 / zeroth).sum(axis=-1) / zeroth.sum(axis=-1)
    return spread


@lru_cache(maxsize=16)
def _question_table(kind: str, rungs: tuple[float, ...]) -> tuple[Array, int]:
    """Return all rungs' likelihoods side by side, (51 · 30, rungs · answers)."""
    tables = [likelihood(kind, (rung,)) for rung in rungs]
    n_answers = len(tables[0])
    stacked = np.concatenate(tables).reshape(len(rungs) * n_answers, -1)
    return np.ascontiguousarray(stacked.T), n_answers


@lru_cache(maxsize=16)
def _choice_table(rungs: tuple[float, ...], sets: bytes, n_shown: int) -> Array:
    """Return all sets' choice shares side by side, (51 · noises, sets · n)."""
    indices = np.frombuffer(sets, dtype=np.intp).reshape(-1, n_shown)
    shares = choice_shares(np.asarray(rungs)[indices], np.asarray(NOISES))
    stacked = shares.reshape(shares.shape[0] * n_shown, -1)
    return np.ascontiguousarray(stacked.T)
