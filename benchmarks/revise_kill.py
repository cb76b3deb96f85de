"""Measure `revise` on several processes; docs/results/revise_scale.json.

- `kill`: two processes revise a data set together and are killed with SIGKILL at random moments,
  one of them or both, and started again with `--resume`, until that has happened often enough.
  Every file that comes out is compared with those of one process that was left alone, and no
  shard that was whole may have been made again.
- `speed`: the same data by one process and by two, in seconds of the clock and of the processor.
- `memory`: the largest memory of one process over the number of rows, and of it what is in no file.

The faces are those of `examples/labelled`, repeated, under different row numbers. All noise is
seeded, so that runs can be compared. Processes are forked from one that has imported everything.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import platform
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from benchmarks.revise import FixedFace
from privacy_core.__main__ import main as privacy_core
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.dataset import read_dataset
from privacy_core.faces import FaceDetector, default_detector
from privacy_core.revise.rows import BATCH
from privacy_core.revise.run import ReviseConfig

ROOT = Path(__file__).resolve().parents[1]
_FORK = multiprocessing.get_context("fork")
_IMPORTED = (EmbeddedBackend, ReviseConfig)


def write_data(folder: Path, n_rows: int) -> None:
    """Write `n_rows` rows, eight of a subject, and preferences that name every second subject."""
    labelled = str(ROOT / "examples" / "labelled")
    photos = [row["image"] for split in ("train", "test") for row in
              read_dataset(labelled, split=split)]  # fmt: skip
    schema = pa.schema([("image", pa.binary()), ("subject", pa.string()), ("label", pa.int64())])
    with parquet.ParquetWriter(folder / "d.parquet", schema) as writer:
        for start in range(0, n_rows, BATCH):
            rows = [
                {"image": photos[i % len(photos)], "subject": f"p{i // 8}", "label": i % 2}
                for i in range(start, min(start + BATCH, n_rows))
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    chosen = {
        f"p{i}": {"strength": 0.5 + i % 5 / 10, "mean": 0.5, "sd": 0.1, "n_ratings": 9,
                  "n_photos": 3, "source": "own"}
        for i in range(0, -(-n_rows // 8), 2)
    }  # fmt: skip
    preferences = {
        "schema_version": 1,
        "model_version": "embedded",
        "population": {"strength": 0.8, "sd": 0.1, "n_raters": 5},
        "subjects": chosen,
    }
    (folder / "p.json").write_text(json.dumps(preferences), encoding="utf-8")


@contextlib.contextmanager
def _largest_anonymous() -> Iterator[Callable[[], int]]:
    """Look twenty times a second how much memory is behind no file; yield what says the most."""
    found, is_done = [0], threading.Event()

    def look() -> None:
        while not is_done.wait(0.05):
            status = Path("/proc/self/status").read_text("utf-8").split("RssAnon:")
            found.append(max(found.pop(), int(status[1].split()[0])))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: found[-1]
    finally:
        is_done.set()
        looking.join()


@dataclass(frozen=True)
class Setup:
    """One way of revising the data in a folder.

    Attributes:
        folder: Holds d.parquet and p.json.
        backend: Makes the faces.
        detects: Look for faces as the command does; otherwise they are where they are.
    """

    folder: Path
    backend: str = "embedded"
    detects: bool = False

    def member(self, rank: int, size: int, port: int, out: str) -> None:
        """Be one process of a run; what it used is left in OUT.RANK.json."""
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        torch.set_num_threads(1)
        os.chdir(self.folder)
        # What it says goes into a file, which is shown if it fails.
        log = os.open(f"{out}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        detector: FaceDetector = default_detector() if self.detects else FixedFace()
        started = time.perf_counter()
        with _largest_anonymous() as anonymous:
            code = privacy_core(
                ["revise", "d.parquet", "--preferences", "p.json", "--out", out, "--seed", "7",
                 "--backend", self.backend, "--resume"],
                load_backend=load_backend, detector=detector,
            )  # fmt: skip
        used = {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(time.process_time(), 2),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "peak_anonymous_megabytes": anonymous() // 1024,
        }
        Path(f"{out}.{rank}.json").write_text(json.dumps(used), encoding="utf-8")
        sys.exit(code)

    def start(self, size: int, out: str) -> list[Any]:
        """Start the processes of one run as a launcher does."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        members = [
            _FORK.Process(target=self.member, args=(rank, size, port, out)) for rank in range(size)
        ]
        for member in members:
            member.start()
        return members

    def run(self, size: int, out: str) -> list[dict[str, Any]]:
        """Revise without a disturbance and return what each process used."""
        members = self.start(size, out)
        for member in members:
            member.join()
        self.check(members, out)
        return [
            json.loads((self.folder / f"{out}.{rank}.json").read_text("utf-8"))
            for rank in range(size)
        ]

    def check(self, members: Sequence[Any], out: str) -> None:
        """Stop where a process failed though nobody killed it."""
        for rank, member in enumerate(members):
            if member.exitcode != 0:
                said = (self.folder / f"{out}.{rank}.log").read_text("utf-8", errors="replace")
                raise SystemExit(f"Process {rank} of {out} ended with {member.exitcode}: {said}")

    def whole_shards(self, out: str) -> dict[str, int]:
        """Return the shards that have their record, and when each was made."""
        found = {}
        for record in (self.folder / f".{out}.private" / "shards").glob("*.parquet.json"):
            shard = record.name.removesuffix(".json")
            for place in (f".{out}.part", out):
                with contextlib.suppress(OSError):
                    found[shard] = (self.folder / place / "data" / shard).stat().st_mtime_ns
        return found

    def digest(self, out: str) -> str:
        """Return the SHA-256 over the names and bytes of all files of a revised data set."""
        total = hashlib.sha256()
        for path in sorted((self.folder / out).rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                total.update(f"{path.relative_to(self.folder / out)} {len(data)}\n".encode())
                total.update(data)
        return total.hexdigest()


@dataclass
class Kills:
    """What happened while processes were killed.

    Attributes:
        whole_shards: Shards that were whole at each kill, None before the run had begun.
        of_both: Kills of both processes at the same moment.
        remade: Shards that were whole at a kill and were made again.
        digests: Of every data set that was finished.
        seconds: In all.
    """

    whole_shards: list[int] = field(default_factory=list)
    of_both: int = 0
    remade: int = 0
    digests: list[str] = field(default_factory=list)
    seconds: float = 0.0


def kill(setup: Setup, *, n_kills: int, seed: int, life: float) -> Kills:
    """Kill runs of two processes until that happened `n_kills` times, and let the last one end.

    Args:
        setup: How to revise.
        n_kills: Number of kills.
        seed: Of the moments.
        life: Seconds in which a run writes its first shards, roughly; it is corrected on the way.
    """
    rng = np.random.default_rng(seed)
    found, started = Kills(), time.perf_counter()
    for number in itertools.count():
        out, whole = f"run{number}", dict[str, int]()
        while True:
            members = setup.start(2, out)
            left = None if len(found.whole_shards) >= n_kills else float(rng.uniform(0, life))
            if _ended(members, left):
                setup.check(members, out)
                found.remade += _remade(whole, setup.whole_shards(out))
                break
            found.of_both += _strike(members, rng)
            before, whole = whole, setup.whole_shards(out)
            found.remade += _remade(before, whole)
            found.whole_shards.append(len(whole))
            # However busy the machine is, some kills shall come before a shard and some after.
            life *= 1.25 if len(whole) == len(before) else 0.85
            print(len(found.whole_shards), out, len(whole), round(life, 1), file=sys.stderr)
        found.digests.append(setup.digest(out))
        if len(found.whole_shards) >= n_kills:
            found.seconds = time.perf_counter() - started
            return found
    raise AssertionError


def _ended(members: Sequence[Any], seconds: float | None) -> bool:
    """Return whether all processes ended in time."""
    until = None if seconds is None else time.monotonic() + seconds
    for member in members:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not wait([member.sentinel], timeout=left):
            return False
    for member in members:
        member.join()
    return True


def _strike(members: Sequence[Any], rng: np.random.Generator) -> bool:
    """Kill both processes at once, or one and later, as a launcher does, the other."""
    order = rng.permutation(len(members))
    both = bool(rng.random() < 0.5)
    members[order[0]].kill()
    if not both:
        _ended([members[order[1]]], float(rng.uniform(0, 0.5)))
    members[order[1]].kill()
    for member in members:
        member.join()
    return both


def _remade(before: dict[str, int], after: dict[str, int]) -> int:
    return sum(after.get(shard) != moment for shard, moment in before.items())


def measure_kills(n_rows: int, n_kills: int, seed: int) -> dict[str, Any]:
    """Return what became of runs that were killed."""
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder))
        write_data(setup.folder, n_rows)
        (alone,) = setup.run(1, "alone")
        expected, n_shards = setup.digest("alone"), len(setup.whole_shards("alone"))
        found = kill(setup, n_kills=n_kills, seed=seed, life=3 * alone["seconds"] / n_shards)
    return {
        "rows": n_rows,
        "shards": n_shards,
        "kills": len(found.whole_shards),
        "kills_of_both_processes": found.of_both,
        "kills_before_the_first_shard": sum(n == 0 for n in found.whole_shards),
        "whole_shards_at_each_kill": found.whole_shards,
        "whole_shards_made_again": found.remade,
        "finished_runs": len(found.digests),
        "digest_of_one_process_left_alone": expected,
        "digests_equal": sum(digest == expected for digest in found.digests),
        "one_process_seconds": alone["seconds"],
        "seconds": round(found.seconds, 1),
    }


