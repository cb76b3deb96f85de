"""Training and unlearning from outside: refusals, what is read, resuming, planning."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.base import METHODS, UnlearnRequest, method_of
from privacy_core.unlearning.planner import plan, retraining_seconds
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.run import train, unlearn
from privacy_core.unlearning.training import Cost, Watch
from tests.privacy_core.tiny_targets import (
    HEAD,
    NETWORK,
    blobs,
    pictures,
    record,
    revise,
    tiny_head,
    tiny_network,
    trained_network,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return trained_network()


class KilledError(Exception):
    pass


def kill(_stage, done, _total):
    if done >= 10:
        raise KilledError


# --- Refusals --------------------------------------------------------------------------------


def test_an_unknown_method_is_answered_with_the_list():
    with pytest.raises(InvalidArgumentError) as caught:
        method_of("sal")
    assert "Unknown unlearning method 'sal'" in str(caught.value)
    assert all(name in str(caught.value) for name in METHODS)


def test_a_method_for_another_kind_of_model_is_refused(network):
    with pytest.raises(InvalidArgumentError, match="apply to a network model, got 'newton-head'"):
        unlearn(UnlearnRequest(network, revise(pictures()), "newton-head"))
    rows = blobs()
    with pytest.raises(InvalidArgumentError, match=r"head model, got 'scrub'\. Choose .* newton"):
        unlearn(UnlearnRequest(tiny_head(rows), revise(rows), "scrub"))


def test_labels_the_model_does_not_have_are_refused(network):
    rows = revise(pictures())
    more = LabelledImages(rows.images, rows.labels + 1, rows.row_ids, rows.revised)
    with pytest.raises(InvalidArgumentError, match="the model's 2 labels"):
        unlearn(UnlearnRequest(network, more, "finetune-restart"))


def test_one_label_alone_cannot_be_trained_on():
    rows = pictures()
    with pytest.raises(InvalidArgumentError, match="at least two labels"):
        train(tiny_network(), rows.take(rows.labels == 1))


def test_methods_marked_as_baselines_come_last():
    marks = [method.is_baseline for method in METHODS.values()]
    assert marks == sorted(marks)
    assert not METHODS["finetune-restart"].needs_original
    assert not METHODS["newton-head"].needs_original
    assert METHODS["scrub"].needs_original


# --- What is read, what is resumed -----------------------------------------------------------


def test_the_default_opens_no_file_of_the_originals(network, tmp_path):
    rows, kept = pictures(), tmp_path / "originals"
    kept.mkdir()
    np.save(kept / "images.npy", rows.images)
    opened, watching = [], True

    def spy(event, args):
        if watching and event == "open" and str(kept) in str(args[0]):
            opened.append(args[0])

    def open_original():
        return rows.with_images(np.load(kept / "images.npy"))

    sys.addaudithook(spy)
    ask = {"open_original": open_original, "seed": 1}
    unlearn(UnlearnRequest(network, revise(rows), "finetune-restart", **ask))
    assert opened == []
    unlearn(UnlearnRequest(network, revise(rows), "ssd", **ask))
    assert [Path(name).name for name in opened] == ["images.npy"]  # the spy does see
    watching = False


@pytest.mark.parametrize("name", ["finetune-restart", "retrain", "scrub"])
def test_an_interrupted_run_resumes_to_the_same_model(network, tmp_path, name):
    request = UnlearnRequest(
        network, revise(pictures()), name, open_original=pictures, seed=2,
    )  # fmt: skip
    expected = unlearn(request).model.digest()
    file = tmp_path / "run.pt"
    with pytest.raises(KilledError):
        unlearn(request, watch=Watch(kill, file))
    seen = []
    result = unlearn(request, watch=Watch(lambda *step: seen.append(step), file))
    assert result.model.digest() == expected
    whole = []
    unlearn(request, watch=Watch(lambda *step: whole.append(step)))
    assert 0 < len(seen) < len(whole)


def test_the_checkpoint_of_another_request_is_not_continued(network, tmp_path):
    watch = Watch(checkpoint=tmp_path / "run.pt")
    rows = pictures()
    ask = {"open_original": lambda: rows, "seed": 2}
    unlearn(UnlearnRequest(network, revise(rows), "random-labels", **ask), watch=watch)
    other = UnlearnRequest(network, revise(rows, 20), "random-labels", **ask)
    assert unlearn(other, watch=watch).model.digest() == unlearn(other).model.digest()


def test_a_scrub_resumed_with_held_out_rows_rewinds_among_all_its_epochs(network, tmp_path):
    rows, file = revise(pictures()), tmp_path / "run.pt"
    ask = {"open_original": pictures, "seed": 2}
    with pytest.raises(KilledError):
        unlearn(UnlearnRequest(network, rows, "scrub", **ask), watch=Watch(kill, file))
    request = UnlearnRequest(network, rows, "scrub", held_out=pictures(60, seed=77), **ask)
    expected = unlearn(request)
    found = unlearn(request, watch=Watch(checkpoint=file))
    assert found.measured == expected.measured
    assert found.model.digest() == expected.model.digest()


def test_training_twice_gives_the_same_model_and_its_record(network):
    rows = pictures()
    again = train(tiny_network(), rows)
    assert again.digest() == network.digest()
    assert again.record.data_digest == rows.digest()
    assert again.record.n_rows == 64
    assert again.record.cost.gradient_evaluations == 6 * 64
    assert again.record.recipe == NETWORK


def test_rows_without_a_label_are_not_trained_on(network):
    rows = pictures()
    extra = revise(pictures(80), 0)
    labels = np.where(np.arange(80) < 64, extra.labels, -1)
    images = extra.images.copy()
    images[:64], labels[:64] = rows.images, rows.labels
    mixed = LabelledImages(images, labels, extra.row_ids)
    assert train(tiny_network(), mixed).digest() == network.digest()


def test_a_result_as_json_holds_numbers_and_no_rows(network):
    request = UnlearnRequest(network, revise(pictures()), "finetune-restart", seed=1)
    found = unlearn(request).as_json()
    assert found["settings"] == {"factor": 1.0, "epochs": None}
    assert found["guarantee"]["epsilon"] is None
    assert (found["n_train"], found["n_retain"], found["n_replacement"]) == (64, 48, 16)
    assert "images" not in str(found)


# --- Planning --------------------------------------------------------------------------------


def with_cost(model, seconds, n_rows=64):
    return replace(model, record=replace(model.record, cost=Cost(seconds, 1), n_rows=n_rows))


def test_exact_retraining_is_offered_first_where_it_fits_the_budget(network):
    rows, model = revise(pictures()), with_cost(network, 100.0)
    exact = plan(model, rows, budget=101.0)
    assert exact.method == "retrain"
    assert exact.retraining_seconds == pytest.approx(100.0)
    assert "within the budget of 101 s" in exact.reason
    short = plan(model, rows, budget=99.0)
    assert short.method == "finetune-restart"
    assert "above the budget of 99 s" in short.reason
    assert "100 s (recorded)" in short.reason


def test_the_estimate_grows_with_the_rows_left_to_train_on(network):
    rows = revise(pictures(), 32, mode="drop-row")
    assert retraining_seconds(with_cost(network, 100.0), rows) == (50.0, "recorded")


def test_an_update_is_cheaper_than_training_and_leaves_the_estimate_as_it_was(network):
    rows, model = revise(pictures(), 32, mode="drop-row"), with_cost(network, 100.0)
    once = unlearn(UnlearnRequest(model, rows, "finetune-restart", seed=1))
    twice = unlearn(UnlearnRequest(once.model, rows, "finetune-restart", seed=1))
    for one in (once, twice):
        assert one.model.record.cost == one.cost  # what an audit reports
        assert one.model.record.n_rows == 32
        assert one.cost.seconds < 50
        assert retraining_seconds(one.model, rows) == (50.0, "recorded")
        assert plan(one.model, rows, budget=49.0).method == "finetune-restart"


def test_a_model_that_was_retrained_is_its_own_estimate(network):
    rows = revise(pictures(), 32, mode="drop-row")
    again = unlearn(UnlearnRequest(with_cost(network, 100.0), rows, "retrain", seed=1))
    assert retraining_seconds(again.model, rows) == (again.cost.seconds, "recorded")


def test_an_update_of_a_model_of_unknown_cost_makes_none_known(network):
    unknown = replace(network, record=record(NETWORK))
    updated = unlearn(UnlearnRequest(unknown, revise(pictures()), "finetune-restart", seed=1))
    assert retraining_seconds(updated.model, pictures())[1] == "probe"


def test_without_a_budget_the_default_of_the_kind_is_taken(network):
    assert plan(network, pictures()).method == "finetune-restart"
    rows = blobs()
    assert plan(tiny_head(rows), rows).method == "newton-head"
    assert "no budget was given" in plan(network, pictures()).reason


def test_a_method_asked_for_is_kept_and_checked(network):
    assert plan(network, pictures(), method="scrub", budget=1e9).method == "scrub"
    with pytest.raises(InvalidArgumentError, match="Unknown unlearning method"):
        plan(network, pictures(), method="sal")


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_must_be_positive(network, budget):
    with pytest.raises(InvalidArgumentError, match="`--budget` must be a positive number"):
        plan(network, pictures(), budget=budget)


def test_without_a_recorded_cost_a_few_batches_are_timed():
    untrained = replace(tiny_network(), record=record(NETWORK))
    before, ticks = untrained.digest(), iter([10.0, 13.0])
    seconds, basis = retraining_seconds(untrained, pictures(), clock=lambda: next(ticks))
    # Three timed batches of one second each; four batches in each of six epochs.
    assert (seconds, basis) == (pytest.approx(24.0), "probe")
    assert untrained.digest() == before


def test_an_unrecorded_head_is_timed_too():
    rows = blobs()
    head = replace(tiny_head(rows), record=record(HEAD))
    assert retraining_seconds(head, rows)[1] == "probe"
