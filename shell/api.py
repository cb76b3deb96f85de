"""What programs may ask for by name: a variant, a ladder, a recommendation; knows no web page.

Every call stands alone: it reads one upload, deletes it, draws noise of its own and forgets. What
arrives may be anything, so everything is checked here, before it costs time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from feedback.preference.judgement import Judgement
from privacy_core.anonymize import LADDER, Anonymizer, OpenPhoto
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import read_photo
from privacy_core.noise import NoiseKey
from privacy_core.report import ladder_report, variant_report
from privacy_core.schema import (
    DEFAULT_STRENGTH,
    AttributePolicy,
    StrengthCurve,
    Variant,
    check_strength,
)
from shell.dial import Standing
from shell.pictures import take_upload
from shell.visit import working_photo
from shell.wording import JUST_RIGHT

Attribute = Literal["gender", "age_group", "smiling", "eyeglasses", "beard"]
"""What `keep` and `hide` may name."""
MOST_STRENGTHS = 10
"""In one ladder: each takes time that others wait."""
MOST_ANSWERS = 200
"""In one history; a visitor gives a tenth of them."""
OWN_NOISE = (
    "Each call draws noise of its own: pictures of one person from several calls tell more "
    "together than one of them alone. Variants that belong together are one ladder."
)
_LONGEST_NAME = 64
_OTHER_ATTRIBUTES = "Leave the argument out to treat no attribute differently."


class JudgedStrength(TypedDict, total=False):
    """One answer: how right a strength was for a photo.

    Attributes:
        strength: Shown, in [0, 1].
        just_right: 0 still far too recognisable, 2 just right, 4 changed far too much.
        photo: Any name of the photo, at most 64 characters; answers without one share a photo.
    """

    strength: float
    just_right: int
    photo: str


@dataclass(frozen=True)
class Pictures:
    """What a call made.

    Attributes:
        variants: In the order asked for.
        report: JSON values: what was done, what it guarantees, and what it does not.
    """

    variants: tuple[Variant, ...] = field(repr=False)
    report: dict[str, Any]


class PublicCalls:
    """Makes pictures for programs.

    Args:
        anonymizer: Makes variants.
        uploads: Paths that the server itself gave to uploads; others are never opened.
        curve: How strength was measured, None where it was not.
    """

    def __init__(
        self, anonymizer: Anonymizer, *, uploads: set[str], curve: StrengthCurve | None
    ) -> None:
        self._anonymizer = anonymizer
        self._uploads = uploads
        self._curve = curve

    def anonymize(self, photo: object, strength: object, *, keep: object, hide: object) -> Pictures:
        """Return one variant of an upload, which is deleted whatever comes of it.

        Raises:
            PrivacyDialError: A value breaks a rule, or no variant can be made of the photo.
        """
        data = self._take(photo)
        wanted = _strength("strength", strength)
        policy = AttributePolicy(keep=_names("keep", keep), hide=_names("hide", hide))
        opened = self._open(data, policy)
        variant = opened.variant(wanted)
        report = variant_report(variant, photo_notes=opened.photo.notes, curve=self._curve)
        return Pictures((variant,), {**report, "calls": OWN_NOISE})

    def ladder(self, photo: object, strengths: object) -> Pictures:
        """Return variants of an upload on one noise path; see `anonymize`."""
        data = self._take(photo)
        wanted = _strengths(strengths)
        opened = self._open(data, AttributePolicy())
        variants = opened.ladder(wanted)
        report = ladder_report(
            {picture_name(number): variant for number, variant in enumerate(variants, 1)},
            photo_notes=opened.photo.notes,
            curve=self._curve,
        )
        return Pictures(tuple(variants), {**report, "calls": OWN_NOISE})

    def _take(self, photo: object) -> bytes:
        path = photo.get("path") if isinstance(photo, dict) else None
        if not isinstance(path, str):
            raise PhotoError(
                "`photo` must be one uploaded picture, got none or something else. Upload one, "
                "with gradio_client by `handle_file(path)`."
            )
        return take_upload(path, self._uploads)

    def _open(self, data: bytes, policy: AttributePolicy) -> OpenPhoto:
        photo = working_photo(read_photo(data))
        return self._anonymizer.open(photo, key=NoiseKey.fresh(), policy=policy)


def picture_name(number: int) -> str:
    """Return the name of a ladder's picture, in the report and as a file."""
    return f"variant-{number}.png"


