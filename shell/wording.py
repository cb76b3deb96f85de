"""What the page says: texts, and sentences about variants, answers and dials; no state, no model.

Knows records only. `CONSENT_TEXT` changes only together with `desk.CONSENT` and its translations.
"""

from __future__ import annotations

from collections.abc import Sequence

from feedback import InvalidRatingError
from feedback.sync.erasure import Receipt
from feedback.sync.health import Health
from privacy_core.privacy import DELTA, NOT_COVERED
from privacy_core.schema import PrivacyStatement, Variant
from shell.languages import ENGLISH, Speaker, message

LETTERS = "ABCD"
TILES = {
    "A": message("Variant A"),
    "B": message("Variant B"),
    "C": message("Variant C"),
    "D": message("Variant D"),
}
JUST_RIGHT = (
    message("Still far too recognisable"),
    message("A bit too recognisable"),
    message("Just right"),
    message("Changed a bit too much"),
    message("Changed far too much"),
)
NONE = message("None of these is good enough")
WHY_NOT = (message("All are too recognisable"), message("All are changed too much"))
WHY_NOT_ANSWERS = (1, 3)
"""`WHY_NOT` as `just_right`: how far off they are is not asked, so slightly."""
COMPARED = message("A variant picked while looking at the original is outside ε.")
QUESTION = message(
    "## Which one would you post?\nFour strengths in random order. A variant picked while looking "
    "at the original is outside ε."
)
REVEALED = message("## Your dial")
INTRO = message("""# Privacy Dial
Turn one dial from “still me” to “somebody else”, and download the portrait you would post.
""")
KEEP, PUBLISH = "keep", "publish"
CONSENT_QUESTION = message("Your answers (optional)")
CONSENT_CHOICES = (
    (message("Keep my answers; I am 16 or older"), KEEP),
    (message("If kept, they may be published one by one"), PUBLISH),
)
CONSENT_TEXT = message("""
If you tick the first box, we keep for this page: the four strengths, your answers, how long they
took, what you chose to keep or hide, the time, and random names for you, this visit and this photo.
**Never the photo**, a face, your address or your browser. We use answers to find the strength you
like and, added up with those of others, for published totals. They are kept on this server and,
where its operator has set one up, in a private data set on the Hugging Face Hub, until you delete
them: you get a code for that, and “Delete my answers” below works here at once and on the Hub
within 24 hours. Tick it only if you are 16 or older.

If you tick the second box too, your answers may be part of a **public data set**: each with new
random names, the day instead of the time, without what you kept or hid, and only where at least ten
people answered about the same model, strength and kind of photo. Once the next edition is published
without them they are gone from there, but copies that others made before cannot be called back.

Without the first tick nothing is stored here, and everything works the same: in both cases your own
browser keeps a sealed record of your answers, so that your dial is still there when you come back.
“Delete my answers” clears it too.
""")
ABOUT = message("""
- **Your photo** stays in this server's memory and, as small previews, in a temporary folder while
  you use it. Previews go after about 15 minutes, the photo itself when 12 newer ones are open or
  at the latest an hour after you close the page. Place, time and all other metadata are dropped;
  downloads carry one mark, that the picture was edited by an algorithm.
- **Only faces that are found are replaced.** The detector misses some, above all small, turned or
  covered ones. Look at the result before you post it. Hair, clothes and background stay.
- **The model** was trained on CelebA and UTKFace, for non-commercial research only. The people in
  those pictures did not consent to this use. Example faces are made by the same model and are
  nobody's.
- **What is stored:** nothing on this server, unless you tick “Keep my answers”. Your browser keeps
  a sealed record of your answers, without your name, for your own dial.
""")
OWN_NOISE = message(
    "Each combination has noise of its own, so pictures made with several of them tell more "
    "together than one alone."
)
NUMBER = message("""
ε bounds what anyone can learn about the face from this picture, whatever else they know: 0 is
nothing, and each step doubles or triples the odds they can win. It is stated at δ = {delta:.5f}.
It does not cover:
""")
EXAMPLES_LINE = message("Or try one of these people, who do not exist:")
_FAIR = 10
_ONE_PERCENT = 0.01
_LIMITS = (1, _FAIR, 100)
_PROMISES = (
    message("a strong promise"),
    message("a fair promise"),
    message("a weak promise"),
    message("too large to promise anything by itself"),
)


