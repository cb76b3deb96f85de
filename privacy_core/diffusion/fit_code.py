"""Fit the linear code: components, identity-aware metric, context, and augmented codes.

Knows aligned frames and labels; not photos, files of DATA or the denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from privacy_core.diffusion.code import CodeConfig, LinearCode, known_mask, surroundings_of
from privacy_core.diffusion.training import CodeBatch
from privacy_core.faces.align import SIZE, template_mask
from privacy_core.schema import ATTRIBUTES

_REPEATED = 2
"""Photos of one person from which the within-people covariance can learn."""
_WHOLE = 0.98
"""Share of the frame that must be photographed for a face to shape the context."""
Report = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True)
class CodeFitConfig:
    """How the linear code is fitted.

    Attributes:
        n_components: K.
        n_context: Numbers per context.
        gain: Exponent g of the identity-aware metric: direction i is scaled by (e_i + 0.05)^-g,
            e_i its between-people over within-people variance; 0 whitens within people.
        ridge: Regularisation of the within-people covariance, as a share of its mean variance.
        clip_quantile: Share of fitted faces whose code is left unclipped.
        copies: Augmented copies of each face beside itself and its mirror image.
        identity_width: When positive, the code is for synthetic people: it covers the whole
            frame, has no context to speak of, and its one group holds this many of the directions
            that tell people apart.
        batch: Frames per pass over the data.
        seed: Seed of the sketch and of the augmentation.
    """

    n_components: int = 512
    n_context: int = 64
    gain: float = 1.0
    ridge: float = 0.02
    clip_quantile: float = 0.95
    copies: int = 6
    identity_width: int = 0
    batch: int = 512
    seed: int = 0


@dataclass(frozen=True)
class AlignedFaces:
    """Aligned frames with what is known of them.

    Attributes:
        frames: (n, 128, 128, 3) uint8, may be a memory map.
        quads: (n, 4, 2) corners of the photographed area in template pixels, clockwise.
        identity: (n,) int64 person numbers, -1 where unknown.
        attributes: (n, 5) int64, 0 or 1 in the order of `ATTRIBUTES`, -1 where unknown.
        mouth_open: (n,) int64, 0 or 1, -1 where unknown; sharpens the direction of smiling.
    """

    frames: NDArray[np.uint8]
    quads: NDArray[np.float32]
    identity: NDArray[np.int64]
    attributes: NDArray[np.int64]
    mouth_open: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> AlignedFaces:
        """Return the rows at `index`."""
        return AlignedFaces(
            self.frames[index], self.quads[index], self.identity[index],
            self.attributes[index], self.mouth_open[index],
        )  # fmt: skip


def fit_code(faces: AlignedFaces, *, config: CodeFitConfig, report: Report) -> LinearCode:
    """Fit V, μ, S, C and the context's components on aligned faces and their mirror images.

    Returns:
        A code with groups for gender, beard, age_group, eyeglasses (one coordinate each) and
        smiling (two). An attribute without labels keeps its coordinate, along no direction.
    """
    groups = {"gender": 1, "beard": 1, "age_group": 1, "eyeglasses": 1, "smiling": 2}
    whole_frame = config.identity_width > 0
    if whole_frame:
        groups = {"identity": config.identity_width}
    sizes = CodeConfig(config.n_components, config.n_context, groups, math.nan, whole_frame)
    code = LinearCode(sizes)
    _fit_components(code, faces, config, report)
    scores = _scores(code, faces, config, report)
    _fit_metric(code, scores, faces, config)
    codes = scores @ code.metric.T
    code.sd.copy_(codes.std(0))
    for place, column in enumerate(torch.from_numpy(faces.attributes.T)):
        if bool((column == 0).any() and (column == 1).any()):
            code.attribute_means[place] = torch.stack([codes[column == v].mean(0) for v in (0, 1)])
    rms = math.sqrt(float((code.sd**2).sum()))
    ratio = float(codes.norm(dim=1).quantile(config.clip_quantile)) / rms
    code.sizes = replace(sizes, clip_ratio=ratio)
    _fit_context(code, faces, config, report)
    return code


def _batches(faces: AlignedFaces, size: int, *, mirrored: bool) -> Iterator[Tensor]:
    for start in range(0, len(faces.frames), size):
        frames = torch.from_numpy(np.array(faces.frames[start : start + size]))
        yield frames
        if mirrored:
            yield frames.flip(2)


def _fit_components(
    code: LinearCode, faces: AlignedFaces, config: CodeFitConfig, report: Report
) -> None:
    """Randomised PCA (Halko et al. 2011) with three power iterations, in bf16 products."""
    total = 2 * len(faces.frames)
    sums = torch.zeros(code.mean.shape, dtype=torch.float64)
    for frames in _batches(faces, config.batch, mirrored=True):
        sums += code.pixels(frames).sum(0, dtype=torch.float64)
    code.mean.copy_(sums / total)
    generator = torch.Generator().manual_seed(config.seed)
    sketch = config.n_components + 64
    basis = torch.randn(len(code.mean), sketch, generator=generator)
    rounds = 4
    for i in range(rounds):
        report("components", i, rounds)
        # QR gives columns: torch 2.13 dies of a floating point exception on 32 rows times those,
        # on processors with AMX.
        q = basis.bfloat16().contiguous()
        product = torch.zeros_like(basis)
        for frames in _batches(faces, config.batch, mirrored=True):
            centred = (code.pixels(frames) - code.mean).bfloat16()
            product += (centred.T @ (centred @ q)).float()
        basis = torch.linalg.qr(product).Q
    covariance = torch.zeros(sketch, sketch, dtype=torch.float64)
    for frames in _batches(faces, config.batch, mirrored=True):
        projected = (code.pixels(frames) - code.mean) @ basis
        covariance += (projected.T @ projected).double()
    vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : config.n_components]
    components = (basis @ vectors.float()).T
    scale = components.abs().amax(1) / 127
    code.component_scale.copy_(scale)
    code.components.copy_((components / scale[:, None]).round().to(torch.int8))
    code.forget_basis()
    report("components", rounds, rounds)


def _scores(code: LinearCode, faces: AlignedFaces, config: CodeFitConfig, report: Report) -> Tensor:
    """Return the (n, K) principal components of the faces, before the metric."""
    parts = []
    for frames in _batches(faces, config.batch, mirrored=False):
        parts.append((code.pixels(frames) - code.mean) @ code.basis.T)
        report("codes", sum(map(len, parts)), len(faces.frames))
    return torch.cat(parts)


def _fit_metric(
    code: LinearCode, scores: Tensor, faces: AlignedFaces, config: CodeFitConfig
) -> None:
    """Whiten within people, damp what tells people apart, put attribute directions first."""
    identity = torch.from_numpy(faces.identity)
    metric = _identity_metric(scores, identity, gain=config.gain, ridge=config.ridge)
    if not code.sizes.whole_frame:
        labels = _labels(faces, code.sizes.groups)
        metric = _attribute_rotation(scores @ metric.T, labels) @ metric
    metric = _decorrelated(metric, scores, sum(code.sizes.groups.values()))
    metric = metric / (scores @ metric.T).var(0).mean().sqrt()
    code.metric.copy_(metric)
    code.inverse_metric.copy_(torch.linalg.inv(metric.double()).float())


def _decorrelated(metric: Tensor, scores: Tensor, first: int) -> Tensor:
    """Take out of the other coordinates what the first ones say of them, then turn to their axes.

    Each attribute coordinate then stands for its attribute's whole pattern (a small error in it
    stays small in pixels), nothing linear of it is left elsewhere, and the denoiser's
    preconditioning per coordinate fits.
    """
    covariance = torch.cov((scores @ metric.T).double().T)
    ridge = 1e-6 * covariance.trace() / len(covariance) * torch.eye(first)
    slope = covariance[first:, :first] @ torch.linalg.inv(covariance[:first, :first] + ridge)
    rest = metric[first:] - slope.float() @ metric[:first]
    axes = torch.linalg.eigh(torch.cov((scores @ rest.T).double().T)).eigenvectors.flip(1)
    return torch.cat([metric[:first], axes.T.float() @ rest])


def _identity_metric(scores: Tensor, identity: Tensor, *, gain: float, ridge: float) -> Tensor:
    """Return the (K, K) map of the identity-aware metric, what tells people apart most first.

    Without enough repeated people it only whitens.
    """
    known = identity >= 0
    people, inverse, counts = torch.unique(identity[known], return_inverse=True, return_counts=True)
    repeated = (counts >= _REPEATED)[inverse]
    if int(repeated.sum()) <= 2 * scores.shape[1]:
        covariance, means = torch.cov(scores.T).double(), None
    else:
        sums = torch.zeros(len(people), scores.shape[1]).index_add(0, inverse, scores[known])
        means = sums / counts[:, None]
        deviations = (scores[known] - means[inverse])[repeated]
        freedom = int(repeated.sum()) - int((counts >= _REPEATED).sum())
        covariance = (deviations.T @ deviations).double() / freedom
    n = scores.shape[1]
    covariance = covariance + ridge * covariance.trace() / n * torch.eye(n)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = (vectors / values.sqrt()) @ vectors.T
    if means is None:
        plain: Tensor = whiten.float()
        return plain
    kept = counts >= _REPEATED
    between = torch.cov((means[kept] - scores.mean(0)).double().T)
    # The mean of m photos carries 1/m of the within-people variance.
    noise = float((1 / counts[kept].double()).mean())
    ratio, axes = torch.linalg.eigh(whiten @ between @ whiten - noise * torch.eye(n))
    scale = (ratio.clamp_min(0) + 0.05) ** (-gain)
    metric: Tensor = (scale[:, None] * axes.T @ whiten).float().flip(0)
    return metric


def _labels(faces: AlignedFaces, groups: Mapping[str, int]) -> list[NDArray[np.int64]]:
    """Return one label column per attribute coordinate, in the order of the groups."""
    order = list(ATTRIBUTES)
    columns = []
    for name in groups:
        columns.append(faces.attributes[:, order.index(name)])
        if name == "smiling":
            columns.append(faces.mouth_open)
    return columns


def _attribute_rotation(mapped: Tensor, labels: list[NDArray[np.int64]]) -> Tensor:
    """Return the (K, K) rotation whose first rows span the labels' ridge directions, in order."""
    n = mapped.shape[1]
    generator = torch.Generator().manual_seed(0)
    directions = []
    for column in labels:
        known = torch.from_numpy(column >= 0)
        y = torch.from_numpy(column).float()[known]
        if len(y) < n or y.std() == 0:
            directions.append(torch.randn(n, generator=generator, dtype=torch.float64))
            continue
        x = mapped[known] - mapped[known].mean(0)
        gram = (x.T @ x).double() / len(x)
        gram = gram + 0.01 * gram.trace() / n * torch.eye(n)
        target = ((y - y.mean())[:, None] * x).mean(0).double()
        directions.append(torch.linalg.solve(gram, target))
    filler = torch.randn(n, n - len(directions), generator=generator, dtype=torch.float64)
    start = torch.cat([torch.stack(directions, 1), filler], 1)
    rotation: Tensor = torch.linalg.qr(start).Q.T.float()
    return rotation


