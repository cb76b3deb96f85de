"""What programs may call: with the real gradio_client over HTTP, and the checks before it."""

from __future__ import annotations

import io
import json
from typing import get_args

import numpy as np
import pytest
from gradio.route_utils import delete_files_created_by_app
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from feedback.errors import InvalidRatingError
from privacy_core.anonymize import LADDER
from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import ATTRIBUTES, DEFAULT_STRENGTH
from shell.api import MOST_ANSWERS, MOST_STRENGTHS, Attribute, photo_of, read_history
from shell.routes import PUBLIC_CALLS
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    jpeg,
    portrait_fixture,
    running_fixture,
    visitor_fixture,
)

# Gradio counts its events with pandas calls that the pinned pandas calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

PLANTED = b"planted-71ab0e"


@pytest.fixture(scope="module")
def client(running, tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    return Client(running.url, verbose=False, download_files=str(folder), analytics_enabled=False)


@pytest.fixture
def photo(tmp_path, astronaut):
    """A photo whose metadata can be recognised anywhere."""
    exif = Image.Exif()
    exif[0x010E] = PLANTED.decode()
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(astronaut, exif=exif, comment=PLANTED))
    return handle_file(path)


@pytest.fixture
def wall(tmp_path):
    path = tmp_path / "wall.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(path)
    return handle_file(path)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def answers(*values):
    return [{"strength": s, "just_right": j} for s, j in values]


# --- Each call -----------------------------------------------------------------------------------


def test_four_calls_and_nothing_else_are_listed(client):
    listed = client.view_api(return_format="dict", print_info=False)
    assert {name.strip("/") for name in listed["named_endpoints"]} == PUBLIC_CALLS
    assert listed["unnamed_endpoints"] == {}
    for described in listed["named_endpoints"].values():
        assert len(described["description"]) > 40
    said = listed["named_endpoints"]["/anonymize"]
    types = {p["parameter_name"]: p["python_type"]["type"] for p in said["parameters"]}
    assert types["photo"] == "filepath"
    assert types["strength"] == "float"
    assert "smiling" in types["keep"]
    assert [returned["python_type"]["type"] for returned in said["returns"]] == [
        "filepath",
        "dict(str, Any)",
    ]


def test_a_photo_becomes_one_picture_and_its_report(running, client, photo):
    before, files = running.store.stats(), set(running.served_files())
    path, report = client.predict(photo=photo, strength=0.6, api_name="/anonymize")
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (512, 512))
        assert set(image.info) == {"XML:com.adobe.xmp", "xmp"}
        assert not image.getexif()
    changed = np.abs(pixels(path) - pixels(photo["path"])).max(axis=2) > 0
    assert 0.01 < changed.mean() < 0.6
    assert (report["kind"], report["strength"], report["n_faces"]) == ("variant", 0.6, 1)
    assert report["epsilon"] > 0
    assert report["not_covered"]
    assert "noise of its own" in report["calls"]
    assert "seed" not in json.dumps(report)
    assert "similarity" not in report
    # The upload is gone, the picture is all that is there, and no row was kept.
    (made,) = set(running.served_files()) - files
    assert made.name == "privacy-dial.png"
    assert running.store.stats() == before


def test_two_calls_with_one_photo_draw_different_noise(client, photo):
    first, second = (client.predict(photo=photo, api_name="/anonymize")[0] for _ in range(2))
    assert np.abs(pixels(first) - pixels(second)).max() > 0


def test_attributes_are_kept_and_hidden_as_asked(client, photo):
    _, report = client.predict(photo, 0.8, ["smiling"], ["gender"], api_name="/anonymize")
    assert report["policy"] == {"keep": ["smiling"], "hide": ["gender"], "set": {}}


def test_a_ladder_is_one_picture_for_each_strength_on_one_path(client, photo):
    paths, report = client.predict(photo=photo, strengths=[1.0, 0.5], api_name="/ladder")
    assert [part["strength"] for part in report["variants"]] == [1.0, 0.5]
    assert [path.rsplit("/", 1)[1] for path in paths] == ["variant-1.png", "variant-2.png"]
    assert [part["file"] for part in report["variants"]] == ["variant-1.png", "variant-2.png"]
    assert np.abs(pixels(paths[0]) - pixels(paths[1])).max() > 0
    assert report["ladder"]["epsilon"] == report["variants"][1]["epsilon"]
    assert "one noise path" in report["ladder"]["note"]


