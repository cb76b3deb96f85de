from __future__ import annotations

import inspect
import io
import json
import math
import operator
import re
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import gradio
import numpy as np
import pytest
from PIL import Image

import app
from feedback import Keys, RatingStore, StoreError, UsedPageError
from feedback.remote.base import NullRemote
from feedback.sync.loop import Sync
from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import FaceFailedError, PhotoError
from privacy_core.faces import HogDetector, photo_from_pixels
from privacy_core.faces.output import VOCABULARY
from privacy_core.report import verified_share
from privacy_core.schema import AttributePolicy
from shell import desk as desks
from shell import pictures
from shell import visit as visits
from shell.desk import Clicks, RatingDesk
from shell.handlers.protect import PhotoHandlers
from shell.pictures import PictureFolder, Uploads, tile
from shell.routes import PUBLIC_CALLS
from shell.visit import Visit, working_photo
from shell.wording import (
    LETTERS,
    NONE,
    found_line,
    measured_line,
    privacy_line,
    total_line,
)
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    JUST_FINE,
    RefusedError,
    Visitor,
    answer,
    ask,
    chosen_text,
    jpeg,
    pictures_of,
    portrait_fixture,
    running_fixture,
    visitor_fixture,
)
from tests.privacy_core.tiny import CURVE, write_tiny_model

# Gradio counts its events with pandas calls that the pinned pandas calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

PLANTED = b"planted-9f3a71"


@pytest.fixture(scope="module")
def anonymizer(tmp_path_factory):
    model = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return Anonymizer(EmbeddedBackend.load(model), HogDetector(smallest_face=80, threshold=0.5))


@pytest.fixture
def desk(tmp_path):
    keys = Keys({1: bytes(range(32))}, is_generated=False, notice="")
    with RatingStore(tmp_path / "ratings.sqlite3") as store:
        yield RatingDesk(store=store, keys=keys, sync=Sync(store, NullRemote()))


@pytest.fixture
def opened(anonymizer, astronaut):
    opened = Visit()
    opened.open(anonymizer, photo_from_pixels(astronaut), source="own_photo")
    return opened


# --- From photo to download -------------------------------------------------------------------


def test_a_photo_becomes_a_variant_beside_it(visitor, portrait):
    outputs = visitor.open(portrait)
    original, variant = (visitor.fetch(o).content for o in outputs[4:6])
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (original, variant))
    assert outputs[3] == "1 face found."
    assert before.shape == after.shape
    assert np.abs(before[120:200, 180:260].astype(int) - after[120:200, 180:260]).mean() > 10
    assert np.abs(before[400:].astype(int) - after[400:]).mean() < 1


def test_turning_the_dial_gives_another_variant_and_its_own_guarantee(visitor, portrait):
    first = visitor.open(portrait)
    picture, line, _ = visitor.call("turn", 0.3)
    assert "Strength 0.30" in line
    assert visitor.fetch(picture).content != visitor.fetch(first[5]).content


def test_at_strength_zero_the_page_says_that_nothing_is_hidden(visitor, portrait):
    visitor.open(portrait)
    line = visitor.call("turn", 0)[1]
    assert "Not anonymous" in line
    assert "ε =" not in line


def test_the_download_is_the_shown_variant_with_one_mark_and_a_neutral_name(visitor, portrait):
    visitor.open(portrait)
    file, line, _ = visitor.call("download", 0.8)
    data = visitor.fetch(file).content
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.size == (512, 512)
        assert set(image.info) == {"XML:com.adobe.xmp", "xmp"}
        assert VOCABULARY + "compositeWithTrainedAlgorithmicMedia" in image.info["xmp"].decode()
    again = visitor.fetch(visitor.call("download", 0.8)[0]).content
    assert data == again
    assert Path(file["path"]).name == "privacy-dial.png"
    assert line == "Downloaded 1 picture."


