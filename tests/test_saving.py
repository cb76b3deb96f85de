"""Charts as files: the picture looks as the chart does, and the numbers are its own."""

import base64
import csv
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from feedback.publish.crowd import crowd_view
from shell import model_words
from shell.audit_chart import accuracy_chart, attack_chart, cost_chart
from shell.audit_files import accuracy_csv, attack_csv, cost_csv
from shell.chart import dial_chart, dial_csv
from shell.crowd_chart import answers_chart, population_chart
from shell.saving import PAINTS, as_png, as_svg, chart_files, save_links
from shell.svg import drawing
from tests import loop_runs
from tests.test_crowd import RELEASE, answered
from tests.test_dial import settled


def charts():
    audit = loop_runs.audit_values(auc=0.72)
    return {
        "accuracy": accuracy_chart(audit),
        "attack": attack_chart(audit),
        "cost": cost_chart(audit),
        "answers": answers_chart(crowd_view(answered(11))),
        "population": population_chart(RELEASE),
        "dial": dial_chart(settled()),
    }


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def rows_of(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


@pytest.mark.parametrize("name", list(charts()))
def test_a_saved_chart_has_the_shape_and_the_colours_of_the_page(name):
    svg = charts()[name]
    root = ElementTree.fromstring(as_svg(svg))  # noqa: S314 - our own
    assert root[0].tag.endswith("style")
    width, height = (float(n) for n in root.get("viewBox").split()[2:])
    image = pixels(as_png(svg))
    assert abs(image.shape[1] - 3 * width) <= 3
    assert abs(image.shape[0] - 3 * height) <= 3
    shares = {tuple(colour) for colour in image.reshape(-1, 3)[::7]}
    assert (255, 255, 255) in shares
    assert any(max(colour) - min(colour) > 60 for colour in shares)


def test_every_mark_of_every_chart_has_a_paint_of_its_own():
    classes = {c for svg in charts().values() for c in re.findall(r'class="([\w -]+)"', svg)}
    painted = {name for key in PAINTS for name in key.split(".")}
    for found in classes - {"audit-chart", "dial-chart"}:
        assert painted & set(found.split()), found


def test_a_mark_stands_where_the_chart_puts_it():
    parts = ('<rect class="unlearned" x="10" y="20" width="30" height="10"/>',
             '<path class="unlearned" d="M200 50h20l0 10L200 60Z"/>',
             '<path class="interval original" d="M300 50V70"/>')  # fmt: skip
    image = pixels(as_png(drawing(100, "A sentence.", parts)))
    blue, red = (33, 102, 172), (178, 24, 43)
    assert tuple(image[3 * 25, 3 * 25]) == blue
    assert tuple(image[3 * 25, 3 * 45]) == (255, 255, 255)
    assert tuple(image[3 * 55, 3 * 210]) == blue
    assert tuple(image[3 * 60, 3 * 300]) == red


def test_the_numbers_of_an_audit_are_saved_as_they_are_drawn():
    audit = loop_runs.audit_values(auc=0.72)
    (forget,) = [r for r in rows_of(accuracy_csv(audit))
                 if (r["model"], r["rows"]) == ("unlearned", "forget")]  # fmt: skip
    values = audit["models"]["unlearned"]["accuracy"]["forget"]
    assert [float(forget[k]) for k in ("accuracy", "low", "high")] == [
        values[k] for k in ("value", "low", "high")
    ]
    assert [r["model"] for r in rows_of(attack_csv(audit))] == [
        "original", "unlearned", "reference"
    ]  # fmt: skip
    assert rows_of(cost_csv(audit))[0] == {"cost": "seconds", "share_of_retraining": "0.25"}


def test_each_chart_of_the_audit_is_offered_as_three_files_and_its_curve_as_drawn():
    html = model_words.charts_html(loop_runs.evidence())
    names = re.findall(r'download="([\w.-]+)"', html)
    assert names == [
        *(f"accuracy.{kind}" for kind in ("svg", "png", "csv")),
        *(f"attack.{kind}" for kind in ("svg", "png", "csv")),
        "attack-curve.svg",
        *(f"cost.{kind}" for kind in ("svg", "png", "csv")),
    ]


def test_a_link_holds_the_file_and_says_its_kind():
    files = chart_files(charts()["cost"], b"a,b\n1,2\n")
    html = save_links('o"dd', files, label="Save as {}".format)
    assert 'download="o&quot;dd.svg"' in html
    assert "Save as PNG" in html
    (content,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', html)
    assert base64.b64decode(content) == b"a,b\n1,2\n"


def test_where_a_dial_stands_is_saved_with_its_probabilities_and_marks():
    standing = settled()
    rows = rows_of(dial_csv(standing))
    probable = [float(row["probability"]) for row in rows if row["probability"]]
    assert probable == list(standing.density)
    assert {row["mark"]: float(row["strength"]) for row in rows if row["mark"]} == {
        "mean": standing.mean,
        "low": standing.low,
        "high": standing.high,
        "floor": standing.floor,
        "strength": standing.strength,
    }
