"""What the *Crowd* page shows of a published data set; the Hub is the test Hub."""

import base64
import csv
import io
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from feedback import Consent, Keys, Page, Release, Shown, new_id, session_id
from feedback.errors import RemoteBusyError
from feedback.page import Answer, Rater, rows_of_page
from feedback.publish.cells import select
from feedback.publish.crowd import crowd_view
from feedback.publish.publication import publication_files
from feedback.publish.publishing import public_dataset, publish
from feedback.publish.reading import Publication, PublicRelease
from shell.crowd import FRESH_SECONDS, NOT_SET, RETRY_SECONDS, Crowd, open_crowd
from shell.crowd_chart import answers_chart, noise_margin, population_chart
from shell.saving import as_svg
from tests.hub_server import HubServer

ANNA = "hf_anna"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEYS = Keys({1: bytes(range(32))}, is_generated=False, notice="")
ROWS = Consent("2026-11", "publish_row")
RELEASE = PublicRelease("dp-eps1", "2026-11-20", "embedded@1", 200, 1.0, (0.0, -3.0, *(25.0,) * 8))


def parsed(svg):
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def files_of(charts):
    links = re.findall(r'download="([a-z.]+)" href="data:[a-z/+]+;base64,([^"]+)"', charts)
    return {name: base64.b64decode(content) for name, content in links}


def answered(n_raters=12, *, source="own_photo", just_right=2):
    """One page answered by each of so many raters."""
    rows = []
    for _ in range(n_raters):
        page = Page(
            session_id=session_id(KEYS, new_id()),
            photo_id=new_id(),
            method="embedded",
            model_revision="1",
            shown=tuple(Shown(s, 10.0) for s in (0.35, 0.55, 0.75, 0.95)),
            source=source,
            app_version="0.1.0",
            expires_at=NOW + timedelta(minutes=30),
            policy="random",
            propensity=1.0,
            attributes="none",
        )
        answer = Answer(
            best=2, just_right=just_right, best_ms=900, just_right_ms=700, client="web",
            answered_at=NOW,
        )  # fmt: skip
        rows += rows_of_page(page, answer, rater=Rater(new_id(), 1), consent=ROWS, key=b"k" * 32)
    return rows


def publication(rows=(), releases=(RELEASE,)):
    return Publication("anna/public", "c" * 40, "2026-11-20", tuple(rows), tuple(releases))


def test_without_a_data_set_the_page_says_how_one_is_named():
    assert Crowd(None).page().said == NOT_SET
    assert open_crowd(None, model_version="m").page().charts == ""


def test_a_published_data_set_becomes_two_charts_a_table_and_files_to_save():
    with HubServer() as hub:
        hub.add_user("anna", ANNA)
        drawn = Release("dp-eps1", "1", NOW.isoformat(), "embedded@1", 12, (2000,) * 10)
        files = publication_files(
            select(answered(), key=os.urandom(32)), [drawn],
            name="anna/public", licence="other", variants=None, published_at=NOW,
        )  # fmt: skip
        mine = public_dataset("anna/public", token=ANNA, endpoint=hub.endpoint)
        publish(mine, files, private_repo_ids=[])
        found = open_crowd("anna/public", model_version="embedded@1", endpoint=hub.endpoint).page()
    assert "60 answers of 12 raters" in found.said
    assert found.charts.count("<svg") == 2
    assert "| 0.7-0.8 | 12 | 12 | 0% | 100% (100% to 100%) | 0% |" in found.table
    files = files_of(found.charts)
    assert list(files) == [
        f"{name}.{kind}" for name in ("population", "answers") for kind in ("svg", "png", "csv")
    ]
    for name in ("population.svg", "answers.svg"):
        assert "style" in parsed(files[name])[0].tag
    table = list(csv.DictReader(io.StringIO(files["answers.csv"].decode())))
    assert [(row["from"], row["answers"]) for row in table] == [("0.7", "12")]


def test_a_kind_of_photo_is_shown_by_itself():
    rows = answered(11) + answered(10, source="synthetic_face", just_right=0)
    crowd = Crowd(lambda: publication(rows))
    assert "21 raters" in crowd.page().said
    assert "| 11 | 11 | 0% | 100%" in crowd.page("own_photo").table
    assert "| 10 | 10 | 100% | 0%" in crowd.page("synthetic_face").table
    assert "Nobody's published answers" in crowd.page("demo_photo").table
    assert "answers.csv" not in files_of(crowd.page("demo_photo").charts)


def test_the_release_about_this_model_comes_before_a_newer_one_about_another():
    other = replace(RELEASE, name="newer", model_version="embedded@2")
    found = Crowd(lambda: publication([], [RELEASE, other]), model_version="embedded@1").page()
    assert "Release dp-eps1," in found.charts
    assert "Release newer," in Crowd(lambda: publication([], [RELEASE, other])).page().charts


def test_it_is_read_once_an_hour_and_after_a_fault_a_minute_later():
    now, reads, faults = [0.0], [], [RemoteBusyError("The Hub did not answer.")]

    def read():
        reads.append(now[0])
        if faults:
            raise faults.pop()
        return publication(answered(11))

    crowd = Crowd(read, clock=lambda: now[0])
    assert "did not answer" in crowd.page().said
    assert "did not answer" in crowd.page().said
    now[0] = RETRY_SECONDS
    assert "11 raters" in crowd.page().said
    now[0] += FRESH_SECONDS - 1
    crowd.page("own_photo")
    assert reads == [0.0, RETRY_SECONDS]
    now[0] += 1
    faults.append(RemoteBusyError("Again nothing."))
    said = crowd.page().said
    assert "11 raters" in said
    assert "Again nothing." in said


def test_what_a_data_set_is_named_never_becomes_markup():
    named = replace(RELEASE, name="<img src=x onerror=alert(1)>")
    charts = Crowd(lambda: publication([], [named])).page().charts
    assert "<img" not in charts
    assert "&lt;img" in charts


def test_the_noise_of_a_release_stays_within_its_margin_nine_times_out_of_ten():
    # P(|noise| > t) = exp(-t ε / 2) for the continuous law.
    assert noise_margin(1.0) == pytest.approx(4.605, abs=1e-3)
    assert noise_margin(2.0) == pytest.approx(noise_margin(1.0) / 2)


def test_bars_stay_inside_the_picture_whatever_the_noise():
    for raters in (RELEASE.noisy_raters, (-50.0,) * 10, (0.0,) * 9 + (100_000.0,)):
        root = parsed(population_chart(replace(RELEASE, noisy_raters=raters)))
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            assert float(bar.get("height")) >= 0
            assert 30 <= float(bar.get("y")) <= 150


def test_every_chart_says_in_words_what_it_shows():
    view = crowd_view(answered(11))
    for svg in (population_chart(RELEASE), answers_chart(view)):
        assert len(parsed(svg).get("aria-label")) > 60
    assert answers_chart(crowd_view([])) == ""
    assert as_svg(answers_chart(view)).startswith(b"<svg")


def test_answers_are_counted_once_for_each_reading_not_for_each_click(monkeypatch):
    now, counted = [0.0], []

    def count(ratings, *, source):
        counted.append(source)
        return crowd_view(ratings, source=source)

    monkeypatch.setattr("shell.crowd.crowd_view", count)
    crowd = Crowd(lambda: publication(answered(11)), clock=lambda: now[0])
    shown = [crowd.page("own_photo") for _ in range(3)]
    crowd.page()
    assert counted == ["own_photo", None]
    assert shown[0] == shown[2]
    now[0] = FRESH_SECONDS
    crowd.page("own_photo")
    assert counted == ["own_photo", None, "own_photo"]
