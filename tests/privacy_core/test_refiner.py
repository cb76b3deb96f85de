"""The detail stage: what it may see, what it may change, what survives saving."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.model import REFINER, WEIGHTS, load_model, save_model
from privacy_core.diffusion.refiner import Refiner, RefinerConfig, surrounded
from privacy_core.errors import ModelError
from privacy_core.faces.align import template_mask
from privacy_core.schema import ATTRIBUTES
from tests.privacy_core.tiny import CURVE, tiny_code, tiny_denoiser, tiny_model, tiny_refiner

SIZES = RefinerConfig(width=4, n_blocks=1)
INSIDE = template_mask()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def drawn(n=2, seed=0):
    """Return codes and contexts of a tiny code."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 24, generator=generator), torch.randn(n, 4, generator=generator)


def save(folder, refiner):
    code = tiny_code()
    folder.mkdir(exist_ok=True)
    population = dict.fromkeys(ATTRIBUTES, 0.3)
    save_model(
        folder, code, tiny_denoiser(code), population=population, curve=CURVE, refiner=refiner
    )


# --- What it sees and changes ------------------------------------------------------------------


def test_a_refiner_that_has_learned_nothing_changes_nothing():
    code, (codes, context) = tiny_code(), drawn()
    faces = code.decode(codes)
    assert torch.equal(Refiner(SIZES).refine(code, faces, context), faces)


def test_only_pixels_inside_the_mask_change():
    code, (codes, context) = tiny_code(), drawn()
    faces = code.decode(codes)
    refined = tiny_refiner().refine(code, faces, context)
    changed = (refined != faces).any(3).numpy()
    assert changed[:, INSIDE].mean() > 0.5
    assert not changed[:, ~INSIDE].any()


def test_outside_the_mask_it_sees_what_the_context_says_and_nothing_of_the_frame():
    code, (codes, context) = tiny_code(), drawn()
    faces = code.decode(codes)
    other = faces.clone()
    other[:, ~code.mask] = 7
    refiner = tiny_refiner()
    seen = torch.from_numpy(INSIDE)
    one, two = (refiner.refine(code, f, context)[:, seen] for f in (faces, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, refiner.refine(code, faces, -context)[:, seen])


def test_unknown_surroundings_are_the_mean_ones():
    code, (codes, context) = tiny_code(), drawn()
    faces = code.decode(codes)
    unknown = surrounded(code, faces, torch.full_like(context, torch.nan))
    assert torch.equal(unknown, surrounded(code, faces, torch.zeros_like(context)))


def test_surroundings_are_those_that_have_the_context():
    code = tiny_code()
    rows = torch.linalg.qr(torch.randn(code.context_components.shape[1], 4)).Q.T
    code.context_components.copy_(rows * torch.tensor([3.0, 1.0, 0.5, 0.1])[:, None])
    code.context_mean.copy_(torch.linspace(-0.5, 0.5, len(code.context_mean)))
    _, context = drawn()
    again = (code.surroundings(context) - code.context_mean) @ code.context_components.T
    assert torch.allclose(again, context, atol=1e-4)


def test_a_face_is_refined_alike_alone_and_among_others():
    code, (codes, context) = tiny_code(), drawn(5)
    faces, refiner = code.decode(codes), tiny_refiner(loud=0.1)
    together = refiner.refine(code, faces, context).int()
    alone = torch.cat([refiner.refine(code, faces[i, None], context[i, None]) for i in range(5)])
    assert (together - alone.int()).abs().max() <= 1


# --- In the model ------------------------------------------------------------------------------


def test_a_model_refines_what_it_generates():
    codes, context = drawn()
    plain = tiny_model()
    refined = replace(plain, refiner=tiny_refiner())
    expected = refined.refiner.refine(plain.code, plain.code.decode(codes), context)
    assert torch.equal(refined.pictures(codes, context), expected)
    assert torch.equal(plain.pictures(codes, context), plain.code.decode(codes))
    y, ones = 20 * codes, torch.ones_like(codes)
    given = {"context": context, "attributes": torch.full((2, 5), NULL)}
    faces = [m.generate(y, torch.full((2,), 20.0), ones, **given) for m in (plain, refined)]
    assert not torch.equal(*faces)


def test_a_saved_refiner_comes_back_at_half_the_size(tmp_path):
    refiner = tiny_refiner()
    save(tmp_path, refiner)
    model = load_model(tmp_path, dtype=torch.float32)
    assert model.refiner.sizes == SIZES
    assert not model.refiner.training
    for name, value in refiner.state_dict().items():
        assert torch.equal(model.refiner.state_dict()[name], value.half().float()), name
    n_numbers = sum(value.numel() for value in refiner.state_dict().values())
    assert (tmp_path / REFINER / WEIGHTS).stat().st_size < 2 * n_numbers + 4000


def test_the_revision_follows_the_refiner_and_none_stays_behind(tmp_path):
    revisions = []
    for refiner in (None, tiny_refiner(), tiny_refiner(seed=1)):
        save(tmp_path, refiner)
        revisions.append(load_model(tmp_path).revision)
    assert len(set(revisions)) == 3
    save(tmp_path, None)
    assert load_model(tmp_path).refiner is None
    assert load_model(tmp_path).revision == revisions[0]


def test_the_revision_ignores_what_diffusers_adds_to_the_settings(tmp_path):
    save(tmp_path, tiny_refiner())
    before = load_model(tmp_path).revision
    path = tmp_path / REFINER / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({"_diffusers_version": "1", **dict(reversed(settings.items()))}))
    assert load_model(tmp_path).revision == before


@pytest.mark.parametrize("damage", ["missing", "cut", "other size"])
def test_a_damaged_refiner_is_refused(tmp_path, damage):
    save(tmp_path, tiny_refiner())
    path = tmp_path / REFINER / WEIGHTS
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        config = path.with_name("config.json")
        config.write_text(config.read_text().replace('"width": 4', '"width": 8'))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path)


def test_a_model_without_refiner_has_no_folder_for_it(tmp_path):
    save(tmp_path, tiny_refiner())
    save(tmp_path, None)
    assert not (tmp_path / REFINER).exists()
    assert json.loads((tmp_path / "model_index.json").read_text())[REFINER] == [None, None]


def test_pictures_are_whole_numbers_between_0_and_255_even_from_a_loud_refiner():
    code, (codes, context) = tiny_code(), drawn()
    refined = tiny_refiner(loud=50.0).refine(code, code.decode(codes), context).numpy()
    assert refined.dtype == np.uint8
    assert {0, 255} <= set(np.unique(refined[:, INSIDE]).tolist())
