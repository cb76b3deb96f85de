"""A whole visit with a browser that asks for German: every tab speaks it, at both widths."""

from __future__ import annotations

import re

import pytest

from tests.browser.test_page import go, is_inside, overflow, show, watch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]
VARIANT = "Ihr Foto mit ersetzten Gesichtern"
ENGLISH = re.compile(
    r"\b(the|and|your?|with|of|are|this|for|photos?|strength|answers?|people|save|as)\b|__i18n__",
    re.IGNORECASE,
)
"""Words of nearly every English sentence and of no German one; and marks left untranslated."""


def english_left(tab):
    """Return the lines on the page, and what screen readers are told, that are English."""
    told = tab.evaluate(
        "[...document.querySelectorAll('[alt], svg[aria-label], [role=region]')]"
        ".filter((part) => part.checkVisibility())"
        ".map((part) => part.alt || part.getAttribute('aria-label') || '')"
    )
    lines = [*tab.inner_text("body").splitlines(), *told]
    # Gradio counts its queue in English, in a corner, for a moment.
    return [line for line in lines if ENGLISH.search(line) and not line.startswith("In queue:")]


def answer_again(tab):
    """Answer a second page, where all that was shown before is shown again."""
    tab.get_by_role("button", name="Die nächsten vier").click()
    tab.get_by_role("button", name="Stärken anzeigen").wait_for()
    tab.get_by_role("radio", name="Keine davon ist gut genug").check()
    tab.get_by_role("radio", name="Alle sind zu erkennbar").check()
    assert english_left(tab) == []
    tab.get_by_role("button", name="Stärken anzeigen").click()
    tab.get_by_text("Alle vier:").wait_for()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1280, "light", marks=pytest.mark.slow), (360, "dark")],
)
def test_a_german_visit_is_german_from_photo_to_download(
    running, open_tab, photo, take, faults, width, scheme
):
    tab = open_tab(width=width, scheme=scheme, locale="de-DE")
    watch(tab, faults)
    go(tab, running)
    tab.get_by_role("tab", name="Schützen").wait_for()
    assert tab.evaluate("document.documentElement.lang") == "de"
    tab.get_by_text("Was der Regler mit dieser Person macht").wait_for()
    assert english_left(tab) == []
    take(tab, f"german-start-{width}")

    tab.set_input_files("#photo input[type=file]", photo)
    tab.get_by_role("button", name="Diese Variante herunterladen").wait_for()
    tab.wait_for_selector(f'img[alt="{VARIANT}"]')
    assert "Stärke 0,95" in tab.inner_text("#privacy")
    assert english_left(tab) == []
    take(tab, f"german-dial-{width}")
    assert overflow(tab) <= 0

    tab.get_by_role("button", name="Ihre Stärke finden").click()
    tab.get_by_alt_text("Variante D").wait_for()
    tab.get_by_role("radio", name="C", exact=True).check()
    tab.get_by_role("radio", name="Genau richtig").check()
    tab.get_by_role("checkbox", name="Meine Antworten behalten").check()
    assert english_left(tab) == []
    take(tab, f"german-page-{width}")
    assert overflow(tab) <= 0
    tab.get_by_role("button", name="Stärken anzeigen").click()
    tab.get_by_text("Gespeichert.").wait_for()
    chart = tab.get_by_role("img", name="Ihre bevorzugte Stärke auf dem Regler")
    chart.wait_for()
    assert "Noch etwa" in tab.inner_text("#progress")
    tab.get_by_role("button", name="Warum diese Stärke").click()
    tab.get_by_text("für jedes Foto dieselbe").wait_for()
    assert english_left(tab) == []
    assert is_inside(chart)
    take(tab, f"german-reveal-{width}")
    assert overflow(tab) <= 0

    answer_again(tab)
    tab.get_by_role("button", name="Vorerst 0,95 übernehmen").click()
    with tab.expect_download():
        tab.get_by_role("button", name="Diese Variante herunterladen").click()
    tab.get_by_text("1 Bild heruntergeladen.").wait_for()
    tab.get_by_role("button", name="Meine Antworten löschen").first.click()
    tab.get_by_label("Ihr Code").wait_for()
    tab.get_by_role("button", name="Meine Antworten löschen").last.click()
    tab.get_by_text("Zeilen hier und der Vermerk").wait_for()
    assert english_left(tab) == []
    assert faults == []


def test_the_other_tabs_are_german_too(running, open_tab, take):
    tab = open_tab(width=360, scheme="light", locale="de-AT")
    go(tab, running)
    for name, words in (
        ("Umfrage", "Von hier wird nichts veröffentlicht."),
        ("Modelle", "Was Regler mit einem Modell machen"),
        ("Infos", "Was garantiert ist"),
    ):
        show(tab, name)
        tab.get_by_text(words).wait_for()
        assert english_left(tab) == []
        assert overflow(tab) <= 0
        take(tab, f"german-{name.lower()}-360")
    show(tab, "Modelle")
    tab.get_by_role("button", name="Weitere Einstellungen").click()
    tab.get_by_text("auto: die Vorgabe").wait_for()
    assert english_left(tab) == []


def test_what_an_observer_infers_fits_a_phone_in_german(running, open_tab, photo, take):
    tab = open_tab(width=360, scheme="light", locale="de-DE")
    go(tab, running)
    tab.set_input_files("#photo input[type=file]", photo)
    tab.get_by_role("button", name="Was ein Beobachter erschließt").click()
    tab.get_by_role("columnheader", name="Merkmal").wait_for()
    assert english_left(tab) == []
    assert overflow(tab) <= 0
    take(tab, "german-observer-360")


def test_a_fault_is_said_in_german(running, open_tab, tmp_path):
    tab = open_tab(width=360, scheme="light", locale="de-DE")
    go(tab, running)
    page = tmp_path / "page.png"
    page.write_text("<!doctype html><html></html>")
    tab.set_input_files("#photo input[type=file]", page)
    tab.get_by_text("eine Webseite oder XML").wait_for()
    # The field is emptied a moment later; what it says of the picture in it is Gradio's.
    tab.get_by_alt_text("The photo you chose").wait_for(state="detached")
    assert english_left(tab) == []


def test_where_another_language_comes_first_the_page_is_english_and_says_so(running, open_tab):
    tab = open_tab(width=1280, scheme="light", locale="fr-FR")
    go(tab, running)
    tab.get_by_role("tab", name="Protect").wait_for()
    tab.wait_for_function("document.documentElement.lang === 'en'")
    assert "Or try one of these people" in tab.inner_text("body")
