"""A revised data set on disk: where it grows, what is kept secret beside it, when it is whole.

Knows folders, keys and digests; no photo and no strength. For `--out DIR` there are three places:

- `.DIR.part`, in which the shards appear one by one; it becomes `DIR` in one step at the end, so
  that a folder named DIR is never half a data set;
- `.DIR.private`, mode 700, which is never published: the noise key, what is needed to resume, who
  is behind which row, and which files were the originals;
- `DIR`: `data/*.parquet` and `revision.json`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.schema import SCHEMA_VERSION
from privacy_core.wholefile import whole_file

KEY_BYTES = 32
REVISION = "revision.json"
_KEY, _STATE, _RECORDS = "noise.key", "state.json", "shards"
_READ = 1 << 20


@dataclass(frozen=True)
class Workplace:
    """The places of one revised data set.

    Attributes:
        out: The folder to make.
    """

    out: Path

    @property
    def part(self) -> Path:
        """Where the data set grows."""
        return self._beside("part")

    @property
    def private(self) -> Path:
        """What must never be published."""
        return self._beside("private")

    def _beside(self, kind: str) -> Path:
        out = self.out.absolute()
        return out.parent / f".{out.name}.{kind}"

    def begin(self, settings: Mapping[str, Any], *, resume: bool) -> bytes:
        """Start, or check that what was started can go on, and return the noise key.

        Args:
            settings: All that decides what comes out, as JSON values; a run goes on under the same
                settings only.
            resume: Go on with an interrupted run; without one, start.

        Returns:
            32 secret bytes.

        Raises:
            OutputError: Something is in the way, or a place cannot be written.
            InvalidArgumentError: The interrupted run had other settings, or is damaged.
        """
        if resume and self.private.is_dir():
            return self._go_on(settings)
        self.check_free()
        key = secrets.token_bytes(KEY_BYTES)
        with writing(self.out):
            self._make_private(key, settings)
            (self.part / "data").mkdir(parents=True)
        return key

    def check_free(self) -> None:
        """Refuse a place where something is already.

        Raises:
            OutputError: It is.
        """
        out = self.out
        if (out.exists() and not out.is_dir()) or not os.access(out.absolute().parent, os.W_OK):
            raise OutputError(
                f"`--out` must be a new folder in one you can write to, got {str(out)!r}. "
                "Choose another place."
            )
        if out.is_dir() and next(out.iterdir(), None) is not None:
            raise OutputError(
                f"`--out` must be a new or empty folder, got {str(out)!r} with files in it. "
                "Choose another name."
            )
        for place in (self.private, self.part):
            if place.exists():
                raise OutputError(
                    f"`--out` must not be begun already, got {str(out)!r} with an interrupted run "
                    f"in {place.name!r} beside it. Go on with `--resume`, or remove that folder."
                )

    def is_whole(self) -> bool:
        """Return whether the data set is finished."""
        return (self.out / REVISION).is_file() and not self.part.exists()

    def finish(self, revision: Mapping[str, Any]) -> None:
        """Write `revision.json` and give the folder its name.

        Raises:
            OutputError: That is not possible.
        """
        listed = {str(shard["file"]) for shard in revision["shards"]}
        with writing(self.out):
            for path in sorted(self.part.rglob("*")):
                # Half a file of a process that was killed: nobody else writes here any more.
                if path.is_file() and path.relative_to(self.part).as_posix() not in listed:
                    path.unlink()
            write_atomically(self.part / REVISION, as_json(revision))
            self.part.replace(self.out.absolute())

    def record(self, shard: str) -> dict[str, Any] | None:
        """Return what was noted about a shard, None unless it is whole and as it was written."""
        try:
            text = (self.private / _RECORDS / f"{shard}.json").read_text(encoding="utf-8")
            found: dict[str, Any] = json.loads(text)
            if found["sha256"] == file_digest(self.part / "data" / shard):
                return found
        except (OSError, ValueError, KeyError, TypeError):
            # Missing or damaged: the shard is made again, to the same bytes.
            pass
        return None

    def write_shard(self, shard: str, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Write one shard whole, then its record, and return the record.

        Args:
            shard: File name.
            write: Writes the file it is given and returns what to note.

        Raises:
            OutputError: The disk is full, or cannot be written.
        """
        place = self.part / "data" / shard
        temporary = place.with_name(f".{shard}.{secrets.token_hex(4)}")
        with writing(self.out, " Make room and go on with `--resume`."):
            try:
                noted = write(temporary)
                noted["sha256"] = file_digest(temporary)
                temporary.replace(place)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            self.keep(f"{_RECORDS}/{shard}.json", noted)
        return noted

    def keep(self, name: str, value: Any) -> None:
        """Write a private JSON file that only its owner can read."""
        with writing(self.out):
            write_atomically(self.private / name, as_json(value), mode=0o600)

    def keep_rows(self, keys: Sequence[str | None]) -> None:
        """Keep who is behind which row of the original data, by pseudonym, in `rows.parquet`."""
        table = pa.table(
            {"row_id": pa.array(range(len(keys)), pa.int64()), "subject_key": pa.array(keys)}
        )
        with writing(self.out):
            parquet.write_table(table, self.private / "rows.parquet")

    def keep_originals(self, files: Iterable[Path], *, name: str, local: bool) -> None:
        """Keep which files were the originals, so that they can be erased and no others."""
        found = [
            {"path": str(path.absolute()), "bytes": path.stat().st_size, "sha256": digest}
            for path in files
            for digest in [file_digest(path)]
        ]
        self.keep("originals.json", {"name": name, "is_local": local, "files": found})

    def _make_private(self, key: bytes, settings: Mapping[str, Any]) -> None:
        """Make the private folder in one step."""
        temporary = self.private.with_name(f"{self.private.name}.{secrets.token_hex(4)}")
        try:
            temporary.mkdir(mode=0o700)
            (temporary / _RECORDS).mkdir()
            write_atomically(temporary / _KEY, key, mode=0o600)
            write_atomically(temporary / _STATE, as_json(settings), mode=0o600)
            temporary.replace(self.private)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _go_on(self, settings: Mapping[str, Any]) -> bytes:
        found: Any = None
        key = b""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.private / _STATE).read_text(encoding="utf-8"))
            key = (self.private / _KEY).read_bytes()
        if not isinstance(found, dict) or len(key) != KEY_BYTES:
            raise InvalidArgumentError(
                f"`--resume` must find the state of the interrupted run, got a damaged or missing "
                f"one in {self.private.name!r}. Remove {self.part.name!r} and "
                f"{self.private.name!r}, and start again."
            )
        other = sorted(
            name for name in {*found, *settings} if found.get(name) != settings.get(name)
        )
        if other:
            raise InvalidArgumentError(
                f"`--resume` must go on with what the run was started with, got another "
                f"{', '.join(other)}. Give the same data and options, or another `--out`."
            )
        if not self.is_whole():
            if self.out.is_dir() and next(self.out.iterdir(), None) is not None:
                self.check_free()
            with writing(self.out):
                (self.part / "data").mkdir(parents=True, exist_ok=True)
        return key


