"""The head in float64: closed forms against autograd, Newton against retraining, certificates."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.noise import NoiseKey
from privacy_core.unlearning import head as head_module
from privacy_core.unlearning.base import UnlearnRequest
from privacy_core.unlearning.head import HeadProblem, fit_head, newton, with_ones
from privacy_core.unlearning.head_model import new_head
from privacy_core.unlearning.newton_head import Settings, certify, draw_perturbation
from privacy_core.unlearning.run import train, unlearn
from tests.privacy_core.tiny_targets import HEAD, FlatBackbone, blobs, record, revise, tiny_head


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def problem_of(rows, *, weight_decay=1e-3, perturbation=None, n_labels=3):
    return HeadProblem(with_ones(rows.images), rows.labels, n_labels, weight_decay, perturbation)


def autograd_loss(problem):
    a, y = torch.from_numpy(problem.features), torch.from_numpy(problem.labels)

    def loss(w):
        value = torch.nn.functional.cross_entropy(a @ w.T, y)
        value = value + 0.5 * problem.weight_decay * (w**2).sum()
        if problem.perturbation is not None:
            value = value + (torch.from_numpy(problem.perturbation) * w).sum() / len(y)
        return value

    return loss


# --- Closed forms ----------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_loss_gradient_and_hessian_are_autograds(seed, is_perturbed):
    rng = np.random.default_rng(seed)
    b = rng.normal(0, 1, (3, 5)) if is_perturbed else None
    problem = problem_of(blobs(20, d=4, seed=seed), perturbation=b)
    w, v = rng.normal(0, 1, (2, 3, 5))
    loss, at = autograd_loss(problem), torch.from_numpy(w)
    hessian = torch.autograd.functional.hessian(loss, at).reshape(15, 15).numpy()
    gradient = torch.autograd.functional.jacobian(loss, at).numpy()
    assert problem.loss(w) == pytest.approx(float(loss(at)), rel=1e-12)
    np.testing.assert_allclose(problem.gradient(w), gradient, atol=1e-13)
    np.testing.assert_allclose(problem.hessian(w), hessian, atol=1e-13)
    product = problem.hessian_product(w, v).ravel()
    np.testing.assert_allclose(product, hessian @ v.ravel(), atol=1e-13)


def test_cg_and_the_factorized_hessian_give_the_same_direction(monkeypatch):
    problem = problem_of(blobs())
    w = np.random.default_rng(1).normal(0, 1, (3, 13))
    direct = problem.newton_direction(w, damping=0.1)
    monkeypatch.setattr(head_module, "_DIRECT", 0)
    np.testing.assert_allclose(problem.newton_direction(w, damping=0.1), direct, atol=1e-9)
    h = problem.hessian(w) + 0.1 * np.eye(39)
    expected = -np.linalg.solve(h, problem.gradient(w).ravel())
    np.testing.assert_allclose(direct.ravel(), expected, atol=1e-10)


def test_without_weight_decay_a_head_is_refused():
    with pytest.raises(InvalidArgumentError, match="`weight_decay` of a head must be positive"):
        problem_of(blobs(), weight_decay=0.0)


def test_both_solvers_reach_the_same_minimum():
    problem = problem_of(blobs())
    by_newton = fit_head(problem, tolerance=1e-10)
    by_lbfgs = fit_head(problem, tolerance=1e-10, solver="lbfgs")
    np.testing.assert_allclose(by_newton.weights, by_lbfgs.weights, atol=1e-7)
    assert max(by_newton.gradient_norm, by_lbfgs.gradient_norm) <= 1e-10
    assert by_lbfgs.cost.gradient_evaluations > 0


def test_newton_never_raises_the_objective():
    # Separable classes and next to no decay: full steps from far away overshoot.
    rows = blobs(60, seed=4)
    rows = rows.with_images(rows.images + 20 * np.eye(3)[rows.labels] @ np.ones((3, 12)))
    problem = problem_of(rows, weight_decay=1e-8)
    start = 5 * np.random.default_rng(0).normal(0, 1, (3, 13))
    fit = newton(problem, start, tolerance=1e-12, max_steps=15)
    rises = np.diff(fit.losses)
    assert fit.losses[-1] < fit.losses[0]
    assert rises.max() <= 1e-12 * fit.losses[0]


def test_a_tolerance_that_rounding_forbids_is_reported():
    with pytest.raises(ModelError, match="Raise `tolerance`"):
        fit_head(problem_of(blobs()), tolerance=1e-30)


def test_an_unknown_solver_is_named():
    with pytest.raises(InvalidArgumentError, match="newton or lbfgs, got 'adam'"):
        fit_head(problem_of(blobs()), solver="adam")


# --- Unlearning ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["replace", "drop-label", "drop-row"])
@pytest.mark.parametrize("n_revised", [3, 60, 150])
def test_newton_steps_are_retraining(mode, n_revised):
    rows = blobs()
    original = tiny_head(rows)
    revised = revise(rows, n_revised, mode=mode)
    updated = unlearn(UnlearnRequest(original, revised, "newton-head")).model
    reference = unlearn(UnlearnRequest(original, revised, "retrain")).model
    moved = np.linalg.norm(reference.weights - original.weights)
    left = np.linalg.norm(updated.weights - reference.weights)
    assert moved > 1e-3
    assert left < 0.01 * moved


def test_two_steps_are_enough_for_a_small_request():
    rows = blobs(1600)
    original, revised = tiny_head(rows), revise(rows, 8, mode="drop-row")
    result = unlearn(UnlearnRequest(original, revised, "newton-head"))
    reference = unlearn(UnlearnRequest(original, revised, "retrain")).model.weights
    moved = np.linalg.norm(reference - original.weights)
    assert result.measured["newton_steps"] == 2
    assert np.linalg.norm(result.model.weights - reference) < 0.01 * moved


def test_what_is_left_is_estimated_without_retraining():
    rows = blobs()
    original, revised = tiny_head(rows), revise(rows, 60)
    request = UnlearnRequest(original, revised, "newton-head", Settings(accuracy=math.inf))
    result = unlearn(request)
    reference = unlearn(UnlearnRequest(original, revised, "retrain")).model.weights
    gone = np.linalg.norm(result.model.weights - original.weights)
    left = np.linalg.norm(result.model.weights - reference)
    assert result.measured["newton_steps"] == 2
    assert result.measured["share_left"] == pytest.approx(left / gone, rel=0.2)


def test_nothing_revised_moves_nothing():
    rows = blobs()
    original = tiny_head(rows)
    result = unlearn(UnlearnRequest(original, rows, "newton-head"))
    assert result.model.digest() == original.digest()
    assert result.measured["newton_steps"] == 0


def test_the_hessian_is_the_revised_datas_own():
    # The old data's Hessian (a plain influence function) leaves far more of the way.
    rows = blobs()
    original, revised = tiny_head(rows), revise(blobs(), 60)
    request = UnlearnRequest(original, revised, "newton-head", Settings(steps=1, accuracy=math.inf))
    new, old = problem_of(revised), problem_of(rows)
    by_old = original.weights - np.linalg.solve(
        old.hessian(original.weights), new.gradient(original.weights).ravel()
    ).reshape(3, 13)
    reference = fit_head(new, tolerance=1e-10).weights
    ours = np.linalg.norm(unlearn(request).model.weights - reference)
    assert ours < 0.7 * np.linalg.norm(by_old - reference)


def test_the_original_head_is_not_changed():
    rows = blobs()
    original = tiny_head(rows)
    before = original.digest()
    unlearn(UnlearnRequest(original, revise(rows), "newton-head"))
    assert original.digest() == before


# --- Certificates ----------------------------------------------------------------------------


def certified_head(*, secret=True, sd=2.0):
    rows = blobs()
    b = draw_perturbation(NoiseKey.from_seed(3), (3, 13), sd)
    recipe = replace(HEAD, perturbation_sd=sd, perturbation_is_secret=secret, tolerance=1e-8)
    untrained = new_head(FlatBackbone(), ("0", "1", "2"), record(recipe))
    return rows, train(untrained, rows, perturbation=b), b


def test_a_head_with_a_secret_term_gets_the_epsilon_of_guo_et_al():
    rows, original, b = certified_head()
    request = UnlearnRequest(original, revise(rows), "newton-head", perturbation=b)
    guarantee = unlearn(request).guarantee
    residual = 2 * len(rows) * 1e-8
    expected = residual * math.sqrt(2 * math.log(1.5 / 1e-5)) / 2.0
    assert guarantee.epsilon == pytest.approx(expected)
    assert guarantee.delta == 1e-5
    assert "revised pictures reveal" in guarantee.reason


def test_a_certified_head_goes_on_until_the_tolerance_its_proof_rests_on():
    rows, original, b = certified_head()
    request = UnlearnRequest(
        original, revise(rows, 150), "newton-head", Settings(steps=1), perturbation=b
    )
    result = unlearn(request)
    assert result.measured["newton_steps"] > 1
    assert result.measured["gradient_norm"] <= 1e-8


def test_epsilon_does_not_depend_on_where_the_update_ended():
    recipe = replace(HEAD, perturbation_sd=1.0)
    assert certify(recipe, 100, 0.0, delta=1e-5) == certify(recipe, 100, 1e-11, delta=1e-5)


@pytest.mark.parametrize(
    ("changes", "norm", "reason"),
    [
        ({"perturbation_sd": 0.0}, 0.0, "without a secret term"),
        ({"perturbation_sd": 1.0, "perturbation_is_secret": False}, 0.0, "noise not secret"),
        ({"perturbation_sd": 1.0}, 1.0, "did not reach the tolerance"),
    ],
)
def test_what_proves_nothing_has_no_epsilon(changes, norm, reason):
    guarantee = certify(replace(HEAD, **changes), 100, norm, delta=1e-5)
    assert guarantee.epsilon is None
    assert reason in guarantee.reason


def test_the_secret_term_must_be_given_again():
    rows, original, _ = certified_head()
    with pytest.raises(InvalidArgumentError, match="`perturbation` must be the secret"):
        unlearn(UnlearnRequest(original, revise(rows), "newton-head"))


def test_a_certified_update_is_the_retraining_with_the_same_secret():
    rows, original, b = certified_head()
    revised = revise(rows)
    ask = {"perturbation": b}
    updated = unlearn(UnlearnRequest(original, revised, "newton-head", **ask)).model
    reference = unlearn(UnlearnRequest(original, revised, "retrain", **ask)).model
    np.testing.assert_allclose(updated.weights, reference.weights, atol=1e-4)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"damping": -1.0}, {"delta": 0.0}, {"delta": 0.9}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        Settings(**wrong)
