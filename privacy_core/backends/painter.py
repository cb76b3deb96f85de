"""A diffusers pipeline, loaded once, that paints new faces into squares of surroundings.

Knows pictures, noise levels and keys; no photo, no strength and no privacy.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from privacy_core.backends.adapter import add_adapter
from privacy_core.backends.device import Placement, is_out_of_memory
from privacy_core.backends.download import INDEX, LEFT_OUT
from privacy_core.backends.drawn_identity import add_identity_reader, drawn_identities
from privacy_core.backends.generators import generator_of
from privacy_core.backends.registry import PROMPT, HubModel
from privacy_core.backends.steps import starting_at
from privacy_core.errors import ModelError
from privacy_core.faces.align import SIZE, mask_radius
from privacy_core.noise import NoiseKey
from privacy_core.schema import RGB

_REACH = 1.06
"""Elliptical radius up to which is painted: a little beyond M, so that no seam falls into it."""
_PROCESSOR = "processor"
# What the libraries raise on files that are damaged or of another model.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError)


class Painter:
    """A loaded pipeline.

    Args:
        model: Its row of the table.
        pipeline: Of the class the row names, on its device.
    """

    def __init__(self, model: HubModel, pipeline: Any) -> None:
        import diffusers  # noqa: PLC0415  (seconds that nothing else should wait for)

        self.model, self._pipeline = model, pipeline
        pipeline.scheduler = getattr(diffusers, model.scheduler).from_config(
            pipeline.scheduler.config, **model.scheduler_settings
        )
        pipeline.set_progress_bar_config(disable=True)
        self._mask = Image.fromarray(_painted(model.side)).convert("L")
        self._one_at_a_time = threading.Lock()
        self._reads_identities = (
            model.adapter is not None and model.adapter.kind == "identity reader"
        )

    @torch.inference_mode()
    def paint(
        self,
        filled: Sequence[RGB],
        faces: Sequence[RGB],
        sigma: float | None,
        keys: Sequence[NoiseKey],
    ) -> NDArray[np.float32]:
        """Paint one face into each square.

        Args:
            filled: (side, side, 3) squares with every face filled: all that the model is shown.
            faces: The same squares with the face, which is noised; not used for pure noise.
            sigma: Standard deviation of the noise over that of clean latents, None: pure noise.
            keys: One per face; one key is one noise at every `sigma`.

        Returns:
            (n, side, side, 3) in [0, 1]; a face that failed is not finite.

        Raises:
            ModelError: The device has too little memory for even one face.
        """
        n = len(filled)
        try:
            with self._one_at_a_time:
                return self._paint(filled, faces, sigma, keys)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if n == 1:
                raise _out_of_memory(self.model.name, "a single face") from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = n // 2
        return np.concatenate(
            [
                self.paint(filled[part], faces[part], sigma, keys[part])
                for part in (slice(half), slice(half, n))
            ]
        )

    def _paint(
        self,
        filled: Sequence[RGB],
        faces: Sequence[RGB],
        sigma: float | None,
        keys: Sequence[NoiseKey],
    ) -> NDArray[np.float32]:
        generators = [generator_of(key, "noise") for key in keys]
        side, n = self.model.side, len(filled)
        arguments = {
            "prompt": [PROMPT] * n,
            "image": [Image.fromarray(square) for square in filled],
            "mask_image": [self._mask] * n,
            "height": side,
            "width": side,
            "num_inference_steps": self.model.steps,
            "generator": generators,
            "output_type": "np",
            **self.model.call,
        }
        if self._reads_identities:
            arguments["ip_adapter_image_embeds"] = [drawn_identities(self._pipeline, keys)]
        if sigma is None:
            images = self._pipeline(strength=1.0, **arguments).images
        else:
            shown = [Image.fromarray(face) for face in faces]
            with starting_at(self._pipeline, sigma, shown, generators):
                # Below 1, or some pipelines start from pure noise; the rest of it is not used.
                images = self._pipeline(strength=0.5, **arguments).images
        painted: NDArray[np.float32] = np.asarray(images, dtype=np.float32)
        return painted


def load_painter(
    model: HubModel, folder: Path, placement: Placement, *, adapter: Path | None = None
) -> Painter:
    """Load a pipeline from a local folder onto its device.

    Args:
        model: Its row of the table.
        folder: As the Hub holds it.
        placement: Device, precision, offload.
        adapter: File of weights to add.

    Raises:
        ModelError: The files do not fit the class, or the device's memory does not suffice.
    """
    import diffusers  # noqa: PLC0415

    pipeline_class = getattr(diffusers, model.pipeline)
    try:
        pipeline = pipeline_class.from_pretrained(
            folder,
            dtype=placement.dtype,
            use_safetensors=True,
            local_files_only=True,
            **_replaced(folder),
        )
        _complete(pipeline, folder, placement)
        if adapter is not None and model.adapter is not None:
            add = {"low rank": add_adapter, "identity reader": add_identity_reader}
            add[model.adapter.kind](pipeline, adapter)
        _move(pipeline, placement)
    except ModelError:
        raise
    except (*_DAMAGE, SafetensorError, MemoryError) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(model.name, "its weights") from error
        raise ModelError(
            f"`backend` {model.name} cannot be loaded ({type(error).__name__}): its files do not "
            f"fit {model.pipeline} of diffusers {diffusers.__version__}. Choose another commit."
        ) from error
    return Painter(model, pipeline)


def _replaced(folder: Path) -> dict[str, Any]:
    """Return the components that do not come from the folder."""
    index = json.loads((folder / INDEX).read_text())
    replaced: dict[str, Any] = {name: None for name in (*LEFT_OUT, _PROCESSOR) if name in index}
    if "safety_checker" in replaced:
        # It judges the scene, not the face, and blackens what it takes for nudity.
        replaced["requires_safety_checker"] = False
    return replaced


def _complete(pipeline: Any, folder: Path, placement: Placement) -> None:
    if (folder / _PROCESSOR).is_dir():
        from privacy_core.backends.vision_text import VisionText  # noqa: PLC0415

        pipeline.register_modules(processor=VisionText.load(folder / _PROCESSOR))
    if placement.dtype != torch.float16 and "force_upcast" in pipeline.vae.config:
        # Only float16 overflows in it.
        pipeline.vae.register_to_config(force_upcast=False)


def _move(pipeline: Any, placement: Placement) -> None:
    moves: dict[str, Callable[[], object]] = {
        "none": lambda: pipeline.to(placement.device),
        "model": pipeline.enable_model_cpu_offload,
        "sequential": pipeline.enable_sequential_cpu_offload,
    }
    moves[placement.offload]()


def _painted(side: int) -> NDArray[np.bool_]:
    """Return the pixels of a square that are painted, (side, side) bool."""
    zoom = side / SIZE
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / zoom - 0.5
    points = np.stack([x.ravel(), y.ravel()], 1)
    painted: NDArray[np.bool_] = mask_radius(points).reshape(side, side) <= _REACH
    return painted


def _out_of_memory(name: str, held: str) -> ModelError:
    return ModelError(
        f"`backend` {name} ran out of the device's memory on {held}. Close other programs on the "
        "device, or take a smaller backend: `python -m privacy_core backends` lists what each "
        "needs."
    )
