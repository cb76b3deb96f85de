"""The *Models* page in a real browser: started, cancelled, run to its audit, by keyboard."""

from __future__ import annotations

import os

import pytest

from shell.evidence import open_publisher
from shell.models import LoopQueue
from tests import loop_runs
from tests.browser.test_page import overflow, show, watch
from tests.page_server import start

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Return the page and what lets its runs go on."""
    folder = tmp_path_factory.mktemp("models")
    hold = loop_runs.Hold(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        loops = LoopQueue(
            hold, environment=dict(os.environ), read=lambda _: loop_runs.evidence(passed=False)
        )
        running = start(folder, loops=loops, publishing=open_publisher(None, token=None))
        yield running, hold
        loops.close()
        running.page.close()
        running.store.close()


def press(tab, role, name):
    """Bring the focus to a control and press it, as without a mouse."""
    tab.get_by_role(role, name=name).focus()
    tab.keyboard.press("Enter")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1280, "light", marks=pytest.mark.slow), (360, "dark")],
)
def test_a_visitor_starts_cancels_and_runs_the_loop_to_its_audit(
    held,
    open_tab,
    take,
    faults,
    width,
    scheme,
):
    running, hold = held
    hold.flag.unlink(missing_ok=True)
    tab = open_tab(width=width, scheme=scheme)
    watch(tab, faults)
    tab.goto(running.url, wait_until="domcontentloaded")
    show(tab, "Models")
    tab.get_by_role("button", name="Run the loop").wait_for()
    take(tab, f"models-{width}")
    assert overflow(tab) <= 0

    press(tab, "button", "Run the loop")
    tab.get_by_text("Step 1 of 6").wait_for()
    said = tab.locator("#loop-said")
    assert said.get_attribute("aria-live") == "polite"
    press(tab, "button", "Cancel")
    tab.get_by_text("Nothing of it is left").wait_for()

    press(tab, "button", "Run the loop")
    tab.get_by_text("Step 1 of 6").wait_for()
    take(tab, f"models-running-{width}")
    assert overflow(tab) <= 0
    # A run goes on, and is looked at, while another tab is shown.
    show(tab, "Protect")
    tab.locator("#photo").wait_for()
    with tab.expect_request("**/run/predict"):
        hold.let_go()
    show(tab, "Models")
    tab.get_by_text("It did not pass the gate").wait_for()
    for picture in ("Accuracy with 95 %", "Area under the attack", "Unlearning took"):
        tab.get_by_role("img", name=picture).first.wait_for()
    take(tab, f"models-done-{width}")
    assert overflow(tab) <= 0
    assert tab.get_by_role("button", name="Publish to the Hub").is_disabled()
    tab.get_by_text("without HF_TOKEN").wait_for()
    with tab.expect_download() as download:
        press(tab, "button", "Download model and evidence")
    assert download.value.suggested_filename == "privacy-dial-model.zip"
    assert faults == []
