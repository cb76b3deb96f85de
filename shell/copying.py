"""The copy of the ratings while the app runs: where it goes, when it ends, what is told of it.

Knows no page. Ratings are safe on this disk whatever happens here.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from feedback import DATABASE_NAME, FeedbackError, RatingStore
from feedback.columns import SCHEMA_VERSION
from feedback.remote.base import NullRemote, Remote
from feedback.remote.opening import open_remote
from feedback.sync.loop import Sync
from shell.desk import VERSION

FLUSH_SECONDS = 6.0
"""Time to copy what waits when the app is stopped; the rest of ten seconds is for ending."""
WATCH_SECONDS = 5.0
_LIBRARIES = ("gradio", "torch", "huggingface_hub")
_STORE_FAULT = (
    "The store of ratings must be whole, writable and free, got it otherwise. What is wrong, and "
    "what to do, is in the app's log."
)
_IN_LOG = "(named in the app's log)"
_NAMING = re.compile(r"(?<!\S)(?!NAME/REPO\b)\S*[/\\](?:\S*[^\s.,;:])?|'\w+'")
"""A path, a repository's name, or a word that somebody gave; not the form of such a name."""


def open_copy(
    store: RatingStore,
    *,
    dataset: str | None = None,
    bucket: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> tuple[Remote, str | None]:
    """Return where ratings are copied to, and what is wrong with how it was named.

    A remote that cannot be named is none: the app starts, and says so.

    Args:
        store: Remembers which remote it has seen.
        dataset: NAME/REPO of a private dataset.
        bucket: NAME/BUCKET of a private bucket.
        token: With the right to write there.
        endpoint: Of another Hub.
    """
    named = functools.partial(
        open_remote, dataset=dataset, bucket=bucket, token=token, endpoint=endpoint
    )
    try:
        remote = named()
        if remote.keeps and store.is_remote_known(remote.name):
            remote = named(is_known=True)
    except FeedbackError as error:
        return NullRemote(), f"{error} Until then ratings are kept on this disk only."
    return remote, None


@contextlib.contextmanager
def running(sync: Sync) -> Iterator[None]:
    """Copy in the background, say on stderr what goes wrong, and copy what is left at the end."""
    stopped = threading.Event()
    sync.start()
    threading.Thread(target=_watch, args=[sync, stopped], name="copy-watch", daemon=True).start()
    try:
        yield
    finally:
        # A second signal must not cut the copying short; it ends by itself.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopped.set()
        health = sync.stop(flush_seconds=FLUSH_SECONDS)
        if health.keeps:
            sys.stderr.write(f"{health.sentence()}\n")


@dataclass(frozen=True)
class Load:
    """How busy the page is.

    Attributes:
        queue_length: Calls that wait for their turn.
        queue_limit: Beyond it the next one is refused.
        refused_requests: Refused since the start, as somebody asked for too much at a time.
    """

    queue_length: int
    queue_limit: int
    refused_requests: int


def health_report(
    sync: Sync,
    *,
    fault: str | None,
    kind: str,
    model: str,
    load: Callable[[], Load] | None = None,
) -> dict[str, Any]:
    """Return what `GET /health` tells anyone: versions, counts and times, no name, no secret.

    Args:
        sync: Carries the ratings.
        fault: From `open_copy`.
        kind: What the remote is: "dataset", "bucket" or "none".
        model: Revision of the model, a digest of its weights.
        load: How busy the page is, None where there is none.
    """
    health = sync.health()
    record = health.as_record()
    told = ("sync_lag_seconds", "outbox_rows", "in_remote_rows", "last_success", "retry_at")
    return {
        "versions": {
            "app": VERSION,
            "schema": SCHEMA_VERSION,
            **{name: version(name) for name in _LIBRARIES},
        },
        "model": model,
        "remote": kind,
        **{name: record[name] for name in told},
        "pending_erasures": health.pending_erasures,
        "foreign_shards": len(health.foreign_shards),
        "unreadable_rows": health.unreadable_rows,
        "last_error": _unnamed(fault or health.last_error, health.remote),
        **(asdict(load()) if load else {}),
    }


def _unnamed(sentence: str | None, remote: str) -> str | None:
    """Return what went wrong without the names and places in it: those are for the log.

    Args:
        sentence: Fit for whoever runs the app.
        remote: Its name, "the private dataset name/repo".
    """
    if sentence is None:
        return None
    if DATABASE_NAME in sentence:
        return _STORE_FAULT
    if "/" in remote:  # Without its first letter, which may begin the sentence.
        sentence = sentence.replace(remote[1:], remote[1:].rpartition(" ")[0])
    return _NAMING.sub(_IN_LOG, sentence)


def _watch(sync: Sync, stopped: threading.Event) -> None:
    said = None
    while not stopped.wait(WATCH_SECONDS):
        error = sync.health().last_error
        if error and error != said:
            sys.stderr.write(f"The copy of the ratings: {error}\n")
        said = error
