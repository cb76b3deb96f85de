"""Rows as everything else reads them, and the digest that tells one data set from another.

Knows columns and encoded pictures; not where rows come from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RowSource:
    """The rows of a data set; they can be iterated more than once, always in the same order.

    A row is a dictionary of its columns in which the picture is the bytes of its file, or None
    where the row has none.

    Attributes:
        name: What was asked for.
        image_column: The column that holds the picture.
        column_names: All columns.
        n_rows: Number of rows, at least 1.
        features: Column → what `datasets` says of it.
        files: What the rows are read from, on this machine; of a Hub id the cached copies.
        split: The split asked for, None where none was.
        other_splits: Names of the splits beside it.
        is_local: Whether `files` are the data set itself rather than copies of it.

    Example:
        >>> source = RowSource("two", "image", ("image",), 2, [{"image": b"1"}, {"image": b"2"}])
        >>> [row["image"] for row in source]
        [b'1', b'2']
    """

    name: str
    image_column: str
    column_names: tuple[str, ...]
    n_rows: int
    _rows: Iterable[Mapping[str, Any]] = field(repr=False)
    _reads_paths: bool = False
    features: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    is_local: bool = True

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            yield {**row, self.image_column: self._encoded(row[self.image_column])}

    def digest(self) -> str:
        """Return the SHA-256 over every row, the picture and all other columns, in hex.

        The same rows have the same digest however they are stored.
        """
        total = hashlib.sha256()
        for row in self:
            total.update(row_digest(row, self.image_column))
        return total.hexdigest()

    def _encoded(self, value: Any) -> bytes | None:
        if not isinstance(value, Mapping):
            return value if value is None else bytes(value)
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        # A path in a table is someone else's word; only folders of pictures are read by path.
        path = value.get("path") if self._reads_paths else None
        return None if path is None else Path(path).read_bytes()


def row_digest(row: Mapping[str, Any], image_column: str) -> bytes:
    """Return the SHA-256 of one row of a `RowSource`, 32 bytes."""
    rest = {name: value for name, value in row.items() if name != image_column}
    image = row[image_column]
    picture = "none" if image is None else hashlib.sha256(image).hexdigest()
    text = f"{picture} {json.dumps(rest, sort_keys=True, default=_plain)}"
    return hashlib.sha256(text.encode()).digest()


def _plain(value: Any) -> str:
    """Return a column value that JSON does not know, such as bytes or a date, as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
