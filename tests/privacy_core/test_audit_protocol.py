"""The audit from end to end on tiny real models: controls, reuse, absence, evidence on disk."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from privacy_core.audit.evidence import AUDIT, hardware_line
from privacy_core.audit.parts import Part, parts_of
from privacy_core.audit.protocol import audit
from privacy_core.audit.request import AuditRequest, AuditSettings
from privacy_core.audit.shadows import Maker, Request
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.unlearning.base import UnlearnRequest
from privacy_core.unlearning.newton_head import Settings
from privacy_core.unlearning.run import unlearn
from tests.privacy_core.tiny_targets import (
    blobs,
    pictures,
    revise,
    tiny_head,
    trained_network,
)

HARDWARE = "a test"
K = 8


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@cache
def world():
    """Return original head, D, D', who is shown, and test rows of other people."""
    everything = blobs(720)
    rows = everything.take(np.arange(720) < 480)
    test = everything.take(np.arange(720) >= 480)
    people = np.arange(480) // 4
    return tiny_head(rows), rows, revise(rows, 80), people, Part(test, 1000 + np.arange(240) // 4)


def head_request(method="newton-head", **changes):
    original, rows, revised, people, test = world()
    unlearned = unlearn(UnlearnRequest(original, revised, method)).model
    shadows = Request(original, rows, revised, people, method)
    return AuditRequest(
        **({"unlearned": unlearned, "against": original, "shadows": shadows, "test": test,
            "digests": {"revised_data": "ab12"}} | changes)
    )  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("shadows")


@pytest.fixture(scope="module")
def audited(kept):
    attribute = np.arange(480) // 4 % 2 == 0
    return audit(
        head_request(attribute=attribute), AuditSettings(n_models=K), shadow_folder=kept,
        hardware=HARDWARE,
    )  # fmt: skip


def run(request, kept, **settings):
    chosen = AuditSettings(**({"n_models": K, "relearn_models": 0} | settings))
    return audit(request, chosen, shadow_folder=kept, hardware=HARDWARE)


# --- What is found ---------------------------------------------------------------------------


def test_newton_on_a_head_is_as_far_from_retraining_as_retraining(audited):
    models = audited.values["models"]
    assert audited.gate.passed, audited.gate.reasons
    assert models["reference"]["u_lira_control"]["n_splits"] == 40
    mine, control = (models[name]["u_lira"]["auc"]["value"] for name in ("unlearned", "reference"))
    assert mine == pytest.approx(control, abs=0.1)
    assert models["unlearned"]["gap_to_retrain"]["average"] < 2


def test_the_untouched_model_is_found_out(kept):
    # "ssd" with a threshold no weight reaches would do nothing; so would handing the original back.
    original = world()[0]
    found = run(head_request(unlearned=original), kept)
    models = found.values["models"]
    separated = models["original"]["u_lira"]["auc"]["value"]
    assert separated > models["reference"]["u_lira"]["auc"]["value"] + 0.1
    assert models["original"]["forgetting_quality"] < models["reference"]["forgetting_quality"]
    assert (
        models["original"]["js_divergence"]["value"]
        > 1.5 * (models["reference"]["js_divergence"]["value"])
    )


def test_every_group_has_the_same_metrics(audited):
    models = audited.values["models"]
    for name in ("original", "unlearned", "reference"):
        assert set(models[name]) >= {
            "accuracy", "gap_to_retrain", "tug_of_war", "js_divergence", "activation_distance",
            "population_attack_auc", "u_lira", "u_lira_by_person", "u_lira_on_retain",
            "forgetting_quality", "forgetting_score", "attribute_leak",
        }  # fmt: skip
        assert set(models[name]["accuracy"]) == {"retain", "forget", "revised", "test"}
        assert models[name]["n_models"] == K


def test_accuracies_have_intervals_over_people(audited):
    one = audited.values["models"]["unlearned"]["accuracy"]["test"]
    assert one["low"] < one["value"] < one["high"]


def test_the_file_states_what_it_rests_on(audited):
    values = audited.values
    assert values["schema_version"] == 1
    assert values["rows"] == {"retain": 400, "forget": 80, "revised": 80, "test": 240}
    assert values["people"]["forget"] == 20
    assert values["settings"]["share"] == 0.8
    assert values["hardware"] == HARDWARE
    assert values["digests"]["revised_data"] == "ab12"
    assert len(set(values["seeds"]["reference"] + values["seeds"]["control"])) == 2 * K
    assert values["costs"]["ratio_to_retraining"]["seconds"] > 0
    json.dumps(values, allow_nan=False)


def test_relearning_is_timed_against_the_reference(audited):
    relearn = audited.values["models"]["unlearned"]["relearn"]
    assert len(relearn["steps"]) == 2
    assert relearn["loss_below"] > 0


def test_evidence_is_written_beside_the_model(audited, tmp_path):
    paths = audited.write(tmp_path)
    assert json.loads((tmp_path / AUDIT).read_text()) == json.loads(json.dumps(audited.values))
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert names == {AUDIT} | {
        f"plots/{name}.{kind}" for name in ("accuracy", "attack", "cost") for kind in ("svg", "png")
    }
    assert not list(tmp_path.glob(".*"))
    first = (tmp_path / "plots/attack.svg").read_bytes()
    audited.write(tmp_path)
    assert (tmp_path / "plots/attack.svg").read_bytes() == first


def test_what_cannot_be_written_is_an_output_error(audited, tmp_path):
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(OutputError, match="plots"):
        audited.write(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / AUDIT).mkdir()
    (other / AUDIT / "x").write_text("in the way")
    with pytest.raises(OutputError, match="The audit in 'other' cannot be written"):
        audited.write(other)
    assert not (other / f".{AUDIT}.part").exists()


def test_the_hardware_line_is_one_line():
    assert "\n" not in hardware_line()
    assert "cores" in hardware_line()


# --- What is missing -------------------------------------------------------------------------


def test_without_a_reference_nothing_is_compared_and_the_gate_stays_shut(tmp_path):
    found = run(head_request(), tmp_path, n_models=0)
    models = found.values["models"]
    assert "reference" not in models
    for one in models.values():
        assert not {"gap_to_retrain", "u_lira", "tug_of_war", "js_divergence"} & set(one)
        assert "There is no reference model." in one["absent"].values()
    assert not found.gate.passed
    assert not list(tmp_path.iterdir())
    assert "ratio_to_retraining" not in found.values["costs"]
    assert {path.name for path in found.write(tmp_path)} == {AUDIT, "accuracy.svg", "accuracy.png"}


def test_one_reference_gives_gaps_and_no_attack(tmp_path):
    original, _, revised, _, _ = world()
    reference = unlearn(UnlearnRequest(original, revised, "retrain")).model
    found = run(head_request(reference=reference), tmp_path, n_models=0)
    one = found.values["models"]["unlearned"]
    assert one["gap_to_retrain"]["average"] < 1
    assert "u_lira" not in one
    assert "at least 3 models" in one["absent"]["u_lira"]
    assert not found.gate.passed
    assert "reference_weights" in found.values["digests"]


def test_without_test_rows_their_metrics_are_absent_and_the_gate_stays_shut(kept):
    found = run(head_request(test=None), kept)
    one = found.values["models"]["unlearned"]
    assert "test" not in one["accuracy"]
    assert not {"tug_of_war", "population_attack_auc", "forgetting_score"} & set(one)
    assert "forgetting_quality" in one
    assert "gap to retraining, test rows was not measured" in " ".join(found.gate.reasons)


def test_a_removed_row_leaves_no_revised_rows_to_ask_for(tmp_path):
    original, rows, _, people, test = world()
    gone = revise(rows, 80, mode="drop-row")
    request = AuditRequest(
        unlearn(UnlearnRequest(original, gone, "newton-head")).model, original,
        Request(original, rows, gone, people, "newton-head"), test,
    )  # fmt: skip
    found = run(request, tmp_path)
    assert set(found.values["rows"]) == {"retain", "forget", "test"}
    assert not any("revised" in reason for reason in found.gate.reasons)


def test_a_released_model_unlike_its_shadows_does_not_pass(kept):
    request = head_request()
    broken = replace(request.unlearned, weights=-request.unlearned.weights)
    found = run(replace(request, unlearned=broken), kept)
    assert not found.gate.passed
    assert found.gate.reasons
    assert all("released model's gap" in reason for reason in found.gate.reasons)


# --- Shadow models ---------------------------------------------------------------------------


def maker(folder, **changes):
    original, rows, revised, people, _ = world()
    return Maker(
        replace(Request(original, rows, revised, people, "newton-head"), **changes), folder
    )


def test_kept_models_are_found_again_to_the_bit(tmp_path, monkeypatch):
    first = maker(tmp_path).make("unlearned", 2)
    monkeypatch.setattr("privacy_core.audit.shadows.unlearn", None)  # making one would fail
    again = maker(tmp_path).make("unlearned", 2)
    assert [one.model.digest() for one in again] == [one.model.digest() for one in first]
    assert [one.cost for one in again] == [one.cost for one in first]
    assert not list(tmp_path.glob("*.run.pt"))
    assert not list(tmp_path.glob("*.part"))


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    maker(tmp_path).make("reference", 1)
    made, seen = [], []
    real = unlearn

    def counted(*arguments, **named):
        made.append(1)
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy_core.audit.shadows.unlearn", counted)
        replace(maker(tmp_path), progress=lambda *what: seen.append(what)).make("reference", 3)
    assert len(made) == 2
    assert seen == [("reference models", done, 3) for done in range(4)]


def test_a_damaged_file_is_made_again(tmp_path):
    first = maker(tmp_path).make("reference", 1)[0].model.digest()
    path = next(tmp_path.glob("reference-*"))
    path.write_bytes(path.read_bytes()[:40])
    assert maker(tmp_path).make("reference", 1)[0].model.digest() == first


def test_another_method_reuses_originals_and_references(tmp_path):
    for role in ("original", "reference"):
        maker(tmp_path).make(role, 1)
    names = {path.name for path in tmp_path.iterdir()}
    for role in ("original", "reference"):
        maker(tmp_path, method="first-order").make(role, 1)
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"share": 0.7},
        {"settings": Settings(steps=3)},
        {"method": "first-order"},
        {"revised": revise(world()[1], 30)},
        {"revised": revise(world()[1], 80, seed=10)},
    ],
)
def test_whatever_weights_depend_on_names_another_file(tmp_path, changes):
    maker(tmp_path).make("unlearned", 1)
    before = {path.name for path in tmp_path.glob("unlearned-*")}
    maker(tmp_path, **changes).make("unlearned", 1)
    assert {path.name for path in tmp_path.glob("unlearned-*")} > before


