"""What an observer infers: read off original and variant, said with its accuracy, kept nowhere."""

from __future__ import annotations

import json
import re
import shutil
import time

import numpy as np
import pytest
import torch

from privacy_core.anonymize import Anonymizer
from privacy_core.attributes import (
    PREDICTOR_CONFIG,
    PREDICTOR_FOLDER,
    PREDICTOR_WEIGHTS,
    MeasuredPredictor,
    load_predictor,
)
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import FaceFailedError, InvalidArgumentError
from privacy_core.noise import NoiseKey
from privacy_core.schema import ATTRIBUTES, AttributePolicy, Photo
from shell.observer import Observer, observed_html
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    RefusedError,
    Visitor,
    portrait_fixture,
    start,
)
from tests.privacy_core.tiny import FixedDetector, face_at, smooth_photo, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
FACES = (face_at(20, 15), face_at(150, 60, 0.6))
ACCURACY = dict.fromkeys(ATTRIBUTES, 0.9)
PROTECTED = {0.5: dict.fromkeys(ATTRIBUTES, 0.75), 1.0: dict.fromkeys(ATTRIBUTES, 0.55)}


class Brightness:
    """Takes a face for male by how bright its frame is, and is sure of nothing else."""

    def predict(self, frames):
        found = np.full((len(frames), len(ATTRIBUTES)), 0.5, np.float32)
        found[:, 0] = frames.reshape(len(frames), -1).mean(1) / 255
        return found


@pytest.fixture(scope="module")
def anonymizer():
    torch.set_num_threads(1)
    return Anonymizer(EmbeddedBackend(tiny_model()), FixedDetector(*FACES))


def look(anonymizer, *, photo=None, number=1, accuracy=ACCURACY, protected=PROTECTED, **choices):
    policy = choices.pop("policy", None)
    opened = anonymizer.open(photo or smooth_photo(160, 260), key=NoiseKey.fresh(), policy=policy)
    variant = opened.variant(0.9, **choices)
    observer = Observer(MeasuredPredictor(Brightness(), accuracy, protected))
    return observer.look(opened, variant, number), variant


def test_the_original_is_read_before_and_the_variant_after(anonymizer):
    bright = np.full((160, 260, 3), 20, np.uint8)
    bright[:, :140] = 250
    readings, _ = look(anonymizer, photo=Photo(bright))
    gender = readings[0]
    assert gender.attribute == "gender"
    assert gender.before.value == "male"
    assert gender.before.sureness > 0.8
    assert gender.after.sureness != gender.before.sureness
    dark, _ = look(anonymizer, photo=Photo(bright), number=2)
    assert dark[0].before.value == "female"


def test_a_face_that_is_left_is_read_the_same_before_and_after(anonymizer):
    readings, variant = look(anonymizer, number=2, left={1})
    assert all(reading.before == reading.after for reading in readings)
    assert "as it is and left as it is" in observed_html(readings, variant, 2)


def test_every_row_names_what_was_asked_and_how_often_the_reader_is_right(anonymizer):
    policy = AttributePolicy(keep=("smiling",), hide=("gender",), set={"beard": "no"})
    readings, variant = look(anonymizer, policy=policy)
    assert [reading.wish for reading in readings] == ["hide", "", "keep", "", "set"]
    html = observed_html(readings, variant, 1)
    assert html.count("<tr>") == 6
    for words in ("hide: drawn at random", "keep", "set to no", "nothing", "right in 90%"):
        assert words in html
    assert "unsure (yes)" in html
    assert "at strength 0.90" in html
    assert "a coin" in html


def test_the_figure_after_is_that_of_the_next_weaker_strength_that_was_measured(anonymizer):
    readings, variant = look(anonymizer)
    assert {reading.accuracy_after for reading in readings} == {0.75}
    assert "right in 75%" in observed_html(readings, variant, 1)
    assert {r.accuracy_after for r in look(anonymizer, strengths={0: 1})[0]} == {0.55}
    for choices in (
        {"strengths": {0: 0.4}},
        {"left": {0}},
        {"policy": AttributePolicy(keep=("smiling",))},
    ):
        readings, variant = look(anonymizer, **choices)
        assert {reading.accuracy_after for reading in readings} == {None}
        assert observed_html(readings, variant, 1).count("right in") == 5


