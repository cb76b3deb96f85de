"""What an attacker tries at the page's addresses: other files, odd pictures, links, calls."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import tempfile
import threading
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import app
from privacy_core.errors import PhotoError
from shell.handlers import protect
from shell.limits import QUEUE, UPLOAD, Allowance, Limits
from shell.waiting import FULL
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    RefusedError,
    Visitor,
    answer,
    ask,
    jpeg,
    listening,
    pictures_of,
    portrait_fixture,
    start,
    visitor_fixture,
)

# Gradio counts its events with pandas calls that the pinned pandas calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

PLANTED = b"planted-5c20e8"
PUBLIC_CALLS = {"anonymize", "ladder", "recommend", "health"}
"""What a program may call; anything else is the page's own."""


@pytest.fixture(scope="module", name="running")
def running_fixture(tmp_path_factory):
    """Return the page, whose process puts everything temporary into a folder that can be read."""
    folder = tmp_path_factory.mktemp("secure")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "temporary").mkdir()
        patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        running = start(folder)
        yield running
        running.page.close()
        running.store.close()


@pytest.fixture
def folder(running):
    return running.cache.parent


def raw(running, target, *, method="GET", body=None, **headers):
    """Send a request whose target no client tidies up; return (status, headers, body)."""
    address = urlsplit(running.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, target, body=body, headers=named)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


# --- Other files ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secret(running):
    path = running.cache.parent / "data" / "secret.txt"
    path.write_bytes(PLANTED)
    (running.cache.parent / "elsewhere.txt").write_bytes(PLANTED)
    return path


def ways_to(cache, secret):
    """Yield targets that would reach the file if anything on the way resolved them."""
    near = secret.parent.parent / "elsewhere.txt"
    slashed = quote(str(secret), safe="")
    climbing = f"{cache}/../data/secret.txt"
    for door in (f"{API}/file=", f"{API}/file/", "/file=", f"{API}/proxy=", "/static/", "/assets/"):
        yield f"{door}{secret}"
        yield f"{door}{near}"
        yield f"{door}{slashed}"
        yield f"{door}{climbing}"
        yield f"{door}{climbing.replace('..', '%2e%2e')}"
        yield f"{door}{climbing.replace('../', '..%2f')}"
        yield f"{door}{climbing.replace('..', '%252e%252e')}"
        yield f"{door}{climbing.replace('../', '..%5c')}"
        yield f"{door}{secret}%00.png"
        yield f"{door}file://{secret}"
        yield f"{door}{'../' * 12}{str(secret)[1:]}"
        yield f"{door}{'..%2f' * 12}{str(secret)[1:]}"
    yield f"{API}/custom_component/x/client/component/..%2f..%2f{slashed}"
    yield f"/svelte/..%2f..%2f{slashed}"
    yield f"//{str(secret)[1:]}"


def test_no_path_reaches_a_file_that_the_page_did_not_make(running, secret):
    reached = []
    for target in ways_to(running.cache, secret):
        status, _, body = raw(running, target)
        if status < 400 or PLANTED in body:
            reached.append((target, status))
    assert reached == []


@pytest.mark.parametrize("name", ["app.py", "pyproject.toml", "./README.md", "shell/routes.py"])
def test_the_code_the_page_runs_from_is_not_served(running, name):
    assert raw(running, f"{API}/file={name}")[0] in {403, 404}


@pytest.mark.parametrize(
    "name", ["../secret.png", "..\\secret.png", "/secret.png", "a/../../b.png"]
)
def test_the_name_of_an_upload_chooses_no_place(running, visitor, name):
    upload = visitor.upload(b"x", name)
    assert running.cache in list(app.Path(upload["path"]).resolve().parents)
    assert not list(running.cache.parent.glob("*.png"))


# --- Odd pictures --------------------------------------------------------------------------------


