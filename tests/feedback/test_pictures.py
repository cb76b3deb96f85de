import contextlib
import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from feedback import InvalidRatingError
from feedback.publish.pictures import MAX_PICTURE_BYTES, variant_rows
from privacy_core.faces.output import DIGITAL_SOURCE_TYPES, encode_png

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
MARKED = encode_png(PIXELS, digital_source_type=DIGITAL_SOURCE_TYPES[0])
MARK = next(text for text in Image.open(io.BytesIO(MARKED)).text.values())


def encoded(kind="PNG", *, size=8, **options):
    sink = io.BytesIO()
    Image.fromarray(PIXELS).resize((size, size)).save(sink, kind, **options)
    return sink.getvalue()


def texts(*pairs, compressed=False, international=False):
    info = PngImagePlugin.PngInfo()
    for name, value in pairs:
        if international:
            info.add_itxt(name, value)
        else:
            info.add_text(name, value, zip=compressed)
    return info


def png_with(name, body):
    """A whole PNG with one more block before its end."""
    whole = encoded()
    checked = name + body
    block = len(body).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")
    return whole[:-12] + block + whole[-12:]


def jpeg_with(code, body):
    whole = encoded("JPEG")
    block = bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body
    return whole[:2] + block + whole[2:]


def webp_with(name, body):
    whole = encoded("WEBP", lossless=True)
    block = name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)
    size = (len(whole) - 8 + len(block)).to_bytes(4, "little")
    return whole[:4] + size + whole[8:] + block


def exif():
    made = Image.Exif()
    made[0x010E] = "at home"
    return made.tobytes()


def several():
    return {"save_all": True, "append_images": [Image.fromarray(PIXELS[::-1])]}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.png", encoded()),
        ("grey.png", encoded(bits=8)),
        ("marked.png", MARKED),
        ("plain.jpg", encoded("JPEG")),
        ("steps.JPG", encoded("JPEG", progressive=True, quality=95)),
        ("restarts.jpg", encoded("JPEG", restart_marker_blocks=1, subsampling=0, size=24)),
        ("marked.jpeg", encoded("JPEG", xmp=MARK.encode())),
        ("plain.webp", encoded("WEBP")),
        ("whole.webp", encoded("WEBP", lossless=True)),
        ("marked.webp", encoded("WEBP", xmp=MARK.encode())),
    ],
)
def test_pixels_and_our_mark_are_published_as_they_are(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert variant_rows(tmp_path) == [
        {"image": {"bytes": data, "path": None}, "name": "variant-00001"}
    ]


@pytest.mark.parametrize("term", DIGITAL_SOURCE_TYPES)
def test_every_mark_this_project_writes_may_be_published(tmp_path, term):
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS, digital_source_type=term))
    assert len(variant_rows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("text.png", encoded(pnginfo=texts(("Author", "Ada"))), "block tEXt"),
        ("packed.png", encoded(pnginfo=texts(("Author", "Ada"), compressed=True)), "block zTXt"),
        ("world.png", encoded(pnginfo=texts(("Author", "Ada"), international=True)), "block iTXt"),
        ("other.png", encoded(pnginfo=texts(("XML:com.adobe.xmp", "<Ada/>"))), "block tEXt"),
        (
            "more.png",
            encoded(
                pnginfo=texts(
                    ("XML:com.adobe.xmp", MARK.replace("</rdf:RDF>", "<Ada/></rdf:RDF>")),
                    international=True,
                )
            ),
            "block iTXt",
        ),
        ("exif.png", encoded(exif=exif()), "block eXIf"),
        ("dpi.png", encoded(dpi=(72, 72)), "block pHYs"),
        ("profile.png", encoded(icc_profile=b"Ada"), "block iCCP"),
        ("own.png", png_with(b"adAa", b"Ada"), "block adAa"),
        ("after.png", encoded() + b"Ada", "data after its end"),
        ("exif.jpg", encoded("JPEG", exif=exif()), "block E1"),
        ("comment.jpg", encoded("JPEG", comment=b"Ada"), "block FE"),
        ("profile.jpg", encoded("JPEG", icc_profile=b"Ada"), "block E2"),
        ("xmp.jpg", encoded("JPEG", xmp=b"<Ada/>"), "block E1"),
        ("press.jpg", jpeg_with(0xED, b"Photoshop 3.0\0Ada"), "block ED"),
        ("ends.jpg", encoded("JPEG")[:-2] + b"\xff\x01\0\1Ada\xff\xd9", "bytes outside its blocks"),
        ("thumb.jpg", jpeg_with(0xE0, b"JFXX\0\x10Ada"), "block E0"),
        ("after.jpg", encoded("JPEG") + b"Ada", "data after its end"),
        ("exif.webp", encoded("WEBP", exif=exif()), "block EXIF"),
        ("xmp.webp", encoded("WEBP", xmp=b"<Ada/>"), "block XMP"),
        ("profile.webp", encoded("WEBP", icc_profile=b"Ada"), "block ICCP"),
        ("own.webp", webp_with(b"ADA ", b"Ada"), "block ADA"),
        ("after.webp", encoded("WEBP") + b"Ada", "data after its end"),
        ("moving.png", encoded(**several()), "got several in one file"),
        ("moving.webp", encoded("WEBP", **several()), "got several in one file"),
        ("named.png", encoded("JPEG"), "what its name says"),
        ("broken.png", b"\x89PNG\r\n\x1a\n", "must be whole"),
        ("cut.jpg", encoded("JPEG")[:-40], "must be whole"),
        ("large.webp", b"x" * (MAX_PICTURE_BYTES + 1), "at most 1000000 bytes"),
    ],
)
def test_a_picture_with_anything_else_in_its_file_is_refused(tmp_path, name, data, found):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidRatingError) as caught:
        variant_rows(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: a picture must ")
    assert found in problem
    assert "Ada" not in problem
    assert "at home" not in problem


def test_all_pictures_that_may_not_be_published_are_listed(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(exif=exif()))
    (tmp_path / "b.png").write_bytes(encoded())
    (tmp_path / "c.jpg").write_bytes(b"")
    with pytest.raises(InvalidRatingError) as caught:
        variant_rows(tmp_path)
    assert [problem[:5] for problem in caught.value.problems] == ["a.png", "c.jpg"]


def test_folders_and_links_named_like_pictures_are_refused(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "x.png").mkdir(parents=True)
    (tmp_path / "elsewhere.png").write_bytes(encoded())
    (pictures / "y.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(InvalidRatingError) as caught:
        variant_rows(pictures)
    assert [problem.split(",")[0] for problem in caught.value.problems] == [
        f"{name}: a picture must be a file" for name in ("x.png", "y.png")
    ]


@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_damage_never_ends_in_anything_but_a_verdict(tmp_path_factory, data, kind):
    whole = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    name = {"PNG": "a.png", "JPEG": "a.jpg", "WEBP": "a.webp"}[kind]
    (folder / name).write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(InvalidRatingError):
        assert len(variant_rows(folder)) == 1


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InvalidRatingError, match="got none"):
        variant_rows(tmp_path)
    with pytest.raises(InvalidRatingError, match="must be a folder of pictures"):
        variant_rows(tmp_path / "no")
