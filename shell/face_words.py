"""What the page says of single faces: which one, what holds for it, what is inferred; no state.

Beside `wording.py`, which has the words of the whole page.
"""

from __future__ import annotations

from collections.abc import Sequence

from privacy_core.schema import Variant
from shell.languages import ENGLISH, Speaker, message

ALL_FACES = message("All faces")
WHICH_FACE = message("Whose strength")
WHICH_FACE_INFO = message(
    "The numbers are on your photo. Pages of four variants use one for all faces."
)
FOLLOW = message("Same as all faces")
PERMISSION = message("I have this person's permission to leave them as they are")
LEFT = message(
    "**left as it is, so not anonymous.** Anyone who knows this person can recognise them."
)
ONE_STRENGTH = message("On this page every face has the same strength, and none is left as it is.")
KEEP_CHOICES = ((message("My smile"), "smiling"), (message("My glasses"), "eyeglasses"))
HIDE_CHOICES = ((message("Gender"), "gender"), (message("Age"), "age_group"))
OBSERVE = message("What an observer infers")
OBSERVED_COLUMNS = (
    message("Attribute"),
    message("Before"),
    message("After"),
    message("You asked"),
)
OBSERVED_NOTE = message(
    "How often it is right was measured on people it never saw, before on their photos and after "
    "on variants of this strength or a weaker one, where that was measured; both answers count "
    "alike, so 50% is a coin. What is still right at strength 1 comes from hair, pose and "
    "surroundings. What it is sure of may be wrong, and a classifier trained on such pictures may "
    "read more. This is for your eyes: it is stored nowhere, and a variant picked by it is "
    "outside ε."
)
ATTRIBUTE_NAMES = {
    "gender": message("Gender"),
    "age_group": message("Age"),
    "smiling": message("Smile"),
    "eyeglasses": message("Glasses"),
    "beard": message("Beard"),
}
VALUE_NAMES = {
    "female": message("female"),
    "male": message("male"),
    "not young": message("not young"),
    "young": message("young"),
    "no": message("no"),
    "yes": message("yes"),
}
WISHES = {
    "keep": message("keep"),
    "hide": message("hide: drawn at random"),
    "set": message("set to {value}"),
    "": message("nothing"),
}
_HARDLY = 0.6
"""Below this sureness a guess is called none."""
_SUREST = 0.99
"""More is said of no guess."""


def observed_head(variant: Variant, number: int, *, say: Speaker = ENGLISH) -> str:
    """Say what the table of inferences shows."""
    strength = variant.faces[number - 1].strength
    after = say("left as it is")
    if strength is not None:
        after = say("at strength {strength:.2f}", strength=strength)
    return say(
        "{face}, as it is and {after}: what a small classifier takes it to show. It sees what "
        "everyone sees of the picture, hair and clothes included.",
        face=say("Face {number}", number=number) if variant.n_faces > 1 else say("Your face"),
        after=after,
    )


def attribute_cells(
    attribute: str,
    before: tuple[str, float],
    after: tuple[str, float],
    *,
    wish: str,
    wanted: str,
    accuracy: tuple[float, float | None],
    say: Speaker = ENGLISH,
) -> tuple[str, str, tuple[str, str], tuple[str, str]]:
    """Return name and wish of an attribute, and guess and its accuracy before and after.

    Args:
        attribute: Of `ATTRIBUTES`.
        before: Value that the original is taken to show, and how sure, in [0.5, 1].
        after: The same of the variant.
        wish: "keep", "hide", "set" or "".
        wanted: The value that was set.
        accuracy: How often the classifier is right about originals and about variants like this
            one, in [0, 1]; None where that was not measured.
        say: Says it in a language.
    """
    first, second = (
        (
            _guessed(value, sureness, say),
            "" if right is None else say("right in {accuracy:.0%}", accuracy=right),
        )
        for (value, sureness), right in zip((before, after), accuracy, strict=True)
    )
    asked = say(WISHES[wish], value=say(VALUE_NAMES.get(wanted, wanted)))
    return say(ATTRIBUTE_NAMES[attribute]), asked, first, second


def _guessed(value: str, sureness: float, say: Speaker) -> str:
    name = say(VALUE_NAMES.get(value, value))
    if sureness < _HARDLY:
        return say("unsure ({value})", value=name)
    return say("{value}, {sureness:.0%} sure", value=name, sureness=min(sureness, _SUREST))


def place_label(number: int, boxes: Sequence[Sequence[float]], *, say: Speaker = ENGLISH) -> str:
    """Return what a face is called: its number, and where it is for who cannot see the number.

    Args:
        number: Of the face, from 1.
        boxes: (left, top, right, bottom) of all faces, in their order.
        say: Says it in a language.
    """
    middles = [(box[0] + box[2]) / 2 for box in boxes]
    place = sorted(range(len(boxes)), key=middles.__getitem__).index(number - 1)
    if place == 0:
        return say("Face {number}, furthest left", number=number)
    if place == len(boxes) - 1:
        return say("Face {number}, furthest right", number=number)
    return say("Face {number}, {place} from the left", number=number, place=say.ordinal(place + 1))


def own_strength_label(number: int, *, say: Speaker = ENGLISH) -> str:
    """Return what stands on the dial of one face."""
    return say("Strength of face {number}", number=number)


def leave_label(number: int, *, say: Speaker = ENGLISH) -> str:
    """Return what stands on the button that leaves a face as it is."""
    return say("Leave face {number} as it is", number=number)


def again_label(number: int, *, say: Speaker = ENGLISH) -> str:
    """Return what stands on the button that anonymizes a face which was left."""
    return say("Anonymize face {number} again", number=number)


def face_line(number: int, *, has_own: bool, is_left: bool, say: Speaker = ENGLISH) -> str:
    """Say what happens to the chosen face."""
    if is_left:
        return say(
            "**Face {number} is left as it is**, with this person's permission.", number=number
        )
    if has_own:
        return say("Face {number} has a strength of its own.", number=number)
    return say("Face {number} follows the dial of all faces.", number=number)


def mixed_lines(
    variant: Variant, lines: Sequence[tuple[Sequence[int], str]], *, say: Speaker = ENGLISH
) -> str:
    """Say what holds for each face where they are treated differently.

    Args:
        variant: The variant.
        lines: Numbers of faces and what is guaranteed for each of them.
        say: Says it in a language.
    """
    n_left = len(variant.left)
    head = say("**Not all faces have one strength.** It holds for each:")
    if n_left:
        head = say.count(
            n_left,
            "**Not anonymous as a whole:** {n} face is left as it is.",
            "**Not anonymous as a whole:** {n} faces are left as they are.",
        )
    parts = [f"- {_faces(numbers, say)}: {line}" for numbers, line in lines]
    if n_left:
        parts.append(f"- {_faces(variant.left, say)}: {say(LEFT)}")
    return "\n".join([head, "", *parts])


def _faces(numbers: Sequence[int], say: Speaker) -> str:
    if len(numbers) == 1:
        return say("Face {number}", number=numbers[0])
    first = ", ".join(map(str, numbers[:-1]))
    return say("Faces {first} and {last}", first=first, last=numbers[-1])
