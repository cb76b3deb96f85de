"""The sampler against the closed form of the ODE, and what policies do to its start."""

import pytest
import torch

from privacy_core.diffusion.denoiser import NULL, CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.sampler import (
    ATTRIBUTE_GUIDANCE,
    CONTEXT_TRUST,
    GUIDANCE,
    SIGMA_MIN,
    karras_sigmas,
    sample,
)
from tests.privacy_core.tiny import GROUPS, tiny_code, tiny_denoiser

K = 24


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def gaussian():
    """A real untrained denoiser: exact for independent normal coordinates of deviation `sd`."""
    denoiser = CodeDenoiser(DenoiserConfig(K, 4, GROUPS, width=8, depth=1, condition_width=8))
    denoiser.sd.copy_(torch.linspace(2, 0.2, K))
    return denoiser.eval()


def tokens(n):
    return torch.full((n, 5), NULL)


def plain(denoiser, y, sigma, n_steps=16, *, factors=None, context=None):
    factors = torch.ones(len(y), K) if factors is None else factors
    return sample(
        denoiser,
        y,
        sigma,
        factors,
        context=context,
        attributes=tokens(len(y)),
        n_steps=n_steps,
        caution=1.0,
    )


def normals(n, seed=0):
    return torch.randn(n, K, generator=torch.Generator().manual_seed(seed))


def closed_form(y, sigma, sd):
    """Return the end of dx/dσ = (x − D)/σ for D = sd²/(sd² + σ²) x, started at y."""
    return y * sd / (sd**2 + sigma**2).sqrt()


# --- Schedule --------------------------------------------------------------------------------


def test_the_schedule_is_equation_5_of_karras_and_ends_at_zero():
    sigmas = karras_sigmas(20.0, 16)
    assert len(sigmas) == 17
    for i, value in enumerate(sigmas[:-1].tolist()):
        root = 20 ** (1 / 7) + i / 15 * (0.005 ** (1 / 7) - 20 ** (1 / 7))
        assert value == pytest.approx(root**7, rel=1e-9)
    assert sigmas[0] == pytest.approx(20)
    assert sigmas[-2] == pytest.approx(SIGMA_MIN)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_noise_below_the_lowest_level_is_integrated_from_where_it_is():
    sigmas = karras_sigmas(SIGMA_MIN / 5, 4)
    assert torch.allclose(sigmas[:-1], torch.full((4,), SIGMA_MIN / 5, dtype=torch.float64))


# --- Integration -----------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "off"), [(0.01, 0.001), (0.3, 0.01), (2.0, 0.03), (20.0, 0.06)])
def test_sixteen_steps_follow_the_probability_flow(gaussian, sigma, off):
    y = sigma * normals(8) + gaussian.sd * normals(8, 1)
    levels = torch.full((8,), sigma)
    expected = closed_form(y, torch.tensor(sigma), gaussian.sd)
    assert torch.allclose(plain(gaussian, y, levels), expected, rtol=off, atol=1e-4)


def test_the_error_falls_with_the_square_of_the_steps(gaussian):
    y, levels = 5 * normals(4), torch.full((4,), 5.0)
    expected = closed_form(y, torch.tensor(5.0), gaussian.sd)
    errors = [float((plain(gaussian, y, levels, n) - expected).abs().max()) for n in (16, 32, 64)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.35)


def test_faces_of_different_noise_in_one_batch_are_as_alone():
    denoiser = tiny_denoiser(tiny_code())
    y, context = normals(3), normals(3, 5)[:, :4]
    sigma = torch.tensor([0.05, 1.0, 20.0])
    factors = torch.ones(3, K)
    factors[0, 0], factors[2, 4:6] = 0.5, 4.0
    together = plain(denoiser, y, sigma, factors=factors, context=context)
    for i in range(3):
        row = slice(i, i + 1)
        alone = plain(denoiser, y[row], sigma[row], factors=factors[row], context=context[row])
        assert torch.allclose(alone, together[row], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[0], plain(denoiser, y[:1], sigma[1:2])[0], atol=1e-2)


def test_the_same_start_gives_the_same_end_and_another_context_another_one():
    denoiser = tiny_denoiser(tiny_code())
    y, sigma, context = normals(2), torch.ones(2), normals(2, 5)[:, :4]
    one = plain(denoiser, y, sigma, context=context)
    assert torch.equal(plain(denoiser, y, sigma, context=context), one)
    assert not torch.allclose(plain(denoiser, y, sigma, context=-context), one, atol=1e-3)
    assert not torch.allclose(plain(denoiser, y, sigma), one, atol=1e-3)


# --- Policies --------------------------------------------------------------------------------


@pytest.fixture
def seen(gaussian):
    """What the denoiser is given, call by call."""
    calls = []
    gaussian.register_forward_pre_hook(lambda _, args: calls.append(args))
    return calls


