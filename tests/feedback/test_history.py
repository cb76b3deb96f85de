from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback import ExpiredTokenError, ForgedTokenError, InvalidRatingError, Keys, new_id
from feedback.history import (
    MAX_HISTORY_LENGTH,
    MAX_JUDGEMENTS,
    open_history,
    seal_history,
    short_id,
)
from feedback.preference.judgement import FAST_MS, Judgement, judgements_of
from feedback.preference.posterior import Posterior
from feedback.sealing import from_base64, to_base64

KEYS = Keys({1: bytes(range(32))}, is_generated=False, notice="")
DAY = datetime(2026, 11, 20, tzinfo=UTC)
NOW = DAY + timedelta(hours=13, minutes=37, seconds=11)


def judgement(**changes):
    fields = {
        "kind": "jar5",
        "strengths": (0.5,),
        "response": 1,
        "photo_id": "0badcafe",
        "session_id": "00c0ffee",
        "response_ms": 1200,
        "created_at": DAY,
    }
    return Judgement(**(fields | changes))


def pages(count, *, per_photo=4):
    """A rater's answered pages: a choice among four and a judgement of the chosen one each."""
    made = []
    photo = new_id()
    for number in range(count):
        photo = new_id() if number % per_photo == 0 else photo
        shared = {"photo_id": photo, "session_id": new_id() if number % 10 == 0 else "00c0ffee"}
        when = DAY + timedelta(days=number // 10)
        shown = (0.4, 0.9, 0.6, 0.7)
        made.append(
            judgement(
                kind="best_of_n", strengths=shown, response=number % 4, created_at=when, **shared
            )
        )
        made.append(judgement(strengths=(shown[number % 4],), created_at=when, **shared))
    return made


hundredths = st.integers(0, 100).map(lambda value: value / 100)
short_ids = st.binary(min_size=4, max_size=4).map(bytes.hex)
around = {
    "photo_id": short_ids,
    "session_id": short_ids,
    "response_ms": st.integers(0, 255).map(lambda value: 100 * value),
    "created_at": st.none() | st.integers(0, 60_000).map(lambda d: DAY + timedelta(days=d - 2000)),
}
singles = st.builds(
    judgement,
    kind=st.sampled_from(["jar5", "likert5"]),
    strengths=st.tuples(hundredths),
    response=st.integers(0, 4),
    **around,
)
sliders = st.builds(
    judgement,
    kind=st.just("slider"),
    strengths=st.tuples(hundredths),
    response=hundredths,
    **around,
)
choices = st.lists(hundredths, min_size=2, max_size=16, unique=True).flatmap(
    lambda shown: st.builds(
        judgement,
        kind=st.just("best_of_n"),
        strengths=st.just(tuple(shown)),
        response=st.integers(0, len(shown) - 1),
        **around,
    )
)


@given(st.lists(singles | sliders | choices, max_size=30))
@settings(max_examples=60)
def test_what_was_sealed_comes_back_as_it_was(judgements):
    assert open_history(KEYS, seal_history(KEYS, judgements)) == tuple(judgements)


def test_the_rows_of_a_page_lose_only_what_identifies_and_the_time_of_day(world):
    page = world.page()
    before = judgements_of(world.rows(page, best=2, just_right=3, best_ms=61_000))
    after = open_history(KEYS, seal_history(KEYS, before))
    assert [(j.kind, j.strengths, j.response) for j in after] == [
        (j.kind, j.strengths, j.response) for j in before
    ]
    assert {j.created_at for j in after} == {DAY}
    assert {j.photo_id for j in after} == {short_id(page.photo_id)}
    assert {j.session_id for j in after} == {short_id(page.session_id)}
    assert max(j.response_ms for j in after) == 25_500


def test_the_dial_of_a_history_is_the_dial_of_the_answers():
    judgements = pages(12)
    direct = Posterior.replay(judgements)
    kept = Posterior.replay(open_history(KEYS, seal_history(KEYS, judgements)))
    assert kept.mean == pytest.approx(direct.mean, abs=1e-12)
    assert kept.sd == pytest.approx(direct.sd, abs=1e-12)
    assert kept.n_photos == direct.n_photos


def test_a_short_id_is_sealed_as_it_is_so_that_a_history_can_be_sealed_again():
    once = open_history(KEYS, seal_history(KEYS, pages(9)))
    assert open_history(KEYS, seal_history(KEYS, once)) == once


def test_two_hundred_rating_rows_take_less_than_a_kilobyte():
    forty_pages = seal_history(KEYS, pages(40))
    two_hundred_judgements = seal_history(KEYS, [judgement()] * 200)
    assert len(forty_pages) < 1024
    assert len(two_hundred_judgements) < 1024


def test_answers_given_too_fast_are_still_known_as_such():
    times = (0, 500, FAST_MS, 700)
    kept = open_history(KEYS, seal_history(KEYS, [judgement(response_ms=t) for t in times]))
    assert [j.is_fast for j in kept] == [False, True, False, False]


def test_of_too_many_answers_the_oldest_are_dropped_and_the_text_stays_bounded():
    many = [judgement(photo_id=short_id(str(i)), response=i % 5) for i in range(3 * MAX_JUDGEMENTS)]
    token = seal_history(KEYS, many)
    assert open_history(KEYS, token) == tuple(many[-MAX_JUDGEMENTS:])
    assert len(token) < MAX_HISTORY_LENGTH


@pytest.mark.parametrize("token", [None, ""])
def test_a_browser_without_a_history_has_no_answers(token):
    assert open_history(KEYS, token) == ()


def test_no_answers_are_a_history_too():
    assert open_history(KEYS, seal_history(KEYS, [])) == ()


def test_a_history_shows_nothing_of_what_it_holds():
    first, second = (seal_history(KEYS, [judgement()] * 20) for _ in range(2))
    assert first != second
    raw = from_base64(first.split(".")[2])
    assert bytes.fromhex("0badcafe") not in raw
    assert max(raw.count(bytes([b])) for b in range(256)) < 10


@given(st.data())
@settings(max_examples=60)
def test_an_altered_history_is_refused(data):
    version, epoch, text = seal_history(KEYS, pages(3)).split(".")
    raw = bytearray(from_base64(text))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ForgedTokenError, match="must be one made here"):
        open_history(KEYS, f"{version}.{epoch}.{to_base64(bytes(raw))}")


