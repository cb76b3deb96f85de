"""Draws where a dial stands as one small SVG; knows numbers only, no page and no model.

Colours come from the page's style by class, so that the picture reads in light and dark; the same
content stands in its text alternative.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from xml.sax.saxutils import quoteattr

from shell.dial import Standing
from shell.languages import ENGLISH, Speaker
from shell.saving import table

WIDTH, HEIGHT = 340, 150
_LEFT, _RIGHT = 14, 326
_TOP, _GROUND = 26, 104
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LABEL_MARGIN = 46


def dial_chart(standing: Standing, *, say: Speaker = ENGLISH) -> str:
    """Return the picture as inline SVG with `role="img"` and its sentence."""
    parts = (
        _floor(standing.floor, say),
        f'<path class="belief" d="{_area(standing.density)}"/>',
        _band(standing),
        _axis(say),
        _marker(standing, say),
    )
    return (
        f'<svg class="dial-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label={quoteattr(sentence(standing, say=say))} xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg>"
    )


def dial_csv(standing: Standing) -> bytes:
    """Return the numbers behind the picture: how probable each strength is, and the decision."""
    last = len(standing.density) - 1
    probable = [(f"{i / last:g}", value, "") for i, value in enumerate(standing.density)]
    marks = ("mean", "low", "high", "floor", "strength")
    named = [(getattr(standing, mark), "", mark) for mark in marks]
    return table(("strength", "probability", "mark"), [*probable, *named])


def sentence(standing: Standing, *, say: Speaker = ENGLISH) -> str:
    """Return in words what the picture shows."""
    return say(
        "Your preferred strength on the dial from 0, still me, to 1, somebody else: expected "
        "{mean:.2f}, with 90 % certainty between {low:.2f} and {high:.2f}. Privacy floor "
        "{floor:.2f}. Your dial would be set to {strength:.2f}.",
        mean=standing.mean,
        low=standing.low,
        high=standing.high,
        floor=standing.floor,
        strength=standing.strength,
    )


def _x(strength: float) -> str:
    return f"{_LEFT + (_RIGHT - _LEFT) * strength:.1f}"


def _area(density: Sequence[float]) -> str:
    """Return the outline of the probabilities, scaled to the height there is."""
    highest, last = max(density), len(density) - 1
    points = [
        f"{_x(i / last)} {_GROUND - (_GROUND - _TOP) * value / highest:.1f}"
        for i, value in enumerate(density)
    ]
    return f"M{_x(0)} {_GROUND}L{'L'.join(points)}L{_x(1)} {_GROUND}Z"


def _floor(floor: float, say: Speaker) -> str:
    """Shade what lies below the privacy floor."""
    x = float(_x(floor))
    return (
        f'<rect class="below" x="{_LEFT}" y="{_TOP}" width="{x - _LEFT:.1f}" '
        f'height="{_GROUND - _TOP}"/>'
        f'<line class="floor" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_GROUND}"/>'
        f'<text class="faint" x="{_LEFT + 4}" y="{_TOP + 13}">'
        f"{escape(say('below the floor'))}</text>"
    )


def _band(standing: Standing) -> str:
    """Draw the 90 % interval as a bar on the ground, and the mean on it."""
    low, high, mean = (_x(s) for s in (standing.low, standing.high, standing.mean))
    return (
        f'<line class="band" x1="{low}" x2="{high}" y1="{_GROUND}" y2="{_GROUND}"/>'
        f'<circle class="mean" cx="{mean}" cy="{_GROUND}" r="5"/>'
    )


def _axis(say: Speaker) -> str:
    ticks = "".join(
        f'<text x="{_x(t)}" y="{_GROUND + 22}" text-anchor="middle">{say.number(t, "g")}</text>'
        for t in _TICKS
    )
    return (
        f"{ticks}"
        f'<text class="faint" x="{_LEFT - 8}" y="{_GROUND + 39}">{escape(say("still me"))}</text>'
        f'<text class="faint" x="{_RIGHT + 8}" y="{_GROUND + 39}" text-anchor="end">'
        f"{escape(say('somebody else'))}</text>"
    )


def _marker(standing: Standing, say: Speaker) -> str:
    """Draw where the dial would be set, with its number above."""
    is_own = standing.target.source == "own"
    name = say("your dial") if is_own else say("for now")
    x = float(_x(standing.strength))
    label = min(max(x, _LABEL_MARGIN), WIDTH - _LABEL_MARGIN)
    return (
        f'<line class="decision" x1="{x}" x2="{x}" y1="{_TOP - 4}" y2="{_GROUND}"/>'
        f'<path class="decision" d="M{x - 5:.1f} {_TOP - 8}h10l-5 7z"/>'
        f'<text class="chosen" x="{label:.1f}" y="{_TOP - 12}" text-anchor="middle">'
        f"{escape(name)} {say.number(standing.strength, '.2f')}</text>"
    )
