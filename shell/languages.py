"""The page's languages: English sentences said in the visitor's own, with its numbers and plurals.

English sentences are the names of messages, as in gettext; `german.po` holds their translations.
Knows no page and no request, only what a browser says about languages.
"""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from privacy_core.errors import InvalidArgumentError

Language = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = ("en", "de")
CATALOGUE = Path(__file__).with_name("german.po")
_RETOLD = "retold"
"""Context of sentences that others say, this program's errors above all."""
_ENGLISH_MARKS = str.maketrans({",": ".", ".": ","})
_STRING = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr|msgstr\[\d\])\s+)?"(.*)"')
_FIELD = re.compile(r"\{(\w+)[^{}]*\}")
_ENDINGS = {1: "st", 2: "nd", 3: "rd"}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_PREFERENCE = re.compile(
    r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q\s*=\s*([0-9.]+))?\s*"
)


def message(text: str) -> str:
    """Return a message as it is; marks what is said only later, or by the browser."""
    return text


@dataclass(frozen=True)
class Catalogue:
    """Translations into one language.

    Attributes:
        messages: English → its translation, or singular → translated singular and plural.
        retold: The same for sentences that come ready made, with fields where values stand.
    """

    messages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retold: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fixed(self) -> dict[str, str]:
        """Return what a browser can translate by itself: messages without any value."""
        return {
            text: forms[0]
            for text, forms in self.messages.items()
            if len(forms) == 1 and not _FIELD.search(text)
        }


@dataclass(frozen=True)
class Speaker:
    """Says messages in one language; what it has no translation of stays English.

    Attributes:
        language: Its tag.
        catalogue: Translations from English; empty for English itself.

    Example:
        >>> german = Speaker("de", Catalogue({"{share:.1%} of {n}": ("{share:.1%} von {n}",)}))
        >>> german("{share:.1%} of {n}", share=0.125, n=8).replace(chr(160), " ")
        '12,5 % von 8'
    """

    language: Language
    catalogue: Catalogue = field(repr=False)

    def __call__(self, text: str, /, **values: Any) -> str:
        """Say a message.

        Args:
            text: In English.
            **values: What its fields stand for, written as the language writes it; without any,
                braces mean nothing.
        """
        found = self.catalogue.messages.get(text, (text,))[0]
        return self._fill(found, values) if values else found

    def count(self, n: int, one: str, many: str, /, **values: Any) -> str:
        """Say one of two messages: of one, or of none and several; `n` is one of their values."""
        found = self.catalogue.messages.get(one, (one, many))
        return self._fill(found[0] if n == 1 else found[-1], {"n": n, **values})

    def number(self, value: float, spec: str = "") -> str:
        """Write a number as the language does."""
        return self._fill(f"{{value:{spec}}}", {"value": value})

    def ordinal(self, number: int) -> str:
        """Write a place in an order, from 1."""
        if self.language == "de":
            return f"{number}."
        tens, ones = divmod(number, 10)
        return f"{number}{_ENDINGS.get(ones, 'th') if tens % 10 != 1 else 'th'}"

    def retell(self, sentence: str) -> str:
        """Say again what others said in English; as it is where there is no translation of it."""
        found = self._retold(sentence)
        return sentence if found is None else found

    def fault(self, sentence: str) -> str:
        """Say what went wrong: in this language where known, else in English and so introduced."""
        found = self._retold(sentence)
        return self(DETAILS, sentence=sentence) if found is None else found

    def _retold(self, sentence: str) -> str | None:
        if self.language == "en":
            return sentence
        for text, forms in self.catalogue.retold.items():
            if found := _pattern(text).fullmatch(sentence):
                parts = {name: self._part(part) for name, part in found.groupdict().items()}
                return self._fill(forms[0], parts) if parts else forms[0]
        return None

    def _part(self, text: str) -> str:
        """Say what stood in a field of a sentence: a number, another such part, or a name."""
        if _NUMBER.fullmatch(text):
            return text.translate(_ENGLISH_MARKS)
        return self._retold(text) or self(text)

    def _fill(self, template: str, values: Mapping[str, Any]) -> str:
        return _WRITERS[self.language].vformat(template, (), values)


