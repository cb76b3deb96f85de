import base64
import hashlib
import hmac
import json
import string
from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from feedback import (
    ExpiredTokenError,
    ForeignTokenError,
    ForgedTokenError,
    InvalidRatingError,
    Keys,
    Shown,
    issue_page,
    mint_rater,
    open_page,
    open_rater,
    rater_of,
    raters_of,
    recover_rater,
    session_id,
)
from feedback.identity import MAX_TOKEN_LENGTH

LETTERS = st.sampled_from("ABCabc019-_.=+/ é\0")


def keys_of(*epochs: int) -> Keys:
    secrets = {epoch: bytes([epoch]) * 32 for epoch in epochs}
    return Keys(secrets, is_generated=False, notice="")


KEYS = keys_of(1)
SHOWN = st.builds(
    Shown,
    strength=st.floats(0, 1),
    epsilon=st.none() | st.floats(0, 1e6),
    quality=st.none() | st.floats(0, 100),
    is_catch=st.booleans(),
    is_repeat=st.booleans(),
)
PAGES = st.fixed_dictionaries(
    {
        "shown": st.lists(SHOWN, min_size=2, max_size=16, unique_by=lambda s: s.strength).map(
            tuple
        ),
        "source": st.sampled_from(["own_photo", "demo_photo", "synthetic_face"]),
        "propensity": st.floats(1e-6, 1),
        "method": st.sampled_from(["embedded", "org/model-v1.2"]),
    }
)


@pytest.fixture(scope="session")
def token(world):
    return issue_page(KEYS, world.page(session_id=session_id(KEYS, "mine")))


@given(PAGES, st.text(max_size=40))
def test_an_opened_page_is_the_page_that_was_issued_in_the_order_shown(world, fields, session):
    page = world.page(session_id=session_id(KEYS, session), **fields)
    token = issue_page(KEYS, page)
    assert len(token) <= MAX_TOKEN_LENGTH
    assert open_page(KEYS, token, session=session, now=world.now) == page


@given(st.data())
def test_a_token_altered_anywhere_is_forged(world, token, data):
    place = data.draw(st.integers(0, len(token) - 1))
    removed, added = data.draw(st.integers(0, 3)), data.draw(st.text(LETTERS, max_size=3))
    altered = token[:place] + added + token[place + removed :]
    assume(altered != token)
    with pytest.raises(ForgedTokenError):
        open_page(KEYS, altered, session="mine", now=world.now)


def test_a_token_has_one_spelling_to_the_last_letter(world):
    # Unless its bytes fill the last letter, base64 has several spellings of it.
    for method in ("m", "mm", "mmm"):
        token = issue_page(KEYS, world.page(session_id=session_id(KEYS, "mine"), method=method))
        for letter in set(string.ascii_letters + string.digits + "-_") - {token[-1]}:
            with pytest.raises(ForgedTokenError):
                open_page(KEYS, token[:-1] + letter, session="mine", now=world.now)