def test_roles_and_seeds_differ_in_their_people(tmp_path):
    digests = {
        one.model.digest()
        for role in ("original", "reference", "control")
        for one in maker(tmp_path).make(role, 2)
    }
    assert len(digests) == 6


def test_an_unlearned_shadow_starts_from_its_own_original(tmp_path):
    original = maker(tmp_path, share=0.6).make("original", 1)[0].model
    moved = maker(tmp_path, share=0.6).make("unlearned", 1)[0].model
    reference = maker(tmp_path, share=0.6).make("reference", 1)[0].model
    near, far = (np.linalg.norm(moved.weights - one.weights) for one in (original, reference))
    assert near != far
    # Retrained on the same people, the reference is where Newton's steps lead.
    shared = maker(tmp_path, share=0.6)
    shown = shared._shown(0, parts_of(*world()[1:4])["retain"].rows.row_ids)
    revised = world()[2].take(shown(world()[2].row_ids))
    exact = unlearn(UnlearnRequest(original, revised, "retrain")).model
    assert np.linalg.norm(moved.weights - exact.weights) < 0.02 * near


def test_each_unlearned_shadow_is_handed_its_own_original(tmp_path, monkeypatch):
    originals = [one.model.digest() for one in maker(tmp_path).make("original", 2)]
    handed = []

    def noted(request, **named):
        handed.append(request.model.digest())
        return unlearn(request, **named)

    monkeypatch.setattr("privacy_core.audit.shadows.unlearn", noted)
    maker(tmp_path).make("unlearned", 2)
    assert handed == originals


