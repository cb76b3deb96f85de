import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback import (
    Consent,
    CorruptStoreError,
    ErasedRaterError,
    InvalidRatingError,
    RatingStore,
    StoreError,
    StoreStats,
    UsedPageError,
    new_id,
    rows_of_page,
)
from feedback.store.database import APPLICATION_ID, MIGRATIONS
from feedback.store.tables import PageRows
from feedback.store.tombstones import Tombstone, digest_of, to_ms
from feedback.sync.outbox import Outbox
from tests.feedback.replicas import erase

EMPTY = StoreStats(rows=0, raters=0, pages=0, outbox_rows=0, tombstones=0)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(world):
    return Clock(world.now)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store" / "ratings.sqlite3"


@pytest.fixture
def store(path, clock):
    with RatingStore(path, clock=clock) as opened:
        yield opened


def answer_page(world, store, rater=None, **changes):
    """Keep one answered page and return it with its rows."""
    page = world.page(**changes)
    rows = world.rows(page, rater)
    store.add_page(page, rows)
    return page, rows


def bytes_of(folder):
    """Return the bytes of every file of a store, the write-ahead log included."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


# --- Keeping ---------------------------------------------------------------------------------


def test_a_page_is_kept_whole_in_order_and_read_back_after_a_restart(world, path):
    with RatingStore(path) as store:
        _, first = answer_page(world, store)
        _, second = answer_page(world, store)
    with RatingStore(path, create=False) as store:
        assert tuple(store.ratings()) == first + second
        assert store.stats() == StoreStats(10, 2, 2, outbox_rows=10, tombstones=0)


def test_new_rows_wait_in_the_outbox(world, store, path):
    answer_page(world, store)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT DISTINCT state FROM event").fetchall() == [("new",)]
    connection.execute("UPDATE event SET state = 'in_remote' WHERE seq = 1")
    connection.commit()
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE event SET state = 'lost'")
    connection.close()
    assert store.stats().outbox_rows == 4


def test_one_rater_s_ratings_are_read_alone(world, store):
    rater = world.rater()
    _, mine = answer_page(world, store, rater)
    answer_page(world, store)
    _, more = answer_page(world, store, rater)
    assert tuple(store.ratings(rater.rater_id)) == mine + more
    assert list(store.ratings("0" * 32)) == []


def test_more_rows_than_a_batch_are_all_read(world, store):
    rater, other = world.rater(), world.rater()
    for number in range(220):
        answer_page(world, store, other if number % 2 else rater)
    ids = [rating.rating_id for rating in store.ratings()]
    assert len(ids) == len(set(ids)) == 1100
    assert len(list(store.ratings(rater.rater_id))) == 550


def test_without_consent_no_byte_is_written(world, store, path):
    page = world.page()
    rows = rows_of_page(page, world.answer(), rater=world.rater(), consent=None, key=b"k" * 32)
    before = bytes_of(path.parent)
    store.add_page(page, rows)
    assert bytes_of(path.parent) == before


def test_a_page_counts_once_even_with_another_answer_from_another_rater(world, store):
    page, rows = answer_page(world, store)
    for again in (rows, world.rows(page, best=2), rows[:1]):
        with pytest.raises(UsedPageError, match="answered once"):
            store.add_page(page, again)
    assert tuple(store.ratings()) == rows


def test_a_page_counts_once_after_a_restart_too(world, path):
    with RatingStore(path, clock=lambda: world.now) as store:
        page, rows = answer_page(world, store)
    with RatingStore(path, clock=lambda: world.now) as store:
        with pytest.raises(UsedPageError):
            store.add_page(page, world.rows(page, best=1))
        assert tuple(store.ratings()) == rows


def test_of_many_threads_with_one_page_exactly_one_wins(world, store):
    page, barrier, results = world.page(), threading.Barrier(8), []
    answers = [world.rows(page, best=number % 4) for number in range(8)]

    def send(rows):
        barrier.wait()
        try:
            store.add_page(page, rows)
            results.append(rows)
        except UsedPageError:
            results.append(None)

    threads = [threading.Thread(target=send, args=(rows,)) for rows in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    (kept,) = [rows for rows in results if rows]
    assert tuple(store.ratings()) == kept


def test_many_threads_keep_every_page(world, store):
    def work():
        for _ in range(25):
            kept.extend(answer_page(world, store)[1])

    kept = []
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 8 * 25 * 5
    assert {r.rating_id for r in store.ratings()} == {r.rating_id for r in kept}


def test_two_open_stores_of_one_file_see_one_another_s_pages(world, store, path):
    with RatingStore(path) as other:
        page, rows = answer_page(world, other)
        with pytest.raises(UsedPageError):
            store.add_page(page, rows)
        assert tuple(store.ratings()) == rows


def test_a_judgement_that_is_kept_already_takes_the_whole_page_back(world, store, path):
    # As after a restore from a remote, which knows rows and no pages.
    page, rows = answer_page(world, store)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM page")
    connection.execute("DELETE FROM event WHERE seq < 5")
    connection.commit()
    with pytest.raises(UsedPageError):
        store.add_page(page, rows)
    assert connection.execute("SELECT count(*) FROM page").fetchone() == (0,)
    connection.close()
    assert tuple(store.ratings()) == rows[4:]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.floats(0, 1))
def test_a_strength_that_was_not_shown_is_refused_and_nothing_is_stored(world, store, strength):
    page = world.page()
    rows = world.rows(page)
    forged = replace(rows[4], strength=strength)
    if forged.strength == page.shown[forged.position].strength:
        return
    with pytest.raises(InvalidRatingError, match="must be what the page showed"):
        store.add_page(page, [*rows[:4], forged])
    assert store.stats() == EMPTY
    assert not list(store.ratings())


def test_rows_of_another_page_are_refused_and_nothing_is_stored(world, store):
    page = world.page()
    with pytest.raises(InvalidRatingError, match="`page_id`"):
        store.add_page(page, world.rows(world.page()))
    assert store.stats() == EMPTY
    store.add_page(page, world.rows(page))


def test_marks_of_answered_pages_go_a_day_after_their_tokens_expire(world, store, path, clock):
    page, _ = answer_page(world, store)

    def marks():
        connection = sqlite3.connect(path)
        (count,) = connection.execute("SELECT count(*) FROM page").fetchone()
        connection.close()
        return count

    clock.now = page.expires_at + timedelta(days=1)
    answer_page(world, store, expires_at=clock.now + timedelta(hours=1))
    assert marks() == 2
    clock.now += timedelta(milliseconds=1)
    answer_page(world, store, expires_at=clock.now + timedelta(hours=1))
    assert marks() == 2


# --- Durability ------------------------------------------------------------------------------

WRITER = textwrap.dedent("""
    import pathlib, sys
    from datetime import UTC, datetime, timedelta
    from feedback import *
    now = datetime.now(UTC)
    key = b"k" * 32
    with RatingStore(pathlib.Path(sys.argv[1])) as store:
        while True:
            page = Page(session_id=new_id(), photo_id=new_id(), method="embedded",
                        model_revision="1", shown=(Shown(0.2), Shown(0.8)), source="demo_photo",
                        app_version="0.1.0", expires_at=now + timedelta(hours=1))
            answer = Answer(best=1, just_right=2, best_ms=900, just_right_ms=700, client="web",
                            answered_at=now)
            rows = rows_of_page(page, answer, rater=Rater(new_id(), 1),
                                consent=Consent("1", "aggregate"), key=key)
            store.add_page(page, rows)
            print(*(row.rating_id for row in rows), flush=True)