def test_a_ladder_has_the_usual_strengths_unless_others_are_asked_for(client, photo):
    paths, report = client.predict(photo=photo, api_name="/ladder")
    assert tuple(part["strength"] for part in report["variants"]) == LADDER
    assert len(paths) == len(LADDER)


def test_answers_move_the_recommendation_and_nothing_is_remembered(running, client):
    before = running.store.stats()
    empty = client.predict(api_name="/recommend")
    weak = client.predict(answers(*[(0.6, 4)] * 6), api_name="/recommend")
    strong = client.predict(answers(*[(0.6, 0)] * 6), api_name="/recommend")
    assert weak["mean"] < empty["mean"] < strong["mean"]
    for told in (empty, weak, strong):
        assert 0 <= told["low"] <= told["high"] <= 1
        assert told["strength"] >= told["floor"]
        assert len(told["model_version"]) >= 8
    assert (empty["n_answers"], strong["n_answers"]) == (0, 6)
    assert (empty["source"], empty["strength"]) == ("population", DEFAULT_STRENGTH)
    assert client.predict(api_name="/recommend") == empty
    assert running.store.stats() == before


def test_the_recommendation_is_for_the_photo_of_the_latest_answer(client):
    about = {
        name: [answer | {"photo": name} for answer in answers(*[(0.6, just_right)] * 6)]
        for name, just_right in (("weak", 4), ("strong", 0))
    }
    for_strong = client.predict(about["weak"] + about["strong"], api_name="/recommend")
    for_weak = client.predict(about["strong"] + about["weak"], api_name="/recommend")
    assert for_weak["mean"] < for_strong["mean"]
    assert for_weak["n_photos"] == for_strong["n_photos"] == 2


def test_health_tells_what_its_own_address_tells(client, visitor):
    told = client.predict(api_name="/health")
    assert told["versions"] == visitor.get("/health").json()["versions"]
    assert told["queue_limit"] > 0


def test_a_plain_http_call_without_a_session_works_too(visitor):
    event = visitor._http.post(f"{API}/call/recommend", json={"data": [answers((0.4, 0))]})
    answered = visitor.get(f"{API}/call/recommend/{event.json()['event_id']}").text
    assert "event: complete" in answered
    assert '"n_answers": 1' in answered


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 1.5}, "`strength` must be a number in [0, 1], got 1.5"),
        ({"strength": "0.5"}, "`strength` must be a number in [0, 1], got a text"),
        ({"strength": True}, "`strength` must be a number in [0, 1]"),
        ({"keep": ["hair"]}, "`keep` must name attributes of gender"),
        ({"keep": "smiling"}, "`keep` must be a list of attribute names"),
        ({"hide": ["x" * 99]}, "`hide` must be a few short attribute names"),
        ({"keep": ["gender"], "hide": ["gender"]}, "one treatment"),
    ],
)
def test_a_wrong_argument_gets_its_sentence_and_the_upload_is_deleted(
    running, client, wall, values, message
):
    files = set(running.served_files())
    with pytest.raises(AppError) as refused:
        client.predict(photo=wall, api_name="/anonymize", **values)
    assert message in str(refused.value)
    assert "x" * 99 not in str(refused.value)
    assert set(running.served_files()) == files


@pytest.mark.parametrize(
    "strengths",
    [[], [2], [0.1] * 2, [0.5, 0.501], [i / 20 for i in range(MOST_STRENGTHS + 1)], "0.5", [[0.5]]],
)
def test_a_wrong_ladder_gets_its_sentence(client, wall, strengths):
    with pytest.raises(AppError, match=r"`strengths?` must"):
        client.predict(photo=wall, strengths=strengths, api_name="/ladder")


def test_a_photo_without_a_face_gets_the_pages_sentence(client, wall):
    with pytest.raises(AppError, match="must show at least one face"):
        client.predict(photo=wall, api_name="/ladder")


@pytest.mark.parametrize("call", ["/anonymize", "/ladder"])
def test_only_an_upload_of_this_server_is_opened(client, running, tmp_path, call):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(PLANTED)
    store = str(running.store.path)
    for photo in (None, "photo.jpg", [], {"path": str(secret)}, {"path": store}, {"path": 5}):
        with pytest.raises(AppError, match="`photo` must be"):
            client.predict(photo=photo, api_name=call)
    assert secret.read_bytes() == PLANTED


