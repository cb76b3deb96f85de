"""Every method on a tiny real ResNet: what it moves, what it leaves, and errors of public code."""

import copy
import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import NoiseKey
from privacy_core.unlearning import (
    clipped_noise,
    finetune_restart,
    first_order,
    l1_sparse,
    neggrad_plus,
    random_labels,
    reinit_finetune,
    salun,
    scrub,
    second_order,
    ssd,
    teacher,
)
from privacy_core.unlearning.base import METHODS, Problem, UnlearnRequest, load_method
from privacy_core.unlearning.curvature import norm, summed_gradient, weights_of
from privacy_core.unlearning.head_model import new_head
from privacy_core.unlearning.rows import split_revised
from privacy_core.unlearning.run import train, unlearn
from privacy_core.unlearning.step import influence_gradient, objective, revised_gradient, take_step
from privacy_core.unlearning.tensors import Rows, error_rate, module_digest
from privacy_core.unlearning.training import Cost, LoopResult, Moment, Watch
from tests.privacy_core.tiny_targets import (
    HEAD,
    FlatBackbone,
    pictures,
    record,
    revise,
    trained_network,
)

NETWORK_METHODS = [name for name, method in METHODS.items() if "network" in method.kinds]
SHORT = {
    "finetune-restart": finetune_restart.Settings(epochs=2),
    "reinit-finetune": reinit_finetune.Settings(epochs=2),
    "l1-sparse": l1_sparse.Settings(epochs=2),
    "clipped-noise": clipped_noise.Settings(epsilon=20.0, finetune_epochs=1),
    "scrub": scrub.Settings(epochs=2, ascent_epochs=1),
    "neggrad-plus": neggrad_plus.Settings(epochs=2),
    "second-order": second_order.Settings(iterations=5),
    "salun": salun.Settings(epochs=2),
    "random-labels": random_labels.Settings(epochs=2),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return trained_network()


def ask(network, method, *, mode="replace", original=True, **kwargs):
    rows = pictures()
    request = UnlearnRequest(
        network, revise(rows, mode=mode), method, kwargs.pop("settings", SHORT.get(method)),
        open_original=(lambda: rows) if original else None, seed=kwargs.pop("seed", 1), **kwargs,
    )  # fmt: skip
    return unlearn(request)


def problem_of(model, *, mode="replace", held_out=None):
    rows = model.prepare(pictures())
    split = split_revised(revise(rows, mode=mode), rows)
    found = model.rows(split.train)
    marked = torch.from_numpy(split.train.revised)
    return Problem(
        model.kind, model.module().eval(), model.fresh, replace(found, marked=marked),
        found.take(~marked), found.take(marked), model.rows(split.forget), held_out,
        model.record.recipe, None, 1, NoiseKey.from_seed(1), Watch(),
    )  # fmt: skip


def moment(seed=0):
    return Moment(0, 0.0, torch.Generator().manual_seed(seed))


# --- Every method ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_loaded_and_has_settings_of_its_own(name):
    module = load_method(name)
    assert module.Settings() == module.Settings()
    assert METHODS[name].source


@pytest.mark.parametrize("name", NETWORK_METHODS)
def test_the_same_seed_gives_the_same_model_and_the_original_stays(network, name):
    before = network.digest()
    one, other = ask(network, name), ask(network, name)
    assert one.model.digest() == other.model.digest()
    assert network.digest() == before
    assert one.cost.seconds > 0
    assert one.cost.gradient_evaluations > 0
    needs = METHODS[name].needs_original or METHODS[name].takes_original
    assert one.n_forget == (16 if needs else None)
    assert one.as_json()["method"] == name
    assert np.isfinite(one.model.logits(pictures(4).images)).all()


@pytest.mark.parametrize("name", NETWORK_METHODS)
@pytest.mark.parametrize("mode", ["drop-label", "drop-row"])
def test_every_method_runs_where_labels_or_rows_are_gone(network, name, mode):
    result = ask(network, name, mode=mode)
    assert (result.n_train, result.n_replacement) == (48, 0)
    assert np.isfinite(result.model.logits(pictures(4).images)).all()


@pytest.mark.parametrize("name", NETWORK_METHODS)
def test_batch_norm_holds_statistics_of_the_revised_data_alone(network, name):
    from privacy_core.unlearning.tensors import recalibrate

    model = ask(network, name).model
    module = model.module()
    recalibrate(module, model.rows(revise(pictures()).labelled()))
    assert module_digest(module) == model.digest()


@pytest.mark.parametrize("name", [name for name in NETWORK_METHODS if METHODS[name].needs_original])
def test_a_method_that_needs_originals_says_so(network, name):
    with pytest.raises(InvalidArgumentError, match=f"`original` must be given .* {name!r}"):
        ask(network, name, original=False)
    problem = replace(problem_of(network), forget=None)
    with pytest.raises(InvalidArgumentError, match="got none"):
        load_method(name).unlearn(problem, load_method(name).Settings())


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (finetune_restart.Settings, {"factor": 0.0}),
        (finetune_restart.Settings, {"epochs": 0}),
        (reinit_finetune.Settings, {"share": 1.5}),
        (l1_sparse.Settings, {"alpha": -1.0}),
        (neggrad_plus.Settings, {"weight": 0.1}),
        (scrub.Settings, {"ascent_epochs": 9}),
        (first_order.Settings, {"step": 0.0}),
        (second_order.Settings, {"damping": -1.0}),
        (salun.Settings, {"share": -0.1}),
        (ssd.Settings, {"batch_size": 0}),
        (random_labels.Settings, {"weight": -1.0}),
        (teacher.Settings, {"retain_share": 2.0}),
        (clipped_noise.Settings, {"noise": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(settings, wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(InvalidArgumentError, match=f"`{name}` must be in .* got {value!r}"):
        settings(**wrong)


# --- finetune-restart ------------------------------------------------------------------------


def test_the_default_reads_no_original(network):
    def refuse():
        raise AssertionError("the originals were opened")

    free = [name for name in NETWORK_METHODS if not METHODS[name].needs_original]
    assert {"finetune-restart", "retrain", "l1-sparse"} <= set(free)
    for name in ("finetune-restart", "retrain", "l1-sparse", "clipped-noise"):
        request = UnlearnRequest(
            network, revise(pictures()), name, SHORT.get(name), open_original=refuse, seed=1
        )
        result = unlearn(request)
        assert result.n_forget is None
        without = unlearn(replace(request, open_original=None))
        assert without.model.digest() == result.model.digest()


def test_fine_tuning_learns_the_replacement_and_costs_its_epochs(network):
    rows = revise(pictures())
    result = unlearn(UnlearnRequest(network, rows, "finetune-restart", seed=1))
    assert result.measured["epochs"] == 5
    assert result.cost.gradient_evaluations == 5 * 64
    before = (network.logits(rows.images).argmax(1) == rows.labels).mean()
    assert (result.model.logits(rows.images).argmax(1) == rows.labels).mean() > before


@pytest.mark.parametrize(("epochs", "expected"), [(4, 5), (14, 5), (20, 7), (90, 31)])
def test_the_default_length_is_a_third_and_a_bit_of_the_recipes(network, epochs, expected):
    recipe = replace(network.record.recipe, epochs=epochs)
    assert finetune_restart.default_epochs(recipe) == expected


# --- reinit-finetune -------------------------------------------------------------------------


def test_without_originals_random_weights_are_drawn_anew(network):
    assert ask(network, "reinit-finetune").measured["chosen_by"] == "gradient"
    without = ask(network, "reinit-finetune", original=False)
    assert without.measured["chosen_by"] == "random"
    assert without.n_forget is None


def test_the_weights_with_the_smallest_scores_of_each_convolution_are_drawn_anew(network):
    module = network.module()
    first = [weight.detach().clone() for weight in weights_of(module)]
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(weight.shape, generator=generator) for weight in first]
    reinit_finetune.reinitialize(module, scores, share=0.3, generator=generator)
    for old, new, score in zip(first, weights_of(module), scores, strict=True):
        moved = (old != new).flatten()
        assert int(moved.sum()) == (round(0.3 * old.numel()) if old.ndim > 2 else 0)
        if moved.any():
            flat = score.flatten()
            assert flat[moved].max() < flat[~moved].min()


def test_without_convolutions_matrices_are_drawn_anew():
    module = torch.nn.Linear(200, 100)
    bias = module.bias.detach().clone()
    scores = [torch.rand(w.shape) for w in weights_of(module)]
    reinit_finetune.reinitialize(module, scores, share=1.0, generator=torch.Generator())
    assert torch.equal(module.bias, bias)
    assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / 100), rel=0.05)


# --- l1-sparse, neggrad-plus -----------------------------------------------------------------


def test_the_penalty_makes_weights_smaller(network):
    plain = ask(network, "l1-sparse", settings=l1_sparse.Settings(alpha=0.0, epochs=2))
    sparse = ask(network, "l1-sparse", settings=l1_sparse.Settings(alpha=0.05, epochs=2))

    def size(result):
        return sum(float(w.detach().abs().sum()) for w in result.model.module().parameters())

    assert size(sparse) < 0.9 * size(plain)


def test_ascent_ends_at_twice_the_loss_of_guessing():
    keep, leave = torch.tensor(1.0), torch.tensor(50.0, requires_grad=True)
    loss = neggrad_plus.weighed(keep, leave, weight=0.9, n_labels=4)
    assert float(loss.detach()) == pytest.approx(0.9 - 0.1 * 2 * math.log(4))
    (gradient,) = torch.autograd.grad(loss, leave)
    assert float(gradient) == 0.0


def test_ascent_raises_the_loss_on_what_is_to_be_forgotten(network):
    problem = problem_of(network)
    before = objective(problem.module, problem.forget, 0.0)
    settings = neggrad_plus.Settings(weight=0.5, epochs=6)
    neggrad_plus.unlearn(problem, settings)
    after = objective(problem.module, problem.forget, 0.0)
    without = problem_of(network)
    neggrad_plus.unlearn(without, replace(settings, weight=1.0))
    assert after > before
    assert after > 2 * objective(without.module, problem.forget, 0.0)


# --- scrub -----------------------------------------------------------------------------------


def test_scrub_moves_the_student_and_not_the_teacher(network, monkeypatch):
    copies, real = [], copy.deepcopy

    def spy(value):
        copies.append(real(value))
        return copies[-1]

    problem = problem_of(network)
    before = module_digest(problem.module)
    monkeypatch.setattr(scrub, "copy", SimpleNamespace(deepcopy=spy))
    outcome = scrub.unlearn(problem, SHORT["scrub"])
    assert outcome.module is problem.module
    assert module_digest(problem.module) != before
    (frozen,) = copies
    assert module_digest(frozen) == before
    assert not any(weight.requires_grad for weight in frozen.parameters())


def test_the_divergence_is_that_of_kullback_and_leibler_at_temperature_t():
    generator = torch.Generator().manual_seed(0)
    teacher_logits, student_logits = torch.randn(2, 5, 3, generator=generator)
    p, q = (teacher_logits / 4).softmax(1), (student_logits / 4).softmax(1)
    by_hand = 16 * (p * (p / q).log()).sum(1).mean()
    found = scrub.divergence(teacher_logits, student_logits, 4.0)
    torch.testing.assert_close(found, by_hand)
    assert float(scrub.divergence(teacher_logits, teacher_logits, 4.0)) == pytest.approx(
        0, abs=1e-6
    )


def scrub_losses(monkeypatch, problem):
    """Return the losses of scrub's two passes, and put the student away from its teacher."""
    asked = []

    def spy(_student, passes, _settings, **_):
        asked.extend(passes(0))
        return LoopResult(Cost())

    monkeypatch.setattr(scrub, "run_loop", spy)
    scrub.unlearn(problem, scrub.Settings(gamma=0.5, alpha=2.0))
    with torch.no_grad():
        for weight in problem.module.parameters():
            weight.add_(0.1)
    return [one.loss for one in asked]


def test_scrub_ascends_on_z_and_follows_its_teacher_on_retained_rows_only(network, monkeypatch):
    problem, before = problem_of(network), network.module().eval()
    leave, stay = scrub_losses(monkeypatch, problem)
    module, rows = problem.module.eval(), problem.retain.take(torch.arange(10))
    apart = scrub.divergence(before(rows.x), module(rows.x), 4.0)
    assert float(apart.detach()) > 0.01
    torch.testing.assert_close(leave(module, rows, moment()), -apart)
    plain = 0.5 * torch.nn.functional.cross_entropy(module(rows.x), rows.y)
    torch.testing.assert_close(stay(module, rows, moment()), plain + 2 * apart)
    for marked in (torch.ones(10, dtype=torch.bool), torch.arange(10) < 4):
        kept = rows.take((~marked).nonzero()[:, 0])
        held = plain
        if len(kept):
            held = plain + 2 * scrub.divergence(before(kept.x), module(kept.x), 4.0)
        torch.testing.assert_close(stay(module, replace(rows, marked=marked), moment()), held)


def test_scrub_leaves_its_teacher_on_what_is_to_be_forgotten(network):
    problem = problem_of(network)
    logits = problem.module(problem.forget.x).detach()
    scrub.unlearn(problem, scrub.Settings(epochs=1, ascent_epochs=1, learning_rate=0.01))
    found = problem.module(problem.forget.x).detach()
    assert float(scrub.divergence(logits, found, 4.0)) > 0.01


def test_rewinding_returns_the_epoch_whose_error_fits_that_of_held_out_rows(network):
    held_out = network.rows(pictures(60, seed=77))
    problem = problem_of(network, held_out=held_out)
    settings = scrub.Settings(epochs=4, ascent_epochs=2, learning_rate=0.01)
    outcome = scrub.unlearn(problem, settings)
    measured = outcome.measured
    assert measured["rewound_to"] in {1.0, 2.0, 3.0, 4.0}
    # Each number of epochs by itself is one of the candidates: none is nearer.
    distances = [abs(error - measured["error_held_out"]) for error in _epochs(network, settings)]
    best = abs(measured["error_forget"] - measured["error_held_out"])
    assert best == pytest.approx(min(distances))
    without = scrub.unlearn(problem_of(network), SHORT["scrub"])
    assert "no held-out rows" in without.measured["rewound_to"]


def _epochs(network, settings):
    """Return the error on Z after each epoch of the same run, statistics recalibrated."""
    from privacy_core.unlearning.tensors import recalibrate

    errors, saved = [], scrub.run_loop

    def spy(*args, **kwargs):
        result = saved(*args, **{**kwargs, "hooks": scrub.Hooks(keep_epochs=True)})
        problem = problem_of(network)
        for state in result.epochs:
            problem.module.load_state_dict(state)
            recalibrate(problem.module, problem.train)
            errors.append(error_rate(problem.module, problem.forget))
        return result

    scrub.run_loop = spy
    try:
        scrub.unlearn(problem_of(network), settings)
    finally:
        scrub.run_loop = saved
    return errors


# --- first-order and second-order ------------------------------------------------------------


@pytest.fixture(scope="module")
def head():
    recipe = replace(HEAD, weight_decay=0.05)
    return train(new_head(FlatBackbone(), ("no", "yes"), record(recipe)), pictures())


@pytest.mark.parametrize("mode", ["replace", "drop-label", "drop-row"])
def test_the_influence_gradient_is_the_revised_objectives_where_the_old_one_is_at_its_minimum(
    head, mode
):
    problem = problem_of(head, mode=mode)
    influence, revised = influence_gradient(problem), revised_gradient(problem)
    torch.testing.assert_close(influence[0], revised[0], atol=1e-8, rtol=0)
    assert norm(revised) > 1e-4


def test_the_second_order_step_is_the_direct_solve_on_a_head(head):
    problem = problem_of(head)
    settings = second_order.Settings(damping=0.0, tolerance=1e-12, iterations=500, reach=10.0)
    from privacy_core.unlearning.head import HeadProblem

    w = problem.module.weight.detach().numpy().copy()
    convex = HeadProblem(problem.train.x.numpy(), problem.train.y.numpy(), 2, 0.05)
    expected = w - np.linalg.solve(convex.hessian(w), convex.gradient(w).ravel()).reshape(w.shape)
    outcome = second_order.unlearn(problem, settings)
    np.testing.assert_allclose(problem.module.weight.detach().numpy(), expected, atol=1e-6)
    assert outcome.measured["step_share"] == 1.0
    assert outcome.measured["cg_residual"] <= 1e-12


def test_the_revised_gradient_needs_no_rows_to_forget(network):
    problem = replace(problem_of(network), forget=None)
    settings = second_order.Settings(gradient="revised", iterations=3)
    before = objective(problem.module, problem.train, 5e-4)
    outcome = second_order.unlearn(problem, settings)
    assert outcome.measured["damping"] > 0
    assert objective(problem.module, problem.train, 5e-4) < before


def test_a_step_never_makes_the_revised_objective_worse(network):
    problem = problem_of(network)
    before = objective(problem.module, problem.train, 5e-4)
    uphill = revised_gradient(problem)
    digest = module_digest(problem.module)
    assert take_step(problem, uphill, reach=0.1) == {"step_share": 0.0, "step_length": 0.0}
    assert module_digest(problem.module) == digest
    taken = take_step(problem, [-1e6 * part for part in uphill], reach=0.1)
    assert 0 < taken["step_length"] <= 0.1
    assert objective(problem.module, problem.train, 5e-4) <= before


def test_no_direction_is_no_step(network):
    problem = problem_of(network)
    nothing = [torch.zeros_like(w) for w in weights_of(problem.module)]
    assert take_step(problem, nothing, reach=0.1)["step_length"] == 0.0


# --- salun, ssd, random-labels, teacher ------------------------------------------------------


def test_masked_weights_are_the_originals_to_the_bit(network):
    # Momentum and weight decay move them if only the gradient is masked.
    problem = problem_of(network)
    masks = salun.saliency_masks(summed_gradient(problem.module, problem.forget), share=0.5)
    first = [weight.detach().clone() for weight in weights_of(problem.module)]
    salun.unlearn(problem, salun.Settings(epochs=3))
    n_moved = 0
    for old, new, mask in zip(first, weights_of(problem.module), masks, strict=True):
        assert torch.equal(old[~mask], new[~mask])
        n_moved += int((old != new).sum())
    assert n_moved > 0.4 * sum(mask.numel() for mask in masks)


def test_the_mask_is_the_share_of_all_weights_with_the_largest_gradients():
    gradient = [torch.tensor([[5.0, -4.0], [0.1, 0.2]]), torch.tensor([3.0, -0.3])]
    masks = salun.saliency_masks(gradient, share=0.5)
    assert masks[0].tolist() == [[True, True], [False, False]]
    assert masks[1].tolist() == [True, False]


def test_random_labels_are_never_the_true_ones():
    labels = torch.arange(3).repeat(100)
    drawn = random_labels.wrong_labels(labels, 3, torch.Generator().manual_seed(0))
    assert not (drawn == labels).any()
    assert set(drawn.tolist()) == {0, 1, 2}
    assert len(set(drawn[labels == 0].tolist())) == 2


def test_importance_is_the_mean_of_squared_batch_gradients(network):
    module, rows = network.module().eval(), network.rows(pictures(12))
    expected = 0.0
    for part in rows.batches(4):
        loss = torch.nn.functional.cross_entropy(module(part.x), part.y)
        expected = expected + torch.autograd.grad(loss, weights_of(module))[0] ** 2 / 3
    torch.testing.assert_close(ssd.importance(module, rows, batch_size=4)[0], expected)


def test_dampening_shrinks_only_what_matters_more_for_what_is_to_be_forgotten():
    whole, part = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([4.0, 10.0, 40.0, 0.0])
    factors = ssd.dampening_factors(whole, part, ssd.Settings(selection=5.0, dampening=2.0))
    assert factors.tolist() == pytest.approx([1.0, 0.2, 0.05, 1.0])


def test_the_student_follows_the_untrained_network_on_what_is_to_be_forgotten(network):
    problem = problem_of(network)
    x = problem.forget.x
    bad = problem.fresh(1).eval()
    with torch.no_grad():
        told = bad(x)
        before = float(scrub.divergence(told, problem.module(x), 1.0))
    teacher.unlearn(problem, teacher.Settings(learning_rate=0.01, epochs=6, retain_share=0.0))
    with torch.no_grad():
        after = float(scrub.divergence(told, problem.module.eval()(x), 1.0))
    assert after < 0.7 * before


# --- clipped-noise ---------------------------------------------------------------------------


def test_th_eps_is_finite_for_large_epsilon_and_falls_in_epsilon():
    for r in (1e-3, 0.5, 4.0, 50.0):
        values = [clipped_noise.hockey_stick(e, r) for e in (0.0, 0.5, 2.0, 50.0, 800.0, 1e6)]
        assert all(0 <= value <= 1 for value in values)
        assert all(b <= a for a, b in pairwise(values))
    assert clipped_noise.hockey_stick(1.0, 0.0) == 0.0


def test_th_eps_is_the_delta_of_the_gaussian_mechanism():
    # Balle & Wang 2018, theorem 8, integrated numerically.
    epsilon, r = 1.0, 2.0
    x = np.linspace(-30, 30, 600_001)
    p, q = (np.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0, r))
    by_hand = np.clip(p - math.exp(epsilon) * q, 0, None).sum() * (x[1] - x[0])
    assert clipped_noise.hockey_stick(epsilon, r) == pytest.approx(by_hand, rel=1e-4)


