"""What stands between the network and the page: closed doors, limits, headers, and health.

ASGI middlewares; they know no page, no visitor and no store.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shell.languages import LANGUAGES, message, speaker, speaker_to

CRASHED = message("Something went wrong here. Please try again.")
"""What a visitor reads of a bug."""
NOT_UNDERSTOOD = message("The request could not be understood. Reload the page and try again.")
TOO_LARGE = message("A request must have at most {most} bytes, got {n}. Reload the page.")
TOO_LARGE_PHOTO = message(
    "A request must have at most {most} bytes, got {n}. Choose a smaller photo."
)
PUBLIC_CALLS = frozenset({"anonymize", "ladder", "recommend", "health"})
"""What programs may call by its name; all else is the page's own."""


_FAILED = 500


class ClosedDoors:
    """ASGI middleware that closes what Gradio offers and this page does not use.

    Gradio would fetch any address for a visitor, convert their videos, write down a session, and
    run by their names calls that it lists for nobody.
    """

    _DOORS = ("/file=http", "/proxy=", "/process_recording", "/deep_link", "/stream/", "/vibe")
    _NAMED = re.compile(r"/gradio_api/(?:run|api|call)/(?:v2/)?([^/]+)", re.IGNORECASE)
    _OPEN = PUBLIC_CALLS | {"predict"}

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 404 at a closed door; pass all else on."""
        if scope["type"] == "http" and self._is_closed(scope["path"]):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)

    def _is_closed(self, path: str) -> bool:
        if any(door in path.lower() for door in self._DOORS):
            return True
        return bool(set(self._NAMED.findall(path)) - self._OPEN)


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
    """ASGI middleware that refuses large bodies: an upload is one photo, all else is small."""

    LIMIT = 262_144
    UPLOAD_LIMIT = 26 * 1_048_576
    """A file of the largest size Gradio takes, and what a form writes around it."""
    TOOL_LIMIT = 8 * 1_048_576
    """A request of an agent, with a photo of 6 MB as text; a larger one is uploaded first."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 413 to a body that is too long, and 411 to one of unknown length."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        lengths = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
        path = scope["path"].rstrip("/")
        is_upload = path.endswith("/upload")
        limit = self.UPLOAD_LIMIT if is_upload else self.LIMIT
        if path.endswith("/gradio_api/mcp"):
            limit = self.TOOL_LIMIT
        if len(lengths) != 1 or not lengths[0].isdigit():
            say = speaker_to(scope["headers"])
            await answer(send, 411, {"error": say("A request must say how long it is.")})
        elif int(lengths[0]) > limit:
            await drop_body(receive, most=max(limit, 16 * self.LIMIT))
            rule = TOO_LARGE_PHOTO if is_upload else TOO_LARGE
            said = speaker_to(scope["headers"])(rule, most=limit, n=int(lengths[0]))
            await answer(send, 413, {"error": said})
        else:
            await self._app(scope, receive, send)


async def drop_body(receive: Any, *, most: int) -> None:
    """Read a body and forget it, so that whoever sends it also hears the answer."""
    n_read = 0
    while n_read <= most:
        message = await receive()
        n_read += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def answer(
    send: Any,
    status: int,
    value: Mapping[str, Any],
    *,
    is_head: bool = False,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send JSON that nobody keeps."""
    body = json.dumps(value).encode()
    common = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*common, *headers]})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


class QuietErrors:
    """ASGI middleware that says of a call that cannot be read only what it was, to all and the log.

    What Gradio would print of a malformed call may hold what was sent. And what it answers to one
    that was refused in words is no fault of the server: 422, so that 500 means a bug.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 400 with a sentence if nothing was answered yet."""
        is_answered = False
        held: dict[str, Any] | None = None

        async def send_noted(message: Any) -> None:
            nonlocal is_answered, held
            is_answered = True
            if message["type"] == "http.response.start" and message["status"] == _FAILED:
                held = message
                return
            if held is not None:
                start, held = held, None
                if _is_refusal(message.get("body", b"")):
                    start = {**start, "status": 422}
                await send(start)
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as error:
            if scope["type"] != "http":
                raise
            sys.stderr.write(f"A request failed: {type(error).__name__}\n")
            if held is not None or not is_answered:  # Else the connection ends here.
                said = speaker_to(scope["headers"])(NOT_UNDERSTOOD)
                await answer(send, 400, {"error": said})


def _is_refusal(body: bytes) -> bool:
    """Tell a sentence for the visitor from a bug, of which Gradio says nothing."""
    try:
        value = json.loads(body)
    except ValueError:
        return False
    crashed = {speaker(language)(CRASHED) for language in LANGUAGES}
    return isinstance(value, dict) and value.get("error") not in (None, "", *crashed)


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