""")


@pytest.mark.parametrize("n_acknowledged", [1, 37])
def test_what_was_acknowledged_survives_sigkill_exactly_once(path, n_acknowledged):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    lines = [process.stdout.readline() for _ in range(n_acknowledged)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    # A line cut off by the kill acknowledges nothing.
    whole = [line for line in [*lines, *rest.splitlines(keepends=True)] if line.endswith("\n")]
    acknowledged = " ".join(whole).split()
    assert len(acknowledged) >= 3 * n_acknowledged
    with RatingStore(path, create=False) as store:
        kept = [rating.rating_id for rating in store.ratings()]
        assert list(store.problems()) == []
    assert len(kept) == len(set(kept))
    assert set(acknowledged) <= set(kept)
    # Pages are kept whole or not at all.
    assert len(kept) % 3 == 0


# --- Undoing ---------------------------------------------------------------------------------


def test_undone_ratings_go_and_leave_tombstones(world, store):
    rater = world.rater()
    _, rows = answer_page(world, store, rater)
    assert store.undo([row.rating_id for row in rows[:2]], rater_id=rater.rater_id) == 2
    assert tuple(store.ratings()) == rows[2:]
    assert store.stats().tombstones == 2


def test_undoing_twice_removes_once(world, store):
    rater = world.rater()
    _, rows = answer_page(world, store, rater)
    ids = [row.rating_id for row in rows]
    assert [store.undo(ids, rater_id=rater.rater_id) for _ in range(2)] == [5, 0]
    assert store.stats() == replace(EMPTY, tombstones=5)


def test_a_page_that_was_undone_cannot_be_answered_again(world, store):
    rater = world.rater()
    page, rows = answer_page(world, store, rater)
    store.undo([row.rating_id for row in rows], rater_id=rater.rater_id)
    with pytest.raises(UsedPageError):
        store.add_page(page, rows)


def test_nobody_undoes_another_rater_s_ratings(world, store):
    rater, other = world.rater(), world.rater()
    _, mine = answer_page(world, store, rater)
    _, theirs = answer_page(world, store, other)
    with pytest.raises(InvalidRatingError, match="must be ratings of this rater"):
        store.undo([mine[0].rating_id, theirs[0].rating_id], rater_id=rater.rater_id)
    assert tuple(store.ratings()) == mine + theirs
    assert store.stats().tombstones == 0


def learn_erasure(store, rater_id):
    """Let a store hear that a rater was erased by another one."""
    Outbox(store).learn([Tombstone("rater", digest_of(rater_id), to_ms(store.clock()))])


@pytest.mark.parametrize("erased", [erase, learn_erasure])
def test_what_an_erasure_elsewhere_removed_is_already_taken_back(world, store, erased):
    rater, other = world.rater(), world.rater()
    _, rows = answer_page(world, store, rater)
    _, theirs = answer_page(world, store, other)
    ids = [row.rating_id for row in rows]
    store.undo(ids[:1], rater_id=rater.rater_id)
    erased(store, rater.rater_id)
    assert tuple(store.ratings()) == theirs
    before = store.stats()
    assert [store.undo(ids, rater_id=rater.rater_id) for _ in range(2)] == [0, 0]
    assert store.stats() == before
    # It gives no right to what others answered.
    with pytest.raises(InvalidRatingError, match="must be ratings of this rater"):
        store.undo([ids[0], theirs[0].rating_id], rater_id=rater.rater_id)
    assert tuple(store.ratings()) == theirs


def test_what_an_erased_rater_answered_later_can_be_undone(world, store, clock):
    rater = world.rater()
    _, old = answer_page(world, store, rater)
    erase(store, rater.rater_id)
    clock.now += timedelta(minutes=1)
    _, rows = answer_page(replace(world, now=clock.now), store, rater)
    ids = [row.rating_id for row in (*old, *rows)]
    assert store.undo(ids, rater_id=rater.rater_id) == len(rows)
    assert store.stats().rows == 0


def test_a_rating_that_was_never_here_is_not_undone(world, store):
    with pytest.raises(InvalidRatingError, match="must be ratings of this rater"):
        store.undo([new_id()], rater_id=world.rater().rater_id)


# --- Erasing ---------------------------------------------------------------------------------


def personal_texts(rater, pages, rows):
    """Return every identifier that only this rater's rows hold."""
    texts = {rater.rater_id, *(row.rating_id for row in rows)}
    for page in pages:
        texts |= {page.page_id, page.session_id, page.photo_id}
    return [text.encode() for text in texts]


