import itertools
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import InvalidRatingError, parse_ratings
from feedback.preference.belief import Belief, drift_kernel, photo_kernel
from feedback.preference.judgement import Judgement, judgements_of
from feedback.preference.posterior import Posterior, Prior, RaterModel
from feedback.preference.response import (
    STRENGTHS,
    likelihood,
    n_outcomes,
    nuisances,
    slider_likelihood,
)

RUNGS = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STILL = RaterModel(drift_sd_per_day=0)


def jar(strength, response, photo="a", **more):
    return Judgement(kind="jar5", strengths=(strength,), response=response, photo_id=photo, **more)


@st.composite
def judgements(draw, *, photos=("a", "b", "c"), kinds=("jar5", "likert5", "best_of_n", "slider")):
    kind = draw(st.sampled_from(kinds))
    n = draw(st.integers(2, 4)) if kind == "best_of_n" else 1
    shown = tuple(draw(st.permutations(RUNGS)))[:n]
    if kind == "slider":
        response = draw(st.floats(0, 1))
    else:
        response = draw(st.integers(0, n_outcomes(kind, n) - 1))
    return Judgement(
        kind=kind, strengths=shown, response=response, photo_id=draw(st.sampled_from(photos))
    )


HISTORIES = st.lists(judgements(), max_size=12)


def seen(judgement):
    """Return P(answer | m, nuisance), (51, 30)."""
    if judgement.kind == "slider":
        return slider_likelihood(judgement.response)
    return likelihood(judgement.kind, judgement.strengths)[judgement.response]


# --- The posterior is the one of the model ---------------------------------------------------


@given(HISTORIES)
def test_the_posterior_is_bayes_rule_over_every_cell(history):
    *_, weights = nuisances()
    joint = Prior.flat().density[:, None] * weights
    shift = np.exp(-((STRENGTHS[None, :] - STRENGTHS[:, None]) ** 2) / (2 * 0.08**2))
    shift /= shift.sum(axis=1, keepdims=True)
    for photo in {j.photo_id for j in history}:
        own = np.prod([seen(j) for j in history if j.photo_id == photo], axis=0)
        joint = joint * np.einsum("xm,mn->xn", shift, own)
    joint /= joint.sum()
    posterior = Posterior.replay(history)
    np.testing.assert_allclose(posterior.joint, joint, atol=1e-12)
    np.testing.assert_allclose(posterior.density(), joint.sum(axis=1), atol=1e-12)


def test_binary_answers_give_what_questplus_gives():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "preference.json").read_text())
    peer = golden["questplus"]
    for strengths, answers, density in zip(
        peer["strengths"], peer["answers"], peer["densities"], strict=True
    ):
        history = [
            Judgement(kind="binary", strengths=(s,), response=y, photo_id="a")
            for s, y in zip(strengths, answers, strict=True)
        ]
        found = Posterior.replay(history, model=RaterModel(photo_sd=0)).density()
        np.testing.assert_allclose(found, density, atol=1e-9)


@given(HISTORIES)
def test_the_belief_about_a_photo_is_bayes_rule_over_every_cell(history):
    *_, weights = nuisances()
    rest = Prior.flat().density[:, None] * weights
    own = np.ones((51, 30))
    for photo in {j.photo_id for j in history}:
        table = np.prod([seen(j) for j in history if j.photo_id == photo], axis=0)
        if photo == "a":
            own = table
        else:
            rest = rest * (photo_kernel(0.08) @ table)
    expected = np.einsum("xn,xm,mn->m", rest, photo_kernel(0.08), own)
    found = Posterior.replay(history).photo("a").density
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-12)


@given(HISTORIES)
def test_replay_equals_incremental_update(history):
    posterior = Posterior()
    for judgement in history:
        posterior = posterior.update(judgement)
    again = Posterior.replay(history)
    np.testing.assert_allclose(posterior.joint, again.joint, atol=1e-12)
    assert (posterior.n_answers, posterior.n_photos) == (again.n_answers, again.n_photos)


@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_order_of_answers_is_nothing_without_drift(history, random):
    expected = Posterior.replay(history, model=STILL)
    random.shuffle(history)
    found = Posterior.replay(history, model=STILL)
    np.testing.assert_allclose(found.joint, expected.joint, atol=1e-12)


