"""A linear map with a small network added: where it begins, and what its weights are called."""

import pytest
import torch

from privacy_core.projection import Projection


@pytest.fixture
def projection():
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Projection(5, 3, hidden=4, dropout=0.5)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_it_begins_as_the_linear_map_that_it_is_given(projection):
    rows, linear = numbers(7, 5), numbers(5, 3, seed=1)
    assert not torch.allclose(projection(rows), rows @ linear)
    projection.begin_at(linear)
    # In training too: what is dropped is multiplied by zero.
    for module in (projection.train(), projection.eval()):
        assert torch.allclose(module(rows), rows @ linear, atol=1e-6)
    assert all(weights.requires_grad for weights in projection.parameters())


def test_the_network_adds_what_no_linear_map_does(projection):
    rows = numbers(7, 5)
    torch.nn.init.ones_(projection.last.weight)
    projection.begin_at(torch.zeros(5, 3))
    projection.eval()
    added = projection(rows)
    assert not torch.allclose(added, -projection(-rows), atol=1e-3)
    assert torch.equal(projection(rows), added)
    assert not torch.equal(projection.train()(rows), added)


def test_its_weights_have_the_names_under_which_recognisers_are_stored(projection):
    assert {name: tuple(value.shape) for name, value in projection.state_dict().items()} == {
        "linear.weight": (3, 5), "linear.bias": (3,),
        "hidden.1.weight": (4, 5), "hidden.1.bias": (4,),
        "last.weight": (3, 4), "last.bias": (3,),
    }  # fmt: skip
