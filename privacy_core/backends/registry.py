"""The diffusion models of the Hub that can make faces: one table, what each needs and allows.

Knows names, licences and settings; downloads nothing and imports no model library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from privacy_core.errors import InvalidArgumentError

_REVISION = re.compile(r"[0-9a-f]{40}")
PROMPT = "a photo of the face of a person, natural skin, soft daylight, sharp focus"
"""Asked of every model; names no attribute, so that it asks for none."""

Family = Literal["noise level", "flow time"]


@dataclass(frozen=True)
class Adapter:
    """Small weights that are added to a model's own.

    Attributes:
        repo_id: Repository on the Hub.
        file: File in it: safetensors, or of an identity reader a pickle, of which tensors are read.
        kind: Whether it changes the model's weights by products of low rank, or lets the model
            read an identity too.
    """

    repo_id: str
    file: str
    kind: Literal["low rank", "identity reader"] = "low rank"


@dataclass(frozen=True)
class HubModel:
    """One model of the Hub.

    Attributes:
        name: As given to `--backend`.
        repo_id: Repository on the Hub.
        pipeline: Class of diffusers that runs it.
        family: What its strength is: the standard deviation of noise that is added (noise level),
            or the share of noise in a mixture (flow time).
        licence: Of the weights.
        memory_gb: Gigabytes of weights in 16 bits, roughly; checked before the model is moved.
        steps: Denoising steps from pure noise; weaker noise takes its share of them.
        side: Pixels of the square the model paints.
        scheduler: Class of diffusers that takes the steps.
        accept_licence: The licence limits who may use it for what, so the user must agree first.
        batch: Faces in one call at most.
        adapter: Weights that are added to it.
        revision: Commit to use (with an adapter COMMIT+COMMIT), None where none is pinned here and
            the caller has to name one.
        scheduler_settings: In place of the model's own.
        call: Further arguments of the pipeline.
        note: What else to know.
    """

    name: str
    repo_id: str
    pipeline: str
    family: Family
    licence: str
    memory_gb: float
    steps: int
    side: int
    scheduler: str = "FlowMatchEulerDiscreteScheduler"
    accept_licence: bool = False
    batch: int = 4
    adapter: Adapter | None = None
    revision: str | None = None
    scheduler_settings: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, object] = field(default_factory=dict)
    note: str = ""

    @property
    def limited_repo_id(self) -> str:
        """Return the repository whose licence limits use, if any does."""
        reads = self.adapter is not None and self.adapter.kind == "identity reader"
        return self.adapter.repo_id if self.adapter and reads else self.repo_id

    def as_json(self) -> dict[str, object]:
        """Return what a user chooses by, as plain JSON values."""
        return {
            "name": self.name,
            "basis": "measured only",
            "description": f"{self.repo_id} of the Hub, painted at {self.side} px.",
            "repo_id": self.repo_id,
            "adapter": None if self.adapter is None else self.adapter.repo_id,
            "revision": self.revision,
            "pipeline": self.pipeline,
            "strength_family": self.family,
            "licence": self.licence,
            "needs_accept_licence": self.accept_licence,
            "memory_gb": self.memory_gb,
            "steps": self.steps,
            "side": self.side,
            "note": self.note,
        }


_EULER = {"timestep_spacing": "trailing"}
# Repositories, classes, licences and steps as reviewed in November 2026. Sizes are of the weights
# as published; where only the number of parameters was known, two bytes for each.
_TABLE = (
    HubModel(
        "sd15", "stable-diffusion-v1-5/stable-diffusion-inpainting",
        "StableDiffusionInpaintPipeline", "noise level", "creativeml-openrail-m", 4.0, 25, 512,
        scheduler="EulerDiscreteScheduler", scheduler_settings=_EULER,
        call={"guidance_scale": 7.5}, batch=8, note="the smallest",
    ),
    HubModel(
        "sd15-lcm", "stable-diffusion-v1-5/stable-diffusion-inpainting",
        "StableDiffusionInpaintPipeline", "noise level", "creativeml-openrail-m", 4.0, 6, 512,
        scheduler="LCMScheduler", call={"guidance_scale": 1.0}, batch=8,
        adapter=Adapter(
            "latent-consistency/lcm-lora-sdv1-5", "pytorch_lora_weights.safetensors"
        ),
        note="few steps, for small machines; read the adapter's licence on its page",
    ),
    HubModel(
        "sd15-face-id", "stable-diffusion-v1-5/stable-diffusion-inpainting",
        "StableDiffusionInpaintPipeline", "noise level",
        "creativeml-openrail-m, and of IP-Adapter-FaceID non-commercial research", 4.3, 25, 512,
        scheduler="EulerDiscreteScheduler", scheduler_settings=_EULER, accept_licence=True,
        call={"guidance_scale": 7.5}, batch=8,
        adapter=Adapter(
            "h94/IP-Adapter-FaceID", "ip-adapter-faceid_sd15.bin", "identity reader"
        ),
        note="non-commercial; is told an identity that is drawn at random, not read from a face",
    ),
    HubModel(
        "sdxl", "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        "StableDiffusionXLInpaintPipeline", "noise level", "openrail++", 8.0, 25, 1024,
        scheduler="EulerDiscreteScheduler", scheduler_settings=_EULER,
        call={"guidance_scale": 7.5},
    ),
    HubModel(
        "z-image-turbo", "Tongyi-MAI/Z-Image-Turbo", "ZImageInpaintPipeline", "flow time",
        "apache-2.0", 12.3, 9, 1024, call={"guidance_scale": 0.0},
        note="recommended where 16 GB of GPU memory are free",
    ),
    HubModel(
        "flux2-klein", "black-forest-labs/FLUX.2-klein-4B", "Flux2KleinInpaintPipeline",
        "flow time", "apache-2.0", 15.8, 4, 1024, call={"guidance_scale": 1.0},
    ),
    HubModel(
        "qwen-image-edit", "Qwen/Qwen-Image-Edit", "QwenImageEditInpaintPipeline", "flow time",
        "apache-2.0", 56.0, 30, 1024, batch=1,
        call={"true_cfg_scale": 4.0, "negative_prompt": " "},
    ),
    HubModel(
        "flux1-fill", "black-forest-labs/FLUX.1-Fill-dev", "FluxFillPipeline", "flow time",
        "flux-1-dev-non-commercial-license", 34.0, 30, 1024, accept_licence=True,
        call={"guidance_scale": 30.0}, note="non-commercial; gated: agree on its page first",
    ),
    HubModel(
        "sd-turbo", "stabilityai/sd-turbo", "StableDiffusionInpaintPipeline", "noise level",
        "stabilityai community licence", 3.0, 4, 512, accept_licence=True, batch=8,
        scheduler="EulerDiscreteScheduler", scheduler_settings=_EULER,
        call={"guidance_scale": 0.0},
        note="read its page for commercial use; not trained to inpaint; may be gone from the Hub",
    ),
    HubModel(
        "sdxl-turbo", "stabilityai/sdxl-turbo", "StableDiffusionXLInpaintPipeline", "noise level",
        "stabilityai non-commercial research community licence", 8.0, 4, 512, accept_licence=True,
        scheduler="EulerDiscreteScheduler", scheduler_settings=_EULER,
        call={"guidance_scale": 0.0}, note="non-commercial; not trained to inpaint",
    ),
)  # fmt: skip
HUB_MODELS: Mapping[str, HubModel] = MappingProxyType({model.name: model for model in _TABLE})
"""Name → model."""


def chosen(
    name: str, *, accept_licence: bool, models: Mapping[str, HubModel] = HUB_MODELS
) -> tuple[HubModel, str]:
    """Return the model and the commits that NAME, NAME@SHA or NAME@SHA+SHA names.

    Args:
        name: NAME, or NAME@SHA with a full commit of the model's repository; a model with an
            adapter takes a commit of each, NAME@SHA+SHA.
        accept_licence: Whether the user agreed to a licence that limits use.
        models: The table.

    Raises:
        InvalidArgumentError: The name is unknown, its licence was not accepted, or there is no
            commit to use.
    """
    known, at, revision = name.partition("@")
    if known not in models:
        raise InvalidArgumentError(f"`backend` must be one of {', '.join(models)}, got {known!r}.")
    model = models[known]
    if model.accept_licence and not accept_licence:
        raise InvalidArgumentError(
            f"`backend` {known} is under the licence {model.licence}, which limits its use, so it "
            f"must be accepted first. Read it at https://huggingface.co/{model.limited_repo_id}, "
            "then add `--accept-licence`."
        )
    if not at:
        revision = model.revision or ""
    repos = [model.repo_id] if model.adapter is None else [model.repo_id, model.adapter.repo_id]
    commits = revision.split("+")
    if len(commits) != len(repos) or not all(map(_REVISION.fullmatch, commits)):
        pages = " and ".join(f"https://huggingface.co/{repo}/commits/main" for repo in repos)
        raise InvalidArgumentError(
            f"`backend` {known} must name the commit to use, 40 hexadecimal digits"
            f"{'' if len(repos) == 1 else ' each for model and adapter'}, got "
            f"{f'{revision!r}' if at else 'none'}. Take the one you trust from {pages} and write "
            f"`--backend {known}@{'+'.join(['SHA'] * len(repos))}`."
        )
    return model, revision