def load_revision(folder: Path, *, check_shards: bool = True) -> dict[str, Any]:
    """Return the `revision.json` of a revised data set that is whole and unchanged.

    Args:
        folder: The data set.
        check_shards: Compare every shard with its digest.

    Raises:
        InvalidArgumentError: There is none, or a file is missing, added or changed.
    """
    try:
        found = json.loads((folder / REVISION).read_text(encoding="utf-8"))
        shards = {str(s["file"]): str(s["sha256"]) for s in found["shards"]}
        is_ours = found["schema_version"] == SCHEMA_VERSION and found["kind"] == "revision"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"`--revised` must be a folder that `revise` wrote, got {str(folder)!r} without a "
            f"readable {REVISION}. Run `python -m privacy_core revise` first."
        ) from error
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet")}
    changed = sorted(there ^ set(shards))
    if check_shards:
        changed += [n for n in shards if n in there and file_digest(folder / n) != shards[n]]
    if changed or not is_ours:
        what = f"{changed[0]!r} is not as it was written" if changed else "it is of another version"
        raise InvalidArgumentError(
            f"`--revised` must be unchanged since `revise` wrote it, got {str(folder)!r}: {what}. "
            "Revise the data again."
        )
    revision: dict[str, Any] = found
    return revision


def shards_digest(shards: Mapping[str, str]) -> str:
    """Return the SHA-256, in hex, that stands for a revised data set.

    Args:
        shards: File → its own SHA-256.
    """
    lines = "".join(f"{name} {shards[name]}\n" for name in sorted(shards))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            total.update(block)
    return total.hexdigest()


def as_json(value: Any) -> bytes:
    """Return a value as the bytes of a JSON file."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that no reader sees half of it; an old one of that name is replaced."""
    with whole_file(path, mode=mode) as draft:
        draft.write_bytes(data)


@contextlib.contextmanager
def writing(out: Path, way_out: str = " Choose another place.") -> Iterator[None]:
    """Turn what the system says about a place into a sentence."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"`--out` must be in a place you can write to, got {str(out)!r} "
            f"({error.strerror or type(error).__name__}).{way_out}"
        ) from error