def number_text(*, say: Speaker = ENGLISH) -> str:
    """Say what ε is, and what it does not cover."""
    gaps = "\n".join(f"- {say.retell(sentence)}" for sentence in NOT_COVERED)
    return say(NUMBER, delta=DELTA) + gaps


def found_line(n_faces: int, notes: Sequence[str], *, say: Speaker = ENGLISH) -> str:
    """Say how many faces were found and what was changed in reading."""
    found = say.count(n_faces, "{n} face found", "{n} faces found, each gets its own noise")
    read = (say("In reading your photo: {note}", note=say.retell(note) or note) for note in notes)
    return ". ".join([found, *read]) + "."


def privacy_line(variant: Variant, *, say: Speaker = ENGLISH) -> str:
    """Say what a variant guarantees, in plain words."""
    head = say("**Strength {strength:.2f}**", strength=variant.strength)
    if not variant.protected:
        reason = _reason(variant.privacy, say) or say("the face is kept")
        return f"{head} · {say('**Not anonymous:** {reason}.', reason=reason)}"
    each = say(" for each face") if variant.n_faces > 1 else ""
    return f"{head} · {_guarantee(variant.privacy, each, say)}"


def total_line(
    total: PrivacyStatement, n_downloads: int, n_left: int = 0, *, say: Speaker = ENGLISH
) -> str:
    """Say what everything downloaded in this visit guarantees together.

    Args:
        total: Of the faces that were always anonymized.
        n_downloads: Pictures.
        n_left: Faces that were left as they are in any of them.
        say: Says it in a language.
    """
    if n_downloads == 1:
        said = say("Downloaded 1 picture.")
        but = say.count(
            n_left,
            "**{n} person is left as they are in it: not anonymous.**",
            "**{n} people are left as they are in it: not anonymous.**",
        )
    else:
        said = say(
            "Downloaded {n} pictures. Together, if they show the same person: {together}",
            n=n_downloads,
            together=_guarantee(total, "", say),
        )
        but = say.count(
            n_left,
            "**It does not hold for the person left as they are.**",
            "**It does not hold for the {n} people left as they are.**",
        )
    return f"{said} {but}" if n_left else said


def reveal_line(variants: Sequence[Variant], best: int | None, *, say: Speaker = ENGLISH) -> str:
    """Say which strengths stood behind the letters."""
    parts = [
        f"{letter} {say.number(variant.strength, '.1f')}"
        for letter, variant in zip(LETTERS, variants, strict=True)
    ]
    chose = say("You chose **none**.")
    if best is not None:
        chose = say(
            "You chose **{letter}: strength {strength:.1f}**.",
            letter=LETTERS[best],
            strength=variants[best].strength,
        )
    return f"{chose} {say('All four: {strengths}.', strengths=', '.join(parts))}"


def tile_label(position: int, variant: Variant, best: int | None, *, say: Speaker = ENGLISH) -> str:
    """Return what stands over a picture once the strengths are revealed."""
    mark = " ✓" if position == best else ""
    return f"{LETTERS[position]} · {say.number(variant.strength, '.1f')}{mark}"


def undone_line(n_removed: int, *, say: Speaker = ENGLISH) -> str:
    """Say what was taken back."""
    rows = ""
    if n_removed:
        rows = say.count(n_removed, "{n} saved row is deleted.", "{n} saved rows are deleted.")
    parts = (say("**Taken back.**"), rows, say("Your dial is where it was before."))
    return " ".join(filter(None, parts))


def read_answer(
    best: str | None, just_right: str | None, why_not: str | None
) -> tuple[int | None, int]:
    """Return position and second answer of the page's words, as `feedback.Answer` has them.

    Raises:
        InvalidRatingError: An answer is missing, or is none of those offered.
    """
    second, choices = (why_not, WHY_NOT) if best == NONE else (just_right, JUST_RIGHT)
    if best is None or second is None:
        raise InvalidRatingError(
            "Both questions must be answered, got one or none. Choose a picture or none, then say "
            "how it is, or skip."
        )
    if best == NONE:
        return None, WHY_NOT_ANSWERS[_position(choices, second)]
    return _position(tuple(LETTERS), best), _position(choices, second)