def test_what_was_not_measured_is_not_shown(anonymizer):
    readings, _ = look(anonymizer, accuracy={"gender": 0.95})
    assert [reading.attribute for reading in readings] == ["gender"]


def test_a_face_that_is_only_covered_cannot_be_read(anonymizer):
    from dataclasses import replace

    broken = replace(face_at(150, 10, 0.5), landmarks=np.full((5, 2), np.nan))
    covering = Anonymizer(anonymizer.backend, FixedDetector(FACES[0], broken))
    opened = covering.open(smooth_photo(160, 260), key=NoiseKey.fresh(), solid_on_failure=True)
    with pytest.raises(FaceFailedError):
        Observer(MeasuredPredictor(Brightness(), ACCURACY)).look(opened, opened.variant(0.9), 2)


# --- The shipped classifier ----------------------------------------------------------------------


def test_the_shipped_classifier_reads_all_attributes_and_says_how_well():
    measured = load_predictor()
    frames = np.stack([smooth_photo(128, 128, seed=seed).pixels for seed in (0, 1)])
    found = measured.predictor.predict(frames)
    assert found.shape == (2, 5)
    assert ((found >= 0) & (found <= 1)).all()
    assert set(measured.accuracy) == set(ATTRIBUTES)
    assert all(0.75 < accuracy < 1 for accuracy in measured.accuracy.values())
    assert sorted(measured.protected) == [0.5, 0.8, 1.0]
    for name, accuracy in measured.accuracy.items():
        after = [measured.protected[strength][name] for strength in (0.5, 0.8, 1.0)]
        assert accuracy > after[0] > max(after[1:])
        assert min(after) > 0.5


def test_a_look_costs_less_than_a_tenth_of_a_second(anonymizer):
    opened = anonymizer.open(smooth_photo(160, 260), key=NoiseKey.fresh())
    variant, observer = opened.variant(0.9), Observer(load_predictor())
    observer.look(opened, variant, 1)
    spent = []
    for _ in range(5):
        started = time.thread_time()
        observer.look(opened, variant, 1)
        spent.append(time.thread_time() - started)
    assert min(spent) < 0.1


def test_its_card_names_terms_data_and_the_measured_figures():
    card = (PREDICTOR_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license_name: non-commercial-research" in card
    for name in ("CelebA", "UTKFace"):
        assert name in card
    measured = json.loads((PREDICTOR_FOLDER / PREDICTOR_CONFIG).read_text())["held_out"]["all"]
    for name, found in measured.items():
        figures = rf"\| {name} \|.* {100 * found['balanced_accuracy']:.1f} % \({found['faces']:,}\)"
        assert re.search(figures.replace(",", " "), card), name


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / PREDICTOR_WEIGHTS).unlink(),
        lambda folder: (folder / PREDICTOR_WEIGHTS).write_bytes(b"{}"),
        lambda folder: (folder / PREDICTOR_CONFIG).write_text("no JSON"),
        lambda folder: (folder / PREDICTOR_CONFIG).write_text('{"config": {"width": 8}}'),
        lambda folder: (folder / PREDICTOR_CONFIG).write_text('{"config": {"size": 8}}'),
    ],
    ids=["missing", "no-weights", "no-json", "other-width", "other-fields"],
)
def test_files_that_do_not_fit_are_refused_with_a_way_out(tmp_path, spoil):
    folder = shutil.copytree(PREDICTOR_FOLDER, tmp_path / "attributes")
    spoil(folder)
    with pytest.raises(InvalidArgumentError, match=r"benchmarks.predictor"):
        load_predictor(folder)


# --- On the page ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        running = start(folder, observer=Observer(load_predictor()))
        yield running
        running.page.close()
        running.store.close()


def test_the_table_is_shown_on_demand_and_names_strength_and_wish(running, portrait):
    visitor = Visitor(running)
    with pytest.raises(RefusedError, match="must be open in this tab"):
        visitor.call("observe", 0, 0.8)
    visitor.open(portrait)
    visitor.call("set_policy", ["smiling"], [], 0.6)
    before = len(running.served_files())
    html = visitor.call("observe", 0, 0.6)[0]
    assert "Your face, as it is and at strength 0.60" in html
    assert "keep" in html
    assert len(running.served_files()) == before
    with pytest.raises(RefusedError, match="must be one of the 1 that were found"):
        visitor.call("observe", 2, 0.6)
