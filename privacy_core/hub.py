"""Publish to the Hub: an unlearned model's folder in one commit, a revised data set in several.

Checked first, private by default. The only writer to the Hub in this package. The client is given;
no token is read or shown here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.revise.report import data_card
from privacy_core.revise.revision import REVISION, load_revision
from privacy_core.unlearning.certificate import CERTIFICATE, verify
from privacy_core.unlearning_report import model_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD, AUDIT = "README.md", "audit.json"
SHARDS_PER_COMMIT = 64
"""The Hub recommends 50 to 100 files per commit."""
_PLACED_BY_THE_HUB = {".gitattributes"}
NAMING = (
    "letters, digits and ._- in each, at most 96, neither - nor . at an end, no -- or .., and no "
    ".git last"
)
"""What `is_repo_id` goes by, in words."""
_NO_RIGHTS, _CONFLICTS = (401, 403), (409, 412)


@dataclass(frozen=True)
class Publication:
    """What was published.

    Attributes:
        repo_id: NAME/REPO.
        revision: The commit; name it when loading.
        is_new: False where the repository held just these files already.
        is_public: Whether everybody can read it.
    """

    repo_id: str
    revision: str
    is_new: bool
    is_public: bool


def is_repo_id(repo_id: str) -> bool:
    """Return whether a name has the form NAME/REPO and the Hub's client takes it."""
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        validate_repo_id,
    )

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return repo_id.count("/") == 1


def publish(
    folder: Path,
    *,
    repo_id: str,
    client: HfApi,
    public: bool = False,
    force: bool = False,
    licence: str = "other",
) -> Publication:
    """Publish a model folder in one commit; the same folder twice is one commit.

    Args:
        folder: The unlearned, audited model.
        repo_id: NAME/REPO; made when missing.
        client: The Hub's client, with a token.
        public: Let everybody read it; otherwise the repository must be private.
        force: Publish what failed the gate or was not audited; the card says so.
        licence: For the card.

    Raises:
        InvalidArgumentError: The name is none, the gate failed, or the repository is public, or
            holds another model.
        ModelError: The certificate does not fit the files.
        OutputError: The Hub did not take it; nothing or everything was published.
    """
    if not is_repo_id(repo_id):
        raise InvalidArgumentError(
            f"`--repo-id` must be NAME/REPO, {NAMING}, got {repo_id!r}. Name another."
        )
    evidence = _checked(folder, force=force)
    files = _files(folder, repo_id, evidence, licence)
    with _asking(repo_id):
        head, is_private = _opened(client, repo_id, public=public)
        there = _there(client, repo_id, head)
        if there.keys() - _PLACED_BY_THE_HUB:
            _check_same_model(client, repo_id, head, evidence.certificate)
        operations = _operations(files, there)
        revision = head
        if operations:
            revision = client.create_commit(
                repo_id, operations, commit_message="Publish the unlearned model and its audit",
                parent_commit=head,
            ).oid  # fmt: skip
        if public and is_private:
            # Only now: a repository with half a model never was public.
            client.update_repo_settings(repo_id, private=False)
    return Publication(repo_id, str(revision), bool(operations), public)


