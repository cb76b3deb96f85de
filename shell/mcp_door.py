"""The door for agents that speak MCP: which requests Gradio's own MCP server gets to see.

An ASGI middleware. Gradio's server would upload any file of this machine that an argument names,
keep photos that come as text, and answer more than tools; here only photos that were sent pass.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from privacy_core.errors import PhotoError
from shell.headers import API
from shell.pictures import take_upload
from shell.routes import PUBLIC_CALLS, answer

DOOR = f"{API}mcp"
OWN_FILE = f"{API}file="
"""What stands before the path of an upload in its address."""
PHOTO_ARGUMENT = (
    "`photo` must be a picture that was sent here, got something else. Send it as "
    "`data:image/jpeg;base64,…`, or upload it first and name the path that the upload returned; "
    "addresses of other places are never fetched."
)
_SCHEMA = f"{DOOR}/schema"
_METHODS = frozenset({"initialize", "ping", "tools/list", "tools/call"})
_WITH_PHOTO = ("anonymize", "ladder")
_ANSWER_KEYS = frozenset({"strength", "just_right", "photo"})
_HEADERS = frozenset(
    {
        b"accept", b"content-type", b"host", b"user-agent", b"origin", b"sec-fetch-site",
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
        b"mcp-protocol-version", b"mcp-session-id",
    }
)  # fmt: skip
"""Gradio sends a call's headers again with a request of its own; no other is needed for that."""
_NOT_FOUND, _WRONG, _NOT_READ = -32601, -32602, -32700


