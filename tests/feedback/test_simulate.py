import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from feedback import InvalidRatingError
from feedback.preference.belief import drift_kernel
from feedback.preference.judgement import Judgement
from feedback.preference.posterior import Posterior, Prior, RaterModel
from feedback.preference.response import STRENGTHS
from feedback.preference.selection import (
    admissible_sets,
    choice_variance,
    least,
    moments,
    single_variance,
)
from feedback.simulate.batch import PosteriorBatch
from feedback.simulate.run import (
    PAGES,
    RUNGS,
    SINGLES,
    SimulationResult,
    SimulationSettings,
    run_simulation,
    trace,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "preference.json").read_text())
TOLERANCE = GOLDEN["tolerance"]


def named(cases, *quick):
    """Return pytest parameters of golden cases; those that take long are slow."""
    return [
        pytest.param(
            case,
            id="-".join(str(v) for v in list(case.values())[:2]),
            marks=() if tuple(case.values())[:2] in quick else pytest.mark.slow,
        )
        for case in cases
    ]


def run(**settings):
    return run_simulation(SimulationSettings(**settings))


# --- Golden recovery -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    named(
        GOLDEN["answers"]["rmse"],
        ("jar5", "fixed"),
        ("jar5", "random"),
        ("likert5", "random"),
    ),
)
def test_tastes_are_recovered_as_the_reference_says(case):
    after = GOLDEN["answers"]["after"]
    result = run(response=case["response"], select=case["select"])
    np.testing.assert_allclose([result.rmse[n] for n in after], case["rmse"], atol=TOLERANCE)
    assert 0.90 <= result.coverage90[10] <= 0.96


@pytest.mark.parametrize("case", named(GOLDEN["pages"]["rmse"], ("best_then_jar5", "quantile")))
def test_pages_recover_tastes_as_the_reference_says(case):
    after = GOLDEN["pages"]["after"]
    result = run(response=case["response"], select=case["select"], n_answers=max(after))
    np.testing.assert_allclose([result.rmse[n] for n in after], case["rmse"], atol=TOLERANCE)


def test_three_and_six_answers_are_enough():
    result = run(n_answers=8, seed=11)
    golden = dict(
        zip(GOLDEN["answers"]["after"], GOLDEN["answers"]["rmse"][0]["rmse"], strict=True)
    )
    for n in (0, 1, 2, 3, 4, 6, 8):
        assert result.rmse[n] == pytest.approx(golden[n], abs=TOLERANCE)
    assert result.rmse[3] <= 0.10
    assert result.rmse[6] <= 0.075
    assert all(0.87 <= share <= 0.95 for share in result.coverage90[2:])


@pytest.mark.parametrize("case", named(GOLDEN["photos"]["cases"], (1, 8)))
def test_the_photo_level_keeps_intervals_honest_where_the_naive_model_does_not(case):
    photos, each = case["photos"], case["each"]
    for is_two_level, name in ((True, "two_level"), (False, "naive")):
        result = run(n_answers=photos * each, n_photos=photos, is_two_level=is_two_level)
        rmse, coverage = case[name]
        assert result.rmse[-1] == pytest.approx(rmse, abs=TOLERANCE)
        assert result.coverage90[-1] == pytest.approx(coverage, abs=0.03)
        if is_two_level:
            assert 0.87 <= result.coverage90[-1] <= 0.95


@pytest.mark.parametrize("case", named(GOLDEN["habits"]["cases"], ("wide", 0.066)))
def test_raters_who_differ_from_the_model_cost_what_the_reference_says(case):
    result = run(n_answers=8, habits=case["habits"])
    assert result.rmse[8] == pytest.approx(case["rmse"], abs=TOLERANCE)
    assert result.coverage90[8] == pytest.approx(case["coverage90"], abs=0.03)


def test_choosing_sets_beats_a_page_at_quantiles():
    active, quantile = (
        run(response="best_then_jar5", select=select, n_answers=3, n_raters=1000)
        for select in ("active", "quantile")
    )
    assert active.rmse[3] < quantile.rmse[3] - 0.005