def publish_rows(folder: Path, *, repo_id: str, client: HfApi) -> Publication:
    """Publish a revised data set, privately; what is there already is not sent again.

    The shards come first, then `revision.json` with the card: a repository without it is not whole.

    Args:
        folder: What `revise` wrote.
        repo_id: NAME/REPO; made when missing.
        client: The Hub's client, with a token.

    Raises:
        InvalidArgumentError: The name is none, the data set is not as `revise` wrote it, or the
            repository is public or holds something else.
        OutputError: The Hub did not take it; what it took stays, and it can be gone on.
    """
    if not is_repo_id(repo_id):
        raise InvalidArgumentError(
            f"`--out` must be hf://datasets/NAME/REPO, {NAMING}, got {repo_id!r} for the names. "
            "Name others."
        )
    revision = load_revision(folder)
    shards = {str(shard["file"]): str(shard["sha256"]) for shard in revision["shards"]}
    notes = {REVISION: (folder / REVISION).read_bytes(), CARD: data_card(revision).encode()}
    with _asking(repo_id, "Run it again with `--resume`"):
        head, _ = _opened(client, repo_id, public=False, repo_type="dataset")
        there = _there(client, repo_id, head, repo_type="dataset")
        expected = {name: {digest} for name, digest in shards.items()}
        expected[REVISION] = _names_of(notes[REVISION])
        # A card may have been edited.
        held = there.keys() - _PLACED_BY_THE_HUB - {CARD}
        if any(there[name] not in expected.get(name, ()) for name in held):
            raise InvalidArgumentError(
                f"`--out` must be a new data set on the Hub, or one that holds a part of this very "
                f"revision; {repo_id} holds something else. Name another."
            )
        missing: list[tuple[str, Path | bytes]] = [
            (name, folder / name) for name in shards if name not in there
        ]
        starts = range(0, len(missing), SHARDS_PER_COMMIT)
        commits = [missing[start : start + SHARDS_PER_COMMIT] for start in starts]
        commits += [] if REVISION in there else [list(notes.items())]
        for number, files in enumerate(commits, 1):
            head = _commit(
                client, repo_id, files, f"Add revised rows, {number}/{len(commits)}", head
            )
    return Publication(repo_id, head, bool(commits), False)


def _commit(
    client: HfApi, repo_id: str, files: Iterable[tuple[str, Path | bytes]], message: str, head: str
) -> str:
    from huggingface_hub import CommitOperationAdd  # noqa: PLC0415

    added = [CommitOperationAdd(name, content) for name, content in files]
    return str(
        client.create_commit(
            repo_id, added, commit_message=message, parent_commit=head, repo_type="dataset"
        ).oid
    )


@dataclass(frozen=True)
class _Evidence:
    config: dict[str, Any]
    training: dict[str, Any]
    certificate: dict[str, Any]
    audit: dict[str, Any] | None


def _checked(folder: Path, *, force: bool) -> _Evidence:
    """Read a folder's evidence and refuse what must not be published."""
    verification = verify(folder)
    if not verification.is_valid:
        raise ModelError(
            f"The model folder {folder.name!r} does not fit its certificate: "
            f"{' '.join(verification.problems)} Run `unlearn` and `audit` again."
        )
    audit = _read(folder, AUDIT) if (folder / AUDIT).is_file() else None
    reasons = ["It was not audited."] if audit is None else audit["gate"]["reasons"]
    passed = audit is not None and audit["gate"]["passed"] is True and not reasons
    if not passed and not force:
        raise InvalidArgumentError(
            "MODEL2 must have passed the gate for release, got a model that did not: "
            f"{' '.join(reasons)} Unlearn it in another way, or publish it by `--force`; its card "
            "then says so."
        )
    return _Evidence(
        _read(folder, "config.json"), _read(folder, "training.json"), _read(folder, CERTIFICATE),
        audit,
    )  # fmt: skip


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The model folder {folder.name!r} must hold a readable {name}, got none. "
            "Run `unlearn` again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"The file {name} in {folder.name!r} must hold one JSON object.")
    return value


def _files(folder: Path, repo_id: str, evidence: _Evidence, licence: str) -> dict[str, bytes]:
    """Return name → content of all that is published; the card is made here."""
    # Only what the certificate lists, itself and the plots: nothing private slips in.
    names = sorted({*evidence.certificate["files"], CERTIFICATE})
    names += sorted(
        path.relative_to(folder).as_posix()
        for path in (folder / "plots").glob("*")
        if path.suffix in {".svg", ".png"} and evidence.audit is not None
    )
    files = {name: (folder / name).read_bytes() for name in names}
    files[CARD] = model_card(
        repo_id, config=evidence.config, training=evidence.training,
        certificate=evidence.certificate, audit=evidence.audit, licence=licence,
        plots=[name for name in names if name.endswith(".png")],
    ).encode()  # fmt: skip
    return files