@given(judgements(kinds=("best_of_n",)), st.randoms(use_true_random=False))
def test_the_order_on_a_page_is_nothing(judgement, random):
    order = list(range(len(judgement.strengths)))
    random.shuffle(order)
    shuffled = replace(
        judgement,
        strengths=tuple(judgement.strengths[i] for i in order),
        response=order.index(judgement.response),
    )
    found, expected = Posterior().update(shuffled), Posterior().update(judgement)
    np.testing.assert_allclose(found.joint, expected.joint, atol=1e-14)


def test_rows_in_any_order_give_one_posterior(world):
    rater = world.rater()
    rows = [row for best in (0, 3, 0) for row in world.rows(world.page(), rater, best=best)]
    expected = Posterior.replay(judgements_of(rows))
    found = Posterior.replay(judgements_of(rows[::-1]))
    assert (found.joint == expected.joint).all()


# --- What answers do -------------------------------------------------------------------------


@given(HISTORIES, st.sampled_from(RUNGS), st.sampled_from("abcd"))
def test_far_too_weak_never_lowers_the_mean_for_fixed_nuisances(history, strength, photo):
    before = Posterior.replay(history)
    after = before.update(jar(strength, 0, photo))
    means = [
        (STRENGTHS @ posterior.joint) / posterior.joint.sum(axis=0) for posterior in (before, after)
    ]
    assert (means[1] >= means[0] - 1e-9).all()


def test_far_too_weak_hardly_ever_lowers_the_mean_and_never_by_more_than_a_twentieth():
    generator = np.random.default_rng(0)
    falls = []
    for _ in range(300):
        history = [
            jar(generator.choice(RUNGS), int(generator.integers(5)), str(generator.integers(3)))
            for _ in range(generator.integers(1, 9))
        ]
        before = Posterior.replay(history)
        falls.append(before.mean - before.update(jar(generator.choice(RUNGS), 0, "0")).mean)
    assert max(falls) < 0.05
    assert np.mean(np.array(falls) > 0) < 0.05


def test_answers_move_the_mean_to_where_they_point():
    assert Posterior().update(jar(0.5, 0)).mean > 0.6
    assert Posterior().update(jar(0.5, 4)).mean < 0.4
    assert Posterior().update(jar(0.55, 2)).mean == pytest.approx(0.55, abs=0.05)


