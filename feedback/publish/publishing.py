"""Publishing: what may be public goes to a public dataset repository, and nothing else stays there.

Knows the public repository; which rows may be public stands in `cells`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feedback.errors import RemoteRefusedError
from feedback.publish.publication import MARK, is_ours
from feedback.remote.base import Purge, Snapshot
from feedback.remote.dataset_remote import DatasetRemote

_KEPT = ".gitattributes"


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        revision: The only commit there is now.
        files: How many files.
        purge: What is no longer served.
    """

    revision: str
    files: int
    purge: Purge


def public_dataset(
    repo_id: str, *, token: str | None, endpoint: str | None = None
) -> DatasetRemote:
    """Return a public dataset repository of our own; nothing is asked yet.

    Args:
        repo_id: NAME/REPO.
        token: With the right to write to it, None to read only.
        endpoint: Of another Hub.
    """
    return DatasetRemote(repo_id, token=token, visibility="public", endpoint=endpoint)


def check_target(repo_id: str, private_repo_ids: Sequence[str]) -> None:
    """Refuse to publish to a repository of private rows; capitals make no difference.

    Args:
        repo_id: Where to publish, NAME/REPO.
        private_repo_ids: Where private rows are.

    Raises:
        RemoteRefusedError: It is one of them.
    """
    if repo_id.lower() in {name.lower() for name in private_repo_ids}:
        raise RemoteRefusedError(
            f"The public repository must not be the private one, got {repo_id} for both. "
            "Name another repository."
        )


def publish(
    remote: DatasetRemote, files: Mapping[str, bytes], *, private_repo_ids: Sequence[str]
) -> Published:
    """Replace everything in the public repository by one commit, then remove what was before.

    May be repeated after any failure; until it has succeeded old rows may still be served. With
    nothing to publish the repository is emptied of rows all the same: raters may have withdrawn.

    Args:
        remote: Where to; made if it is missing.
        files: By path, from `publication_files`.
        private_repo_ids: Where private rows are.

    Raises:
        RemoteRefusedError: It is a private repository, someone else's or another program's.
        RemoteError: The Hub failed; publish again.
    """
    check_target(remote.repo_id, private_repo_ids)
    snapshot = remote.snapshot()
    _check_ours(remote, snapshot)
    old = [path for path in snapshot.files if path not in files and path != _KEPT]
    committed = remote.commit(snapshot, add=files, delete=old, message="Replace the publication")
    purge = remote.purge(committed)
    # Without its history the same content has another commit id.
    return Published(remote.snapshot().revision, len(files), purge)


def _check_ours(remote: DatasetRemote, snapshot: Snapshot) -> None:
    """Refuse a repository with files that this program's publishing did not write."""
    if set(snapshot.files) <= {_KEPT}:
        return
    if MARK in snapshot.files and is_ours(remote.read(snapshot, MARK)):
        return
    raise RemoteRefusedError(
        f"The public dataset {remote.repo_id} must be empty or made by this command, got other "
        "files in it. Nothing was changed; name another repository."
    )
