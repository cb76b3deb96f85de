"""Rows as everything else reads them, and the digest that tells one data set from another.

Knows columns and encoded pictures; not where rows come from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privacy_core.errors import InvalidArgumentError


@dataclass(frozen=True)
class RowSource:
    """The rows of a data set; they can be iterated more than once, always in the same order.

    A row is a dictionary of its columns in which the picture is the bytes of its file, or None
    where the row has none. A picture that a row names by its path is read from a few folders only,
    and from none unless some are given: a path in a table is someone else's word.

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
    _folders: tuple[Path, ...] = field(default=(), repr=False)
    features: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    is_local: bool = True

    def __len__(self) -> int:
        return self.n_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield every row.

        Raises:
            InvalidArgumentError: A row names a file that cannot be read or is none of the data's.
        """
        for number, row in enumerate(self._rows):
            yield {**row, self.image_column: self._encoded(row[self.image_column], number)}

    def digest(self) -> str:
        """Return the SHA-256 over every row, the picture and all other columns, in hex.

        The same rows have the same digest however they are stored.

        Raises:
            InvalidArgumentError: See `__iter__`.
        """
        total = hashlib.sha256()
        for row in self:
            total.update(row_digest(row, self.image_column))
        return total.hexdigest()

    def _encoded(self, value: Any, number: int) -> bytes | None:
        if not isinstance(value, Mapping):
            return value if value is None else bytes(value)
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = value.get("path") if self._folders else None
        return None if path is None else self._read(path, number)

    def _read(self, path: str, number: int) -> bytes:
        """Return the file at an absolute path in one of the folders, links in it followed."""
        file = Path(os.path.normpath(path))
        reason = "is in an archive" if "://" in path else "is not in the data set's own folder"
        if file.is_absolute() and any(file.is_relative_to(folder) for folder in self._folders):
            try:
                return file.read_bytes()
            except (OSError, ValueError) as error:
                reason = f"cannot be read ({type(error).__name__})"
        raise InvalidArgumentError(
            f"`DATA` must hold its pictures in its rows, or name files of its own that can be "
            f"read, got {path!r} in row {number} of {self.name!r}, which {reason}. Embed the "
            "pictures in parquet files, as `push_to_hub` does, or name a folder of pictures."
        )


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