DETAILS = message("That did not work. Details (in English): {sentence}")
ENGLISH = Speaker("en", Catalogue())


def language_of(header: str | None) -> Language:
    """Return the language to speak by an `Accept-Language` header.

    It is German where German comes first, and else English, even where German comes second: so the
    browser chooses too, which speaks of its own controls in the first.
    """
    best: tuple[float, str] = (0.0, "en")
    for part in (header or "").split(","):
        if found := _PREFERENCE.fullmatch(part):
            weight = _weight(found[2])
            if weight > best[0]:
                best = (weight, found[1].lower())
    return "de" if best[1] == "de" else "en"


def speaker_to(headers: Iterable[tuple[bytes, bytes]]) -> Speaker:
    """Return who speaks the language that the headers of a request ask for, as ASGI has them."""
    asked = [value for name, value in headers if name.lower() == b"accept-language"]
    return speaker(language_of(asked[0].decode("latin-1") if asked else None))


@functools.cache
def speaker(language: Language) -> Speaker:
    """Return who speaks a language; its translations are read the first time."""
    if language == "en":
        return ENGLISH
    return Speaker(language, read_catalogue(CATALOGUE.read_text(encoding="utf-8")))


def read_catalogue(text: str) -> Catalogue:
    """Read translations in gettext's format.

    Raises:
        InvalidArgumentError: A line is none of a catalogue, or a message is there twice.
    """
    messages: dict[str, tuple[str, ...]] = {}
    retold: dict[str, tuple[str, ...]] = {}
    for entry in _entries(text):
        place = retold if entry.get("msgctxt") == _RETOLD else messages
        name = entry.get("msgid", "")
        if not name:  # The head says who wrote it and in which format.
            continue
        if name in place:
            raise InvalidArgumentError(
                f"A message must be translated once, got {name!r} twice. Leave out one."
            )
        place[name] = tuple(value for key, value in entry.items() if key.startswith("msgstr"))
    return Catalogue(messages, retold)


def _entries(text: str) -> Sequence[Mapping[str, str]]:
    """Return the parts of each entry by their keywords, in order."""
    entries: list[dict[str, str]] = [{}]
    keyword = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            entries.append({})
            continue
        if line.startswith("#"):
            continue
        found = _STRING.fullmatch(line.strip())
        if found is None or not (found[1] or keyword):
            raise InvalidArgumentError(
                f"A catalogue must have keywords and strings in double quotes, got another in line "
                f"{number}. Mend that line."
            )
        keyword = found[1] or keyword
        entries[-1][keyword] = entries[-1].get(keyword, "") + json.loads(f'"{found[2]}"')
    return [entry for entry in entries if entry]


@functools.cache
def _pattern(text: str) -> re.Pattern[str]:
    """Return what matches a sentence that was made from a template."""
    parts, end = [], 0
    for found in _FIELD.finditer(text):
        parts += [re.escape(text[end : found.start()]), f"(?P<{found[1]}>.+?)"]
        end = found.end()
    return re.compile("".join([*parts, re.escape(text[end:])]), re.DOTALL)


def _weight(text: str | None) -> float:
    try:
        return 1.0 if text is None else min(float(text), 1.0)
    except ValueError:
        return 0.0


class _EnglishWriter(string.Formatter):
    """Writes numbers as Python does."""


class _GermanWriter(string.Formatter):
    """Writes numbers with a decimal comma, and a space before the percent sign."""

    def format_field(self, value: Any, format_spec: str) -> str:
        written = format(value, format_spec)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return written
        return written.translate(_ENGLISH_MARKS).replace("%", "\N{NO-BREAK SPACE}%")


_WRITERS: dict[Language, string.Formatter] = {"en": _EnglishWriter(), "de": _GermanWriter()}
