"""What an observer infers of one face, before and after; knows one classifier and no web page.

For the eyes of the photo's owner, on demand: what is found is shown once and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from privacy_core.anonymize import OpenPhoto
from privacy_core.attributes import MeasuredPredictor
from privacy_core.schema import ATTRIBUTES, AttributePolicy, Variant
from shell.face_words import OBSERVED_COLUMNS, OBSERVED_NOTE, attribute_cells, observed_head
from shell.languages import ENGLISH, Speaker


@dataclass(frozen=True)
class Guess:
    """What the classifier takes a face to show.

    Attributes:
        value: One of the attribute's two values.
        sureness: In [0.5, 1]; 0.5 is a coin.
    """

    value: str
    sureness: float


@dataclass(frozen=True)
class Reading:
    """What is inferred about one attribute.

    Attributes:
        attribute: Its name, of `ATTRIBUTES`.
        before: From the original.
        after: From the variant.
        wish: "keep", "hide", "set", or "" where nothing was asked for.
        accuracy: How often the classifier is right, balanced, on originals of others.
        accuracy_after: The same on their variants at this strength or the next weaker one that
            was measured; None where none was.
    """

    attribute: str
    before: Guess
    after: Guess
    wish: str
    accuracy: float
    accuracy_after: float | None


class Observer:
    """Reads attributes off pictures, as anyone with a small classifier can.

    Args:
        measured: The classifier, and how often it is right.
    """

    def __init__(self, measured: MeasuredPredictor) -> None:
        self._measured = measured

    def look(self, opened: OpenPhoto, variant: Variant, number: int) -> tuple[Reading, ...]:
        """Return what can be read off face `number`, from 1, in the original and in a variant.

        Raises:
            FaceFailedError: The face has no alignment.
        """
        pictures = (opened.photo.pixels, variant.image)
        frames = np.stack([opened.frame(number - 1, pixels) for pixels in pictures])
        before, after = self._measured.predictor.predict(frames).tolist()
        still = self._still(variant, number)
        return tuple(
            Reading(
                name,
                _guess(name, before[place]),
                _guess(name, after[place]),
                _wish(variant, name),
                self._measured.accuracy[name],
                still.get(name),
            )
            for place, name in enumerate(ATTRIBUTES)
            if name in self._measured.accuracy
        )

    def _still(self, variant: Variant, number: int) -> Mapping[str, float]:
        """Return how often the classifier was right about pictures protected like this one."""
        strength, measured = variant.faces[number - 1].strength, self._measured.protected
        if strength is None or variant.policy != AttributePolicy():
            return {}
        return measured.get(max((s for s in measured if s <= strength), default=-1.0), {})


def observed_html(
    readings: Sequence[Reading], variant: Variant, number: int, *, say: Speaker = ENGLISH
) -> str:
    """Return the table of what is inferred, before and after."""
    head = "".join(f'<th scope="col">{escape(say(name))}</th>' for name in OBSERVED_COLUMNS)
    rows = "".join(_row(reading, variant, say) for reading in readings)
    return (
        f"<p>{escape(observed_head(variant, number, say=say))}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>{escape(say(OBSERVED_NOTE))}</p>"
    )


def _row(reading: Reading, variant: Variant, say: Speaker) -> str:
    name, wish, *guesses = attribute_cells(
        reading.attribute,
        (reading.before.value, reading.before.sureness),
        (reading.after.value, reading.after.sureness),
        wish=reading.wish,
        wanted=variant.policy.set.get(reading.attribute, ""),
        accuracy=(reading.accuracy, reading.accuracy_after),
        say=say,
    )
    columns = "".join(
        f"<td>{escape(guess)}<small>{escape(right)}</small></td>" for guess, right in guesses
    )
    return f'<tr><th scope="row">{escape(name)}</th>{columns}<td>{escape(wish)}</td></tr>'


def _guess(name: str, probability: float) -> Guess:
    # Exactly a half is as good as either.
    is_second = probability >= 0.5  # noqa: PLR2004
    return Guess(ATTRIBUTES[name][int(is_second)], max(probability, 1 - probability))


def _wish(variant: Variant, name: str) -> str:
    policy = variant.policy
    wishes = {"keep": policy.keep, "hide": policy.hide, "set": policy.set}
    return next((wish for wish, names in wishes.items() if name in names), "")
