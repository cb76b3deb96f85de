"""A rater's own answers as a sealed text for their browser to keep; knows no rater and no file.

Whoever declines storage still gets a dial: what it is made from travels with them and not with us.
The text holds strengths, answers, rough durations and days, and 32 bits each to tell photos and
visits apart. Nobody can read or change it without the keys, and it names nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from feedback.errors import ExpiredTokenError, ForgedTokenError, InvalidRatingError
from feedback.keys import Keys
from feedback.preference.judgement import Judgement
from feedback.sealing import from_base64, seal, to_base64, unseal

MAX_JUDGEMENTS = 400
"""The oldest beyond these are dropped: by then newer answers say more."""
MAX_HISTORY_LENGTH = 16_384
_VERSION = "h1"
_KINDS = ("jar5", "best_of_n", "likert5", "slider")
_CHOICE, _SLIDER = "best_of_n", "slider"
_TAG_BYTES = 16
_SHORT_BYTES = 4
_DAY_ZERO = date(2020, 1, 1)
_NO_DAY = 65_535
_CONTEXT = 0b0001_0000
_STEP_MS = 100
_START_AGAIN = "Your dial starts again from here; what was saved with consent is still saved."


def seal_history(keys: Keys, judgements: Sequence[Judgement], *, model: str = "") -> str:
    """Return the text that a browser keeps of its rater's judgements.

    Args:
        keys: The secrets.
        judgements: In the order of time; those of rating rows (jar5, best_of_n, likert5, slider).
        model: Revision of the model whose strengths these are.

    Raises:
        InvalidRatingError: A judgement is of a kind that no rating row has.
    """
    plain = _short(model)
    context = b""
    for judgement in judgements[-MAX_JUDGEMENTS:]:
        now = _context(judgement)
        plain += _packed(judgement, b"" if now == context else now)
        context = now
    sealed = seal(keys, "history", plain, tag_bytes=_TAG_BYTES)
    return f"{_VERSION}.{keys.epoch}.{to_base64(sealed)}"


def open_history(keys: Keys, token: object, *, model: str = "") -> tuple[Judgement, ...]:
    """Return the judgements of a sealed history; none for a browser that has no history yet.

    Strengths are exact to 0.01, durations to 0.1 s and at most 25.5 s, times to the day. Photos
    and visits have short ids, as `short_id` gives them.

    Args:
        keys: The keys it was sealed with, or these and newer epochs.
        token: From `seal_history`, or whatever a browser sent; None or "" is no history.
        model: Revision of the model in use.

    Raises:
        ForgedTokenError: It was altered, cut off, or sealed with other keys.
        ExpiredTokenError: It is of another version of this program or of another model.
    """
    if token is None or token == "":
        return ()
    is_text = isinstance(token, str) and len(token) <= MAX_HISTORY_LENGTH
    parts = str(token).split(".") if is_text else []
    epochs = {str(epoch): epoch for epoch in keys.by_epoch}
    if len(parts) == 3 and parts[0] != _VERSION and parts[0][:1] == "h":  # noqa: PLR2004
        raise _old("another version of this page")
    if len(parts) != 3 or parts[0] != _VERSION or parts[1] not in epochs:  # noqa: PLR2004
        raise _forged()
    sealed, epoch = from_base64(parts[2]), epochs[parts[1]]
    plain = unseal(keys, "history", sealed, epoch=epoch, tag_bytes=_TAG_BYTES)
    if plain is None:
        raise _forged()
    if plain[:_SHORT_BYTES] != _short(model):
        raise _old("another model, whose strengths mean something else")
    return tuple(_unpacked(plain[_SHORT_BYTES:]))


def short_id(name: str) -> str:
    """Return what a history calls a photo or a visit: 8 hexadecimal digits, the same each time."""
    return _short(name).hex()


def _context(judgement: Judgement) -> bytes:
    """Return day, visit and photo."""
    made = judgement.created_at
    day = _NO_DAY if made is None else (made.astimezone(UTC).date() - _DAY_ZERO).days
    names = (judgement.session_id, judgement.photo_id)
    return day.to_bytes(2, "big") + b"".join(_as_short(name) for name in names)


def _packed(judgement: Judgement, context: bytes) -> bytes:
    """Return kind, answer, strengths and duration, after what changed around them."""
    if judgement.kind not in _KINDS:
        raise InvalidRatingError(
            f"`judgements` must be of rating rows ({', '.join(_KINDS)}), got "
            f"{judgement.kind}. Leave it out."
        )
    is_slider = judgement.kind == _SLIDER
    response = 0 if is_slider else int(judgement.response)
    tag = _KINDS.index(judgement.kind) << 5 | (_CONTEXT if context else 0) | response
    strengths = bytes(round(100 * strength) for strength in judgement.strengths)
    body = bytes([len(strengths)]) if judgement.kind == _CHOICE else b""
    body += strengths
    body += bytes([round(100 * judgement.response)]) if is_slider else b""
    return bytes([tag]) + context + body + bytes([min(judgement.response_ms // _STEP_MS, 255)])


def _unpacked(plain: bytes) -> list[Judgement]:
    judgements: list[Judgement] = []
    reader = _Reader(plain)
    made: datetime | None = None
    session = photo = ""
    while not reader.is_done:
        tag = reader.byte()
        if tag & _CONTEXT:
            day = int.from_bytes(reader.take(2), "big")
            made = None if day == _NO_DAY else _midnight(day)
            session, photo = (reader.take(_SHORT_BYTES).hex() for _ in range(2))
        kind, response = _KINDS[tag >> 5], tag & 0b1111
        n_strengths = reader.byte() if kind == _CHOICE else 1
        strengths = tuple(hundredths / 100 for hundredths in reader.take(n_strengths))
        answer = reader.byte() / 100 if kind == _SLIDER else response
        judgements.append(
            Judgement(
                kind=kind,
                strengths=strengths,
                response=answer,
                photo_id=photo,
                session_id=session,
                response_ms=reader.byte() * _STEP_MS,
                created_at=made,
            )
        )
    return judgements


class _Reader:
    """Takes bytes from the front; what was sealed here is always whole."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def byte(self) -> int:
        return self.take(1)[0]


def _short(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:_SHORT_BYTES]


def _as_short(name: str) -> bytes:
    """Return a name's four bytes, or those it is already written as."""
    is_short = len(name) == 2 * _SHORT_BYTES and set(name) <= set("0123456789abcdef")
    return bytes.fromhex(name) if is_short else _short(name)


def _midnight(day: int) -> datetime:
    return datetime.combine(_DAY_ZERO + timedelta(days=day), time(), UTC)


def _forged() -> ForgedTokenError:
    return ForgedTokenError(
        f"Your browser's record of your answers must be one made here, unaltered; this one is "
        f"not. {_START_AGAIN}"
    )


def _old(what: str) -> ExpiredTokenError:
    return ExpiredTokenError(
        f"Your browser's record of your answers must be of this page and model, got one of {what}. "
        f"{_START_AGAIN}"
    )
