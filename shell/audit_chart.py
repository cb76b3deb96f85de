"""Draws an audit's numbers as small SVGs; knows `audit.json` as plain values, no page, no model.

Colours come from the page's style by class, so that the pictures read in light and dark; the same
content stands in their text alternatives.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from shell.languages import ENGLISH, Speaker, message
from shell.svg import drawing, level, text

_LEFT, _RIGHT = 42, 334
GROUPS = (message("original"), message("unlearned"), message("reference"))
ROWS = (message("retain"), message("forget"), message("revised"), message("test"))
_COSTS = (message("seconds"), message("gradient evaluations"))
ATTACK = "per-example attack AUC"
"""The gate's name for the check of the attack."""
_LABEL = 92
_HALF = 0.5


def accuracy_chart(audit: Mapping[str, Any], *, say: Speaker = ENGLISH) -> str:
    """Return bars of accuracy with intervals: each model on each kind of rows."""
    found = _accuracies(audit)
    rows = [name for name in ROWS if any(name in one for one in found.values())]
    top, ground = 30, 150
    span = (_RIGHT - _LEFT) / max(len(rows), 1)
    wide = 0.8 * span / max(len(found), 1)

    def y(share: float) -> float:
        return ground - (ground - top) * share

    parts = [_legend(tuple(found), say)]
    parts += [level(_LEFT, _RIGHT, y(share), say.number(share, ".0%")) for share in (0.0, 0.5, 1.0)]
    for place, name in enumerate(rows):
        for number, (group, values) in enumerate(found.items()):
            if name not in values:
                continue
            value, low, high = _ends(values[name])
            x = _LEFT + span * (place + 0.1) + number * wide
            parts.append(
                f'<rect class="{group}" x="{x:.1f}" y="{y(value):.1f}" width="{wide - 2:.1f}" '
                f'height="{ground - y(value):.1f}"/>'
                f'<path class="interval" d="M{x + wide / 2 - 1:.1f} {y(low):.1f}V{y(high):.1f}"/>'
            )
        parts.append(text(_LEFT + span * (place + 0.5), ground + 17, say(name), anchor="middle"))
    return drawing(ground + 24, accuracy_sentence(audit, say=say), parts)


def accuracy_sentence(audit: Mapping[str, Any], *, say: Speaker = ENGLISH) -> str:
    """Return in words what the bars show."""
    parts = [
        say(
            "{group} model: {shares}",
            group=say(group),
            shares=", ".join(
                f"{say(name)} {_percent(values[name], say)}" for name in ROWS if name in values
            ),
        )
        for group, values in _accuracies(audit).items()
    ]
    return say("Accuracy with 95 % intervals. {models}.", models="; ".join(parts))


def attack_chart(audit: Mapping[str, Any], *, say: Speaker = ENGLISH) -> str:
    """Return how well the attack tells each model from retrained ones; "" where it was not run."""
    found, limit = _attacks(audit), _limit(audit)
    if not found:
        return ""
    ground = 34 + 30 * len(found)

    def x(auc: float) -> float:
        return _LABEL + (_RIGHT - 8 - _LABEL) * auc

    parts = [
        f'<line class="rule" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="22" y2="{ground}"/>'
        + text(x(at), ground + 16, words, anchor="middle")
        for at, words in ((0.0, "0"), (_HALF, say("0.5 guessing")), (1.0, "1"))
    ]
    if limit is not None:
        parts.append(
            f'<line class="limit" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="18" y2="{ground}"/>'
            + text(x(limit), 13, say("limit {limit:.2f}", limit=limit), anchor="middle")
        )
    for place, (group, values) in enumerate(found.items()):
        value, low, high = _ends(values)
        y = 40 + 30 * place
        name = say("control") if group == "reference" else say(group)
        parts.append(
            text(0, y + 4, name)
            + f'<path class="interval {group}" d="M{x(low):.1f} {y}H{x(high):.1f}"/>'
            f'<circle class="{group}" cx="{x(value):.1f}" cy="{y}" r="5.5"/>'
        )
    return drawing(ground + 24, attack_sentence(audit, say=say), parts)


