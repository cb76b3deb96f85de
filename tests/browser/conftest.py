"""One page running the shipped model, and one headless Chromium per test, of the width it asks.

`PRIVACY_DIAL_SCREENSHOTS=1` puts pictures into `docs/screenshots/`, else they go to a temporary
folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

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


@pytest.fixture
def open_tab(chromium, tmp_path):
    """Return a function that opens an empty tab of a width, scheme and locale, a browser each."""
    with sync_playwright() as playwright:
        contexts = []

        def open_tab(*, width, scheme, locale=None):
            context = playwright.chromium.launch_persistent_context(
                tmp_path / f"profile-{len(contexts)}",
                executable_path=chromium,
                headless=True,
                args=ARGUMENTS,
                viewport={"width": width, "height": 800},
                color_scheme=scheme,
                locale=locale,
            )
            context.set_default_timeout(30_000)
            contexts.append(context)
            return context.pages[0]

        yield open_tab
        for context in contexts:
            context.close()


@pytest.fixture
def photo(tmp_path):
    """Return a photo of a person who does not exist, since pictures of the page show it."""
    path = tmp_path / "photo.jpg"
    with Image.open(EXAMPLES / "person-17-a.png") as picture:
        picture.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC).save(path, quality=92)
    return path


@pytest.fixture
def take(tmp_path):
    """Return a function that photographs the tab under a name."""
    folder = SCREENSHOTS if os.environ.get("PRIVACY_DIAL_SCREENSHOTS") else tmp_path / "shots"

    def take(tab, name):
        folder.mkdir(parents=True, exist_ok=True)
        tab.wait_for_function("[...document.images].every((image) => image.complete)")
        # Gradio fades new parts in; what is shown is what is meant once nothing moves.
        tab.wait_for_function("document.getAnimations().every((a) => a.playState !== 'running')")
        tab.screenshot(path=folder / f"{name}.png", full_page=True)

    return take


@pytest.fixture
def faults():
    """Lists what the browser complained about and where it reached out to."""
    return []
