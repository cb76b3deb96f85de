"""`train` and `unlearn` as they are typed: whole folders, secrets beside them, refusals."""

import contextlib
import json
import resource
import shutil
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy_core.__main__ import main
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands import shell
from privacy_core.unlearning import backbone as module_of_backbone
from privacy_core.unlearning import certificate
from privacy_core.unlearning.certificate import row_tokens, verify
from privacy_core.unlearning.ledger import Ledger
from tests.privacy_core.people import NO_FACE, MarkDetector, rows_of, write_preferences, write_rows
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

    def run_main(*arguments, **tools):
        code = main([str(argument) for argument in arguments], **DETECTOR, **tools)
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


def test_rows_that_taught_nothing_and_stay_as_they_are_are_not_forgotten(run):
    rows = rows_of(N, marks={5: NO_FACE, 6: NO_FACE})
    for row in (1, 3):  # of somebody who did not ask, and of somebody who did
        rows[row]["label"] = None
    for row in (2, 9):
        rows[row]["image"] = None
    write_rows(Path("partly.parquet"), rows)
    for mode in REVISED:
        arguments = (
            "revise", "partly.parquet", "--preferences", "p.json", "--mode", mode, "--others",
            "keep", "--label-column", "label", "--out", f"partly-{mode}",
        )  # fmt: skip
        assert run(*arguments, load_backend=lambda _: EmbeddedBackend(tiny_model()))[0] == 0
        code, out, _ = run(
            "unlearn", "m", "--revised", f"partly-{mode}", "--out", f"m-{mode}", "--json"
        )
        assert code == 0
        salt = Path(f".m-{mode}.private/rows.salt").read_bytes()
        # person-0 is in every third row; a dropped row does not say whether it had a picture.
        forgotten = [0, 3, 6, 9] if mode == "drop-row" else [0, 3, 6]
        assert json.loads(out)["rows"]["hmac"] == row_tokens(salt, forgotten)


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
    assert "`--original` must be the data that was revised" in err


def test_originals_of_several_splits_are_read_from_the_one_that_is_named(run):
    for name, source in (("train", "d.parquet"), ("test", "r/data/*.parquet")):
        Path("both").mkdir(exist_ok=True)
        (found,) = Path().glob(source)
        shutil.copy(found, f"both/{name}-00000-of-00001.parquet")
    arguments = ("--method", "ssd", "--original", "both")
    code, _, err = run(*UNLEARN, *arguments)
    assert code == 2
    assert "`split` must be one of test, train" in err
    assert run(*UNLEARN, *arguments, "--split", "test")[0] == 2  # not what was revised
    assert run(*UNLEARN, *arguments, "--split", "train")[0] == 0


def test_a_model_from_elsewhere_needs_a_label_column(run):
    record = read("m/training.json")
    Path("m/training.json").write_text(json.dumps(record | {"label_column": ""}))
    code, _, err = run(*UNLEARN)
    assert code == 2
    assert "`--label-column` must name the column" in err
    assert run(*UNLEARN, "--label-column", "label")[0] == 0


def test_an_interrupted_run_resumes_when_it_is_typed_again(run, monkeypatch):
    run("unlearn", "m", "--revised", "r", "--out", "whole")

    class Killed(shell.Progress):
        def __call__(self, stage, done, total):
            super().__call__(stage, done, total)
            if done >= 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shell, "Progress", Killed)
        with pytest.raises(KeyboardInterrupt):
            run(*UNLEARN)
    assert Path(".m2.run.pt").is_file()
    assert not Path("m2").exists()
    assert run(*UNLEARN)[0] == 0
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("m2", "whole")]
    assert weights[0] == weights[1]
    assert not Path(".m2.run.pt").exists()


# --- The reference model -----------------------------------------------------------------------


def test_the_reference_is_noted_where_only_its_owner_looks(run):
    assert run(*UNLEARN, "--reference", "retrain", "--seed", "0")[0] == 0
    note = read(".m2.private/reference.json")
    assert note["folder"] == "../m2-reference"
    assert note["weights"] == read("m2/certificate.json")["update"]["reference"]
    assert "m2-reference" not in Path("m2/certificate.json").read_text()


def test_a_model_that_was_retrained_before_is_taken_as_reference(run):
    assert run("unlearn", "m", "--revised", "r", "--out", "exact", "--method", "retrain")[0] == 0
    assert run(*UNLEARN, "--reference", "exact")[0] == 0
    assert read(".m2.private/reference.json")["folder"] == "../exact"
    assert not Path("m2-reference").exists()


def test_a_model_of_other_data_is_no_reference(run):
    before = everything()
    code, _, err = run(*UNLEARN, "--reference", "m")
    assert code == 2
    assert "`--reference` must be trained on the revised data" in err
    assert everything() == before