def attack_sentence(audit: Mapping[str, Any], *, say: Speaker = ENGLISH) -> str:
    """Return in words what the attack found."""
    parts = [
        f"{_attacked(group, say)} {say.number(values['value'], '.2f')}{_between(values, say)}"
        for group, values in _attacks(audit).items()
    ]
    limit = _limit(audit)
    models = "; ".join(parts)
    found = say("Area under the attack's curve, 0.5 is guessing. {models}.", models=models)
    if limit is None:
        return found
    ending = say("The gate's limit is {limit:.2f}.", limit=limit)
    return f"{found} {ending}"


def cost_chart(audit: Mapping[str, Any], *, say: Speaker = ENGLISH) -> str:
    """Return unlearning's cost beside retraining's; "" where it was not measured."""
    ratios = audit["costs"].get("ratio_to_retraining", {})
    if not ratios:
        return ""
    highest = max(1.0, *ratios.values())
    parts, y = [], 20
    for name, ratio in ratios.items():
        parts.append(text(0, y, say(name.replace("_", " "))))
        for group, share in (("unlearned", ratio), ("reference", 1.0)):
            y += 8
            parts.append(
                f'<rect class="{group}" x="0" y="{y}" height="12" '
                f'width="{max(1.0, 250 * share / highest):.1f}"/>'
                + text(max(1.0, 250 * share / highest) + 6, y + 11, say.number(share, ".0%"))
            )
            y += 8
        y += 24
    parts.insert(0, _legend(("unlearned", "reference"), say, y=y + 2))
    return drawing(y + 10, cost_sentence(audit, say=say), parts)


def cost_sentence(audit: Mapping[str, Any], *, say: Speaker = ENGLISH) -> str:
    """Return in words what unlearning cost."""
    ratios = audit["costs"].get("ratio_to_retraining", {})
    if not ratios:
        return ""
    parts = [
        say("{ratio:.0%} of the {unit}", ratio=ratio, unit=say(name.replace("_", " ")))
        for name, ratio in ratios.items()
    ]
    return say("Unlearning took {parts} of retraining.", parts=say(" and ").join(parts))


def drawn(svg: bytes | None, sentence: str, *, say: Speaker = ENGLISH) -> str:
    """Return one of the audit's own plots as a picture inside the page; "" without one."""
    if svg is None:
        return ""
    data = base64.b64encode(svg).decode()
    # On a phone it is wider than the page, so it can be scrolled, by keyboard too.
    return (
        '<div class="drawing" tabindex="0" role="region" '
        f"aria-label={quoteattr(say('Curve, may be scrolled'))}>"
        f'<img class="plot" alt={quoteattr(sentence)} src="data:image/svg+xml;base64,{data}"/>'
        "</div>"
    )


def _accuracies(audit: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    models = audit["models"]
    return {name: models[name]["accuracy"] for name in GROUPS if name in models}


def _attacks(audit: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    models = audit["models"]
    return {
        name: models[name]["u_lira"]["auc"] for name in GROUPS if "u_lira" in models.get(name, {})
    }


def _limit(audit: Mapping[str, Any]) -> float | None:
    found = [check["limit"] for check in audit["gate"]["checks"] if check["name"] == ATTACK]
    return found[0] if found else None


def _ends(values: Mapping[str, float | None]) -> tuple[float, float, float]:
    value = values["value"] or 0.0
    low, high = values["low"], values["high"]
    return value, value if low is None else low, value if high is None else high


def _percent(values: Mapping[str, float | None], say: Speaker) -> str:
    value, low, high = _ends(values)
    return say("{value:.0%} ({low:.0%} to {high:.0%})", value=value, low=low, high=high)


def _attacked(group: str, say: Speaker) -> str:
    if group == "reference":
        return say("control: retrained models")
    return say("{group} model", group=say(group))


def _between(values: Mapping[str, float | None], say: Speaker) -> str:
    low, high = values["low"], values["high"]
    if low is None or high is None:
        return ""
    return f" {say('({low:.2f} to {high:.2f})', low=low, high=high)}"


def _legend(groups: Sequence[str], say: Speaker, *, y: int = 12) -> str:
    return "".join(
        f'<rect class="{group}" x="{8 + 108 * place}" y="{y - 9}" width="10" height="10"/>'
        + text(23 + 108 * place, y, say(group))
        for place, group in enumerate(groups)
    )
