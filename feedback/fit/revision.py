"""Reading the ratings of one revision of a dataset repository; changes nothing there."""

from __future__ import annotations

from dataclasses import dataclass

from feedback.errors import InvalidRatingError, StaleSnapshotError
from feedback.remote.base import Snapshot
from feedback.remote.dataset_remote import DatasetRemote
from feedback.remote.hub import asking
from feedback.schema import Rating
from feedback.sync.reading import live_ratings


@dataclass(frozen=True)
class RevisionRows:
    """What a revision held.

    Attributes:
        ratings: Each once, without those taken back or erased by then.
        revision: The full commit id.
        foreign: Files that were left out because they are damaged or another program's.
        is_newest: Whether nothing had been committed after it when it was looked at.
    """

    ratings: tuple[Rating, ...]
    revision: str
    foreign: tuple[str, ...]
    is_newest: bool


def read_revision(
    repo_id: str, revision: str, *, token: str | None, endpoint: str | None = None
) -> RevisionRows:
    """Read all ratings of one revision.

    Args:
        repo_id: NAME/REPO of a dataset repository.
        revision: Commit id, or a branch or tag, which is resolved to a commit first.
        token: With the right to read it; None for a public one.
        endpoint: Of another Hub.

    Raises:
        InvalidRatingError: There is no such revision.
        RemoteError: The repository is missing, not for this token, or not reachable.
    """
    remote = _ReadOnlyDataset(repo_id, token=token, endpoint=endpoint)
    try:
        snapshot = remote.at(revision)
        newest = remote.newest()
    except StaleSnapshotError as error:
        raise InvalidRatingError(
            f"`revision` must be a commit of the dataset {repo_id}, got one it does not have. "
            "It may have been removed by an erasure: take the newest."
        ) from error
    ratings, foreign = live_ratings(remote, snapshot)
    return RevisionRows(
        tuple(ratings), snapshot.revision, tuple(foreign), is_newest=newest == snapshot.revision
    )


class _ReadOnlyDataset(DatasetRemote):
    """A dataset repository at any revision, private or public, with the right to read it."""

    def at(self, revision: str) -> Snapshot:
        """Return the files of a revision."""
        sha = self._commit_of(revision)
        return Snapshot(sha, self._tree(sha or revision))

    def newest(self) -> str:
        """Return the newest commit of the main branch, "" where there is none."""
        return self._commit_of(None)

    def _commit_of(self, revision: str | None) -> str:
        with asking(self.name):
            return self._api().dataset_info(self.repo_id, revision=revision).sha or ""
