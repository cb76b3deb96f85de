"""The second recogniser: what it sees, what it embeds, and how its files are read."""

import json
import sys
import types
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from privacy_core.commands.shell import Tools
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import TEMPLATE, fit_alignment, opaque_mask, warp_to_template
from privacy_core.margin_recogniser import (
    N_FEATURES,
    RECOGNISER_CONFIG,
    RECOGNISER_FOLDER,
    RECOGNISER_WEIGHTS,
    MarginNetwork,
    MarginRecogniser,
    RecogniserConfig,
    features_of,
    load_recogniser,
)
from privacy_core.recognition import DlibRecogniser, Recogniser, find_recogniser
from tests.privacy_core.tiny import face_at, frame_slice, smooth_photo

TINY = RecogniserConfig(n_components=24, hidden=8, embedding=16)
REVISION = "0123456789ab"
FACE = face_at(6, 8)
# Of `TEMPLATE`, as a detector numbers them in the mirrored photo.
MIRRORED = [2, 3, 0, 1, 4]


def frames(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 128, 128, 3), dtype=np.uint8)


def tiny_network(*, config=TINY):
    """Return an untrained network with random components, so that it tells frames apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MarginNetwork(config)
        network.mean = features_of(frames(16)).mean(0)
        network.basis = torch.randn(N_FEATURES, config.n_components)
        nn.init.normal_(network.last.weight)
    return network


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return tiny_network()


@pytest.fixture(scope="module")
def recogniser(network):
    return MarginRecogniser(network, "tiny")


# --- What it embeds ----------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_of_their_own_and_always_the_same(recogniser):
    seen = recogniser.embed_frames(frames(5))
    assert (seen.shape, seen.dtype) == ((5, 16), np.float64)
    assert np.linalg.norm(seen, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert len(np.unique(seen.round(4), axis=0)) == 5
    # Dropout is for training.
    assert np.array_equal(recogniser.embed_frames(frames(5)), seen)


def test_the_hidden_layer_counts_beside_the_linear_map(network):
    some = features_of(frames(4))
    with torch.inference_mode():
        linear = network.linear((some - network.mean) @ network.basis)
        assert not torch.allclose(network(some), linear, atol=0.1)


def test_a_face_and_its_mirror_image_have_one_embedding(network, recogniser):
    some = frames(4)
    seen, mirrored = (recogniser.embed_frames(each) for each in (some, some[:, :, ::-1]))
    assert mirrored == pytest.approx(seen, abs=1e-5)
    with torch.inference_mode():
        one, other = (network(features_of(each)) for each in (some, some[:, :, ::-1]))
    assert not torch.allclose(one, other, atol=0.1)


def test_a_mirrored_photo_has_the_embedding_of_the_photo(recogniser):
    photo = smooth_photo().pixels
    mirrored = np.ascontiguousarray(photo[:, ::-1])
    points = FACE.landmarks[MIRRORED] * (-1, 1) + (photo.shape[1] - 1, 0)
    seen = recogniser.embed(photo, FACE.landmarks)
    # Resampling rounds pixels the other way round.
    assert recogniser.distance(seen, recogniser.embed(mirrored, points)) < 1e-3
    assert recogniser.distance(seen, recogniser.embed(photo, points)) > 0.1


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_pixels_that_a_variant_shares_with_its_surroundings_change_nothing(recogniser, seed):
    one, other = frames(2, seed)
    other[opaque_mask()] = one[opaque_mask()]
    seen = recogniser.embed_frames(one[None])
    assert np.array_equal(recogniser.embed_frames(other[None]), seen)


# Two rows at each end are not seen.
inside = st.sampled_from([place for place in np.argwhere(opaque_mask()).tolist()
                          if 22 <= place[0] < 118])  # fmt: skip


@settings(max_examples=15)
@given(inside, st.integers(0, 2))
def test_every_pixel_of_the_opaque_part_counts(recogniser, place, channel):
    (one,) = frames(1)
    other = one.copy()
    other[(*place, channel)] ^= 128
    first, second = recogniser.embed_frames(np.stack([one, other]))
    assert not np.array_equal(first, second)


def test_all_but_two_rows_of_the_opaque_part_at_each_end_are_seen():
    rows, columns = np.nonzero(opaque_mask())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 119, 20, 107)
    assert features_of(frames(3)).shape == (3, N_FEATURES)


def rippled(angle):
    """Return a frame of waves that run across at an angle, in degrees."""
    y, x = np.mgrid[:128, :128]
    wave = np.sin((np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * y) / 3)
    return np.repeat((127 + 100 * wave)[..., None], 3, 2).astype(np.uint8)


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_gradients_are_told_by_their_angle(angle):
    (found,) = features_of(rippled(angle)[None])
    # Blocks of 11 x 11 places, each with 2 x 2 cells of 8 angles; the middle of the face.
    histogram = found[: 32 * 121].reshape(8, 4, 11, 11)[:, :, 4:7, 4:7].sum((1, 2, 3))
    assert int(histogram.argmax()) == round(angle / 22.5) % 8


def test_light_and_contrast_change_the_colours_only():
    (frame,) = rippled(30)[None]
    dim = (frame * 0.5 + 40).round().astype(np.uint8)
    one, other = features_of(np.stack([frame, dim]))
    n_colours = 3 * 24 * 24
    assert torch.allclose(one[:-n_colours], other[:-n_colours], atol=0.1)
    assert (one - other)[-n_colours:].abs().max() > 0.1


def test_no_frames_have_no_embeddings(recogniser):
    assert recogniser.embed_frames(frames(0)).shape == (0, 16)


@pytest.mark.parametrize("scale", [1, 3])
def test_a_photo_has_the_embedding_of_its_frame(recogniser, scale):
    photo = smooth_photo(160 * scale, 170 * scale).pixels
    landmarks = TEMPLATE * scale + (6.5, 8.25)
    frame = warp_to_template(photo, fit_alignment(landmarks))
    (expected,) = recogniser.embed_frames(frame.copy()[None])
    assert np.array_equal(recogniser.embed(photo, landmarks), expected)


def test_many_photos_have_the_embeddings_of_each(recogniser):
    photos = [smooth_photo(160, 170).pixels, smooth_photo(320, 340).pixels]
    landmarks = [TEMPLATE + 7.5, TEMPLATE * 2 + 9]
    expected = [recogniser.embed(*one) for one in zip(photos, landmarks, strict=True)]
    found = recogniser.embed_many(photos, landmarks)
    assert found == pytest.approx(np.array(expected), abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_the_frame_is_what_the_landmarks_say(recogniser):
    # A shift by whole pixels warps exactly.
    photo = smooth_photo().pixels
    (expected,) = recogniser.embed_frames(photo[frame_slice(6, 8)][None])
    assert recogniser.embed(photo, FACE.landmarks) == pytest.approx(expected, abs=1e-6)


def test_frames_that_cannot_be_written_are_read_without_a_warning(recogniser):
    # As Pillow and memory maps hand them out; torch warns only once per process by itself.
    some = frames(2)
    some.flags.writeable = False
    torch.set_warn_always(True)
    try:
        recogniser.embed_frames(some)
    finally:
        torch.set_warn_always(False)


def test_more_frames_than_a_batch_are_embedded_in_their_order(recogniser):
    many = frames(70)
    one_by_one = np.concatenate([recogniser.embed_frames(each[None]) for each in many])
    assert recogniser.embed_frames(many) == pytest.approx(one_by_one, abs=1e-5)


def test_the_distance_of_unit_vectors_lies_between_0_and_2(recogniser):
    one, other = recogniser.embed_frames(frames(2))
    assert recogniser.distance(one, one) == 0
    assert recogniser.distance(one, -one) == pytest.approx(2)
    assert recogniser.distance(one, other) == pytest.approx(np.sqrt(2 - 2 * one @ other), rel=1e-5)


# --- Its files ---------------------------------------------------------------------------------


def write(folder, network, *, revision=REVISION, **config):
    """Write what training writes."""
    folder.mkdir(exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / RECOGNISER_WEIGHTS)
    stored = {
        "schema_version": 1, "revision": revision, "config": asdict(network.config) | config,
    }  # fmt: skip
    (folder / RECOGNISER_CONFIG).write_text(json.dumps(stored), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path, network):
    return write(tmp_path / "weights", network)


def test_a_stored_recogniser_embeds_as_the_one_that_was_trained(folder, recogniser):
    found, some = load_recogniser(folder), frames(3)
    assert found.name == f"margin-{REVISION}"
    seen = found.embed_frames(some)
    assert seen == pytest.approx(recogniser.embed_frames(some), abs=0.01)
    rounded = tiny_network()
    rounded.load_state_dict(
        {name: value.half().float() for name, value in rounded.state_dict().items()}
    )
    assert np.array_equal(seen, MarginRecogniser(rounded, "rounded").embed_frames(some))


def test_the_sizes_are_those_that_were_stored(tmp_path):
    config = RecogniserConfig(9, 6, 5, 0.1)
    found = load_recogniser(write(tmp_path / "other", tiny_network(config=config)))
    assert found.embed_frames(frames(1)).shape == (1, 5)


def assert_refused(folder):
    with pytest.raises(InvalidArgumentError) as caught:
        load_recogniser(folder)
    message = str(caught.value)
    for part in ("`folder`", RECOGNISER_CONFIG, RECOGNISER_WEIGHTS, repr(folder.name),
                 "Check the installation", "`python -m benchmarks.recogniser`"):  # fmt: skip
        assert part in message
    assert str(folder.parent) not in message


def test_a_missing_folder_or_file_is_refused_with_a_way_out(folder, tmp_path):
    assert_refused(tmp_path / "nowhere")
    for name in (RECOGNISER_CONFIG, RECOGNISER_WEIGHTS):
        aside = (folder / name).rename(tmp_path / "aside")
        assert_refused(folder)
        aside.rename(folder / name)
    load_recogniser(folder)


def test_weights_of_another_network_are_refused(folder, tmp_path):
    for config in (replace(TINY, embedding=8), replace(TINY, hidden=9)):
        other = write(tmp_path / "other", tiny_network(config=config))
        (other / RECOGNISER_WEIGHTS).replace(folder / RECOGNISER_WEIGHTS)
        assert_refused(folder)


def test_weights_with_a_tensor_too_few_or_too_many_are_refused(folder):
    weights = load_file(folder / RECOGNISER_WEIGHTS)
    name = "linear.weight"
    fewer = {key: value for key, value in weights.items() if key != name}
    for changed in (fewer, {**weights, "further": weights[name].clone()}):
        save_file(changed, folder / RECOGNISER_WEIGHTS)
        assert_refused(folder)


@pytest.mark.parametrize("kept", [0, 7, 500, -1])
def test_weights_that_were_cut_off_are_refused(folder, kept):
    path = folder / RECOGNISER_WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"config": {}}', '{"config": 3, "revision": "r"}',
     '{"config": [1], "revision": "r"}', b"\xff\xfe"],
)  # fmt: skip
def test_a_broken_configuration_is_refused(folder, text):
    content = text if isinstance(text, bytes) else text.encode()
    (folder / RECOGNISER_CONFIG).write_bytes(content)
    assert_refused(folder)


@pytest.mark.parametrize(
    "config",
    [{"hidden": "8"}, {"hidden": None}, {"n_components": 25}, {"embedding": "16"},
     {"embedding": -1}, {"dropout": 2}, {"depth": 3}],
)  # fmt: skip
def test_sizes_that_make_no_such_network_are_refused(tmp_path, network, config):
    assert_refused(write(tmp_path / "weights", network, **config))


def test_a_configuration_without_a_revision_is_refused(folder):
    path = folder / RECOGNISER_CONFIG
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["revision"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert_refused(folder)


# --- By name -----------------------------------------------------------------------------------


class Own:
    name = "own@1"

    def embed(self, pixels, landmarks):
        return np.ones(4) / 2

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


@pytest.fixture
def shipped(folder, monkeypatch):
    """Put a tiny recogniser where the project's own is read from."""
    assert load_recogniser.__defaults__ == (RECOGNISER_FOLDER,)
    monkeypatch.setattr(load_recogniser, "__defaults__", (folder,))
    return folder


