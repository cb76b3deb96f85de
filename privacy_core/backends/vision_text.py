"""Text and a picture → the inputs of Qwen's vision-language model, for its editing pipeline.

Stands in for the processor of transformers, which needs a video library that faces do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BatchFeature

_PLACE = "<|image_pad|>"


class VisionText:
    """Tokenizer and picture reader in one call, as the pipeline expects.

    Args:
        image_processor: Cuts a picture into patches.
        tokenizer: Of the language model.
    """

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer

    @classmethod
    def load(cls, folder: Path) -> VisionText:
        """Load both from a `processor` folder of the Hub."""
        from transformers import AutoTokenizer, Qwen2VLImageProcessorPil  # noqa: PLC0415

        return cls(
            Qwen2VLImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        )

    def __call__(
        self, text: Sequence[str], images: Any, *, padding: bool, return_tensors: str
    ) -> BatchFeature:
        """Return token ids with one place per patch group of each text's one picture.

        Args:
            text: One prompt per picture.
            images: The pictures.
            padding: Pad the prompts to one length.
            return_tensors: Format of the tensors.
        """
        seen = self.image_processor(images=images, return_tensors=return_tensors)
        group = self.image_processor.merge_size**2
        prompts = [
            prompt.replace(_PLACE, _PLACE * (int(grid.prod()) // group))
            for prompt, grid in zip(text, seen["image_grid_thw"], strict=True)
        ]
        tokens = self.tokenizer(prompts, padding=padding, return_tensors=return_tensors)
        return BatchFeature({**tokens, **seen})
