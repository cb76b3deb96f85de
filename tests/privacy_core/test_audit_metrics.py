"""Metrics on cases worked out by hand, and without the known errors of public code."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from privacy_core.audit import metrics
from privacy_core.audit.estimates import (
    Estimate,
    interval,
    mean_over_models,
    mean_over_people,
)
from privacy_core.errors import InvalidArgumentError

SEEDS = st.integers(0, 2**31)


def distributions(rng, n, c):
    return rng.dirichlet(np.full(c, 0.5), n)


def test_a_row_is_correct_where_its_own_logit_is_largest():
    logits = np.array([[[2.0, 1, 0], [0, 0.5, 0]], [[0, 1, 2], [1, 0, 0]]])
    np.testing.assert_array_equal(metrics.is_correct(logits, np.array([0, 1])), [[1, 1], [0, 0]])


def test_margin_is_the_log_odds_of_the_label():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    expected = np.log([0.2 / 0.8, 0.6 / 0.4])
    np.testing.assert_allclose(metrics.margin(logits, np.array([1, 1])), expected)


def test_margin_stays_finite_where_the_loss_rounds_to_zero():
    logits = np.array([[500.0, 0.0, 0.0]])
    assert metrics.losses(logits, np.array([0]))[0] == 0
    assert metrics.margin(logits, np.array([0]))[0] == pytest.approx(500 - math.log(2))


def test_margin_needs_two_labels():
    with pytest.raises(InvalidArgumentError, match="at least two labels, got 1"):
        metrics.margin(np.zeros((2, 1)), np.array([0, 0]))


def test_losses_are_cross_entropies():
    np.testing.assert_allclose(
        metrics.losses(np.log([[0.25, 0.75]]) + 3, np.array([0])), [-math.log(0.25)]
    )


def test_modified_entropy_by_hand():
    p = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    labels = np.array([0, 1, 2])
    expected = [
        -0.3 * math.log(0.7) - 0.2 * math.log(0.8) - 0.1 * math.log(0.9),
        -0.8 * math.log(0.2) - 0.7 * math.log(0.3) - 0.1 * math.log(0.9),
        -0.75 * math.log(0.25) - 0.5 * math.log(0.5) - 0.25 * math.log(0.75),
    ]
    np.testing.assert_allclose(metrics.modified_entropy(np.log(p), labels), expected)


def test_modified_entropy_is_not_the_public_codes():
    # There ln(1 - p) is written as ln p, and the labels index whole columns.
    p = np.array([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3]])
    labels = np.array([0, 1])
    wrong_log = -(1 - p[:, 0]) * np.log(p[:, 0]) - (p[:, 1:] * np.log(p[:, 1:])).sum(1)
    ours = metrics.modified_entropy(np.log(p), labels)
    assert np.all(np.abs(ours - wrong_log) > 0.05)
    alone = [metrics.modified_entropy(np.log(p[[i]]), labels[[i]])[0] for i in range(2)]
    np.testing.assert_allclose(ours, alone)


def test_modified_entropy_of_certain_rows_is_finite_and_ordered():
    logits = np.array([[60.0, 0, 0], [0, 60.0, 0], [2000.0, 0, 0]])
    found = metrics.modified_entropy(logits, np.zeros(3, int))
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(0, abs=1e-9)
    assert found[2] == pytest.approx(0, abs=1e-9)
    # A wrong certain row: its label costs ln p, and so does the other's ln(1 - p).
    assert found[1] == pytest.approx(60 + 60 - math.log(2), abs=0.1)


@given(SEEDS)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_complement_is_the_sum_of_the_others(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, rng.choice([1, 30]), (4, 5))
    log_p = metrics.log_probabilities(logits)
    expected = np.stack([logsumexp(np.delete(log_p, i, 1), axis=1) for i in range(5)], 1)
    np.testing.assert_allclose(metrics.log1m(log_p), expected, rtol=1e-6, atol=1e-12)


@given(SEEDS)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_js_is_symmetric_zero_at_equality_and_at_most_ln_2(seed):
    rng = np.random.default_rng(seed)
    p, q = distributions(rng, 6, 4), distributions(rng, 6, 4)
    found = metrics.js_divergence(p, q)
    np.testing.assert_allclose(found, metrics.js_divergence(q, p), atol=1e-15)
    assert np.all((found >= 0) & (found <= math.log(2) + 1e-12))
    np.testing.assert_allclose(metrics.js_divergence(p, p), 0, atol=1e-15)


def test_js_by_hand_in_nats():
    assert metrics.js_divergence([[1.0, 0]], [[0, 1.0]])[0] == pytest.approx(math.log(2))
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4)
    expected = 0.5 * math.log(4 / 3) + 0.5 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert metrics.js_divergence([[1.0, 0]], [[0.5, 0.5]])[0] == pytest.approx(expected)


def test_js_is_neither_averaged_over_labels_nor_one_sided():
    # Public code: F.kl_div(log p, m) is KL(m‖p), averaged over rows and labels.
    p, q = np.array([[0.9, 0.1]]), np.array([[0.3, 0.7]])
    m = (p + q) / 2
    public = 0.5 * ((m * np.log(m / p)).mean() + (m * np.log(m / q)).mean())
    assert metrics.js_divergence(p, q)[0] != pytest.approx(public, rel=0.2)
    twice = metrics.js_divergence(np.tile(p, (7, 1)), np.tile(q, (7, 1)))
    np.testing.assert_allclose(twice, metrics.js_divergence(p, q)[0])


def test_activation_distance_is_euclidean():
    assert metrics.activation_distance([[1.0, 0]], [[0, 1.0]])[0] == pytest.approx(math.sqrt(2))


def test_pairs_of_models_count_once_and_never_with_themselves():
    p = np.array([[[1.0, 0]], [[0, 1.0]], [[0, 1.0]]])
    found = metrics.over_pairs("js", p, p, is_same=True)
    assert found.shape == (3, 1)
    np.testing.assert_allclose(np.sort(found[:, 0]), [0, math.log(2), math.log(2)])
    assert metrics.over_pairs("activation", p, p).shape == (9, 1)
    with pytest.raises(InvalidArgumentError, match="at least one pair"):
        metrics.over_pairs("js", p[:1], p[:1], is_same=True)


def test_gaps_are_points_to_the_mean_reference():
    assert metrics.gap(0.9, [0.85, 0.87]) == pytest.approx(4)
    assert metrics.average_gap({"retain": 1.0, "test": 4.0}) == 2.5
    with pytest.raises(InvalidArgumentError, match="Give a reference model"):
        metrics.average_gap({})


def test_tow_multiplies_what_is_left_of_each_accuracy():
    mine = {"forget": 0.9, "retain": 1.0, "test": 0.8}
    reference = {"forget": 0.8, "retain": 0.9, "test": 0.85}
    assert metrics.tug_of_war(mine, reference) == pytest.approx(0.9 * 0.9 * 0.95)
    assert metrics.tug_of_war(mine, mine) == 1
    with pytest.raises(InvalidArgumentError, match="got no test"):
        metrics.tug_of_war({"forget": 1, "retain": 1}, reference)


def test_auc_counts_ties_half():
    assert metrics.auc([1, 2, 3], [0, 2]) == pytest.approx(4.5 / 6)
    assert metrics.auc([1, 1], [1]) == 0.5


@pytest.mark.parametrize("wrong", [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_auc_of_nothing_is_no_half(wrong):
    with pytest.raises(InvalidArgumentError, match="scores that are numbers"):
        metrics.auc(*wrong)


def test_the_population_attack_reads_losses_and_no_sizes():
    known, new = np.log([[0.9, 0.1], [0.8, 0.2]]), np.log([[0.6, 0.4], [0.85, 0.15], [0.2, 0.8]])
    zeros = np.zeros(3, int)
    found = metrics.population_attack(known, zeros[:2], new, zeros)
    assert found == pytest.approx(5 / 6)
    many = metrics.population_attack(known, zeros[:2], np.tile(new, (9, 1)), np.zeros(27, int))
    assert many == pytest.approx(found)


# --- Intervals -------------------------------------------------------------------------------


def test_photos_of_one_person_are_drawn_together():
    rng = np.random.default_rng(0)
    per_person = rng.normal(0, 1, 40)
    values = np.repeat(per_person, 10)
    by_person = mean_over_people(values, np.repeat(np.arange(40), 10), seed=0)
    by_photo = mean_over_people(values, np.arange(400), seed=0)
    width = by_person.high - by_person.low
    assert width == pytest.approx(2 * 1.96 * per_person.std() / math.sqrt(40), rel=0.2)
    assert width > 2.5 * (by_photo.high - by_photo.low)


def test_the_mean_weighs_rows_and_the_interval_holds_it():
    found = mean_over_people([1.0, 0, 0, 1], ["a", "a", "a", "b"], seed=3)
    assert found.value == 0.5
    assert found.low <= 0.5 <= found.high


def test_an_interval_widens_where_models_differ():
    people = np.arange(50)
    agree = np.full((8, 50), 0.5) + np.linspace(-0.01, 0.01, 50)
    differ = agree + np.linspace(-0.3, 0.3, 8)[:, None]
    narrow, wide = (mean_over_people(v, people, seed=1) for v in (agree, differ))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_the_bootstrap_repeats_for_a_seed():
    values, people = np.random.default_rng(0).normal(size=(3, 30)), np.arange(30) // 3
    one, two, other = (mean_over_people(values, people, seed=s) for s in (5, 5, 6))
    assert one == two != other


def test_a_mean_over_models_needs_two_for_an_interval():
    assert mean_over_models([0.4], seed=0) == Estimate(0.4)
    found = mean_over_models([0.0, 1.0, 0.0, 1.0], seed=0)
    assert (found.value, found.low < 0.5 < found.high) == (0.5, True)
    assert found.as_json() == {"value": 0.5, "low": found.low, "high": found.high}


def test_nothing_has_no_mean():
    with pytest.raises(InvalidArgumentError, match="at least one model"):
        mean_over_models([], seed=0)
    with pytest.raises(InvalidArgumentError, match="one entry per row"):
        mean_over_people([], [], seed=0)
    with pytest.raises(InvalidArgumentError, match="got 2 and 3"):
        mean_over_people([1.0, 2.0], [1, 2, 3], seed=0)


def test_an_interval_is_the_middle_95_percent():
    found = interval(0.5, np.linspace(0, 1, 1001))
    assert (found.low, found.high) == (pytest.approx(0.025), pytest.approx(0.975))
