"""What one setting does to identity, use and the worst case, on planted truths."""

import numpy as np
import pytest
from scipy.stats import chi

from privacy_core.audit.anonymization.fidelity import NO_JUDGE, agreement, measure_fidelity
from privacy_core.audit.anonymization.identity import (
    NOTHING,
    ONE_PHOTO,
    Gallery,
    by_group,
    gallery_size,
    measure_identity,
    median_over_people,
    of_originals,
)
from privacy_core.audit.anonymization.inference import accuracy_over_people
from privacy_core.audit.anonymization.matched import measure_matched_filter, picture_rank_1
from privacy_core.errors import InvalidArgumentError
from privacy_core.privacy import matched_filter_tpr

RNG = np.random.default_rng(0)


# --- Identity --------------------------------------------------------------------------------


def gallery(n=40, *, photos=2, spread=0.1, seed=0):
    """Return a gallery of well separated people with nearly equal photos."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n, 16))
    people = np.repeat(np.arange(n), photos)
    embeddings = centres[people] + rng.normal(0, spread, (n * photos, 16)) / 4
    return Gallery.of("test", embeddings, people, np.tile(np.arange(photos), n), rate=0.02)


def everything(found):
    return np.ones(len(found.people), bool)


def test_originals_shown_as_variants_are_recognised_everywhere():
    one = gallery()
    found = measure_identity(one, one.embeddings, everything(one), seed=0)
    for name in ("self_reidentified", "self_rank_1", "cross_tar", "cross_rank_1", "cross_rank_5"):
        assert found[name].value == 1
    assert found["linkability_auc"].value == 1
    assert found["anonymity_set"].value == 1
    assert found["frechet"].value == pytest.approx(0, abs=1e-9)
    assert of_originals(one, seed=0)["cross_rank_1"].value == 1


def test_strangers_shown_as_variants_are_found_by_chance_only():
    one = gallery(120)
    strangers = np.random.default_rng(9).normal(size=one.embeddings.shape)
    found = measure_identity(one, strangers, everything(one), seed=0)
    assert found["self_reidentified"].value < 0.06
    assert found["cross_rank_1"].value < 0.03
    assert found["cross_rank_1"].high < 0.06
    assert found["linkability_auc"].low < 0.5 < found["linkability_auc"].high
    assert found["anonymity_set"].value == pytest.approx(60, abs=15)
    assert gallery_size(one) == 120


def test_one_variant_in_four_that_is_its_original_is_a_quarter_reidentified():
    one = gallery(40)
    far = one.embeddings + 100
    far[one.people < 10] = one.embeddings[one.people < 10]
    found = measure_identity(one, far, everything(one), seed=0)
    assert found["self_reidentified"].value == 0.25
    assert found["self_reidentified"].low < 0.25 < found["self_reidentified"].high
    assert found["cross_tar"].value == 0.25


def test_true_accepts_are_those_of_normal_embeddings():
    rng, d, away = np.random.default_rng(1), 4, 0.3
    people = np.repeat(np.arange(600), 2)
    centres = rng.normal(size=(600, d))[people]
    # Two photos of one person lie √2 · 0.2 chi apart, strangers √2 · √(1 + 0.2²) chi.
    photos = centres + 0.2 * rng.normal(size=centres.shape)
    one = Gallery.of("test", photos, people, np.tile([0, 1], 600), rate=0.01)
    strangers = np.sqrt(2 * 1.04)
    assert one.threshold == pytest.approx(strangers * chi.ppf(0.01, d), rel=0.03)
    variants = photos + away * rng.normal(size=photos.shape)
    found = measure_identity(one, variants, everything(one), seed=0)
    own = chi.cdf(one.threshold / away, d)
    assert found["self_reidentified"].value == pytest.approx(own, abs=0.03)
    across = chi.cdf(one.threshold / np.sqrt(away**2 + 2 * 0.2**2), d)
    assert found["cross_tar"].value == pytest.approx(across, abs=0.03)
    assert 0.2 < across < own < 0.95


def test_a_face_that_was_withheld_counts_as_recognised_not_as_private():
    one = gallery(40)
    far, released = one.embeddings + 100 * np.arange(1, 81)[:, None], everything(one)
    released[:20] = False
    far[:20] = np.nan
    found = measure_identity(one, far, released, seed=0)
    assert found["self_reidentified"].value == found["cross_tar"].value == 0.25
    assert found["cross_rank_1"].value >= 0.25
    groups = {"all": np.full(80, "one")}
    row = by_group(one, far, released, groups, seed=0)["all"]["one"]
    assert row["self_reidentified"].value == row["cross_tar"].value == 0.25
    assert found["self_rank_1"].value >= 0.25


def test_nothing_released_leaves_what_cannot_be_measured_out():
    one = gallery(40)
    none = ~everything(one)
    with pytest.raises(InvalidArgumentError, match="Leave the metric out"):
        median_over_people(np.array([]), np.array([]), seed=0)
    found = measure_identity(one, one.embeddings * np.nan, none, seed=0)
    assert found["self_reidentified"].value == 1
    assert found["frechet"] == NOTHING
    assert isinstance(found["linkability_auc"], str)
    assert isinstance(found["self_distance"], str)


def test_one_photo_of_everybody_leaves_cross_photo_metrics_absent_with_the_reason():
    one = gallery(40, photos=1)
    found = measure_identity(one, one.embeddings, everything(one), seed=0)
    assert found["cross_tar"] == found["linkability_auc"] == ONE_PHOTO
    assert found["self_rank_1"].value == 1


def test_groups_are_measured_apart_and_small_ones_say_so():
    one = gallery(40)
    far = one.embeddings.copy()
    far[one.people >= 20] += 100
    values = np.where(one.people < 20, "near", "far").astype("U8")
    values[one.people == 39] = "few"
    values[one.people == 38] = ""
    found = by_group(one, far, everything(one), {"side": values}, seed=0)["side"]
    assert found["near"]["self_reidentified"].value == 1
    assert found["far"]["self_reidentified"].value == 0
    assert found["few"] == {
        "n_faces": 2,
        "self_reidentified": "fewer than 10 faces",
        "cross_tar": "fewer than 10 faces",
    }
    assert "" not in found


def test_the_median_over_people_is_the_median_with_an_interval():
    values, people = np.arange(101.0), np.arange(101)
    found = median_over_people(values, people, seed=0)
    assert found.value == 50
    assert 30 < found.low < 50 < found.high < 70


# --- Fidelity --------------------------------------------------------------------------------


def observations(n=20, *, released=None):
    original = {"person": np.arange(n), "mouth_gap": np.zeros(n), "turn": np.zeros(n)}
    seen = {
        "released": np.ones(n, bool) if released is None else released,
        "detected": np.arange(n) % 4 > 0,
        "changed_outside": np.zeros(n, int),
        "seconds": np.full(n, 0.02),
        "mouth_gap": np.full(n, 0.1),
        "turn": np.full(n, -0.2),
        **{f"error_{part}": np.full(n, 0.03) for part in ("eyes", "nose", "mouth")},
    }
    return seen, original


def test_what_is_left_of_the_picture_is_reported_as_seen():
    found = measure_fidelity(*observations(), seed=0)
    assert found["detected"].value == 0.75
    assert found["pixels_changed_outside"] == 0
    assert found["median_ms"] == pytest.approx(20)
    assert found["landmark_error_mouth"].value == 0.03
    assert found["mouth_open_difference"].value == pytest.approx(0.1)
    assert found["turn_difference"].value == pytest.approx(0.2)


def test_one_changed_pixel_outside_the_mask_in_one_photo_is_seen():
    seen, original = observations()
    seen["changed_outside"][7] = 1
    assert measure_fidelity(seen, original, seed=0)["pixels_changed_outside"] == 1


def test_withheld_faces_count_as_undetected():
    seen, original = observations(released=np.arange(20) >= 10)
    found = measure_fidelity(seen, original, seed=0)
    assert found["withheld"] == 10
    assert found["detected"].value == pytest.approx(0.4)
    nothing = measure_fidelity(*observations(released=np.zeros(20, bool)), seed=0)
    assert nothing["landmark_error_eyes"] == nothing["turn_difference"] == NOTHING
    assert nothing["detected"].value == 0


def test_a_predictor_agrees_with_itself_and_not_with_a_withheld_face():
    half = np.arange(40) < 10
    reference = np.tile([0.9, 0.1, np.nan, 0.8, 0.2], (40, 1))
    reference[half, :2] = 0.3, 0.7
    seen = reference.copy()
    seen[0, 0] = 0.9
    released = np.arange(40) != 39
    found = agreement(seen, reference, released, np.arange(40), seed=0)
    # One of ten disagrees and one of thirty was withheld.
    assert found["gender"].value == pytest.approx((9 / 10 + 29 / 30) / 2)
    assert found["age_group"].value == pytest.approx((1 + 29 / 30) / 2)
    assert found["smiling"] == NO_JUDGE
    assert "fewer than 10 of a class" in found["eyeglasses"]


def test_who_says_no_of_everybody_agrees_by_chance_only():
    reference = np.full((100, 5), 0.1)
    reference[:12] = 0.9
    found = agreement(np.zeros((100, 5)), reference, np.ones(100, bool), np.arange(100), seed=0)
    assert found["eyeglasses"].value == 0.5


# --- Attribute accuracy ----------------------------------------------------------------------


def test_balanced_accuracy_over_people_is_that_of_the_rows_with_an_interval():
    labels = np.array([0, 0, 0, 1, 1, -1] * 10)
    predicted = np.array([0, 0, 1, 1, 1, 1] * 10)
    found = accuracy_over_people(predicted, labels, np.arange(60) // 2, seed=0)
    assert found.value == pytest.approx((2 / 3 + 1) / 2)
    assert found.low < found.value < found.high


# --- Matched filter --------------------------------------------------------------------------


def codes_of(n=300, d=24, *, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def clipped_codes():
    codes = codes_of()
    return codes * np.minimum(1, 6 / np.linalg.norm(codes, axis=1, keepdims=True))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_the_best_test_finds_as_often_as_theory_says_and_never_more_than_allowed(sigma):
    found = measure_matched_filter(
        clipped_codes(), np.arange(300), np.zeros(300, int), sigma=sigma, radius=6.0, seed=1
    )
    assert found["pair_tpr"].value == pytest.approx(found["pair_tpr_expected"], abs=0.02)
    allowed = matched_filter_tpr(12.0, sigma, fpr=1e-3)
    assert found["pair_tpr_allowed"] == pytest.approx(allowed)
    assert found["pair_tpr"].value <= allowed + 0.02


def test_without_noise_the_original_is_always_found_and_under_pure_noise_by_chance():
    people, slots = np.arange(300), np.zeros(300, int)
    clear = measure_matched_filter(clipped_codes(), people, slots, sigma=0, radius=6, seed=1)
    assert clear["rank_1"].value == 1
    assert clear["pair_tpr_allowed"] == 1
    pure = measure_matched_filter(clipped_codes(), people, slots, sigma=np.inf, radius=6, seed=1)
    assert pure["rank_1"].value < 0.02
    assert pure["pair_tpr_allowed"] == pytest.approx(1e-3)
    assert "pair_tpr" not in pure


def test_more_noise_hides_more_from_the_exact_original():
    found = [
        measure_matched_filter(
            clipped_codes(), np.arange(300), np.zeros(300, int), sigma=s, radius=6, seed=1
        )["rank_1"].value
        for s in (0.3, 1.0, 3.0)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[2] + 0.3


def test_a_shrunk_and_shifted_copy_of_the_code_is_still_found_by_its_direction():
    codes = codes_of(50)
    shown, people, slots = 0.2 * codes + 5, np.arange(50), np.zeros(50, int)
    found = picture_rank_1(codes, shown, people, slots, released=people >= 0, seed=0)
    assert found["rank_1_from_picture"].value == 1
    shown[:10] = RNG.normal(size=(10, codes.shape[1]))
    found = picture_rank_1(codes, shown, people, slots, released=people >= 10, seed=0)
    assert found["rank_1_from_picture"].value == 1
    found = picture_rank_1(codes, shown, people, slots, released=people >= 0, seed=0)
    assert found["rank_1_from_picture"].value < 1
    nothing = picture_rank_1(codes, shown, people, slots, released=people < 0, seed=0)
    assert nothing["rank_1_from_picture"].value == 1
