"""The *About* page: what is guaranteed and what is not, with the model's own measured figures."""

from __future__ import annotations

import math

from privacy_core.privacy import DELTA, NOT_COVERED, epsilon_of, matched_filter_tpr, mu_of
from privacy_core.report import FALSE_POSITIVE_RATE, verified_share_at
from privacy_core.schema import StrengthCurve
from shell.languages import ENGLISH, Speaker, message
from shell.wording import ABOUT

STRENGTHS = (0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 0.95, 1.0)
GUARANTEE = message("""
## What is guaranteed
Noise is added to 512 numbers that stand for the face, and the new face is made from the noisy
numbers and from what surrounds the face. So ε bounds what **anyone** can learn about the pixels
inside the mask from the picture, whatever they know and whatever they try: it needs no assumption
about the attacker. It is large at every strength below 1, and promises little by itself: someone
who owns the exact original and only wants to confirm it can mostly do so. What face recognition
achieves is far less, and is measured, not proven. Read both.

ε is stated at δ = {delta:.5f} for one face in one picture; several pictures of one person add up.

## What is not
""")
NO_FIGURES = message("For this model nothing was measured: `calibrate` measures it.")
_HEAD = message("| strength | recognised | confirmed | ε |")
MEASURED = message(
    "On photos of held-out people, from the calibration that is stored with the weights. "
    "“Recognised”: {recogniser} calls it the same person as the original, at a distance at which 1 "
    "in 1 000 pairs of different people match too. “Confirmed”: the best possible test of the "
    "face's noised numbers by someone who has the exact original, at 1 false alarm in 1 000; hair "
    "and background tell them anyway. Other recognisers may know more."
)


def about_text(
    curve: StrengthCurve | None, *, clip_radius: float | None = None, say: Speaker = ENGLISH
) -> str:
    """Return the page as Markdown.

    Args:
        curve: Of the model that the page serves, None where it was not calibrated.
        clip_radius: C, the norm to which codes are clipped; None leaves ε out.
        say: Says it in a language.
    """
    gaps = "\n".join(f"- {say.retell(sentence)}" for sentence in NOT_COVERED)
    return "\n".join(
        (
            f"{say(GUARANTEE, delta=DELTA)}{gaps}\n",
            say("## What was measured"),
            f"{_figures(curve, clip_radius, say)}\n",
            say("## Your data"),
            say(ABOUT),
        )
    )


def _figures(curve: StrengthCurve | None, clip_radius: float | None, say: Speaker) -> str:
    """Return the table over strengths, from the curve that is stored with the weights."""
    if curve is None or verified_share_at(1.0, curve) is None:
        return say(NO_FIGURES)
    recogniser, distance = (curve.measured.get(n) for n in ("recogniser", "typical_code_distance"))
    sigmas = [*curve.rung_sigmas().tolist(), None]
    rows = []
    for strength in STRENGTHS:
        sigma = sigmas[curve.rung(strength) - 1]
        share = verified_share_at(sigma, curve)
        rows.append(
            f"| {say.number(strength, 'g')} | {_share(share, say)} | "
            f"{_confirmed(distance, sigma, say)} | {_epsilon(sigma, clip_radius, say)} |"
        )
    said = say(MEASURED, recogniser=recogniser)
    return "\n".join((f"{said}\n", say(_HEAD), "|---|---|---|---|", *rows))


def _share(share: float | None, say: Speaker) -> str:
    return "–" if share is None else say.number(share, ".1%")


def _confirmed(distance: object, sigma: float | None, say: Speaker) -> str:
    if not isinstance(distance, int | float):
        return "–"
    rate = matched_filter_tpr(distance, sigma or math.inf, fpr=FALSE_POSITIVE_RATE)
    return say.number(rate, ".1%")


def _epsilon(sigma: float | None, clip_radius: float | None, say: Speaker) -> str:
    if sigma is None:
        return "0"
    if clip_radius is None:
        return "–"
    return say.number(epsilon_of(mu_of(sigma, clip_radius)), ",.0f")
