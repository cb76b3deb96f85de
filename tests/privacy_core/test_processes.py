"""Two real processes run every command that is shared, and leave what one leaves."""

import json
import os
import shutil
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from tests.privacy_core.anonymization_rows import rows_of_people
from tests.privacy_core.crews import start, work
from tests.privacy_core.people import rows_of, write_preferences, write_rows
from tests.privacy_core.tiny import write_tiny_model

TIMES = ("seconds", "median_ms")
COMMANDS = [
    line.split()
    for line in (
        "train d.parquet --label-column label --image-size 16 --epochs 2 --out m",
        "revise d.parquet --preferences p.json --seed 3 --others keep --out r",
        "unlearn m --revised r --out m2 --reference retrain --seed 0",
        "calibrate c.parquet --model tiny --faces 5",
        "audit-anonymization a.parquet --out audit --settings embedded=0.8 --settings blur=1"
        " --false-accept-rate 0.2 --seed 3",
    )
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run all commands by one process and by two, and return both folders and what two said."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    write_rows(one / "d.parquet", rows_of(12))
    write_preferences(one / "p.json")
    write_rows(one / "c.parquet", rows_of_people(70, 79, 5, 1))
    write_rows(one / "a.parquet", rows_of_people(80, 99, 12, 1))
    write_tiny_model(one / "tiny")
    for place in (".tiny.calibration", "audit/work"):
        # The noise is secret, and the same where the key is.
        (one / place).mkdir(parents=True)
        (one / place / "noise.key").write_bytes(bytes(range(32)))
    shutil.copytree(one, two, dirs_exist_ok=True)
    processes = start(two, *COMMANDS, size=2)
    with pytest.MonkeyPatch.context() as here, patch.dict(os.environ):
        here.chdir(one)
        assert work(json.dumps([(command, 0) for command in COMMANDS])) == 0
        said = [process.communicate(timeout=240) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        # Unlearning magnifies what rounding left in `m`, so one process starts at the two's too.
        here.chdir(two)
        again = ["unlearn", "m", "--revised", "r", "--out", "m2-by-one", "--seed", "0"]
        assert work(json.dumps([(again, 0)])) == 0
    return one, two, said


def floats_of(folder):
    weights = load_file(folder / "model.safetensors").values()
    return torch.cat([value.flatten() for value in weights if value.is_floating_point()])


def test_networks_are_trained_to_the_same_weights_up_to_rounding(made):
    one, two, _ = made
    for alone, together in (
        (one / "m", two / "m"),
        (one / "m2-reference", two / "m2-reference"),
        (two / "m2-by-one", two / "m2"),
    ):
        expected = floats_of(alone)
        assert (expected - floats_of(together)).norm() <= 1e-5 * expected.norm(), together


def test_the_curve_is_measured_to_the_same_bytes_and_nothing_of_the_faces_stays(made):
    one, two, _ = made
    name = "tiny/calibration.json"
    assert (one / name).read_bytes() == (two / name).read_bytes()
    assert len(json.loads((one / name).read_text())["measured"]["distances"][0]) == 5
    assert not any((folder / ".tiny.calibration").exists() for folder in (one, two))


def test_the_audit_says_the_same_apart_from_the_times(made):
    one, two = (
        _without_times(json.loads((folder / "audit/anonymization.json").read_text()))
        for folder in made[:2]
    )
    assert one == two
    assert len(one["settings"]) == 2
    assert not any((folder / "audit/work").exists() for folder in made[:2])


def _without_times(found):
    if isinstance(found, dict):
        return {k: _without_times(v) for k, v in found.items() if k not in TIMES}
    return [_without_times(one) for one in found] if isinstance(found, list) else found


def test_only_the_first_process_talks_and_writes_once(made):
    _, two, ((_, first), (out, second)) = made
    assert first.count("Wrote") == 6
    assert out == ""
    assert not any(word in second for word in ("Wrote", "Plan", "measured photos", "metrics"))
    certificate = json.loads((two / "m2/certificate.json").read_text())
    assert certificate["update"]["method"] == "finetune-restart"
    assert not list(two.glob(".*.run.pt"))
