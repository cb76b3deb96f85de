"""The app put into a Space of the test Hub by the real client: all it needs, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from privacy_core.errors import InvalidArgumentError, OutputError
from shell.deploy import FILES, FOLDERS, NEXT_STEPS, deploy, deployed_files, main
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "hf_anna"  # noqa: S105 - of a Hub that lives for one test
SPACE = "anna/dial"
README = "---\ntitle: Privacy Dial\nsdk: gradio\n---\n![A](docs/screenshots/ladder.png)\n"


@pytest.fixture
def hub():
    with HubServer() as hub:
        hub.add_user("anna", TOKEN)
        hub.add_user("ben", "hf_ben")
        hub.add_organisation("lab", {"anna": "write"})
        hub.add_organisation("club", {"anna": "read"})
        yield hub


@pytest.fixture
def client(hub):
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


@pytest.fixture
def root(tmp_path):
    """A small checkout, with all that a real one may hold beside the app."""
    root = tmp_path / "checkout"
    for folder in FOLDERS:
        (root / folder / "__pycache__").mkdir(parents=True)
        (root / folder / "__init__.py").write_text(f"# {folder}\n")
        (root / folder / "__pycache__" / "x.pyc").write_bytes(b"secret")
    for name in FILES:
        (root / name).write_text(README if name == "README.md" else f"{name}\n")
    (root / "models" / "weights.safetensors").write_bytes(bytes(range(256)) * 64)
    (root / "docs" / "screenshots").mkdir(parents=True)
    (root / "docs" / "screenshots" / "ladder.png").write_bytes(b"\x89PNG")
    (root / "docs" / "screenshots" / "other.png").write_bytes(b"secret")
    for name in (".env", "ratings.sqlite3", "shell/.token", "feedback.key", "tests/test_x.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("secret\n")
    return root


def held(hub, repo_id=SPACE):
    repo = hub.repo(repo_id, "space")
    files = repo.commit("main").files
    # The Hub's own file is in every repository.
    return {name: repo.content(file) for name, file in files.items() if name != ".gitattributes"}


def test_a_new_space_gets_the_app_and_nothing_else_in_one_commit(hub, client, root):
    done = deploy(root, repo_id=SPACE, client=client)
    files = held(hub)
    assert set(files) == set(deployed_files(root))
    assert "docs/screenshots/ladder.png" in files
    assert "models/weights.safetensors" in files
    assert not any(b"secret" in data for data in files.values())
    assert (done.is_new, done.is_private) == (True, False)
    assert not hub.repo(SPACE, "space").is_private
    assert len(hub.requests("commit")) == 1
    assert hub.repo(SPACE, "space").commit("main").id == done.revision


def test_large_files_go_as_lfs_objects(hub, client, root):
    deploy(root, repo_id=SPACE, client=client)
    files = hub.repo(SPACE, "space").commit("main").files
    assert files["models/weights.safetensors"].sha256
    assert not files["app.py"].sha256


def test_a_private_space_is_made_private_and_stays_so(hub, client, root):
    assert deploy(root, repo_id=SPACE, client=client, private=True).is_private
    assert hub.repo(SPACE, "space").is_private
    assert deploy(root, repo_id=SPACE, client=client).is_private
    assert hub.repo(SPACE, "space").is_private


def test_a_new_version_replaces_the_old_one_and_what_it_no_longer_has(hub, client, root):
    first = deploy(root, repo_id=SPACE, client=client)
    (root / "shell" / "new.py").write_text("new\n")
    (root / "shell" / "__init__.py").unlink()
    again = deploy(root, repo_id=SPACE, client=client)
    assert not again.is_new
    assert again.revision != first.revision
    assert "shell/new.py" in held(hub)
    assert "shell/__init__.py" not in held(hub)


def test_the_same_version_twice_is_one_commit(client, root):
    first = deploy(root, repo_id=SPACE, client=client)
    assert deploy(root, repo_id=SPACE, client=client).revision == first.revision


def test_an_empty_space_that_was_made_on_the_hub_is_taken(hub, client, root):
    hub.add_repo(SPACE, "space", private=False)
    client.upload_file(
        path_or_fileobj=b"---\ntitle: Mine\n---\n",
        path_in_repo="README.md",
        repo_id=SPACE,
        repo_type="space",
    )
    assert not deploy(root, repo_id=SPACE, client=client).is_new
    assert "app.py" in held(hub)


def test_another_app_is_replaced_only_by_force(hub, client, root):
    hub.add_repo(SPACE, "space", private=False)
    client.upload_file(
        path_or_fileobj=b"other\n", path_in_repo="app.py", repo_id=SPACE, repo_type="space"
    )
    with pytest.raises(InvalidArgumentError, match="holds another app"):
        deploy(root, repo_id=SPACE, client=client)
    assert held(hub) == {"app.py": b"other\n"}
    deploy(root, repo_id=SPACE, client=client, force=True)
    assert held(hub)["app.py"] == b"app.py\n"


@pytest.mark.parametrize(("kind", "word"), [("dataset", "data set"), ("model", "model")])
def test_the_name_of_a_repository_of_another_kind_is_no_space(hub, client, root, kind, word):
    hub.add_repo("anna/ratings", kind)
    with pytest.raises(InvalidArgumentError, match=f"which is a {word}"):
        deploy(root, repo_id="anna/ratings", client=client)
    assert ("space", "anna/ratings") not in hub.repos
    assert deploy(root, repo_id="anna/ratings", client=client, force=True).is_new


@pytest.mark.parametrize("repo_id", ["ben/dial", "club/dial"])
@pytest.mark.parametrize("exists", [True, False])
def test_what_belongs_to_somebody_else_is_refused_even_by_force(hub, client, root, repo_id, exists):
    if exists:
        hub.add_repo(repo_id, "space", private=False)
    with pytest.raises(InvalidArgumentError, match="belongs to somebody else"):
        deploy(root, repo_id=repo_id, client=client, force=True)
    assert hub.requests("commit") == hub.requests("create") == []


def test_an_organisation_that_one_may_write_to_is_ones_own(client, root):
    assert deploy(root, repo_id="lab/dial", client=client).is_new


def test_a_public_space_is_not_taken_for_a_private_one(client, root):
    deploy(root, repo_id=SPACE, client=client)
    with pytest.raises(InvalidArgumentError, match="everybody can see"):
        deploy(root, repo_id=SPACE, client=client, private=True)


@pytest.mark.parametrize("repo_id", ["dial", "a/b/c", "anna/di al", "../x/y", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(hub, client, root, repo_id):
    with pytest.raises(InvalidArgumentError, match="`--repo-id` must be NAME/SPACE"):
        deploy(root, repo_id=repo_id, client=client)
    assert hub.log == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [("403", "right to write"), ("412", "changed meanwhile"), ("500", "status 500")],
)
def test_what_the_hub_refuses_is_said_without_token_or_address(hub, client, root, kind, words):
    hub.fail("commit", kind)
    with pytest.raises(OutputError, match=words) as refused:
        deploy(root, repo_id=SPACE, client=client)
    assert TOKEN not in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)
    assert held(hub) == {}
    # The Space is there now, and empty.
    assert not deploy(root, repo_id=SPACE, client=client).is_new


def test_a_space_that_changes_meanwhile_is_not_overwritten(hub, client, root, monkeypatch):
    deploy(root, repo_id=SPACE, client=client)
    (root / "app.py").write_text("newer\n")
    upload = client.upload_folder

    def late(**arguments):
        client.upload_file(
            path_or_fileobj=b"x", path_in_repo="shell/x.py", repo_id=SPACE, repo_type="space"
        )
        return upload(**arguments)

    monkeypatch.setattr(client, "upload_folder", late)
    with pytest.raises(OutputError, match="changed meanwhile"):
        deploy(root, repo_id=SPACE, client=client)
    assert held(hub)["app.py"] == b"app.py\n"


def test_an_incomplete_checkout_is_refused(root):
    (root / "requirements.txt").unlink()
    with pytest.raises(InvalidArgumentError, match=r"must hold 'requirements\.txt'"):
        deployed_files(root)


def test_a_hub_that_does_not_answer_is_named_by_its_error(root):
    client = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    with pytest.raises(OutputError, match="The Hub must answer"):
        deploy(root, repo_id=SPACE, client=client)


def test_without_a_token_the_way_to_one_is_said(hub, root, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    client = HfApi(endpoint=hub.endpoint)
    with pytest.raises(OutputError, match="hf auth login"):
        deploy(root, repo_id=SPACE, client=client)
    assert hub.log == []


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture
def place(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.mark.usefixtures("place")
def test_the_command_deploys_and_says_what_to_set(root, capsys):
    assert main(["--repo-id", SPACE, "--private"], root=root) == 0
    said = capsys.readouterr().out
    assert "Made and deployed anna/dial (private)" in said
    assert NEXT_STEPS in said
    assert TOKEN not in said
    assert main(["--repo-id", SPACE], root=root) == 0
    assert capsys.readouterr().out.startswith("Deployed anna/dial (private)")


@pytest.mark.usefixtures("place")
def test_the_command_says_one_sentence_and_returns_2(root, capsys):
    assert main(["--repo-id", "ben/dial"], root=root) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "somebody else" in said.err


def test_a_token_that_is_not_known_is_refused_in_words(hub, root, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert main(["--repo-id", SPACE], root=root) == 2
    said = capsys.readouterr().err
    assert "`HF_TOKEN` must" in said
    assert "hf_unknown" not in said


@pytest.mark.usefixtures("place")
def test_a_dry_run_lists_the_files_and_asks_nobody(hub, root, capsys):
    assert main(["--repo-id", SPACE, "--dry-run"], root=root) == 0
    said = capsys.readouterr().out
    assert "models/weights.safetensors\n" in said
    assert "Nothing was sent." in said
    assert hub.log == []
    assert main(["--repo-id", "dial", "--dry-run"], root=root) == 2


# --- This checkout -------------------------------------------------------------------------------


def test_of_this_checkout_goes_what_the_app_needs_and_the_readme_shows():
    names = deployed_files(ROOT)
    assert {"app.py", "shell/handlers/api.py", "models/embedded/model_index.json"} <= set(names)
    assert "docs/screenshots/ladder.png" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "."))]
    assert not [name for name in names if name.endswith((".pyc", ".sqlite3", ".key"))]
    assert sum((ROOT / name).stat().st_size for name in names) < 200e6


@pytest.mark.slow
def test_the_app_can_be_imported_from_what_is_deployed_alone(tmp_path):
    import shutil

    for name in deployed_files(ROOT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", "import app, shell.deploy; print(app.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
