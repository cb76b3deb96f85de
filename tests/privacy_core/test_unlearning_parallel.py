"""Training on several processes gives what one process gives, whatever the loss and the network."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from privacy_core.crew import Crew
from privacy_core.errors import OutputError
from privacy_core.unlearning.base import UnlearnRequest
from privacy_core.unlearning.parallel import shared_norms
from privacy_core.unlearning.run import unlearn
from privacy_core.unlearning.schedule import LoopSettings
from privacy_core.unlearning.tensors import Rows, module_digest
from privacy_core.unlearning.training import Hooks, Pass, Watch, cross_entropy, run_loop
from tests.privacy_core.crews import together
from tests.privacy_core.tiny_targets import pictures, revise, trained_network

SETTINGS = LoopSettings(3, 8, 0.05, momentum=0.9, augmentation="flip and shift", clip=1.0, seed=3)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    first_weights()  # drawn once: all threads share the generator that modules draw from


class Net(nn.Module):
    """Convolutions with batch norm, one of them without an affine map."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)])
        self.last = nn.BatchNorm1d(4, momentum=None)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        pixels = x.permute(0, 3, 1, 2).double() / 255
        seen = self.norms[0](self.first(pixels)).relu()
        seen = self.norms[1](self.second(seen)).relu().mean((2, 3))
        return self.linear(self.last(seen))


@cache
def first_weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().double()


def net():
    return copy.deepcopy(first_weights())


def rows(n=29):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 8, 8, 3), generator=generator).to(torch.uint8)
    return Rows(x, torch.arange(n) % 2, torch.arange(n) % 3 == 0)


def train(crew, *, loss=cross_entropy, settings=SETTINGS, data=None, **watch):
    module = net()
    data = rows() if data is None else data
    result = run_loop(
        module, lambda _: [Pass(data, loss)], settings,
        hooks=Hooks(keep_epochs=True), watch=Watch(crew=crew, **watch),
    )  # fmt: skip
    return module, result


def alone(**options):
    ((module, result),) = together(1, lambda crew: train(crew, **options))
    return module, result


def assert_like(one, other, *, within=1e-10):
    """Compare all weights and statistics, relative to the largest of them.

    In double, where rounding is too small to turn the sign before a ReLU and grow by that.
    """
    a, b = (
        torch.cat([value.flatten() for value in module.state_dict().values() if value.ndim])
        for module in (one, other)
    )
    assert (a - b).abs().max() <= within * b.abs().max()


def marked_loss(module, batch, moment):
    """A loss that is no mean over rows, and draws."""
    away = torch.randint(len(batch), (3,), generator=moment.generator)
    logits = module(torch.cat([batch.x, batch.x[away]]))
    own = functional.cross_entropy(logits[: len(batch)], batch.y)
    return own.square() - 0.1 * logits[batch.marked.nonzero().flatten()].tanh().mean()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("loss", [cross_entropy, marked_loss])
def test_several_processes_train_what_one_trains(size, loss):
    expected, cost = alone(loss=loss)
    found = together(size, lambda crew: train(crew, loss=loss))
    for module, result in found:
        assert_like(module, expected)
        assert module_digest(module) == module_digest(found[0][0])
        assert result.cost.gradient_evaluations == cost.cost.gradient_evaluations
        assert len(result.epochs) == SETTINGS.epochs
    assert len({result.cost for _, result in found}) == 1


def test_fewer_rows_than_processes_are_enough():
    few, settings = rows(2), replace(SETTINGS, batch_size=2)
    expected, _ = alone(data=few, settings=settings)
    for module, _ in together(3, lambda crew: train(crew, data=few, settings=settings)):
        assert_like(module, expected)


def test_batch_norm_is_itself_again_afterwards():
    (module, _), _ = together(2, train)
    assert not any("forward" in vars(part) for part in module.modules())
    assert len(module(rows().x)) == 29


def test_every_process_begins_with_the_firsts_weights():
    def act(crew):
        module = net()
        if not crew.is_first:
            module.linear.weight.data.zero_()
        run_loop(module, lambda _: [Pass(rows(), cross_entropy)], SETTINGS, watch=Watch(crew=crew))
        return module

    first, second = together(2, act)
    assert module_digest(first) == module_digest(second)
    assert_like(first, alone()[0])


class KilledError(Exception):
    """The process was killed."""


def killed_after(n_steps):
    def progress(_stage, done, _total):
        if done > n_steps:
            raise KilledError

    return progress


def test_a_run_that_was_killed_goes_on_with_any_number_of_processes(tmp_path):
    expected, cost = alone()
    for size, again in ((2, 3), (2, 1), (1, 2)):
        file = tmp_path / f"{size}-{again}.pt"
        watched = {"checkpoint": file, "progress": killed_after(4)}
        killed = together(size, lambda crew, watched=watched: train(crew, **watched))
        assert any(isinstance(one, KilledError) for one in killed)
        assert not any(isinstance(one, tuple) for one in killed)
        seen = []
        options = {"checkpoint": file, "progress": lambda *step, seen=seen: seen.append(step)}
        for module, result in together(again, lambda crew, o=options: train(crew, **o)):
            assert_like(module, expected)
            assert result.cost.gradient_evaluations == cost.cost.gradient_evaluations
        assert {done for _, done, _ in seen} == {12}  # the last of three epochs of four steps


def test_a_checkpoint_that_only_some_processes_see_is_refused(tmp_path):
    watched = {"checkpoint": tmp_path / "a.pt", "progress": killed_after(4)}
    together(1, lambda crew: train(crew, **watched))
    found = together(2, lambda crew: train(crew, checkpoint=tmp_path / f"{'ab'[crew.rank]}.pt"))
    assert not any(isinstance(one, tuple) for one in found)
    assert any(isinstance(one, OutputError) and "shared disk" in str(one) for one in found)


@pytest.mark.parametrize("method", ["finetune-restart", "l1-sparse", "scrub", "clipped-noise"])
def test_methods_give_on_two_processes_what_they_give_on_one(method):
    original = pictures()
    revised, model = revise(original), trained_network()
    request = UnlearnRequest(
        model, revised, method, open_original=lambda: original, held_out=pictures(16, seed=5),
        seed=None if method == "clipped-noise" else 1,
    )  # fmt: skip
    first, second = together(2, lambda crew: unlearn(request, watch=Watch(crew=crew)).model)
    assert first.digest() == second.digest()
    if request.seed is not None:
        assert_like(first.module(), unlearn(request).model.module(), within=1e-4)


def test_a_norm_in_evaluation_mode_uses_its_own_statistics():
    module = net()
    module(rows().x)
    module.norms[0].eval()
    x = torch.randn(4, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = module.norms[0](x)
    with shared_norms(module, Crew()):
        assert torch.equal(module.norms[0](x), expected)
        module.norms[0].train()
        assert not torch.equal(module.norms[0](x), expected)
