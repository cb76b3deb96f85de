"""The model as a `diffusers` pipeline: the same folder, the same pictures."""

import json
import warnings

import numpy as np
import pytest
import torch

from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.model import load_model, save_model
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import ATTRIBUTES, AttributePolicy
from tests.privacy_core.tiny import GROUPS, write_tiny_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of diffusers, at import
    from privacy_core.diffusion.pipeline import (
        CodeDenoiserModel,
        CodeDiffusionPipeline,
        LinearCodeModel,
        RefinerModel,
    )

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(folder):
    return CodeDiffusionPipeline.from_pretrained(folder)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(output):
    return np.stack([np.asarray(image) for image in output.images])


def test_the_shipped_folder_opens_as_a_pipeline(pipeline, folder):
    model = load_model(folder, dtype=torch.float32)
    assert isinstance(pipeline.code, LinearCodeModel)
    assert isinstance(pipeline.denoiser, CodeDenoiserModel)
    assert not pipeline.denoiser.training
    assert pipeline.code.sizes == model.code.sizes
    assert pipeline.code.components.dtype == torch.int8
    assert isinstance(pipeline.refiner, RefinerModel)
    assert pipeline.refiner.sizes == model.refiner.sizes
    for name in ("code", "denoiser", "refiner"):
        mine, theirs = getattr(pipeline, name), getattr(model, name)
        state = theirs.state_dict()
        assert set(mine.state_dict()) == set(state)
        assert all(torch.equal(value, state[name]) for name, value in mine.state_dict().items())


def test_the_same_latents_give_the_pictures_of_the_embedded_model(pipeline, folder):
    model = load_model(folder, dtype=torch.float32)
    y, context = torch.randn(3, 24, generator=seeded()), torch.randn(3, 4, generator=seeded(1))
    tokens = torch.full((3, 5), NULL)
    tokens[:, list(ATTRIBUTES).index("eyeglasses")] = 1
    expected = model.generate(
        y, torch.full((3,), 0.8), torch.ones(3, 24), context=context, attributes=tokens
    )
    output = pipeline(latents=y, sigma=0.8, context=context, attributes={"eyeglasses": "yes"})
    assert np.array_equal(pixels(output), expected.numpy())
    assert output.images[0].size == (128, 128)


def test_pure_noise_is_the_default_and_comes_from_the_generator(pipeline):
    faces = pixels(pipeline(batch_size=2, generator=seeded()))
    assert np.array_equal(faces, pixels(pipeline(batch_size=2, generator=seeded())))
    assert not np.array_equal(faces, pixels(pipeline(batch_size=2, generator=seeded(1))))
    latents = SIGMA_MAX * torch.randn(2, 24, generator=seeded())
    assert np.array_equal(faces, pixels(pipeline(latents=latents)))


def test_attributes_context_and_steps_change_the_face(pipeline):
    latents = SIGMA_MAX * torch.randn(1, 24, generator=seeded())
    faces = [
        pixels(pipeline(latents=latents, **settings))
        for settings in (
            {}, {"attributes": {"smiling": "yes"}}, {"attributes": {"smiling": "no"}},
            {"attributes": {"beard": "yes"}}, {"context": torch.ones(1, 4)},
            {"num_inference_steps": 4},
        )
    ]  # fmt: skip
    for i, face in enumerate(faces):
        assert not any(np.array_equal(face, other) for other in faces[:i])


@pytest.mark.parametrize("settings", [
    {"attributes": {"hat": "yes"}}, {"attributes": {"smiling": "a lot"}}, {"sigma": 0.0},
    {"sigma": float("nan")}, {"num_inference_steps": 0},
])  # fmt: skip
def test_what_cannot_be_made_is_refused(pipeline, settings):
    with pytest.raises(InvalidArgumentError):
        pipeline(latents=torch.zeros(1, 24), **settings)


def test_a_saved_pipeline_is_a_model_folder(pipeline, folder, tmp_path):
    pipeline.save_pretrained(tmp_path)
    original, saved = (load_model(f, dtype=torch.float32) for f in (folder, tmp_path))
    assert saved.curve is None
    assert saved.population == original.population
    for part in ("code", "denoiser", "refiner"):
        state = getattr(original, part).state_dict()
        for name, value in getattr(saved, part).state_dict().items():
            assert torch.equal(value, state[name]), name
    again = CodeDiffusionPipeline.from_pretrained(tmp_path)
    faces = pixels(pipeline(batch_size=2, generator=seeded()))
    assert np.array_equal(pixels(again(batch_size=2, generator=seeded())), faces)


def test_a_folder_without_refiner_opens_as_a_pipeline_that_draws_none(folder, tmp_path):
    whole = load_model(folder, dtype=torch.float32)
    plain = tmp_path / "plain"
    plain.mkdir()
    save_model(
        plain, whole.code, whole.denoiser, population=whole.population, curve=None, refiner=None
    )
    pipeline = CodeDiffusionPipeline.from_pretrained(plain)
    assert pipeline.refiner is None
    y = torch.randn(1, 24, generator=seeded())
    faces = pixels(pipeline(latents=y, sigma=0.8))
    assert not np.array_equal(
        faces, pixels(CodeDiffusionPipeline.from_pretrained(folder)(latents=y, sigma=0.8))
    )


def test_the_groups_keep_their_order_through_diffusers(pipeline, tmp_path):
    # Diffusers sorts dictionaries when it saves; hiding gender then hid the eyeglasses.
    pipeline.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "code" / "config.json").read_text())
    assert [name for name, _ in stored["groups"]] == list(GROUPS)
    assert list(GROUPS) != sorted(GROUPS)
    model = load_model(tmp_path)
    assert list(model.code.sizes.groups) == list(model.denoiser.sizes.groups) == list(GROUPS)
    factors = model.code.policy_factors(AttributePolicy(keep=("gender",)))
    assert factors[0] > 1


def test_parts_made_in_python_keep_their_groups_order_too(tmp_path):
    LinearCodeModel(24, 4, GROUPS, 1.5).save_pretrained(tmp_path)
    assert list(LinearCodeModel.from_pretrained(tmp_path).sizes.groups) == list(GROUPS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_the_code_and_the_preconditioning_whole(pipeline, folder, dtype):
    half = CodeDiffusionPipeline.from_pretrained(folder, dtype=dtype)
    assert half.denoiser.into.weight.dtype == dtype
    assert half.denoiser.sd.dtype == half.code.metric.dtype == half.code.mean.dtype == torch.float32
    faces, expected = (pixels(p(batch_size=2, generator=seeded())) for p in (half, pipeline))
    assert np.abs(faces.astype(int) - expected).mean() < 2
