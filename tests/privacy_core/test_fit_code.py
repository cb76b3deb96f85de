"""Fitting the code to faces made of known patterns, and the codes of augmented copies."""

import numpy as np
import pytest
import torch

from privacy_core.diffusion.code import known_mask
from privacy_core.diffusion.fit_code import (
    AlignedFaces,
    CodeFitConfig,
    _augment,
    _identity_metric,
    encode_copies,
    fit_code,
)
from privacy_core.faces.align import SIZE, template_mask
from privacy_core.schema import AttributePolicy

MASK = torch.from_numpy(template_mask())
CONFIG = CodeFitConfig(n_components=8, n_context=4, copies=2, batch=64, ridge=1e-4)
N, PER_PERSON = 160, 4
WHOLE = np.array([[-9, -9], [140, -9], [140, 140], [-9, 140]], np.float32)
HALF = np.array([[64, -9], [140, -9], [140, 140], [64, 140]], np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def changed(**settings):
    return CodeFitConfig(**vars(CONFIG) | settings)


def quiet(*_):
    return None


def patterns(n=8):
    """Return n orthogonal mirror-symmetric patterns over the frame, (n, 128, 128)."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    waves = [
        np.cos(2 * np.pi * i * x) * np.cos(np.pi * j * (y + 0.5))
        for i in range(3)
        for j in range(3)
    ][1:]
    return np.stack(waves[:n])


def weights():
    """Return (n, 8) weights of the patterns: the first four belong to people, four to photos."""
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(N // PER_PERSON, 4)), PER_PERSON, axis=0)
    photos = rng.normal(size=(N, 4))
    # What tells people apart varies a little within them, too.
    return np.hstack([people + 0.3 * rng.normal(size=people.shape), photos])


def faces(*, known_people=True, labels=True, quads=WHOLE):
    amount = weights()
    pixels = 128 + 9 * np.einsum("nk,kij->nij", amount, patterns())
    frames = np.repeat(pixels[..., None], 3, axis=3).round().clip(0, 255).astype(np.uint8)
    attributes = np.full((N, 5), -1)
    mouth = np.full(N, -1)
    if labels:
        # Attributes for the sake of the argument; smiling (in two ways) changes within people.
        attributes[:, [0, 1, 3, 4]] = amount[:, [6, 0, 1, 7]] > 0
        attributes[30:, 2] = amount[30:, 4] > 0.3  # the rest is unlabelled
        mouth = (amount[:, 5] > 0).astype(np.int64)
    identity = np.repeat(np.arange(N // PER_PERSON), PER_PERSON)
    return AlignedFaces(
        frames, np.broadcast_to(quads, (N, 4, 2)).astype(np.float32),
        identity if known_people else np.full(N, -1), attributes, mouth,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return faces()


@pytest.fixture(scope="module")
def white(data):
    torch.set_num_threads(1)
    return fit_code(data, config=changed(gain=0.0), report=quiet)


@pytest.fixture(scope="module")
def plain():
    """A code of people who are not known, which is simply white."""
    torch.set_num_threads(1)
    return fit_code(faces(known_people=False), config=CONFIG, report=quiet)


@pytest.fixture(scope="module")
def code(data):
    torch.set_num_threads(1)
    return fit_code(data, config=CONFIG, report=quiet)


def codes_of(code, data):
    return code.encode(torch.from_numpy(data.frames))


def between_share(codes):
    """Return the share of the codes' variance that lies between people."""
    grouped = codes.reshape(-1, PER_PERSON, codes.shape[1])
    return float(grouped.mean(1).var(0).sum() / codes.var(0).sum())


# --- Components ------------------------------------------------------------------------------


def test_eight_components_explain_faces_made_of_eight_patterns(code, data):
    frames = torch.from_numpy(data.frames)
    pixels = code.pixels(frames)
    projected = code.mean + (pixels - code.mean) @ code.basis.T @ code.basis
    total = (pixels - code.mean).square().sum()
    assert float((pixels - projected).square().sum() / total) < 0.01
    decoded = code.decode(code.encode(frames))
    assert (decoded.int() - frames.int())[:, MASK].abs().max() <= 4


def test_components_are_orthonormal_and_fill_the_int8_range(code):
    assert torch.allclose(code.basis @ code.basis.T, torch.eye(8), atol=0.01)
    assert (code.components.abs().amax(1) == 127).all()


def test_the_mean_is_that_of_the_faces_and_their_mirror_images(code, data):
    frames = torch.from_numpy(data.frames)
    both = torch.cat([code.pixels(frames), code.pixels(frames.flip(2))])
    assert torch.allclose(code.mean, both.mean(0), atol=1e-4)


def test_fitting_is_repeatable_and_reports_its_stages(data):
    stages, few = [], data.take(np.arange(30))
    one = fit_code(few, config=CONFIG, report=quiet)
    again = fit_code(few, config=CONFIG, report=lambda *news: stages.append(news))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), again.buffers(), strict=True))
    assert {"components", "codes", "context"} <= {stage for stage, _, _ in stages}
    assert all(0 <= done <= total for _, done, total in stages)


