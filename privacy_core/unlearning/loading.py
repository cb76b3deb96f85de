"""A model folder → a target model, whatever its kind.

transformers is imported only where the folder holds a network.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from privacy_core.unlearning.head_model import HEAD_TYPE, Backbone, load_head
from privacy_core.unlearning.targets import (
    CONFIG,
    Recipe,
    TargetModel,
    damaged,
    model_type,
    read_json,
)


def load_target(
    folder: Path, *, backbone_of: Callable[[str], Backbone], recipe: Recipe | None = None
) -> TargetModel:
    """Load a head or a network.

    Args:
        folder: As written by `save_target`, or any `transformers` image classifier's.
        backbone_of: Name → a head's backbone.
        recipe: For a network whose folder does not say how it was trained.

    Raises:
        ModelError: A file is missing or damaged, or the training cannot be repeated.
    """
    if model_type(folder) != HEAD_TYPE:
        from privacy_core.unlearning.network import load_network

        return load_network(folder, recipe=recipe)
    try:
        name = str(read_json(folder / CONFIG)["backbone"])
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise damaged(folder, error) from error
    return load_head(folder, backbone_of(name))