def test_a_kept_group_is_scaled_back_and_carries_a_quarter_of_the_noise(gaussian, seen):
    code, noise = normals(1), normals(1, 1)
    factors = torch.ones(1, K)
    factors[:, 4:6] = 4.0
    plain(gaussian, factors * code + 0.8 * noise, torch.tensor([0.8]), factors=factors)
    x, level, groups, *_ = seen[0]
    assert torch.allclose(x[:, 4:6], code[:, 4:6] + 0.2 * noise[:, 4:6], atol=1e-6)
    assert torch.allclose(x[:, 6:], code[:, 6:] + 0.8 * noise[:, 6:], atol=1e-6)
    assert float(level) == pytest.approx(0.8)
    assert groups[0].tolist() == pytest.approx([0.8] * 4 + [0.2])


def test_a_kept_group_ends_nearer_to_the_original(gaussian):
    code = gaussian.sd * normals(200)
    factors = torch.ones(200, K)
    sigma = torch.full((200,), 1.0)
    noise = normals(200, 1)
    without = plain(gaussian, code + noise, sigma)
    factors[:, 4:6] = 4.0
    kept = plain(gaussian, factors * code + noise, sigma, factors=factors)
    error, kept_error = (without - code).square().mean(0), (kept - code).square().mean(0)
    assert (kept_error[4:6] < error[4:6] / 4).all()
    assert torch.allclose(kept_error[6:], error[6:], rtol=1e-3)


def test_a_denoiser_without_groups_samples_too():
    denoiser = CodeDenoiser(DenoiserConfig(K, 4, {}, width=8, depth=1, condition_width=8)).eval()
    end = plain(denoiser, 2 * normals(2), torch.tensor([2.0, 2.0]))
    assert torch.allclose(
        end, closed_form(2 * normals(2), torch.tensor(2.0), denoiser.sd), rtol=0.03
    )


def test_caution_trusts_the_noisy_code_less(gaussian):
    y, sigma = normals(64), torch.full((64,), 1.0)
    arguments = {"context": None, "attributes": tokens(64)}
    exact = plain(gaussian, y, sigma)
    cautious = sample(gaussian, y, sigma, torch.ones(64, K), caution=1.15, **arguments)
    assert (cautious.std(0) < exact.std(0)).all()


# --- Guidance --------------------------------------------------------------------------------


def test_guidance_moves_away_from_the_same_network_without_its_middle_blocks():
    denoiser = tiny_denoiser(tiny_code(), depth=4)
    given = (normals(2), torch.ones(2), torch.ones(2, len(GROUPS)), None, tokens(2))
    full, guided = denoiser(*given), denoiser(*given, guidance=0.75)
    denoiser.blocks = torch.nn.ModuleList([denoiser.blocks[0], denoiser.blocks[3]])
    worse = denoiser(*given)
    assert not torch.allclose(worse, full, atol=1e-3)
    assert torch.allclose(guided, full + 0.75 * (full - worse), atol=1e-5)


def test_a_sample_is_guided_unless_told_otherwise():
    denoiser = tiny_denoiser(tiny_code())
    given = (denoiser, normals(2), torch.ones(2), torch.ones(2, K))
    rest = {"context": None, "attributes": tokens(2)}
    usual = sample(*given, **rest)
    assert torch.equal(usual, sample(*given, **rest, guidance=GUIDANCE))
    assert not torch.allclose(usual, sample(*given, **rest, guidance=0.0), atol=1e-3)


def test_attribute_tokens_are_pushed_further_and_faces_without_any_are_left_alone():
    denoiser = tiny_denoiser(tiny_code())
    asked = tokens(2)
    asked[1, 0] = 1
    y, sigma, factors = normals(2), torch.ones(2), torch.ones(2, K)
    context = normals(2, 5)[:, :4]
    found = sample(denoiser, y, sigma, factors, context=context, attributes=asked, n_steps=1)
    levels = torch.ones(2, len(GROUPS))  # One step ends at the estimate.

    def estimate(attributes):
        given = (y, sigma, levels, CONTEXT_TRUST * context, attributes)
        return denoiser(*given, guidance=GUIDANCE)

    left_open, told = estimate(tokens(2)), estimate(asked)
    assert torch.allclose(found[0], left_open[0], atol=1e-5)
    pushed = told[1] + ATTRIBUTE_GUIDANCE * (told[1] - left_open[1])
    assert not torch.allclose(pushed, told[1], rtol=0, atol=1e-5)
    assert torch.allclose(found[1], pushed, rtol=0, atol=1e-6)


def test_what_two_calls_at_one_level_share_changes_nothing():
    denoiser = tiny_denoiser(tiny_code())
    y, sigma, groups = normals(2), torch.ones(2), torch.ones(2, len(GROUPS))
    memo = {}
    first = denoiser(y, sigma, groups, None, tokens(2), guidance=0.5, memo=memo)
    again = denoiser(2 * y, sigma, groups, None, tokens(2), guidance=0.5, memo=memo)
    assert torch.equal(first, denoiser(y, sigma, groups, None, tokens(2), guidance=0.5))
    assert torch.equal(again, denoiser(2 * y, sigma, groups, None, tokens(2), guidance=0.5))
    assert len(memo["modulations"]) == len(denoiser.blocks)
