"""The routes of the test Hub: what each request reads or changes, and what it answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml

from tests import hub_uploads as uploads
from tests.hub_repository import (
    Commit,
    File,
    Folder,
    RefusedError,
    Repository,
    entries,
    entry_not_found,
    revision_not_found,
)
from tests.hub_state import Answer, Call, HubState, User, iso_date, page, seen, url_of

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)


# The routes: each takes the Hub, whose lock is held, and the call, and returns the answer.


def _whoami(hub: HubState, call: Call) -> Answer:
    if call.user is None:
        raise RefusedError(401, "Invalid username or password.")
    name = call.user.name
    orgs = [
        {"type": "org", "name": org, "fullname": org, "roleInOrg": members[name]}
        for org, members in hub.organisations.items()
        if name in members
    ]
    token = {"displayName": "test", "role": call.user.role}
    auth = {"type": "access_token", "accessToken": token}
    return Answer.json(
        {"type": "user", "id": name, "name": name, "fullname": name, "orgs": orgs, "auth": auth}
    )


def _named(call: Call, user: User) -> tuple[str, str]:
    """Return kind and id of the repo that a body of create or delete names."""
    body = call.json()
    kind, name = body.get("type") or "model", str(body.get("name", ""))
    if kind not in {"model", "dataset", "space"} or not re.fullmatch(r"[\w.-]{1,96}", name):
        raise RefusedError(400, "Invalid repo type or name.")
    return kind, f"{body.get('organization') or user.name}/{name}"


def _create(hub: HubState, call: Call) -> Answer:
    if call.user is None:
        raise RefusedError(401, "Invalid username or password.")
    kind, repo_id = _named(call, call.user)
    hub.require_write(call.user, repo_id.split("/")[0])
    repo = hub.repos.get((kind, repo_id))
    if repo is not None:
        message = f"You already created this {kind} repo: {repo_id}"
        raise RefusedError(409, message, code="RepoExists", url=url_of(hub, repo))
    body = call.json()
    private = body.get("visibility") == "private" or body.get("private") is True
    repo = hub.add_repo(repo_id, kind, private=private)
    return Answer.json({"url": url_of(hub, repo), "name": repo_id, "private": private})


def _delete(hub: HubState, call: Call) -> Answer:
    if call.user is None:
        raise RefusedError(401, "Invalid username or password.")
    kind, repo_id = _named(call, call.user)
    repo = hub.find(kind, repo_id, call.user)
    hub.require_write(call.user, repo.namespace)
    del hub.repos[kind, repo_id]
    return Answer()


def _move(hub: HubState, call: Call) -> Answer:
    body = call.json()
    kind, old_id, new_id = body.get("type") or "model", str(body["fromRepo"]), str(body["toRepo"])
    repo = hub.find(kind, old_id, call.user)
    hub.require_write(call.user, repo.namespace)
    hub.require_write(call.user, new_id.split("/", maxsplit=1)[0])
    if (kind, new_id) in hub.repos:
        raise RefusedError(409, f"A repo is already there: {new_id}", code="RepoExists")
    repo.id = new_id
    hub.repos[kind, new_id] = hub.repos.pop((kind, old_id))
    hub.moved.pop((kind, new_id), None)
    hub.moved[kind, old_id] = new_id
    return Answer()


def _settings(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, write=True)
    body = call.json()
    if "visibility" in body or "private" in body:
        repo.is_private = body.get("visibility") == "private" or body.get("private") is True
    repo.gated = body.get("gated", repo.gated)
    return Answer.json({"private": repo.is_private, "gated": repo.gated})


def _auth_check(hub: HubState, call: Call) -> Answer:
    seen(hub, call, write=bool(call.parts["write"]), content=True)
    return Answer()


def _info(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call)
    commit = repo.commit(call.parts["revision"] or "main")
    info = {
        "_id": hashlib.sha1(repo.id.encode(), usedforsecurity=False).hexdigest()[:24],
        "id": repo.id,
        "author": repo.namespace,
        "sha": commit.id,
        "private": repo.is_private,
        "gated": repo.gated,
        "disabled": False,
        "tags": [],
        "createdAt": iso_date(repo.created_at),
        "lastModified": iso_date(commit.date),
        "siblings": [
            {"rfilename": path} | (_blob(file) if call.asks("blobs") else {})
            for path, file in sorted(commit.files.items())
        ],
    }
    if "README.md" in commit.files:
        info["cardData"] = _card_data(commit.files["README.md"].stored)
    expand = set(call.query.get("expand", []))
    if expand:
        info = {key: value for key, value in info.items() if key in {"_id", "id", *expand}}
    return Answer.json(info)


def _card_data(readme: bytes) -> dict[str, Any]:
    try:
        return _front_matter(readme.decode(errors="replace")) or {}
    except RefusedError:  # Pushed without the check that the client asks for.
        return {}


def _blob(file: File) -> dict[str, Any]:
    """Return what a listing with blobs says about one file."""
    facts: dict[str, Any] = {"size": file.size, "blobId": file.oid}
    if file.sha256:
        pointer = len(file.stored)
        facts["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return facts


def _entry(
    repo: Repository, commit: Commit, path: str, found: File | Folder, *, expand: bool
) -> dict[str, Any]:
    """Return one item of a tree listing."""
    if isinstance(found, Folder):
        return {"type": "directory", "oid": found.oid, "size": 0, "path": path}
    item: dict[str, Any] = {"type": "file", "oid": found.oid, "size": found.size, "path": path}
    if found.sha256:
        pointer = len(found.stored)
        item["lfs"] = {"oid": found.sha256, "size": found.size, "pointerSize": pointer}
    if expand:
        last = repo.last_change(commit, path)
        item["lastCommit"] = {"id": last.id, "title": last.title, "date": iso_date(last.date)}
    return item


def _tree(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, content=True)
    commit = repo.commit(call.parts["revision"])
    folder = (call.parts["path"] or "").strip("/")
    found = entries(commit.files, folder, recursive=call.asks("recursive"))
    if folder and not found:
        raise entry_not_found(folder)
    expand = call.asks("expand")
    items = [_entry(repo, commit, path, entry, expand=expand) for path, entry in found]
    return page(hub, call, items, hub.page_size // 20 if expand else hub.page_size)


def _paths_info(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, content=True)
    commit = repo.commit(call.parts["revision"])
    form = parse_qs(call.body.decode())
    expand = form.get("expand", [""])[-1].lower() == "true"
    every = dict(entries(commit.files, recursive=True))
    wanted = [path.strip("/") for path in form.get("paths", [])]
    items = [
        _entry(repo, commit, path, every[path], expand=expand) for path in wanted if path in every
    ]
    return Answer.json(items)


def _refs(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call)

    def listed(refs: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name.removeprefix("refs/pr/"), "ref": prefix + name, "targetCommit": sha}
            for name, sha in refs.items()
        ]

    found = {
        "branches": listed(repo.branches, "refs/heads/"),
        "converts": listed(repo.converts, "refs/convert/"),
        "tags": listed(repo.tags, "refs/tags/"),
    }
    if call.asks("include_prs"):
        found["pullRequests"] = listed(repo.pull_requests, "")
    return Answer.json(found)


def _commits(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call)
    items = [
        {
            "id": commit.id,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": iso_date(commit.date),
        }
        for commit in repo.ancestors(repo.commit(call.parts["revision"]))
    ]
    return page(hub, call, items, hub.page_size)


def _branch(hub: HubState, call: Call) -> Answer:
    repo, name = seen(hub, call, write=True), call.parts["name"]
    if call.method == "DELETE":
        refs = repo.pull_requests if name in repo.pull_requests else repo.branches
        if name == "main" or name.removeprefix("refs/convert/") in repo.converts:
            raise RefusedError(403, f"The reference {name} cannot be deleted.")
        if name not in refs:
            raise revision_not_found(name)
        del refs[name]
        repo.forget_unreachable()
        return Answer()
    if name.startswith("refs/"):
        raise RefusedError(400, f"Invalid reference for a branch: {name}")
    if name in repo.branches:
        raise RefusedError(409, f"Reference already exists: refs/heads/{name}")
    repo.branches[name] = repo.commit(call.json().get("startingPoint") or "main").id
    return Answer()


def _tag(hub: HubState, call: Call) -> Answer:
    repo, name = seen(hub, call, write=True), call.parts["name"]
    if call.method == "DELETE":
        if name not in repo.tags:
            raise revision_not_found(name)
        del repo.tags[name]
        repo.forget_unreachable()
        return Answer()
    commit, tag = repo.commit(name), str(call.json()["tag"])
    if tag in repo.tags:
        raise RefusedError(409, f"Tag reference exists already: refs/tags/{tag}")
    repo.tags[tag] = commit.id
    return Answer()


def _front_matter(text: str) -> dict[str, Any] | None:
    """Return the YAML block at the head of a README, None without one.

    Raises:
        RefusedError: 400, for a block that is no YAML mapping.
    """
    match = FRONT_MATTER.search(text)
    if match is None:
        return None
    try:
        value = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        message = f"Invalid YAML: {error}"
        raise RefusedError(400, message, errors=[{"message": message}], warnings=[]) from error
    if value is not None and not isinstance(value, dict):
        message = "The metadata must be a mapping."
        raise RefusedError(400, message, errors=[{"message": message}], warnings=[])
    return value


def _validate_yaml(_hub: HubState, call: Call) -> Answer:
    warnings = []
    if not _front_matter(str(call.json().get("content", ""))):
        warnings = [{"message": "empty or missing yaml metadata in repo card"}]
    return Answer.json({"warnings": warnings, "errors": []})


def _resolve(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, content=True)
    commit = repo.commit(call.parts["revision"])
    path = call.parts["path"]
    headers = {"X-Repo-Commit": commit.id}
    file = commit.files.get(path)
    data = repo.content(file) if file else None
    if file is None or data is None:
        missing = Answer.refusal(entry_not_found(path))
        return Answer(missing.status, missing.body, {**missing.headers, **headers})
    headers |= {
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if file.sha256:
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    if call.method == "HEAD" or call.wanted_range is None:
        return Answer(200, data, headers)
    return _slice(data, call.wanted_range, headers)


def _slice(data: bytes, wanted: str, headers: Mapping[str, str]) -> Answer:
    """Answer with one range of the bytes, 416 where it holds none."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if match is None or not (match[1] or match[2]):
        return Answer(200, data, headers)
    first = int(match[1]) if match[1] else max(len(data) - int(match[2]), 0)
    last = min(int(match[2]), len(data) - 1) if match[1] and match[2] else len(data) - 1
    if first > last:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    place = f"bytes {first}-{last}/{len(data)}"
    return Answer(206, data[first : last + 1], {**headers, "Content-Range": place})


