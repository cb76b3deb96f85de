"""One repo of the test Hub: commits, refs, trees, LFS objects; knows no HTTP and no accounts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath

# fmt: off
LFS_SUFFIXES = frozenset({
    ".arrow", ".bin", ".ckpt", ".gz", ".h5", ".jpeg", ".jpg", ".npy", ".npz", ".onnx",
    ".parquet", ".pickle", ".pkl", ".png", ".pt", ".pth", ".rar", ".safetensors", ".tar",
    ".webp", ".xz", ".zip", ".zst",
})
# fmt: on
LFS_OVER = 5_000_000
"""Bytes above which a file becomes an LFS object whatever its name says."""

ATTRIBUTES = "".join(
    f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in sorted(LFS_SUFFIXES)
).encode()


class RefusedError(Exception):
    """An answer that is no success: its status, the client's error code and one sentence."""

    def __init__(self, status: int, message: str, *, code: str | None = None, **details: object):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.details = details
        """Further fields of the JSON body."""


def revision_not_found(revision: str) -> RefusedError:
    return RefusedError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(path: str) -> RefusedError:
    return RefusedError(404, f"Entry not found: {path}", code="EntryNotFound")


def _missing(what: str, path: str) -> RefusedError:
    message = f"A {what} with this name doesn't exist: {path}"
    return RefusedError(404, message, code="EntryNotFound")


def git_oid(data: bytes) -> str:
    """Return the git blob id of a file, 40 hex digits."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return what git itself stores for an LFS file."""
    head = "version https://git-lfs.github.com/spec/v1\n"
    return f"{head}oid sha256:{sha256}\nsize {size}\n".encode()


def is_lfs(path: str, size: int) -> bool:
    return PurePosixPath(path).suffix.lower() in LFS_SUFFIXES or size > LFS_OVER


@dataclass(frozen=True)
class File:
    """One file of a tree: a regular one holds its content, an LFS one its pointer."""

    oid: str
    """Git blob id of what git stores: the content, or the pointer."""
    size: int
    """Bytes of the content."""
    stored: bytes
    """What git stores."""
    sha256: str | None = None
    """Of the content, for an LFS file."""

    @classmethod
    def regular(cls, data: bytes) -> File:
        return cls(git_oid(data), len(data), data)

    @classmethod
    def lfs(cls, sha256: str, size: int) -> File:
        pointer = lfs_pointer(sha256, size)
        return cls(git_oid(pointer), size, pointer, sha256)

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """One revision: what it is called and every file it holds."""

    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: datetime
    files: Mapping[str, File] = field(repr=False)


@dataclass
class LfsObject:
    """The bytes of one LFS file, in the store beside the history."""

    data: bytes = field(repr=False)
    pushed_at: datetime
    is_verified: bool = False
    filename: str = ""
    ref: str | None = None


@dataclass(frozen=True)
class Folder:
    """One folder of a tree; git knows it by the files below it."""

    path: str
    oid: str


@dataclass(frozen=True)
class Change:
    """One commit to make: files to put, and paths to take away first."""

    title: str
    message: str = ""
    add: Mapping[str, File] = field(default_factory=dict)
    delete_files: tuple[str, ...] = ()
    delete_folders: tuple[str, ...] = ()
    parent: str | None = None
    """The head the author saw, 5 to 40 hex digits; None: whatever it is."""


