from __future__ import annotations

import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest

import app
from feedback import (
    ACCOUNT_NAME,
    ExpiredTokenError,
    ForeignTokenError,
    ForgedTokenError,
    InvalidRatingError,
    Keys,
    Prior,
    RatingStore,
    ReleaseAccount,
    StoreError,
)
from feedback.columns import row_problems
from feedback.history import open_history
from feedback.preference.judgement import judgements_of
from feedback.preference.selection import choose_page
from feedback.remote.base import NullRemote
from feedback.sync.loop import Sync
from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.faces import HogDetector, photo_from_pixels
from privacy_core.schema import DEFAULT_STRENGTH, AttributePolicy
from shell import desk as desks
from shell.desk import Clicks, RatingDesk, attributes_of
from shell.visit import Visit
from tests.privacy_core.tiny import write_tiny_model

KEYS = Keys({1: bytes(range(32))}, is_generated=False, notice="")
KINDS_OF_CHECK = ("catch", "repeat")
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def anonymizer(tmp_path_factory):
    model = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return Anonymizer(EmbeddedBackend.load(model), HogDetector(smallest_face=80, threshold=0.5))


@pytest.fixture
def store(tmp_path):
    with RatingStore(tmp_path / "ratings.sqlite3") as store:
        yield store


@pytest.fixture
def visit(anonymizer, astronaut):
    visit = Visit()
    visit.open(anonymizer, photo_from_pixels(astronaut), source="own_photo")
    return visit


class Rater:
    """Someone in front of one tab, with the history their browser keeps."""

    def __init__(self, store, visit, *, keys=KEYS, **options):
        self.now = NOW
        self.visit = visit
        self.history = ""
        self.desk = RatingDesk(
            store=store,
            keys=keys,
            sync=Sync(store, NullRemote()),
            clock=lambda: self.now,
            generator=np.random.default_rng(0),
            **options,
        )

    def ask(self):
        token, self.variants = self.desk.ask(self.visit, session="tab", history=self.history)
        return token

    def answer(self, best=0, just_right=2, *, consent=False, token=None):
        clicks = Clicks(
            token=token or self.ask(),
            session="tab",
            best=best,
            just_right=just_right,
            has_consent=consent,
        )
        outcome = self.desk.answer(self.visit, clicks, history=self.history)
        self.history = outcome.history
        return outcome

    def undo(self):
        n_removed, self.history = self.desk.undo(self.visit, history=self.history)
        return n_removed

    def standing(self):
        return self.desk.standing(self.visit, self.history)


@pytest.fixture
def rater(store, visit):
    return Rater(store, visit)


# --- A dial without storage ----------------------------------------------------------------------


def test_whoever_declines_storage_gets_the_same_dial_as_whoever_agrees(
    tmp_path, store, visit, anonymizer, astronaut
):
    other = Visit()
    other.open(anonymizer, photo_from_pixels(astronaut), source="own_photo")
    with RatingStore(tmp_path / "other.sqlite3") as second:
        raters = Rater(store, visit), Rater(second, other)
        for _ in range(4):
            for rater, consent in zip(raters, (False, True), strict=True):
                rater.answer(1, 1, consent=consent)
        declined, agreed = (rater.standing() for rater in raters)
        assert second.stats().rows == 20
    assert store.stats().rows == 0
    assert (declined.mean, declined.strength) == (agreed.mean, agreed.strength)
    assert declined.target.n_ratings == agreed.target.n_ratings == 8


def test_the_dial_starts_at_the_default_strength(rater):
    standing = rater.standing()
    assert standing.strength == DEFAULT_STRENGTH
    assert standing.target.source == "population"
    assert standing.target.n_ratings == 0


def test_answers_move_the_dial_and_in_the_end_decide_it(rater):
    for _ in range(8):
        token = rater.ask()
        shown = [variant.strength for variant in rater.variants]
        nearest = min(range(4), key=lambda i: abs(shown[i] - 0.6))
        off = shown[nearest] - 0.6
        verdict = 2 if abs(off) < 0.1 else (3 if off > 0 else 1)
        rater.answer(nearest, verdict, token=token)
    standing = rater.standing()
    assert standing.target.source == "own"
    assert standing.mean == pytest.approx(0.6, abs=0.1)
    assert 0.6 <= standing.strength <= 0.8
    assert standing.low < 0.6 < standing.high


