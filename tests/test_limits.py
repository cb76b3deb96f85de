"""What is too much is refused in words, comes back by itself, and is remembered nowhere."""

from __future__ import annotations

import asyncio
import gc
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy_core.errors import InvalidArgumentError
from shell.headers import OwnPagesOnly, SecurityHeaders
from shell.limits import (
    DIRECT,
    MEBIBYTE,
    QUEUE,
    READ,
    UPLOAD,
    Allowance,
    Buckets,
    Limiter,
    Limits,
    RateLimit,
    count_proxies,
    origin_of,
)
from shell.routes import CRASHED, ClosedDoors, QuietErrors, SmallBodies

PUBLIC, ELSEWHERE = "8.8.4.4", "9.9.9.9"


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def scope_of(path="/gradio_api/queue/join", *, method="POST", client=PUBLIC, **headers):
    named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "client": (client, 5_000),
        "headers": named,
    }


class Inner:
    """What stands behind a middleware: notes what it was sent, and says yes."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        headers = [(b"Content-Security-Policy", b"none"), (b"x-own", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"yes"})


def send_to(app, scope, *pieces):
    """Return (status, headers, body) of one request whose body comes in pieces."""
    pieces = pieces or (b"",)
    left = [
        {"type": "http.request", "body": piece, "more_body": i < len(pieces)}
        for i, piece in enumerate(pieces, 1)
    ]
    said = []

    async def receive():
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in said[1:])
    return said[0]["status"], dict(said[0]["headers"]), body


def call(session):
    return json.dumps({"session_hash": session, "data": [], "fn_index": 1}).encode()


# --- How much ------------------------------------------------------------------------------------


def test_a_burst_passes_and_the_next_one_waits_for_its_share_of_a_minute(clock):
    rule = {QUEUE: Allowance(3, 30)}
    limiter = Limiter(Limits(session=rule, origin={}, everybody={}), clock=clock)
    waits = [limiter.wait(QUEUE, session="tab", origin=None) for _ in range(4)]
    assert waits == [0, 0, 0, 2]
    clock.now += 2
    assert limiter.wait(QUEUE, session="tab", origin=None) == 0
    assert limiter.wait(QUEUE, session="tab", origin=None) == 2
    assert limiter.n_refused == 2


def test_a_refused_request_costs_nothing(clock):
    rule = {QUEUE: Allowance(1, 60)}
    limiter = Limiter(Limits(session=rule, origin=rule, everybody={}), clock=clock)
    limiter.wait(QUEUE, session="tab", origin=None)
    for _ in range(50):  # Refused for the tab, so that the address does not pay for it.
        assert limiter.wait(QUEUE, session="tab", origin=PUBLIC) == 1
    assert limiter.wait(QUEUE, session="other", origin=PUBLIC) == 0


def test_tabs_and_addresses_have_limits_of_their_own_and_everybody_has_one(clock):
    limits = Limits(
        session={QUEUE: Allowance(1, 1)},
        origin={QUEUE: Allowance(2, 1)},
        everybody={QUEUE: Allowance(3, 1)},
    )
    limiter = Limiter(limits, clock=clock)

    def passes(session, origin):
        return limiter.wait(QUEUE, session=session, origin=origin) == 0

    assert passes("a", PUBLIC)
    assert not passes("a", ELSEWHERE)
    assert passes("b", PUBLIC)
    assert not passes("c", PUBLIC)
    assert passes("c", ELSEWHERE)
    assert not passes("d", ELSEWHERE)


def test_one_kind_of_request_does_not_use_up_another(clock):
    rule = {QUEUE: Allowance(1, 1), DIRECT: Allowance(1, 1)}
    limiter = Limiter(Limits(session=rule, origin={}, everybody={}), clock=clock)
    assert limiter.wait(QUEUE, session="tab", origin=None) == 0
    assert limiter.wait(DIRECT, session="tab", origin=None) == 0
    assert limiter.wait(READ, session="tab", origin=None) == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 4)), max_size=60))
def test_no_order_of_requests_gets_more_than_the_burst_and_the_rate(requests):
    clock, rule = Clock(), Allowance(5, 30)
    buckets = Buckets(clock=clock)
    start, passed = clock.now, 0
    for pause, cost in requests:
        clock.now += pause
        seconds = buckets.wait(("x",), rule, cost)
        if seconds == 0:
            buckets.pay(("x",), rule, cost)
            passed += cost
        else:
            clock.now += seconds  # Who waits as long as told may pass.
            assert buckets.wait(("x",), rule, cost) < 1e-6
    assert passed <= rule.burst + (clock.now - start) * rule.per_minute / 60 + 1e-6


def test_what_can_never_be_paid_is_refused_for_ever(clock):
    assert Buckets(clock=clock).wait(("x",), Allowance(5, 30), 6) == math.inf


def test_the_table_is_bounded_and_forgets_who_was_quiet(clock):
    buckets, rule = Buckets(clock=clock, most=100), Allowance(10, 60)
    for i in range(1_000):
        buckets.pay((str(i),), rule, 1)
    assert len(buckets) == 100
    clock.now += 1.5
    buckets.pay(("late",), rule, 1)
    assert len(buckets) == 1


def test_who_shares_the_table_with_a_crowd_cannot_use_it_to_escape_the_limit_of_all(clock):
    limiter = Limiter(
        Limits(session={}, origin={QUEUE: Allowance(1, 1)}, everybody={QUEUE: Allowance(20, 1)}),
        clock=clock,
        most=4,
    )
    waits = [limiter.wait(QUEUE, session=None, origin=f"8.8.{i}.1") for i in range(40)]
    assert sum(wait == 0 for wait in waits) == 20


def test_no_session_and_no_address_is_kept_as_it_is(clock):
    limiter = Limiter(clock=clock)
    limiter.wait(QUEUE, session="planted-session", origin=PUBLIC)
    gc.collect()
    kept = repr(vars(limiter)) + repr(vars(limiter._buckets))
    assert "planted-session" not in kept
    assert PUBLIC not in kept
    same = Limiter(clock=clock)
    assert same._hidden(PUBLIC) != limiter._hidden(PUBLIC)


# --- Whose ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "origin"),
    [
        (PUBLIC, PUBLIC),
        ("::ffff:8.8.4.4", PUBLIC),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
        ("2a00:1450:4001:82a:1:2:3:4", "2a00:1450:4001:82a::/64"),
        ("127.0.0.1", None),
        ("10.1.2.3", None),
        ("fe80::1%eth0", None),
        ("testclient", None),
        ("", None),
    ],
)
def test_an_address_of_the_own_network_is_nobody_in_particular(client, origin):
    assert origin_of(scope_of(client=client), n_proxies=0) == origin


def test_a_server_without_a_gateway_has_no_address_to_go_by():
    assert origin_of({**scope_of(), "client": None}, n_proxies=0) is None


def test_a_forwarded_address_is_believed_only_where_a_proxy_was_promised():
    forged = scope_of(client=PUBLIC, x_forwarded_for=ELSEWHERE)
    assert origin_of(forged, n_proxies=0) == PUBLIC
    behind = scope_of(client="10.0.0.2", x_forwarded_for=f"{ELSEWHERE}, {PUBLIC}")
    assert origin_of(behind, n_proxies=1) == PUBLIC
    assert origin_of(behind, n_proxies=2) == ELSEWHERE
    assert origin_of(behind, n_proxies=3) is None
    assert origin_of(scope_of(client=PUBLIC), n_proxies=1) is None
    twice = scope_of(client="10.0.0.2", x_forwarded_for=ELSEWHERE)
    twice["headers"].append((b"X-Forwarded-For", PUBLIC.encode()))
    assert origin_of(twice, n_proxies=1) == PUBLIC


@pytest.mark.parametrize(("text", "number"), [("", 0), ("0", 0), ("1", 1), ("9", 9)])
def test_the_number_of_proxies_is_read(text, number):
    assert count_proxies(text) == number


@pytest.mark.parametrize("text", ["many", "-1", "10", "1.0", "²", " 1"])
def test_another_number_of_proxies_is_refused(text):
    with pytest.raises(InvalidArgumentError, match="`PRIVACY_DIAL_PROXIES` must be a number"):
        count_proxies(text)


# --- Over HTTP -----------------------------------------------------------------------------------


def limited(clock, **rules):
    inner = Inner()
    limits = Limits(**{"session": {}, "origin": {}, "everybody": {}, **rules})
    return RateLimit(inner, limiter=Limiter(limits, clock=clock)), inner


def test_too_much_is_answered_with_a_sentence_and_when_to_come_back(clock):
    app, inner = limited(clock, session={QUEUE: Allowance(1, 4)})
    assert send_to(app, scope_of(), call("tab"))[0] == 200
    status, headers, body = send_to(app, scope_of(), call("tab"))
    assert status == 429
    assert headers[b"retry-after"] == b"15"
    assert "Wait 15 seconds" in json.loads(body)["error"]
    assert headers[b"cache-control"] == b"no-store"
    assert len(inner.bodies) == 1
    assert send_to(app, scope_of(), call("another tab"))[0] == 200
    clock.now += 15
    assert send_to(app, scope_of(), call("tab"))[0] == 200


def test_a_body_that_was_read_for_its_session_arrives_unchanged(clock):
    app, inner = limited(clock)
    body = call("tab")
    assert send_to(app, scope_of(), body[:7], body[7:], b"")[0] == 200
    assert inner.bodies == [body]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"session_hash": 7}', b"[" * 100_000]
)
def test_a_body_without_a_session_is_no_crash_and_no_way_round(clock, body):
    app, inner = limited(clock, everybody={DIRECT: Allowance(1, 1)})
    scope = scope_of("/gradio_api/run/predict")
    assert [send_to(app, scope, body)[0] for _ in range(2)] == [200, 429]
    assert inner.bodies == [body]


def test_uploads_count_by_their_size(clock):
    app, _ = limited(clock, origin={UPLOAD: Allowance(10, 10)})

    def upload(size):
        scope = scope_of("/gradio_api/upload", content_length=str(size))
        return send_to(app, scope, b"x")[0]

    assert upload(8 * MEBIBYTE) == 200
    assert upload(3 * MEBIBYTE) == 429
    assert upload(10) == 200
    assert upload(10) == 200
    assert upload(10) == 429


def test_an_upload_of_unknown_length_counts_as_the_largest(clock):
    app, _ = limited(clock, origin={UPLOAD: Allowance(30, 1)})
    scope = scope_of("/gradio_api/upload/")
    assert [send_to(app, scope, b"x")[0] for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("method", "path", "is_limited"),
    [
        ("POST", "/gradio_api/queue/join", True),
        ("POST", "/gradio_api/call/anonymize", True),
        ("POST", "/gradio_api/run/predict/", True),
        ("GET", "/gradio_api/file=x", True),
        ("GET", "/", False),
        ("GET", "/assets/index.js", False),
        ("GET", "/health", False),
    ],
)
def test_what_costs_nothing_is_not_counted(clock, method, path, is_limited):
    every = dict.fromkeys((UPLOAD, QUEUE, DIRECT, READ), Allowance(1, 1))
    app, _ = limited(clock, everybody=every)
    scope = scope_of(path, method=method)
    assert [send_to(app, scope)[0] for _ in range(2)] == [200, 429 if is_limited else 200]


def test_what_is_no_request_passes(clock):
    seen = []

    async def inner(scope, *_):
        seen.append(scope["type"])

    app = SecurityHeaders(OwnPagesOnly(RateLimit(inner, limiter=Limiter(clock=clock))))
    asyncio.run(app({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_a_visitor_who_leaves_in_the_middle_of_a_body_is_no_crash(clock):
    heard = []

    async def inner(_, receive, *__):
        heard.append(await receive())

    async def gone():
        return {"type": "http.disconnect"}

    app = RateLimit(inner, limiter=Limiter(clock=clock))
    asyncio.run(app(scope_of(), gone, None))
    assert heard == [{"type": "http.disconnect"}]


def test_a_normal_visit_stays_far_below_every_limit(clock):
    # One tab: a photo each ten seconds, a page of four each five, the dial moved without pause.
    limiter = Limiter(clock=clock)
    for tenth in range(10 * 600):
        clock.now += 0.1
        waits = [limiter.wait(DIRECT, session="tab", origin=PUBLIC)]
        if tenth % 50 == 0:
            waits += [limiter.wait(QUEUE, session="tab", origin=PUBLIC) for _ in range(4)]
        if tenth % 100 == 0:
            waits.append(limiter.wait(UPLOAD, session=None, origin=PUBLIC, cost=10))
        assert max(waits) == 0, tenth


class Broken:
    """Answers as a Gradio that failed would."""

    def __init__(self, status, body):
        self.status, self.body = status, body

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.body})


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (500, {"error": "`photo` must be JPEG."}, 422),
        (500, {"error": CRASHED}, 500),
        (500, {"error": None}, 500),
        (500, {"error": ["odd"]}, 422),
        (500, ["odd"], 500),
        (503, {"error": "The queue is full."}, 503),
        (200, {"error": "no"}, 200),
    ],
)
def test_what_is_refused_in_words_is_no_fault_of_the_server(status, value, expected):
    body = json.dumps(value).encode()
    assert send_to(QuietErrors(Broken(status, body)), scope_of())[::2] == (expected, body)


def test_a_failure_without_words_stays_one():
    assert send_to(QuietErrors(Broken(500, b"Internal Server Error")), scope_of())[0] == 500


def failing(*said):
    async def app(_, __, send):
        for message in said:
            await send(message)
        raise KeyError("planted-9f3a71")

    return QuietErrors(app)


def test_what_cannot_be_read_is_refused_and_named_to_the_log_by_its_kind(capsys):
    status, _, body = send_to(failing(), scope_of())
    assert status == 400
    assert "could not be understood" in json.loads(body)["error"]
    assert capsys.readouterr().err == "A request failed: KeyError\n"


def test_a_failure_that_was_only_announced_is_answered(capsys):
    start = {"type": "http.response.start", "status": 500, "headers": []}
    assert send_to(failing(start), scope_of())[0] == 400
    assert "planted" not in capsys.readouterr().err


def test_an_answer_that_breaks_off_says_nothing_more(capsys):
    start = {"type": "http.response.start", "status": 200, "headers": []}
    assert send_to(failing(start, {"type": "http.response.body", "body": b"a"}), scope_of()) == (
        200,
        {},
        b"a",
    )
    assert capsys.readouterr().err == "A request failed: KeyError\n"


def test_what_fails_before_there_is_a_request_is_no_secret():
    with pytest.raises(KeyError):
        asyncio.run(failing()({"type": "lifespan"}, None, None))


@pytest.mark.parametrize(
    ("path", "is_open"),
    [
        ("/gradio_api/run/predict", True),
        ("/gradio_api/call/anonymize", True),
        ("/gradio_api/call/v2/anonymize", True),
        ("/gradio_api/call/anonymize/3f2a", True),
        ("/gradio_api/call/v2/anonymize/3f2a", True),
        ("/gradio_api/call/v2/answer", False),
        ("/gradio_api/call/answer", False),
        ("/gradio_api/call/answer/3f2a", False),
        ("/gradio_api/api/erase/", False),
        ("/gradio_api/run/undo", False),
        ("/gradio_api/queue/join", True),
    ],
)
def test_only_what_programs_may_call_has_a_name(path, is_open):
    assert send_to(ClosedDoors(Inner()), scope_of(path))[0] == (200 if is_open else 404)


# --- Headers, and pages of others ----------------------------------------------------------------


def policy_of(headers):
    parts = headers[b"content-security-policy"].decode().split("; ")
    return {name: values for name, *values in (part.split() for part in parts)}


def test_every_response_says_what_the_page_may_do():
    status, headers, body = send_to(SecurityHeaders(Inner()), scope_of("/", method="GET"))
    assert (status, body) == (200, b"yes")
    assert headers[b"x-own"] == b"1"
    assert b"Content-Security-Policy" not in headers
    policy = policy_of(headers)
    hub = ["'self'", "https://huggingface.co", "https://*.hf.space"]
    assert policy["frame-ancestors"] == hub
    assert policy["connect-src"] == ["'self'"]
    others = {name: values for name, values in policy.items() if name != "frame-ancestors"}
    assert not [value for values in others.values() for value in values if "//" in value]
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"referrer-policy"] == b"no-referrer"
    assert headers[b"permissions-policy"] == b"camera=(self), microphone=(), geolocation=()"


def test_a_served_file_may_run_nothing():
    scope = scope_of("/gradio_api/file=x/page.html", method="GET")
    _, headers, _ = send_to(SecurityHeaders(Inner()), scope)
    policy = policy_of(headers)
    assert policy["default-src"] == ["'none'"]
    assert "sandbox" in policy
    assert "script-src" not in policy


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "https://a.hf.space"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        # As a proxy may rewrite `Host`, the browser's own word counts for more.
        ({"sec_fetch_site": "same-origin", "origin": "https://dial.example"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec_fetch_site": "same-site", "origin": "https://b.hf.space"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://a.hf.space"}, 200),
    ],
)
def test_the_pages_of_others_may_not_call_this_one(headers, status):
    app = OwnPagesOnly(Inner())
    assert send_to(app, scope_of(host="a.hf.space", **headers))[0] == status
    # The page itself can be linked to.
    assert send_to(app, scope_of("/", method="GET", host="a.hf.space", **headers))[0] == 200


def test_a_proxys_name_for_the_page_is_believed_only_where_a_proxy_was_promised():
    named = {"host": "10.0.0.2", "x_forwarded_host": "a.hf.space", "origin": "https://a.hf.space"}
    assert send_to(OwnPagesOnly(Inner()), scope_of(**named))[0] == 403
    assert send_to(OwnPagesOnly(Inner(), n_proxies=1), scope_of(**named))[0] == 200
    forged = {**named, "x_forwarded_host": "evil.example, a.hf.space"}
    forged["origin"] = "https://evil.example"
    assert send_to(OwnPagesOnly(Inner(), n_proxies=1), scope_of(**forged))[0] == 403


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/gradio_api/upload", SmallBodies.UPLOAD_LIMIT, 200),
        ("/gradio_api/upload", SmallBodies.UPLOAD_LIMIT + 1, 413),
        ("/gradio_api/queue/join", SmallBodies.LIMIT + 1, 413),
    ],
)
def test_a_body_larger_than_any_photo_is_refused_by_what_it_says_of_itself(path, size, status):
    scope = scope_of(path, content_length=str(size))
    got, _, body = send_to(SmallBodies(Inner()), scope, b"x")
    assert got == status
    assert status == 200 or b"at most" in body


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_a_body_that_does_not_say_how_long_it_is_is_refused(path):
    assert send_to(SmallBodies(Inner()), scope_of(path), b"x")[0] == 411
