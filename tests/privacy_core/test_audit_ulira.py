"""U-LiRA on Gaussians whose attack is known; forgetting quality, people and the gate."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy_core.audit import ulira
from privacy_core.audit.forgetting import (
    forgetting_quality,
    forgetting_score,
    person_scores,
    row_epsilons,
)
from privacy_core.audit.gate import decide
from privacy_core.audit.metrics import auc
from privacy_core.audit.ulira import Scores, attack, evaluate, leave_one_out
from privacy_core.errors import InvalidArgumentError


def normal(k, n=320, *, shift=0.0, sd=1.0, seed=0):
    return np.random.default_rng([seed, k]).normal(shift, sd, (k, n))


# --- U-LiRA ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_many_models_reach_the_known_auc_of_shifted_gaussians(shift):
    # ln N(x; d, 1)/N(x; 0, 1) is N(±d²/2, d²): its AUC is Φ(d/√2).
    found = attack(normal(64, shift=shift), normal(64, seed=1), seed=0)
    assert found.auc.value == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=0.02)
    assert found.auc.low < found.auc.value < found.auc.high


def test_the_control_of_eight_models_is_below_one_half():
    # Leaving a model out moves its own side's fit away from it: .476 in the reference simulation.
    aucs = [attack(normal(8, seed=s), normal(8, seed=s + 99), seed=0).auc.value for s in range(12)]
    assert np.mean(aucs) == pytest.approx(0.48, abs=0.012)


def test_an_exact_method_stays_within_the_controls_splits():
    references = normal(8), normal(8, seed=1)
    found = ulira.control(*references, seed=0)
    exact = attack(normal(8, seed=2), references[0], seed=0)
    assert found.auc.low - 0.01 < exact.auc.value < found.auc.high + 0.01
    assert found.share_advantage.low < found.share_advantage.value < found.share_advantage.high
    assert exact.share_advantage <= found.share_advantage.high
    memorised = attack(normal(8, shift=2, seed=2), references[0], seed=0)
    assert memorised.share_advantage > found.share_advantage.high
    assert set(found.as_json()) == {
        "auc", "share_of_rows_with_advantage_above_half", "n_splits"
    }  # fmt: skip


def test_the_first_split_is_the_one_given():
    one, two = normal(6), normal(6, seed=1)
    found = ulira.control(one, two, seed=5, n_splits=1)
    assert found.auc.value == pytest.approx(attack(one, two, seed=0).auc.value)


def test_scoring_models_by_fits_that_saw_them_would_find_what_is_not_there():
    one, two = normal(8), normal(8, seed=5)
    fit_one, fit_two = ulira._Fit(one, ulira.NU0), ulira._Fit(two, ulira.NU0)
    seen = [
        np.stack([fit_one.log_density(x) - fit_two.log_density(x) for x in side])
        for side in (one, two)
    ]
    left_out = leave_one_out(one, two)
    assert auc(*seen) > 0.6
    assert auc(left_out.unlearned, left_out.reference) < 0.52


def test_the_scored_model_is_in_neither_fit():
    one, two = normal(6), normal(6, seed=1)
    moved = one.copy()
    moved[2] += 50
    before, after = leave_one_out(one, two), leave_one_out(moved, two)
    # Model 2's own score is against fits of the others; they are the same as before.
    expected = ulira._Fit(np.delete(one, 2, 0), ulira.NU0).log_density(moved[2]) - ulira._Fit(
        two, ulira.NU0
    ).log_density(moved[2])
    np.testing.assert_allclose(after.unlearned[2], expected)
    assert not np.allclose(before.unlearned[1], after.unlearned[1])


def test_densities_are_students_t_with_shrunken_variance():
    values = normal(5, 3, seed=2)
    own = values.var(0, ddof=1)
    shrunk = (4 * np.median(own) + 4 * own) / 8
    x = np.array([0.3, -1.0, 2.0])
    expected = stats.t.logpdf(x, 8, values.mean(0), np.sqrt(shrunk * (1 + 1 / 5)))
    np.testing.assert_allclose(ulira._Fit(values, 4.0).log_density(x), expected)


def test_spread_alone_is_found_too():
    found = attack(normal(32, sd=3.0), normal(32, seed=1), seed=0)
    assert found.auc.value > 0.65


def test_memorised_rows_show_in_the_worst_rows_and_not_in_the_population():
    one, two = normal(16), normal(16, seed=1)
    one[:, :16] += 8
    found, control = attack(one, two, seed=0), attack(normal(16, seed=7), two, seed=0)
    assert found.worst_rows == 1
    assert found.share_advantage == pytest.approx(0.05, abs=0.02)
    assert control.worst_rows < 0.8
    assert found.tpr[0.01].value > control.tpr[0.01].value + 0.02
    assert found.auc.value < 0.56


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_pooled_auc_is_that_of_all_scores_and_of_the_curve(seed):
    rng = np.random.default_rng(seed)
    scores = Scores(rng.integers(0, 6, (3, 5)).astype(float), rng.integers(0, 5, (4, 5)) * 1.0)
    found = evaluate(scores, seed=0, n_draws=5)
    assert found.auc.value == pytest.approx(auc(scores.unlearned, scores.reference))
    alarms, hits = found.roc
    assert np.trapezoid(hits, alarms) == pytest.approx(found.auc.value)
    assert (alarms[0], hits[0], alarms[-1], hits[-1]) == (0, 0, 1, 1)


def test_the_true_positive_rate_allows_no_more_false_ones():
    reference = np.arange(100.0).reshape(1, 100)
    unlearned = np.concatenate([np.full(40, 98.5), np.full(60, 94.5)]).reshape(1, 100)
    found = evaluate(Scores(unlearned, reference), seed=0, n_draws=3)
    assert found.tpr[0.01].value == pytest.approx(0.4)
    assert found.tpr[0.05].value == pytest.approx(1.0)


def test_an_advantage_is_the_best_single_threshold_of_its_row():
    scores = Scores(np.array([[2.0, 0], [3, 1]]), np.array([[1.0, 0], [0, 1]]))
    np.testing.assert_allclose(ulira.row_advantages(scores), [1, 0])


def test_intervals_come_from_models_and_repeat_for_a_seed():
    one, two = normal(8), normal(8, seed=1)
    one[0] += 3  # one model that stands out
    a, b, c = (attack(one, two, seed=s) for s in (1, 1, 2))
    assert a.auc == b.auc != c.auc
    calm = attack(normal(8), two, seed=1).auc
    assert a.auc.high - a.auc.low > calm.high - calm.low


def test_an_attack_is_plain_json_without_the_curve():
    value = attack(normal(4), normal(5, seed=1), seed=0).as_json()
    assert value["n_models"] == [4, 5]
    assert set(value["tpr_at_fpr"]) == {"0.01", "0.05"}
    assert "roc" not in value


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (normal(2), normal(8), "at least 3 models each, got 2 and 8"),
        (normal(8, 4), normal(8, 5), r"got the shapes \(8, 4\) and \(8, 5\)"),
        (np.full((4, 3), math.inf), normal(4, 3), "must be finite"),
        (np.ones((4, 3)), normal(4, 3), "models of a side must differ"),
    ],
)
def test_what_cannot_be_attacked_has_no_number(one, two, message):
    with pytest.raises(InvalidArgumentError, match=message):
        leave_one_out(one, two)


# --- Forgetting ------------------------------------------------------------------------------


def test_identical_samples_have_no_epsilon_and_full_points():
    x = np.tile(np.arange(8.0)[:, None], (1, 5))
    eps, is_separated = row_epsilons(x, x)
    assert not is_separated.any()
    assert forgetting_quality(np.zeros((8, 5)), np.zeros((8, 5))) == 1
    assert np.all(eps < math.log(8))


def test_separated_samples_have_the_cap_and_no_points():
    eps, is_separated = row_epsilons(normal(8) + 100, normal(8, seed=1))
    assert is_separated.all()
    np.testing.assert_allclose(eps, math.log(8))
    assert forgetting_quality(normal(8) + 100, normal(8, seed=1)) == 0


def test_epsilon_by_hand():
    # K = 4, threshold 2: FPR 1/4, FNR 1/4, so ε = ln((3/4 - δ)/(1/4)); no other is larger.
    one, two = np.array([[1.0], [2], [3], [4]]), np.array([[-1.0], [0], [0.5], [2.5]])
    eps, _ = row_epsilons(one, two, delta=1e-5)
    assert eps[0] == pytest.approx(math.log((0.75 - 1e-5) / 0.25))
    assert forgetting_quality(one, two) == 2.0**-2


def test_epsilon_does_not_care_which_side_is_higher():
    one, two = normal(8), normal(8, shift=1, seed=1)
    np.testing.assert_allclose(row_epsilons(one, two)[0], row_epsilons(two, one)[0])
    np.testing.assert_allclose(row_epsilons(one, two)[0], row_epsilons(-one, -two)[0])


def test_chance_has_the_published_forgetting_quality():
    # .37 / .31 / .30 at K = 4 / 8 / 16 in the reference simulation.
    for k, expected in ((4, 0.37), (8, 0.31), (16, 0.30)):
        found = np.mean([forgetting_quality(normal(k, seed=s), normal(k, seed=s + 50))
                         for s in range(8)])  # fmt: skip
        assert found == pytest.approx(expected, abs=0.035)


def test_unequal_sets_of_models_are_refused():
    with pytest.raises(InvalidArgumentError, match="as many models"):
        row_epsilons(normal(4), normal(5))


def test_the_score_multiplies_by_kept_utility():
    assert forgetting_score(0.4, retain=(0.9, 0.9), test=(0.4, 0.8)) == pytest.approx(0.2)
    with pytest.raises(InvalidArgumentError, match="must be positive"):
        forgetting_score(0.4, retain=(0.9, 0.0), test=(0.4, 0.8))


def test_a_persons_score_is_the_trimmed_mean_of_their_photos():
    table = np.array([[0.0, 1, 2, 3, 100, 7, 9]])
    found = person_scores(Scores(table, -table), list("aaaaabb"))
    np.testing.assert_allclose(found.unlearned, [[2, 8]])
    np.testing.assert_allclose(found.reference, [[-2, -8]])


def test_many_photos_tell_more_of_a_person_than_one():
    one, two = normal(8, 240, shift=0.7), normal(8, 240, seed=1)
    scores = leave_one_out(one, two)
    people = person_scores(scores, np.arange(240) // 8)
    rows, persons = (evaluate(s, seed=0) for s in (scores, people))
    assert persons.n_rows == 30
    assert persons.auc.value > rows.auc.value + 0.1


@pytest.mark.parametrize(
    ("people", "trim", "message"),
    [([1, 2], 0.2, "one person per row"), ([1, 2, 3], 0.5, r"`trim` must be in \[0, 0.5\)")],
)
def test_people_must_fit_the_rows(people, trim, message):
    with pytest.raises(InvalidArgumentError, match=message):
        person_scores(Scores(np.zeros((1, 3)), np.zeros((1, 3))), people, trim=trim)


# --- The gate --------------------------------------------------------------------------------

GOOD = {
    "auc": 0.58,
    "control_auc": 0.47,
    "share_advantage": 0.04,
    "control_share_advantage": 0.05,
    "gaps": {"retain": 0.4, "test": 1.9, "revised": 2.0},
}


def test_a_model_within_all_limits_passes():
    result = decide(**GOOD)
    assert result.passed
    assert result.reasons == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"auc": 0.61}, "per-example attack AUC is 0.61; the limit is 0.6."),
        ({"share_advantage": 0.06}, "share of rows with an advantage above 0.5 is 0.06"),
        ({"gaps": GOOD["gaps"] | {"test": 2.1}}, "test rows is 2.1; the limit is 2"),
        ({"gaps": {"retain": 0, "test": 0}}, "revised rows was not measured"),
        ({"gaps": None}, "retain rows was not measured"),
        ({"auc": None}, "per-example attack AUC was not measured"),
        ({"control_auc": None}, "has no control to compare with"),
        ({"control_share_advantage": None}, "has no control to compare with"),
        ({"share_advantage": None}, "was not measured"),
        ({"auc": math.nan}, "per-example attack AUC is nan"),
    ],
)
def test_what_fails_or_is_missing_closes_the_gate(changes, reason):
    result = decide(**(GOOD | changes))
    assert not result.passed
    assert reason in " ".join(result.reasons)


def test_the_limit_follows_a_high_control():
    assert decide(**(GOOD | {"auc": 0.64, "control_auc": 0.55})).passed
    assert not decide(**(GOOD | {"auc": 0.66, "control_auc": 0.55})).passed


def test_an_attack_that_was_not_run_is_never_a_half():
    result = decide(auc=None, control_auc=None, gaps=GOOD["gaps"])
    assert not result.passed
    first = result.as_json()["checks"][0]
    assert (first["value"], first["limit"], first["passed"]) == (None, None, False)