@given(st.text(max_size=200) | st.text("h1.", max_size=30) | st.just("h1.1."))
@settings(max_examples=60)
def test_any_other_text_is_refused_with_a_sentence(text):
    if text:
        with pytest.raises((ForgedTokenError, ExpiredTokenError), match=r"starts again from here"):
            open_history(KEYS, text)


def test_a_history_cut_short_or_too_long_is_refused():
    token = seal_history(KEYS, pages(3))
    for bad in (token[:-4], token[: len(token) // 2], token + "A" * MAX_HISTORY_LENGTH):
        with pytest.raises(ForgedTokenError):
            open_history(KEYS, bad)


def test_a_history_of_another_server_is_refused():
    other = Keys({1: bytes(32)}, is_generated=False, notice="")
    with pytest.raises(ForgedTokenError):
        open_history(other, seal_history(KEYS, pages(1)))


def test_a_page_token_is_no_history(world):
    from feedback import issue_page

    token = issue_page(KEYS, world.page())
    with pytest.raises(ForgedTokenError):
        open_history(KEYS, "h1." + token.removeprefix("p1."))


def test_a_new_key_epoch_still_opens_the_histories_of_the_one_before():
    token = seal_history(KEYS, [judgement()])
    both = Keys({**KEYS.by_epoch, 2: bytes(32)}, is_generated=False, notice="")
    assert open_history(both, token) == (judgement(),)
    assert seal_history(both, []).startswith("h1.2.")
    with pytest.raises(ForgedTokenError):
        open_history(KEYS, seal_history(both, []))


def test_the_strengths_of_another_model_are_not_taken_for_this_ones():
    token = seal_history(KEYS, [judgement()], model="0f3c2a")
    assert open_history(KEYS, token, model="0f3c2a") == (judgement(),)
    with pytest.raises(ExpiredTokenError, match="another model"):
        open_history(KEYS, token, model="174a4b")


def test_a_history_of_a_later_version_is_named_as_such():
    token = seal_history(KEYS, [judgement()])
    with pytest.raises(ExpiredTokenError, match="another version of this page"):
        open_history(KEYS, token.replace("h1.", "h2.", 1))


def test_a_question_that_no_row_has_is_not_sealed():
    with pytest.raises(InvalidRatingError, match="got binary"):
        seal_history(KEYS, [replace(judgement(), kind="binary", response=1)])
