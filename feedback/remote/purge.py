"""Making unreachable what a dataset repository no longer shows: refs, history, stored contents.

Knows the Hub's client and one repository, no rating. Every step finds out by itself what is left
to do, so that a purge that broke off is finished by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from feedback.errors import RemoteRefusedError, StaleSnapshotError
from feedback.remote.base import Purge
from feedback.remote.hub import asking, upper

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import LFSFileInfo

    from feedback.remote.client import Call

_MAIN = "main"
_MOST_ASKED = 200
"""A history has a commit a minute; asking for each would use up what the Hub allows."""
_ANEW = (
    "delete the repository and make an empty private one of the same name, to which all ratings "
    "are sent again"
)


class Purger:
    """One repository's purge."""

    def __init__(self, api: HfApi, repo_id: str, *, name: str, seconds: float) -> None:
        """Name the repository; nothing is asked yet.

        Args:
            api: A client with a token that may write.
            repo_id: NAME/REPO of a dataset.
            name: The repository's, for messages.
            seconds: How long one request, or one listing, may take.
        """
        self._api = api
        self._repo_id = repo_id
        self._name = name
        self._seconds = seconds

    def purge(
        self, old: set[str], *, remember: Callable[[Collection[str]], object] | None = None
    ) -> Purge:
        """Purge everything but the newest state of the main branch.

        Args:
            old: Commits that an earlier purge still has to verify; emptied on success, added to
                on failure.
            remember: Called with all of them, before any is removed.

        Raises:
            RemoteBusyError: Not finished; purge again.
            RemoteRefusedError: A ref cannot be removed, or something old is still served.
        """
        # Listed before the squash: whoever uploaded one of these and has not committed it yet
        # has a parent that is gone after it, so that no later commit can name them.
        stored = self._stored()
        old |= self._commits(_MAIN)
        refs = self._refs()
        for name in refs:
            old |= self._commits(name)
        if remember is not None:
            remember(old)
        for name, is_tag in refs.items():
            self._remove_ref(name, is_tag=is_tag)
        self._squash()
        head, files = self._head()
        old.discard(head)
        n_blobs = self._remove_blobs([blob for blob in stored if not _ids(blob) & files])
        head, _ = self._head()
        old.discard(head)
        self._verify(old)
        n_revisions = len(old)
        old.clear()
        return Purge(revisions=n_revisions, blobs=n_blobs, refs=len(refs))

    def _asking(self) -> AbstractContextManager[Call]:
        return asking(self._name, seconds=self._seconds)

    def _commits(self, revision: str) -> set[str]:
        with self._asking():
            commits = self._api.list_repo_commits(
                self._repo_id, repo_type="dataset", revision=revision
            )
            return {commit.commit_id for commit in commits}

    def _refs(self) -> dict[str, bool]:
        """Return every branch but main, every pull request and tag, and whether it is a tag."""
        with self._asking():
            refs = self._api.list_repo_refs(
                self._repo_id, repo_type="dataset", include_pull_requests=True
            )
        branches = [ref.name for ref in refs.branches if ref.name != _MAIN]
        hidden = [ref.ref for ref in (*refs.converts, *(refs.pull_requests or ()))]
        tags = [ref.name for ref in refs.tags]
        return dict.fromkeys((*branches, *hidden), False) | dict.fromkeys(tags, True)

    def _remove_ref(self, name: str, *, is_tag: bool) -> None:
        """Delete one ref; one that is gone meanwhile is fine."""
        try:
            with self._asking():
                if is_tag:
                    self._api.delete_tag(self._repo_id, tag=name, repo_type="dataset")
                else:
                    self._api.delete_branch(self._repo_id, branch=name, repo_type="dataset")
        except StaleSnapshotError:
            return
        except RemoteRefusedError as error:
            raise RemoteRefusedError(
                f"{name} must be removed from {self._name} to erase what it holds, got it "
                "refused. Close and delete it on the repository's page on the Hub, or "
                f"{_ANEW}; the erasure goes on by itself."
            ) from error

    def _squash(self) -> None:
        """Make one commit of the main branch's history."""
        if len(self._commits(_MAIN)) > 1:
            with self._asking():
                self._api.super_squash_history(
                    self._repo_id,
                    branch=_MAIN,
                    commit_message="Squash history",
                    repo_type="dataset",
                )

    def _head(self) -> tuple[str, frozenset[str]]:
        """Return the newest commit, and the digests of all content it names."""
        from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

        with self._asking():
            head = str(self._api.dataset_info(self._repo_id).sha)
            entries = self._api.list_repo_tree(
                self._repo_id, recursive=True, revision=head, repo_type="dataset"
            )
            files = [entry for entry in entries if isinstance(entry, RepoFile)]
        return head, frozenset(
            digest
            for file in files
            for digest in (file.blob_id, file.lfs and file.lfs.sha256)
            if digest
        )

    def _stored(self) -> list[LFSFileInfo]:
        with self._asking():
            return list(self._api.list_lfs_files(self._repo_id, repo_type="dataset"))

    def _remove_blobs(self, blobs: list[LFSFileInfo]) -> int:
        """Delete stored contents for good, look that they are gone, and return how many."""
        if not blobs:
            return 0
        with self._asking():
            self._api.permanently_delete_lfs_files(
                self._repo_id, blobs, rewrite_history=True, repo_type="dataset"
            )
        removed = {blob.file_oid for blob in blobs}
        if removed & {blob.file_oid for blob in self._stored()}:
            raise self._still_served("contents that were deleted")
        return len(removed)

    def _verify(self, old: Collection[str]) -> None:
        """Ask for old commits: all, or of very many a sample that their random ids make.

        Raises:
            RemoteRefusedError: One is answered.
        """
        from huggingface_hub.errors import RevisionNotFoundError  # noqa: PLC0415

        step = -(-len(old) // _MOST_ASKED) or 1
        for revision in sorted(old)[::step]:
            with self._asking():
                try:
                    self._api.dataset_info(self._repo_id, revision=revision)
                except RevisionNotFoundError:
                    continue
            raise self._still_served("an old commit")

    def _still_served(self, what: str) -> RemoteRefusedError:
        return RemoteRefusedError(
            f"{upper(self._name)} must no longer serve what was erased, got "
            f"{what} still answered. Purge again in some minutes; if it stays, {_ANEW}."
        )


def _ids(blob: LFSFileInfo) -> set[str]:
    """Return both names of a stored content: which of them a tree gives is not documented."""
    return {blob.oid, blob.file_oid}
