"""The loop: deterministic, resumable, without the global generator; batch norm without a trace."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.schedule import LoopSettings, learning_rate
from privacy_core.unlearning.tensors import (
    Rows,
    draw,
    error_rate,
    flip_and_shift,
    module_digest,
    recalibrate,
    split_evenly,
)
from privacy_core.unlearning.training import Cost, Hooks, Pass, Watch, cross_entropy, run_loop

SETTINGS = LoopSettings(4, 8, 0.05, augmentation="flip and shift", seed=3)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Net(nn.Module):
    """A convolution with batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        pixels = x.permute(0, 3, 1, 2).float() / 255
        return self.linear(self.drop(self.norm(self.conv(pixels)).relu().mean((2, 3))))


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def rows(n=30, *, seed=0, offset=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 156, (n, 8, 8, 3), generator=generator)
    return Rows((x + offset).to(torch.uint8), torch.arange(n) % 2)


def fit(module, data, settings=SETTINGS, *, loss=cross_entropy, **kwargs):
    return run_loop(module, lambda _: [Pass(data, loss)], settings, **kwargs)


# --- Determinism -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_to_the_bit():
    one, other, third = net(), net(), net()
    fit(one, rows())
    torch.rand(7)  # whoever else draws globally does not matter
    fit(other, rows())
    fit(third, rows(), replace(SETTINGS, seed=4))
    assert module_digest(one) == module_digest(other)
    assert module_digest(one) != module_digest(third)


def test_training_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    fit(net(), rows())
    assert torch.equal(torch.get_rng_state(), state)


class KilledError(Exception):
    pass


def killed_at(step):
    def progress(_stage, done, _total):
        if done >= step:
            raise KilledError

    return progress


@pytest.mark.parametrize("step", [1, 9])
def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path, step):
    whole, part, again = net(), net(), net()
    expected = fit(whole, rows(), hooks=Hooks(keep_epochs=True))
    file = tmp_path / "run.pt"
    with pytest.raises(KilledError):
        fit(part, rows(), hooks=Hooks(keep_epochs=True), watch=Watch(killed_at(step), file))
    result = fit(again, rows(), hooks=Hooks(keep_epochs=True), watch=Watch(checkpoint=file))
    assert module_digest(again) == module_digest(whole)
    assert result.cost.gradient_evaluations == expected.cost.gradient_evaluations == 4 * 30
    assert len(result.epochs) == 4
    kept = zip(result.epochs[0].values(), expected.epochs[0].values(), strict=True)
    assert all(torch.equal(a, b) for a, b in kept)


@pytest.mark.parametrize("other", ["seed", "rows", "weights", "identity", "kept epochs"])
def test_the_checkpoint_of_another_run_is_not_continued(tmp_path, other):
    file = tmp_path / "run.pt"
    fit(net(), rows(), watch=Watch(checkpoint=file))
    module = net(5 if other == "weights" else 0)
    settings = replace(SETTINGS, seed=9) if other == "seed" else SETTINGS
    data = rows(seed=1) if other == "rows" else rows()
    seen, hooks = [], Hooks(keep_epochs=other == "kept epochs")
    result = fit(
        module, data, settings, hooks=hooks,
        watch=Watch(lambda *step: seen.append(step), file, "x" if other == "identity" else ""),
    )  # fmt: skip
    assert len(seen) == 4
    assert len(result.epochs) == (4 if hooks.keep_epochs else 0)


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    with pytest.raises(KilledError):
        fit(net(), rows(), watch=Watch(killed_at(1), file))
    before = file.read_bytes()

    def half(_state, path):
        path.write_bytes(b"half")
        raise KilledError

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KilledError):
        fit(net(), rows(), watch=Watch(checkpoint=file))
    assert file.read_bytes() == before


# --- What a step does ------------------------------------------------------------------------


def test_training_learns_what_can_be_learned():
    data = rows(40)
    data = Rows(data.x + (data.y * 90)[:, None, None, None].to(torch.uint8), data.y)
    module = net()
    fit(module, data, replace(SETTINGS, epochs=15, augmentation="none"))
    assert error_rate(module, data) < 0.1
    assert not module.training


