"""Runs one command as a process of its own: heard line by line, and killed whole when asked.

Knows no command. A line ends with a newline or, as in progress bars, with a carriage return.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_LOOK_SECONDS = 0.1
_AT_ONCE = 65_536
_LONGEST_LINE = 4_096
_NICENESS = 10


def run_command(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    hear: Callable[[str], None],
    stop: Callable[[], bool],
) -> int | None:
    """Run a command to its end and return its exit code, None where it was stopped.

    Args:
        arguments: The program and what it is given; no shell reads them.
        folder: Where it runs.
        environment: All that it sees of it.
        hear: Called with each line it writes to stderr; what it writes to stdout is dropped.
        stop: Asked ten times a second; True kills it and all that it started.
    """
    process = subprocess.Popen(  # noqa: S603 - a list, and never one from a request
        list(arguments),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        with contextlib.suppress(OSError):  # It may be over already.
            # The page itself comes first.
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        for line in _lines(process, stop):
            hear(line)
        while not stop():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_LOOK_SECONDS)
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _lines(process: subprocess.Popen[bytes], stop: Callable[[], bool]) -> Iterator[str]:
    """Yield what the process says until it says no more, or is to be stopped."""
    if process.stderr is None:
        return
    rest, pipe = b"", process.stderr.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not stop():
            if not selector.select(_LOOK_SECONDS):
                continue
            heard = os.read(pipe, _AT_ONCE)
            *lines, rest = (rest + heard).replace(b"\r", b"\n").split(b"\n")
            if not heard:
                lines = [rest]
            for line in lines:
                if text := line.decode("utf-8", "replace").strip():
                    yield text
            if not heard:
                return
            rest = rest[-_LONGEST_LINE:]
