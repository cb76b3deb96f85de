"""`revise` and `erase-originals` as they are typed: asked first, refused in one sentence."""

import json
from pathlib import Path

import datasets
import pytest
import torch

from privacy_core.__main__ import main
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from tests.privacy_core.people import (
    NO_FACE,
    MarkDetector,
    photo_png,
    rows_of,
    write_preferences,
    write_rows,
)
from tests.privacy_core.tiny import tiny_model


@pytest.fixture(scope="module")
def embedded():
    torch.set_num_threads(1)
    return EmbeddedBackend(tiny_model())


@pytest.fixture
def run(tmp_path, embedded, capsys, monkeypatch):
    """Return a function that runs a command and returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    write_preferences(Path("p.json"))

    def run_main(*arguments, n=6, marks=None):
        if not Path("d.parquet").exists():
            write_rows(Path("d.parquet"), rows_of(n, marks=marks))
        code = main(
            [str(argument) for argument in arguments],
            load_backend=lambda name: embedded if name == "embedded" else load_backend(name),
            detector=MarkDetector(),
        )
        captured = capsys.readouterr()
        # A bar writes over itself; what remains are sentences.
        said = [line.split("\r")[-1] for line in captured.err.splitlines()]
        return code, captured.out, "\n".join(line for line in said if "it/s" not in line)

    return run_main


REVISE = ("revise", "d.parquet", "--preferences", "p.json", "--out", "out")


def everything():
    return sorted(path.as_posix() for path in Path().rglob("*"))


def assert_refused(result, *mentions):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    for mention in mentions:
        assert mention in err


def test_revise_writes_a_data_set_and_says_what_comes_next(run):
    code, out, err = run(*REVISE, marks={2: NO_FACE})
    assert (code, out) == (0, "")
    assert "5 rows revised, 1 withheld" in err
    assert "Keep .out.private" in err
    assert "unlearn MODEL --revised out" in err
    assert datasets.load_dataset("parquet", data_dir="out", split="train").num_rows == 6


def test_the_revision_is_printed_as_it_is_written(run):
    code, out, _ = run(*REVISE, "--json", "--others", "keep", "--keep", "smiling")
    assert code == 0
    revision = json.loads(out)
    assert revision == json.loads(Path("out/revision.json").read_text())
    assert revision["counts"]["by_status"] == {"revised": 2, "kept": 4}
    assert revision["policy"]["keep"] == ["smiling"]


def test_a_seed_repeats_the_data_set_to_the_byte(run):
    for name in "ab":
        assert run(*REVISE[:-1], name, "--seed", 7)[0] == 0
    for file in Path("a").rglob("*.*"):
        assert file.read_bytes() == (Path("b") / file.relative_to("a")).read_bytes()


def test_what_is_odd_is_said_and_no_reason_to_stop(run):
    rows = rows_of(4)
    rows[1]["image"] = rows[0]["image"]
    write_rows(Path("d.parquet"), rows)
    subjects = {"person-0": 0.5, "ghost": 0.1}
    write_preferences(Path("p.json"), subjects, model_version="embedded@other")
    code, _, err = run(*REVISE)
    assert code == 0
    assert "1 of 2 subjects in `--preferences` are not in the data" in err
    assert "another model (embedded@other; this is " in err
    assert "1 near-duplicate pair of photos of different subjects" in err
    assert "ghost" not in err


def test_preferences_of_this_model_are_no_warning(run):
    assert "another model" not in run(*REVISE)[2]


def test_copies_in_other_splits_are_searched_for(run):
    data = datasets.Dataset.from_list(rows_of(3)).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk("saved")
    code, _, err = run("revise", "saved", *REVISE[2:], "--split", "train")
    assert code == 0
    assert "1 near-duplicate pair of photos of this and another split" in err


def test_identifying_columns_are_dropped_only_when_someone_agrees(run):
    rows = [{**row, "origin": "x", "url": "y"} for row in rows_of(3)]
    write_rows(Path("d.parquet"), rows)
    before = everything()
    assert_refused(run(*REVISE), "origin, url", "--yes", "--drop-columns")
    assert everything() == before
    code, _, err = run(*REVISE, "--drop-columns", "url")
    assert code == 0
    assert "Dropping subject, url." in err
    assert "Keeping origin, which may identify somebody." in err
    code, _, err = run(*REVISE[:-1], "agreed", "--yes")
    assert "Dropping subject, origin, url." in err
    loaded = datasets.load_dataset("agreed", split="train")
    assert not {"subject", "origin", "url"} & set(loaded.column_names)


def test_a_folder_of_pictures_has_its_subjects_in_folder_names(run):
    for i in range(4):
        path = Path("pictures") / f"person-{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_png(i))
    code, out, _ = run(
        "revise", "pictures", *REVISE[2:], "--subject-column", "label", "--json"
    )  # fmt: skip
    assert code == 0
    revision = json.loads(out)
    assert {a["source"]: a["n_rows"] for a in revision["subjects"]} == {"own": 2, "population": 2}
    assert "label" not in datasets.load_dataset("out", split="train").column_names


BAD = {
    "no subject column": (["--subject-column", "who"], ["`--subject-column`", "'who'", "subject"]),
    "no label column": (["--label-column", "smile"], ["`--label-column`", "'smile'"]),
    "label for drop-label": (["--mode", "drop-label"], ["--label-column"]),
    "unknown mode": (["--mode", "erase"], ["--mode", "drop-row", "--help"]),
    "unknown attribute": (["--keep", "hat"], ["`--keep`", "'hat'"]),
    "column to drop": (["--drop-columns", "hat"], ["`--drop-columns`", "'hat'"]),
    "seed in words": (["--seed", "x"], ["`--seed`", "'x'"]),
    "preferences missing": (["--preferences", "no.json"], ["`preferences`", "no.json"]),
    "split of a file": (["--split", "test"], ["`split`", "'test'"]),
    "revision of a file": (["--revision", "main"], ["`revision`", "'main'"]),
    "unknown backend": (["--backend", "magic"], ["`backend`", "'magic'"]),
    "folder in the way": (["--out", "full"], ["`--out`", "'full'", "another name"]),
    "no such place": (["--out", "a/b"], ["`--out`", "'a/b'", "another place"]),
    "image column": (["--image-column", "label"], ["`image_column`", "'label'", "'image'"]),
}


@pytest.mark.parametrize(("options", "mentions"), BAD.values(), ids=BAD)
def test_a_bad_option_is_refused_and_nothing_is_written(run, options, mentions):
    Path("full").mkdir()
    Path("full/mine").write_text("")
    run("backends")  # makes the data
    before = everything()
    assert_refused(run(*REVISE, *options), *mentions)
    assert everything() == before


def test_an_interrupted_run_is_named_and_goes_on(run):
    run(*REVISE)
    whole = Path("out/revision.json").read_bytes()
    # As if it had stopped just before the end.
    Path("out").rename(".out.part")
    Path(".out.part/revision.json").unlink()
    assert_refused(run(*REVISE), "--resume", ".out.private")
    code, _, err = run(*REVISE, "--resume")
    assert code == 0
    assert "6 rows revised" in err
    assert Path("out/revision.json").read_bytes() == whole
    assert run(*REVISE, "--resume")[0] == 0
    write_preferences(Path("p.json"), {"person-0": 0.9})
    assert run(*REVISE, "--resume")[0] == 2


def test_originals_are_erased_only_when_someone_agrees(run):
    run(*REVISE)
    job = ("erase-originals", "d.parquet", "--revision", "out")
    assert_refused(run(*job), "--audited", "--erase-first")
    assert_refused(run(*job, "--erase-first"), "`--yes`", "1 original files", "noise key")
    assert Path("d.parquet").exists()
    code, out, err = run(*job, "--erase-first", "--yes", "--json")
    assert code == 0
    assert json.loads(out)["n_files_erased"] == 1
    assert "receipt is out/erasure.json" in err
    assert not Path("d.parquet").exists()


def test_files_that_stay_are_said(run):
    run(*REVISE)
    write_rows(Path("d.parquet"), rows_of(3))
    job = ("erase-originals", "d.parquet", "--revision", "out", "--erase-first", "--yes")
    code, _, err = run(*job)
    assert code == 0
    assert "1 listed files are changed or elsewhere and stay" in err
    assert Path("d.parquet").exists()