def _super_squash(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, write=True)
    title = str(call.json().get("message") or "Super-squash")
    repo.squash(call.parts["name"], title=title, author=call.user.name if call.user else "")
    return Answer()


def _unserved(_hub: HubState, call: Call) -> Answer:
    raise RefusedError(501, f"The test Hub does not serve {call.method} {call.path}.")


@dataclass(frozen=True)
class Route:
    """One kind of request: its name in `fail` and the log, and what it looks like."""

    name: str
    methods: frozenset[str]
    pattern: re.Pattern[str]
    act: Callable[[HubState, Call], Answer]


def _route(name: str, methods: str, path: str, act: Callable[[HubState, Call], Answer]) -> Route:
    """Make a route; the path is matched as sent, and its parts are unquoted afterwards."""
    named = (
        path.replace("{r}", r"(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)")
        .replace("{rev}", "(?P<revision>[^/]+)")
        .replace("{path}", "(?P<path>.+)")
        .replace("{name}", "(?P<name>[^/]+)")
        .replace("{oid}", "(?P<oid>[0-9a-f]{64})")
    )
    return Route(name, frozenset(methods.split()), re.compile(named), act)


_FILES = "(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)"
"""The beginning of a file's address: models have no prefix."""

ROUTES = (
    _route("whoami", "GET", "/api/whoami-v2", _whoami),
    _route("create", "POST", "/api/repos/create", _create),
    _route("delete", "DELETE", "/api/repos/delete", _delete),
    _route("move", "POST", "/api/repos/move", _move),
    _route("validate-yaml", "POST", "/api/validate-yaml", _validate_yaml),
    _route("settings", "PUT", "/api/{r}/settings", _settings),
    _route("auth-check", "GET", "/api/{r}/auth-check(?P<write>/write)?", _auth_check),
    _route("tree", "GET", "/api/{r}/tree/{rev}(?:/{path})?", _tree),
    _route("paths-info", "POST", "/api/{r}/paths-info/{rev}", _paths_info),
    _route("refs", "GET", "/api/{r}/refs", _refs),
    _route("commits", "GET", "/api/{r}/commits/{rev}", _commits),
    _route("branch", "POST DELETE", "/api/{r}/branch/{name}", _branch),
    _route("tag", "POST DELETE", "/api/{r}/tag/{name}", _tag),
    _route("preupload", "POST", "/api/{r}/preupload/{rev}", uploads.preupload),
    _route("commit", "POST", "/api/{r}/commit/{rev}", uploads.commit),
    _route("super-squash", "POST", "/api/{r}/super-squash/{name}", _super_squash),
    _route("lfs-files", "GET", "/api/{r}/lfs-files", uploads.lfs_files),
    _route("lfs-delete", "POST", "/api/{r}/lfs-files/batch", uploads.lfs_delete),
    _route("info", "GET", "/api/{r}(?:/revision/{rev})?", _info),
    _route("batch", "POST", f"/{_FILES}\\.git/info/lfs/objects/batch", uploads.batch),
    _route("put", "PUT", "/lfs/{r}/{oid}", uploads.put),
    _route("part", "PUT", r"/lfs/{r}/{oid}/(?P<number>\d+)", uploads.part),
    _route("complete", "POST", "/lfs/{r}/{oid}/complete", uploads.complete),
    _route("verify", "POST", "/lfs/{r}/{oid}/verify", uploads.verify),
    _route("resolve", "GET HEAD", f"/{_FILES}/resolve/{{rev}}/{{path}}", _resolve),
)
UNSERVED = _route("unserved", "", ".*", _unserved)


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the route of a request and the unquoted parts of its path."""
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match and method in route.methods:
            parts = {key: unquote(value or "") for key, value in match.groupdict().items()}
            if "kind" in parts:
                parts["kind"] = parts["kind"] or "models"
            return route, parts
    return UNSERVED, {}
