"""dlib's descriptor: nearer for the same face than for another, at any size."""

import numpy as np
import pytest
from PIL import Image

from privacy_core.faces import default_detector
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.recognition import DlibRecogniser

THRESHOLD = 0.55


@pytest.fixture(scope="module")
def recogniser():
    return DlibRecogniser()


@pytest.fixture(scope="module")
def landmarks(astronaut):
    return default_detector().detect(astronaut)[0].landmarks


def test_an_embedding_is_128_numbers_and_always_the_same(recogniser, astronaut, landmarks):
    one, other = (recogniser.embed(astronaut, landmarks) for _ in range(2))
    assert one.shape == (128,)
    assert recogniser.distance(one, other) == 0
    assert recogniser.name == "dlib-resnet-v1"


def test_the_same_face_smaller_or_darker_is_still_the_same_person(recogniser, astronaut, landmarks):
    original = recogniser.embed(astronaut, landmarks)
    half = np.asarray(Image.fromarray(astronaut).reduce(2))
    darker = (astronaut * 0.7).astype(np.uint8)
    for pixels, points in [(half, (landmarks - 0.5) / 2), (darker, landmarks)]:
        assert recogniser.distance(original, recogniser.embed(pixels, points)) < THRESHOLD / 2


def test_a_face_without_features_is_somebody_else(recogniser, astronaut, landmarks):
    original = recogniser.embed(astronaut, landmarks)
    blank = np.full_like(astronaut, 128)
    assert recogniser.distance(original, recogniser.embed(blank, landmarks)) > THRESHOLD


def test_the_distance_is_euclidean_and_symmetric(recogniser):
    one, other = np.zeros(128), np.full(128, 0.1)
    assert recogniser.distance(one, other) == pytest.approx(np.sqrt(1.28))
    assert recogniser.distance(one, other) == recogniser.distance(other, one)


def test_an_aligned_frame_gives_the_embedding_of_the_photo(recogniser, astronaut, landmarks):
    alignment = fit_alignment(landmarks)
    from_photo = recogniser.embed(astronaut, landmarks)
    for zoom in (1, 2):
        frame = warp_to_template(astronaut, alignment, zoom=zoom)
        assert recogniser.distance(from_photo, recogniser.embed_frame(frame)) < 0.2
