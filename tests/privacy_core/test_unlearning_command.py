"""`train` and `unlearn` as they are typed: whole folders, secrets beside them, refusals."""

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy_core.__main__ import main
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands import unlearning as command
from privacy_core.unlearning.certificate import row_tokens, verify
from tests.privacy_core.people import MarkDetector, rows_of, write_preferences, write_rows
from tests.privacy_core.tiny import tiny_model
from tests.privacy_core.tiny_targets import FlatBackbone

N, N_REVISED = 12, 4
TRAIN = ("--label-column", "label", "--image-size", "16", "--epochs", "2")
REVISED = {"replace": "r", "drop-row": "gone", "drop-label": "unlabelled"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with data, revised data of each mode, and a trained model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "d.parquet", rows_of(N))
    write_preferences(folder / "p.json")
    embedded = EmbeddedBackend(tiny_model())
    for mode, name in REVISED.items():
        arguments = [
            "revise", folder / "d.parquet", "--preferences", folder / "p.json", "--mode", mode,
            "--others", "keep", "--label-column", "label", "--out", folder / name,
        ]  # fmt: skip
        code = main(list(map(str, arguments)), load_backend=lambda _: embedded, **DETECTOR)
        assert code == 0
    assert main(["train", str(folder / "d.parquet"), *TRAIN, "--out", str(folder / "m")]) == 0
    return folder


DETECTOR = {"detector": MarkDetector()}


@pytest.fixture
def run(tmp_path, made, capsys, monkeypatch):
    """Return a function that runs a command in a copy of `made`: (exit code, stdout, stderr)."""
    torch.set_num_threads(1)
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    capsys.readouterr()

    def run_main(*arguments):
        code = main([str(argument) for argument in arguments], **DETECTOR)
        captured = capsys.readouterr()
        said = [line.split("\r")[-1] for line in captured.err.splitlines()]
        return code, captured.out, "\n".join(line for line in said if "it/s" not in line)

    return run_main


UNLEARN = ("unlearn", "m", "--revised", "r", "--out", "m2")


def everything():
    return sorted(path.as_posix() for path in Path().rglob("*"))


def read(path):
    return json.loads(Path(path).read_text())


# --- train -----------------------------------------------------------------------------------


def test_a_trained_model_says_how_it_was_made(made):
    record = read(made / "m" / "training.json")
    assert record["recipe"]["epochs"] == 2
    assert record["recipe"]["image_size"] == 16
    assert (record["n_rows"], record["label_column"]) == (N, "label")
    assert not list(made.glob(".m.*"))


def test_training_again_gives_the_same_weights(run):
    code, out, err = run("train", "d.parquet", *TRAIN, "--out", "again")
    assert (code, out) == (0, "")
    assert "2 labels from 12 rows" in err
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("m", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (("--label-column", "age", "--out", "x"), "`label_column` must name a column"),
        (("--label-column", "label", "--out", "m"), "new or empty folder"),
        (("--label-column", "label", "--out", "x", "--epochs", "0"), "`--epochs`"),
        (("--label-column", "label", "--out", "x", "--learning-rate", "-1"), "`--learning-rate`"),
        (("--label-column", "label", "--out", "x", "--weight-decay", "much"), "`--weight-decay`"),
        (("--label-column", "label", "--out", "x", "--certify", "1"), "must go with --kind head"),
    ],
)
def test_training_that_cannot_be_is_refused_in_one_sentence(run, arguments, mention):
    before = everything()
    code, out, err = run("train", "d.parquet", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert mention in err
    assert everything() == before


# --- unlearn ---------------------------------------------------------------------------------


def test_unlearning_needs_no_originals_and_leaves_a_folder_that_verifies(run):
    Path("d.parquet").unlink()
    code, out, err = run(*UNLEARN)
    assert (code, out) == (0, "")
    assert "finetune-restart, the default for a network" in err
    assert "audit m2" in err
    names = {path.name for path in Path("m2").iterdir()}
    assert names == {
        "config.json", "model.safetensors", "preprocessor_config.json", "training.json",
        "unlearning.json", "certificate.json",
    }  # fmt: skip
    salt = Path(".m2.private/rows.salt")
    found = verify(
        Path("m2"),
        revised_digest=read("r/revision.json")["data_digest"],
        salt=salt.read_bytes(),
        row_ids=range(0, N, 3),  # person-0 is in every third row
    )
    assert found.problems == ()
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    assert stat.S_IMODE(salt.parent.stat().st_mode) == 0o700
    assert not Path(".m2.run.pt").exists()


@pytest.mark.parametrize("mode", REVISED)
def test_every_mode_of_revision_forgets_the_same_rows(run, mode):
    arguments = ("--method", "ssd", "--original", "d.parquet", "--json")
    code, out, _ = run("unlearn", "m", "--revised", REVISED[mode], "--out", "m2", *arguments)
    body = json.loads(out)
    assert code == 0
    assert body["update"]["n_forget"] == N_REVISED
    assert body["update"]["n_replacement"] == (N_REVISED if mode == "replace" else 0)
    salt = Path(".m2.private/rows.salt").read_bytes()
    assert body["rows"]["hmac"] == row_tokens(salt, range(0, N, 3))


def test_the_reference_is_retrained_beside_the_model(run):
    code, _, err = run(*UNLEARN, "--reference", "retrain", "--seed", "0")
    assert code == 0
    assert "reference model" in err
    run("unlearn", "m", "--revised", "r", "--out", "exact", "--method", "retrain", "--seed", "0")
    weights = [Path(f, "model.safetensors").read_bytes() for f in ("m2-reference", "exact", "m2")]
    assert weights[0] == weights[1] != weights[2]


def test_a_budget_that_retraining_fits_is_used_for_it(run):
    before = everything()
    code, _, err = run(*UNLEARN, "--budget", "1000", "--dry-run")
    assert code == 0
    assert "Plan: retrain" in err
    assert everything() == before
    _, _, err = run(*UNLEARN, "--budget", "0.0001", "--dry-run")
    assert "Plan: finetune-restart" in err
    _, _, err = run(*UNLEARN, "--budget", "1000", "--reference", "retrain", "--seed", "3")
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("m2", "m2-reference")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (("--method", "sal"), "Unknown unlearning method 'sal'. Choose one of: retrain"),
        (("--method", "newton-head"), "must apply to a network"),
        (("--method", "scrub"), "`original` must be given"),
        (("--budget", "soon"), "`--budget` must be a positive number"),
        (("--label-column", "age"), "`label_column` must name a column"),
        (("--label-column", "weight"), "the model's labels (0, 1)"),
        (("--revised", "nowhere"), "`--revised`"),
        (("--out", "m"), "new or empty folder"),
    ],
)
def test_unlearning_that_cannot_be_is_refused_in_one_sentence(run, arguments, mention):
    before = everything()
    code, out, err = run(*UNLEARN, *arguments)
    assert (code, out) == (2, "")
    sentences = [s for s in err.splitlines() if not s.startswith(("Plan:", "Loading"))]
    assert len([s for s in sentences if s.strip()]) == 1, err
    assert mention in err
    assert everything() == before


