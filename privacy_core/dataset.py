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
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from datasets import Audio, Image, Video, load_dataset, load_dataset_builder, load_from_disk
from pyarrow import parquet
from pyarrow.dataset import ParquetFragmentScanOptions

from privacy_core.errors import InvalidArgumentError

_MEDIA = (Audio, Image, Video)
_SHARD = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}\.parquet")
_ROWS_AT_ONCE = 64
PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_PATH = re.compile(r"hf://datasets/(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/?")
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


@dataclass(frozen=True)
class _Opened:
    """Rows of one split as `datasets` gives them, and where they come from."""

    rows: Any
    n_rows: int
    files: tuple[Path, ...]
    splits: tuple[str, ...] = ()
    reads_paths: bool = False
    is_local: bool = True


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
            `save_to_disk` folder, a Hub id, or hf://datasets/ before a Hub id, with @REVISION
            after it or without.
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
        opened = _open(name, revision, load_from_hub, split)
        columns = dict(opened.rows.features)
    except InvalidArgumentError:
        raise
    # What `datasets` and Arrow raise on damaged files is any of these.
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InvalidArgumentError(
            f"`DATA` must be {_KINDS}, got {name!r}, which cannot be read "
            f"({type(error).__name__}). Copy it again or write it anew."
        ) from error
    if opened.n_rows == 0:
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
        name,
        image_column,
        tuple(columns),
        opened.n_rows,
        _undecoded(opened.rows, image_column),
        opened.reads_paths,
        MappingProxyType(columns),
        opened.files,
        split,
        tuple(other for other in opened.splits if other != split and len(opened.splits) > 1),
        opened.is_local,
    )


def _open(
    name: str, revision: str | None, load_from_hub: Callable[..., Any] | None, split: str | None
) -> _Opened:
    path = Path(name)
    if name.startswith("hf://") or (not path.exists() and _HUB_ID.fullmatch(name)):
        data = _from_hub(*_hub_id(name, revision), load_from_hub)
        rows = _one_split(data, split, name)
        return _Opened(rows, rows.num_rows, _cached(rows), _splits(data), True, False)
    if revision is not None:
        raise InvalidArgumentError(
            f"`revision` must be left out unless `DATA` is a Hub id, got {revision!r} with "
            f"{name!r}. Leave it out."
        )
    files = _parquet_files(name)
    if files:
        return _from_parquet(files, split, name)
    if not path.is_dir():
        raise InvalidArgumentError(f"`DATA` must be {_KINDS}, got {name!r}. Check the path.")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _from_saved(path, split)
    return _from_pictures(path, split)


def _parquet_files(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*.parquet") if file.is_file())
    if path.is_file():
        return [name] if path.suffix == ".parquet" else []
    matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  (absolute patterns too)
    return [match for match in matches if match.endswith(".parquet") and Path(match).is_file()]


def _from_parquet(files: list[str], split: str | None, name: str) -> _Opened:
    # Where every file is named as `datasets` names shards, the names tell the splits apart.
    shards = [_SHARD.fullmatch(Path(file).name) for file in files]
    by_split: dict[str, list[str]] = {}
    for file, shard in zip(files, shards, strict=True):
        if shard and all(shards):
            by_split.setdefault(shard["split"], []).append(file)
    if len(by_split) > 1 or split is not None:
        files = _one_split(by_split or files, split, name)
    # Opening each file first finds the damaged ones; nothing but their footers is read.
    n_rows = sum(parquet.ParquetFile(file).metadata.num_rows for file in files)
    # Read-ahead would hold a large part of a file in memory.
    rows = load_dataset(
        "parquet",
        data_files=files,
        split="train",
        streaming=True,
        batch_size=_ROWS_AT_ONCE,
        fragment_scan_options=ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True
        ),
    )
    return _Opened(rows, n_rows, tuple(Path(file) for file in files), tuple(by_split))


def _from_saved(path: Path, split: str | None) -> _Opened:
    data = load_from_disk(str(path))
    rows = _one_split(data, split, str(path))
    folders = {file.parent for file in _cached(rows)}
    # Arrow files and what describes them; anything else there is someone else's.
    notes = {"state.json", "dataset_info.json"}
    files = tuple(
        sorted(
            file
            for folder in folders
            for file in folder.iterdir()
            if file.suffix == ".arrow" or file.name in notes
        )
    )
    return _Opened(rows, rows.num_rows, files, _splits(data))


def _from_pictures(path: Path, split: str | None) -> _Opened:
    if not any(file.suffix.lower() in PICTURES for file in path.rglob("*")):
        raise InvalidArgumentError(
            f"`DATA` must be {_KINDS}, got the folder {str(path)!r} with neither pictures nor "
            "parquet files. Check the path."
        )
    builder = load_dataset_builder("imagefolder", data_dir=str(path))
    data = builder.as_streaming_dataset()
    rows = _one_split(data, split, str(path))
    n_rows = sum(1 for _ in rows.cast_column("image", Image(decode=False)))
    chosen = split or next(iter(data))
    found = (Path(file) for file in builder.config.data_files[chosen])
    files = tuple(
        file for file in found if file.suffix.lower() in PICTURES or file.stem == "metadata"
    )
    return _Opened(rows, n_rows, files, _splits(data), True)


def _hub_id(name: str, revision: str | None) -> tuple[str, str | None]:
    """Return the Hub id and the revision that a name and `--revision` say together."""
    if not name.startswith("hf://"):
        return name, revision
    found = _HUB_PATH.fullmatch(name)
    if found is None:
        raise InvalidArgumentError(
            f"`DATA` must be hf://datasets/NAME/REPO@REVISION if it is on the Hub, got {name!r}. "
            "Name the whole data set, and a part of it by `--split`."
        )
    # As in the Hub's own paths: refs/pr/1 is written refs%2Fpr%2F1.
    own = unquote(found["revision"]) if found["revision"] else None
    if own is not None and revision not in {None, own}:
        raise InvalidArgumentError(
            f"`revision` must be said once, got {revision!r} with {name!r}. Leave one out."
        )
    return found["id"], own or revision


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


def _splits(data: Any) -> tuple[str, ...]:
    return tuple(data) if isinstance(data, Mapping) else ()


def _cached(rows: Any) -> tuple[Path, ...]:
    return tuple(Path(entry["filename"]) for entry in rows.cache_files)


def _holds_pictures(feature: Any) -> bool:
    if isinstance(feature, Image):
        return True
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return getattr(feature, "dtype", None) in {"binary", "large_binary"}


def _undecoded(rows: Any, image_column: str) -> Any:
    rows = rows.cast_column(image_column, Image(decode=False))
    for name, feature in dict(rows.features).items():
        # Whatever else could be decoded stays encoded too: it is only carried along.
        if isinstance(feature, _MEDIA) and feature.decode:
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _plain(value: Any) -> str:
    """Return a column value that JSON does not know, such as bytes or a date, as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