def test_a_model_of_other_labels_is_no_reference(run):
    rows = [{**row, "label": row["label"] + 5} for row in rows_of(N)]
    write_rows(Path("other.parquet"), rows)
    assert run("train", "other.parquet", *TRAIN, "--out", "other")[0] == 0
    code, _, err = run(*UNLEARN, "--reference", "other")
    assert code == 2
    assert "`--reference` must tell the labels 0, 1, got 5, 6" in err


def test_one_label_alone_cannot_be_trained_on(run):
    write_rows(Path("one.parquet"), [{**row, "label": 1} for row in rows_of(4)])
    code, _, err = run("train", "one.parquet", *TRAIN, "--out", "x")
    assert code == 2
    assert "must hold at least two different labels" in err
    assert not Path("x").exists()


def test_a_place_taken_by_another_reference_stops_the_run_before_it_begins(run):
    Path("m2-reference").mkdir()
    Path("m2-reference/x").write_text("mine")
    before = everything()
    code, _, err = run(*UNLEARN, "--reference", "retrain")
    assert code == 2
    assert "m2-reference" in err
    assert "Plan" not in err
    assert everything() == before


# --- Settings --------------------------------------------------------------------------------


def test_settings_of_a_method_are_set_and_stored(run):
    assert run(*UNLEARN, "--set", "epochs=1", "--set", "factor=1.5")[0] == 0
    settings = read("m2/certificate.json")["update"]["settings"]
    assert (settings["epochs"], settings["factor"]) == (1, 1.5)


@pytest.mark.parametrize("wrong", ["epoch=1", "epochs=1.5", "epochs=many", "epochs", "epochs=true"])
def test_a_setting_that_is_none_is_refused_and_the_others_are_named(run, wrong):
    code, _, err = run(*UNLEARN, "--set", wrong)
    assert code == 2
    assert "`--set` must give a setting of finetune-restart a value of its kind" in err
    assert "epochs=" in err
    assert not Path("m2").exists()


def test_scrub_rewinds_by_rows_that_were_held_out(run):
    arguments = ("--method", "scrub", "--original", "d.parquet", "--held-out", "d.parquet")
    assert run(*UNLEARN, *arguments)[0] == 0
    assert read("m2/certificate.json")["update"]["measured"]["rewound_to"] >= 1


# --- Requests --------------------------------------------------------------------------------

LEDGER = Path(".m.private/requests.sqlite3")


def requests():
    return {one.subject: one for one in Ledger(LEDGER).requests()}


def test_a_request_is_entered_by_pseudonym_with_its_batch_and_the_certificate_names_it(run):
    assert run(*UNLEARN)[0] == 0
    body = read("m2/certificate.json")
    (account,) = read("r/revision.json")["subjects"]
    one = requests()[account["subject_key"]]
    assert (one.state, one.basis, len(one.rows)) == ("unlearned", "rectification", N_REVISED)
    assert body["batch"] == {"name": one.batch, "requests": 1}
    salt = Path(".m.private/requests.salt")
    assert one.rows == tuple(row_tokens(salt.read_bytes(), range(0, N, 3)))
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    assert b"person-" not in LEDGER.read_bytes()
    code, out, err = run("verify", "m2", "--json")
    assert code == 0
    assert "the request ledger's chain" in json.loads(out)["checked"]
    assert "1 requests, 0 of them overdue" in err


