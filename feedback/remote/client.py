"""The HTTP client of our calls to the Hub: one deadline for a call, no repeats; knows no rating.

`huggingface_hub` waits for an answer without end, and repeats what a server refused up to five
times, asleep in between. Inside `bounded` it does neither. The requests of everybody else in the
process stay as they were.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2
from huggingface_hub import get_session, hf_raise_for_status, set_client_factory
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from feedback.errors import RemoteBusyError

RequestError = httpx2.RequestError
"""Whatever the connection does other than carry an answer."""
_CONNECT_SECONDS = 10.0
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_COMMIT = re.compile(r"/commit/|^/api/buckets/.*/batch$")
_TIMED_OUT = 408
_TOO_MANY = 429
_SERVER_FAULT = 500


@dataclass
class Call:
    """One call: when it must have ended, and whether a commit's outcome is unknown.

    Attributes:
        deadline: By `time.monotonic`.
        in_doubt: A commit was sent, and nothing that came back says it was refused.
    """

    deadline: float
    in_doubt: bool = False

    def seconds_left(self) -> float:
        """Return the seconds until the deadline.

        Raises:
            RemoteBusyError: There are none.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise RemoteBusyError("The Hub must answer in time, got no whole answer. Try later.")
        return left


_CALL: ContextVar[Call | None] = ContextVar("our call to the Hub", default=None)


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[Call]:
    """Bound the requests that `huggingface_hub` sends from this thread inside the block.

    Args:
        seconds: For all of them together.
    """
    install()
    call = Call(time.monotonic() + seconds)
    token = _CALL.set(call)
    try:
        yield call
    finally:
        _CALL.reset(token)


def install() -> None:
    """Make `huggingface_hub` use `BoundedClient` from now on, unless it does already.

    The client's own way for this closes the client in use, so it is done once, early.
    """
    session = get_session()
    if isinstance(session, BoundedClient):
        return
    hooks, timeout = session.event_hooks, session.timeout
    set_client_factory(
        lambda: BoundedClient(event_hooks=hooks, timeout=timeout, follow_redirects=True)
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the Hub's client from showing bars, and from explaining why it does not use Xet."""
    log = logging.getLogger("huggingface_hub._commit_api")
    level, has_bars = log.level, not are_progress_bars_disabled()
    log.setLevel(logging.ERROR)
    if has_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        if has_bars:
            enable_progress_bars()


class BoundedClient(httpx2.Client):
    """An HTTP client that keeps to the deadline of the call it is used in, if it is in one."""

    def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        """Send a request; inside a call, raise at once for what the Hub's client would repeat.

        Raises:
            RemoteBusyError: The call's time is over, or the server is not there.
            HfHubHTTPError: The server is busy or at fault.
        """
        call = _CALL.get()
        if call is None:
            return super().send(request, stream=stream, **options)
        left = call.seconds_left()
        request.extensions["timeout"] = {
            "connect": min(left, _CONNECT_SECONDS),
            **dict.fromkeys(("read", "write", "pool"), left),
        }
        is_commit = request.method == "POST" and _COMMIT.search(request.url.path) is not None
        call.in_doubt = is_commit
        try:
            response = super().send(request, stream=True, **options)
            response.stream = _WatchedStream(response.stream, call)
            if not stream or _is_repeated(response.status_code):
                response.read()
        except httpx2.TransportError as error:
            if isinstance(error, _NEVER_SENT):
                call.in_doubt = False
            raise _unanswered(error) from error
        refused = response.status_code == _TOO_MANY or not _is_repeated(response.status_code)
        call.in_doubt = is_commit and not (response.is_client_error and refused)
        if _is_repeated(response.status_code):
            hf_raise_for_status(response)
        return response


class _WatchedStream(httpx2.SyncByteStream):
    """A body that stops coming when the call's time is over."""

    def __init__(self, stream: Any, call: Call) -> None:
        self._stream = stream
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                self._call.seconds_left()
                yield chunk
        except httpx2.TransportError as error:
            raise _unanswered(error) from error

    def close(self) -> None:
        self._stream.close()


def _unanswered(error: httpx2.TransportError) -> RemoteBusyError:
    return RemoteBusyError(
        f"The Hub must answer, got no whole answer ({type(error).__name__}). Try later."
    )


def _is_repeated(status: int) -> bool:
    """Return whether `huggingface_hub` would repeat the request, or a server is at fault."""
    return status in (_TIMED_OUT, _TOO_MANY) or status >= _SERVER_FAULT
