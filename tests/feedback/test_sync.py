import contextlib
import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback.errors import RemoteBusyError, RemoteRefusedError, StaleSnapshotError, StoreError
from feedback.remote.base import NullRemote
from feedback.remote.hub import too_large
from feedback.sync import memory, outbox
from feedback.sync.compaction import CompactionSettings
from feedback.sync.layout import shards_in, tombstone_files_in
from feedback.sync.loop import Sync
from feedback.sync.rhythm import SyncSettings
from tests.feedback.memory_remote import MemoryRemote
from tests.feedback.replicas import Clock, Replica, ids, raw_ids


@pytest.fixture
def remote():
    return MemoryRemote()


@pytest.fixture
def clock(world):
    return Clock(world.now)


@pytest.fixture
def make(world, tmp_path, remote, clock):
    """Return a maker of replicas, by folder name."""
    made = []

    def replica(name="a", there=remote, **options):
        made.append(Replica(world, tmp_path / name, there, clock, **options))
        return made[-1]

    yield replica
    for each in made:
        each.sync.stop(flush_seconds=0)
        each.store.close()


# --- Carrying --------------------------------------------------------------------------------


def test_a_round_carries_what_waits_and_says_so(make, remote, clock):
    a = make()
    rows = a.answer(n_pages=3)
    clock.now += timedelta(seconds=42)
    before = a.sync.health()
    assert (before.outbox_rows, before.in_remote_rows) == (15, 0)
    assert before.sync_lag_seconds == pytest.approx(42.0, abs=0.01)
    assert before.last_success is None
    after = a.sync.tick()
    assert (after.outbox_rows, after.in_remote_rows, after.sync_lag_seconds) == (0, 15, 0)
    assert (after.last_success, after.last_error) == (clock.now, None)
    assert raw_ids(remote) == ids(rows)
    assert a.store.stats().outbox_rows == 0


def test_the_first_commit_brings_the_card_and_the_paths_name_month_and_store(make, remote):
    a = make()
    a.answer()
    a.sync.tick()
    card, (shard,) = remote.files["README.md"], shards_in(remote.files)
    assert b"anna/ratings" in card
    assert shard.startswith(f"data/ratings/ym=2026-11/{a.store.instance_id}-")
    remote.put(**{"README.md": b"our own words"})
    a.answer()
    a.sync.tick()
    assert remote.files["README.md"] == b"our own words"


def test_rows_of_two_months_lie_in_two_shards(make, remote, clock):
    a = make()
    clock.now = datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
    old = a.answer()
    clock.now += timedelta(milliseconds=1)
    new = a.answer()
    a.sync.tick()
    found = {path.split("/")[2] for path in shards_in(remote.files)}
    assert found == {"ym=2026-12", "ym=2027-01"}
    assert raw_ids(remote) == ids(old + new)


def test_a_clean_store_asks_for_no_commit(make, remote):
    a = make()
    a.sync.tick()
    a.sync.tick()
    assert "commit" not in remote.calls


def test_shards_are_cut_at_their_largest_size(make, remote):
    a = make(settings=SyncSettings(max_shard_rows=7))
    rows = a.answer(n_pages=3)
    a.sync.tick()
    assert len(shards_in(remote.files)) == 3
    assert raw_ids(remote) == ids(rows)


def test_offline_is_no_error_and_all_rows_stay(make):
    a = make(there=NullRemote())
    rows = a.answer()
    a.sync.start()
    for health in (a.sync.tick(), a.sync.flush(), a.sync.stop()):
        assert (health.keeps, health.outbox_rows, health.last_error) == (False, 5, None)
    assert (a.sync.restore(), a.sync.compact()) == (0, None)
    assert ids(a.store.ratings()) == ids(rows)
    assert health.sentence() == "5 ratings are kept on this disk only."


def test_rows_that_break_a_rule_are_named_and_hold_back_no_other(make, remote):
    a = make()
    rows = a.answer()
    connection = sqlite3.connect(a.store.path)
    connection.execute("UPDATE event SET body = '{' WHERE seq = 2")
    connection.commit()
    connection.close()
    health = a.sync.tick()
    assert raw_ids(remote) == ids(rows[:1] + rows[2:])
    assert (health.outbox_rows, health.unreadable_rows) == (1, 1)
    assert "validate" in health.sentence()
    n_calls = len(remote.messages)
    a.sync.tick()
    assert len(remote.messages) == n_calls


