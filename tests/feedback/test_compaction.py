import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from feedback.dataset.shard import merge_shards, read_shard, shard_bytes
from feedback.errors import RemoteBusyError
from feedback.sync import compaction
from feedback.sync.compaction import Compaction, CompactionSettings
from feedback.sync.layout import (
    LEASE,
    compaction_bytes,
    compaction_path,
    compactions_in,
    lease_bytes,
    shards_in,
    tombstone_files_in,
)
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

    def replica(name="a", **options):
        made.append(Replica(world, tmp_path / name, remote, clock, **options))
        return made[-1]

    yield replica
    for each in made:
        each.sync.stop(flush_seconds=0)
        each.store.close()


def answer_and_tick(replica, n=3):
    """Make that many shards."""
    for _ in range(n):
        replica.answer()
        replica.sync.tick()
        replica.clock.now += timedelta(seconds=1)


def test_many_small_shards_become_one_a_month(make, remote, clock):
    a = make()
    answer_and_tick(a)
    clock.now += timedelta(days=15)
    answer_and_tick(a, 2)
    assert len(shards_in(remote.files)) == 3
    done = a.sync.compact()
    assert done == Compaction(files_before=3, files_after=2, rows=10, duplicates=0, erased=0)
    assert raw_ids(remote) == ids(a.answered)
    assert LEASE not in remote.files
    assert a.sync.compact() is None


def test_it_is_due_a_day_after_the_last_one_or_the_first_shard(make, remote, clock):
    a = make()
    start = clock.now
    answer_and_tick(a, 3)
    assert len(shards_in(remote.files)) == 3
    clock.now = start + timedelta(days=1)
    a.sync.tick()
    assert len(shards_in(remote.files)) == 1
    answer_and_tick(a, 3)
    clock.now = start + timedelta(days=1, hours=23)
    a.sync.tick()
    assert len(shards_in(remote.files)) == 4
    clock.now = start + timedelta(days=2, minutes=1)
    a.sync.tick()
    assert len(shards_in(remote.files)) == 1
    assert len(compactions_in(remote.files)) == 2


def test_too_many_files_are_compacted_at_once(make, remote):
    a = make(settings=SyncSettings(compaction=CompactionSettings(max_files=5)))
    for _ in range(30):
        answer_and_tick(a, 1)
        assert len(remote.files) <= 40
    assert len(shards_in(remote.files)) <= 5
    assert raw_ids(remote) == ids(a.answered)


def test_made_shards_have_a_bounded_size_and_large_ones_are_left(make, remote):
    a = make(settings=SyncSettings(compaction=CompactionSettings(max_rows=12)))
    answer_and_tick(a, 5)
    a.sync.compact()
    n_rows = [len(read_shard(remote.files[p], path=p)) for p in shards_in(remote.files)]
    assert sorted(n_rows) == [5, 10, 10]
    before = set(shards_in(remote.files))
    answer_and_tick(a, 1)
    a.sync.compact()
    assert len(before & set(shards_in(remote.files))) == 2
    assert raw_ids(remote) == ids(a.answered)


def test_of_two_rows_with_one_id_the_first_wins(make, remote):
    a = make()
    answer_and_tick(a, 2)
    twice = a.answered[:5]
    path = f"data/ratings/ym=2026-11/zz-{'7' * 26}.parquet"
    remote.put(**{path: shard_bytes([_changed(row) for row in twice])})
    done = a.sync.compact()
    assert (done.duplicates, done.rows) == (5, 10)
    (only,) = shards_in(remote.files)
    assert [r for r in read_shard(remote.files[only], path=only) if r in twice] == twice


def _changed(row):
    return replace(row, response_ms=row.response_ms + 100)


def test_duplicates_in_different_shards_that_are_made_are_found(make, remote):
    a = make(settings=SyncSettings(compaction=CompactionSettings(max_rows=12)))
    answer_and_tick(a, 2)
    path = f"data/ratings/ym=2026-11/zz-{'7' * 26}.parquet"
    remote.put(**{path: shard_bytes(a.answered[:5])})
    done = a.sync.compact()
    assert (done.files_after, done.duplicates) == (1, 5)
    assert raw_ids(remote) == ids(a.answered)


def test_another_replica_with_the_lease_is_left_alone_until_it_expires(make, remote, clock):
    a = make()
    answer_and_tick(a)
    until = clock.now + timedelta(seconds=600)
    remote.put(**{LEASE: lease_bytes("another", until)})
    assert a.sync.compact() is None
    assert len(shards_in(remote.files)) == 3
    clock.now = until
    assert a.sync.compact().files_after == 1


def test_of_several_replicas_at_once_one_compacts(make, remote):
    a, b = make("a"), make("b")
    answer_and_tick(a)
    results = []
    # Between taking the lease and committing, the other one tries.
    remote.faults = [("commit", "pass"), ("commit", lambda: results.append(b.sync.compact()))]
    results.append(a.sync.compact())
    assert results[0] is None
    assert results[1].files_after == 1
    assert remote.messages.count("Compaction") == 1


