"""Training: the loss's scale, the draws of noise, and runs that learn, stop and resume."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from privacy_core.diffusion import training
from privacy_core.diffusion.denoiser import KEEP_FACTOR, NULL, CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.training import (
    SIGMA_MAX,
    CodeBatch,
    Trainer,
    TrainingConfig,
    denoising_loss,
    draw_noise,
)

K, GROUPS = 6, {"gender": 1, "smiling": 2}
SIZES = DenoiserConfig(K, 3, GROUPS, width=32, depth=2, condition_width=16, dropout=0.0)
CONFIG = TrainingConfig(
    n_faces=4096, batch_size=128, warmup_steps=4, ema=0.9, validate_every=512,
    checkpoint_minutes=0.0, learning_rate=3e-3,
)  # fmt: skip
SD = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.5, 0.2])


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def mixing():
    """Return a map whose codes have deviations `SD` and are far from independent."""
    generator = torch.Generator().manual_seed(5)
    square = torch.randn(K, K, generator=generator)
    return SD[:, None] * torch.nn.functional.normalize(square, dim=1)


def batch(n=512, *, seed=0, mixed=True):
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, K, generator=generator)
    return CodeBatch(
        normal @ mixing().T if mixed else normal * SD,
        torch.randn(n, 3, generator=generator),
        torch.randint(0, 3, (n, 5), generator=generator),
    )


def new_model(sizes=SIZES, *, seed=0):
    torch.manual_seed(seed)
    model = CodeDenoiser(sizes)
    model.sd.copy_(SD)
    return model


class BestLinear(CodeDenoiser):
    """The posterior mean of the normal codes of `batch`: no denoiser does better."""

    def forward(self, y, sigma, group_sigma, context, attributes, **_):
        noise = self.per_coordinate(torch.cat([sigma[:, None], group_sigma], 1))
        covariance = (mixing() @ mixing().T).expand(len(y), -1, -1)
        return (
            covariance @ torch.linalg.solve(covariance + noise.square().diag_embed(), y[..., None])
        )[..., 0]


def loss_of(model, codes, *, config=CONFIG, weight=None, seed=3, drop=False):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.ones(K) if weight is None else weight
    with torch.no_grad():
        return float(denoising_loss(model, codes, weight, config, generator, drop=drop))


# --- Loss ------------------------------------------------------------------------------------


def test_the_loss_is_one_where_the_network_predicts_nothing():
    # A fresh network's last layer is zero, whatever the codes' deviations and the noise.
    codes = batch(20_000, mixed=False)
    assert loss_of(new_model(), codes) == pytest.approx(1, abs=0.02)
    low = replace(CONFIG, log_sigma_mean=-5.0, log_sigma_sd=0.1)
    assert loss_of(new_model(), codes, config=low) == pytest.approx(1, abs=0.02)


def test_the_loss_stays_one_under_a_weight_of_mean_one():
    weight = torch.tensor([3.0, 1.0, 1.0, 0.5, 0.25, 0.25])
    codes = batch(20_000, mixed=False)
    assert loss_of(new_model(), codes, weight=weight) == pytest.approx(1, abs=0.03)
    only = torch.tensor([0.0, 0, 0, 0, 0, 6])
    assert loss_of(new_model(), codes, weight=only) == pytest.approx(1, abs=0.03)


def test_the_best_denoiser_of_dependent_codes_has_a_lower_loss():
    best = BestLinear(SIZES)
    best.sd.copy_(SD)
    assert loss_of(best, batch(4000)) < 0.85
    assert loss_of(new_model(), batch(4000)) > 0.95


def test_dropped_contexts_and_tokens_become_null_at_their_shares():
    model, seen = new_model(), []
    model.register_forward_pre_hook(lambda _, args: seen.append(args))
    codes = batch(4000)
    codes.attributes.clamp_(max=1)
    config = replace(CONFIG, context_drop=0.3, attribute_drop=0.6)
    loss_of(model, codes, config=config, drop=True)
    loss_of(model, codes, config=config, drop=False)
    _, _, _, context, tokens = seen[0]
    gone = context.isnan()
    assert torch.equal(gone.all(1), gone.any(1))
    assert float(gone.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float((tokens == NULL).float().mean()) == pytest.approx(0.6, abs=0.03)
    assert torch.equal(tokens[tokens != NULL], codes.attributes[tokens != NULL])
    _, _, _, context, tokens = seen[1]
    assert torch.equal(context, codes.context)
    assert torch.equal(tokens, codes.attributes)


# --- Noise -----------------------------------------------------------------------------------


def drawn(n=20_000, **settings):
    config = replace(CONFIG, **settings)
    return draw_noise(new_model(), n, config, torch.Generator().manual_seed(0))


def test_groups_are_plain_kept_and_hidden_at_their_shares():
    noise = drawn()
    ratio = noise.group_sigma / noise.sigma[:, None]
    plain, kept = (
        torch.isclose(ratio, torch.tensor(1.0)),
        torch.isclose(ratio, torch.tensor(1 / KEEP_FACTOR)),
    )
    assert float(kept.float().mean()) == pytest.approx(0.75 * 0.25, abs=0.01)
    assert float(plain.float().mean()) == pytest.approx(0.25 + 0.75 * 0.5, abs=0.015)
    hidden = ~plain & ~kept
    assert (ratio[hidden] > 1).all()
    # In a quarter of the faces no group has a policy, beside those where all came out plain.
    assert float(plain.all(1).float().mean()) == pytest.approx(0.25 + 0.75 * 0.25, abs=0.015)


def test_levels_stay_in_range_and_reach_the_top_where_hidden():
    noise = drawn()
    assert float(noise.sigma.min()) >= 0.003 * (1 - 1e-5)
    for levels in (noise.sigma, noise.group_sigma):
        assert SIGMA_MAX < float(levels.max()) <= 1.25 * SIGMA_MAX * (1 + 1e-5)
    assert float(noise.group_sigma.min()) >= 0.003 / KEEP_FACTOR * (1 - 1e-5)


def test_the_middle_of_the_levels_is_where_the_settings_say():
    noise = drawn(log_sigma_mean=-1.0, log_sigma_sd=0.5)
    log_sigma = noise.sigma.log()
    assert float(log_sigma.median()) == pytest.approx(-1.0, abs=0.05)
    inside = ((log_sigma + 1).abs() < 0.5).float().mean()
    wide = 1.0 / (math.log(1.25 * SIGMA_MAX) - math.log(0.003))
    assert float(inside) == pytest.approx(0.85 * 0.6827 + 0.15 * wide, abs=0.02)


def test_every_coordinate_of_a_group_has_its_level():
    noise = drawn(5)
    assert torch.equal(noise.per_coordinate[:, 0], noise.group_sigma[:, 0])
    assert torch.equal(noise.per_coordinate[:, 1:3], noise.group_sigma[:, 1:].expand(-1, 2))
    assert torch.equal(noise.per_coordinate[:, 3:], noise.sigma[:, None].expand(-1, 3))


def test_independent_groups_are_drawn_without_regard_to_the_rest():
    noise = drawn(independent_groups=True)
    apart = ~torch.isclose(noise.group_sigma[:, 0], noise.sigma)
    assert float(apart.float().mean()) == pytest.approx(0.75 * 0.5, abs=0.02)
    both = torch.stack([noise.group_sigma[apart, 0].log(), noise.sigma[apart].log()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.05


# --- Runs ------------------------------------------------------------------------------------


class KilledError(Exception):
    """Stands for a kill: raised while a run reports, so nothing after that is executed."""


def trainer(folder, *, config=CONFIG, sizes=SIZES, seed=0):
    folder.mkdir(exist_ok=True)
    return Trainer(
        new_model(sizes, seed=seed), batch(2048), batch(256, seed=9), torch.ones(K),
        config=config, folder=folder,
    )  # fmt: skip


def killed_after(n_faces):
    def report(row):
        if row["faces"] >= n_faces:
            raise KilledError

    return report


def quiet(_):
    return None


def test_a_run_lowers_the_validation_loss_and_returns_the_best_weights(tmp_path):
    rows = []
    run = trainer(tmp_path, config=replace(CONFIG, n_faces=8192))
    best = run.run(report=rows.append)
    losses = [row["validation_loss"] for row in rows]
    assert losses[0] < 1.05
    assert min(losses) < 0.93
    assert run.best[0] == min(losses)
    assert [json.loads(line) for line in (tmp_path / "loss.jsonl").read_text().splitlines()] == rows
    model = new_model()
    model.load_state_dict(best, strict=False)
    assert set(best) == {name for name, _ in model.named_parameters()}
    codes = batch(4000, seed=9)
    assert loss_of(model.eval(), codes) < 0.95 < loss_of(new_model().eval(), codes)


def test_validation_does_not_disturb_training(tmp_path):
    often = trainer(tmp_path / "often", config=replace(CONFIG, validate_every=128, patience=10**6))
    often.run(report=quiet)
    seldom = trainer(tmp_path / "seldom", config=replace(CONFIG, validate_every=10**9))
    seldom.run(report=quiet)
    for name, value in often.average.items():
        assert torch.equal(value, seldom.average[name])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    short = replace(CONFIG, n_faces=1024)
    runs = []
    for i, seed in enumerate((0, 0, 1)):
        run = trainer(tmp_path / str(i), config=replace(short, seed=seed))
        run.run(report=quiet)
        runs.append(run.average["into.weight"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("killed_at", [512, 1536, 3072])
def test_a_killed_run_resumes_to_the_same_weights_to_the_bit(tmp_path, killed_at):
    whole = trainer(tmp_path / "whole")
    expected = whole.run(report=quiet)
    killed = trainer(tmp_path / "killed")
    with pytest.raises(KilledError):
        killed.run(report=killed_after(killed_at))
    # A new process starts from other weights; the checkpoint must bring all of the state.
    again = trainer(tmp_path / "killed", seed=77)
    assert again.resume()
    assert 0 < again.step_index <= killed_at // CONFIG.batch_size
    best = again.run(report=quiet)
    for name, value in expected.items():
        assert torch.equal(best[name], value)
    for name, value in whole.average.items():
        assert torch.equal(again.average[name], value)
    assert again.best == whole.best


def test_a_finished_run_resumes_without_training_again(tmp_path):
    first = trainer(tmp_path)
    expected = first.run(report=quiet)
    rows = []
    again = trainer(tmp_path, seed=5)
    assert again.resume()
    best = again.run(report=rows.append)
    assert rows == []
    assert all(torch.equal(best[name], expected[name]) for name in expected)
    assert again.log == first.log


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path):
    assert not trainer(tmp_path).resume()


def test_training_stops_when_validation_no_longer_improves(tmp_path, monkeypatch):
    losses = iter([0.9, 0.7, 0.8, 0.6, 0.61, 0.62, 0.6, 0.1])

    def given(*args, drop):
        return denoising_loss(*args, drop=True) if drop else torch.tensor(next(losses))

    monkeypatch.setattr(training, "denoising_loss", given)
    run = trainer(tmp_path, config=replace(CONFIG, n_faces=128 * 60, patience=3))
    run.run(report=quiet)
    assert run.best == (pytest.approx(0.6), 4 * 4)
    assert run.step_index == (4 + 3) * 4 < run.total_steps
    assert len(run.log) == 7


def test_the_rate_warms_up_and_falls_to_zero(tmp_path):
    run, rates = trainer(tmp_path, config=replace(CONFIG, n_faces=128 * 20)), []
    step = run.optimizer.step

    def record(*args, **kwargs):
        rates.append(run.optimizer.param_groups[0]["lr"] / CONFIG.learning_rate)
        return step(*args, **kwargs)

    run.optimizer.step = record
    run.run(report=quiet)
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rates[-6:] == pytest.approx([i / 6 for i in (6, 5, 4, 3, 2, 1)])


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    run = trainer(tmp_path, config=replace(CONFIG, n_faces=512))
    run.run(report=quiet)
    before = run.checkpoint.read_bytes()

    def half(_, path):
        path.write_bytes(b"half a file")
        raise KilledError

    monkeypatch.setattr(torch, "save", half)
    run.step_index += 1
    with pytest.raises(KilledError):
        run.save()
    assert run.checkpoint.read_bytes() == before


def test_a_resumed_run_with_dropout_gives_the_same_weights_to_the_bit(tmp_path):
    sizes = replace(SIZES, dropout=0.2)
    torch.manual_seed(1)
    whole = trainer(tmp_path / "whole", sizes=sizes)
    expected = whole.run(report=quiet)
    killed = trainer(tmp_path / "killed", sizes=sizes)
    with pytest.raises(KilledError):
        killed.run(report=killed_after(1536))
    again = trainer(tmp_path / "killed", sizes=sizes)
    again.resume()
    best = again.run(report=quiet)
    assert all(torch.equal(best[name], value) for name, value in expected.items())


def test_training_runs_where_only_torch_and_numpy_are_installed():
    blocked = ["PIL", "dlib", "scipy", "diffusers", "transformers", "gradio", "datasets"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); "
    code += "import privacy_core.diffusion.training"
    subprocess.run([sys.executable, "-c", code], check=True)