def test_the_floor_holds_whatever_is_answered(rater):
    for _ in range(8):
        token = rater.ask()
        weakest = min(range(4), key=lambda i: rater.variants[i].strength)
        rater.answer(weakest, 3, token=token)
    standing = rater.standing()
    assert standing.mean < 0.4
    assert standing.target.source == "own"
    assert standing.target.floor_applied
    assert standing.strength == standing.floor == 0.5


def test_the_history_holds_what_the_stored_rows_say(rater, store):
    for just_right in (0, 3):
        rater.now += timedelta(minutes=1)
        rater.answer(2, just_right, consent=True)
    kept = open_history(KEYS, rater.history)
    stored = judgements_of(store.ratings())
    assert [(j.kind, j.strengths, j.response) for j in kept] == [
        (j.kind, j.strengths, j.response) for j in stored
    ]


def test_a_restart_with_the_same_keys_keeps_the_dial(rater, store, visit):
    for _ in range(3):
        rater.answer(1, 1)
    before = rater.standing()
    restarted = Rater(store, visit)
    restarted.history = rater.history
    assert restarted.standing() == before
    assert restarted.desk.refusal(rater.history) is None


@pytest.mark.parametrize(
    "history", ["h1.1.Zm9yZ2Vk", "h9.1.abc", "junk", {"a": 1}, [1], 7, True, "x" * 100_000]
)
def test_a_history_that_is_none_of_ours_is_named_and_then_left_out(rater, history):
    assert "starts again" in rater.desk.refusal(history)
    assert rater.desk.standing(rater.visit, history).target.n_ratings == 0
    rater.history = history
    rater.answer(0, 2)
    assert rater.standing().target.n_ratings == 2


def test_a_history_of_other_keys_or_another_model_starts_again(rater, store, visit):
    rater.answer()
    other_keys = Rater(store, visit, keys=Keys({1: bytes(32)}, is_generated=False, notice=""))
    other_model = Rater(store, visit, model="174a4b0aeb7b")
    assert "made here" in other_keys.desk.refusal(rater.history)
    assert "another model" in other_model.desk.refusal(rater.history)


# --- What a page records -------------------------------------------------------------------------


def test_a_page_says_how_its_strengths_were_chosen(rater, monkeypatch):
    choices = []

    def choose(*arguments, **options):
        choices.append(choose_page(*arguments, **options))
        return choices[-1]

    rater.answer()
    monkeypatch.setattr(desks, "choose_page", choose)
    while not {"repeat", "catch"} <= {c.policy.split("/")[1] for c in choices}:
        # Only the choice is made again, not the pictures.
        rater.desk._choose(rater.visit, rater.desk.judgements(rater.history))
    checks = {c.policy: c for c in choices}
    for choice in checks.values():
        monkeypatch.setattr(desks, "choose_page", lambda *_, choice=choice, **__: choice)
        rater.ask()
        page = rater.visit.question.page
        assert tuple(shown.strength for shown in page.shown) == choice.strengths
        assert (page.policy, page.propensity) == (
            choice.policy,
            pytest.approx(choice.propensity, rel=1e-5),
        )
        catches, repeats = ([getattr(s, f"is_{k}") for s in page.shown] for k in KINDS_OF_CHECK)
        assert catches == [i == choice.catch for i in range(4)]
        assert repeats == [i == choice.repeat for i in range(4)]
    assert all(max(c.strengths) >= rater.desk.floor for c in choices)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (AttributePolicy(), "none"),
        (AttributePolicy(keep=("smiling", "beard")), "keep=beard,smiling"),
        (
            AttributePolicy(
                keep=("smiling",), hide=("gender",), set={"age_group": "not young", "beard": "no"}
            ),
            "keep=smiling;hide=gender;set=age_group:not_young,beard:no",
        ),
    ],
)
def test_rows_say_what_the_visitor_kept_and_hid(policy, text):
    assert attributes_of(policy) == text
    assert row_problems({"attributes": text}) == []


def test_the_policy_of_the_photo_reaches_the_rows(rater, store):
    rater.visit.set_policy(AttributePolicy(keep=("smiling",), hide=("gender",)))
    rater.answer(consent=True)
    assert {row.attributes for row in store.ratings()} == {"keep=smiling;hide=gender"}


# --- None is good enough -------------------------------------------------------------------------


