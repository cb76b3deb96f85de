"""The page in the visitor's language: what is chosen, how it is said, and what is left out."""

from __future__ import annotations

import ast
import functools
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import gradio as gr
import pytest
from gradio.i18n import I18nData
from hypothesis import given
from hypothesis import strategies as st

import app
from privacy_core.anonymize import Anonymizer
from privacy_core.audit.gate import decide
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import read_photo
from privacy_core.privacy import NOT_COVERED
from shell.about import about_text
from shell.face_words import attribute_cells, place_label
from shell.languages import (
    CATALOGUE,
    ENGLISH,
    Catalogue,
    Speaker,
    language_of,
    read_catalogue,
    speaker,
    speaker_to,
)
from shell.model_words import (
    charts_html,
    numbers_table,
    publish_line,
    said_line,
    steps_html,
    verdict_line,
)
from shell.models import RunView, StepView
from shell.previews import Preview, preview_html
from shell.routes import CRASHED, NOT_UNDERSTOOD, PUBLIC_CALLS, _is_refusal
from shell.sign_in import OWN_NAME
from shell.visit import Visit
from shell.waiting import PLACE, SAY_PLACE, waiting_html
from shell.wording import number_text
from tests import loop_runs
from tests.privacy_core.tiny import FixedDetector, face_at, smooth_photo, write_tiny_model

ROOT = Path(__file__).parent.parent
SHELL = (ROOT / "app.py", *sorted((ROOT / "shell").rglob("*.py")))
SPACE = "\N{NO-BREAK SPACE}"
FIELD = re.compile(r"\{(\w+)[^{}]*\}")
GERMAN = speaker("de")
NAMES = {"message", "say", "local"}
"""What a message is given to, in the code."""
PREVIEW = Preview((0.2, 1.0), b"p", (b"a", b"b"))
SAYING = {"markdown", "html", "button", "loginbutton", "accordion"}
"""Components whose value is a text of the page."""
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


def texts_of(value):
    """Return every visible text in a property of a component, those of choices included."""
    if isinstance(value, str | I18nData):
        return [str(value)]
    if isinstance(value, list | tuple):
        # The second of a pair is the value of a choice, which nobody sees.
        parts = value[:1] if len(value) == 2 and not isinstance(value[0], list | tuple) else value
        return [text for part in parts for text in texts_of(part)]
    return []


def english_words(said):
    """Return words of nearly every English sentence, and of no German one, that are in texts."""
    words = r"\b(?:the|and|your?|with|of|are|this|for|photos?|strength|answers?|people|save|as)\b"
    without_markup = (re.sub(r"<svg[^>]*>|<[^>]*>", " ", text) for text in said)
    return {found for text in without_markup for found in re.findall(words, text, re.IGNORECASE)}


def asking(language):
    """Return a request of a browser that asks for a language."""
    return SimpleNamespace(headers={"accept-language": language})


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


# --- The built page ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    backend = SimpleNamespace(digital_source_type="algorithmicallyEnhanced")
    return app.build_page(
        anonymizer=SimpleNamespace(backend=backend),
        desk=None,
        loops=None,
        cache=tmp_path_factory.mktemp("cache"),
        report=dict,
        examples=[ROOT / "examples" / "person-17-a.png"],
        previews=[PREVIEW],
        observer=SimpleNamespace(),
        publishing=(None, "this app was started without `HF_TOKEN`."),
    )


def test_every_visible_text_of_the_page_is_said_in_the_browsers_language(page):
    neutral = {"A", "B", "C", "D", "24", "48", "3", "4", "8", OWN_NAME, "Run"}
    # "Run" is what Gradio calls a button before a face is chosen for it.
    # With values in them, so the server says them again when a browser comes.
    greeted = {text.strip() for text in (about_text(None), number_text(), preview_html(PREVIEW))}
    found, fixed = set(), GERMAN.catalogue.fixed()
    for component in page.config["components"]:
        if component["type"] == "api":  # For programs.
            continue
        props = component["props"]
        names = ("label", "info", "placeholder", "title", "description", "choices")
        names += ("value",) if component["type"] in SAYING else ()
        for name in names:
            found |= {text for item in [props.get(name)] for text in texts_of(item) if text}
    marks = {text for text in found if "__i18n__" in text}
    keys = {json.loads(re.search(r"__i18n__(\{.*?\})", text)[1])["key"] for text in marks}
    assert keys <= set(fixed)
    assert len(keys) > 80
    assert {text.strip() for text in found - marks} - neutral - greeted == set()


def test_a_greeting_says_again_what_the_browser_cannot(page):
    greet = next(fn.fn for fn in page.fns.values() if fn.name == "greet")
    about, number, gallery, preview, *pictures = greet(asking("de"))
    assert "Was garantiert ist" in about
    assert "Haare, Kleidung und Hintergrund" in number
    assert gallery["value"][0][1] == "Beispiel 1"
    assert "Das Foto mit ersetztem Gesicht, bei Stärke 0,2" in preview
    assert pictures[1]["alt_text"] == "Ihr Foto mit ersetzten Gesichtern"
    assert pictures[-1]["alt_text"] == "Variante D"
    assert all(set(output) == {"__type__"} for output in greet(asking("en")))


