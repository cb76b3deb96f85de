import contextlib
import io
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from feedback.dataset.shard import shard_bytes
from feedback.errors import BusyStoreError
from feedback.remote.base import NullRemote
from feedback.store.tombstones import digest_of
from feedback.sync import memory
from feedback.sync.erasure import Receipt
from feedback.sync.layout import LEASE, shards_in, tombstone_files_in
from tests.feedback.memory_remote import MemoryRemote
from tests.feedback.replicas import Clock, Replica, bytes_of, erase, ids, raw_ids


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


def columns_of(data):
    """Return a file's readable content: the values of parquet, the bytes of all else."""
    return (
        str(pq.read_table(io.BytesIO(data)).to_pydict()).encode() if data[:4] == b"PAR1" else data
    )


def traces(remote, replicas, rater, rows):
    """Return where an id of a rater or of their rows is found."""
    texts = [rater.rater_id, *(row.rating_id for row in rows), *(row.page_id for row in rows)]
    places = {"remote": b"".join(map(columns_of, remote.every_byte()))}
    places |= {r.folder.name: bytes_of(r.folder) for r in replicas}
    return {name for name, data in places.items() if any(t.encode() in data for t in texts)}


def test_an_erased_rater_is_in_no_file_no_revision_and_no_store(make, world, remote, clock):
    a, b = make("a"), make("b")
    rater = world.rater()
    gone = a.answer(rater, n_pages=3) + b.answer(rater)
    kept = a.answer() + b.answer()
    a.sync.tick()
    b.sync.tick()
    assert traces(remote, [a, b], rater, gone) == {"remote", "a", "b"}
    receipt = a.sync.erase([rater.rater_id])
    assert traces(remote, [a], rater, gone) == set()
    b.sync.tick()
    assert traces(remote, [a, b], rater, gone) == set()
    assert raw_ids(remote) == ids(kept)
    assert receipt == Receipt(
        receipt.number,
        clock.now.replace(microsecond=0),
        clock.now.replace(microsecond=0),
        None,
        remote.name,
        rows_local=15,
        rows_remote=20,
        shards=2,
        revisions=receipt.revisions,
        blobs=receipt.blobs,
    )
    assert receipt.revisions >= 3
    assert receipt.is_done
    assert "15 ratings were erased here and 20 in the private dataset" in receipt.sentence()
    assert a.sync.health().pending_erasures == 0


def test_only_files_with_the_rater_s_rows_change(make, world, remote):
    a, b, c = make("a"), make("b"), make("c")
    rater = world.rater()
    a.answer(rater)
    a.answer()
    a.sync.tick()
    b.answer()
    b.sync.tick()
    c.answer(rater)
    c.sync.tick()
    before = dict(remote.files)
    a.sync.erase([rater.rater_id])
    mixed, others, only = (
        next(path for path in before if f"/{r.store.instance_id}-" in path) for r in (a, b, c)
    )
    assert remote.files[others] == before[others]
    assert remote.files[mixed] != before[mixed]
    assert only not in remote.files


def test_rows_that_arrive_after_the_purge_are_removed_too(make, world, remote, monkeypatch):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    late = b.answer(rater)
    purge, path = remote.purge, "data/ratings/ym=2026-11/late.parquet"

    def purge_and_arrive(snapshot, **options):
        done = purge(snapshot, **options)
        monkeypatch.undo()
        remote.put(**{path: shard_bytes(late)})
        return done

    monkeypatch.setattr(remote, "purge", purge_and_arrive)
    assert a.sync.erase([rater.rater_id]).is_done
    assert raw_ids(remote) == []
    assert traces(remote, [a], rater, late) == set()