def test_originals_that_were_not_revised_are_refused(run):
    rows = rows_of(N)
    rows[1]["label"] = 1 - rows[1]["label"]
    write_rows(Path("other.parquet"), rows)
    code, _, err = run(*UNLEARN, "--method", "ssd", "--original", "other.parquet")
    assert code == 2
    assert "`original` must be the data that was revised" in err


def test_a_model_from_elsewhere_needs_a_label_column(run):
    record = read("m/training.json")
    Path("m/training.json").write_text(json.dumps(record | {"label_column": ""}))
    code, _, err = run(*UNLEARN)
    assert code == 2
    assert "`--label-column` must name the column" in err
    assert run(*UNLEARN, "--label-column", "label")[0] == 0


def test_an_interrupted_run_resumes_when_it_is_typed_again(run, monkeypatch):
    run("unlearn", "m", "--revised", "r", "--out", "whole")

    class Killed(command.Progress):
        def __call__(self, stage, done, total):
            super().__call__(stage, done, total)
            if done >= 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "Progress", Killed)
        with pytest.raises(KeyboardInterrupt):
            run(*UNLEARN)
    assert Path(".m2.run.pt").is_file()
    assert not Path("m2").exists()
    assert run(*UNLEARN)[0] == 0
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("m2", "whole")]
    assert weights[0] == weights[1]
    assert not Path(".m2.run.pt").exists()


# --- Heads -----------------------------------------------------------------------------------


@pytest.fixture
def flat(monkeypatch):
    """A backbone that needs no weights: dlib's takes seconds."""
    from privacy_core.unlearning import backbone

    monkeypatch.setattr(backbone, "DlibBackbone", lambda _detector: FlatBackbone())


@pytest.mark.usefixtures("flat")
def test_a_certified_head_keeps_its_secret_beside_it_and_hands_it_on(run):
    head = ("--label-column", "label", "--kind", "head", "--certify", "2")
    assert run("train", "d.parquet", *head, "--out", "h")[0] == 0
    key = Path(".h.private/perturbation.key")
    assert (len(key.read_bytes()), stat.S_IMODE(key.stat().st_mode)) == (32, 0o600)
    assert key.name not in {path.name for path in Path("h").iterdir()}
    code, out, err = run("unlearn", "h", "--revised", "r", "--out", "h2", "--json")
    assert code == 0
    assert "newton-head, the default for a head" in err
    assert 0 < json.loads(out)["update"]["guarantee"]["epsilon"] < 1e-3
    assert Path(".h2.private/perturbation.key").read_bytes() == key.read_bytes()
    key.unlink()
    code, _, err = run("unlearn", "h", "--revised", "r", "--out", "h3")
    assert code == 2
    assert "must have its secret term beside it" in err


@pytest.mark.usefixtures("flat")
def test_a_plain_head_has_no_secret_and_no_epsilon(run):
    head = ("--label-column", "label", "--kind", "head", "--weight-decay", "0.01")
    assert run("train", "d.parquet", *head, "--out", "h")[0] == 0
    assert not Path(".h.private").exists()
    _, out, _ = run("unlearn", "h", "--revised", "r", "--out", "h2", "--json")
    assert json.loads(out)["update"]["guarantee"]["epsilon"] is None
    assert np.isfinite(json.loads(out)["update"]["measured"]["gradient_norm"])


def test_a_base_is_fine_tuned(run):
    based = ("--label-column", "label", "--base", "m", "--image-size", "16", "--epochs", "1")
    assert run("train", "d.parquet", *based, "--out", "b")[0] == 0
    recipe = read("b/training.json")["recipe"]
    assert (recipe["optimizer"], recipe["base"]) == ("adamw", "m")


@pytest.mark.usefixtures("flat")
def test_a_secret_that_cannot_be_kept_stops_everything(run):
    Path(".h.private").write_text("in the way")
    head = ("--label-column", "label", "--kind", "head", "--certify", "2")
    code, _, err = run("train", "d.parquet", *head, "--out", "h")
    assert code == 2
    assert "`--out` must be in a place you can write to" in err
    assert not Path("h").exists()
