"""How a command writes: everything or nothing; data as JSON on stdout, talk and bars on stderr.

Knows no command and no model.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from privacy_core.errors import InvalidArgumentError, OutputError


def check_file(path: Path, suffix: str, argument: str, photo: str) -> None:
    """Refuse before any work what cannot or must not be written."""
    if path.suffix.lower() != suffix:
        raise InvalidArgumentError(f"`{argument}` must end in {suffix}, got {str(path)!r}.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(
            f"`{argument}` must be a file in a folder you can write to, got {str(path)!r}. "
            "Choose another place."
        )
    if path.exists() and Path(photo).exists() and path.samefile(photo):
        raise InvalidArgumentError(
            f"`{argument}` must not be the photo itself, got {str(path)!r}. Choose another name."
        )


def check_new_folder(out: Path) -> None:
    """Refuse a folder that is not new or not empty."""
    if (out.exists() and not out.is_dir()) or not os.access(out.absolute().parent, os.W_OK):
        raise OutputError(
            f"`--out` must be a new folder in one you can write to, got {str(out)!r}. "
            "Choose another place."
        )
    if out.is_dir() and next(out.iterdir(), None) is not None:
        raise OutputError(
            f"`--out` must be a new or empty folder, got {str(out)!r} with files in it. "
            "Choose another name."
        )


def write_together(files: Sequence[tuple[str, Path, bytes]]) -> None:
    """Write all files or none: each beside its place first, then all renamed."""
    token, argument, path = secrets.token_hex(4), "", Path()
    try:
        with contextlib.ExitStack() as undo:
            ready = []
            for argument, path, data in files:
                ready.append((argument, path, path.parent / f".{path.name}.{token}.part"))
                undo.callback(ready[-1][2].unlink, missing_ok=True)
                ready[-1][2].write_bytes(data)
            for argument, path, temporary in ready:  # noqa: B007  (the message names it)
                temporary.replace(path)
                undo.callback(path.unlink, missing_ok=True)
            undo.pop_all()
    except OSError as error:
        raise unwritable(argument, path, error) from error


def write_folder(out: Path, files: dict[str, bytes]) -> None:
    """Write a folder whole or not at all."""
    temporary = out.absolute().parent / f".{out.absolute().name}.{secrets.token_hex(4)}.part"
    try:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.replace(out)
    except OSError as error:
        raise unwritable("--out", out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def unwritable(argument: str, path: Path, error: OSError) -> OutputError:
    """Return what to raise where a place could not be written."""
    return OutputError(
        f"`{argument}` must be in a place you can write to, got {str(path)!r} "
        f"({error.strerror or type(error).__name__}). Choose another place."
    )


class Progress:
    """One bar per stage, on stderr."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make, self._stage, self._n_done = tqdm, "", 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage != self._stage or done < self._n_done:  # the same stage again
            self._stage, self._bar = stage, self._make(total=total, desc=stage, file=sys.stderr)
        self._bar.update(done - self._bar.n)
        self._n_done = done
        if done >= total:
            self._bar.close()


def as_json(value: object) -> str:
    """Return one JSON object as it is printed and stored."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def say(sentence: str) -> None:
    """Tell the person at the terminal."""
    print(sentence, file=sys.stderr)
