"""Models of the Hub on the command line: listed, refused, run, calibrated."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from privacy_core import margin_recogniser
from privacy_core.__main__ import main
from privacy_core.backends import HUB_MODELS, curves
from privacy_core.backends.inpainting import NOT_CALIBRATED, InpaintingBackend
from privacy_core.calibrate import CalibrationSet, Measurement, calibrate_backend, calibration
from privacy_core.errors import InvalidArgumentError
from privacy_core.records import Records
from privacy_core.schema import StrengthCurve
from tests.privacy_core.tiny import FixedDetector, face_at, smooth_photo
from tests.privacy_core.tiny_pipelines import SIDE, stable_diffusion

pytestmark = pytest.mark.filterwarnings(
    # diffusers hands tensors to NumPy in a way that NumPy no longer likes.
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
SHA = "0123456789abcdef0123456789abcdef01234567"
FACE = face_at(20, 15)
MODEL = replace(HUB_MODELS["sd15"], side=SIDE, steps=2)


@pytest.fixture(scope="module")
def painter():
    from privacy_core.backends.painter import Painter

    torch.manual_seed(0)
    torch.set_num_threads(1)
    return Painter(MODEL, stable_diffusion())


@pytest.fixture
def run(tmp_path, painter, capsys, monkeypatch):
    """Return a function that runs a command with a tiny sd15 and returns (code, out, err)."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(smooth_photo().pixels).save("photo.png")

    def load(_):
        curve = curves.load(tmp_path / "curves", MODEL, SHA)
        return InpaintingBackend(painter, SHA, curve=curve, curves=tmp_path / "curves")

    def run_main(*arguments, load_backend=load):
        code = main(list(arguments), load_backend=load_backend, detector=FixedDetector(FACE))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main


def untouched(_):
    raise AssertionError("It was loaded.")


def assert_refused(result, *mentions):
    code, out, err = result
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert all(mention in err for mention in mentions)


def test_models_are_listed_with_licence_need_and_settings(run):
    code, out, _ = run("backends", "--json")
    assert code == 0
    found = {entry["name"]: entry for entry in json.loads(out)["backends"]}
    for name, model in HUB_MODELS.items():
        entry = found[name]
        assert entry["basis"] == "measured only"
        assert entry["repo_id"] == model.repo_id
        assert entry["licence"] == model.licence
        assert entry["needs_accept_licence"] == model.accept_licence
        assert entry["memory_gb"] == model.memory_gb
    words = run("backends")
    assert "apache-2.0; 12.3 GB in 16 bits; 9 steps" in words[1]
    assert words[1].count("--accept-licence") == 4
    assert "NAME@SHA" in words[2]