def test_a_goal_that_the_steps_do_not_reach_is_refused():
    with pytest.raises(InvalidArgumentError, match="`max_steps` must let δ fall"):
        clipped_noise.noisy_steps(clipped_noise.Settings(noise=0.5, max_steps=5))


def test_more_noise_takes_fewer_steps():
    few, many = (
        clipped_noise.noisy_steps(clipped_noise.Settings(noise=noise)) for noise in (10.0, 5.0)
    )
    assert 0 < few < many


def test_only_secret_noise_proves_anything(network):
    assert ask(network, "clipped-noise").guarantee.reason == "noise not secret"
    secret = ask(network, "clipped-noise", seed=None)
    assert (secret.guarantee.epsilon, secret.guarantee.delta) == (20.0, 1e-5)
    assert secret.model.digest() != ask(network, "clipped-noise", seed=None).model.digest()


def test_noisy_steps_forget_where_they_started(network, monkeypatch):
    # Weights after the noisy steps are within the ball plus noise, whatever they were before.
    problem = problem_of(network)
    with torch.no_grad():
        for weight in weights_of(problem.module):
            weight.mul_(1e4)
    settings = clipped_noise.Settings(
        epsilon=20.0, clip=1.0, first_clip=1.0, noise=0.5, first_noise=0.5
    )
    monkeypatch.setattr(clipped_noise, "_finetune", lambda *_: clipped_noise.Cost())
    clipped_noise.unlearn(problem, settings)
    n = sum(weight.numel() for weight in weights_of(problem.module))
    assert norm(weights_of(problem.module)) < 1.0 + 0.5 * 1.2 * math.sqrt(n)


