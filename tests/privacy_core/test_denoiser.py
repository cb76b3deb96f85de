"""The denoiser: its preconditioning, and what its output depends on."""

import pytest
import torch

from privacy_core.diffusion.denoiser import NULL, CodeDenoiser, DenoiserConfig
from tests.privacy_core.tiny import GROUPS, tiny_code, tiny_denoiser

K, N = 24, 6


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def denoiser():
    denoiser = tiny_denoiser(tiny_code())
    denoiser.sd.copy_(torch.linspace(2, 0.2, K))
    return denoiser


def inputs(sigma=0.7, *, seed=0):
    """Return y, σ, σ of the groups, context and tokens."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "y": torch.randn(N, K, generator=generator),
        "sigma": torch.full((N,), float(sigma)),
        "group_sigma": torch.full((N, len(GROUPS)), float(sigma)),
        "context": torch.randn(N, 4, generator=generator),
        "attributes": torch.full((N, 5), NULL),
    }


def test_without_noise_the_code_comes_back(denoiser):
    given = inputs(1e-7)
    assert torch.allclose(denoiser(**given), given["y"], atol=1e-5)


def test_under_endless_noise_the_input_is_ignored(denoiser):
    given = inputs(1e6)
    estimate = denoiser(**given)
    assert torch.allclose(denoiser(**given | {"y": -30 * given["y"]}), estimate, atol=1e-3)
    assert estimate.abs().max() > 0.01


def test_an_untrained_denoiser_is_the_posterior_mean_of_a_normal_prior():
    denoiser = CodeDenoiser(DenoiserConfig(K, 4, GROUPS, width=8, depth=1, condition_width=8))
    denoiser.sd.copy_(torch.linspace(2, 0.2, K))
    given = inputs(0.5)
    shrink = denoiser.sd**2 / (denoiser.sd**2 + 0.25)
    assert torch.allclose(denoiser(**given), shrink * given["y"], atol=1e-6)


def test_the_network_sees_inputs_of_variance_one_at_every_noise_level(denoiser):
    seen = []
    denoiser.into.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, :K]))
    generator = torch.Generator().manual_seed(0)
    n = 4000
    for sigma in (0.01, 0.5, 20.0):
        y = (denoiser.sd**2 + sigma**2).sqrt() * torch.randn(n, K, generator=generator)
        levels = torch.full((n,), sigma)
        groups = levels[:, None].expand(-1, len(GROUPS))
        denoiser(y, levels, groups, None, torch.full((n, 5), NULL))
    for scaled in seen:
        assert torch.allclose(scaled.std(0), torch.ones(K), atol=0.06)


def test_group_levels_reach_the_coordinates_of_their_group(denoiser):
    levels = torch.arange(1.0, 7.0)[None]  # σ, then gender, beard, age_group, eyeglasses, smiling
    spread = denoiser.per_coordinate(levels)[0]
    assert spread.tolist() == [2, 3, 4, 5, 6, 6] + [1] * 18


@pytest.mark.parametrize("name", ["y", "sigma", "group_sigma", "context"])
def test_the_estimate_depends_on_everything_it_is_given(denoiser, name):
    given = inputs()
    other = given | {name: 1.3 * given[name]}
    # Coordinate 20 belongs to no attribute, so nothing but the network carries a change there.
    assert not torch.allclose(denoiser(**other)[:, 20], denoiser(**given)[:, 20], atol=1e-4)


@pytest.mark.parametrize("attribute", range(5))
def test_each_token_of_each_attribute_changes_the_estimate(denoiser, attribute):
    given = inputs()
    estimates = []
    for token in (0, 1, NULL):
        tokens = given["attributes"].clone()
        tokens[:, attribute] = token
        estimates.append(denoiser(**given | {"attributes": tokens}))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(estimates[one], estimates[other], atol=1e-4)


def test_a_row_of_nan_and_no_context_both_mean_unknown(denoiser):
    given = inputs()
    unknown = denoiser(**given | {"context": None})
    partly = given["context"].clone()
    partly[::2] = torch.nan
    estimate = denoiser(**given | {"context": partly})
    assert torch.allclose(estimate[::2], unknown[::2], atol=1e-6)
    assert torch.allclose(estimate[1::2], denoiser(**given)[1::2], atol=1e-6)
    assert not torch.allclose(unknown, denoiser(**given), atol=1e-3)


def test_unknown_contexts_give_no_nan_gradient_and_train_the_null(denoiser):
    given = inputs()
    given["context"][0] = torch.nan
    denoiser(**given).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in denoiser.parameters())
    assert denoiser.null_context.grad.abs().max() > 0


def test_rows_do_not_see_each_other(denoiser):
    given = inputs()
    alone = denoiser(**{name: value[2:3] for name, value in given.items()})
    assert torch.allclose(denoiser(**given)[2:3], alone, atol=1e-5)


def test_dropout_is_off_when_faces_are_generated(denoiser):
    given = inputs()
    assert torch.equal(denoiser(**given), denoiser(**given))
    denoiser.train()
    assert not torch.equal(denoiser(**given), denoiser(**given))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("sigma", [0.005, 0.7, 20.0])
def test_half_precision_weights_stay_close(denoiser, dtype, tolerance, sigma):
    given = inputs(sigma)
    exact = denoiser(**given)
    sd = denoiser.sd.clone()
    half = denoiser.to(dtype)
    half.sd = sd
    estimate = half(**given)
    assert estimate.dtype == torch.float32
    c_out = sigma * sd / (sigma**2 + sd**2).sqrt()
    assert ((estimate - exact) / c_out).abs().max() < tolerance
