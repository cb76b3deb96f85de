"""The command line: everything is written or nothing, and a refusal is one sentence."""

import json
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from privacy_core.__main__ import main
from privacy_core.backends import BACKENDS, HUB_MODELS, load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.faces import read_photo
from privacy_core.privacy import NOT_COVERED
from privacy_core.schema import DEFAULT_STRENGTH
from tests.privacy_core.tiny import (
    FixedDetector,
    face_at,
    smooth_photo,
    tiny_model,
    write_tiny_model,
)

FACE = face_at(20, 15)
BROKEN_FACE = replace(face_at(150, 10), landmarks=np.full((5, 2), np.nan))
ROOT = Path(__file__).parents[2]
XMP = b"digitalsourcetype/"


@pytest.fixture(scope="module")
def embedded():
    torch.set_num_threads(1)
    return EmbeddedBackend(tiny_model())


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(smooth_photo(160, 300).pixels).save(path)
    return path


@pytest.fixture
def run(tmp_path, embedded, capsys, monkeypatch):
    """Return a function that runs a command and returns (exit code, stdout, stderr)."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")

    def run_main(*arguments, faces=(FACE,), **tools):
        tools.setdefault("load_backend", lambda n: embedded if n == "embedded" else load_backend(n))
        tools.setdefault("detector", FixedDetector(*faces))
        code = main([str(argument) for argument in arguments], **tools)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main


def everything():
    """Return every file below the folder that commands run in, hidden ones too."""
    return sorted(path.as_posix() for path in Path().rglob("*"))


def assert_refused(result, *mentions):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err
    for mention in mentions:
        assert mention in err


# --- anonymize -------------------------------------------------------------------------------


def test_anonymize_writes_a_picture_and_says_what_to_do_next(run, photo):
    code, out, err = run("anonymize", photo, "--out", "out.png")
    assert (code, out) == (0, "")
    assert everything() == ["out.png"]
    assert "1 face anonymized at strength 0.95" in err
    assert "--report" in err
    made = read_photo("out.png").pixels
    original = read_photo(photo).pixels
    assert made.shape == original.shape
    assert (made != original).any()
    assert (made[:, 160:] == original[:, 160:]).all()


@pytest.mark.parametrize(
    ("backend", "mark"),
    [
        ("embedded", b"compositeWithTrainedAlgorithmicMedia"),
        ("solid", b"algorithmicallyEnhanced"),
        ("blur", b"algorithmicallyEnhanced"),
    ],
)
def test_pictures_carry_the_mark_of_their_backend(run, photo, backend, mark):
    run("anonymize", photo, "--out", "out.png", "--backend", backend)
    run("ladder", photo, "--out", "l", "--backend", backend, "--strengths", "0.5")
    for path in ("out.png", "l/strength-0.50.png", "l/contact.png"):
        assert XMP + mark in Path(path).read_bytes()


def test_one_seed_gives_identical_bytes_and_none_never_does(run, photo):
    for name in ("a", "b"):
        run("anonymize", photo, "--out", f"s{name}.png", "--seed", 7, "--report", f"{name}.json")
        run("anonymize", photo, "--out", f"f{name}.png")
        run("ladder", photo, "--out", f"l{name}", "--seed", 7)
    assert Path("sa.png").read_bytes() == Path("sb.png").read_bytes()
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert Path("fa.png").read_bytes() != Path("fb.png").read_bytes()
    for path in Path("la").iterdir():
        assert path.read_bytes() == (Path("lb") / path.name).read_bytes()


def test_the_report_is_written_and_the_same_as_json(run, photo):
    code, out, _ = run(
        "anonymize", photo, "--out", "out.png", "--report", "r.json", "--json",
        "--keep", "smiling,beard", "--hide", "gender", "--set", "eyeglasses=yes",
    )  # fmt: skip
    assert code == 0
    report, printed = json.loads(Path("r.json").read_text()), json.loads(out)
    assert printed == {"out": "out.png", **report}
    assert report["policy"] == {
        "keep": ["smiling", "beard"],
        "hide": ["gender"],
        "set": {"eyeglasses": "yes"},
    }
    assert report["strength"] == DEFAULT_STRENGTH
    assert report["epsilon"] > 0
    assert report["not_covered"] == list(NOT_COVERED)
    assert "measured" not in report
    assert everything() == ["out.png", "r.json"]


def test_a_seed_voids_epsilon_and_stays_out_of_the_report(run, photo):
    run("anonymize", photo, "--out", "out.png", "--report", "r.json", "--seed", 4711)
    text = Path("r.json").read_text()
    assert json.loads(text)["epsilon"] is None
    assert json.loads(text)["reason"] == "noise not secret"
    assert "4711" not in text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--strength", "0"], "strength 0 adds no noise"),
        (["--backend", "blur"], "blur adds no noise"),
    ],
)
def test_what_does_not_hide_the_face_is_said_in_the_success_line(run, photo, options, why):
    code, _, err = run("anonymize", photo, "--out", "out.png", *options)
    assert code == 0
    assert "NOT hidden" in err
    assert why in err


class MeanColour:
    name = "mean-colour"

    def embed(self, pixels, landmarks):
        x, y = landmarks.mean(0).astype(int)
        return pixels[y - 5 : y + 5, x - 5 : x + 5].mean((0, 1))

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


def test_measuring_is_for_the_owner_and_only_when_asked(run, photo):
    tools = {"recogniser": MeanColour()}
    run("anonymize", photo, "--out", "o.png", "--report", "r.json", "--measure", **tools)
    measured = json.loads(Path("r.json").read_text())["measured"]
    assert measured["recogniser"] == "mean-colour"
    assert measured["faces"][0]["distance"] > 0
    assert "owner" in measured["note"]
    run("ladder", photo, "--out", "l", "--measure", **tools)
    run("ladder", photo, "--out", "plain", **tools)
    parts = [
        json.loads((Path(name) / "ladder.json").read_text())["variants"] for name in ("l", "plain")
    ]
    assert all(part["measured"]["faces"] for part in parts[0])
    assert not any("measured" in part for part in parts[1])


# --- ladder ----------------------------------------------------------------------------------


def test_a_ladder_is_a_folder_of_variants_a_report_and_a_contact_sheet(run, photo):
    code, out, err = run("ladder", photo, "--out", "l")
    assert (code, out) == (0, "")
    assert "contact.png" in err
    strengths = ["0.20", "0.40", "0.60", "0.80", "1.00"]
    names = [f"strength-{strength}.png" for strength in strengths]
    assert everything() == ["l", *sorted(f"l/{n}" for n in [*names, "contact.png", "ladder.json"])]
    report = json.loads(Path("l/ladder.json").read_text())
    assert [part["file"] for part in report["variants"]] == names
    epsilons = [part["epsilon"] for part in report["variants"]]
    assert report["ladder"]["epsilon"] == epsilons[0] == max(epsilons)
    sheet = Image.open("l/contact.png")
    assert sheet.width == 5 * 320
    assert len(np.unique(np.asarray(sheet)[:32].reshape(-1, 3), axis=0)) > 1  # the labels


def test_a_ladder_holds_the_strengths_asked_for_in_order(run, photo):
    run("ladder", photo, "--out", "l", "--strengths", "1, 0.35,0", "--json")
    report = json.loads(Path("l/ladder.json").read_text())
    assert [part["strength"] for part in report["variants"]] == [0, 0.35, 1]
    assert report["ladder"]["epsilon"] is None


def test_a_ladder_equals_single_variants_of_the_same_noise(run, photo):
    run("ladder", photo, "--out", "l", "--seed", 3, "--strengths", "0.3,0.7")
    for strength in ("0.30", "0.70"):
        run("anonymize", photo, "--out", "o.png", "--seed", 3, "--strength", strength)
        one, other = (
            read_photo(path).pixels.astype(int) for path in ("o.png", f"l/strength-{strength}.png")
        )
        assert np.abs(one - other).max() <= 1


def test_an_empty_folder_may_take_a_ladder_and_a_full_one_may_not(run, photo):
    Path("empty").mkdir()
    assert run("ladder", photo, "--out", "empty")[0] == 0
    before = {path: path.read_bytes() for path in Path("empty").iterdir()}
    assert_refused(run("ladder", photo, "--out", "empty"), "`--out`", "'empty'", "another name")
    assert {path: path.read_bytes() for path in Path("empty").iterdir()} == before


# --- Bad input -------------------------------------------------------------------------------


def bomb():
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:2000])


BAD_PHOTOS = {
    "no picture": lambda path: path.write_bytes(b"just words" * 50),
    "cut off": cut_off,
    "no bytes": lambda path: path.write_bytes(b""),
    "a bomb": lambda path: path.write_bytes(bomb()),
    "SVG": lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "HTML named .png": lambda path: path.write_text("<!doctype html><html></html>"),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("command", ["anonymize", "ladder"])
@pytest.mark.parametrize("spoil", BAD_PHOTOS.values(), ids=BAD_PHOTOS)
def test_a_bad_photo_is_refused_and_nothing_is_written(run, photo, spoil, command):
    spoil(photo)
    assert_refused(run(command, photo, "--out", "out.png"), "`photo` must", "photo.png")
    assert everything() == []


BAD_OPTIONS = {
    "strength above 1": (
        ["--strength", "1.3"],
        ["`strength`", "[0, 1]", "1.3", f"{DEFAULT_STRENGTH} is a good start"],
    ),
    "strength below 0": (["--strength=-0.1"], ["`strength`", "[0, 1]", "-0.1"]),
    "strength in words": (["--strength", "much"], ["`strength`", "'much'"]),
    "strength not a number": (["--strength", "nan"], ["`strength`", "'nan'"]),
    "strength missing": (["--strength"], ["--strength", "expected one argument", "--help"]),
    "unknown backend": (["--backend", "magic"], ["`backend`", "'magic'", "embedded", "solid"]),
    "unknown kept": (["--keep", "smiling,hat"], ["`--keep`", "'hat'", "eyeglasses"]),
    "unknown hidden": (["--hide", ""], ["`--hide`", "''", "eyeglasses"]),
    "unknown set": (["--set", "hat=yes"], ["`--set`", "'hat'", "eyeglasses"]),
    "unknown value": (["--set", "beard=long"], ["`set`", "beard", "'long'", "no, yes"]),
    "set without value": (["--set", "beard"], ["`--set`", "'beard'", "eyeglasses=yes"]),
    "set twice": (["--set", "beard=no", "--set", "beard=yes"], ["`--set`", "one value"]),
    "two treatments": (["--keep", "beard", "--hide", "beard"], ["'beard'", "one treatment"]),
    "attributes of a filter": (["--backend", "blur", "--keep", "beard"], ["'blur'", "beard"]),
    "seed in words": (["--seed", "lucky"], ["`--seed`", "'lucky'", "whole number"]),
    "unknown option": (["--strenght", "1"], ["--strenght", "--help"]),
    "abbreviated option": (["--stren", "1"], ["--stren", "--help"]),
    "report of another kind": (["--report", "r.txt"], ["`--report`", ".json", "'r.txt'"]),
    "report in no folder": (["--report", "no/r.json"], ["`--report`", "no/r.json", "another"]),
    "report on a folder": (["--report", "f.json"], ["`--report`", "f.json", "another"]),
}


@pytest.mark.parametrize(("options", "mentions"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_a_bad_option_is_refused_with_rule_value_and_way_out(run, photo, options, mentions):
    Path("f.json").mkdir()
    assert_refused(run("anonymize", photo, "--out", "out.png", *options), *mentions)
    assert everything() == ["f.json"]


@pytest.mark.parametrize(
    ("strengths", "mentions"),
    [
        ("0.2,1.2", ["`strength`", "'1.2'"]),
        ("0.2,,0.4", ["`strength`", "''"]),
        ("0.2;0.4", ["`strength`", "0.2;0.4"]),
        ("0.2,0.201", ["`--strengths`", "0.01", "0.2,0.201"]),
    ],
)
def test_bad_strengths_of_a_ladder_are_refused(run, photo, strengths, mentions):
    assert_refused(run("ladder", photo, "--out", "l", "--strengths", strengths), *mentions)
    assert everything() == []


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ([], ["COMMAND", "--help"]),
        (["anonymise", "x"], ["'anonymise'", "anonymize", "--help"]),
        (["anonymize", "x.png"], ["--out", "--help"]),
        (["anonymize", "--out", "x.png"], ["PHOTO", "--help"]),
    ],
)
def test_an_incomplete_command_line_is_refused_in_one_line(run, arguments, mentions):
    assert_refused(run(*arguments), *mentions)


@pytest.mark.parametrize(
    ("out", "mentions"),
    [
        ("out.jpg", ["`--out`", ".png", "'out.jpg'"]),
        ("out", ["`--out`", ".png", "'out'"]),
        ("no/such/out.png", ["`--out`", "no/such/out.png", "another place"]),
        ("file/out.png", ["`--out`", "file/out.png", "another place"]),
        ("folder.png", ["`--out`", "folder.png", "another place"]),
        ("../in/photo.png", ["`--out`", "the photo itself", "another name"]),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(run, photo, out, mentions):
    Path("file").write_text("")
    Path("folder.png").mkdir()
    original = photo.read_bytes()
    assert_refused(run("anonymize", photo, "--out", out, "--report", "r.json"), *mentions)
    assert everything() == ["file", "folder.png"]
    assert photo.read_bytes() == original


@pytest.mark.parametrize("out", ["no/such/l", "file", "file/l"])
def test_a_ladder_in_a_place_that_cannot_be_written_is_refused(run, photo, out):
    Path("file").write_text("")
    assert_refused(run("ladder", photo, "--out", out), "`--out`", out, "another place")
    assert everything() == ["file"]


class TakesTheReportsPlace(FixedDetector):
    """Puts a folder where the report will go, after everything was checked."""

    def detect(self, pixels):
        Path("r.json").mkdir()
        return super().detect(pixels)


def test_where_the_report_cannot_be_written_there_is_no_picture_either(run, photo):
    result = run(
        "anonymize", photo, "--out", "out.png", "--report", "r.json",
        detector=TakesTheReportsPlace(FACE),
    )  # fmt: skip
    assert_refused(result, "`--report`", "r.json", "another place")
    assert everything() == ["r.json"]


class FillsTheFolder(FixedDetector):
    def detect(self, pixels):
        Path("l").mkdir()
        Path("l/mine.txt").write_text("mine")
        return super().detect(pixels)


def test_a_ladder_never_mixes_with_files_that_came_meanwhile(run, photo):
    result = run("ladder", photo, "--out", "l", detector=FillsTheFolder(FACE))
    assert_refused(result, "`--out`", "'l'")
    assert everything() == ["l", "l/mine.txt"]


@pytest.mark.parametrize("command", ["anonymize", "ladder"])
def test_no_face_is_refused(run, photo, command):
    assert_refused(run(command, photo, "--out", "x.png", faces=()), "found none", "Nothing was")
    assert everything() == []


@pytest.mark.parametrize("command", ["anonymize", "ladder"])
def test_one_of_three_faces_failing_is_refused_and_named(run, photo, command):
    faces = (FACE, BROKEN_FACE, face_at(40, 80, 0.4))
    result = run(command, photo, "--out", "x.png", faces=faces)
    assert_refused(result, "Face 2 of 3", "--solid-on-failure", "Nothing was written")
    assert everything() == []


def test_a_failing_face_is_covered_on_request_and_reported(run, photo):
    code, out, err = run(
        "anonymize", photo, "--out", "x.png", "--solid-on-failure", "--json",
        faces=(FACE, BROKEN_FACE, face_at(40, 80, 0.4)),
    )  # fmt: skip
    assert code == 0
    assert "3 faces anonymized" in err
    assert "1 of them covered" in err
    report = json.loads(out)
    assert report["covered"] == [2]
    assert report["protected"] is True


def test_a_model_of_ones_own_makes_the_faces_and_is_the_embedded_kind_only(run, photo, tmp_path):
    folder = write_tiny_model(tmp_path / "mine")
    code, out, _ = run("anonymize", photo, "--out", "out.png", "--model", folder, "--json")
    assert code == 0
    revision = EmbeddedBackend.load(folder).revision
    assert json.loads(out)["model_revision"] == revision
    result = run("anonymize", photo, "--out", "x.png", "--model", folder, "--backend", "blur")
    assert_refused(result, "`--model`", "'blur'")


def test_weights_that_are_missing_are_refused(run, photo, tmp_path):
    def load(_):
        return EmbeddedBackend.load(tmp_path / "nowhere")

    result = run("anonymize", photo, "--out", "x.png", load_backend=load)
    assert_refused(result, "'nowhere'", "missing or damaged", "fit-model")
    assert everything() == []


def test_a_bug_looks_like_a_bug(run, photo):
    def load(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("anonymize", photo, "--out", "x.png", load_backend=load)
    assert everything() == []


# --- The other commands ----------------------------------------------------------------------


def test_backends_are_listed_in_words_and_as_json(run):
    code, out, err = run("backends")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [*BACKENDS, *HUB_MODELS]
    assert "Next:" in err
    found = json.loads(run("backends", "--json")[1])["backends"]
    proven = [entry["name"] for entry in found if entry["basis"] == "gaussian mechanism"]
    assert proven == ["embedded"]
    assert all(entry["description"].endswith(".") for entry in found)


@pytest.mark.parametrize("command", [["fit-model", "--out", "m"], ["calibrate"]])
def test_data_that_is_missing_is_refused(run, command):
    assert_refused(run(*command, "nowhere"), "`DATA`", "'nowhere'", "Check the path")
    assert everything() == []


@pytest.mark.parametrize("option", ["--components", "--faces", "--seed"])
def test_a_fit_needs_whole_numbers(run, option):
    result = run("fit-model", "nowhere", "--out", "m", option, "many")
    assert_refused(result, f"`{option}`", "'many'", "whole number")


def test_only_the_backend_with_a_curve_can_be_calibrated(run):
    assert_refused(run("calibrate", "nowhere", "--backend", "blur"), "`--backend`", "'blur'")


def python(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_help_loads_no_library():
    # The parsers of all commands are made for every help text, so one speaks for all.
    done = python("-m", "privacy_core", "--help")
    assert done.returncode == 0
    assert "usage: python -m privacy_core" in done.stdout
    loaded = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "argparse" in loaded
    assert not loaded & {"torch", "dlib", "numpy", "scipy", "PIL", "datasets"}


def test_a_baseline_works_as_a_process_and_without_torch(tmp_path, astronaut):
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    Image.fromarray(astronaut).save(photo)
    done = python("-m", "privacy_core", "anonymize", photo, "--out", out, "--backend", "solid")
    assert done.returncode == 0, done.stderr[-1000:]
    assert "1 face anonymized" in done.stderr
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
    assert (read_photo(out).pixels != astronaut).any()


def test_a_refusal_of_the_process_is_exit_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "privacy_core", "anonymize", tmp_path, "--out", "out.txt"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