def test_an_erased_rater_leaves_no_byte_in_any_file_and_others_stay(world, store, path):
    rater, other = world.rater(), world.rater()
    gone = [answer_page(world, store, rater) for _ in range(40)]
    kept = [answer_page(world, store, other) for _ in range(3)]
    gone += [answer_page(world, store, rater)]
    store.undo([gone[0][1][0].rating_id], rater_id=rater.rater_id)
    traces = personal_texts(rater, [p for p, _ in gone], [r for _, rows in gone for r in rows])
    before = bytes_of(path.parent)
    assert rater.rater_id.encode() in before
    # The erased texts are there before, so that their absence means something.
    assert sum(trace in before for trace in traces) >= len(traces) - 1

    assert erase(store, rater.rater_id) == 41 * 5 - 1

    names = {file.name for file in path.parent.iterdir()}
    assert f"{path.name}-wal" in names
    assert not [trace for trace in traces if trace in bytes_of(path.parent)]
    assert other.rater_id.encode() in bytes_of(path.parent)
    assert tuple(store.ratings()) == tuple(row for _, rows in kept for row in rows)
    store.close()
    assert not [trace for trace in traces if trace in bytes_of(path.parent)]


def test_erasing_reaches_rows_another_open_store_wrote(world, store, path):
    rater = world.rater()
    with RatingStore(path) as app:
        answer_page(world, app, rater)
        assert erase(store, rater.rater_id) == 5
        assert rater.rater_id.encode() not in bytes_of(path.parent)
        assert list(app.ratings()) == []