def _fit_context(
    code: LinearCode, faces: AlignedFaces, config: CodeFitConfig, report: Report
) -> None:
    """PCA of the surroundings of faces whose whole frame was photographed, to variance one."""
    outside = ~torch.from_numpy(template_mask())
    parts = []
    for start in range(0, len(faces.frames), config.batch):
        frames = torch.from_numpy(np.array(faces.frames[start : start + config.batch]))
        known = known_mask(faces.quads[start : start + config.batch])
        surroundings = surroundings_of(frames, known & outside)
        parts.append(surroundings[known.flatten(1).float().mean(1) > _WHOLE])
        report("context", start, len(faces.frames))
    rows = torch.cat(parts)
    if len(rows) <= config.n_context:
        generator = torch.Generator().manual_seed(config.seed)
        filler = torch.randn(config.n_context + 1, len(code.context_mean), generator=generator)
        rows = torch.cat([rows, filler])
    code.context_mean.copy_(rows.mean(0))
    if len(rows) < rows.shape[1]:  # the same, by way of the smaller side
        _, roots, axes = torch.linalg.svd((rows - code.context_mean).double(), full_matrices=False)
        values, vectors = roots**2 / (len(rows) - 1), axes.T
    else:
        values, vectors = torch.linalg.eigh(torch.cov(rows.T).double())
        values, vectors = values.flip(0), vectors.flip(1)
    values, vectors = values[: config.n_context], vectors[:, : config.n_context]
    code.context_components.copy_((vectors / values.clamp_min(1e-8).sqrt()).T)