def test_who_lost_the_lease_stops(make, remote, clock):
    a = make()
    answer_and_tick(a)
    theirs = lease_bytes("another", clock.now + timedelta(seconds=600))
    remote.faults = [("commit", "pass"), ("commit", lambda: remote.put(**{LEASE: theirs}))]
    assert a.sync.compact() is None
    assert remote.files[LEASE] == theirs
    assert len(shards_in(remote.files)) == 3


def test_who_finds_no_lease_of_their_own_stops(make, remote):
    a = make()
    answer_and_tick(a)
    remote.faults = [("commit", "pass"), ("commit", lambda: remote.remove(LEASE))]
    assert a.sync.compact() is None
    assert len(shards_in(remote.files)) == 3


def test_what_was_merged_is_not_merged_again_for_a_change_elsewhere(make, remote, monkeypatch):
    a = make()
    answer_and_tick(a)
    merged = []
    monkeypatch.setattr(
        compaction, "merge_shards", lambda *a, **k: merged.append(1) or merge_shards(*a, **k)
    )
    remote.faults = [("commit", "pass"), ("commit", "stale")]
    assert a.sync.compact().files_after == 1
    assert merged == [1]


def test_a_shard_that_arrives_meanwhile_stays(make, remote):
    a, b = make("a"), make("b")
    answer_and_tick(a)
    rows = b.answer()
    remote.faults = [("commit", "pass"), ("commit", b.sync.tick)]
    a.sync.compact()
    assert raw_ids(remote) == ids([*a.answered, *rows])