def _opened(
    client: HfApi, repo_id: str, *, public: bool, repo_type: str = "model"
) -> tuple[str, bool]:
    """Return the head of a repository and whether it is private; make a private one if missing."""
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

    try:
        info = client.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        client.create_repo(repo_id, private=True, exist_ok=True, repo_type=repo_type)
        info = client.repo_info(repo_id, repo_type=repo_type)
    if not info.private and not public:
        is_model = repo_type == "model"
        way_out = "Give `--public` if they shall, or name another." if is_model else "Name another."
        raise InvalidArgumentError(
            f"`{'--repo-id' if is_model else '--out'}` must be private, got {repo_id}, which "
            f"everybody can read. {way_out}"
        )
    return str(info.sha), bool(info.private)


def _there(client: HfApi, repo_id: str, head: str, *, repo_type: str = "model") -> dict[str, str]:
    """Return path → the digest the Hub knows each file by."""
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    found = {}
    for entry in client.list_repo_tree(repo_id, recursive=True, revision=head, repo_type=repo_type):
        if isinstance(entry, RepoFile):
            found[entry.path] = entry.blob_id if entry.lfs is None else entry.lfs.sha256
    return found


def _check_same_model(client: HfApi, repo_id: str, head: str, certificate: dict[str, Any]) -> None:
    """Refuse a repository that holds anything but a revision of the same original model."""
    import tempfile  # noqa: PLC0415

    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    theirs: object = None
    with tempfile.TemporaryDirectory() as place:
        try:
            path = client.hf_hub_download(repo_id, CERTIFICATE, revision=head, local_dir=place)
            theirs = json.loads(Path(path).read_text(encoding="utf-8"))["original"]["weights"]
        except (EntryNotFoundError, ValueError, KeyError, TypeError):
            theirs = None
    if theirs is None or theirs != certificate["original"]["weights"]:
        raise InvalidArgumentError(
            f"`--repo-id` must be new, or hold an unlearned revision of the same original model; "
            f"{repo_id} holds something else. Name another."
        )


def _operations(files: dict[str, bytes], there: dict[str, str]) -> list[Any]:
    """Return what makes the repository hold these files and no others."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415

    added = [
        CommitOperationAdd(name, content)
        for name, content in files.items()
        if there.get(name) not in _names_of(content)
    ]
    gone = sorted(there.keys() - files.keys() - _PLACED_BY_THE_HUB)
    return [*added, *(CommitOperationDelete(name) for name in gone)]


def _names_of(content: bytes) -> set[str]:
    """Return the digests the Hub may know a file by."""
    return {_blob_id(content), hashlib.sha256(content).hexdigest()}


def _blob_id(content: bytes) -> str:
    """Return git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _asking(repo_id: str, again: str = "Publish again") -> Iterator[None]:
    """Turn what the Hub refuses into our words; addresses and tokens stay out of them."""
    import httpx2  # noqa: PLC0415  (the client's own HTTP library: its errors are no OSErrors)
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in _NO_RIGHTS:
            raise OutputError(
                f"The token must have the right to write to {repo_id}, got none or one without it. "
                "Log in with a token that may write there, or name a repository of your own."
            ) from error
        if status in _CONFLICTS:
            raise OutputError(
                f"{repo_id} was changed while publishing. Nothing was overwritten. {again}."
            ) from error
        raise OutputError(
            f"The Hub must accept {repo_id}, got status {status}. {again} later: what is there "
            "already is not sent twice."
        ) from error
    except OutputError:
        raise
    except (OSError, httpx2.HTTPError) as error:
        raise OutputError(
            f"The Hub must answer, got {type(error).__name__} while publishing {repo_id}. {again}: "
            "what is there already is not sent twice."
        ) from error
