"""Sync through the real client against the test Hub, and through a real SIGTERM."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from feedback.columns import features
from feedback.dataset.shard import read_shard
from feedback.remote.dataset_remote import DatasetRemote
from feedback.sync.layout import shards_in
from feedback.sync.rhythm import SyncSettings
from tests.feedback.chaos_rater import ANNA, REPO
from tests.feedback.replicas import Clock, Replica, bytes_of, ids, raw_ids

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def remote(hub):
    return DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)


@pytest.fixture
def make(world, tmp_path, hub):
    made = []

    def replica(name="a", **options):
        remote = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)
        made.append(Replica(world, tmp_path / name, remote, Clock(world.now), **options))
        return made[-1]

    yield replica
    for each in made:
        each.store.close()


def columns_of(data):
    """Return a file's readable content: the values of parquet, the bytes of all else."""
    return (
        str(pq.read_table(io.BytesIO(data)).to_pydict()).encode() if data[:4] == b"PAR1" else data
    )


def test_rows_reach_a_private_repository_and_come_back_to_an_empty_disk(make, hub):
    a = make("a")
    rows = a.answer(n_pages=3)
    assert a.sync.flush().outbox_rows == 0
    assert hub.repo(REPO).is_private
    b = make("b")
    assert b.sync.tick().restored_rows == 15
    assert ids(b.store.ratings()) == ids(rows)


@pytest.mark.parametrize("kind", ["500", "503", "429", "412", "409", "close", "cut"])
def test_a_commit_that_fails_goes_again_and_doubles_nothing(make, hub, remote, kind):
    a = make()
    rows = a.answer()
    a.sync.flush()
    rows += a.answer()
    fault = hub.fail("commit", kind)
    a.sync.flush()
    assert fault.fired == 1
    assert raw_ids(remote) == ids(rows)


@pytest.mark.parametrize("kind", ["500-after", "close-after"])
def test_an_answer_that_was_lost_after_the_commit_doubles_nothing(make, hub, remote, kind):
    a = make()
    rows = a.answer()
    a.sync.flush()
    rows += a.answer()
    hub.fail("commit", kind)
    a.sync.flush()
    assert raw_ids(remote) == ids(rows)
    assert len(shards_in(remote.snapshot().files)) == 2


def test_a_wait_the_hub_asks_for_is_honoured(make, hub):
    a = make()
    a.answer()
    a.sync.flush()
    a.answer()
    hub.fail("commit", "429", retry_after=17)
    health = a.sync.tick()
    assert health.outbox_rows == 5
    assert (health.retry_at - a.clock.now).total_seconds() >= 30
    hub.fail("commit", "429", retry_after=1700)
    health = a.sync.tick()
    assert (health.retry_at - a.clock.now).total_seconds() >= 1700


def test_a_missing_repository_that_was_there_before_is_an_error_and_not_made_again(make, hub):
    a = make()
    a.answer()
    a.sync.flush()
    assert a.store.is_remote_known(a.remote.name)
    a.answer()
    HfApi(endpoint=hub.endpoint, token=ANNA).delete_repo(REPO, repo_type="dataset")
    a.remote = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint, is_known=True)
    a.store.close()
    a.restart()
    health = a.sync.tick()
    assert health.outbox_rows == 5
    assert REPO in health.last_error
    assert len(hub.requests("create")) == 1


def test_a_repository_that_was_made_anew_gets_every_row_again(make, hub, remote):
    a = make()
    a.answer(n_pages=2)
    a.sync.flush()
    api = HfApi(endpoint=hub.endpoint, token=ANNA)
    api.delete_repo(REPO, repo_type="dataset")
    api.create_repo(REPO, repo_type="dataset", private=True)
    health = a.sync.flush()
    assert (health.outbox_rows, health.in_remote_rows) == (0, 10)
    assert raw_ids(remote) == ids(a.answered)


def test_a_repository_made_public_between_two_commits_gets_no_second_one(make, hub, monkeypatch):
    a = make(settings=SyncSettings(max_shard_rows=5))
    a.answer(n_pages=3)
    commit = a.remote.commit

    def commit_and_open(*args, **options):
        done = commit(*args, **options)
        hub.repo(REPO).is_private = False
        return done

    monkeypatch.setattr(a.remote, "commit", commit_and_open)
    health = a.sync.tick()
    assert len(hub.requests("commit")) == 1
    assert "must be private" in health.last_error
    assert health.outbox_rows == 10


