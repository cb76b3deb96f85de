"""Charts as files: SVG with its colours, PNG, and the links that save them; knows no numbers.

A chart of the page takes its colours from the page's style, by class. What is saved has no page
around it, so the light colours stand here, for both kinds of file; the PNG is drawn from the SVG.
"""

from __future__ import annotations

import base64
import csv
import functools
import io
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from xml.etree import ElementTree as ET

SVG, PNG, CSV = "svg", "png", "csv"
_MIME = {SVG: "image/svg+xml", PNG: "image/png", CSV: "text/csv"}
_SCALE = 3
"""Pixels of a PNG for each unit of its chart."""
_POINT = 72 / 100
"""Points of a unit, at a hundred units an inch."""
_WIDE_LETTERS = 0.9
"""Matplotlib's letters are wider than those of a page."""
_DRAWING = threading.Lock()
"""Matplotlib's cache of letters is shared."""
_PATH = re.compile(r"([MLHVhlzZ])|(-?\d+(?:\.\d+)?)")
_TAKES = {"M": 2, "L": 2, "l": 2, "H": 1, "V": 1, "h": 1}


@dataclass(frozen=True)
class Paint:
    """How a class of marks looks.

    Attributes:
        fill: Colour, "none" for an outline.
        stroke: Colour, "none" for no line.
        width: Of the line, in the chart's units.
        dash: Lengths of dashes and gaps, in the chart's units.
        opacity: In [0, 1].
        size: Of letters, in the chart's units.
        weight: Of letters.
    """

    fill: str = "none"
    stroke: str = "none"
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    size: float = 12.0
    weight: str = "normal"

    def css(self) -> str:
        """Return it as declarations."""
        dash = f";stroke-dasharray:{' '.join(f'{length:g}' for length in self.dash)}"
        return (
            f"fill:{self.fill};stroke:{self.stroke};stroke-width:{self.width:g};"
            f"opacity:{self.opacity:g};font:{self.weight} {self.size:g}px system-ui,sans-serif"
            f"{dash if self.dash else ''}"
        )


_RED, _BLUE, _GREY, _INK = "#b2182b", "#2166ac", "#6b7280", "#374151"
_DEEP, _BRIGHT = "#3730a3", "#4f46e5"
PAINTS: Mapping[str, Paint] = {
    "text": Paint(_INK),
    "rule": Paint(stroke="#9ca3af", width=0.75),
    "interval": Paint(stroke="#111827", width=1.5),
    "limit": Paint(stroke=_INK, width=1.5, dash=(3, 3)),
    "original": Paint(_RED),
    "unlearned": Paint(_BLUE),
    "reference": Paint(_GREY),
    "interval.original": Paint(stroke=_RED, width=3),
    "interval.unlearned": Paint(stroke=_BLUE, width=3),
    "interval.reference": Paint(stroke=_GREY, width=3),
    "bar": Paint(_BLUE, opacity=0.75),
    "revealing": Paint(_RED),
    "right": Paint(_BLUE),
    "changed": Paint(_GREY),
    "line-revealing": Paint(stroke=_RED, width=2, dash=(2, 3)),
    "line-right": Paint(stroke=_BLUE, width=2),
    "line-changed": Paint(stroke=_GREY, width=2, dash=(6, 4)),
    "faint": Paint("#4b5563", size=11),
    "chosen": Paint(_DEEP, size=13, weight="bold"),
    "below": Paint(_GREY, opacity=0.12),
    "floor": Paint(stroke=_GREY, width=1.5, dash=(3, 3)),
    "belief": Paint("#818cf8", opacity=0.45),
    "band": Paint(stroke=_BRIGHT, width=5),
    "mean": Paint("#ffffff", stroke=_BRIGHT, width=2.5),
    "line.decision": Paint(stroke=_DEEP, width=2),
    "path.decision": Paint(_DEEP),
}
"""Element, class, both, or several classes → how it looks; the last that fits wins."""


def as_svg(svg: str) -> bytes:
    """Return a chart as a file of its own, its colours included."""
    rules = "".join(
        f"{name if _is_selector(name) else f'.{name}'}{{{paint.css()}}}"
        for name, paint in PAINTS.items()
    )
    head, rest = svg.split(">", 1)
    return f"{head}><style>{rules}</style>{rest}\n".encode()


