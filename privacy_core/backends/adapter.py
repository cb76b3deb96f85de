"""Small weights from the Hub, added to a pipeline's own (low-rank adaptation, Hu et al. 2021).

Knows the names that such files use; loads no pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from privacy_core.errors import ModelError

_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
_PARTS = {"lora_unet_": "unet", "lora_te_": "text_encoder"}


@torch.no_grad()
def add_adapter(pipeline: Any, file: Path) -> int:
    """Add W ← W + (α / r) up · down to every layer that a file names.

    Args:
        pipeline: Of diffusers, before it is moved to its device.
        file: Safetensors with `lora_unet_…` and `lora_te_…` keys.

    Returns:
        How many layers were changed.

    Raises:
        ModelError: The file is damaged, or made for another model.
    """
    try:
        weights = load_file(file)
        names = [key.removesuffix(_DOWN) for key in weights if key.endswith(_DOWN)]
        expected = {name + end for name in names for end in (_DOWN, _UP, _ALPHA)}
        layers = _layers(pipeline)
        # What is left over or missing is a KeyError, as is a layer that the model lacks.
        for name in [*names, *(set(weights) - expected)] or [""]:
            weight, down = layers[name].weight, weights[name + _DOWN].float()
            scale = float(weights.get(name + _ALPHA, torch.tensor(len(down)))) / len(down)
            weight += scale * _product(weights[name + _UP].float(), down).view_as(weight).to(weight)
    except (OSError, KeyError, AttributeError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"The adapter {file.name!r} cannot be added ({type(error).__name__}): it is damaged, "
            "or made for another model. Choose another commit."
        ) from error
    return len(names)


def _layers(pipeline: Any) -> dict[str, Any]:
    return {
        prefix + path.replace(".", "_"): layer
        for prefix, part in _PARTS.items()
        for path, layer in getattr(pipeline, part).named_modules()
    }


def _product(up: Tensor, down: Tensor) -> Tensor:
    """Return the (out, in, …) update of a linear layer or a convolution."""
    return torch.einsum("or,r...->o...", up.flatten(1), down)
