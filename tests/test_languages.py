"""The page in the visitor's language: what is chosen, how it is said, and what is left out."""

from __future__ import annotations

import ast
import functools
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy_core.audit.gate import decide
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import read_photo
from privacy_core.privacy import NOT_COVERED
from shell.about import about_text
from shell.languages import (
    CATALOGUE,
    ENGLISH,
    Catalogue,
    Speaker,
    language_of,
    read_catalogue,
    speaker,
)

ROOT = Path(__file__).parent.parent
SHELL = (ROOT / "app.py", *sorted((ROOT / "shell").glob("*.py")))
SPACE = "\N{NO-BREAK SPACE}"
FIELD = re.compile(r"\{(\w+)[^{}]*\}")
GERMAN = speaker("de")
NAMES = {"message", "say", "local"}
"""What a message is given to, in the code."""
HEAD = 'msgid ""\nmsgstr "Language: de\\n"\n\n'
TINY = Speaker("de", Catalogue({
    "{n} photo": ("{n} Foto", "{n} Fotos"),
    "Strength": ("Stärke",),
    "seen {last:%Y-%m-%d %H:%M}": ("gesehen am {last:%d.%m.%Y um %H:%M}",),
}))  # fmt: skip


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(path):
    """Return what stands where a message is said or marked, as (line, nodes)."""
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if isinstance(node.func, ast.Name) and node.func.id in NAMES:
            yield node.lineno, node.args[:1]
        elif ast.unparse(node.func) == "say.count":
            yield node.lineno, node.args[1:3]


def said_in_code():
    """Return every message as the catalogue names it: (singular, plural or None)."""
    found = set()
    for path in SHELL:
        for _, nodes in calls(path):
            texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
            if texts:
                found.add((texts[0], *texts[1:]))
    return found


def templates_in_code():
    """Return every text of the program, with {} for what is filled in."""
    found = set()
    for folder in ("privacy_core", "feedback", "shell", "app.py"):
        place = ROOT / folder
        for path in place.rglob("*.py") if place.is_dir() else [place]:
            for node in ast.walk(tree_of(path)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(FIELD.sub("{}", node.value))
                elif isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
                    found.add("".join(parts))
    return found


def names_in(text):
    return {found[1] for found in FIELD.finditer(text)}


# --- The catalogue is whole ----------------------------------------------------------------------


def test_every_message_in_the_code_has_a_german_translation():
    missing = {texts[0] for texts in said_in_code()} - set(GERMAN.catalogue.messages)
    assert missing == set()


def test_no_translation_is_left_over_from_a_message_that_is_gone():
    assert set(GERMAN.catalogue.messages) - {texts[0] for texts in said_in_code()} == set()


def test_a_message_in_the_code_is_a_literal_and_never_an_f_string():
    wrong = [
        f"{path.name}:{line}"
        for path in SHELL
        for line, nodes in calls(path)
        if any(isinstance(node, ast.JoinedStr | ast.BinOp) for node in nodes)
    ]
    assert wrong == []


def test_what_is_retold_is_said_somewhere_in_the_program():
    said = templates_in_code()
    gone = {text for text in GERMAN.catalogue.retold if FIELD.sub("{}", text) not in said}
    assert gone == set()


def test_a_translation_has_the_fields_of_its_message():
    plural = {texts[0]: texts[1] for texts in said_in_code() if len(texts) > 1}
    for text, forms in {**GERMAN.catalogue.messages, **GERMAN.catalogue.retold}.items():
        assert len(forms) == (2 if text in plural else 1), text
        for english, german in zip((text, plural.get(text)), forms, strict=False):
            assert names_in(german) == names_in(english), text


def test_nothing_is_translated_by_itself_but_what_is_the_same_in_both():
    same = {text for text, forms in GERMAN.catalogue.messages.items() if forms[0] == text}
    assert same <= {"Age"}


def test_a_browser_is_given_only_messages_that_its_marks_can_carry():
    # Gradio ends the mark of a message at the first closing brace in it.
    assert not [text for text in GERMAN.catalogue.fixed() if "}" in text]
    assert TINY.catalogue.fixed() == {"Strength": "Stärke"}


# --- Which language ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "de"),
        ("en;q=0.5, de;q=0.7", "de"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        # The browser speaks French then, of its own controls, and the page English.
        ("fr-FR,fr;q=0.9,de;q=0.8", "en"),
        ("den", "en"),
        ("de;q=0", "en"),
        ("de;q=1.0.0", "en"),
        ("*", "en"),
        ("de;q=none, <script>", "en"),
    ],
)
def test_the_language_is_what_the_browser_asks_for_first(header, language):
    assert language_of(header) == language


@given(st.text(max_size=60))
def test_any_header_has_a_language(header):
    assert language_of(header) in {"en", "de"}