def test_an_address_is_never_fetched(client, visitor):
    with pytest.raises(AppError, match="got a link"):
        client.predict(photo=handle_file("http://127.0.0.1:9/x.jpg"), api_name="/anonymize")
    data = [{"path": "", "url": "http://127.0.0.1:9/x.jpg"}]
    event = visitor._http.post(f"{API}/call/anonymize", json={"data": data}).json()["event_id"]
    assert "event: error" in visitor.get(f"{API}/call/anonymize/{event}").text


def test_rating_consent_and_erasure_are_no_calls(running, client, visitor):
    before = running.store.stats()
    numbers = {fn.name: fn._id for fn in running.page.fns.values() if fn.name}
    for name in ("ask", "answer", "undo", "erase", "download", "publish_model"):
        with pytest.raises(ValueError, match="Cannot find a function"):
            client.predict(api_name=f"/{name}")
        with pytest.raises(ValueError, match="Invalid function index"):
            client.predict(fn_index=numbers[name])
        assert visitor._http.post(f"{API}/call/{name}", json={"data": []}).status_code == 404
    assert running.store.stats() == before


# --- What stays ----------------------------------------------------------------------------------


def test_nothing_of_the_photos_metadata_is_told_written_or_said(running, client, photo, capfd):
    path, report = client.predict(photo=photo, api_name="/anonymize")
    paths, second = client.predict(photo=photo, strengths=[0.8], api_name="/ladder")
    said = "".join(capfd.readouterr()) + json.dumps([report, second])
    assert PLANTED.decode() not in said
    read = [io.FileIO(file).readall() for file in (path, *paths)]
    assert not [data for data in read if PLANTED in data]
    files = [file for file in running.cache.parent.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if PLANTED in file.read_bytes()]


def test_pictures_of_both_calls_are_deleted_at_their_age(running, client, photo):
    client.predict(photo=photo, api_name="/anonymize")
    client.predict(photo=photo, strengths=[0.5, 1.0], api_name="/ladder")
    assert len(running.served_files()) >= 3
    delete_files_created_by_app(running.page, age=900)
    assert len(running.served_files()) >= 3
    delete_files_created_by_app(running.page, age=-1)
    assert running.served_files() == []


# --- Histories, without a server -----------------------------------------------------------------


def test_attributes_are_those_of_the_schema():
    assert set(get_args(Attribute)) == set(ATTRIBUTES)


def test_a_history_is_read_in_its_order_and_is_for_the_latest_photo():
    read = read_history([{"strength": 0.2, "just_right": 0, "photo": "a"}, *answers((1, 4))])
    assert [(j.strengths, j.response, j.photo_id) for j in read] == [
        ((0.2,), 0, "a"),
        ((1,), 4, ""),
    ]
    assert photo_of(read[:1]) == "a"
    assert photo_of(read) == photo_of(()) == ""
    assert read_history(None) == ()


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({}, "`history` must be a list"),
        (answers(*[(0.5, 2)] * (MOST_ANSWERS + 1)), "at most 200 answers, got a list of length"),
        ([0.5], "Answer 1 of `history` must be an object"),
        ([{"just_right": 2}], "`strength of answer 1` must be a number in"),
        ([{"strength": float("nan"), "just_right": 2}], "must be a number in"),
        (answers((0.5, 5)), "`just_right` of answer 1 must be a whole number from 0 to 4"),
        (answers((0.5, 2), (0.5, True)), "`just_right` of answer 2"),
        (answers((0.5, 2.0)), "`just_right` of answer 1"),
        ([{"strength": 0.5, "just_right": 2, "photo": 7}], "`photo` of answer 1"),
        ([{"strength": 0.5, "just_right": 2, "photo": "x" * 65}], "`photo` of answer 1"),
        ([{"strength": 0.5, "just_right": 2, "rater_id": "planted"}], "1 other things"),
    ],
)
def test_a_wrong_history_gets_a_sentence_that_repeats_no_text(history, message):
    with pytest.raises(InvalidArgumentError) as refused:
        read_history(history)
    assert message in str(refused.value)
    assert "planted" not in str(refused.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
ANSWERS = st.fixed_dictionaries(
    {}, optional={"strength": VALUES, "just_right": VALUES, "photo": VALUES, "other": VALUES}
)


@settings(max_examples=150)
@given(VALUES | st.lists(ANSWERS, max_size=3))
def test_any_history_is_read_or_refused_in_words(history):
    try:
        read = read_history(history)
    except (InvalidArgumentError, InvalidRatingError) as refused:
        said, read = str(refused), ()
    else:
        said = ""
    assert len(said) < 400
    assert all(0 <= j.strengths[0] <= 1 and j.response in range(5) for j in read)
