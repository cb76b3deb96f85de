"""The embedded model as a `diffusers.DiffusionPipeline`, for others to load, save and share.

The folder is the same that `model.py` reads without diffusers. Knows no photo and no privacy: it
makes faces from pure noise, or from a noised code that the caller has made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from PIL import Image
from torch import Tensor

from privacy_core.diffusion.code import CodeConfig, LinearCode
from privacy_core.diffusion.denoiser import NULL, CodeDenoiser, DenoiserConfig
from privacy_core.diffusion.refiner import Refiner, RefinerConfig, pictures_of
from privacy_core.diffusion.sampler import N_STEPS, sample
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import ATTRIBUTES, AttributePolicy

Groups = Mapping[str, int] | Sequence[tuple[str, int]]
"""Attribute → width. Kept in the config as pairs: diffusers sorts dictionaries when it saves."""


class LinearCodeModel(LinearCode, ModelMixin, ConfigMixin):
    """`LinearCode` with diffusers' loading and saving; its numbers stay in float32."""

    _keep_in_fp32_modules: ClassVar[list[str]] = [
        "component_scale", "mean", "metric", "inverse_metric", "sd", "context_components",
        "context_mean",
    ]  # fmt: skip

    @register_to_config
    def __init__(
        self,
        n_components: int,
        n_context: int,
        groups: Groups,
        clip_ratio: float,
        whole_frame: bool = False,
    ) -> None:
        LinearCode.__init__(
            self, CodeConfig(n_components, n_context, dict(groups), clip_ratio, whole_frame)
        )
        ConfigMixin.register_to_config(self, groups=list(self.sizes.groups.items()))


class CodeDenoiserModel(CodeDenoiser, ModelMixin, ConfigMixin):
    """`CodeDenoiser` with diffusers' loading and saving; its preconditioning stays in float32."""

    _keep_in_fp32_modules: ClassVar[list[str]] = ["sd"]

    @register_to_config
    def __init__(
        self,
        n_components: int,
        n_context: int,
        groups: Groups,
        width: int = 1024,
        depth: int = 8,
        condition_width: int = 384,
        dropout: float = 0.1,
        population: Mapping[str, float] | None = None,  # noqa: ARG002 - kept in the config
    ) -> None:
        sizes = DenoiserConfig(
            n_components, n_context, dict(groups), width, depth, condition_width, dropout
        )
        CodeDenoiser.__init__(self, sizes)
        ConfigMixin.register_to_config(self, groups=list(sizes.groups.items()))


class RefinerModel(Refiner, ModelMixin, ConfigMixin):
    """`Refiner` with diffusers' loading and saving."""

    @register_to_config
    def __init__(self, width: int, n_blocks: int) -> None:
        Refiner.__init__(self, RefinerConfig(width, n_blocks))


@dataclass
class CodeDiffusionOutput(BaseOutput):
    """Faces of one call.

    Attributes:
        images: Pictures of 128 × 128 px; mid-grey outside the mask.
    """

    images: list[Image.Image]


class CodeDiffusionPipeline(DiffusionPipeline):
    """Faces from noise in the linear code space.

    Args:
        code: Pixels ↔ codes.
        denoiser: D(y; σ, context, attributes).
        refiner: Adds detail to decoded faces; may be missing.
    """

    _optional_components: ClassVar[list[str]] = ["refiner"]

    def __init__(
        self,
        code: LinearCodeModel,
        denoiser: CodeDenoiserModel,
        refiner: RefinerModel | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(code=code, denoiser=denoiser, refiner=refiner)

    @torch.inference_mode()
    def __call__(
        self,
        *,
        batch_size: int = 1,
        latents: Tensor | None = None,
        sigma: float = SIGMA_MAX,
        context: Tensor | None = None,
        attributes: Mapping[str, str] | None = None,
        num_inference_steps: int = N_STEPS,
        generator: torch.Generator | None = None,
    ) -> CodeDiffusionOutput:
        """Generate faces.

        Args:
            batch_size: Faces to make when `latents` is None.
            latents: (n, K) noised codes at `sigma`; pure noise when None.
            sigma: Noise level of `latents`.
            context: (n, n_context) codes of the surroundings; unknown when None.
            attributes: Attribute → value asked for; the rest is left open.
            num_inference_steps: Steps of Heun's method.
            generator: Source of the pure noise.

        Raises:
            InvalidArgumentError: An attribute, its value, `sigma` or the number of steps is none.
        """
        asked = AttributePolicy(set=attributes or {}).set
        if not (sigma > 0 and num_inference_steps >= 1):
            raise InvalidArgumentError(
                "`sigma` must be above 0 and `num_inference_steps` at least 1, got "
                f"{sigma!r} and {num_inference_steps!r}. Leave them out for pure noise."
            )
        k = self.code.sizes.n_components
        if latents is None:
            latents = SIGMA_MAX * torch.randn(batch_size, k, generator=generator)
            sigma = SIGMA_MAX
        tokens = [
            values.index(asked[name]) if name in asked else NULL
            for name, values in ATTRIBUTES.items()
        ]
        codes = sample(
            self.denoiser,
            latents,
            torch.full((len(latents),), float(sigma)),
            torch.ones(len(latents), k),
            context=context,
            attributes=torch.tensor([tokens] * len(latents)),
            n_steps=num_inference_steps,
        )
        around = None if context is None else context.float()
        pictures: Any = pictures_of(self.code, self.refiner, codes.float(), around).numpy()
        return CodeDiffusionOutput(images=[Image.fromarray(np.asarray(p)) for p in pictures])