def read_history(history: object) -> tuple[Judgement, ...]:
    """Return the answers that a program names, in their order.

    Raises:
        InvalidArgumentError: They are not a list of `JudgedStrength`, or too many.
    """
    if history is None:
        return ()
    if not isinstance(history, list) or len(history) > MOST_ANSWERS:
        raise InvalidArgumentError(
            f"`history` must be a list of at most {MOST_ANSWERS} answers, got {_size(history)}. "
            "Leave out the oldest."
        )
    return tuple(_judgement(number, answer) for number, answer in enumerate(history, 1))


def photo_of(judgements: Sequence[Judgement]) -> str:
    """Return the photo that a recommendation is for: that of the latest answer."""
    return judgements[-1].photo_id if judgements else ""


def recommendation(standing: Standing) -> dict[str, Any]:
    """Return where a dial stands, as JSON values."""
    target = standing.target
    return {
        "strength": standing.strength,
        "low": standing.low,
        "high": standing.high,
        "mean": standing.mean,
        "interval": 0.9,
        "source": target.source,
        "floor": standing.floor,
        "floor_applied": target.floor_applied,
        "n_answers": target.n_ratings,
        "n_photos": target.n_photos,
        "answers_left": standing.answers_left,
        "is_settled": standing.is_settled,
        "model_version": target.model_version,
    }


def _judgement(number: int, answer: object) -> Judgement:
    if not isinstance(answer, dict):
        raise InvalidArgumentError(
            f"Answer {number} of `history` must be an object of strength and just_right, got "
            f'{_size(answer)}. Write {{"strength": 0.6, "just_right": 1}}.'
        )
    if unknown := set(answer) - {"strength", "just_right", "photo"}:
        raise InvalidArgumentError(
            f"Answer {number} of `history` must say strength and just_right, and may name a photo; "
            f"it says {len(unknown)} other things. Leave them out."
        )
    return Judgement(
        kind="jar5",
        strengths=(_strength(f"strength of answer {number}", answer.get("strength")),),
        response=_just_right(number, answer.get("just_right")),
        photo_id=_photo_name(number, answer.get("photo", "")),
    )


def _just_right(number: int, value: object) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not (is_whole and 0 <= value < len(JUST_RIGHT)):  # type: ignore[operator]
        raise InvalidArgumentError(
            f"`just_right` of answer {number} must be a whole number from 0 to "
            f"{len(JUST_RIGHT) - 1}, got {_size(value)}. 0 is still far too recognisable, 2 just "
            "right, 4 changed far too much."
        )
    return int(value)  # type: ignore[call-overload,no-any-return]


def _photo_name(number: int, value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise InvalidArgumentError(
            f"`photo` of answer {number} must be a name of at most {_LONGEST_NAME} characters, "
            f"got {_size(value)}. Any will do."
        )
    return value


def _strength(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(
            f"`{name}` must be a number in [0, 1], got {_size(value)}. 0 keeps the face, 1 "
            f"replaces it completely; {DEFAULT_STRENGTH:g} is a good start."
        )
    return check_strength(value)


def _strengths(values: object) -> list[float]:
    if values is None:
        return list(LADDER)
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_STRENGTHS:
        raise InvalidArgumentError(
            f"`strengths` must be a list of 1 to {MOST_STRENGTHS} numbers in [0, 1], got "
            f"{_size(values)}. Leave it out for {', '.join(map(str, LADDER))}."
        )
    strengths = [_strength("strengths", value) for value in values]
    if len({round(strength, 2) for strength in strengths}) < len(strengths):
        raise InvalidArgumentError(
            "`strengths` must differ by at least 0.01, got one twice. Name each once."
        )
    return strengths


def _names(name: str, values: object) -> tuple[str, ...]:
    """Return attribute names in one order, so that the same wish draws the same noise path."""
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidArgumentError(
            f"`{name}` must be a list of attribute names, got {_size(values)}. {_OTHER_ATTRIBUTES}"
        )
    if any(len(value) > _LONGEST_NAME for value in values) or len(values) > _LONGEST_NAME:
        raise InvalidArgumentError(
            f"`{name}` must be a few short attribute names, got longer ones. {_OTHER_ATTRIBUTES}"
        )
    return tuple(sorted(values))


def _size(value: object) -> str:
    """Describe a value without repeating what may be personal, or endless."""
    if isinstance(value, list | str | dict):
        kind = {list: "a list", str: "a text", dict: "an object"}[type(value)]
        return f"{kind} of length {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