def test_erasing_an_unknown_or_erased_rater_removes_nothing_and_still_marks(world, store):
    rater = world.rater()
    assert erase(store, rater.rater_id) == 0
    answer_page(world, store)
    assert erase(store, rater.rater_id) == 0
    assert store.stats() == StoreStats(5, 1, 1, outbox_rows=5, tombstones=1)


def test_answers_from_before_an_erasure_are_refused_and_later_ones_kept(world, store, clock):
    rater = world.rater()
    clock.now = world.now + timedelta(seconds=1)
    erase(store, rater.rater_id)
    page = world.page()
    for answered_at in (world.now, clock.now):
        with pytest.raises(ErasedRaterError, match="Nothing was stored"):
            store.add_page(page, world.rows(page, rater, answered_at=answered_at))
    later = world.rows(page, rater, answered_at=clock.now + timedelta(milliseconds=1))
    store.add_page(page, later)
    assert tuple(store.ratings()) == later


def test_erasing_again_moves_the_mark(world, store, clock):
    rater = world.rater()
    erase(store, rater.rater_id)
    clock.now = world.now + timedelta(hours=1)
    erase(store, rater.rater_id)
    page = world.page()
    with pytest.raises(ErasedRaterError):
        store.add_page(page, world.rows(page, rater, answered_at=world.now + timedelta(minutes=30)))
    assert store.stats().tombstones == 1


def test_a_page_of_an_erased_rater_cannot_be_replayed(world, store):
    rater = world.rater()
    page, _ = answer_page(world, store, rater)
    erase(store, rater.rater_id)
    with pytest.raises(UsedPageError):
        store.add_page(page, world.rows(page))


# --- Faults ----------------------------------------------------------------------------------


def damage(path, statement, *values):
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_a_healthy_store_has_no_problems(world, store):
    answer_page(world, store)
    assert list(store.problems()) == []


