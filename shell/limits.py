"""How much one visitor, one address and everybody together may ask for; forgets within minutes.

Token buckets in memory under a key that dies with the process: nothing is written down or logged.
Knows the kinds of requests the page makes, no page and no visitor.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from privacy_core.errors import InvalidArgumentError
from shell.languages import Speaker, speaker_to
from shell.routes import SmallBodies, answer, drop_body

UPLOAD, QUEUE, DIRECT, READ, TOOL = "upload", "queue", "direct", "read", "tool"
MEBIBYTE = 1_048_576
_LONGEST_SESSION = 64
_MOST_PROXIES = 9
_IPV6_NETWORK = 64
"""Bits of an IPv6 address that belong to one household; the rest it may choose."""


@dataclass(frozen=True)
class Allowance:
    """What may come at once and, in the long run, per minute."""

    burst: float
    per_minute: float


@dataclass(frozen=True)
class Limits:
    """Allowances by kind of request.

    Uploads and requests of agents, which may hold a photo, count in mebibytes, each at least one;
    all else in requests. A kind that is missing is not limited.

    Attributes:
        session: Of one tab, by the name it gives itself.
        origin: Of one address, behind which a whole school may sit.
        everybody: Of all together; what this machine can carry.
    """

    session: Mapping[str, Allowance] = field(
        default_factory=lambda: {
            QUEUE: Allowance(90, 90),
            DIRECT: Allowance(300, 900),
        }
    )
    origin: Mapping[str, Allowance] = field(
        default_factory=lambda: {
            UPLOAD: Allowance(120, 120),
            QUEUE: Allowance(360, 360),
            DIRECT: Allowance(1_200, 3_600),
            READ: Allowance(1_200, 3_600),
            TOOL: Allowance(120, 120),
        }
    )
    everybody: Mapping[str, Allowance] = field(
        default_factory=lambda: {
            UPLOAD: Allowance(600, 240),
            QUEUE: Allowance(1_200, 1_200),
            DIRECT: Allowance(6_000, 12_000),
            READ: Allowance(6_000, 12_000),
            TOOL: Allowance(300, 300),
        }
    )


class Buckets:
    """Token buckets by key; a full one is forgotten, and so is the oldest of too many.

    Args:
        clock: Seconds, never backwards.
        most: How many keys are remembered.
    """

    def __init__(self, *, clock: Callable[[], float], most: int = 8_192) -> None:
        self._clock = clock
        self._most = most
        self._full_at: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: tuple[str, ...], allowance: Allowance, cost: float) -> float:
        """Return the seconds until a cost can be paid, 0 for now, infinity for never."""
        if cost > allowance.burst:
            return math.inf
        now = self._clock()
        per_second = allowance.per_minute / 60
        spent = max(self._full_at.get(key, now) - now, 0) * per_second
        return max(spent + cost - allowance.burst, 0) / per_second

    def pay(self, key: tuple[str, ...], allowance: Allowance, cost: float) -> None:
        """Take a cost out of a bucket."""
        now = self._clock()
        seconds = cost * 60 / allowance.per_minute
        self._full_at[key] = max(self._full_at.pop(key, now), now) + seconds
        while self._full_at:
            oldest, full_at = next(iter(self._full_at.items()))
            if full_at > now and len(self._full_at) <= self._most:
                break
            del self._full_at[oldest]


class Limiter:
    """Decides whether a request may pass, for the whole app.

    Args:
        limits: How much.
        n_proxies: How many proxies stand in front, each of which adds the address it sees to
            `X-Forwarded-For`; with 0 the header is not read.
        clock: Seconds, never backwards.
        most: How many sessions and addresses are remembered at a time.

    Example:
        ```python
        >>> limiter = Limiter(Limits(session={"queue": Allowance(1, 60)}), clock=lambda: 0.0)
        >>> [limiter.wait("queue", session="tab", origin=None) for _ in range(2)]
        [0.0, 1.0]

        ```
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        n_proxies: int = 0,
        clock: Callable[[], float] = time.monotonic,
        most: int = 8_192,
    ) -> None:
        self._limits = limits or Limits()
        self._buckets = Buckets(clock=clock, most=most)
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self.n_proxies = n_proxies
        self.n_refused = 0
        """Since the start."""

    def wait(self, kind: str, *, session: str | None, origin: str | None, cost: float = 1) -> float:
        """Return 0 and count the request, or the seconds to wait, infinity for ever."""
        allowances = [
            (("session", kind, self._hidden(session)), self._limits.session.get(kind), session),
            (("origin", kind, self._hidden(origin)), self._limits.origin.get(kind), origin),
            (("everybody", kind), self._limits.everybody.get(kind), "everybody"),
        ]
        due = [(key, rule) for key, rule, who in allowances if rule is not None and who is not None]
        with self._lock:
            seconds = max((self._buckets.wait(key, rule, cost) for key, rule in due), default=0.0)
            if seconds > 0:
                self.n_refused += 1
                return seconds
            for key, rule in due:
                self._buckets.pay(key, rule, cost)
        return 0.0

    def _hidden(self, name: str | None) -> str:
        """Return what a name is remembered as: nobody can turn it back without this process."""
        text = (name or "").encode(errors="surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=16).hexdigest()


def origin_of(scope: Mapping[str, Any], *, n_proxies: int) -> str | None:
    """Return whose address a request comes from, None where it names nobody in particular.

    An address of this machine or its own network is that of a proxy nobody told of, behind which
    everybody would share one limit.

    Args:
        scope: Of the request.
        n_proxies: How many of the last entries of `X-Forwarded-For` were added by own proxies;
            what stands before them is the sender's word.
    """
    if n_proxies:
        named = b",".join(v for k, v in scope["headers"] if k.lower() == b"x-forwarded-for")
        entries = [entry.strip() for entry in named.decode("latin-1").split(",")]
        text = entries[-n_proxies] if len(entries) >= n_proxies else ""
    else:
        client = scope.get("client")
        text = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.ip_network((address, _IPV6_NETWORK), strict=False)
            return str(network) if address.is_global else None
        address = address.ipv4_mapped
    return str(address) if address.is_global else None


def count_proxies(text: str) -> int:
    """Read how many proxies stand in front of the app, 0 for an empty text.

    Raises:
        InvalidArgumentError: It is no small number.
    """
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_PROXIES):
        raise InvalidArgumentError(
            f"`PRIVACY_DIAL_PROXIES` must be a number from 0 to {_MOST_PROXIES}, got {text!r}. "
            "Leave it out where nothing stands in front of the app."
        )
    return int(text)


