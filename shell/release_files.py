"""Which files of a checkout a Space needs: what git tracks, or known kinds of files without git.

Knows files; no Hub and no page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType

from privacy_core.errors import InvalidArgumentError

FOLDERS = ("shell", "privacy_core", "feedback", "models", "examples")
SUFFIXES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "shell": frozenset({".po", ".py"}),
        "privacy_core": frozenset({".py"}),
        "feedback": frozenset({".py"}),
        "models": frozenset({".json", ".md", ".png", ".safetensors"}),
        "examples": frozenset({".json", ".md", ".parquet", ".png", ".txt", ".webp"}),
    }
)
"""Folder → suffixes of what goes where git cannot say what is ours."""
FILES = ("app.py", "requirements.txt", "README.md", "LICENSE")
_PICTURE = re.compile(r"!\[[^\]]*\]\((docs/[\w./-]+)\)")
_FEW = 3
"""Files named in a sentence; the others are counted."""


@dataclass(frozen=True)
class Choice:
    """What of a checkout goes, and what does not.

    Attributes:
        names: Paths below the checkout that a Space needs, sorted.
        left_out: Paths in the app's folders that stay here, sorted.
        by_git: Git said which are ours; else their suffixes did.
    """

    names: tuple[str, ...]
    left_out: tuple[str, ...]
    by_git: bool

    @property
    def warning(self) -> str:
        """Say what stays here and what to check, a line each; empty where there is nothing."""
        lines = []
        if not self.by_git:
            lines.append(
                "Git cannot say here which files are the app's: they were chosen by their "
                "suffixes. Look through what `--dry-run` lists, or deploy from a git checkout.\n"
            )
        if self.left_out:
            few = ", ".join(self.left_out[:_FEW])
            rest = len(self.left_out) - _FEW
            more = f" and {rest} more" if rest > 0 else ""
            reason = "git does not track" if self.by_git else "have other suffixes or are ignored"
            way_out = "Commit what the app needs, move" if self.by_git else "Move"
            lines.append(
                f"Left out, as files that {reason}: {few}{more}. {way_out} the rest away.\n"
            )
        return "".join(lines)


def choose_files(root: Path) -> Choice:
    """Choose what of a checkout a Space needs.

    Args:
        root: The checkout, a git repository or an unpacked release.

    Raises:
        InvalidArgumentError: One that must be there is missing, or git fails.
    """
    missing = [name for name in (*FILES, *FOLDERS) if not (root / name).exists()]
    if missing:
        raise InvalidArgumentError(
            f"The checkout must hold {missing[0]!r}, got none. Deploy from a complete checkout."
        )
    there = _files_there(root)
    tracked = _tracked(root)
    ours = there & tracked if tracked is not None else _known(there, _ignored(root))
    bare = [name for name in FOLDERS if not any(path.startswith(f"{name}/") for path in ours)]
    if bare:
        raise InvalidArgumentError(
            f"The checkout must hold files of the app in {bare[0]!r}, got none "
            f"{'that git tracks' if tracked is not None else 'of a known suffix'}. "
            "Commit them, or deploy from a complete checkout."
        )
    readme = (root / "README.md").read_text(encoding="utf-8")
    shown = {name for name in _PICTURE.findall(readme) if (root / name).is_file()}
    return Choice(
        names=tuple(sorted({*FILES} | ours | shown)),
        left_out=tuple(sorted(there - ours)),
        by_git=tracked is not None,
    )


def _files_there(root: Path) -> set[str]:
    """Return all files in the app's folders but those that tools put beside the code."""
    paths = [
        path.relative_to(root)
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file()
    ]
    return {
        path.as_posix()
        for path in paths
        if not any(part.startswith((".", "__pycache__")) for part in path.parts)
    }


def _tracked(root: Path) -> set[str] | None:
    """Return what git tracks in the app's folders, None where there is no git to ask.

    Raises:
        InvalidArgumentError: Git fails: what it would have kept back must not go.
    """
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    # Of this checkout, not of one around it; nor, without an environment, of one a hook runs for.
    done = subprocess.run(  # noqa: S603 - a list, and nothing of a request in it
        [git, "--git-dir=.git", "--work-tree=.", "ls-files", "-z", "--", *FOLDERS],
        cwd=root,
        env={},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        said = os.fsdecode(done.stderr).partition("\n")[0]
        raise InvalidArgumentError(
            f"Git must list the files of the checkout, got {said!r}. Make `git status` work "
            "there, or deploy from an unpacked release."
        )
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}


def _known(names: set[str], ignored: Sequence[str]) -> set[str]:
    """Keep files whose suffix is known in their folder and that no ignored pattern names."""
    return {
        name
        for name in names
        if Path(name).suffix in SUFFIXES[name.partition("/")[0]]
        and not any(fnmatch(part, pattern) for part in name.split("/") for pattern in ignored)
    }


def _ignored(root: Path) -> list[str]:
    """Return the patterns of `.gitignore` that hold in every folder; the others are left to git."""
    place = root / ".gitignore"
    lines = place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
    patterns = [line.strip().removesuffix("/") for line in lines if not line.startswith(("#", "!"))]
    return [pattern for pattern in patterns if pattern and "/" not in pattern]
