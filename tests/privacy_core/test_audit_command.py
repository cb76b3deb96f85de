"""`audit`, `verify` and `publish` as they are typed: evidence in the folder, refusals in a line."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from privacy_core.__main__ import main
from privacy_core.audit import evidence
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands import audit as audit_command
from privacy_core.commands import release as command
from privacy_core.unlearning import backbone
from privacy_core.unlearning.certificate import verify
from privacy_core.unlearning.ledger import Ledger
from tests.hub_server import HubServer
from tests.privacy_core.people import MarkDetector, rows_of, write_preferences, write_rows
from tests.privacy_core.tiny import tiny_model
from tests.privacy_core.tiny_targets import FlatBackbone

N = 28
TOOLS = {"detector": MarkDetector(), "load_backend": lambda _: EmbeddedBackend(tiny_model())}
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "DlibBackbone", lambda _detector: FlatBackbone())
        for line in (
            "revise d.parquet --preferences p.json --others keep --label-column label --out r",
            "train d.parquet --label-column label --kind head --weight-decay 0.01 --out m",
            "unlearn m --revised r --out m2",
        ):
            patch.chdir(folder)
            code = main(line.split(), **TOOLS)
            assert code == 0
    return folder


@pytest.fixture
def drawn():
    """Asked for by tests whose figures are looked at, or are of other numbers than most."""


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Leave the figures out, which take most of an audit's time, where `drawn` is not asked for."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(evidence, "draw_plots", lambda _folder, **_: ())


@pytest.fixture
def run(tmp_path, made, capsys, monkeypatch):
    """Return a function that runs a command in a copy of `made`: (exit code, stdout, stderr)."""
    torch.set_num_threads(1)
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(backbone, "DlibBackbone", lambda _detector: FlatBackbone())
    capsys.readouterr()

    def run_main(*arguments):
        code = main([str(argument) for argument in arguments], **TOOLS)
        captured = capsys.readouterr()
        said = [line.split("\r")[-1] for line in captured.err.splitlines()]
        return code, captured.out, "\n".join(line for line in said if "it/s" not in line)

    return run_main


def read(path):
    return json.loads(Path(path).read_text())


@pytest.mark.usefixtures("drawn")
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


def test_by_default_heads_are_compared_in_larger_numbers(run, monkeypatch):
    monkeypatch.setattr(audit_command, "_HEADS", 5)
    monkeypatch.setattr(audit_command, "_MODELS", 4)
    assert run(*AUDIT)[0] == 0
    assert read("m2/audit.json")["settings"]["n_models"] == 5
    config = read("m/config.json")
    Path("m/config.json").write_text(json.dumps(config | {"model_type": "resnet"}))
    options = argparse.Namespace(models=None, against="m")
    assert audit_command._n_models(options) == 4


@pytest.mark.usefixtures("drawn")
def test_no_name_of_a_person_is_in_the_evidence(run):
    assert run(*AUDIT, "--test", "t.parquet", "--models", 3)[0] == 0
    for path in Path("m2").rglob("*"):
        if path.is_file():
            assert b"person-" not in path.read_bytes(), path


@pytest.mark.usefixtures("drawn")
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


def test_of_data_with_several_splits_the_one_called_test_is_the_test(run):
    Path("both").mkdir()
    shutil.copy("t.parquet", "both/test-00000-of-00001.parquet")
    shutil.copy("d.parquet", "both/train-00000-of-00001.parquet")
    for arguments in (
        (*AUDIT, "--test", "both"),
        ("audit", "m2", "--original", "both", "--split", "train", *AUDIT[4:]),
    ):
        assert run(*arguments, "--models", 0)[0] == 0
        assert read("m2/audit.json")["rows"]["test"] == 8


@pytest.mark.usefixtures("drawn")
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


@pytest.mark.usefixtures("drawn")
def test_the_reference_that_unlearning_made_is_measured_without_being_named(run):
    arguments = ("unlearn", "m", "--revised", "r", "--out", "m3", "--reference", "retrain")
    assert run(*arguments)[0] == 0
    audit = ("audit", "m3", *AUDIT[2:], "--models")
    assert run(*audit, 0)[0] == 0
    values = read("m3/audit.json")
    assert "gap_to_retrain" in values["models"]["unlearned"]
    assert values["digests"]["reference_weights"] == read(".m3.private/reference.json")["weights"]
    assert run(*audit, 3)[0] == 0
    models = read("m3/audit.json")["models"]
    assert models["given reference"]["n_models"] == 1
    # Both controls: the original, and references, against references.
    assert "u_lira" in models["original"]
    assert "u_lira" in models["reference"]
    # So few people that some models are the same: then there is a reason in the number's place.
    assert "must differ" in models["reference"]["absent"]["u_lira_control"]


def test_a_reference_may_be_left_out_or_gone(run):
    arguments = ("unlearn", "m", "--revised", "r", "--out", "m3", "--reference", "retrain")
    assert run(*arguments)[0] == 0
    audit = ("audit", "m3", *AUDIT[2:], "--models", 0)
    assert run(*audit, "--reference", "none")[0] == 0
    assert "reference" not in read("m3/audit.json")["models"]
    shutil.rmtree("m3-reference")
    code, _, err = run(*audit)
    assert code == 0
    assert "The reference model m3-reference is gone" in err


def test_a_model_of_other_data_is_no_reference(run):
    code, _, err = run(*AUDIT, "--models", 0, "--reference", "m")
    assert code == 2
    assert "`--reference` must be trained on the revised data" in err


def test_an_audit_and_a_release_are_entered_in_the_ledger(run, hub):
    ledger = Ledger(Path(".m.private/requests.sqlite3"))
    assert {one.state for one in ledger.requests()} == {"unlearned"}
    run(*AUDIT, "--models", 0)
    assert {one.state for one in ledger.requests()} == {"audited"}
    digest = read("m2/certificate.json")["sha256"]
    assert ledger.entries()[-1].content == {"gate": "failed", "certificate": digest}
    before = ledger.entries()
    assert run("publish", "m2", "--repo-id", "anna/ledger")[0] == 2
    assert ledger.entries() == before
    assert run("publish", "m2", "--repo-id", "anna/ledger", "--force")[0] == 0
    assert {one.state for one in ledger.requests()} == {"released"}
    revision = hub.model_info("anna/ledger").sha
    assert ledger.entries()[-1].content == {"repository": "anna/ledger", "revision": revision}
    assert read("m2/certificate.json")["batch"]["name"] == ledger.requests()[0].batch


def test_a_ledger_that_is_gone_stops_no_audit_and_is_said(run):
    Path(".m.private/requests.sqlite3").unlink()
    code, _, err = run(*AUDIT, "--models", 0)
    assert code == 0
    assert "nothing was entered in it" in err
    shutil.rmtree(".m2.private")
    code, _, err = run(*AUDIT, "--models", 0)
    assert code == 0
    assert "ledger" not in err


@pytest.mark.parametrize("content", ["{", "[]", '{"path": 1}'])
def test_a_damaged_note_of_the_reference_is_named(run, content):
    Path(".m2.private/reference.json").write_text(content)
    code, _, err = run(*AUDIT, "--models", 0)
    assert code == 2
    assert ".m2.private/reference.json must say where the reference model is" in err


@pytest.mark.usefixtures("drawn")
def test_metrics_are_stated_by_group(run):
    code, _, err = run(*AUDIT, "--test", "t.parquet", "--models", 3, "--group-column", "label")
    assert code == 0, err
    one = read("m2/audit.json")["models"]["unlearned"]
    assert set(one["accuracy_by_group"]) == set(one["u_lira_by_group"]) == {"0", "1"}
    assert set(one["accuracy_by_group"]["1"]) == {"retain", "forget", "revised", "test"}
    whole = one["accuracy"]["test"]["value"]
    halves = [one["accuracy_by_group"][group]["test"]["value"] for group in "01"]
    assert whole == pytest.approx(sum(halves) / 2)  # as many rows of each


def test_originals_that_are_not_those_revised_are_refused_though_no_row_was_kept(run):
    rows = rows_of(N, n_subjects=7)
    write_rows(Path("other.parquet"), [{**row, "smiling": False} for row in rows])
    code, _, err = run("audit", "m2", "--original", "other.parquet", *AUDIT[4:], "--models", "0")
    assert code == 2
    assert "`--original` must be the data that was revised" in err


# --- The originals are erased first ----------------------------------------------------------

ERASED = ("audit", "m2", "--erase-first", *AUDIT[4:])
ERASE = ("erase-originals", "d.parquet", "--revision", "r", "--yes")


def erase_first(run):
    assert run(*ERASE, "--erase-first")[0] == 0
    # This copy is not the file that was revised, so the command lets it stay.
    Path("d.parquet").unlink()


@pytest.mark.usefixtures("drawn")
def test_after_erasure_a_stand_in_of_the_same_size_is_attacked_and_the_file_says_so(run):
    erase_first(run)
    code, _, err = run(*ERASED, "--test", "t.parquet", "--models", 3)
    assert code == 0, err
    values = read("m2/audit.json")
    assert values["rows"]["forget"] == values["stand_in"]["n_rows"] == 8
    assert values["stand_in"]["n_rows_asked"] == 8
    assert values["rows"]["retain"] == N - 8
    assert values["rows"]["revised"] == 8
    assert "originals were erased before the audit" in values["stand_in"]["reason"]
    assert "u_lira" in values["models"]["unlearned"]
    # The released model is measured on what is left of the real data, and never on the stand-in.
    assert set(values["models"]["released"]["accuracy"]) == {"retain", "revised", "test"}
    assert "released model's gap, retain rows was not measured" in " ".join(
        values["gate"]["reasons"]
    )
    assert "original_rows" not in values["digests"]
    assert verify(Path("m2")).is_valid
    assert run(*ERASE, "--audited", "m2")[0] == 0
    assert not Path(".r.private/rows.parquet").exists()
    assert not list(Path(".m.private/shadows").iterdir())


@pytest.mark.parametrize(
    ("model", "asked"), [("embedded", "embedded"), ("sdxl-turbo", f"sdxl-turbo@{'1' * 40}")]
)
def test_a_stand_in_is_made_by_the_model_of_the_request_at_its_commit(
    run, monkeypatch, model, asked
):
    erase_first(run)
    names = []
    monkeypatch.setitem(
        TOOLS, "load_backend", lambda name: names.append(name) or EmbeddedBackend(tiny_model())
    )
    revision = read("r/revision.json") | {"model": {"id": model, "revision": "1" * 40}}
    Path("r/revision.json").write_text(json.dumps(revision))
    code, _, err = run(*ERASED, "--models", 3)
    assert code == 0, err
    assert names == [asked]
    assert "by another revision of the model" in err


def test_a_given_reference_compares_the_released_model_where_the_originals_are_gone(run):
    arguments = ("unlearn", "m", "--revised", "r", "--out", "m3", "--reference", "retrain")
    assert run(*arguments)[0] == 0
    erase_first(run)
    assert run("audit", "m3", *ERASED[2:], "--models", 0)[0] == 0
    values = read("m3/audit.json")
    assert values["models"]["unlearned"]["gap_to_retrain"]["retain"] < 2


@pytest.mark.usefixtures("drawn")
def test_without_shadow_models_only_what_is_left_is_measured(run):
    erase_first(run)
    assert run(*ERASED, "--models", 0)[0] == 0
    values = read("m2/audit.json")
    assert set(values["rows"]) == {"retain", "revised"}
    assert not values["gate"]["passed"]


@pytest.mark.parametrize(
    ("arguments", "mention"),
    [
        (AUDIT[:2] + AUDIT[4:], "got neither"),
        ((*AUDIT, "--erase-first"), "got both"),
        ((*ERASED, "--group-column", "label"), "must be read from the originals"),
    ],
)
def test_originals_are_there_or_erased(run, arguments, mention):
    code, _, err = run(*arguments)
    assert code == 2
    assert mention in err


def test_a_stand_in_needs_pseudonyms(run):
    Path(".r.private/rows.parquet").unlink()
    code, _, err = run(*ERASED)
    assert code == 2
    assert "must find who is behind which row" in err


def test_shadow_models_are_kept_out_of_what_is_published_and_erased_with_the_originals(run):
    run(*AUDIT, "--models", 3)
    assert len(list(Path(".m.private/shadows").glob("*.safetensors"))) == 12
    run(*AUDIT, "--models", 3, "--shadows", "kept")
    assert len(list(Path("kept").iterdir())) == 12
    Path("kept/notes.txt").write_text("mine")
    code, out, _ = run(*ERASE, "--audited", "m2", "--json")
    assert code == 0
    assert json.loads(out)["n_shadow_models_erased"] == 24
    assert not list(Path(".m.private/shadows").iterdir())
    assert [path.name for path in Path("kept").iterdir()] == ["notes.txt"]


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


@pytest.mark.usefixtures("drawn")
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