def test_no_byte_of_the_photos_metadata_is_ever_served(running, visitor, astronaut):
    exif = Image.Exif()
    exif[0x010E] = PLANTED.decode()
    exif.get_ifd(0x8825)[29] = PLANTED.decode()
    data = jpeg(astronaut, exif=exif, comment=PLANTED)
    assert data.count(PLANTED) >= 3
    outputs = visitor.open(data, "beach.jpg")
    tiles = pictures_of(visitor.call("ask"))
    assert len(tiles) == 5
    for file in (*outputs[4:6], *tiles, visitor.call("download", 0.5)[0]):
        visitor.fetch(file)
    assert not any(PLANTED in path.read_bytes() for path in running.served_files())
    assert not any(PLANTED in heard for heard in visitor.heard)
    assert not any(path.name == "beach.jpg" for path in running.served_files())


def test_a_turned_photo_is_shown_upright(visitor, astronaut):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.ascontiguousarray(np.rot90(astronaut[:, :400]))
    outputs = visitor.open(jpeg(turned, exif=exif))
    with Image.open(io.BytesIO(visitor.fetch(outputs[4]).content)) as image:
        assert image.size == (400, 512)
    assert "turned upright" in outputs[3]


def test_a_large_photo_is_reduced_once_and_the_visitor_is_told(astronaut):
    photo = photo_from_pixels(np.array(Image.fromarray(astronaut).resize((2400, 1200))))
    working = working_photo(photo)
    assert working.pixels.shape == (1024, 2048, 3)
    assert "reduced to 2048 × 1024" in found_line(1, working.notes)
    assert working_photo(working) is working


def test_an_example_is_opened_as_a_synthetic_face(anonymizer, desk, astronaut, tmp_path):
    path = tmp_path / "example.png"
    Image.fromarray(astronaut).save(path)
    handlers = PhotoHandlers(
        anonymizer,
        desk,
        uploads=set(),
        examples=[path],
        pictures=PictureFolder(tmp_path, source_type=anonymizer.backend.digital_source_type),
        curve=None,
    )
    request = SimpleNamespace(headers={})
    event, other = (app.gr.SelectData(None, {"index": i, "value": None}) for i in (0, 1))
    open_example = app.for_visitor(handlers.open_example)
    outputs = open_example(request, event, "", None, lambda *_, **__: None)
    assert outputs[-1].source == "synthetic_face"
    with pytest.raises(app.gr.Error, match="one of those shown"):
        open_example(request, other, "", None, lambda *_, **__: None)


def test_another_photo_drops_the_one_before(visitor, portrait):
    visitor.open(portrait)
    visitor.call("close_photo")
    with pytest.raises(RefusedError, match="must be open in this tab"):
        visitor.call("turn", 0.5)


# --- Blinded pages -----------------------------------------------------------------------------


def test_without_consent_nothing_is_stored_and_the_strengths_are_revealed(
    running, visitor, portrait
):
    before = running.store.stats()
    visitor.open(portrait)
    outputs = answer(visitor, ask(visitor), consent=False)
    text = chosen_text(outputs)
    assert len(re.findall(r"[A-D] (?:0\.\d|1\.0)", text)) == 4
    assert "Nothing was stored here." in text
    assert "Saved" not in text
    assert running.store.stats() == before


def test_with_consent_five_rows_say_what_was_shown(running, visitor, portrait):
    before = len(running.rows())
    visitor.open(portrait)
    text = chosen_text(answer(visitor, ask(visitor), consent=True, best="B"))
    rows = running.rows()[before:]
    revealed = [float(s) for s in re.findall(r"[A-D] (0\.\d|1\.0)", text)]
    shown = [row for row in rows if row.response_type == "best_of_n"]
    (judged,) = [row for row in rows if row.response_type == "jar5"]
    assert len(rows) == 5
    assert [row.strength for row in shown] == revealed
    assert [row.response for row in shown] == [0, 1, 0, 0]
    assert (judged.position, judged.response, judged.strength) == (1, 2, revealed[1])
    assert len({row.rater_id for row in rows}) == 1
    assert {row.consent_version for row in rows} == {desks.CONSENT.version}
    assert "**Saved.**" in text


