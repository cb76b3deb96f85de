"""The linear code: what it reads, what a policy and the clip do to it, and the context around."""

import numpy as np
import pytest
import torch

from privacy_core.diffusion.code import (
    CodeConfig,
    LinearCode,
    known_mask,
    surroundings_of,
)
from privacy_core.diffusion.denoiser import KEEP_FACTOR
from privacy_core.faces.align import SIZE, template_mask
from privacy_core.schema import AttributePolicy
from tests.privacy_core.tiny import GROUPS, tiny_code

MASK = torch.from_numpy(template_mask())
WHOLE = [[0, 0], [127, 0], [127, 127], [0, 127]]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def code():
    code = tiny_code()
    code.sd.copy_(torch.linspace(2, 0.2, 24))
    return code


def frames(n=3, *, seed=0, low=0, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)


def quads(*corners):
    return np.array(corners, np.float32)


def changed(pictures, where):
    """Return the pictures with other pixels where the (128, 128) or (n, 128, 128) mask says."""
    return torch.where(where[..., None], 255 - pictures, pictures)


# --- Pixels and codes ------------------------------------------------------------------------


def test_only_pixels_of_the_mask_reach_the_code(code):
    original = frames()
    assert torch.equal(code.encode(changed(original, ~MASK)), code.encode(original))
    assert not torch.allclose(code.encode(changed(original, MASK)), code.encode(original))


def test_every_pixel_of_the_mask_reaches_the_code(code):
    row, column = map(int, MASK.nonzero()[7])
    original = frames(1, high=200)
    other = original.clone()
    other[0, row, column, 1] += 55
    assert not torch.equal(code.encode(other), code.encode(original))


def test_a_code_of_the_whole_frame_reads_every_pixel():
    whole = LinearCode(CodeConfig(2, 4, {}, 1.0, whole_frame=True))
    assert whole.mask.all()
    assert whole.mean.shape == (3 * SIZE**2,)


def test_decoding_a_code_projects_the_face_onto_the_components(code):
    # Faces near the mean, so that no pixel is cut at black or white.
    codes = 0.8 * torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    faces = code.decode(codes)
    projected = code.mean + (code.pixels(faces) - code.mean) @ code.basis.T @ code.basis
    again = code.pixels(code.decode(code.encode(faces)))
    assert (again - projected).abs().max() <= 1.02 / 127.5
    assert (code.encode(faces) - codes).abs().max() < 0.05


def test_decoding_inverts_a_metric_that_mixes_the_coordinates():
    code = tiny_code()
    mixing = torch.randn(24, 24, generator=torch.Generator().manual_seed(2)) / 20
    code.metric.copy_(torch.eye(24) / 10 + mixing / 10)
    code.inverse_metric.copy_(torch.linalg.inv(code.metric))
    codes = 0.5 * torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    assert (code.encode(code.decode(codes)) - codes).abs().max() < 0.05


def test_outside_the_mask_decoded_frames_are_grey_and_extreme_codes_are_cut(code):
    decoded = code.decode(1e6 * torch.ones(1, 24))
    assert (decoded[:, ~MASK] == 128).all()
    assert set(decoded[:, MASK].unique().tolist()) == {0, 255}


# --- Policy and clip -------------------------------------------------------------------------


def test_a_policy_scales_its_own_coordinates_only(code):
    factors = code.policy_factors(
        AttributePolicy(keep=("smiling",), hide=("beard",), set={"gender": "male"})
    )
    expected = torch.ones(24)
    expected[4:6] = KEEP_FACTOR  # gender, beard, age_group, eyeglasses, smiling
    assert torch.equal(factors, expected)


def test_no_policy_changes_nothing(code):
    assert torch.equal(code.policy_factors(AttributePolicy()), torch.ones(24))


def test_the_clip_radius_is_the_root_mean_square_norm_of_the_mapped_codes_times_the_ratio(code):
    factors = torch.stack(
        [code.policy_factors(p) for p in (AttributePolicy(), AttributePolicy(keep=tuple(GROUPS)))]
    )
    codes = code.sd * torch.randn(4000, 24, generator=torch.Generator().manual_seed(0))
    for row, radius in zip(factors, code.clip_radius(factors), strict=True):
        measured = float((row * codes).norm(dim=1).square().mean().sqrt())
        assert float(radius) == pytest.approx(1.5 * measured, rel=0.02)


def test_hiding_drops_the_direction_in_which_the_means_differ_and_no_code_gets_longer():
    code = tiny_code()
    difference = torch.randn(24, generator=torch.Generator().manual_seed(1))
    code.attribute_means[0] = torch.stack([-difference, 2 * difference])
    codes = torch.randn(50, 24, generator=torch.Generator().manual_seed(2))
    left = code.without_hidden(codes, AttributePolicy(hide=("gender",)))
    assert (left @ difference).abs().max() < 1e-4
    assert (left.norm(dim=1) <= codes.norm(dim=1) + 1e-5).all()
    across = torch.eye(24) - torch.outer(difference, difference) / difference.square().sum()
    assert torch.allclose(left, codes @ across, atol=1e-5)
    assert torch.equal(code.without_hidden(codes, AttributePolicy(keep=("gender",))), codes)


def test_a_hidden_attribute_shows_the_mean_of_the_value_it_is_given():
    code = tiny_code()
    policy = AttributePolicy(hide=("gender", "beard"))
    code.attribute_means[:, 0] = -code.attribute_means[:, 1]
    shown = code.hidden_values(policy, [1, 0, 0, 0, 0])
    expected = torch.zeros(24)
    expected[0], expected[1] = 1, -1  # gender 1, beard 0
    assert torch.allclose(shown, expected, atol=1e-6)