class RateLimit:
    """ASGI middleware that refuses what is too much, and says when to try again.

    It stands behind `SmallBodies`, so that a body it reads is a small one.

    Args:
        app: What answers everything else.
        limiter: Decides.
    """

    def __init__(self, app: Any, *, limiter: Limiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 429 to what is too much; pass all else on."""
        kind = _kind(scope)
        if kind is None:
            await self._app(scope, receive, send)
            return
        session, cost = None, 1.0
        if kind in (UPLOAD, TOOL):
            cost = _mebibytes(scope)
        elif kind != READ:
            body = await _read(receive)
            session, receive = _session(body), _replay(body, receive)
        origin = origin_of(scope, n_proxies=self._limiter.n_proxies)
        seconds = self._limiter.wait(kind, session=session, origin=origin, cost=cost)
        if not seconds:
            await self._app(scope, receive, send)
            return
        if kind in (UPLOAD, TOOL):
            await drop_body(receive, most=SmallBodies.UPLOAD_LIMIT)
        await _refuse(send, seconds, speaker_to(scope["headers"]))


def _kind(scope: Mapping[str, Any]) -> str | None:
    """Return what kind of request it is, None for one that costs next to nothing."""
    if scope["type"] != "http":
        return None
    path = scope["path"].rstrip("/").lower()
    if "/gradio_api/" not in path:
        return None
    if scope["method"] != "POST":
        return READ
    if path.endswith("/upload"):
        return UPLOAD
    if "/gradio_api/mcp" in path:
        return TOOL
    return QUEUE if "/queue/" in path or "/call/" in path else DIRECT


def _mebibytes(scope: Mapping[str, Any]) -> float:
    """Return what an upload costs: its length, at least one, and the most for one of none."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return max(1, math.ceil(int(value) / MEBIBYTE))
    return math.ceil(SmallBodies.UPLOAD_LIMIT / MEBIBYTE)


async def _read(receive: Any) -> list[Any]:
    """Return all messages of a body; `SmallBodies` has checked how long it is."""
    messages = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body"):
            return messages


def _replay(messages: list[Any], receive: Any) -> Callable[[], Any]:
    """Return a `receive` that gives the messages again, and then what comes next."""
    left = iter(messages)

    async def again() -> Any:
        for message in left:
            return message
        return await receive()

    return again


def _session(messages: list[Any]) -> str | None:
    """Return the name a tab gives itself in a call's body; it may be any."""
    try:
        value = json.loads(b"".join(message.get("body", b"") for message in messages))
    except (ValueError, RecursionError):
        return None
    name = value.get("session_hash") if isinstance(value, dict) else None
    return name[:_LONGEST_SESSION] if isinstance(name, str) else None


async def _refuse(send: Any, seconds: float, say: Speaker) -> None:
    whole = math.ceil(min(seconds, 3_600))
    text = say(
        "This was more than the page takes at a time. Wait {n} seconds and try again; nothing you "
        "did is lost.",
        n=whole,
    )
    await answer(send, 429, {"error": text}, headers=[(b"retry-after", str(whole).encode())])
