"""What a browser is told it may do with the page, and pages of others that may not use this one.

ASGI middlewares; they know no page, no visitor and no store.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from shell.languages import speaker_to
from shell.routes import answer

_PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio starts by scripts in its page, and runs the page's own small ones by `Function`.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        # Uploads are shown before they are sent, and pictures are drawn for the camera.
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-src 'none'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        # The Hub shows a Space inside a page of its own.
        "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
    )
)
"""No other origin: what a script smuggled into the page would learn, it could tell nobody."""
_FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""Of files served for a visitor: opened as a page of their own, they run nothing."""
_COMMON = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
API = "/gradio_api/"
_FILES = (f"{API}file=", f"{API}file/")


class SecurityHeaders:
    """ASGI middleware that adds the headers to every response, replacing others of their names."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on and add the headers to the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy = _FILE_POLICY if scope["path"].startswith(_FILES) else _PAGE_POLICY
        added = ((b"content-security-policy", policy.encode()), *_COMMON)
        names = {name for name, _ in added}

        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(k, v) for k, v in message.get("headers", ()) if k.lower() not in names]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        await self._app(scope, receive, send_marked)


class OwnPagesOnly:
    """ASGI middleware that refuses calls made by pages of other origins in a visitor's browser.

    Gradio lets every origin read its answers unless it runs on this machine. A browser says by
    `Sec-Fetch-Site`, which no script can set, whose page calls; one that does not is asked for its
    `Origin`. Programs send neither and are no one's browser.

    Args:
        app: What answers everything else.
        n_proxies: How many proxies stand in front; with one, `X-Forwarded-Host` names this page.
    """

    def __init__(self, app: Any, *, n_proxies: int = 0) -> None:
        self._app = app
        self._n_proxies = n_proxies

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403 to a foreign page; pass all else on."""
        if scope["type"] == "http" and scope["path"].startswith(API) and self._is_foreign(scope):
            say = speaker_to(scope["headers"])
            text = say("This page must be used from its own address. Open it in a tab of its own.")
            await answer(send, 403, {"error": text})
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Any) -> bool:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        site = headers.get(b"sec-fetch-site")
        if site is not None:
            return site not in {"same-origin", "none"}
        origin = headers.get(b"origin")
        if origin is None:
            return False
        own = {headers.get(b"host", "")}
        if self._n_proxies:
            own.add(headers.get(b"x-forwarded-host", "").rpartition(",")[2].strip())
        return urlsplit(origin).netloc not in own - {""}
