"""The page in a real browser, from upload to download; look at the pictures it takes."""

from __future__ import annotations

from urllib.parse import urlparse

import pytest
from PIL import Image

from shell.wording import JUST_RIGHT, NONE, WHY_NOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]
RECORD = "localStorage.getItem('privacy-dial-history')"
VARIANT = "Your photo with the faces replaced"
WIDTHS = (1280, 360)


def watch(tab, faults):
    def hear(message):
        address = message.location.get("url", "")
        # The upload is deleted as soon as it is read, maybe before its preview was fetched.
        if message.type == "error" and not address.endswith("/photo.jpg"):
            faults.append(f"{message.text} {address}")

    def see(request):
        address = urlparse(request.url)
        if address.scheme not in {"blob", "data"} and address.hostname != "127.0.0.1":
            faults.append(f"request to {address.hostname}")

    tab.on("console", hear)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", see)


def go(tab, running):
    tab.goto(running.url, wait_until="domcontentloaded")
    tab.wait_for_selector("#photo input[type=file]", state="attached")


def show(tab, name):
    """Go to one of the page's tabs by keyboard, through the menu where they do not all fit."""
    tab.get_by_role("tab").first.wait_for()
    button = tab.get_by_role("tab", name=name)
    if button.count() == 0 or not button.is_visible():
        tab.locator(".overflow-menu > button").press("Enter")
        button = tab.locator(".overflow-dropdown button", has_text=name)
    button.press("Enter")


def source_of(tab):
    return tab.get_attribute(f'img[alt="{VARIANT}"]', "src")


def answer(tab, best, second):
    """Answer the next page of four."""
    tab.get_by_role("button", name="Next four").click()
    tab.get_by_role("button", name="Show the strengths").wait_for()
    tab.get_by_role("radio", name=best, exact=True).check()
    tab.get_by_role("radio", name=second, exact=True).check()
    tab.get_by_role("button", name="Show the strengths").click()
    tab.get_by_text("All four:").wait_for()


def at_widths(tab, measure):
    """Return what is measured as the tab is, then made wide, then narrow; it is as it was then."""
    found, size = [measure(tab)], tab.viewport_size
    for width in WIDTHS:
        tab.set_viewport_size({**size, "width": width})
        # What is laid out by a script is so in the next frame.
        tab.evaluate("new Promise((go_on) => requestAnimationFrame(() => setTimeout(go_on)))")
        found.append(measure(tab))
    tab.set_viewport_size(size)
    return found


def is_inside(part):
    """Return whether the part of a page is inside the window, wide and narrow."""

    def inside(tab):
        box = part.bounding_box()
        return box["x"] >= 0 and box["x"] + box["width"] <= tab.viewport_size["width"]

    return all(at_widths(part.page, inside))


def overflow(tab):
    """Return by how many pixels the page is wider than the window, wide or narrow, at most."""
    wider = "document.documentElement.scrollWidth - window.innerWidth"
    return max(at_widths(tab, lambda tab: tab.evaluate(wider)))


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1280, "light", marks=pytest.mark.slow), (360, "dark")],
)
def test_a_visitor_goes_from_upload_to_download(
    running, open_tab, photo, take, faults, tmp_path, width, scheme
):
    tab = open_tab(width=width, scheme=scheme)
    watch(tab, faults)
    go(tab, running)
    take(tab, f"start-{width}")
    assert overflow(tab) <= 0

    tab.set_input_files("#photo input[type=file]", photo)
    tab.get_by_role("button", name="Download this variant").wait_for()
    tab.wait_for_selector(f'img[alt="{VARIANT}"]')
    take(tab, f"dial-{width}")
    assert overflow(tab) <= 0

    # By keyboard, as the slider follows a finger and an arrow key alike.
    before = source_of(tab)
    tab.locator("#strength input[type=range]").focus()
    tab.keyboard.press("ArrowLeft")
    tab.get_by_text("Strength 0.90").wait_for()
    tab.wait_for_function(
        "([alt, old]) => document.querySelector(`img[alt='${alt}']`).src !== old",
        arg=[VARIANT, before],
    )

    stored = len(running.rows())
    tab.get_by_role("button", name="Find your dial").click()
    tab.get_by_alt_text("Variant D").wait_for()
    page_source = tab.content()
    assert "Strength 0.90" not in tab.inner_text("body")
    assert not tab.get_by_role("checkbox", name="Keep my answers").is_checked()
    tab.get_by_role("radio", name="C", exact=True).check()
    tab.get_by_role("radio", name="Just right").wait_for()
    take(tab, f"page-{width}")
    assert overflow(tab) <= 0
    tab.get_by_role("radio", name="Just right").check()
    tab.get_by_role("checkbox", name="Keep my answers").check()
    tab.get_by_role("button", name="Show the strengths").click()
    tab.get_by_text("Saved.").wait_for()
    chart = tab.get_by_role("img", name="Your preferred strength on the dial")
    chart.wait_for()
    take(tab, f"reveal-{width}")
    assert overflow(tab) <= 0
    rows = running.rows()[stored:]
    assert len(rows) == 5
    chosen = next(row for row in rows if row.response_type == "jar5")
    assert f"C: strength {chosen.strength:.1f}" in tab.inner_text("#outcome")
    assert not any(f'"{row.strength}"' in page_source for row in rows)
    assert "more answer" in tab.inner_text("#progress")
    assert is_inside(chart)

    tab.get_by_role("button", name="Use 0.95 for now").click()

    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download this variant").click()
    assert download.value.suggested_filename == "privacy-dial.png"
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.size == (512, 512)
        assert set(saved.info) == {"XML:com.adobe.xmp", "xmp"}
    assert faults == []


