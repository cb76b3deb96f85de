"""`python -m shell.deploy`: puts the app into a Hugging Face Space, in one commit.

Sends only what the app needs and never what a checkout happens to hold: of its folders what git
tracks, and of an unpacked release what has a known suffix. Knows no page.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from privacy_core.errors import InvalidArgumentError, OutputError, PrivacyDialError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ROOT = Path(__file__).resolve().parent.parent
TITLE = "Privacy Dial"
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
_PLACED_BY_THE_HUB = {".gitattributes", "README.md"}
_PICTURE = re.compile(r"!\[[^\]]*\]\((docs/[\w./-]+)\)")
_FEW = 3
"""Files named in a sentence; the others are counted."""
_WRITERS = {"admin", "write", "contributor"}
_NO_RIGHTS, _CONFLICTS = (401, 403), (409, 412)
NEXT_STEPS = """\
Set in the Space's settings, as secrets:
  PRIVACY_DIAL_FEEDBACK_KEY  64 or more hexadecimal digits; without it every restart loses who rated
  HF_TOKEN                   may write to the repositories below; leave it out to keep no copy
and as variables, where they are wanted:
  PRIVACY_DIAL_DATASET       NAME/REPO, a private data set that the ratings are copied to
  PRIVACY_DIAL_MODELS        NAME/REPO, to which the Models page may publish
How to run it: docs/OPERATING.md.
"""


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


@dataclass(frozen=True)
class Deployment:
    """What was sent.

    Attributes:
        repo_id: NAME/SPACE.
        revision: The commit.
        is_new: The Space was made for it.
        is_private: Who is not invited sees nothing of it.
        choice: Which files.
    """

    repo_id: str
    revision: str
    is_new: bool
    is_private: bool
    choice: Choice


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


def deploy(
    root: Path, *, repo_id: str, client: HfApi, private: bool = False, force: bool = False
) -> Deployment:
    """Make a Space hold the app and nothing else, in one commit.

    Args:
        root: The checkout.
        repo_id: NAME/SPACE; made when missing.
        client: The Hub's client, with a token.
        private: Make it for those who are invited; an existing Space must be so already.
        force: Replace what another app put there.

    Raises:
        InvalidArgumentError: The name is another's, or no Space's, or the Space holds another app.
        OutputError: The Hub did not take it; nothing or everything was deployed.
    """
    _check_name(repo_id)
    choice = choose_files(root)
    with _asking(repo_id):
        _check_owner(client, repo_id)
        info = _space(client, repo_id)
        if info is None:
            if not force:
                _check_no_other_repository(client, repo_id)
            client.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private)
            info, is_new = client.space_info(repo_id), True
        else:
            is_new = False
            _check_space(info, repo_id, private=private, force=force)
        with tempfile.TemporaryDirectory() as place:
            _copy(root, choice.names, Path(place))
            commit = client.upload_folder(
                repo_id=repo_id,
                repo_type="space",
                folder_path=place,
                commit_message="Deploy Privacy Dial",
                parent_commit=info.sha,
                # What an earlier version left there is gone; the Hub's own file stays.
                delete_patterns=["*"],
            )
    return Deployment(repo_id, str(commit.oid), is_new, bool(info.private), choice)


def _check_name(repo_id: str) -> None:
    from privacy_core.hub import NAMING, is_repo_id  # noqa: PLC0415 - it reads data sets

    if not is_repo_id(repo_id):
        raise InvalidArgumentError(
            f"`--repo-id` must be NAME/SPACE, {NAMING}, got {repo_id!r}. Name another."
        )


def _check_owner(client: HfApi, repo_id: str) -> None:
    """Refuse a namespace that the token's owner may not write to."""
    me = client.whoami()
    mine = {me["name"]}
    mine |= {org["name"] for org in me.get("orgs", ()) if org.get("roleInOrg") in _WRITERS}
    namespace = repo_id.partition("/")[0]
    if namespace not in mine:
        raise InvalidArgumentError(
            f"`--repo-id` must be in your own namespace ({', '.join(sorted(mine))}), got "
            f"{repo_id!r}, which belongs to somebody else. Name a Space of yours."
        )