def measure_speed(n_rows: int, repeats: int, *, detects: bool) -> dict[str, Any]:
    """Return seconds of one process and of two, which take turns on a machine that others use."""
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder), detects=detects)
        write_data(setup.folder, n_rows)
        for i, size in itertools.product(range(repeats), runs):
            load = os.getloadavg()[0]
            used = setup.run(size, f"out{i}-{size}")
            runs[size].append({
                "load_before": round(load, 2),
                "seconds": max(one["seconds"] for one in used),
                "cpu_seconds": [one["cpu_seconds"] for one in used],
            })  # fmt: skip
        equal = len({setup.digest(f"out{i}-{s}") for i in range(repeats) for s in runs}) == 1
        n_bytes = sum(p.stat().st_size for p in (setup.folder / "out0-1" / "data").iterdir())
    clock = {size: min(run["seconds"] for run in found) for size, found in runs.items()}
    # The slower of two decides when the run ends; on free cores it takes its processor time.
    slowest = {size: min(max(run["cpu_seconds"]) for run in found) for size, found in runs.items()}
    return {
        "rows": n_rows,
        "faces": "looked for" if detects else "at a fixed place",
        "rows_per_cpu_second_of_one": round(n_rows / slowest[1], 1),
        "efficiency_of_two_by_cpu_seconds": round(slowest[1] / (2 * slowest[2]), 3),
        "efficiency_of_two_by_the_clock": round(clock[1] / (2 * clock[2]), 3),
        "bytes_per_revised_row": round(n_bytes / n_rows),
        "digests_equal": equal,
        "runs": {str(size): found for size, found in runs.items()},
    }