# --- When the remote fails --------------------------------------------------------------------


def test_an_uncertain_commit_that_got_in_is_found_and_not_repeated(make, remote):
    a = make()
    rows = a.answer()
    remote.faults = [("commit", "uncertain")]
    health = a.sync.tick()
    assert health.outbox_rows == 5
    assert health.last_error == "uncertain"
    assert a.sync.tick().outbox_rows == 0
    assert raw_ids(remote) == ids(rows)
    assert remote.calls.count("commit") == 1


def test_an_uncertain_commit_that_did_not_get_in_goes_again_under_the_same_path(make, remote):
    a = make()
    rows = a.answer()
    remote.faults = [("commit", "lost")]
    a.sync.tick()
    (path,) = a.sync._carrier.outbox.shards()
    more = a.answer()
    a.sync.tick()
    assert path in remote.files
    assert raw_ids(remote) == ids(rows + more)


def test_after_a_crash_between_commit_and_marking_nothing_is_twice(make, remote, monkeypatch):
    a = make()
    rows = a.answer()
    monkeypatch.setattr(a.sync._carrier.outbox, "settle", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        a.sync.tick()
    a.restart()
    assert a.sync.tick().outbox_rows == 0
    assert raw_ids(remote) == ids(rows)


def test_others_commits_in_between_are_no_failure(make, remote):
    a, b = make("a"), make("b")
    rows = a.answer() + b.answer()
    remote.faults = [("commit", b.sync.tick)]
    assert a.sync.tick().last_error is None
    assert raw_ids(remote) == ids(rows)


def test_endless_changes_by_others_end_the_round_after_six_tries(make, remote, clock):
    a = make()
    a.answer()
    remote.faults = [("commit", "stale")] * 7
    assert a.sync.tick().last_error == "moved"
    assert remote.calls.count("commit") == 6
    assert len(clock.slept) == 5
    assert clock.slept == sorted(clock.slept)
    remote.faults = []
    assert a.sync.tick().outbox_rows == 0


def test_a_refusal_is_said_and_keeps_every_row(make, remote):
    a = make()
    a.answer()
    remote.faults = [("snapshot", "refused")]
    health = a.sync.tick()
    assert health.outbox_rows == 5
    assert health.last_error.startswith("The token must be allowed to write")
    assert health.retry_at == a.clock.now + timedelta(hours=1.1)
    assert "The token must" in health.sentence()
    assert a.sync.tick().last_error is None


def test_flush_tries_again_as_long_as_the_remote_is_busy_and_honours_its_wish(make, remote, clock):
    a = make()
    a.answer()
    remote.retry_after = 7.0
    remote.faults = [("snapshot", "busy"), ("snapshot", "busy"), ("commit", "uncertain")]
    assert a.sync.flush().outbox_rows == 0
    assert clock.slept == [7.0, 14.0, 28.0]


def test_flush_raises_what_waiting_does_not_cure(make, remote, clock):
    a = make()
    a.answer()
    remote.faults = [("snapshot", "refused")]
    with pytest.raises(RemoteRefusedError):
        a.sync.flush()
    remote.faults = [("snapshot", "busy")] * 100
    with pytest.raises(RemoteBusyError):
        a.sync.flush(seconds=20)
    assert sum(clock.slept) <= 20
    assert a.store.stats().outbox_rows == 5


def test_a_commit_that_is_not_listed_is_not_taken_for_kept(make, remote, monkeypatch):
    a = make()
    a.answer()
    monkeypatch.setattr(remote, "commit", lambda snapshot, **_: snapshot)
    health = a.sync.tick()
    assert "sent again" in health.last_error
    assert health.outbox_rows == 5


def test_a_store_that_breaks_while_running_is_said(make):
    a = make()
    a.answer()
    a.sync.health()
    with a.store.database.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA shrink_memory")
    with a.store.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (a.store.path.stat().st_size - 4096))
    health = a.sync.tick()
    assert "got a damaged one" in health.last_error
    assert "got a damaged one" in a.sync.health().last_error


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["snapshot", "commit", "read"]),
            st.sampled_from(["busy", "stale", "uncertain", "lost"]),
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from(["answer", "tick", "restart", "compact"]), min_size=1, max_size=8),
)
def test_whatever_fails_each_rating_is_kept_exactly_once(
    world, clock, tmp_path_factory, faults, steps
):
    remote = MemoryRemote()
    a = Replica(world, tmp_path_factory.mktemp("a"), remote, clock)
    b = Replica(world, tmp_path_factory.mktemp("b"), remote, clock)
    remote.faults = faults
    for number, step in enumerate(steps):
        replica = (a, b)[number % 2]
        if step == "answer":
            replica.answer()
        elif step == "restart":
            replica.store.close()
            replica.restart()
        elif step == "tick":
            replica.sync.tick()
        else:
            try_to(replica.sync.compact)
    remote.faults = []
    for replica in (a, b):
        assert replica.sync.tick().last_error is None
        assert replica.sync.health().outbox_rows == 0
        replica.store.close()
    assert raw_ids(remote) == ids(a.answered + b.answered)