@pytest.mark.parametrize(("just_right", "extreme"), [(1, max), (3, min)])
def test_none_is_good_enough_judges_the_variant_that_says_most(rater, store, just_right, extreme):
    before = rater.standing().mean
    outcome = rater.answer(None, just_right, consent=True)
    rows = list(store.ratings())
    (judged,) = [row for row in rows if row.response_type == "jar5"]
    assert outcome.best is None
    assert [row.response for row in rows if row.response_type == "best_of_n"] == [0, 0, 0, 0]
    assert judged.strength == extreme(variant.strength for variant in outcome.variants)
    assert judged.response == just_right
    after = rater.standing()
    assert after.target.n_ratings == 1
    assert (after.mean > before) == (just_right == 1)


# --- Undo ----------------------------------------------------------------------------------------


def test_undo_removes_the_rows_and_steps_the_dial_back(rater, store):
    standings = [rater.standing()]
    for best, just_right in ((0, 1), (None, 3), (2, 2)):
        rater.answer(best, just_right, consent=True)
        standings.append(rater.standing())
    for n_left in (2, 1, 0):
        assert rater.undo() == 5
        assert rater.standing().density == standings[n_left].density
        assert store.stats().rows == 5 * n_left
    with pytest.raises(InvalidRatingError, match="got none"):
        rater.undo()


def test_undo_without_consent_has_no_rows_to_remove_and_steps_back_too(rater, store):
    before = rater.standing()
    rater.answer()
    assert rater.undo() == 0
    assert rater.standing().density == before.density
    assert store.stats().tombstones == 0


def test_undo_takes_its_own_page_even_if_another_tab_answered_since(rater, store, visit):
    rater.answer(0, 0)
    first = open_history(KEYS, rater.history)
    other = Rater(store, visit)
    other.visit = Visit(opened=visit.opened, photo_id="f" * 32)
    other.history = rater.history
    other.answer(3, 4)
    rater.history = other.history
    rater.undo()
    left = open_history(KEYS, rater.history)
    assert left == open_history(KEYS, other.history)[len(first) :]


