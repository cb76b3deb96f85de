"""DATA → rows: parquet, a folder of pictures, a `save_to_disk` folder, or a Hub id.

Pictures stay encoded until someone reads them with `read_photo`; local data is never copied into
a cache. Knows no face and no model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from datasets import Audio, Image, Video, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetsError
from huggingface_hub import constants

from privacy_core.dataset.parquet import ParquetRows, by_split, parquet_files
from privacy_core.dataset.source import RowSource
from privacy_core.errors import InvalidArgumentError

_MEDIA = (Audio, Image, Video)
PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_PATH = re.compile(r"hf://datasets/(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/?")
_KINDS = (
    "a parquet file, a folder or pattern of them, a folder of pictures, a `save_to_disk` folder, "
    "or a Hub id with its revision"
)


@dataclass(frozen=True)
class _Opened:
    """Rows of one split as `datasets` gives them, and where they come from."""

    rows: Any
    n_rows: int
    files: tuple[Path, ...]
    splits: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
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
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, DatasetsError) as error:
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
        opened.folders,
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
        hub_id, revision = _hub_id(name, revision)
        data = _from_hub(hub_id, revision, load_from_hub)
        rows, folder = _one_split(data, split, name), _hub_cache(hub_id)
        copies = (*_cached(rows), *_downloaded(folder))
        return _Opened(rows, rows.num_rows, copies, _splits(data), (folder,), False)
    if revision is not None:
        raise InvalidArgumentError(
            f"`revision` must be left out unless `DATA` is a Hub id, got {revision!r} with "
            f"{name!r}. Leave it out."
        )
    files = parquet_files(name)
    if files:
        return _from_parquet(files, split, name)
    if not path.is_dir():
        raise InvalidArgumentError(f"`DATA` must be {_KINDS}, got {name!r}. Check the path.")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _from_saved(path, split)
    return _from_pictures(path, split)


def _from_parquet(files: list[str], split: str | None, name: str) -> _Opened:
    splits = by_split(files)
    if len(splits) > 1 or split is not None:
        files = _one_split(splits or files, split, name)
    rows = ParquetRows.open(files)
    return _Opened(rows, rows.num_rows, tuple(Path(file) for file in files), tuple(splits))


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
    # `datasets` follows a link to the folder itself before it lists what is in it.
    folders = (_normal(path), path.resolve())
    return _Opened(rows, n_rows, files, _splits(data), folders)


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


def _hub_cache(hub_id: str) -> Path:
    """Return where `load_dataset` puts the files of this data set, and those of no other."""
    return _normal(Path(constants.HF_HUB_CACHE)) / f"datasets--{hub_id.replace('/', '--')}"


def _downloaded(folder: Path) -> tuple[Path, ...]:
    """Return the files in a data set's part of the Hub's cache, of every split and revision.

    Snapshots link to blobs, or hold the files where a system has no links. A blob may itself be a
    link to what repositories share: it is listed as the link it is, and what it leads to is not.
    """
    root = folder.resolve()
    blobs = [path for path in (root / "blobs").rglob("*") if path.is_file()]
    found = (path for path in (root / "snapshots").rglob("*") if path.is_file())
    own = [path for path in found if not path.is_symlink()]
    # Neither of the two folders may lead elsewhere.
    return tuple(sorted(path for path in blobs + own if root in path.parent.resolve().parents))


def _normal(path: Path) -> Path:
    """Return the absolute path without `..`; links are left as they are."""
    return Path(os.path.normpath(path.absolute()))


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