def _space(client: HfApi, repo_id: str) -> Any:
    """Return what the Hub says of the Space, None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

    try:
        return client.space_info(repo_id)
    except RepositoryNotFoundError:
        return None


def _check_no_other_repository(client: HfApi, repo_id: str) -> None:
    """Refuse the name of a model or data set, which is rather a slip than a wish."""
    for kind, word in (("dataset", "data set"), ("model", "model")):
        if client.repo_exists(repo_id, repo_type=kind):
            raise InvalidArgumentError(
                f"`--repo-id` must name a Space, got {repo_id!r}, which is a {word}. Name another, "
                "or give `--force` to make a Space of the same name beside it."
            )


def _check_space(info: Any, repo_id: str, *, private: bool, force: bool) -> None:
    """Refuse a Space that is public against what was asked, or that holds another app."""
    if private and not info.private:
        raise InvalidArgumentError(
            f"`--private` must fit the Space, got {repo_id!r}, which everybody can see. Make it "
            "private in its settings first."
        )
    names = {file.rfilename for file in info.siblings or ()}
    card = info.card_data.to_dict() if info.card_data else {}
    is_ours = card.get("title") == TITLE and "app.py" in names
    if names - _PLACED_BY_THE_HUB and not is_ours and not force:
        raise InvalidArgumentError(
            f"`--repo-id` must be new or hold {TITLE}, got {repo_id!r}, which holds another app "
            f"({len(names)} files). Name another, or give `--force` to replace it."
        )


def _copy(root: Path, names: Sequence[str], place: Path) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, place / name)


@contextlib.contextmanager
def _asking(repo_id: str) -> Iterator[None]:
    """Turn what the Hub refuses into our words; addresses and tokens stay out of them."""
    import httpx2  # noqa: PLC0415  (the client's own HTTP library: its errors are no OSErrors)
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError  # noqa: PLC0415

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise OutputError(
            "`HF_TOKEN` must be a token that may write, got none. Set it, or run `hf auth login`."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in _NO_RIGHTS:
            raise OutputError(
                f"`HF_TOKEN` must have the right to write to {repo_id}, got none or one without "
                "it. Use another token."
            ) from error
        said = "was changed meanwhile" if status in _CONFLICTS else f"got status {status}"
        raise OutputError(
            f"The Hub must accept {repo_id}, {said}. Nothing was deployed; deploy again."
        ) from error
    except PrivacyDialError:
        raise
    except (OSError, httpx2.HTTPError) as error:
        raise OutputError(
            f"The Hub must answer, got {type(error).__name__} while deploying {repo_id}. Deploy "
            "again: what is there already is not sent twice."
        ) from error


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Deploy and say what to set; return 0, or 2 for what was refused.

    Args:
        arguments: The command line; the process's own when None.
        root: The checkout.
    """
    options = command_line().parse_args(arguments)
    try:
        if options.dry_run:
            _check_name(options.repo_id)
            choice = choose_files(root)
            _say_files(root, choice.names, options.repo_id)
            sys.stderr.write(choice.warning)
            return 0
        from huggingface_hub import HfApi  # noqa: PLC0415

        environment = os.environ
        client = HfApi(
            endpoint=environment.get("HF_ENDPOINT") or None,
            token=environment.get("HF_TOKEN") or None,
        )
        done = deploy(
            root,
            repo_id=options.repo_id,
            client=client,
            private=options.private,
            force=options.force,
        )
    except PrivacyDialError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    sys.stderr.write(done.choice.warning)
    seen_by = "private" if done.is_private else "for everybody"
    made = "Made and deployed" if done.is_new else "Deployed"
    sys.stdout.write(f"{made} {done.repo_id} ({seen_by}) at {done.revision}.\n{NEXT_STEPS}")
    return 0


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m shell.deploy",
        description="Put Privacy Dial into a Hugging Face Space; HF_TOKEN must allow it.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--repo-id", required=True, metavar="NAME/SPACE", help="made when missing")
    add("--private", action="store_true", help="for those who are invited; else for everybody")
    add("--dry-run", action="store_true", help="list what would be sent, and ask nobody")
    add("--force", action="store_true", help="replace what another app put there")
    return parser


def _say_files(root: Path, names: Sequence[str], repo_id: str) -> None:
    size = sum((root / name).stat().st_size for name in names)
    lines = "".join(f"{name}\n" for name in names)
    sys.stdout.write(
        f"{lines}{len(names)} files, {size / 1e6:.1f} MB, would go to {repo_id}. "
        "Nothing was sent.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
