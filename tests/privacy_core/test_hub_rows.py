"""Revised data sets on the test Hub with the real client: read there, sent there in parts."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from privacy_core import hub as module
from privacy_core.__main__ import main
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands import revise as command
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.hub import publish_rows
from privacy_core.revise.revision import Workplace, file_digest
from tests.hub_server import HubServer
from tests.privacy_core.people import (
    MarkDetector,
    rows_of,
    write_preferences,
    write_rows,
)
from tests.privacy_core.tiny import tiny_model

N_SHARDS = 5
REFUSED_NAMES = ["me/my--model", "me/a..b", "me/x.git", "me/abc-", "me/abc.", "me-/x"]
"""What the Hub's client raises a ValueError for."""
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        hub.add_user("anna", "hf_anna")
        hub.add_user("anna", "hf_anna_read", role="read")
        yield hub


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a revised data set of five shards, what stands beside it, and what it is made of."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "d.parquet", rows_of(N_SHARDS))
    write_preferences(folder / "p.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("privacy_core.revise.run.rows_per_shard", lambda _: 1)
        assert main(
            ["revise", "d.parquet", "--preferences", "p.json", "--out", "r", "--others", "keep"],
            load_backend=lambda _: EmbeddedBackend(tiny_model()), detector=MarkDetector(),
        ) == 0  # fmt: skip
    return folder


@pytest.fixture
def name():
    return f"anna/revised-{next(_NUMBERS)}"


@pytest.fixture(autouse=True)
def two_at_once(monkeypatch):
    monkeypatch.setattr(module, "SHARDS_PER_COMMIT", 2)


def client_of(hub, token="hf_anna"):  # noqa: S107
    return HfApi(endpoint=hub.endpoint, token=token)


def titles(hub, name):
    repo = hub.repo(name)
    return [commit.title for commit in repo.ancestors(repo.head)]


def files_there(hub, name):
    return set(hub.repo(name).head.files) - {".gitattributes"}


def files_here(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_shards_are_sent_in_bounded_commits_and_the_note_that_they_are_whole_last(hub, made, name):
    found = publish_rows(made / "r", repo_id=name, client=client_of(hub))
    assert (found.is_new, found.is_public) == (True, False)
    assert found.revision == hub.repo(name).head.id
    assert titles(hub, name)[:4] == [f"Add revised rows, {n}/4" for n in (4, 3, 2, 1)]
    assert files_there(hub, name) == files_here(made / "r") | {"README.md"}
    for path in files_here(made / "r"):
        assert hub.repo(name).read(path) == (made / "r" / path).read_bytes()
    before_last = next(itertools.islice(hub.repo(name).ancestors(hub.repo(name).head), 1, None))
    assert "revision.json" not in before_last.files


def test_the_card_says_what_was_made_and_what_epsilon_does_not_cover(hub, made, name):
    publish_rows(made / "r", repo_id=name, client=client_of(hub))
    card = hub.repo(name).read("README.md").decode()
    revision = json.loads((made / "r/revision.json").read_text())
    assert f"{N_SHARDS} rows" in card
    assert revision["model"]["revision"] in card
    assert all(sentence in card for sentence in revision["not_covered"])
    assert "person-" not in card


def test_nothing_that_is_private_is_sent(hub, made, name):
    publish_rows(made / "r", repo_id=name, client=client_of(hub))
    secret = (Workplace(made / "r").private / "noise.key").read_bytes()
    assert all(b"person-" not in data and secret not in data for _, data in hub.every_byte())


def test_the_same_data_set_twice_is_sent_once_and_an_edited_card_stays(hub, made, name):
    client = client_of(hub)
    publish_rows(made / "r", repo_id=name, client=client)
    hub.repo(name).write({"README.md": b"Mine.\n"})
    head = hub.repo(name).head.id
    found = publish_rows(made / "r", repo_id=name, client=client)
    assert (found.is_new, found.revision) == (False, head)


@pytest.mark.parametrize("kind", ["500", "500-after", "412", "close"])
def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(hub, made, name, kind):
    hub.fail("commit", kind, skip=1)
    with pytest.raises(OutputError, match="Run it again with `--resume`"):
        publish_rows(made / "r", repo_id=name, client=client_of(hub))
    assert "revision.json" not in files_there(hub, name)
    n_there = len(files_there(hub, name))
    assert n_there in {2, 4}
    publish_rows(made / "r", repo_id=name, client=client_of(hub))
    assert files_there(hub, name) == files_here(made / "r") | {"README.md"}
    assert len(titles(hub, name)) == 5  # the first is the Hub's own; no file was sent twice


@pytest.mark.parametrize("path", ["data/train-00000-of-00005.parquet", "notes.txt"])
def test_a_data_set_of_something_else_is_not_touched(hub, made, name, path):
    repo = hub.add_repo(name)
    repo.write({path: b"PAR1 other"})
    head = repo.head.id
    with pytest.raises(InvalidArgumentError, match="holds something else"):
        publish_rows(made / "r", repo_id=name, client=client_of(hub))
    assert repo.head.id == head


def test_a_public_data_set_is_refused(hub, made, name):
    hub.add_repo(name, private=False)
    with pytest.raises(InvalidArgumentError, match="`--out` must be private"):
        publish_rows(made / "r", repo_id=name, client=client_of(hub))
    assert files_there(hub, name) == set()


def test_a_token_that_may_not_write_is_refused_without_being_shown(hub, made, name):
    with pytest.raises(OutputError, match="right to write") as refused:
        publish_rows(made / "r", repo_id=name, client=client_of(hub, "hf_anna_read"))
    assert "hf_anna" not in str(refused.value)


def test_a_data_set_that_was_changed_is_not_sent(hub, made, name, tmp_path):
    shutil.copytree(made / "r", tmp_path / "r")
    next((tmp_path / "r/data").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(InvalidArgumentError, match="unchanged"):
        publish_rows(tmp_path / "r", repo_id=name, client=client_of(hub))
    assert ("dataset", name) not in hub.repos


# --- The command -------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, made, hub, capsys, monkeypatch):
    """Return a function that runs a command beside the data: (exit code, stdout, stderr)."""
    for file in ("d.parquet", "p.json"):
        shutil.copy(made / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_client", lambda: client_of(hub))

    def run_main(*arguments):
        code = main(
            ["revise", "d.parquet", "--preferences", "p.json", "--others", "keep", *arguments],
            load_backend=lambda _: EmbeddedBackend(tiny_model()), detector=MarkDetector(),
        )  # fmt: skip
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main


def test_revise_writes_to_the_hub_and_keeps_what_is_private_here(run, hub, name):
    code, _, err = run("--out", f"hf://datasets/{name}")
    assert code == 0, err
    here = Path(name.replace("/", "--"))
    assert f"Sent {here} to {name}, revision {hub.repo(name).head.id}; it is private." in err
    assert files_there(hub, name) == files_here(here) | {"README.md"}
    assert Workplace(here).private.is_dir()


def test_what_could_not_be_sent_is_sent_by_resuming_and_not_made_again(run, hub, name):
    hub.fail("commit", "500")
    code, _, err = run("--out", f"hf://datasets/{name}")
    assert code == 2
    assert "Run it again with `--resume`" in err
    digests = {p: file_digest(p) for p in Path(name.replace("/", "--")).glob("data/*")}
    assert run("--out", f"hf://datasets/{name}", "--resume")[0] == 0
    assert {p: file_digest(p) for p in digests} == digests
    assert "revision.json" in files_there(hub, name)


@pytest.mark.parametrize(
    "place",
    [
        "hf://datasets/anna",
        "hf://models/anna/x",
        "hf://datasets/anna/x@main",
        "hf://datasets/anna/x//",
        *(f"hf://datasets/{name}" for name in REFUSED_NAMES),
    ],
)
def test_a_place_on_the_hub_that_is_no_data_set_is_refused_first(run, place):
    code, _, err = run("--out", place)
    assert code == 2
    assert "must be hf://datasets/NAME/REPO" in err


def test_rows_are_not_sent_to_a_name_that_the_client_refuses(tmp_path):
    for name in REFUSED_NAMES:
        with pytest.raises(InvalidArgumentError, match="`--out` must be hf://datasets/NAME/REPO"):
            publish_rows(tmp_path, repo_id=name, client=HfApi())


@pytest.mark.slow
def test_from_one_data_set_on_the_hub_to_another_in_a_process_of_its_own(hub, made, name, tmp_path):
    source = hub.add_repo(f"{name}-source")
    source.write({"data/train-00000-of-00001.parquet": (made / "d.parquet").read_bytes()})
    shutil.copy(made / "p.json", tmp_path)
    environment = os.environ | hub.environment(tmp_path / "home", token="hf_anna")  # noqa: S106
    environment["PYTHONPATH"] = os.getcwd()  # noqa: PTH109
    script = (
        "import sys\nfrom privacy_core.__main__ import main\n"
        "from privacy_core.backends.embedded import EmbeddedBackend\n"
        "from tests.privacy_core.people import MarkDetector\n"
        "from tests.privacy_core.tiny import tiny_model\n"
        "sys.exit(main(sys.argv[1:], load_backend=lambda _: EmbeddedBackend(tiny_model()), "
        "detector=MarkDetector()))"
    )
    path = f"hf://datasets/{name}-source@{source.head.id}"
    subprocess.run(
        [sys.executable, "-c", script, "revise", path, "--preferences", "p.json",
         "--out", f"hf://datasets/{name}"],
        check=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    check = (
        "import datasets\n"
        f"rows = datasets.load_dataset({name!r}, revision={hub.repo(name).head.id!r})['train']\n"
        f"assert len(rows) == {N_SHARDS} and rows[0]['image'].size == (170, 160)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, env=environment, cwd=tmp_path)
    revision = json.loads(hub.repo(name).read("revision.json"))
    assert revision["original"]["name"] == path
