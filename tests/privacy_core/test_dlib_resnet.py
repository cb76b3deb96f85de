"""dlib's network in torch: dlib's own numbers, from dlib's own file and no other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from privacy_core.dlib_resnet import WEIGHTS, load_network, shared_network
from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.faces.detect import dlib_model
from privacy_core.recognition import CHIP, DlibRecogniser, face_chip
from privacy_core.schema import Face

EQUAL = 1e-5
"""Euclidean distance; that of two people is about 0.8."""
LANDMARKS = np.array(
    [[255.3, 103.8], [237.5, 104.5], [194.9, 100.6], [212.1, 102.9], [224.0, 134.5]]
)
"""Of the astronaut."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def own():
    network = dlib.face_recognition_model_v1(dlib_model(WEIGHTS))
    return lambda chip: np.array(network.compute_face_descriptor(chip))


class OneFace:
    """Sees the astronaut in every picture that shows anything."""

    name = "one-face"

    def detect(self, pixels):
        return [Face((179.0, 83.0, 267.0, 171.0), LANDMARKS, 1.0, self.name)] * bool(pixels.any())


@pytest.fixture(scope="module")
def chips(astronaut):
    noise = np.random.default_rng(0).integers(0, 256, (2, CHIP, CHIP, 3), dtype=np.uint8)
    flat = np.zeros((2, CHIP, CHIP, 3), dtype=np.uint8)
    flat[1] = 255, 0, 64
    return np.concatenate([face_chip(astronaut, LANDMARKS)[None], noise, flat])


def test_the_numbers_are_dlibs(own, chips):
    expected = np.array([own(chip) for chip in chips])
    found = shared_network().describe(chips)
    assert found.dtype == np.float64
    assert np.linalg.norm(found - expected, axis=1).max() < EQUAL


def test_many_chips_are_described_as_each_of_them(chips):
    network = shared_network()
    many = np.concatenate([chips] * 13)  # more than are seen at once
    one_by_one = np.concatenate([network.describe(chip[None]) for chip in chips])
    found = network.describe(many)
    assert np.linalg.norm(found - np.tile(one_by_one, (13, 1)), axis=1).max() < EQUAL
    assert np.array_equal(network.describe(chip for chip in many), found)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_any_number_of_chips_is_described(chips, n):
    assert shared_network().describe(chips[:n]).shape == (n, 128)


def test_threads_share_the_network(chips):
    network = shared_network()
    alone = [network.describe(chip[None]) for chip in chips]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda chip: network.describe(chip[None]), chips))
    assert np.array_equal(alone, together)
    assert shared_network() is network


@pytest.mark.parametrize(
    "chip",
    [
        np.zeros((CHIP, CHIP), np.uint8),
        np.zeros((CHIP, CHIP, 4), np.uint8),
        np.zeros((128, 128, 3), np.uint8),
        np.zeros((CHIP, CHIP, 3), np.float32),
    ],
)
def test_what_is_no_chip_is_refused_with_the_rule(chip):
    with pytest.raises(InvalidArgumentError, match=r"`chips` must be \(150, 150, 3\) of uint8"):
        shared_network().describe([chip])


# --- The file --------------------------------------------------------------------------------


def flipped(stored):
    middle = len(stored) // 2
    return stored[:middle] + bytes((stored[middle] ^ 1,)) + stored[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda stored: stored[:-1], lambda stored: stored + b"\0", lambda _: b""],
    ids=["one bit", "truncated", "longer", "empty"],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path, damage):
    path = tmp_path / WEIGHTS
    path.write_bytes(damage(Path(dlib_model(WEIGHTS)).read_bytes()))
    with pytest.raises(ModelError, match=r"must be dlib's own.*pip install --force-reinstall"):
        load_network(path)


def test_the_file_of_another_network_is_refused():
    with pytest.raises(ModelError, match=r"'mmod_human_face_detector\.dat' must be dlib's own"):
        load_network(Path(dlib_model("mmod_human_face_detector.dat")))


def test_a_file_that_cannot_be_read_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ModelError, match=r"must be readable, got FileNotFoundError.*pip install"):
        load_network(tmp_path / "nothing.dat")


# --- Its users -------------------------------------------------------------------------------


def test_frames_are_described_together_as_one_by_one(astronaut):
    recogniser = DlibRecogniser()
    frame = warp_to_template(astronaut, fit_alignment(LANDMARKS), zoom=2)
    frames = np.stack([frame, frame[:, ::-1]])
    found = recogniser.embed_frames(frames)
    for frame, descriptor in zip(frames, found, strict=True):
        assert recogniser.distance(recogniser.embed_frame(frame), descriptor) < EQUAL
    assert recogniser.distance(recogniser.embed(astronaut, LANDMARKS), found[0]) < EQUAL
    assert recogniser.embed_frames(frames[:0]).shape == (0, 128)


def test_a_backbone_sees_all_pictures_as_each_of_them(own, astronaut):
    from privacy_core.unlearning.backbone import DlibBackbone

    empty = np.zeros_like(astronaut)
    aligned = DlibBackbone(OneFace())
    found = aligned.features(np.stack([astronaut, empty]))
    expected = [own(face_chip(astronaut, LANDMARKS)), own(np.zeros((CHIP, CHIP, 3), np.uint8))]
    assert np.linalg.norm(found - expected, axis=1).max() < EQUAL


def test_naming_the_recogniser_does_not_load_torch():
    told = (
        "import sys; from privacy_core.recognition import find_recogniser; "
        "find_recogniser('dlib'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0
