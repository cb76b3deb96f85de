"""Models of the Hub: loaded at a pinned commit, run as ladders, and what of a face they are shown.

Every registered pipeline runs with tiny real components, served by a Hub on this machine.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import diffusers
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from privacy_core.anonymize import Anonymizer
from privacy_core.backends import HUB_MODELS, FaceRequest, HubTools, load_backend
from privacy_core.backends import curves as stored_curves
from privacy_core.backends.device import Machine, Placement
from privacy_core.backends.drawn_identity import drawn_identities
from privacy_core.backends.inpainting import (
    MEASURED,
    NOT_CALIBRATED,
    NOT_PROVEN,
    STILL_LIKE,
    InpaintingBackend,
)
from privacy_core.backends.painter import Painter, load_painter
from privacy_core.backends.registry import PROMPT
from privacy_core.backends.repair import MOST_TRIES
from privacy_core.errors import FaceFailedError, InvalidArgumentError, ModelError
from privacy_core.faces.align import template_mask
from privacy_core.noise import NoiseKey
from privacy_core.report import ladder_report, variant_report
from privacy_core.schema import AttributePolicy, StrengthCurve
from tests.hub_server import HubServer
from tests.privacy_core.tiny import FixedDetector, face_at, smooth_photo
from tests.privacy_core.tiny_pipelines import (
    PIPELINES,
    SIDE,
    save,
    save_adapter,
    save_identity_reader,
)

pytestmark = pytest.mark.filterwarnings(
    # diffusers hands tensors to NumPy in a way that NumPy no longer likes.
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
CPU = Machine("cpu", 64.0, has_bfloat16=True)
QUAD = np.array([[0, 0], [127, 0], [127, 127], [0, 127]], np.float64)
KEY = NoiseKey(b"k" * 32, secret=True)
TINY = MappingProxyType(
    {
        name: replace(model, side=SIDE, memory_gb=0.01, steps=min(4, model.steps))
        for name, model in HUB_MODELS.items()
    }
)
TOKEN = "hf_anna"  # noqa: S105  (of a Hub that lives for these tests)
LADDER = (0.0, 0.01, 0.3, 0.6, 0.99, 1.0)
ADAPTERS = {"sd15-lcm": save_adapter, "sd15-face-id": save_identity_reader}


class Shelf:
    """A Hub with every tiny pipeline in it, and what loads them."""

    def __init__(self, hub, folder):
        self.hub, self.folder, self.shas = hub, folder, {}
        for name in PIPELINES:
            saved = save(name, folder / "made" / name)
            files = {
                path.relative_to(saved).as_posix(): path.read_bytes()
                for path in saved.rglob("*")
                if path.is_file()
            }
            repo = hub.add_repo(TINY[name].repo_id, "model", private=False)
            repo.write(files)
            self.shas[name] = repo.head.id
        for name, save_weights in ADAPTERS.items():
            adapter = TINY[name].adapter
            weights = save_weights(folder / "made" / "adapter" / adapter.file).read_bytes()
            repo = hub.add_repo(adapter.repo_id, "model", private=False)
            repo.write({adapter.file: weights})
            self.shas[name] += f"+{repo.head.id}"

    def tools(self, **changes):
        return HubTools(
            **{
                "client": HfApi(endpoint=self.hub.endpoint, token=TOKEN),
                "cache": self.folder / "cache",
                "curves": self.folder / "curves",
                "machine": CPU,
                "models": TINY,
            }
            | changes
        )

    def load(self, name, *, revision=None, **changes):
        return load_backend(
            f"{name}@{revision or self.shas[name]}",
            accept_licence=True,
            tools=self.tools(**changes),
        )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, HubServer() as hub:
        # This one pipeline paints a megapixel whatever it is given.
        import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_inpaint as qwen

        patch.setattr(qwen, "calculate_dimensions", lambda _area, _ratio: (SIDE, SIDE, None))
        patch.setitem(os.environ, "HF_HUB_DISABLE_PROGRESS_BARS", "1")
        hub.add_user("anna", TOKEN)
        yield Shelf(hub, tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def loaded(shelf):
    """Return a function name → backend; each is loaded once."""
    backends = {}

    def load(name):
        if name not in backends:
            backends[name] = shelf.load(name)
        return backends[name]

    return load


def picture(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:128, 0:128]
    a, b, phase = rng.uniform(0.02, 0.3, (3, 3))
    return (127 + 100 * np.sin(a * x[..., None] + b * y[..., None] + 9 * phase)).astype(np.uint8)


def request(face=1, *, strength=0.5, key=KEY, policy=None, around=9):
    inside = template_mask()[..., None]
    policy = policy or AttributePolicy()
    return FaceRequest(picture(face) * inside, picture(around), QUAD, strength, key, policy)


def frame_of(backend, *arguments, **named):
    (result,) = backend.generate([request(*arguments, **named)])
    return result.frame


class Fading(Painter):
    """Fades the face into the surroundings, the more the more noise; the model is not asked."""

    def _paint(self, filled, faces, sigma, keys):
        share = 0.0 if sigma is None else 1 / (1 + sigma)
        painted = share * np.stack(faces) + (1 - share) * np.stack(filled)
        return (painted / 255).astype(np.float32)


every_model = pytest.mark.parametrize("name", list(HUB_MODELS))
"""All registered models."""


def test_every_registered_model_has_a_tiny_twin():
    assert set(PIPELINES) == set(HUB_MODELS)


# --- Ladders ---------------------------------------------------------------------------------


@every_model
def test_a_ladder_runs_from_the_face_itself_to_noise_alone_and_no_two_rungs_are_equal(loaded, name):
    backend = loaded(name)
    assert type(backend.painter._pipeline).__name__ == HUB_MODELS[name].pipeline
    results = backend.generate([request(strength=strength) for strength in LADDER])
    frames = [result.frame for result in results]
    composed = np.where(template_mask()[..., None], picture(1), picture(9))
    assert (frames[0] == composed).all()
    for frame, next_frame in pairwise(frames):
        assert next_frame.shape == (128, 128, 3)
        assert next_frame.dtype == np.uint8
        assert (frame != next_frame).any()
    sigmas = backend.uncalibrated.rung_sigmas()
    assert [r.sigma for r in results] == [0.0, *sigmas[[0, 29, 59, 98]], None]
    assert [r.strength for r in results] == list(LADDER)
    assert [r.protects for r in results] == [False, True, True, True, True, True]
    for result in results:
        assert result.privacy.epsilon is None
        assert result.privacy.basis == "measured only"
        assert result.privacy.reason == f"{NOT_PROVEN}; {NOT_CALIBRATED}"


@every_model
def test_at_strength_1_nothing_of_the_face_is_read_and_below_it_is(loaded, name):
    backend = loaded(name)
    for strength, differ in [(1.0, False), (0.2, True)]:
        one, other = (frame_of(backend, face, strength=strength) for face in (1, 2))
        assert (one != other).any() == differ
    assert (frame_of(backend, 1, strength=1.0) != frame_of(backend, strength=1.0, around=8)).any()


def test_for_noise_alone_a_face_is_not_even_handed_on(loaded):
    class Checking(Painter):
        def _paint(self, filled, faces, sigma, keys):
            assert sigma is None
            assert all((face == square).all() for face, square in zip(faces, filled, strict=True))
            return np.stack(filled).astype(np.float32) / 255

    backend = InpaintingBackend(Checking(TINY["sd15"], loaded("sd15").painter._pipeline), "r")
    assert backend.generate([request(strength=1.0)])[0].frame is not None


@every_model
def test_half_precision_paints_nearly_the_same(shelf, loaded, name):
    saved, adapter = shelf.folder / "made" / name, TINY[name].adapter
    added = adapter and shelf.folder / "made" / "adapter" / adapter.file
    placement = Placement("cpu", torch.bfloat16, "none")
    painter = load_painter(TINY[name], saved, placement, adapter=added)
    assert next(painter._pipeline.vae.parameters()).dtype == torch.bfloat16
    revision = loaded(name).revision
    one, other = (
        frame_of(backend).astype(int)
        for backend in (loaded(name), InpaintingBackend(painter, revision))
    )
    assert 0 < np.abs(one - other).mean() < 12


class Watched:
    """What the denoiser of a pipeline is given at each step."""

    def __init__(self, backend):
        pipeline = backend.painter._pipeline
        model = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
        self.calls = []
        self.handle = model.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, _, positional, named):
        flat = dict(enumerate(positional)) | named
        latents = flat.get("hidden_states", flat.get(0))
        if isinstance(latents, list):
            latents = torch.stack(latents)
        self.calls.append((latents.clone(), flat))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()


# Which part of the denoiser's first input is the noised face; the rest shows it the photo.
NOISED = {
    "sd15": lambda x: (x[:, :4], x[:, 4:]),
    "sd15-lcm": lambda x: (x[:, :4], x[:, 4:]),
    "sd15-face-id": lambda x: (x[:, :4], x[:, 4:]),
    "sdxl": lambda x: (x[:, :4], x[:, 4:]),
    "flux2-klein": lambda x: x.chunk(2, dim=1),
    "qwen-image-edit": lambda x: x.chunk(2, dim=1),
    "flux1-fill": lambda x: (x[..., :16], x[..., 16:]),
}


@every_model
def test_a_face_reaches_the_model_by_its_noised_latents_and_by_no_other_way(loaded, name):
    backend, seen = loaded(name), []
    for face in (1, 2):
        with Watched(backend) as watched:
            backend.generate([request(face, strength=0.4)])
        seen.append(watched.calls[0])
    split = NOISED.get(name, lambda x: (x, x[:0]))
    (one, shown), (other, shown_again) = (split(latents) for latents, _ in seen)
    assert (one != other).any()
    assert torch.equal(shown, shown_again)
    words = [flat.get("encoder_hidden_states", flat.get(2)) for _, flat in seen]
    for first, second in zip(*words, strict=True):
        assert torch.equal(first, second)
    if name in NOISED:
        assert shown.numel()
        with Watched(backend) as watched:
            backend.generate([request(strength=0.4, around=8)])
        assert not torch.equal(split(watched.calls[0][0])[1], shown)


@every_model
def test_the_noise_of_a_rung_is_exact_and_common_to_the_ladder(loaded, name):
    backend, scheduler = loaded(name), loaded(name).painter._pipeline.scheduler
    split = NOISED.get(name, lambda x: (x, None))
    differences = []
    for strength in (0.25, 0.257, 0.7):
        starts = []
        for face in (1, 2):
            with Watched(backend) as watched:
                (result,) = backend.generate([request(face, strength=strength)])
            starts.append(split(watched.calls[0][0])[0].double())
        time = result.sigma / (1 + result.sigma)
        flow = HUB_MODELS[name].family == "flow time"
        if name == "sd15-lcm":
            # It takes whole timesteps only: what it added is read from its schedule.
            kept = float(scheduler.alphas_cumprod[scheduler.timesteps[0]])
            assert np.sqrt(1 / kept - 1) == pytest.approx(result.sigma, rel=0.03)
            differences.append((starts[0] - starts[1]) / np.sqrt(kept))
            continue
        assert float(scheduler.sigmas[0]) == pytest.approx(time if flow else result.sigma, rel=1e-6)
        assert len(watched.calls) % len(scheduler.timesteps) == 0
        # x = (1 - t) clean + t noise; x = clean + sigma noise, scaled by 1/sqrt(sigma^2 + 1).
        scale = 1 - time if flow else 1 / np.sqrt(result.sigma**2 + 1)
        differences.append((starts[0] - starts[1]) / scale)
    # The noise cancels only where both faces, under one key, got the same.
    largest = differences[0].abs().max()
    for other in differences[1:]:
        assert (differences[0] - other).abs().max() < 1e-3 * largest


@pytest.mark.parametrize("name", ["sd-turbo", "sdxl-turbo", "z-image-turbo"])
def test_around_the_face_the_photo_keeps_the_noise_it_started_with(loaded, name):
    backend = loaded(name)
    with Watched(backend) as watched:
        backend.generate([request(9, strength=0.9, around=9)])
    levels = backend.painter._pipeline.scheduler.sigmas.double()
    corners = [latents.double()[..., 0, 0] for latents, _ in watched.calls[:3]]
    if HUB_MODELS[name].family == "noise level":
        corners = [x * (s**2 + 1) ** 0.5 for x, s in zip(corners, levels, strict=False)]
    # On one line from the clean photo to its noise.
    slopes = [
        (before - after) / (levels[i] - levels[i + 1])
        for i, (before, after) in enumerate(pairwise(corners))
    ]
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["sd15", "flux2-klein"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_a_rung_takes_just_the_steps_below_its_noise(loaded, name, steps):
    backend = loaded(name)
    painter = Painter(replace(TINY[name], steps=steps), backend.painter._pipeline)
    counts = []
    for sigma in (0.1, 1.0, 5.0, 13.9, None):
        with Watched(backend) as watched:
            painter.paint([picture(9)[:64, :64]], [picture(1)[:64, :64]], sigma, [KEY])
        assert len(watched.calls) == len(painter._pipeline.scheduler.timesteps)
        counts.append(len(watched.calls))
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == steps


# --- Keys, batches, sizes ----------------------------------------------------------------------


@every_model
def test_one_key_gives_one_picture_and_each_face_of_a_photo_its_own(loaded, name):
    backend = loaded(name)
    one = frame_of(backend, strength=0.9)
    assert (one == frame_of(backend, strength=0.9)).all()
    assert (one != frame_of(backend, strength=0.9, key=KEY.child("face 1"))).any()
    state = torch.get_rng_state()
    backend.generate([request(strength=0.5)])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["sd15", "sdxl", "z-image-turbo", "flux2-klein", "flux1-fill"])
def test_faces_painted_together_are_as_painted_alone(loaded, name):
    backend = loaded(name)
    requests = [request(face, strength=0.5, key=KEY.child(str(face))) for face in range(5)]
    together = [result.frame for result in backend.generate(requests)]
    for one, frame in zip(requests, together, strict=True):
        alone = backend.generate([one])[0].frame
        assert np.abs(alone.astype(int) - frame).max() <= 2
    assert backend.generate([]) == []


def test_a_model_is_downloaded_and_loaded_once(shelf, loaded):
    backend = loaded("sd15")
    before = len(shelf.hub.requests())
    backend.generate([request()])
    backend.generate([request(2)])
    assert len(shelf.hub.requests()) == before


def test_a_large_face_is_painted_at_the_models_own_size(loaded):
    painter = Fading(replace(TINY["sd15"], side=256), loaded("sd15").painter._pipeline)
    backend = InpaintingBackend(painter, "r")
    assert backend.zoom == 2
    photo, face = smooth_photo(330, 340), face_at(30, 20, scale=2)
    opened = Anonymizer(backend, FixedDetector(face)).open(photo, key=KEY)
    assert opened.requests[0].pixels.shape == (256, 256, 3)
    variant = opened.variant(0.6)
    changed = (variant.image != photo.pixels).any(2)
    inside = np.zeros_like(changed)
    inside[20:276, 30:286] = template_mask(2)
    assert changed[inside].mean() > 0.9
    rim = np.zeros_like(changed)
    rim[18:278, 28:288] = True
    assert not changed[~rim].any()


def test_outside_the_mask_a_photo_stays_identical_to_the_bit(loaded):
    photo, face = smooth_photo(), face_at(20, 15)
    opened = Anonymizer(loaded("z-image-turbo"), FixedDetector(face)).open(photo, key=KEY)
    inside = np.zeros(photo.pixels.shape[:2], bool)
    inside[15:143, 20:148] = template_mask()
    for variant in opened.ladder((0.3, 0.8, 1.0)):
        assert (variant.image[~inside] == photo.pixels[~inside]).all()
        assert (variant.image[inside] != photo.pixels[inside]).any()


# --- Reports -------------------------------------------------------------------------------------


def test_reports_say_that_nothing_is_guaranteed_and_that_strength_was_not_measured(loaded):
    backend = loaded("z-image-turbo")
    opened = Anonymizer(backend, FixedDetector(face_at(20, 15))).open(smooth_photo(), key=KEY)
    variants = opened.ladder((0.4, 1.0))
    for variant in variants:
        report = variant_report(variant, curve=backend.curve)
        assert report["epsilon"] is None
        assert NOT_CALIBRATED in report["reason"]
        assert report["model_revision"] == backend.revision
        assert report["recogniser"]["verified_share_at_calibration"] is None
        assert report["worst_case"]["true_positive_rate"] is None
    together = ladder_report({"a": variants[0], "b": variants[1]})["ladder"]
    assert together["basis"] == "measured only"
    assert "one noise path" not in together["note"]


def test_wishes_about_attributes_are_refused(loaded):
    with pytest.raises(InvalidArgumentError, match=r"beard.*embedded"):
        loaded("sd15").generate([request(policy=AttributePolicy(hide=("beard",)))])


# --- Failures ------------------------------------------------------------------------------------


def test_a_picture_that_is_no_picture_fails_its_face_and_no_other(loaded):
    class Broken(Painter):
        def _paint(self, *arguments):
            painted = super()._paint(*arguments)
            painted[0, 0, 0] = np.nan
            return painted

    backend = InpaintingBackend(Broken(TINY["sd15"], loaded("sd15").painter._pipeline), "r")
    first, second = backend.generate([request(1), request(2)])
    assert first.frame is None
    assert "no usable picture" in first.failure
    assert second.frame is not None
    opened = Anonymizer(backend, FixedDetector(face_at(20, 15))).open(smooth_photo(), key=KEY)
    with pytest.raises(FaceFailedError):
        opened.variant(0.5)


class Cramped(Painter):
    """A painter on a device that holds so many faces."""

    room, calls = 2, 0
    error = torch.OutOfMemoryError("CUDA out of memory.")

    def _paint(self, filled, *rest):
        if len(filled) > self.room:
            raise self.error
        self.calls += 1
        return super()._paint(filled, *rest)


def test_out_of_memory_paints_fewer_faces_at_once_and_says_what_to_do_where_one_is_too_many(loaded):
    pipeline = loaded("sd15").painter._pipeline
    requests = [request(face, key=KEY.child(str(face))) for face in range(5)]
    expected = [result.frame for result in loaded("sd15").generate(requests)]
    painter = Cramped(TINY["sd15"], pipeline)
    for frame, one in zip(
        expected,
        InpaintingBackend(painter, loaded("sd15").revision).generate(requests),
        strict=True,
    ):
        assert np.abs(frame.astype(int) - one.frame).max() <= 2
    assert painter.calls == 3
    painter.room = 0
    mps = RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    for error in (painter.error, mps, cpu, MemoryError()):
        painter.error = error
        with pytest.raises(ModelError, match=r"memory on a single face.*smaller backend"):
            InpaintingBackend(painter, "r").generate(requests)
    painter.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1"):
        InpaintingBackend(painter, "r").generate(requests)


def test_weights_that_do_not_fit_into_memory_are_not_called_damaged(tmp_path, monkeypatch):
    folder = save("sd15", tmp_path / "whole")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(diffusers.StableDiffusionInpaintPipeline, "to", full)
    with pytest.raises(ModelError, match=r"memory on its weights.*smaller backend"):
        load_painter(TINY["sd15"], folder, Placement("cpu", torch.float32, "none"))


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_what_does_not_fit_the_device_waits_in_main_memory(tmp_path, monkeypatch, offload):
    called = []
    for name in ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        monkeypatch.setattr(
            diffusers.StableDiffusionInpaintPipeline,
            name,
            lambda *_, name=name, **__: called.append(name),
        )
    folder = save("sd15", tmp_path / "whole")
    load_painter(TINY["sd15"], folder, Placement("cuda", torch.bfloat16, offload))
    assert called == [f"enable_{offload}_cpu_offload"]


def test_damaged_weights_are_refused(tmp_path):
    folder = save("sd15", tmp_path / "damaged")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"sd15 cannot be loaded .*Choose another commit"):
        load_painter(TINY["sd15"], folder, Placement("cpu", torch.float32, "none"))


# --- Commits -------------------------------------------------------------------------------------


def test_an_adapter_is_added_to_the_weights_it_names_and_changes_the_picture(shelf, loaded):
    with_adapter = loaded("sd15-lcm").painter._pipeline
    plain = loaded("sd15").painter._pipeline
    weights = load_file(shelf.folder / "made" / "adapter" / TINY["sd15-lcm"].adapter.file)
    up, down = (
        weights[f"lora_te_encoder_layers_0_mlp_fc1.lora_{end}.weight"] for end in ("up", "down")
    )
    changed = set()
    for part in ("unet", "text_encoder"):
        before = dict(getattr(plain, part).named_parameters())
        after = dict(getattr(with_adapter, part).named_parameters())
        changed |= {name for name, value in after.items() if not torch.equal(value, before[name])}
        if part == "text_encoder":
            (name,) = (name for name in changed if "fc1" in name)
            assert torch.allclose(after[name] - before[name], up @ down / 2, atol=1e-5)
    assert len(changed) == 3
    assert len(loaded("sd15-lcm").revision) == 81


@pytest.mark.parametrize("change", ["damaged", "unknown", "misshapen", "empty"])
def test_an_adapter_for_another_model_is_refused(shelf, tmp_path, change):
    weights = load_file(save_adapter(tmp_path / "a.safetensors"))
    if change == "unknown":
        weights = {key.replace("conv_in", "nowhere"): value for key, value in weights.items()}
    elif change == "misshapen":
        weights["lora_unet_conv_in.lora_up.weight"] = torch.zeros(7, 2, 1, 1)
    elif change == "empty":
        weights = {"else": torch.zeros(1)}
    save_file(weights, tmp_path / "a.safetensors")
    if change == "damaged":
        (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="made for another model"):
        load_painter(
            TINY["sd15-lcm"],
            shelf.folder / "made" / "sd15",
            Placement("cpu", torch.float32, "none"),
            adapter=tmp_path / "a.safetensors",
        )


@pytest.mark.parametrize("n_alike", [4, 8, 31])
def test_keys_that_differ_in_one_byte_give_other_noise_and_another_identity(loaded, n_alike):
    class Itself(NoiseKey):
        """A key that the backend uses as it is."""

        def child(self, _):
            return self

    start, end = b"k" * n_alike, b"k" * (31 - n_alike)
    keys = [Itself(start + byte + end, secret=True) for byte in (b"a", b"b")]
    for strength in (0.9, 1.0):
        one, other = (frame_of(loaded("sd15"), strength=strength, key=key) for key in keys)
        assert (one != other).mean() > 0.5
    one, other = drawn_identities(loaded("sd15-face-id").painter._pipeline, keys)[2:]
    assert not torch.allclose(one, other, atol=0.1)


def test_an_identity_is_drawn_for_each_face_and_nothing_of_the_face_is_in_it(loaded):
    backend = loaded("sd15-face-id")
    told = []
    for faces in ([request(1, strength=0.4)], [request(2, strength=0.9)],
                  [request(1, strength=0.4, key=KEY.child("another"))]):  # fmt: skip
        with Watched(backend) as watched:
            backend.generate(faces)
        (identity,) = watched.calls[0][1]["added_cond_kwargs"]["image_embeds"]
        assert not identity[0].any()  # what guidance compares with is told none
        assert identity[1].norm() == pytest.approx(1, abs=1e-5)
        told.append(identity[1])
    # The face and the strength do not matter, the secret key does.
    assert torch.equal(told[0], told[1])
    assert not torch.allclose(told[0], told[2], atol=0.1)
    plain = loaded("sd15")
    assert (frame_of(backend) != frame_of(plain)).any()


def test_the_identity_reader_is_added_as_diffusers_adds_it_and_its_low_rank_part_too(shelf, loaded):
    weights = torch.load(shelf.folder / "made" / "adapter" / TINY["sd15-face-id"].adapter.file)
    low_rank = weights["ip_adapter"]
    before, after = (
        dict(loaded(name).painter._pipeline.unet.named_parameters())
        for name in ("sd15", "sd15-face-id")
    )
    block = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
    for part, layer in (("to_q", "to_q"), ("to_out", "to_out.0")):
        up, down = (low_rank[f"1.{part}_lora.{end}.weight"] for end in ("up", "down"))
        name = f"{block}.{layer}.weight"
        assert torch.allclose(after[name] - before[name], up @ down, atol=1e-5)
    read = after[f"{block}.processor.to_k_ip.0.weight"]
    assert torch.equal(read, low_rank["1.to_k_ip.weight"])


class Evil:
    def __reduce__(self):
        return (exit, ())


@pytest.mark.parametrize("change", ["damaged", "code", "of another model", "another kind", "empty"])
def test_an_identity_reader_for_another_model_or_with_code_in_it_is_refused(
    shelf, tmp_path, change
):
    file = save_identity_reader(tmp_path / "a.bin")
    weights = torch.load(file)
    if change == "of another model":
        weights["ip_adapter"]["0.to_q_lora.up.weight"] = torch.zeros(7, 2)
    elif change == "another kind":
        weights["ip_adapter"]["9.to_q_lora.up.weight"] = torch.zeros(16, 2)
    changed = {"code": {"image_proj": Evil()}, "empty": {}}.get(change, weights)
    torch.save(changed, file)
    if change == "damaged":
        file.write_bytes(b"no")
    with pytest.raises(ModelError, match="made for another model"):
        load_painter(
            TINY["sd15-face-id"], shelf.folder / "made" / "sd15",
            Placement("cpu", torch.float32, "none"), adapter=file,
        )  # fmt: skip


def test_the_pinned_commit_is_loaded_whatever_came_later(shelf, tmp_path):
    repo = shelf.hub.repo(TINY["sd-turbo"].repo_id, "model")
    later = save("sd-turbo", tmp_path / "later")
    torch.manual_seed(5)
    PIPELINES["sd-turbo"]().save_pretrained(later)
    weights = "unet/diffusion_pytorch_model.safetensors"
    repo.write({weights: (later / weights).read_bytes()})
    changed = repo.head.id
    assert changed != shelf.shas["sd-turbo"]
    old, new = (
        shelf.load("sd-turbo", revision=sha, cache=tmp_path / "cache")
        for sha in (shelf.shas["sd-turbo"], changed)
    )
    assert (old.revision, new.revision) == (shelf.shas["sd-turbo"], changed)
    # By the weights: the pictures differ even by the noise, which is another for each commit.
    for backend, folder in ((old, shelf.folder / "made" / "sd-turbo"), (new, later)):
        loaded = backend.painter._pipeline.unet.state_dict()
        for name, expected in load_file(folder / weights).items():
            assert torch.equal(loaded[name], expected)
    assert (frame_of(old) == frame_of(shelf.load("sd-turbo"))).all()


# --- One heavy call, progress, repair ----------------------------------------------------------


def test_a_ladder_is_one_heavy_call_and_its_progress_reaches_the_end(loaded):
    calls, told = [], []

    def sent(value):
        """It runs in another process."""
        return pickle.loads(pickle.dumps(value))  # noqa: S301

    def lend_gpu(function):
        def lent(*arguments):
            calls.append(arguments)
            return sent(function(*sent(arguments)))

        return lent

    painter = loaded("sd15").painter
    backend = InpaintingBackend(
        painter, "r", decorate=lend_gpu, report=lambda *line: told.append(line)
    )
    backend.generate([request(strength=strength) for strength in LADDER])
    assert len(calls) == 1
    assert told[0] == ("painted faces", 0, 5)
    assert told[-1] == ("painted faces", 5, 5)


class FrameDistance:
    """A recogniser whose distance is the mean difference of two frames."""

    name = "frame"

    def __init__(self):
        self.seen = 0

    def embed(self, pixels, landmarks):
        self.seen += 1
        assert landmarks.shape == (5, 2)
        return pixels.astype(float)

    def distance(self, one, other):
        return float(np.abs(one - other).mean() / 255)


def calibrated(median_distance):
    measured = {"sigmas": [0.1, 14.0], "median_distance": [0.0, *median_distance]}
    return StrengthCurve((0.0, 1.0), (0.1, 14.0), measured)


def test_a_face_too_like_its_original_gets_more_noise_and_says_so(loaded):
    recogniser = FrameDistance()
    painter = Fading(TINY["sd15"], loaded("sd15").painter._pipeline)
    backend = InpaintingBackend(painter, "r", curve=calibrated([0.2, 0.2]), recogniser=recogniser)
    results = backend.generate([request(strength=s) for s in (0.0, 0.2, 1.0)])
    plain = backend.curve.rung_sigmas()[19]
    assert results[0].sigma == 0.0
    assert results[1].sigma > plain
    assert results[2].sigma is None
    assert results[1].privacy.reason == f"{NOT_PROVEN}; {MEASURED}"
    for end in (results[0], results[2]):
        assert end.privacy.reason == NOT_PROVEN
    assert recogniser.seen == 2 + MOST_TRIES


def test_a_face_at_its_target_is_left_as_it_is_and_the_report_says_that_it_was_measured(loaded):
    recogniser, painter = FrameDistance(), loaded("sd15").painter
    satisfied = InpaintingBackend(painter, "r", curve=calibrated([0.0, 0.0]), recogniser=recogniser)
    plain = InpaintingBackend(painter, "r", curve=satisfied.curve)
    (result,) = satisfied.generate([request(strength=0.3)])
    assert (result.frame == frame_of(plain, strength=0.3)).all()
    assert recogniser.seen == 2
    assert result.privacy.reason == f"{NOT_PROVEN}; {MEASURED}"


def test_without_a_curve_a_ladder_is_put_in_order_and_a_single_rung_is_not_measured(loaded):
    class Backwards(Fading):
        """The middle of the ladder keeps most of the face."""

        def _paint(self, filled, faces, sigma, keys):
            return super()._paint(filled, faces, 0.1 if 0.9 < (sigma or 0) < 1.5 else sigma, keys)

    recogniser = FrameDistance()
    painter = Backwards(TINY["sd15"], loaded("sd15").painter._pipeline)
    backend = InpaintingBackend(painter, "r", recogniser=recogniser)
    sigmas = backend.uncalibrated.rung_sigmas()
    rung = int(np.searchsorted(sigmas, 1.0)) + 1
    (alone,) = backend.generate([request(strength=rung / 100)])
    assert recogniser.seen == 0
    assert alone.sigma == sigmas[rung - 1]
    # Given out of order, and given back so.
    ladder = backend.generate([request(strength=s / 100) for s in (rung, 20, 90, 100)])
    middle, weak, strong, noise = ladder
    assert middle.sigma > alone.sigma
    assert (weak.sigma, strong.sigma) == (sigmas[19], sigmas[89])
    original = np.where(template_mask()[..., None], picture(1), picture(9))
    distances = [recogniser.distance(original.astype(float), r.frame) for r in (weak, middle)]
    assert distances == sorted(distances)
    assert middle.privacy.reason == f"{NOT_PROVEN}; {NOT_CALIBRATED}; {MEASURED}"
    assert noise.privacy.reason == f"{NOT_PROVEN}; {NOT_CALIBRATED}"


def test_a_photo_says_of_all_its_faces_what_holds_for_the_least_noised_one(loaded):
    class OneTooLike(FrameDistance):
        def distance(self, one, other):
            return 0.0 if one.mean() > 120 else 1.0

    photo = smooth_photo(180, 330)
    photo.pixels[:, 160:] //= 3
    faces = [face_at(20, 15), face_at(180, 15)]
    painter = Fading(TINY["sd15"], loaded("sd15").painter._pipeline)
    curve = calibrated([0.4, 0.4])
    for order in (faces, faces[::-1]):
        backend = InpaintingBackend(painter, "r", curve=curve, recogniser=OneTooLike())
        opened = Anonymizer(backend, FixedDetector(*order)).open(photo, key=KEY)
        results = backend.generate([replace(r, strength=0.3) for r in opened.requests.values()])
        variant = opened.variant(0.3)
        assert len({result.sigma for result in results}) == 2
        short = [result.privacy.reason.endswith(STILL_LIKE) for result in results]
        assert short == [result.sigma != variant.sigma for result in results]
        assert variant.sigma == min(result.sigma for result in results)
        assert variant.sigma == curve.rung_sigmas()[29]


def test_a_stored_curve_is_used_for_its_commit_only(shelf):
    curve = StrengthCurve((0.0, 0.5, 1.0), (0.2, 1.0, 9.0), {"recogniser": "frame"})
    sha = shelf.shas["sd15"]
    stored_curves.save(shelf.folder / "with-curve", TINY["sd15"], sha, curve)
    backend = shelf.load("sd15", curves=shelf.folder / "with-curve")
    assert backend.curve == curve
    (result,) = backend.generate([request(strength=0.5)])
    assert result.sigma == pytest.approx(1.0)
    assert result.privacy.reason == NOT_PROVEN
    other = stored_curves.load(shelf.folder / "with-curve", TINY["sd15"], "0" * 40)
    assert other is None


def test_the_prompt_names_no_attribute():
    for word in ("man", "woman", "young", "old", "smil", "glass", "beard"):
        assert word not in PROMPT
