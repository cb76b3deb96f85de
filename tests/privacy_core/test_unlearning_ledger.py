"""The ledger: only appended to, chained, all or nothing, and silent about who a subject is."""

import sqlite3
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.unlearning.chain import FIRST
from privacy_core.unlearning.ledger import Ledger, utc_now


class Clock:
    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    return Ledger(tmp_path / "requests.sqlite3", clock=clock)


def receive(ledger, *names):
    return [ledger.receive(name, f"subject-{name}", ["aa"], basis="erasure") for name in names]


def edit(ledger, statement):
    database = sqlite3.connect(ledger.path)
    with database:
        database.executescript(statement)
    database.close()


UNLOCK = "DROP TRIGGER entries_are_not_changed; DROP TRIGGER entries_are_not_removed;"


# --- The chain -------------------------------------------------------------------------------


def test_every_entry_continues_the_one_before(ledger):
    receive(ledger, "a", "b")
    ledger.batch("one")
    entries = ledger.entries()
    assert [entry.previous for entry in entries] == [FIRST] + [e.hash for e in entries[:-1]]
    assert ledger.head() == entries[-1].hash
    assert ledger.verify() == ()


def test_an_empty_ledger_is_whole(ledger):
    assert ledger.verify() == ()
    assert ledger.head() == FIRST
    assert ledger.batch("none") == ()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE entries SET at = '2020-01-01T00:00:00+00:00' WHERE number = 2", "Entry 2 was ed"),
        ("UPDATE entries SET content = '{}' WHERE number = 1", "Entry 1 was edited"),
        ("UPDATE entries SET state = 'released' WHERE number = 3", "Entry 3 was edited"),
        ("DELETE FROM entries WHERE number = 2", "Entry 3 does not follow"),
        ("UPDATE entries SET previous = hash WHERE number = 3", "Entry 3 does not follow"),
    ],
)
def test_an_edit_breaks_the_chain(ledger, statement, problem):
    receive(ledger, "a", "b", "c")
    edit(ledger, UNLOCK + statement)
    problems = ledger.verify()
    assert problems
    assert any(sentence.startswith(problem) for sentence in problems)


@pytest.mark.parametrize("statement", ["DELETE FROM entries", "UPDATE entries SET state = 'x'"])
def test_the_database_itself_refuses_changes(ledger, statement):
    receive(ledger, "a")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        edit(ledger, statement)


# --- Requests --------------------------------------------------------------------------------


def test_a_request_goes_its_way_to_a_release(ledger, clock):
    receive(ledger, "a")
    (waiting,) = ledger.requests()
    assert (waiting.state, waiting.batch, waiting.rows) == ("received", None, ("aa",))
    assert waiting.due == "2026-01-31T00:00:00+00:00"
    ledger.batch("first")
    for state in ("unlearned", "audited"):
        ledger.move(["a"], state)
    clock.now += timedelta(days=1)
    (entry,) = ledger.move(["a"], "released", certificate="abc")
    assert entry.content == {"certificate": "abc"}
    assert entry.at == "2026-01-02T00:00:00+00:00"
    (done,) = ledger.requests()
    assert (done.state, done.batch, done.subject) == ("released", "first", "subject-a")


def test_sequential_requests_are_batched_the_most_urgent_first(ledger, clock):
    receive(ledger, "b")
    clock.now -= timedelta(days=2)
    receive(ledger, "a", "c")
    assert [one.request for one in ledger.batch("one")] == ["a", "c", "b"]
    receive(ledger, "d")
    assert [one.request for one in ledger.batch("two")] == ["d"]
    assert ledger.batch("three") == ()
    ledger.move(["a"], "failed", reason="the gate")
    (again,) = ledger.batch("four")
    assert (again.request, again.batch, again.state) == ("a", "four", "batched")


def test_a_move_that_is_not_allowed_changes_nothing(ledger):
    receive(ledger, "a", "b")
    ledger.move(["b"], "refused", reason="no rows found")
    before = ledger.entries()
    with pytest.raises(InvalidArgumentError, match=r"refused may become nothing else, got 'bat"):
        ledger.move(["a", "b"], "batched")
    with pytest.raises(InvalidArgumentError, match="received may become batched or refused"):
        ledger.move(["a"], "released")
    with pytest.raises(InvalidArgumentError, match="must be in the ledger, got 'x'"):
        ledger.move(["x"], "refused")
    assert ledger.entries() == before


@pytest.mark.parametrize(
    ("arguments", "basis", "message"),
    [
        (("a", "s", ["aa"]), "whim", "`basis` must be one of rectification, erasure, objection"),
        (("b", "s", []), "erasure", "at least one row"),
        (("b", "", ["aa"]), "erasure", "an id, a subject"),
        (("a", "s", ["aa"]), "erasure", "id must be new, got 'a' again"),
    ],
)
def test_a_request_that_says_too_little_or_comes_twice_is_refused(
    ledger, arguments, basis, message
):
    receive(ledger, "a")
    with pytest.raises(InvalidArgumentError, match=message):
        ledger.receive(*arguments, basis=basis)
    assert len(ledger.entries()) == 1


def test_what_is_past_its_month_and_not_closed_is_overdue(ledger, clock):
    receive(ledger, "a", "b", "c")
    ledger.move(["b"], "refused")
    clock.now += timedelta(days=29)
    assert ledger.overdue() == ()
    clock.now += timedelta(days=2)
    assert [one.request for one in ledger.overdue()] == ["a", "c"]


# --- The file --------------------------------------------------------------------------------


def test_a_ledger_is_reopened_as_it_was(ledger, clock):
    receive(ledger, "a")
    again = Ledger(ledger.path, clock=clock)
    receive(again, "b")
    assert [one.request for one in ledger.requests()] == ["a", "b"]
    assert again.verify() == ()


def test_two_writers_never_continue_the_same_entry(ledger, clock):
    def write(side):
        mine = Ledger(ledger.path, clock=clock)
        for number in range(10):
            receive(mine, f"{side}{number}")

    writers = [Thread(target=write, args=(side,)) for side in "xy"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(ledger.entries()) == 20
    assert ledger.verify() == ()


def test_another_programs_file_is_left_alone(tmp_path):
    file = tmp_path / "other.sqlite3"
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE mine (a)")
    database.close()
    before = file.read_bytes()
    with pytest.raises(ModelError, match="belongs to another program"):
        Ledger(file)
    assert file.read_bytes() == before


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"'none\.sqlite3' cannot be read or written"):
        Ledger(tmp_path / "nowhere" / "none.sqlite3")
    (tmp_path / "text.sqlite3").write_text("no database " * 100)
    with pytest.raises(OutputError, match="nothing was changed"):
        Ledger(tmp_path / "text.sqlite3")


def test_the_time_is_utc():
    assert utc_now().tzinfo is UTC