def test_a_certified_head_has_a_secret_of_its_own_per_shadow(tmp_path):
    original, rows, revised, people, _ = world()
    recipe = replace(original.record.recipe, perturbation_sd=5.0, tolerance=1e-8)
    certified = replace(original, record=replace(original.record, recipe=recipe))
    found = Maker(Request(certified, rows, revised, people, "newton-head", share=1.0), tmp_path)
    assert len({one.model.digest() for one in found.make("unlearned", 2)}) == 2


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="`--shadows` must be a folder"):
        maker(tmp_path / "file").make("reference", 1)


@pytest.mark.slow
def test_networks_are_audited_too(tmp_path):
    model, rows = trained_network(), pictures()
    revised, people = revise(rows), np.arange(64) // 4
    request = AuditRequest(
        model, model, Request(model, rows, revised, people, "finetune-restart"),
        Part(pictures(24, seed=5), 100 + np.arange(24) // 4),
    )  # fmt: skip
    found = run(request, tmp_path, n_models=3, relearn_models=1)
    assert found.values["settings"]["share"] == 1.0
    assert "u_lira" in found.values["models"]["unlearned"]
    ratio = found.values["costs"]["ratio_to_retraining"]["gradient_evaluations"]
    assert ratio > 0


# --- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"n_models": 2}, {"n_models": -1}, {"relearn_models": -1}])
def test_counts_that_cannot_be_are_refused(wrong):
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        AuditSettings(**wrong)


def test_people_must_be_split():
    _, rows, revised, people, test = world()
    with pytest.raises(InvalidArgumentError, match="Split by person"):
        parts_of(rows, revised, people, test=replace(test, people=people[:240]))


def test_requests_are_checked(tmp_path):
    original, rows, revised, people, _ = world()
    with pytest.raises(InvalidArgumentError, match="one person per row, got 5"):
        Request(original, rows, revised, people[:5], "newton-head")
    with pytest.raises(InvalidArgumentError, match=r"`share` must be in \(0, 1\]"):
        Request(original, rows, revised, people, "newton-head", share=0.0)
    other = replace(original, label_names=("a", "b", "c"))
    with pytest.raises(InvalidArgumentError, match="must tell the same labels"):
        run(head_request(unlearned=other), tmp_path)
