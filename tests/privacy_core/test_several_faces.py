"""Several faces in one photo: a strength for each, and what is said when one is left as it is."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy_core.anonymize import Anonymizer
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces import prepare
from privacy_core.noise import NoiseKey
from privacy_core.privacy import NO_NOISE
from privacy_core.report import of_face, variant_report, verified_share, worst_case
from privacy_core.schema import Photo
from tests.privacy_core.tiny import CURVE, FixedDetector, face_at, smooth_photo, tiny_model

FACES = (face_at(20, 15), face_at(150, 60, 0.6))
TOUCHING = (face_at(20, 15), face_at(75, 20, 0.9))
BROKEN = replace(face_at(150, 10, 0.5), landmarks=np.full((5, 2), np.nan))
PHOTO = smooth_photo(160, 260)
KEY = NoiseKey(b"k" * 32, secret=True)


@pytest.fixture(scope="module")
def backend():
    torch.set_num_threads(1)
    return EmbeddedBackend(tiny_model())


@pytest.fixture(scope="module")
def opened(backend):
    return open_with(backend)


def open_with(backend, faces=FACES, photo=PHOTO, **options):
    return Anonymizer(backend, FixedDetector(*faces)).open(photo, key=KEY, **options)


def masks(faces):
    """Return M of each face, (height, width) bool."""
    found = []
    for region in prepare(PHOTO, faces).regions:
        mask = np.zeros(PHOTO.pixels.shape[:2], bool)
        mask[region.window] = region.mask
        found.append(mask)
    return found


def report_of(variant):
    """Return the report after a trip through JSON, which refuses what JSON cannot say."""
    return json.loads(json.dumps(variant_report(variant, curve=CURVE), allow_nan=False))


# --- A strength for each ---------------------------------------------------------------------


def test_a_face_with_its_own_strength_is_the_one_of_the_ladder(opened):
    mixed = opened.variant(0.8, strengths={1: 0.4}).image
    strong, weak = (made.image for made in opened.ladder([0.8, 0.4]))
    first, second = masks(FACES)
    for mask, alone, other in ((first, strong, weak), (second, weak, strong)):
        assert np.abs(mixed[mask].astype(int) - alone[mask]).max() <= 1
        assert np.abs(mixed[mask].astype(int) - other[mask]).mean() > 1


@settings(max_examples=15)
@given(strengths=st.lists(st.floats(0.01, 1), min_size=2, max_size=2))
def test_a_variant_promises_no_more_than_for_its_weakest_face(opened, strengths):
    made = opened.variant(1, strengths=dict(enumerate(strengths)))
    epsilons = [face.privacy.epsilon for face in made.faces]
    assert made.privacy.epsilon == max(epsilons)
    assert made.strength == min(face.strength for face in made.faces)
    assert made.protected


def test_a_face_at_strength_0_among_strong_ones_ends_the_promise(opened):
    made = opened.variant(0.9, strengths={0: 0})
    assert not made.protected
    assert made.privacy.reason == NO_NOISE
    assert made.faces[1].privacy.epsilon > 0
    assert made.strength == 0


def test_without_choices_nothing_changes(opened):
    usual, empty = opened.variant(0.6), opened.variant(0.6, strengths={}, left=())
    assert (usual.image == empty.image).all()
    assert replace(usual, image=None) == replace(empty, image=None)
    assert not usual.is_mixed
    assert opened.variant(0.6, strengths={1: 0.7}).is_mixed


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"strengths": {2: 0.5}}, r"from 0 to 1, got \[2\]"),
        ({"left": (-1,)}, r"from 0 to 1, got \[-1\]"),
        ({"strengths": {0: 1.5}}, "`strength` must be a number"),
    ],
)
def test_choices_for_no_face_or_of_no_strength_are_refused(opened, choices, message):
    with pytest.raises(InvalidArgumentError, match=message):
        opened.variant(0.8, **choices)


# --- Left as it is ---------------------------------------------------------------------------


@pytest.mark.parametrize("faces", [FACES, TOUCHING])
@pytest.mark.parametrize("left", [0, 1])
def test_a_face_that_is_left_is_the_original_and_the_other_is_not(backend, faces, left):
    whole, made = (open_with(backend, faces).variant(0.8, left=some) for some in ((), {left}))
    mine, other = masks(faces)[left], masks(faces)[1 - left]
    untouched = ~other
    assert mine[untouched].any()
    assert (made.image[untouched] == PHOTO.pixels[untouched]).all()
    alone = other & ~mine
    assert np.abs(made.image[alone].astype(int) - whole.image[alone]).max() <= 1
    assert (made.image[other] != PHOTO.pixels[other]).any(1).mean() > 0.5


@pytest.mark.parametrize("faces", [FACES, TOUCHING])
def test_leaving_one_face_tells_nothing_of_the_pixels_of_the_other(backend, faces):
    hidden = masks(faces)[0]
    pixels = PHOTO.pixels.copy()
    pixels[hidden] = 255 - pixels[hidden]
    one, other = (
        open_with(backend, faces, photo).variant(1, left={1}).image
        for photo in (PHOTO, Photo(pixels))
    )
    assert (one == other).all()


def test_a_face_that_is_left_is_said_everywhere_and_never_called_protected(opened):
    made = opened.variant(0.8, left={1})
    assert made.left == (2,)
    assert not made.protected
    assert made.is_mixed
    assert made.privacy.epsilon is None
    assert made.privacy.reason == "1 face is left as it is, of 2"
    assert [face.treatment for face in made.faces] == ["generated", "left"]
    assert made.faces[0].privacy.epsilon > 0
    assert made.faces[1].privacy.epsilon is None
    assert verified_share(made, CURVE) is None
    assert worst_case(made, CURVE)["true_positive_rate"] is None


def test_a_photo_of_which_all_faces_are_left_is_the_photo(opened):
    made = opened.variant(0.8, left={0, 1})
    assert (made.image == PHOTO.pixels).all()
    assert made.privacy.reason == "2 faces are left as they are, of 2"
    assert not made.protected


def test_a_face_with_a_smaller_one_inside_it_is_replaced_and_never_left(backend):
    photo = open_with(backend, (FACES[0], replace(FACES[1], n_inside=2)))
    for left in ({1}, {0, 1}):
        with pytest.raises(InvalidArgumentError, match=r"`left` .* face 2 of 2 .* inside: 2\)"):
            photo.variant(0.8, left=left)
        with pytest.raises(InvalidArgumentError, match="Give the face a strength, or cut"):
            photo.assemble(0.8, {}, left=left)
    assert photo.variant(0.8).protected
    assert photo.variant(0.8, left={0}).left == (1,)


def test_a_face_that_cannot_be_anonymized_may_be_left_or_covered(backend):
    photo = open_with(backend, (FACES[0], BROKEN), solid_on_failure=True)
    covered, left = photo.variant(0.8), photo.variant(0.8, left={1})
    assert (covered.covered, covered.left, covered.protected) == ((2,), (), True)
    assert (left.covered, left.left, left.protected) == ((), (2,), False)
    assert [face.protects for face in covered.faces] == [True, True]


def test_a_filter_promises_nothing_for_the_face_beside_one_that_is_left():
    made = open_with(load_backend("solid")).variant(0.8, left={0})
    assert made.faces[1].protects
    assert not made.protected
    assert made.privacy.basis == "measured only"


# --- What the report says --------------------------------------------------------------------


def test_a_report_states_what_holds_for_each_face(opened):
    report = report_of(opened.variant(0.9, strengths={1: 0.4}))
    assert [part["strength"] for part in report["faces"]] == [0.9, 0.4]
    first, second = (part["mu"] for part in report["faces"])
    assert first < second
    assert report["mu"] == second
    assert report["all_faces"]["mu"] == pytest.approx(math.hypot(first, second))


def test_a_report_of_a_face_that_is_left_guarantees_nothing_for_the_picture(opened):
    report = report_of(opened.variant(0.9, left={0}))
    assert report["left"] == [1]
    assert report["protected"] is False
    assert [part["left"] for part in report["faces"]] == [True, False]
    for part in (report, report["all_faces"]):
        assert part["epsilon"] is None
        assert "left as it is" in part["reason"]
    assert report["faces"][1]["epsilon"] > 0
    assert report["worst_case"]["reason"] == report["reason"]


def test_one_weak_face_ends_what_holds_for_all_together(opened):
    report = report_of(opened.variant(0.9, strengths={0: 0}))
    assert report["all_faces"]["reason"] == NO_NOISE


def test_a_face_of_a_variant_is_stated_like_a_variant_of_its_own(opened):
    made = opened.variant(0.9, strengths={1: 0.4}, left={0})
    alone, uniform = of_face(made, 2), opened.variant(0.4)
    assert (alone.strength, alone.sigma, alone.privacy) == (0.4, uniform.sigma, uniform.privacy)
    assert alone.protected
    assert alone.image.size == 0
    assert worst_case(alone, CURVE) == worst_case(uniform, CURVE)
    for number in (0, 1, 3):
        with pytest.raises(InvalidArgumentError, match="must name a generated face of 2"):
            of_face(made, number)