def test_cost_counts_every_row_whose_gradient_was_taken():
    data, seen = rows(30), []

    def loss(module, batch, moment):
        seen.append((len(batch), moment.epoch, moment.progress))
        return cross_entropy(module, batch)

    two = [Pass(data, loss), Pass(data.take(torch.arange(5)), loss, 2)]
    result = run_loop(net(), lambda epoch: two[: 1 + (epoch == 0)], SETTINGS)
    assert result.cost.gradient_evaluations == 4 * 30 + 5
    assert sum(size for size, *_ in seen) == 4 * 30 + 5
    assert [progress for *_, progress in seen] == [i / 19 for i in range(19)]
    assert [epoch for _, epoch, _ in seen].count(0) == 7
    assert Cost(1.0, 2) + Cost(2.0, 3) == Cost(3.0, 5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_clipping_and_hooks_see_every_step(optimizer):
    lengths, after = [], []

    def edit(module, _moment):
        for weight in module.parameters():
            weight.grad.mul_(1e6)

    def watch(module):
        lengths.append(sum(float((w.grad**2).sum()) for w in module.parameters()) ** 0.5)
        after.append(module_digest(module))

    settings = replace(SETTINGS, optimizer=optimizer, clip=0.5, epochs=1)
    module = net()
    fit(module, rows(), settings, hooks=Hooks(edit_gradients=edit, after_step=watch))
    assert lengths == pytest.approx([0.5] * 4, rel=1e-3)
    assert after[-1] == module_digest(module)


def test_the_rate_rises_linearly_and_falls_along_a_cosine_to_zero():
    settings = LoopSettings(1, 1, 2.0)
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == pytest.approx(2.0)
    assert np.argmax(rates) == 19
    assert 0 < rates[-1] < 0.01
    assert np.all(np.diff(rates[20:]) < 0)
    cosine = replace(settings, schedule="cosine")
    assert learning_rate(cosine, 0, 100) == pytest.approx(2.0, rel=1e-3)
    assert learning_rate(replace(settings, schedule="constant"), 99, 100) == 2.0


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidArgumentError, match=f"`{next(iter(wrong))}` must be positive"):
        replace(SETTINGS, **wrong)


# --- Rows ------------------------------------------------------------------------------------


def test_no_batch_is_a_lone_row_while_there_are_more():
    for n in range(2, 40):
        parts = split_evenly(torch.arange(n), 8)
        assert torch.equal(torch.cat(parts), torch.arange(n))
        assert {len(part) for part in parts} <= set(range(2, 9))
    assert split_evenly(torch.arange(0), 8) == ()


def test_augmenting_mirrors_and_shifts_but_invents_no_pixel():
    x = rows(50).x
    moved = flip_and_shift(x, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    assert not torch.equal(moved, x)
    for old, new in zip(x, moved, strict=True):
        assert set(map(tuple, new.reshape(-1, 3).tolist())) <= set(
            map(tuple, old.reshape(-1, 3).tolist())
        )
    features = torch.randn(4, 7)
    assert flip_and_shift(features, torch.Generator()) is features


def test_draws_come_from_the_given_generator():
    data = rows()
    one = draw(data, 20, torch.Generator().manual_seed(1))
    other = draw(data, 20, torch.Generator().manual_seed(1))
    assert torch.equal(one.x, other.x)
    assert len(one) == 20


# --- Batch norm ------------------------------------------------------------------------------


def test_after_recalibration_no_trace_of_other_rows_is_in_the_statistics():
    revised, forgotten = rows(40), rows(40, seed=8, offset=99)
    touched, untouched = net(), net()
    touched.train()
    for _ in range(5):  # batches that hold Z move the running statistics
        touched(forgotten.x)
    assert not torch.equal(touched.norm.running_mean, untouched.norm.running_mean)
    for module in (touched, untouched):
        recalibrate(module, revised)
    assert module_digest(touched) == module_digest(untouched)
    assert touched.norm.momentum == 0.1
    assert not touched.training
    assert not touched.norm.training


def test_recalibrated_statistics_are_the_plain_average_over_the_rows():
    module, data = net(), rows(40)
    recalibrate(module, data, batch_size=10)
    maps = module.conv(data.x.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(module.norm.running_mean, maps.mean((0, 2, 3)))
    assert float(module.norm.num_batches_tracked) == 4


def test_recalibration_switches_no_dropout_on():
    module, data = net(), rows()
    state = torch.get_rng_state()
    recalibrate(module, data)
    assert torch.equal(torch.get_rng_state(), state)
