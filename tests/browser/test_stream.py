"""A click that crosses the end of the answers before it is answered all the same."""

import asyncio
import threading

import pytest

from shell.waiting import PoliteQueue
from tests.browser.test_page import VARIANT, go

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]


@pytest.fixture
def ending(monkeypatch):
    """Keep the word that all answers were given on its way: until the second event is set."""
    held, released = threading.Event(), threading.Event()
    take = PoliteQueue.__call__

    async def take_late(self, scope, receive, send):
        async def send_late(message):
            if b'"close_stream"' in message.get("body", b""):
                held.set()
                await asyncio.to_thread(released.wait, 20)
            await send(message)

        await take(self, scope, receive, send_late)

    monkeypatch.setattr(PoliteQueue, "__call__", take_late)
    yield held, released
    released.set()


def test_a_call_that_crosses_the_end_of_the_answers_is_answered(running, open_tab, photo, ending):
    held, released = ending
    tab = open_tab(width=1280, scheme="light")
    go(tab, running)
    assert held.wait(20)
    with tab.expect_response("**/queue/join*"):
        tab.set_input_files("#photo input[type=file]", photo)
    released.set()
    tab.wait_for_selector(f'img[alt="{VARIANT}"]')
