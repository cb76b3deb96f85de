"""Pictures on their way to and from the browser: previews, files, uploads; knows no page.

What is written here carries no metadata but one mark, and lies where nobody can compute the path.
"""

from __future__ import annotations

import io
import itertools
import math
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from privacy_core.errors import PhotoError
from privacy_core.faces import DigitalSourceType, encode_png
from privacy_core.schema import RGB, Face, Variant

PREVIEW_SIDE = 720
PICTURE_NAME = "privacy-dial.png"
_CLOSE_UP = 2.2
_TILE = 480
_INK = "#3730a3"


class PictureFolder:
    """The folder that the page serves pictures from.

    Args:
        folder: Where files go, each under a random name of its own.
        source_type: What the mark of every picture says about how it was made.
    """

    def __init__(self, folder: Path, *, source_type: DigitalSourceType) -> None:
        self._folder = folder
        self._source_type = source_type
        self._mark = xmp_packet(source_type)

    def preview(self, pixels: RGB) -> str:
        """Write a small copy and return its path."""
        buffer = io.BytesIO()
        small = Image.fromarray(np.ascontiguousarray(reduced(pixels, PREVIEW_SIDE)))
        small.save(buffer, "JPEG", quality=90, xmp=self._mark)
        return self.file(buffer.getvalue(), "picture.jpg")

    def download(self, variant: Variant, *, name: str = PICTURE_NAME) -> str:
        """Write the file of a variant and return its path."""
        data = encode_png(variant.image, digital_source_type=self._source_type)
        return self.file(data, name)

    def file(self, data: bytes, name: str) -> str:
        """Write a file for the browser under a random folder, which nobody can compute."""
        folder = self._folder / secrets.token_hex(16)
        folder.mkdir(parents=True)
        (folder / name).write_bytes(data)
        return str(folder / name)


class Uploads(set[str]):
    """The paths that the server gave to uploads, as often as it gave each of them.

    Gradio names a file by its content: two visitors with one photo get one path. It adds paths in
    one thread and takes out those of files that it deleted in another.
    """

    def __init__(self) -> None:
        super().__init__()
        self._again: dict[object, int] = {}
        self._lock = threading.RLock()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths of this moment, whatever comes in meanwhile."""
        with self._lock:
            return iter(tuple(super().__iter__()))

    def __isub__(self, paths: AbstractSet[object]) -> Self:
        """Forget paths whose files were deleted, however often they were uploaded."""
        with self._lock:
            for path in paths:
                self._again.pop(path, None)
            return super().__isub__(paths)

    def add(self, path: str) -> None:
        """Add what was uploaded once."""
        self.update([path])

    def update(self, *paths: Iterable[str]) -> None:
        """Add what was uploaded."""
        with self._lock:
            for path in itertools.chain(*paths):
                if path in self:
                    self._again[path] = self._again.get(path, 0) + 1
                else:
                    # A count may be left of uploads that were taken out in another way.
                    self._again.pop(path, None)
                super().add(path)

    def discard(self, path: object) -> None:
        """Take a path out once."""
        with self._lock:
            left = self._again.pop(path, 0)
            if left > 1:
                self._again[path] = left - 1
            if not left:
                super().discard(path)


def take_upload(path: str, uploads: set[str]) -> bytes:
    """Return an upload's bytes and delete the file, which holds all of its metadata.

    A request may name any path: only what was uploaded here is opened, and only once.

    Args:
        path: As the request names it.
        uploads: Paths that the server itself gave to uploads; this one is taken out.

    Raises:
        PhotoError: It was not uploaded here, or is gone.
    """
    if path not in uploads:
        raise PhotoError("`photo` must be uploaded here, got another file. Choose it again.")
    uploads.discard(path)
    try:
        data = Path(path).read_bytes()
        if path not in uploads:  # Another visitor may have uploaded the same photo.
            Path(path).unlink()
    except OSError as error:
        raise PhotoError(
            "`photo` must still be there when it is read, got none. Choose it again."
        ) from error
    return data


def reduced(pixels: RGB, longest_side: int) -> RGB:
    """Return the picture with its longer side at most that long."""
    height, width = pixels.shape[:2]
    zoom = longest_side / max(height, width)
    if zoom >= 1:
        return pixels
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def tile(pixels: RGB, box: Sequence[float]) -> RGB:
    """Return the square around a face, (480, 480, 3), moved inward at the photo's borders."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    side = min(height, width, math.ceil(_CLOSE_UP * max(right - left, bottom - top)))
    x = int(np.clip(round((left + right - side) / 2), 0, width - side))
    y = int(np.clip(round((top + bottom - side) / 2), 0, height - side))
    square = Image.fromarray(np.ascontiguousarray(pixels[y : y + side, x : x + side]))
    return np.asarray(square.resize((_TILE, _TILE), Image.Resampling.BICUBIC))


def numbered(pixels: RGB, faces: Sequence[Face]) -> RGB:
    """Return a small copy with a numbered box around each face, in their order from 1.

    The numbers stand beside the faces where there is room, so that nothing of a face is hidden.
    """
    small = reduced(pixels, PREVIEW_SIDE)
    zoom = small.shape[1] / pixels.shape[1]
    picture = Image.fromarray(np.ascontiguousarray(small))
    draw = ImageDraw.Draw(picture)
    # A phone shows two pictures side by side at a quarter of this size.
    size = max(24, max(small.shape[:2]) // 14)
    font, badge = ImageFont.load_default(size), 1.2 * size
    for number, face in enumerate(faces, 1):
        left, top, right, bottom = (zoom * edge for edge in face.box)
        draw.rectangle((left, top, right, bottom), outline="white", width=6)
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=_INK, width=3)
        x, y = _beside((left, top, right, bottom), picture.size, badge)
        draw.rectangle((x, y, x + badge, y + badge), fill=_INK, outline="white", width=2)
        middle = (x + badge / 2, y + badge / 2)
        draw.text(middle, str(number), fill="white", font=font, anchor="mm")
    return np.asarray(picture)


def _beside(
    box: tuple[float, float, float, float], size: tuple[int, int], side: float
) -> tuple[float, float]:
    """Return where a square goes: above the box, below, right or left of it, as room allows."""
    left, top, right, bottom = box
    x, y = (
        float(np.clip(at, 0, max(0, end - side))) for at, end in ((left, size[0]), (top, size[1]))
    )
    if top >= side:
        return x, top - side
    if bottom + side <= size[1]:
        return x, bottom
    if right + side <= size[0]:
        return right, y
    return max(0.0, left - side), y


def xmp_packet(source_type: DigitalSourceType) -> bytes:
    """Return the mark of `encode_png`, for previews."""
    png = encode_png(np.zeros((1, 1, 3), np.uint8), digital_source_type=source_type)
    with Image.open(io.BytesIO(png)) as image:
        return str(image.info["XML:com.adobe.xmp"]).encode()