def test_every_call_of_a_visitor_is_told_the_language_of_its_request(page):
    takes = {
        fn.name
        for fn in page.fns.values()
        if fn.fn is not None and fn.name not in PUBLIC_CALLS
        and gr.Request in get_type_hints(fn.fn).values()
    }  # fmt: skip
    names = {fn.name for fn in page.fns.values() if fn.fn is not None} - set(PUBLIC_CALLS)
    # Gradio's own, and what only empties a field.
    assert {name for name in names - takes if not name.startswith(("_", "<"))} == set()
    assert {"turn", "compare", "leave", "ask"} <= takes


def test_a_fault_in_a_call_is_said_in_the_language_of_its_request(page):
    turn = next(fn.fn for fn in page.fns.values() if fn.name == "turn")
    with pytest.raises(gr.Error) as caught:
        turn(asking("de-CH"), 0.5, None)
    assert caught.value.message.startswith("In diesem Tab muss ein Foto offen sein")
    assert caught.value.title == "Das hat nicht geklappt"
    with pytest.raises(gr.Error, match="must be open in this tab"):
        turn(asking("en-GB"), 0.5, None)


def test_a_face_that_cannot_be_left_is_told_in_german_and_not_left(page, tmp_path):
    backend = EmbeddedBackend.load(write_tiny_model(tmp_path / "model"))
    faces = (replace(face_at(20, 15), n_inside=1), face_at(150, 60, 0.6))
    visit = Visit()
    visit.open(
        Anonymizer(backend, FixedDetector(*faces)), smooth_photo(160, 260), source="own_photo"
    )
    leave = next(fn.fn for fn in page.fns.values() if fn.name == "leave_face")
    with pytest.raises(gr.Error) as caught:
        leave(asking("de"), True, 1, 0.8, visit)
    assert "Gesicht 1 von 2 ist so eines (kleinere Gesichter darin: 1)." in caught.value.message
    assert english_words([caught.value.message]) == set()
    assert visit.left == frozenset()


def test_a_bug_is_still_a_fault_of_the_server_in_german():
    said = json.dumps({"error": GERMAN(CRASHED)}).encode()
    assert not _is_refusal(said)
    assert _is_refusal(json.dumps({"error": GERMAN(NOT_UNDERSTOOD)}).encode())


def test_a_refusal_before_the_page_is_said_in_german_too():
    headers = [(b"host", b"x"), (b"Accept-Language", b"de-DE,de;q=0.9")]
    assert speaker_to(headers) is GERMAN
    assert speaker_to([(b"host", b"x")]) is ENGLISH


def test_the_line_of_those_who_wait_is_said_by_the_browser():
    line = waiting_html(app.local(PLACE))
    assert f'data-words="{app.local(PLACE)}"' in line
    assert "[place]" in PLACE
    assert "[place]" in GERMAN(PLACE)
    assert all(f'replace("{field}"' in SAY_PLACE for field in ("[place]", "[all]"))


# --- What has no browser test --------------------------------------------------------------------


def test_the_audit_is_read_in_german_with_its_steps_checks_and_charts():
    found = loop_runs.evidence(passed=False, auc=0.9)
    steps = (StepView("fit", "done", 65.0), StepView("revise", "running", 2.0, "Anonymizing", 2, 5))
    said = [
        verdict_line(found, say=GERMAN).replace(found.audit["gate"]["reasons"][0], ""),
        numbers_table(found, say=GERMAN),
        charts_html(found, say=GERMAN),
        steps_html(RunView("running", steps=steps), say=GERMAN),
        said_line(RunView("running", steps=steps), say=GERMAN),
        said_line(RunView("waiting", ahead=1), say=GERMAN),
        said_line(RunView("cancelled", message="It was ended as its page seemed to be closed.")),
        publish_line(found, "this app was started without `HF_TOKEN`. x", say=GERMAN),
    ]
    assert said[6].startswith("**Ended.**")
    assert "Freigabe nicht bestanden" in said[0]
    assert "Anonymisieren, 2 von 5" in said[3]
    assert said[4] == "**Schritt 2 von 2:** Fotos ersetzen."
    assert "noch 1 Durchlauf" in said[5]
    assert "ohne `HF_TOKEN` gestartet" in said[7]
    assert english_words([*said[:6], said[7]]) == set()


def test_what_an_observer_infers_is_said_in_german():
    cells = attribute_cells(
        "gender", ("female", 0.55), ("male", 1.0), wish="set", wanted="male",
        accuracy=(0.9, None), say=GERMAN,
    )  # fmt: skip
    assert cells == (
        "Geschlecht",
        "setzen auf männlich",
        ("unsicher (weiblich)", f"richtig in 90{SPACE}%"),
        (f"männlich, zu 99{SPACE}% sicher", ""),
    )


def test_faces_are_told_apart_in_german():
    boxes = [(0, 0, 10, 10), (40, 0, 50, 10), (20, 0, 30, 10)]
    assert [place_label(number, boxes, say=GERMAN) for number in (1, 2, 3)] == [
        "Gesicht 1, ganz links",
        "Gesicht 2, ganz rechts",
        "Gesicht 3, 2. von links",
    ]


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
