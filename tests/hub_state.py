"""What every route of the test Hub reads: accounts, repos, who may do what, a call, an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tests.hub_repository import RefusedError, Repository

WRITERS = frozenset({"admin", "write", "contributor"})
"""Roles in an organisation that may write."""


@dataclass(frozen=True)
class User:
    """One account with one token."""

    name: str
    token: str = field(repr=False)
    role: str = "write"
    """Of the token: "write" or "read"."""


@dataclass(frozen=True)
class Answer:
    """What goes back, short of what a fault does to it."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(
        cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Answer:
        headers = {"Content-Type": "application/json", **(headers or {})}
        return cls(status, json.dumps(value).encode(), headers)

    @classmethod
    def refusal(cls, error: RefusedError) -> Answer:
        message = error.message.encode("ascii", "replace").decode().replace("\n", " ")
        headers = {"X-Error-Message": message}
        if error.code:
            headers["X-Error-Code"] = error.code
        return cls.json({"error": error.message, **error.details}, error.status, headers)


class MovedError(Exception):
    """The repo has a new id, at which the client shall ask again."""

    def __init__(self, new_id: str):
        super().__init__(f"The repo is now {new_id}.")
        self.new_id = new_id


@dataclass(frozen=True)
class Call:
    """One request as its route sees it."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    wanted_range: str | None
    """The header `Range`."""
    body: bytes = field(repr=False)
    user: User | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    """What the route's pattern found in the path, unquoted."""

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise RefusedError(400, "The body is no JSON.") from error
        if not isinstance(value, dict):
            raise RefusedError(400, "The body must be a JSON object.")
        return value

    def asks(self, name: str) -> bool:
        return self.query.get(name, [""])[-1].lower() in {"1", "true"}


class HubState:
    """Accounts and repos of one Hub; who holds `lock` may read and change them.

    Args:
        endpoint: The Hub's own address, for the URLs it gives out.
        clock: Now, in UTC; dates commits and uploads.
    """

    def __init__(self, endpoint: str, clock: Callable[[], datetime]):
        self.endpoint = endpoint
        self.clock = clock
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        """By token."""
        self.organisations: dict[str, dict[str, str]] = {}
        """Name to {member: role}."""
        self.repos: dict[tuple[str, str], Repository] = {}
        """By kind ("model", "dataset", "space") and id."""
        self.moved: dict[tuple[str, str], str] = {}
        """Old kind and id to the new id."""
        self.page_size = 1000
        """Entries of one page of a listing; an expanded tree has a twentieth."""
        self.multipart_over = 50_000_000
        """Bytes above which an LFS object comes in parts."""
        self.chunk_size = 5_000_000
        """Bytes of one part."""

    def add_user(self, name: str, token: str, role: str = "write") -> User:
        """Add an account, or one more token to it, which may "write" or only "read"."""
        self.users[token] = User(name, token, role)
        return self.users[token]

    def add_organisation(self, name: str, members: Mapping[str, str]) -> None:
        """Add an organisation; members have the role admin, write, contributor or read."""
        self.organisations[name] = dict(members)

    def revoke(self, token: str) -> None:
        """Let a token expire: from now on it is answered with 401."""
        del self.users[token]

    def add_repo(self, repo_id: str, kind: str = "dataset", *, private: bool = True) -> Repository:
        """Make a repo without the API."""
        repo = Repository(kind, repo_id, is_private=private, clock=self.clock)
        with self.lock:
            self.repos[kind, repo_id] = repo
            self.moved.pop((kind, repo_id), None)
        return repo

    def user_of(self, authorization: str) -> User | None:
        """Return whom the header names, None without one.

        Raises:
            RefusedError: 401 for a token that is unknown or no longer valid.
        """
        if not authorization:
            return None
        user = self.users.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return user

    def owns(self, user: User | None, namespace: str) -> bool:
        """Whether somebody belongs to a namespace, as itself or as a member."""
        if user is None:
            return False
        return user.name == namespace or user.name in self.organisations.get(namespace, {})

    def require_write(self, user: User | None, namespace: str) -> None:
        """Refuse with 401 or 403 who may not write to a namespace."""
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        role = self.organisations.get(namespace, {}).get(user.name, "")
        if user.role != "write" or (user.name != namespace and role not in WRITERS):
            raise RefusedError(403, f"You don't have the rights to write to {namespace}.")

    def find(self, kind: str, repo_id: str, user: User | None) -> Repository:
        """Return a repo for somebody who may see it.

        Raises:
            RefusedError: `RepoNotFound`, also where it is private.
            MovedError: Where it has another id now.
        """
        repo = self.repos.get((kind, repo_id))
        new_id = self.moved.get((kind, repo_id))
        if repo is None and new_id is not None:
            self.find(kind, new_id, user)
            raise MovedError(new_id)
        if repo is None or (repo.is_private and not self.owns(user, repo.namespace)):
            status = 401 if user is None else 404
            raise RefusedError(status, "Repository not found", code="RepoNotFound")
        return repo


def seen(hub: HubState, call: Call, *, write: bool = False, content: bool = False) -> Repository:
    """Return the repo of the path for who may see it, write to it, or read its files."""
    repo = hub.find(call.parts["kind"].removesuffix("s"), call.parts["repo"], call.user)
    if write:
        hub.require_write(call.user, repo.namespace)
    if content and repo.gated and not hub.owns(call.user, repo.namespace):
        raise RefusedError(403, "Access to this repo is restricted.", code="GatedRepo")
    return repo


def page(hub: HubState, call: Call, items: list[Any], size: int) -> Answer:
    """Answer with the page of a listing that the query asks for."""
    start = int(call.query.get("cursor", ["0"])[-1])
    headers = {}
    if start + size < len(items):
        query = {**call.query, "cursor": [str(start + size)]}
        text = "&".join(f"{key}={quote(v)}" for key, values in query.items() for v in values)
        headers["Link"] = f'<{hub.endpoint}{call.path}?{text}>; rel="next"'
    return Answer.json(items[start : start + size], headers=headers)


def iso_date(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def url_of(hub: HubState, repo: Repository) -> str:
    """Return the address of a repo's page; models have no prefix."""
    prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
    return f"{hub.endpoint}/{prefix}{repo.id}"
