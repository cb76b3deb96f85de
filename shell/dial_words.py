"""What the page says of a dial: where it stands, why, and what would set it; knows one record.

Beside `wording.py`, which has the words of the whole page.
"""

from __future__ import annotations

from shell.dial import Standing
from shell.languages import ENGLISH, Speaker


def progress_line(standing: Standing, *, say: Speaker = ENGLISH) -> str:
    """Say how many answers are missing, or that there is no need for more."""
    if standing.is_settled:
        return say(
            "**Your dial is settled** at strength {strength:.2f}. More answers would hardly move "
            "it, so we stop asking.",
            strength=standing.strength,
        )
    return say.count(
        standing.answers_left,
        "About {n} more answer and your dial is settled.",
        "About {n} more answers and your dial is settled.",
    )


def use_label(standing: Standing, *, say: Speaker = ENGLISH) -> str:
    """Return what stands on the button that sets the dial."""
    if standing.target.source == "own":
        return say("Use my strength, {strength:.2f}", strength=standing.strength)
    return say("Use {strength:.2f} for now", strength=standing.strength)


def set_line(standing: Standing, *, say: Speaker = ENGLISH) -> str:
    """Say where a strength on the dial comes from, nothing while it is everyone's."""
    if standing.target.source == "population":
        return ""
    return say(
        "The dial is set to **your strength, {strength:.2f}**, from your answers.",
        strength=standing.strength,
    )


def why_lines(standing: Standing, *, say: Speaker = ENGLISH) -> str:
    """Say in plain words why the dial would be set where it would: answers, floor, others."""
    target = standing.target
    own = say(
        "**Your answers:** {answers} about {photos}. By them the strength you want for this photo "
        "is about {mean:.2f}, and with 90 % certainty between {low:.2f} and {high:.2f}.",
        answers=say.count(target.n_ratings, "{n} answer", "{n} answers"),
        photos=say.count(target.n_photos, "{n} photo", "{n} photos"),
        mean=standing.mean,
        low=standing.low,
        high=standing.high,
    )
    used = say(
        "**Others:** your answers do not say enough yet, so the dial stays at {strength:.2f}, "
        "where everyone starts.",
        strength=standing.strength,
    )
    if target.source == "own":
        used = say(
            "**What is used:** the strength that is enough for you with {quantile:.0%} certainty, "
            "as being recognised costs more than being changed a little too much. Rounded up to "
            "the dial's steps, and never below the floor, that is {strength:.2f}.",
            quantile=target.quantile,
            strength=standing.strength,
        )
    unseen = say("**Not covered by ε:** that you chose while seeing the original.")
    return "\n".join(f"- {line}" for line in (own, used, _floor_line(standing, say), unseen))


def _floor_line(standing: Standing, say: Speaker) -> str:
    floor = say(
        "**The floor:** {floor:.2f}, the same for every photo. Below it a face recogniser still "
        "knew more than half of the people the model was tested on, so the dial is never set "
        "lower for you.",
        floor=standing.floor,
    )
    raised = say("Your answers alone would say less.") if standing.target.floor_applied else ""
    return " ".join(filter(None, (floor, raised, say("You can still turn it there yourself."))))
