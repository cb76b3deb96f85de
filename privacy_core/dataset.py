"""DATA → rows: parquet, a folder of pictures, a `save_to_disk` folder, or a Hub id.

Pictures stay encoded until someone reads them with `read_photo`; local data is never copied into
a cache. Knows no face and no model.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Image, load_dataset, load_from_disk
from pyarrow import parquet

from privacy_core.errors import InvalidArgumentError

PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_KINDS = (
    "a parquet file, a folder or pattern of them, a folder of pictures, a `save_to_disk` folder, "
    "or a Hub id with its revision"
)


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
            image = row.pop(self.image_column)
            picture = "none" if image is None else hashlib.sha256(image).hexdigest()
            rest = json.dumps(row, sort_keys=True, default=_plain)
            total.update(hashlib.sha256(f"{picture} {rest}".encode()).digest())
        return total.hexdigest()

    def _encoded(self, value: Any) -> bytes | None:
        if not isinstance(value, Mapping):
            return value if value is None else bytes(value)
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        # A path in a table is someone else's word; only folders of pictures are read by path.
        path = value.get("path") if self._reads_paths else None
        return None if path is None else Path(path).read_bytes()


def read_dataset(
    source: str | Path,
    *,
    image_column: str = "image",
    revision: str | None = None,
    split: str | None = None,
    load_from_hub: Callable[..., Any] | None = None,
) -> RowSource:
    """Open a data set.

    Args:
        source: A parquet file, a folder or glob pattern of them, a folder of pictures, a
            `save_to_disk` folder, or a Hub id.
        image_column: The column that holds the picture.
        revision: Commit, tag or branch of a Hub id; nothing else takes one.
        split: Which split to read, needed where there are several.
        load_from_hub: In place of `datasets.load_dataset`.

    Raises:
        InvalidArgumentError: There is nothing to read there, it is damaged or has no rows, or it
            has no such split or image column.
    """
    name = str(source)
    try:
        rows, n_rows, is_by_path = _open(name, revision, load_from_hub, split)
        columns = dict(rows.features)
    except InvalidArgumentError:
        raise
    # What `datasets` and Arrow raise on damaged files is any of these.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InvalidArgumentError(
            f"`DATA` must be {_KINDS}, got {name!r}, which cannot be read "
            f"({type(error).__name__}). Copy it again or write it anew."
        ) from error
    if n_rows == 0:
        raise InvalidArgumentError(
            f"`DATA` must have at least one row, got {name!r} with none. Check how it was made."
        )
    if not _holds_pictures(columns.get(image_column)):
        pictures = [column for column in columns if _holds_pictures(columns[column])]
        raise InvalidArgumentError(
            f"`image_column` must name a column of encoded pictures, got {image_column!r}; "
            f"{name!r} has the columns {', '.join(columns)}. "
            + (f"Try {pictures[0]!r}." if pictures else "Add a column of encoded pictures.")
        )
    return RowSource(
        name, image_column, tuple(columns), n_rows, _undecoded(rows, image_column), is_by_path
    )


def _open(
    name: str, revision: str | None, load_from_hub: Callable[..., Any] | None, split: str | None
) -> tuple[Any, int, bool]:
    """Return rows, their number, and whether pictures are files of their own."""
    path = Path(name)
    if not path.exists() and _HUB_ID.fullmatch(name):
        rows = _one_split(_from_hub(name, revision, load_from_hub), split, name)
        return rows, rows.num_rows, True
    if revision is not None:
        raise InvalidArgumentError(
            f"`revision` must be left out unless `DATA` is a Hub id, got {revision!r} with "
            f"{name!r}. Leave it out."
        )
    files = _parquet_files(name)
    if files:
        return _from_parquet(files)
    if not path.is_dir():
        raise InvalidArgumentError(f"`DATA` must be {_KINDS}, got {name!r}. Check the path.")
    return _from_folder(path, split)


def _parquet_files(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*.parquet") if file.is_file())
    if path.is_file():
        return [name] if path.suffix == ".parquet" else []
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  (absolute patterns too)
    return [match for match in matches if match.endswith(".parquet") and Path(match).is_file()]


def _from_parquet(files: list[str]) -> tuple[Any, int, bool]:
    # Opening each file first finds the damaged ones; nothing but their footers is read.
    n_rows = sum(parquet.ParquetFile(file).metadata.num_rows for file in files)
    rows = load_dataset("parquet", data_files=files, split="train", streaming=True)
    return rows, n_rows, False


def _from_folder(path: Path, split: str | None) -> tuple[Any, int, bool]:
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        rows = _one_split(load_from_disk(str(path)), split, str(path))
        return rows, rows.num_rows, False
    if not any(file.suffix.lower() in PICTURES for file in path.rglob("*")):
        raise InvalidArgumentError(
            f"`DATA` must be {_KINDS}, got the folder {str(path)!r} with neither pictures nor "
            "parquet files. Check the path."
        )
    splits = load_dataset("imagefolder", data_dir=str(path), streaming=True)
    rows = _one_split(splits, split, str(path))
    n_rows = sum(1 for _ in rows.cast_column("image", Image(decode=False)))
    return rows, n_rows, True


def _from_hub(name: str, revision: str | None, load: Callable[..., Any] | None) -> Any:
    if revision is None:
        raise InvalidArgumentError(
            f"`revision` must name the commit, tag or branch of the Hub id {name!r}, got none. "
            f"Give one, or check the path if {name!r} was meant to be a folder."
        )
    try:
        return (load or load_dataset)(name, revision=revision)
    except ConnectionError as error:
        raise InvalidArgumentError(
            f"`DATA` must be a path that exists or a Hub id that can be reached, got {name!r} and "
            "no answer from the Hub. Check the connection, or name a folder with a copy."
        ) from error
    except FileNotFoundError as error:
        raise InvalidArgumentError(
            f"`DATA` must be a path or a data set on the Hub that you may read, got {name!r} at "
            f"revision {revision!r}, which was not found. Check both, and log in if it is private."
        ) from error


def _one_split(data: Any, split: str | None, name: str) -> Any:
    """Return the split asked for, or the only one."""
    if not isinstance(data, Mapping):
        if split is None:
            return data
        raise InvalidArgumentError(
            f"`split` must be left out where there are none, got {split!r} with {name!r}."
        )
    if split is None and len(data) == 1:
        return next(iter(data.values()))
    if split not in data:
        raise InvalidArgumentError(
            f"`split` must be one of {', '.join(data)} for {name!r}, got {split!r}. Name one."
        )
    return data[split]


def _holds_pictures(feature: Any) -> bool:
    if isinstance(feature, Image):
        return True
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return getattr(feature, "dtype", None) in {"binary", "large_binary"}


def _undecoded(rows: Any, image_column: str) -> Any:
    return rows.cast_column(image_column, Image(decode=False))


def _plain(value: Any) -> str:
    """Return a column value that JSON does not know, such as bytes or a date, as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
