"""What surrounds a model of the Hub: the table, the device, the steps, the repair, the curves."""

import math
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privacy_core.backends import BACKENDS, HUB_MODELS, HubTools, curves, load_backend
from privacy_core.backends.device import Machine, Placement, place
from privacy_core.backends.registry import chosen
from privacy_core.backends.repair import (
    MOST_TRIES,
    TOLERANCE,
    Step,
    repair_ladder,
    target_distance,
)
from privacy_core.backends.steps import start_at
from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.schema import StrengthCurve

pytestmark = pytest.mark.filterwarnings(
    # diffusers hands tensors to NumPy in a way that NumPy no longer likes.
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
SHA = "0123456789abcdef0123456789abcdef01234567"
SD15 = HUB_MODELS["sd15"]

# --- The table -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", HUB_MODELS.values(), ids=list(HUB_MODELS))
def test_each_row_names_classes_that_the_installed_diffusers_has(model):
    call = getattr(diffusers, model.pipeline).__call__
    for argument in ("prompt", "image", "mask_image", "strength", "generator", *model.call):
        assert argument in call.__wrapped__.__code__.co_varnames
    assert hasattr(diffusers, model.scheduler)
    assert model.side % 128 == 0
    assert model.revision is None or len(model.revision) == 40


def test_no_name_is_used_twice_and_none_holds_an_at_sign():
    assert not set(HUB_MODELS) & set(BACKENDS)
    assert not any("@" in name for name in HUB_MODELS)


def test_models_whose_licence_limits_their_use_are_refused_until_it_is_accepted():
    closed = {name for name, model in HUB_MODELS.items() if model.accept_licence}
    assert closed == {"flux1-fill", "sd-turbo", "sdxl-turbo", "sd15-face-id"}
    for name in closed:
        commits = SHA if HUB_MODELS[name].adapter is None else f"{SHA}+{SHA}"
        page = f"co/{HUB_MODELS[name].limited_repo_id},"
        with pytest.raises(InvalidArgumentError, match=rf"{name}.*licence.*--accept-licence") as no:
            chosen(f"{name}@{commits}", accept_licence=False)
        assert page in str(no.value)
        assert chosen(f"{name}@{commits}", accept_licence=True) == (HUB_MODELS[name], commits)
    assert HUB_MODELS["sd15-face-id"].limited_repo_id == "h94/IP-Adapter-FaceID"
    assert chosen(f"sd15@{SHA}", accept_licence=False)[0] is SD15


@pytest.mark.parametrize("name", ["sd15", "sd15@", "sd15@main", f"sd15@{SHA[:12]}", f"sd15@{SHA}0"])
def test_a_model_without_a_full_commit_is_refused_with_where_to_find_one(name):
    with pytest.raises(InvalidArgumentError) as error:
        chosen(name, accept_licence=True)
    assert "40 hexadecimal digits" in str(error.value)
    assert f"https://huggingface.co/{SD15.repo_id}/commits/main" in str(error.value)
    assert "--backend sd15@SHA" in str(error.value)


def test_a_commit_pinned_in_the_table_is_used_unless_another_is_named():
    models = {"sd15": replace(SD15, revision=SHA)}
    other = SHA[::-1]
    assert chosen("sd15", accept_licence=False, models=models)[1] == SHA
    assert chosen(f"sd15@{other}", accept_licence=False, models=models)[1] == other


def test_a_model_with_an_adapter_takes_a_commit_of_each():
    revision = f"{SHA}+{SHA[::-1]}"
    model, found = chosen(f"sd15-lcm@{revision}", accept_licence=False)
    assert found == revision
    for wrong in (SHA, f"{revision}+{SHA}", f"{SHA}+main"):
        with pytest.raises(InvalidArgumentError) as error:
            chosen(f"sd15-lcm@{wrong}", accept_licence=False)
        assert "sd15-lcm@SHA+SHA" in str(error.value)
        assert f"{model.adapter.repo_id}/commits/main" in str(error.value)
    with pytest.raises(InvalidArgumentError, match="sd15@SHA"):
        chosen(f"sd15@{revision}", accept_licence=False)


def test_unknown_names_are_refused_with_all_known_ones():
    for name in ("magic", f"magic@{SHA}", f"blur@{SHA}"):
        with pytest.raises(InvalidArgumentError) as error:
            load_backend(name)
        assert all(known in str(error.value) for known in (*BACKENDS, *HUB_MODELS))
    with pytest.raises(InvalidArgumentError, match="'magic'"):
        chosen("magic", accept_licence=True)


# --- The device ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "memory", "bfloat16", "expected"),
    [
        ("cuda", 24, True, Placement("cuda", torch.bfloat16, "none")),
        ("cuda", 24, False, Placement("cuda", torch.float16, "none")),
        ("cuda", 10, True, Placement("cuda", torch.bfloat16, "model")),
        ("cuda", 4, True, Placement("cuda", torch.bfloat16, "sequential")),
        ("mps", 24, True, Placement("mps", torch.bfloat16, "none")),
        ("cpu", 64, True, Placement("cpu", torch.float32, "none")),
        ("cpu", 24, True, Placement("cpu", torch.bfloat16, "none")),
    ],
)
def test_precision_and_offload_follow_from_the_device_and_its_memory(
    device, memory, bfloat16, expected
):
    assert place(Machine(device, memory, bfloat16), 12.0, name="x") == expected