@pytest.mark.parametrize(
    ("agreed", "scopes"),
    [
        (["keep"], {"aggregate"}),
        (["keep", "publish"], {"publish_row"}),
        (["publish"], set()),
        ([], set()),
    ],
)
def test_rows_say_what_was_agreed_to_and_publishing_alone_keeps_nothing(
    running, visitor, portrait, agreed, scopes
):
    before = len(running.rows())
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=agreed)
    assert {row.consent_scope for row in running.rows()[before:]} == scopes


def test_the_recovery_code_is_shown_once_and_erases_from_another_tab(running, visitor, portrait):
    before = len(running.rows())
    visitor.open(portrait)
    first = chosen_text(answer(visitor, ask(visitor), consent=True))
    second = chosen_text(answer(visitor, ask(visitor), consent=True))
    (code,) = re.findall(r"`([0-9A-Z-]{39})`", first)
    assert code not in second
    assert len(running.rows()) == before + 10
    outputs = Visitor(running).call("erase", code)
    assert outputs[0].startswith("**Deleted:** 10 rows here")
    assert len(running.rows()) == before


def test_answers_of_this_visit_are_erased_without_a_code(running, visitor, portrait):
    before = len(running.rows())
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=True)
    visitor.call("erase", "")
    assert len(running.rows()) == before
    with pytest.raises(RefusedError, match="Enter the code"):
        visitor.call("erase", "")


def test_answers_are_erased_without_a_code_after_the_photo_was_dropped(running, visitor, portrait):
    before = len(running.rows())
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=True)
    drop_the_photo(running, visitor)
    with pytest.raises(RefusedError, match="photos are dropped after a while"):
        visitor.call("turn", 0.5)
    assert visitor.call("erase", "")[0].startswith("**Deleted:** 5 rows here")
    assert len(running.rows()) == before


def test_a_pseudonym_outlives_the_photo_and_its_code_still_erases_all(running, visitor, portrait):
    before = len(running.rows())
    visitor.open(portrait)
    first = chosen_text(answer(visitor, ask(visitor), consent=True))
    (code,) = re.findall(r"`([0-9A-Z-]{39})`", first)
    drop_the_photo(running, visitor)
    visitor.open(portrait)
    assert "code" not in chosen_text(answer(visitor, ask(visitor), consent=True)).lower()
    assert len({row.rater_id for row in running.rows()[before:]}) == 1
    visitor.call("erase", code)
    assert len(running.rows()) == before


def test_a_page_that_knows_of_no_saved_answers_does_not_say_that_there_are_none(visitor, portrait):
    visitor.open(portrait)
    answer(visitor, ask(visitor), consent=False)
    said = visitor.call("erase", "")[0]
    assert "knows of none" in said
    assert "if a code was ever shown" in said


def drop_the_photo(running, visitor):
    """Let a quarter of an hour pass for what a session holds of a photo."""
    held = running.page.app.state_holder.session_data[visitor.session]
    for key, (seconds, since) in held._state_ttl.items():
        held._state_ttl[key] = (seconds, since - timedelta(hours=1))
    running.page.app.state_holder.delete_state(visitor.session, expired_only=True)


def test_a_mistyped_code_erases_nothing(running, visitor):
    before = len(running.rows())
    with pytest.raises(RefusedError, match="recovery code"):
        visitor.call("erase", "0000-0000")
    assert len(running.rows()) == before