def png(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


GREY = np.full((64, 64, 3), 90, np.uint8)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<html><script>alert(1)</script></html>"


def chunk(name, data):
    check = zlib.crc32(name + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + name + data + check


def with_chunk(data, name, value):
    """Put a chunk behind the header of a PNG file."""
    return data[:33] + chunk(name, value) + data[33:]


def frames():
    buffer = io.BytesIO()
    pictures = [Image.fromarray(GREY + i) for i in range(3)]
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("photo.png", png(GREY))
    return buffer.getvalue()


def large_pixels():
    """A small file that says 7 000 × 7 000 and holds a thousand times its size."""
    side = 7_200
    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = zlib.compress(bytes((1 + 3 * side) * 64), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xef\xbb\xbf  \n<!-- a comment -->" + SVG, "drawing.png"),
        (b'<?xml version="1.0"?><!DOCTYPE svg SYSTEM "http://127.0.0.1:9/x.dtd">' + SVG, "x.svg"),
        (gzip.compress(SVG), "drawing.svgz"),
        (HTML, "page.jpg"),
        (b"GIF89a/*" + HTML + b"*/=1;", "script.gif"),
        (png(GREY) + HTML, "photo.png"),
        (jpeg(GREY, comment=HTML) + archive(), "photo.jpg"),
        (b"%PDF-1.4\n" + png(GREY), "paper.png"),
        (archive(), "photo.png"),
        (frames(), "moving.gif"),
        (large_pixels(), "wide.png"),
        (with_chunk(png(GREY), b"zTXt", b"c\0\0" + zlib.compress(bytes(80_000_000), 9)), "t.png"),
        (with_chunk(png(GREY), b"iCCP", b"p\0\0" + zlib.compress(bytes(80_000_000), 9)), "i.png"),
    ],
    ids=[
        *("svg-with-mark", "svg-with-dtd", "svgz", "html", "gif-script", "png-and-html"),
        *("jpeg-and-zip", "pdf-png", "zip", "moving", "few-rows", "text-bomb", "profile-bomb"),
    ],
)
def test_an_odd_picture_is_refused_in_words_and_leaves_nothing(running, visitor, data, name):
    before, files = running.store.stats(), set(running.served_files())
    with pytest.raises(RefusedError) as refused:
        visitor.open(data, name)
    said = str(refused.value)
    assert len(said) > 20
    assert "Traceback" not in said
    assert str(running.cache.parent) not in said
    assert "alert" not in said
    assert set(running.served_files()) == files
    assert running.store.stats() == before


@pytest.mark.parametrize(("data", "name"), [(SVG, "drawing.svg"), (HTML, "page.html")])
def test_an_upload_opened_by_its_address_runs_nothing(running, visitor, data, name):
    path = visitor.upload(data, name)["path"]
    status, headers, body = raw(running, f"{API}/file={path}")
    assert status == 200
    assert body == data
    assert "sandbox" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


NAMES = (
    "<img src=x onerror=alert(1)>.jpg",
    '"><script>alert(1)</script>.jpg',
    "photo.jpg\r\nX-Planted: 1",
    "{{1234*5678}}.jpg",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_is_never_said_again(running, visitor, portrait, name):
    upload = visitor.upload(portrait, name)
    visitor.heard.clear()
    visitor.call("open_upload", upload)
    visitor.fetch(visitor.call("download", 0.8)[0])
    heard = b"\n".join(visitor.heard)
    assert b"alert(1)" not in heard
    assert b"1234*5678" not in heard
    assert b"7006652" not in heard
    assert b"X-Planted" not in heard
    status, headers, _ = raw(running, f"{API}/file={quote(upload['path'])}")
    assert status in {403, 404}
    assert "X-Planted" not in headers


def test_two_visitors_with_one_photo_do_not_take_it_from_each_other(running, portrait):
    # Gradio puts the same bytes under the same name into one file.
    visitors = [Visitor(running) for _ in range(3)]
    uploads = [visitor.upload(portrait, "photo.jpg") for visitor in visitors]
    assert len({upload["path"] for upload in uploads}) == 1
    for visitor, upload in zip(visitors, uploads, strict=True):
        assert len(visitor.call("open_upload", upload)) > 5
    with pytest.raises(RefusedError, match="uploaded here"):
        visitors[0].call("open_upload", uploads[0])
    assert not app.Path(uploads[0]["path"]).exists()


# --- What a photo knows --------------------------------------------------------------------------


def marked(pixels, kind):
    """Return a photo whose every place for words holds the planted ones."""
    exif = Image.Exif()
    for tag in (0x010E, 0x010F, 0x013B, 0x8298, 0x9C9B):
        exif[tag] = PLANTED.decode()
    exif.get_ifd(0x8825)[29] = PLANTED.decode()
    exif.get_ifd(0x8769)[0x927C] = PLANTED
    options = {"exif": exif, "icc_profile": b"\0" * 36 + b"acsp" + PLANTED}
    buffer = io.BytesIO()
    if kind == "PNG":
        words = PngImagePlugin.PngInfo()
        words.add_text("Comment", PLANTED.decode())
        words.add_itxt("XML:com.adobe.xmp", PLANTED.decode())
        options["pnginfo"] = words
    else:
        options["xmp"] = b"<x>" + PLANTED + b"</x>"
        options["quality"] = 90
    if kind == "JPEG":
        options["comment"] = PLANTED
    Image.fromarray(pixels).save(buffer, kind, **options)
    # And behind the picture, where nothing should be.
    return buffer.getvalue() + PLANTED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_a_photo_knows_of_its_place_is_nowhere_after_a_visit(
    running, visitor, folder, astronaut, capfd, kind
):
    data = marked(astronaut, kind)
    assert data.count(PLANTED) >= 5
    outputs = visitor.open(data, f"{PLANTED.decode()}.{kind.lower()}")
    token = ask(visitor)
    outputs += answer(visitor, token, consent=True)
    for file in (*pictures_of(outputs), visitor.call("download", 0.7)[0]):
        visitor.fetch(file)
    with pytest.raises(RefusedError):  # A photo that fails says no more.
        visitor.open(marked(np.full((64, 64, 3), 90, np.uint8), kind))
    assert len(running.rows()) >= 5
    heard = b"\n".join(visitor.heard)
    said = "".join(capfd.readouterr())
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in PLANTED_BY_TESTS]
    assert any("sqlite3" in path.name for path in files)
    assert [path for path in files if PLANTED in path.read_bytes()] == []
    assert [path for path in files if PLANTED.decode() in path.name] == []
    assert PLANTED not in heard
    assert PLANTED.decode() not in said
    visitor.call("erase", "")


PLANTED_BY_TESTS = {"secret.txt", "elsewhere.txt"}


# --- Links ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener():
    """Return the address of a server and the list of what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            """Say nothing."""

    with listening(Handler) as port:
        yield f"http://127.0.0.1:{port}", asked


def links(address, upload):
    """Yield what a request could hold in place of a file."""
    meta = {"_type": "gradio.FileData"}
    for link in (f"{address}/x.jpg", f"{address}/x.jpg".upper(), f"file://{upload}"):
        yield {"path": link, "meta": meta}
        yield {"path": upload, "url": link, "meta": meta}
        yield {"path": "", "url": link, "meta": meta}
        yield {"url": link}
        yield {"video": {"path": link, "meta": meta}, "subtitles": None}
        yield [{"image": {"path": link, "meta": meta}, "caption": link}]
        yield link


def test_no_input_of_any_call_makes_the_page_fetch_an_address(running, visitor, listener):
    address, asked = listener
    upload = visitor.upload(b"x", "x.jpg")["path"]
    values = list(links(address, upload))
    n_calls = 0
    for fn in running.page.fns.values():
        if not fn.name or fn.name not in visitor._fns:
            continue
        route = "queue/join" if fn.queue else "run/predict"
        # Every link in every place at once, and a call for each form of it.
        for value in values if len(fn.inputs) < 3 else values[:9]:
            body = visitor.body_of(fn.name, [value] * len(fn.inputs))
            visitor._http.post(f"{API}/{route}", json=body)
            n_calls += 1
    assert n_calls > 50
    # The queue works in order: when this one is through, so are those before it.
    with pytest.raises(RefusedError):
        Visitor(running).open(b"x", "x.jpg")
    assert asked == []


def test_no_address_in_an_address_or_a_header_is_fetched(running, listener):
    address, asked = listener
    host = urlsplit(address).netloc
    for target in (
        f"{API}/file={address}/x",
        f"{API}/file={quote(address, safe='')}%2Fx",
        f"{API}/FILE={address}/x",
        f"{API}/proxy={address}/x",
        f"{API}/proxy={quote(address, safe='')}",
        f"/proxy={address}/x",
        f"/?__theme={address}&url={address}&view=api",
        f"{API}/queue/data?session_hash={address}",
    ):
        raw(running, target, method="HEAD" if "queue/data" in target else "GET")
    named = {"x_forwarded_host": host, "x_direct_url": address, "referer": address, "host": host}
    raw(running, "/", **named)
    raw(running, "/config", **named)
    assert asked == []


# --- Private calls -------------------------------------------------------------------------------


def private_calls(running):
    return {fn.name for fn in running.page.fns.values() if fn.name} - PUBLIC_CALLS


def test_no_private_call_has_a_name_at_any_address(running, visitor):
    names = private_calls(running)
    assert {"answer", "erase", "undo", "ask", "open_upload"} <= names
    before, open_doors = running.store.stats(), []
    for name in names:
        for door in ("run", "api", "call", "call/v2"):
            response = visitor._http.post(f"{API}/{door}/{name}", json={"data": []})
            if response.status_code < 400:
                open_doors.append((door, name))
    assert open_doors == []
    assert running.store.stats() == before


def test_no_private_call_is_listed_for_programs(running, visitor):
    info = visitor.get(f"{API}/info").json()
    listed = {name.strip("/") for name in info["named_endpoints"]}
    assert listed <= PUBLIC_CALLS
    assert info["unnamed_endpoints"] == {}
    schema = visitor.get(f"{API}/openapi.json")
    names = private_calls(running)
    assert not [name for name in names if f"/{name}" in schema.text]


def test_a_call_that_waits_for_its_turn_cannot_be_made_directly(running, visitor):
    queued = [fn for fn in running.page.fns.values() if fn.queue and fn.name]
    assert queued
    for fn in queued:
        body = visitor.body_of(fn.name, [None] * len(fn.inputs))
        assert visitor.post(json.dumps(body).encode()).status_code == 404


# --- Headers, limits, a full queue, over the wire ------------------------------------------------


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/", "GET", 200),
        ("/", "HEAD", 200),
        ("/config", "GET", 200),
        ("/theme.css", "GET", 200),
        ("/health", "GET", 200),
        ("/health", "POST", 405),
        ("/nowhere", "GET", 404),
        (f"{API}/deep_link", "GET", 404),
        (f"{API}/queue/join", "POST", 422),
        (f"{API}/file=nothing", "GET", 403),
    ],
)
def test_every_response_carries_the_headers(running, target, method, status):
    got, headers, _ = raw(running, target, method=method)
    assert got == status
    headers = {name.lower(): value for name, value in headers.items()}
    assert "frame-ancestors" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=(self)" in headers["permissions-policy"]


def test_a_page_of_another_origin_cannot_use_this_one_through_a_visitors_browser(visitor):
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    for target in (f"{API}/queue/join", f"{API}/upload", f"{API}/info"):
        method = "GET" if target.endswith("info") else "POST"
        response = visitor._http.request(method, target, headers=foreign, json={})
        assert response.status_code == 403
        assert "its own address" in response.json()["error"]


def test_too_much_is_refused_with_a_time_to_wait_and_is_counted(running, visitor, monkeypatch):
    one = {UPLOAD: Allowance(1, 1), QUEUE: Allowance(1, 1)}
    monkeypatch.setattr(running.limiter, "_limits", Limits(session={}, origin={}, everybody=one))
    monkeypatch.setattr(
        running.limiter._buckets, "_full_at", type(running.limiter._buckets._full_at)()
    )
    before = visitor.get("/health").json()["refused_requests"]
    visitor.upload(b"x", "x.jpg")
    response = visitor._http.post(f"{API}/upload", files={"files": ("x.jpg", b"x" * 3_000_000)})
    assert response.status_code == 429
    assert 0 < int(response.headers["retry-after"]) <= 3_600
    assert "try again" in response.json()["error"]
    assert visitor.get("/health").json()["refused_requests"] == before + 1


def test_a_full_queue_says_so_and_who_waits_is_served(running, visitor, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def wait(_):
        begun.set()
        assert go_on.wait(30)
        raise PhotoError("`photo` must be another, got this one.")

    monkeypatch.setattr(protect, "read_photo", wait)
    monkeypatch.setattr(running.page._queue, "max_size", 2)
    outcomes = []

    def visit():
        try:
            # The same bytes and name, which Gradio puts into one file.
            Visitor(running).open(b"x", "x.jpg")
        except RefusedError as error:
            outcomes.append(str(error))

    visits = [threading.Thread(target=visit) for _ in range(3)]
    visits[0].start()
    assert begun.wait(30)
    for thread in visits[1:]:
        thread.start()
    waiting = threading.Event()
    for _ in range(300):
        if visitor.get("/health").json()["queue_length"] == 2:
            waiting.set()
            break
    assert waiting.is_set()
    body = visitor.body_of("open_upload", [None, "", None])
    response = visitor._http.post(f"{API}/queue/join", json=body)
    assert response.status_code == 503
    assert response.json()["detail"] == FULL
    assert response.headers["retry-after"] == "60"
    assert visitor.get("/health").json()["queue_limit"] == app.QUEUE_LIMIT
    go_on.set()
    for thread in visits:
        thread.join(30)
    assert outcomes == ["`photo` must be another, got this one."] * 3
    assert visitor.get("/health").json()["queue_length"] == 0


def test_what_does_not_fit_a_call_is_never_printed(running, visitor, capfd):
    planted = PLANTED.decode()
    for fn in [fn for fn in running.page.fns.values() if fn.name in visitor._fns]:
        for data in ([planted], [planted] * len(fn.inputs), [{"path": planted}] * len(fn.inputs)):
            body = visitor.body_of(fn.name, data)
            if fn.queue:
                visitor._http.post(f"{API}/queue/join", json=body)
            else:
                assert visitor.post(json.dumps(body).encode()).status_code < 500
    with pytest.raises(RefusedError):  # The queue works in order.
        Visitor(running).open(b"x", "x.jpg")
    said = "".join(capfd.readouterr())
    assert "A call was refused" in said
    assert planted not in said
    assert "Traceback" not in said