# --- How it is said ------------------------------------------------------------------------------


def test_without_a_translation_a_message_stays_english():
    assert Speaker("de", Catalogue())("{n} new", n=2) == "2 new"


@given(st.floats(-1e6, 1e6), st.sampled_from(["", ".2f", ",.0f", ".3g", "g", ".1%"]))
def test_a_german_number_is_an_english_one_with_other_marks(value, spec):
    english, german = ENGLISH.number(value, spec), GERMAN.number(value, spec)
    swap = str.maketrans({",": ".", ".": ","})
    assert german == english.translate(swap).replace("%", f"{SPACE}%")


def test_only_numbers_are_written_with_other_marks():
    assert GERMAN("{a} {b} {c}", a="0.5", b=True, c=7) == "0.5 True 7"


@pytest.mark.parametrize(
    ("n", "english", "german"),
    [(0, "0 photos", "0 Fotos"), (1, "1 photo", "1 Foto"), (2, "2 photos", "2 Fotos")],
)
def test_one_is_said_otherwise_than_several(n, english, german):
    assert ENGLISH.count(n, "{n} photo", "{n} photos") == english
    assert TINY.count(n, "{n} photo", "{n} photos") == german


def test_a_day_is_written_as_the_language_does():
    last = datetime(2026, 11, 3, 9, 5, tzinfo=UTC)
    text = "seen {last:%Y-%m-%d %H:%M}"
    assert ENGLISH(text, last=last) == "seen 2026-11-03 09:05"
    assert TINY(text, last=last) == "gesehen am 03.11.2026 um 09:05"


@pytest.mark.parametrize(
    ("number", "english"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"),
                            (21, "21st"), (112, "112th")],
)  # fmt: skip
def test_places_in_an_order_are_written_out(number, english):
    assert ENGLISH.ordinal(number) == english
    assert GERMAN.ordinal(number) == f"{number}."


# --- What others said ----------------------------------------------------------------------------


def test_a_fault_that_is_known_is_said_in_german():
    with pytest.raises(PhotoError) as caught:
        read_photo(b"<!doctype html><html></html>")
    said = GERMAN.fault(str(caught.value))
    assert "die hochgeladene Datei ist eine Webseite oder XML" in said
    assert "Speichern Sie das Bild als JPEG, PNG, WebP, TIFF, GIF oder BMP" in said
    assert ENGLISH.fault(str(caught.value)) == str(caught.value)


def test_a_fault_that_is_not_known_stays_english_and_is_introduced():
    assert GERMAN.fault("`x` must be y.") == (
        "Das hat nicht geklappt. Einzelheiten (auf Englisch): `x` must be y."
    )


def test_the_gates_reasons_are_said_in_german_with_their_numbers():
    found = decide(auc=0.734, control_auc=0.5, gaps={"retain": 9.5}, rows=("retain",))
    said = [GERMAN.retell(reason) for reason in found.reasons]
    assert said[0] == "AUC des Angriffs auf einzelne Fotos: 0,734; die Grenze ist 0,6."
    assert said[-1].startswith("Abstand zum neuen Training, Zeilen: Behalten: 9,5; die Grenze ist")


def test_every_gap_of_the_guarantee_is_said_in_german():
    about = about_text(None, say=GERMAN)
    assert "## Was garantiert ist" in about
    assert not [sentence for sentence in NOT_COVERED if sentence in about]


# --- The file ------------------------------------------------------------------------------------


def test_a_catalogue_is_read_with_its_plurals_contexts_and_long_strings():
    found = read_catalogue(
        HEAD
        + 'msgid ""\n"one "\n"{n}"\nmsgid_plural "many {n}"\n# why\nmsgstr[0] "eins \\"{n}\\""\n'
        'msgstr[1] "viele {n}"\n\nmsgctxt "retold"\nmsgid "a"\nmsgstr "b\\n"\n'
    )
    assert found.messages == {"one {n}": ('eins "{n}"', "viele {n}")}
    assert found.retold == {"a": ("b\n",)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('"nothing before"\n', "line 1"),
        ("msgid 'single'\n", "line 1"),
        ('msgid "a"\nmsgstr "b"\nwhat\n', "line 3"),
        ('msgid "a"\nmsgstr "b"\n\nmsgid "a"\nmsgstr "c"\n', "'a' twice"),
    ],
)
def test_a_catalogue_that_is_none_is_refused_with_its_place(text, problem):
    with pytest.raises(InvalidArgumentError, match=problem):
        read_catalogue(text)


def test_the_catalogue_says_which_words_it_uses():
    head = CATALOGUE.read_text(encoding="utf-8").split("msgid", 1)[0]
    assert "strength Stärke · dial Regler" in head