def test_a_token_is_nonce_then_text_under_hmac_counter_blocks_then_tag(world):
    page = world.page(session_id=session_id(KEYS, "mine"))
    text = issue_page(KEYS, page).split(".")[2]
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    nonce, sealed, tag = raw[:16], raw[16:-32], raw[-32:]
    assert tag == hmac.digest(KEYS.derive("page tag"), raw[:-32], "sha256")
    stream = b"".join(
        hmac.digest(KEYS.derive("page stream"), nonce + block.to_bytes(4, "big"), "sha256")
        for block in range(len(sealed) // 32 + 1)
    )
    plain = json.loads(bytes(a ^ b for a, b in zip(sealed, stream, strict=False)))
    assert [variant["strength"] for variant in plain["shown"]] == [0.8, 0.2, 1.0, 0.55]
    assert plain["page_id"] == page.page_id


@given(
    st.text()
    | st.binary(max_size=300).map(lambda b: f"p1.1.{base64.urlsafe_b64encode(b).decode()}")
)
def test_anything_not_issued_here_is_forged(world, text):
    with pytest.raises(ForgedTokenError, match="Reload the page"):
        open_page(KEYS, text, session="mine", now=world.now)


@pytest.mark.parametrize(
    "text", ["p1.1." + "A" * 10**6, "." * 10**6, "p1.1.A", "p1.1.", "r1.1.AAAA"]
)
def test_oversized_and_empty_tokens_are_forged(world, text):
    with pytest.raises(ForgedTokenError):
        open_page(KEYS, text, session="mine", now=world.now)


def test_other_keys_do_not_open_a_page(world, token):
    others = Keys({1: b"o" * 32}, is_generated=False, notice="")
    with pytest.raises(ForgedTokenError):
        open_page(others, token, session="mine", now=world.now)


def test_a_rater_s_token_does_not_open_a_page(world):
    with pytest.raises(ForgedTokenError):
        open_page(KEYS, mint_rater(KEYS).token, session="mine", now=world.now)


@given(st.text(max_size=30))
def test_another_session_cannot_use_a_token(world, token, session):
    assume(session != "mine")
    with pytest.raises(ForeignTokenError, match="your own web session"):
        open_page(KEYS, token, session=session, now=world.now)


@given(st.integers(-10_000_000, 10_000_000))
def test_a_token_is_good_until_its_expiry_and_not_from_then_on(world, milliseconds):
    page = world.page(session_id=session_id(KEYS, "mine"))
    token = issue_page(KEYS, page)
    now = page.expires_at + timedelta(milliseconds=milliseconds)
    if milliseconds < 0:
        assert open_page(KEYS, token, session="mine", now=now) == page
    else:
        with pytest.raises(ExpiredTokenError, match="2026-11-20 14:00 UTC"):
            open_page(KEYS, token, session="mine", now=now)


def test_a_token_does_not_tell_what_it_holds(world):
    page = world.page(session_id=session_id(KEYS, "mine"))
    one, two = issue_page(KEYS, page), issue_page(KEYS, page)
    raws = [base64.urlsafe_b64decode(t.split(".")[2] + "==") for t in (one, two)]
    for text in (b"strength", b"0.55", page.page_id.encode(), b"embedded"):
        assert not any(text in raw for raw in raws)
    # Two tokens of one page share no stream: else their XOR would be zero.
    same = sum(a == b for a, b in zip(*raws, strict=True))
    assert same < len(raws[0]) / 10


def test_pages_of_the_last_epoch_open_after_a_new_key_and_not_without_theirs(world):
    page = world.page(session_id=session_id(KEYS, "mine"))
    token = issue_page(KEYS, page)
    assert open_page(keys_of(1, 2), token, session="mine", now=world.now) == page
    with pytest.raises(ForgedTokenError):
        open_page(keys_of(2), token, session="mine", now=world.now)


def test_a_session_s_pseudonym_is_keyed_and_does_not_hold_the_session():
    made = session_id(KEYS, "7f3k2")
    assert made == session_id(KEYS, "7f3k2") != session_id(keys_of(2), "7f3k2")
    assert made != hashlib.sha256(b"7f3k2").hexdigest()[:32]
    assert session_id(KEYS, "\ud800") != made


def test_a_pseudonym_is_the_hmac_of_version_study_and_sub():
    secret = hmac.digest(bytes([1]) * 32, b"v1|key|rater", "sha256")
    right = hmac.digest(secret, b"v1|privacy-dial|hf:42", "sha256").hex()[:32]
    assert rater_of(KEYS, "hf:42").rater_id == right
    assert rater_of(KEYS, "hf:43").rater_id != right


def test_a_rater_has_one_pseudonym_per_epoch_newest_first():
    raters = raters_of(keys_of(1, 3, 2), "hf:42")
    assert [rater.rater_epoch for rater in raters] == [3, 2, 1]
    assert len({rater.rater_id for rater in raters}) == 3
    assert rater_of(keys_of(1, 3, 2), "hf:42") == raters[0]
    assert raters[-1] == rater_of(KEYS, "hf:42")


@pytest.mark.parametrize("sub", ["", "x" * 257])
def test_a_sub_must_have_a_sane_length(sub):
    with pytest.raises(InvalidRatingError, match="`sub`"):
        rater_of(KEYS, sub)


def test_an_anonymous_rater_is_the_same_by_token_and_by_code_and_after_a_new_key():
    held = mint_rater(KEYS)
    assert recover_rater(KEYS, held.recovery_code) == held
    sub = open_rater(KEYS, held.token)
    rotated = keys_of(1, 2)
    assert open_rater(rotated, held.token) == sub
    assert open_rater(rotated, recover_rater(rotated, held.recovery_code).token) == sub


def test_no_two_anonymous_raters_are_alike_and_none_shows_in_a_repr():
    held = [mint_rater(KEYS) for _ in range(50)]
    assert len({open_rater(KEYS, rater.token) for rater in held}) == 50
    assert repr(held[0]) == "AnonymousRater()"


def test_a_recovery_code_may_be_typed_as_people_type():
    held = mint_rater(KEYS)
    code = held.recovery_code
    assert [len(group) for group in code.split("-")] == [4] * 8
    typed = " " + code.lower().replace("-", " ").replace("0", "o").replace("1", "l") + "\n"
    assert recover_rater(KEYS, typed) == held


@given(st.data())
def test_a_mistyped_recovery_code_is_refused(data):
    code = mint_rater(KEYS).recovery_code.replace("-", "")
    place = data.draw(st.integers(0, 31))
    letter = data.draw(st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ!é"))
    assume(letter != code[place])
    with pytest.raises(ForgedTokenError, match="recovery code"):
        recover_rater(KEYS, code[:place] + letter + code[place + 1 :])


@pytest.mark.parametrize("code", ["", "A" * 31, "A" * 33, "A" * 32, "A" * 10**6, "é" * 32])
def test_a_made_up_recovery_code_is_refused(code):
    with pytest.raises(ForgedTokenError):
        recover_rater(KEYS, code)


@given(st.data())
def test_an_altered_rater_token_is_forged(data):
    token = mint_rater(KEYS).token
    place = data.draw(st.integers(0, len(token) - 1))
    altered = token[:place] + data.draw(st.text(LETTERS, max_size=2)) + token[place + 1 :]
    assume(altered != token)
    with pytest.raises(ForgedTokenError, match="rater token"):
        open_rater(KEYS, altered)


@pytest.mark.parametrize("text", ["", "r1.", "r1." + "A" * 64, "A" * 10**6, "r1.é", "anon:00"])
def test_a_made_up_rater_token_is_forged(text):
    with pytest.raises(ForgedTokenError):
        open_rater(KEYS, text)


def test_a_recovery_code_is_no_rater_token():
    held = mint_rater(KEYS)
    short = base64.urlsafe_b64decode(held.token[3:] + "==")[:20]
    with pytest.raises(ForgedTokenError):
        open_rater(KEYS, "r1." + base64.urlsafe_b64encode(short).rstrip(b"=").decode())