def test_an_erasure_that_arrives_meanwhile_wins(make, world, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    # In one shard with other rows, which is then rewritten at the same path.
    answer_and_tick(a)
    kept = a.answered[5:]
    remote.faults = [("commit", "pass"), ("commit", lambda: b.sync.erase([rater.rater_id]))]
    a.sync.compact()
    assert raw_ids(remote) == ids(kept)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_replica_whose_shard_was_taken_up_learns_so(make, remote, is_restarted):
    a, b = make("a"), make("b")
    a.sync.tick()
    rows = a.answer()
    remote.faults = [("commit", "uncertain")]
    a.sync.tick()
    b.answer()
    b.sync.tick()
    b.sync.compact()
    assert len(shards_in(remote.files)) == 1
    if is_restarted:
        a.restart()
    assert a.sync.tick().outbox_rows == 0
    assert raw_ids(remote) == ids([*rows, *b.answered])


@pytest.mark.parametrize("n_passed", range(3))
def test_a_compaction_cut_short_is_done_by_the_next(make, remote, n_passed):
    a = make()
    answer_and_tick(a)
    remote.faults = [("commit", "pass")] * n_passed + [("commit", "uncertain")]
    try_to(a.sync.compact)
    remote.faults = []
    try_to(a.sync.compact)
    assert len(shards_in(remote.files)) == 1
    assert LEASE not in remote.files
    assert raw_ids(remote) == ids(a.answered)


def test_a_purge_that_failed_is_done_by_the_next_compaction(make, world, remote, clock):
    a = make()
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    a.store.undo([rows[0].rating_id], rater_id=rater.rater_id)
    remote.faults = [("purge", "busy")]
    with pytest.raises(RemoteBusyError):
        a.sync.compact()
    assert len(remote.revisions) > 1
    clock.now += timedelta(days=1)
    a.sync.tick()
    assert len(remote.revisions) == 1
    assert raw_ids(remote) == ids(rows[1:])


def test_a_purge_that_failed_is_done_by_the_next_round_of_the_one_who_compacted(
    make, world, remote
):
    a, b = make("a"), make("b")
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    a.store.undo([rows[0].rating_id], rater_id=rater.rater_id)
    a.sync.tick()
    # Not the one who was asked to forget, so that nothing but the purge is left to do.
    b.sync.tick()
    remote.faults = [("purge", "busy")]
    with pytest.raises(RemoteBusyError):
        b.sync.compact()
    assert raw_ids(remote) == ids(rows[1:])
    assert len(remote.revisions) > 1
    b.store.close()
    b.restart()
    remote.faults = [("purge", "busy")]
    assert b.sync.tick().last_error is not None
    assert b.sync.tick().last_error is None
    assert len(remote.revisions) == 1
    remote.calls.clear()
    b.sync.tick()
    assert "purge" not in remote.calls


def test_no_try_sends_the_bytes_of_an_earlier_one(make, remote, monkeypatch):
    a = make()
    answer_and_tick(a)
    sent = []
    commit = remote.commit

    def watched(snapshot, *, add, **rest):
        sent.extend(add.items())
        return commit(snapshot, add=add, **rest)

    monkeypatch.setattr(remote, "commit", watched)
    remote.faults = [("commit", "pass"), ("commit", "stale"), ("commit", "stale")]
    a.sync.compact()
    shards = [data for path, data in sent if path.endswith(".parquet")]
    assert len(shards) == len(set(shards)) == 3
    assert len({path for path, _ in sent if path.endswith(".parquet")}) == 1
    assert raw_ids(remote) == ids(a.answered)


def test_a_list_or_lease_by_a_clock_that_runs_far_ahead_stops_no_compaction(make, remote, clock):
    a = make()
    answer_and_tick(a)
    path = compaction_path(clock.now + timedelta(days=365))
    lease = lease_bytes("another", clock.now + timedelta(days=365))
    remote.put(**{path: compaction_bytes([], {}), LEASE: lease})
    clock.now += timedelta(days=2)
    assert a.sync.tick().last_error is None
    assert len(shards_in(remote.files)) == 1
    # What was made ahead of an hour counts: replicas' clocks differ.
    answer_and_tick(a)
    clock.now += timedelta(days=1)
    remote.put(**{LEASE: lease_bytes("another", clock.now + timedelta(minutes=69))})
    a.sync.tick()
    assert len(shards_in(remote.files)) == 4


def test_shards_elsewhere_are_compacted_in_their_folder(make, world, remote):
    a = make()
    answer_and_tick(a, 2)
    old = [world.rating() for _ in range(3)]
    remote.put(**{f"data/ratings/old/{n}.parquet": shard_bytes([old[n]]) for n in range(3)})
    a.sync.compact()
    folders = sorted(path.rpartition("/")[0] for path in shards_in(remote.files))
    assert folders == ["data/ratings/old", "data/ratings/ym=2026-11"]
    assert raw_ids(remote) == ids([*a.answered, *old])


def test_small_files_are_merged_and_dropped_when_old(make, world, remote, clock):
    a = make()
    rater = world.rater()
    rows = a.answer(rater, n_pages=3)
    a.sync.tick()
    for row in rows[:3]:
        a.store.undo([row.rating_id], rater_id=rater.rater_id)
        a.sync.tick()
    assert len(tombstone_files_in(remote.files)) == 3
    a.sync.compact()
    assert len(tombstone_files_in(remote.files)) == 1
    late = make("b")
    late.sync.tick()
    assert late.store.stats().tombstones == 3
    clock.now += timedelta(days=31)
    answer_and_tick(a, 2)
    a.sync.compact()
    assert tombstone_files_in(remote.files) == []
    assert len(compactions_in(remote.files)) == 1
    assert a.store.stats().tombstones == 0
    assert raw_ids(remote) == ids(a.answered[3:])


def test_nothing_new_means_no_commit(make, remote, clock):
    a = make()
    rater_rows = a.answer()
    a.sync.tick()
    a.store.undo([rater_rows[0].rating_id], rater_id=rater_rows[0].rater_id)
    answer_and_tick(a, 2)
    a.sync.compact()
    n_commits = len(remote.messages)
    for _ in range(3):
        clock.now += timedelta(days=1)
        assert a.sync.tick().last_error is None
    assert len(remote.messages) == n_commits


def test_without_compare_and_swap_buried_rows_are_looked_for_again(make, world, remote, clock):
    remote.swaps = False
    a = make()
    rater = world.rater()
    rows = a.answer(rater)
    a.sync.tick()
    a.sync.erase([rater.rater_id])
    a.sync.compact()
    # As by another replica whose change crossed the erasure.
    remote.put(**{f"data/ratings/ym=2026-11/x-{'0' * 26}.parquet": shard_bytes(rows)})
    clock.now += timedelta(days=2)
    a.sync.tick()
    assert raw_ids(remote) == []


@pytest.mark.parametrize("data", [b"", b"{", b'{"schema_version": 9}', b"[]"])
def test_a_lease_that_cannot_be_read_is_left_and_said(make, remote, data):
    a = make()
    answer_and_tick(a)
    remote.put(**{LEASE: data})
    assert a.sync.compact() is None
    assert remote.files[LEASE] == data
    assert a.sync.health().foreign_shards == (LEASE,)


def test_a_damaged_shard_is_passed_over(make, remote):
    a = make()
    answer_and_tick(a)
    path = f"data/ratings/ym=2026-11/x-{'0' * 26}.parquet"
    remote.put(**{path: b"damaged"})
    assert a.sync.compact().files_after == 2
    assert remote.files[path] == b"damaged"
    assert raw_ids_but(remote, path) == ids(a.answered)


def raw_ids_but(remote, path):
    return sorted(
        row.rating_id
        for each in shards_in(remote.files)
        if each != path
        for row in read_shard(remote.files[each], path=each)
    )


def try_to(action):
    """Do an action that may fail for the remote's reasons."""
    with contextlib.suppress(OSError):
        action()