def test_a_drift_that_the_model_allows_for_keeps_intervals_honest():
    blind = run(n_raters=400, habits="drift")
    aware = run(n_raters=400, habits="drift", assumed_drift=0.03)
    assert blind.coverage90[20] < 0.75
    assert 0.87 <= aware.coverage90[20] <= 0.96
    assert aware.rmse[20] < blind.rmse[20]


def test_knowing_that_some_are_careless_helps_with_careless_raters():
    aware, blind = (
        run(n_raters=1000, n_answers=8, habits="careless", knows_careless=knows)
        for knows in (True, False)
    )
    assert aware.rmse[8] < blind.rmse[8]


def test_a_fitting_prior_saves_answers_and_avoids_the_first_answer_trap():
    narrow = Prior("narrow", tuple(np.exp(-((STRENGTHS - 0.55) ** 2) / (2 * 0.1**2))))
    flat, known = (
        run(n_raters=1000, n_answers=2, taste=(0.55, 0.08), prior=p) for p in (None, narrow)
    )
    assert flat.rmse[1] > flat.rmse[0] + 0.02
    assert known.rmse[1] <= known.rmse[0] + 0.005
    assert known.rmse[1] < flat.rmse[1] - 0.03


# --- Calibration -----------------------------------------------------------------------------


def ranks_p_value(settings, *, bins=20):
    """Return the p-value of the randomised ranks of the truth being uniform (Talts et al.)."""
    traces = trace(settings)
    truth, believed = traces.ideals[-1], traces.densities[-1]
    point = np.rint(truth * 50).astype(int)
    rows = np.arange(len(point))
    below = np.cumsum(believed, axis=1)[rows, point] - believed[rows, point]
    jitter = np.random.default_rng(99).random(len(point))
    rank = below + jitter * believed[rows, point]
    counts = np.histogram(rank, bins=bins, range=(0, 1))[0]
    expected = len(rank) / bins
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), bins - 1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"response": "likert5"},
        {"response": "best_of_n", "n_answers": 4},
        {"n_photos": 3},
        {"select": "random"},
    ],
)
def test_ranks_of_the_truth_are_uniform_also_when_pages_are_chosen(changes):
    settings = {"n_raters": 1000, "n_answers": 8, "truth": "grid", "seed": 5} | changes
    assert ranks_p_value(SimulationSettings(**settings)) > 1e-4


def test_the_calibration_test_sees_a_model_that_is_too_sure():
    settings = {"n_raters": 1000, "n_answers": 8, "truth": "grid", "seed": 5, "n_photos": 1}
    assert ranks_p_value(SimulationSettings(**settings, is_two_level=False)) < 1e-4


# --- The batch is the posterior --------------------------------------------------------------