# --- Metric ----------------------------------------------------------------------------------


def test_the_metric_and_its_inverse_belong_together(code):
    assert torch.allclose(code.metric @ code.inverse_metric, torch.eye(8), atol=1e-4)


def test_deviations_are_stored_and_the_mean_variance_is_one(code, data):
    codes = codes_of(code, data)
    assert torch.allclose(codes.std(0), code.sd, rtol=1e-4)
    assert float(code.sd.square().mean()) == pytest.approx(1, rel=1e-3)


def test_one_face_in_twenty_of_those_fitted_is_clipped(code, data):
    norms = codes_of(code, data).norm(dim=1)
    radius = code.clip_radius(torch.ones(1, 8))
    assert float((norms > radius * 1.0001).float().mean()) == pytest.approx(0.05, abs=0.01)


def test_without_gain_all_directions_vary_alike_within_people(data):
    scores = torch.from_numpy(data.frames[:, MASK]).flatten(1).float()
    scores = scores @ torch.linalg.svd(scores - scores.mean(0), full_matrices=False).Vh[:8].T
    metric = _identity_metric(scores, torch.from_numpy(data.identity), gain=0.0, ridge=1e-6)
    grouped = (scores @ metric.T).reshape(-1, PER_PERSON, 8)
    within = torch.cov((grouped - grouped.mean(1, keepdim=True)).reshape(-1, 8).T)
    spread = torch.linalg.eigvalsh(within)
    assert float(spread[-1] / spread[0]) < 1.05


def test_gain_damps_the_directions_that_tell_people_apart(code, white, data):
    assert between_share(codes_of(white, data)) > 0.6
    # A stray 25 % is what the means of four photos of any noise vary by.
    assert between_share(codes_of(code, data)) < 0.35


def test_without_repeated_people_the_code_is_whitened(plain, data):
    spread = torch.linalg.eigvalsh(torch.cov(codes_of(plain, data).T))
    assert float(spread[-1] / spread[0]) < 1.1


def test_coordinates_of_no_attribute_are_uncorrelated_with_all_others(code, data):
    correlation = torch.corrcoef(codes_of(code, data).T)
    assert torch.allclose(correlation[6:, 6:], torch.eye(2), atol=2e-3)
    assert correlation[6:, :6].abs().max() < 2e-3


# --- Attributes ------------------------------------------------------------------------------


def correlation(codes, label):
    """Return how well each coordinate, (k,), follows a label where it is known."""
    known = torch.from_numpy(label >= 0)
    target = torch.from_numpy(label).float()[known]
    return torch.stack([
        torch.corrcoef(torch.stack([column, target]))[0, 1].abs() for column in codes[known].T
    ])  # fmt: skip


def test_the_first_coordinate_is_where_gender_shows_and_hiding_it_removes_it(code, plain, data):
    label = data.attributes[:, 0]
    seen = correlation(codes_of(code, data), label)
    assert seen[0] > 0.7
    assert seen[6:].max() < 0.1  # nothing linear is left in the coordinates of no attribute
    # Where the code is white, nothing is left in those of the other attributes either.
    seen = correlation(codes_of(plain, data), label)
    assert seen[0] > 0.7
    assert seen[1:].max() < 0.1


def test_hiding_leaves_equal_means_and_nothing_linear(code, data):
    label = torch.from_numpy(data.attributes[:, 0])
    left = code.without_hidden(codes_of(code, data), AttributePolicy(hide=("gender",)))
    assert torch.allclose(left[label == 0].mean(0), left[label == 1].mean(0), atol=1e-4)


def test_every_attribute_shows_in_its_own_coordinates(plain, data):
    codes = codes_of(plain, data)
    columns = {"gender": 0, "beard": 4, "age_group": 1, "eyeglasses": 3}
    for place, name in enumerate(columns):
        assert correlation(codes, data.attributes[:, columns[name]]).argmax() == place
    assert correlation(codes, data.attributes[:, 2]).argmax() == 4
    assert correlation(codes, data.mouth_open).argmax() == 5


def test_attributes_without_labels_keep_their_places(code):
    unlabelled = faces(labels=False).take(np.arange(60))
    blank = fit_code(unlabelled, config=CONFIG, report=quiet)
    assert list(blank.sizes.groups.items()) == list(code.sizes.groups.items())
    assert sum(blank.sizes.groups.values()) == 6
    assert all(value.isfinite().all() for value in blank.buffers())
    assert torch.allclose(blank.metric @ blank.inverse_metric, torch.eye(8), atol=1e-4)