class Repository:
    """History, refs and LFS objects of one repo; the caller holds the Hub's lock.

    Args:
        kind: "model", "dataset" or "space".
        id: `namespace/name`; changes when the repo is moved.
        is_private: Whether only its owners may know that it exists.
        clock: Now, in UTC.
    """

    def __init__(self, kind: str, id: str, *, is_private: bool, clock: Callable[[], datetime]):
        self.kind = kind
        self.id = id
        self.is_private = is_private
        self.gated: bool | str = False
        self.created_at = clock()
        self.commits: dict[str, Commit] = {}
        """Those some ref reaches; the others are forgotten at once."""
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pull_requests: dict[str, str] = {}
        """`refs/pr/<n>` to commit id; only a test adds one."""
        self.converts: dict[str, str] = {}
        self.blobs: dict[str, LfsObject] = {}
        """LFS objects by sha256, whether or not a revision still names them."""
        self.parts: dict[str, dict[int, bytes]] = {}
        """What of an object has arrived so far, by sha256 and part number."""
        self._clock = clock
        self._made = 0
        initial = {".gitattributes": File.regular(ATTRIBUTES)}
        self.branches["main"] = self._make(None, "initial commit", "", "system", initial).id

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        return self.commits[self.branches["main"]]

    # Looking things up

    def refs(self) -> dict[str, str]:
        """Return every full ref name with its commit id."""
        return {
            **{f"refs/heads/{name}": sha for name, sha in self.branches.items()},
            **{f"refs/tags/{name}": sha for name, sha in self.tags.items()},
            **{f"refs/convert/{name}": sha for name, sha in self.converts.items()},
            **self.pull_requests,
        }

    def commit(self, revision: str) -> Commit:
        """Return the commit a branch, tag, ref or (abbreviated) commit id names.

        Raises:
            RefusedError: 404 `RevisionNotFound`.
        """
        refs = self.refs()
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in refs:
                return self.commits[refs[name]]
        if revision in self.commits:
            return self.commits[revision]
        if len(revision) >= 7:  # As git abbreviates.
            found = [sha for sha in self.commits if sha.startswith(revision.lower())]
            if len(found) == 1:
                return self.commits[found[0]]
        raise revision_not_found(revision)

    def ancestors(self, commit: Commit) -> Iterator[Commit]:
        """Yield a commit and those before it, newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self.commits[current.parent] if current.parent else None

    def last_change(self, commit: Commit, path: str) -> Commit:
        """Return the commit that gave a file the content it has at `commit`."""
        last = commit
        for earlier in self.ancestors(commit):
            if earlier.files.get(path) != commit.files[path]:
                break
            last = earlier
        return last

    def content(self, file: File) -> bytes | None:
        """Return the bytes of a file, None where its LFS object was deleted for good."""
        if file.sha256 is None:
            return file.stored
        blob = self.blobs.get(file.sha256)
        return blob.data if blob else None

    def read(self, path: str, *, revision: str = "main") -> bytes:
        """Return the bytes of a file at a revision.

        Raises:
            RefusedError: 404 where there is no such revision or file, or its object was deleted.
        """
        file = self.commit(revision).files.get(path)
        data = self.content(file) if file else None
        if data is None:
            raise entry_not_found(path)
        return data

    def every_byte(self) -> Iterator[tuple[str, bytes]]:
        """Yield (where, bytes) of all this repo holds: trees, messages, LFS objects, uploads.

        Parquet is compressed: what starts with `PAR1` has to be read, not searched.
        """
        seen: set[tuple[str, str]] = set()
        for commit in self.commits.values():
            said = "\n".join([commit.title, commit.message, *commit.files])
            yield f"{self.id}@{commit.id}: message and paths", said.encode()
            for path, file in commit.files.items():
                if (path, file.oid) not in seen:
                    seen.add((path, file.oid))
                    yield f"{self.id}@{commit.id}: {path}", file.stored
        for sha256, blob in self.blobs.items():
            yield f"{self.id}: LFS object {sha256}", blob.data
        for sha256, parts in self.parts.items():
            for number, data in parts.items():
                yield f"{self.id}: part {number} of LFS object {sha256}", data

    # Changing things

    def apply(self, branch: str, change: Change, *, author: str) -> Commit:
        """Make a commit on a branch (or `refs/pr/<n>`), all or nothing.

        Raises:
            RefusedError: 404 for an unknown branch or a missing file, 412 for a stale parent, 400
                for an LFS object that was never uploaded.
        """
        name = branch.removeprefix("refs/heads/")
        refs = self.pull_requests if name in self.pull_requests else self.branches
        if name not in refs:
            raise revision_not_found(branch)
        head = self.commits[refs[name]]
        if change.parent is not None and not head.id.startswith(change.parent.lower()):
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        files = self._changed(head.files, change)
        commit = self._make(head.id, change.title, change.message, author, files)
        refs[name] = commit.id
        for path, file in change.add.items():
            if file.sha256:
                blob = self.blobs[file.sha256]
                blob.filename, blob.ref = blob.filename or path, blob.ref or f"refs/heads/{name}"
        return commit

    def store(self, data: bytes, *, is_verified: bool = True) -> str:
        """Keep the bytes of an LFS object; return their sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        blob = self.blobs.setdefault(sha256, LfsObject(data, self._clock()))
        blob.is_verified = blob.is_verified or is_verified
        return sha256

    def write(
        self, files: Mapping[str, bytes], *, branch: str = "main", title: str = "Add files"
    ) -> Commit:
        """Commit files without the API, as somebody else would have."""
        add = {
            path: File.lfs(self.store(data), len(data))
            if is_lfs(path, len(data))
            else File.regular(data)
            for path, data in files.items()
        }
        return self.apply(branch, Change(title, add=add), author="somebody")

    def add_pull_request(self, files: Mapping[str, bytes]) -> str:
        """Make `refs/pr/<n>`, which the API refuses, with one commit on top of main; return it."""
        name = f"refs/pr/{len(self.pull_requests) + 1}"
        self.pull_requests[name] = self.head.id
        self.write(files, branch=name, title="A pull request")
        return name

    def squash(self, branch: str, *, title: str, author: str) -> Commit:
        """Replace a branch's history by one commit with the same files.

        Raises:
            RefusedError: 404 for an unknown branch, 400 for a tag.
        """
        if branch not in self.branches:
            if branch in self.tags:
                raise RefusedError(400, "Only a branch can be squashed, not a tag.")
            raise revision_not_found(branch)
        files = self.commits[self.branches[branch]].files
        self.branches[branch] = self._make(None, title, "", author, files).id
        self.forget_unreachable()
        return self.commits[self.branches[branch]]

    def delete_blobs(self, oids: frozenset[str], *, rewrite_history: bool) -> None:
        """Forget LFS objects for good, and with `rewrite_history` their pointers in every revision.

        A commit that held such a pointer, and each one after it, gets a new id.
        """
        for oid in oids:
            self.blobs.pop(oid, None)
            self.parts.pop(oid, None)
        if not rewrite_history:
            return
        new_ids: dict[str, str] = {}
        for commit in list(self.commits.values()):  # Parents come before their children.
            files = {path: file for path, file in commit.files.items() if file.sha256 not in oids}
            parent = new_ids.get(commit.parent, commit.parent) if commit.parent else None
            if len(files) < len(commit.files) or parent != commit.parent:
                new_ids[commit.id] = self._make_like(commit, parent, files).id
        for refs in (self.branches, self.tags, self.pull_requests, self.converts):
            refs.update({name: new_ids.get(sha, sha) for name, sha in refs.items()})
        self.forget_unreachable()

    def forget_unreachable(self) -> None:
        """Drop the commits that no branch, tag or other ref reaches."""
        heads = [self.commits[sha] for sha in self.refs().values()]
        reached = {commit.id for head in heads for commit in self.ancestors(head)}
        self.commits = {sha: commit for sha, commit in self.commits.items() if sha in reached}

    def _changed(self, files: Mapping[str, File], change: Change) -> dict[str, File]:
        changed = dict(files)
        for path in change.delete_files:
            if changed.pop(path, None) is None:
                raise _missing("file", path)
        for folder in change.delete_folders:
            inside = [path for path in changed if path.startswith(folder.rstrip("/") + "/")]
            if not inside:
                raise _missing("folder", folder)
            for path in inside:
                del changed[path]
        return changed | {path: self._whole(path, file) for path, file in change.add.items()}

    def _whole(self, path: str, file: File) -> File:
        """Return a file to add, with its size from the object: a copy comes without one."""
        if file.sha256 is None:
            return file
        blob = self.blobs.get(file.sha256)
        if blob is None or not blob.is_verified:
            raise RefusedError(400, f"The LFS object {file.sha256} of {path} was never uploaded.")
        return File.lfs(file.sha256, len(blob.data))

    def _make(
        self, parent: str | None, title: str, message: str, author: str, files: Mapping[str, File]
    ) -> Commit:
        commit = Commit("", parent, title, message, author, self._clock(), files)
        return self._keep(commit)

    def _make_like(self, commit: Commit, parent: str | None, files: Mapping[str, File]) -> Commit:
        return self._keep(replace(commit, parent=parent, files=files))

    def _keep(self, commit: Commit) -> Commit:
        """Name a commit after what it holds and its number, so that every run has the same ids."""
        self._made += 1
        tree = [[path, file.oid] for path, file in sorted(commit.files.items())]
        text = json.dumps([self.kind, self.id, self._made, commit.parent, commit.title, tree])
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = replace(commit, id=sha)
        return self.commits[sha]


def entries(
    files: Mapping[str, File], under: str = "", *, recursive: bool
) -> list[tuple[str, File | Folder]]:
    """List what a folder holds, in the order of the paths, which are given from the root."""
    prefix = f"{under}/" if under else ""
    found: dict[str, File | Folder] = {}
    below: dict[str, list[str]] = {}
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        steps = path.removeprefix(prefix).split("/")
        for depth in range(1, len(steps)):
            below.setdefault(prefix + "/".join(steps[:depth]), []).append(path + file.oid)
        if recursive or len(steps) == 1:
            found[path] = file
    for path, inside in below.items():
        if recursive or "/" not in path.removeprefix(prefix):
            text = "\n".join(sorted(inside)).encode()
            found[path] = Folder(path, hashlib.sha1(text, usedforsecurity=False).hexdigest())
    return sorted(found.items())
