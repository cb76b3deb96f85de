"""Files in a private Storage Bucket on the Hub, the optional quick tier; knows no rating.

A bucket has no commits: of two writers the last one wins, and nobody is told. So every file's path
must be its writer's own; what is seen to have changed is refused, and a change is looked at after
it was made. The Hub's client carries buckets over `hf_xet`, whose transfers have no deadline.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.errors import (
    RemoteError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.remote.base import Purge, Snapshot
from feedback.remote.hub import (
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

if TYPE_CHECKING:
    from huggingface_hub import BucketFile, HfApi

    from feedback.remote.client import Call

_METHODS = (
    "bucket_info",
    "create_bucket",
    "list_bucket_tree",
    "batch_bucket_files",
    "download_bucket_files",
)


class BucketRemote:
    """A private bucket; see `Remote` for the methods' contracts."""

    keeps = True
    swaps = False

    def __init__(
        self,
        bucket_id: str,
        *,
        token: str | None,
        is_known: bool = False,
        endpoint: str | None = None,
        api: HfApi | None = None,
    ) -> None:
        """Name the bucket; nothing is asked yet.

        Args:
            bucket_id: NAME/BUCKET.
            token: With the right to write to it.
            is_known: Whether it was seen before: then it is never made again if it is missing.
            endpoint: Of another Hub, None for the usual one.
            api: The Hub's client, None for the real one.

        Raises:
            InvalidRatingError: `bucket_id` has another form.
        """
        self.bucket_id = checked_repo_id("bucket", bucket_id)
        self.name = f"the private bucket {bucket_id}"
        self._token = token
        self._endpoint = endpoint
        self._is_known = is_known
        self._given_api = api
        self._deleted: set[str] = set()

    def snapshot(self) -> Snapshot:
        """List the files, having checked that the bucket is as promised.

        Raises:
            RemoteBusyError: Not reachable now.
            RemoteRefusedError: The installed client knows no buckets; or the bucket is missing
                though it was there before, renamed, public, someone else's.
        """
        self._check()
        files = self._files()
        self._is_known = True
        return Snapshot("", files)

    def read(self, snapshot: Snapshot, path: str) -> bytes:
        """Return a file as the snapshot had it; it passes through a folder of this process only.

        Raises:
            StaleSnapshotError: It has changed since, or was not there.
            RemoteBusyError: Not reachable now.
            ForeignShardError: It is larger than `MAX_FILE_BYTES`.
        """
        entry = next((entry for entry in self._tree(path) if entry.path == path), None)
        if entry is None or entry.xet_hash != snapshot.files.get(path):
            raise self._stale()
        if entry.size > MAX_FILE_BYTES:
            raise too_large(path)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            with self._asking():
                self._api().download_bucket_files(
                    self.bucket_id, [(entry, copy)], raise_on_missing_files=True
                )
                return copy.read_bytes()

    def commit(
        self,
        snapshot: Snapshot,
        *,
        add: Mapping[str, bytes],
        delete: Sequence[str] = (),
        message: str,  # noqa: ARG002
    ) -> Snapshot:
        """Change everything in one request, if nothing is seen to have changed.

        Raises:
            StaleSnapshotError: Something changed; nothing was written.
            RemoteBusyError: Surely nothing was written.
            UncertainCommitError: It may have been written, or a part of it.
            RemoteRefusedError: As `snapshot`.
        """
        from huggingface_hub.errors import BucketBatchError  # noqa: PLC0415

        # No listing says that a bucket was made public: ask before anything is sent.
        self._check()
        if self._files() != dict(snapshot.files):
            raise self._stale()
        self._deleted |= set(delete)
        with self._asking() as call:
            try:
                self._api().batch_bucket_files(
                    self.bucket_id,
                    add=[(data, path) for path, data in add.items()],
                    delete=list(delete),
                )
            except BucketBatchError:
                # Some of it was done.
                call.in_doubt = True
                raise
        return self._confirmed(add, delete)

    def purge(
        self,
        snapshot: Snapshot,
        *,
        old: Collection[str] = (),  # noqa: ARG002
        remember: Callable[[Collection[str]], object] | None = None,  # noqa: ARG002
    ) -> Purge:
        """Look that what was deleted is gone; a bucket has no history to remove.

        Raises:
            StaleSnapshotError: Something changed since; take a snapshot and purge again.
            RemoteBusyError: Not finished; purge again.
            RemoteRefusedError: As `snapshot`, or something deleted is still served.
        """
        self._check()
        files = self._files()
        if left := self._deleted & files.keys() - snapshot.files.keys():
            raise RemoteRefusedError(
                f"{upper(self.name)} must no longer serve what was deleted, got {len(left)} files "
                "still there. Purge again in some minutes."
            )
        if files != dict(snapshot.files):
            raise self._stale()
        n_blobs = len(self._deleted - files.keys())
        self._deleted.clear()
        return Purge(revisions=0, blobs=n_blobs, refs=0)

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi  # noqa: PLC0415

        # False and not None: None would take a token that lies about on this machine.
        return self._given_api or HfApi(endpoint=self._endpoint, token=self._token or False)

    def _asking(self) -> AbstractContextManager[Call]:
        return asking(self.name)

    def _check(self) -> None:
        """Check the installed client and the bucket, which is made if it was never seen.

        Raises:
            RemoteRefusedError: One of them is not as it must be.
        """
        from huggingface_hub.errors import BucketNotFoundError  # noqa: PLC0415

        if not self._token:
            raise no_rights(self.name)
        self._check_client()
        with self._asking():
            try:
                info = self._api().bucket_info(self.bucket_id)
            except BucketNotFoundError:
                if self._is_known:
                    raise missing(self.name) from None
                self._api().create_bucket(self.bucket_id, private=True, exist_ok=True)
                info = self._api().bucket_info(self.bucket_id)
        if info.id != self.bucket_id:
            raise renamed(self.name, info.id)
        if info.private is not True:
            raise not_as_visible(self.name, "private")

    def _check_client(self) -> None:
        """Check that the installed client can carry buckets."""
        lacks = [method for method in _METHODS if not hasattr(self._api(), method)]
        try:
            import hf_xet  # type: ignore[import-untyped] # noqa: F401, PLC0415
        except ImportError:
            lacks.append("hf_xet")
        if lacks:
            raise RemoteRefusedError(
                f"The installed `huggingface_hub` must know Storage Buckets, got one without "
                f"{', '.join(lacks)}. Install `huggingface_hub[hf_xet]` 2.4 or later, or name a "
                "dataset instead of a bucket."
            )

    def _tree(self, prefix: str | None = None) -> list[BucketFile]:
        with self._asking():
            entries = self._api().list_bucket_tree(self.bucket_id, prefix, recursive=True)
            return [entry for entry in entries if entry.type == "file"]

    def _files(self) -> dict[str, str]:
        return {entry.path: entry.xet_hash for entry in self._tree()}

    def _confirmed(self, add: Mapping[str, bytes], delete: Sequence[str]) -> Snapshot:
        """Return the new state, having seen the change in it."""
        try:
            files = self._files()
        except RemoteError as error:
            raise self._uncertain("no view of it") from error
        if not add.keys() <= files.keys() or files.keys() & set(delete) - add.keys():
            raise self._uncertain("another state")
        return Snapshot("", files)

    def _stale(self) -> StaleSnapshotError:
        return StaleSnapshotError(
            f"{upper(self.name)} must be as it was looked at, got it changed. Nothing was changed; "
            "look again and repeat."
        )

    def _uncertain(self, found: str) -> UncertainCommitError:
        return UncertainCommitError(
            f"{upper(self.name)} must show the change it confirmed, got {found}. Look again "
            "before repeating it."
        )