def test_what_the_browser_gets_before_the_answer_does_not_tell_the_strengths(visitor, portrait):
    visitor.open(portrait)
    visitor.heard.clear()
    outputs = visitor.call("ask")
    heard = b"".join(visitor.heard).decode()
    files = pictures_of(outputs)
    assert {Path(file["path"]).name for file in files} == {"picture.jpg"}
    assert len({file["path"] for file in files}) == 5
    assert "strength" not in heard.lower().replace("four strengths in random order", "")
    # Elsewhere in the stream Gradio says how long things took.
    assert not re.search(r"(?<![\d.])0\.[1-9]\b", json.dumps(outputs))
    assert not re.search(r"active|uniform|repeat|catch", heard)


def test_an_answered_page_cannot_be_answered_again(running, visitor, portrait):
    visitor.open(portrait)
    token = ask(visitor)
    answer(visitor, token, consent=True)
    before = running.rows()
    with pytest.raises(RefusedError, match="answered once"):
        answer(visitor, token, consent=True, best="A")
    assert running.rows() == before


def test_consent_after_the_reveal_stores_nothing(running, visitor, portrait):
    before = running.rows()
    visitor.open(portrait)
    token = ask(visitor)
    answer(visitor, token, consent=False)
    with pytest.raises(RefusedError, match="answered once"):
        answer(visitor, token, consent=True)
    assert running.rows() == before


@pytest.mark.parametrize(
    ("token", "message"), [("", "issued here"), ("p1.1.Zm9yZ2Vk", "issued here")]
)
def test_a_forged_page_is_refused(running, visitor, portrait, token, message):
    before = running.rows()
    visitor.open(portrait)
    ask(visitor)
    with pytest.raises(RefusedError, match=message):
        answer(visitor, token, consent=True)
    assert running.rows() == before


def test_a_page_of_another_tab_is_refused(running, visitor, portrait):
    before = running.rows()
    visitor.open(portrait)
    token = ask(visitor)
    other = Visitor(running)
    other.open(portrait)
    ask(other)
    with pytest.raises(RefusedError, match="another session"):
        answer(other, token, consent=True)
    assert running.rows() == before


def test_a_page_left_open_too_long_is_refused(running, visitor, portrait):
    before, now = running.rows(), running.clock.now
    visitor.open(portrait)
    token = ask(visitor)
    running.clock.now = now + desks.PAGE_LIFE
    try:
        with pytest.raises(RefusedError, match="Reload the page"):
            answer(visitor, token, consent=True)
    finally:
        running.clock.now = now
    assert running.rows() == before


@pytest.mark.parametrize(
    ("best", "just_right", "message"),
    [
        (None, JUST_FINE, "Both questions"),
        ("A", None, "Both questions"),
        (NONE, JUST_FINE, "Both questions"),
    ],
)
def test_an_incomplete_answer_is_refused_and_can_be_completed(
    visitor, portrait, best, just_right, message
):
    visitor.open(portrait)
    token = ask(visitor)
    with pytest.raises(RefusedError, match=message):
        answer(visitor, token, consent=False, best=best, just_right=just_right)
    assert "You chose" in chosen_text(answer(visitor, token, consent=False))


def test_skipping_leaves_no_page_to_answer(visitor, portrait):
    visitor.open(portrait)
    token = ask(visitor)
    visitor.call("leave")
    with pytest.raises(RefusedError, match="answered once"):
        answer(visitor, token, consent=True)


def test_an_answer_that_cannot_be_kept_is_not_called_saved_and_can_be_given_again(
    desk, opened, monkeypatch
):
    token, _ = desk.ask(opened, session="tab", history="")
    given = Clicks(token=token, session="tab", best=0, just_right=2, has_consent=True)

    def fail(*_):
        raise StoreError("The store must be writable, it is not.")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "add_page", fail)
        with pytest.raises(StoreError):
            desk.answer(opened, given, history="")
    assert opened.rater is None
    assert opened.answered == []
    assert desk.answer(opened, given, history="").n_saved == 5
    with pytest.raises(UsedPageError):
        desk.answer(opened, given, history="")


