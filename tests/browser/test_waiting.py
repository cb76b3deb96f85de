"""What a visitor sees while others are before them, and when the queue is full."""

from __future__ import annotations

import threading

import pytest

from shell.handlers import protect
from shell.waiting import FULL
from tests.page_server import Visitor

pytestmark = [
    pytest.mark.slow,
    # Gradio counts its events with pandas calls that the pinned pandas calls outdated.
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


@pytest.fixture
def stuck(running, monkeypatch):
    """Let one visitor's photo take until the event is set, and a second one wait behind it."""
    begun, go_on, read = threading.Event(), threading.Event(), protect.read_photo

    def wait(data):
        begun.set()
        assert go_on.wait(60)
        return read(data)

    monkeypatch.setattr(protect, "read_photo", wait)
    visits = [threading.Thread(target=_open_nothing, args=[running]) for _ in range(2)]
    visits[0].start()
    assert begun.wait(30)
    visits[1].start()
    yield go_on
    go_on.set()
    for visit in visits:
        visit.join(60)


def _open_nothing(running):
    with pytest.raises(Exception, match="photo"):
        Visitor(running).open(b"x", "x.jpg")


def test_the_place_in_the_queue_is_said_in_words_until_it_is_ones_turn(running, open_tab, stuck):
    tab = open_tab(width=360, scheme="light")
    tab.goto(running.url, wait_until="domcontentloaded")
    tab.locator("#examples button").first.click()
    line = tab.locator("#waiting [role=status]")
    tab.wait_for_function(
        "/^You are number [12] of [12] who wait/.test("
        "document.querySelector('#waiting [role=status]')?.textContent)"
    )
    assert "queue: " in tab.locator("#photo").inner_text()
    assert line.get_attribute("aria-live") == "polite"
    stuck.set()
    tab.get_by_role("button", name="Download this variant").wait_for()
    tab.wait_for_function("!document.querySelector('#waiting [role=status]')?.textContent")


def test_an_examples_ladder_is_there_before_any_model_has_worked(running, open_tab, stuck):
    tab = open_tab(width=1280, scheme="light")
    tab.goto(running.url, wait_until="domcontentloaded")
    pictures = tab.locator("#preview img")
    pictures.first.wait_for()
    landing = pictures.nth(3).get_attribute("src")
    assert pictures.count() == 6
    tab.locator("#examples button").nth(2).click()
    # Another person's, while the model has not so much as seen them.
    tab.wait_for_function(
        "(before) => document.querySelectorAll('#preview img')[3]?.src !== before", arg=landing
    )
    assert "public noise" in tab.locator("#preview").inner_text()
    stuck.set()
    tab.get_by_role("button", name="Download this variant").wait_for()
    assert not tab.locator("#preview").is_visible()


@pytest.mark.usefixtures("stuck")
def test_a_full_queue_is_refused_with_a_way_out(running, open_tab, monkeypatch):
    monkeypatch.setattr(running.page._queue, "max_size", 1)
    tab = open_tab(width=1280, scheme="light")
    tab.goto(running.url, wait_until="domcontentloaded")
    with tab.expect_response("**/queue/join*") as refused:
        tab.locator("#examples button").first.click()
    assert refused.value.status == 503
    assert refused.value.json()["error"] == FULL
    # One for the greeting of the page, which waits in the same queue.
    tab.get_by_text("currently busy. Please try again").first.wait_for()