@given(st.integers(0, 4), st.sampled_from(RUNGS), st.integers(1, 30))
def test_a_rater_who_always_answers_the_same_has_a_defined_posterior(response, strength, n):
    posterior = Posterior.replay([jar(strength, response, str(i // 3)) for i in range(n)])
    assert np.isfinite(posterior.joint).all()
    assert posterior.joint.sum() == pytest.approx(1)
    assert 0 <= posterior.interval()[0] <= posterior.mean <= posterior.interval()[1] <= 1


def test_contradictory_answers_widen_the_posterior_and_look_careless():
    steady = [jar(0.55, 2), jar(0.35, 1), jar(0.75, 3), jar(0.55, 2, "b"), jar(0.35, 1, "b")]
    before = Posterior.replay(steady)
    after = before.update(jar(0.15, 4)).update(jar(0.95, 0))
    assert after.sd > before.sd
    assert after.photo("a").sd > before.photo("a").sd
    assert after.p_careless > 3 * before.p_careless


def test_an_undone_answer_leaves_no_trace():
    before = Posterior().update(jar(0.5, 1))
    before.update(jar(0.5, 4)).update(jar(0.9, 0, "b"))
    assert (before.joint == Posterior.replay([jar(0.5, 1)]).joint).all()
    assert (before.n_answers, before.n_photos) == (1, 1)


def test_ten_thousand_answers_of_one_rater_are_as_safe_as_one():
    generator = np.random.default_rng(1)
    strengths = generator.choice(RUNGS, 10_000)
    felt = strengths - 0.6 + 0.1 * generator.standard_normal(10_000)
    answers = np.digitize(felt, (-0.28, -0.1, 0.1, 0.28))
    history = [
        jar(float(s), int(y), str(i % 40))
        for i, (s, y) in enumerate(zip(strengths, answers, strict=True))
    ]
    posterior = Posterior.replay(history)
    assert np.isfinite(posterior.joint).all()
    assert posterior.mean == pytest.approx(0.6, abs=0.03)
    assert posterior.n_answers == 10_000


def test_ten_thousand_contradictory_answers_on_two_photos_leave_a_distribution():
    history = [jar(0.05, 4 * (i % 2), "a") for i in range(5000)]
    history += [jar(0.95, 2, "b") for _ in range(5000)]
    posterior = Posterior.replay(history)
    assert posterior.joint.sum() == pytest.approx(1)
    assert np.isfinite(posterior.photo("a").density).all()
    assert np.isfinite(posterior.update(jar(0.5, 2, "c")).joint).all()


def test_no_answers_leave_the_prior():
    posterior = Posterior.replay([])
    np.testing.assert_allclose(posterior.density(), 1 / 51)
    assert posterior.mean == pytest.approx(0.5)
    assert posterior.p_careless == pytest.approx(0.1)
    assert (posterior.n_answers, posterior.n_photos) == (0, 0)
    assert posterior.interval() == (pytest.approx(0.03), pytest.approx(0.97))


def test_one_photo_alone_never_settles_the_rater_but_settles_itself():
    posterior = Posterior.replay([jar(0.55, 2) for _ in range(60)])
    assert posterior.sd > 0.06
    assert posterior.photo("a").sd < 0.04
    assert posterior.photo("never seen").sd > posterior.sd


# --- Rows that cannot be used ----------------------------------------------------------------


def test_rows_of_a_future_schema_never_reach_the_model(world):
    record = world.rating().as_record() | {"schema_version": 99}
    with pytest.raises(InvalidRatingError, match="`schema_version`"):
        parse_ratings([record])


# --- Time ------------------------------------------------------------------------------------


def test_drift_widens_and_keeps_the_mean_of_someone_in_the_middle():
    before = Posterior.replay([jar(0.5, 2, str(i)) for i in range(8)])
    after = before.next_session(30)
    assert after.mean == pytest.approx(before.mean, abs=1e-3)
    assert after.sd**2 - before.sd**2 == pytest.approx(30 * 0.01**2, rel=0.05)
    assert after.n_answers == before.n_answers


def test_the_drift_of_two_times_is_the_drift_of_their_sum():
    np.testing.assert_allclose(
        drift_kernel(1e-4) @ drift_kernel(3e-3), drift_kernel(3.1e-3), atol=1e-12
    )
    np.testing.assert_allclose(drift_kernel(1e-3).sum(axis=0), 1, atol=1e-12)
    uniform = np.full(51, 1 / 51)
    np.testing.assert_allclose(drift_kernel(1e-2) @ uniform, uniform, atol=1e-12)


def test_answers_of_a_later_session_come_after_the_drift_of_the_days_between():
    first = [jar(0.5, 2, session_id="s1", created_at=NOW)]
    second = jar(0.5, 1, "b", session_id="s2", created_at=NOW + timedelta(days=90))
    by_hand = Posterior.replay(first).next_session(90).update(second)
    np.testing.assert_allclose(Posterior.replay([*first, second]).joint, by_hand.joint, atol=1e-12)
    at_once = Posterior.replay(first).update(second)
    np.testing.assert_allclose(at_once.joint, by_hand.joint, atol=1e-12)
    still = Posterior.replay([*first, second], model=STILL)
    assert still.sd < by_hand.sd


@pytest.mark.parametrize(
    "second",
    [
        {"session_id": "s2", "created_at": NOW + timedelta(minutes=50)},
        {"session_id": "s2", "created_at": NOW - timedelta(days=9)},
        {"session_id": "s2", "created_at": None},
        {"session_id": "s1", "created_at": NOW + timedelta(days=9)},
    ],
)
def test_nothing_drifts_within_an_hour_backwards_without_times_or_within_a_session(second):
    history = [jar(0.5, 2, session_id="s1", created_at=NOW), jar(0.7, 1, **second)]
    found, still = (Posterior.replay(history, model=m) for m in (RaterModel(), STILL))
    np.testing.assert_allclose(found.joint, still.joint, atol=1e-14)


def test_replay_equals_update_over_sessions_with_photos_that_return():
    history = [
        jar(0.5, 2, "a", session_id="s1", created_at=NOW),
        jar(0.6, 3, "a", session_id="s1", created_at=NOW),
        jar(0.4, 1, "a", session_id="s2", created_at=NOW + timedelta(days=10)),
        jar(0.4, 1, "b", session_id="s3", created_at=NOW + timedelta(days=10, minutes=1)),
        jar(0.3, 0, "b", session_id="s4", created_at=NOW + timedelta(days=20)),
    ]
    posterior = Posterior()
    for judgement in history:
        posterior = posterior.update(judgement)
    again = Posterior.replay(history)
    np.testing.assert_allclose(posterior.joint, again.joint, atol=1e-12)
    assert again.n_photos == 2


@pytest.mark.parametrize("days", [-1, float("nan"), float("inf")])
def test_days_must_be_a_time_that_has_passed(days):
    with pytest.raises(InvalidRatingError, match="`days` must be a finite number from 0"):
        Posterior().next_session(days)


def test_no_time_and_no_drift_change_nothing():
    posterior = Posterior.replay([jar(0.5, 2)])
    assert (posterior.next_session(0).joint == posterior.joint).all()
    still = Posterior.replay([jar(0.5, 2)], model=STILL)
    assert (still.next_session(99).joint == still.joint).all()


# --- Priors and beliefs ----------------------------------------------------------------------


def test_a_prior_is_a_tenth_uniform_so_that_no_taste_is_impossible():
    only_one = Prior("one", tuple(float(i == 10) for i in range(51)))
    assert only_one.density.sum() == pytest.approx(1)
    assert only_one.density[40] == pytest.approx(0.1 / 51)
    far_off = Posterior(only_one)
    for i in range(8):
        far_off = far_off.update(jar(0.85, 2, str(i)))
    assert far_off.mean > 0.7


@pytest.mark.parametrize(
    "weights", [(), (1.0,) * 50, (-1.0,) + (1.0,) * 50, (0.0,) * 51, (np.nan,) * 51, (np.inf,) * 51]
)
def test_a_prior_needs_51_weights(weights):
    with pytest.raises(InvalidRatingError, match="`weights` must be 51 finite numbers"):
        Prior("bad", weights)


@pytest.mark.parametrize(
    "changes", [{"photo_sd": 0.01}, {"photo_sd": 2}, {"photo_sd": -1}, {"drift_sd_per_day": -1}]
)
def test_a_model_that_the_grid_cannot_hold_is_refused(changes):
    with pytest.raises(InvalidRatingError, match=f"`{next(iter(changes))}`"):
        RaterModel(**changes)


def test_without_a_photo_level_all_photos_are_one():
    history = [jar(0.5, 2, "a"), jar(0.7, 2, "b"), jar(0.7, 3, "a")]
    naive = RaterModel(photo_sd=0)
    one = [replace(j, photo_id="a") for j in history]
    found = Posterior.replay(history, model=naive)
    np.testing.assert_allclose(found.joint, Posterior.replay(one, model=naive).joint, atol=1e-14)
    np.testing.assert_allclose(found.photo("a").density, found.density(), atol=1e-14)


@given(st.lists(st.floats(0.001, 1), min_size=51, max_size=51), st.floats(0, 1))
def test_quantiles_are_the_least_strength_with_that_much_at_or_below(weights, q):
    density = np.array(weights) / sum(weights)
    position = int(np.rint(Belief(density).quantile(q) * 50))
    below = density.cumsum()
    assert below[position] >= q - 1e-9
    assert position == 0 or below[position - 1] < q + 1e-9


def test_a_quantile_outside_the_unit_is_refused():
    for q in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidRatingError, match="`q` must be in"):
            Posterior().quantile(q)


def test_a_belief_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        Posterior().density()[0] = 1


# --- Speed -----------------------------------------------------------------------------------


def test_replay_of_200_ratings_takes_milliseconds():
    history = [jar(s, y, str(p)) for s, y, p in itertools.product(RUNGS, range(5), range(4))]
    Posterior.replay(history)
    started = time.process_time()
    posterior = Posterior.replay(history)
    assert posterior.mean == pytest.approx(0.5, abs=0.05)
    # Ten times what it may take on a quiet core: `benchmarks/preference.py` measures.
    assert time.process_time() - started < 0.05
