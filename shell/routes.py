"""What stands between the network and the page: closed doors, limits, headers, and health.

ASGI middlewares; they know no page, no visitor and no store.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


class ClosedDoors:
    """ASGI middleware that closes what Gradio offers and this page does not use.

    Gradio would fetch any address for a visitor, convert their videos, and write down a session.
    """

    _DOORS = ("/file=http", "/proxy=", "/process_recording", "/deep_link", "/stream/", "/vibe")

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 404 at a closed door; pass all else on."""
        path = scope.get("path", "").lower()
        if scope["type"] == "http" and any(door in path for door in self._DOORS):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


class NoStore:
    """ASGI middleware that forbids caches to keep what the page serves about a visitor."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on and add the header to the response."""

        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *((k, v) for k, v in message["headers"] if k.lower() != b"cache-control"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        is_personal = scope["type"] == "http" and "/gradio_api/" in scope["path"]
        await self._app(scope, receive, send_marked if is_personal else send)


class SmallBodies:
    """ASGI middleware that refuses large bodies where no file is uploaded.

    Uploads have a limit of their own; everything else that the page sends is small.
    """

    LIMIT = 262_144

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 413 to a body that is too long, and 411 to one of unknown length."""
        if scope["type"] != "http" or scope["method"] != "POST" or _is_upload(scope["path"]):
            await self._app(scope, receive, send)
            return
        lengths = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
        if not lengths or not lengths[0].isdigit():
            await answer(send, 411, {"error": "A request must say how long it is."})
        elif int(lengths[0]) > self.LIMIT:
            await _drop_body(receive, most=16 * self.LIMIT)
            rule = f"A request must have at most {self.LIMIT} bytes. Reload the page."
            await answer(send, 413, {"error": rule})
        else:
            await self._app(scope, receive, send)


async def _drop_body(receive: Any, *, most: int) -> None:
    """Read a body and forget it, so that whoever sends it also hears the answer."""
    n_read = 0
    while n_read <= most:
        message = await receive()
        n_read += len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/upload")


async def answer(
    send: Any, status: int, value: Mapping[str, Any], *, is_head: bool = False
) -> None:
    """Send JSON that nobody keeps."""
    body = json.dumps(value).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


class QuietErrors:
    """ASGI middleware that says of a crash only what it was, to the visitor and to the log.

    What Gradio would print of a malformed call may hold what was sent.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 500 with a sentence if nothing was answered yet."""
        is_answered = False

        async def send_noted(message: Any) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as error:
            if scope["type"] != "http" or is_answered:
                raise
            sys.stderr.write(f"A request failed: {type(error).__name__}\n")
            text = "The request could not be understood. Reload the page and try again."
            await answer(send, 500, {"error": text})


class HealthRoute:
    """ASGI middleware that answers `GET /health` with JSON, for whoever watches the app.

    Args:
        app: What answers everything else.
        report: Returns JSON values; nothing in them may be secret, as anyone can ask.
    """

    def __init__(self, app: Any, *, report: Callable[[], Mapping[str, Any]]) -> None:
        self._app = app
        self._report = report

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer the one path; pass all else on."""
        if scope["type"] != "http" or scope["path"] != "/health":
            await self._app(scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"}:
            value = await asyncio.to_thread(self._report)
            await answer(send, 200, value, is_head=scope["method"] == "HEAD")
        else:
            await answer(send, 405, {"error": "`/health` must be asked by GET."})