@functools.lru_cache(maxsize=64)
def as_png(svg: str) -> bytes:
    """Return a chart as a picture on white, three pixels to a unit.

    Args:
        svg: As the page's charts are drawn: lines, bars, circles, straight paths and words.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    root = ET.fromstring(svg)  # noqa: S314 - our own
    width, height = (float(n) for n in root.attrib["viewBox"].split()[2:])
    with _DRAWING:
        figure = Figure(figsize=(width / 100, height / 100), dpi=100 * _SCALE)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for mark in root:
            _draw(axes, mark)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format=PNG, metadata={"Software": None})
    return buffer.getvalue()


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    """Return numbers as CSV, a heading first."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def save_links(name: str, files: Mapping[str, bytes], *, label: Callable[[str], str]) -> str:
    """Return links that save a chart, which hold the files themselves.

    Args:
        name: Of the files, without an ending.
        files: Ending → content.
        label: Returns what a link says, for SVG, PNG or CSV.
    """
    links = "".join(
        f'<a download="{escape(name)}.{kind}" '
        f'href="data:{_MIME[kind]};base64,{base64.b64encode(data).decode()}">'
        f"{escape(label(kind.upper()))}</a>"
        for kind, data in files.items()
    )
    return f'<p class="save">{links}</p>'


def chart_files(svg: str, numbers: bytes) -> dict[str, bytes]:
    """Return all that a chart is saved as."""
    return {SVG: as_svg(svg), PNG: as_png(svg), CSV: numbers}


def _is_selector(name: str) -> bool:
    """Tell a rule that starts with an element from one of classes only."""
    return name.partition(".")[0] in {"text", "line", "path"}


def _paint(mark: ET.Element) -> Paint:
    tag, classes = _tag(mark), mark.get("class", "").split()
    names = [tag, *classes, *(f"{tag}.{name}" for name in classes), ".".join(classes)]
    found = [PAINTS[name] for name in names if name in PAINTS]
    return found[-1] if found else Paint("#000000")


def _tag(mark: ET.Element) -> str:
    return mark.tag.rpartition("}")[2]


def _draw(axes: Any, mark: ET.Element) -> None:
    from matplotlib.patches import Circle, PathPatch, Rectangle  # noqa: PLC0415
    from matplotlib.path import Path  # noqa: PLC0415

    def number(name: str) -> float:
        return float(mark.get(name, 0))

    paint, tag = _paint(mark), _tag(mark)
    if tag == "text":
        anchor = {"middle": "center", "end": "right"}.get(mark.get("text-anchor", ""), "left")
        axes.text(
            number("x"), number("y"), "".join(mark.itertext()), color=paint.fill, ha=anchor,
            va="baseline", fontsize=paint.size * _POINT * _WIDE_LETTERS, fontweight=paint.weight,
            parse_math=False,
        )  # fmt: skip
        return
    look: dict[str, Any] = {
        "facecolor": paint.fill,
        "edgecolor": paint.stroke,
        "linewidth": paint.width * _POINT if paint.stroke != "none" else 0,
        "linestyle": (0, [n / paint.width for n in paint.dash]) if paint.dash else "solid",
        "alpha": paint.opacity,
    }
    if tag == "rect":
        corner = (number("x"), number("y"))
        axes.add_patch(Rectangle(corner, number("width"), number("height"), **look))
    elif tag == "circle":
        axes.add_patch(Circle((number("cx"), number("cy")), number("r"), **look))
    else:
        ends = [(number("x1"), number("y1")), (number("x2"), number("y2"))]
        points = ends if tag == "line" else _points(mark.get("d", ""))
        closed = mark.get("d", "").endswith(("z", "Z"))
        axes.add_patch(PathPatch(Path([*points, *points[: int(closed)]], closed=closed), **look))


def _points(text: str) -> list[tuple[float, float]]:
    """Return the corners of a path of straight lines."""
    points: list[tuple[float, float]] = []
    command, held = "", []
    for letter, value in _PATH.findall(text):
        if letter:
            command = letter
            continue
        held.append(float(value))
        if len(held) < _TAKES[command]:
            continue
        x, y = points[-1] if points else (0.0, 0.0)
        points.append(_next(command, held, x, y))
        held = []
    return points


def _next(command: str, held: Sequence[float], x: float, y: float) -> tuple[float, float]:
    if command == "H":
        return held[0], y
    if command == "V":
        return x, held[0]
    if command == "h":
        return x + held[0], y
    if command == "l":
        return x + held[0], y + held[1]
    return held[0], held[1]
