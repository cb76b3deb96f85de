"""Requests in the ledger: one per subject who asked, batched, all or nothing."""

from datetime import UTC, datetime

import pytest

from privacy_core.errors import OutputError
from privacy_core.unlearning.certificate import row_tokens
from privacy_core.unlearning.ledger import Ledger
from privacy_core.unlearning.requests import OTHERS, asked_of, move_batch, record_batch

SALT = b"s" * 32
SUBJECTS = {0: "aa", 1: "bb", 2: "cc", 3: "aa", 4: None}


def revision(mode="replace", *, digest="d" * 64, withheld=(), **sources):
    sources = sources or {"aa": "own", "bb": "population"}
    return {
        "data_digest": digest,
        "mode": mode,
        "subjects": [{"subject_key": key, "source": source} for key, source in sources.items()],
        "withheld": [{"row": row, "status": "no_face"} for row in withheld],
    }


def clock():
    return datetime(2026, 1, 1, tzinfo=UTC)


def record(path, asked, *, work=lambda _name: "certificate", digest="d" * 64):
    return record_batch(path, asked, digest=digest, salt=SALT, work=work, clock=clock)


def test_each_subject_who_has_a_preference_asks_and_the_rest_is_one():
    asked = asked_of(revision(), [0, 1, 3, 4], SUBJECTS)
    assert [(one.subject, one.rows, one.basis) for one in asked] == [
        ("aa", (0, 3), "rectification"),
        (OTHERS, (1, 4), "rectification"),
    ]


@pytest.mark.parametrize("mode", ["drop-row", "drop-label"])
def test_what_is_dropped_is_an_erasure(mode):
    (one,) = asked_of(revision(mode, aa="own"), [0, 3], SUBJECTS)
    assert (one.subject, one.basis) == ("aa", "erasure")


def test_a_dropped_row_leaves_no_account_and_was_asked_for_all_the_same():
    found = asked_of(revision("drop-row", bb="population", withheld=[2]), [0, 1, 2, 3], SUBJECTS)
    assert [(one.subject, one.rows, one.basis) for one in found] == [
        ("aa", (0, 3), "erasure"),
        (OTHERS, (1, 2), "rectification"),
    ]


def test_without_pseudonyms_all_rows_are_one_request():
    (one,) = asked_of(revision(), [0, 1], {})
    assert (one.subject, one.rows) == (OTHERS, (0, 1))


def test_the_same_subject_asks_anew_where_the_revised_data_is_new():
    first, again, later = (
        asked_of(revision(digest=digest), [0], SUBJECTS)[0].request for digest in ("d", "d", "e")
    )
    assert first == again != later


def test_a_batch_is_entered_with_rows_due_date_state_and_certificate(tmp_path):
    asked = asked_of(revision(), [0, 3], SUBJECTS)
    name = record(tmp_path / "l", asked)
    (one,) = Ledger(tmp_path / "l").requests()
    assert (one.subject, one.state, one.batch) == ("aa", "unlearned", name)
    assert one.rows == tuple(row_tokens(SALT, [0, 3]))
    assert one.due == "2026-01-31T00:00:00+00:00"
    entries = Ledger(tmp_path / "l").entries()
    assert [entry.state for entry in entries] == ["received", "batched", "unlearned"]
    assert [entry.content.get("certificate") for entry in entries] == [None, None, "certificate"]
    assert Ledger(tmp_path / "l").verify() == ()


def test_where_the_work_fails_nothing_is_entered(tmp_path):
    record(tmp_path / "l", asked_of(revision(), [0], SUBJECTS))
    before = Ledger(tmp_path / "l").entries()

    def fails(_name):
        raise OutputError("the disk is full")

    with pytest.raises(OutputError, match="disk is full"):
        record(tmp_path / "l", asked_of(revision(digest="e" * 64), [0], SUBJECTS), work=fails)
    assert Ledger(tmp_path / "l").entries() == before


def test_another_attempt_takes_up_what_is_not_released_and_later_requests_with_it(tmp_path):
    one = asked_of(revision(), [0], SUBJECTS)
    names = [record(tmp_path / "l", one), record(tmp_path / "l", one)]
    assert names == ["1-dddddddddddd", "2-dddddddddddd"]
    ledger = Ledger(tmp_path / "l")
    assert ledger.requests()[0].batch == names[1]
    move_batch(ledger, names[1], "audited", gate="passed")
    move_batch(ledger, names[1], "released", revision="abc")
    both = [*one, *asked_of(revision(digest="e" * 64), [0, 1], SUBJECTS)]
    name = record(tmp_path / "l", both, digest="e" * 64)
    assert {(r.state, r.batch) for r in ledger.requests()} == {
        ("released", names[1]),
        ("unlearned", name),
    }
    assert len(ledger.requests()) == 3


def test_a_batch_has_its_name_alone_also_once_another_took_its_requests_over(tmp_path):
    asked = asked_of(revision(), [0, 1], SUBJECTS)
    names = [record(tmp_path / "l", asked) for _ in range(3)]
    ledger = Ledger(tmp_path / "l")
    before = ledger.entries()
    assert move_batch(ledger, names[1], "audited", gate="passed") == ()
    assert move_batch(ledger, names[1], "released", revision="abc") == ()
    assert ledger.entries() == before
    names.append(record(tmp_path / "l", asked))
    assert names == [f"{number}-dddddddddddd" for number in (1, 2, 3, 4)]
    assert {one.batch for one in ledger.requests()} == {names[3]}


def test_a_repeated_audit_is_entered_where_it_found_something_else_and_the_release_is_final(
    tmp_path,
):
    name = record(tmp_path / "l", asked_of(revision(), [0, 1], SUBJECTS))
    ledger = Ledger(tmp_path / "l")
    assert {one.state for one in move_batch(ledger, name, "audited", gate="passed")} == {"audited"}
    before = ledger.entries()
    move_batch(ledger, name, "audited", gate="passed")
    assert ledger.entries() == before
    move_batch(ledger, name, "audited", gate="failed")
    assert [entry.content for entry in ledger.entries()[-2:]] == [{"gate": "failed"}] * 2
    assert len(ledger.entries()) == len(before) + 2
    assert {one.state for one in move_batch(ledger, name, "released")} == {"released"}
    move_batch(ledger, name, "failed")
    assert {one.state for one in ledger.requests()} == {"released"}
