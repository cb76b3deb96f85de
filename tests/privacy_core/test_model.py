"""The model folder: what survives saving, what its digest covers, what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file

from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.model import (
    CALIBRATION,
    WEIGHTS,
    load_model,
    native_dtype,
    save_curve,
    save_model,
    weights_digest,
)
from privacy_core.errors import ModelError
from privacy_core.schema import ATTRIBUTES, AttributePolicy, StrengthCurve
from tests.privacy_core.tiny import CURVE, GROUPS, tiny_code, tiny_denoiser, write_tiny_model

POPULATION = {name: 0.1 * i for i, name in enumerate(ATTRIBUTES)}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    return write_tiny_model(tmp_path / "model")


def save(folder, code, denoiser, *, curve=CURVE):
    folder.mkdir(exist_ok=True)
    save_model(folder, code, denoiser, population=POPULATION, curve=curve)


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_saved_model_comes_back(tmp_path):
    code, denoiser = tiny_code(), tiny_denoiser(tiny_code())
    code.sd.copy_(torch.linspace(2, 0.3, 24) / 3)
    denoiser.sd.copy_(code.sd)
    save(tmp_path, code, denoiser)
    model = load_model(tmp_path, dtype=torch.float32)
    assert model.code.sizes == code.sizes
    assert list(model.code.sizes.groups) == list(GROUPS)
    assert model.denoiser.sizes == denoiser.sizes
    assert not model.denoiser.training
    assert model.curve == CURVE
    assert model.population == POPULATION
    for name in ("components", "component_scale", "metric", "inverse_metric", "sd"):
        assert torch.equal(getattr(model.code, name), getattr(code, name)), name
    assert torch.equal(model.denoiser.sd, denoiser.sd)
    for name, value in denoiser.state_dict().items():
        assert torch.allclose(model.denoiser.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_weights_take_two_bytes_each_and_components_one(folder):
    stored = load_file(folder / "denoiser" / WEIGHTS)
    assert {value.dtype for name, value in stored.items() if name != "sd"} == {torch.float16}
    code = load_file(folder / "code" / WEIGHTS)
    assert code["components"].dtype == torch.int8
    assert code["metric"].dtype == code["sd"].dtype == torch.float32


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 0.1)])
def test_a_loaded_denoiser_estimates_as_the_saved_one(tmp_path, dtype, tolerance):
    denoiser = tiny_denoiser(tiny_code())
    save(tmp_path, tiny_code(), denoiser)
    loaded = load_model(tmp_path, dtype=dtype).denoiser
    assert loaded.into.weight.dtype == dtype
    assert loaded.sd.dtype == torch.float32
    y = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    given = (y, torch.ones(4), torch.ones(4, 5), None, torch.full((4, 5), NULL))
    assert torch.allclose(loaded(*given), denoiser(*given), atol=tolerance)


def test_the_precision_is_the_processors_own_unless_another_is_asked(folder):
    assert load_model(folder).denoiser.into.weight.dtype == native_dtype()
    assert native_dtype() in (torch.bfloat16, torch.float32)


def test_generating_gives_frames_and_repeats_to_the_bit(folder):
    model = load_model(folder)
    y = 20 * torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    given = {"context": torch.zeros(2, 4), "attributes": torch.full((2, 5), NULL)}
    frames = model.generate(y, torch.full((2,), 20.0), torch.ones(2, 24), **given)
    assert frames.shape == (2, 128, 128, 3)
    assert frames.dtype == torch.uint8
    assert torch.equal(
        frames, model.generate(y, torch.full((2,), 20.0), torch.ones(2, 24), **given)
    )
    assert not torch.equal(frames[0], frames[1])


# --- Digest ----------------------------------------------------------------------------------


def test_the_revision_follows_the_weights_of_both_parts(tmp_path):
    save(tmp_path, tiny_code(), tiny_denoiser(tiny_code()))
    revisions = {load_model(tmp_path).revision}
    assert weights_digest(tmp_path).startswith(*revisions)
    save(tmp_path, tiny_code(seed=1), tiny_denoiser(tiny_code()))
    revisions.add(load_model(tmp_path).revision)
    save(tmp_path, tiny_code(), tiny_denoiser(tiny_code(), seed=1))
    revisions.add(load_model(tmp_path).revision)
    assert len(revisions) == 3
    save(tmp_path, tiny_code(), tiny_denoiser(tiny_code()))
    assert load_model(tmp_path).revision in revisions


@pytest.mark.parametrize(
    "settings", [{"clip_ratio": 1.6}, {"groups": [["beard", 1], ["gender", 1], *[
        [name, width] for name, width in list(GROUPS.items())[2:]]]}],
)  # fmt: skip
def test_the_revision_follows_the_clip_and_the_order_of_groups(folder, settings):
    # Both change the code, and noise keys are told apart by the revision: one noise vector on two
    # codes gives their difference away.
    before = load_model(folder).revision
    edit(folder / "code" / "config.json", **settings)
    assert load_model(folder, with_curve=False).revision != before
    with pytest.raises(ModelError, match="other weights"):
        load_model(folder)


def test_the_revision_ignores_how_the_settings_are_written(folder):
    before = load_model(folder).revision
    for part in ("code", "denoiser"):
        path = folder / part / "config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({"_note": 1, **dict(reversed(settings.items()))}))
    assert load_model(folder).revision == before


def test_groups_are_written_as_pairs_whose_order_no_writer_of_json_changes(folder):
    for part in ("code", "denoiser"):
        stored = json.loads((folder / part / "config.json").read_text())["groups"]
        assert stored == [[name, width] for name, width in GROUPS.items()]


def test_groups_written_as_a_dictionary_are_read_in_their_order(folder):
    before = load_model(folder).revision
    edit(folder / "code" / "config.json", groups=GROUPS)
    model = load_model(folder)
    assert model.revision == before
    assert model.code.policy_factors(AttributePolicy(hide=("gender",))).argmin() == 0


# --- Curve -----------------------------------------------------------------------------------


def test_a_model_may_be_uncalibrated_and_calibrated_later(tmp_path):
    folder = write_tiny_model(tmp_path, curve=None)
    assert load_model(folder).curve is None
    other = StrengthCurve((0.0, 1.0), (0.1, 3.0), {"n_faces": 7})
    save_curve(folder, other)
    assert load_model(folder).curve == other


def test_the_curve_of_other_weights_is_refused_but_can_be_replaced(tmp_path):
    folder, other = write_tiny_model(tmp_path / "one"), tmp_path / "other"
    save(other, tiny_code(seed=1), tiny_denoiser(tiny_code()))
    (other / CALIBRATION).write_bytes((folder / CALIBRATION).read_bytes())
    with pytest.raises(ModelError, match="calibrate"):
        load_model(other)
    assert load_model(other, with_curve=False).curve is None
    save_curve(other, CURVE)
    assert load_model(other).curve == CURVE


def test_saving_new_weights_without_a_curve_removes_the_old_one(folder):
    save(folder, tiny_code(seed=1), tiny_denoiser(tiny_code()), curve=None)
    assert load_model(folder).curve is None


# --- Damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    "code/config.json", "denoiser/config.json", f"code/{WEIGHTS}", f"denoiser/{WEIGHTS}",
    CALIBRATION,
])  # fmt: skip
def test_a_truncated_file_is_refused(folder, path):
    data = (folder / path).read_bytes()
    (folder / path).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="model"):
        load_model(folder)


@pytest.mark.parametrize("population", [None, {}, {"gender": 0.5}, "half"])
def test_a_folder_without_the_populations_shares_is_refused(folder, population):
    edit(folder / "denoiser" / "config.json", population=population)
    with pytest.raises(ModelError):
        load_model(folder)