def test_a_file_that_is_no_photo_gets_a_sentence_and_another_try(
    running, open_tab, photo, take, tmp_path
):
    tab = open_tab(width=360, scheme="light")
    go(tab, running)
    page = tmp_path / "page.png"
    page.write_text("<!doctype html><html></html>")
    tab.set_input_files("#photo input[type=file]", page)
    tab.get_by_text("which is a web page").wait_for()
    take(tab, "refused-360")
    # Nothing lies over the field: a click opens the file chooser again.
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Drop an image file here").click()
    chooser.value.set_files(photo)
    tab.get_by_role("button", name="Download this variant").wait_for()


def test_a_webcam_picture_is_read_like_a_photo(running, open_tab, take):
    tab = open_tab(width=1280, scheme="light")
    go(tab, running)
    tab.get_by_role("button", name="Capture from camera").click()
    tab.get_by_role("button", name="Click to Access Webcam").click()
    # Before its first frame the camera has nothing to capture.
    tab.wait_for_function("document.querySelector('#photo video')?.readyState >= 2")
    tab.get_by_role("button", name="capture photo").click()
    # The browser's test picture shows no face.
    tab.get_by_text("must show at least one face").wait_for()
    take(tab, "webcam-1280")


def first_answer(tab, photo):
    """Go from an empty page to the first chart, without consent, and return its sentence."""
    tab.set_input_files("#photo input[type=file]", photo)
    tab.wait_for_selector(f'img[alt="{VARIANT}"]')
    tab.get_by_role("button", name="Find your dial").click()
    tab.get_by_alt_text("Variant D").wait_for()
    tab.get_by_role("radio", name="A", exact=True).check()
    tab.get_by_role("radio", name=JUST_RIGHT[2]).check()
    tab.get_by_role("button", name="Show the strengths").click()
    return sentence_of(tab)


def sentence_of(tab):
    chart = tab.get_by_role("img", name="Your preferred strength on the dial")
    chart.wait_for()
    return chart.get_attribute("aria-label")


def addresses(tab):
    return {image.get_attribute("src") for image in tab.locator("img").all()}


def test_two_browsers_at_once_see_nothing_of_each_other(running, open_tab, photo, faults):
    before = running.store.stats()
    tabs = [open_tab(width=1280, scheme=scheme) for scheme in ("light", "dark")]
    for tab in tabs:
        watch(tab, faults)
        go(tab, running)
    sentences = [first_answer(tab, photo) for tab in tabs]
    # Answers of one move the dial of one.
    answer(tabs[0], "B", JUST_RIGHT[0])
    assert sentence_of(tabs[0]) != sentences[0]
    assert sentence_of(tabs[1]) == sentences[1]
    pictures = [{a for a in addresses(tab) if "/file=" in str(a)} for tab in tabs]
    assert len(pictures[0]) >= 5
    assert not pictures[0] & pictures[1]
    records = [tab.evaluate(RECORD) for tab in tabs]
    assert None not in records
    assert records[0] != records[1]
    # Both declined storage, and both have a dial.
    assert running.store.stats() == before
    assert faults == []


def test_none_is_an_answer_and_undo_takes_it_back(running, open_tab, photo, take):
    tab = open_tab(width=360, scheme="dark")
    go(tab, running)
    first = first_answer(tab, photo)
    stored = len(running.rows())
    tab.get_by_role("button", name="Next four").click()
    tab.get_by_role("checkbox", name="Keep my answers").check()
    tab.get_by_role("radio", name=NONE).check()
    tab.get_by_role("radio", name=WHY_NOT[1]).check()
    take(tab, "none-360")
    tab.get_by_role("button", name="Show the strengths").click()
    tab.get_by_text("You chose none").wait_for()
    assert sentence_of(tab) != first
    assert len(running.rows()) == stored + 5
    tab.get_by_role("button", name="Undo", exact=True).click()
    tab.get_by_text("Taken back.").wait_for()
    assert sentence_of(tab) == first
    assert len(running.rows()) == stored
    tab.get_by_role("button", name="Why this strength").click()
    tab.get_by_text("the same for every photo").wait_for()
    take(tab, "why-360")
    assert overflow(tab) <= 0


def test_a_dial_is_still_there_after_coming_back_and_gone_after_deleting(running, open_tab, photo):
    tab = open_tab(width=1280, scheme="light")
    for n_photos in (1, 2):
        go(tab, running)
        first_answer(tab, photo)
        tab.get_by_role("button", name="Why this strength").click()
        photos = "1 photo" if n_photos == 1 else "2 photos"
        tab.get_by_text(f"{2 * n_photos} answers about {photos}").wait_for()
    tab.get_by_role("button", name="Delete my answers").first.click()
    tab.get_by_label("Your code").wait_for()
    tab.get_by_role("button", name="Delete my answers").last.click()
    tab.get_by_text("This page knows of none saved on this server").wait_for()
    tab.wait_for_function(f"{RECORD} === null")
    go(tab, running)
    first_answer(tab, photo)
    tab.get_by_role("button", name="Why this strength").click()
    tab.get_by_text("2 answers about 1 photo").wait_for()