def test_every_faulty_row_is_listed_and_reading_says_how_to_list_them(world, store, path):
    for _ in range(2):
        answer_page(world, store)
    rows = list(store.ratings())
    damage(path, "UPDATE event SET body = '{' WHERE seq = 2")
    bad = rows[2].as_record() | {"strength": 3, "client": "x"}
    damage(path, "UPDATE event SET body = ? WHERE seq = 3", json.dumps(bad))
    damage(path, "UPDATE event SET rater_id = ? WHERE seq = 7", "0" * 32)
    assert [problem.split(" must ")[0] for problem in store.problems()] == [
        "Row 2: the row",
        "Row 3: `strength`",
        "Row 3: `client`",
        "Row 7: `rater_id`",
    ]
    with pytest.raises(CorruptStoreError, match="feedback validate"):
        list(store.ratings())


def test_faults_of_the_file_are_listed(world, store, path):
    answer_page(world, store)
    # An index that promises other rows than it holds.
    connection = sqlite3.connect(path, isolation_level=None)
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'new', 'in_remote')")
    connection.execute(f"PRAGMA schema_version = {version + 1}")
    connection.close()
    assert any(p.startswith("The database file: ") for p in store.problems())


def test_a_folder_or_a_missing_file_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="must be a file"):
        RatingStore(tmp_path)
    with pytest.raises(StoreError, match="got no file there"):
        RatingStore(str(tmp_path / "none.sqlite3"), create=False)


def test_every_scope_of_consent_is_kept_with_its_version(world, store):
    for scope in ("personal_only", "aggregate", "publish_row"):
        page = world.page()
        rows = rows_of_page(
            page, world.answer(), rater=world.rater(), consent=Consent("v7", scope), key=b"k" * 32
        )
        store.add_page(page, rows)
    found = [(r.consent_version, r.consent_scope) for r in store.ratings()][::5]
    assert found == [("v7", "personal_only"), ("v7", "aggregate"), ("v7", "publish_row")]


# --- Rows without pages, and what is remembered of remotes -----------------------------------


def test_rows_without_a_page_are_kept_once_however_often_they_are_sent(world, store):
    rows = [world.rating() for _ in range(3)]
    assert store.add_rows(rows[:2]) == 2
    assert store.add_rows(rows) == 1
    assert store.add_rows([]) == 0
    assert tuple(store.ratings()) == tuple(rows)


def test_rows_dated_ahead_of_the_clock_are_refused_unless_by_little(world, store, clock):
    for minutes, seconds in ((5, 0), (-5, 0)):
        at = clock.now + timedelta(minutes=minutes, seconds=seconds)
        store.add_rows(world.rows(world.page(), answered_at=at))
    assert store.stats().rows == 10
    late = clock.now + timedelta(minutes=5, seconds=1)
    page = world.page(expires_at=late + timedelta(hours=1))
    rows = world.rows(page, answered_at=late)
    with pytest.raises(InvalidRatingError, match="`created_at` must be at most 5 minutes ahead"):
        store.add_rows(rows)
    with pytest.raises(InvalidRatingError, match="Nothing was stored"):
        store.add_page(page, rows)
    assert store.stats().rows == 10


def test_rows_removed_during_a_scrub_are_scrubbed_by_the_next(world, store, path, monkeypatch):
    first, second = world.rater(), world.rater()
    for rater in (first, second):
        answer_page(world, store, rater)
    store.remove_raters([first.rater_id])
    scrub = store.database.scrub
    monkeypatch.setattr(
        store.database, "scrub", lambda: scrub() or store.remove_raters([second.rater_id])
    )
    store.scrub()
    monkeypatch.undo()
    assert second.rater_id.encode() in bytes_of(path.parent)
    store.scrub()
    assert second.rater_id.encode() not in bytes_of(path.parent)


def test_an_undone_row_is_passed_over_and_an_erased_rater_s_refused(world, store):
    rows = [world.rating() for _ in range(3)]
    store.add_rows(rows)
    store.undo([rows[0].rating_id], rater_id=rows[0].rater_id)
    assert store.add_rows(rows) == 0
    erase(store, rows[1].rater_id)
    with pytest.raises(ErasedRaterError):
        store.add_rows([world.rating(), rows[1]])
    assert tuple(store.ratings()) == (rows[2],)