def test_a_listed_shard_that_is_not_stored_holds_back_nothing(make, hub, remote):
    a, b = make("a"), make("b")
    a.answer()
    a.sync.flush()
    (path,) = shards_in(remote.snapshot().files)
    hub.repo(REPO).blobs.clear()
    rows = b.answer()
    health = b.sync.tick()
    assert (health.outbox_rows, health.foreign_shards) == (0, (path,))
    assert ids(rows) == ids(
        row
        for each in shards_in(remote.snapshot().files)
        if each != path
        for row in read_shard(remote.read(remote.snapshot(), each), path=each)
    )


def test_a_purge_spares_rows_that_are_sent_again_while_it_runs(make, world, hub, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer(rater)
    a.answer()
    a.sync.flush()
    b.sync.tick()
    rows = b.answer()
    # Sent and not committed: what the purge finds then, it deletes for good.
    hub.fail("commit", "503")
    b.sync.tick()
    fault = hub.fail("lfs-delete", "pause")

    def push():
        if fault.reached.wait(30):
            b.clock.now += timedelta(hours=1)
            b.sync.flush()
            fault.release()

    pushing = threading.Thread(target=push)
    pushing.start()
    a.sync.erase([rater.rater_id])
    pushing.join()
    assert raw_ids(remote) == ids([*a.answered[5:], *rows])
    for replica in (a, b):
        assert replica.sync.tick().last_error is None
    assert raw_ids(remote) == ids([*a.answered[5:], *rows])


def test_what_was_sent_and_never_committed_is_removed_with_the_rows(make, world, hub):
    a, b = make("a"), make("b")
    rater = world.rater()
    a.answer()
    a.sync.flush()
    b.sync.tick()
    b.answer(rater)
    commit = b.remote.commit

    def late(*args, **options):
        b.remote.commit = commit
        assert a.sync.erase([rater.rater_id]).is_done
        return commit(*args, **options)

    b.remote.commit = late
    b.sync.flush()
    everything = b"".join(columns_of(data) for _, data in hub.every_byte())
    assert rater.rater_id.encode() not in everything


def test_old_commits_are_counted_and_verified_by_the_next_process(make, world, hub):
    a = make()
    rater = world.rater()
    a.answer(rater)
    a.answer()
    a.sync.flush()
    hub.fail("lfs-delete", "503")
    receipt = a.sync.erase([rater.rater_id])
    assert not receipt.is_done
    n_commits = len(a.sync._carrier.outbox.old_revisions())
    assert n_commits >= 3
    a.remote = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint, is_known=True)
    a.store.close()
    a.restart()
    hub.log.clear()
    a.sync.tick()
    assert a.sync.receipt(receipt.number).revisions == n_commits
    assert len([r for r in hub.requests("info") if "/revision/" in r.path]) >= n_commits
    assert a.sync._carrier.outbox.old_revisions() == []


LOAD = """
import json, sys
import datasets
datasets.disable_progress_bars()
for line in sys.stdin:
    rows = datasets.load_dataset("anna/ratings", revision=line.strip(), split="train")
    print(json.dumps([repr(rows.features), sorted(rows["rating_id"])]), flush=True)
"""


