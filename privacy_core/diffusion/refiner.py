"""The detail stage: what a linear code cannot draw is added to the face that it decodes to.

Sees the decoded face and the code of its surroundings, never a photo: post-processing of the noised
code, so no guarantee changes. Knows pixels of the template; not photos, noise or strength.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy_core.diffusion.code import CONTEXT_SIZE, LinearCode
from privacy_core.faces.align import SIZE


@dataclass(frozen=True)
class RefinerConfig:
    """Sizes of a refiner.

    Attributes:
        width: Channels at 64 px; twice as many at 32 and four times as many at 16.
        n_blocks: Residual blocks at 32 and at 16 px on the way down; elsewhere there is one.
    """

    width: int = 32
    n_blocks: int = 2


class Refiner(nn.Module):
    """A U-Net (Ronneberger et al. 2015) that adds detail to a face in its surroundings."""

    def __init__(self, sizes: RefinerConfig) -> None:
        super().__init__()
        self.sizes = sizes
        fine, middle, coarse = sizes.width, 2 * sizes.width, 4 * sizes.width
        self.enter = nn.Conv2d(12, fine, 3, padding=1)
        self.fine = _blocks(fine, 1)
        self.to_middle = nn.Conv2d(4 * fine, middle, 1)
        self.middle = _blocks(middle, sizes.n_blocks)
        self.to_coarse = nn.Conv2d(4 * middle, coarse, 1)
        self.coarse = _blocks(coarse, sizes.n_blocks)
        self.from_coarse = nn.Conv2d(coarse, 4 * middle, 1)
        self.middle_again = _blocks(middle, 1)
        self.from_middle = nn.Conv2d(middle, 4 * fine, 1)
        self.fine_again = _blocks(fine, 1)
        self.leave = nn.Conv2d(fine, 12, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (n, 3, 128, 128) pictures with detail, from such in [-1, 1] without it."""
        fine = self.fine(self.enter(functional.pixel_unshuffle(pictures, 2)))
        middle = self.middle(self.to_middle(functional.pixel_unshuffle(fine, 2)))
        coarse = self.coarse(self.to_coarse(functional.pixel_unshuffle(middle, 2)))
        middle = middle + functional.pixel_shuffle(self.from_coarse(coarse), 2)
        fine = fine + functional.pixel_shuffle(self.from_middle(self.middle_again(middle)), 2)
        detail = self.leave(functional.silu(self.fine_again(fine)))
        return pictures + functional.pixel_shuffle(detail, 2)

    @torch.inference_mode()
    def refine(self, code: LinearCode, faces: Tensor, context: Tensor) -> Tensor:
        """Return (n, 128, 128, 3) uint8 frames with detail; outside M they stay mid-grey.

        Args:
            code: Whose faces and context they are.
            faces: (n, 128, 128, 3) uint8 as `code.decode` returns them.
            context: (n, n_context), rows of NaN where unknown.
        """
        pictures = surrounded(code, faces, context)
        refined = self(pictures.to(self.enter.weight.dtype, memory_format=torch.channels_last))
        frames = faces.clone()
        values = ((refined.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        frames[:, code.mask] = values.permute(0, 2, 3, 1)[:, code.mask]
        return frames


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.silu(self.first(functional.silu(x)))
        result: Tensor = x + self.second(inner)
        return result


def _blocks(width: int, n: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(n)))


def surrounded(code: LinearCode, faces: Tensor, context: Tensor) -> Tensor:
    """Return (n, 3, 128, 128) pictures in [-1, 1]: faces in what the context says is around them.

    Args:
        code: Whose faces and context they are.
        faces: (n, 128, 128, 3) uint8; read inside M.
        context: (n, n_context), rows of NaN where unknown: the mean surroundings.
    """
    around = code.surroundings(context).reshape(-1, 3, CONTEXT_SIZE, CONTEXT_SIZE)
    around = functional.interpolate(around, (SIZE, SIZE), mode="bilinear", align_corners=False)
    inside = faces.permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.where(code.mask, inside, around)


def pictures_of(
    code: LinearCode, refiner: Refiner | None, codes: Tensor, context: Tensor | None
) -> Tensor:
    """Return (n, 128, 128, 3) uint8 frames of (n, K) codes; grey outside M.

    Args:
        code: Whose codes they are.
        refiner: Adds detail; None leaves what the code can draw.
        codes: Clean codes.
        context: (n, n_context) codes of what surrounds the faces, rows of NaN where unknown; None
            where all are.
    """
    frames = code.decode(codes)
    if refiner is None:
        return frames
    if context is None:
        context = torch.full((len(frames), code.sizes.n_context), torch.nan)
    return refiner.refine(code, frames, context)
