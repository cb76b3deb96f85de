"""`python -m shell.deploy`: puts the app into a Hugging Face Space, in one commit.

Sends only what the app needs and never what a checkout happens to hold. Knows no page.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.errors import InvalidArgumentError, OutputError, PrivacyDialError
from shell.release_files import Choice, choose_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ROOT = Path(__file__).resolve().parent.parent
TITLE = "Privacy Dial"
_PLACED_BY_THE_HUB = {".gitattributes", "README.md"}
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