def test_response_times_run_from_the_page_to_the_first_choice_and_from_there(tmp_path, opened):
    ticks = iter([100.0, 103.25, 105.5])
    keys = Keys({1: bytes(range(32))}, is_generated=False, notice="")
    with RatingStore(tmp_path / "ratings.sqlite3") as store:
        sync = Sync(store, NullRemote())
        desk = RatingDesk(store=store, keys=keys, sync=sync, timer=lambda: next(ticks))
        token, _ = desk.ask(opened, session="tab", history="")
        desk.note_choice(opened)
        desk.note_choice(opened)  # Choosing again moves no clock.
        clicks = Clicks(token=token, session="tab", best=1, just_right=0, has_consent=True)
        desk.answer(opened, clicks, history="")
        times = {row.response_type: row.response_ms for row in store.ratings()}
    assert times == {"best_of_n": 3200, "jar5": 2200}


def test_a_new_policy_takes_the_open_page_away(desk, opened):
    desk.ask(opened, session="tab", history="")
    opened.set_policy(AttributePolicy(keep=("smiling",)))
    assert opened.question is None


# --- What is guaranteed --------------------------------------------------------------------------


def test_downloads_of_one_photo_cost_what_the_weakest_costs(opened):
    weak, strong = opened.photo().ladder([0.5, 0.9])
    opened.release(strong)
    total = opened.release(weak)
    assert total == opened.release(strong)
    assert total.mu == pytest.approx(weak.privacy.mu)


def test_downloads_under_two_policies_add_up(opened):
    first = opened.photo().variant(0.8)
    opened.release(first)
    opened.set_policy(AttributePolicy(hide=("gender",)))
    second = opened.photo().variant(0.8)
    total = opened.release(second)
    assert total.mu == pytest.approx(math.hypot(first.privacy.mu, second.privacy.mu))
    assert "2 pictures. Together" in total_line(total, opened.n_downloads)


def test_downloads_of_two_photos_add_up(anonymizer, opened, astronaut):
    first = opened.photo().variant(0.8)
    opened.release(first)
    opened.open(anonymizer, photo_from_pixels(astronaut), source="own_photo")
    total = opened.release(opened.photo().variant(0.8))
    assert total.mu == pytest.approx(math.sqrt(2) * first.privacy.mu)


def test_one_download_without_noise_ends_every_guarantee(opened):
    opened.release(opened.photo().variant(0.8))
    total = opened.release(opened.photo().variant(0))
    assert total.epsilon is None
    assert "no guarantee" in total_line(total, 2)


def test_downloads_keep_no_pixels(opened):
    opened.release(opened.photo().variant(0.8))
    assert "uint8" not in repr(opened._weakest)


def test_the_line_names_the_measured_share_of_the_nearest_noise(opened):
    variant = opened.photo().variant(0.8)
    rates = {"sigmas": [0.1, variant.sigma], "verified": [1.0, 0.9, 0.02]}
    curve = replace(CURVE, measured=rates)
    assert "still knew 2% of the originals" in measured_line(verified_share(variant, curve))
    assert measured_line(verified_share(variant, None)) == ""
    assert "under 1%" in measured_line(0.004)


def test_a_line_for_several_faces_says_that_it_holds_for_each(opened):
    variant = replace(opened.photo().variant(0.8), n_faces=2)
    assert "for each face" in privacy_line(variant)
    assert found_line(2, ()).startswith("2 faces found")


def test_tiles_are_square_and_stay_inside_the_photo(astronaut):
    for box in ((-40, -40, 60, 60), (470, 470, 560, 560), (0, 0, 512, 512), (200, 100, 240, 140)):
        assert tile(astronaut, box).shape == (480, 480, 3)


# --- Visitors ------------------------------------------------------------------------------------


def test_two_visitors_never_share_a_photo(running, visitor, portrait):
    visitor.open(portrait)
    stranger = Visitor(running)
    for call in (("turn", 0.5), ("download", 0.5), ("ask",)):
        with pytest.raises(RefusedError, match="must be open in this tab"):
            stranger.call(*call)
    assert "Strength 0.50" in visitor.call("turn", 0.5)[1]


