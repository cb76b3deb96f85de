"""Nothing that was acknowledged is lost or doubled, and nothing that was erased comes back,
whatever dies and whatever the Hub answers."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from feedback.dataset.shard import read_shard
from feedback.remote.dataset_remote import DatasetRemote
from feedback.store.log import RatingStore
from feedback.sync.layout import shards_in
from feedback.sync.reading import live_ratings
from tests.feedback.chaos_rater import ANNA, REPO, sync_of
from tests.hub_faults import CHAOS_KINDS, ONLY_ON_COMMIT

ROOT = Path(__file__).resolve().parents[2]


class Raters:
    """Two replicas whose processes are killed and started again."""

    def __init__(self, process, folder, generator):
        self.process = process
        self.folder = folder
        self.generator = generator
        self.pids = {}
        self.told = {"kept": [], "asked": [], "undone": [], "erased": []}

    def start(self, name):
        line = f"{name} {self.folder / name} {self.generator.integers(1 << 31)}\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def read(self, n_pages):
        """Read until that many more pages were acknowledged."""
        while n_pages:
            word, name, *rest = self.process.stdout.readline().decode().split()
            if word == "started":
                self.pids[name] = int(rest[0])
            else:
                self.told[word] += rest
                n_pages -= word == "kept"

    def kill(self, name):
        os.kill(self.pids.pop(name), signal.SIGKILL)

    def read_to_the_end(self):
        self.process.stdin.close()
        for line in self.process.stdout:
            word, _, *rest = line.decode().split()
            if word in self.told and line.endswith(b"\n"):
                self.told[word] += rest
        self.process.stdout.close()
        self.process.wait(30)


@contextlib.contextmanager
def running_raters(hub, folder, generator, home):
    environment = os.environ | hub.environment(home, token=ANNA) | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.feedback.chaos_rater", hub.endpoint],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    process.stdout = os.fdopen(os.dup(process.stdout.fileno()), "rb")
    raters = Raters(process, folder, generator)
    try:
        yield raters
    finally:
        for name in list(raters.pids):
            raters.kill(name)
        process.kill()
        process.wait(30)


def shoot(hub, tmp_path, *, n_kills, seed):
    """Kill raters at random points while the Hub fails at random.

    Returns:
        Ids by what became of them, and how often each fault struck.
    """
    generator = np.random.default_rng(seed)
    kinds = (*CHAOS_KINDS, "401", "403")
    hub.chaos(seed, rate=0.1, kinds=kinds, seconds=0.02)
    with running_raters(hub, tmp_path, generator, tmp_path / "home") as raters:
        for name in ("a", "b"):
            raters.start(name)
        n_killed = 0
        # On a busy machine the Hub is asked less: go on until it failed often enough.
        while n_killed < n_kills or (
            len(hub.faults.drawn) < n_kills / 4 and n_killed < 10 * n_kills
        ):
            n_killed += 1
            # Also so many requests, so that a busy machine is not all ratings and no carrying.
            n_requests = len(hub.log) + int(generator.integers(12))
            raters.read(int(generator.integers(1, 10)))
            while len(hub.log) < n_requests:
                raters.read(1)
            alive = sorted(raters.pids)
            if not alive:
                raters.read(1)
                alive = sorted(raters.pids)
            name = alive[int(generator.integers(len(alive)))]
            raters.kill(name)
            raters.start(name)
            while name not in raters.pids:
                raters.read(1)
        for name in list(raters.pids):
            raters.kill(name)
        raters.read_to_the_end()
    struck = Counter(fault.kind for fault in hub.faults.drawn if fault.fired)
    hub.calm()
    return {word: set(told) for word, told in raters.told.items()}, struck


def ids_in_shards(hub):
    """Return how often each id is in a shard; nothing is deduplicated."""
    remote = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)
    snapshot = remote.snapshot()
    return Counter(
        row.rating_id
        for path in shards_in(snapshot.files)
        for row in read_shard(remote.read(snapshot, path), path=path)
    )


def check_chaos(hub, tmp_path, *, n_kills, seed):
    told, struck = shoot(hub, tmp_path, n_kills=n_kills, seed=seed)
    # Who was killed between asking and its end may have both.
    kept, gone = told["kept"] - told["asked"], told["undone"] | told["erased"]
    assert len(kept) > 3 * n_kills
    assert gone
    assert struck.total() >= n_kills / 4
    n_before = len(ids_in_shards(hub))
    # The first one again, to learn what the second one was asked to forget.
    for name in ("a", "b", "a"):
        with RatingStore(tmp_path / name / "ratings.sqlite3", create=False) as store:
            assert list(store.problems()) == []
            health = sync_of(store, hub.endpoint).flush()
            assert (health.outbox_rows, health.last_error) == (0, None)
            assert health.pending_erasures == 0
            mine = {row.rating_id for row in store.ratings()}
    assert kept <= mine
    assert not gone & mine
    check_erased(hub, told["erased"])
    with RatingStore(tmp_path / "a" / "ratings.sqlite3", create=False) as store:
        sync_of(store, hub.endpoint).compact()
    check_erased(hub, gone)
    found = ids_in_shards(hub)
    assert kept <= set(found)
    assert set(found.values()) == {1}
    # Some did reach the Hub while it failed.
    assert n_before > len(kept) / 20
    return kept, gone, struck


def check_erased(hub, ids):
    """Check that no revision and no stored content of the Hub has a row of these."""
    stored = [data for _, data in hub.every_byte() if data.startswith(b"PAR1")]
    found = {row.rating_id for data in stored for row in read_shard(data, path="any")}
    assert not ids & found


def test_killed_raters_and_a_failing_hub_lose_and_double_nothing(hub, tmp_path):
    kept, gone, _ = check_chaos(hub, tmp_path, n_kills=12, seed=1)
    # A third replica with an empty disk has everything, and so has whoever reads the dataset.
    with RatingStore(tmp_path / "c" / "ratings.sqlite3") as store:
        sync_of(store, hub.endpoint).flush()
        restored = Counter(row.rating_id for row in store.ratings())
    remote = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)
    read = Counter(row.rating_id for row in live_ratings(remote, remote.snapshot())[0])
    assert restored == read
    assert kept <= set(read)
    assert not gone & set(read)


@pytest.mark.slow
def test_three_hundred_kills_lose_and_double_nothing(hub, tmp_path):
    _, _, struck = check_chaos(hub, tmp_path, n_kills=300, seed=2)
    assert {*CHAOS_KINDS, "401", "403"} - set(struck) <= ONLY_ON_COMMIT
