"""`audit`, `verify` and `publish` as they are typed: evidence in the folder, refusals in a line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from privacy_core.__main__ import main
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands import audit as command
from privacy_core.unlearning import backbone
from privacy_core.unlearning.certificate import verify
from tests.hub_server import HubServer
from tests.privacy_core.people import MarkDetector, rows_of, write_preferences, write_rows
from tests.privacy_core.tiny import tiny_model
from tests.privacy_core.tiny_targets import FlatBackbone

N = 28
DETECTOR = {"detector": MarkDetector()}
AUDIT = ("audit", "m2", "--original", "d.parquet", "--revised", "r", "--against", "m")


def other_people(n):
    return [{**row, "subject": f"other-{i % 4}"} for i, row in enumerate(rows_of(n))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with data, revised data, a head and the head unlearned."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("made")
    rows = rows_of(N, n_subjects=7)
    write_rows(folder / "d.parquet", [{**row, "smiling": i % 4 < 2} for i, row in enumerate(rows)])
    write_rows(folder / "t.parquet", other_people(8))
    write_preferences(folder / "p.json", {"person-0": 0.5, "person-1": 0.6})
    embedded = EmbeddedBackend(tiny_model())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "DlibBackbone", lambda _detector: FlatBackbone())
        for line in (
            "revise d.parquet --preferences p.json --others keep --label-column label --out r",
            "train d.parquet --label-column label --kind head --weight-decay 0.01 --out m",
            "unlearn m --revised r --out m2",
        ):
            patch.chdir(folder)
            code = main(line.split(), load_backend=lambda _: embedded, **DETECTOR)
            assert code == 0
    return folder


@pytest.fixture
def run(tmp_path, made, capsys, monkeypatch):
    """Return a function that runs a command in a copy of `made`: (exit code, stdout, stderr)."""
    torch.set_num_threads(1)
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(backbone, "DlibBackbone", lambda _detector: FlatBackbone())
    capsys.readouterr()

    def run_main(*arguments):
        code = main([str(argument) for argument in arguments], **DETECTOR)
        captured = capsys.readouterr()
        said = [line.split("\r")[-1] for line in captured.err.splitlines()]
        return code, captured.out, "\n".join(line for line in said if "it/s" not in line)

    return run_main


def read(path):
    return json.loads(Path(path).read_text())


def test_an_audit_writes_evidence_and_certifies_it(run):
    code, out, err = run(*AUDIT, "--test", "t.parquet", "--models", 3, "--json")
    assert code == 0, err
    values = read("m2/audit.json")
    assert json.loads(out) == values
    assert values["method"] == "newton-head"
    assert values["people"] == {"retain": 5, "forget": 2, "revised": 2, "test": 4}
    assert values["provenance"]["subjects_with_their_own_preference"] == 2
    assert values["digests"]["revised_data"] == read("r/revision.json")["data_digest"]
    assert "u_lira" in values["models"]["unlearned"]
    assert (Path("m2/plots") / "attack.png").is_file()
    assert "passed the gate" in err or "did not pass the gate" in err
    certificate = read("m2/certificate.json")
    assert certificate["audit"]["gate"] == values["gate"]
    assert "audit.json" in certificate["files"]
    assert verify(Path("m2")).is_valid


def test_no_name_of_a_person_is_in_the_evidence(run):
    assert run(*AUDIT, "--test", "t.parquet", "--models", 3)[0] == 0
    for path in Path("m2").rglob("*"):
        if path.is_file():
            assert b"person-" not in path.read_bytes(), path


def test_shadow_models_are_kept_out_of_what_is_published(run):
    run(*AUDIT, "--models", 3)
    assert len(list(Path(".m.private/shadows").glob("*.safetensors"))) == 12
    run(*AUDIT, "--models", 3, "--shadows", "kept")
    assert len(list(Path("kept").iterdir())) == 12


def test_a_second_audit_finds_the_same(run):
    run(*AUDIT, "--models", 3)
    first = read("m2/audit.json")
    assert run(*AUDIT, "--models", 3)[0] == 0
    assert read("m2/audit.json") == first


def test_an_audit_that_was_cut_off_before_certifying_can_be_repeated(run):
    Path("m2/audit.json").write_text("{}")
    assert run("verify", "m2")[0] == 2
    assert run(*AUDIT, "--models", 0)[0] == 0
    assert verify(Path("m2")).is_valid


def test_an_attribute_column_adds_its_leak(run):
    code, _, err = run(*AUDIT, "--models", 3, "--attribute-column", "smiling")
    assert code == 0, err
    assert "attribute_leak" in read("m2/audit.json")["models"]["unlearned"]


def test_without_rows_of_other_people_it_says_what_is_left_out(run):
    code, _, err = run(*AUDIT, "--models", 0)
    assert code == 0
    assert "metrics on them are left out" in err
    assert "did not pass the gate" in err
    assert not Path(".m.private/shadows").exists()


def test_a_reference_is_measured_too(run):
    assert run("unlearn", "m", "--revised", "r", "--out", "ref", "--method", "retrain")[0] == 0
    assert run(*AUDIT, "--models", 0, "--reference", "ref")[0] == 0
    one = read("m2/audit.json")["models"]["unlearned"]
    assert "gap_to_retrain" in one
    assert "u_lira" not in one


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (("--models", "2"), "`n_models` must be 0 or from 3"),
        (("--models", "x"), "`--models` must be a whole number"),
        (("--models", "0", "--subject-column", "who"), "`--subject-column` must name a column"),
        (("--models", "0", "--attribute-column", "label2"), "`--attribute-column` must name"),
        (("--models", "0", "--attribute-column", "subject"), "must hold two values, got 7"),
        (("--models", "0", "--test", "d.parquet"), "Split by person"),
        (("--models", "0", "--against", "m2"), "`--against` must be the model MODEL2 was made"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(run, arguments, mention):
    before = {path: path.read_bytes() for path in Path("m2").rglob("*") if path.is_file()}
    code, out, err = run(*AUDIT, *arguments)
    assert (code, out) == (2, "")
    assert mention in err
    assert {p: p.read_bytes() for p in Path("m2").rglob("*") if p.is_file()} == before


def test_other_revised_data_is_refused(run):
    lines = Path("m2/certificate.json")
    body = read(lines)
    from privacy_core.unlearning.certificate import certify

    certify(
        Path("m2"), original=body["original"], revised={"data": "x"}, update=body["update"],
        rows=body["rows"]["hmac"],
    )  # fmt: skip
    code, _, err = run(*AUDIT, "--models", 0)
    assert code == 2
    assert "`--revised` must be the data MODEL2 was updated to" in err


# --- verify ----------------------------------------------------------------------------------


def test_verify_checks_files_and_data(run):
    code, out, err = run("verify", "m2", "--revised", "r", "--json")
    assert code == 0
    assert json.loads(out)["valid"] is True
    assert "the revised data" in err


def test_verify_names_what_was_altered(run):
    Path("m2/config.json").write_text("{}")
    code, out, err = run("verify", "m2")
    assert (code, out) == (2, "")
    assert "'config.json' is not the one that was certified" in err
    assert run(*AUDIT, "--models", 0)[0] == 2


# --- publish ---------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        server.add_user("anna", "hf_anna")
        client = HfApi(endpoint=server.endpoint, token="hf_anna")  # noqa: S106
        monkeypatch.setattr(command, "_client", lambda: client)
        yield client


def test_what_was_not_audited_is_published_by_force_only(run, hub):
    code, _, err = run("publish", "m2", "--repo-id", "anna/m2")
    assert code == 2
    assert "must have passed the gate" in err
    assert not hub.repo_exists("anna/m2")
    code, out, err = run("publish", "m2", "--repo-id", "anna/m2", "--force", "--json")
    assert code == 0
    assert json.loads(out)["revision"] == hub.model_info("anna/m2").sha
    assert "it is private" in err
    assert "Nothing to send" in run("publish", "m2", "--repo-id", "anna/m2", "--force")[2]


def test_the_card_of_an_audited_model_shows_attack_control_and_provenance(run, hub, tmp_path):
    run(*AUDIT, "--test", "t.parquet", "--models", 3)
    assert run("publish", "m2", "--repo-id", "anna/card", "--force")[0] == 0
    path = hub.hf_hub_download("anna/card", "README.md", local_dir=tmp_path / "card")
    card = Path(path).read_text()
    values = read("m2/audit.json")
    attacked = values["models"]["unlearned"]["u_lira"]["auc"]
    assert f"{attacked['value']:.3f} ({attacked['low']:.3f} to {attacked['high']:.3f})" in card
    assert "| | original | unlearned | reference | released |" in card
    assert "name: Per-example attack AUC (lower is better)" in card
    assert "K = 3 models per column" in card
    assert "subjects with their own preference: 2" in card
    assert "of the time of retraining" in card
    assert "d.parquet" in card


def test_the_real_client_is_made_without_a_network():
    assert isinstance(command._client(), HfApi)