def test_two_visitors_with_one_photo_get_different_noise(running, visitor, portrait):
    other = Visitor(running)
    first, second = (v.fetch(v.open(portrait)[5]).content for v in (visitor, other))
    assert first != second


def test_of_too_many_photos_the_first_is_dropped(anonymizer, astronaut):
    shelf, photo = visits.OpenPhotos(limit=2), photo_from_pixels(astronaut)
    first, second, third = Visit(), Visit(), Visit()
    for one in (first, second, first, third):
        one.open(anonymizer, photo, source="own_photo")
        shelf.add(one)
    assert second.opened is None
    assert first.opened is not None
    assert third.opened is not None


def test_what_is_remembered_of_a_page_holds_no_pixels(desk, opened):
    desk.ask(opened, session="tab", history="")
    assert all(variant.image.size == 0 for variant in opened.question.variants)


def svg():
    return b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'


def bomb():
    """A PNG header of 50 000 × 50 000 pixels."""
    data = bytearray(png(np.zeros((2, 2, 3), np.uint8)))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "empty.png", "must not be empty"),
        (b"hello", "note.jpg", "must be JPEG, PNG"),
        (b"<!doctype html><html></html>", "page.png", "web page"),
        (svg(), "drawing.svg", "SVG"),
        (svg(), "drawing.png", "SVG"),
        (bomb(), "bomb.png", "at most 50 megapixels"),
        (png(np.full((64, 64, 3), 90, np.uint8))[:60], "cut.png", "complete picture"),
        (png(np.full((64, 64, 3), 90, np.uint8)), "wall.png", "at least one face"),
    ],
    ids=["zero-byte", "text", "html-as-png", "svg", "svg-as-png", "bomb", "truncated", "no-face"],
)
def test_a_bad_upload_gets_its_sentence_and_leaves_nothing(running, visitor, data, name, message):
    before = running.store.stats()
    files = set(running.served_files())
    for _ in range(2):
        with pytest.raises(RefusedError, match=message):
            visitor.open(data, name)
    assert set(running.served_files()) == files
    assert running.store.stats() == before


@pytest.mark.parametrize("strength", [1.3, -0.1, "much", None, True])
def test_a_strength_that_is_none_is_refused(visitor, portrait, strength):
    visitor.open(portrait)
    with pytest.raises(RefusedError):
        visitor.call("turn", strength)


def test_an_unknown_attribute_is_refused(visitor, portrait):
    visitor.open(portrait)
    with pytest.raises(RefusedError):
        visitor.call("set_policy", ["race"], [], 0.8)


