"""File or bytes → `Photo`: upright sRGB pixels without metadata; knows nothing of faces."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.schema import Photo

MAX_PIXELS = 50_000_000
"""Largest accepted photo, width times height, read from the header before decoding."""
MAX_BYTES = 256 * 1024 * 1024
_MOST_SCANS = 64
"""A progressive JPEG has about ten; each more costs a pass over the whole picture."""
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
"""What begins a segment; no other byte after ff has a length that libjpeg would skip."""
_START_OF_SCAN, _START_OF_IMAGE, _END_OF_IMAGE = b"\xda", b"\xd8", b"\xd9"
_LENGTH = 2
"""Bytes in which a segment says its length, counted in it; libjpeg reads them at least."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
_FORMATS_IN_WORDS = "JPEG, PNG, WebP, TIFF, GIF or BMP"
_CONVERT = f"Save the picture as {_FORMATS_IN_WORDS} and try again."
_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L"}
_ALPHA_MODES = {"RGBA", "RGBa", "LA", "La", "PA"}
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's readers raise on damaged files; each means "this file is broken".
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


def read_photo(source: Path | str | bytes) -> Photo:
    """Decode a photo: upright, sRGB, 8 bits, first frame, flattened on white, no metadata.

    Args:
        source: Path of a file, or the file's bytes.

    Raises:
        InvalidArgumentError: `source` is neither a path nor bytes.
        PhotoError: The photo is missing, empty, damaged, too large or not a supported picture.
    """
    data, shown = _read_bytes(source)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(shown, int(count.group()) if count else 2 * MAX_PIXELS) from None
    except UnidentifiedImageError:
        raise _not_a_picture(data, shown) from None
    except _DAMAGE:
        raise _damaged(shown) from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(shown, image.width * image.height)
        try:
            return _decode(image)
        except _DAMAGE:
            raise _damaged(shown) from None


def photo_from_pixels(pixels: NDArray[np.uint8]) -> Photo:
    """Wrap decoded pixels, for example a webcam frame.

    Args:
        pixels: uint8, (height, width) grey, (height, width, 3) RGB or (height, width, 4) RGBA,
            the last flattened on white.

    Raises:
        InvalidArgumentError: Another type or shape, no pixel at all, or too many.
    """
    shape = getattr(pixels, "shape", ())
    fits = shape[2:] in {(), (3,), (4,)} and len(shape) > 1
    if getattr(pixels, "dtype", None) != np.uint8 or not fits:
        raise InvalidArgumentError(
            "`pixels` must be a uint8 array of shape (height, width), (height, width, 3) or "
            f"(height, width, 4), got {type(pixels).__name__} {getattr(pixels, 'dtype', '')} "
            f"{shape}. Convert it first, or pass the file to `read_photo`."
        )
    if not 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS:
        raise InvalidArgumentError(
            f"`pixels` must hold between 1 and {MAX_PIXELS} pixels, got {pixels.shape}. "
            "Make the picture smaller, for example 4000 pixels wide."
        )
    return _to_photo(Image.fromarray(pixels), [])


def _read_bytes(source: Path | str | bytes) -> tuple[bytes, str]:
    """Return the file's bytes and how messages name it."""
    if isinstance(source, bytes):
        data, shown = source, "the uploaded bytes"
    elif isinstance(source, str | Path):
        path, shown = Path(source), f"{str(source)!r}"
        data = _read_file(path, shown)
    else:
        raise InvalidArgumentError(
            f"`photo` must be a path or bytes, got {type(source).__name__}. "
            "Pass pixels to `photo_from_pixels`."
        )
    if not data:
        raise PhotoError(f"`photo` must not be empty, got {shown} with 0 bytes. Copy it again.")
    if data.startswith(b"\xff\xd8") and _has_too_many_scans(data):
        raise PhotoError(
            f"`photo` must be a JPEG of at most {_MOST_SCANS} scans, got {shown} with more. "
            "Save it again in an image editor."
        )
    return data, shown


