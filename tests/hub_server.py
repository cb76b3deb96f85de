"""A Hub on loopback that the real `huggingface_hub` and `datasets` clients talk to.

Here are its start and end, its switches for tests, and the wire. What its routes do stands in
`hub_routes` and `hub_uploads`, what a repo is in `hub_repository`, what goes wrong in `hub_faults`.
Storage Buckets are not served: their clients read and write through `hf_xet`, not plain HTTP.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.hub_faults import Fault, Faults
from tests.hub_repository import RefusedError, Repository
from tests.hub_routes import ROUTES, Route, find_route
from tests.hub_state import Answer, Call, HubState, MovedError, User


@dataclass(frozen=True)
class Request:
    """One line of the log, written before the client has its answer."""

    method: str
    path: str
    """As sent, without the query."""
    route: str
    user: str | None
    status: int | None
    """None: no answer was given."""
    fault: str | None = None
    """What struck it."""
    size: int = 0
    """Bytes of its body."""


class HubServer(HubState):
    """A Hub on a free port of this machine, from `with` to the end of its block.

    Everything it holds can be looked at and changed directly (`repo`, `every_byte`), without the
    API, while it runs.

    Args:
        clock: Now, in UTC; dates commits and uploads.

    Example:
        ```python notest
        with HubServer() as hub:
            hub.add_user("anna", "hf_anna")
            api = HfApi(endpoint=hub.endpoint, token="hf_anna")
            hub.fail("commit", "500-after")
        ```
    """

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        super().__init__(f"http://127.0.0.1:{self._server.server_address[1]}", clock)
        self.log: list[Request] = []
        self.bugs: list[BaseException] = []
        """What the server itself stumbled over; raised when its block ends."""
        self.faults = Faults()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.daemon = True

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.faults.stop()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()
        if self.bugs and kind is None:
            raise self.bugs[0]

    # For tests: accounts, repos, faults, the log

    def repo(self, repo_id: str, kind: str = "dataset") -> Repository:
        """Return a repo as the server holds it."""
        return self.repos[kind, repo_id]

    def every_byte(self) -> Iterator[tuple[str, bytes]]:
        """Yield (where, bytes) of everything any revision or LFS object of any repo holds.

        Parquet is compressed: what starts with `PAR1` has to be read, not searched.
        """
        with self.lock:
            found = [item for repo in self.repos.values() for item in repo.every_byte()]
        yield from found

    def fail(self, route: str, kind: str | int, **settings: Any) -> Fault:
        """Let the next requests of a route go wrong; `Fault` says how, `ROUTES` where, or "any"."""
        if route not in {*(entry.name for entry in ROUTES), "any"}:
            raise ValueError(f"`route` must be in ROUTES or 'any', got {route!r}.")
        return self.faults.add(Fault(route, str(kind), **settings))

    def chaos(self, seed: int, *, rate: float, **settings: Any) -> None:
        """Let any request go wrong with this probability, until `calm`.

        Keyword arguments: `kinds`, `routes` (all), `seconds` of a hang and between slow pieces. The
        draws are a function of the seed and the order in which the requests arrive.
        """
        self.faults.start_chaos(seed, rate=rate, **settings)

    def calm(self) -> None:
        """End chaos and all faults, and release what hangs."""
        self.faults.stop()

    def requests(self, route: str | None = None, method: str | None = None) -> list[Request]:
        """Return the log, of one route or method."""
        return [
            request
            for request in list(self.log)
            if route in {None, request.route} and method in {None, request.method}
        ]

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """Return what a process needs in its environment, beside its own, to know only this Hub.

        `datasets` and parts of `huggingface_hub` read it when they are imported, so it is for
        processes of their own.
        """
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_TOKEN": token or "",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "no_proxy": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1,localhost",
        }


class _Server(ThreadingHTTPServer):
    """A thread for each connection, and a list of them to end."""

    daemon_threads = True
    request_queue_size = 128
    hub: HubServer

    def __init__(self, *args: Any):
        self.connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # The client was faster.
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # Clients are killed in the middle of a request; anything else is a bug here.
        if error is not None and not isinstance(error, ConnectionError):
            self.hub.bugs.append(error)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, writes answers, does to them what the faults say."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Say nothing: the log is `HubServer.log`."""

    def _serve(self) -> None:
        hub, body = self.server.hub, self._read_body()
        target = urlsplit(self.path)
        route, parts = find_route(self.command, target.path)
        fault = hub.faults.choose(route.name, self.command)
        if fault and not fault.is_after and fault.effect in {"hang", "pause"}:
            fault.wait()
        user: User | None = None
        try:
            user = hub.user_of(self.headers.get("Authorization", ""))
            query = parse_qs(target.query, keep_blank_values=True)
            wanted = self.headers.get("Range")
            call = Call(self.command, target.path, query, wanted, body, user, parts)
            answer = self._carry_out(hub, call, route, fault)
        except RefusedError as error:
            answer = Answer.refusal(error)
        if fault and fault.is_after and fault.effect in {"hang", "pause"}:
            fault.wait()
        answer = _struck(answer, fault)
        is_silent = fault is not None and fault.silences(answer.body, self.command)
        line = Request(
            method=self.command,
            path=target.path,
            route=route.name,
            user=user.name if user else None,
            status=None if is_silent else answer.status,
            fault=fault.kind if fault else None,
            size=len(body),
        )
        hub.log.append(line)
        if is_silent:
            self.close_connection = True
            return
        self._send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _carry_out(self, hub: HubServer, call: Call, route: Route, fault: Fault | None) -> Answer:
        if fault and not fault.is_after and fault.effect != "pause":
            return Answer()
        try:
            with hub.lock:
                return route.act(hub, call)
        except MovedError as error:
            # 307 keeps the method and the body.
            place = self.path.replace(call.parts["repo"], error.new_id, 1)
            return Answer(307, headers={"Location": place})
        except RefusedError:
            raise
        except Exception as error:
            hub.bugs.append(error)
            # The client does not repeat a 501.
            raise RefusedError(501, f"The test Hub has a bug: {error!r}") from error

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size)
            if len(body) < size:
                raise ConnectionResetError("The client left in the middle of a body.")
            return body
        pieces = []
        while True:
            size = int(self._line().split(b";")[0], 16)
            pieces.append(self.rfile.read(size))
            self._line()  # Behind the last piece, of size 0, the empty line that ends all.
            if size == 0:
                return b"".join(pieces)

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise ConnectionResetError("The client left in the middle of a body.")
        return line

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" else answer.body
        effect = fault.effect if fault else ""
        if effect == "cut":
            body = body[: len(body) // 2]
            self.close_connection = True
        step = len(body) // 8 + 1 if effect == "slow" else len(body) + 1
        for start in range(0, len(body), step):
            if fault is not None and effect == "slow":
                fault.wait(0.05)
            self.wfile.write(body[start : start + step])


def _struck(answer: Answer, fault: Fault | None) -> Answer:
    """Put the status of a fault in the place of the answer."""
    if fault is None or fault.status is None:
        return answer
    status = HTTPStatus(fault.status)
    refusal = Answer.refusal(RefusedError(status, status.phrase, code=fault.code))
    headers = {**refusal.headers, **fault.headers}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    return Answer(status, refusal.body, headers)