@pytest.mark.parametrize("photo_sd", [0.0, 0.08])
def test_many_posteriors_at_once_are_the_posteriors_one_by_one(photo_sd):
    generator = np.random.default_rng(0)
    model = RaterModel(photo_sd=photo_sd)
    batch = PosteriorBatch(3, prior=None, photo_sd=photo_sd)
    single = [Posterior(model=model) for _ in range(3)]
    sets = admissible_sets(RUNGS, 4, 0.0)
    for turn in range(6):
        kind, photo = ("jar5", "best_of_n", "likert5")[turn % 3], str(turn // 2)
        if turn % 2 == 0:
            batch.next_photo()
        of = [moments(*p.cavity(photo), photo_sd) for p in single]
        if kind == "best_of_n":
            rungs = batch.best_set(RUNGS, sets)
            expected = [sets[least(choice_variance(x, RUNGS, sets))] for x in of]
        else:
            rungs = batch.best_single(kind, RUNGS)[:, None]
            expected = [[least(single_variance(x, kind, RUNGS))] for x in of]
        np.testing.assert_array_equal(rungs, expected)
        answers = generator.integers(3, size=3)
        shown = np.asarray(RUNGS)[rungs]
        batch.update(kind, shown, answers)
        single = [
            p.update(Judgement(kind=kind, strengths=tuple(s), response=int(y), photo_id=photo))
            for p, s, y in zip(single, shown.tolist(), answers, strict=True)
        ]
        np.testing.assert_allclose(batch.density(), [p.density() for p in single], atol=1e-12)


def test_drift_in_the_batch_is_the_drift_of_the_posterior():
    batch = PosteriorBatch(1, prior=None, photo_sd=0.08)
    batch.update("jar5", np.array([[0.55]]), np.array([1]))
    before = batch.density()
    batch.drift(0.05)
    np.testing.assert_allclose(batch.density()[0], drift_kernel(0.05**2) @ before[0], atol=1e-12)


# --- Settings and results --------------------------------------------------------------------


def test_the_same_seed_gives_the_same_result_and_another_seed_another():
    first, again, other = (run(n_raters=20, n_answers=3, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.rmse != other.rmse


def test_a_result_counts_from_no_answer_and_can_be_printed():
    result = run(n_raters=20, n_answers=4, response="best_of_n", n_photos=2, seed=3)
    record = json.loads(json.dumps(asdict(result)))
    assert len(record["rmse"]) == len(record["coverage90"]) == 5
    assert {
        k: record[k] for k in ("raters", "answers", "seed", "response", "select", "photos")
    } == {
        "raters": 20,
        "answers": 4,
        "seed": 3,
        "response": "best_of_n",
        "select": "active",
        "photos": 2,
    }
    assert isinstance(result, SimulationResult)


def test_a_result_is_the_trace_summed_up_over_all_parts_of_the_crowd():
    settings = SimulationSettings(n_raters=300, n_answers=5, seed=2)
    result, traces = run_simulation(settings), trace(settings)
    errors = traces.means - traces.ideals
    assert result.rmse == tuple(np.sqrt((errors**2).mean(axis=1)).round(5))
    assert result.coverage90 == tuple(traces.covered().mean(axis=1).round(5))


def test_memory_does_not_grow_with_the_number_of_raters():
    def peak(n_raters):
        tracemalloc.start()
        run(n_raters=n_raters, n_answers=10, select="fixed")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(20)  # Tables are made once.
    beliefs_of_1000_more = 11 * 1000 * 51 * 8
    assert peak(1500) - peak(500) < beliefs_of_1000_more / 4


def test_half_of_the_raters_settle_after_about_seven_answers_and_nobody_at_once():
    assert run(n_raters=500).median_answers_to_settle == pytest.approx(7, abs=1)
    assert run(n_raters=20, n_answers=2).median_answers_to_settle is None


@pytest.mark.parametrize(
    ("response", "select"),
    [(r, s) for r in SINGLES for s in ("active", "random", "fixed")]
    + [(r, s) for r in PAGES for s in ("active", "random", "quantile")],
)
def test_every_kind_of_question_teaches_something(response, select):
    result = run(n_raters=60, n_answers=6, response=response, select=select)
    assert result.rmse[6] < result.rmse[0]


def test_no_answers_are_a_result_too():
    result = run(n_raters=50, n_answers=0)
    assert len(result.rmse) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response": "stars"}, "`response` must be one of jar5, .*, got 'stars'"),
        ({"select": "best"}, "`select` must be one of active, random, fixed, quantile"),
        ({"habits": "lazy"}, "`habits` must be one of none, wide"),
        ({"truth": "false"}, "`truth` must be one of people, grid"),
        ({"n_raters": 0}, "`n_raters` must be an integer from 1 to"),
        ({"n_raters": True}, "`n_raters` must be an integer"),
        ({"n_answers": -1}, "`n_answers` must be an integer from 0 to"),
        ({"n_answers": 1.5}, "`n_answers` must be an integer"),
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"n_photos": 0}, "`n_photos` must be an integer from 1 to 20"),
        ({"n_photos": 21}, "`n_photos` must be an integer from 1 to 20"),
        ({"select": "quantile"}, "`select` must fit the response, got quantile for jar5"),
        ({"select": "fixed", "response": "best_of_n"}, "`select` must fit the response"),
    ],
)
def test_settings_that_break_a_rule_are_refused_by_name(changes, message):
    with pytest.raises(InvalidRatingError, match=message):
        SimulationSettings(**changes)
