"""What goes wrong on the test Hub, where and how often; knows neither repos nor HTTP parsing."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np

KINDS = re.compile(r"([45]\d\d|close|hang|pause)(-after)?|slow|cut")
CHAOS_KINDS = (
    "500", "503", "500-after", "close", "close-after", "429", "409", "412", "hang", "slow", "cut",
)  # fmt: skip
ONLY_ON_COMMIT = {"409", "412"}


@dataclass(eq=False)
class Fault:
    """One thing that goes wrong on one route, for the next few requests.

    `kind` is one of:
        - a status ("503", "429", "412"): answered, and nothing was done;
        - "close": the connection ends without an answer; "hang": silence until `release`, then
          the same; "pause": the request waits for `release`, then goes its way;
        - each with "-after": the request was carried out first;
        - "slow": the body comes in pieces, `seconds` apart; "cut": half of it, then the end.
    """

    route: str
    kind: str
    count: int = 1
    """Requests still to strike."""
    skip: int = 0
    """Requests to let through before."""
    method: str | None = None
    retry_after: int | None = None
    """Seconds, with a 429 or 503."""
    code: str | None = None
    """`X-Error-Code` of a status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further ones of a status, like `{"ratelimit": '"api";r=0;t=30'}`."""
    seconds: float | None = None
    """The longest silence of a hang or pause; None: until `release`."""
    fired: int = 0
    reached: threading.Event = field(default_factory=threading.Event, repr=False)
    """Set when a request is struck, for a hang or pause when its silence begins: a test waits for
    it instead of sleeping."""
    _released: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        if not KINDS.fullmatch(self.kind):
            raise ValueError(f"`kind` must match {KINDS.pattern}, got {self.kind!r}.")
        if self.status is not None:
            HTTPStatus(self.status)  # Raises for a number that is no status.

    @property
    def is_after(self) -> bool:
        return self.kind.endswith("-after") or self.kind in {"slow", "cut"}

    @property
    def effect(self) -> str:
        return self.kind.removesuffix("-after")

    @property
    def status(self) -> int | None:
        return int(self.effect) if self.effect.isdigit() else None

    def silences(self, body: bytes, method: str) -> bool:
        """Whether the client gets not even a status: also where there is no body to cut."""
        is_cut = self.effect == "cut" and (method == "HEAD" or not body)
        return self.effect in {"close", "hang"} or is_cut

    @property
    def is_released(self) -> bool:
        return self._released.is_set()

    def release(self) -> None:
        """Let the requests go on that hang, pause or wait for the next piece."""
        self._released.set()

    def wait(self, default: float | None = None) -> None:
        """Block until `release`, or for `seconds`."""
        self.reached.set()
        self._released.wait(self.seconds if self.seconds is not None else default)


@dataclass(frozen=True)
class _Chaos:
    generator: np.random.Generator
    rate: float
    kinds: tuple[str, ...]
    routes: Collection[str] | None
    seconds: float


class Faults:
    """The faults of one Hub: those asked for, in order, then those drawn at random."""

    def __init__(self) -> None:
        self.drawn: list[Fault] = []
        """What chaos has struck with so far."""
        self._asked: list[Fault] = []
        self._chaos: _Chaos | None = None
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._asked.append(fault)
        return fault

    def start_chaos(
        self,
        seed: int,
        *,
        rate: float,
        kinds: Collection[str] = CHAOS_KINDS,
        routes: Collection[str] | None = None,
        seconds: float = 0.05,
    ) -> None:
        generator = np.random.default_rng(seed)
        with self._lock:
            self._chaos = _Chaos(generator, rate, tuple(kinds), routes, seconds)

    def stop(self) -> None:
        """End chaos and everything asked for, and release what hangs."""
        with self._lock:
            self._chaos = None
            for fault in [*self._asked, *self.drawn]:
                fault.count = 0
                fault.release()
            self._asked.clear()

    def choose(self, route: str, method: str) -> Fault | None:
        """Return what strikes this request, if anything does, and count it."""
        with self._lock:
            fault = self._next_asked(route, method) or self._draw(route)
            if fault is None:
                return None
            fault.count -= 1
            fault.fired += 1
        if fault.effect not in {"hang", "pause"}:
            fault.reached.set()
        return fault

    def _next_asked(self, route: str, method: str) -> Fault | None:
        for fault in self._asked:
            if fault.count <= 0 or fault.route not in {route, "any"}:
                continue
            if fault.method not in {None, method}:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            return fault
        return None

    def _draw(self, route: str) -> Fault | None:
        chaos = self._chaos
        if chaos is None or (chaos.routes is not None and route not in chaos.routes):
            return None
        # Two draws for every request, so that one that is spared shifts nothing.
        strikes, choice = chaos.generator.random(2)
        kinds = [kind for kind in chaos.kinds if route == "commit" or kind not in ONLY_ON_COMMIT]
        if strikes >= chaos.rate or not kinds:
            return None
        kind = kinds[int(choice * len(kinds))]
        # Zero seconds: huggingface_hub waits one more.
        fault = Fault(route, kind, retry_after=0, seconds=chaos.seconds)
        self.drawn.append(fault)
        return fault
