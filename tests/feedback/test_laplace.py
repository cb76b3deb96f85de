import math
import secrets
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from feedback.population.laplace import _bernoulli_exp, discrete_laplace


class _MoreError(Exception):
    """The sampler asks for more randomness than the script has."""


def _all_outcomes(draw, least):
    """Walk a sampler's whole tree of choices down to branches of probability `least`.

    Returns the exact probability found for each outcome, and what lies in the branches cut off.
    """
    found, cut, paths = {}, Fraction(0), [((), Fraction(1))]
    while paths:
        script, probability = paths.pop()
        if probability < least:
            cut += probability
            continue
        left = list(script)

        def scripted(n, left=left):
            if not left:
                raise _MoreError(n)
            return left.pop(0)

        try:
            y = draw(scripted)
        except _MoreError as more:
            n = more.args[0]
            paths += [((*script, value), probability / n) for value in range(n)]
        else:
            found[y] = found.get(y, 0) + probability
    return found, cut


def _mass(y, scale):
    q = math.exp(-1 / scale)
    return (1 - q) / (1 + q) * q ** abs(y)


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 1), (1, 1), (1, 3), (2, 3)])
def test_the_coin_of_exponential_bias_is_exact(numerator, denominator):
    found, cut = _all_outcomes(
        lambda randbelow: _bernoulli_exp(numerator, denominator, randbelow), Fraction(1, 10**5)
    )
    assert cut < 0.005
    exact = math.exp(-numerator / denominator)
    assert found[True] <= exact <= found[True] + cut


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(1, 3), Fraction(3, 2)])
def test_every_outcome_has_exactly_its_probability(scale):
    found, cut = _all_outcomes(
        lambda randbelow: discrete_laplace(scale, randbelow=randbelow), Fraction(1, 100_000)
    )
    assert sum(found.values()) + cut == 1
    assert cut < 0.3
    assert {-1, 0, 1} <= found.keys()
    for y, probability in found.items():
        assert probability == found[-y]
        assert probability <= _mass(y, scale) <= probability + cut


def test_many_draws_follow_the_distribution():
    generator = np.random.default_rng(20261121)
    scale = Fraction(5, 2)
    draws = [
        discrete_laplace(scale, randbelow=lambda n: int(generator.integers(n)))
        for _ in range(20_000)
    ]
    reach = 12
    values = np.arange(-reach, reach + 1)
    observed = [sum(draw == y for draw in draws) for y in values]
    expected = np.array([_mass(int(y), 2.5) for y in values]) * len(draws)
    rest = len(draws) - sum(observed), len(draws) - expected.sum()
    assert stats.chisquare([*observed, rest[0]], [*expected, rest[1]]).pvalue > 1e-3


def test_wide_noise_has_the_promised_spread_and_the_same_draw_has_the_same_noise():
    def draws(seed):
        generator = np.random.default_rng(seed)
        return [
            discrete_laplace(Fraction(2000), randbelow=lambda n: int(generator.integers(n)))
            for _ in range(4000)
        ]

    first = draws(1)
    assert first == draws(1) != draws(2)
    assert np.mean(np.abs(first)) == pytest.approx(2000, rel=0.06)
    assert abs(np.mean(first)) < 150


def test_no_floating_point_number_is_used():
    asked = []

    def randbelow(n):
        asked.append(n)
        return secrets.randbelow(n)

    y = discrete_laplace(Fraction(2000) / Fraction("0.7"), randbelow=randbelow)
    assert type(y) is int
    assert {type(n) for n in asked} == {int}


@pytest.mark.parametrize("scale", [Fraction(0), Fraction(-1, 2)])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="`scale` must be above 0"):
        discrete_laplace(scale, randbelow=secrets.randbelow)