@pytest.mark.parametrize(("device", "memory"), [("cuda", 2), ("mps", 8), ("cpu", 8)])
def test_a_model_that_does_not_fit_is_refused_before_it_is_downloaded(device, memory, tmp_path):
    machine = Machine(device, memory, has_bfloat16=True)
    with pytest.raises(
        ModelError, match=rf"sdxl needs .* on {device}, got {memory}.0 GB.*backends"
    ):
        load_backend(
            f"sdxl@{SHA}", tools=HubTools(client=object(), cache=tmp_path, machine=machine)
        )


def test_this_machine_has_a_device_with_memory():
    machine = Machine.here()
    assert machine.device in {"cpu", "cuda", "mps"}
    assert machine.memory_gb > 0


def test_free_memory_and_precision_are_asked_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8 * 2**30)
    assert Machine.here() == Machine("mps", 8.0, has_bfloat16=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 2**30, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert Machine.here() == Machine("cuda", 6.0, has_bfloat16=False)


# --- The steps -------------------------------------------------------------------------------


def scheduler_of(family, steps):
    if family == "flow time":
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
        return scheduler
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("family", ["flow time", "noise level"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 25, 50])
def test_every_rung_starts_at_its_own_noise_and_falls_to_none(family, steps):
    model = replace(SD15, family=family)
    counts, firsts = [], []
    for sigma in curves.provisional(model).rung_sigmas():
        scheduler = scheduler_of(family, steps)
        full = scheduler.sigmas.tolist()
        timesteps = start_at(scheduler, float(sigma))
        levels = scheduler.sigmas.tolist()
        expected = sigma / (1 + sigma) if family == "flow time" else sigma
        assert levels[0] == pytest.approx(expected, rel=1e-6)
        assert levels[-1] == 0
        assert (np.diff(levels) < 0).all()
        assert (np.diff(timesteps.tolist()) < 0).all()
        assert set(levels[1:]) <= set(full)
        assert len(timesteps) == len(levels) - 1 == scheduler.num_inference_steps
        assert scheduler.begin_index == 0
        counts.append(len(timesteps))
        firsts.append(float(timesteps[0]))
        # What the model is told is what was added.
        if family == "flow time":
            assert firsts[-1] == pytest.approx(1000 * expected, rel=1e-6)
        else:
            kept = scheduler.alphas_cumprod.double().numpy()
            told = np.interp(firsts[-1], np.arange(1000), np.log((1 - kept) / kept) / 2)
            assert told == pytest.approx(math.log(sigma), abs=1e-4)
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] <= steps + 1
    assert len(set(firsts)) == 99
    assert min(firsts) >= 0
    assert max(firsts) < 1000


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_a_scheduler_of_whole_timesteps_starts_at_the_nearest(steps):
    counts = []
    for sigma in curves.provisional(SD15).rung_sigmas():
        scheduler = diffusers.LCMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        )
        scheduler.set_timesteps(steps)
        timesteps = start_at(scheduler, float(sigma))
        kept = float(scheduler.alphas_cumprod[timesteps[0]])
        assert np.sqrt(1 / kept - 1) == pytest.approx(sigma, rel=0.05)
        assert not timesteps.is_floating_point()
        assert (timesteps.diff() < 0).all()
        counts.append(len(timesteps))
    assert counts == sorted(counts)
    assert counts[0] == 1


def test_a_first_step_that_leads_nowhere_is_left_out():
    scheduler = scheduler_of("flow time", 10)
    levels = scheduler.sigmas[:-1].double()
    for just_above, n_below in [(0.01, 6), (0.5, 7)]:
        scheduler = scheduler_of("flow time", 10)
        start = float(levels[3] + just_above * (levels[2] - levels[3]))
        start_at(scheduler, start / (1 - start))
        assert len(scheduler.sigmas) - 2 == n_below


