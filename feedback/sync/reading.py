"""All ratings of a remote, each once and without the erased ones; knows no store."""

from __future__ import annotations

from feedback.dataset.shard import read_shard
from feedback.errors import ForeignShardError
from feedback.remote.base import Remote, Snapshot
from feedback.schema import Rating
from feedback.store.tombstones import Graves, Tombstone
from feedback.sync import layout


def live_ratings(remote: Remote, snapshot: Snapshot) -> tuple[list[Rating], tuple[str, ...]]:
    """Return the ratings of a snapshot, and the paths of files that cannot be read.

    Args:
        remote: Where the files are.
        snapshot: Which state of them.

    Returns:
        Ratings in the order of their shards, of two with one id the first; and the files left
        out, which are damaged or not ours.

    Raises:
        RemoteError: The remote does not answer, or no longer serves that state.
    """
    foreign: list[str] = []
    tombstones: list[Tombstone] = []
    for path in layout.tombstone_files_in(snapshot.files):
        try:
            tombstones += layout.read_tombstones(remote.read(snapshot, path), path=path)
        except ForeignShardError:
            foreign.append(path)
    graves = Graves(tombstones)
    ratings: dict[str, Rating] = {}
    for path in layout.shards_in(snapshot.files):
        try:
            rows = read_shard(remote.read(snapshot, path), path=path)
        except ForeignShardError:
            foreign.append(path)
            continue
        for row in rows:
            if not graves.has_row(row.rater_id, row.rating_id, row.created_at):
                ratings.setdefault(row.rating_id, row)
    return list(ratings.values()), tuple(foreign)