def test_rows_elsewhere_in_the_remote_are_removed_too(make, world, remote):
    a = make()
    rater = world.rater()
    gone = a.answer(rater)
    kept = a.answer()
    a.sync.tick()
    for path in ("data/ratings/old.parquet", "backup/november/a.parquet"):
        remote.put(**{path: shard_bytes([*gone, *kept])})
    remote.put(**{"backup/photos.parquet": b"not ours"})
    receipt = a.sync.erase([rater.rater_id])
    assert (receipt.rows_remote, receipt.shards, receipt.unreadable_shards) == (15, 3, 1)
    assert traces(remote, [a], rater, gone) == set()
    assert remote.files["backup/photos.parquet"] == b"not ours"


def test_rows_dated_ahead_of_this_clock_do_not_survive(make, world, remote, clock):
    a, b = make("a"), make("b")
    rater = world.rater()
    late = world.rows(world.page(), rater, answered_at=clock.now + timedelta(minutes=4))
    a.store.add_rows(late)
    a.sync.tick()
    b.sync.tick()
    assert a.sync.erase([rater.rater_id]).rows_remote == 5
    b.sync.tick()
    assert traces(remote, [a, b], rater, late) == set()


def test_an_erasure_asked_for_while_another_is_finished_gets_its_own_end(make, world, remote):
    a = make()
    first, second = world.rater(), world.rater()
    a.answer(first)
    rows = a.answer(second)
    a.sync.tick()
    later = []
    ask = lambda: later.append(a.sync.erase_locally([second.rater_id]))  # noqa: E731
    remote.faults = [("purge", ask)]
    assert a.sync.erase([first.rater_id]).is_done
    assert a.sync.tick().pending_erasures == 0
    assert a.sync.receipt(later[0].number).is_done
    assert traces(remote, [a], second, rows) == set()


def test_who_asks_twice_gets_two_receipts_that_both_end(make, world, clock):
    a = make()
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    receipts = []
    for _ in range(3):
        receipts.append(a.sync.erase_locally([rater.rater_id]))
        clock.now += timedelta(minutes=1)
    a.sync.tick()
    assert [a.sync.receipt(r.number).is_done for r in receipts] == [True] * 3
    assert [a.sync.receipt(r.number).rows_remote for r in receipts] == [5] * 3
    clock.now += timedelta(minutes=1)
    again = a.sync.erase([rater.rater_id])
    assert again.is_done
    assert a.sync.receipt(receipts[0].number).finished < again.finished


def test_a_receipt_does_not_end_while_the_remote_with_the_rows_is_not_attached(make, world, remote):
    a = make()
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    a.store.close()
    a.remote = NullRemote()
    a.restart()
    receipt = a.sync.erase([rater.rater_id])
    assert (receipt.is_done, receipt.due, receipt.remote) == (False, None, remote.name)
    assert "The private dataset anna/ratings has its copy still" in receipt.sentence()
    assert Receipt.from_json(receipt.as_json()) == receipt
    assert traces(remote, [a], rater, rows) == {"remote"}
    a.store.close()
    a.remote = remote
    a.restart()
    a.sync.tick()
    assert a.sync.receipt(receipt.number).is_done
    assert traces(remote, [a], rater, rows) == set()


