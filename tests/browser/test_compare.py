"""The original beside the variant, on wish: by keyboard, wide and narrow, with what it means."""

import pytest

from shell.wording import COMPARED
from tests.browser.test_axe import faults_of
from tests.browser.test_page import VARIANT, go, overflow, watch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]
ORIGINAL = 'img[alt="Your photo"]'


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_original_is_compared_and_hidden_by_keyboard(
    running, open_tab, take, faults, width, scheme
):
    tab = open_tab(width=width, scheme=scheme)
    watch(tab, faults)
    go(tab, running)
    tab.locator("#examples button").first.click()
    variant, original = tab.locator(f'img[alt="{VARIANT}"]'), tab.locator(ORIGINAL)
    variant.wait_for()
    original.wait_for()
    beside = (original.bounding_box(), variant.bounding_box())
    assert beside[0]["x"] + beside[0]["width"] <= beside[1]["x"]
    assert abs(beside[0]["y"] - beside[1]["y"]) < 8
    tab.get_by_text(COMPARED).first.wait_for()
    assert overflow(tab) <= 0
    assert faults_of(tab) == []
    take(tab, f"compare-{width}")

    switch = tab.get_by_role("checkbox", name="Compare with the original")
    assert switch.is_checked()
    switch.focus()
    tab.keyboard.press("Space")
    original.wait_for(state="detached")
    assert tab.get_by_text(COMPARED).locator("visible=true").count() == 0
    alone = variant.bounding_box()["width"]
    assert alone > 1.5 * beside[1]["width"] if width < 480 else alone >= beside[1]["width"]
    assert overflow(tab) <= 0
    assert faults_of(tab) == []
    take(tab, f"alone-{width}")

    # What is hidden follows all the same, and nobody but this tab was shown it.
    tab.locator("#strength input[type=range]").press("ArrowLeft")
    switch.press("Space")
    original.wait_for()
    assert original.get_attribute("src")
    tab.get_by_text(COMPARED).first.wait_for()
    assert faults == []
