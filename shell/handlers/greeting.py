"""Greets a browser in its own language, and shows what was made before anybody came.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shell.callers import Picked, Request, speaker_of
from shell.languages import ENGLISH, Speaker
from shell.previews import Preview, preview_html
from shell.updates import SKIP, update
from shell.wording import number_text


class GreetingHandlers:
    """Says in a browser's language what it cannot translate by itself.

    That are texts with values in them, and what stands for a picture: Gradio translates that once,
    and no more when the picture is shown again.

    Args:
        examples: Pictures of nobody.
        previews: Their ladders, in their order.
        about: Says the *About* page.
        alt_texts: What stands for each picture.
    """

    def __init__(
        self,
        examples: Sequence[Path],
        previews: Sequence[Preview],
        *,
        about: Callable[..., str],
        alt_texts: Sequence[str],
    ) -> None:
        self._examples = tuple(examples)
        self._previews = tuple(previews)
        self._about = about
        self._alt_texts = tuple(alt_texts)

    def greet(self, request: Request) -> Any:
        """Say them again, unless the page came in that language."""
        say = speaker_of(request)
        if say is ENGLISH:
            return tuple(SKIP for _ in range(4 + len(self._alt_texts)))
        first = preview_html(self._previews[0], say=say) if self._previews else SKIP
        gallery = update(value=captioned(self._examples, say=say))
        described = (update(alt_text=say(text)) for text in self._alt_texts)
        return self._about(say=say), number_text(say=say), gallery, first, *described


class PreviewHandlers:
    """Shows the ladders of the examples that were made beforehand, before any model is warm."""

    def __init__(self, previews: Sequence[Preview]) -> None:
        self._previews = tuple(previews)

    def show_preview(self, request: Request, event: Picked) -> Any:
        """Show the ladder of the example that was picked, while its own is made."""
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(self._previews):
            return SKIP
        return preview_html(self._previews[index], say=speaker_of(request))


def captioned(examples: Sequence[Path], *, say: Speaker = ENGLISH) -> list[tuple[str, str]]:
    """Return the gallery's pictures, each with what stands for it."""
    return [
        (str(path), say("Example {number}", number=number))
        for number, path in enumerate(examples, 1)
    ]
