"""What the page says: texts, and sentences about variants, answers and dials; no state, no model.

Knows records only. `CONSENT_TEXT` changes only together with `desk.CONSENT`.
"""

from __future__ import annotations

from collections.abc import Sequence

from feedback import InvalidRatingError
from feedback.sync.erasure import Receipt
from feedback.sync.health import Health
from privacy_core.privacy import DELTA
from privacy_core.schema import PrivacyStatement, Variant
from shell.dial import Standing

LETTERS = "ABCD"
JUST_RIGHT = (
    "Still far too recognisable",
    "A bit too recognisable",
    "Just right",
    "Changed a bit too much",
    "Changed far too much",
)
NONE = "None of these is good enough"
WHY_NOT = ("All are too recognisable", "All are changed too much")
WHY_NOT_ANSWERS = (1, 3)
"""`WHY_NOT` as `just_right`: how far off they are is not asked, so slightly."""
COMPARED = "A variant picked while looking at the original is outside ε."
QUESTION = f"## Which one would you post?\nFour strengths in random order. {COMPARED}"
REVEALED = "## Your dial"
INTRO = """# Privacy Dial
Turn one dial from “still me” to “somebody else”, and download the portrait you would post.
"""
KEEP, PUBLISH = "keep", "publish"
CONSENT_QUESTION = "Your answers (optional)"
CONSENT_CHOICES = (
    ("Keep my answers; I am 16 or older", KEEP),
    ("If kept, they may be published one by one", PUBLISH),
)
CONSENT_TEXT = """
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
"""
ABOUT = """
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
"""
OWN_NOISE = (
    "Each combination has noise of its own, so pictures made with several of them tell more "
    "together than one alone."
)
NUMBER = f"""
ε bounds what anyone can learn about the face from this picture, whatever else they know: 0 is
nothing, and each step doubles or triples the odds they can win. It is stated at δ = {DELTA:.5f}.
It does not cover:
"""
EXAMPLES_LINE = "Or try one of these people, who do not exist:"
_FAIR = 10
_ONE_PERCENT = 0.01
_LIMITS = (1, _FAIR, 100)
_PROMISES = (
    "a strong promise",
    "a fair promise",
    "a weak promise",
    "too large to promise anything by itself",
)


def found_line(n_faces: int, notes: Sequence[str]) -> str:
    """Say how many faces were found and what was changed in reading."""
    found = "1 face found" if n_faces == 1 else f"{n_faces} faces found, each gets its own noise"
    return ". ".join([found, *(f"In reading your photo: {note}" for note in notes)]) + "."


def privacy_line(variant: Variant) -> str:
    """Say what a variant guarantees, in plain words."""
    head = f"**Strength {variant.strength:.2f}**"
    if not variant.protected:
        return f"{head} · **Not anonymous:** {variant.privacy.reason or 'the face is kept'}."
    each = " for each face" if variant.n_faces > 1 else ""
    return f"{head} · {_guarantee(variant.privacy, each)}"


def total_line(total: PrivacyStatement, n_downloads: int) -> str:
    """Say what everything downloaded in this visit guarantees together."""
    if n_downloads == 1:
        return "Downloaded 1 picture."
    together = _guarantee(total, "")
    return f"Downloaded {n_downloads} pictures. Together, if they show the same person: {together}"


def reveal_line(variants: Sequence[Variant], best: int | None) -> str:
    """Say which strengths stood behind the letters."""
    parts = [f"{letter} {v.strength:.1f}" for letter, v in zip(LETTERS, variants, strict=True)]
    chose = (
        "You chose **none**"
        if best is None
        else f"You chose **{LETTERS[best]}: strength {variants[best].strength:.1f}**"
    )
    return f"{chose}. All four: {', '.join(parts)}."


def tile_label(position: int, variant: Variant, best: int | None) -> str:
    """Return what stands over a picture once the strengths are revealed."""
    mark = " ✓" if position == best else ""
    return f"{LETTERS[position]} · {variant.strength:.1f}{mark}"


def progress_line(standing: Standing) -> str:
    """Say how many answers are missing, or that there is no need for more."""
    if standing.is_settled:
        return (
            f"**Your dial is settled** at strength {standing.strength:.2f}. More answers would "
            "hardly move it, so we stop asking."
        )
    answers = "answer" if standing.answers_left == 1 else "answers"
    return f"About {standing.answers_left} more {answers} and your dial is settled."


def use_label(standing: Standing) -> str:
    """Return what stands on the button that sets the dial."""
    if standing.target.source == "own":
        return f"Use my strength, {standing.strength:.2f}"
    return f"Use {standing.strength:.2f} for now"


