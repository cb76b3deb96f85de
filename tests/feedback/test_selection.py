import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import InvalidRatingError
from feedback.preference.judgement import Judgement
from feedback.preference.posterior import Posterior, RaterModel
from feedback.preference.response import n_outcomes
from feedback.preference.selection import (
    PageChoice,
    admissible_sets,
    choice_variance,
    choose_page,
    moments,
    quantile_page,
    single_variance,
    uniform_page,
)

RUNGS = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))
LADDER = (0.2, 0.4, 0.6, 0.8, 1.0)


def jar(strength, response, photo="a"):
    return Judgement(kind="jar5", strengths=(strength,), response=response, photo_id=photo)


SOME = Posterior.replay([jar(0.55, 1), jar(0.75, 3), jar(0.45, 2, "b")])


def page(posterior=SOME, seed=0, **changes):
    request = {"rungs": RUNGS, "n_shown": 4, "floor": 0.5, "photo_id": "a", "history": ()}
    return choose_page(posterior, **(request | changes), generator=np.random.default_rng(seed))


def expected_by_hand(posterior, kind, strengths, photo):
    """Return Σ_y P(y) Var(μ | y), by updating with every answer."""
    total, left = 0.0, 0.0
    for y in range(n_outcomes(kind, len(strengths))):
        after = posterior.update(
            Judgement(kind=kind, strengths=strengths, response=y, photo_id=photo)
        )
        cavity, own = posterior.cavity(photo)
        weight = chance(posterior, cavity, own, kind, strengths, y)
        total, left = total + weight, left + weight * after.sd**2
    return left / total


def chance(posterior, cavity, own, kind, strengths, y):
    from feedback.preference.belief import photo_kernel
    from feedback.preference.response import likelihood

    at_photo = own * (photo_kernel(posterior.model.photo_sd).T @ cavity)
    return float((at_photo * likelihood(kind, strengths)[y]).sum() / at_photo.sum())


# --- What is learnt --------------------------------------------------------------------------


@pytest.mark.parametrize("photo", ["a", "b", "new"])
@pytest.mark.parametrize("model", [RaterModel(), RaterModel(photo_sd=0)])
def test_the_expected_variance_is_that_of_asking_and_updating(photo, model):
    posterior = Posterior.replay([jar(0.55, 1), jar(0.75, 3), jar(0.45, 2, "b")], model=model)
    of = moments(*posterior.cavity(photo), model.photo_sd)
    found = single_variance(of, "jar5", LADDER)
    expected = [expected_by_hand(posterior, "jar5", (s,), photo) for s in LADDER]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    sets = admissible_sets(LADDER, 3, 0.0)
    found = choice_variance(of, LADDER, sets)
    shown = [tuple(LADDER[i] for i in chosen) for chosen in sets]
    expected = [expected_by_hand(posterior, "best_of_n", s, photo) for s in shown]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_an_active_page_is_the_one_expected_to_teach_most():
    pages = [page(seed=seed) for seed in range(30)]
    active = [p for p in pages if p.policy == "mix80/active"]
    sets = [s for s in itertools.combinations(RUNGS, 4) if max(s) >= 0.5]
    best = min(sets, key=lambda s: expected_by_hand(SOME, "best_of_n", s, "a"))
    assert {tuple(sorted(p.strengths)) for p in active} == {best}
    assert len(active) > 15
    alone = {p.strengths for p in (page(seed=s, n_shown=1, floor=0.0) for s in range(30))}
    best = min(RUNGS, key=lambda s: expected_by_hand(SOME, "jar5", (s,), "a"))
    assert (best,) in alone


# --- What may be shown -----------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=8, unique=True),
    st.integers(1, 4),
    st.floats(0, 1),
    st.integers(0, 2**32),
    st.data(),
)
def test_no_strength_is_shown_twice_and_one_reaches_the_floor(steps, n, floor, seed, data):
    rungs = [step / 100 for step in steps]
    n, floor = min(n, len(rungs)), min(floor, max(rungs))
    history = data.draw(st.lists(st.sampled_from(rungs), max_size=4))
    chosen = page(seed=seed, rungs=rungs, n_shown=n, floor=floor, history=history)
    assert len(set(chosen.strengths)) == len(chosen.strengths) == n
    assert set(chosen.strengths) <= set(rungs)
    assert max(chosen.strengths) >= floor
    assert 0 < chosen.propensity <= 1
    if chosen.repeat is not None:
        assert chosen.strengths[chosen.repeat] in history
    if chosen.catch is not None:
        assert chosen.strengths[chosen.catch] == min(rungs) <= 0.1


@pytest.mark.parametrize("history", [(), (0.55, 0.75), (0.05, 0.2)])
def test_the_propensity_is_how_often_a_set_is_shown(history):
    n_pages = 4000
    generator = np.random.default_rng(3)
    shown, stated = {}, {}
    for _ in range(n_pages):
        chosen = choose_page(
            SOME,
            rungs=RUNGS[::2],
            n_shown=2,
            floor=0.5,
            generator=generator,
            photo_id="a",
            history=history,
        )
        key = frozenset(chosen.strengths)
        shown[key] = shown.get(key, 0) + 1
        stated.setdefault(key, set()).add(chosen.propensity)
    assert all(len(values) == 1 for values in stated.values())
    assert sum(min(values) for values in stated.values()) == pytest.approx(1)
    for key, (propensity,) in ((k, tuple(v)) for k, v in stated.items()):
        spread = np.sqrt(propensity * (1 - propensity) / n_pages)
        assert abs(shown[key] / n_pages - propensity) < 5 * spread


