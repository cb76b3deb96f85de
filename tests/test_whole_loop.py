"""The README's six commands leave what the design promises: as written, and quicker by default."""

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from pyarrow import parquet

from feedback.__main__ import main as feedback_main
from privacy_core.__main__ import main as privacy_core_main
from privacy_core.dataset import read_dataset
from privacy_core.unlearning.certificate import verify

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "labelled"
QUICKER = {"--epochs 20": "--epochs 2", "--models 8": "--models 3"}
"""Too little training and too few shadow models to say anything, enough to go through it all."""
FEWER = 3
"""As many photos of each person as the quicker loop gets."""


def the_block():
    """Return the bash block of the README's section."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## The whole loop")[1]
    return re.search(r"```bash\n(.+?)```", section.split("\n## ")[0], re.DOTALL)[1]


def commands():
    """Return the block's commands, one a line."""
    return the_block().replace("\\\n", " ").splitlines()


def run_block(folder):
    """Run it where only the code, the weights and the examples are; return what it printed."""
    for name in ("privacy_core", "feedback", "models", "examples"):
        (folder / name).symlink_to(ROOT / name)
    here = {
        **os.environ,
        # `python` is this one, and nobody's Hub is asked.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", the_block()],  # noqa: S607
        cwd=folder,
        env=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def run_quicker(folder):
    """Run its commands with less to do, in this process, as each takes longest to import."""
    (folder / "models").symlink_to(ROOT / "models")
    write_fewer(folder / "examples" / "labelled")
    block = "\n".join(commands())
    for old, new in QUICKER.items():
        assert old in block
        block = block.replace(old, new)
    programs = {"privacy_core": privacy_core_main, "feedback": feedback_main}
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(printed):
        patch.chdir(folder)
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        for line in block.splitlines():
            _, _, package, *arguments = shlex.split(line)
            assert programs[package](arguments) == 0, printed.getvalue()[-2000:]
    return printed.getvalue()


def write_fewer(folder):
    """Write the examples with the first few photos of each person."""
    shutil.copytree(DATA, folder, ignore=shutil.ignore_patterns("*.parquet"))
    for path in DATA.glob("*.parquet"):
        table = parquet.read_table(path)
        n_chosen, chosen = Counter(), []
        for number, name in enumerate(table["subject"].to_pylist()):
            if n_chosen[name] < FEWER:
                chosen.append(number)
            n_chosen[name] += 1
        parquet.write_table(table.take(chosen), folder / path.name)


@pytest.fixture(
    scope="module", params=["quicker", pytest.param("as written", marks=pytest.mark.slow)]
)
def loop(request, tmp_path_factory):
    """Return (whether it is the block as written, the folder it ran in, what it printed)."""
    as_written = request.param == "as written"
    folder = tmp_path_factory.mktemp("loop")
    before = files_of(DATA)
    printed = run_block(folder) if as_written else run_quicker(folder)
    assert files_of(DATA) == before
    return as_written, folder, printed


def train_rows(folder):
    return list(read_dataset(folder / "examples" / "labelled", split="train"))


def n_photos_asked(as_written):
    """Return how many photos there are of those who asked."""
    return (8 if as_written else FEWER) * len(asked())


def files_of(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.iterdir()}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def rows_by_id(source):
    return {row["row_id"]: row for row in source}


def pixels_of(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def asked():
    return set((DATA / "subjects.txt").read_text(encoding="utf-8").split())


def test_the_examples_are_two_splits_of_different_people():
    rows = {split: list(read_dataset(DATA, split=split)) for split in ("train", "test")}
    people = {split: {row["subject"] for row in some} for split, some in rows.items()}
    assert [len(people["train"]), len(people["test"])] == [48, 16]
    assert not people["train"] & people["test"]
    assert asked() < people["train"]
    assert [len(rows["train"]), len(rows["test"])] == [8 * 48, 8 * 16]
    # One half of the test is what a coin gets.
    assert 2 * sum(row["gender"] for row in rows["test"]) == len(rows["test"])
    assert sum(path.stat().st_size for path in DATA.iterdir()) <= 6_000_000


def test_the_block_is_the_six_commands_in_order():
    lines = commands()
    assert [" ".join(line.split()[:4]) for line in lines] == [
        "python -m feedback simulate",
        "python -m feedback fit",
        "python -m privacy_core revise",
        "python -m privacy_core train",
        "python -m privacy_core unlearn",
        "python -m privacy_core audit",
    ]
    assert "--reference retrain" in lines[4]


def test_it_writes_below_runs_only(loop):
    _, folder, _ = loop
    mine = {"privacy_core", "feedback", "models", "examples", "home"}
    assert {path.name for path in folder.iterdir()} - mine == {"runs"}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert "/runs/" in ignored


def test_the_strengths_are_those_of_the_people_who_asked(loop):
    _, folder, _ = loop
    found = read(folder / "runs" / "preferences.json")
    assert set(found) == {
        "schema_version", "generated_at", "feedback_revision", "model_version", "population",
        "subjects",
    }  # fmt: skip
    assert found["schema_version"] == 1
    assert set(found["population"]) == {"strength", "sd", "n_raters", "epsilon", "release"}
    assert set(found["subjects"]) == asked()
    for one in found["subjects"].values():
        assert set(one) == {
            "strength", "mean", "sd", "n_ratings", "n_photos", "source", "floor_applied",
        }  # fmt: skip
        assert 0.5 <= one["strength"] <= 1
        assert one["source"] in {"own", "population"}
        assert one["n_ratings"] > 0


def test_every_photo_of_theirs_is_replaced_or_listed_and_nobody_elses(loop):
    as_written, folder, _ = loop
    strengths = read(folder / "runs" / "preferences.json")["subjects"]
    revision = read(folder / "runs" / "revised" / "revision.json")
    originals = train_rows(folder)
    revised = rows_by_id(read_dataset(folder / "runs" / "revised"))
    withheld = {one["row"] for one in revision["withheld"]}
    assert sorted(revised) == list(range(len(originals)))
    for number, original in enumerate(originals):
        row = revised[number]
        assert "subject" not in row
        assert row["gender"] == original["gender"]
        if original["subject"] not in asked():
            assert row["status"] == "kept"
            assert np.array_equal(pixels_of(row["image"]), pixels_of(original["image"]))
        elif number in withheld:
            assert row["image"] is None
        else:
            assert row["status"] == "revised"
            assert row["strength"] == strengths[original["subject"]]["strength"]
    by_status = revision["counts"]["by_status"]
    n_asked = n_photos_asked(as_written)
    assert by_status["kept"] == len(originals) - n_asked
    assert by_status["revised"] + len(withheld) == n_asked
    assert by_status["revised"] >= 0.9 * n_asked


def test_no_original_of_theirs_is_among_the_revised_pictures(loop):
    _, folder, _ = loop
    originals = [row for row in train_rows(folder) if row["subject"] in asked()]
    gone = {pixels_of(row["image"]).tobytes() for row in originals}
    for row in read_dataset(folder / "runs" / "revised"):
        if row["image"] is not None:
            assert pixels_of(row["image"]).tobytes() not in gone


def test_the_certificate_fits_the_model_the_data_and_the_audit(loop):
    as_written, folder, _ = loop
    revision = read(folder / "runs" / "revised" / "revision.json")
    found = verify(folder / "runs" / "model2", revised_digest=revision["data_digest"])
    assert found.problems == ()
    certificate = read(folder / "runs" / "model2" / "certificate.json")
    assert certificate["rows"]["count"] == n_photos_asked(as_written)
    assert "audit" in certificate


def test_the_audit_has_three_models_controls_costs_and_a_verdict(loop):
    as_written, folder, printed = loop
    found = read(folder / "runs" / "model2" / "audit.json")
    models = found["models"]
    assert {"original", "unlearned", "reference"} <= set(models)
    for name in ("original", "unlearned", "reference"):
        assert {"retain", "forget", "revised", "test"} <= set(models[name]["accuracy"])
        assert set(models[name]["accuracy"]) <= set(models[name]["gap_to_retrain"]) | {"average"}
    assert "u_lira" in models["original"]
    assert "u_lira_control" in models["reference"]
    assert set(found["costs"]) == {"original", "unlearned", "reference", "ratio_to_retraining"}
    verdict = "passed the gate" if found["gate"]["passed"] else "did not pass the gate"
    assert verdict in printed
    assert {path.suffix for path in (folder / "runs" / "model2" / "plots").iterdir()} >= {".png"}
    if as_written:
        assert found["costs"]["ratio_to_retraining"]["gradient_evaluations"] <= 0.5
        # Half of the test rows show women: a coin gets one half.
        assert models["original"]["accuracy"]["test"]["low"] > 0.6
