"""Measure the ratings' way: into the store, to a Hub on this machine, back to an empty disk.

Writes `docs/results/ratings.json`. The Hub is the tests' own, in a process of its own, so that only
the client's side is measured on the processor given. Run as `python -m benchmarks.ratings`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import platform
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import trange

from feedback import Answer, Consent, Page, Rater, Rating, RatingStore, Shown, new_id, rows_of_page
from feedback.dataset.shard import read_shard, shard_bytes
from feedback.sync.compaction import CompactionSettings
from feedback.sync.loop import Sync
from feedback.sync.rhythm import SyncSettings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "ratings.json"
REPO = "anna/ratings"
THREADS = 8
ROWS_PER_PAGE = 5
RATERS = 2000
PACED = 1000.0
"""Rows per second that come in the paced measurement, twice what is asked for."""
PACED_PAGES = 250


def answered_pages(n_pages: int) -> Iterator[tuple[Page, tuple[Rating, ...]]]:
    """Yield pages of four variants with random ids, raters and answers."""
    generator = np.random.default_rng(0)
    raters = [Rater(new_id(), 1) for _ in range(RATERS)]
    now = datetime.now(UTC)
    for _ in range(n_pages):
        strengths = generator.permutation(np.arange(1, 21))[:4] / 20
        page = Page(
            session_id=new_id(),
            photo_id=new_id(),
            method="embedded",
            model_revision="0f3c2a",
            shown=tuple(Shown(float(s), epsilon=float(generator.gamma(40))) for s in strengths),
            source="synthetic_face",
            app_version="0.1.0",
            expires_at=now + timedelta(hours=2),
            propensity=float(generator.random()) or 1.0,
        )
        answer = Answer(
            best=int(generator.integers(4)),
            just_right=int(generator.integers(5)),
            best_ms=int(generator.integers(500, 20_000)),
            just_right_ms=int(generator.integers(500, 9_000)),
            client="web",
            answered_at=now,
        )
        rater = raters[int(generator.integers(RATERS))]
        consent = Consent("2026-11", "aggregate")
        yield page, rows_of_page(page, answer, rater=rater, consent=consent, key=b"k" * 32)


def measure_writing(
    path: Path, pages_per_thread: int, rows_per_second: float = math.inf
) -> dict[str, object]:
    """Return how fast eight threads make pages durable.

    Args:
        path: A store to be made.
        pages_per_thread: How many.
        rows_per_second: How many come, in all; by default each thread is as fast as it can.
    """
    period = THREADS * ROWS_PER_PAGE / rows_per_second
    work = [list(answered_pages(pages_per_thread)) for _ in range(THREADS)]
    seconds: list[float] = []
    barrier = threading.Barrier(THREADS + 1)

    def rate(pages: list[tuple[Page, tuple[Rating, ...]]]) -> None:
        mine = []
        barrier.wait()
        start = time.perf_counter()
        for number, (page, rows) in enumerate(pages):
            time.sleep(max(start + number * period - time.perf_counter(), 0))
            begin = time.perf_counter()
            store.add_page(page, rows)
            mine.append(time.perf_counter() - begin)
        seconds.extend(mine)

    with RatingStore(path) as store:
        threads = [threading.Thread(target=rate, args=(pages,)) for pages in work]
        for thread in threads:
            thread.start()
        barrier.wait()
        begin = time.perf_counter()
        for thread in threads:
            thread.join()
        total = time.perf_counter() - begin
    milliseconds = 1000 * np.array(seconds)
    return {
        "threads": THREADS,
        "pages": len(seconds),
        "rows_per_second": round(ROWS_PER_PAGE * len(seconds) / total),
        "page_ms": {
            "median": round(float(np.median(milliseconds)), 2),
            "p99": round(float(np.quantile(milliseconds, 0.99)), 2),
            "longest": round(float(milliseconds.max()), 2),
        },
    }


def _serve(pipe: Connection) -> None:
    # By name: the tests are not part of what is type-checked.
    with importlib.import_module("tests.hub_server").HubServer() as hub:
        hub.add_user("anna", "hf_anna")
        pipe.send(hub.endpoint)
        pipe.recv()


@contextmanager
def running_hub() -> Iterator[str]:
    """Yield the address of a Hub in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join()


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long an action took in seconds, and its result."""
    begin = time.perf_counter()
    result = action()
    return time.perf_counter() - begin, result


def measure_carrying(folder: Path, n_rows: int) -> dict[str, object]:
    """Return times of carrying, health, coming back and compacting."""
    from feedback.remote.dataset_remote import DatasetRemote  # noqa: PLC0415 - after the environment

    settings = SyncSettings(compaction=CompactionSettings(max_files=10_000))
    with running_hub() as endpoint:

        def opened(name: str) -> tuple[RatingStore, Sync]:
            store = RatingStore(folder / name / "ratings.sqlite3")
            remote = DatasetRemote(REPO, token="hf_anna", endpoint=endpoint)  # noqa: S106
            return store, Sync(store, remote, settings=settings)

        store, sync = opened("first")
        pages = answered_pages(n_rows // ROWS_PER_PAGE)
        for _ in trange(n_rows // 500, desc="rows / 500"):
            store.add_rows([row for _ in range(100) for row in next(pages)[1]])
        sync.health()
        health_ms = 1000 * float(np.median([timed(sync.health)[0] for _ in range(200)]))
        sync_s, health = timed(lambda: sync.flush(seconds=600))
        health_after_ms = 1000 * float(np.median([timed(sync.health)[0] for _ in range(200)]))
        again_s, _ = timed(lambda: sync.flush(seconds=600))
        empty, back = opened("second")
        restore_s, n_restored = timed(back.restore)
        compact_s, compaction = timed(sync.compact)
        rows = list(store.ratings())
        receipt_s, receipt = timed(lambda: sync.erase([rows[0].rater_id]))
        store.close()
        empty.close()
    if health.outbox_rows or n_restored != n_rows or not receipt.is_done:
        raise RuntimeError(f"Not everything was carried: {health}")
    encode_s, data = timed(lambda: shard_bytes(rows))
    decode_s, _ = timed(lambda: read_shard(data, path="benchmark"))
    return {
        "rows": n_rows,
        "sync_s": round(sync_s, 2),
        "sync_of_nothing_new_s": round(again_s, 3),
        "restore_s": round(restore_s, 2),
        "compact_s": round(compact_s, 2),
        "compacted_files": [compaction.files_before, compaction.files_after],
        "erase_one_rater_s": round(receipt_s, 2),
        "health_ms": round(health_ms, 3),
        "health_after_ms": round(health_after_ms, 3),
        "encode_s": round(encode_s, 2),
        "decode_s": round(decode_s, 2),
        "bytes_per_row": round(len(data) / n_rows, 1),  # also the megabytes of a million rows
    }


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=1000, help="per thread")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "schema_version": 1,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "processors": len(os.sched_getaffinity(0)),
            "processor_load": round(os.getloadavg()[0], 2),
            "writing": measure_writing(Path(folder) / "full.sqlite3", options.pages),
            "writing_paced": measure_writing(Path(folder) / "paced.sqlite3", PACED_PAGES, PACED),
            "carrying": measure_carrying(Path(folder), options.rows),
        }
    text = json.dumps(result, indent=1)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
