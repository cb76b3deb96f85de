"""Agents: the four public calls as tools over the real MCP endpoint, and nothing beside them."""

from __future__ import annotations

import base64
import io
import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from shell.limits import TOOL, Allowance, Buckets, Limiter, Limits
from shell.mcp_door import DOOR, McpDoor
from shell.pictures import take_upload
from shell.routes import PUBLIC_CALLS, SmallBodies
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    jpeg,
    listening,
    portrait_fixture,
    running_fixture,
    visitor_fixture,
)

# Gradio counts its events with pandas calls that the pinned pandas calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

PLANTED = b"planted-40d7aa"
ACCEPT = {"accept": "application/json, text/event-stream"}


def agent(running, talk):
    """Let an MCP client talk to the page and return what it heard."""

    async def connect():
        address = f"{running.url}{DOOR}/"
        async with (
            streamable_http_client(address) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await talk(session)

    return anyio.run(connect)


def call(running, name, arguments, **headers):
    """Call a tool by hand; return the JSON-RPC answer."""
    return post(running, "tools/call", {"name": name, "arguments": arguments}, **headers)


def post(running, method, params, **headers):
    message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    response = httpx.post(f"{running.url}{DOOR}", json=message, headers=ACCEPT | headers)
    assert response.status_code == 200, response.text
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        text = next(line for line in text.splitlines() if line.startswith("data:"))[5:]
    return json.loads(text)


def as_text(data, kind="jpeg"):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def said(answer):
    """Return an answer's text, of a refusal in either form."""
    if "error" in answer:
        return answer["error"]["message"]
    return "\n".join(c["text"] for c in answer["result"]["content"] if c["type"] == "text")


# --- What is there -------------------------------------------------------------------------------


def test_an_agent_finds_the_four_public_calls_with_their_types_and_no_other(running):
    tools = {tool.name: tool for tool in agent(running, lambda s: s.list_tools()).tools}
    assert set(tools) == PUBLIC_CALLS
    for tool in tools.values():
        assert len(tool.description) > 40
    schema = tools["anonymize"].inputSchema
    assert schema["required"] == ["photo"]
    assert schema["properties"]["photo"]["type"] == "string"
    assert schema["properties"]["strength"]["type"] == "number"
    assert "in [0, 1]" in schema["properties"]["strength"]["description"]


def test_an_agent_gets_a_photo_that_came_as_text_back_with_the_face_replaced(running, astronaut):
    exif = Image.Exif()
    exif[0x010E] = PLANTED.decode()
    photo = jpeg(astronaut, exif=exif)
    before, files = running.store.stats(), set(running.served_files())
    result = agent(
        running,
        lambda s: s.call_tool("anonymize", {"photo": as_text(photo), "strength": 0.6}),
    )
    assert not result.isError
    picture = next(part for part in result.content if part.type == "image")
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as image:
        assert image.size == (512, 512)
    assert "'epsilon'" in "".join(p.text for p in result.content if p.type == "text")
    # The upload is gone, the picture is all that is there, and no row was kept.
    (made,) = set(running.served_files()) - files
    assert made.name == "privacy-dial.png"
    assert PLANTED not in made.read_bytes()
    assert running.store.stats() == before


def test_an_upload_is_taken_by_its_path_or_its_address_here_and_only_once(
    running, visitor, portrait
):
    path = visitor.upload(portrait, "photo.jpg")["path"]
    answer = call(running, "ladder", {"photo": path, "strengths": [0.5, 1.0]})
    assert not answer["result"]["isError"], said(answer)
    assert "'variants'" in said(answer)
    again = visitor.upload(portrait, "photo.jpg")["path"]
    address = f"https://somewhere.example{API}/file={again}"
    assert not call(running, "anonymize", {"photo": address})["result"]["isError"]
    assert "sent here" in said(call(running, "anonymize", {"photo": address}))


@pytest.mark.parametrize("strength", [0.6, "much"])
def test_a_call_takes_one_upload_of_a_photo_and_leaves_those_of_others(
    running, visitor, astronaut, strength
):
    photo = jpeg(astronaut, comment=f"others-{strength}")
    (path,) = {visitor.upload(photo, "photo.jpg")["path"] for _ in range(3)}
    before = set(running.served_files())
    answer = call(running, "anonymize", {"photo": path, "strength": strength})
    assert bool(answer["result"]["isError"]) is (strength == "much"), said(answer)
    made = set(running.served_files()) - before
    assert {file.name for file in made} == ({"privacy-dial.png"} if strength == 0.6 else set())
    uploads = running.page.upload_file_set
    assert [take_upload(path, uploads) for _ in range(2)] == [photo, photo]
    assert path not in uploads
    assert not Path(path).exists()


def test_an_upload_that_is_gone_is_asked_for_again(running, visitor, portrait):
    path = visitor.upload(portrait, "photo.jpg")["path"]
    Path(path).unlink()
    assert "must still be there" in said(call(running, "anonymize", {"photo": path}))


def test_what_needs_no_photo_is_answered(running):
    answers = [{"strength": 0.6, "just_right": 1, "photo": "a"}]
    assert "'strength'" in said(call(running, "recommend", {"history": answers}))
    assert "'versions'" in said(call(running, "health", {}))


# --- What is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["answer", "erase", "undo", "open_upload", "publish_model", "x"])
def test_a_private_call_is_no_tool(running, name):
    before = running.store.stats()
    answer = call(running, name, {})
    assert "`name` must be one of anonymize" in said(answer)
    assert running.store.stats() == before


@pytest.mark.parametrize("method", ["resources/read", "prompts/get", "prompts/list", "x"])
def test_nothing_but_tools_is_answered(running, method):
    # Gradio would run its last tool for a prompt that it does not know.
    assert "`method` must be" in said(post(running, method, {"name": "x", "uri": "file:///x"}))


def test_no_argument_makes_the_page_read_a_file_of_its_machine(running, tmp_path, portrait):
    (tmp_path / "portrait.jpg").write_bytes(portrait)
    file = {"path": str(tmp_path / "portrait.jpg"), "meta": {"_type": "gradio.FileData"}}
    before = set(running.served_files())
    for photo in (file, file["path"], f"file://{file['path']}", [file], None, 7,
                  f"http://localhost{API}/file={file['path']}"):  # fmt: skip
        assert "must be" in said(call(running, "anonymize", {"photo": photo}))
    # Gradio's own client on the server would upload what looks like a file, anywhere in a call.
    for name, argument in (("recommend", "history"), ("ladder", "strengths"), ("health", "x"),
                           ("anonymize", "keep")):  # fmt: skip
        for value in (file, [file], [{"photo": file}], [[file]]):
            assert "must be" in said(call(running, name, {argument: value}))
    assert set(running.served_files()) == before


def test_no_argument_makes_the_page_fetch_an_address(running, portrait):
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(portrait)

        do_HEAD = do_POST = do_GET  # noqa: N815

    with listening(Listener) as port:
        for address in (f"http://127.0.0.1:{port}/p.jpg", f"http://127.0.0.1:{port}{API}/file=/x"):
            assert "never fetched" in said(call(running, "anonymize", {"photo": address}))
        hidden = {"history": [{"photo": f"http://127.0.0.1:{port}/"}]}
        assert "must be a number" in said(call(running, "recommend", hidden))
        # A proxy's word on where the page is may not become where its photos go.
        call(running, "health", {}, **{"x-forwarded-host": f"127.0.0.1:{port}"})
    assert asked == []


@pytest.mark.parametrize(
    "photo",
    ["data:image/png;base64,@@@@", "data:image/png,abc", "data:", as_text(b"<svg/>", "svg+xml")],
)
def test_a_text_that_is_no_photo_is_refused_in_words_and_leaves_nothing(running, photo):
    before = set(running.served_files())
    answer = call(running, "anonymize", {"photo": photo})
    assert "must be" in said(answer)
    assert "/" not in said(answer).replace("image/jpeg", "")
    assert set(running.served_files()) == before


@pytest.mark.parametrize(
    ("name", "others"), [("anonymize", {"strength": "much"}), ("health", {}), ("ladder", {"x": 1})]
)
def test_a_photo_that_a_call_does_not_come_to_read_is_gone_all_the_same(
    running, portrait, name, others
):
    before = set(running.served_files())
    answer = call(running, name, {"photo": as_text(portrait), **others})
    assert answer["result"]["isError"]
    assert set(running.served_files()) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 5000, b'{"method": 7}', b'"x"'])
