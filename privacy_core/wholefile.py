"""Files that appear whole or not at all; knows nothing of their content."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Lend an empty draft beside `path` that takes its place only after success.

    Several processes may do so at once; the last one's file stays.

    Args:
        path: Where the file is to be.
        mode: Its permissions, less the process's mask.

    Raises:
        OSError: It cannot be written; what was there is unchanged and no draft is left.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield draft
        draft.replace(path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
