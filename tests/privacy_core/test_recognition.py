"""dlib's descriptor: nearer for the same face than for another, at any size."""

import sys
import types

import numpy as np
import pytest
from PIL import Image

from privacy_core.errors import InvalidArgumentError
from privacy_core.faces import default_detector
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.privacy import statement
from privacy_core.recognition import DlibRecogniser, embed_all, find_recogniser
from privacy_core.report import identity_report
from privacy_core.schema import AttributePolicy, StrengthCurve, Variant

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


def test_many_faces_at_once_are_embedded_in_their_order(recogniser, astronaut, landmarks):
    pictures = [astronaut, np.full_like(astronaut, 128), astronaut[::-1].copy()]
    where = [landmarks, landmarks + 5, landmarks - 3]
    expected = [recogniser.embed(*one) for one in zip(pictures, where, strict=True)]
    found = embed_all(recogniser, pictures, where)
    assert found == pytest.approx(np.array(expected), abs=1e-5)
    assert np.abs(found[0] - found[2]).max() > 0.05


def test_a_recogniser_of_one_face_at_a_time_embeds_many_too(landmarks):
    pictures = [np.full((n, n, 3), n, np.uint8) for n in (20, 30)]
    found = embed_all(FirstPixel(), pictures, [landmarks, landmarks + 1])
    assert found == pytest.approx(np.array([[20, landmarks[0, 0]], [30, landmarks[0, 0] + 1]]))


def test_every_picture_needs_its_landmarks(recogniser, astronaut, landmarks):
    for each in (recogniser, FirstPixel()):
        with pytest.raises(ValueError, match="shorter"):
            embed_all(each, [astronaut, astronaut], [landmarks])


# --- Recognisers of one's own ----------------------------------------------------------------


class FirstPixel:
    """Embeds a face as the first value of its picture and of its landmarks."""

    name = "first pixel"

    def embed(self, pixels, landmarks):
        return np.array([pixels[0, 0, 0], landmarks[0, 0]])

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


class Angles:
    name = "angles@1"

    def embed(self, pixels, landmarks):
        return np.ones(4) / 2

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


@pytest.fixture(autouse=True)
def own(monkeypatch):
    module = types.ModuleType("my_recognition")
    module.load, module.other = Angles, dict
    monkeypatch.setitem(sys.modules, "my_recognition", module)


def test_a_recogniser_of_ones_own_is_found_by_module_and_function():
    assert find_recogniser("my_recognition:load").name == "angles@1"
    assert find_recogniser("dlib").name == "dlib-resnet-v1"


@pytest.mark.parametrize(
    "name", ["arcface", "no_such_module:load", "my_recognition:missing", "my_recognition:other",
             "my_recognition:", ":load", ""]
)  # fmt: skip
def test_what_is_no_recogniser_is_refused_with_the_rule(name):
    with pytest.raises(InvalidArgumentError, match="MODULE:FUNCTION"):
        find_recogniser(name)


def test_a_threshold_counts_only_for_the_recogniser_it_was_measured_with(astronaut):
    faces = default_detector().detect(astronaut)[:1]
    variant = Variant(
        astronaut,
        0.5,
        1.0,
        statement(1.0, 1.0, secret=True),
        AttributePolicy(),
        "m",
        "r",
        protected=True,
        n_faces=1,
    )
    curve = StrengthCurve(
        (0.0, 1.0), (0.1, 1.0), {"threshold": 0.55, "recogniser": "dlib-resnet-v1"}
    )
    reports = [
        identity_report(astronaut, variant, faces, recogniser=each, curve=curve)
        for each in (DlibRecogniser(), Angles())
    ]
    assert [report["threshold"] for report in reports] == [0.55, None]
    assert [report["recogniser"] for report in reports] == ["dlib-resnet-v1", "angles@1"]