def test_a_code_for_synthetic_people_has_identity_first_and_the_whole_frame(data):
    whole = fit_code(data, config=changed(identity_width=4, gain=0.0), report=quiet)
    assert dict(whole.sizes.groups) == {"identity": 4}
    assert whole.mask.all()
    codes = codes_of(whole, data)
    assert between_share(codes[:, :4]) > 0.8
    assert between_share(codes[:, 4:]) < 0.4


# --- Context ---------------------------------------------------------------------------------


def test_contexts_of_the_fitted_faces_have_mean_zero_and_variance_one(code, data):
    contexts = code.context(torch.from_numpy(data.frames))
    assert torch.allclose(contexts.mean(0), torch.zeros(4), atol=0.05)
    assert torch.allclose(contexts.std(0), torch.ones(4), atol=0.1)


def test_half_photographed_faces_do_not_shape_the_context(code, data):
    frames, quads = data.frames.copy(), data.quads.copy()
    frames[::3, :, :64], quads[::3] = 255, HALF
    mixed = AlignedFaces(frames, quads, data.identity, data.attributes, data.mouth_open)
    fitted = fit_code(mixed, config=CONFIG, report=quiet)
    whole = torch.from_numpy(data.frames[np.arange(N) % 3 > 0])
    assert torch.allclose(fitted.context(whole).std(0), torch.ones(4), atol=0.1)
    assert torch.allclose(fitted.context_mean, code.context_mean, atol=0.05)


def test_a_fit_without_one_whole_photo_still_has_a_context():
    halves = faces(quads=HALF).take(np.arange(20))
    fitted = fit_code(halves, config=CONFIG, report=quiet)
    again = fit_code(halves, config=CONFIG, report=quiet)
    assert fitted.context_components.isfinite().all()
    assert torch.equal(fitted.context_components, again.context_components)


# --- Augmented codes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few():
    """Faces of which the left half was not photographed."""
    return faces(quads=HALF).take(np.arange(70))


@pytest.fixture(scope="module")
def copies(code, few):
    return encode_copies(code, few, config=CONFIG, report=quiet)


def test_every_face_comes_with_its_mirror_image_and_its_copies(copies):
    assert copies.codes.shape == (70 * 4, 8)
    assert copies.context.shape == (70 * 4, 4)
    assert copies.attributes.shape == (70 * 4, 5)
    assert copies.codes.dtype == copies.context.dtype == torch.float16
    assert copies.codes.isfinite().all()
    assert copies.context.abs().max() <= 4


def test_the_first_copies_are_the_face_itself_and_its_mirror_image(code, few, copies):
    frames = torch.from_numpy(few.frames[:64])  # one batch, copy by copy
    assert torch.equal(copies.codes[:64], code.encode(frames).half())
    assert torch.equal(copies.codes[64:128], code.encode(frames.flip(2)).half())
    known = known_mask(few.quads[:64])
    assert torch.equal(copies.context[:64], code.context(frames, known).half())
    mirrored = code.context(frames.flip(2), known.flip(2))
    assert torch.equal(copies.context[64:128], mirrored.half())


def test_augmented_copies_are_near_their_face_but_not_the_same(copies):
    original, augmented = copies.codes[:64].float(), copies.codes[128:192].float()
    assert not (original == augmented).all(1).any()
    correlation = torch.corrcoef(torch.stack([original.flatten(), augmented.flatten()]))
    assert float(correlation[0, 1]) > 0.5


def test_labels_travel_with_every_copy_and_missing_ones_become_null(few, copies):
    expected = np.where(few.attributes < 0, 2, few.attributes)
    for copy in range(4):
        assert torch.equal(
            copies.attributes[64 * copy : 64 * (copy + 1)], torch.tensor(expected[:64])
        )


def test_the_same_seed_makes_the_same_copies_and_another_seed_others(code, few, copies):
    again = encode_copies(code, few, config=CONFIG, report=quiet)
    assert torch.equal(again.codes, copies.codes)
    other = encode_copies(code, few, config=changed(seed=1), report=quiet)
    assert not torch.equal(other.codes[128:192], copies.codes[128:192])


def test_what_is_known_moves_with_the_picture():
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    inside = torch.from_numpy((x > 30) & (y > 50)).expand(16, -1, -1)
    frames = torch.where(inside[..., None], 200, 40).to(torch.uint8).expand(-1, -1, -1, 3)
    moved, known = _augment(frames, inside, torch.Generator().manual_seed(0))
    assert moved.shape == frames.shape
    assert moved.dtype == torch.uint8
    bright = moved.float().mean(3) > 120
    assert float((bright == known).float().mean()) > 0.98
    assert not torch.equal(known[0], inside[0])
    # Half of the copies are mirrored.
    mirrored = known[:, 100, 5].tolist()
    assert 4 <= sum(mirrored) <= 12