def _position(choices: Sequence[str], choice: str) -> int:
    if choice not in choices:
        raise InvalidRatingError(f"An answer must be one of {', '.join(choices)}; choose one.")
    return choices.index(choice)


def saved_line(n_rows: int, recovery_code: str | None, *, say: Speaker = ENGLISH) -> str:
    """Say whether answers were kept, and once how to delete them."""
    if not n_rows:
        return say("Nothing was stored here.")
    if recovery_code is None:
        return say("**Saved.**")
    return say(
        "**Saved.** Your code to delete your answers, shown only now: `{code}`", code=recovery_code
    )


def measured_line(share: float | None, *, say: Speaker = ENGLISH) -> str:
    """Say how often variants of this noise were still recognised when the model was measured."""
    if share is None:
        return ""
    shown = say("under 1%") if share < _ONE_PERCENT else say.number(share, ".0%")
    return say(
        " In our tests an ordinary face recogniser still knew {shown} of the originals.",
        shown=shown,
    )


def worst_line(rate: float, *, say: Speaker = ENGLISH) -> str:
    """Say what the best conceivable attack achieves, at one false alarm in a thousand."""
    return say(
        " Someone who already has this exact photo knows it by what surrounds the face. From the "
        "new face alone they could typically confirm it in {rate:.1%} of cases, with 1 false alarm "
        "in 1,000.",
        rate=rate,
    )


def storage_line(health: Health, *, say: Speaker = ENGLISH) -> str:
    """Say how answers are kept; names no place, as this is for every visitor."""
    n_rows = health.outbox_rows + health.in_remote_rows
    saved = say("{n} ratings of visitors who agreed are saved on this server", n=n_rows)
    if not health.keeps:
        return say("{saved}, and nowhere else.", saved=saved)
    waiting = say(
        "{n} of them wait to be copied to a private data set on the Hub", n=health.outbox_rows
    )
    if not health.outbox_rows:
        waiting = say("all of them are copied to a private data set on the Hub")
    last = health.last_success
    copied = say("not copied yet")
    if last is not None:
        copied = say("last copied {last:%Y-%m-%d %H:%M} UTC", last=last)
    parts = [f"{saved}; {waiting}, {copied}."]
    if health.last_error:
        parts.append(say("The Hub cannot be used right now; answers wait here safely."))
    return " ".join(parts)


def erased_line(receipt: Receipt | None, *, say: Speaker = ENGLISH) -> str:
    """Say what was deleted, and what is still to follow."""
    if receipt is None:
        return say(
            "**Deleted:** your browser's record of your answers. This page knows of none saved on "
            "this server; if a code was ever shown to you, enter it to delete those too."
        )
    here = say(
        "**Deleted:** {n} rows here, and your browser's record of your answers.",
        n=receipt.rows_local,
    )
    there = ""
    if not receipt.is_done and receipt.due is not None:
        there = say("The copy on the Hub is cleared within 24 hours.")
    elif not receipt.is_done:
        there = say("**A copy is still on the Hub**, until this server is connected to it again.")
    number = say(
        "Receipt {number}, {requested:%Y-%m-%d %H:%M} UTC.",
        number=str(receipt.number),
        requested=receipt.requested,
    )
    return " ".join(filter(None, (here, there, number)))


def _guarantee(privacy: PrivacyStatement, each: str, say: Speaker) -> str:
    epsilon = privacy.epsilon
    if epsilon is None:
        return say("no guarantee: {reason}.", reason=_reason(privacy, say))
    return say(
        "privacy loss ε = {number}{each}, the smaller the better: {promise}.",
        number=say.number(epsilon, ".2g" if epsilon < _FAIR else ",.0f"),
        each=each,
        promise=say(_PROMISES[sum(epsilon > limit for limit in _LIMITS)]),
    )


def _reason(privacy: PrivacyStatement, say: Speaker) -> str:
    """Return why nothing is guaranteed, "" where something is."""
    return say.retell(privacy.reason or "") or privacy.reason or ""
