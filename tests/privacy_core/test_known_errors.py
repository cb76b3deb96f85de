"""Known errors of public unlearning code, and which of our tests show that ours has none of them.

Those that no other file covers are tested here.
"""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy_core.audit import metrics
from privacy_core.audit.forgetting import row_epsilons
from privacy_core.audit.ulira import Scores, attack, evaluate
from privacy_core.unlearning.curvature import conjugate_gradient, weights_of
from privacy_core.unlearning.step import influence_gradient, objective
from tests.privacy_core.test_unlearning_methods import problem_of
from tests.privacy_core.tiny_targets import trained_network

HERE = Path(__file__).parent
COVERED = {
    "WoodFisher's recursion only rescales its first gradient": (
        "test_known_errors::test_the_solution_is_not_the_right_side_plus_a_multiple_of_one_gradient",
        "test_unlearning_curvature::test_cg_is_the_direct_solve",
        "test_unlearning_methods::test_the_second_order_step_is_the_direct_solve_on_a_head",
    ),
    "the modified entropy takes log p for log(1 - p), and whole columns": (
        "test_audit_metrics::test_modified_entropy_is_not_the_public_codes",
        "test_audit_metrics::test_modified_entropy_by_hand",
    ),
    "the JS divergence is one-sided and averaged over labels": (
        "test_audit_metrics::test_js_is_neither_averaged_over_labels_nor_one_sided",
        "test_audit_metrics::test_js_is_symmetric_zero_at_equality_and_at_most_ln_2",
    ),
    "the retrained reference keeps the original's backbone": (
        "test_unlearning_methods::test_retraining_keeps_nothing_of_the_original",
    ),
    "SCRUB's optimizer holds the teacher's weights": (
        "test_unlearning_methods::test_scrub_moves_the_student_and_not_the_teacher",
    ),
    "gaps are printed against a reference that is not there": (
        "test_audit_protocol::test_without_a_reference_nothing_is_compared_and_the_gate_stays_shut",
        "test_audit_ulira::test_an_attack_that_was_not_run_is_never_a_half",
    ),
    "LiRA attacks 0/1 correctness, with the mean and spread of models it scores": (
        "test_known_errors::test_models_that_are_all_right_are_still_told_apart",
        "test_audit_ulira::test_the_scored_model_is_in_neither_fit",
        "test_audit_ulira::test_scoring_models_by_fits_that_saw_them_would_find_what_is_not_there",
    ),
    "LiRA is reduced to a mean of likelihood ratios, which one row decides": (
        "test_known_errors::test_one_row_with_a_huge_ratio_does_not_decide_the_attack",
    ),
    "the forgetting score stops at many rows, or needs a GPU": (
        "test_known_errors::test_epsilons_of_many_rows_are_those_of_each_alone",
        "test_audit_ulira::test_epsilon_by_hand",
    ),
    "the regulariser adds norms that are not squared": (
        "test_known_errors::test_the_objectives_decay_is_half_the_squared_norm_of_all_weights",
        "test_unlearning_head::test_loss_gradient_and_hessian_are_autograds",
    ),
    "weight decay and momentum move weights outside the mask": (
        "test_unlearning_methods::test_masked_weights_are_the_originals_to_the_bit",
    ),
    "what is to be forgotten gets the model's prediction for a label": (
        "test_known_errors::test_rows_are_forgotten_with_their_own_label_and_not_the_prediction",
    ),
    "batch norm keeps the statistics of forgotten rows": (
        "test_unlearning_methods::test_batch_norm_holds_statistics_of_the_revised_data_alone",
        "test_unlearning_training::test_after_recalibration_no_trace_of_other_rows_is_in_the_statistics",
    ),
    "privacy metrics fall back to a default": (
        "test_audit_ulira::test_what_cannot_be_attacked_has_no_number",
        "test_audit_metrics::test_auc_of_nothing_is_no_half",
    ),
}


@pytest.mark.parametrize("error", COVERED)
def test_every_known_error_has_a_test_that_is_there(error):
    for name in COVERED[error]:
        file, _, function = name.partition("::")
        tree = ast.parse((HERE / f"{file}.py").read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in there, name


def test_the_solution_is_not_the_right_side_plus_a_multiple_of_one_gradient():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(40, 12))
    matrix = torch.from_numpy(np.eye(12) + gradients.T @ gradients / 40)
    right = torch.from_numpy(rng.normal(size=12))
    found = conjugate_gradient(
        lambda v: [matrix @ v[0]], [right], tolerance=1e-12, max_iterations=50
    ).x[0]
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right))
    # The public recursion ends in the span of the right side and its first gradient.
    span = np.stack([right.numpy(), gradients[0]], 1)
    rest = found.numpy() - span @ np.linalg.lstsq(span, found.numpy(), rcond=None)[0]
    assert np.linalg.norm(rest) > 0.1 * np.linalg.norm(found.numpy())


def test_models_that_are_all_right_are_still_told_apart():
    rng = np.random.default_rng(0)
    labels = np.zeros(50, dtype=np.int64)

    def logits(mean):
        margins = rng.normal(mean, 1.0, (8, 50)).clip(1, None)
        return np.stack([margins, np.zeros_like(margins)], -1)

    unlearned, reference = logits(8.0), logits(5.0)
    assert metrics.is_correct(np.concatenate([unlearned, reference]), labels).min() == 1
    sides = (metrics.margin(side, labels) for side in (unlearned, reference))
    assert attack(*sides, seed=0).auc.value > 0.9


def test_one_row_with_a_huge_ratio_does_not_decide_the_attack():
    rng = np.random.default_rng(0)
    scores = Scores(rng.normal(0, 1, (8, 200)), rng.normal(0, 1, (8, 200)))
    before = evaluate(scores, seed=0).auc.value
    scores.unlearned[0, 0] = 600.0  # e^600: a mean of ratios would be this row alone
    assert evaluate(scores, seed=0).auc.value == pytest.approx(before, abs=1e-3)


def test_epsilons_of_many_rows_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0.5, 1, (8, 30)), rng.normal(0, 1, (8, 30))
    together, _ = row_epsilons(one, two)
    alone = [row_epsilons(one[:, [row]], two[:, [row]])[0][0] for row in range(30)]
    np.testing.assert_array_equal(together, alone)


def test_the_objectives_decay_is_half_the_squared_norm_of_all_weights():
    problem = problem_of(trained_network())
    decay = objective(problem.module, problem.train, 0.3) - objective(
        problem.module, problem.train, 0.0
    )
    squares = sum(float((weight.detach() ** 2).sum()) for weight in weights_of(problem.module))
    assert decay == pytest.approx(0.15 * squares, rel=1e-5)


def test_rows_are_forgotten_with_their_own_label_and_not_the_prediction():
    problem = problem_of(trained_network())
    other = replace(problem, forget=replace(problem.forget, y=1 - problem.forget.y))
    mine, flipped = influence_gradient(problem), influence_gradient(other)
    # A prediction stays what it is, whatever the label.
    assert not all(torch.equal(a, b) for a, b in zip(mine, flipped, strict=True))