def test_a_path_that_was_not_uploaded_is_refused(visitor, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(RefusedError):
        visitor.call("open_upload", file)
    assert secret.read_bytes() == b"secret"


def test_a_face_that_fails_is_named_without_words_of_the_command_line():
    @app.for_program
    def handler():
        raise FaceFailedError(2, 3, "Its eyes coincide.")

    with pytest.raises(app.gr.Error) as caught:
        handler()
    assert "Face 2 of 3" in caught.value.message
    assert "--" not in caught.value.message


def test_an_unexpected_failure_tells_the_visitor_and_the_log_nothing_of_its_words(capsys):
    @app.for_program
    def handler():
        raise RuntimeError("pixels of beach.jpg")

    with pytest.raises(app.gr.Error) as caught:
        handler()
    assert "beach" not in caught.value.message + capsys.readouterr().err
    assert caught.value.__suppress_context__ or "beach" not in str(caught.value)


def test_a_store_that_cannot_be_reached_is_named_to_the_log_and_not_to_the_visitor(capsys):
    @app.for_program
    def handler():
        raise StoreError("The file /x/ratings.sqlite3 is read-only.")

    with pytest.raises(app.gr.Error, match="try again later") as caught:
        handler()
    assert "sqlite3" not in caught.value.message + capsys.readouterr().err


def test_choosing_asks_how_it_is_or_what_is_wrong(visitor, portrait):
    visitor.open(portrait)
    ask(visitor)
    for best, is_shown in (("B", [True, False]), (NONE, [False, True]), (None, [False, False])):
        assert [o["visible"] for o in visitor.call("choose", best)[:2]] == is_shown


@pytest.mark.parametrize("is_shown", [True, False])
def test_the_original_comes_and_goes_with_what_looking_at_it_means(visitor, is_shown):
    original, said = visitor.call("compare", is_shown)
    assert original["visible"] is said["visible"] is is_shown


def test_another_treatment_of_attributes_shows_another_variant(visitor, portrait):
    first = visitor.open(portrait)[5]
    second = visitor.call("set_policy", ["smiling"], ["gender"], 0.8)[0]
    assert visitor.fetch(first).content != visitor.fetch(second).content


def test_emptying_the_field_changes_nothing(visitor):
    assert visitor.call("open_upload", None)[0] == {"__type__": "update"}


def test_an_upload_that_is_gone_is_asked_for_again(tmp_path):
    gone = str(tmp_path / "gone.png")
    with pytest.raises(PhotoError, match="Choose it again"):
        pictures.take_upload(gone, {gone})


@pytest.mark.parametrize("forget", [operator.isub, set.difference_update])
def test_an_upload_after_old_ones_were_swept_away_is_deleted_when_it_is_read(tmp_path, forget):
    photo, uploads = tmp_path / "photo.jpg", Uploads()
    uploads.update([str(photo)])
    uploads.update([str(photo)])
    # As Gradio sweeps: the file first, then its path.
    forget(uploads, {str(photo)})
    photo.write_bytes(PLANTED)
    uploads.update([str(photo)])
    assert pictures.take_upload(str(photo), uploads) == PLANTED
    assert not photo.exists()


def test_a_path_that_is_added_by_itself_counts_like_an_upload(tmp_path):
    photo, uploads = tmp_path / "photo.jpg", Uploads()
    photo.write_bytes(PLANTED)
    for _ in range(2):
        uploads.add(str(photo))
    assert [pictures.take_upload(str(photo), uploads) for _ in range(2)] == [PLANTED] * 2
    assert not photo.exists()


def test_an_upload_that_comes_in_during_a_sweep_does_not_end_it():
    uploads = Uploads()
    uploads.update(["a", "b"])
    seen = set()
    for number, path in enumerate(uploads):
        uploads.update([f"new-{number}"])
        seen.add(path)
    assert seen == {"a", "b"}
    assert set(uploads) == {"a", "b", "new-0", "new-1"}


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_a_file_that_was_not_uploaded_is_neither_read_nor_deleted(
    visitor, portrait, tmp_path, meta
):
    own = tmp_path / "on-the-server.jpg"
    own.write_bytes(portrait)
    with pytest.raises(RefusedError):
        visitor.call("open_upload", {"path": str(own), **meta})
    assert own.read_bytes() == portrait


def test_a_picture_of_the_page_itself_cannot_be_named_as_an_upload(running, visitor, portrait):
    visitor.open(portrait)
    cached = [path for path in running.served_files() if path.name == "picture.jpg"]
    with pytest.raises(RefusedError):
        visitor.call("open_upload", {"path": str(cached[0]), "meta": {"_type": "gradio.FileData"}})
    assert cached[0].is_file()


def test_an_upload_is_read_once(visitor, portrait):
    upload = visitor.upload(portrait, "photo.jpg")
    visitor.call("open_upload", upload)
    with pytest.raises(RefusedError, match="uploaded here"):
        visitor.call("open_upload", {"path": upload["path"]})


def test_a_link_is_never_fetched(visitor, monkeypatch):
    async def fetch(*_, **__):
        raise AssertionError("fetched")

    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_download", fetch)
    link = {"path": "http://127.0.0.1:9/x.jpg", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(RefusedError) as refused:
        visitor.call("open_upload", link)
    assert "fetched" not in str(refused.value)


@pytest.mark.parametrize(
    "door",
    ["file=http://127.0.0.1:9/x", "proxy=http://x", "deep_link?session_hash=x", "vibe-code/"],
)
def test_doors_of_gradio_that_the_page_does_not_use_are_closed(visitor, door):
    assert visitor.get(f"/gradio_api/{door}").status_code == 404


# --- How it is launched ----------------------------------------------------------------------


def test_the_page_is_launched_hardened(running, tmp_path):
    settings = app.launch_settings(data_dir=tmp_path, host="127.0.0.1", port=7860, report=dict)
    expected = {
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "allowed_paths": [],
        "blocked_paths": [str(tmp_path)],
        "strict_cors": True,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "share": False,
    }
    assert {name: settings[name] for name in expected} == expected
    assert running.page.delete_cache == (60, 900)
    assert not running.page.analytics_enabled
    assert not running.page.api_open


def test_every_endpoint_but_the_four_for_programs_is_private(running, visitor):
    public = {fn.name for fn in running.page.fns.values() if fn.api_visibility != "private"}
    assert public == PUBLIC_CALLS
    info = visitor.get(f"{API}/info").json()
    assert {name.strip("/") for name in info["named_endpoints"]} == PUBLIC_CALLS
    assert info["unnamed_endpoints"] == {}


def test_history_and_monitoring_are_off(visitor):
    assert visitor.get(f"{API}/runs").status_code == 404
    assert visitor.get("/monitoring/summary").status_code in {403, 404}


def test_nothing_about_a_visitor_may_be_cached(visitor, portrait):
    file = visitor.open(portrait)[5]
    assert visitor.fetch(file).headers["cache-control"] == "no-store"


def test_the_store_and_the_keys_are_never_served(running, visitor):
    response = visitor.get(f"{API}/file={running.store.path}")
    assert response.status_code in {403, 404}


def test_a_machine_that_is_slow_to_answer_at_first_can_start_the_page(running, tmp_path):
    settings = app.launch_settings(data_dir=tmp_path, host="x", port=1, report=dict)
    asked = inspect.getsource(type(running.page).launch)
    # What is left out is this one question of Gradio's, with its three seconds, and no other.
    assert settings["_frontend"] is False
    assert [line for line in asked.splitlines() if "_frontend" in line][1:] == [
        "        if _frontend and not networking.url_ok(self.local_url) and not self.share:"
    ]


def test_state_and_pictures_live_fifteen_minutes(running):
    states = [b for b in running.page.blocks.values() if type(b) is app.gr.State]
    # Who answers, without any picture, is known as long as the tab is open.
    assert sorted(s.time_to_live for s in states) == [15 * 60, 15 * 60, math.inf]


@pytest.fixture
def main_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVACY_DIAL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PRIVACY_DIAL_MODEL", str(tmp_path / "no model"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    yield monkeypatch
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("main_environment")
def test_main_without_a_model_says_so_and_returns_2(capsys):
    assert app.main([]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_main_refuses_a_store_that_the_page_could_serve(main_environment, capsys):
    main_environment.setenv("PRIVACY_DIAL_DATA_DIR", str(Path.cwd() / "store"))
    assert app.main([]) == 2
    assert "`PRIVACY_DIAL_DATA_DIR` must be outside" in capsys.readouterr().err
    assert not (Path.cwd() / "store").exists()


@pytest.mark.usefixtures("main_environment")
def test_main_refuses_a_port_that_is_none():
    with pytest.raises(SystemExit) as caught:
        app.main(["--port", "many"])
    assert caught.value.code == 2


def test_letters_name_every_variant_of_a_page():
    assert len(LETTERS) == desks.N_SHOWN