class McpDoor:
    """ASGI middleware that passes on tools and nothing else of MCP.

    Args:
        app: What answers everything else.
        folder: Where photos that come as text are put, to be read once and deleted.
        uploads: Paths that the server itself gave to uploads.
        is_ready: Whether Gradio knows its own address; before, it would believe the request's.
    """

    def __init__(
        self, app: Any, *, folder: Path, uploads: set[str], is_ready: Callable[[], bool]
    ) -> None:
        self._app = app
        self._folder = folder
        self._uploads = uploads
        self._is_ready = is_ready

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what is no use of a tool; pass all else on, the photo as an upload."""
        path = scope["path"].rstrip("/") if scope["type"] == "http" else ""
        if not path.startswith(DOOR) or (path == _SCHEMA and scope["method"] == "GET"):
            await self._app(scope, receive, send)
        elif path != DOOR:
            await answer(send, 404, {"error": f"Tools are at {DOOR}, over streamable HTTP."})
        elif scope["method"] != "POST":
            # Nothing is ever sent of the server's own accord, so no stream is held open for it.
            await answer(send, 405, {"error": "Tools are called by POST."})
        elif not self._is_ready():
            await answer(send, 503, {"error": "The page is starting. Try again in a moment."})
        else:
            await self._call(scope, receive, send)

    async def _call(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            message = json.loads(await _body(receive))
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            text = "A request must be one JSON-RPC message with a method. Send one at a time."
            await answer(send, 400, _error(None, _NOT_READ, text))
            return
        method, number, photo = message["method"], message.get("id"), None
        if not (method in _METHODS or method.startswith("notifications/")):
            text = f"`method` must be one of {', '.join(sorted(_METHODS))}. Nothing else is here."
            await answer(send, 200, _error(number, _NOT_FOUND, text))
            return
        if method == "tools/call":
            if text := self._fault(message):
                await answer(send, 200, _error(number, _WRONG, text))
                return
            try:
                photo = self._take_photo(message["params"])
            except PhotoError as error:
                await answer(send, 200, _refusal(number, str(error)))
                return
            send = _in_parts(message["params"], send)
        await self._pass_on(scope, receive, send, message=message, photo=photo)

    async def _pass_on(
        self, scope: Any, receive: Any, send: Any, *, message: Any, photo: str | None
    ) -> None:
        """Let Gradio answer a message; whatever it makes of the photo, none is left."""
        body = json.dumps(message).encode()
        headers = [(k, v) for k, v in scope["headers"] if k.lower() in _HEADERS]
        headers.append((b"content-length", str(len(body)).encode()))
        # With its slash, as Gradio would otherwise send the caller to where their headers say.
        place = {"path": f"{DOOR}/", "raw_path": f"{DOOR}/".encode(), "headers": headers}

        async def send_and_drop(message: Any) -> None:
            if not message.get("more_body", message["type"] == "http.response.start"):
                self._drop(photo)  # Before the caller hears that it is over.
            await send(message)

        try:
            await self._app({**scope, **place}, _given(body, receive), send_and_drop)
        finally:
            self._drop(photo)

    @staticmethod
    def _fault(message: Mapping[str, Any]) -> str:
        """Say what is wrong with a call of a tool, "" if nothing is."""
        params = message.get("params")
        if not isinstance(params, dict) or not _is_tool(params.get("name"), PUBLIC_CALLS):
            return f"`name` must be one of {', '.join(sorted(PUBLIC_CALLS))}. Ask `tools/list`."
        arguments = params.get("arguments") or {}
        if isinstance(arguments, dict) and all(map(_is_plain, arguments.values())):
            return ""
        return "`arguments` must be numbers, texts and lists of them, got others. See the schema."

    def _take_photo(self, params: dict[str, Any]) -> str | None:
        """Put the address of an upload of this call's own in the photo's place.

        Others may have uploaded the same photo, and then it has the same path: what is taken here
        leaves theirs, and nothing that happens to it later can reach them.

        Returns:
            The own upload's path, None where there is no photo to take.

        Raises:
            PhotoError: It is no photo that was sent here, or is gone.
        """
        arguments = params.get("arguments") or {}
        if "photo" not in arguments:
            return None  # What needs one will say so.
        photo = arguments["photo"]
        if not isinstance(photo, str) or not _is_tool(params["name"], _WITH_PHOTO):
            raise PhotoError(PHOTO_ARGUMENT)
        if photo.startswith("data:"):
            path = self._stored(_decoded(photo))
        else:
            named = photo.partition(OWN_FILE)[2] or photo
            sent = next((p for p in (named, unquote(named)) if p in self._uploads), None)
            if sent is None:
                raise PhotoError(PHOTO_ARGUMENT)
            path = self._stored(take_upload(sent, self._uploads))
        arguments["photo"] = f"http://localhost{OWN_FILE}{path}"
        return path

    def _drop(self, photo: str | None) -> None:
        """Delete a photo that the call did not come to read."""
        if photo:
            with contextlib.suppress(PhotoError):
                take_upload(photo, self._uploads)

    def _stored(self, data: bytes) -> str:
        """Store a photo as if it had been uploaded, where no other can lie; return its path."""
        path = self._folder / secrets.token_hex(16) / "photo"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        self._uploads.update([str(path)])
        return str(path)


def _decoded(text: str) -> bytes:
    """Return the bytes of a photo that came as text.

    Raises:
        PhotoError: It is no text of that form.
    """
    head, _, encoded = text.partition(",")
    if not head.endswith(";base64"):
        raise PhotoError(PHOTO_ARGUMENT)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise PhotoError(PHOTO_ARGUMENT) from error


def _is_tool(name: object, calls: Collection[str]) -> bool:
    """Tell whether a tool is one of some calls; on a Space its name stands before theirs."""
    return isinstance(name, str) and any(name == c or name.endswith(f"_{c}") for c in calls)


def own_file(path: str) -> str:
    """Return the path that the address of a file of this server names; any other text as it is."""
    return path.partition(OWN_FILE)[2] if path.startswith(f"http://localhost{OWN_FILE}") else path


def _is_plain(value: object) -> bool:
    """Tell numbers, texts and lists of them or of answers; of an object, Gradio may make a file."""
    if not isinstance(value, list):
        return not isinstance(value, dict)
    return all(
        not isinstance(item, list)
        if not isinstance(item, dict)
        else set(item) <= _ANSWER_KEYS
        and not any(isinstance(inner, dict | list) for inner in item.values())
        for item in value
    )


def _error(number: object, code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}


def _refusal(number: object, text: str) -> dict[str, Any]:
    """Return what an agent's model gets to read."""
    result = {"content": [{"type": "text", "text": text}], "isError": True}
    return {"jsonrpc": "2.0", "id": number, "result": result}


def _in_parts(params: dict[str, Any], send: Any) -> Any:
    """Have a call answered in its parts, and return the `send` to do it with.

    Gradio makes pictures and report one text unless its caller wants to hear of progress. One that
    does not gets a token here, and what is said to it is kept back.
    """
    meta = params.setdefault("_meta", {})
    if not isinstance(meta, dict) or meta.get("progressToken") is not None:
        return send
    meta["progressToken"] = token = secrets.token_hex(16)

    async def send_without_progress(message: Any) -> None:
        if token.encode() not in message.get("body", b""):
            await send(message)

    return send_without_progress


async def _body(receive: Any) -> bytes:
    """Return a body; `SmallBodies` has checked how long it is."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _given(body: bytes, receive: Any) -> Callable[[], Any]:
    """Return a `receive` that gives a body, and then what comes next."""
    left = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> Any:
        for message in left:
            return message
        return await receive()

    return again