def set_line(standing: Standing) -> str:
    """Say where a strength on the dial comes from, nothing while it is everyone's."""
    if standing.target.source == "population":
        return ""
    return f"The dial is set to **your strength, {standing.strength:.2f}**, from your answers."


def why_lines(standing: Standing) -> str:
    """Say in plain words why the dial would be set where it would: answers, floor, others."""
    target = standing.target
    answers = "1 answer" if target.n_ratings == 1 else f"{target.n_ratings} answers"
    photos = "1 photo" if target.n_photos == 1 else f"{target.n_photos} photos"
    own = (
        f"- **Your answers:** {answers} about {photos}. By them the strength you want for this "
        f"photo is about {standing.mean:.2f}, and with 90 % certainty between {standing.low:.2f} "
        f"and {standing.high:.2f}."
    )
    if target.source == "own":
        used = (
            f"- **What is used:** the strength that is enough for you with {target.quantile:.0%} "
            "certainty, as being recognised costs more than being changed a little too much. "
            f"Rounded up to the dial's steps, and never below the floor, that is "
            f"{standing.strength:.2f}."
        )
    else:
        used = (
            f"- **Others:** your answers do not say enough yet, so the dial stays at "
            f"{standing.strength:.2f}, where everyone starts."
        )
    raised = " Your answers alone would say less." if target.floor_applied else ""
    floor = (
        f"- **The floor:** {standing.floor:.2f}, the same for every photo. Below it a face "
        "recogniser still knew more than half of the people the model was tested on, so the dial "
        f"is never set lower for you.{raised} You can still turn it there yourself."
    )
    return (
        f"{own}\n{used}\n{floor}\n- **Not covered by ε:** that you chose while seeing the original."
    )


def undone_line(n_removed: int) -> str:
    """Say what was taken back."""
    rows = "" if not n_removed else f" {n_removed} saved rows are deleted."
    return f"**Taken back.**{rows} Your dial is where it was before."


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


def saved_line(n_rows: int, recovery_code: str | None) -> str:
    """Say whether answers were kept, and once how to delete them."""
    if not n_rows:
        return "Nothing was stored here."
    if recovery_code is None:
        return "**Saved.**"
    return f"**Saved.** Your code to delete your answers, shown only now: `{recovery_code}`"


def measured_line(share: float | None) -> str:
    """Say how often variants of this noise were still recognised when the model was measured."""
    if share is None:
        return ""
    shown = "under 1%" if share < _ONE_PERCENT else f"{share:.0%}"
    return f" In our tests an ordinary face recogniser still knew {shown} of the originals."


def worst_line(rate: float) -> str:
    """Say what the best conceivable attack achieves, at one false alarm in a thousand."""
    return (
        f" Someone who already has this exact photo and knows the model inside out could typically "
        f"confirm it in {rate:.0%} of cases, with 1 false alarm in 1,000."
    )


def storage_line(health: Health) -> str:
    """Say how answers are kept; names no place, as this is for every visitor."""
    n_rows = health.outbox_rows + health.in_remote_rows
    saved = f"{n_rows} ratings of visitors who agreed are saved on this server"
    if not health.keeps:
        return f"{saved}, and nowhere else."
    waiting = f"{health.outbox_rows} of them wait to be copied to a private data set on the Hub"
    if not health.outbox_rows:
        waiting = "all of them are copied to a private data set on the Hub"
    last = health.last_success
    copied = "not copied yet" if last is None else f"last copied {last:%Y-%m-%d %H:%M} UTC"
    late = " The Hub cannot be used right now; answers wait here safely." * bool(health.last_error)
    return f"{saved}; {waiting}, {copied}.{late}"


def erased_line(receipt: Receipt | None) -> str:
    """Say what was deleted, and what is still to follow."""
    if receipt is None:
        return (
            "**Deleted:** your browser's record of your answers. Nothing was saved on this server "
            "in this visit."
        )
    here = (
        f"**Deleted:** {receipt.rows_local} rows here, and your browser's record of your answers."
    )
    there = ""
    if not receipt.is_done and receipt.due is not None:
        there = " The copy on the Hub is cleared within 24 hours."
    elif not receipt.is_done:
        there = " **A copy is still on the Hub**, until this server is connected to it again."
    return f"{here}{there} Receipt {receipt.number}, {receipt.requested:%Y-%m-%d %H:%M} UTC."


def _guarantee(privacy: PrivacyStatement, each: str) -> str:
    epsilon = privacy.epsilon
    if epsilon is None:
        return f"no guarantee: {privacy.reason}."
    number = f"{epsilon:.2g}" if epsilon < _FAIR else f"{epsilon:,.0f}"
    word = _PROMISES[sum(epsilon > limit for limit in _LIMITS)]
    return f"privacy loss ε = {number}{each}, the smaller the better: {word}."
