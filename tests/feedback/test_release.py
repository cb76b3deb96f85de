import secrets
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from feedback import ReleaseError
from feedback.population.release import (
    MIN_RATERS,
    N_BINS,
    UNITS,
    Release,
    noisy,
    parse_epsilon,
    smooth,
    total_units,
    units_of,
)
from feedback.preference.response import STRENGTHS as GRID

densities = numpy_strategies.arrays(np.float64, GRID.shape, elements=st.floats(0, 1e308)).filter(
    np.any
)


def release(histogram, n_raters=200):
    return Release("dp-eps1-2026Q4", "1", "2026-11-21T00:00:00+00:00", "m@1", n_raters, histogram)


def bump(mean, sd):
    return np.exp(-0.5 * ((GRID - mean) / sd) ** 2)


@given(densities)
def test_every_contribution_is_whole_units_with_the_same_total(density):
    units = units_of(density)
    assert all(type(unit) is int and unit >= 0 for unit in units)
    assert (len(units), sum(units)) == (N_BINS, UNITS)
    assert units == units_of(density.copy())


@settings(max_examples=25)
@given(st.lists(densities, min_size=MIN_RATERS, max_size=24), densities, st.data())
def test_replacing_one_rater_moves_the_sum_by_at_most_two_totals(all_of, other, data):
    place = data.draw(st.integers(0, len(all_of) - 1))
    here = [units_of(density) for density in all_of]
    there = [*here[:place], units_of(other), *here[place + 1 :]]
    moved = np.abs(np.subtract(total_units(here), total_units(there))).sum()
    assert moved <= 2 * UNITS


def test_the_bound_is_reached_so_the_noise_is_not_wider_than_needed():
    low, high = np.eye(len(GRID))[0], np.eye(len(GRID))[-1]
    rest = [units_of(np.ones(len(GRID)))] * (MIN_RATERS - 1)
    here, there = total_units([*rest, units_of(low)]), total_units([*rest, units_of(high)])
    assert np.abs(np.subtract(here, there)).sum() == 2 * UNITS


def test_remainders_go_to_the_largest_and_then_to_the_lowest_bin():
    assert units_of(np.eye(len(GRID))[7]) == (0, UNITS, *[0] * 8)
    thirds = np.eye(len(GRID))[0] + np.eye(len(GRID))[20] + np.eye(len(GRID))[50]
    assert units_of(thirds) == (334, 0, 0, 0, 333, 0, 0, 0, 0, 333)
    # Eleven points in the last two bins of 5 and 6: the grid has a point at both ends.
    assert units_of(np.ones(len(GRID))) == (*[98] * 9, 118)


@pytest.mark.parametrize(
    "density",
    [
        np.zeros(len(GRID)),
        np.full(len(GRID), np.nan),
        np.full(len(GRID), np.inf),
        -bump(0.5, 0.1),
        np.ones(10),
    ],
)
def test_what_is_no_density_contributes_nothing(density):
    with pytest.raises(ReleaseError, match="`density` must be 51 finite weights"):
        units_of(density)


def test_too_few_raters_are_refused():
    one = units_of(np.ones(len(GRID)))
    assert sum(total_units([one] * MIN_RATERS)) == MIN_RATERS * UNITS
    with pytest.raises(ReleaseError, match=r"at least 20 raters .* got 19"):
        total_units([one] * (MIN_RATERS - 1))


@pytest.mark.parametrize(
    "units", [(UNITS + 1, *[0] * 9), (UNITS + 1, -1, *[0] * 8), (UNITS,), (0,) * 10]
)
def test_a_contribution_larger_than_promised_is_refused_where_the_sum_is_made(units):
    fine = units_of(np.ones(len(GRID)))
    with pytest.raises(ReleaseError, match="whole numbers from 0 that sum to 1000"):
        total_units([*[fine] * MIN_RATERS, units])


def test_the_noise_is_two_sided_and_scaled_to_twice_the_units():
    asked = []

    def randbelow(n):
        asked.append(n)
        return secrets.randbelow(n)

    histogram = noisy([0] * N_BINS, epsilon=Fraction(1, 2), randbelow=randbelow)
    assert asked[0] == 2 * UNITS * 2
    assert len(set(histogram)) > 1
    many = [
        unit
        for _ in range(60)
        for unit in noisy([0] * 10, epsilon=Fraction(1), randbelow=secrets.randbelow)
    ]
    assert np.mean(np.abs(many)) == pytest.approx(2 * UNITS, rel=0.25)
    assert min(many) < 0 < max(many)


@given(st.lists(st.integers(-(10**7), 10**7), min_size=N_BINS, max_size=N_BINS))
def test_the_curve_is_a_density_whatever_the_noise(histogram):
    curve = release(tuple(histogram)).curve()
    assert curve.shape == GRID.shape
    assert curve.min() > 0
    assert curve.sum() == pytest.approx(1)


def test_the_curve_is_where_the_raters_are_and_no_wider_than_they_are():
    generator = np.random.default_rng(2)
    ideals = generator.normal(0.62, 0.08, size=200)
    # Each errs by 0.07 and knows it.
    believed = [bump(ideal + 0.07 * generator.standard_normal(), 0.07) for ideal in ideals]
    units = np.sum([units_of(density) for density in believed], axis=0)
    curve = release(tuple(int(unit) for unit in units)).curve()
    mean = float(GRID @ curve)
    sd = float(np.sqrt(curve @ (GRID - mean) ** 2))
    assert mean == pytest.approx(0.62, abs=0.02)
    average = np.mean([density / density.sum() for density in believed], axis=0)
    assert sd < np.sqrt(average @ (GRID - 0.62) ** 2) - 0.01
    assert sd == pytest.approx(0.08, abs=0.03)


def test_an_even_histogram_gives_a_nearly_even_curve_though_bins_differ_in_points():
    curve = release((*[98_000] * 9, 118_000)).curve()
    middle = curve[10:40]
    assert middle.max() - middle.min() < 0.2 * middle.mean()


def test_smoothing_keeps_the_mass_at_the_ends():
    spike = np.eye(len(GRID))[0]
    smoothed = smooth(spike)
    assert smoothed.sum() == pytest.approx(1)
    assert smoothed[0] > smoothed[1] > smoothed[5] > 0


def test_a_release_that_was_never_drawn_has_no_curve():
    with pytest.raises(ReleaseError, match="--new-release"):
        release(None).curve()


@pytest.mark.parametrize(
    ("text", "epsilon"),
    [("1", 1), ("1.0", 1), ("0.25", Fraction(1, 4)), ("1/3", Fraction(1, 3)), ("100", 100)],
)
def test_epsilon_is_read_exactly(text, epsilon):
    assert parse_epsilon(text) == epsilon


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "nan",
        "inf",
        "1e3",
        "1e-999999999",
        "1/0",
        "101",
        "0.0001",
        "0.1234567",
        "ε",
        "",
        "9" * 99,
    ],
)
def test_what_is_no_sensible_epsilon_is_refused(text):
    with pytest.raises(ReleaseError, match="`epsilon` must be a number from"):
        parse_epsilon(text)


@pytest.mark.parametrize(
    ("n_raters", "epsilon", "is_noise"),
    [(20, "1", False), (20, "1/2", True), (200, "1/10", False), (19, "1", True)],
)
def test_a_release_is_mostly_noise_where_raters_times_epsilon_is_below_twenty(
    n_raters, epsilon, is_noise
):
    release = Release("x", epsilon, "2026-11-20T12:00:00+00:00", "m@1", n_raters, None)
    assert (release.warning is not None) is is_noise
    assert not is_noise or "got " in release.warning
