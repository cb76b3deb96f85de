"""Draws what the crowd prefers as small SVGs, and writes it as CSV; knows numbers only, no page.

Colours come from the page's style by class. The same content stands in the text
alternatives.
"""

from __future__ import annotations

import math

from feedback.publish.crowd import CrowdView, Tenth
from feedback.publish.reading import PublicRelease
from shell.languages import ENGLISH, Speaker, message
from shell.saving import table
from shell.svg import drawing, level, text

HEIGHT = 190
_LEFT, _RIGHT = 40, 330
_TOP, _GROUND = 34, 150
_COVER = 0.9
_LEAST_LINES = 2
_LEGEND = (8, 122, 222)
_LINES = (
    ("revealing", message("too recognisable"), "too_recognisable"),
    ("right", message("just right"), "just_right"),
    ("changed", message("changed too much"), "too_changed"),
)


def noise_margin(epsilon: float) -> float:
    """Return how many raters the noise of one tenth stays within, nine times out of ten.

    Two-sided geometric noise of scale 2 / ε raters, from its tail exp(-t ε / 2).

    Args:
        epsilon: Of the release, above 0.
    """
    return 2 / epsilon * math.log(1 / (1 - _COVER))


def population_chart(release: PublicRelease, *, say: Speaker = ENGLISH) -> str:
    """Return bars of raters by the tenth they prefer, with the interval that the noise leaves."""
    margin = noise_margin(release.epsilon)
    highest = max(max(release.noisy_raters) + margin, 1.0)
    span = (_RIGHT - _LEFT) / len(release.noisy_raters)

    def y(raters: float) -> float:
        return _GROUND - (_GROUND - _TOP) * min(max(raters, 0.0), highest) / highest

    step = _round_step(highest)
    parts = [
        level(_LEFT, _RIGHT, y(n * step), say.number(n * step, "g"))
        for n in range(int(highest / step) + 1)
    ]
    for number, raters in enumerate(release.noisy_raters):
        x = _LEFT + span * number
        parts.append(
            f'<rect class="bar" x="{x + 3:.1f}" y="{y(raters):.1f}" width="{span - 6:.1f}" '
            f'height="{_GROUND - y(raters):.1f}"/>'
            f'<path class="interval" d="M{x + span / 2:.1f} {y(raters - margin):.1f}'
            f'V{y(raters + margin):.1f}"/>'
        )
    parts.append(text(0, 14, say("raters who prefer this strength (noisy)")))
    return drawing(HEIGHT, population_sentence(release, say=say), [*parts, *_axis(say)])


def population_sentence(release: PublicRelease, *, say: Speaker = ENGLISH) -> str:
    """Return in words what the bars show."""
    best = max(range(len(release.noisy_raters)), key=lambda i: release.noisy_raters[i])
    n = len(release.noisy_raters)
    return say(
        "Preferred strength of {n_raters} raters by tenths of the dial, with noise of up to "
        "{margin:.0f} raters on each, nine times out of ten. Most prefer {low:.1f} to {high:.1f}.",
        n_raters=release.n_raters,
        margin=noise_margin(release.epsilon),
        low=best / n,
        high=(best + 1) / n,
    )


def answers_chart(view: CrowdView, *, say: Speaker = ENGLISH) -> str:
    """Return the shares of the three kinds of answers over strength; "" without answers."""
    if not view.tenths:
        return ""
    parts = [level(_LEFT, _RIGHT, _y(share), say.number(share, ".0%")) for share in (0.0, 0.5, 1.0)]
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
        parts.append(
            f'<circle class="{css}" cx="{x}" cy="10" r="4"/>' + text(x + 8, 14, say(words))
        )
    return drawing(HEIGHT, answers_sentence(view, say=say), [*parts, *_axis(say)])


def answers_sentence(view: CrowdView, *, say: Speaker = ENGLISH) -> str:
    """Return in words what the lines show."""
    if not view.tenths:
        return say("Nobody's published answers are about this kind of photo.")
    best = max(view.tenths, key=lambda tenth: tenth.just_right)
    low, high = best.interval
    return say(
        "Share of answers by strength. “Just right” is most frequent from {start:.1f} to "
        "{end:.1f}: {share:.0%} of {n} answers, with 90 % certainty {low:.0%} to {high:.0%}.",
        start=best.low,
        end=best.low + 0.1,
        share=best.just_right,
        n=best.n_answers,
        low=low,
        high=high,
    )


def answers_csv(view: CrowdView) -> bytes:
    """Return the numbers behind `answers_chart`."""
    return table(
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
    return table(
        ("release", "epsilon", "raters", "from", "to", "noisy_raters"),
        [
            (release.name, release.epsilon, release.n_raters, i / n, (i + 1) / n, value)
            for i, value in enumerate(release.noisy_raters)
        ],
    )


def _round_step(highest: float) -> float:
    """Return a step that puts a few lines below `highest`."""
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (2.0, 1.0, 0.5) if highest >= _LEAST_LINES * step * power)


def _middle(tenth: Tenth) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (tenth.low + 0.05)


def _y(share: float) -> float:
    return _GROUND - (_GROUND - _TOP) * share


def _axis(say: Speaker) -> list[str]:
    width = _RIGHT - _LEFT
    ticks = [
        text(_LEFT + width * at, _GROUND + 17, say.number(at, "g"), anchor="middle")
        for at in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return [
        *ticks,
        text(_LEFT - 8, _GROUND + 34, say("still me")),
        text(_RIGHT + 8, _GROUND + 34, say("somebody else"), anchor="end"),
    ]