def try_to(action):
    """Do an action that may fail for the remote's reasons."""
    with contextlib.suppress(OSError):
        action()


def test_an_erasure_the_remote_refuses_holds_back_no_row(make, world, remote):
    a = make()
    rater = world.rater()
    a.answer(rater)
    a.answer()
    a.sync.tick()
    remote.faults = [("purge", "refused")] * 3
    receipt = a.sync.erase([rater.rater_id])
    rows = a.answer()
    health = a.sync.tick()
    assert (health.outbox_rows, health.pending_erasures) == (0, 1)
    assert "The token must" in health.last_error
    assert set(ids(rows)) <= set(raw_ids(remote))
    remote.faults = []
    assert a.sync.tick().last_error is None
    assert a.sync.receipt(receipt.number).is_done


@pytest.mark.parametrize("error", ["unserved", "too large"])
def test_a_listed_file_that_is_not_served_is_named_and_holds_back_nothing(
    make, world, remote, monkeypatch, error
):
    a, b = make("a"), make("b")
    a.answer()
    a.sync.tick()
    (path,) = shards_in(remote.files)
    read = remote.read

    def refuse(snapshot, wanted):
        if wanted == path:
            raise StaleSnapshotError("gone") if error == "unserved" else too_large(path)
        return read(snapshot, wanted)

    monkeypatch.setattr(remote, "read", refuse)
    rater = world.rater()
    b.answer(rater)
    kept = b.answer()
    health = b.sync.tick()
    assert (health.outbox_rows, health.last_error, health.restored_rows) == (0, None, 0)
    assert health.foreign_shards == (path,)
    receipt = b.sync.erase([rater.rater_id])
    assert (receipt.is_done, receipt.unreadable_shards) == (True, 1)
    b.sync.compact()
    assert path in remote.files
    monkeypatch.undo()
    b.restart()
    assert b.sync.tick().restored_rows == 5
    assert b.sync.health().foreign_shards == ()
    assert raw_ids(remote) == ids(a.answered + list(kept))


def test_answers_that_keep_coming_do_not_keep_the_rest_of_a_round_away(make, remote):
    a = make()
    a.answer()
    remote.faults = [("commit", a.answer), ("commit", "pass")] * 20
    health = a.sync.tick()
    assert (health.outbox_rows, health.in_remote_rows, health.last_error) == (5, 5, None)


def test_rows_of_a_year_of_three_digits_have_a_path_as_all_others(make, world, remote):
    a = make()
    rows = world.rows(world.page(), answered_at=datetime(999, 5, 1, tzinfo=UTC))
    a.store.add_rows(rows)
    a.sync.tick()
    (path,) = shards_in(remote.files)
    assert "/ym=0999-05/" in path
    assert raw_ids(remote) == ids(rows)


# --- Coming back ------------------------------------------------------------------------------


def test_an_empty_disk_gets_back_all_that_was_in_the_remote(make):
    a = make("a")
    rows = a.answer(n_pages=4)
    a.sync.tick()
    lost = a.answer()
    b = make("b")
    health = b.sync.tick()
    assert ids(b.store.ratings()) == ids(rows)
    assert not set(ids(lost)) & set(ids(b.store.ratings()))
    assert (health.restored_rows, health.in_remote_rows, health.outbox_rows) == (20, 20, 0)
    assert tuple(b.store.ratings()) == rows


def test_a_disk_that_has_its_rows_reads_nothing_again(make, remote):
    a, b = make("a"), make("b")
    a.answer()
    b.answer()
    a.sync.tick()
    b.sync.tick()
    remote.calls.clear()
    b.restart()
    b.sync.tick()
    assert "read" not in remote.calls
    assert b.store.stats().rows == 10


