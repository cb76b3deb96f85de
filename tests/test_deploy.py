"""The app put into a Space of the test Hub by the real client: all it needs, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from privacy_core.errors import InvalidArgumentError, OutputError
from shell.deploy import NEXT_STEPS, deploy, main
from shell.release_files import FILES, FOLDERS, SUFFIXES, choose_files
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
    """A small unpacked release, with all that a real one may hold beside the app."""
    root = tmp_path / "checkout"
    for folder in FOLDERS:
        (root / folder / "__pycache__").mkdir(parents=True)
        name = "README.md" if folder in {"models", "examples"} else "__init__.py"
        (root / folder / name).write_text(f"# {folder}\n")
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


PRIVATE = (
    "examples/me.png",
    "feedback/store/feedback.key",
    "feedback/store/ratings.sqlite3",
    "models/preferences.json",
    "shell/notes.txt",
)


@pytest.fixture
def repository(root):
    """The same as a git repository, with private files that git does not track."""
    git(root, "init", "--quiet")
    git(root, "add", "--", *FILES, *FOLDERS)
    for name in PRIVATE:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("secret\n")
    return root


def git(root, *arguments):
    subprocess.run(["git", *arguments], cwd=root, check=True)  # noqa: S607 - the one on the PATH


def held(hub, repo_id=SPACE):
    repo = hub.repo(repo_id, "space")
    files = repo.commit("main").files
    # The Hub's own file is in every repository.
    return {name: repo.content(file) for name, file in files.items() if name != ".gitattributes"}


def test_a_new_space_gets_the_app_and_nothing_else_in_one_commit(hub, client, root):
    done = deploy(root, repo_id=SPACE, client=client)
    files = held(hub)
    assert set(files) == set(choose_files(root).names)
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


@pytest.mark.parametrize(
    "repo_id", ["dial", "a/b/c", "anna/di al", "../x/y", "", "me/a--b", "me/a.", "me/x.git"]
)
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
        choose_files(root)


# --- Which files ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("place")
def test_of_a_repository_goes_what_git_tracks_and_the_rest_is_named(hub, repository, capsys):
    assert main(["--repo-id", SPACE], root=repository) == 0
    files = held(hub)
    assert not any(b"secret" in data for data in files.values())
    assert {"shell/__init__.py", "models/weights.safetensors", "examples/README.md"} <= set(files)
    said = capsys.readouterr().err
    # After the bars of the upload.
    assert said.endswith(
        f"Left out, as files that git does not track: {', '.join(PRIVATE[:3])} and 2 more. "
        "Commit what the app needs, move the rest away.\n"
    )


def test_a_file_goes_once_git_tracks_it_and_no_longer_when_it_is_gone(repository):
    git(repository, "add", "--", "models/preferences.json")
    (repository / "shell" / "new.py").write_text("new\n")
    git(repository, "add", "--", "shell/new.py")
    (repository / "shell" / "__init__.py").unlink()
    chosen = choose_files(repository)
    assert {"models/preferences.json", "shell/new.py"} <= set(chosen.names)
    assert "shell/__init__.py" not in chosen.names
    assert set(chosen.left_out) == set(PRIVATE) - {"models/preferences.json"}


def test_a_repository_without_anything_else_is_deployed_without_a_word(repository):
    for name in PRIVATE:
        (repository / name).unlink()
    assert choose_files(repository).warning == ""


def test_of_a_release_goes_what_has_a_known_suffix_and_is_not_ignored(root):
    (root / ".gitignore").write_text("# Kept\n\nbatch*/\n/store/\n*.key\n!x\n")
    names = ["feedback/store/r.sqlite3", "feedback/r.key", "models/r.db", "examples/batch1/me.png"]
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("secret\n")
    (root / "examples" / "Kept.png").write_bytes(b"\x89PNG")
    chosen = choose_files(root)
    assert set(chosen.left_out) == set(names)
    assert not {*names} & {*chosen.names}
    assert {"examples/Kept.png", "examples/README.md", "shell/__init__.py"} <= set(chosen.names)
    assert "chosen by their suffixes" in chosen.warning
    assert "and 1 more. Move the rest away." in chosen.warning


def test_a_release_in_somebody_elses_repository_is_a_release(root):
    git(root.parent, "init", "--quiet")
    assert not choose_files(root).by_git


def test_without_git_a_repository_is_a_release(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    chosen = choose_files(repository)
    assert not chosen.by_git
    assert "feedback/store/feedback.key" in chosen.left_out


@pytest.mark.parametrize("index", [b"broken", None])
def test_where_git_fails_or_tracks_nothing_nothing_goes(repository, index):
    place = repository / ".git" / "index"
    place.write_bytes(index) if index else place.unlink()
    message = "Git must list the files" if index else "files of the app in 'shell', got none that"
    with pytest.raises(InvalidArgumentError, match=message):
        choose_files(repository)


def test_a_checkout_is_asked_about_itself_wherever_its_repository_lies(
    repository, monkeypatch, tmp_path
):
    git(repository, "init", "--quiet", "--separate-git-dir", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    chosen = choose_files(repository)
    assert (chosen.by_git, chosen.left_out) == (True, PRIVATE)


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
    names = choose_files(ROOT).names
    assert {"app.py", "shell/handlers/api.py", "models/embedded/model_index.json"} <= set(names)
    assert "docs/screenshots/ladder.png" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "."))]
    assert not [name for name in names if name.endswith((".pyc", ".sqlite3", ".key"))]
    assert sum((ROOT / name).stat().st_size for name in names) < 200e6


def test_the_suffixes_of_a_release_are_those_of_this_checkout():
    chosen = choose_files(ROOT)
    if not chosen.by_git:
        pytest.skip("not a git checkout")
    inside = [name for name in chosen.names if name.partition("/")[0] in FOLDERS]
    found = {folder: set() for folder in FOLDERS}
    for name in inside:
        found[name.partition("/")[0]].add(Path(name).suffix)
    assert found == {folder: set(suffixes) for folder, suffixes in SUFFIXES.items()}


@pytest.mark.slow
def test_the_app_can_be_imported_from_what_is_deployed_alone(tmp_path):
    import shutil

    for name in choose_files(ROOT).names:
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
