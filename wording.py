"""What the page says and how it looks: texts, sentences about variants, style; no state, no model.

Knows records only. `CONSENT_TEXT` changes only together with `visit.CONSENT`.
"""

from __future__ import annotations

from collections.abc import Sequence

from privacy_core.privacy import DELTA
from privacy_core.schema import PrivacyStatement, Variant

LETTERS = "ABCD"
JUST_RIGHT = (
    "Still far too recognisable",
    "A bit too recognisable",
    "Just right",
    "Changed a bit too much",
    "Changed far too much",
)
INTRO = """# Privacy Dial
Turn one dial from “still me” to “somebody else”, and download the portrait you would post.
"""
CONSENT_LABEL = "Keep my answers (optional; I am 16 or older)"
CONSENT_TEXT = """
If you tick the box, we keep for this page: the four strengths, your two answers, how long they
took, the time, and random names for you, this visit and this photo. **Never the photo**, a face,
your address or your browser. We use answers to find the strength you like and, added up with those
of others, for published totals. They are kept until you delete them: you get a code for that, and
“Delete my answers” below works at once. Tick it only if you are 16 or older. Without the tick
nothing is stored, and everything works the same.
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
- **What is stored:** nothing, unless you tick “Keep my answers”.
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
CSS = """
.gradio-container, .gradio-container main, .gradio-container .main {
  width: 100%; max-width: 1080px !important; margin-inline: auto !important;
}
button.lg, button.md, .label-wrap, .source-selection button { min-height: 44px; }
.label-wrap { align-items: center; text-align: left; }
.source-selection { min-height: 48px; }
.source-selection button { min-width: 44px; justify-content: center; }
.source-selection button svg { width: 20px; height: 20px; margin: auto; }
.gradio-container fieldset label { min-height: 44px; }
.picture label { position: static !important; width: fit-content; margin: 6px; }
.picture label span:has(svg), .picture .icon-button-wrapper { display: none; }
:focus-visible { outline: 3px solid #4f46e5 !important; outline-offset: 2px; }
.dark :focus-visible { outline-color: #a5b4fc !important; }
[data-testid="status-tracker"]:has(.error) { display: none; }
#examples, #examples .grid-wrap { min-height: 0; height: auto; max-height: none; }
#examples .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)) !important;
  grid-template-rows: none !important; height: auto;
}
#examples .caption-label { display: none; }
.quiet { opacity: .85; }
@media (max-width: 480px) { #just-right .wrap { flex-direction: column; } }
@media (prefers-reduced-motion: reduce) {
  * { animation: none !important; transition: none !important; }
}
"""
SAVE_FILE = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url;
  link.download = "privacy-dial.png";
  document.body.append(link);
  link.click();
  link.remove();
}"""
"""Saves the file that was just made; the browser is told its name."""
ANNOUNCE = """() => {
  for (const id of ["status", "privacy", "outcome", "erased"]) {
    const region = document.getElementById(id);
    region?.setAttribute("role", "status");
    region?.setAttribute("aria-live", "polite");
  }
}"""
"""Lets screen readers speak the lines that change."""
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


def reveal_line(variants: Sequence[Variant], best: int) -> str:
    """Say which strengths stood behind the letters."""
    parts = [f"{letter} {v.strength:.1f}" for letter, v in zip(LETTERS, variants, strict=True)]
    return (
        f"You chose **{LETTERS[best]}: strength {variants[best].strength:.1f}**. The dial is set "
        f"to it. All four: {', '.join(parts)}."
    )


def saved_line(n_rows: int, recovery_code: str | None) -> str:
    """Say whether answers were kept, and once how to delete them."""
    if not n_rows:
        return "Nothing was stored."
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


def _guarantee(privacy: PrivacyStatement, each: str) -> str:
    epsilon = privacy.epsilon
    if epsilon is None:
        return f"no guarantee: {privacy.reason}."
    number = f"{epsilon:.2g}" if epsilon < _FAIR else f"{epsilon:,.0f}"
    word = _PROMISES[sum(epsilon > limit for limit in _LIMITS)]
    return f"privacy loss ε = {number}{each}, the smaller the better: {word}."