def test_files_that_are_gone_are_not_remembered(make, remote):
    a = make()
    for _ in range(3):
        a.answer()
        a.sync.tick()
    a.sync.compact()
    a.sync.restore()
    with a.store.database.reading() as connection:
        seen = [path for (path,) in connection.execute("SELECT path FROM seen")]
    assert seen == shards_in(remote.files)


def test_rows_that_another_disk_carried_are_not_carried_again(make, remote, tmp_path):
    a = make("a")
    rows = a.answer()
    a.store.close()
    copied = make("b")
    copied.store.close()
    for name in ("ratings.sqlite3", "ratings.sqlite3-wal", "ratings.sqlite3-shm"):
        source = tmp_path / "a" / name
        if source.exists():
            (tmp_path / "b" / name).write_bytes(source.read_bytes())
    copied.restart()
    a.restart()
    a.sync.tick()
    assert copied.sync.tick().outbox_rows == 0
    assert raw_ids(remote) == ids(rows)


@pytest.mark.parametrize("data", [b"PAR1 damaged PAR1", b"", b"a,b\n1,2\n"])
def test_a_file_that_cannot_be_read_is_listed_and_left_as_it_is(make, remote, data):
    path = "data/ratings/ym=2026-10/x.parquet"
    remote.put(**{path: data, "tombstones/x.json": b"{", "notes.txt": b"hello"})
    a = make()
    rows = a.answer()
    health = a.sync.tick()
    assert health.foreign_shards == (path, "tombstones/x.json")
    assert "2 files there cannot be read" in health.sentence()
    a.answer()
    a.sync.tick()
    a.sync.compact()
    assert (remote.files[path], remote.files["tombstones/x.json"]) == (data, b"{")
    assert remote.files["notes.txt"] == b"hello"
    assert set(ids(rows)) <= set(ids(a.rows_there()))


def test_another_remote_gets_all_rows_and_the_first_one_none_twice(make, remote):
    a = make()
    rows = a.answer()
    a.sync.tick()
    other = MemoryRemote()
    other.name = "the private dataset anna/other"
    assert a.store.is_remote_known(remote.name)
    assert not a.store.is_remote_known(other.name)
    a.remote = other
    a.restart()
    assert a.sync.tick().outbox_rows == 0
    assert raw_ids(other) == ids(rows)
    a.remote = remote
    a.restart()
    assert a.sync.tick().outbox_rows == 0
    assert raw_ids(remote) == ids(rows)


def test_two_programs_that_carry_one_store_to_two_remotes_lose_and_double_nothing(
    make, remote, monkeypatch
):
    a = make()
    rows = a.answer()
    a.sync.tick()
    other = MemoryRemote()
    other.name = "the private dataset anna/other"
    second = Sync(a.store, other, monotonic=a.clock.monotonic, sleep=a.clock.sleep)
    rows += a.answer()
    # The other program comes between the commit and its noting.
    settle = a.sync._carrier.outbox.settle
    monkeypatch.setattr(
        a.sync._carrier.outbox, "settle", lambda *args: second.tick() and settle(*args)
    )
    assert "one remote at a time" in a.sync.tick().last_error
    monkeypatch.undo()
    for sync in (second, a.sync, second):
        assert sync.flush().outbox_rows == 0
    assert raw_ids(remote) == raw_ids(other) == ids(rows)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_remote_that_was_emptied_gets_every_row_again_but_the_erased(
    make, world, remote, is_restarted
):
    a, b = make("a"), make("b")
    rater = world.rater()
    gone = a.answer(rater)
    rows = a.answer(n_pages=2)
    a.sync.tick()
    b.sync.tick()
    a.sync.erase([rater.rater_id])
    a.store.undo([rows[0].rating_id], rater_id=rows[0].rater_id)
    a.sync.tick()
    remote.revisions, remote.head = {"": {}}, ""
    if is_restarted:
        a.restart()
    health = a.sync.tick()
    assert (health.outbox_rows, health.in_remote_rows) == (0, 9)
    assert raw_ids(remote) == ids(rows[1:])
    # Who did not know of the erasure learns of it before sending anything again.
    assert b.sync.tick().last_error is None
    assert raw_ids(remote) == ids(rows[1:])
    assert len(tombstone_files_in(remote.files)) == 1
    assert not set(ids(gone)) & set(ids(b.store.ratings()))
    for _ in range(2):
        remote.calls.clear()
        a.sync.tick()
        b.sync.tick()
    assert "read" not in remote.calls


