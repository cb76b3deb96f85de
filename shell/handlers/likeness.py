"""Measures how far the picture is from the original, where its owner asks for that.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from shell.callers import Request, speaker_of
from shell.likeness import LikenessMeter, likeness_html
from shell.visit import Visit


class LikenessHandlers:
    """What the tick for measuring does.

    Args:
        meter: Measures; None where nothing can.
    """

    def __init__(self, meter: LikenessMeter | None) -> None:
        self._meter = meter

    def measure(self, request: Request, wanted: bool, strength: float, visit: Visit | None) -> str:
        """Show how far the picture is from the original, if its owner asked for that."""
        if wanted is not True or self._meter is None or visit is None or visit.opened is None:
            return ""
        found = self._meter.look(visit.photo(), visit.variant(strength))
        return likeness_html(found, say=speaker_of(request))
