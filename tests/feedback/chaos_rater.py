"""Raters that may be killed at any moment: a process that forks one for each line it reads.

Importing takes longer than a rater lives, so it is done once. A line names a replica, its folder
and a seed; a rater prints the ids of each page after the store acknowledged it, and before and
after it takes one back or erases who gave it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from feedback import (
    Answer,
    Consent,
    Page,
    Rater,
    Rating,
    RatingStore,
    Shown,
    new_id,
    rows_of_page,
)
from feedback.columns import features
from feedback.dataset.shard import read_shard, shard_bytes
from feedback.remote.dataset_remote import DatasetRemote
from feedback.sync.compaction import CompactionSettings
from feedback.sync.loop import Sync
from feedback.sync.rhythm import SyncSettings

REPO = "anna/ratings"
ANNA = "hf_anna"
SHARE_UNDONE = 0.06
SHARE_ERASED = 0.04
SETTINGS = SyncSettings(
    floor_seconds=0.0,
    idle_seconds=0.05,
    backoff_seconds=0.01,
    backoff_cap_seconds=0.1,
    refused_seconds=0.05,
    max_shard_rows=50,
    compaction=CompactionSettings(every_seconds=1.0, max_files=12, lease_seconds=1.0),
)


def page_and_rows():
    now = datetime.now(UTC)
    page = Page(
        session_id=new_id(),
        photo_id=new_id(),
        method="embedded",
        model_revision="1",
        shown=(Shown(0.2), Shown(0.8)),
        source="synthetic_face",
        app_version="0.1.0",
        expires_at=now + timedelta(hours=1),
    )
    answer = Answer(
        best=1, just_right=2, best_ms=900, just_right_ms=700, client="web", answered_at=now
    )
    rater, consent = Rater(new_id(), 1), Consent("1", "aggregate")
    return page, rows_of_page(page, answer, rater=rater, consent=consent, key=b"k" * 32)


def sync_of(store: RatingStore, endpoint: str) -> Sync:
    known = store.is_remote_known(f"the private dataset {REPO}")
    remote = DatasetRemote(REPO, token=ANNA, endpoint=endpoint, is_known=known, call_seconds=5.0)
    return Sync(store, remote, settings=SETTINGS)


def tell(word: str, name: str, rows: tuple[Rating, ...]) -> None:
    """Say in one write, so that a kill cuts no line, what became of rows."""
    os.write(1, f"{word} {name} {' '.join(row.rating_id for row in rows)}\n".encode())


def rate(name: str, folder: str, seed: int, endpoint: str) -> None:
    """Answer pages until killed; take some back, and erase some of those who answered."""
    generator = np.random.default_rng(seed)
    store = RatingStore(Path(folder) / "ratings.sqlite3")
    sync = sync_of(store, endpoint)
    sync.start()
    while True:
        page, rows = page_and_rows()
        store.add_page(page, rows)
        tell("kept", name, rows)
        choice = generator.random()
        if choice < SHARE_UNDONE:
            tell("asked", name, rows)
            store.undo([row.rating_id for row in rows], rater_id=rows[0].rater_id)
            tell("undone", name, rows)
        elif choice < SHARE_UNDONE + SHARE_ERASED:
            tell("asked", name, rows)
            sync.erase_locally([rows[0].rater_id])
            tell("erased", name, rows)
        sync.wake()
        time.sleep(0.04 * generator.random())


def main(endpoint: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    features()
    read_shard(shard_bytes(page_and_rows()[1]), path="warm")
    for line in sys.stdin:
        name, folder, seed = line.split()
        pid = os.fork()
        if pid == 0:
            rate(name, folder, int(seed), endpoint)
        os.write(1, f"started {name} {pid}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
