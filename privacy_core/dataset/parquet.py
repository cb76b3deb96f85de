"""Rows of parquet files, a few at a time, in the form in which `datasets` gives them.

Knows files and columns; no picture. `datasets` itself reads such files through a scanner that
runs ahead of its reader, by up to a gigabyte, whatever it is asked: memory grows with the file.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features
from datasets.table import table_cast
from pyarrow import parquet

_SHARD = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}\.parquet")
_ROWS_AT_ONCE = 64
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class ParquetRows:
    """The rows of one split; they can be iterated more than once.

    Attributes:
        files: In order.
        num_rows: Number of rows of all files.
        features: Column → what `datasets` says of it.
    """

    files: tuple[str, ...]
    num_rows: int
    features: Features = field(repr=False)

    @classmethod
    def open(cls, files: Sequence[str]) -> ParquetRows:
        """Read the footers of all files, and nothing else, which finds the damaged ones."""
        n_rows = sum(parquet.read_metadata(file).num_rows for file in files)
        return cls(tuple(files), n_rows, Features.from_arrow_schema(parquet.read_schema(files[0])))

    def cast_column(self, name: str, feature: Any) -> ParquetRows:
        """Return the same rows with one column read in another way."""
        return replace(self, features=Features({**self.features, name: feature}))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        schema = self.features.arrow_schema
        for file in self.files:
            with parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
                for batch in opened.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                    yield from table_cast(pa.Table.from_batches([batch]), schema).to_pylist()


def parquet_files(name: str) -> list[str]:
    """Return the parquet files that a file, a folder or a pattern names, in order."""
    path = Path(name)
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*.parquet") if file.is_file())
    if path.is_file():
        return [name] if path.suffix == ".parquet" else []
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  (absolute patterns too)
    return [match for match in matches if match.endswith(".parquet") and Path(match).is_file()]


def by_split(files: Sequence[str]) -> dict[str, list[str]]:
    """Return split → files where every file is named as `datasets` names shards, else nothing."""
    shards = [_SHARD.fullmatch(Path(file).name) for file in files]
    found: dict[str, list[str]] = {}
    for file, shard in zip(files, shards, strict=True):
        if shard and all(shards):
            found.setdefault(shard["split"], []).append(file)
    return found