# --- The repair ------------------------------------------------------------------------------

ladders = st.lists(st.floats(0.1, 13.9), min_size=1, max_size=6, unique=True).map(sorted)


@given(sigmas=ladders, slope=st.floats(0.01, 1), target=st.floats(0, 2), seed=st.integers(0, 99))
def test_a_repair_never_takes_noise_away_never_tries_often_and_never_makes_it_worse(
    sigmas, slope, target, seed
):
    tried = []
    jitter = np.random.default_rng(seed).normal(0, 0.05, len(sigmas))

    def again(sigma):
        tried.append(sigma)
        return Step(sigma, None, slope * math.log(sigma / 0.05))

    steps = [
        Step(sigma, None, again(sigma).distance + j)
        for sigma, j in zip(sigmas, jitter, strict=True)
    ]
    tried.clear()
    repaired = repair_ladder(steps, [target] * len(steps), highest=14.0, again=again)
    assert len(tried) <= MOST_TRIES * len(steps)
    assert all(before < 14.0 for before in tried)
    for before, after in zip(steps, repaired, strict=True):
        assert after.sigma >= before.sigma
        assert after.distance >= before.distance
        assert after.is_short or after.distance >= target - TOLERANCE
        if before.distance >= target - TOLERANCE and all(
            other.distance <= before.distance for other in repaired[: repaired.index(after)]
        ):
            assert after is before


def test_bisection_finds_the_least_noise_that_reaches_the_target():
    def again(sigma):
        return Step(sigma, None, math.log(sigma))

    (step,) = repair_ladder([again(1.0)], [1.0 + TOLERANCE], highest=math.exp(4), again=again)
    # Between e^0 and e^4: e^2 is enough, e^1 just so, e^0.5 is not.
    assert math.log(step.sigma) == pytest.approx(1.0)


def test_a_rung_nearer_to_the_original_than_a_weaker_one_is_repaired_without_any_target():
    steps = [Step(1.0, None, 0.5), Step(2.0, None, 0.4), Step(4.0, None, 0.6)]
    repaired = repair_ladder(
        steps, [None] * 3, highest=14.0, again=lambda sigma: Step(sigma, "new", 0.55)
    )
    assert [step.distance for step in repaired] == [0.5, 0.55, 0.6]
    assert [step.made for step in repaired] == [None, "new", None]


def test_targets_are_medians_between_measured_noise_made_monotone():
    curve = StrengthCurve(
        (0.0, 1.0),
        (0.1, 10.0),
        {"sigmas": [0.1, 1.0, 10.0], "median_distance": [0.1, 0.3, 0.2, 0.7]},
    )
    assert target_distance(curve, 0.1) == pytest.approx(0.3)
    assert target_distance(curve, 1.0) == pytest.approx(0.3)
    assert target_distance(curve, math.sqrt(10)) == pytest.approx(0.5)
    assert target_distance(StrengthCurve((0.0, 1.0), (0.1, 10.0)), 1.0) is None


# --- Stored curves -------------------------------------------------------------------------------


CURVE = StrengthCurve((0.0, 0.5, 0.8, 1.0), (0.1, 1.0, 5.0, 14.0), {"recogniser": "r"})


def test_a_curve_is_read_back_for_its_commit_steps_and_size_only(tmp_path):
    path = curves.save(tmp_path / "new", SD15, SHA, CURVE)
    assert [file.name for file in path.parent.iterdir()] == [f"sd15@{SHA}.json"]
    assert curves.load(path.parent, SD15, SHA) == CURVE
    assert curves.load(path.parent, SD15, SHA[::-1]) is None
    assert curves.load(path.parent, replace(SD15, steps=4), SHA) is None
    assert curves.load(path.parent, replace(SD15, side=1024), SHA) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"steps": 25, "side": 512, "strengths": 3}'])
def test_a_damaged_curve_is_refused(tmp_path, text):
    curves.curve_file(tmp_path, SD15, SHA).write_text(text)
    with pytest.raises(ModelError, match="calibrate"):
        curves.load(tmp_path, SD15, SHA)


def test_a_curve_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Make the folder writable"):
        curves.save(tmp_path / "file", SD15, SHA, CURVE)
    curves.curve_file(tmp_path, SD15, SHA).mkdir()
    with pytest.raises(OutputError):
        curves.save(tmp_path, SD15, SHA, CURVE)
    assert not list(tmp_path.glob("*.part"))
