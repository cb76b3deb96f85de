"""One page running the shipped model, and tabs of a headless Chromium of the width a test asks.

`PRIVACY_DIAL_SCREENSHOTS=1` puts pictures into `docs/screenshots/`; with `-m browser` also those
of the visits that are repeated at another width.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from privacy_core.anonymize import Anonymizer
from privacy_core.attributes import load_predictor
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.faces import default_detector
from privacy_core.recognition import DlibRecogniser
from shell.likeness import find_meter
from shell.observer import Observer
from shell.previews import FOLDER, MANIFEST, read_previews
from tests.page_server import start

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCREENSHOTS = ROOT / "docs" / "screenshots"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that shows a test pattern.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        backend = EmbeddedBackend.load()
        examples = sorted(EXAMPLES.glob("*-a.png"))[:6]
        running = start(
            folder,
            anonymizer=Anonymizer(backend, default_detector()),
            curve=backend.curve,
            examples=examples,
            # Whatever weights they are of: that they are the shipped ones is tested elsewhere.
            previews=read_previews(
                examples, model=json.loads((FOLDER / MANIFEST).read_bytes())["model"]
            ),
            observer=Observer(load_predictor()),
            meter=find_meter(DlibRecogniser(), backend.curve),
        )
        yield running
        running.page.close()
        running.store.close()


@pytest.fixture(scope="module")
def browsers(chromium, tmp_path_factory):
    """Return a function that lends the n-th browser of a locale, started when it is first asked.

    A start and a page's first load take seconds, so a module has one, and their caches outlive
    it. Not one for the session: while Playwright runs, no other test can run an event loop.
    """
    with sync_playwright() as playwright:
        started = {}

        def lend(locale, n):
            if (locale, n) not in started:
                started[locale, n] = playwright.chromium.launch_persistent_context(
                    tmp_path_factory.getbasetemp() / "browsers" / f"{locale}-{n}",
                    executable_path=chromium,
                    headless=True,
                    args=ARGUMENTS,
                    locale=locale,
                )
            return started[locale, n]

        yield lend
        for browser in started.values():
            browser.close()


@pytest.fixture
def open_tab(browsers):
    """Return a function that opens a tab of a width, scheme and locale, a browser each.

    What its page keeps in the browser is deleted after the test.
    """
    tabs = []

    def open_tab(*, width, scheme, locale=None):
        tab = browsers(locale, len(tabs)).new_page()
        tabs.append(tab)
        tab.set_default_timeout(30_000)
        tab.set_viewport_size({"width": width, "height": 800})
        tab.emulate_media(color_scheme=scheme)
        return tab

    yield open_tab
    for tab in tabs:
        address, browser = urlparse(tab.url), tab.context
        tab.close()
        # By the tab that every browser starts with: the page is gone and can add nothing.
        browser.new_cdp_session(browser.pages[0]).send(
            "Storage.clearDataForOrigin",
            {"origin": f"{address.scheme}://{address.netloc}", "storageTypes": "all"},
        )


@pytest.fixture
def photo(tmp_path):
    """Return a photo of a person who does not exist, since pictures of the page show it."""
    path = tmp_path / "photo.jpg"
    with Image.open(EXAMPLES / "person-17-a.png") as picture:
        picture.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC).save(path, quality=92)
    return path


@pytest.fixture
def take():
    """Return a function that waits until the tab stands still and photographs it under a name."""
    is_wanted = bool(os.environ.get("PRIVACY_DIAL_SCREENSHOTS"))

    def take(tab, name):
        if is_wanted:
            tab.wait_for_function("[...document.images].every((image) => image.complete)")
        # Gradio fades new parts in; what is shown is what is meant once nothing moves.
        tab.wait_for_function("document.getAnimations().every((a) => a.playState !== 'running')")
        if is_wanted:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return take


@pytest.fixture
def faults():
    """Lists what the browser complained about and where it reached out to."""
    return []
