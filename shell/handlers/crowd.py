"""Shows what the published answers say together.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from typing import Any

from shell.callers import Request, speaker_of
from shell.crowd import Crowd


class CrowdHandlers:
    """What the controls of the *Crowd* page do; the same for every visitor."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def show_crowd(self, request: Request, source: str) -> tuple[Any, ...]:
        """Show what is published about one kind of photo."""
        found = self._crowd.page(source, say=speaker_of(request))
        return found.said, found.charts, found.table
