"""The attribute leak on features with a known leak, and relearning on tiny heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.audit.leak import View, cross_probe_auc, difference, match_rank1, probe_auc
from privacy_core.audit.relearn import mean_loss, relearn_steps
from privacy_core.errors import InvalidArgumentError
from tests.privacy_core.tiny_targets import blobs, tiny_head


def view(n=200, *, shift=0.0, seed=0, first=0, per_person=4):
    rng = np.random.default_rng(seed)
    people = first + np.arange(n) // per_person
    attribute = (people % 2).astype(bool)
    features = rng.normal(0, 1, (n, 6))
    features[:, 2] += shift * attribute
    return View(features, attribute, people)


def test_a_probe_finds_the_attribute_that_is_there():
    fitted, asked = view(800, shift=2.0), view(800, shift=2.0, seed=1, first=1000)
    # Two unit normals two apart: AUC Φ(2/√2) = .921.
    assert probe_auc(fitted, asked) == pytest.approx(0.921, abs=0.03)
    assert cross_probe_auc(view(800, shift=2.0)) == pytest.approx(0.921, abs=0.03)


def test_a_probe_finds_nothing_where_nothing_is():
    found = [cross_probe_auc(view(400, seed=s)) for s in range(6)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_a_probe_is_never_asked_about_people_it_saw():
    # Each person has features of their own: a split by photo would read the attribute off them.
    rng = np.random.default_rng(0)
    one = view(400, per_person=20)
    marked = View(np.repeat(rng.normal(0, 5, (20, 6)), 20, 0), one.attribute, one.people)
    by_photo = np.arange(400) % 2 == 0
    seen = probe_auc(
        View(marked.features[by_photo], marked.attribute[by_photo], marked.people[by_photo]),
        View(
            marked.features[~by_photo], marked.attribute[~by_photo], 1000 + marked.people[~by_photo]
        ),
    )
    assert seen > 0.8 > cross_probe_auc(marked) + 0.05
    with pytest.raises(InvalidArgumentError, match="Split by person"):
        probe_auc(one, one)


def test_an_attribute_everyone_has_cannot_be_probed():
    one = view(40)
    same = replace(one, attribute=np.ones(40, bool))
    with pytest.raises(InvalidArgumentError, match="with and without the attribute"):
        probe_auc(same, view(40, first=1000))
    with pytest.raises(InvalidArgumentError, match="with and without the attribute"):
        cross_probe_auc(same)
    with pytest.raises(InvalidArgumentError, match="at least two people, got 1"):
        cross_probe_auc(replace(one, people=np.zeros(40, int)))


def test_scale_and_constant_features_do_not_matter():
    one = view(200, shift=1.0)
    stretched = np.concatenate([one.features * 1e4 + 7, np.full((200, 1), 3.0)], 1)
    assert cross_probe_auc(replace(one, features=stretched)) == pytest.approx(
        cross_probe_auc(one), abs=1e-3
    )


def test_rank_1_counts_nearest_rows_of_the_same_person():
    gallery = View(np.array([[1.0, 0], [0, 1], [-1, -1]]), np.zeros(3, bool), np.array([1, 2, 3]))
    queries = View(np.array([[2.0, 0.1], [3, 0], [-2, -2]]), np.zeros(3, bool), np.array([1, 2, 3]))
    assert match_rank1(queries, gallery) == pytest.approx(2 / 3)
    with pytest.raises(InvalidArgumentError, match="every person of `queries`"):
        match_rank1(replace(queries, people=np.array([1, 2, 9])), gallery)


def test_the_leak_is_the_difference_to_the_reference():
    found = difference([0.7, 0.8, 0.75], [0.6, 0.7, 0.65], seed=0)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert difference([0.7, 0.9], [0.6], seed=0).value == pytest.approx(0.2)
    with pytest.raises(InvalidArgumentError, match="`references` must hold"):
        difference([0.7], [], seed=0)


# --- Relearning ------------------------------------------------------------------------------


@pytest.fixture
def heads():
    torch.set_num_threads(1)
    rows = blobs(300)
    forget = rows.take(np.arange(300) < 60)
    wrong = replace(forget, labels=(forget.labels + 1) % 3)
    mixed = replace(rows, labels=np.concatenate([wrong.labels, rows.labels[60:]]))
    return tiny_head(mixed), tiny_head(rows), wrong


def test_a_model_that_still_knows_the_rows_needs_no_step(heads):
    original, _, forget = heads
    bound = mean_loss(original, forget)
    assert relearn_steps(original, forget, loss_below=bound + 1e-9, learning_rate=0.1) == 0


def test_a_model_that_never_saw_them_needs_more_steps_than_one_that_half_did(heads):
    original, reference, forget = heads
    bound, before = mean_loss(original, forget), reference.digest()
    half = reference.updated(reference.module(), reference.record)
    half = replace(half, weights=(original.weights + reference.weights) / 2)
    steps = [
        relearn_steps(one, forget, loss_below=bound, learning_rate=0.05)
        for one in (half, reference)
    ]
    assert 0 < steps[0] < steps[1]
    assert reference.digest() == before


def test_giving_up_is_no_number(heads):
    _, reference, forget = heads
    found = relearn_steps(reference, forget, loss_below=0.0, learning_rate=1e-9, max_steps=2)
    assert found is None
    with pytest.raises(InvalidArgumentError, match="at least one row"):
        relearn_steps(reference, forget.take(np.zeros(60, bool)), loss_below=1, learning_rate=1)
