"""Attributes: labels from rows, a predictor on frames nobody is shown in, skin tone."""

import numpy as np
import pytest
import torch

from privacy_core.attributes import (
    SKIN_TONES,
    AttributePredictor,
    PredictorConfig,
    balanced_accuracy,
    ita_angle,
    labels_of,
    skin_tone,
)
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import template_mask


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# --- Labels ----------------------------------------------------------------------------------


def test_labels_come_from_columns_and_unknown_ones_say_so():
    assert labels_of({"gender": "male", "smiling": "yes", "age_group": None}) == (1, -1, 1, -1, -1)


@pytest.mark.parametrize("no", [0, -1])
def test_labels_are_read_from_celebas_list_whatever_stands_for_no(no):
    listed = [no] * 40
    listed[31] = 1
    assert labels_of({"attributes": listed}) == (-1, -1, 1, 0, 1)
    listed[24] = 1  # "no beard"
    assert labels_of({"attributes": listed})[4] == 0


def test_a_column_wins_over_celebas_list():
    listed = [1] * 40
    assert labels_of({"attributes": listed, "smiling": "no"})[2] == 0


def test_a_list_of_another_length_is_no_label():
    assert labels_of({"attributes": [1, 0]}) == (-1,) * 5


# --- Skin tone -------------------------------------------------------------------------------


def frame_of(colour):
    return np.full((128, 128, 3), colour, np.uint8)


def test_the_angle_is_that_of_cielab():
    # By scikit-image's rgb2lab: L* 68.78, b* 21.27.
    assert ita_angle(frame_of((200, 160, 130))) == pytest.approx(41.44, abs=0.05)


def test_darker_cheeks_have_a_smaller_angle():
    angles = [ita_angle(frame_of(c)) for c in ((70, 45, 35), (150, 105, 80), (240, 210, 195))]
    assert angles == sorted(angles)
    assert [skin_tone(angle) for angle in angles] == ["dark", "brown", "very light"]


def test_only_the_cheeks_count():
    frame = frame_of((200, 160, 130))
    frame[:60] = 0
    frame[90:] = 255
    assert ita_angle(frame) == ita_angle(frame_of((200, 160, 130)))


def test_every_class_of_skin_tone_is_reached():
    assert [skin_tone(angle) for angle in (-60, -10, 20, 35, 50, 80)] == list(SKIN_TONES)


# --- Balanced accuracy -----------------------------------------------------------------------


def test_each_class_weighs_one_half_and_unknown_rows_nothing():
    labels = [0] * 8 + [1] * 2 + [-1] * 5
    predicted = [0] * 8 + [1, 0] + [1] * 5
    assert balanced_accuracy(predicted, labels) == pytest.approx((1 + 0.5) / 2)


def test_a_constant_guess_is_chance_however_rare_the_class():
    assert balanced_accuracy([0] * 10, [0] * 9 + [1]) == 0.5


def test_one_class_alone_is_refused_with_both_counts():
    with pytest.raises(InvalidArgumentError, match="got 3 of the first and 0 of the second"):
        balanced_accuracy([0, 0, 1], [0, 0, 0])


# --- Predictor -------------------------------------------------------------------------------


def faces(n=160, *, seed=0, inside=True):
    """Return frames whose brightness in (or outside) M tells gender, and their labels."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (n, 128, 128, 3)).astype(np.uint8)
    labels = np.full((n, 5), -1)
    labels[:, 0] = rng.random(n) < 0.3
    where = template_mask() if inside else ~template_mask()
    for frame, label in zip(frames, labels[:, 0], strict=True):
        frame[where] = frame[where] // 2 + (100 if label else 20)
    return frames, labels


TINY = PredictorConfig(width=4, depth=3, epochs=6, seed=3)


@pytest.fixture(scope="module")
def fitted():
    torch.set_num_threads(1)
    return AttributePredictor(TINY).fit(*faces())


def test_what_shows_is_predicted_on_frames_never_seen(fitted):
    frames, labels = faces(80, seed=1)
    assert balanced_accuracy(fitted.predict(frames)[:, 0] > 0.5, labels[:, 0]) > 0.9


def test_attributes_without_both_classes_are_not_predicted(fitted):
    found = fitted.predict(faces(4)[0])
    assert np.isnan(found[:, 1:]).all()
    assert not np.isnan(found[:, 0]).any()


def test_pixels_outside_the_mask_are_read_only_if_asked_for():
    frames, labels = faces(inside=False)
    held, truth = faces(80, seed=1, inside=False)
    blind = AttributePredictor(PredictorConfig(4, 3, 6, whole_crop=False)).fit(frames, labels)
    changed = held.copy()
    changed[:, ~template_mask()] = 7
    # One pooled pixel of the rim holds both sides; 2 × 2 pixels are one of the network's.
    assert abs(blind.predict(changed) - blind.predict(held))[:, 0].max() < 1e-6
    seeing = AttributePredictor(TINY).fit(frames, labels)
    assert balanced_accuracy(seeing.predict(held)[:, 0] > 0.5, truth[:, 0]) > 0.9


def test_the_same_seed_trains_the_same_predictor_and_leaves_the_global_one_alone():
    frames, labels = faces(40)
    config = PredictorConfig(width=4, depth=3, epochs=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = AttributePredictor(config).fit(frames, labels).predict(frames)
    assert torch.equal(torch.get_rng_state(), before)
    two = AttributePredictor(config).fit(frames, labels).predict(frames)
    assert np.array_equal(one, two, equal_nan=True)


def test_a_predictor_is_the_same_after_its_state_went_through(fitted):
    frames, _ = faces(6, seed=4)
    again = AttributePredictor(TINY).load_state(fitted.state())
    assert np.array_equal(again.predict(frames), fitted.predict(frames), equal_nan=True)


def test_what_is_not_fitted_says_what_to_call():
    for call in (lambda p: p.predict(faces(2)[0]), lambda p: p.state()):
        with pytest.raises(InvalidArgumentError, match="Call `fit` before"):
            call(AttributePredictor(TINY))


def test_a_state_of_another_size_is_refused(fitted):
    with pytest.raises(InvalidArgumentError, match="do not fit"):
        AttributePredictor(PredictorConfig(width=8, depth=3)).load_state(fitted.state())
    with pytest.raises(InvalidArgumentError, match="got 0 tensors"):
        AttributePredictor(TINY).load_state({})


def test_labels_of_one_class_only_are_refused():
    with pytest.raises(InvalidArgumentError, match="both classes of at least one"):
        AttributePredictor(TINY).fit(faces(8)[0], np.zeros((8, 5), int))
