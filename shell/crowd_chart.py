"""Draws what the crowd prefers as small SVGs, and writes it as CSV; knows numbers only, no page.

Colours come from the page's style by class; a picture that is saved carries them along. The same
content stands in the text alternatives.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from feedback.publish.crowd import CrowdView, Tenth
from feedback.publish.reading import PublicRelease
from shell.svg import drawing, level, text

HEIGHT = 190
_LEFT, _RIGHT = 40, 330
_TOP, _GROUND = 34, 150
_COVER = 0.9
_LEAST_LINES = 2
_LEGEND = (8, 128, 212)
_STYLE = (
    "<style>text{fill:#374151;font:12px system-ui,sans-serif}.rule{stroke:#9ca3af;stroke-width:.75}"
    ".revealing,.line-revealing{stroke:#b2182b;fill:#b2182b}"
    ".changed,.line-changed{stroke:#6b7280;fill:#6b7280}"
    ".right,.line-right,.bar{stroke:#2166ac;fill:#2166ac}"
    ".line-revealing,.line-changed,.line-right{fill:none;stroke-width:2}"
    ".line-changed{stroke-dasharray:5 4}.line-revealing{stroke-dasharray:2 3}"
    ".bar{opacity:.7;stroke:none}.interval{stroke:#111827;stroke-width:1.5}</style>"
)
_LINES = (
    ("revealing", "too recognisable", "too_recognisable"),
    ("right", "just right", "just_right"),
    ("changed", "changed too much", "too_changed"),
)


def noise_margin(epsilon: float) -> float:
    """Return how many raters the noise of one tenth stays within, nine times out of ten.

    Two-sided geometric noise of scale 2 / ε raters, from its tail exp(-t ε / 2).

    Args:
        epsilon: Of the release, above 0.
    """
    return 2 / epsilon * math.log(1 / (1 - _COVER))


def population_chart(release: PublicRelease) -> str:
    """Return bars of raters by the tenth they prefer, with the interval that the noise leaves."""
    margin = noise_margin(release.epsilon)
    highest = max(max(release.noisy_raters) + margin, 1.0)
    span = (_RIGHT - _LEFT) / len(release.noisy_raters)

    def y(raters: float) -> float:
        return _GROUND - (_GROUND - _TOP) * min(max(raters, 0.0), highest) / highest

    step = _round_step(highest)
    parts = [
        level(_LEFT, _RIGHT, y(n * step), f"{n * step:g}") for n in range(int(highest / step) + 1)
    ]
    for number, raters in enumerate(release.noisy_raters):
        x = _LEFT + span * number
        parts.append(
            f'<rect class="bar" x="{x + 3:.1f}" y="{y(raters):.1f}" width="{span - 6:.1f}" '
            f'height="{_GROUND - y(raters):.1f}"/>'
            f'<path class="interval" d="M{x + span / 2:.1f} {y(raters - margin):.1f}'
            f'V{y(raters + margin):.1f}"/>'
        )
    parts.append(text(0, 14, "raters who prefer this strength (noisy)"))
    return drawing(HEIGHT, population_sentence(release), [*parts, *_axis()])


def population_sentence(release: PublicRelease) -> str:
    """Return in words what the bars show."""
    best = max(range(len(release.noisy_raters)), key=lambda i: release.noisy_raters[i])
    n = len(release.noisy_raters)
    return (
        f"Preferred strength of {release.n_raters} raters by tenths of the dial, with noise of up "
        f"to {noise_margin(release.epsilon):.0f} raters on each, nine times out of ten. Most "
        f"prefer {best / n:.1f} to {(best + 1) / n:.1f}."
    )


def answers_chart(view: CrowdView) -> str:
    """Return the shares of the three kinds of answers over strength; "" without answers."""
    if not view.tenths:
        return ""
    parts = [level(_LEFT, _RIGHT, _y(share), f"{share:.0%}") for share in (0.0, 0.5, 1.0)]
    for css, _, field in _LINES:
        points = [(_middle(tenth), _y(getattr(tenth, field))) for tenth in view.tenths]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        dots = "".join(
            f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points
        )
        parts.append(f'<path class="line-{css}" d="M{path}"/>{dots}')
    parts += [
        f'<path class="interval" d="M{_middle(tenth):.1f} {_y(tenth.interval[0]):.1f}'
        f'V{_y(tenth.interval[1]):.1f}"/>'
        for tenth in view.tenths
    ]
    for place, (css, words, _) in enumerate(_LINES):
        x = _LEGEND[place]
        parts.append(f'<circle class="{css}" cx="{x}" cy="10" r="4"/>' + text(x + 8, 14, words))
    return drawing(HEIGHT, answers_sentence(view), [*parts, *_axis()])


def answers_sentence(view: CrowdView) -> str:
    """Return in words what the lines show."""
    if not view.tenths:
        return "Nobody's published answers are about this kind of photo."
    best = max(view.tenths, key=lambda tenth: tenth.just_right)
    low, high = best.interval
    return (
        f"Share of answers by strength. “Just right” is most frequent from {best.low:.1f} to "
        f"{best.low + 0.1:.1f}: {best.just_right:.0%} of {best.n_answers} answers, with 90 % "
        f"certainty {low:.0%} to {high:.0%}."
    )


def saved(svg: str) -> bytes:
    """Return a chart as a file of its own, its colours included."""
    head, rest = svg.split(">", 1)
    return f"{head}>{_STYLE}{rest}\n".encode()


def answers_csv(view: CrowdView) -> bytes:
    """Return the numbers behind `answers_chart`."""
    return _csv(
        ("from", "to", "answers", "raters", "too_recognisable", "just_right", "too_changed",
         "just_right_low", "just_right_high"),
        [
            (tenth.low, round(tenth.low + 0.1, 1), tenth.n_answers, tenth.n_raters,
             tenth.too_recognisable, tenth.just_right, tenth.too_changed, *tenth.interval)
            for tenth in view.tenths
        ],
    )  # fmt: skip


def population_csv(release: PublicRelease) -> bytes:
    """Return the numbers behind `population_chart`."""
    n = len(release.noisy_raters)
    return _csv(
        ("release", "epsilon", "raters", "from", "to", "noisy_raters"),
        [
            (release.name, release.epsilon, release.n_raters, i / n, (i + 1) / n, value)
            for i, value in enumerate(release.noisy_raters)
        ],
    )


def _csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _round_step(highest: float) -> float:
    """Return a step that puts a few lines below `highest`."""
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (2.0, 1.0, 0.5) if highest >= _LEAST_LINES * step * power)


def _middle(tenth: Tenth) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (tenth.low + 0.05)


def _y(share: float) -> float:
    return _GROUND - (_GROUND - _TOP) * share


def _axis() -> list[str]:
    width = _RIGHT - _LEFT
    ticks = [
        text(_LEFT + width * at, _GROUND + 17, f"{at:g}", anchor="middle")
        for at in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return [
        *ticks,
        text(_LEFT - 8, _GROUND + 34, "still me"),
        text(_RIGHT + 8, _GROUND + 34, "somebody else", anchor="end"),
    ]
