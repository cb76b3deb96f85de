"""Erase the originals of a revised data set, models made of them, and what could undo its noise.

Only files that the revision listed, that lie in the place named, and that are still what they were
are removed. Knows files and digests; no photo. Copies elsewhere (backups, version control, the Hub,
blocks a disk has not reused) are out of reach, and the receipt says so.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.revise.revision import (
    Workplace,
    as_json,
    file_digest,
    load_revision,
    write_atomically,
)
from privacy_core.schema import SCHEMA_VERSION

RECEIPT = "erasure.json"
NOT_REACHED = (
    "Backups, snapshots, version control and other copies of the original files.",
    "The Hub's own copy and its history, where the data came from there.",
    "What the Hub's client keeps outside that data set's own folder of its cache, where the data "
    "came from there: files that repositories share (counted among those left; `hf cache rm "
    "dataset/NAME/REPO` removes those that no other one uses), archives that were unpacked, pieces "
    "of downloads.",
    "Models trained on the originals, until they are unlearned.",
    "Features a head keeps of them, until `unlearn` or `audit` has run on this revised data: name "
    "its private folder by `--shadows`.",
    "Blocks of a disk that the system has not used again.",
)
"""What erasing files does not reach, one sentence each."""
SHADOWS = "shadows.json"
"""In the private folder beside an audited model: the folders of the audit's shadow models."""
FEATURES_NOTE = "features.json"
"""In the private folder beside the revised data: the folders in which models keep `FEATURES`."""
FEATURES = "features.npz"
"""What heads keep of the pictures they have read."""
_SHADOW = re.compile(
    r"(original|reference|control|unlearned)-[0-9a-f]{32}(\.run)?\.(safetensors|pt)"
)
_EVIDENCE = ("audit.json", "certificate.json")


@dataclass(frozen=True)
class Erasure:
    """What would be erased.

    Attributes:
        revision: `revision.json` of the revised data.
        workplace: Its places.
        files: Originals that are there and unchanged.
        changed: How many are there, but are not what they were; they stay.
        missing: How many are gone already.
        foreign: How many lie outside the place named; they stay.
        audited: Whether an audit of this very data was shown.
        left: What was noted about the files that stay.
        place: Where the originals are, as it was named.
        shadows: Models that an audit trained on the originals.
        features: Files of features that were read from the originals, among others.
        snapshots: Folders of the Hub's cache that hold these files or link to them.
    """

    revision: dict[str, Any] = field(repr=False)
    workplace: Workplace
    files: tuple[Path, ...] = field(repr=False)
    changed: int
    missing: int
    foreign: int
    audited: bool
    left: tuple[Mapping[str, Any], ...] = field(repr=False)
    place: Path
    shadows: tuple[Path, ...] = field(default=(), repr=False)
    features: tuple[Path, ...] = field(default=(), repr=False)
    snapshots: tuple[Path, ...] = field(default=(), repr=False)


