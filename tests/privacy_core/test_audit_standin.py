"""A stand-in after the originals were erased: retained people only, the released model apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.audit.parts import Part
from privacy_core.audit.protocol import audit
from privacy_core.audit.request import AuditRequest, AuditSettings, StandIn
from privacy_core.audit.shadows import Request
from privacy_core.audit.standin import choose_rows, stand_in_rows
from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.base import UnlearnRequest
from privacy_core.unlearning.run import unlearn
from tests.privacy_core.tiny_targets import blobs, revise, tiny_head

N, N_REVISED = 120, 24
PEOPLE = np.arange(N) // 4


def revised_blobs(mode="replace"):
    return revise(blobs(N), N_REVISED, mode=mode)


def people_of(rows):
    return PEOPLE[rows.row_ids]


@pytest.mark.parametrize("mode", ["replace", "drop-label", "drop-row"])
@pytest.mark.parametrize("seed", range(3))
def test_only_people_of_whom_nothing_was_revised_stand_in_with_all_their_rows(mode, seed):
    rows = revised_blobs(mode)
    people = people_of(rows)
    chosen = choose_rows(rows, people, n_rows=N_REVISED, seed=seed)
    assert chosen.sum() == N_REVISED
    assert not (rows.revised & chosen).any()
    assert not np.isin(people[~chosen], people[chosen]).any()
    assert (rows.row_ids[chosen] >= N_REVISED).all()


def test_other_seeds_draw_other_people_and_the_same_seed_the_same():
    rows = revised_blobs()
    one, again, other = (choose_rows(rows, PEOPLE, n_rows=8, seed=seed) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()


def test_a_request_of_more_rows_than_were_retained_has_no_stand_in():
    with pytest.raises(InvalidArgumentError, match="got 96 rows of 24 people"):
        choose_rows(revised_blobs(), PEOPLE, n_rows=96, seed=0)


def test_a_stand_in_is_revised_as_the_request_was():
    rows = revised_blobs()
    chosen = choose_rows(rows, PEOPLE, n_rows=8, seed=0)
    ids = rows.row_ids[chosen]
    pictures = {int(row): np.full(12, 7.0) for row in ids[:-1]}
    original, revised = stand_in_rows(rows, chosen, mode="replace", pictures=pictures)
    np.testing.assert_array_equal(original.images, rows.images)
    assert not original.revised.any()
    # The row that could not be anonymized is withheld, as `revise` withholds it.
    assert revised.row_ids[revised.revised].tolist() == ids[:-1].tolist()
    assert (revised.images[revised.revised] == 7.0).all()
    np.testing.assert_array_equal(
        revised.images[~revised.revised], rows.images[~chosen]
    )  # earlier replacements are ordinary rows now
    _, unlabelled = stand_in_rows(rows, chosen, mode="drop-label", pictures={})
    assert (unlabelled.labels[chosen] == -1).all()
    _, without = stand_in_rows(rows, chosen, mode="drop-row", pictures={})
    assert not np.isin(ids, without.row_ids).any()


def test_the_released_model_is_measured_on_the_rows_that_are_left(tmp_path):
    torch.set_num_threads(1)
    rows = blobs(N)
    model, given = tiny_head(rows), revise(rows, N_REVISED)
    released, reference = (
        unlearn(UnlearnRequest(model, given, method)).model for method in ("newton-head", "retrain")
    )
    # Wrong wherever it can be told: on the stand-in's rows it would look right.
    released = replace(released, weights=-released.weights)
    chosen = choose_rows(given, PEOPLE, n_rows=8, seed=0)
    pictures = {int(row): np.zeros(12) for row in given.row_ids[chosen]}
    original, revised = stand_in_rows(given, chosen, mode="replace", pictures=pictures)
    left = {
        name: Part(given.take(mask), PEOPLE[mask])
        for name, mask in {"retain": ~given.revised, "revised": given.revised}.items()
    }
    request = AuditRequest(
        released, model, Request(model, original, revised, PEOPLE, "newton-head"),
        stand_in=StandIn(left, 8, 2, N_REVISED), reference=reference,
    )  # fmt: skip
    settings = AuditSettings(n_models=4, relearn_models=0)
    found = audit(request, settings, shadow_folder=tmp_path, hardware="a test")
    models = found.values["models"]
    for name, part in left.items():
        right = (released.logits(part.rows.images).argmax(1) == part.rows.labels).mean()
        assert models["released"]["accuracy"][name]["value"] == pytest.approx(right)
    assert found.values["rows"] == {"retain": N - 8, "forget": 8, "revised": 8}
    assert models["unlearned"]["gap_to_retrain"]["retain"] < 5
    assert models["released"]["gap_to_retrain"]["retain"] > 20
    assert any("released model's gap, retain" in reason for reason in found.gate.reasons)