def test_contents_that_a_failed_commit_left_are_removed_with_the_rows(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer()
    a.sync.tick()
    b.answer(rater)
    # Sent and not committed: no file names it, and only this replica knows.
    remote.faults = [("commit", "lost")]
    b.sync.tick()
    a.sync.erase([rater.rater_id])
    remote.calls.clear()
    remote.faults = [("purge", "busy")]
    assert b.sync.tick().last_error is not None
    b.restart()
    assert b.sync.tick().last_error is None
    assert remote.calls.count("purge") == 2
    b.sync.tick()
    assert remote.calls.count("purge") == 2


def test_traces_another_process_holds_back_go_later_and_hold_back_nothing(make, world, remote):
    a = make()
    rater = world.rater()
    gone = a.answer(rater)
    a.sync.tick()
    reader = sqlite3.connect(a.store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM event").fetchone()
    a.store.database._connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(BusyStoreError):
        a.sync.erase([rater.rater_id])
    kept = a.answer()
    health = a.sync.tick()
    assert (health.outbox_rows, health.pending_erasures) == (0, 0)
    assert "must not be read by another process" in health.last_error
    assert "a" in traces(remote, [a], rater, gone)
    reader.close()
    assert a.sync.tick().last_error is None
    assert traces(remote, [a], rater, gone) == set()
    assert raw_ids(remote) == ids(kept)


ERASING = """
import json, os, sys
from feedback import RatingStore, parse_ratings
store = RatingStore(sys.argv[1])
store.add_rows(parse_ratings(map(json.loads, sys.stdin)))
store.remove_raters([sys.argv[2]])
os._exit(9)
"""


@pytest.mark.parametrize("is_offline", [False, True])
def test_a_process_that_dies_between_removing_and_scrubbing_is_finished_by_the_next(
    make, world, remote, is_offline
):
    a = make(there=NullRemote() if is_offline else remote)
    rater = world.rater()
    rows = world.rows(world.page(), rater)
    a.store.close()
    # Written in the same life of the write-ahead log, as in a running app.
    done = subprocess.run(
        [sys.executable, "-c", ERASING, str(a.store.path), rater.rater_id],
        check=False,
        input="\n".join(row.as_json() for row in rows),
        text=True,
    )
    assert done.returncode == 9
    assert traces(remote, [a], rater, rows) == {"a"}
    a.restart()
    if is_offline:
        a.sync.start()
    else:
        assert a.sync.tick().last_error is None
    assert traces(remote, [a], rater, rows) == set()


def test_an_erasure_without_a_receipt_reaches_the_remote_too(make, world, remote):
    a = make()
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    erase(a.store, rater.rater_id)
    assert a.sync.health().pending_erasures == 1
    assert a.sync.tick().pending_erasures == 0
    assert traces(remote, [a], rater, rows) == set()


def test_a_lagging_replica_brings_nothing_back(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    lagging = b.answer(rater, n_pages=2)
    kept = b.answer()
    remote.faults = [("commit", "uncertain")]
    b.sync.tick()
    a.sync.erase([rater.rater_id])
    assert b.sync.tick().last_error is None
    assert raw_ids(remote) == ids(kept)
    assert ids(b.store.ratings()) == ids(kept)
    assert traces(remote, [a, b], rater, lagging) == set()


def test_an_erasure_during_another_replica_s_upload_wins(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    b.answer(rater)
    kept = b.answer()
    remote.faults = [("commit", lambda: a.sync.erase([rater.rater_id]))]
    b.sync.tick()
    assert raw_ids(remote) == ids(kept)
    assert traces(remote, [a, b], rater, b.answered[:5]) == set()


def test_rows_that_arrive_during_the_purge_are_removed_too(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    late = b.answer(rater)

    def arrive():
        remote.put(**{"data/ratings/ym=2026-11/late.parquet": shard_bytes(late)})

    remote.faults = [("purge", arrive)]
    assert a.sync.erase([rater.rater_id]).is_done
    assert raw_ids(remote) == []
    assert traces(remote, [a], rater, late) == set()


class Crash(BaseException):
    """The end of the process."""


def crash():
    raise Crash


FAILURES = [
    (c, k) for c in ("snapshot", "read", "commit", "purge") for k in ("busy", "refused", crash)
]
FAILURES += [("commit", "uncertain"), ("commit", "lost")]


@pytest.mark.parametrize(("call", "kind"), FAILURES)
@pytest.mark.parametrize("n_passed", [0, 1])
def test_an_erasure_cut_short_anywhere_goes_on_in_the_next_round(
    make, world, remote, call, kind, n_passed
):
    a = make()
    rater = world.rater()
    gone = a.answer(rater)
    a.sync.tick()
    kept = a.answer()
    a.sync.tick()
    remote.faults = [(call, "pass")] * n_passed + [(call, kind)]
    with contextlib.suppress(Crash):
        a.sync.erase([rater.rater_id])
    was_struck = not remote.faults
    (number,) = receipts(a)
    remote.faults = []
    assert not set(ids(gone)) & set(ids(a.store.ratings()))
    pending = a.sync.receipt(number)
    if was_struck:
        assert pending.is_done is False
        assert pending.due == pending.requested + timedelta(hours=24)
        assert "is cleared by 2026-11-21" in pending.sentence()
        assert a.sync.health().pending_erasures == 1
    a.store.close()
    a.restart()
    assert a.sync.tick().last_error is None
    done = a.sync.receipt(number)
    assert done.is_done
    assert a.sync.health().pending_erasures == 0
    assert traces(remote, [a], rater, gone) == set()
    assert raw_ids(remote) == ids(kept)


def test_learning_of_an_erasure_that_was_cut_short_goes_on(make, world, remote, monkeypatch):
    a, b = make("a"), make("b")
    rater = world.rater()
    gone = a.answer(rater)
    a.answer()
    a.sync.tick()
    b.sync.tick()
    a.sync.erase([rater.rater_id])
    monkeypatch.setattr(memory, "PIECE", 2)
    remove, removed = b.sync._carrier.outbox._remove, []

    def remove_once(seqs):
        if removed:
            raise Crash
        removed.append(remove(seqs))
        return removed[-1]

    monkeypatch.setattr(b.sync._carrier.outbox, "_remove", remove_once)
    with pytest.raises(Crash):
        b.sync.tick()
    assert removed == [2]
    # An erasure of another rater in between must not take the work for done.
    b.restart()
    b.sync.erase_locally([world.rater().rater_id])
    assert len(list(b.store.ratings(rater.rater_id))) == 3
    assert b.sync.tick().last_error is None
    assert traces(remote, [a, b], rater, gone) == set()


def receipts(replica):
    with replica.store.database.reading() as connection:
        return [row[0] for row in connection.execute("SELECT number FROM receipt")]


def test_the_remote_is_left_to_the_next_round_when_asked(make, world, remote):
    a = make()
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    remote.calls.clear()
    receipt = a.sync.erase_locally([rater.rater_id])
    assert remote.calls == []
    assert (receipt.rows_local, receipt.is_done) == (5, False)
    a.sync.tick()
    assert a.sync.receipt(receipt.number).rows_remote == 5
    assert a.sync.receipt("0" * 16) is None


def test_without_a_remote_the_receipt_is_final_and_a_later_remote_still_learns(make, world, remote):
    a = make(there=NullRemote())
    rater = world.rater()
    a.answer(rater)
    receipt = a.sync.erase([rater.rater_id])
    assert receipt.is_done
    assert receipt.sentence() == f"Receipt {receipt.number}: 5 ratings were erased here."
    a.remote = remote
    a.restart()
    a.sync.tick()
    (path,) = tombstone_files_in(remote.files)
    assert digest_of(rater.rater_id).encode() in remote.files[path]


def test_several_raters_and_several_receipts_are_cleared_together(make, world, remote):
    a = make()
    first, second, third = world.rater(), world.rater(), world.rater()
    for rater, n_pages in ((first, 1), (second, 2), (third, 3)):
        a.answer(rater, n_pages=n_pages)
    a.sync.tick()
    pair = a.sync.erase_locally([first.rater_id, second.rater_id])
    single = a.sync.erase([third.rater_id])
    pair = a.sync.receipt(pair.number)
    assert (pair.rows_local, pair.rows_remote, pair.shards) == (15, 15, 1)
    assert (single.rows_local, single.rows_remote, single.shards) == (15, 15, 1)
    assert raw_ids(remote) == []


def test_what_is_answered_after_an_erasure_stays(make, world, remote, clock):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    b.sync.tick()
    a.sync.erase([rater.rater_id])
    clock.now += timedelta(seconds=1)
    again = a.answer(rater)
    a.sync.tick()
    b.sync.tick()
    assert raw_ids(remote) == ids(again)
    assert ids(b.store.ratings()) == []
    fresh = make("c")
    fresh.sync.tick()
    assert ids(fresh.store.ratings()) == ids(again)


def test_two_replicas_asked_for_the_same_rater_both_finish(make, world, clock):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    b.answer(rater)
    for replica in (a, b):
        replica.sync.tick()
    early = a.sync.erase_locally([rater.rater_id])
    clock.now += timedelta(seconds=5)
    late = b.sync.erase_locally([rater.rater_id])
    for replica in (b, a):
        replica.sync.tick()
    assert a.sync.receipt(early.number).is_done
    assert b.sync.receipt(late.number).is_done


def test_unreadable_files_are_counted_on_the_receipt_and_left(make, world, remote):
    path = "data/ratings/ym=2026-10/x.parquet"
    remote.put(**{path: b"damaged"})
    a = make()
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    receipt = a.sync.erase([rater.rater_id])
    assert (receipt.is_done, receipt.unreadable_shards) == (True, 1)
    assert "1 files there cannot be read" in receipt.sentence()
    assert remote.files[path] == b"damaged"


def test_a_receipt_survives_json_and_names_nobody(make, world):
    a = make()
    rater = world.rater()
    a.answer(rater)
    a.sync.tick()
    receipt = a.sync.erase([rater.rater_id])
    assert Receipt.from_json(receipt.as_json()) == receipt
    record = json.loads(receipt.as_json())
    assert record["finished"].startswith("2026-11-20T12:00")
    assert rater.rater_id not in receipt.as_json()
    assert digest_of(rater.rater_id) not in receipt.as_json()
    pending = replace(receipt, finished=None, due=receipt.requested)
    assert Receipt.from_json(pending.as_json()) == pending


# --- Undoing ---------------------------------------------------------------------------------


def test_an_undone_rating_goes_everywhere_at_the_next_round(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    b.sync.tick()
    a.store.undo([rows[0].rating_id], rater_id=rater.rater_id)
    assert a.sync.health().pending_erasures == 0
    a.sync.tick()
    b.sync.tick()
    assert ids(a.rows_there()) == ids(rows[1:])
    assert ids(b.store.ratings()) == ids(rows[1:])
    n_commits = len(remote.messages)
    a.sync.tick()
    assert len(remote.messages) == n_commits
    # The shard still has it, but an empty disk does not take it in.
    assert raw_ids(remote) == ids(rows)
    fresh = make("c")
    fresh.sync.tick()
    assert ids(fresh.store.ratings()) == ids(rows[1:])


def test_a_page_undone_here_cannot_come_back_through_another_replica(make, world):
    a, b = make("a"), make("b")
    rater = world.rater()
    page = world.page(expires_at=a.clock.now + timedelta(hours=2))
    rows = world.rows(page, rater)
    a.store.add_page(page, rows)
    a.store.undo([row.rating_id for row in rows], rater_id=rater.rater_id)
    b.store.add_page(page, rows)
    a.sync.tick()
    b.sync.tick()
    assert b.rows_there() == []
    assert list(b.store.ratings()) == []


def test_an_undone_rating_leaves_the_history_with_the_next_compaction(make, world, remote, clock):
    a = make()
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    a.store.undo([rows[0].rating_id], rater_id=rater.rater_id)
    a.sync.tick()
    assert raw_ids(remote) == ids(rows)
    clock.now += timedelta(days=1)
    a.sync.tick()
    assert raw_ids(remote) == ids(rows[1:])
    stored = b"".join(map(columns_of, remote.every_byte()))
    assert rows[0].rating_id.encode() not in stored
    assert LEASE not in remote.files
    assert len(shards_in(remote.files)) == 1