def test_a_body_that_is_no_message_is_refused(running, body):
    response = httpx.post(f"{running.url}{DOOR}", content=body, headers=ACCEPT)
    assert response.status_code == 400
    assert "one JSON-RPC message" in response.json()["error"]["message"]


def test_streams_and_older_addresses_are_closed(running):
    assert httpx.get(f"{running.url}{DOOR}", headers=ACCEPT).status_code == 405
    for path in ("/sse", "/messages/", "/http", "/x"):
        assert httpx.get(f"{running.url}{DOOR}{path}", headers=ACCEPT).status_code == 404
    # The Hub lists a Space's tools by this one.
    schema = httpx.get(f"{running.url}{DOOR}/schema")
    assert {tool["name"] for tool in schema.json()} == PUBLIC_CALLS


# --- The page's rules ----------------------------------------------------------------------------


def test_agents_are_under_the_rules_of_the_page(running, monkeypatch):
    address = f"{running.url}{DOOR}"
    foreign = httpx.post(address, json={}, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    large = httpx.post(address, content=b" " * (SmallBodies.TOOL_LIMIT + 1), headers=ACCEPT)
    assert large.status_code == 413
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    answered = httpx.post(address, json=ping, headers=ACCEPT)
    assert answered.status_code == 200
    assert answered.headers["cache-control"] == "no-store"
    assert answered.headers["x-content-type-options"] == "nosniff"
    one = Limits(session={}, origin={}, everybody={TOOL: Allowance(1, 1)})
    monkeypatch.setattr(running.limiter, "_limits", one)
    monkeypatch.setattr(running.limiter, "_buckets", Buckets(clock=time.monotonic))
    codes = [httpx.post(address, json=ping, headers=ACCEPT).status_code for _ in range(2)]
    assert codes == [200, 429]


def test_a_request_with_a_photo_counts_by_its_size():
    limiter = Limiter(Limits(session={}, origin={}, everybody={TOOL: Allowance(5, 1)}))
    assert limiter.wait(TOOL, session=None, origin=None, cost=4) == 0
    assert limiter.wait(TOOL, session=None, origin=None, cost=4) > 0


def test_nobody_is_served_before_the_page_knows_its_own_address(tmp_path):
    sent = []

    async def knock():
        async def send(message):
            sent.append(message)

        async def never(*_):
            raise AssertionError("It was passed on.")

        door = McpDoor(never, folder=tmp_path, uploads=set(), is_ready=lambda: False)
        await door({"type": "http", "path": DOOR, "method": "POST", "headers": []}, never, send)

    anyio.run(knock)
    assert sent[0]["status"] == 503
