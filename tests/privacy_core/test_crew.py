"""Several processes revise one data set: to the same bytes as one, and a stop costs nothing."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from privacy_core.__main__ import main
from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands.crew import joined, size_of
from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.revise.revision import Workplace, load_revision
from privacy_core.revise.rows import BATCH, RowRules
from privacy_core.revise.run import ReviseConfig, revise
from privacy_core.revise.shards import MOST_ROWS, MOST_SHARDS, rows_per_shard
from privacy_core.revise.survey import survey_rows
from tests.privacy_core.crews import start
from tests.privacy_core.people import (
    NO_FACE,
    MarkDetector,
    preferences,
    rows_of,
    source_of,
    write_preferences,
    write_rows,
)
from tests.privacy_core.tiny import tiny_model

N_ROWS, PER_SHARD = 13, 2
MARKS = {3: NO_FACE, 10: NO_FACE}


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return tiny_model()


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


class StoppedError(Exception):
    """The process was killed."""


@pytest.fixture
def run(tmp_path, model):
    """Return a function that revises with so many processes and returns what they returned."""
    write_rows(tmp_path / "x.parquet", rows_of(N_ROWS, marks=MARKS))

    def member(rank, size, barrier, out, resume, stop):
        def wait():
            try:
                barrier.wait(timeout=60)
            except threading.BrokenBarrierError as error:
                raise StoppedError from error

        def report(_stage, done, _total):
            if stop == (rank, done):
                raise StoppedError

        source = source_of_file(tmp_path / "x.parquet")
        survey = survey_rows(source, subject_column="subject")
        config = ReviseConfig(seed=7, rows_per_shard=PER_SHARD, crew=Crew(rank, size, wait))
        anonymizer = Anonymizer(EmbeddedBackend(model), MarkDetector())
        try:
            return revise(
                source, survey, RowRules(preferences()), tmp_path / out, anonymizer=anonymizer,
                config=config, resume=resume, report=report,
            )  # fmt: skip
        except Exception:
            # A launcher ends the others.
            barrier.abort()
            raise

    def run_crew(size, out, *, resume=False, stop=None):
        barrier = threading.Barrier(size)
        with ThreadPoolExecutor(size) as pool:
            futures = [
                pool.submit(member, rank, size, barrier, out, resume, stop) for rank in range(size)
            ]
        return [future.exception() or future.result() for future in futures]

    return run_crew


def source_of_file(path):
    from privacy_core.dataset import read_dataset

    return read_dataset(path)


def files_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_processes_writes_the_same_bytes_as_one(run, tmp_path, size):
    (alone,) = run(1, "one")
    together = run(size, "many")
    assert together == [alone] * size
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    private = files_of(Workplace(tmp_path / "many").private)
    expected = files_of(Workplace(tmp_path / "one").private)
    assert {name for name in private if private[name] != expected[name]} <= {"noise.key"}
    assert load_revision(tmp_path / "many") == alone
    assert not Workplace(tmp_path / "many").part.exists()


def test_each_shard_is_made_by_one_process_alone():
    for size in (1, 2, 3, 7):
        for shard in range(20):
            assert [Crew(rank, size).does(shard) for rank in range(size)].count(True) == 1


def test_a_run_whose_processes_were_stopped_goes_on_with_any_number_of_them(run, tmp_path):
    run(1, "one")
    rng = np.random.default_rng(5)
    for i in range(4):
        size, again = rng.integers(1, 5, 2)
        # Progress comes after each batch or shard, at its last row.
        ends = [*range(PER_SHARD, N_ROWS, PER_SHARD), N_ROWS]
        stop = (int(rng.integers(size)), int(rng.choice(ends)))
        stopped = run(int(size), f"out{i}", stop=stop)
        assert all(isinstance(one, StoppedError) for one in stopped)
        assert not (tmp_path / f"out{i}").exists()
        run(int(again), f"out{i}", resume=True)
        assert files_of(tmp_path / f"out{i}") == files_of(tmp_path / "one")


def test_half_a_file_of_a_process_that_was_killed_is_not_in_the_data_set(run, tmp_path):
    run(1, "one")
    run(2, "out", stop=(0, PER_SHARD))
    part = Workplace(tmp_path / "out").part
    (part / "data/.train-00003-of-00007.parquet.0badcafe").write_bytes(b"PAR1 half")
    (part / ".revision.json.0badcafe").write_bytes(b"{")
    run(2, "out", resume=True)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "one")


def test_a_finished_run_is_found_finished_by_every_process(run):
    (first,) = run(1, "out")
    assert run(3, "out", resume=True) == [first] * 3


def test_a_shard_that_another_process_did_not_write_is_missed(run, tmp_path, monkeypatch):
    record = Workplace.record
    monkeypatch.setattr(
        Workplace, "record", lambda self, shard: None if "00001" in shard else record(self, shard)
    )
    first, _ = run(2, "out")
    assert isinstance(first, OutputError)
    assert "shared disk" in str(first)
    assert not (tmp_path / "out").exists()


@given(st.integers(1, 10**10))
def test_a_folder_holds_every_shard_and_small_data_still_has_many(n_rows):
    size = rows_per_shard(n_rows)
    n_shards = -(-n_rows // size)
    assert size % BATCH == 0  # so that no batch is cut short
    assert n_shards <= MOST_SHARDS == 10_000
    assert size <= MOST_ROWS or n_rows > MOST_ROWS * MOST_SHARDS
    assert n_shards >= min(-(-n_rows // BATCH), 32)


@pytest.mark.parametrize("size", [1, 2])
def test_shards_follow_from_the_number_of_rows_and_not_of_processes(tmp_path, model, size):
    source = source_of(tmp_path / "x.parquet", rows_of(1) * (BATCH + 2))
    survey = survey_rows(source, subject_column="subject")
    barrier = threading.Barrier(size)

    def member(rank):
        return revise(
            source, survey, RowRules(preferences({}), others="keep"), tmp_path / "out",
            anonymizer=Anonymizer(EmbeddedBackend(model), MarkDetector()),
            config=ReviseConfig(seed=7, crew=Crew(rank, size, barrier.wait)),
        )  # fmt: skip

    with ThreadPoolExecutor(size) as pool:
        list(pool.map(member, range(size)))
    shards = sorted((tmp_path / "out/data").iterdir())
    assert [parquet.read_metadata(shard).num_rows for shard in shards] == [BATCH, 2]


# --- The command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "backends",
        "fit-model d.parquet --out m",
        "audit m2 --original d.parquet --revised r --against m",
    ],
)
def test_commands_that_do_not_share_their_work_refuse_several_processes(capsys, arguments):
    assert main(arguments.split(), environment={"WORLD_SIZE": "2"}) == 2
    command = arguments.split()[0]
    assert f"`{command}` must be run by one process, got 2" in capsys.readouterr().err


def test_one_process_is_not_several():
    assert main(["backends"], environment={"WORLD_SIZE": "1"}) == 0


@pytest.mark.parametrize("size", ["", "two", "0", "-1"])
def test_a_launcher_that_says_nothing_usable_is_refused(size):
    with pytest.raises(InvalidArgumentError, match="WORLD_SIZE"):
        size_of({"WORLD_SIZE": size})


def test_without_a_launcher_there_is_one_process_that_never_waits():
    with joined({}) as crew:
        assert (crew.rank, crew.size, crew.is_first) == (0, 1, True)
        assert crew.wait() is None


def test_a_crew_is_joined_as_the_launcher_says_and_left_again(monkeypatch):
    done = []

    def broken():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:9")

    for name, act in {
        "init_process_group": lambda *arguments, **_: done.append(arguments),
        "get_rank": lambda: 1,
        "get_world_size": lambda: 3,
        "barrier": broken,
        "destroy_process_group": lambda: done.append("left"),
    }.items():
        monkeypatch.setattr(torch.distributed, name, act)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    with joined({"WORLD_SIZE": "3", "LOCAL_RANK": "3"}) as crew:
        assert (crew.rank, crew.size, crew.is_first) == (1, 3, False)
        with pytest.raises(OutputError, match=r"ended early.*--resume"):
            crew.wait()
    assert done == [1, ("gloo",), "left"]


@pytest.mark.slow
def test_where_one_real_process_refuses_the_others_do_not_wait_for_ever(tmp_path):
    write_rows(tmp_path / "d.parquet", rows_of(6))
    write_preferences(tmp_path / "p.json")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "file").touch()
    arguments = ("revise", "d.parquet", "--preferences", "p.json", "--seed", "3", "--json")
    processes = start(tmp_path, [*arguments, "--out", "two"], size=2)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert "must be a new or empty folder" in said[0]
    assert "Another process of this run ended early" in said[1]


@pytest.mark.slow
def test_real_processes_that_are_killed_at_random_moments_leave_what_one_process_leaves(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "benchmarks.revise_kill", "kill", "--rows", "260", "--kills", "4",
         "--seed", "2", "--out", str(tmp_path / "found.json")],
        check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())["kill"]
    assert found["kills"] == 4
    assert found["finished_runs"] == found["digests_equal"] >= 1
    assert found["whole_shards_made_again"] == 0
