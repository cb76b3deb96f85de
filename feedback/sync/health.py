"""How the ratings are: what is only here, what the remote has, what went wrong; only values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Health:
    """The state of a store and its way to a remote.

    Attributes:
        remote: The remote's name.
        keeps: Whether it keeps what it gets; False where there is none.
        outbox_rows: Ratings that are only on this disk.
        in_remote_rows: Ratings that the remote has too.
        sync_lag_seconds: Age of the oldest rating that is only here, 0 if there is none.
        last_success: When the remote was last reached with success, UTC.
        last_error: What went wrong since, one sentence fit for a visitor; None if nothing did.
        retry_at: When a remote that failed is tried again, UTC.
        foreign_shards: Files in the remote that are damaged or not ours, left alone.
        pending_erasures: Raters who are erased here and not yet, verified, in the remote.
        restored_rows: Ratings brought back from the remote; None before that was tried.
        unreadable_rows: Ratings in the store that break a rule and are carried nowhere.
    """

    remote: str
    keeps: bool
    outbox_rows: int
    in_remote_rows: int
    sync_lag_seconds: float
    last_success: datetime | None = None
    last_error: str | None = None
    retry_at: datetime | None = None
    foreign_shards: tuple[str, ...] = ()
    pending_erasures: int = 0
    restored_rows: int | None = None
    unreadable_rows: int = 0

    def sentence(self) -> str:
        """Return the state in words."""
        if not self.keeps:
            n_rows = self.outbox_rows + self.in_remote_rows
            parts = [f"{n_rows} ratings are kept on this disk only"]
        elif self.outbox_rows:
            parts = [
                f"{self.outbox_rows} ratings wait to be copied to {self.remote}, the oldest for "
                f"{self.sync_lag_seconds:.0f} s; {self.in_remote_rows} "
                f"{'were there when last seen' if self.last_error else 'are there'}"
            ]
        elif self.last_error:
            parts = [f"All {self.in_remote_rows} ratings were in {self.remote} when last seen"]
        else:
            parts = [f"All {self.in_remote_rows} ratings are in {self.remote}"]
        if self.pending_erasures and self.keeps:
            parts.append(f"{self.pending_erasures} erasures are still to be finished there")
        if self.foreign_shards:
            parts.append(
                f"{len(self.foreign_shards)} files there cannot be read and were left alone"
            )
        if self.unreadable_rows:
            parts.append(
                f"{self.unreadable_rows} ratings here break a rule: run `python -m feedback "
                "validate`"
            )
        text = ". ".join(parts) + "."
        return f"{text} {self.last_error}" if self.last_error else text

    def as_record(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        record = asdict(self) | {"foreign_shards": list(self.foreign_shards)}
        for name in ("last_success", "retry_at"):
            record[name] = record[name] and record[name].isoformat(timespec="seconds")
        return record
