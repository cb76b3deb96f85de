"""What was observed, kept in chunks, so that an interrupted audit goes on where it stopped.

Knows arrays and a folder; not what the arrays mean. The folder holds codes of real faces, from
which pictures of them can be made: it is private and goes when the audit is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from privacy_core.audit.anonymization.landmarks import Arrays
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.wholefile import whole_file

_CONFIG = "config.json"
_BETWEEN = "|"


class Records:
    """Chunks of arrays in a folder.

    Args:
        folder: Made when missing, for its owner's eyes only.
        description: What the chunks belong to; a folder of another one is refused.

    Raises:
        InvalidArgumentError: The folder holds chunks of something else.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(dict(description), sort_keys=True)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / _CONFIG
            if not path.exists():
                path.write_text(text, encoding="utf-8")
            if path.read_text(encoding="utf-8") != text:
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


def _damaged(name: str, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"The chunk {name!r} of the audit is damaged ({type(error).__name__}). "
        "Delete it and run the audit again."
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
