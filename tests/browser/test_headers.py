"""What a real browser makes of the headers: nothing leaves the page, nobody frames or calls it."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest
from PIL import Image

from tests.browser.test_page import go, watch
from tests.page_server import listening

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


@pytest.fixture
def elsewhere(running):
    """Return where a page of another origin frames this one, and what was asked of it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = f"<title>Elsewhere</title><iframe src='{running.url}'></iframe>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with listening(Handler) as port:
        yield f"http://localhost:{port}", asked


SMUGGLE = """async (address) => {
  const broken = [];
  document.addEventListener("securitypolicyviolation", (e) => broken.push(e.effectiveDirective));
  await fetch(address + "/fetched").catch(() => {});
  const image = new Image();
  const script = document.createElement("script");
  const frame = document.createElement("iframe");
  for (const [tag, name] of [[image, "image"], [script, "script"], [frame, "frame"]]) {
    tag.src = address + "/" + name;
    document.body.append(tag);
  }
  while (broken.length < 4) await new Promise((go_on) => requestAnimationFrame(go_on));
  return broken.sort();
}"""
CALL = """async (address) => {
  const answers = [];
  for (const [path, method] of [["queue/join", "POST"], ["info", "GET"]]) {
    const body = method === "POST" ? "{}" : undefined;
    const response = await fetch(address + "/gradio_api/" + path, {method, body}).catch(() => null);
    answers.push(response ? response.status : 0);
  }
  return answers;
}"""


def test_a_script_in_the_page_can_tell_no_other_origin(running, open_tab, elsewhere):
    address, asked = elsewhere
    tab = open_tab(width=1280, scheme="light")
    go(tab, running)
    broken = tab.evaluate(SMUGGLE, address)
    assert broken == ["connect-src", "frame-src", "img-src", "script-src-elem"]
    assert asked == []


def test_a_page_of_another_origin_can_neither_show_nor_call_this_one(running, open_tab, elsewhere):
    address, _ = elsewhere
    tab = open_tab(width=1280, scheme="light")
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(f"{address}/", wait_until="load")
    assert any("frame-ancestors" in text for text in said)
    assert all(status in {403, 0} for status in tab.evaluate(CALL, running.url))


def test_the_markup_in_the_name_of_a_photo_is_no_markup(
    running, open_tab, faults, tmp_path, astronaut
):
    photo = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    Image.fromarray(astronaut).save(photo, "JPEG", quality=92)
    tab = open_tab(width=360, scheme="light")
    watch(tab, faults)
    tab.on("dialog", lambda dialog: faults.append(dialog.message))
    go(tab, running)
    tab.set_input_files("#photo input[type=file]", photo)
    tab.get_by_role("button", name="Download this variant").wait_for()
    assert tab.locator("img[src='x']").count() == 0
    assert "onerror" not in tab.content()
    # The upload is deleted as soon as it is read, maybe before its preview was fetched.
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []
