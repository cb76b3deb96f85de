import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import DATABASE_NAME, RatingStore, StoreError, new_id
from feedback.columns import COLUMNS
from feedback.store.intake import MAX_LINE_BYTES, Person, take_lines
from tests.feedback.replicas import erase

LINE = {"strength": 0.6, "response": 2}


@pytest.fixture
def store(tmp_path):
    with RatingStore(tmp_path / DATABASE_NAME) as opened:
        yield opened


def take(world, store, *lines, person=None):
    """Send lines, of text, bytes or objects, and return what became of each."""
    raw = b"".join(
        (
            line
            if isinstance(line, bytes)
            else (line if isinstance(line, str) else json.dumps(line)).encode()
        )
        + b"\n"
        for line in lines
    )
    person = person or Person()
    return list(take_lines(io.BytesIO(raw), store, person=person, clock=lambda: world.now))


def test_strength_and_response_are_enough_and_the_rest_is_the_narrowest(world, store):
    person = Person()
    (outcome,) = take(world, store, LINE, person=person)
    (row,) = store.ratings()
    assert outcome.rating_id == row.rating_id
    assert (row.strength, row.response, row.response_type) == (0.6, 2, "jar5")
    assert (row.consent_scope, row.client, row.source) == (
        "personal_only",
        "api",
        "synthetic_face",
    )
    assert (row.rater_id, row.session_id) == (person.rater_id, person.session_id)
    assert row.created_at == world.now.replace(microsecond=123_000)


def test_lines_without_names_are_one_rater_s_on_different_photos(world, store):
    take(world, store, LINE, LINE)
    first, second = store.ratings()
    assert first.rater_id == second.rater_id
    assert first.session_id == second.session_id
    for name in ("rating_id", "page_id", "photo_id"):
        assert getattr(first, name) != getattr(second, name)


def test_every_column_can_be_given(world, store):
    row = world.rating()
    (outcome,) = take(world, store, row.as_json())
    assert outcome.problem is None
    assert list(store.ratings()) == [row]


@pytest.mark.parametrize("column", [c.name for c in COLUMNS if c.name != "response_value"])
def test_any_one_column_can_be_left_out_but_strength_and_response(world, store, column):
    record = world.rating().as_record()
    del record[column]
    (outcome,) = take(world, store, record)
    assert (outcome.problem is None) is (column not in ("strength", "response"))


def test_rows_of_the_first_schema_and_of_sliders_are_taken(world, store):
    old = {
        name: value for name, value in world.rating().as_record().items() if name != "attributes"
    }
    slider = {"strength": 0.5, "response_type": "slider", "response_value": 0.7}
    choice = {"strength": 0.5, "response": 1, "response_type": "best_of_n", "position": 2}
    outcomes = take(world, store, old | {"schema_version": 1}, slider, choice)
    assert [outcome.problem for outcome in outcomes] == [None] * 3
    versions = [row.schema_version for row in store.ratings()]
    assert versions[0] == 1 < versions[1]
    assert [row.n_shown for row in store.ratings()][2] == 3


BAD = [
    ("nonsense", "must be one JSON object in UTF-8"),
    (b'{"strength": 0.5, "response": 2, "policy": "\xff"}', "must be one JSON object in UTF-8"),
    ("[" * 50_000, "must be one JSON object in UTF-8"),
    ("[1]", "must be one JSON object, got a list"),
    ("{}", "`strength` is missing. `response` is missing."),
    ({"strength": 0.5}, "`response` is missing."),
    ({"response": 2}, "`strength` is missing."),
    ({"strength": 1.5, "response": 2}, "`strength` must be a number in"),
    ('{"strength": NaN, "response": 2}', "`strength` must be a number in"),
    ({"strength": 0.5, "response": 5}, "`response` must be from 0 to 4"),
    (LINE | {"response_type": "stars"}, "`response_type` must be one of"),
    (LINE | {"schema_version": 99}, "schema"),
    (LINE | {"name": "Ada"}, "columns must be those of schema"),
    (LINE | {"position": 99}, "`position` must be"),
    (LINE | {"position": "x"}, "`position` must be"),
    (b" " * (MAX_LINE_BYTES + 5) + b"{}", "at most 65536 bytes"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_line_is_not_stored_and_the_others_go_on(world, store, line, message):
    first, bad, last = take(world, store, LINE, line, LINE)
    assert message in bad.problem
    assert (bad.rating_id, bad.line, last.line) == (None, 2, 3)
    assert [row.rating_id for row in store.ratings()] == [first.rating_id, last.rating_id]
    assert "Ada" not in bad.problem


def test_empty_lines_are_passed_over_and_the_last_needs_no_end(world, store):
    raw = b"\n  \n" + json.dumps(LINE).encode()
    (outcome,) = take_lines(io.BytesIO(raw), store, person=Person(), clock=lambda: world.now)
    assert (outcome.line, outcome.problem) == (3, None)


def test_a_rating_sent_again_is_stored_once_and_acknowledged_again(world, store):
    line = LINE | {"rating_id": "7" * 32}
    outcomes = take(world, store, line, line, line)
    assert {outcome.rating_id for outcome in outcomes} == {"7" * 32}
    assert store.stats().rows == 1


def test_an_id_that_another_rating_has_is_refused(world, store):
    line = LINE | {"rating_id": "7" * 32}
    _, other = take(world, store, line, line | {"response": 3})
    assert "must not be that of another rating" in other.problem
    assert [row.response for row in store.ratings()] == [2]


def test_an_undone_rating_is_not_acknowledged_again(world, store):
    line = LINE | {"rating_id": "7" * 32, "rater_id": "a" * 32}
    take(world, store, line)
    store.undo(["7" * 32], rater_id="a" * 32)
    (outcome,) = take(world, store, line)
    assert "taken back" in outcome.problem
    assert store.stats().rows == 0


def test_answers_from_before_an_erasure_are_refused_and_the_others_go_on(world, store):
    rater = new_id()
    erase(store, rater)
    old = LINE | {"rater_id": rater, "created_at": "2020-01-01T00:00:00+00:00"}
    outcomes = take(world, store, old, LINE)
    assert "last erasure" in outcomes[0].problem
    assert outcomes[1].problem is None


def test_a_line_is_acknowledged_only_after_it_is_durable(world, store, tmp_path):
    lines = io.BytesIO(b"".join(json.dumps(LINE).encode() + b"\n" for _ in range(3)))
    with RatingStore(tmp_path / DATABASE_NAME, create=False) as other:
        outcomes = take_lines(lines, store, person=Person(), clock=lambda: world.now)
        seen = [other.rating(outcome.rating_id) for outcome in outcomes]
    assert None not in seen
    assert len(seen) == 3


def test_a_store_that_cannot_be_written_ends_it(world):
    class Full(RatingStore):
        def __init__(self):
            pass

        def add_rows(self, rows):
            raise StoreError("The disk must have room.")

    with pytest.raises(StoreError):
        take(world, Full(), LINE)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_crash_it_or_are_stored(world, data):
    class Nothing(RatingStore):
        def __init__(self):
            pass

        def add_rows(self, rows):
            raise AssertionError("stored")

    lines = io.BytesIO(data)
    for outcome in take_lines(lines, Nothing(), person=Person(), clock=lambda: world.now):
        assert outcome.problem


def test_a_row_is_found_by_its_id(world, store):
    row = replace(world.rating(), rating_id=new_id())
    assert store.rating(row.rating_id) is None
    store.add_rows([row])
    assert store.rating(row.rating_id) == row