def test_a_photo_is_anonymized_and_its_report_promises_nothing(run):
    code, out, err = run(
        "anonymize", "photo.png", "--out", "out.png", "--backend", f"sd15@{SHA}", "--json"
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["epsilon"] is None
    assert NOT_CALIBRATED in report["reason"]
    assert f"Nothing is guaranteed: {report['reason']}." in err
    assert (report["model_id"], report["model_revision"]) == ("sd15", SHA)
    before, after = (np.asarray(Image.open(name)) for name in ("photo.png", "out.png"))
    assert (before != after).any()


def test_a_ladder_is_written(run, tmp_path):
    code, _, err = run("ladder", "photo.png", "--out", "rungs", "--backend", f"sd15@{SHA}")
    assert code == 0, err
    ladder = json.loads((tmp_path / "rungs" / "ladder.json").read_text())
    assert len({path.read_bytes() for path in (tmp_path / "rungs").glob("strength-*")}) == 5
    assert ladder["ladder"]["basis"] == "measured only"
    assert f"Nothing is guaranteed: {ladder['variants'][0]['reason']}." in err


@pytest.mark.parametrize(
    "command", [["anonymize", "photo.png", "--out", "o.png"], ["calibrate", "d"]]
)
def test_a_limited_licence_or_a_missing_commit_is_refused_before_anything_is_loaded(
    run, command, tmp_path
):
    if command[0] == "calibrate":
        (tmp_path / "d").mkdir()
        Image.fromarray(smooth_photo().pixels).save(tmp_path / "d" / "a.png")
    refused = run(*command, "--backend", f"flux1-fill@{SHA}", load_backend=untouched)
    assert_refused(refused, "--accept-licence", "non-commercial")
    refused = run(*command, "--backend", "sd15", load_backend=untouched)
    assert_refused(refused, "sd15@SHA")


def test_an_accepted_licence_lets_the_model_load(run):
    loaded = []

    def load(name):
        loaded.append(name)
        raise InvalidArgumentError("`x` must stop here.")

    arguments = ("anonymize", "photo.png", "--out", "o.png", "--accept-licence")
    assert_refused(run(*arguments, "--backend", f"flux1-fill@{SHA}", load_backend=load), "stop")
    assert loaded == [f"flux1-fill@{SHA}"]


def test_a_model_measures_what_it_makes_and_shows_its_progress(run, monkeypatch):
    asked = {}

    def load(name, **named):
        asked.update(named, name=name)
        raise InvalidArgumentError("`x` must stop here.")

    monkeypatch.setattr("privacy_core.backends.load_backend", load)
    arguments = ("anonymize", "photo.png", "--out", "o.png", "--accept-licence")
    assert_refused(run(*arguments, "--backend", f"sd15@{SHA}", load_backend=None), "stop")
    assert (asked["name"], asked["accept_licence"]) == (f"sd15@{SHA}", True)
    assert asked["tools"].recogniser.name == "dlib-resnet-v1"
    assert asked["tools"].report is not None


def test_only_models_with_a_curve_are_calibrated(run):
    assert_refused(run("calibrate", "d", "--backend", "blur"), "`--backend`", "'blur'", "sd15")
    both = run("calibrate", "d", "--backend", f"sd15@{SHA}", "--model", "m")
    assert_refused(both, "`--model` goes with embedded only")


# --- Calibration -------------------------------------------------------------------------------


class Falling:
    """Stands in for thousands of paintings: distances that grow with the noise, as known here."""

    def __init__(self):
        self.backend = None

    def __call__(self, anonymizer, chosen, *, strengths, keys):
        assert [len(draws) for draws in keys] == [calibration.N_DRAWS] * len(chosen.photos)
        self.backend = anonymizer.backend
        noise = [self.backend.curve.rung_sigmas()[round(100 * s) - 1] for s in strengths[1:]]
        share = np.array([0.0, *(sigma / (1 + sigma) for sigma in noise)])
        spread = np.random.default_rng(0).normal(0, 0.02, (1, 300, calibration.N_DRAWS))
        distances = 1.4 * share[:, None, None] + np.abs(spread)
        originals = np.random.default_rng(1).normal(size=(300, 16)) / 4
        found, people = np.ones(distances.shape, bool), np.full(300, -1)
        return tuple(
            Measurement(one.name, np.array(strengths), distances, found, originals, people, 0)
            for one in chosen.recognisers
        )


class Named:
    name = "r"


def test_calibration_measures_the_bare_model_and_ends_below_noise_alone(
    painter, tmp_path, monkeypatch
):
    measuring = Falling()
    monkeypatch.setattr(calibration, "measure_variants", measuring)
    old = StrengthCurve((0.0, 1.0), (0.5, 1.0))
    backend = InpaintingBackend(painter, SHA, curve=old, recogniser=Named())
    curve = calibrate_backend(
        backend,
        CalibrationSet(
            [smooth_photo()], [-1], FixedDetector(FACE), FixedDetector(FACE), [Named()],
            Records(tmp_path / "r", {}), lambda *_: None,
        ),
    )  # fmt: skip
    assert measuring.backend.curve == backend.uncalibrated
    assert measuring.backend._recogniser is None
    assert curve.strengths == (0.0, 0.5, 0.8, 1.0)
    assert curve.sigmas[-1] == curves.highest_sigma(MODEL)
    assert curve.measured["recogniser"] == "r"
    assert curve.measured["n_pairs"] == 300 * 299 // 2
    assert len(curve.measured["sigmas"]) == 10


def test_calibrate_stores_a_curve_that_the_next_command_uses(run, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "measure_variants", Falling())
    monkeypatch.setattr(margin_recogniser, "load_recogniser", Named)
    (tmp_path / "d").mkdir()
    Image.fromarray(smooth_photo().pixels).save(tmp_path / "d" / "a.png")
    code, _, err = run("calibrate", "d", "--backend", f"sd15@{SHA}")
    assert code == 0, err
    assert f"--backend sd15@{SHA}" in err
    stored = json.loads((tmp_path / "curves" / f"sd15@{SHA}.json").read_text())
    assert (stored["revision"], stored["steps"]) == (SHA, MODEL.steps)
    assert stored["measured"]["recogniser"] == "dlib-resnet-v1"
    assert list(stored["measured"]["others"]) == ["r"]
    code, out, _ = run(
        "anonymize", "photo.png", "--out", "out.png", "--backend", f"sd15@{SHA}", "--json"
    )
    report = json.loads(out)
    assert NOT_CALIBRATED not in report["reason"]
    assert report["recogniser"]["name"] == "dlib-resnet-v1"
    assert report["recogniser"]["verified_share_at_calibration"] is not None
