import json
from dataclasses import fields

import pytest

from feedback import InvalidRatingError, Rating, parse_ratings
from feedback.columns import COLUMNS
from feedback.schema import EncodedColumn, ratings_of_columns


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
    assert "columns must be those of schema 2" in problems[3]
    assert "`position`" in problems[4]
    assert "got a list" in problems[5]
    assert "`created_at`" in problems[6]
    assert not any("Ada" in problem or "Name of" in problem for problem in problems)


def test_a_row_of_a_newer_schema_is_refused_saying_that_an_update_helps(world):
    newer = world.rating().as_record() | {"schema_version": 3, "mood": "calm"}
    with pytest.raises(InvalidRatingError) as caught:
        parse_ratings([newer])
    assert caught.value.problems == (
        "Row 1: `schema_version` must be at most 2, got 3. Update the program to read this row.",
    )


def test_rows_of_the_first_schema_are_read_and_keep_their_version(pytestconfig):
    lines = (pytestconfig.rootpath / "tests/golden/ratings-v1.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert not any("attributes" in record for record in records)
    ratings = parse_ratings(records)
    assert [(r.schema_version, r.attributes) for r in ratings] == [(1, None)] * 3
    assert parse_ratings(r.as_record() for r in ratings) == ratings


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None])
def test_a_version_that_is_none_does_not_excuse_a_missing_column(world, version):
    record = world.rating().as_record() | {"schema_version": version}
    del record["attributes"]
    with pytest.raises(InvalidRatingError, match="`attributes` is missing"):
        parse_ratings([record])


def test_columns_give_the_ratings_they_were_made_of_and_list_what_is_wrong(world):
    rows = [world.rating(strength=0.5 + i / 10, attributes="none") for i in range(3)]
    columns = {
        c.name: EncodedColumn([getattr(row, c.name) for row in rows], range(3)) for c in COLUMNS
    }
    assert ratings_of_columns(columns) == rows
    bad = {"strength": EncodedColumn([2.0], [0, 0, 0]), "n_shown": EncodedColumn([0], [0, 0, 0])}
    with pytest.raises(InvalidRatingError) as caught:
        ratings_of_columns(columns | bad)
    assert [p.split("`")[1] for p in caught.value.problems] == ["n_shown", "strength"]
    with pytest.raises(InvalidRatingError, match="`position` must be below"):
        ratings_of_columns(
            columns
            | {"n_shown": EncodedColumn([1, 4], [0, 0, 1])}
            | {"position": EncodedColumn([0, 3], [0, 1, 0])}
        )


def test_no_rows_are_no_ratings():
    assert parse_ratings([]) == []
