"""The real page on a free port, with the tiny model and a real store, and visitors over HTTP."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from PIL import Image

import app
from feedback import Keys, RatingStore
from feedback.remote.base import NullRemote
from feedback.sync.loop import Sync
from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.faces import HogDetector
from shell.copying import Load, health_report
from shell.desk import RatingDesk
from shell.limits import Limiter
from shell.loop import plan_loop
from shell.models import LoopQueue
from shell.wording import JUST_RIGHT
from tests.ports import free_ports
from tests.privacy_core.tiny import write_tiny_model

API = "/gradio_api"
PEOPLE = Path(__file__).parent.parent / "examples" / "labelled"
JUST_FINE = JUST_RIGHT[2]


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self):
        return self.now


@dataclass
class RunningPage:
    url: str
    cache: Path
    store: RatingStore
    clock: Clock
    page: gr.Blocks
    keys: Keys
    sync: Sync
    limiter: Limiter

    def rows(self):
        return list(self.store.ratings())

    def served_files(self):
        return [path for path in self.cache.rglob("*") if path.is_file()]


def fresh_keys() -> Keys:
    return Keys({1: secrets.token_bytes(32)}, is_generated=False, notice="")


def start(folder: Path, **collaborators: Any) -> RunningPage:
    """Launch the page; the caller has set GRADIO_TEMP_DIR to `folder / "cache"`."""
    cache, data_dir = folder / "cache", folder / "data"
    assert os.environ["GRADIO_TEMP_DIR"] == str(cache)
    store = RatingStore(data_dir / "ratings.sqlite3")
    clock = Clock()
    keys = collaborators.pop("keys", None) or fresh_keys()
    sync = Sync(store, NullRemote())
    limiter = collaborators.pop("limiter", None) or Limiter()
    queue_limit = collaborators.pop("queue_limit", app.QUEUE_LIMIT)
    backend = EmbeddedBackend.load(write_tiny_model(folder / "model"))

    def report():
        load = Load(app.queue_length(page), queue_limit, limiter.n_refused)
        return health_report(
            sync, fault=None, kind="none", model=backend.revision, load=lambda: load
        )

    page = app.build_page(
        **{
            "anonymizer": Anonymizer(backend, HogDetector(smallest_face=80, threshold=0.5)),
            "desk": RatingDesk(
                store=store, keys=keys, sync=sync, clock=clock, model=backend.revision
            ),
            "loops": LoopQueue(
                functools.partial(plan_loop, data=PEOPLE), environment=dict(os.environ)
            ),
            "cache": cache,
            "report": report,
            "curve": backend.model.curve,
            **collaborators,
        }
    )
    page.queue(max_size=queue_limit, default_concurrency_limit=1, api_open=False)

    settings = app.launch_settings(
        data_dir=data_dir,
        host="127.0.0.1",
        # Not one that Gradio looks for: two processes that look at once may find the same one,
        # and after a failed start this page cannot be served on another.
        port=free_ports(1)[0],
        report=report,
        limiter=limiter,
        page=page,
    )
    _, url, _ = page.launch(**settings, prevent_thread_lock=True, quiet=True)
    return RunningPage(url.rstrip("/"), cache, store, clock, page, keys, sync, limiter)


class RefusedError(Exception):
    """What a visitor reads when something did not work."""


class Visitor:
    """A browser tab without the browser: one session that calls the page's handlers over HTTP."""

    def __init__(self, running: RunningPage, session: str | None = None):
        self.session = session or secrets.token_hex(8)
        self.heard: list[bytes] = []
        # What the browser keeps, under the name the page gave it.
        self.history: Any = ""
        self._fns = {fn.name: fn for fn in running.page.fns.values() if fn.name}
        self._http = httpx.Client(base_url=running.url, timeout=60)

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def upload(self, data: bytes, name: str) -> dict[str, Any]:
        response = self._http.post(f"{API}/upload", files={"files": (name, data)})
        response.raise_for_status()
        return {
            "path": response.json()[0],
            "orig_name": name,
            "meta": {"_type": "gradio.FileData"},
        }

    def open(self, data: bytes, name: str = "photo.jpg") -> list[Any]:
        return self.call("open_upload", self.upload(data, name))

    def call(self, name: str, *values: Any, event: Any = None) -> list[Any]:
        """Call a handler with its inputs, the visit left out, and return its outputs.

        Raises:
            RefusedError: With the message shown.
        """
        fn, given = self._fns[name], iter(values)
        kept = {gr.State: None, gr.BrowserState: self.history}
        data = [kept[type(b)] if type(b) in kept else next(given) for b in fn.inputs]
        body = self.body_of(name, data) | {"event_data": event}
        if not fn.queue:
            response = self._http.post(f"{API}/run/predict", json=body)
            self.heard.append(response.content)
            return self._result(fn, response.is_success, response.json())
        self._http.post(f"{API}/queue/join", json=body).raise_for_status()
        with self._http.stream(
            "GET", f"{API}/queue/data", params={"session_hash": self.session}
        ) as events:
            for line in events.iter_lines():
                self.heard.append(line.encode())
                message = json.loads(line.removeprefix("data:")) if line else {}
                if message.get("msg") == "process_completed":
                    return self._result(fn, message["success"], message["output"])
        raise AssertionError("The stream ended before the answer.")

    def fetch(self, file: dict[str, Any]) -> httpx.Response:
        """Get a file as the browser does, by the address the page was told."""
        response = self._http.get(file["url"])
        response.raise_for_status()
        self.heard.append(response.content)
        return response

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        """Send a body as it is to where the page sends its calls."""
        content = {"content-type": "application/json", **headers}
        return self._http.post(f"{API}/run/predict", content=body, headers=content)

    def body_of(self, name: str, data: list[Any]) -> dict[str, Any]:
        return {
            "fn_index": self._fns[name]._id,
            "data": data,
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }

    def _result(self, fn: Any, is_success: bool, output: dict[str, Any]) -> list[Any]:
        if not is_success:
            raise RefusedError(output.get("error"))
        for block, value in zip(fn.outputs, output["data"], strict=True):
            if isinstance(block, gr.BrowserState):
                self.history = value
        return output["data"]


def jpeg(pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def ask(visitor):
    """Start a blinded page and return its token."""
    return next(o for o in visitor.call("ask") if str(o).startswith("p1."))


def answer(visitor, token, *, consent, best="C", just_right=JUST_FINE, why_not=None):
    agreed = consent if isinstance(consent, list) else ["keep"] * consent
    return visitor.call("answer", token, best, just_right, why_not, agreed)


def chosen_text(outputs):
    return next(o for o in outputs if isinstance(o, str) and "You chose" in o)


def pictures_of(outputs):
    """Return the pictures among a handler's outputs, as files the browser can get."""
    values = [o["value"] if isinstance(o, dict) and "value" in o else o for o in outputs]
    return [value for value in values if isinstance(value, dict) and "path" in value]


@pytest.fixture(scope="module", name="running")
def running_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        running = start(folder)
        yield running
        running.page.close()
        running.store.close()


@pytest.fixture(name="visitor")
def visitor_fixture(running):
    return Visitor(running)


@pytest.fixture(scope="module", name="portrait")
def portrait_fixture(astronaut):
    return jpeg(astronaut)


@contextlib.contextmanager
def listening(handler):
    """Run an HTTP server of another origin on loopback and lend its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
