"""Keys, the numbers made from them, and what several rungs of a ladder reveal together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import kstest

from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import BrownianLadder, NoiseKey, standard_normals

SIGMAS = (0.4, 0.9, 1.5, 3.0)
# Coordinates of a path are independent, so a long code is a large sample.
MANY = 200_000
KEY = NoiseKey.from_seed(20)
# Computed from the definition with hashlib and math alone.
GOLDEN = [0.10079863962101095, -0.6675283527102384, -1.586542653350593, -1.798925106769451]


@pytest.fixture(scope="module")
def paths():
    """(4, MANY) noise of the four rungs, and the pure start."""
    ladder = BrownianLadder(KEY, SIGMAS, MANY)
    return np.stack([ladder.noise_at(k) for k in range(len(SIGMAS))]), ladder.pure()


def correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1])


class TestNoiseKey:
    def test_fresh_keys_are_secret_and_differ(self):
        keys = {NoiseKey.fresh().material for _ in range(100)}
        assert len(keys) == 100
        assert NoiseKey.fresh().secret

    def test_a_seed_gives_the_same_key_again_and_is_not_secret(self):
        assert NoiseKey.from_seed(3) == NoiseKey.from_seed(3)
        assert NoiseKey.from_seed(3) != NoiseKey.from_seed(4)
        assert not NoiseKey.from_seed(3).secret

    def test_a_row_has_one_secret_key_per_master(self):
        one, two = bytes(32), bytes(31) + b"\1"
        assert NoiseKey.from_row(one, "7") == NoiseKey.from_row(one, "7")
        assert NoiseKey.from_row(one, "7") != NoiseKey.from_row(one, "8")
        assert NoiseKey.from_row(one, "7") != NoiseKey.from_row(two, "7")
        assert NoiseKey.from_row(one, "7").secret

    def test_a_row_may_be_named_after_a_file_that_is_not_unicode(self):
        name = b"caf\xe9.png".decode(errors="surrogateescape")
        assert NoiseKey.from_row(bytes(32), name) != NoiseKey.from_row(bytes(32), "café.png")

    def test_a_child_is_as_secret_as_its_parent(self):
        assert NoiseKey.fresh().child("face 1").secret
        assert not NoiseKey.from_seed(3).child("face 1").secret

    def test_children_differ_from_each_other_and_from_their_parent(self):
        keys = [KEY, KEY.child("1"), KEY.child("2"), KEY.child("1").child("2")]
        assert len({key.material for key in keys}) == len(keys)

    def test_no_text_form_shows_the_bytes(self):
        key = NoiseKey(b"a secret of exactly 32 bytes....", secret=True)
        for text in (repr(key), str(key), f"{key}", repr([key])):
            assert "secret of" not in text
            assert key.material.hex() not in text

    def test_a_refused_master_key_is_not_shown(self):
        with pytest.raises(InvalidArgumentError, match="`master` must be at least 32") as caught:
            NoiseKey.from_row(b"too short", "7")
        assert "too short" not in str(caught.value)

    def test_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            NoiseKey.fresh().secret = False

    def test_bad_arguments_are_refused_by_name(self):
        with pytest.raises(InvalidArgumentError, match="`material` must be 32 bytes"):
            NoiseKey(b"short", secret=True)
        with pytest.raises(InvalidArgumentError, match="`row_id` must not be empty"):
            NoiseKey.from_row(bytes(32), "")


class TestStandardNormals:
    def test_follow_the_normal_distribution(self):
        for draw in (
            standard_normals(KEY, "one long draw", MANY),
            np.array([standard_normals(KEY, f"draw {i}", 1)[0] for i in range(5_000)]),
        ):
            assert kstest(draw, "norm").pvalue > 1e-3

    def test_neighbours_are_uncorrelated_in_value_and_in_size(self):
        draw = standard_normals(KEY, "one long draw", MANY)
        for lag in (1, 2, 3):
            assert abs(correlation(draw[lag:], draw[:-lag])) < 4 / MANY**0.5
            assert abs(correlation(draw[lag:] ** 2, draw[:-lag] ** 2)) < 4 / MANY**0.5

    def test_depend_on_key_and_label_only(self):
        first = standard_normals(KEY, "a", 512)
        standard_normals(KEY, "b", 100)
        np.testing.assert_array_equal(standard_normals(NoiseKey.from_seed(20), "a", 512), first)

    @pytest.mark.parametrize(
        "other",
        [
            (NoiseKey.from_seed(21), "a"),
            (KEY, "b"),
            (KEY.child("face 1"), "a"),
            (KEY.child("a"), "a"),
            (NoiseKey.from_row(KEY.material, "a"), "a"),
        ],
    )
    def test_other_keys_faces_and_labels_are_uncorrelated(self, other):
        mine = standard_normals(KEY, "a", MANY)
        assert abs(correlation(mine, standard_normals(*other, MANY))) < 4 / MANY**0.5

    def test_stay_what_they_are_from_version_to_version(self):
        # Rows that were interrupted must resume with the noise they began with.
        np.testing.assert_allclose(standard_normals(KEY, "golden", 4), GOLDEN, rtol=1e-12)

    @pytest.mark.parametrize("n", [0, 1, 5, 512])
    def test_come_in_the_length_asked_for(self, n):
        draw = standard_normals(KEY, "a", n)
        assert draw.shape == (n,)
        assert draw.dtype == np.float64
        assert np.isfinite(draw).all()

    def test_a_negative_length_is_refused_by_name(self):
        with pytest.raises(InvalidArgumentError, match="`n` must be"):
            standard_normals(KEY, "a", -1)


class TestBrownianLadder:
    def test_each_rung_has_its_sigma(self, paths):
        path, _ = paths
        np.testing.assert_allclose(path.std(1), SIGMAS, rtol=0.01)
        for noise, sigma in zip(path, SIGMAS, strict=True):
            assert kstest(noise / sigma, "norm").pvalue > 1e-3

    def test_increments_have_the_difference_of_variances(self, paths):
        path, _ = paths
        np.testing.assert_allclose(
            np.diff(path, axis=0).var(1), np.diff(np.square(SIGMAS)), rtol=0.015
        )

    def test_two_rungs_correlate_as_the_ratio_of_their_sigmas(self, paths):
        path, _ = paths
        expected = np.minimum.outer(SIGMAS, SIGMAS) / np.maximum.outer(SIGMAS, SIGMAS)
        np.testing.assert_allclose(np.corrcoef(path), expected, atol=0.01)

    def test_what_a_stronger_rung_adds_is_unrelated_to_everything_weaker(self, paths):
        path, _ = paths
        for k, step in enumerate(np.diff(path, axis=0)):
            for weaker in path[: k + 1]:
                assert abs(correlation(step, weaker)) < 4 / MANY**0.5

    def test_the_pure_start_is_standard_and_unrelated_to_the_path(self, paths):
        path, pure = paths
        assert kstest(pure, "norm").pvalue > 1e-3
        for noise in path:
            assert abs(correlation(pure, noise)) < 4 / MANY**0.5

    def test_the_order_of_requests_is_irrelevant(self):
        grid, dim = np.geomspace(0.05, 50, 100), 64
        upwards, downwards, alone = (BrownianLadder(KEY, grid, dim) for _ in range(3))
        rising = [upwards.noise_at(k) for k in range(100)]
        pure = downwards.pure()
        falling = [downwards.noise_at(k) for k in reversed(range(100))]
        np.testing.assert_array_equal(rising, falling[::-1])
        np.testing.assert_array_equal(alone.noise_at(57), rising[57])
        np.testing.assert_array_equal(upwards.pure(), pure)

    def test_a_rung_of_zero_adds_nothing(self):
        ladder = BrownianLadder(KEY, [0.0, 1.0], 8)
        np.testing.assert_array_equal(ladder.noise_at(0), np.zeros(8))
        assert np.any(ladder.noise_at(1) != 0)

    @pytest.mark.parametrize("grid", [(0.4, 0.9, 1.5, 3.1), (0.8, 1.8, 3.0, 6.0), (0.4,)])
    def test_another_grid_is_another_path(self, paths, grid):
        # With a shared n_j, two grids would be two scaled copies and give the code away.
        other = BrownianLadder(KEY, grid, MANY)
        for noise in paths[0]:
            assert abs(correlation(noise, other.noise_at(0))) < 4 / MANY**0.5

    def test_two_faces_get_unrelated_paths(self, paths):
        other = BrownianLadder(KEY.child("face 2"), SIGMAS, MANY)
        assert abs(correlation(paths[0][0], other.noise_at(0))) < 4 / MANY**0.5
        assert abs(correlation(paths[1], other.pure())) < 4 / MANY**0.5

    def test_the_noise_cannot_be_overwritten(self):
        with pytest.raises(ValueError, match="read-only"):
            BrownianLadder(KEY, SIGMAS, 8).noise_at(0)[0] = 0.0

    @pytest.mark.parametrize(
        "sigmas",
        [[1.0, 1.0], [1.0, 0.5], [-1.0, 1.0], [1.0, np.inf], [np.nan], [1.0, np.nan, 2.0], []],
    )
    def test_a_grid_that_does_not_rise_is_refused_by_name(self, sigmas):
        with pytest.raises(InvalidArgumentError, match="`sigmas` must"):
            BrownianLadder(KEY, sigmas, 8)

    @pytest.mark.parametrize("rung", [-1, 4])
    def test_a_rung_off_the_grid_is_refused_by_name(self, rung):
        with pytest.raises(InvalidArgumentError, match=r"`rung` must be in \[0, 3\]"):
            BrownianLadder(KEY, SIGMAS, 8).noise_at(rung)

    def test_an_empty_code_is_refused_by_name(self):
        with pytest.raises(InvalidArgumentError, match="`dim` must be"):
            BrownianLadder(KEY, SIGMAS, 0)


class TestWhatALadderReveals:
    """An adversary holds y = c + noise on several rungs and looks for c."""

    code = np.sin(np.arange(MANY))

    def solve_for_code(self, weak, strong):
        """Return c as if both rungs carried scaled copies of one noise vector."""
        low, high = SIGMAS[0], SIGMAS[-1]
        return (high * weak - low * strong) / (high - low)

    def test_two_scaled_copies_of_one_noise_vector_give_the_code_away(self):
        noise = standard_normals(KEY, "shared", MANY)
        found = self.solve_for_code(self.code + SIGMAS[0] * noise, self.code + SIGMAS[-1] * noise)
        np.testing.assert_allclose(found, self.code, atol=1e-12)

    def test_two_rungs_of_a_ladder_do_not(self, paths):
        path, _ = paths
        found = self.solve_for_code(self.code + path[0], self.code + path[-1])
        assert np.std(found - self.code) > SIGMAS[0]

    def test_least_squares_on_two_rungs_is_as_blind_as_the_weaker_one(self, paths):
        # The best weights w on (y_weak, y_strong) with sum 1, fitted by an adversary who even
        # knows the codes of these many coordinates.
        weak, strong = self.code + paths[0][0], self.code + paths[0][-1]
        step = weak - strong
        w = -float(step @ (strong - self.code)) / float(step @ step)
        error = w * weak + (1 - w) * strong - self.code
        assert w == pytest.approx(1.0, abs=0.005)
        assert error.std() == pytest.approx(SIGMAS[0], rel=0.01)

    def test_the_effective_noise_of_all_rungs_is_that_of_the_weakest_in_closed_form(self):
        variances = np.square(np.geomspace(0.3, 40, 12))
        covariance = np.minimum.outer(variances, variances)
        ones = np.ones(12)
        weights = np.linalg.solve(covariance, ones)
        assert 1 / (ones @ weights) == pytest.approx(variances[0], rel=1e-9)
        np.testing.assert_allclose(weights / weights.sum(), np.eye(12)[0], atol=1e-9)

    def test_the_effective_noise_of_all_rungs_is_that_of_the_weakest_in_simulation(self, paths):
        # The covariance is measured on the paths themselves, not taken from the theory.
        path, _ = paths
        weights = np.linalg.solve(np.cov(path), np.ones(len(SIGMAS)))
        estimate = (weights / weights.sum()) @ (self.code + path)
        assert np.std(estimate - self.code) == pytest.approx(SIGMAS[0], rel=0.01)

    def test_independent_noise_on_the_rungs_would_have_revealed_more(self):
        # The same estimator sees the difference, so the tests above are able to fail.
        noise = np.stack([s * standard_normals(KEY, f"rung {s}", MANY) for s in SIGMAS])
        weights = np.linalg.solve(np.cov(noise), np.ones(len(SIGMAS)))
        estimate = (weights / weights.sum()) @ (self.code + noise)
        assert np.std(estimate - self.code) < 0.93 * SIGMAS[0]
