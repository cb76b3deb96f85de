"""Fitting the detail stage: what it is shown, what it learns, and going on after a kill."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.diffusion.code import known_mask
from privacy_core.diffusion.fit_code import AlignedFaces
from privacy_core.diffusion.fit_refiner import RefinerTrainer, fit_refiner
from privacy_core.diffusion.refiner import RefinerConfig, surrounded
from privacy_core.diffusion.refiner_examples import (
    RefinerExamples,
    RefinerFitConfig,
    draw_examples,
    sharpest,
)
from tests.privacy_core.tiny import tiny_code, tiny_denoiser

N = 6
CONFIG = RefinerFitConfig(
    RefinerConfig(8, 1), n_steps=24, n_paired=N, n_drawn=N, batch_size=4, sharpest=1.0,
    adversary=0.0, ema=0.5,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def quiet(*_):
    return None


def aligned(frames):
    n = len(frames)
    whole = np.array([[0, 0], [127, 0], [127, 127], [0, 127]], np.float32)
    nobody = np.full(n, -1)
    return AlignedFaces(frames, np.tile(whole, (n, 1, 1)), nobody, np.full((n, 5), -1), nobody)


def striped():
    """Return codes and photos: what they decode to, with stripes that no code can draw."""
    code = tiny_code()
    codes = 0.5 * torch.randn(N, 24, generator=torch.Generator().manual_seed(0))
    frames = code.decode(codes).numpy().astype(int)
    # Rows, so that a mirrored face has the same.
    frames[:, ::2] += 15
    frames[:, 1::2] -= 15
    return code, codes, aligned(np.clip(frames, 0, 255).astype(np.uint8))


def trained(folder, config=CONFIG, *, stop_after=None):
    code, codes, faces = striped()
    photo = torch.arange(N).repeat(2)
    examples = RefinerExamples(codes.repeat(2, 1).half(), photo, torch.arange(2 * N) < N)
    trainer = RefinerTrainer(code, faces, examples, config=config, folder=folder)
    trainer.resume()

    def report(_, done, __):
        if done == stop_after:
            raise KeyboardInterrupt

    return code, codes, faces, trainer.run(report=report)


# --- Examples ----------------------------------------------------------------------------------


def test_the_sharpest_photos_are_those_with_the_strongest_edges_for_their_contrast():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    soft = np.repeat(np.repeat(sharp[:, ::8, ::8], 8, 1), 8, 2)
    frames = np.concatenate([soft[:2], sharp, soft[2:]])
    assert sharpest(aligned(frames), 0.5).tolist() == [2, 3, 4]
    assert sharpest(aligned(frames), 1.0).tolist() == list(range(6))
    assert len(sharpest(aligned(frames), 0.01)) == 1


def test_paired_faces_are_nearer_to_their_photos_than_drawn_ones():
    code, codes, faces = striped()
    config = replace(CONFIG, n_paired=12, n_drawn=12)
    examples = draw_examples(code, tiny_denoiser(code), faces, config=config, report=quiet)
    assert examples.codes.dtype == torch.float16
    assert examples.paired.sum() == 12
    assert examples.photo.max() < N
    away = (examples.codes.float() - codes[examples.photo]).norm(dim=1)
    assert away[examples.paired].mean() < 0.7 * away[~examples.paired].mean()


def test_what_is_drawn_from_pure_noise_holds_nothing_of_the_photo():
    code, _, faces = striped()
    other = aligned(255 - faces.frames)
    # The surroundings are grey in both.
    other.frames[:, ~code.mask.numpy()] = faces.frames[:, ~code.mask.numpy()]
    config = replace(CONFIG, n_paired=0, n_drawn=24)
    one, two = (
        draw_examples(code, tiny_denoiser(code), f, config=config, report=quiet).codes
        for f in (faces, other)
    )
    same = (one == two).all(1)
    assert 4 <= int(same.sum()) <= 20  # half of them are drawn from pure noise


# --- Learning ----------------------------------------------------------------------------------


def test_a_refiner_learns_what_the_code_cannot_draw(tmp_path):
    config = replace(CONFIG, n_steps=30, learning_rate=0.02, decay_share=1e-6)
    code, codes, faces, refiner = trained(tmp_path, config)
    decoded = code.decode(codes)
    photos = torch.from_numpy(faces.frames)
    context = code.context(photos, known_mask(faces.quads))
    refined = refiner.refine(code, decoded, context)

    def error(frames):
        return float((frames.float() - photos.float())[:, code.mask].abs().mean())

    assert error(refined) < 0.5 * error(decoded)


def test_a_killed_fit_goes_on_to_the_same_weights(tmp_path):
    config = replace(CONFIG, n_steps=4, checkpoint_minutes=0.0, adversary=0.1)
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
    whole = trained(folders[0], config)[3]
    with pytest.raises(KeyboardInterrupt):
        trained(folders[1], config, stop_after=2)
    again = trained(folders[1], config)[3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_adversary_changes_what_is_learned(tmp_path):
    states = []
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        folder.mkdir()
        config = replace(CONFIG, n_steps=3, adversary=weight, alone=0.0)
        states.append(trained(folder, config)[3].state_dict())
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_fit_draws_its_examples_once(tmp_path):
    code, _, faces = striped()
    config, stages = replace(CONFIG, n_steps=2), []
    given = (code, tiny_denoiser(code), faces)
    for _ in range(2):
        found = fit_refiner(
            *given, config=config, folder=tmp_path, report=lambda stage, *_: stages.append(stage)
        )
    assert stages == ["generated faces", "refiner", "refiner"]
    assert not found.training
    assert fit_refiner(
        *given, config=replace(config, n_steps=0), folder=tmp_path, report=quiet
    ) is None  # fmt: skip


def test_the_surroundings_are_told_faintly_or_not_at_all_now_and_then(tmp_path):
    code, codes, faces = striped()
    # Surroundings that differ from the mean, so that a context of nothing can be told from them.
    faces.frames[:, ~code.mask.numpy()] = 220
    examples = RefinerExamples(codes.half(), torch.arange(N), torch.arange(N) < N // 2)
    config = replace(CONFIG, batch_size=64)
    trainer = RefinerTrainer(code, faces, examples, config=config, folder=tmp_path)
    batch = trainer._batch()
    clean = batch.clean
    assert batch.paired.sum() == 32
    assert not torch.equal(clean, batch.relit)
    outside = ~code.mask
    assert torch.equal(clean[:, :, outside], batch.relit[:, :, outside])
    assert torch.equal(clean[:, :, outside], batch.target[:, :, outside])
    nothing = surrounded(code, code.decode(codes[:1]), torch.zeros(1, 4))[0][:, outside]
    mean = torch.stack([(one[:, outside] - nothing).abs().max() for one in clean])
    assert 1 <= int((mean < 1e-4).sum()) <= 20
