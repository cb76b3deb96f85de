from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import Consent, InvalidRatingError, Rater, Shown, new_id, open_page, rows_of_page
from feedback.page import check_rows, rating_id


def test_a_page_answer_is_one_row_per_variant_and_one_for_the_best(world):
    page, rater = world.page(), world.rater()
    rows = world.rows(page, rater, best=3, just_right=4, best_ms=1299, just_right_ms=50)
    assert [(r.response_type, r.position, r.response) for r in rows] == [
        ("best_of_n", 0, 0),
        ("best_of_n", 1, 0),
        ("best_of_n", 2, 0),
        ("best_of_n", 3, 1),
        ("jar5", 3, 4),
    ]
    assert [row.strength for row in rows] == [0.8, 0.2, 1.0, 0.55, 0.55]
    assert [row.epsilon for row in rows] == [12.3457, None, 0.0, 99.0, 99.0]
    assert [row.response_ms for row in rows] == [1200, 1200, 1200, 1200, 0]
    assert {row.rater_id for row in rows} == {rater.rater_id}
    assert {row.page_id for row in rows} == {page.page_id}
    assert {(row.consent_version, row.consent_scope) for row in rows} == {("2026-11", "aggregate")}
    assert rows[0].created_at == datetime(2026, 11, 20, 12, 0, 0, 123000, tzinfo=UTC)


def test_without_consent_there_are_no_rows(world):
    rows = rows_of_page(
        world.page(), world.answer(), rater=world.rater(), consent=None, key=b"k" * 32
    )
    assert rows == ()


def test_a_bad_answer_is_refused_even_without_consent(world):
    with pytest.raises(InvalidRatingError, match="`best`"):
        rows_of_page(
            world.page(), world.answer(best=4), rater=world.rater(), consent=None, key=b"k" * 32
        )


@pytest.mark.parametrize(("just_right", "strength"), [(0, 1.0), (1, 1.0), (3, 0.2), (4, 0.2)])
def test_none_is_good_enough_judges_the_variant_that_says_most(world, just_right, strength):
    rows = world.rows(world.page(), best=None, just_right=just_right)
    assert [(r.response_type, r.position, r.response) for r in rows[:4]] == [
        ("best_of_n", position, 0) for position in range(4)
    ]
    assert [(r.response_type, r.strength, r.response) for r in rows[4:]] == [
        ("jar5", strength, just_right)
    ]
    check_rows(world.page(page_id=rows[0].page_id, **_shared(rows[0])), rows)


def _shared(row):
    return {"session_id": row.session_id, "photo_id": row.photo_id}


def test_none_is_good_enough_cannot_be_just_right(world):
    with pytest.raises(InvalidRatingError) as caught:
        world.rows(world.page(), best=None, just_right=2, best_ms=-1)
    assert [p.split("`")[1] for p in caught.value.problems] == ["best_ms", "just_right"]
    assert "where `best` is None, got 2" in caught.value.problems[1]


def test_rows_take_the_attribute_policy_from_the_page(world):
    page = world.page(attributes="keep=smiling;hide=gender")
    rows = world.rows(page)
    assert {row.attributes for row in rows} == {"keep=smiling;hide=gender"}
    assert {row.schema_version for row in rows} == {2}
    assert {row.attributes for row in world.rows(world.page())} == {None}
    check_rows(page, rows)


def test_a_page_token_of_the_first_schema_still_opens(world, pytestconfig):
    token = (pytestconfig.rootpath / "tests/golden/page-token-v1.txt").read_text().strip()
    page = open_page(world.keys, token, session="tab", now=world.now)
    assert page.attributes is None
    assert [variant.strength for variant in page.shown] == [0.8, 0.2]


@given(st.one_of(st.integers(max_value=-1), st.integers(min_value=4), st.floats(), st.text()))
def test_only_a_position_that_was_shown_can_be_the_best(world, best):
    with pytest.raises(InvalidRatingError, match="`best` must be an integer from 0 to 3"):
        world.rows(world.page(), best=best)


def test_all_faults_of_an_answer_are_listed(world):
    with pytest.raises(InvalidRatingError) as caught:
        world.rows(
            world.page(),
            best=True,
            just_right=5,
            best_ms=-1,
            just_right_ms=10**9,
            client="agent",
            answered_at=datetime(2026, 11, 20),  # noqa: DTZ001
        )
    assert [p.split("`")[1] for p in caught.value.problems] == [
        *("best", "just_right", "best_ms", "just_right_ms", "client", "answered_at")
    ]


