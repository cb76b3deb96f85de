"""The public dataset, read back as anyone can read it: no token, nothing written to a disk.

What is there may be anyone's; a repository that this program did not publish is refused.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from feedback.dataset.shard import read_shard
from feedback.errors import ForeignShardError, RemoteRefusedError
from feedback.population.release import N_BINS
from feedback.publish.publication import MARK, is_ours
from feedback.schema import Rating

if TYPE_CHECKING:
    from feedback.remote.base import Snapshot
    from feedback.remote.dataset_remote import DatasetRemote

_RATINGS, _POPULATION = "data/ratings/", "data/population/"
_COLUMNS = ("release", "drawn_at", "model_version", "n_raters", "epsilon", "noisy_raters")


@dataclass(frozen=True)
class PublicRelease:
    """How many raters prefer each tenth of the dial, with the noise that makes it public.

    Attributes:
        name: Such as "dp-eps1-2026Q4".
        drawn_on: Day, ISO 8601.
        model_version: Method and revision that the strengths are about.
        n_raters: Raters in it.
        epsilon: Of this release, for replacing one rater.
        noisy_raters: One number for each tenth, which may be negative.
    """

    name: str
    drawn_on: str
    model_version: str
    n_raters: int
    epsilon: float
    noisy_raters: tuple[float, ...]


@dataclass(frozen=True)
class Publication:
    """What a public dataset held.

    Attributes:
        repo_id: Its name on the Hub.
        revision: The commit that was read.
        published_on: Day, ISO 8601.
        ratings: All published rows.
        releases: The population's releases, oldest first.
    """

    repo_id: str
    revision: str
    published_on: str
    ratings: tuple[Rating, ...] = field(repr=False)
    releases: tuple[PublicRelease, ...]


def read_publication(remote: DatasetRemote) -> Publication:
    """Read a public dataset.

    Args:
        remote: From `publishing.public_dataset`; needs no token.

    Raises:
        RemoteBusyError: The Hub cannot be reached now.
        RemoteRefusedError: It is missing, private, renamed, or not made by `publish`.
        ForeignShardError: A table in it is damaged or another program's.
    """
    snapshot = remote.look()
    mark = remote.read(snapshot, MARK) if MARK in snapshot.files else b""
    if not is_ours(mark):
        raise RemoteRefusedError(
            f"The public dataset {remote.repo_id} must be made by `python -m feedback publish`, "
            f"got one without its {MARK}. Name the dataset that was published."
        )
    record = json.loads(mark)
    return Publication(
        repo_id=remote.repo_id,
        revision=snapshot.revision,
        published_on=str(record.get("published_on", ""))[:10],
        ratings=tuple(
            row
            for path in _tables(snapshot, _RATINGS)
            for row in read_shard(remote.read(snapshot, path), path=path)
        ),
        releases=tuple(
            release
            for path in _tables(snapshot, _POPULATION)
            for release in _releases(remote.read(snapshot, path), path)
        ),
    )


def _tables(snapshot: Snapshot, folder: str) -> list[str]:
    return sorted(
        path for path in snapshot.files if path.startswith(folder) and path.endswith(".parquet")
    )


def _releases(data: bytes, path: str) -> list[PublicRelease]:
    """Return the releases of a population table, each from its ten rows."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    by_name: dict[str, list[dict[str, Any]]] = {}
    try:
        rows = pq.read_table(io.BytesIO(data), columns=[*_COLUMNS, "strength_from"]).to_pylist()
        for row in sorted(rows, key=lambda row: (row["drawn_at"], row["strength_from"])):
            by_name.setdefault(row["release"], []).append(row)
        found = [_release(name, tenths) for name, tenths in by_name.items()]
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise _foreign(path) from error
    if any(len(release.noisy_raters) != N_BINS for release in found):
        raise _foreign(path)
    return found


def _release(name: str, tenths: list[dict[str, Any]]) -> PublicRelease:
    first = tenths[0]
    return PublicRelease(
        name=str(name),
        drawn_on=str(first["drawn_at"])[:10],
        model_version=str(first["model_version"]),
        n_raters=int(first["n_raters"]),
        epsilon=float(first["epsilon"]),
        noisy_raters=tuple(float(row["noisy_raters"]) for row in tenths),
    )


def _foreign(path: str) -> ForeignShardError:
    return ForeignShardError(
        f"{path} must be a population table of ten rows for each release, got something else. "
        "Publish again.",
        path=path,
    )
