"""Two people in one photo: a strength for each, and one left as they are, by mouse and by keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.test_axe import faults_in_schemes
from tests.browser.test_keyboard import go_to, press
from tests.browser.test_page import VARIANT, at_widths, go, overflow, source_of, watch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
SIDE = 384
PERMISSION = "I have this person's permission to leave them as they are"


@pytest.fixture
def pair(tmp_path):
    """Return a photo of two people who do not exist, side by side."""
    path = tmp_path / "photo.jpg"
    photo = Image.new("RGB", (2 * SIDE, SIDE))
    for place, name in enumerate(("person-17-a.png", "person-01-a.png")):
        with Image.open(EXAMPLES / name) as picture:
            face = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        photo.paste(face, (place * SIDE, 0))
    photo.save(path, quality=95)
    return path


def open_pair(tab, running, pair):
    go(tab, running)
    tab.set_input_files("#photo input[type=file]", pair)
    tab.get_by_role("button", name="Download this variant").wait_for()
    tab.wait_for_selector(f'img[alt="{VARIANT}"]')
    tab.get_by_text("2 faces found").wait_for()


def changes(tab, act):
    """Do something and wait until another variant is shown."""
    before = source_of(tab)
    act()
    tab.wait_for_function(
        "([alt, old]) => document.querySelector(`img[alt='${alt}']`).src !== old",
        arg=[VARIANT, before],
    )


def face_on(tab, side):
    """Return the radio button of the face on one side, and its number."""
    radio = tab.get_by_role("radio", name=f"furthest {side}")
    return radio, int(radio.locator("xpath=ancestor::label").inner_text().split()[1].strip(","))


def saved(tab, tmp_path):
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download this variant").click()
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def targets(tab):
    """Return the heights of what can be pressed or dragged among the controls of faces."""
    boxes = tab.locator("#faces label, #permission label, #leave, #follow, #again").all()
    return [box.bounding_box()["height"] for box in boxes if box.is_visible()]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1280, "light", marks=pytest.mark.slow), (360, "dark")],
)
def test_each_face_has_its_strength_and_one_is_left_by_mouse(
    running, open_tab, pair, take, faults, tmp_path, width, scheme
):
    tab = open_tab(width=width, scheme=scheme)
    watch(tab, faults)
    open_pair(tab, running, pair)
    take(tab, f"faces-{width}")
    assert overflow(tab) <= 0

    radio, number = face_on(tab, "right")
    radio.check()
    slider = tab.locator("#face-strength input[type=range]")
    slider.wait_for()
    assert not tab.locator("#strength").is_visible()
    changes(tab, lambda: slider.press("ArrowRight"))
    tab.get_by_text(f"Face {number}: Strength 1.00").wait_for()
    tab.get_by_role("button", name="Same as all faces").wait_for()

    leave = tab.get_by_role("button", name=f"Leave face {number} as it is")
    assert leave.is_disabled()
    tab.get_by_role("checkbox", name=PERMISSION).check()
    changes(tab, leave.click)
    tab.get_by_text("Not anonymous as a whole").wait_for()
    again = tab.get_by_role("button", name=f"Anonymize face {number} again")
    again.wait_for()
    assert overflow(tab) <= 0
    assert min(at_widths(tab, lambda tab: min(targets(tab)))) >= 44
    take(tab, f"left-{width}")
    assert faults_in_schemes(tab) == []

    before = np.asarray(Image.open(pair)).astype(int)
    left_out = saved(tab, tmp_path)
    tab.get_by_text("not anonymous.").last.wait_for()
    assert (left_out[:, SIDE:] == before[:, SIDE:]).all()
    assert np.abs(left_out[:, :SIDE] - before[:, :SIDE]).mean() > 1

    changes(tab, again.click)
    tab.get_by_text(f"Face {number}: Strength 1.00").wait_for()
    assert np.abs(saved(tab, tmp_path)[:, SIDE:] - before[:, SIDE:]).mean() > 1
    changes(tab, tab.get_by_role("button", name="Same as all faces").click)
    tab.get_by_text("for each face").wait_for()
    assert faults == []


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1280, "light"), pytest.param(360, "dark", marks=pytest.mark.slow)],
)
def test_what_an_observer_infers_is_shown_on_demand_and_never_stale(
    running, open_tab, pair, take, faults, width, scheme
):
    tab = open_tab(width=width, scheme=scheme)
    watch(tab, faults)
    open_pair(tab, running, pair)
    table = tab.locator("#observed table")
    assert table.count() == 0
    tab.get_by_role("button", name="What an observer infers").press("Enter")
    table.wait_for()
    tab.wait_for_function("() => document.activeElement.id === 'observed'")
    assert "Face 1, as it is and at strength 0.95" in tab.inner_text("#observed")
    assert table.get_by_role("row").count() == 6
    assert table.get_by_role("rowheader", name="Gender").count() == 1
    assert overflow(tab) <= 0
    take(tab, f"observed-{width}")
    assert faults_in_schemes(tab) == []

    changes(tab, lambda: tab.locator("#strength input[type=range]").press("ArrowLeft"))
    table.wait_for(state="detached")
    face_on(tab, "left")[0].check()
    tab.locator("#face-strength").wait_for()
    tab.get_by_role("button", name="What an observer infers").click()
    table.wait_for()
    assert f"Face {face_on(tab, 'left')[1]}, as it is" in tab.inner_text("#observed")
    tab.get_by_role("radio", name="All faces").check()
    table.wait_for(state="detached")
    assert faults == []


def test_a_person_is_left_as_they_are_by_keyboard(running, open_tab, pair, faults):
    tab = open_tab(width=1280, scheme="light")
    watch(tab, faults)
    open_pair(tab, running, pair)
    go_to(tab, "radio", "All faces")
    tab.keyboard.press("ArrowDown")
    tab.locator("#face-strength input[type=range]").wait_for()
    go_to(tab, "range", "")
    changes(tab, lambda: tab.keyboard.press("ArrowRight"))
    tab.get_by_text("Face 1: Strength 1.00").wait_for()
    go_to(tab, "checkbox", PERMISSION)
    tab.keyboard.press("Space")
    tab.wait_for_function("() => !document.querySelector('#leave').disabled")
    changes(tab, lambda: press(tab, "Leave face 1"))
    tab.wait_for_function("() => document.activeElement.id === 'face-said'")
    changes(tab, lambda: press(tab, "Anonymize face 1"))
    tab.wait_for_function("() => document.activeElement.id === 'face-said'")

    # Pages of four are asked at one strength, and say so.
    press(tab, "Find your dial")
    tab.get_by_text("every face has the same strength").wait_for()
    assert faults == []
