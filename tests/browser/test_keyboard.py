"""The whole way from an example to the download without a mouse: Tab, Enter, Space, arrows."""

import pytest
from PIL import Image

from tests.browser.test_page import go, overflow, watch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]
FOCUSED = """() => {
  const at = document.activeElement;
  const label = at.labels?.[0]?.innerText || at.getAttribute("aria-label") || at.innerText || "";
  return [at.type || at.tagName.toLowerCase(), label.trim()];
}"""
ID = "() => document.activeElement.id"
MOST = 60


def go_to(tab, kind, name, *, key="Tab"):
    """Press a key until the control has the focus."""
    passed = []
    for _ in range(MOST):
        tab.keyboard.press(key)
        passed.append(tab.evaluate(FOCUSED))
        if passed[-1][0] == kind and name in passed[-1][1]:
            return
    raise AssertionError(f"{kind} {name!r} is not among {passed}.")


def press(tab, name):
    go_to(tab, "submit", name)
    tab.keyboard.press("Enter")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "dark"), pytest.param(360, "light", marks=pytest.mark.slow)],
)
def test_a_visitor_without_a_mouse_goes_from_an_example_to_the_download(
    running, open_tab, faults, tmp_path, width, scheme
):
    tab = open_tab(width=width, scheme=scheme)
    watch(tab, faults)
    go(tab, running)
    tab.locator("#examples button").first.wait_for()
    for _ in range(MOST):
        tab.keyboard.press("Tab")
        if tab.evaluate("() => !!document.activeElement.closest('#examples button')"):
            break
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Download this variant").wait_for()

    go_to(tab, "range", "")
    tab.keyboard.press("ArrowLeft")
    tab.get_by_text("Strength 0.90").wait_for()

    before = len(running.rows())
    press(tab, "Find your dial")
    tab.get_by_alt_text("Variant D").wait_for()
    tab.wait_for_function("() => document.activeElement.id === 'heading'")
    go_to(tab, "radio", "A")
    tab.keyboard.press("ArrowDown")
    tab.get_by_role("radio", name="Just right").wait_for()
    assert tab.get_by_role("radio", name="B", exact=True).is_checked()
    go_to(tab, "radio", "Still far too recognisable")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    assert tab.get_by_role("radio", name="Just right").is_checked()
    go_to(tab, "checkbox", "Keep my answers")
    tab.keyboard.press("Space")
    press(tab, "Show the strengths")
    tab.get_by_text("Saved.").wait_for()
    assert len(running.rows()) == before + 5

    press(tab, "Use 0.")
    tab.wait_for_function("() => document.activeElement.id === 'status'")
    with tab.expect_download() as download:
        press(tab, "Download this variant")
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.format == "PNG"
    assert overflow(tab) <= 0
    assert faults == []
