"""The parts that the page's charts are drawn from; knows no numbers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from xml.sax.saxutils import quoteattr

WIDTH = 340
"""Of every chart that stands in a column, in its own units."""


def drawing(height: float, sentence: str, parts: Sequence[str]) -> str:
    """Return a chart with `role="img"` and its sentence."""
    return (
        f'<svg class="audit-chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label={quoteattr(sentence)} xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg>"
    )


def text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    """Return words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def level(left: float, right: float, y: float, words: str) -> str:
    """Return a line across, and left of it what it stands for."""
    line = f'<line class="rule" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + text(left - 4, y + 4, words, anchor="end")
