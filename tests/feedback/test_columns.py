import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedback.columns import COLUMNS, describe, features, row_problems, six_digits, whole_ms

ID = "0123456789abcdef" * 2
GOOD = {
    "rating_id": ID,
    "schema_version": 2,
    "rater_id": ID,
    "rater_epoch": 32767,
    "session_id": ID,
    "page_id": ID,
    "photo_id": ID,
    "position": 0,
    "n_shown": 16,
    "method": "org/model.v2",
    "model_revision": "0f3c2a",
    "strength": 1,
    "epsilon": None,
    "quality": None,
    "response_type": "slider",
    "response": None,
    "response_value": 0.25,
    "is_catch": False,
    "is_repeat": True,
    "policy": "uniform",
    "propensity": 0.001,
    "response_ms": 86_400_000,
    "client": "mobile",
    "source": "demo_photo",
    "consent_version": "2026-11-20",
    "consent_scope": "publish_row",
    "created_at": datetime(2026, 11, 20, 1, 2, 3, 4000, tzinfo=UTC),
    "app_version": "0.1.0+dev",
    "attributes": "keep=smiling;hide=age_group,gender;set=beard:no,eyeglasses:yes",
}
BAD = {
    "rating_id": [ID[:-1], ID.upper(), ID + "0", 5, None],
    "schema_version": [0, 3, 1.0, True],
    "rater_id": ["a b", "", None],
    "rater_epoch": [0, 32768],
    "session_id": ["127.0.0.1"],
    "page_id": [ID + "\n"],
    "photo_id": ["portrait.jpg"],
    "position": [-1, 16, "0", False],
    "n_shown": [0, 17],
    "method": ["", "two words", "-x", "x" * 129, "name@host", "http://x", "é", None],
    "model_revision": ["a\nb"],
    "strength": [-0.001, 1.001, math.nan, math.inf, "0.5", True, None],
    "epsilon": [-1.0, math.inf, math.nan, "none"],
    "quality": [-0.1, 1e39],
    "response_type": ["stars", 0, None],
    "response": [-1, 5, 2.0, True],
    "response_value": [-0.1, 1.1, "x"],
    "is_catch": [0, None],
    "is_repeat": ["no"],
    "policy": ["<b>"],
    "propensity": [0, 1.1, 1e-50, None],
    "response_ms": [-100, 50, 86_400_100, 100.0],
    "client": ["mcp"],
    "source": ["celebrity"],
    "consent_version": [None, "I agree"],
    "consent_scope": ["all", None],
    "created_at": [
        datetime(2026, 11, 20, tzinfo=UTC) + timedelta(microseconds=1),
        datetime(2026, 11, 20),  # noqa: DTZ001
        datetime(2026, 11, 20, tzinfo=timezone(timedelta(hours=1))),
        "2026-11-20",
        None,
    ],
    "app_version": ["1 0"],
    "attributes": [
        *("", "keep=", ";hide=a", "keep=a;", "keep=a;;hide=b", "none;keep=a", "KEEP=a", "keep=a\n"),
        *("keep=b,a", "keep=a,a", "keep=a;hide=a", "hide=a;keep=b", "keep=a;keep=b", "keep=a:b"),
        *("set=a", "set=a:", "keep=a b", "keep=ahide=b", "keep=" + "a" * 33, 5),
        "keep=" + ",".join(f"a{i:03}" for i in range(80)),
    ],
}


def test_a_good_row_has_no_problem():
    assert row_problems(GOOD) == []


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in BAD for v in BAD[n]])
def test_each_bad_value_gives_one_sentence_naming_its_column(name, value):
    (problem,) = row_problems(GOOD | {name: value})
    assert problem.startswith(f"`{name}` must be ")


def test_every_column_has_a_bad_value_above():
    assert list(BAD) == list(GOOD) == [column.name for column in COLUMNS]


def test_all_bad_columns_are_listed_at_once():
    broken = {name: values[0] for name, values in BAD.items()}
    assert [problem.split("`")[1] for problem in row_problems(broken)] == list(BAD)


