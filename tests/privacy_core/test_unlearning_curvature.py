"""Gradients and Gauss–Newton products against forward mode, finite differences and dense solves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev, jvp

from privacy_core.unlearning.curvature import (
    conjugate_gradient,
    dot,
    ggn_product,
    largest_eigenvalue,
    norm,
    summed_gradient,
    weights_of,
)
from privacy_core.unlearning.tensors import Rows


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)]
        return nn.Sequential(*layers).double()


def rows(n=21, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return Rows(x, torch.randint(0, 3, (n,), generator=generator))


def like(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights_of(module)]


def flat(vector):
    return torch.cat([part.flatten() for part in vector])


def logits_at(module, data):
    names = [name for name, _ in module.named_parameters()]

    def logits(*weights):
        return functional_call(module, dict(zip(names, weights, strict=True)), (data.x,))

    return logits


def dense_ggn(module, data):
    module.eval()
    weights = tuple(w.detach() for w in weights_of(module))
    logits = logits_at(module, data)
    parts = jacrev(logits, argnums=tuple(range(len(weights))))(*weights)
    n_labels = 3
    j = torch.cat([part.reshape(len(data), n_labels, -1) for part in parts], 2)  # n, C, P
    p = logits(*weights).softmax(1)
    h = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("ncp,ncd,ndq->pq", j, h, j) / len(data)


# Its decompositions are scripted on first use, which this torch warns of.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("batch_size", [5, 256])
def test_the_double_backward_product_is_the_forward_mode_product(batch_size):
    module, data = network().eval(), rows()
    v = like(module)
    weights = tuple(w.detach() for w in weights_of(module))
    _, jv = jvp(logits_at(module, data), weights, tuple(v))
    p = module(data.x).softmax(1)
    hjv = p * (jv - (p * jv).sum(1, keepdim=True))
    expected = torch.autograd.grad(module(data.x), weights_of(module), hjv / len(data))
    found = ggn_product(module, data, v, batch_size=batch_size)
    torch.testing.assert_close(flat(found), flat(expected), rtol=1e-6, atol=1e-12)


def test_the_product_is_that_of_the_dense_matrix():
    module, data = network(), rows()
    v = like(module)
    torch.testing.assert_close(
        flat(ggn_product(module, data, v)), dense_ggn(module, data) @ flat(v), rtol=1e-9, atol=1e-12
    )


def test_on_a_linear_layer_the_product_is_the_finite_difference_of_the_gradient():
    # There the Gauss–Newton matrix is the Hessian.
    module, data, step = nn.Linear(4, 3).double(), rows(), 1e-6
    v = like(module)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for w, part in zip(weights_of(module), v, strict=True):
                w.add_(sign * step * part)
        sides.append(flat(summed_gradient(module, data)) / len(data))
        with torch.no_grad():
            for w, part in zip(weights_of(module), v, strict=True):
                w.sub_(sign * step * part)
    difference = (sides[0] - sides[1]) / (2 * step)
    torch.testing.assert_close(flat(ggn_product(module, data, v)), difference, rtol=1e-6, atol=1e-8)


def test_gradients_are_taken_in_evaluation_mode_and_move_no_statistics():
    module, data = network(), rows()
    module.train()
    before = module[1].running_mean.clone()
    one = summed_gradient(module, data, batch_size=4)
    module.train()
    other = summed_gradient(module, data)
    torch.testing.assert_close(flat(one), flat(other))
    assert torch.equal(module[1].running_mean, before)
    loss = nn.functional.cross_entropy(module.eval()(data.x), data.y, reduction="sum")
    torch.testing.assert_close(flat(one), flat(torch.autograd.grad(loss, weights_of(module))))


# --- Solvers ---------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(1, 12))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_cg_is_the_direct_solve(seed, size):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    a = root @ root.T + torch.eye(size)
    b = torch.randn(size, generator=generator, dtype=torch.float64)
    found = conjugate_gradient(lambda v: [a @ v[0]], [b], tolerance=1e-10, max_iterations=200)
    torch.testing.assert_close(found.x[0], torch.linalg.solve(a, b), rtol=1e-6, atol=1e-7)
    assert found.is_positive
    assert found.residual <= 1e-10


def test_cg_keeps_to_its_iterations_and_says_what_is_left():
    a = torch.diag(torch.logspace(0, 6, 30, dtype=torch.float64))
    b = torch.ones(30, dtype=torch.float64)
    found = conjugate_gradient(lambda v: [a @ v[0]], [b], tolerance=1e-12, max_iterations=3)
    assert found.iterations == 3
    left = float((b - a @ found.x[0]).norm() / b.norm())
    assert found.residual == pytest.approx(left)
    assert left > 1e-3


def test_cg_stops_where_curvature_is_not_positive():
    found = conjugate_gradient(lambda v: [-v[0]], [torch.ones(3)], tolerance=0.1, max_iterations=9)
    assert not found.is_positive
    assert found.iterations == 0
    assert torch.equal(found.x[0], torch.zeros(3))


def test_nothing_to_solve_is_zero():
    found = conjugate_gradient(lambda v: v, [torch.zeros(3)], tolerance=0.1, max_iterations=9)
    assert found.residual == 0.0
    assert norm(found.x) == 0.0


def test_power_iteration_finds_the_largest_eigenvalue():
    a = torch.diag(torch.tensor([1.0, 3.0, 9.0]))
    value = largest_eigenvalue(lambda v: [a @ v[0]], [torch.zeros(3)], seed=0)
    assert value == pytest.approx(9.0, rel=1e-3)
    assert largest_eigenvalue(lambda v: [0 * v[0]], [torch.zeros(3)], seed=0) == 0.0


def test_inner_products_run_over_all_parts():
    one, other = [torch.ones(2), torch.full((2, 2), 2.0)], [torch.ones(2), torch.ones(2, 2)]
    assert float(dot(one, other)) == 10.0
    assert norm(one) == pytest.approx(18**0.5)
