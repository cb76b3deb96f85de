"""The page's addresses tried directly, as no browser would: refused in words, nothing stored."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shell.routes import SmallBodies
from shell.wording import NONE, WHY_NOT
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    JUST_FINE,
    RefusedError,
    Visitor,
    answer,
    ask,
    portrait_fixture,
    running_fixture,
    visitor_fixture,
)

# Gradio counts its events with pandas calls that the pinned pandas calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def sentence(response):
    """Return what a refused call says, "" where Gradio itself refused without words."""
    value = response.json()
    return str(value.get("error") or value.get("detail") or "")


@pytest.fixture(scope="module")
def opened(running, portrait):
    visitor = Visitor(running)
    visitor.open(portrait)
    return visitor


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD, min_size=0, max_size=9))
def test_any_values_in_place_of_an_answer_are_refused_and_store_nothing(running, opened, values):
    before = running.store.stats()
    body = json.dumps(opened.body_of("answer", values)).encode()
    response = opened.post(body)
    assert not response.is_success
    assert "Traceback" not in response.text
    assert running.store.stats() == before


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(token=ODD, best=ODD, history=ODD)
def test_an_open_page_takes_no_odd_token_choice_or_history(running, opened, token, best, history):
    before = running.store.stats()
    real = ask(opened)
    for values in (
        [token, "A", JUST_FINE, None, ["keep"], "", None, None],
        [real, best, JUST_FINE, None, ["keep"], history, None, None],
    ):
        response = opened.post(json.dumps(opened.body_of("answer", values)).encode())
        assert not response.is_success or values[1] in (*"ABCD",)
    assert running.store.stats() == before


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("answer", ["p1.1." + "A" * 9_000, "A", JUST_FINE, None, ["keep"], "", None, None]),
        ("answer", ["", NONE, None, WHY_NOT[0], ["keep"], "", None, None]),
        ("undo", ["", None]),
        ("erase", ["x" * 300, "", None, None]),
        ("erase", ["0000-0000-0000-0000-0000-0000-0000-0000", "", None, None]),
        ("turn", [7.5, None]),
    ],
    ids=["long-token", "none-without-token", "undo-nothing", "long-code", "wrong-code", "strength"],
)
def test_a_call_made_by_hand_gets_a_sentence(running, opened, name, values):
    before = running.store.stats()
    response = opened.post(json.dumps(opened.body_of(name, values)).encode())
    assert response.status_code >= 400
    assert len(sentence(response)) > 20
    assert running.store.stats() == before


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"fn_index": 10000, "data": []}'],
    ids=["empty", "cut", "list", "null", "text", "bytes", "no-such-call"],
)
def test_a_body_that_is_no_call_is_refused(running, opened, body):
    before = running.store.stats()
    response = opened.post(body)
    assert 400 <= response.status_code <= 500
    assert response.json()
    assert running.store.stats() == before


def test_a_call_that_crashes_the_page_tells_visitor_and_log_nothing_of_what_was_sent(opened, capfd):
    body = opened.body_of("turn", ["planted-9f3a71"]) | {"fn_index": 10_000}
    response = opened.post(json.dumps(body).encode())
    assert "could not be understood" in sentence(response)
    said = capfd.readouterr().err
    assert "A request failed: KeyError" in said
    assert "planted" not in said + response.text
    assert "Traceback" not in said


def test_an_oversized_body_is_refused_before_it_is_read(running, opened):
    before = running.store.stats()
    token = "p1.1." + "A" * SmallBodies.LIMIT
    values = [token, "A", JUST_FINE, None, ["keep"], "", None]
    response = opened.post(json.dumps(opened.body_of("answer", values)).encode())
    assert response.status_code == 413
    assert "at most" in sentence(response)
    assert running.store.stats() == before


def test_a_body_of_unknown_length_is_refused(opened):
    response = opened._http.post(f"{API}/run/predict", content=iter([b"{}"]))
    assert response.status_code == 411
    assert "how long" in sentence(response)


def test_a_large_photo_is_no_oversized_body(visitor):
    with pytest.raises(RefusedError, match="must be JPEG"):
        visitor.open(b"x" * (SmallBodies.LIMIT + 1), "photo.jpg")


def test_a_page_cannot_be_answered_at_strengths_it_did_not_show(running, opened):
    # A request names a position; what stood there is in the sealed token alone.
    before = len(running.rows())
    token = ask(opened)
    answer(opened, token, consent=True, best="D")
    rows = running.rows()[before:]
    assert len({row.strength for row in rows if row.response_type == "best_of_n"}) == 4
    with pytest.raises(RefusedError, match="answered once"):
        answer(opened, token, consent=True, best="A")
    assert len(running.rows()) == before + 5
    opened.call("erase", "")


def test_another_visitor_cannot_undo_or_erase_what_is_not_theirs(running, opened, portrait):
    answer(opened, ask(opened), consent=True)
    before = running.store.stats()
    stranger = Visitor(running)
    stranger.open(portrait)
    stranger.history = opened.history
    with pytest.raises(RefusedError, match="got none"):
        stranger.call("undo")
    stranger.call("erase", "")  # Clears their own browser only.
    assert running.store.stats() == before
    opened.call("erase", "")


def test_a_copied_history_gives_its_strength_and_nothing_else(running, opened, portrait):
    answer(opened, ask(opened), consent=True, best="B")
    (rater_id,) = {row.rater_id for row in running.rows()}
    stranger = Visitor(running)
    stranger.history = opened.history
    stranger.open(portrait)
    answer(stranger, ask(stranger), consent=True)
    assert rater_id in {row.rater_id for row in running.rows()}
    assert len({row.rater_id for row in running.rows()}) == 2
    for visitor in (opened, stranger):
        visitor.call("erase", "")
    assert running.rows() == []


# --- A whole visit, over HTTP --------------------------------------------------------------------


def chart(outputs):
    return next(o for o in outputs if isinstance(o, str) and o.startswith("<svg"))


def test_without_consent_there_is_a_chart_a_history_and_an_empty_store(running, visitor, portrait):
    before = running.store.stats()
    visitor.open(portrait)
    first = chart(answer(visitor, ask(visitor), consent=False))
    second = chart(answer(visitor, ask(visitor), consent=False, best="A"))
    assert first != second
    assert visitor.history.startswith("h1.")
    assert running.store.stats() == before


def test_undo_steps_the_chart_back_and_removes_the_rows(running, visitor, portrait):
    before = running.store.stats().rows
    visitor.open(portrait)
    first = chart(answer(visitor, ask(visitor), consent=True))
    assert running.store.stats().rows == before + 5
    answer(visitor, ask(visitor), consent=True, best="A", just_right=JUST_FINE)
    outputs = visitor.call("undo")
    assert chart(outputs) == first
    assert any("5 saved rows are deleted" in str(o) for o in outputs)
    assert running.store.stats().rows == before + 5
    visitor.call("undo")
    assert running.store.stats().rows == before
    with pytest.raises(RefusedError, match="got none"):
        visitor.call("undo")


@pytest.mark.parametrize("why_not", WHY_NOT)
def test_none_of_these_is_an_answer_too(running, visitor, portrait, why_not):
    before = len(running.rows())
    visitor.open(portrait)
    outputs = answer(
        visitor, ask(visitor), consent=True, best=NONE, just_right=None, why_not=why_not
    )
    rows = running.rows()[before:]
    assert "You chose **none**" in str(outputs)
    assert [row.response for row in rows][:4] == [0, 0, 0, 0]
    assert len(rows) == 5
    visitor.call("erase", "")


def test_skipping_shows_the_next_four_and_counts_nowhere(running, visitor, portrait):
    before = running.store.stats()
    visitor.open(portrait)
    token = ask(visitor)
    second = ask(visitor)
    with pytest.raises(RefusedError, match="answered once"):
        answer(visitor, token, consent=True)
    assert running.store.stats() == before
    assert visitor.history == ""
    answer(visitor, second, consent=False)


def test_the_dial_is_set_to_the_decision_and_starts_there_on_the_next_photo(visitor, portrait):
    visitor.open(portrait)
    for _ in range(3):
        outputs = answer(visitor, ask(visitor), consent=False, best="A")
    used = visitor.call("use")
    again = visitor.open(portrait)
    label = next(
        o["value"] for o in outputs if isinstance(o, dict) and "Use" in str(o.get("value"))
    )
    assert f"{used[3]:.2f}" in label
    assert isinstance(again[6], float)


def test_the_first_answer_hides_undo_before_there_is_something_to_undo(visitor, portrait):
    visitor.open(portrait)
    hidden = visitor.call("ask")
    token = next(o for o in hidden if str(o).startswith("p1."))
    answer(visitor, token, consent=False)
    shown = visitor.call("ask")
    place = next(i for i, o in enumerate(hidden) if str(o).startswith("p1.")) - 1
    assert [o[place]["visible"] for o in (hidden, shown)] == [False, True]


def test_erasing_gives_a_receipt_and_clears_the_browser(running, visitor, portrait):
    before = running.store.stats().rows
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=True)
    outputs = visitor.call("erase", "")
    assert "5 rows here" in outputs[0]
    assert "Receipt" in outputs[0]
    assert visitor.history == ""
    assert running.store.stats().rows == before


def test_a_browser_with_a_record_that_cannot_be_opened_starts_again(visitor):
    visitor.history = "h1.1.Zm9yZ2Vk"
    outputs = visitor.call("load")
    assert visitor.history == ""
    assert "saved on this server" in outputs[0]


def test_a_good_record_survives_loading(visitor, portrait):
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=False)
    history = visitor.history
    visitor.call("load")
    assert visitor.history == history


# --- Health --------------------------------------------------------------------------------------


def test_health_tells_versions_and_counts_and_no_secret(running, visitor, portrait):
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=True)
    response = visitor.get("/health")
    told = response.json()
    assert response.headers["cache-control"] == "no-store"
    assert told["outbox_rows"] == running.store.stats().outbox_rows
    assert told["sync_lag_seconds"] >= 0
    assert told["remote"] == "none"
    assert told["last_error"] is None
    assert set(told["versions"]) == {"app", "schema", "gradio", "torch", "huggingface_hub"}
    assert len(told["model"]) >= 8
    secrets = [secret.hex() for secret in running.keys.by_epoch.values()]
    rows = running.rows()
    hidden = [*secrets, str(running.store.path), *(row.rater_id for row in rows)]
    assert not [text for text in hidden if text in response.text]
    visitor.call("erase", "")


def test_health_is_only_read(visitor):
    assert visitor._http.head("/health").content == b""
    response = visitor._http.post("/health", json={})
    assert response.status_code == 405
    assert "GET" in response.json()["error"]