def test_files_that_left_by_an_erasure_or_a_compaction_are_no_loss(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    b.answer(n_pages=2)
    b.sync.tick()
    a.answer()
    a.sync.tick()
    b.sync.tick()
    a.sync.erase([rater.rater_id])
    a.sync.compact()
    n_commits = len(remote.messages)
    assert b.sync.tick().last_error is None
    assert len(remote.messages) == n_commits
    assert raw_ids(remote) == ids(b.answered + a.answered[5:])


def test_shards_that_a_compaction_took_up_are_not_read_to_find_losses(make, remote, clock):
    rarely = SyncSettings(compaction=CompactionSettings(every_seconds=1e9))
    a, b = make("a", settings=rarely), make("b", settings=rarely)
    for n_days in (0, 0, 15):
        clock.now += timedelta(days=n_days)
        a.answer()
        a.sync.tick()
    b.sync.tick()
    a.sync.compact()
    assert len(shards_in(remote.files)) == 2
    remote.calls.clear()
    b.sync.tick()
    # The list of what was taken up.
    assert remote.calls.count("read") == 1


def test_after_a_long_absence_a_missing_row_is_not_taken_for_lost(make, world, remote, clock):
    a, b = make("a"), make("b")
    rater = world.rater()
    # In a shard of its own, which the erasure deletes.
    a.answer(rater)
    a.sync.tick()
    kept = a.answer()
    a.sync.tick()
    b.sync.tick()
    b.store.close()
    a.sync.erase([rater.rater_id])
    clock.now += timedelta(days=31)
    a.answer()
    a.sync.tick()
    clock.now += timedelta(days=31)
    a.answer()
    a.sync.tick()
    assert tombstone_files_in(remote.files) == []
    b.restart()
    # Even if the first look is cut short.
    remote.faults = [("read", "busy")]
    b.sync.tick()
    assert b.sync.tick().outbox_rows == 0
    assert raw_ids(remote) == ids([*kept, *a.answered[10:]])


def test_an_erasure_while_rows_come_back_wins(make, world, remote, monkeypatch):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    erasing = threading.Thread(target=lambda: b.sync.erase_locally([rater.rater_id]))
    real = outbox.Graves

    def graves(tombstones):
        found = real(tombstones)
        if erasing.ident is None:
            erasing.start()
            # It waits for the transaction in which the tombstones were read.
            erasing.join(0.2)
        return found

    monkeypatch.setattr(outbox, "Graves", graves)
    b.sync.tick()
    erasing.join(30)
    assert list(b.store.ratings()) == []
    b.sync.tick()
    assert raw_ids(remote) == []


# --- The thread -------------------------------------------------------------------------------


def waiting_sync(make, remote, **changes):
    """Return a replica whose thread has done its first round, and an event for each next one."""
    a = make()
    done = threading.Semaphore(0)
    a.sync = Sync(a.store, remote, settings=SyncSettings(**changes), uniform=lambda: 0.0)
    tick = a.sync.tick

    def counted():
        try:
            return tick()
        finally:
            done.release()

    a.sync.tick = counted
    a.sync.start()
    assert done.acquire(timeout=30)
    return a, done


def test_the_thread_restores_and_then_carries_when_woken(make, remote):
    a, done = waiting_sync(make, remote, floor_seconds=0.0)
    a.answer()
    a.sync.wake()
    assert done.acquire(timeout=30)
    assert a.sync.health().outbox_rows == 0
    assert a.sync.health().restored_rows == 0
    a.sync.stop()
    a.sync._thread.join(30)
    assert not a.sync._thread.is_alive()


def test_a_bug_in_a_round_is_told_without_its_words_and_does_not_end_the_thread(make, remote):
    a, done = waiting_sync(make, remote, floor_seconds=0.0, backoff_seconds=0.0)
    a.answer()
    remote.faults = [("snapshot", lambda: {}["secret"])]
    a.sync.wake()
    assert done.acquire(timeout=30)
    a.sync.wake()
    assert done.acquire(timeout=30)
    assert a.sync.health().outbox_rows == 0
    a.sync._failed(KeyError("secret"))
    assert "KeyError" in a.sync.health().last_error
    assert "secret" not in a.sync.health().last_error
    a.sync.stop()
    a.sync._thread.join(30)


def test_stopping_carries_what_waits_and_starting_twice_starts_once(make, remote):
    a, _ = waiting_sync(make, remote)
    thread = a.sync._thread
    a.sync.start()
    assert a.sync._thread is thread
    a.answer()
    health = a.sync.stop()
    thread.join(30)
    assert health.outbox_rows == 0
    assert not thread.is_alive()


def test_stopping_carries_what_waits_though_the_thread_hangs_in_the_remote(make, remote):
    a, _ = waiting_sync(make, remote, floor_seconds=0.0)
    hangs, release = threading.Event(), threading.Event()

    def hang():
        hangs.set()
        release.wait(30)

    rows = a.answer()
    remote.faults = [("snapshot", hang)]
    a.sync.wake()
    assert hangs.wait(30)
    health = a.sync.stop(flush_seconds=0.05)
    assert (health.outbox_rows, health.last_error) == (0, None)
    assert raw_ids(remote) == ids(rows)
    release.set()
    a.sync._thread.join(30)
    assert raw_ids(remote) == ids(rows)


def test_stopping_carries_what_came_while_the_thread_brings_rows_back(make, remote):
    a, b = make("a"), make("b")
    a.answer()
    a.sync.tick()
    b.sync = Sync(b.store, remote)
    reached, release = threading.Event(), threading.Event()
    remote.faults = [("read", lambda: reached.set() or release.wait(30))]
    b.sync.start()
    assert reached.wait(30)
    b.answer()
    health = b.sync.stop(flush_seconds=0.05)
    assert health.outbox_rows == 0
    assert raw_ids(remote) == ids(a.answered + b.answered)
    release.set()
    b.sync._thread.join(30)
    assert ids(b.store.ratings()) == ids(a.answered + b.answered)


def test_stopping_ends_in_time_while_others_change_the_remote_all_the_time(make, remote):
    a = make()
    a.answer()
    remote.faults = [("commit", "stale")] * 60
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        time.sleep(seconds)

    health = Sync(a.store, remote, sleep=sleep, uniform=lambda: 0.5).stop(flush_seconds=0.5)
    assert sum(slept) <= 0.5
    assert (health.outbox_rows, health.last_error) == (5, "moved")


def test_stopping_says_what_could_not_be_carried(make, remote):
    a = make()
    a.answer()
    remote.faults = [("snapshot", "refused")]
    health = a.sync.stop()
    assert health.outbox_rows == 5
    assert "The token must" in health.last_error


def test_a_store_without_room_is_said_and_the_next_round_goes_on(make, remote):
    a = make()
    a.answer(n_pages=30)
    with a.store.database.reading() as connection:
        n_pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {n_pages}")
    with pytest.raises(StoreError, match="got it full"):
        a.answer(n_pages=100)
    a.sync.tick()
    with a.store.database.reading() as connection:
        connection.execute("PRAGMA max_page_count = 100000")
    health = a.sync.tick()
    assert (health.last_error, health.outbox_rows) == (None, 0)
    assert raw_ids(remote) == ids(a.answered)


def test_long_work_is_done_in_pieces_without_losing_any(make, remote, world, monkeypatch):
    monkeypatch.setattr(memory, "PIECE", 3)
    monkeypatch.setattr(memory, "_MANY", 7)
    a, b = make("a"), make("b")
    rater = world.rater()
    gone = a.answer(rater, n_pages=3)
    kept = a.answer(n_pages=5)
    a.sync.tick()
    assert raw_ids(remote) == ids(gone + kept)
    b.sync.tick()
    assert ids(b.store.ratings()) == ids(gone + kept)
    a.sync.erase([rater.rater_id])
    b.sync.tick()
    assert ids(b.store.ratings()) == raw_ids(remote) == ids(kept)


def test_a_store_that_cannot_be_read_holds_the_thread_s_rounds_back_only(make, monkeypatch):
    a = make()

    def broken():
        raise StoreError("The disk of x must have room, got it full.")

    a.sync.health()
    monkeypatch.setattr(a.sync._carrier.outbox, "counts", broken)
    assert a.sync._is_dirty() is False
    assert "got it full" in a.sync.health().last_error