def test_a_run_that_fails_leaves_the_ledger_and_everything_else_as_it_was(run, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    before = everything()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        code, _, err = run(*UNLEARN, "--reference", "retrain", "--method", "ssd",
                           "--original", "d.parquet")  # fmt: skip
    assert code == 2
    assert "cannot be written" in err
    assert everything() == before
    assert run(*UNLEARN)[0] == 0
    entries = Ledger(LEDGER).entries()
    with monkeypatch.context() as patch:
        patch.setattr(certificate, "certify", full)
        with pytest.raises(OSError, match="No space left"):
            run("unlearn", "m", "--revised", "gone", "--out", "m3", "--method", "retrain")
    assert Ledger(LEDGER).entries() == entries
    assert not Path("m3").exists()
    assert not Path(".m3.private").exists()


@contextlib.contextmanager
def full_disk(n_bytes):
    """Let no file grow beyond a size: what the system says of a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", [1_000, 100_000])  # no checkpoint; no weights
def test_a_full_disk_is_said_in_a_sentence_and_leaves_no_half_model(run, n_bytes):
    before = everything()
    for line in (
        ("train", "d.parquet", *TRAIN, "--out", "x"),
        (*UNLEARN, "--reference", "retrain"),
        (*UNLEARN, "--method", "ssd", "--original", "d.parquet"),
    ):
        with full_disk(n_bytes):
            code, _, err = run(*line)
        assert code == 2, line
        assert "Make room" in err or "free space" in err
        assert [path for path in everything() if not path.endswith(".run.pt")] == before


def test_requests_on_an_unlearned_model_go_into_the_same_ledger(run):
    assert run(*UNLEARN)[0] == 0
    code, _, _ = run("unlearn", "m2", "--revised", "gone", "--out", "m3")
    assert code == 0
    assert len(Ledger(LEDGER).requests()) == 2
    assert not Path(".m2.private/requests.sqlite3").exists()
    assert read("m3/certificate.json")["batch"]["name"].startswith("2-")
    bases = [one.basis for one in Ledger(LEDGER).requests()]
    assert bases == ["rectification", "erasure"]


def test_a_second_attempt_takes_the_same_requests_up_again(run):
    run(*UNLEARN)
    run("unlearn", "m", "--revised", "r", "--out", "m3", "--method", "reinit-finetune")
    (one,) = Ledger(LEDGER).requests()
    assert one.batch == read("m3/certificate.json")["batch"]["name"]


def test_a_ledger_that_was_altered_does_not_verify_and_a_damaged_one_stops_a_run(run):
    run(*UNLEARN)
    database = sqlite3.connect(LEDGER)
    with database:
        database.execute("DROP TRIGGER entries_are_not_changed")
        database.execute("UPDATE entries SET at = '2020'")
    database.close()
    code, _, err = run("verify", "m2")
    assert code == 2
    assert "The ledger of 'm2' was altered" in err
    LEDGER.write_text("no database " * 100)
    code, _, err = run("unlearn", "m", "--revised", "r", "--out", "m3")
    assert code == 2
    assert "cannot be read or written" in err
    assert not Path("m3").exists()


def test_where_pseudonyms_were_erased_the_rows_are_one_request(run):
    Path(".r.private/rows.parquet").unlink()
    assert run(*UNLEARN)[0] == 0
    assert list(requests()) == ["others"]


def test_a_damaged_note_of_the_ledger_is_named(run):
    run(*UNLEARN)
    Path(".m2.private/batch.json").write_text("{")
    code, _, err = run("verify", "m2")
    assert code == 2
    assert ".m2.private/batch.json must say where the ledger" in err


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
    assert [path.name for path in Path(".h.private").iterdir()] == ["features.npz"]
    _, out, _ = run("unlearn", "h", "--revised", "r", "--out", "h2", "--json")
    assert json.loads(out)["update"]["guarantee"]["epsilon"] is None
    assert np.isfinite(json.loads(out)["update"]["measured"]["gradient_norm"])


def test_a_picture_is_read_once_for_all_commands_and_erased_with_the_originals(run, monkeypatch):
    backbone, kept = FlatBackbone(), Path(".h.private/features.npz")
    monkeypatch.setattr(module_of_backbone, "DlibBackbone", lambda _detector: backbone)
    head = ("--label-column", "label", "--kind", "head", "--weight-decay", "0.01")
    assert run("train", "d.parquet", *head, "--out", "h")[0] == 0
    assert backbone.n_read == N
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert run("unlearn", "h", "--revised", "r", "--out", "h2")[0] == 0
    assert backbone.n_read == N + N_REVISED
    note = Path(".r.private/features.json")
    assert read(note) == {"folders": ["../.h.private"]}
    note.unlink()
    again = ("--method", "retrain", "--original", "d.parquet")
    assert run("unlearn", "h", "--revised", "r", "--out", "h3", *again)[0] == 0
    audit = ("--original", "d.parquet", "--revised", "r", "--against", "h", "--models", "3")
    note.unlink()
    assert run("audit", "h2", *audit)[0] == 0
    assert read(note) == {"folders": ["../.h.private"]}
    assert run("unlearn", "h2", "--revised", "r", "--out", "h4")[0] == 0
    assert backbone.n_read == N + N_REVISED
    weights = Path("h/model.safetensors").read_bytes()
    kept.unlink()
    assert run("train", "d.parquet", *head, "--out", "x")[0] == 0
    assert Path("x/model.safetensors").read_bytes() == weights
    assert run("unlearn", "h", "--revised", "r", "--out", "h5")[0] == 0
    assert kept.exists()
    erase = ("erase-originals", "d.parquet", "--revision", "r", "--erase-first", "--json")
    code, _, err = run(*erase)
    assert (code, kept.exists()) == (2, True)
    assert "1 files of features" in err
    code, out, _ = run(*erase, "--yes")
    assert (code, kept.exists()) == (0, False)
    assert json.loads(out)["n_files_of_features_erased"] == 1


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
