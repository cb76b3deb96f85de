"""Writing ratings to files that others read: parquet with the `datasets` features, JSON lines.

Knows rows and files, not where the rows come from. A file appears whole or not at all, and is
readable by its owner only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from feedback.columns import COLUMNS, features
from feedback.errors import ExportError
from feedback.schema import Rating

_ROWS_PER_GROUP = 10_000


def write_jsonl(ratings: Iterable[Rating], file: TextIO) -> int:
    """Write one JSON object per line to an open file and return how many."""
    n_rows = 0
    for rating in ratings:
        file.write(rating.as_json() + "\n")
        n_rows += 1
    return n_rows


def export_jsonl(ratings: Iterable[Rating], path: Path) -> int:
    """Write ratings to a file of JSON lines, replacing it, and return how many.

    Raises:
        ExportError: The file cannot be written.
    """
    with _whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        return write_jsonl(ratings, file)


def export_parquet(ratings: Iterable[Rating], path: Path) -> int:
    """Write ratings to a parquet file with the schema of `features`, and return how many.

    `datasets.load_dataset("parquet", data_files=…)` reads it with labels and times as such.

    Raises:
        ExportError: The file cannot be written.
    """
    # Imported here: Arrow is only needed to write parquet.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    schema = features().arrow_schema
    remaining, n_rows = iter(ratings), 0
    with (
        _whole_file(path) as draft,
        pq.ParquetWriter(
            draft,
            schema,
            compression="zstd",
            write_page_index=True,
            use_content_defined_chunking=True,
        ) as writer,
    ):
        while rows := [_arrow_row(rating) for rating in islice(remaining, _ROWS_PER_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            n_rows += len(rows)
    return n_rows


def _arrow_row(rating: Rating) -> dict[str, Any]:
    """Return the row with labels as integers and the time as a time."""
    return {
        c.name: c.labels.index(getattr(rating, c.name)) if c.labels else getattr(rating, c.name)
        for c in COLUMNS
    }


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Lend a draft beside `path`, of mode 600, that takes its place only after success."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield draft
        draft.replace(path)
    except OSError as error:
        raise ExportError(
            f"{path} must be a file in a folder that can be written, got: {error.strerror}. "
            "Nothing was written; choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