def test_the_order_on_the_page_says_nothing():
    generator = np.random.default_rng(4)
    first = [
        uniform_page(rungs=LADDER, n_shown=5, floor=0.8, generator=generator).strengths[0]
        for _ in range(1000)
    ]
    active = [page(seed=s).strengths for s in range(300) if page(seed=s).policy == "mix80/active"]
    for counts in (
        np.unique(first, return_counts=True)[1] / 1000 * 5,
        np.unique([p[0] for p in active], return_counts=True)[1] / len(active) * 4,
    ):
        assert len(counts) in {4, 5}
        assert (abs(counts - 1) < 0.35).all()


def test_one_page_in_ten_is_a_check_when_there_is_something_to_check():
    parts = [page(seed=seed, history=(0.55,)).policy for seed in range(1500)]
    share = {part: parts.count(f"mix80/{part}") / 1500 for part in ("active", "uniform")}
    assert share["active"] == pytest.approx(0.8, abs=0.04)
    assert share["uniform"] == pytest.approx(0.1, abs=0.03)
    checks = [page(seed=s, history=(0.55,)) for s, p in enumerate(parts) if "repeat" in p]
    assert len(checks) == pytest.approx(75, abs=35)
    assert {c.strengths[c.repeat] for c in checks} == {0.55}


def test_without_a_weak_rung_or_a_history_the_checks_are_drawn_evenly():
    parts = {page(seed=seed, rungs=LADDER, n_shown=3).policy for seed in range(200)}
    assert parts == {"mix80/active", "mix80/uniform"}


def test_equals_go_to_the_weaker_rung_whatever_the_rounding():
    fresh = [page(Posterior(), seed=s, n_shown=1, floor=0.0) for s in range(10)]
    assert (0.45,) in {p.strengths for p in fresh if p.policy == "mix80/active"}


def test_the_same_generator_gives_the_same_page():
    assert page(seed=5, history=RUNGS) == page(seed=5, history=RUNGS)
    assert isinstance(page(), PageChoice)


def test_many_rungs_fall_back_to_a_page_at_quantiles_that_still_reaches_the_floor():
    rungs = tuple(round(i / 16, 4) for i in range(1, 17))
    sure = Posterior.replay([jar(0.2, 2, str(i)) for i in range(9)])
    chosen = page(sure, rungs=rungs, n_shown=6, floor=0.9, seed=1)
    assert chosen.policy == "mix80/active"
    assert max(chosen.strengths) >= 0.9
    assert sorted(chosen.strengths)[2] < 0.4
    around = quantile_page(sure.rater, rungs, 4)
    assert [rungs[i] for i in around] == pytest.approx([0.125, 0.1875, 0.25, 0.3125], abs=0.13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rungs": ()}, "`rungs` must be 1 to 16 different strengths, got 0"),
        ({"rungs": tuple(i / 16 for i in range(17))}, "`rungs` must be 1 to 16"),
        ({"rungs": (0.2, 0.2, 0.6, 0.8)}, "`rungs` must be 1 to 16 different"),
        ({"rungs": (0.2, 1.2, 0.6, 0.8)}, r"`rungs` must be in \[0, 1\], got 1.2"),
        ({"n_shown": 0}, "`n_shown` must be 1 to 10, the number of rungs, got 0"),
        ({"n_shown": 11}, "`n_shown` must be 1 to 10"),
        ({"floor": -0.1}, r"`floor` must be in \[0, 1\], got -0.1"),
        ({"floor": float("nan")}, "`floor` must be in"),
        ({"floor": 0.96}, "`rungs` must reach the floor 0.96, got 0.95 at most"),
    ],
)
def test_a_page_that_cannot_be_made_is_refused_by_name(changes, message):
    with pytest.raises(InvalidRatingError, match=message):
        page(**changes)


@pytest.mark.parametrize("n_shown", [1, 4])
def test_choosing_and_updating_takes_a_millisecond_or_so(n_shown):
    generator, posterior, times = np.random.default_rng(0), Posterior(), []
    for turn in range(40):
        started = time.process_time()
        chosen = choose_page(
            posterior,
            rungs=RUNGS,
            n_shown=n_shown,
            floor=0.5,
            generator=generator,
            photo_id=str(turn // 8),
        )
        kind = "jar5" if n_shown == 1 else "best_of_n"
        posterior = posterior.update(
            Judgement(kind=kind, strengths=chosen.strengths, response=0, photo_id=str(turn // 8))
        )
        assert 0 <= posterior.mean <= 1
        times.append(time.process_time() - started)
    # Ten times what it may take on a quiet core: `benchmarks/preference.py` measures.
    assert np.median(times) < 0.010
