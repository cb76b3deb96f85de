"""Pixels → PNG without any metadata but one mark that an algorithm edited the picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, PngImagePlugin

from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.schema import RGB
from privacy_core.wholefile import whole_file

DigitalSourceType = Literal[
    "compositeWithTrainedAlgorithmicMedia", "algorithmicallyEnhanced", "trainedAlgorithmicMedia"
]
"""IPTC terms: a photo edited with a generative model; a photo changed by a plain algorithm; a
picture made by a generative model alone."""
DIGITAL_SOURCE_TYPES: tuple[DigitalSourceType, ...] = get_args(DigitalSourceType)
VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_COMPRESSION = 4
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    "<Iptc4xmpExt:DigitalSourceType>{uri}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def encode_png(pixels: RGB, *, digital_source_type: DigitalSourceType) -> bytes:
    """Encode a picture; the same pixels always give the same bytes.

    Args:
        pixels: (height, width, 3) uint8.
        digital_source_type: The IPTC term the one XMP packet carries.

    Raises:
        InvalidArgumentError: Pixels of another shape or type, or a term that is not ours.
    """
    if digital_source_type not in DIGITAL_SOURCE_TYPES:
        raise InvalidArgumentError(
            f"Unknown `digital_source_type` {digital_source_type!r}. "
            f"Choose one of: {', '.join(DIGITAL_SOURCE_TYPES)}."
        )
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (3,) or not pixels.size:
        raise InvalidArgumentError(
            "`pixels` must be a uint8 array of shape (height, width, 3), got "
            f"{pixels.dtype} {pixels.shape}. Convert it first."
        )
    mark = PngImagePlugin.PngInfo()
    mark.add_itxt("XML:com.adobe.xmp", _PACKET.format(uri=VOCABULARY + digital_source_type))
    buffer = io.BytesIO()
    # A picture made from the array alone has no `info` that Pillow could copy into the file.
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=mark, compress_level=_COMPRESSION)
    return buffer.getvalue()


def write_png(path: Path, pixels: RGB, *, digital_source_type: DigitalSourceType) -> None:
    """Write a picture whole or not at all.

    Args:
        path: Ends in .png; an existing file is replaced, its folder must exist.
        pixels: (height, width, 3) uint8.
        digital_source_type: The IPTC term the one XMP packet carries.

    Raises:
        InvalidArgumentError: As `encode_png`, or `path` does not end in .png.
        OutputError: The file cannot be written; nothing is left behind.
    """
    if path.suffix.lower() != ".png":
        raise InvalidArgumentError(
            f"`out` must end in .png, got {str(path)!r}. Other formats would blur the borders "
            "of what was changed; convert the PNG afterwards if you need one."
        )
    write_whole(path, encode_png(pixels, digital_source_type=digital_source_type))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file through a temporary neighbour, so that no reader sees half of it.

    Raises:
        OutputError: The file cannot be written; nothing is left behind.
    """
    try:
        with whole_file(path) as draft:
            draft.write_bytes(data)
    except OSError as error:
        raise OutputError(
            f"`out` must be a file in a folder you can write to, got {str(path)!r} "
            f"({error.strerror or type(error).__name__}). Choose another place."
        ) from error
