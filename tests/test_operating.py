"""The operator's guide names commands, settings and fields that exist, and all of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import feedback.__main__
import privacy_core.__main__
from feedback import RatingStore
from feedback.remote.base import NullRemote
from feedback.sync.loop import Sync
from shell import deploy, prerender
from shell.copying import Load, health_report
from tests.test_architecture import SHELL, sources

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "OPERATING.md").read_text(encoding="utf-8")
PARSERS = {
    "feedback": feedback.__main__._parser,
    "privacy_core": privacy_core.__main__._parser,
    "shell.deploy": deploy.command_line,
    "shell.prerender": prerender.command_line,
}
COMMANDS = sorted(set(re.findall(r"python -m [^`\n]+", GUIDE)))


def test_the_guide_is_one_page_with_the_commands_it_needs():
    assert len(GUIDE.split()) < 1_500
    named = {" ".join(command.split()[2:4]) for command in COMMANDS}
    assert {"feedback erase", "feedback sync", "feedback publish", "feedback validate"} <= named
    assert {"shell.deploy --repo-id", "privacy_core calibrate"} <= named


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_guide_is_one(command, capsys):
    module, *arguments = shlex.split(command)[2:]
    if command == "python -m feedback publish":
        arguments += ["--store", "STORE", "--repo-id", "NAME/PUBLIC"]
    try:
        PARSERS[module]().parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{command}: {capsys.readouterr().err}")


def test_every_setting_of_the_app_is_in_the_guide_and_no_other():
    text = "".join(path.read_text(encoding="utf-8") for path in sources(*SHELL, "feedback"))
    known = set(re.findall(r"\bPRIVACY_DIAL_[A-Z_]+[A-Z]\b", text))
    named = set(re.findall(r"\bPRIVACY_DIAL_[A-Z_]+[A-Z]\b", GUIDE))
    assert named == known


def test_every_field_of_health_is_explained(tmp_path):
    with RatingStore(tmp_path / "ratings.sqlite3") as store:
        told = health_report(
            Sync(store, NullRemote()),
            fault=None,
            kind="none",
            model="0f3c2a",
            load=lambda: Load(0, 64, 0),
        )
    rows = re.search(r"## What to watch.*?\n\n(\|.*?)\n\n", GUIDE, re.DOTALL)[1]
    explained = set(re.findall(r"`(\w+)`", "\n".join(r.split("|")[1] for r in rows.splitlines())))
    assert explained == set(told)