def test_an_attribute_without_labels_hides_nothing():
    code = tiny_code()
    code.attribute_means.zero_()
    codes = torch.randn(5, 24, generator=torch.Generator().manual_seed(2))
    assert torch.equal(code.without_hidden(codes, AttributePolicy(hide=("gender",))), codes)


@pytest.mark.parametrize(
    "policy", [AttributePolicy(), AttributePolicy(keep=("smiling",), hide=("gender",))]
)
def test_no_face_whatever_leaves_the_clip_radius(code, policy):
    extreme = torch.stack(
        [torch.full((SIZE, SIZE, 3), 255), torch.zeros(SIZE, SIZE, 3)]
        # The picture that this code answers to most.
        + [(code.decode(1e6 * code.metric[i : i + 1])[0]) for i in range(2)]
    ).to(torch.uint8)
    factors = code.policy_factors(policy).expand(4, -1)
    radius = code.clip_radius(factors) / 20
    mapped = factors * code.encode(extreme)
    assert (mapped.norm(dim=1) > radius).any()
    clipped = code.clip(mapped, radius)
    assert (clipped.norm(dim=1) <= radius * (1 + 1e-6)).all()
    # Only the length changes.
    assert torch.allclose(torch.cosine_similarity(clipped, mapped), torch.ones(4), atol=1e-5)


def test_short_codes_are_not_clipped_at_all(code):
    codes = torch.randn(5, 24) / 100
    assert torch.equal(code.clip(codes, torch.ones(5)), codes)
    assert torch.equal(code.clip(torch.zeros(1, 24), torch.ones(1)), torch.zeros(1, 24))


def test_each_row_is_clipped_at_its_own_radius(code):
    clipped = code.clip(torch.full((2, 24), 9.0), torch.tensor([1.0, 3.0]))
    assert torch.allclose(clipped.norm(dim=1), torch.tensor([1.0, 3.0]))


# --- Context ---------------------------------------------------------------------------------


def test_the_context_reads_no_pixel_of_the_mask(code):
    original = frames()
    assert torch.equal(code.context(changed(original, MASK)), code.context(original))
    assert not torch.equal(code.context(changed(original, ~MASK)), code.context(original))


def test_the_context_reads_no_pixel_that_was_not_photographed(code):
    original, known = frames(2), known_mask(quads(WHOLE, [[30, 0], [127, 0], [127, 99], [30, 99]]))
    coded = code.context(original, known)
    assert torch.equal(code.context(changed(original, ~known), known), coded)
    assert not torch.equal(code.context(changed(original, known), known), coded)


def test_known_pixels_of_the_mask_stay_unread_too(code):
    original, known = frames(1), torch.ones(1, SIZE, SIZE, dtype=torch.bool)
    coded = code.context(original, known)
    assert torch.equal(code.context(changed(original, MASK), known), coded)
    assert torch.equal(coded, code.context(original))


def test_the_context_is_cut_at_four_standard_deviations():
    code = tiny_code()
    code.context_components.mul_(1e4)
    assert code.context(frames()).abs().max() == 4.0


def test_surroundings_are_means_of_known_pixels_and_gaps_are_filled_smoothly():
    flat = torch.full((1, SIZE, SIZE, 3), 230, dtype=torch.uint8)
    known = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    known[:8] = True
    flat[:, ~known] = 7
    surroundings = surroundings_of(flat, known)
    assert surroundings.shape == (1, 3 * 32 * 32)
    assert torch.allclose(surroundings, torch.tensor(230 / 127.5 - 1), atol=1e-5)


def test_one_pixel_of_colour_moves_its_own_small_pixel():
    dark = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)
    spot = dark.clone()
    spot[0, 5, 122, 0] = 255
    moved = surroundings_of(spot, ~MASK) - surroundings_of(dark, ~MASK)
    moved = moved.reshape(3, 32, 32)
    assert moved[0, 1, 30] == pytest.approx(2 / 16)
    # Of the others only gaps under the mask may follow it.
    all_known = (~MASK).reshape(32, 4, 32, 4).all(3).all(1)
    assert moved.nonzero()[:, 0].unique().tolist() == [0]
    assert int((moved[0][all_known] != 0).sum()) == 1


def test_surroundings_without_one_known_pixel_are_grey_and_finite():
    nothing = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    assert torch.equal(surroundings_of(frames(1), nothing), torch.zeros(1, 3 * 32 * 32))


# --- What was photographed -------------------------------------------------------------------


def test_a_photo_around_the_whole_frame_is_known_everywhere():
    around = [[-5, -9], [140, -9], [140, 150], [-5, 150]]
    assert known_mask(quads(WHOLE, around)).all()


def test_known_pixels_are_those_inside_the_rectangle():
    (known,) = known_mask(quads([[10, 20], [100, 20], [100, 90], [10, 90]]))
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[20:91, 10:101] = True
    assert torch.equal(known, expected)


def test_a_photo_turned_by_a_quarter_and_by_an_eighth_is_known_inside():
    turned = [[100, 20], [100, 90], [10, 90], [10, 20]]
    diamond = [[64, 14], [114, 64], [64, 114], [14, 64]]
    rectangle, rhombus = known_mask(quads(turned, diamond))
    assert int(rectangle.sum()) == 91 * 71
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    assert torch.equal(rhombus, (x - 64).abs() + (y - 64).abs() <= 50)


def test_mirroring_the_photo_mirrors_what_is_known():
    corners = np.array([[10, 20], [100, 35], [90, 90], [3, 80]], np.float32)
    mirrored = (corners * [-1, 1] + [127, 0])[::-1]
    known, other = known_mask(quads(corners, mirrored))
    assert 0 < int(known.sum()) < SIZE**2
    assert torch.equal(known.flip(1), other)
