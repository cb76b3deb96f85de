"""`verify` and `publish`: a model folder checked against its certificate, and sent to the Hub."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from privacy_core.commands.output import as_json, say
from privacy_core.commands.requests import move_requests, verify_ledger
from privacy_core.commands.shell import Commands, Tools
from privacy_core.errors import ModelError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def add_commands(commands: Commands) -> None:
    """Add `verify` and `publish`."""
    made = commands.add("verify", _verify, "check a model folder against its certificate")
    made.add_argument("model", metavar="FOLDER")
    made.add_argument("--revised", metavar="DIR", help="also check the revised data set")
    made.add_argument("--json", action="store_true", help="print what was checked")
    made = commands.add("publish", _publish, "send a model and its evidence to the Hub")
    add = made.add_argument
    add("model", metavar="MODEL2", help="an audited folder")
    add("--repo-id", required=True, metavar="NAME/REPO", help="made when missing")
    add("--public", action="store_true", help="let everybody read it; otherwise private")
    add("--force", action="store_true", help="publish though the gate failed; the card says so")
    add("--licence", default="other", metavar="NAME", help="for the card; default: %(default)s")
    add("--json", action="store_true", help="print repository and revision")


def checked_folder(
    folder: Path, *, revised_digest: str | None = None, but: str | None = None
) -> tuple[str, ...]:
    """Check a folder against its certificate and return what was checked, in words.

    Args:
        folder: The model folder.
        revised_digest: Digest of the revised data at hand.
        but: A file that may differ.

    Raises:
        ModelError: Something does not fit.
    """
    from privacy_core.unlearning.certificate import verify

    found = verify(folder, revised_digest=revised_digest)
    problems = [one for one in found.problems if but is None or repr(but) not in one]
    if problems:
        raise ModelError(
            f"{folder.name!r} does not fit its certificate: {' '.join(problems)} "
            "Run `unlearn` again, or bring the files back."
        )
    return found.checked


def _verify(options: argparse.Namespace, _: Tools) -> None:
    folder, digest = Path(options.model), None
    if options.revised is not None:
        from privacy_core.revise.revision import load_revision

        digest = str(load_revision(Path(options.revised))["data_digest"])
    checked = checked_folder(folder, revised_digest=digest) + verify_ledger(folder)
    if options.json:
        print(as_json({"valid": True, "checked": list(checked)}), end="")
    say(f"{options.model} fits its certificate; checked {', '.join(checked)}.")


def _publish(options: argparse.Namespace, _: Tools) -> None:
    from privacy_core.hub import publish

    folder = Path(options.model)
    found = publish(
        folder,
        repo_id=options.repo_id,
        client=_client(),
        public=options.public,
        force=options.force,
        licence=options.licence,
    )
    move_requests(folder, "released", repository=found.repo_id, revision=found.revision)
    if options.json:
        value = {"repo_id": found.repo_id, "revision": found.revision, "new": found.is_new}
        print(as_json(value), end="")
    where = "everybody can read it" if found.is_public else "it is private"
    what = "Published" if found.is_new else "Nothing to send, the Hub already holds"
    say(f"{what} {found.repo_id} at revision {found.revision}; {where}.")


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()
