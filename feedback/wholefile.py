"""Files that appear whole or not at all, for their owner only; knows nothing of their content."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from feedback.errors import ExportError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lend a draft beside `path`, of mode 600, that takes its place only after success.

    On return the file outlasts a crash of the machine, not only of the process.

    Raises:
        ExportError: The file cannot be written; what was there before is unchanged.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield draft
        _keep(draft)
        draft.replace(path)
        _keep(path.parent)
    except OSError as error:
        raise ExportError(
            f"{path} must be a file in a folder that can be written, got: {error.strerror}. "
            "Nothing was written; choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