def test_datasets_loads_the_repository_as_it_grows_is_compacted_and_erased_from(
    make, world, hub, remote, tmp_path, pytestconfig
):
    a = make()
    rater = world.rater()
    old = (pytestconfig.rootpath / "tests/golden/ratings-v1.parquet").read_bytes()
    old_rows = read_shard(old, path="old")
    remote.commit(
        remote.snapshot(), add={"data/ratings/ym=2026-10/a.parquet": old}, message="Older schema"
    )
    a.answer(rater)
    a.answer()
    a.sync.flush()
    a.answer()
    a.sync.flush()
    with subprocess.Popen(
        [sys.executable, "-c", LOAD],
        env=os.environ | hub.environment(tmp_path / "home", token=ANNA),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def loaded():
            process.stdin.write(f"{remote.snapshot().revision}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        everything = [repr(features()), ids([*old_rows, *a.answered])]
        assert loaded() == everything
        assert a.sync.compact().files_after == 2
        assert loaded() == everything
        assert a.sync.erase([rater.rater_id]).is_done
        assert loaded() == [repr(features()), ids([*old_rows, *a.answered[5:]])]


def test_a_public_repository_gets_no_row(make, hub):
    hub.add_repo(REPO, private=False)
    a = make()
    a.answer()
    health = a.sync.tick()
    assert "private" in health.last_error
    assert health.outbox_rows == 5
    assert not hub.requests("commit")


def test_an_erased_rater_is_in_no_byte_of_the_hub_or_of_any_disk(make, world, hub, remote):
    a, b = make("a"), make("b")
    rater = world.rater()
    gone = a.answer(rater, n_pages=2) + b.answer(rater)
    kept = a.answer() + b.answer()
    a.sync.flush()
    b.sync.flush()
    late = b.answer(rater)
    hub.fail("commit", "500-after")
    b.sync.tick()
    assert rater.rater_id.encode() in b"".join(columns_of(d) for _, d in hub.every_byte())
    receipt = a.sync.erase([rater.rater_id])
    assert receipt.is_done, a.sync.health().last_error
    assert (receipt.rows_local, receipt.rows_remote) == (10, 20)
    assert receipt.revisions >= 3
    assert receipt.blobs >= 2
    b.sync.flush()
    texts = [rater.rater_id, *(row.rating_id for row in [*gone, *late])]
    everything = b"".join(columns_of(data) for _, data in hub.every_byte())
    everything += bytes_of(a.folder) + bytes_of(b.folder)
    assert [text for text in texts if text.encode() in everything] == []
    assert raw_ids(remote) == ids(kept)


def test_replicas_that_compact_at_once_through_the_hub_keep_every_row(make, remote):
    a, b = make("a"), make("b")
    for _ in range(3):
        a.answer()
        a.sync.flush()
        b.answer()
        b.sync.flush()
    done = [replica.sync.compact() for replica in (a, b)]
    assert [each is None for each in done] == [False, True]
    assert raw_ids(remote) == ids(a.answered + b.answered)
    assert len(shards_in(remote.snapshot().files)) == 1


# --- SIGTERM ----------------------------------------------------------------------------------

SERVER = textwrap.dedent("""
    import pathlib, signal, sys
    from tests.feedback.chaos_rater import page_and_rows
    from feedback import RatingStore
    from feedback.remote.dataset_remote import DatasetRemote
    from feedback.sync.loop import Sync

    def leave(number, frame):
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, leave)
    store = RatingStore(pathlib.Path(sys.argv[1]))
    sync = Sync(store, DatasetRemote("anna/ratings", token="hf_anna", endpoint=sys.argv[2]))
    sync.start()
    try:
        while sync.health().last_success is None and len(sys.argv) == 4:
            signal.sigtimedwait([], 0.01)
        page, rows = page_and_rows()
        store.add_page(page, rows)
        print(*(row.rating_id for row in rows), flush=True)
        sys.stdin.read()
    finally:
        health = sync.stop(flush_seconds=float(sys.argv[3]))
        print(health.outbox_rows, flush=True)
""")


@pytest.mark.parametrize(("fault", "seconds"), [(None, 8), ("hang", 1), ("503", 1)])
def test_sigterm_carries_what_waits_within_ten_seconds_or_leaves_it_on_the_disk(
    hub, tmp_path, remote, fault, seconds
):
    path = tmp_path / "ratings.sqlite3"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path), hub.endpoint, str(seconds)],
        cwd=ROOT,
        env=os.environ | hub.environment(tmp_path / "home", token=ANNA),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    kept = process.stdout.readline().split()
    assert len(kept) == 3
    if fault:
        hub.fail("any", fault, count=1000)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 143
    hub.calm()
    assert int(rest) == (3 if fault else 0)
    if fault:
        from feedback.store.log import RatingStore

        with RatingStore(path, create=False) as store:
            assert ids(store.ratings()) == sorted(kept)
    else:
        assert raw_ids(remote) == sorted(kept)


def test_sigterm_carries_what_came_while_rows_were_brought_back(hub, make, tmp_path, remote):
    a = make()
    for _ in range(3):
        a.answer()
        a.sync.flush()
    hangs = hub.fail("resolve", "hang", count=1000, method="GET")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "x.sqlite3"), hub.endpoint, "8", "at once"],
        cwd=ROOT,
        env=os.environ | hub.environment(tmp_path / "home", token=ANNA),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    kept = process.stdout.readline().split()
    assert hangs.reached.wait(30)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert (process.returncode, int(rest)) == (143, 0)
    hub.calm()
    assert raw_ids(remote) == sorted([*ids(a.answered), *kept])
