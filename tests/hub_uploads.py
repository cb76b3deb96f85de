"""What the test Hub does with uploads: preupload, LFS objects, commits, deletion for good."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from tests.hub_repository import Change, File, RefusedError, Repository, is_lfs
from tests.hub_state import Answer, Call, HubState, iso_date, page, seen, url_of


def preupload(hub: HubState, call: Call) -> Answer:
    if call.asks("create_pr"):
        raise RefusedError(501, "The test Hub opens no pull requests.")
    repo = seen(hub, call, write=True)
    commit = repo.commit(call.parts["revision"])
    body = call.json()
    ignored = [
        line.strip()
        for line in str(body.get("gitIgnore") or "").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if len(body["files"]) > 256:
        raise RefusedError(400, "At most 256 files are asked about at once.")
    answers = []
    for file in body["files"]:
        path, size = file["path"], file["size"]
        steps = [path, *path.split("/")]
        is_ignored = any(
            fnmatch.fnmatch(step, rule.strip("/")) for rule in ignored for step in steps
        )
        mode = "lfs" if is_lfs(path, size) else "regular"
        answer = {"path": path, "uploadMode": mode, "shouldIgnore": is_ignored}
        if path in commit.files:
            answer["oid"] = commit.files[path].etag
        answers.append(answer)
    return Answer.json({"files": answers, "commitOid": commit.id})


def batch(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, write=True)
    body = call.json()
    if body.get("operation") != "upload" or body.get("hash_algo", "sha256") != "sha256":
        raise RefusedError(400, "Only uploads of sha256 objects are served.")
    objects = [
        _upload(hub, repo, item["oid"], item["size"], body.get("transfers", ["basic"]))
        for item in body["objects"]
    ]
    is_multipart = any("chunk_size" in str(item) for item in objects)
    return Answer.json(
        {"transfer": "multipart" if is_multipart else "basic", "objects": objects},
        headers={"Content-Type": "application/vnd.git-lfs+json"},
    )


def _upload(
    hub: HubState, repo: Repository, oid: str, size: int, transfers: list[str]
) -> dict[str, Any]:
    """Say where the bytes of one object go, or that they are here already."""
    if not re.fullmatch("[0-9a-f]{64}", oid):
        return {"oid": oid, "size": size, "error": {"code": 422, "message": "Invalid oid."}}
    blob = repo.blobs.get(oid)
    if blob is not None and blob.is_verified:
        return {"oid": oid, "size": size}
    place = f"{hub.endpoint}/lfs/{repo.kind}s/{repo.id}/{oid}"
    header: dict[str, str] = {}
    if size > hub.multipart_over and "multipart" in transfers:
        repo.parts[oid] = {}
        header["chunk_size"] = str(hub.chunk_size)
        count = -(-size // hub.chunk_size)
        header |= {str(number): f"{place}/{number}" for number in range(1, count + 1)}
    href = f"{place}/complete" if header else place
    actions = {
        "upload": {"href": href, "header": header},
        "verify": {"href": f"{place}/verify", "header": {}},
    }
    return {"oid": oid, "size": size, "actions": actions}


def _stored(hub: HubState, call: Call) -> Repository:
    """Return the repo an upload without authorization goes to."""
    repo = hub.repos.get((call.parts["kind"].removesuffix("s"), call.parts["repo"]))
    if repo is None:
        raise RefusedError(404, "Repository not found", code="RepoNotFound")
    return repo


def put(hub: HubState, call: Call) -> Answer:
    repo = _stored(hub, call)
    if hashlib.sha256(call.body).hexdigest() != call.parts["oid"]:
        raise RefusedError(400, "The bytes do not have this sha256.")
    repo.store(call.body, is_verified=False)
    return Answer(body=b"", headers={"ETag": f'"{call.parts["oid"]}"'})


def part(hub: HubState, call: Call) -> Answer:
    parts = _stored(hub, call).parts.get(call.parts["oid"])
    if parts is None:
        raise RefusedError(404, "No upload in parts was begun for this object.")
    parts[int(call.parts["number"])] = call.body
    etag = hashlib.sha256(call.body).hexdigest()
    return Answer(body=b"", headers={"ETag": f'"{etag}"'})


def complete(hub: HubState, call: Call) -> Answer:
    repo, oid = _stored(hub, call), call.parts["oid"]
    parts = repo.parts.get(oid, {})
    given = {item["partNumber"]: item["etag"].strip('"') for item in call.json()["parts"]}
    arrived = {number: hashlib.sha256(data).hexdigest() for number, data in parts.items()}
    data = b"".join(parts[number] for number in sorted(parts))
    if given != arrived or hashlib.sha256(data).hexdigest() != oid:
        raise RefusedError(400, "The parts are not those of the object.")
    repo.store(data, is_verified=False)
    del repo.parts[oid]
    return Answer()


def verify(hub: HubState, call: Call) -> Answer:
    repo, body = seen(hub, call, write=True), call.json()
    blob = repo.blobs.get(body["oid"])
    if blob is None or len(blob.data) != body["size"] or body["oid"] != call.parts["oid"]:
        raise RefusedError(400, "The object did not arrive, or not whole.")
    blob.is_verified = True
    return Answer()


def commit(hub: HubState, call: Call) -> Answer:
    if call.asks("create_pr"):
        raise RefusedError(501, "The test Hub opens no pull requests.")
    repo = seen(hub, call, write=True)
    change = _change(call.body)
    author = call.user.name if call.user else ""
    commit = repo.apply(call.parts["revision"], change, author=author)
    return Answer.json(
        {
            "success": True,
            "commitUrl": f"{url_of(hub, repo)}/commit/{commit.id}",
            "commitOid": commit.id,
            "pullRequestUrl": None,
            "hookOutput": "",
        }
    )


def _change(body: bytes) -> Change:
    """Read the lines of a commit.

    Raises:
        RefusedError: 400, for anything the client does not send.
    """
    header: dict[str, Any] = {}
    add: dict[str, File] = {}
    deleted: dict[str, list[str]] = {"deletedFile": [], "deletedFolder": []}
    try:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        for number, line in enumerate(lines):
            key, value = line["key"], line["value"]
            if (key == "header") != (number == 0):
                raise RefusedError(400, "The header must be the first line, and only that.")
            if key == "header":
                header = value
            elif key == "file":
                data = base64.b64decode(value["content"], validate=True)
                add[_path(value)] = File.regular(data)
            elif key == "lfsFile":
                add[_path(value)] = File.lfs(value["oid"], value.get("size", 0))
            else:
                deleted[key].append(_path(value))
        title = header["summary"]
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError(400, f"The commit cannot be read: {error!r}") from error
    return Change(
        title=title,
        message=header.get("description") or "",
        add=add,
        delete_files=tuple(deleted["deletedFile"]),
        delete_folders=tuple(deleted["deletedFolder"]),
        parent=header.get("parentCommit"),
    )


def _path(value: Mapping[str, Any]) -> str:
    """Return the path of an operation, if a file may have it."""
    path = str(value["path"])
    if any(step in {"", ".", "..", ".git"} for step in path.rstrip("/").split("/")):
        raise RefusedError(400, f"Invalid path in repo: {path}")
    return path


def lfs_files(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, write=True)
    items = [
        {
            "fileOid": oid,
            "filename": blob.filename,
            "oid": oid,
            "pushedAt": iso_date(blob.pushed_at),
            "size": len(blob.data),
        }
        | ({"ref": blob.ref} if blob.ref else {})
        for oid, blob in repo.blobs.items()
    ]
    return page(hub, call, items, hub.page_size)


def lfs_delete(hub: HubState, call: Call) -> Answer:
    repo = seen(hub, call, write=True)
    deletions = call.json()["deletions"]
    oids = frozenset(deletions["sha"])
    if len(oids) > 1000:
        raise RefusedError(400, "At most 1000 objects are deleted at once.")
    repo.delete_blobs(oids, rewrite_history=bool(deletions.get("rewriteHistory")))
    return Answer()