def encode_copies(
    code: LinearCode, faces: AlignedFaces, *, config: CodeFitConfig, report: Report
) -> CodeBatch:
    """Return the codes of every face, its mirror image and `copies` augmented copies, in float16.

    Augmentation moves the alignment by up to 2.5 px, 3° and 3 %, mirrors half of the copies and
    changes brightness, contrast and colour a little, alike inside and outside the mask.
    """
    generator = torch.Generator().manual_seed(config.seed + 1)
    codes, contexts, tokens = [], [], []
    for start in range(0, len(faces.frames), config.batch):
        index = np.arange(start, min(start + config.batch, len(faces.frames)))
        part = faces.take(index)
        frames = torch.from_numpy(np.array(part.frames))
        known = known_mask(part.quads)
        attributes = torch.from_numpy(np.where(part.attributes < 0, 2, part.attributes))
        pairs = [(frames, known), (frames.flip(2), known.flip(2))]
        pairs += [_augment(frames, known, generator) for _ in range(config.copies)]
        for copy, copy_known in pairs:
            codes.append(code.encode(copy).half())
            contexts.append(code.context(copy, copy_known).half())
            tokens.append(attributes)
        report("augmented codes", int(index[-1]) + 1, len(faces.frames))
    return CodeBatch(torch.cat(codes), torch.cat(contexts), torch.cat(tokens))


def _augment(frames: Tensor, known: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = len(frames)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    angle, zoom = uniform(-0.05, 0.05), uniform(0.97, 1.03)
    mirror = torch.where(uniform(-1, 1) < 0, -1.0, 1.0)
    shift = uniform(-2.5, 2.5, 2) / (SIZE / 2)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    theta = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1),
         torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1,
    )  # fmt: skip
    grid = functional.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False)
    images = frames.permute(0, 3, 1, 2).float()
    images = functional.grid_sample(
        images, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    gain, tint = uniform(0.88, 1.12, 1, 1, 1), uniform(0.95, 1.05, 3, 1, 1)
    offset = uniform(-12, 12, 1, 1, 1)
    images = ((images - 128) * gain * tint + 128 + offset).round().clamp(0, 255).to(torch.uint8)
    moved = functional.grid_sample(
        known[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return images.permute(0, 2, 3, 1), moved[:, 0].bool()
