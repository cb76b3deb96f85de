import json
from dataclasses import fields

import pytest

from feedback import InvalidRatingError, Rating, parse_ratings
from feedback.columns import COLUMNS


def test_the_fields_are_the_columns_in_order():
    assert [field.name for field in fields(Rating)] == [column.name for column in COLUMNS]


def test_a_bad_rating_cannot_be_made_and_says_everything_that_is_wrong(world):
    with pytest.raises(InvalidRatingError) as caught:
        world.rating(strength=1.3, client="mcp", position=9)
    assert [p.split("`")[1] for p in caught.value.problems] == ["strength", "client", "position"]
    assert "got 1.3" in str(caught.value)


def test_json_and_back_is_the_same_rating(world):
    rating = world.rating()
    assert parse_ratings([json.loads(rating.as_json())]) == [rating]
    assert "\n" not in rating.as_json()


def test_a_record_names_its_labels_and_writes_its_time_in_full(world):
    record = world.rating().as_record()
    assert record["response_type"] == "best_of_n"
    assert record["created_at"] == "2026-11-20T12:00:00.123+00:00"


def test_numbers_keep_six_digits(world):
    rating = world.rating(strength=0.123456789, epsilon=1234567.89)
    assert (rating.strength, rating.epsilon) == (0.123457, 1234570.0)


def test_labels_are_read_by_integer_as_datasets_gives_them(world):
    record = world.rating().as_record() | {"response_type": 1, "consent_scope": 1}
    assert parse_ratings([record])[0].response_type == "best_of_n"
    with pytest.raises(InvalidRatingError, match="response_type"):
        parse_ratings([record | {"response_type": 4}])


def test_every_problem_of_every_bad_row_is_listed_at_once(world):
    good = world.rating().as_record()
    without = {name: value for name, value in good.items() if name != "page_id"}
    rows = [
        good | {"strength": 2, "client": "x"},
        good,
        without | {"Name of the rater": "Ada", "position": -1},
        [1, 2],
        good | {"created_at": "yesterday"},
        None,
    ]
    with pytest.raises(InvalidRatingError) as caught:
        parse_ratings(rows)
    problems = caught.value.problems
    assert [problem.split(":")[0] for problem in problems] == [
        *("Row 1", "Row 1", "Row 3", "Row 3", "Row 3", "Row 4", "Row 5", "Row 6")
    ]
    assert "`page_id` is missing" in problems[2]
    assert "columns must be those of schema 1" in problems[3]
    assert "`position`" in problems[4]
    assert "got a list" in problems[5]
    assert "`created_at`" in problems[6]
    assert not any("Ada" in problem or "Name of" in problem for problem in problems)


def test_a_row_of_a_newer_schema_is_refused(world):
    with pytest.raises(InvalidRatingError, match="schema_version"):
        parse_ratings([world.rating().as_record() | {"schema_version": 2}])


def test_no_rows_are_no_ratings():
    assert parse_ratings([]) == []
