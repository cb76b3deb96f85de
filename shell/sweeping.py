"""Deletes what lies in the page's folder for too long, whoever put it there; knows no page.

Gradio deletes files that one of its components still knows of. It knows nothing of an upload that
broke off, nor of the files of a component that it made anew for one visitor, as it does whenever
a label or a text is changed; and its own round ends for good where a file comes in during it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path


class Sweeper:
    """Deletes old files, and the folders that they leave empty.

    Args:
        folder: Where uploads and pictures lie.
        seconds: How long a file stays after it was last changed.
        spared: Files that stay.
        known: Paths that are forgotten with their files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        spared: Iterable[str] = (),
        known: set[str] | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._seconds = seconds
        self._spared = frozenset(str(Path(path).absolute()) for path in spared)
        self._known = set() if known is None else known

    def sweep(self) -> int:
        """Delete what is old now, and return how many files that were."""
        before, deleted = time.time() - self._seconds, set()
        for folder, _, names in os.walk(self._folder, topdown=False):
            place = Path(folder)
            for path in [place / name for name in names]:
                # Whatever is gone already is as it should be.
                with contextlib.suppress(OSError):
                    if str(path) not in self._spared and path.lstat().st_ctime < before:
                        path.unlink()
                        deleted.add(str(path))
            # A new folder may be about to get its file; one that is not empty cannot be removed.
            with contextlib.suppress(OSError):
                if place != self._folder and place.lstat().st_ctime < before:
                    place.rmdir()
        # What was sent again in the meantime is known anew.
        self._known -= {path for path in deleted if not os.path.lexists(path)}
        return len(deleted)


@contextlib.contextmanager
def sweeping(sweeper: Sweeper, *, every: float) -> Iterator[None]:
    """Sweep in the background as long as the block runs.

    Args:
        sweeper: What is asked.
        every: Seconds between two rounds.
    """
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(every):
            sweeper.sweep()

    thread = threading.Thread(target=run, name="sweeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
