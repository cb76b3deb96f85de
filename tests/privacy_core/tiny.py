"""A tiny real model: the same classes as the shipped one, a few numbers per face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from privacy_core.attributes import AttributePredictor, PredictorConfig
from privacy_core.diffusion.code import CodeConfig, LinearCode
from privacy_core.diffusion.denoiser import CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.model import EmbeddedModel, save_model
from privacy_core.diffusion.refiner import Refiner, RefinerConfig
from privacy_core.faces.align import TEMPLATE, template_mask
from privacy_core.schema import ATTRIBUTES, Face, Photo, StrengthCurve

GROUPS = {"gender": 1, "beard": 1, "age_group": 1, "eyeglasses": 1, "smiling": 2}
CURVE = StrengthCurve((0.0, 0.5, 0.8, 1.0), (0.05, 0.5, 2.0, 10.0), {"typical_code_distance": 6.0})


def tiny_code(*, n_components: int = 24, seed: int = 0) -> LinearCode:
    """Return a code with random smooth-ish orthonormal components around mid-grey."""
    generator = torch.Generator().manual_seed(seed)
    code = LinearCode(CodeConfig(n_components, 4, GROUPS, 1.5))
    basis = torch.linalg.qr(torch.randn(code.mean.shape[0], n_components, generator=generator)).Q.T
    _set_basis(code, basis)
    code.metric.copy_(torch.eye(n_components) / 10)
    code.inverse_metric.copy_(torch.eye(n_components) * 10)
    code.context_components.copy_(
        torch.randn(code.context_components.shape, generator=generator) / 50
    )
    # Each attribute differs along the first coordinate of its group.
    for place, name in enumerate(ATTRIBUTES):
        code.attribute_means[place, 1, list(GROUPS).index(name)] = 1
    return code


def _set_basis(code: LinearCode, basis: torch.Tensor) -> None:
    scale = basis.abs().amax(1) / 127
    code.component_scale.copy_(scale)
    code.components.copy_((basis / scale[:, None]).round().to(torch.int8))


def tiny_denoiser(code: LinearCode, *, depth: int = 2, seed: int = 0) -> CodeDenoiser:
    """Return an untrained denoiser whose output depends on everything it is given."""
    torch.manual_seed(seed)
    config = DenoiserConfig(
        code.sizes.n_components, code.sizes.n_context, GROUPS, width=32, depth=depth,
        condition_width=16,
    )  # fmt: skip
    denoiser = CodeDenoiser(config)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def tiny_refiner(seed: int = 0, *, loud: float = 1.0) -> Refiner:
    """Return an untrained refiner that changes what it sees."""
    torch.manual_seed(seed)
    refiner = Refiner(RefinerConfig(width=4, n_blocks=1)).eval()
    torch.nn.init.normal_(refiner.leave.weight, std=loud)
    return refiner


def write_tiny_model(folder: Path, *, curve: StrengthCurve | None = CURVE) -> Path:
    """Write a tiny model folder in the shipped layout and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    code = tiny_code()
    population = dict.fromkeys(ATTRIBUTES, 0.5)
    save_model(
        folder, code, tiny_denoiser(code), population=population, curve=curve,
        refiner=tiny_refiner(loud=0.1),
    )  # fmt: skip
    return folder


def regions_of_code():
    """Return two parts of the template's M, (128, 128) bool each: `gender`'s own, and blind."""
    mask = template_mask()
    y, x = np.mgrid[0:128, 0:128]
    return mask & (x < 40), mask & (x >= 40) & (y > 100)


def separable_code() -> LinearCode:
    """Return a code whose first coordinate, `gender`, reads pixels of its own, and no other does.

    Nothing at all reads the blind part, so two faces that differ there only have one code.
    """
    code = tiny_code()
    own, blind = (torch.from_numpy(part[code.mask.numpy()]) for part in regions_of_code())
    own, blind = own.repeat_interleave(3), blind.repeat_interleave(3)
    basis = torch.randn(code.components.shape, generator=torch.Generator().manual_seed(1))
    basis[:1, ~own] = 0
    basis[1:, own | blind] = 0
    _set_basis(code, torch.linalg.qr(basis.T).Q.T)
    return code


def face_pixels(code: LinearCode, seed: int = 0, *, sd: float = 1.2) -> np.ndarray:
    """Return a (128, 128, 3) frame whose code is normal with `sd`, with noise where M is blind."""
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(rng.normal(0, sd, (1, code.sizes.n_components))).float()
    pixels = code.decode(codes)[0].numpy()
    blind = regions_of_code()[1]
    pixels[blind] = rng.integers(0, 256, pixels[blind].shape)
    return pixels


class RecordingDenoiser(CodeDenoiser):
    """A real denoiser that remembers what it was first given for each sample."""

    def __init__(self, config):
        super().__init__(config)
        self.seen = []

    def forward(self, y, sigma, group_sigma, context, attributes, **_):
        self.seen.append(
            {"y": y.clone(), "sigma": sigma.clone(), "context": context, "attributes": attributes}
        )
        return super().forward(y, sigma, group_sigma, context, attributes)


def linear_denoiser(code: LinearCode) -> RecordingDenoiser:
    """Return the posterior mean of a normal prior with mean 0 and the code's sd: exact, linear."""
    config = DenoiserConfig(
        code.sizes.n_components, code.sizes.n_context, GROUPS, width=8, depth=1, condition_width=8
    )
    return RecordingDenoiser(config).eval()


def tiny_predictor() -> AttributePredictor:
    """Return a predictor of brightness by the name of gender; it knows no other attribute."""
    light = np.full((8, 128, 128, 3), 60, np.uint8)
    light[::2] = 190
    labels = np.full((8, len(ATTRIBUTES)), -1)
    labels[:, 0] = [1, 0] * 4
    config = PredictorConfig(width=4, depth=2, epochs=12, whole_crop=False)
    return AttributePredictor(config).fit(light, labels)


def tiny_model(
    code=None, denoiser=None, *, revision="tiny", curve=CURVE, predictor=None
) -> EmbeddedModel:
    """Return a model that was never on disk."""
    code = code or tiny_code()
    denoiser = denoiser or tiny_denoiser(code)
    population = dict.fromkeys(ATTRIBUTES, 0.3)
    return EmbeddedModel(code, denoiser, curve, revision, population, predictor)


def face_at(left, top, scale=1):
    """Return a face whose template frame starts at (left, top); a whole shift warps exactly."""
    offset = np.array([left, top])
    box = (left + 11 * scale, top + 22 * scale, left + 115 * scale, top + 126 * scale)
    return Face(box, TEMPLATE * scale + offset, 1.0, "fixed")


def frame_slice(left, top):
    """Return the rows and columns of a photo that are the template frame of `face_at`."""
    return slice(top, top + 128), slice(left, left + 128)


def smooth_photo(height=160, width=170, *, seed=0) -> Photo:
    """Return a colourful photo without any real face."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = rng.uniform(0.02, 0.2, (3, 2))
    pixels = [127 + 90 * np.sin(a * x + b * y + i) for i, (a, b) in enumerate(waves)]
    noise = rng.integers(0, 20, (height, width, 3))
    return Photo((np.stack(pixels, 2) + noise).astype(np.uint8))


class FixedDetector:
    """Finds the faces it was given, whatever the photo shows."""

    name = "fixed"

    def __init__(self, *faces):
        self.faces = list(faces)

    def detect(self, pixels):
        return list(self.faces)
