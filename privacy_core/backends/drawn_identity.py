"""Identities for a model that can be told one: drawn at random, the same for one key.

Knows IP-Adapter-FaceID's weights (Ye et al. 2023) and keys; no face. Such weights read a unit
vector from a face recogniser. Here nothing reads a face: the vector is drawn, so that it can be
nobody's on purpose, and least of all the subject's, and no recogniser is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from privacy_core.backends.generators import generator_of
from privacy_core.errors import ModelError
from privacy_core.noise import NoiseKey

_PARTS = ("image_proj", "ip_adapter")
_LAYERS = ("to_q", "to_k", "to_v", "to_out")
_DOWN, _UP = "_lora.down.weight", "_lora.up.weight"


@torch.no_grad()
def add_identity_reader(pipeline: Any, file: Path) -> None:
    """Let a pipeline read identities beside its prompt.

    Args:
        pipeline: Of diffusers, before it is moved to its device.
        file: Weights as IP-Adapter-FaceID publishes them.

    Raises:
        ModelError: The file is damaged, holds more than tensors, or is made for another model.
    """
    try:
        # A pickle, of which only tensors are read: it can name no code to run.
        weights = torch.load(file, map_location="cpu", weights_only=True)
        parts = {part: dict(weights[part]) for part in _PARTS}
        _add_low_rank(pipeline.unet, parts["ip_adapter"])
        pipeline.unet._load_ip_adapter_weights([parts])  # its public form also wants CLIP
        _ = identity_size(pipeline)
    except (
        *(OSError, EOFError, KeyError, IndexError, AttributeError, TypeError),
        *(RuntimeError, ValueError, UnpicklingError),
    ) as error:
        raise ModelError(
            f"The adapter {file.name!r} cannot be added ({type(error).__name__}): it is damaged, "
            "or made for another model. Choose another commit."
        ) from error


def identity_size(pipeline: Any) -> int:
    """Return how many numbers an identity has."""
    (reader,) = pipeline.unet.encoder_hid_proj.image_projection_layers
    return int(reader.ff.net[0].proj.in_features)


def drawn_identities(pipeline: Any, keys: Sequence[NoiseKey]) -> Tensor:
    """Return what a pipeline takes as `ip_adapter_image_embeds`, with none for its comparison.

    Args:
        pipeline: With an identity reader.
        keys: One per face; one key is one identity, unrelated to its noise.

    Returns:
        (2 n, 1, d): n times zeros, then n unit vectors.
    """
    drawn = torch.stack([_unit_vector(key, identity_size(pipeline)) for key in keys])[:, None]
    return torch.cat([torch.zeros_like(drawn), drawn]).to(pipeline.unet.dtype)


def _unit_vector(key: NoiseKey, size: int) -> Tensor:
    drawn = torch.randn(size, generator=generator_of(key, "identity"))
    return torch.nn.functional.normalize(drawn, dim=0)


def _add_low_rank(unet: Any, weights: dict[str, Tensor]) -> None:
    """Add W ← W + up · down to the attention layers, and take these weights out of `weights`."""
    modules = dict(unet.named_modules())
    for number, name in enumerate(list(unet.attn_processors)):
        attention = modules[name.removesuffix(".processor")]
        for part in _LAYERS:
            down = weights.pop(f"{number}.{part}{_DOWN}", None)
            if down is None:
                continue
            layer = getattr(attention, part)
            weight = (layer[0] if part == "to_out" else layer).weight
            up = weights.pop(f"{number}.{part}{_UP}")
            weight += (up.float() @ down.float()).to(weight)
    left = [name for name in weights if not name.endswith((".to_k_ip.weight", ".to_v_ip.weight"))]
    if left:
        raise KeyError(left[0])
