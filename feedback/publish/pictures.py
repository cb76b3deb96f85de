"""Which pictures may be published: whole ones that carry pixels and at most our mark; no Hub.

What a file may hold is listed, block by block, and everything else is refused: a name, a place, a
thumbnail or a comment can stand in more blocks than anyone would think of.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback.errors import InvalidRatingError

MAX_PICTURE_BYTES = 1_000_000
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_PLAIN = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"sRGB", b"gAMA", b"cHRM"))
_PNG_MARK = b"XML:com.adobe.xmp\0\0\0\0\0"
_WEBP_PLAIN = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH"))
_JPEG_MARK = b"http://ns.adobe.com/xap/1.0/\0"
# Frame headers, tables, restart interval, scan; application blocks and comments are not among them.
_JPEG_PLAIN = frozenset((*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD))
_JPEG_BARE = frozenset(range(0xD0, 0xD8))
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_SCAN, _END = 0xDA, 0xD9
_MARK = re.compile(
    rb'(?:<\?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"\?>)?'
    rb'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    rb'<rdf:RDF xmlns:rdf="http://www\.w3\.org/1999/02/22-rdf-syntax-ns#">'
    rb'<rdf:Description rdf:about="" '
    rb'xmlns:Iptc4xmpExt="http://iptc\.org/std/Iptc4xmpExt/2008-02-29/">'
    rb"<Iptc4xmpExt:DigitalSourceType>http://cv\.iptc\.org/newscodes/digitalsourcetype/"
    rb"[A-Za-z]{1,64}</Iptc4xmpExt:DigitalSourceType>"
    rb'</rdf:Description></rdf:RDF></x:xmpmeta>(?:<\?xpacket end="r"\?>)?'
)


def variant_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the pictures of a folder as rows, with numbers for names.

    The bytes go out as they are, so pictures that carry more than pixels and the one mark that an
    algorithm edited them are refused, not cleaned.

    Args:
        folder: Of pictures of people who do not exist, or who gave them for this.

    Raises:
        InvalidRatingError: The folder has no pictures, or some may not be published; all of them
            are listed.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InvalidRatingError(
            f"`variants` must be a folder of pictures, got: {error.strerror}. Name another one."
        ) from error
    if not paths:
        raise InvalidRatingError(
            f"`variants` must hold {', '.join(SUFFIXES)} files, got none. Leave it out, or name "
            "another folder."
        )
    pictures: list[bytes] = []
    problems: list[str] = []
    for path in paths:
        data, fault = _read(path)
        pictures.append(data)
        if fault:
            problems.append(f"{path.name}: {fault}")
    if problems:
        raise InvalidRatingError(*problems)
    return [
        {"image": {"bytes": data, "path": None}, "name": f"variant-{number:05}"}
        for number, data in enumerate(pictures, 1)
    ]


def _read(path: Path) -> tuple[bytes, str | None]:
    """Return a picture's bytes, and why it may not be published, None if it may."""
    try:
        # A link would publish what nobody put into the folder.
        if path.is_symlink() or not path.is_file():
            return b"", "a picture must be a file, got a folder, a link or something else."
        data = path.read_bytes()
    except OSError as error:
        return b"", f"a picture must be readable, got: {error.strerror}."
    return data, _fault(data, SUFFIXES[path.suffix.lower()])


def _fault(data: bytes, kind: str) -> str | None:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only needed to publish

    if len(data) > MAX_PICTURE_BYTES:
        return f"a picture must have at most {MAX_PICTURE_BYTES} bytes, got {len(data)}."
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format != kind:
                return "a picture must be what its name says, got another format."
            if getattr(picture, "n_frames", 1) != 1:
                return "a picture must be one picture, got several in one file. Save one of them."
            picture.load()
        foreign = {"PNG": _in_png, "JPEG": _in_jpeg, "WEBP": _in_webp}[kind](data)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return "a picture must be whole, got one that cannot be read."
    if found := sorted(set(foreign)):
        return (
            "a picture must carry nothing but pixels and the mark that an algorithm edited it, got "
            f"{', '.join(found)}. Save it without."
        )
    return None


def _in_png(data: bytes) -> Iterator[str]:
    """Yield what a PNG holds beside pixels and our mark."""
    at = len(_PNG_START)
    while at < len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        at += 12 + size
        is_mark = name == b"iTXt" and body.startswith(_PNG_MARK)
        if is_mark and _MARK.fullmatch(body.removeprefix(_PNG_MARK)):
            continue
        if name not in _PNG_PLAIN:
            yield _called(name)
        if name == b"IEND":
            break
    if at < len(data):
        yield "data after its end"


def _in_webp(data: bytes) -> Iterator[str]:
    """Yield what a WebP holds beside pixels and our mark."""
    end = 8 + int.from_bytes(data[4:8], "little")
    at = 12
    while at < min(end, len(data)):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
        if name not in _WEBP_PLAIN and not (name == b"XMP " and _MARK.fullmatch(body)):
            yield _called(name)
    if end < len(data):
        yield "data after its end"


def _in_jpeg(data: bytes) -> Iterator[str]:
    """Yield what a JPEG holds beside pixels and our mark."""
    at = 2
    while at < len(data):
        code = data[at + 1] if data[at] == 0xFF and at + 1 < len(data) else -1  # noqa: PLR2004
        if code == _END:
            at += 2
            break
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if code < 0 or size < 2:  # noqa: PLR2004 - a block's length counts itself
            yield "bytes outside its blocks"
            return
        body = data[at + 4 : at + 2 + size]
        at += 2 + size
        if not _is_plain_jpeg(code, body):
            yield f"block {code:02X}"
        if code == _SCAN:
            at = _after_scan(data, at)
    if at < len(data):
        yield "data after its end"


def _is_plain_jpeg(code: int, body: bytes) -> bool:
    if code in _JPEG_PLAIN:
        return True
    return (
        # JFIF without a thumbnail; Adobe's, which says how colours are stored; our mark.
        (code == 0xE0 and body.startswith(b"JFIF\0") and len(body) == _JFIF_BYTES)  # noqa: PLR2004
        or (code == 0xEE and body.startswith(b"Adobe") and len(body) == _ADOBE_BYTES)  # noqa: PLR2004
        or (
            code == 0xE1  # noqa: PLR2004
            and body.startswith(_JPEG_MARK)
            and _MARK.fullmatch(body.removeprefix(_JPEG_MARK)) is not None
        )
    )


def _after_scan(data: bytes, at: int) -> int:
    """Return where the next block begins after the coded pixels that begin at `at`."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        # 0 stands for the value 255 itself; restarts belong to the pixels.
        if data[at + 1] != 0 and data[at + 1] not in _JPEG_BARE:
            return at
        at += 2
    return len(data)


def _called(name: bytes) -> str:
    """Return a block's name, fit for a message."""
    text = name.decode("ascii", errors="replace").strip()
    return f"block {text}" if text.isalnum() else "a block without a name"
