"""The test Hub against the real clients: what they are promised, and what they do when it fails."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    CommitScheduler,
    HfApi,
    HfFileSystem,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_faults import CHAOS_KINDS, Faults
from tests.hub_repository import RefusedError
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parent.parent
REPO = {"repo_id": "anna/ratings", "repo_type": "dataset"}
UNKNOWN = "0" * 40
TOKENS = {
    "anna": "hf_anna",
    "reader": "hf_anna_read",
    "ben": "hf_ben",
    "carl": "hf_carl",
    "nobody": False,
}


@pytest.fixture
def hub():
    with HubServer() as server:
        for name in ("anna", "ben", "carl"):
            server.add_user(name, TOKENS[name])
        server.add_user("anna", TOKENS["reader"], role="read")
        server.add_organisation("lab", {"anna": "write", "ben": "read"})
        yield server


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=TOKENS["anna"])


@pytest.fixture
def repo(hub):
    """A private data set of anna's, as the server holds it."""
    return hub.add_repo("anna/ratings")


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds the client would have waited between its attempts."""
    asked = []
    clock = types.SimpleNamespace(sleep=asked.append)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    return asked


def as_(hub, who):
    return HfApi(endpoint=hub.endpoint, token=TOKENS[who])


def add(path, data):
    return CommitOperationAdd(path, data)


def commit(api, *operations, **settings):
    return api.create_commit(**(REPO | settings), operations=operations, commit_message="A commit")


def status_of(raised):
    return raised.value.response.status_code


def bytes_with(hub, needle):
    return [where for where, data in hub.every_byte() if needle in data]


def post(hub, path, **content):
    headers = {"Authorization": f"Bearer {TOKENS['anna']}"}
    return httpx2.post(f"{hub.endpoint}{path}", headers=headers, **content)


# Who may do what


def test_whoami_names_the_user_the_organisations_and_the_token(hub):
    answer = as_(hub, "reader").whoami()
    assert answer["name"] == "anna"
    assert answer["orgs"][0]["name"] == "lab"
    assert answer["orgs"][0]["roleInOrg"] == "write"
    assert answer["auth"]["accessToken"]["role"] == "read"


@pytest.mark.usefixtures("repo")
def test_a_token_that_has_expired_is_refused_everywhere(hub, api):
    hub.revoke(TOKENS["anna"])
    for call in (api.whoami, lambda: api.repo_info(**REPO), lambda: api.create_repo("another")):
        with pytest.raises(HfHubHTTPError) as raised:
            call()
        assert status_of(raised) == 401


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_repo_is_made_once_and_found_again(api, kind):
    settings = {"repo_type": kind, "space_sdk": "gradio" if kind == "space" else None}
    url = api.create_repo("thing", private=True, **settings)
    assert (url.repo_id, url.repo_type) == ("anna/thing", kind)
    assert api.create_repo("anna/thing", exist_ok=True, **settings) == url
    with pytest.raises(HfHubHTTPError) as raised:
        api.create_repo("anna/thing", **settings)
    assert status_of(raised) == 409
    assert api.repo_info("anna/thing", repo_type=kind).private
    assert list(api.list_repo_files("anna/thing", repo_type=kind)) == [".gitattributes"]


def test_a_model_is_read_and_written_without_a_prefix(api, tmp_path):
    api.create_repo("anna/model")
    api.upload_file(
        path_or_fileobj=b"weights", path_in_repo="model.safetensors", repo_id="anna/model"
    )
    path = api.hf_hub_download("anna/model", "model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"weights"


@pytest.mark.parametrize("who", ["ben", "nobody"])
@pytest.mark.parametrize(
    "call",
    [
        lambda api: api.repo_info(**REPO),
        lambda api: list(api.list_repo_tree(**REPO)),
        lambda api: api.get_paths_info(**REPO, paths=["a"]),
        lambda api: api.list_repo_refs(**REPO),
        lambda api: api.list_repo_commits(**REPO),
        lambda api: api.auth_check(**REPO),
        lambda api: list(api.list_lfs_files(**REPO)),
        lambda api: api.super_squash_history(**REPO),
        lambda api: commit(api, add("a.json", b"{}")),
        lambda api: commit(api, CommitOperationDelete("a.json")),
        lambda api: api.get_hf_file_metadata(
            url=f"{api.endpoint}/datasets/anna/ratings/resolve/main/a"
        ),
    ],
    ids=range(11),
)
@pytest.mark.usefixtures("repo")
def test_a_private_repo_does_not_exist_for_others(hub, who, call):
    with pytest.raises(RepositoryNotFoundError):
        call(as_(hub, who))


@pytest.mark.parametrize(("who", "status"), [("nobody", 401), ("ben", 403), ("reader", 403)])
def test_a_public_repo_is_read_by_all_and_written_by_its_owner(hub, repo, who, status):
    repo.is_private = False
    api = as_(hub, who)
    assert api.repo_info(**REPO).sha == repo.head.id
    with pytest.raises(HfHubHTTPError) as raised:
        commit(api, add("a.json", b"{}"))
    assert status_of(raised) == status
    with pytest.raises(HfHubHTTPError) as raised:
        api.auth_check(**REPO, write=True)
    assert status_of(raised) == status
    assert "a.json" not in repo.head.files


def test_members_of_an_organisation_see_its_repos_and_only_some_may_write(hub, api):
    shared = {"repo_id": "lab/ratings", "repo_type": "dataset"}
    api.create_repo(**shared, private=True)
    commit(api, add("a.json", b"{}"), **shared)
    assert as_(hub, "ben").file_exists(**shared, filename="a.json")
    with pytest.raises(HfHubHTTPError) as raised:
        commit(as_(hub, "ben"), add("b.json", b"{}"), **shared)
    assert status_of(raised) == 403
    with pytest.raises(RepositoryNotFoundError):
        as_(hub, "carl").repo_info(**shared)
    with pytest.raises(HfHubHTTPError) as raised:
        as_(hub, "carl").create_repo("lab/mine")
    assert status_of(raised) == 403


@pytest.mark.usefixtures("repo")
def test_a_repo_is_opened_and_closed_by_its_settings(hub, api):
    api.update_repo_settings(**REPO, private=False)
    assert as_(hub, "ben").repo_exists(**REPO)
    api.update_repo_settings(**REPO, gated="manual")
    with pytest.raises(GatedRepoError):
        as_(hub, "ben").auth_check(**REPO)
    with pytest.raises(GatedRepoError):
        list(as_(hub, "ben").list_repo_tree(**REPO))
    api.auth_check(**REPO, write=True)
    api.update_repo_settings(**REPO, private=True)
    assert not as_(hub, "ben").repo_exists(**REPO)


def test_a_moved_repo_answers_under_its_old_name_with_the_new_one(hub, api, repo, tmp_path):
    repo.write({"a.json": b"{}"})
    api.move_repo("anna/ratings", "lab/answers", repo_type="dataset")
    assert api.repo_info(**REPO).id == "lab/answers"
    assert Path(api.hf_hub_download(**REPO, filename="a.json", cache_dir=tmp_path)).exists()
    commit(api, add("b.json", b"{}"))
    assert "b.json" in hub.repo("lab/answers").head.files
    with pytest.raises(RepositoryNotFoundError):
        as_(hub, "carl").repo_info(**REPO)
    api.create_repo(**REPO)
    assert api.repo_info(**REPO).id == "anna/ratings"


@pytest.mark.usefixtures("repo")
def test_a_deleted_repo_is_gone(hub, api):
    with pytest.raises(RepositoryNotFoundError):
        as_(hub, "ben").delete_repo(**REPO)
    api.delete_repo(**REPO)
    assert not api.repo_exists(**REPO)
    api.delete_repo(**REPO, missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(**REPO)


# Commits


def test_files_are_named_as_git_names_them(api, repo):
    done = commit(api, add("a.json", b"{}"), add("data/a.parquet", b"PAR1"))
    assert done.oid == repo.head.id
    regular, large = api.get_paths_info(**REPO, paths=["a.json", "data/a.parquet", "missing"])
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 4\n"
    pointer %= hashlib.sha256(b"PAR1").hexdigest().encode()
    assert (regular.blob_id, regular.lfs) == ("9e26dfeeb6e641a33dae4961196235bdb965b21b", None)
    assert large.blob_id == hashlib.sha1(b"blob 126\0" + pointer).hexdigest()  # noqa: S324
    assert large.lfs.sha256 == hashlib.sha256(b"PAR1").hexdigest()
    assert (large.size, large.lfs.size, large.lfs.pointer_size) == (4, 4, 126)
    listed = api.repo_info(**REPO, files_metadata=True).siblings
    assert [(file.rfilename, file.size) for file in listed][1:] == [
        ("a.json", 2),
        ("data/a.parquet", 4),
    ]


def test_a_stale_parent_is_refused_and_nothing_is_written(api, repo):
    first = repo.head.id
    commit(api, add("a.json", b"1"), parent_commit=first[:7])
    with pytest.raises(HfHubHTTPError) as raised:
        commit(api, add("b.json", b"2"), add("b.parquet", b"2"), parent_commit=first)
    assert status_of(raised) == 412
    assert "b.json" not in repo.head.files
    commit(api, add("b.json", b"2"), parent_commit=repo.head.id)


def test_a_commit_needs_a_branch(api, repo):
    repo.tags["v1"] = repo.head.id
    for revision in ("missing", "v1", repo.head.id):
        with pytest.raises(RevisionNotFoundError):
            commit(api, CommitOperationDelete("a.json"), revision=revision)
    with pytest.raises(RevisionNotFoundError):
        commit(api, add("a.json", b"{}"), revision="missing")


def test_a_commit_is_all_or_nothing(api, repo):
    head = repo.head
    for missing in (CommitOperationDelete("missing"), CommitOperationDelete("missing/")):
        with pytest.raises(EntryNotFoundError, match="with this name doesn't exist"):
            commit(api, add("a.json", b"{}"), missing)
    assert repo.head is head


def test_folders_and_files_are_deleted(api, repo):
    repo.write({"many/a.json": b"a", "many/deep/b.json": b"b", "many.json": b"c", "one.json": b"d"})
    api.delete_folder("many", **REPO)
    api.delete_file("one.json", **REPO)
    assert set(repo.head.files) == {".gitattributes", "many.json"}
    api.delete_files(**REPO, delete_patterns=["*.json"])
    assert set(repo.head.files) == {".gitattributes"}


def test_files_are_copied_with_and_without_lfs(api, repo):
    repo.write({"a.json": b"small", "a.parquet": b"large"})
    commit(
        api,
        CommitOperationCopy("a.json", "b/a.json"),
        CommitOperationCopy("a.parquet", "b/a.parquet"),
    )
    assert (repo.read("b/a.json"), repo.read("b/a.parquet")) == (b"small", b"large")
    assert repo.head.files["b/a.parquet"].size == 5


@pytest.mark.parametrize("path", ["a.json", "a.parquet"])
def test_what_is_there_already_is_not_committed_again(hub, api, repo, path):
    done = commit(api, add(path, b"same"))
    assert commit(api, add(path, b"same")).oid == done.oid
    assert len(hub.requests("commit")) == 1
    commit(api, add(path, b"other"))
    assert repo.read(path) == b"other"


def test_an_object_that_is_stored_is_not_uploaded_again(hub, api, repo):
    commit(api, add("a.parquet", b"same"))
    commit(api, add("b.parquet", b"same"))
    assert len(hub.requests("put")) == 1
    assert repo.read("b.parquet") == b"same"


def test_large_objects_come_in_parts(hub, api, repo, tmp_path):
    hub.multipart_over, hub.chunk_size = 100, 64
    data = bytes(range(200))
    commit(api, add("a.bin", data))
    assert [request.size for request in hub.requests("part")] == [64, 64, 64, 8]
    assert repo.read("a.bin") == data
    assert repo.parts == {}
    # Chunked bodies, from a file.
    (tmp_path / "b.bin").write_bytes(data[::-1])
    commit(api, add("b.bin", str(tmp_path / "b.bin")))
    assert repo.read("b.bin") == data[::-1]


def test_parts_that_do_not_make_the_object_are_refused(hub, repo):
    hub.multipart_over = 0
    oid = hashlib.sha256(b"right").hexdigest()
    batch = {
        "operation": "upload",
        "transfers": ["multipart"],
        "objects": [{"oid": oid, "size": 5}],
    }
    answer = post(hub, "/datasets/anna/ratings.git/info/lfs/objects/batch", json=batch).json()
    upload = answer["objects"][0]["actions"]["upload"]
    etag = httpx2.put(upload["header"]["1"], content=b"wrong").headers["ETag"]
    parts = {"oid": oid, "parts": [{"partNumber": 1, "etag": etag}]}
    assert httpx2.post(upload["href"], json=parts).status_code == 400
    assert bytes_with(hub, b"wrong") != []
    assert repo.blobs == {}
    # The right bytes, and a tag that was not given for them.
    httpx2.put(upload["header"]["1"], content=b"right")
    assert httpx2.post(upload["href"], json=parts).status_code == 400
    assert repo.blobs == {}


@pytest.mark.usefixtures("repo")
def test_bytes_with_another_digest_are_refused(hub):
    oid = hashlib.sha256(b"right").hexdigest()
    url = f"{hub.endpoint}/lfs/datasets/anna/ratings/{oid}"
    assert httpx2.put(url, content=b"wrong").status_code == 400
    assert bytes_with(hub, b"wrong") == []
    assert httpx2.put(url, content=b"right").status_code == 200


def test_a_commit_cannot_name_an_object_that_never_arrived(hub, repo):
    lines = [
        {"key": "header", "value": {"summary": "x", "description": ""}},
        {
            "key": "lfsFile",
            "value": {"path": "a.bin", "algo": "sha256", "oid": "0" * 64, "size": 1},
        },
    ]
    body = "\n".join(json.dumps(line) for line in lines)
    answer = post(hub, "/api/datasets/anna/ratings/commit/main", content=body)
    assert answer.status_code == 400
    assert "never uploaded" in answer.json()["error"]
    # Nor one that arrived and was never verified.
    repo.store(b"x", is_verified=False)
    body = body.replace("0" * 64, hashlib.sha256(b"x").hexdigest())
    assert post(hub, "/api/datasets/anna/ratings/commit/main", content=body).status_code == 400
    repo.store(b"x")
    assert post(hub, "/api/datasets/anna/ratings/commit/main", content=body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "no json",
        '{"key": "file", "value": {"path": "a", "content": ""}}',
        '{"key": "header", "value": {}}',
        '{"key": "header", "value": {"summary": ""}}\n{"key": "unknown", "value": {"path": "a"}}',
        '{"key": "header", "value": {"summary": ""}}\n'
        '{"key": "file", "value": {"path": "../a", "content": ""}}',
        '{"key": "header", "value": {"summary": ""}}\n'
        '{"key": "file", "value": {"path": "a", "content": "?"}}',
    ],
)
def test_a_commit_that_cannot_be_read_is_refused(hub, repo, body):
    head = repo.head
    answer = post(hub, "/api/datasets/anna/ratings/commit/main", content=body)
    assert answer.status_code == 400
    assert repo.head is head


@pytest.mark.usefixtures("repo")
def test_a_card_is_checked_before_anything_is_uploaded(hub, api):
    with pytest.raises(ValueError, match="Invalid metadata"):
        commit(api, add("README.md", b"---\na: [\n---\n"), add("a.parquet", b"x"))
    with pytest.raises(ValueError, match="must be a mapping"):
        commit(api, add("README.md", b"---\n- a\n---\n"))
    assert hub.requests("preupload") == []
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        commit(api, add("README.md", b"# Card"))
    commit(api, add("README.md", b"---\nlicense: mit\n---\n# Card"))
    assert api.dataset_info("anna/ratings").card_data["license"] == "mit"


@pytest.mark.usefixtures("repo")
def test_pull_requests_are_not_opened(api):
    for operation in (add("a.json", b"{}"), CommitOperationDelete(".gitattributes")):
        with pytest.raises(HfHubHTTPError) as raised:
            commit(api, operation, create_pr=True)
        assert status_of(raised) == 501


def test_the_scheduler_of_the_client_makes_its_repo_and_pushes(hub, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    api = as_(hub, "anna")
    scheduler = CommitScheduler(**REPO, folder_path=tmp_path, private=True, hf_api=api)
    scheduler.trigger().result(30)
    scheduler.stop()
    assert hub.repo("anna/ratings").is_private
    assert hub.repo("anna/ratings").read("a.json") == b"{}"


def test_ignored_files_stay_at_home(api, repo, tmp_path):
    for name in ("a.json", "a.tmp", ".gitignore"):
        (tmp_path / name).write_text("*.tmp\n")
    api.upload_folder(**REPO, folder_path=tmp_path)
    assert set(repo.head.files) == {".gitattributes", ".gitignore", "a.json"}


# Reading


def test_a_tree_is_listed_by_folder_and_by_page(hub, api, repo):
    repo.write({"p/q r/a.json": b"a", "p/q r/s/b.json": b"b", "p/c.json": b"c"})
    hub.page_size = 2
    assert [entry.path for entry in api.list_repo_tree(**REPO)] == [".gitattributes", "p"]
    assert [entry.path for entry in api.list_repo_tree(**REPO, path_in_repo="p/q r")] == [
        "p/q r/a.json",
        "p/q r/s",
    ]
    every = [entry.path for entry in api.list_repo_tree(**REPO, recursive=True)]
    assert every == [
        ".gitattributes", "p", "p/c.json", "p/q r", "p/q r/a.json", "p/q r/s", "p/q r/s/b.json",
    ]  # fmt: skip
    assert len(hub.requests("tree")) == 1 + 1 + 4
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(**REPO, path_in_repo="missing"))
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree(**REPO, revision="missing"))


def test_an_expanded_tree_names_the_last_change(api, repo):
    first = repo.write({"a.json": b"1"})
    repo.write({"b.json": b"2"})
    _, entry, other = api.list_repo_tree(**REPO, expand=True)
    assert (entry.path, entry.last_commit.oid) == ("a.json", first.id)
    assert other.last_commit.oid == repo.head.id


def test_commits_are_listed_newest_first_and_by_page(hub, api, repo):
    hub.page_size = 2
    ids = [repo.head.id] + [repo.write({"a.json": b"%d" % n}).id for n in range(4)]
    assert [entry.commit_id for entry in api.list_repo_commits(**REPO)] == ids[::-1]
    assert len(hub.requests("commits")) == 3


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_every_revision_keeps_its_own_bytes(api, repo, tmp_path, name):
    old, new = repo.write({name: b"old"}), repo.write({name: b"new"})
    refs = "refs/heads/main"
    repo.tags["v1"] = old.id
    for revision, data in {
        None: b"new",
        old.id: b"old",
        refs: b"new",
        "v1": b"old",
        new.id: b"new",
    }.items():
        path = api.hf_hub_download(**REPO, filename=name, revision=revision, cache_dir=tmp_path)
        assert Path(path).read_bytes() == data


def test_a_snapshot_holds_what_its_revision_holds(api, repo, tmp_path):
    first = repo.write({"data/a.parquet": b"a", "b.json": b"b"})
    repo.write({"c.json": b"c"})
    folder = Path(api.snapshot_download(**REPO, revision=first.id, cache_dir=tmp_path))
    assert (folder / "data/a.parquet").read_bytes() == b"a"
    assert not (folder / "c.json").exists()


def test_what_is_missing_is_named_in_the_order_repo_revision_entry(api, repo, tmp_path):
    def download(repo_id="anna/ratings", revision="main"):
        settings = {"repo_type": "dataset", "revision": revision, "cache_dir": tmp_path}
        api.hf_hub_download(repo_id, "missing", **settings)

    with pytest.raises(RepositoryNotFoundError):
        download(repo_id="anna/missing", revision="missing")
    with pytest.raises(RevisionNotFoundError):
        download(revision="missing")
    with pytest.raises(RemoteEntryNotFoundError):
        download()
    assert not api.file_exists(**REPO, filename="missing")
    assert not api.revision_exists(**REPO, revision=UNKNOWN)
    assert api.revision_exists(**REPO, revision=repo.head.id[:7])
    # The client remembers the absence only if it is told of which commit.
    url = f"{api.endpoint}/datasets/anna/ratings/resolve/main/missing"
    headers = {"Authorization": f"Bearer {TOKENS['anna']}"}
    assert httpx2.head(url, headers=headers).headers["X-Repo-Commit"] == repo.head.id


def test_files_are_read_by_range(hub, repo):
    repo.write({"a.parquet": bytes(range(256))})
    files = HfFileSystem(endpoint=hub.endpoint, token=TOKENS["anna"], skip_instance_cache=True)
    assert files.cat_file("datasets/anna/ratings/a.parquet", start=10, end=20) == bytes(
        range(10, 20)
    )
    url = f"{hub.endpoint}/datasets/anna/ratings/resolve/main/a.parquet"

    def get(wanted):
        headers = {"Authorization": f"Bearer {TOKENS['anna']}", "Range": wanted}
        answer = httpx2.get(url, headers=headers)
        return answer.status_code, answer.headers.get("Content-Range"), len(answer.content)

    assert get("bytes=250-300") == (206, "bytes 250-255/256", 6)
    assert get("bytes=250-") == (206, "bytes 250-255/256", 6)
    assert get("bytes=-6") == (206, "bytes 250-255/256", 6)
    assert get("bytes=256-") == (416, "bytes */256", 0)
    assert get("rows=1-2") == (200, None, 256)


def test_only_the_asked_properties_are_told(api, repo):
    info = api.dataset_info("anna/ratings", expand=["private", "sha"])
    assert (info.private, info.sha, info.siblings) == (True, repo.head.id, None)


# Branches, tags, pull requests


def test_branches_and_tags_come_and_go(api, repo):
    first = repo.head.id
    repo.write({"a.json": b"a"})
    api.create_branch(**REPO, branch="dev/a")
    api.create_tag(**REPO, tag="v1", revision=first)
    refs = api.list_repo_refs(**REPO)
    assert {ref.ref: ref.target_commit for ref in [*refs.branches, *refs.tags]} == {
        "refs/heads/main": repo.head.id,
        "refs/heads/dev/a": repo.head.id,
        "refs/tags/v1": first,
    }
    for call in (
        lambda: api.create_branch(**REPO, branch="dev/a"),
        lambda: api.create_tag(**REPO, tag="v1"),
    ):
        with pytest.raises(HfHubHTTPError) as raised:
            call()
        assert status_of(raised) == 409
    commit(api, add("b.json", b"b"), revision="dev/a")
    assert "b.json" not in repo.head.files
    api.delete_branch(**REPO, branch="dev/a")
    api.delete_tag(**REPO, tag="v1")
    assert list(repo.refs()) == ["refs/heads/main"]


def test_refs_that_cannot_be_are_refused(api, repo):
    with pytest.raises(BadRequestError):
        api.create_branch(**REPO, branch="refs/pr/5")
    with pytest.raises(RevisionNotFoundError):
        api.create_branch(**REPO, branch="new", revision="missing")
    repo.converts["parquet"] = repo.head.id
    for branch in ("main", "refs/convert/parquet"):
        with pytest.raises(HfHubHTTPError) as raised:
            api.delete_branch(**REPO, branch=branch)
        assert status_of(raised) == 403
    for call in (
        lambda: api.delete_branch(**REPO, branch="missing"),
        lambda: api.delete_tag(**REPO, tag="missing"),
        lambda: api.create_tag(**REPO, tag="v1", revision="missing"),
    ):
        with pytest.raises(RevisionNotFoundError):
            call()


def test_a_pull_request_keeps_its_commits_until_its_ref_is_deleted(hub, api, repo):
    ref = repo.add_pull_request({"a.json": b"proposal"})
    (listed,) = api.list_repo_refs(**REPO, include_pull_requests=True).pull_requests
    assert (listed.name, listed.ref) == ("1", "refs/pr/1")
    assert api.list_repo_refs(**REPO).pull_requests is None
    api.super_squash_history(**REPO)
    assert api.file_exists(**REPO, filename="a.json", revision=ref)
    assert len(bytes_with(hub, b"proposal")) == 1
    api.delete_branch(**REPO, branch=ref)
    assert not api.revision_exists(**REPO, revision=listed.target_commit)
    assert bytes_with(hub, b"proposal") == []


# Erasure


def test_squashing_leaves_the_files_and_no_old_revision(hub, api, repo):
    old = repo.write({"a.json": b"secret", "b.json": b"stays"}).id
    commit(api, CommitOperationDelete("a.json"))
    assert bytes_with(hub, b"secret") != []
    api.super_squash_history(**REPO, commit_message="Squashed")
    (left,) = api.list_repo_commits(**REPO)
    assert (left.title, left.commit_id) == ("Squashed", repo.head.id)
    assert set(repo.head.files) == {".gitattributes", "b.json"}
    assert bytes_with(hub, b"secret") == []
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(**REPO, revision=old)


@pytest.mark.parametrize("kind", ["branches", "tags", "converts"])
def test_what_another_ref_reaches_survives_a_squash(hub, api, repo, kind):
    old = repo.write({"a.json": b"secret"}).id
    getattr(repo, kind)["other"] = old
    api.delete_file("a.json", **REPO)
    api.super_squash_history(**REPO)
    assert api.file_exists(**REPO, filename="a.json", revision=old)
    assert bytes_with(hub, b"secret") != []


def test_only_branches_are_squashed(api, repo):
    repo.tags["v1"] = repo.head.id
    with pytest.raises(RevisionNotFoundError):
        api.super_squash_history(**REPO, branch="missing")
    with pytest.raises(BadRequestError):
        api.super_squash_history(**REPO, branch="v1")


def test_objects_outlive_a_squash_until_they_are_deleted_for_good(hub, api, repo):
    hub.page_size = 1
    commit(api, add("data/a.parquet", b"secret"), add("data/b.parquet", b"stays"))
    api.delete_file("data/a.parquet", **REPO)
    api.super_squash_history(**REPO)
    head = repo.head
    listed = {file.filename: file for file in api.list_lfs_files(**REPO)}
    assert listed["data/a.parquet"].size == 6
    assert listed["data/a.parquet"].ref == "refs/heads/main"
    assert bytes_with(hub, b"secret") != []
    api.permanently_delete_lfs_files(**REPO, lfs_files=[listed["data/a.parquet"]])
    assert [file.filename for file in api.list_lfs_files(**REPO)] == ["data/b.parquet"]
    assert bytes_with(hub, b"secret") == []
    assert repo.head is head


def test_deletion_for_good_rewrites_the_history_that_names_the_object(hub, api, repo):
    before = repo.head.id
    with_it = repo.write({"a.parquet": b"secret", "b.json": b"b"}).id
    after = repo.write({"c.json": b"c"}).id
    oid = hashlib.sha256(b"secret").hexdigest().encode()
    api.permanently_delete_lfs_files(**REPO, lfs_files=list(api.list_lfs_files(**REPO)))
    assert bytes_with(hub, b"secret") == bytes_with(hub, oid) == bytes_with(hub, b"a.parquet") == []
    ids = [entry.commit_id for entry in api.list_repo_commits(**REPO)]
    assert len(ids) == 3
    assert ids[-1] == before
    assert not {with_it, after} & set(ids)
    assert set(repo.head.files) == {".gitattributes", "b.json", "c.json"}


def test_without_rewriting_the_pointer_stays_and_leads_nowhere(hub, api, repo, tmp_path):
    head = repo.write({"a.parquet": b"secret"}).id
    files = list(api.list_lfs_files(**REPO))
    api.permanently_delete_lfs_files(**REPO, lfs_files=files, rewrite_history=False)
    assert repo.head.id == head
    assert bytes_with(hub, b"secret") == []
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(**REPO, filename="a.parquet", cache_dir=tmp_path)
    with pytest.raises(RefusedError):
        repo.read("a.parquet")


def test_every_byte_also_shows_messages_paths_and_unfinished_uploads(hub, api, repo):
    commit(api, add("needle-path.json", b"{}"))
    operations = [add("a.json", b"{}")]
    api.create_commit(
        **REPO, operations=operations, commit_message="x", commit_description="needle-text"
    )
    repo.store(b"needle-upload", is_verified=False)
    for needle in (b"needle-path", b"needle-text", b"needle-upload"):
        assert bytes_with(hub, needle) != []


# Faults


@pytest.mark.parametrize("kind", ["500", "503", "429", "409", "412", "403", "close", "cut"])
def test_a_fault_before_the_commit_commits_nothing(hub, api, repo, kind):
    is_done = kind == "cut"
    hub.fail("commit", kind)
    with pytest.raises((HfHubHTTPError, httpx2.RemoteProtocolError)) as raised:
        commit(api, add("a.json", b"{}"))
    if kind.isdigit():
        assert status_of(raised) == int(kind)
    assert ("a.json" in repo.head.files) == is_done
    # It struck once: the next one passes, and commits nothing where it was done before.
    commit(api, add("a.json", b"{}"))
    assert len(repo.commits) == 2
    assert hub.requests("commit")[0].fault == kind


@pytest.mark.parametrize("kind", ["500-after", "503-after", "close-after"])
def test_a_fault_after_the_commit_leaves_it_done(hub, api, repo, kind):
    hub.fail("commit", kind)
    with pytest.raises((HfHubHTTPError, httpx2.RemoteProtocolError)):
        commit(api, add("data/a.parquet", b"row"))
    assert repo.read("data/a.parquet") == b"row"
    commit(api, add("data/a.parquet", b"row"))
    assert len(repo.commits) == 2


@pytest.mark.usefixtures("repo")
def test_429_says_how_long_and_the_client_waits_where_it_does(hub, api, waits):
    hub.fail("preupload", 429, retry_after=7)
    commit(api, add("a.json", b"{}"))
    assert waits == [8]
    hub.fail("commit", 429, retry_after=7)
    with pytest.raises(HfHubHTTPError) as raised:
        commit(api, add("b.json", b"{}"))
    assert raised.value.response.headers["Retry-After"] == "7"
    hub.fail("preupload", 429, headers={"ratelimit": '"api";r=0;t=30'})
    commit(api, add("b.json", b"{}"))
    assert waits == [8, 31]


def test_the_client_comes_again_after_a_fault_it_knows(hub, api, repo, waits):
    hub.fail("put", 503)
    hub.fail("batch", "close")
    hub.fail("tree", "503", count=2)
    commit(api, add("a.parquet", b"row"))
    assert repo.read("a.parquet") == b"row"
    assert [entry.path for entry in api.list_repo_tree(**REPO)][-1] == "a.parquet"
    assert waits == [1, 1, 1, 2]


def test_an_upload_refused_at_verify_is_no_upload(hub, api, repo):
    hub.fail("verify", 403)
    with pytest.raises(RuntimeError, match=re.escape("Error while uploading 'a.parquet'")):
        commit(api, add("a.parquet", b"row"))
    assert hub.requests("commit") == []
    commit(api, add("a.parquet", b"row"))
    assert len(hub.requests("put")) == 2
    assert repo.read("a.parquet") == b"row"


@pytest.mark.usefixtures("repo")
def test_rights_that_end_mid_run_say_so(hub, api):
    hub.fail("commit", 404, code="RepoNotFound")
    with pytest.raises(RepositoryNotFoundError):
        commit(api, add("a.json", b"{}"))
    hub.fail("commit", 401)
    with pytest.raises(HfHubHTTPError) as raised:
        commit(api, add("a.json", b"{}"))
    assert status_of(raised) == 401


@pytest.mark.parametrize(("kind", "is_done"), [("hang", False), ("hang-after", True)])
def test_a_hang_lasts_until_it_is_released(hub, api, repo, kind, is_done):
    fault = hub.fail("commit", kind)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(commit, api, add("a.json", b"{}"))
        assert fault.reached.wait(30)
        assert ("a.json" in repo.head.files) == is_done
        assert hub.requests("commit") == []
        fault.release()
        with pytest.raises(httpx2.RemoteProtocolError):
            running.result(30)
    assert ("a.json" in repo.head.files) == is_done
    assert hub.requests("commit")[0].status is None


@pytest.mark.usefixtures("repo")
def test_a_client_with_patience_for_less_times_out(hub, api):
    hub.fail("info", "hang")
    with pytest.raises(httpx2.ReadTimeout):
        api.repo_info(**REPO, timeout=0.1)


def test_a_hang_ends_with_the_hub():
    with HubServer() as hub:
        fault = hub.fail("whoami", "hang")
        pool = ThreadPoolExecutor(1)
        running = pool.submit(httpx2.get, f"{hub.endpoint}/api/whoami-v2", timeout=60)
        assert fault.reached.wait(30)
    assert isinstance(running.exception(30), httpx2.TransportError)
    assert fault.is_released
    pool.shutdown()


def test_a_paused_commit_can_be_overtaken(hub, api, repo):
    fault = hub.fail("commit", "pause")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(commit, api, add("a.json", b"{}"), parent_commit=repo.head.id)
        assert fault.reached.wait(30)
        commit(api, add("b.json", b"{}"), parent_commit=repo.head.id)
        fault.release()
        assert slow.exception(30).response.status_code == 412
    assert set(repo.head.files) == {".gitattributes", "b.json"}


def test_a_paused_answer_arrives_in_the_end(hub, api, repo):
    fault = hub.fail("commit", "pause-after")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(commit, api, add("a.json", b"{}"))
        assert fault.reached.wait(30)
        assert "a.json" in repo.head.files
        assert hub.requests("commit") == []
        fault.release()
        assert slow.result(30).oid == repo.head.id


@pytest.mark.parametrize("kind", ["slow", "cut"])
def test_a_file_arrives_whole_through_a_slow_or_broken_body(hub, api, repo, tmp_path, kind):
    data = bytes(range(256)) * 64
    repo.write({"a.parquet": data})
    fault = hub.fail("resolve", kind, method="GET", seconds=0)
    path = api.hf_hub_download(**REPO, filename="a.parquet", cache_dir=tmp_path)
    assert Path(path).read_bytes() == data
    assert fault.fired == 1
    assert len(hub.requests("resolve", "GET")) == (2 if kind == "cut" else 1)


@pytest.mark.usefixtures("repo")
def test_a_cut_answer_without_a_body_is_no_answer(hub):
    hub.fail("resolve", "cut", method="HEAD")
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.head(f"{hub.endpoint}/datasets/anna/ratings/resolve/main/a")


@pytest.mark.usefixtures("repo")
def test_faults_skip_count_and_strike_any_route(hub):
    hub.fail("any", 500, skip=1, count=2)
    statuses = [httpx2.get(f"{hub.endpoint}/api/whoami-v2").status_code for _ in range(4)]
    assert statuses == [401, 500, 500, 401]


@pytest.mark.parametrize(("route", "kind"), [("comit", "500"), ("commit", "boom"), ("commit", 499)])
def test_a_fault_that_cannot_be_is_refused(hub, route, kind):
    with pytest.raises(ValueError, match=r"route|kind|499"):
        hub.fail(route, kind)


def drawn(seed, routes=("commit", "info", "tree"), **settings):
    faults = Faults()
    faults.start_chaos(seed, rate=0.3, **settings)
    found = [faults.choose(route, "GET") for _ in range(200) for route in routes]
    return [fault.kind if fault else None for fault in found]


def test_chaos_is_a_function_of_its_seed():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert set(drawn(1, routes=("commit",) * 5)) == {None, *CHAOS_KINDS}
    assert not {"409", "412"} & set(drawn(1, routes=("info",) * 5))
    assert 0.25 < sum(kind is not None for kind in drawn(1)) / 600 < 0.35
    assert set(drawn(1, kinds=("409",), routes=("info",))) == {None}


@pytest.mark.usefixtures("repo")
def test_chaos_strikes_where_it_may_and_ends(hub, api):
    hub.chaos(1, rate=1.0, kinds=("503",), routes=("whoami",))
    api.repo_info(**REPO)
    with pytest.raises(HfHubHTTPError) as raised:
        api.whoami()
    assert status_of(raised) == 503
    assert [fault.kind for fault in hub.faults.drawn] == ["503"]
    hub.calm()
    assert api.whoami()["name"] == "anna"


@pytest.mark.parametrize("seed", range(3))
def test_a_stubborn_client_gets_every_file_in_once_through_chaos(hub, api, repo, seed):
    hub.chaos(seed, rate=0.3, seconds=0)
    paths = [f"data/{number}.parquet" for number in range(10)]
    for path in paths:
        while path not in repo.head.files:
            with contextlib.suppress(HfHubHTTPError, httpx2.TransportError, RuntimeError):
                commit(api, add(path, path.encode()))
    assert len({fault.kind for fault in hub.faults.drawn}) >= 5
    hub.calm()
    assert list(api.list_repo_files(**REPO)) == [".gitattributes", *paths]
    # One commit for each file, and none for what was there already.
    assert len(api.list_repo_commits(**REPO)) == 1 + len(paths)


# The server itself


def test_what_is_not_served_says_so(hub, api):
    with pytest.raises(HfHubHTTPError) as raised:
        api.create_bucket("anna/bucket")
    assert status_of(raised) == 501
    assert hub.requests("unserved")[0].status == 501


@pytest.mark.usefixtures("repo")
def test_the_log_says_who_asked_what_and_got_what(hub, api):
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(**REPO, revision="missing")
    (request,) = hub.requests()
    assert (request.method, request.route, request.user) == ("GET", "info", "anna")
    assert (request.status, request.fault) == (404, None)
    assert request.path == "/api/datasets/anna/ratings/revision/missing"


def test_a_bug_of_the_server_fails_the_test_that_met_it():
    def broken():
        raise ZeroDivisionError

    hub = HubServer(clock=broken)
    hub.add_user("anna", "hf_anna")
    hub.__enter__()
    answer = post(hub, "/api/repos/create", json={"name": "a"})
    assert "ZeroDivisionError" in answer.json()["error"]
    with pytest.raises(ZeroDivisionError):
        hub.__exit__(None)


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_client_that_dies_in_a_body_changes_nothing(hub, repo, framing):
    head, address = repo.head, hub.endpoint.removeprefix("http://").split(":")
    lines = b'{"key": "header", "value": {"summary": "x"}}\n'
    if "chunked" in framing:
        lines = b"%x\r\n%b\r\n" % (len(lines), lines)
    with socket.create_connection((address[0], int(address[1]))) as client:
        text = "POST /api/datasets/anna/ratings/commit/main HTTP/1.1\r\nHost: hub\r\n"
        client.sendall(f"{text}Authorization: Bearer hf_anna\r\n{framing}\r\n\r\n".encode() + lines)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert repo.head is head
    assert hub.requests() == []


def test_chunked_bodies_are_read(hub, repo):
    answer = post(hub, "/api/datasets/anna/ratings/branch/dev", content=iter([b"{", b"}"]))
    assert answer.status_code == 200
    assert "dev" in repo.branches


LFS = "/datasets/anna/ratings.git/info/lfs/objects/batch"
API = "/api/datasets/anna/ratings"
STRAY = f"/lfs/datasets/anna/ratings/{'0' * 64}"


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/repos/create", {"name": "a/b"}, 400),
        ("/api/repos/create", {"name": "a", "type": "bucket"}, 400),
        (f"{API}/preupload/main", {"files": [{"path": "a", "size": 1}] * 257}, 400),
        (LFS, {"operation": "download"}, 400),
        (f"{API}/lfs-files/batch", {"deletions": {"sha": [str(n) for n in range(1001)]}}, 400),
        (f"{STRAY}/verify", {"oid": "0" * 64, "size": 1}, 400),
        (f"{STRAY}/complete", {"parts": []}, 400),
        ("/api/repos/move", {"fromRepo": "anna/ratings", "toRepo": "anna/ratings"}, 404),
    ],
)
def test_what_no_client_sends_is_refused(hub, path, body, status):
    assert post(hub, path, json=body).status_code == status


@pytest.mark.usefixtures("repo")
def test_uploads_that_nobody_announced_are_refused(hub):
    assert httpx2.put(f"{hub.endpoint}{STRAY}/1", content=b"x").status_code == 404
    elsewhere = STRAY.replace("anna", "nobody")
    assert httpx2.put(f"{hub.endpoint}{elsewhere}", content=b"x").status_code == 404
    batch = {"operation": "upload", "objects": [{"oid": "short", "size": 1}]}
    assert "error" in post(hub, LFS, json=batch).json()["objects"][0]


def test_without_a_token_there_is_nothing_to_own(hub):
    for method, path in (("POST", "create"), ("DELETE", "delete")):
        url = f"{hub.endpoint}/api/repos/{path}"
        assert httpx2.request(method, url, json={"name": "a"}).status_code == 401


def test_a_repo_is_not_moved_onto_another(hub, api):
    hub.add_repo("anna/ratings")
    other = hub.add_repo("anna/other")
    with pytest.raises(HfHubHTTPError) as raised:
        api.move_repo("anna/ratings", "anna/other", repo_type="dataset")
    assert status_of(raised) == 409
    assert hub.repo("anna/other") is other


def test_a_card_that_somebody_broke_does_not_break_the_repo(api, repo):
    repo.write({"README.md": b"---\na: [\n---\n"})
    assert api.dataset_info("anna/ratings").card_data in (None, {})


@pytest.mark.parametrize("body", [b"no json", b"[1]"])
@pytest.mark.usefixtures("repo")
def test_a_body_that_is_no_object_is_refused(hub, body):
    assert post(hub, "/api/repos/create", content=body).status_code == 400


def test_ids_are_the_same_in_every_run():
    ids = []
    for _ in range(2):
        repo = HubServer().add_repo("anna/ratings")
        ids.append([repo.head.id, repo.write({"a.parquet": b"a", "b.json": b"b"}).id])
    assert ids[0] == ids[1]
    assert len({*ids[0]}) == 2


@pytest.mark.usefixtures("repo")
def test_a_request_waits_for_the_lock(hub, api):
    with ThreadPoolExecutor(1) as pool:
        with hub.lock:
            running = pool.submit(api.repo_info, **REPO)
            with pytest.raises(TimeoutError):
                running.result(0.2)
        assert running.result(30).id == "anna/ratings"


def test_many_clients_at_once_lose_nothing(api, repo):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: commit(api, add(f"{n}.json", b"%d" % n)), range(24)))
    assert len(repo.head.files) == 25
    assert len(repo.commits) == 25


DATASETS = """
import datasets, sys
revision = None
data = datasets.Dataset.from_dict({"rater": ["a", "b"], "strength": [0.25, 0.75]})
done = data.push_to_hub("anna/ratings", private=True)
loaded = datasets.load_dataset("anna/ratings", split="train", revision=done.oid)
assert loaded.to_list() == data.to_list(), loaded
more = datasets.Dataset.from_dict({"rater": ["c"], "strength": [0.5]})
more.push_to_hub("anna/ratings", split="test")
both = datasets.load_dataset("anna/ratings", revision="main")
assert {name: len(rows) for name, rows in both.items()} == {"train": 2, "test": 1}, both
streamed = datasets.load_dataset("anna/ratings", split="test", revision="main", streaming=True)
assert list(streamed) == more.to_list()
"""


def test_datasets_pushes_loads_and_streams(hub, tmp_path):
    environment = os.environ | hub.environment(tmp_path / "hf", token=TOKENS["anna"])
    done = subprocess.run(
        [sys.executable, "-c", DATASETS],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    repo = hub.repo("anna/ratings")
    assert repo.is_private
    assert [path for path in repo.head.files if path.endswith(".parquet")] == [
        "data/train-00000-of-00001.parquet",
        "data/test-00000-of-00001.parquet",
    ]
    assert {request.status for request in hub.requests()} <= {200, 206, 404, None}
    assert (tmp_path / "hf" / "hub").is_dir()
