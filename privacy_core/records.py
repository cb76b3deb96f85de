"""What was observed, kept in chunks: what was interrupted goes on, and processes share the making.

Knows arrays and a folder; not what the arrays mean. The folder may hold codes of real faces, from
which pictures of them can be made: it is private and goes when the work is done.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.wholefile import whole_file

Arrays = dict[str, NDArray[Any]]
_CONFIG, _KEY = "config.json", "noise.key"
_DRAFT, _DOOMED = ".part", ".doomed"
_KEY_BYTES = 32
_BETWEEN = "|"


class Records:
    """Chunks of arrays in a folder.

    Args:
        folder: Made when missing, for its owner's eyes only.
        description: What the chunks belong to; a folder of another one is refused.
        crew: The processes that fill the folder together; each makes its own `Records`.

    Raises:
        InvalidArgumentError: The folder holds chunks of something else.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self, folder: Path, description: Mapping[str, Any], crew: Crew | None = None
    ) -> None:
        self.folder, self._crew = folder, crew or Crew()
        if not self._crew.is_first:
            self._crew.wait()
        self._open(folder, description)
        if self._crew.is_first:
            self._crew.wait()

    @classmethod
    def anew(cls, folder: Path, description: Mapping[str, Any], crew: Crew) -> Records:
        """Return the records of a folder, from which anything else is removed first."""
        with contextlib.suppress(OSError):
            if crew.is_first and (folder / _CONFIG).read_text("utf-8") != _text(description):
                _remove(folder)
        return cls(folder, description, crew)

    def _open(self, folder: Path, description: Mapping[str, Any]) -> None:
        text = _text(description)
        try:
            if self._crew.is_first:
                _clear(folder)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in (
                (_KEY, secrets.token_bytes(_KEY_BYTES)),
                (_CONFIG, text.encode()),
            ):
                if not (folder / name).exists():
                    with whole_file(folder / name, mode=0o600) as draft:
                        draft.write_bytes(content)
            if (folder / _CONFIG).read_text(encoding="utf-8") != text:
                raise InvalidArgumentError(
                    f"`--out` must be a new folder or one of the same audit, got "
                    f"{str(folder.parent)!r} with an audit of other data, settings or weights. "
                    "Choose another name."
                )
        except OSError as error:
            raise OutputError(
                f"The folder {folder.name!r} cannot be written "
                f"({error.strerror or type(error).__name__}). Choose another place."
            ) from error

    def has(self, name: str) -> bool:
        """Say whether a chunk is there."""
        return self._path(name).is_file()

    def load(self, name: str) -> Arrays:
        """Return a chunk.

        Raises:
            InvalidArgumentError: It is damaged.
        """
        try:
            with np.load(self._path(name), allow_pickle=False) as table:
                return {key: table[key] for key in table.files}
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise _damaged(name, error) from error

    def made(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """Return a chunk, made and kept where it is missing."""
        if not self.has(name):
            self.keep(name, make())
        return self.load(name)

    def made_together(
        self,
        names: Sequence[str],
        make: Callable[[int], Arrays],
        *,
        report: Callable[[int], None],
        backwards: bool = False,
    ) -> list[Arrays]:
        """Return chunks in order; those that are missing are shared out and made.

        Args:
            names: Of the chunks.
            make: Place in `names` → chunk.
            report: Called with the number of chunks that were passed.
            backwards: Begin with the last one.

        Raises:
            OutputError: Another process's chunk is missing.
        """
        places = range(len(names))
        for n_done, place in enumerate(reversed(places) if backwards else places):
            report(n_done)
            if self._crew.does(place) and not self.has(names[place]):
                self.keep(names[place], make(place))
        report(len(names))
        self._crew.wait()
        lost = [name for name in names if not self.has(name)]
        if lost:
            raise OutputError(
                f"The place to write must be one folder that all processes see, got none of the "
                f"chunk {lost[0]!r} that another was to make. Use a shared disk, and run the same "
                "again."
            )
        return [self.load(name) for name in names]

    def secret(self) -> bytes:
        """Return 32 secret bytes that stay the same as long as the folder is there."""
        return (self.folder / _KEY).read_bytes()

    def forget(self) -> None:
        """Remove the folder, once every process has read what it needs of it; all must call."""
        self._crew.wait()
        if self._crew.is_first:
            with contextlib.suppress(OSError):
                _remove(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)  # one that cannot be renamed
        self._crew.wait()

    def keep(self, name: str, arrays: Arrays) -> None:
        """Write a chunk whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """

        def write(file: IO[bytes]) -> None:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub knows no names

        self._write(self._path(name), write)

    def has_state(self, name: str) -> bool:
        """Say whether a network's weights are there."""
        return self._state_path(name).is_file()

    def load_state(self, name: str) -> dict[str, Tensor]:
        """Return a network's weights.

        Raises:
            InvalidArgumentError: They are damaged.
        """
        try:
            state: dict[str, Tensor] = torch.load(self._state_path(name), weights_only=True)
        except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
            raise _damaged(name, error) from error
        return state

    def keep_state(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Write a network's weights whole or not at all.

        Raises:
            OutputError: They cannot be written.
        """
        self._write(self._state_path(name), lambda file: torch.save(dict(state), file))

    def made_json(self, name: str, make: Callable[[], Any]) -> Any:
        """Return JSON values, made and kept where they are missing."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            text = json.dumps(make(), allow_nan=False)
            self._write(path, lambda file: file.write(text.encode()))
        return json.loads(path.read_text(encoding="utf-8"))

    def _write(self, path: Path, write: Callable[[IO[bytes]], object]) -> None:
        # Another process may be writing the same chunk.
        try:
            with whole_file(path) as draft, draft.open("wb") as file:
                write(file)
        except OSError as error:
            raise OutputError(
                f"The chunk {path.stem!r} cannot be written "
                f"({error.strerror or type(error).__name__}). Free space and run again."
            ) from error

    def _state_path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def _text(description: Mapping[str, Any]) -> str:
    return json.dumps(dict(description), sort_keys=True)


def _remove(folder: Path) -> None:
    """Remove a folder: first its name, so that a kill leaves no half of it to be taken for whole.

    Raises:
        OSError: It cannot be renamed, and all of it is still there.
    """
    doomed = folder.rename(folder.with_name(f"{folder.name}.{secrets.token_hex(4)}{_DOOMED}"))
    shutil.rmtree(doomed, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove what a killed removal left: doomed folders, and chunks of nobody knows what.

    Raises:
        OSError: The folder cannot be read or renamed.
    """
    if not folder.parent.is_dir():
        return
    for place in folder.parent.iterdir():
        if place.name.startswith(f"{folder.name}.") and place.name.endswith(_DOOMED):
            shutil.rmtree(place, ignore_errors=True)
    # Key and drafts may be those of a process that is opening the folder just now; a chunk comes
    # after the description, so whether that is there is asked last.
    listed = folder.iterdir() if folder.is_dir() else ()
    has_chunks = any(place.name != _KEY and place.suffix != _DRAFT for place in listed)
    if has_chunks and not (folder / _CONFIG).exists():
        _remove(folder)


def _damaged(name: str, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"The chunk {name!r} is damaged ({type(error).__name__}). Delete it and run the same again."
    )


def joined(chunks: Sequence[Arrays]) -> Arrays:
    """Return the chunks' arrays one after another; names that one of them lacks are left out."""
    names = set.intersection(*(set(chunk) for chunk in chunks)) if chunks else set()
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in sorted(names)}


def flat(tables: Mapping[str, Arrays]) -> Arrays:
    """Return several tables as one."""
    return {
        f"{table}{_BETWEEN}{name}": array
        for table, arrays in tables.items()
        for name, array in arrays.items()
    }


def table_of(arrays: Arrays, table: str) -> Arrays:
    """Return one table out of those that `flat` put together."""
    start = f"{table}{_BETWEEN}"
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
