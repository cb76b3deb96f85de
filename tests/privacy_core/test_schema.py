"""The records check themselves at the door."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import (
    ATTRIBUTES,
    DEFAULT_STRENGTH,
    AttributePolicy,
    Photo,
    StrengthCurve,
    check_strength,
)


@given(st.floats(0, 1))
def test_every_number_from_0_to_1_is_a_strength(value):
    assert check_strength(value) == value


@pytest.mark.parametrize(
    "value", [-0.01, 1.01, math.nan, math.inf, -math.inf, "much", "", None, True, False, [0.5]]
)
def test_anything_else_is_refused_with_rule_value_and_way_out(value):
    with pytest.raises(InvalidArgumentError) as error:
        check_strength(value)
    message = str(error.value)
    assert "`strength`" in message
    assert "[0, 1]" in message
    assert repr(value) in message
    assert f"{DEFAULT_STRENGTH} is a good start" in message


def test_a_strength_written_as_text_is_read():
    assert check_strength("0.25") == 0.25


def test_a_policy_names_known_attributes_once():
    policy = AttributePolicy(keep=("smiling",), hide=("gender",), set={"eyeglasses": "yes"})
    assert json.loads(json.dumps(policy.as_json())) == {
        "keep": ["smiling"],
        "hide": ["gender"],
        "set": {"eyeglasses": "yes"},
    }


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ({"keep": ("hat",)}, ["'hat'", "smiling"]),
        ({"hide": ("",)}, ["''", "gender"]),
        ({"set": {"hat": "yes"}}, ["'hat'", "beard"]),
        ({"set": {"smiling": "maybe"}}, ["smiling", "'maybe'", "no, yes"]),
        ({"keep": ("beard",), "hide": ("beard",)}, ["'beard'", "one treatment"]),
        ({"keep": ("beard", "beard")}, ["'beard'", "one treatment"]),
        ({"hide": ("beard",), "set": {"beard": "no"}}, ["'beard'", "one treatment"]),
    ],
)
def test_a_policy_with_an_unknown_or_double_name_is_refused(arguments, mentions):
    with pytest.raises(InvalidArgumentError) as error:
        AttributePolicy(**arguments)
    assert all(mention in str(error.value) for mention in mentions)


def test_attributes_have_two_values_each():
    assert set(ATTRIBUTES) == {"gender", "age_group", "smiling", "eyeglasses", "beard"}
    assert all(len(set(values)) == 2 for values in ATTRIBUTES.values())


def test_records_cannot_be_changed():
    photo = Photo(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        photo.notes = ()


CURVE = StrengthCurve((0.0, 0.5, 1.0), (0.1, 1.0, 10.0))


def test_the_curve_is_linear_in_the_logarithm_between_its_knots():
    sigmas = CURVE.rung_sigmas()
    assert sigmas.shape == (99,)
    assert sigmas[49] == pytest.approx(1.0)
    assert sigmas[24] == pytest.approx(math.sqrt(0.1))
    assert np.allclose(np.diff(np.log(sigmas)), np.log(10) / 50)


@given(
    st.lists(st.floats(0.01, 0.99), min_size=0, max_size=5, unique_by=lambda s: round(100 * s)),
    st.data(),
)
def test_more_strength_is_always_more_noise(inner, data):
    knots = (0.0, *sorted(inner), 1.0)
    steps = data.draw(
        st.lists(st.floats(0.01, 3), min_size=len(knots), max_size=len(knots)), label="steps"
    )
    curve = StrengthCurve(knots, tuple(np.exp(np.cumsum(steps) - 5)))
    assert (np.diff(curve.rung_sigmas()) > 0).all()


@given(st.floats(0, 1))
def test_a_strength_takes_the_nearest_rung(strength):
    rung = CURVE.rung(strength)
    assert 0 <= rung <= 100
    assert abs(rung / 100 - strength) <= 0.005 + 1e-12


@pytest.mark.parametrize(
    ("strengths", "sigmas"),
    [
        ((), ()),
        ((0.0,), (1.0,)),
        ((0.0, 0.9), (0.1, 1.0)),
        ((0.1, 1.0), (0.1, 1.0)),
        ((0.0, 0.5, 0.5, 1.0), (0.1, 0.2, 0.3, 1.0)),
        ((0.0, 1.0), (1.0, 0.1)),
        ((0.0, 1.0), (0.1, 0.1)),
        ((0.0, 1.0), (0.1, math.nan)),
        ((0.0, 1.0), (0.1, 1.0, 2.0)),
    ],
)
def test_a_curve_that_does_not_rise_from_0_to_1_is_refused(strengths, sigmas):
    with pytest.raises(InvalidArgumentError, match="increase from 0 to 1"):
        StrengthCurve(strengths, sigmas)