def plan_erasure(
    data: str,
    revised: Path,
    *,
    audited: Path | None = None,
    erase_first: bool = False,
    shadows: Sequence[Path] = (),
) -> Erasure:
    """Find what can be erased; removes nothing.

    Args:
        data: Where the originals are, as `revise` was told, or a folder above them.
        revised: The revised data set.
        audited: Model folder whose audit names the revised data.
        erase_first: Go on without an audit.
        shadows: Folders of shadow models or features, beside those that were noted.

    Raises:
        InvalidArgumentError: There is no audit, the revised data set is not whole, or its list of
            originals is gone.
    """
    revision = load_revision(revised)
    if audited is not None:
        _check_audit(audited, str(revision["data_digest"]))
    elif not erase_first:
        raise InvalidArgumentError(
            "`--audited` must name a model folder with an audit of this revised data, since the "
            "audit reads the originals, got none. Run `python -m privacy_core audit` first, or "
            "erase without one with `--erase-first`."
        )
    workplace = Workplace(revised)
    try:
        listed = json.loads((workplace.private / "originals.json").read_text(encoding="utf-8"))
        files = [dict(f) for f in listed["files"]]
        entries = [(Path(f["path"]), int(f["bytes"]), str(f["sha256"])) for f in files]
        is_local, name = bool(listed["is_local"]), str(listed["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"`--revision` must still have its list of originals in {workplace.private.name!r}, "
            f"got {str(revised)!r} without a readable one. If they were erased already, "
            f"{RECEIPT} says so; otherwise remove them by hand."
        ) from error
    is_mine = not is_local and data == name
    states = [_state(entry, data, is_mine=is_mine) for entry in entries]
    same = [path for (path, _, _), state in zip(entries, states, strict=True) if state == "same"]
    return Erasure(
        revision,
        workplace,
        tuple(same),
        states.count("changed"),
        states.count("missing"),
        states.count("foreign"),
        audited is not None,
        tuple(f for f, s in zip(files, states, strict=True) if s in {"changed", "foreign"}),
        Path(data),
        _shadow_models([*shadows, *_shadow_folders(audited)]),
        _features([*shadows, *_noted_folders(workplace.private, FEATURES_NOTE)]),
        _snapshots_of(same) if is_mine else (),
    )


def erase(erasure: Erasure) -> dict[str, Any]:
    """Erase the originals, then the key and everything private, and return the receipt.

    The order matters: while a file is left, the list of files is too, so that a run that was
    stopped can be repeated.

    Raises:
        OutputError: A file cannot be removed; the list stays.
    """
    _remove(erasure.shadows)
    _remove(erasure.features)
    # First, as no link leads to a file that is gone; their names may be people's.
    links = _links_to(erasure.files, within=erasure.snapshots)
    _remove(links)
    _remove(erasure.files)
    receipt = {
        "schema_version": SCHEMA_VERSION,
        "kind": "erasure",
        "data_digest": erasure.revision["data_digest"],
        "original_digest": erasure.revision["original"]["digest"],
        "n_files_erased": len(erasure.files),
        "n_files_missing": erasure.missing,
        "n_files_changed_and_left": erasure.changed,
        "n_files_outside_and_left": erasure.foreign,
        "n_shadow_models_erased": len(erasure.shadows),
        "n_files_of_features_erased": len(erasure.features),
        "noise_key_erased": True,
        "row_pseudonyms_erased": erasure.audited,
        "erased_before_audit": not erasure.audited,
        "not_reached": list(NOT_REACHED),
    }
    _erase_private(erasure)
    _remove_empty_folders(erasure.files, below=erasure.place.resolve())
    for snapshot in erasure.snapshots:
        _remove_empty_folders([*links, *erasure.files], below=snapshot)
    write_atomically(erasure.workplace.out / RECEIPT, as_json(receipt))
    return receipt


def _remove(paths: Sequence[Path]) -> None:
    for n_done, path in enumerate(paths):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(
                f"`DATA` must be files you can remove, got {str(path)!r} "
                f"({error.strerror or type(error).__name__}) after {n_done} were erased. "
                "Change its rights and run the same again."
            ) from error


def note_folder(private: Path, name: str, folder: Path) -> bytes:
    """Return the note `name` with one more folder in it.

    Args:
        private: The private folder the note is in; may be missing.
        name: `SHADOWS` or `FEATURES_NOTE`.
        folder: What is to be found there.
    """
    known = {os.path.relpath(path, private) for path in _noted_folders(private, name)}
    known.add(os.path.relpath(folder.absolute(), private))
    return as_json({"folders": sorted(known)})


def _shadow_folders(audited: Path | None) -> list[Path]:
    if audited is None:
        return []
    return _noted_folders(
        audited.absolute().parent / f".{audited.absolute().name}.private", SHADOWS
    )


def _noted_folders(private: Path, name: str) -> list[Path]:
    try:
        found = json.loads((private / name).read_text(encoding="utf-8"))["folders"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = "shadow models" if name == SHADOWS else "features"
        raise InvalidArgumentError(
            f"{private.name}/{name} must name the folders of {what}, got a damaged file. "
            "Remove it, and name them by `--shadows`."
        ) from error
    return [Path(os.path.normpath(private / str(one))) for one in found]


def _shadow_models(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the shadow models in folders, by their names; nothing else in them is touched."""
    found = {
        path.resolve()
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if _SHADOW.fullmatch(path.name) and path.is_file() and not path.is_symlink()
    }
    return tuple(sorted(found))


def _features(folders: Sequence[Path]) -> tuple[Path, ...]:
    found = {folder.resolve() / FEATURES for folder in folders}
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def _snapshots_of(files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders of revisions that stand beside files in the Hub's cache."""
    folders = {folder for path in files for folder in path.resolve().parents}
    places = {f.with_name("snapshots") for f in folders if f.name in {"blobs", "snapshots"}}
    return tuple(sorted(one for place in places if place.is_dir() for one in place.iterdir()))


def _links_to(files: Sequence[Path], *, within: Sequence[Path]) -> list[Path]:
    targets = {path.resolve() for path in files}
    links = (path for folder in within for path in folder.rglob("*") if path.is_symlink())
    return sorted(path for path in links if path.resolve() in targets)


def _check_audit(folder: Path, digest: str) -> None:
    texts = []
    for name in _EVIDENCE:
        path = folder / name
        if path.is_file():
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    if not (folder / _EVIDENCE[0]).is_file() or not any(digest in text for text in texts):
        raise InvalidArgumentError(
            f"`--audited` must be a model folder whose audit is of this revised data, got "
            f"{str(folder)!r}. Run `python -m privacy_core audit` on a model unlearned with it."
        )


def _state(entry: tuple[Path, int, str], data: str, *, is_mine: bool) -> str:
    path, size, digest = entry
    if not (is_mine or _is_inside(path, data)):
        return "foreign"
    if path.is_symlink() or not path.is_file():
        return "changed" if path.exists() else "missing"
    return "same" if path.stat().st_size == size and file_digest(path) == digest else "changed"


def _is_inside(path: Path, data: str) -> bool:
    """Return whether a file is DATA, lies below it, or matches it as a pattern."""
    place = Path(data).absolute()
    if place.exists():
        # Resolved, so that no `..` and no linked folder leads elsewhere.
        resolved, root = path.parent.resolve() / path.name, place.resolve()
        return resolved == root or root in resolved.parents
    return fnmatch.fnmatchcase(str(path), str(place))


def _erase_private(erasure: Erasure) -> None:
    """Remove the key first, then the rest, except what a later run of this job needs.

    Before an audit the pseudonyms of the rows stay, meaningless without the key: the audit of a
    stand-in request splits by person. Files that stay remain listed.
    """
    private = erasure.workplace.private
    is_last = erasure.audited and not erasure.left
    keep = set() if is_last else {"originals.json", *([] if erasure.audited else ["rows.parquet"])}
    for path in sorted(private.iterdir(), key=lambda p: p.name != "noise.key"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in keep:
            path.unlink()
    if is_last:
        private.rmdir()
    else:
        # The name of a folder may be somebody's too.
        listed = {"name": "", "is_local": True, "files": list(erasure.left)}
        erasure.workplace.keep("originals.json", listed)


def _remove_empty_folders(files: Sequence[Path], *, below: Path) -> None:
    """Remove folders that held nothing but originals; their names may be people's."""
    folders = {parent for path in files for parent in path.resolve().parents}
    for folder in sorted(folders, key=lambda p: -len(p.parts)):
        if below in folder.parents and next(folder.iterdir(), None) is None:
            folder.rmdir()
