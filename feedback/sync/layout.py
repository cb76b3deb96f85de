"""Where things lie in a remote and how its small files read; knows no store, network or row.

README.md                                   dataset card
data/ratings/ym=2026-11/<store>-<ulid>.parquet    a shard: rows of one month; anywhere below
                                            data/ratings it counts, and is left in its folder
tombstones/<store>-<ulid>.json              what must stay away, as digests
compactions/<ulid>.json                     which shards a compaction took up
lease.json                                  who compacts, and until when
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

from feedback.errors import ForeignShardError
from feedback.store.tombstones import Tombstone, to_ms

CARD = "README.md"
LEASE = "lease.json"
_VERSION = 1
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile(rf"[{_ALPHABET}]{{26}}")
_SHARDS = "data/ratings/"
_DAMAGED = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    OSError,
)
"""What a document of another form makes of the reading of it."""
Content = TypeVar("Content")


def new_ulid(now: datetime) -> str:
    """Return a random name that sorts by time: 26 letters and digits, the first ten the time."""
    number = to_ms(now) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def made_at(path: str) -> datetime | None:
    """Return when a file named by a ULID was made, None for other names."""
    ulid = path.rsplit("/", 1)[-1].split(".", 1)[0][-26:]
    if not _ULID.fullmatch(ulid):
        return None
    milliseconds = 0
    for letter in ulid[:10]:
        milliseconds = milliseconds << 5 | _ALPHABET.index(letter)
    if milliseconds >> 47:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def shard_path(instance: str, month: str, now: datetime) -> str:
    """Return a new path for rows of a month, such as "2026-11"."""
    return path_in(f"{_SHARDS}ym={month}", instance, now)


def path_in(folder: str, instance: str, now: datetime) -> str:
    """Return a new path for a shard in a folder."""
    return f"{folder}/{instance}-{new_ulid(now)}.parquet"


def tombstones_path(instance: str, now: datetime) -> str:
    """Return a new path for a file of tombstones."""
    return f"tombstones/{instance}-{new_ulid(now)}.json"


def compaction_path(now: datetime) -> str:
    """Return a new path for the list of what a compaction took up."""
    return f"compactions/{new_ulid(now)}.json"


def shards_in(paths: Iterable[str]) -> list[str]:
    """Return the paths of shards, the oldest first."""
    return [path for path in parquets_in(paths) if path.startswith(_SHARDS)]


def parquets_in(paths: Iterable[str]) -> list[str]:
    """Return the paths of all parquet files, which may hold rows, the oldest first."""
    found = (path for path in paths if path.endswith(".parquet"))
    return sorted(found, key=lambda p: (p[-34:], p))


def tombstone_files_in(paths: Iterable[str]) -> list[str]:
    """Return the paths of files of tombstones."""
    return _jsons(paths, "tombstones/")


def compactions_in(paths: Iterable[str]) -> list[str]:
    """Return the paths of compaction lists, the oldest first."""
    return _jsons(paths, "compactions/")


def folder_of(path: str) -> str:
    """Return the folder of a shard, which says its month."""
    return path.rpartition("/")[0]


def tombstones_bytes(tombstones: Sequence[Tombstone]) -> bytes:
    """Return a file of tombstones."""
    return _document(upload=_unique(), tombstones=[asdict(tombstone) for tombstone in tombstones])


def read_tombstones(data: bytes, *, path: str) -> list[Tombstone]:
    """Return the tombstones of a file.

    Raises:
        ForeignShardError: It is damaged, or of a newer program.
    """

    def of(record: Mapping[str, Any]) -> list[Tombstone]:
        found = [Tombstone(**entry) for entry in record["tombstones"]]
        if not all(map(_is_tombstone, found)):
            raise ValueError
        return found

    return _parsed(data, path, of)


def compaction_bytes(sources: Sequence[str], outputs: Mapping[str, int]) -> bytes:
    """Return the list of a compaction: shards taken up, and rows of each shard made."""
    return _document(upload=_unique(), sources=list(sources), outputs=dict(outputs))


def read_compaction(data: bytes, *, path: str) -> tuple[list[str], dict[str, int]]:
    """Return the shards a compaction took up, and the rows of those it made.

    Raises:
        ForeignShardError: It is damaged, or of a newer program.
    """
    return _parsed(
        data,
        path,
        lambda record: (
            [str(source) for source in record["sources"]],
            {str(output): int(rows) for output, rows in record["outputs"].items()},
        ),
    )


def lease_bytes(holder: str, until: datetime) -> bytes:
    """Return the lease of one process."""
    return _document(holder=holder, until=to_ms(until))


def read_lease(data: bytes, *, path: str = LEASE) -> tuple[str, datetime]:
    """Return who holds the lease and until when.

    Raises:
        ForeignShardError: It is damaged, or of a newer program.
    """
    return _parsed(
        data,
        path,
        lambda record: (
            str(record["holder"]),
            datetime.fromtimestamp(int(record["until"]) / 1000, UTC),
        ),
    )


def _jsons(paths: Iterable[str], folder: str) -> list[str]:
    found = (p for p in paths if p.startswith(folder) and p.endswith(".json"))
    return sorted(found, key=lambda p: (p[-31:], p))


def _unique() -> str:
    """Return what makes a document's bytes new: a large one is stored as a shard is."""
    return secrets.token_hex(16)


def _document(**fields: Any) -> bytes:
    return json.dumps({"schema_version": _VERSION, **fields}, indent=1).encode()


def _is_tombstone(tombstone: Tombstone) -> bool:
    digest: object = tombstone.digest
    is_digest = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) is not None
    return tombstone.kind in ("rater", "rating") and is_digest and _is_time(tombstone.requested)


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 47


def _known(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record if its version is one this program knows."""
    if record["schema_version"] > _VERSION:
        raise ValueError
    return record


def _parsed(data: bytes, path: str, of: Callable[[Mapping[str, Any]], Content]) -> Content:
    """Return what `of` reads from a document, or say that it is not ours."""
    try:
        return of(_known(json.loads(data)))
    except _DAMAGED as error:
        raise ForeignShardError(
            f"{path} must be a file this program wrote, got another or a damaged one. It was left "
            "as it is; update the program, or take the file away by hand.",
            path=path,
        ) from error
