"""Stores with a clock that is set, and the ways to fill and compare them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from feedback.schema import Rating
from feedback.store.log import RatingStore
from feedback.sync.loop import Sync
from feedback.sync.reading import live_ratings


class Clock:
    """A clock that stands still until it is set; also one of seconds."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


@dataclass
class Replica:
    """One store folder, its ways to the remote, and what it was given."""

    world: Any
    folder: Path
    remote: Any
    clock: Clock
    settings: Any = None
    answered: list[Rating] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a new process on the same disk."""
        self.store = RatingStore(self.folder / "ratings.sqlite3", clock=self.clock)
        self.sync = Sync(
            self.store,
            self.remote,
            settings=self.settings,
            monotonic=self.clock.monotonic,
            sleep=self.clock.sleep,
            uniform=lambda: 0.5,
        )

    def answer(self, rater: Any = None, *, n_pages: int = 1) -> tuple[Rating, ...]:
        """Keep answered pages and return their rows."""
        rows: list[Rating] = []
        for _ in range(n_pages):
            page = self.world.page(expires_at=self.clock.now + timedelta(hours=2))
            rows += self.world.rows(page, rater, answered_at=self.clock.now)
            self.store.add_page(page, rows[-5:])
        self.answered += rows
        return tuple(rows)

    def rows_there(self) -> list[Rating]:
        """Return what anyone reads from the remote."""
        return live_ratings(self.remote, self.remote.snapshot())[0]


def erase(store: RatingStore, rater_id: str) -> int:
    """Remove a rater's rows down to their bytes, and return how many those were."""
    n_removed = store.remove_raters([rater_id])
    store.scrub()
    return n_removed


def ids(rows: Any) -> list[str]:
    """Return the rating ids, sorted."""
    return sorted(row.rating_id for row in rows)


def raw_ids(remote: Any) -> list[str]:
    """Return the ids in all shards, not deduplicated, sorted."""
    from feedback.dataset.shard import read_shard
    from feedback.sync.layout import shards_in

    snapshot = remote.snapshot()
    return sorted(
        row.rating_id
        for path in shards_in(snapshot.files)
        for row in read_shard(remote.read(snapshot, path), path=path)
    )


def bytes_of(folder: Path) -> bytes:
    """Return the bytes of every file of a folder."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())