def test_undo_that_cannot_be_written_takes_nothing_back(rater, store, monkeypatch):
    rater.answer(consent=True)
    before = rater.history

    def fail(*_, **__):
        raise StoreError("The store must be writable, it is not.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "undo", fail)
        with pytest.raises(StoreError):
            rater.undo()
    assert rater.history == before
    assert rater.undo() == 5


def test_a_skipped_page_cannot_be_answered_later(rater, store):
    skipped, current = rater.ask(), rater.ask()
    with pytest.raises(desks.UsedPageError):
        rater.answer(token=skipped, consent=True)
    assert store.stats().rows == 0
    assert rater.answer(token=current, consent=True).n_saved == 5


def test_a_history_from_which_the_page_is_gone_stays_as_it_is(rater):
    rater.answer()
    rater.history = ""
    rater.undo()
    assert open_history(KEYS, rater.history) == ()


def test_an_undone_page_cannot_be_answered_again(rater, store):
    token = rater.ask()
    rater.answer(token=token, consent=True)
    rater.undo()
    with pytest.raises(desks.UsedPageError):
        rater.answer(token=token, consent=True)
    assert store.stats().rows == 0


def test_a_visit_remembers_a_bounded_number_of_pages_to_undo(rater, monkeypatch):
    monkeypatch.setattr(desks, "MOST_UNDONE", 2)
    for _ in range(3):
        rater.answer()
    assert len(rater.visit.answered) == 2


# --- What is known before the first answer -------------------------------------------------------


def test_the_prior_moves_a_dial_without_answers_and_chooses_the_first_page(store, visit):
    low = Prior("low", tuple(float(i < 15) for i in range(51)))
    high = Prior("high", tuple(float(i > 45) for i in range(51)))
    raters = [Rater(store, visit, floor=0.0, prior=prior) for prior in (low, None, high)]
    strengths = [rater.standing().strength for rater in raters]
    assert strengths == sorted(strengths)
    assert strengths[0] < strengths[1] == DEFAULT_STRENGTH < strengths[2]
    means = []
    for rater in raters:
        rater.ask()
        means.append(np.mean([variant.strength for variant in rater.variants]))
    assert means[0] < means[2]


def test_main_gives_the_desk_the_release_about_its_model(tmp_path, monkeypatch, capsys):
    model = write_tiny_model(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    generator = np.random.default_rng(1)
    ReleaseAccount(data / ACCOUNT_NAME).draw(
        [(0, 0, 0, 0, 1000, 0, 0, 0, 0, 0)] * 60,
        epsilon=Fraction(1),
        model_version=f"embedded@{EmbeddedBackend.load(model).revision}",
        randbelow=lambda n: int(generator.integers(n)),
    )
    desks_made = []

    def stop(*, desk, **_others):
        desks_made.append(desk)
        raise KeyboardInterrupt

    monkeypatch.setenv("PRIVACY_DIAL_DATA_DIR", str(data))
    monkeypatch.setenv("PRIVACY_DIAL_MODEL", str(model))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app, "build_page", stop)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert app.main([]) == 0
    (desk,) = desks_made
    standing = desk.standing(Visit(), "")
    assert standing.target.prior.startswith("dp-eps1-")
    assert standing.strength < 0.8
    assert "Dials start from release dp-eps1-" in capsys.readouterr().err


# --- Erasing -------------------------------------------------------------------------------------


def test_erasing_gives_a_receipt_and_leaves_nothing(rater, store):
    code = rater.answer(consent=True).recovery_code
    rater.answer(consent=True)
    receipt = rater.desk.erase(rater.visit, code=code, history=rater.history)
    assert receipt.rows_local == 10
    assert receipt.is_done
    assert store.stats().rows == 0
    assert rater.visit.rater is None
    assert rater.visit.answered == []


def test_after_erasing_a_new_answer_has_a_new_pseudonym_and_a_new_code(rater, store):
    first = rater.answer(consent=True)
    (old,) = {row.rater_id for row in store.ratings()}
    rater.desk.erase(rater.visit, code="", history=rater.history)
    second = rater.answer(consent=True)
    (new,) = {row.rater_id for row in store.ratings()}
    assert new != old
    assert second.recovery_code not in {None, first.recovery_code}


def test_a_browser_without_stored_answers_is_cleared_without_a_receipt(rater):
    rater.answer()
    assert rater.desk.erase(rater.visit, code="", history=rater.history) is None
    assert rater.visit.answered == []


def test_someone_elses_code_must_be_right(rater, store):
    rater.answer(consent=True)
    with pytest.raises(ForgedTokenError):
        rater.desk.erase(Visit(), code="0" * 32, history="")
    assert store.stats().rows == 5


# --- Copying -------------------------------------------------------------------------------------


class Copier:
    """A sync that counts how often it is woken."""

    def __init__(self, store):
        self._sync = Sync(store, NullRemote())
        self.error = None
        self.n_woken = 0

    def wake(self):
        self.n_woken += 1

    def health(self):
        return replace(self._sync.health(), last_error=self.error)


def test_an_answer_that_is_kept_wakes_the_copying_unless_it_waits_after_a_failure(rater, store):
    copier = rater.desk._sync = Copier(store)
    rater.answer(consent=False)
    assert copier.n_woken == 0
    rater.answer(consent=True)
    rater.undo()
    assert copier.n_woken == 2
    copier.error = "The Hub refused."
    rater.answer(consent=True)
    assert copier.n_woken == 2


# --- Tokens --------------------------------------------------------------------------------------


def test_a_page_is_answered_by_its_own_session_in_time_and_unaltered(rater, store):
    token = rater.ask()
    foreign = Clicks(token=token, session="other", best=0, just_right=2, has_consent=True)
    with pytest.raises(ForeignTokenError):
        rater.desk.answer(rater.visit, foreign, history="")
    with pytest.raises(ForgedTokenError):
        rater.answer(token=token[:-6] + "AAAAAA", consent=True)
    rater.now += desks.PAGE_LIFE + timedelta(seconds=1)
    with pytest.raises(ExpiredTokenError):
        rater.answer(token=token, consent=True)
    assert store.stats().rows == 0


@pytest.mark.parametrize(("best", "just_right"), [(4, 2), (-1, 2), (0, 5), (None, 2), (True, 2)])
def test_an_answer_to_what_was_not_asked_stores_nothing_and_can_be_corrected(
    rater, store, best, just_right
):
    token = rater.ask()
    with pytest.raises(InvalidRatingError):
        rater.answer(best, just_right, token=token, consent=True)
    assert store.stats().rows == 0
    assert rater.history == ""
    assert rater.answer(0, 2, token=token, consent=True).n_saved == 5
