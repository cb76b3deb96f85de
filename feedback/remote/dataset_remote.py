"""Files in a dataset repository on the Hub, by its real client; knows no rating.

A commit names its parent, so that of two writers one is told to look again. Nothing is cached or
written to this machine's disk, no thread pool is used, and content goes over plain HTTP whether or
not `hf_xet` is installed: all of it works while the process ends.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from feedback.errors import (
    RemoteBusyError,
    RemoteError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.remote.base import Purge, Snapshot
from feedback.remote.hub import (
    CALL_SECONDS,
    MAX_FILE_BYTES,
    asking,
    checked_repo_id,
    missing,
    no_rights,
    not_as_visible,
    renamed,
    too_large,
    upper,
)
from feedback.remote.purge import Purger

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, DatasetInfo, HfApi

    from feedback.remote.client import Call

Visibility = Literal["private", "public"]

_TRIES = 3


class DatasetRemote:
    """A dataset repository, private unless told; see `Remote` for the methods' contracts."""

    keeps = True
    swaps = True

    def __init__(
        self,
        repo_id: str,
        *,
        token: str | None,
        visibility: Visibility = "private",
        is_known: bool = False,
        endpoint: str | None = None,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        """Name the repository; nothing is asked yet.

        Args:
            repo_id: NAME/REPO.
            token: With the right to write to it; None to `look` at a public one.
            visibility: What it must be, and is made as; anything else is refused.
            is_known: Whether it was seen before: then it is never made again if it is missing.
            endpoint: Of another Hub, None for the usual one.
            call_seconds: How long one request, or one listing, may take.

        Raises:
            InvalidRatingError: `repo_id` has another form.
        """
        self.repo_id = checked_repo_id("dataset", repo_id)
        self.name = f"the {visibility} dataset {repo_id}"
        self._token = token
        self._visibility = visibility
        self._endpoint = endpoint
        self._is_known = is_known
        self._call_seconds = call_seconds
        self._old: set[str] = set()

    def snapshot(self) -> Snapshot:
        """List the files of the newest commit, having checked that the repository is as promised.

        Raises:
            RemoteBusyError: Not reachable now, or changing all the time.
            RemoteRefusedError: Missing though it was there before, renamed, public, someone
                else's, or the token may not write.
        """
        for _ in range(_TRIES):
            try:
                snapshot = self._look()
            except StaleSnapshotError:
                continue
            self._is_known = True
            return snapshot
        raise RemoteBusyError(
            f"{upper(self.name)} must rest while it is looked at, got it changed {_TRIES} times. "
            "Nothing was changed; try later."
        )

    def look(self) -> Snapshot:
        """List the files of the newest commit for a reader: needs no right to write, makes nothing.

        Raises:
            RemoteBusyError: Not reachable now.
            RemoteRefusedError: Missing, renamed, or not as visible as promised.
        """
        try:
            with self._asking():
                info = self._api().dataset_info(self.repo_id)
        except RemoteRefusedError as error:
            raise RemoteRefusedError(
                f"{upper(self.name)} must be one that its reader may see, got none of that name. "
                "Check the name, and that it was published."
            ) from error
        return self._files(self._checked(info))

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a file as the snapshot had it, compared with its digest there.

        Raises:
            StaleSnapshotError: That state is no longer served, or never had the file.
            RemoteBusyError: Not reachable now, or what came was cut off or altered.
            ForeignShardError: It is larger than `MAX_FILE_BYTES`.
        """
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status  # noqa: PLC0415

        if path not in snapshot.files:
            raise StaleSnapshotError(
                f"{path} must be in the snapshot it is read from, got none there. Look again."
            )
        url = hf_hub_url(
            self.repo_id,
            path,
            repo_type="dataset",
            revision=snapshot.revision,
            endpoint=self._endpoint,
        )
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = bytearray()
        with (
            self._asking(),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as response,
        ):
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    raise too_large(path)
        return _whole(bytes(data), snapshot.files[path], path)

    def commit(
        self,
        snapshot: Snapshot,
        *,
        add: Mapping[str, bytes],
        delete: Sequence[str] = (),
        message: str,
    ) -> Snapshot:
        """Change everything in one commit whose parent is the snapshot's.

        Files are uploaded one after another. What is there already, unchanged, is left out; with
        nothing left no commit is made.

        Raises:
            StaleSnapshotError: Something changed; nothing was written.
            RemoteBusyError: Surely nothing was written.
            UncertainCommitError: It may have been written.
            RemoteRefusedError: As `snapshot`.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415

        if gone := [path for path in delete if path not in snapshot.files]:
            raise StaleSnapshotError(
                f"{gone[0]} must be in the snapshot it is deleted from, got none there. Look again."
            )
        # Fresh objects every time: used ones would skip their upload. As a buffer, so that the
        # client takes the plain upload and not that of `hf_xet`, which no deadline ends.
        additions = [CommitOperationAdd(path, io.BytesIO(data)) for path, data in add.items()]
        # A commit id does not change when a repository is made public: ask before every byte.
        self._info()
        self._upload(additions)
        self._info()
        deletions = [CommitOperationDelete(path, is_folder=False) for path in delete]
        with self._asking():
            commit = self._api().create_commit(
                self.repo_id,
                [*additions, *deletions],
                commit_message=message,
                repo_type="dataset",
                num_threads=1,
                parent_commit=snapshot.revision or None,
            )
        return self._confirmed(commit.oid, add, delete)

    def purge(
        self,
        snapshot: Snapshot,
        *,
        old: Collection[str] = (),
        remember: Callable[[Collection[str]], object] | None = None,
    ) -> Purge:
        """Remove other refs, history and stored contents that the snapshot, the newest, lacks.

        Verifies that the old commits no longer answer. May be repeated after any failure.

        Raises:
            StaleSnapshotError: Something changed since; take a snapshot and purge again.
            RemoteBusyError: Not finished; purge again.
            RemoteRefusedError: As `snapshot`, or a ref cannot be removed, or something old is
                still served.
        """
        if self._look().revision != snapshot.revision:
            raise StaleSnapshotError(
                f"{upper(self.name)} must be at the snapshot that is purged, got a newer state. "
                "Look again and purge that."
            )
        purger = Purger(self._api(), self.repo_id, name=self.name, seconds=self._call_seconds)
        self._old |= set(old)
        return purger.purge(self._old, remember=remember)

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi  # noqa: PLC0415

        # False and not None: None would take a token that lies about on this machine.
        return HfApi(endpoint=self._endpoint, token=self._token or False)

    def _asking(self) -> AbstractContextManager[Call]:
        return asking(self.name, seconds=self._call_seconds)

    def _look(self) -> Snapshot:
        """Return what is there now, or raise; a change while looking is a stale snapshot."""
        info = self._info()
        with self._asking():
            self._api().auth_check(self.repo_id, repo_type="dataset", write=True)
        return self._files(info)

    def _files(self, info: DatasetInfo) -> Snapshot:
        return Snapshot(info.sha, self._tree(info.sha)) if info.sha else Snapshot("", {})

    def _info(self) -> DatasetInfo:
        """Return what the Hub says about the repository, made if it was never seen.

        Raises:
            RemoteRefusedError: It is not what was promised.
        """
        from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

        if not self._token:
            raise no_rights(self.name)
        with self._asking():
            try:
                info = self._api().dataset_info(self.repo_id)
            except RepositoryNotFoundError:
                if self._is_known:
                    raise missing(self.name) from None
                self._api().create_repo(
                    self.repo_id,
                    private=self._visibility == "private",
                    repo_type="dataset",
                    exist_ok=True,
                )
                info = self._api().dataset_info(self.repo_id)
        return self._checked(info)

    def _checked(self, info: DatasetInfo) -> DatasetInfo:
        if info.id != self.repo_id:
            raise renamed(self.name, info.id)
        if info.private is not (self._visibility == "private"):
            raise not_as_visible(self.name, self._visibility)
        return info

    def _tree(self, revision: str) -> dict[str, str]:
        from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

        with self._asking():
            entries = self._api().list_repo_tree(
                self.repo_id, recursive=True, revision=revision, repo_type="dataset"
            )
            return {
                entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
                for entry in entries
                if isinstance(entry, RepoFile)
            }

    def _upload(self, additions: Sequence[CommitOperationAdd]) -> None:
        """Upload contents; one at a time, because the client uses a thread pool from two on."""
        from feedback.remote.client import quiet  # noqa: PLC0415

        for addition in additions:
            with self._asking(), quiet():
                self._api().preupload_lfs_files(
                    self.repo_id,
                    [addition],
                    repo_type="dataset",
                    num_threads=1,
                    free_memory=False,
                )

    def _confirmed(
        self, revision: str, add: Mapping[str, bytes], delete: Sequence[str]
    ) -> Snapshot:
        """Return the new state, having seen the change in it."""
        try:
            files = self._tree(revision)
        except RemoteError as error:
            raise UncertainCommitError(
                f"{upper(self.name)} must show the change it confirmed, got no view of it. Look "
                "again before repeating it."
            ) from error
        has_added = all(files.get(path) in _digests(data) for path, data in add.items())
        if not has_added or any(path in files for path in delete if path not in add):
            raise UncertainCommitError(
                f"{upper(self.name)} must hold what was just committed, got another state. Look "
                "again before repeating it."
            )
        return Snapshot(revision, files)


def _digests(data: bytes) -> tuple[str, str]:
    """Return the two digests the Hub may give a content: as a large file, and as git's blob."""
    header = b"blob %d\0" % len(data)
    # Git's own digest; nothing is secured by it.
    git = hashlib.sha1(header + data, usedforsecurity=False)
    return hashlib.sha256(data).hexdigest(), git.hexdigest()


def _whole(data: bytes, digest: str, path: str) -> bytes:
    """Return the content if it has the digest.

    Raises:
        RemoteBusyError: It has another.
    """
    if digest not in _digests(data):
        raise RemoteBusyError(
            f"{path} must arrive as it is stored, got it cut off or altered. Nothing was changed; "
            "try later."
        )
    return data
