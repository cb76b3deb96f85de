"""axe finds nothing serious on any tab, narrow and wide, light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.test_page import go, show

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

TABS = ("Protect", "Crowd", "Models", "About")
SERIOUS = {"serious", "critical"}


def faults_of(tab):
    """Return what axe calls serious, once nothing fades in any more: its rule and where."""
    tab.wait_for_function(
        "document.getAnimations().every((a) => a.playState !== 'running')"
        " && document.querySelector('.pending, .generating') === null"
    )
    found = Axe().run(tab).response["violations"]
    return [
        (violation["id"], node["html"][:120])
        for violation in found
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]


def faults_in_schemes(tab):
    """Return what axe calls serious in the page when it is light, and when it is dark."""
    found = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function(
            "(dark) => document.body.classList.contains('dark') === dark", arg=scheme == "dark"
        )
        found += faults_of(tab)
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_nothing_serious_stands_in_the_way_of_a_screen_reader(running, open_tab, width, scheme):
    tab = open_tab(width=width, scheme=scheme)
    go(tab, running)
    for name in TABS:
        show(tab, name)
        assert faults_of(tab) == []


def test_the_pages_of_a_photo_have_nothing_serious_either(running, open_tab):
    tab = open_tab(width=1280, scheme="light")
    go(tab, running)
    tab.locator("#examples button").first.click()
    tab.get_by_role("button", name="Download this variant").wait_for()
    assert faults_of(tab) == []
    tab.get_by_role("button", name="Find your dial").click()
    tab.get_by_alt_text("Variant D").wait_for()
    assert faults_of(tab) == []