def test_old_batch_norm_statistics_reach_no_gradient(network, monkeypatch):
    # They hold Z, and no noise is added to them.
    monkeypatch.setattr(clipped_noise, "_finetune", lambda *_: clipped_noise.Cost())
    digests = []
    for offset in (0.0, 3.0):
        problem = problem_of(network)
        for part in problem.module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.add_(offset)
        clipped_noise.unlearn(problem, SHORT["clipped-noise"])
        digests.append(module_digest(problem.module))
    assert digests[0] == digests[1]


def test_a_heads_noise_is_repaired_to_the_minimum(head):
    request = UnlearnRequest(head, revise(pictures()), "clipped-noise")
    result = unlearn(request)
    exact = unlearn(replace(request, method="retrain"))
    np.testing.assert_allclose(result.model.weights, exact.model.weights, atol=1e-6)
    assert result.guarantee.epsilon == 1.0


# --- retrain ---------------------------------------------------------------------------------


def test_retraining_on_the_same_data_and_seed_is_the_original(network):
    request = UnlearnRequest(network, pictures(), "retrain", seed=network.record.recipe.seed)
    assert unlearn(request).model.digest() == network.digest()


def test_retraining_keeps_nothing_of_the_original(network):
    # Public code that resets only a network's direct children leaves the backbone trained.
    request = UnlearnRequest(network, revise(pictures()), "retrain", seed=5)
    module = network.module()
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(7.0)
    spoiled = network.updated(module, network.record)
    again = unlearn(replace(request, model=spoiled))
    assert again.model.digest() == unlearn(request).model.digest()


def test_marked_rows_survive_batches_and_draws():
    rows = Rows(torch.arange(6)[:, None], torch.zeros(6, dtype=torch.long), torch.arange(6) > 2)
    assert torch.cat([part.marked for part in rows.batches(4)]).tolist() == rows.marked.tolist()
    module = torch.nn.Linear(1, 2)
    floats = Rows(torch.randn(4, 1), torch.ones(4, dtype=torch.long))
    forget = Rows(torch.randn(6, 1), torch.zeros(6, dtype=torch.long))
    loss = random_labels.random_label_loss(forget, 0.0, 3)
    plain = torch.nn.functional.cross_entropy(module(floats.x), floats.y)
    torch.testing.assert_close(loss(module, floats, moment()), plain)