def test_one_bad_page_among_many_threads_fails_alone(world, store):
    bad = answer_page(world, store)
    good = [world.page() for _ in range(8)]
    work = [(page, world.rows(page)) for page in good] + [bad]
    barrier, failed = threading.Barrier(len(work)), []

    def send(page, rows):
        barrier.wait()
        try:
            store.add_page(page, rows)
        except UsedPageError:
            failed.append(page)

    threads = [threading.Thread(target=send, args=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [bad[0]]
    assert store.stats().pages == 9


def test_of_a_batch_with_a_bad_page_the_others_are_kept(world, store):
    page, rows = answer_page(world, store)
    other = world.page()
    pages = [
        PageRows(digest_of(p.page_id), to_ms(p.expires_at), r)
        for p, r in ((page, rows), (other, world.rows(other)))
    ]
    errors = store._write_pages(pages)
    assert [type(error) for error in errors] == [UsedPageError, type(None)]
    assert store.stats().rows == 10


def test_a_store_has_one_random_name(path, tmp_path):
    with RatingStore(path) as store, RatingStore(tmp_path / "other.sqlite3") as other:
        name = store.instance_id
        assert name != other.instance_id
        assert not store.is_remote_known("any")
    with RatingStore(path) as store:
        assert store.instance_id == name


def test_the_log_is_moved_into_the_file_as_pages_come(world, store, path):
    for _ in range(251):
        answer_page(world, store)
    size = path.stat().st_size
    assert size > 600_000


def test_tidying_never_fails_an_answer(world, store):
    with store.database._tidying:
        store.database.tidy()
    store.database._tidier = sqlite3.connect(":memory:")
    store.database._tidier.close()
    store.database.tidy()
    answer_page(world, store)


def test_a_store_of_the_first_version_is_brought_up_to_date_with_its_rows(world, path):
    with RatingStore(path) as store:
        _, rows = answer_page(world, store)
    path.unlink()
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO event (rating_id, rater_id, page_id, body, created, state)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (r.rating_id, r.rater_id, r.page_id, r.as_json(), to_ms(r.created_at), state)
            for r, state in zip(rows, ["new"] * 3 + ["in_remote"] * 2, strict=True)
        ],
    )
    connection.execute("INSERT INTO tombstone VALUES ('rater', 'x', 1, NULL)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    with RatingStore(path) as store:
        assert tuple(store.ratings()) == rows
        assert store.stats() == StoreStats(5, 1, 1, outbox_rows=3, tombstones=1)
        with store.database.reading() as c:
            assert dict(c.execute("SELECT * FROM tally").fetchall()) == {"new": 3, "in_remote": 2}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.sampled_from(["add", "undo", "erase", "move"]), max_size=12))
def test_the_counts_kept_beside_the_rows_agree_with_them(world, tmp_path_factory, steps):
    with RatingStore(tmp_path_factory.mktemp("s") / "r.sqlite3", clock=lambda: world.now) as store:
        for step in steps:
            rows = list(store.ratings())
            if step == "add":
                store.add_rows([world.rating(), *rows[:1]])
            elif step == "move":
                with store.database.transaction() as c:
                    c.execute("UPDATE event SET state = 'in_remote' WHERE seq % 2 = 0")
            elif rows and step == "undo":
                store.undo([rows[0].rating_id], rater_id=rows[0].rater_id)
            elif rows:
                erase(store, rows[-1].rater_id)
        with store.database.reading() as c:
            counted = dict(c.execute("SELECT state, count(*) FROM event GROUP BY state").fetchall())
            kept = dict(c.execute("SELECT * FROM tally").fetchall())
    assert kept == {"new": 0, "in_remote": 0} | counted
