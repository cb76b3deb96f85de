"""Written pictures: nothing of the input but pixels, one mark, and whole files or none."""

import io
import struct
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.faces.output import DIGITAL_SOURCE_TYPES, encode_png, write_png
from privacy_core.faces.photo import read_photo

MARKERS = [b"PLANTED-EXIF", b"PLANTED-GPS", b"PLANTED-XMP", b"PLANTED-TEXT", b"PLANTED-ICC"]
THUMBNAIL = b"\xff\xd8PLANTED-THUMBNAIL\xff\xd9"
DIFFUSION, PLAIN, _ = DIGITAL_SOURCE_TYPES


def chunks(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, found = 8, []
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        found.append(
            (data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        )
        position += 12 + length
    return found


def planted(picture, kind):
    exif = Image.Exif()
    exif[0x010E] = "PLANTED-EXIF"
    exif.get_ifd(0x8825)[29] = "PLANTED-GPS"
    options = {
        "exif": exif.tobytes() + THUMBNAIL,
        "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>PLANTED-XMP</x:xmpmeta>",
        "icc_profile": b"PLANTED-ICC" * 20,
    }
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "PLANTED-TEXT")
        text.add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
        options["pnginfo"] = text
    if kind == "JPEG":
        options["comment"] = b"PLANTED-TEXT"
    if kind == "TIFF":
        options["exif"] = exif
        options["tiffinfo"] = {270: "PLANTED-TEXT", 700: options.pop("xmp"), 65000: THUMBNAIL}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_no_metadata_of_the_input_reaches_the_output(astronaut, kind):
    source = planted(Image.fromarray(astronaut[:64, :64]), kind)
    planted_here = [mark for mark in [*MARKERS, THUMBNAIL] if mark in source]
    assert len(planted_here) >= 4
    photo = read_photo(source)
    written = encode_png(photo.pixels, digital_source_type=DIFFUSION)
    for mark in [*MARKERS, b"PLANTED", b"THUMBNAIL"]:
        assert mark not in written
    assert {name for name, _ in chunks(written)} == {b"IHDR", b"iTXt", b"IDAT", b"IEND"}


@pytest.mark.parametrize("term", DIGITAL_SOURCE_TYPES)
def test_exactly_one_xmp_mark_says_that_an_algorithm_edited_the_picture(term):
    data = encode_png(np.zeros((5, 4, 3), np.uint8), digital_source_type=term)
    texts = [content for name, content in chunks(data) if name not in {b"IHDR", b"IDAT", b"IEND"}]
    assert len(texts) == 1
    keyword, _, packet = texts[0].partition(b"\0\0\0\0\0")
    assert keyword == b"XML:com.adobe.xmp"
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf"')
    root = ET.fromstring(packet.decode())  # noqa: S314
    found = root.findall(".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert [mark.text for mark in found] == [
        f"http://cv.iptc.org/newscodes/digitalsourcetype/{term}"
    ]


def test_pixels_survive_and_the_same_pixels_give_the_same_bytes(astronaut):
    first = encode_png(astronaut, digital_source_type=PLAIN)
    assert first == encode_png(astronaut.copy(), digital_source_type=PLAIN)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(first))), astronaut)


def test_a_written_file_holds_the_encoded_bytes_and_leaves_no_other_file(astronaut, tmp_path):
    path = tmp_path / "out.png"
    path.write_bytes(b"older")
    write_png(path, astronaut, digital_source_type=DIFFUSION)
    assert path.read_bytes() == encode_png(astronaut, digital_source_type=DIFFUSION)
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_refused_by_name_and_nothing_remains(astronaut, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for path in ("missing/out.png", "file/out.png", "folder.png", "x" * 300 + ".png"):
        with pytest.raises(OutputError, match=r"`out` must be a file.*\.png"):
            write_png(tmp_path / path, astronaut, digital_source_type=DIFFUSION)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_other_formats_are_refused_before_anything_is_written(astronaut, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"must end in \.png"):
        write_png(tmp_path / "out.jpg", astronaut, digital_source_type=DIFFUSION)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_pixels_of_another_type_or_shape_are_refused(pixels):
    with pytest.raises(InvalidArgumentError, match="`pixels` must"):
        encode_png(pixels, digital_source_type=DIFFUSION)


def test_an_unknown_mark_is_refused():
    with pytest.raises(InvalidArgumentError, match="Choose one of: compositeWith"):
        encode_png(np.zeros((4, 4, 3), np.uint8), digital_source_type="digitalCapture")
