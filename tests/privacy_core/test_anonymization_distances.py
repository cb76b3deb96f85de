"""Metrics of the anonymization audit against closed forms and simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from privacy_core.audit.anonymization.distances import (
    WeightedAuc,
    check_strangers,
    distances,
    frechet_distance,
    frechet_over_people,
    linkability,
    ranks,
    share_over_people,
    threshold_of,
)
from privacy_core.audit.estimates import mean_over_people
from privacy_core.errors import InvalidArgumentError

RNG = np.random.default_rng(0)


# --- Threshold and rates ---------------------------------------------------------------------


def test_the_threshold_lets_the_asked_share_of_strangers_pass():
    embeddings, people = RNG.normal(size=(60, 8)), np.repeat(np.arange(30), 2)
    threshold, n_pairs = threshold_of(embeddings, people, false_accept_rate=0.02)
    pairs = [
        np.linalg.norm(embeddings[i] - embeddings[j])
        for i in range(60)
        for j in range(i)
        if people[i] != people[j]
    ]
    assert n_pairs == len(pairs) == 60 * 59 // 2 - 30
    assert np.mean(np.array(pairs) < threshold) == pytest.approx(0.02, abs=1 / n_pairs)


def test_too_few_strangers_for_the_rate_are_refused_not_guessed():
    with pytest.raises(InvalidArgumentError, match=r"at least 10000 pairs.*got 45 "):
        threshold_of(RNG.normal(size=(10, 4)), np.arange(10), false_accept_rate=1e-3)


def test_photos_of_one_person_are_no_pair_of_strangers():
    people = np.array([0, 0, 0, 1, 1, 2])
    expected = sum(people[i] != people[j] for i in range(6) for j in range(i))
    assert check_strangers(people, false_accept_rate=1.0) == expected == 11


@pytest.mark.parametrize("n", [20, 300])
def test_none_among_n_people_has_the_exact_binomial_interval(n):
    people = np.repeat(np.arange(n), 2)
    none = share_over_people(np.zeros(2 * n, bool), people, seed=0)
    # Clopper & Pearson: with a share of `high`, none among n has a chance of 2.5 %.
    assert (none.value, none.low) == (0, 0)
    assert binom.pmf(0, n, none.high) == pytest.approx(0.025)
    every = share_over_people(np.ones(2 * n), people, seed=0)
    assert (every.value, every.low, every.high) == (1, pytest.approx(1 - none.high), 1)
    some = share_over_people(people < n // 4, people, seed=0)
    assert some == mean_over_people(people < n // 4, people, seed=0)


def test_distances_are_euclidean_and_never_nan():
    one = RNG.normal(size=(5, 3))
    expected = np.linalg.norm(one[:, None] - one[None], axis=2)
    assert np.allclose(distances(one, one), expected, atol=1e-6)


def test_a_tie_counts_against_the_adversary():
    gallery = np.array([[0.0], [2.0], [2.0], [9.0]])
    assert ranks(np.array([[2.0], [0.1], [8.0]]), gallery, np.array([1, 0, 0])).tolist() == [
        2,
        1,
        4,
    ]


# --- Linkability -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_the_weighted_area_is_the_share_of_pairs_in_order(n, m, seed):
    rng = np.random.default_rng(seed)
    positive, negative = (rng.integers(0, 6, k).astype(float) for k in (n, m))
    up, down = rng.integers(1, 4, n).astype(float), rng.integers(1, 4, m).astype(float)
    wins = (positive[:, None] < negative) + 0.5 * (positive[:, None] == negative)
    expected = (wins * up[:, None] * down).sum() / (up.sum() * down.sum())
    assert WeightedAuc(positive, negative)(up, down) == pytest.approx(expected)


def test_unrelated_variants_cannot_be_linked_and_equal_ones_always_are():
    one = RNG.normal(size=(80, 4))
    free = linkability(one, RNG.normal(size=(80, 4)), seed=0, n_draws=50)
    assert free.low < 0.5 < free.high
    assert linkability(one, one, seed=0, n_draws=20).value == 1


def test_linking_needs_two_people():
    with pytest.raises(InvalidArgumentError, match="at least two people, got 1"):
        linkability(np.zeros((1, 2)), np.zeros((1, 2)), seed=0)


def test_many_people_are_compared_by_a_sample_of_pairs():
    one = RNG.normal(size=(230, 2))
    found = linkability(one, one + RNG.normal(0, 0.5, one.shape), seed=0, n_draws=5)
    assert 0.8 < found.value < 1


# --- Fréchet distance ------------------------------------------------------------------------


def test_the_frechet_distance_of_two_normals_is_its_closed_form():
    one = RNG.normal(0, 1, (200_000, 2)) * [1, 2]
    other = RNG.normal(0, 1, (200_000, 2)) * [3, 2] + [1, 0]
    # ‖m‖² + Σ (s₁ − s₂)² for diagonal covariances.
    assert frechet_distance(one, other) == pytest.approx(1 + 4, abs=0.05)


def test_the_frechet_distance_to_itself_is_zero_and_a_shift_adds_its_square():
    one = RNG.normal(size=(50, 6))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 2) == pytest.approx(24)


def test_its_interval_lies_around_the_value():
    one = RNG.normal(size=(60, 3))
    found = frechet_over_people(one, one + 1, np.arange(60) // 2, seed=0, n_draws=60)
    assert found.low < found.value < found.high
    with pytest.raises(InvalidArgumentError, match="at least two rows"):
        frechet_distance(one[:1], one)