@pytest.mark.usefixtures("shipped")
def test_the_projects_own_is_found_by_its_name():
    found = find_recogniser("margin")
    assert isinstance(found, MarginRecogniser)
    assert isinstance(found, Recogniser)
    assert found.name == f"margin-{REVISION}"


@pytest.mark.usefixtures("shipped")
def test_the_projects_own_stands_beside_another_one(monkeypatch):
    module = types.ModuleType("my_recognition")
    module.load = Own
    monkeypatch.setitem(sys.modules, "my_recognition", module)
    tools = Tools(None, None, None)
    first, second = tools.recognisers()
    assert isinstance(first, DlibRecogniser)
    assert isinstance(second, MarginRecogniser)
    names = [one.name for one in tools.recognisers("my_recognition:load")]
    assert names == ["own@1", f"margin-{REVISION}"]


@pytest.mark.usefixtures("shipped")
def test_the_projects_own_alone_is_measured_with_once():
    (alone,) = Tools(None, None, None).recognisers("margin")
    assert alone.name == f"margin-{REVISION}"


@pytest.mark.parametrize("name", ["dlib", "margin"])
def test_a_given_recogniser_is_alone_and_no_other_is_loaded(name, monkeypatch, tmp_path):
    monkeypatch.setattr(load_recogniser, "__defaults__", (tmp_path / "nowhere",))
    given_one = Own()
    assert Tools(None, None, given_one).recognisers(name) == (given_one,)


def test_without_its_files_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(load_recogniser, "__defaults__", (tmp_path / "nowhere",))
    for name in ("dlib", "margin"):
        with pytest.raises(InvalidArgumentError, match="nowhere"):
            Tools(None, None, None).recognisers(name)
