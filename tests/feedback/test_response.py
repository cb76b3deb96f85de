import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import InvalidRatingError
from feedback.preference.response import (
    KINDS,
    N_NUISANCES,
    STRENGTHS,
    likelihood,
    n_outcomes,
    nuisances,
    slider_likelihood,
)

UNIT = st.floats(0, 1)
SINGLES = ("jar5", "jar3", "binary", "likert5", "acceptable")


def normal(z):
    return (1 + math.erf(z / math.sqrt(2))) / 2


def cell(m, nuisance):
    """Return the values at one cell of the grid: m, σ, ρ, λ."""
    noise, leniency, lapse, _ = nuisances()
    return STRENGTHS[m], noise[nuisance], leniency[nuisance], lapse[nuisance]


CELLS = st.tuples(st.integers(0, 50), st.integers(0, N_NUISANCES - 1))


def test_the_nuisance_weights_sum_to_one_and_one_rater_in_ten_is_careless():
    _, _, lapse, weights = nuisances()
    assert weights.sum() == pytest.approx(1)
    assert weights[lapse == 0.30].sum() == pytest.approx(0.10)


@given(st.sampled_from(SINGLES), UNIT)
def test_answers_about_one_strength_are_possible_and_sum_to_one(kind, strength):
    table = likelihood(kind, (strength,))
    assert table.shape == (n_outcomes(kind), 51, 30)
    assert table.min() > 0.003
    np.testing.assert_allclose(table.sum(axis=0), 1, atol=1e-12)


@given(st.lists(UNIT, min_size=2, max_size=6, unique=True))
def test_choices_are_possible_and_sum_to_one(strengths):
    table = likelihood("best_of_n", tuple(strengths))
    assert table.shape == (len(strengths), 51, 30)
    assert table.min() > 0
    np.testing.assert_allclose(table.sum(axis=0), 1, atol=1e-12)


@given(UNIT, CELLS)
def test_just_about_right_follows_its_formula(strength, where):
    m, sigma, rho, lam = cell(*where)
    below = [
        (1 - lam) * normal((rho * c - (strength - m)) / sigma) + lam * (k + 1) / 5
        for k, c in enumerate((-0.28, -0.10, 0.10, 0.28))
    ]
    expected = np.diff([0, *below, 1])
    np.testing.assert_allclose(likelihood("jar5", (strength,))[:, *where], expected, atol=1e-12)


@given(UNIT, CELLS)
def test_likert_follows_its_formula_with_the_best_answer_last(strength, where):
    m, sigma, rho, lam = cell(*where)
    d = strength - m
    at_least = [
        (1 - lam) * (normal((rho * b - d) / sigma) - normal((-rho * b - d) / sigma))
        + lam * (k + 1) / 5
        for k, b in enumerate((0.10, 0.19, 0.28, 0.40))
    ]
    expected = np.diff([0, *at_least, 1])[::-1]
    np.testing.assert_allclose(likelihood("likert5", (strength,))[:, *where], expected, atol=1e-12)


@given(st.lists(UNIT, min_size=2, max_size=4, unique=True), CELLS)
def test_a_choice_follows_its_formula(strengths, where):
    m, sigma, _, lam = cell(*where)
    worth = np.exp([-(0.12 / sigma) * ((u - m) / 0.20) ** 2 for u in strengths])
    if worth.sum() < 1e-200:
        return
    expected = (1 - lam) * worth / worth.sum() + lam / len(strengths)
    found = likelihood("best_of_n", tuple(strengths))[:, *where]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_too_weak_grows_likelier_with_the_ideal_and_the_best_likert_answer_peaks_at_it():
    for kind in ("jar5", "jar3", "binary"):
        assert (np.diff(likelihood(kind, (0.5,))[0], axis=0) >= 0).all()
    assert (likelihood("likert5", (0.5,))[4].argmax(axis=0) == 25).all()
    assert (likelihood("acceptable", (0.5,))[1].argmax(axis=0) == 25).all()


def test_a_slider_is_a_density_over_where_it_can_be_left():
    values = np.linspace(0, 1, 201)
    density = [slider_likelihood(float(v)) for v in values]
    np.testing.assert_allclose(np.trapezoid(density, values, axis=0), 1, atol=1e-3)


def test_tables_cannot_be_changed():
    table = likelihood("jar5", (0.5,))
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        STRENGTHS[0] = 1


@pytest.mark.parametrize("kind", ["stars", "slider", 7])
def test_a_question_without_listed_answers_is_refused_with_a_way_out(kind):
    with pytest.raises(InvalidRatingError, match="Choose one of: jar5"):
        likelihood(kind, (0.5,))
    assert set(SINGLES) | {"best_of_n", "slider"} == set(KINDS)