def _has_too_many_scans(data: bytes) -> bool:
    """Say whether a JPEG has more scans than `_MOST_SCANS` before the end of the picture.

    What looks like a scan inside another segment, such as a thumbnail's, or behind the end, such as
    the film of a phone photo, is none. An end before the first scan is only that of tables, behind
    which readers go on.
    """
    if data.count(b"\xff\xda") <= _MOST_SCANS:
        return False
    n_scans, place = 0, 2
    while n_scans <= _MOST_SCANS:
        segment = _SEGMENT.search(data, place)
        if segment is None or (segment[1] == _END_OF_IMAGE and n_scans):
            return False
        place = segment.end()
        if segment[1] in {_START_OF_IMAGE, _END_OF_IMAGE}:
            continue
        n_scans += segment[1] == _START_OF_SCAN
        place += max(int.from_bytes(data[place : place + _LENGTH], "big"), _LENGTH)
    return True


def _read_file(path: Path, shown: str) -> bytes:
    try:
        if path.is_dir():
            raise PhotoError(
                f"`photo` must be a file, got the folder {shown}. Name one picture in it."
            )
        if not path.exists():
            raise PhotoError(f"`photo` must be an existing file, got {shown}. Check the path.")
        if path.stat().st_size > MAX_BYTES:
            raise PhotoError(
                f"`photo` must have at most {MAX_BYTES // 2**20} MiB, got {shown} with "
                f"{path.stat().st_size // 2**20} MiB. Save a smaller copy, for example as JPEG."
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, PhotoError):
            raise
        raise PhotoError(
            f"`photo` must be a readable file, got {shown}. Check the path and its permissions."
        ) from None


def _decode(image: Image.Image) -> Photo:
    notes: list[str] = []
    if _has_second_frame(image):
        notes.append("first frame of several")
    image.load()
    turned = _UPRIGHT.get(_orientation(image))
    if turned is not None:
        profile = image.info.get("icc_profile")
        transparency = image.info.get("transparency")
        image = image.transpose(turned)
        image.info = {"icc_profile": profile, "transparency": transparency}
        notes.append("turned upright")
    return _to_photo(image, notes)


def _has_second_frame(image: Image.Image) -> bool:
    """Look no further than the second frame: counting them all may take minutes."""
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1  # A damaged EXIF block says nothing; the pixels are still good.
    return value if isinstance(value, int) else 1


def _to_photo(image: Image.Image, notes: list[str]) -> Photo:
    is_grey = image.mode in _GREY_MODES
    profile = image.info.get("icc_profile")
    image = _eight_bits(image, notes)
    image, alpha = _split_alpha(image)
    if profile:
        image = _to_srgb(image, profile, notes)
    image = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
        notes.append("transparency flattened on white")
    pixels = np.array(image)
    if is_grey:
        # A colour profile may leave the three channels a level apart.
        pixels[..., 0] = pixels[..., 2] = pixels[..., 1]
    pixels.setflags(write=False)
    return Photo(pixels, tuple(notes))


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    if not image.mode.startswith("I;16"):
        if image.mode in {"I", "F"}:
            raise ValueError(f"unsupported mode {image.mode}")
        return image
    values = np.asarray(image).astype(np.uint32)
    notes.append("16-bit scaled to 8-bit")
    transparent = image.info.get("transparency")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Separate colour and opacity; palettes become colours."""
    if image.mode in _ALPHA_MODES or image.info.get("transparency") is not None:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), None


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        if (source.profile.profile_description or "").startswith("sRGB"):
            return image
        if source.profile.xcolor_space.strip() == "GRAY" and image.mode == "RGB":
            image = image.convert("L")
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, *_DAMAGE):
        notes.append("unusable colour profile ignored")
        return image
    notes.append("colours converted to sRGB")
    return converted if converted is not None else image


def _too_large(shown: str, n_pixels: int) -> PhotoError:
    return PhotoError(
        f"`photo` must have at most {MAX_PIXELS // 10**6} megapixels, got {shown} with "
        f"{n_pixels / 1e6:.0f}. Make it smaller, for example 4000 pixels wide."
    )


def _damaged(shown: str) -> PhotoError:
    return PhotoError(
        f"`photo` must be a complete picture with 8 or 16 bits per channel, got {shown}, which is "
        f"damaged, cut off or of another kind. {_CONVERT}"
    )


def _not_a_picture(data: bytes, shown: str) -> PhotoError:
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = "which is not a picture of these kinds"
    if head.startswith(b"<"):
        found = "which is SVG (a drawing)" if b"<svg" in head else "which is a web page or XML"
    elif data[4:8] == b"ftyp":
        found = "which is HEIC, AVIF or a film"
    return PhotoError(f"`photo` must be {_FORMATS_IN_WORDS}, got {shown}, {found}. {_CONVERT}")
