"""The accounting against closed forms, quadrature and simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import NoiseKey, standard_normals
from privacy_core.privacy import (
    DELTA,
    NOT_COVERED,
    compose,
    epsilon_of,
    ladder_mu,
    matched_filter_tpr,
    measured_only,
    mu_for_epsilon,
    mu_of,
    statement,
    total_statement,
)
from privacy_core.schema import PrivacyStatement

# ε by bisection on the formula of Balle & Wang with 80 digits (mpmath).
GOLDEN_EPSILON = [
    (1e-6, 1e-7, 9.0234659346615901e-7),
    (3e-5, 1e-5, 4.1671284745120558e-6),
    (1e-3, 1e-5, 0.00193872496986011),
    (0.1, 1e-5, 0.34066936468432641),
    (0.5, 1e-5, 1.9930914044151196),
    (1.0, 1e-5, 4.3771780956812246),
    (1.0, 1e-10, 6.547924066864951),
    (2.0, 1e-5, 9.9972561464343004),
    (2.0, 0.5, 1.0542645598853919),
    (5.7, 1e-5, 39.810485999177163),
    (57.0, 1e-5, 1866.6345040131328),
    (300.0, 1e-5, 46278.474283239388),
    (1e4, 1e-5, 50042647.908152416),
]


def delta_by_quadrature(epsilon, mu):
    """E[(1 − e^(ε − L))₊] for the privacy loss L ~ N(μ²/2, μ²), written without large numbers."""
    t = epsilon / mu - mu / 2

    def excess(w):
        return math.exp(-((t + w) ** 2) / 2) * -math.expm1(-mu * w) / math.sqrt(2 * math.pi)

    layer = min(40 / mu, 1.0)  # where e^(−μ w) lives
    parts = [(0, layer), (layer, max(-t, 0) + 2), (max(-t, 0) + 2, max(-t, 0) + 40)]
    return sum(quad(excess, a, b, epsabs=0, epsrel=1e-13, limit=500)[0] for a, b in parts)


def mechanism(code, sigma, n, label):
    """`n` releases of one code, as the product draws its noise."""
    noise = standard_normals(NoiseKey.from_seed(1), label, n * code.size)
    return code + sigma * noise.reshape(n, code.size)


class TestMu:
    def test_is_twice_the_clip_radius_over_sigma(self):
        assert mu_of(0.5, 10.0) == 40.0

    def test_no_noise_is_infinite_and_pure_noise_is_nothing(self):
        assert mu_of(0.0, 10.0) == math.inf
        assert mu_of(math.inf, 10.0) == 0.0

    @pytest.mark.parametrize("sigma", [-1e-9, math.nan, -math.inf])
    def test_sigma_outside_its_range_is_refused_by_name(self, sigma):
        with pytest.raises(InvalidArgumentError, match="`sigma` must be"):
            mu_of(sigma, 1.0)

    @pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
    def test_clip_radius_outside_its_range_is_refused_by_name(self, radius):
        with pytest.raises(InvalidArgumentError, match="`clip_radius` must be"):
            mu_of(1.0, radius)

    def test_releases_compose_as_the_root_of_the_sum_of_squares(self):
        assert compose([3.0, 4.0, 12.0]) == 13.0
        assert compose([]) == 0.0
        assert compose([1.0, math.inf]) == math.inf
        sigmas, radius = [0.5, 2.0, 7.0], 11.0
        expected = 2 * radius * math.sqrt(sum(1 / s**2 for s in sigmas))
        assert compose(mu_of(s, radius) for s in sigmas) == pytest.approx(expected, rel=1e-14)

    @pytest.mark.parametrize("mu", [-1.0, math.nan])
    def test_a_negative_mu_is_refused_by_name(self, mu):
        with pytest.raises(InvalidArgumentError, match="`mu` must be"):
            compose([1.0, mu])

    def test_a_ladder_costs_its_weakest_rung(self):
        assert ladder_mu([4.0, 0.5, 2.0, math.inf], 10.0) == mu_of(0.5, 10.0)

    def test_a_ladder_that_publishes_the_code_itself_is_not_private(self):
        assert ladder_mu([0.0, 0.5, 2.0], 10.0) == math.inf

    def test_the_pure_start_alone_costs_nothing(self):
        assert ladder_mu([math.inf], 10.0) == 0.0


class TestEpsilon:
    @pytest.mark.parametrize(("mu", "delta", "epsilon"), GOLDEN_EPSILON)
    def test_agrees_with_eighty_digits(self, mu, delta, epsilon):
        assert epsilon_of(mu, delta=delta) == pytest.approx(epsilon, rel=1e-9)

    @pytest.mark.parametrize(
        "mu", [*np.geomspace(3e-5, 30, 25).tolist(), 57.0, 300.0, 1e3, 3162.0, 1e4]
    )
    @pytest.mark.parametrize("delta", [DELTA, 1e-12])
    def test_gives_back_delta(self, mu, delta):
        recovered = delta_by_quadrature(epsilon_of(mu, delta=delta), mu)
        assert math.log(recovered) == pytest.approx(math.log(delta), rel=1e-9)

    def test_rises_with_mu_and_falls_with_delta(self):
        over_mu = [epsilon_of(mu) for mu in np.geomspace(1e-4, 1e6, 500)]
        over_delta = [epsilon_of(2.0, delta=delta) for delta in np.geomspace(1e-300, 0.5, 500)]
        assert np.all(np.diff(over_mu) > 0)
        assert np.all(np.diff(over_delta) < 0)

    def test_is_zero_where_delta_alone_covers_the_release(self):
        boundary = 2 * 1.2533141375e-5  # 2 Φ(μ/2) − 1 = 1e-5
        assert epsilon_of(0.0) == 0.0
        assert epsilon_of(0.999 * boundary) == 0.0
        assert epsilon_of(1.001 * boundary) > 0.0

    def test_is_infinite_without_noise(self):
        assert epsilon_of(math.inf) == math.inf

    @pytest.mark.parametrize("mu", [2.0, 57.0])
    def test_is_not_the_looser_classical_bound(self, mu):
        # σ = Δ √(2 ln(1.25/δ))/ε holds for ε < 1 only and would promise too much above it.
        assert epsilon_of(mu) > mu * math.sqrt(2 * math.log(1.25 / DELTA))

    def test_agrees_with_the_simulated_mechanism(self):
        # Two codes on opposite sides of the clip ball; the loss is taken along their difference.
        radius, sigma, n = 1.5, 2.0, 400_000
        direction = np.array([0.6, 0.0, -0.8])
        y = mechanism(radius * direction, sigma, n, "first")
        loss = ((y + radius * direction) ** 2 - (y - radius * direction) ** 2).sum(1)
        loss /= 2 * sigma**2
        for delta in [0.4, 0.1, 1e-3]:
            epsilon = epsilon_of(mu_of(sigma, radius), delta=delta)
            excess = np.maximum(0.0, -np.expm1(epsilon - loss))
            assert abs(excess.mean() - delta) < 4 * excess.std() / math.sqrt(n)

    @pytest.mark.parametrize("mu", [1e-3, 0.5, 1.0, 57.0, 1e4, 1e9])
    @pytest.mark.parametrize("delta", [1e-12, DELTA, 0.1])
    def test_has_an_inverse(self, mu, delta):
        epsilon = epsilon_of(mu, delta=delta)
        if epsilon > 0:
            assert mu_for_epsilon(epsilon, delta=delta) == pytest.approx(mu, rel=1e-9)
        else:
            assert mu_for_epsilon(epsilon, delta=delta) > mu

    def test_inverse_reaches_both_ends(self):
        assert mu_for_epsilon(0.0) == pytest.approx(2 * 1.2533141375e-5, rel=1e-6)
        assert mu_for_epsilon(math.inf) == math.inf

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
    def test_delta_outside_its_range_is_refused_by_name(self, delta):
        with pytest.raises(InvalidArgumentError, match="`delta` must be"):
            epsilon_of(1.0, delta=delta)
        with pytest.raises(InvalidArgumentError, match="`delta` must be"):
            mu_for_epsilon(1.0, delta=delta)

    def test_a_negative_epsilon_is_refused_by_name(self):
        with pytest.raises(InvalidArgumentError, match="`epsilon` must be"):
            mu_for_epsilon(-1.0)


class TestMatchedFilter:
    def test_recognises_nothing_in_pure_noise_or_between_equal_codes(self):
        assert matched_filter_tpr(5.0, math.inf, fpr=1e-3) == pytest.approx(1e-3, rel=1e-12)
        assert matched_filter_tpr(0.0, 0.0, fpr=1e-3) == 1e-3

    def test_recognises_everything_without_noise(self):
        assert matched_filter_tpr(1e-3, 0.0, fpr=1e-3) == 1.0

    def test_agrees_with_the_simulated_filter(self):
        sigma, fpr, n = 1.3, 0.02, 300_000
        true, other = np.array([1.0, -0.5, 2.0, 0.0]), np.array([0.2, 0.7, 1.0, -1.0])
        difference = true - other
        hits = mechanism(true, sigma, n, "true") @ difference
        false = mechanism(other, sigma, n, "other") @ difference
        rate = np.mean(hits > np.quantile(false, 1 - fpr))
        expected = matched_filter_tpr(float(np.linalg.norm(difference)), sigma, fpr=fpr)
        assert rate == pytest.approx(expected, abs=0.008)

    def test_at_the_largest_distance_it_meets_epsilon_and_delta_and_nowhere_beats_them(self):
        radius, sigma = 3.0, 4.0
        epsilon = epsilon_of(mu_of(sigma, radius))
        # The best operating point is where the loss equals ε.
        t = epsilon / mu_of(sigma, radius) + mu_of(sigma, radius) / 2
        rates = [*np.geomspace(1e-12, 0.999, 200).tolist(), float(ndtr(-t))]
        excess = [
            matched_filter_tpr(2 * radius, sigma, fpr=fpr) - math.exp(epsilon) * fpr
            for fpr in rates
        ]
        assert max(excess) == pytest.approx(DELTA, rel=1e-6)

    @pytest.mark.parametrize(
        ("distance", "sigma", "fpr", "name"),
        [
            (-1.0, 1.0, 0.1, "distance"),
            (math.inf, 1.0, 0.1, "distance"),
            (1.0, -1.0, 0.1, "sigma"),
            (1.0, 1.0, 0.0, "fpr"),
            (1.0, 1.0, 1.0, "fpr"),
        ],
    )
    def test_bad_arguments_are_refused_by_name(self, distance, sigma, fpr, name):
        with pytest.raises(InvalidArgumentError, match=f"`{name}` must be"):
            matched_filter_tpr(distance, sigma, fpr=fpr)


class TestStatement:
    def test_names_mu_epsilon_and_delta_of_secret_noise(self):
        assert statement(2.0, 1.0, secret=True) == PrivacyStatement(
            mu=1.0,
            epsilon=epsilon_of(1.0),
            delta=1e-5,
            reason=None,
            basis="gaussian mechanism",
        )

    def test_strength_zero_has_no_epsilon_and_says_why(self):
        for secret in (True, False):
            assert statement(0.0, 1.0, secret=secret) == PrivacyStatement(
                None, None, None, "strength 0 adds no noise", "measured only"
            )

    @pytest.mark.parametrize("sigma", [0.5, math.inf])
    def test_noise_that_others_can_repeat_has_no_epsilon(self, sigma):
        assert statement(sigma, 1.0, secret=False) == PrivacyStatement(
            None, None, None, "noise not secret", "measured only"
        )

    def test_pure_noise_costs_nothing(self):
        stated = statement(math.inf, 1.0, secret=True)
        assert (stated.mu, stated.epsilon) == (0.0, 0.0)

    def test_several_releases_cost_more(self):
        four = statement(2.0, 1.0, secret=True, n_releases=4)
        assert four.mu == 2.0
        assert four == total_statement([1.0] * 4, secret=True)

    def test_one_release_without_noise_voids_the_total(self):
        assert total_statement([1.0, math.inf], secret=True).epsilon is None

    def test_is_always_valid_json(self):
        for sigma in [0.0, 1e-320, 1e-200, 1.0, math.inf]:
            stated = statement(sigma, 1.0, secret=True)
            json.dumps([stated.mu, stated.epsilon, stated.delta], allow_nan=False)

    def test_a_baseline_is_measured_only(self):
        stated = measured_only("blur adds no noise")
        assert (stated.epsilon, stated.reason) == (None, "blur adds no noise")
        assert stated.basis == "measured only"

    def test_fewer_than_one_release_is_refused_by_name(self):
        with pytest.raises(InvalidArgumentError, match="`n_releases` must be"):
            statement(1.0, 1.0, secret=True, n_releases=0)

    @pytest.mark.parametrize(
        "word",
        ["outside the mask", "size and pose", "kept", "not detected", "training data", "picked"],
    )
    def test_what_is_not_covered_is_named(self, word):
        assert sum(word in sentence for sentence in NOT_COVERED) == 1
