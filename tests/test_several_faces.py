"""Several faces on the page: whose strength is set, who is left as they are, and what it says."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import HogDetector
from privacy_core.faces.cascade import without_hidden
from privacy_core.schema import AttributePolicy, Face
from shell.face_words import place_label
from shell.pictures import PREVIEW_SIDE, numbered
from shell.visit import Visit
from shell.wording import privacy_line, total_line
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    RefusedError,
    ask,
    jpeg,
    running_fixture,
    visitor_fixture,
)
from tests.privacy_core.tiny import FixedDetector, face_at, smooth_photo, write_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
FACES = (face_at(20, 15), face_at(150, 60, 0.6))
PHOTO = smooth_photo(160, 260)


@pytest.fixture(scope="module")
def anonymizer(tmp_path_factory):
    backend = EmbeddedBackend.load(write_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))
    return Anonymizer(backend, FixedDetector(*FACES))


@pytest.fixture
def opened(anonymizer):
    opened = Visit()
    opened.open(anonymizer, PHOTO, source="own_photo")
    return opened


@pytest.fixture(scope="module")
def pair(astronaut):
    """Return a photo of the same portrait twice, side by side."""
    return jpeg(np.concatenate([astronaut, astronaut], axis=1))


# --- One visit ---------------------------------------------------------------------------------


def test_nobody_is_left_as_they_are_without_permission(opened):
    for permission in (False, None, "yes", 1):
        with pytest.raises(InvalidArgumentError, match="`permission` must be given"):
            opened.leave_face(2, has_permission=permission)
    assert opened.variant(0.8).protected
    opened.leave_face(2, has_permission=True)
    assert opened.variant(0.8).left == (2,)
    opened.anonymize_face(2)
    assert opened.variant(0.8).protected


def test_one_face_at_least_is_anonymized(opened):
    opened.leave_face(1, has_permission=True)
    with pytest.raises(InvalidArgumentError, match="At least one face must be anonymized"):
        opened.leave_face(2, has_permission=True)
    assert opened.left == {0}


def test_a_face_with_a_smaller_one_inside_it_is_not_left(anonymizer):
    visit = Visit()
    outer = Anonymizer(anonymizer.backend, FixedDetector(replace(FACES[0], n_inside=1), FACES[1]))
    visit.open(outer, PHOTO, source="own_photo")
    visit.set_policy(AttributePolicy(keep=("smiling",)))
    with pytest.raises(InvalidArgumentError, match="face 1 of 2"):
        visit.leave_face(1, has_permission=True)
    assert visit.left == frozenset()
    assert visit.variant(0.8).protected
    visit.leave_face(2, has_permission=True)
    assert visit.variant(0.8).left == (2,)


def test_a_new_photo_forgets_strengths_and_permissions(anonymizer, opened):
    opened.turn_face(1, 0.3)
    opened.leave_face(2, has_permission=True)
    opened.open(anonymizer, PHOTO, source="own_photo")
    assert (opened.strengths, opened.left) == ({}, frozenset())
    assert not opened.variant(0.8).is_mixed


def test_a_face_follows_the_dial_until_it_has_a_strength_of_its_own(opened):
    assert [face.strength for face in opened.variant(0.6).faces] == [0.6, 0.6]
    opened.turn_face(2, 0.9)
    assert [face.strength for face in opened.variant(0.6).faces] == [0.6, 0.9]
    opened.turn_face(2, None)
    assert [face.strength for face in opened.variant(0.7).faces] == [0.7, 0.7]


@pytest.mark.parametrize("number", [-1, 0, 3, 1.5, "1", None, True])
def test_a_face_that_is_none_is_refused(opened, number):
    for act in (
        lambda: opened.turn_face(number, 0.5),
        lambda: opened.leave_face(number, has_permission=True),
        lambda: opened.anonymize_face(number),
    ):
        with pytest.raises(InvalidArgumentError, match="one of the 2"):
            act()
    assert (opened.strengths, opened.left) == ({}, frozenset())


def test_an_odd_strength_leaves_the_face_as_it_was(opened):
    opened.turn_face(1, 0.9)
    with pytest.raises(InvalidArgumentError, match="`strength`"):
        opened.turn_face(1, 7)
    assert opened.strengths == {0: 0.9}


def test_choices_need_a_photo():
    with pytest.raises(PhotoError, match="must be open in this tab"):
        Visit().leave_face(1, has_permission=True)


# --- What downloads say together ---------------------------------------------------------------


def test_downloads_cost_what_the_weakest_face_ever_was(opened):
    opened.turn_face(2, 0.4)
    mixed = opened.variant(0.9)
    total = opened.release(mixed)
    assert total.mu == pytest.approx(mixed.faces[1].privacy.mu)
    opened.turn_face(2, 0.9)
    assert opened.release(opened.variant(0.9)) == total
    assert opened.n_left == 0


def test_a_download_in_which_somebody_is_left_says_so_for_good(opened):
    opened.leave_face(2, has_permission=True)
    left_out = opened.variant(0.8)
    total = opened.release(left_out)
    assert total.mu == pytest.approx(left_out.faces[0].privacy.mu)
    assert opened.n_left == 1
    assert "1 person is left as they are" in total_line(total, 1, 1)
    # Anonymizing them afterwards takes nothing back.
    opened.anonymize_face(2)
    opened.turn_face(2, 0.3)
    assert opened.release(opened.variant(0.8)).mu == pytest.approx(total.mu)
    assert opened.n_left == 1
    assert "does not hold for the person" in total_line(total, 2, 1)
    assert "the 3 people" in total_line(total, 2, 3)


def test_a_face_left_after_it_was_anonymized_has_no_part_in_the_promise(opened):
    opened.turn_face(2, 0.2)
    opened.release(opened.variant(0.9))
    opened.leave_face(2, has_permission=True)
    total = opened.release(opened.variant(0.9))
    assert total.mu == pytest.approx(opened.variant(0.9).faces[0].privacy.mu)


def test_faces_under_two_policies_add_up_for_who_is_the_weakest_in_each(opened):
    first = opened.release(opened.variant(0.8)).mu
    opened.set_policy(AttributePolicy(hide=("gender",)))
    opened.turn_face(1, 0.5)
    variant = opened.variant(0.8)
    total = opened.release(variant)
    assert total.mu == pytest.approx(math.hypot(first, variant.faces[0].privacy.mu))


def test_when_everybody_was_left_once_nothing_holds(opened):
    for index in (1, 2):
        opened.leave_face(index, has_permission=True)
        total = opened.release(opened.variant(0.8))
        opened.anonymize_face(index)
    assert total.epsilon is None
    assert "no guarantee" in total_line(total, 2, opened.n_left)


def test_the_line_of_a_variant_with_somebody_left_claims_nothing(opened):
    opened.leave_face(1, has_permission=True)
    line = privacy_line(opened.variant(0.8))
    assert "Not anonymous" in line
    assert "ε" not in line


# --- Pictures and words --------------------------------------------------------------------------


def test_every_face_gets_a_number_beside_it_and_the_photo_stays_as_it_is():
    pixels = np.full((1000, 1600, 3), 90, np.uint8)
    faces = (face_at(700, 400, 2.0), face_at(100, 0, 1.0))
    before = pixels.copy()
    marked = numbered(pixels, faces)
    assert (pixels == before).all()
    assert max(marked.shape[:2]) == PREVIEW_SIDE
    zoom = PREVIEW_SIDE / 1600
    for face in faces:
        left, top, right, bottom = (round(zoom * edge) for edge in face.box)
        assert (marked[top : bottom + 1, left] != 90).any()
        inside = marked[top + 12 : bottom - 12, left + 12 : right - 12]
        assert (inside == 90).mean() > 0.9
    beyond = numbered(np.full((100, 60, 3), 90, np.uint8), (face_at(-60, -60, 1.0),))
    assert beyond.shape == (100, 60, 3)


@pytest.mark.parametrize(
    ("box", "where"),
    [
        ((40, 90, 160, 210), (slice(64, 86), slice(44, 66))),
        ((40, 10, 160, 130), (slice(134, 156), slice(44, 66))),
        ((40, 10, 160, 290), (slice(14, 40), slice(164, 190))),
        ((60, 10, 190, 290), (slice(14, 40), slice(32, 56))),
    ],
    ids=["above", "below", "right", "left"],
)
def test_a_number_stands_where_there_is_room(box, where):
    face = Face(tuple(map(float, box)), np.zeros((5, 2)), 1.0, "fixed")
    marked = numbered(np.full((300, 200, 3), 90, np.uint8), [face])
    assert (marked[where] != 90).mean() > 0.9
    left, top, right, bottom = box
    assert (marked[top + 12 : bottom - 12, left + 12 : right - 12] == 90).all()


def test_faces_are_named_by_number_and_place():
    boxes = [(10 * x, 0, 10 * x + 5, 5) for x in (3, 0, 1, 2)]
    labels = [place_label(number, boxes) for number in (1, 2, 3, 4)]
    assert labels == [
        "Face 1, furthest right",
        "Face 2, furthest left",
        "Face 3, 2nd from the left",
        "Face 4, 3rd from the left",
    ]
    crowd = [(x, 0, x + 1, 1) for x in range(25)]
    places = [place_label(number, crowd).split(", ")[1] for number in (11, 12, 13, 21, 22)]
    assert [place.split()[0] for place in places] == ["11th", "12th", "13th", "21st", "22nd"]


# --- The page ------------------------------------------------------------------------------------


def chosen(outputs, name="choices"):
    return next(o for o in outputs if isinstance(o, dict) and name in o)


def test_faces_can_be_chosen_where_there_are_several(visitor, pair, astronaut):
    outputs = visitor.open(pair)
    assert "2 faces found" in outputs[3]
    names = [name for name, _ in chosen(outputs)["choices"]]
    assert names[0] == "All faces"
    assert sorted(name.split(", ")[1] for name in names[1:]) == ["furthest left", "furthest right"]
    shown = [
        o["visible"] for o in outputs if isinstance(o, dict) and set(o) == {"visible", "__type__"}
    ]
    assert shown[3:] == [True, True, False]
    alone = visitor.open(jpeg(astronaut))
    shown = [
        o["visible"] for o in alone if isinstance(o, dict) and set(o) == {"visible", "__type__"}
    ]
    assert shown[3:] == [False, True, False]


def test_each_face_is_turned_left_and_anonymized_again(visitor, pair):
    visitor.open(pair)
    controls = visitor.call("choose_face", 2, 0.8)
    assert controls[2]["value"] == 0.8
    assert controls[5]["interactive"] is False
    _, line, _, said, _ = visitor.call("turn_face", 0.3, 2, 0.8)
    assert "Face 1: **Strength 0.80**" in line
    assert "Face 2: **Strength 0.30**" in line
    assert "strength of its own" in said
    with pytest.raises(RefusedError, match="`permission` must be given"):
        visitor.call("leave_face", False, 2, 0.8)
    assert visitor.call("permit", True)[0]["interactive"] is True
    line = visitor.call("leave_face", True, 2, 0.8)[-2]
    assert "Not anonymous as a whole" in line
    assert "Face 2: **left as it is, so not anonymous.**" in line
    file, total, _ = visitor.call("download", 0.8)
    assert "not anonymous" in total
    saved = np.asarray(Image.open(io.BytesIO(visitor.fetch(file).content)).convert("RGB"))
    original = np.asarray(Image.open(io.BytesIO(pair)).convert("RGB"))
    halves = [saved[:, part] != original[:, part] for part in (slice(0, 512), slice(512, 1024))]
    assert sorted(bool(half.any()) for half in halves) == [False, True]
    line = visitor.call("anonymize_face", 2, 0.8)[-2]
    assert "Face 2: **Strength 0.30**" in line
    controls = visitor.call("follow_dial", 2, 0.8)
    assert "for each face" in controls[-2]
    assert visitor.call("choose_face", 0, 0.8)[-2] == 0


@pytest.fixture
def held(monkeypatch):
    """Let the detector find one more face, in the middle of the largest."""
    detect = HogDetector.detect

    def and_one_inside(self, pixels):
        largest, *others = detect(self, pixels)
        middle = largest.landmarks.mean(0)
        landmarks = middle + (largest.landmarks - middle) / 8
        box = (*(middle - 10), *(middle + 10))
        return without_hidden([largest, *others, Face(box, landmarks, 1.0, "held")])

    monkeypatch.setattr(HogDetector, "detect", and_one_inside)


@pytest.mark.usefixtures("held")
def test_a_face_with_a_smaller_one_inside_it_is_refused_and_the_page_goes_on(visitor, pair):
    assert "2 faces found" in visitor.open(pair)[3]
    visitor.call("choose_face", 1, 0.8)
    with pytest.raises(RefusedError, match=r"face 1 of 2 .* Give the face a strength, or cut"):
        visitor.call("leave_face", True, 1, 0.8)
    assert "for each face" in visitor.call("turn", 0.6)[1]
    assert "Face 1 follows" in str(visitor.call("choose_face", 1, 0.6))
    assert "not anonymous" not in visitor.call("download", 0.6)[1]
    assert "Face 2: **left as it is" in visitor.call("leave_face", True, 2, 0.8)[-2]


def test_two_faces_at_one_strength_of_their_own_share_a_line(visitor, pair):
    visitor.open(pair)
    visitor.call("turn_face", 0.3, 1, 0.8)
    assert "for each face" in visitor.call("turn_face", 0.3, 2, 0.8)[1]


def test_a_download_that_overtakes_the_finger_takes_the_dial_as_it_stands(visitor, pair):
    visitor.open(pair)
    visitor.call("settle", 0.8, 2, 0.8)
    assert "for each face" in visitor.call("turn", 0.8)[1]
    visitor.call("settle", 0.4, 0, 0.8)
    assert "for each face" in visitor.call("turn", 0.8)[1]
    visitor.call("settle", 0.4, 2, 0.8)
    assert "Face 2: **Strength 0.40**" in visitor.call("turn", 0.8)[1]


def test_a_page_of_four_says_that_all_faces_have_one_strength(visitor, pair, astronaut):
    visitor.open(pair)
    visitor.call("turn_face", 0.3, 2, 0.8)
    assert "every face has the same strength" in str(visitor.call("ask")[0])
    visitor.open(jpeg(astronaut))
    assert "every face" not in str(visitor.call("ask")[0])


def test_using_the_own_strength_goes_back_to_the_dial_of_all(visitor, pair):
    visitor.open(pair)
    visitor.call("choose_face", 2, 0.8)
    ask(visitor)
    outputs = visitor.call("use")
    assert outputs[6] == 0
    assert [outputs[7]["visible"], outputs[8]["visible"]] == [True, False]


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_call_for_a_face_that_is_none_is_refused(visitor, pair, number):
    visitor.open(pair)
    with pytest.raises(RefusedError, match="must be one of the 2 that were found"):
        visitor.call("leave_face", True, number, 0.8)
    assert "for each face" in visitor.call("turn", 0.8)[1]