def test_a_rating_id_depends_on_page_position_question_and_key_alone(world):
    page = world.page()
    first, second = world.rows(page, best=1), world.rows(page, best=2, best_ms=9)
    assert [row.rating_id for row in first[:4]] == [row.rating_id for row in second[:4]]
    assert len({row.rating_id for row in first}) == 5
    facts = {"page_id": page.page_id, "position": 0, "response_type": "best_of_n"}
    same = rating_id(world.keys.derive("rating"), **facts)
    assert same == first[0].rating_id
    assert rating_id(b"another key", **facts) != same
    assert rating_id(world.keys.derive("rating"), **(facts | {"page_id": new_id()})) != same


@pytest.mark.parametrize(
    "changes",
    [
        {"shown": (Shown(0.5),)},
        {"shown": (Shown(0.5), Shown(0.5))},
        {"shown": tuple(Shown(i / 17) for i in range(17))},
        {"session_id": "abc"},
        {"method": "two words"},
        {"attributes": "keep=b,a"},
        {"source": "passport"},
        {"propensity": 0.0},
        {"expires_at": datetime(2026, 11, 20)},  # noqa: DTZ001
        {"expires_at": datetime(2026, 11, 20, tzinfo=timezone(timedelta(hours=2)))},
    ],
)
def test_a_page_that_breaks_a_rule_cannot_be_made(world, changes):
    with pytest.raises(InvalidRatingError, match=f"`{next(iter(changes))}`"):
        world.page(**changes)


@pytest.mark.parametrize("n_shown", [2, 16])
def test_pages_of_two_and_of_sixteen_variants_are_fine(world, n_shown):
    page = world.page(shown=tuple(Shown(i / 16) for i in range(n_shown)))
    assert len(world.rows(page)) == n_shown + 1


def test_a_page_s_odd_numbers_are_those_of_its_rows(world):
    page = world.page(shown=(Shown(1 / 3, epsilon=2 / 3), Shown(2 / 3)), propensity=1 / 7)
    check_rows(page, world.rows(page))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Shown(1.5), "strength"),
        (lambda: Shown(0.5, epsilon=float("nan")), "epsilon"),
        (lambda: Consent("1", "everything"), "consent_scope"),
        (lambda: Consent("", "aggregate"), "consent_version"),
        (lambda: Rater("ada", 1), "rater_id"),
        (lambda: Rater("0" * 32, 0), "rater_epoch"),
    ],
)
def test_parts_of_a_row_are_checked_where_they_are_made(make, name):
    with pytest.raises(InvalidRatingError, match=f"`{name}`"):
        make()


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.81},
        {"epsilon": None},
        {"page_id": "0" * 32},
        {"session_id": "0" * 32},
        {"photo_id": "0" * 32},
        {"method": "blur"},
        {"model_revision": "other"},
        {"n_shown": 5},
        {"quality": 1.0},
        {"is_catch": True},
        {"is_repeat": True},
        {"policy": "mine"},
        {"propensity": 0.5},
        {"source": "own_photo"},
        {"app_version": "9"},
        {"attributes": "none"},
    ],
)
def test_rows_that_differ_from_the_page_are_refused_by_name(world, change):
    page = world.page()
    rows = world.rows(page)
    with pytest.raises(InvalidRatingError, match=f"^Row 1: `{next(iter(change))}`"):
        check_rows(page, [replace(rows[0], **change), *rows[1:]])


def test_rows_about_a_position_that_was_not_shown_are_refused(world):
    page = world.page()
    row = replace(world.rows(page)[0], position=5, n_shown=16)
    with pytest.raises(InvalidRatingError, match="`position` 5 was not shown"):
        check_rows(page, [row])


def test_the_same_judgement_twice_and_two_raters_on_one_page_are_refused(world):
    page = world.page()
    rows = world.rows(page)
    with pytest.raises(InvalidRatingError, match="same row twice"):
        check_rows(page, [rows[0], rows[0]])
    with pytest.raises(InvalidRatingError, match="one rater"):
        check_rows(page, [rows[0], replace(rows[1], rater_id="0" * 32)])