def measure_memory(counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the largest memory of one process that covers faces with a patch of one colour."""
    found = []
    for n_rows in counts:
        with tempfile.TemporaryDirectory() as folder:
            setup = Setup(Path(folder), backend="solid")
            # In a process of its own: what is measured starts with what this one holds.
            writing = _FORK.Process(target=write_data, args=(setup.folder, n_rows))
            writing.start()
            writing.join()
            (used,) = setup.run(1, "out")
        found.append({"rows": n_rows, "backend": "solid", **used})
    return found


def main() -> None:
    """Measure what was asked for and put it into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("parts", nargs="+", choices=("kill", "speed", "memory"))
    add("--rows", type=int, default=2000)
    add("--kills", type=int, default=50)
    add("--seed", type=int, default=0)
    add("--speed-rows", type=int, default=1024)
    add("--repeats", type=int, default=2)
    add("--detect", action="store_true", help="look for the faces when measuring speed")
    add("--memory-rows", type=int, nargs="*", default=[1000, 20_000])
    add("--out", type=Path, default=ROOT / "docs" / "results" / "revise_scale.json")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        result = json.loads(options.out.read_text(encoding="utf-8"))
    result |= {"machine": platform.machine(), "cores": os.cpu_count(), "threads": 1}
    result |= {"torch": torch.__version__, "photos": "160 px JPEG, one face each"}
    for part in options.parts:
        if part == "kill":
            result[part] = measure_kills(options.rows, options.kills, options.seed)
        elif part == "speed":
            result[part] = measure_speed(
                options.speed_rows, options.repeats, detects=options.detect
            )
        else:
            result[part] = measure_memory(options.memory_rows)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
