from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import InvalidRatingError, new_id
from feedback.preference.judgement import (
    History,
    Judgement,
    histories_of,
    history_of,
    judgements_of,
)


def test_a_page_is_a_choice_and_then_a_judgement_of_the_chosen_one(world):
    page = world.page()
    choice, judged = judgements_of(world.rows(page, best=3, just_right=1))
    assert (choice.kind, choice.strengths, choice.response) == (
        "best_of_n",
        (0.8, 0.2, 1.0, 0.55),
        3,
    )
    assert (judged.kind, judged.strengths, judged.response) == ("jar5", (0.55,), 1)
    assert {choice.photo_id, judged.photo_id} == {page.photo_id}
    assert {choice.session_id, judged.session_id} == {page.session_id}
    assert choice.response_ms == 4300
    assert choice.created_at == world.rows(page)[0].created_at


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_is_nothing(world, random):
    rater = world.rater()
    pages = [world.page() for _ in range(3)]
    rows = [row for page in pages for row in world.rows(page, rater)]
    expected = judgements_of(rows)
    random.shuffle(rows)
    assert judgements_of(rows) == expected


def test_judgements_come_in_the_order_of_time(world):
    rater, page = world.rater(), world.page()
    later = world.rows(page, rater, answered_at=world.now + timedelta(minutes=5))
    earlier = world.rows(world.page(), rater)
    times = [j.created_at for j in judgements_of([*later, *earlier])]
    assert times == sorted(times)


def test_duplicated_rows_count_once(world):
    rows = world.rows(world.page())
    history = history_of([*rows, *rows])
    assert history.judgements == judgements_of(rows)
    assert history.n_duplicates == len(rows)
    same_again = replace(rows[4], rating_id=new_id())
    assert history_of([*rows, same_again]) == History(judgements_of(rows), n_duplicates=1)


def test_one_rating_id_counts_once_whatever_its_rows_say(world):
    rows = world.rows(world.page(), just_right=1)
    forged = replace(rows[4], page_id="0" * 32, response=4)
    history = history_of([*rows, forged])
    assert history.judgements == judgements_of(rows)
    assert history.n_duplicates == 1


def test_a_page_where_nothing_was_chosen_leaves_its_jar5_row(world):
    rows = [replace(row, response=0) for row in world.rows(world.page())[:4]]
    jar = world.rows(world.page())[4]
    jar = replace(jar, page_id=rows[0].page_id, rater_id=rows[0].rater_id, response=0)
    history = history_of([*rows, jar])
    assert [j.kind for j in history.judgements] == ["jar5"]
    assert history.n_incomplete == 4


def test_a_choice_with_a_lost_variant_is_left_out(world):
    rows = world.rows(world.page())
    history = history_of([rows[0], *rows[2:]])
    assert [j.kind for j in history.judgements] == ["jar5"]
    assert history.n_incomplete == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: [rows[0], replace(rows[1], response=1), *rows[2:]],
        lambda rows: [rows[0], replace(rows[1], photo_id="0" * 32), *rows[2:]],
        lambda rows: [rows[0], replace(rows[1], strength=rows[0].strength), *rows[2:]],
        lambda rows: [*rows, replace(rows[1], rating_id="0" * 32, response=1)],
    ],
)
def test_a_choice_whose_rows_contradict_each_other_is_left_out_and_counted(world, spoil):
    rows = world.rows(world.page(), best=0)
    history = history_of(spoil(list(rows)))
    assert [j.kind for j in history.judgements] == ["jar5"]
    assert history.n_contradictory >= 4


def test_two_different_answers_to_one_question_are_both_left_out(world):
    rows = world.rows(world.page(), just_right=0)
    history = history_of([*rows, replace(rows[4], rating_id="0" * 32, response=4)])
    assert [j.kind for j in history.judgements] == ["best_of_n"]
    assert history.n_contradictory == 2


def test_sliders_and_likert_rows_are_judgements_of_one_strength(world):
    row = world.rating()
    slider = replace(row, response_type="slider", response=None, response_value=0.3)
    likert = replace(row, response_type="likert5", response=4, rating_id=new_id(), position=1)
    found = judgements_of([slider, likert])
    assert [(j.kind, j.strengths, j.response) for j in found] == [
        ("slider", (0.8,), 0.3),
        ("likert5", (0.8,), 4),
    ]


def test_no_rows_are_an_empty_history():
    assert history_of([]) == History(())
    assert histories_of([]) == {}


def test_raters_are_kept_apart(world):
    first, second = world.rows(world.page()), world.rows(world.page())
    histories = histories_of([*first, *second])
    assert histories[first[0].rater_id].judgements == judgements_of(first)
    assert len(histories) == 2
    with pytest.raises(InvalidRatingError, match="`ratings` must be the rows of one rater, got 2"):
        history_of([*first, *second])


def test_an_answer_faster_than_looking_is_marked_and_an_unknown_time_is_not():
    answer = Judgement(kind="jar5", strengths=(0.5,), response=0, photo_id="a", response_ms=500)
    assert answer.is_fast
    assert not replace(answer, response_ms=600).is_fast
    assert not replace(answer, response_ms=0).is_fast


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "stars"}, "`kind` must be one of jar5, .*, got 'stars'"),
        ({"kind": None}, "`kind` must be one of"),
        ({"strengths": (1.5,)}, r"`strengths` must be in \[0, 1\], got 1.5"),
        ({"strengths": (-0.1,)}, "`strengths` must be in"),
        ({"strengths": (float("nan"),)}, "`strengths` must be in"),
        ({"strengths": ("0.5",)}, "`strengths` must be in"),
        ({"strengths": ()}, "must be one strength, got 0"),
        ({"strengths": (0.2, 0.4)}, "must be one strength, got 2"),
        ({"response": 5}, "`response` of a jar5 answer must be an integer from 0 to 4, got 5"),
        ({"response": -1}, "`response` of a jar5 answer"),
        ({"response": 1.5}, "`response` of a jar5 answer"),
        ({"response": True}, "`response` of a jar5 answer"),
        ({"response": None}, "`response` of a jar5 answer .* got nothing"),
        ({"kind": "slider", "response": 1.01}, r"`response` of a slider must be in \[0, 1\]"),
        ({"kind": "best_of_n"}, "at least two different strengths, got 1"),
        ({"kind": "best_of_n", "strengths": (0.2, 0.2)}, "at least two different strengths"),
        (
            {"kind": "best_of_n", "strengths": (0.2, 0.4), "response": 2},
            "an integer from 0 to 1, got 2",
        ),
    ],
)
def test_a_judgement_that_breaks_a_rule_is_refused_by_name(changes, message):
    fields = {"kind": "jar5", "strengths": (0.5,), "response": 2, "photo_id": "a"}
    with pytest.raises(InvalidRatingError, match=message):
        Judgement(**(fields | changes))


def test_all_faults_of_a_judgement_are_listed():
    with pytest.raises(InvalidRatingError) as caught:
        Judgement(kind="jar5", strengths=(2, 3), response=9, photo_id="a")
    assert len(caught.value.problems) == 4
