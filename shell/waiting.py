"""What a visitor reads while others are before them, and when too many are; knows no page.

Gradio shows the place in its queue as two bare numbers in a corner; this says it in words, which
screen readers hear too.
"""

from __future__ import annotations

from typing import Any

from shell.languages import message, speaker_to
from shell.routes import answer

PLACE = message(
    "You are number [place] of [all] who wait. Keep this page open: it goes on by itself."
)
FULL = message(
    "More people want a photo done right now than this page can take in. Wait a minute and try "
    "again; nothing you did is lost."
)
RETRY_SECONDS = 60
WAITING_ID = "waiting"
SAY_PLACE = f"""() => {{
  new MutationObserver(() => {{
    const line = document.querySelector("#{WAITING_ID} [role=status]");
    if (!line) return;
    const shown = document.querySelector("#photo .progress-text")?.textContent;
    const place = shown?.match(/^queue: (\\d+)\\/(\\d+)/);
    const words = place
      ? line.dataset.words.replace("[place]", place[1]).replace("[all]", place[2]) : "";
    if (line.textContent !== words) line.textContent = words;
  }}).observe(document.body, {{subtree: true, childList: true, characterData: true}});
}}"""
"""Says the place, and again only when it changes, as it is read aloud."""
_FULL = 503


def waiting_html(words: object = PLACE) -> str:
    """Return the line that `SAY_PLACE` writes into, empty so far.

    Args:
        words: What it will say, or the mark by which the browser finds it in its language.
    """
    return f'<p role="status" aria-live="polite" data-words="{words}"></p>'


class PoliteQueue:
    """ASGI middleware that says in plain words that the queue is full, and when to try again."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Put our sentence in the place of Gradio's, which counts its queue at the visitor."""
        is_join = scope["type"] == "http" and scope["path"].rstrip("/").endswith("/queue/join")
        is_full = False

        async def send_politely(message: Any) -> None:
            nonlocal is_full
            if message["type"] == "http.response.start":
                is_full = message["status"] == _FULL
            if not is_full:
                await send(message)
            elif message["type"] == "http.response.start":
                wait = ((b"retry-after", str(RETRY_SECONDS).encode()),)
                full = speaker_to(scope["headers"])(FULL)
                await answer(send, _FULL, {"error": full, "detail": full}, headers=wait)

        await self._app(scope, receive, send_politely if is_join else send)
