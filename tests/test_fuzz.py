"""The page's addresses, sent what nobody would send: no status of 500, and the page still works.

The default run tries a few hundred requests; the slow one goes on for more than five minutes.
"""

from __future__ import annotations

import itertools
import json
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    Visitor,
    portrait_fixture,
    running_fixture,
)

pytestmark = [
    # Gradio counts its events with pandas calls that the pinned pandas calls outdated.
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    # The server in another thread draws names for its files while requests are drawn here.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
]

PATHS = (
    *("/", "/config", "/health", "/theme.css", "/robots.txt", "/manifest.json", "/nowhere"),
    *("/login", "/logout", "/monitoring", "/monitoring/summary", "/pwa_icon/1", "/favicon.ico"),
    *("/static/x", "/assets/x", "/svelte/x"),
    *(
        API + path
        for path in (
            *("/info", "/openapi.json", "/queue/join", "/queue/status", "/run/predict"),
            *("/run/answer", "/api/predict", "/call/predict", "/call/health", "/call/v2/ladder"),
            *("/upload", "/upload_progress?upload_id=x", "/reset", "/cancel", "/app_id"),
            *("/file=x", "/file/x", "/file=http://x", "/proxy=x", "/token", "/user"),
            *("/login_check", "/startup-events", "/component_server", "/process_recording"),
            *("/deep_link", "/runs", "/theme.css", "/stream/x", "/stream/x/1/2/playlist.m3u8"),
            *("/custom_component/x/client/component/y", "/dev/reload", "/call/predict/x"),
            *("/vibe-edit/", "/mcp", "/mcp/sse", "/profiling/summary"),
        )
    ),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
WORDS = st.text(max_size=20) | st.sampled_from(["predict", "answer", "..", "%00", "x" * 300, "-1"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
FILE = st.fixed_dictionaries(
    {},
    optional={
        "path": JSON,
        "url": JSON,
        "meta": st.just({"_type": "gradio.FileData"}) | JSON,
        "orig_name": JSON,
        "size": JSON,
        "is_stream": JSON,
        "mime_type": JSON,
    },
)
CALL = st.fixed_dictionaries(
    {"data": st.lists(JSON | FILE, max_size=9) | JSON},
    optional={
        "fn_index": st.integers(-2, 80) | JSON,
        "session_hash": WORDS | JSON,
        "event_data": JSON,
        "event_id": JSON,
        "trigger_id": JSON,
        "simple_format": JSON,
        "batched": JSON,
        "component_id": JSON,
        "request": JSON,
    },
)
BODIES = st.one_of(
    CALL.map(lambda call: json.dumps(call).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("content-type", "origin", "sec-fetch-site", "x-forwarded-for", "x-forwarded-host"),
            *("x-forwarded-proto", "accept", "accept-encoding", "range", "cookie", "authorization"),
            *("x-gradio-user", "x-gradio-server", "if-none-match", "x-ip-token", "referer"),
        ]
    ),
    st.sampled_from(
        [
            *("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "null"),
            *("same-origin", "https://evil.example", "127.0.0.1, x", "br", "bytes=9-1", "*/*"),
            *("bytes=0-99999999999", "session=x; access-token=y", "Bearer x", "text/event-stream"),
            *("", "\t", "a" * 2_000),
        ]
    ),
    max_size=4,
)
REQUESTS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(METHODS),
        "path": st.sampled_from(PATHS),
        "tail": st.just("") | WORDS,
        "query": st.dictionaries(
            st.sampled_from(["session_hash", "upload_id", "fn_index", "__theme", "view", "x"]),
            WORDS,
            max_size=2,
        ),
        "headers": HEADERS,
        "body": BODIES,
    }
)
# Most requests to where calls are read.
CALLS = st.fixed_dictionaries(
    {
        "method": st.just("POST"),
        "path": st.sampled_from([f"{API}/run/predict", f"{API}/queue/join", f"{API}/cancel"]),
        "tail": st.just(""),
        "query": st.just({}),
        "headers": st.just({"content-type": "application/json"}),
        "body": CALL.map(lambda call: json.dumps(call).encode()),
    }
)


def ask(http, request):
    """Send a request and return its status, 0 where none can be sent or it has no end."""
    try:
        with http.stream(
            request["method"],
            httpx.URL(request["path"] + request["tail"], params=request["query"] or None),
            headers=request["headers"],
            content=request["body"],
        ) as response:
            kind = response.headers.get("content-type", "")
            if "event-stream" not in kind and response.status_code != 200:
                assert "Traceback" not in response.read().decode(errors="replace")
            return response.status_code
    except (httpx.InvalidURL, httpx.LocalProtocolError, httpx.UnsupportedProtocol):
        return 0  # The client refuses to send it.
    except (httpx.RemoteProtocolError, httpx.ReadTimeout):
        return 0  # The server refused to read it, or the answer has no end.


def works(running, portrait):
    return len(Visitor(running).open(portrait)) > 5


def tried(running, strategy, *, examples, draw=0):
    """Send that many requests of one draw and return the statuses that were given."""
    seen = set()

    @seed(draw)
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(strategy)
    def run(request):
        status = ask(http, request)
        seen.add(status)
        assert status < 500 or status in {501, 503}, request

    # Short only for answers without an end: a busy machine takes its time to connect and to read.
    with httpx.Client(base_url=running.url, timeout=httpx.Timeout(30, read=3)) as http:
        run()
    return seen


def test_odd_requests_are_refused_and_none_is_a_crash(running, portrait):
    before = running.store.stats()
    seen = tried(running, REQUESTS, examples=250) | tried(running, CALLS, examples=150)
    assert {200, 404, 405, 422} <= seen
    assert running.store.stats() == before
    assert works(running, portrait)


@pytest.mark.slow
def test_minutes_of_odd_requests_are_refused_and_none_is_a_crash(running, portrait):
    before = running.store.stats()
    end = time.monotonic() + 310
    for draw in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(1)):
        tried(running, REQUESTS, examples=1_000, draw=draw)
        tried(running, CALLS, examples=1_000, draw=draw)
    assert running.store.stats() == before
    assert works(running, portrait)
