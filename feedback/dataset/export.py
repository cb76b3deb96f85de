"""Writing ratings to files that others read: parquet as `datasets` has it, JSON lines, CSV.

Knows rows and files, not where the rows come from. A file appears whole or not at all, and is
readable by its owner only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TextIO

from feedback.columns import COLUMNS, features
from feedback.dataset.shard import parquet_writer, table_of
from feedback.schema import Rating
from feedback.wholefile import whole_file

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
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        return write_jsonl(ratings, file)


def export_parquet(ratings: Iterable[Rating], path: Path) -> int:
    """Write ratings to a parquet file with the schema of `features`, and return how many.

    `datasets.load_dataset("parquet", data_files=…)` reads it with labels and times as such.

    Raises:
        ExportError: The file cannot be written.
    """
    remaining, n_rows = iter(ratings), 0
    with (
        whole_file(path) as draft,
        parquet_writer(draft, features().arrow_schema) as writer,
    ):
        while rows := list(islice(remaining, _ROWS_PER_GROUP)):
            writer.write_table(table_of(rows))
            n_rows += len(rows)
    return n_rows


def write_csv(ratings: Iterable[Rating], file: TextIO) -> int:
    """Write ratings as CSV (RFC 4180) with a header to an open file and return how many.

    Labels are written by name, times in ISO 8601, flags as true and false, null as nothing; no
    text of a row is ever empty. The file must be opened with `newline=""`.
    """
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow([column.name for column in COLUMNS])
    n_rows = 0
    for rating in ratings:
        writer.writerow(map(_csv_cell, rating.as_record().values()))
        n_rows += 1
    return n_rows


def export_csv(ratings: Iterable[Rating], path: Path) -> int:
    """Write ratings to a CSV file, replacing it, and return how many.

    Raises:
        ExportError: The file cannot be written.
    """
    with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        return write_csv(ratings, file)


def _csv_cell(value: object) -> object:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value
