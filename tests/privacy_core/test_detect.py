"""Detectors: the astronaut's one face at every size, each face once, doubts judged."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.faces.align import TEMPLATE, Alignment, fit_alignment, mask_radius
from privacy_core.faces.cascade import (
    DETECTORS,
    CascadeDetector,
    default_detector,
    detector,
    without_hidden,
    without_repetition,
)
from privacy_core.faces.detect import (
    CnnDetector,
    HogDetector,
    Landmarks,
    dlib_model,
    find_again,
    overlap,
)
from privacy_core.faces.paste import prepare
from privacy_core.schema import Face, Photo

# Read off the photo by eye: the middles of her eyes, on the picture's right and left.
EYES = np.array([[246.0, 102.0], [204.0, 101.0]])


@pytest.fixture(scope="module")
def default():
    return default_detector()


def face(left, top, side, *, score=1.0, detector="fake"):
    scale = side / 104
    matrix = np.array([[scale, 0, left - 11 * scale], [0, scale, top - 22 * scale]])
    box = (left, top, left + side, top + side)
    return Face(box, Alignment(matrix).to_photo(TEMPLATE), score, detector)


class Fixed:
    """A detector that knows its faces, and a judge that confirms some of them."""

    name = "fixed"

    def __init__(self, *faces, confirmed=()):
        self.faces = list(faces)
        self.confirmed = confirmed
        self.asked = []

    def detect(self, pixels):
        self.asked.append("photo")
        return list(self.faces)

    def confirms(self, pixels, face):
        self.asked.append(face)
        return face in self.confirmed


def eyes(landmarks):
    return np.array([landmarks[:2].mean(0), landmarks[2:4].mean(0)])


@pytest.mark.parametrize("size", [200, 512, 1300])
def test_the_default_finds_the_one_face_at_every_size(astronaut, default, size):
    pixels = np.asarray(Image.fromarray(astronaut).resize((size, size)))
    faces = default.detect(pixels)
    assert len(faces) == 1
    assert np.abs(eyes(faces[0].landmarks) - EYES * size / 512).max() < 4 * size / 512


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_finds_the_same_eyes(astronaut, name):
    found = max(detector(name).detect(astronaut), key=lambda one: one.score)
    assert np.abs(eyes(found.landmarks) - EYES).max() < 4
    assert mask_radius(fit_alignment(found.landmarks).to_template(EYES)).max() < 0.7


def test_several_faces_come_largest_first(astronaut, default):
    small = np.asarray(Image.fromarray(astronaut).resize((300, 300)))
    pixels = np.full((512, 812, 3), 200, np.uint8)
    pixels[:300, :300] = small
    pixels[:, 300:] = astronaut
    faces = default.detect(pixels)
    assert len(faces) == 2
    assert faces[0].box[0] > 300
    assert faces[1].box[2] < 300


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (40, 40)])
def test_photos_too_small_for_a_face_give_none(default, shape):
    assert default.detect(np.full((*shape, 3), 90, np.uint8)) == []


def test_landmarks_depend_little_on_the_detectors_box(astronaut):
    landmarks = Landmarks()
    one = landmarks.find(astronaut, (177, 77, 267, 167))
    other = landmarks.find(astronaut, (185, 70, 277, 162))
    assert np.abs(one - other).max() < 2.5


def test_a_face_at_the_border_is_aligned_within_the_photo(astronaut, default):
    (found,) = default.detect(astronaut[80:])
    assert found.box[1] < 10
    assert np.abs(eyes(found.landmarks) - (EYES - [0, 80])).max() < 4


def test_the_judge_confirms_the_face_and_rejects_the_badge(astronaut):
    judge = CnnDetector()
    assert judge.confirms(astronaut, face(177, 77, 90))
    assert not judge.confirms(astronaut, face(123, 330, 105))


def test_sure_faces_need_no_judge_and_doubtful_ones_do():
    sure, doubtful, wrong = (
        face(0, 0, 50, score=0.9),
        face(100, 0, 50, score=-0.2),
        face(200, 0, 50, score=-0.3),
    )
    judge = Fixed(confirmed=[doubtful])
    found = CascadeDetector([Fixed(sure, doubtful, wrong)], judge).detect(None)
    assert found == [sure, doubtful]
    assert judge.asked == [doubtful, wrong]


def test_without_any_face_the_judge_sees_the_whole_photo():
    last = face(0, 0, 300)
    judge = Fixed(last)
    assert CascadeDetector([Fixed(), Fixed(face(0, 0, 50, score=0))], judge).detect(None) == [last]
    assert judge.asked[-1] == "photo"


def test_only_the_surest_doubts_are_judged_and_the_rest_count_as_faces():
    doubts = [face(100 * i, 0, 50, score=-i / 100) for i in range(20)]
    judge = Fixed(confirmed=doubts[:3])
    found = CascadeDetector([Fixed(*reversed(doubts))], judge, most_doubts=3).detect(None)
    assert judge.asked == doubts[:3]
    assert found == doubts


def test_one_face_found_twice_is_kept_once_and_the_surer_box_stays():
    weak, strong = face(0, 0, 100, score=0.3), face(6, 4, 96, score=0.8)
    assert CascadeDetector([Fixed(weak), Fixed(strong)], Fixed()).detect(None) == [strong]
    assert without_repetition([weak, strong]) == [weak]


def test_neighbouring_faces_that_overlap_are_both_kept():
    one, other = face(0, 0, 100), face(60, 10, 80)
    assert without_hidden(without_repetition([one, other])) == [one, other]


def test_a_box_inside_another_faces_mask_is_dropped_and_one_that_sticks_out_is_kept():
    large, inside, sticking_out = face(0, 0, 200), face(80, 80, 30), face(170, 80, 40)
    assert without_hidden([inside, sticking_out, large]) == [
        replace(large, n_inside=1),
        sticking_out,
    ]


def test_a_face_counts_the_smaller_ones_inside_it_and_each_of_two_around_one_counts_it():
    large, small, smaller = face(0, 0, 200), face(60, 80, 60), face(75, 95, 20)
    beside, between = face(120, 0, 190), face(140, 90, 25)
    alone = without_hidden([smaller, large, small])
    assert [found.n_inside for found in alone] == [2]
    both = without_hidden([between, beside, large, smaller])
    assert [(found.box, found.n_inside) for found in both] == [(large.box, 2), (beside.box, 1)]
    found = CascadeDetector([Fixed(large), Fixed(small)], Fixed()).detect(None)
    assert [one.n_inside for one in found] == [1]


@pytest.mark.parametrize("is_aligned", [True, False])
def test_a_face_whose_landmarks_are_not_trusted_hides_no_other(is_aligned):
    """Its own box is covered only, which the ellipse around wrong landmarks has left."""
    larger = face(200, 200, 200)
    larger = replace(larger, landmarks=larger.landmarks + np.array([110.0, 0.0]))
    small = face(440, 270, 40)
    if not is_aligned:
        small = replace(small, landmarks=np.full((5, 2), np.nan))
    faces = without_hidden([small, larger])
    assert faces == [larger, small]
    photo = np.random.default_rng(0).integers(0, 100, (600, 600, 3), dtype=np.uint8)
    photo[270:310, 440:480] += 150
    prepared = prepare(Photo(photo), faces)
    assert 0 in prepared.failures
    changed = (prepared.paste({}, covered=range(len(faces))) != photo).all(2)
    y, x = np.mgrid[270:310, 440:480] + 0.0
    # Of a face with landmarks M is replaced, which leaves the corners of its box.
    in_m = np.hypot((x - 460) / 19, (y - 288) / 18) < 1
    assert changed[270:310, 440:480][in_m if is_aligned else ...].all()


def test_a_face_is_found_again_where_it_was_and_the_largest_there_counts():
    original = face(100, 100, 80)
    elsewhere, large, small = face(300, 0, 200), face(90, 95, 90), face(110, 110, 50)
    found = find_again(Fixed(elsewhere, large, small), None, original.landmarks)
    assert found is large.landmarks
    assert find_again(Fixed(elsewhere), None, original.landmarks) is None
    assert find_again(Fixed(), None, original.landmarks) is None


@pytest.mark.parametrize("edge", range(4))
def test_a_face_is_found_again_up_to_the_edge_of_its_box_and_no_further(edge):
    original = face(100, 100, 80)
    (x, y), outward = original.landmarks.mean(0), (1, 1, -1, -1)[edge]
    box = [x - 30, y - 30, x + 30, y + 30]
    for beyond, is_found in ((0, True), (0.01 * outward, False)):
        box[edge] = (x, y)[edge % 2] + beyond
        there = Face(tuple(box), original.landmarks, 1.0, "fake")
        found = find_again(Fixed(there), None, original.landmarks)
        assert (found is not None) is is_found


def test_overlap_is_intersection_over_union():
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_a_higher_threshold_never_finds_more(astronaut):
    found = [HogDetector(threshold=limit).detect(astronaut) for limit in (-0.3, 0.0, 0.5, 9.0)]
    assert [len(faces) for faces in found] == sorted((len(f) for f in found), reverse=True)
    assert len(found[0]) > len(found[2]) == 1
    assert found[3] == []


def test_unknown_detectors_and_missing_weights_name_the_way_out():
    with pytest.raises(InvalidArgumentError, match="Choose one of: dlib, dlib-hog, dlib-cnn"):
        detector("yolo")
    with pytest.raises(ModelError, match=r"'nothing\.dat' are missing.*pip install"):
        dlib_model("nothing.dat")
