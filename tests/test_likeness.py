"""How far a picture is from the original: measured only when asked, in words and as a bar."""

from __future__ import annotations

from dataclasses import replace
from html import unescape

import gradio as gr
import numpy as np
import pytest
import torch

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.noise import NoiseKey
from privacy_core.schema import StrengthCurve
from shell.handlers.likeness import LikenessHandlers
from shell.languages import speaker
from shell.likeness import Likeness, LikenessMeter, find_meter, likeness_html
from shell.visit import Visit
from tests.privacy_core.tiny import FixedDetector, face_at, smooth_photo, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
FACES = (face_at(20, 15), face_at(150, 60, 0.6))


class Place:
    """Takes a face for its mean colour, and remembers what it was shown."""

    name = "place"

    def __init__(self):
        self.seen = []

    def embed(self, pixels, landmarks):
        x, y = landmarks.mean(0).astype(int)
        self.seen.append((int(x), int(y)))
        return pixels[y - 10 : y + 10, x - 10 : x + 10].reshape(-1, 3).mean(0) / 255

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


@pytest.fixture(scope="module")
def opened():
    torch.set_num_threads(1)
    anonymizer = Anonymizer(EmbeddedBackend(tiny_model()), FixedDetector(*FACES))
    return anonymizer.open(smooth_photo(160, 260), key=NoiseKey.fresh())


def test_the_nearest_of_the_faces_that_were_replaced_counts(opened):
    variant, recogniser = opened.variant(0.9), Place()
    found = LikenessMeter(recogniser, threshold=0.5).look(opened, variant)
    each = [
        recogniser.distance(*(recogniser.embed(p, f.landmarks) for p in
                              (opened.photo.pixels, variant.image)))
        for f in FACES
    ]  # fmt: skip
    assert found == Likeness(pytest.approx(min(each)), 0.5, 2)
    assert found.distance > 0


def test_a_face_that_was_left_is_not_measured(opened):
    variant, recogniser = opened.variant(0.9, left=(0,)), Place()
    found = LikenessMeter(recogniser, threshold=0.5).look(opened, variant)
    assert found.n_faces == 1
    assert len(set(recogniser.seen)) == 1
    covered = replace(variant, covered=(2,))
    assert LikenessMeter(recogniser, threshold=0.5).look(opened, covered) is None


@pytest.mark.parametrize(("distance", "says"), [(0.3, "still takes"), (0.8, "no longer takes")])
def test_the_bar_and_the_words_say_the_same(distance, says):
    html = likeness_html(Likeness(distance, 0.568, 1))
    assert f'value="{distance:.3f}"' in html
    assert 'low="0.568"' in html
    assert says in html
    assert f"{distance:.2f}" in html
    # What can be done where it is known, and a caution where it is not.
    assert ("nearer the strength is to 1" in html) == (distance < 0.568)
    assert ("may do better" in html) == (distance > 0.568)
    assert "nearest" not in html
    assert "Of 3 faces" in likeness_html(Likeness(distance, 0.568, 3))


def test_a_picture_without_a_replaced_face_has_nothing_to_measure():
    assert "no anonymized face" in likeness_html(None)
    assert "<meter" not in likeness_html(None)


def test_germans_read_it_in_german():
    said = unescape(likeness_html(Likeness(0.3, 0.568, 2), say=speaker("de")))
    assert "0,30" in said
    assert "Von 2 Gesichtern" in said
    assert "recogniser" not in said


def test_a_threshold_of_another_recogniser_is_none():
    curve = StrengthCurve((0.0, 1.0), (0.1, 1.0), {"threshold": 0.4, "recogniser": "place"})
    assert find_meter(Place(), curve) is not None
    assert find_meter(Place(), replace(curve, measured={"threshold": 0.4})) is None
    assert find_meter(Place(), replace(curve, measured={"recogniser": "place"})) is None
    assert find_meter(Place(), None) is None


def test_nothing_is_measured_without_the_tick(opened):
    recogniser = Place()
    handlers = LikenessHandlers(LikenessMeter(recogniser, threshold=0.5))
    request, visit = gr.Request(headers={}), Visit(opened=opened)
    for wanted in (False, None, "yes", 1):
        assert handlers.measure(request, wanted, 0.9, visit) == ""
    assert handlers.measure(request, True, 0.9, Visit()) == ""
    assert handlers.measure(request, True, 0.9, None) == ""
    assert LikenessHandlers(None).measure(request, True, 0.9, visit) == ""
    assert recogniser.seen == []
    assert "<meter" in handlers.measure(request, True, 0.9, visit)