def test_a_problem_between_columns_is_found_beside_a_bad_column():
    problems = row_problems(GOOD | {"position": 3, "n_shown": 3, "strength": 2})
    assert [p.split("`")[1] for p in problems] == ["strength", "position"]


@pytest.mark.parametrize(
    ("kind", "response", "value", "is_good"),
    [
        ("jar5", 4, None, True),
        ("jar5", None, None, False),
        ("jar5", 2, 0.5, False),
        ("best_of_n", 1, None, True),
        ("best_of_n", 0, None, True),
        ("best_of_n", 2, None, False),
        ("likert5", 4, None, True),
        ("slider", None, 0.0, True),
        ("slider", None, None, False),
        ("slider", 1, 0.5, False),
    ],
)
def test_each_question_takes_its_own_answers_only(kind, response, value, is_good):
    row = GOOD | {"response_type": kind, "response": response, "response_value": value}
    assert (row_problems(row) == []) is is_good


@pytest.mark.parametrize(
    "policy", [None, "none", "keep=smiling", "hide=a,b", "set=a:0-17", "keep=a;set=b:c"]
)
def test_an_attribute_policy_has_one_spelling_and_may_be_unknown(policy):
    assert row_problems(GOOD | {"attributes": policy}) == []


def test_a_row_has_no_column_that_its_schema_version_did_not_know():
    old = GOOD | {"schema_version": 1}
    assert row_problems(old | {"attributes": None}) == []
    (problem,) = row_problems(old)
    assert problem.startswith("`attributes` must be null in a row of schema 1, got a text")


def test_every_later_column_is_last_and_may_be_null():
    assert [c.since for c in COLUMNS] == sorted(c.since for c in COLUMNS)
    assert all(c.nullable for c in COLUMNS if c.since > 1)


def test_each_schema_version_has_its_features():
    assert list(features(1).items()) == list(features().items())[:-1]
    assert features(2) == features()


def test_no_column_is_made_for_what_must_not_be_kept():
    forbidden = ("seed", "strength_u", "id_similarity", "ip", "user", "agent", "image", "embedding")
    names = [column.name for column in COLUMNS]
    assert not [
        n for n in names if n in forbidden or any(f in n for f in forbidden[3:] if f != "ip")
    ]


def test_a_message_never_repeats_a_text_that_could_be_personal():
    (problem,) = row_problems({"method": "Ada Lovelace, 36 Dorset Street"})
    assert "Ada" not in problem
    assert "a text of 30 characters" in problem


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        ("jar6", "'jar6'"),
        (1.3, "1.3"),
        (True, "True"),
        (10**400, "a int"),
        ([1], "a list"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    ],
)
def test_values_are_described_shortly(value, words):
    assert describe(value) == words


@given(st.floats(min_value=1.2e-38, max_value=3.4e38))
@example(1.2e-38)
def test_six_digits_survive_float32_both_ways(value):
    import numpy as np

    kept = six_digits(value)
    assert six_digits(float(np.float32(kept))) == kept
    assert kept == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-39, 1e-181, -1e-50])
def test_what_float32_cannot_hold_becomes_zero(value):
    assert six_digits(value) == 0.0


def test_whole_ms_cuts_and_does_not_round():
    time = datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    assert whole_ms(time).microsecond == 999_000


def test_features_have_the_types_of_the_columns():
    made = features()
    assert list(made) == [column.name for column in COLUMNS]
    assert made["response_type"].names == ["jar5", "best_of_n", "likert5", "slider"]
    assert made["consent_scope"].names == ["personal_only", "aggregate", "publish_row"]
    types = {name: getattr(feature, "dtype", None) for name, feature in made.items()}
    assert types["created_at"] == "timestamp[ms, tz=UTC]"
    assert (types["position"], types["rater_epoch"], types["response_ms"]) == (
        "int8",
        "int16",
        "int32",
    )
    assert types["strength"] == types["epsilon"] == "float32"
