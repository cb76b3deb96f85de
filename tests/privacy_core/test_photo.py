"""Reading photos: every kind comes out as the same upright sRGB pixels, or as a clear error."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces.photo import MAX_PIXELS, photo_from_pixels, read_photo


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def picture(astronaut):
    return Image.fromarray(astronaut[:96, 150:278])


def png_header(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_lossless_rgb_photo_keeps_every_pixel_and_cannot_be_written_to(picture):
    photo = read_photo(encoded(picture))
    assert np.array_equal(photo.pixels, np.asarray(picture))
    assert photo.notes == ()
    with pytest.raises(ValueError, match="read-only"):
        photo.pixels[0, 0] = 0


def test_path_string_and_bytes_read_the_same(picture, tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture))
    for source in (file, str(file)):
        assert np.array_equal(read_photo(source).pixels, np.asarray(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_comes_out_upright(picture, kind, orientation):
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned left, to be shown turned right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture.transpose(turn[orientation]) if orientation > 1 else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = read_photo(encoded(stored, kind, exif=exif, **options)).pixels
    assert pixels.shape == (96, 128, 3)
    difference = np.abs(pixels.astype(int) - np.asarray(picture))
    assert difference.mean() < (3 if kind == "JPEG" else 0.001)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_does_not_stop_a_good_photo(picture):
    data = encoded(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x12\x01")
    assert read_photo(data).pixels.shape == (96, 128, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_greyscale_modes_give_three_equal_channels_and_say_so(picture, mode):
    photo = read_photo(encoded(picture.convert(mode)))
    assert (photo.pixels == photo.pixels[..., :1]).all()
    expected = picture.convert(mode).convert("L")
    assert np.array_equal(photo.pixels[..., 0], np.asarray(expected))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_cut(kind):
    ramp = np.linspace(0, 65535, 256 * 8).reshape(8, 256).astype(np.uint16)
    photo = read_photo(encoded(Image.fromarray(ramp), kind))
    assert np.array_equal(photo.pixels[..., 1], np.rint(ramp / 257).astype(np.uint8))
    assert "16-bit scaled to 8-bit" in photo.notes


def test_transparency_is_flattened_on_white_and_its_hidden_colour_is_gone(picture):
    rgba = np.dstack([np.asarray(picture), np.full((96, 128), 255, np.uint8)])
    rgba[:, :64, 3] = 0
    photo = read_photo(encoded(Image.fromarray(rgba)))
    assert (photo.pixels[:, :64] == 255).all()
    assert np.array_equal(photo.pixels[:, 64:], np.asarray(picture)[:, 64:])
    assert photo.notes == ("transparency flattened on white",)


def test_opaque_alpha_changes_nothing_and_is_not_mentioned(picture):
    photo = read_photo(encoded(picture.convert("RGBA")))
    assert np.array_equal(photo.pixels, np.asarray(picture))
    assert photo.notes == ()


def test_palette_with_a_transparent_entry_is_flattened(picture):
    palette = picture.quantize(16)
    photo = read_photo(encoded(palette, transparency=3))
    holes = np.asarray(palette) == 3
    assert holes.any()
    assert (photo.pixels[holes] == 255).all()
    assert np.array_equal(photo.pixels[~holes], np.asarray(palette.convert("RGB"))[~holes])


def test_a_turned_palette_keeps_its_transparency(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = picture.quantize(16)
    photo = read_photo(encoded(palette, transparency=3, exif=exif))
    holes = np.asarray(palette.transpose(Image.Transpose.ROTATE_270)) == 3
    assert (photo.pixels[holes] == 255).all()


def test_cmyk_keeps_its_colours(picture):
    photo = read_photo(encoded(picture.convert("CMYK"), "TIFF"))
    assert np.abs(photo.pixels.astype(int) - np.asarray(picture)).max() <= 2


def test_another_colour_profile_is_converted_to_srgb(picture):
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = read_photo(encoded(picture, icc_profile=srgb))
    assert np.array_equal(same.pixels, np.asarray(picture))
    assert same.notes == ()
    other = read_photo(encoded(picture, icc_profile=lab_like))
    assert other.notes in {
        ("colours converted to sRGB",),
        ("unusable colour profile ignored",),
    }


def test_a_broken_colour_profile_is_ignored_and_noted(picture):
    photo = read_photo(encoded(picture, icc_profile=b"secret nonsense"))
    assert np.array_equal(photo.pixels, np.asarray(picture))
    assert photo.notes == ("unusable colour profile ignored",)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame_and_says_so(kind):
    frames = [Image.new("RGB", (128, 96), colour) for colour in ("red", "blue", "green")]
    photo = read_photo(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(photo.pixels.astype(int) - (255, 0, 0)).max() <= 4
    assert photo.notes == ("first frame of several",)


def test_a_phone_photo_with_a_second_picture_inside_gives_the_first(picture):
    other = Image.new("RGB", picture.size, "red")
    photo = read_photo(encoded(picture, "MPO", save_all=True, append_images=[other], quality=95))
    assert np.abs(photo.pixels.astype(int) - np.asarray(picture)).mean() < 3
    assert photo.notes == ("first frame of several",)


def test_a_twelve_megapixel_photo_is_read(picture):
    photo = read_photo(encoded(picture.resize((4032, 3024)), "JPEG"))
    assert photo.pixels.shape == (3024, 4032, 3)


BAD = {
    "zero bytes": (b"", "empty"),
    "random bytes": (bytes(range(256)) * 4, "JPEG, PNG"),
    "svg": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "html": (b"\xef\xbb\xbf<!doctype html><html></html>", "web page"),
    "heic": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
    "50 000 x 50 000": (png_header(50_000, 50_000), "at most 50 megapixels.*2500"),
    "above our limit, below Pillow's": (png_header(8_000, 8_000), "at most 50 megapixels.*64"),
    "header only": (png_header(64, 64), "complete picture"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("error")
def test_bad_bytes_are_refused_with_argument_rule_and_way_out(case, tmp_path):
    data, message = BAD[case]
    with pytest.raises(PhotoError, match=message) as caught:
        read_photo(data)
    assert str(caught.value).startswith("`photo` must")
    named = tmp_path / "looks-like.png"
    named.write_bytes(data)
    with pytest.raises(PhotoError, match=r"looks-like\.png"):
        read_photo(named)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_photo_is_refused(picture, kind):
    data = encoded(picture, kind)
    with pytest.raises(PhotoError, match=r"damaged|not a picture"):
        read_photo(data[: len(data) // 2])


def test_an_unsupported_picture_format_is_refused(picture):
    with pytest.raises(PhotoError, match="JPEG, PNG, WebP"):
        read_photo(encoded(picture, "PPM"))


def test_floating_point_pictures_are_refused_since_their_range_is_unknown():
    with pytest.raises(PhotoError, match="8 or 16 bits"):
        read_photo(encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"))


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    with pytest.raises(PhotoError, match=r"existing file, got .*nowhere\.jpg"):
        read_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(PhotoError, match="must be a file, got the folder"):
        read_photo(tmp_path)
    with pytest.raises(PhotoError, match=r"readable|existing"):
        read_photo("a\0b.png")


def test_other_types_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"`photo` must be a path or bytes, got int"):
        read_photo(3)


def test_messages_and_notes_never_echo_metadata(picture):
    exif = Image.Exif()
    exif[0x010E] = "SECRETNAME"
    data = encoded(picture, "JPEG", exif=exif, comment=b"SECRETNAME")
    assert "SECRETNAME" not in repr(read_photo(data).notes)
    with pytest.raises(PhotoError) as caught:
        read_photo(data[:600])
    assert "SECRETNAME" not in str(caught.value)


def test_pixels_become_a_photo_in_three_shapes(picture):
    rgb = np.asarray(picture)
    assert np.array_equal(photo_from_pixels(rgb).pixels, rgb)
    grey = photo_from_pixels(rgb[..., 0]).pixels
    assert (grey == rgb[..., :1]).all()
    clear = np.dstack([rgb, np.zeros((96, 128), np.uint8)])
    assert (photo_from_pixels(clear).pixels == 255).all()


def test_a_photo_does_not_change_with_the_array_it_was_made_from(picture):
    rgb = np.array(picture)
    photo = photo_from_pixels(rgb)
    rgb[:] = 0
    assert photo.pixels.any()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2], [3, 4]],
        None,
    ],
)
def test_pixels_of_another_type_or_shape_are_refused(pixels):
    with pytest.raises(InvalidArgumentError, match="`pixels` must"):
        photo_from_pixels(pixels)


def test_too_many_pixels_are_refused():
    huge = np.broadcast_to(np.uint8(0), (MAX_PIXELS // 1000 + 1, 1000, 3))
    with pytest.raises(InvalidArgumentError, match="between 1 and"):
        photo_from_pixels(huge)


@pytest.fixture(scope="module")
def progressive():
    """A JPEG of ten scans, with its last scan by itself."""
    data = encoded(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    return data, data[data.rindex(b"\xff\xda") : -2]


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\xff",
        b"\xff\xff\xff",
        b"\xff\xe5\x00\x00",  # a length that is too short: libjpeg reads on behind it
        b"\xff\xfe\x00\x01",
        b"\xff\x01",
        b"\xff\x02\xff\xff",  # skipped without a length where libjpeg looks for a restart
        b"\xff\xd3\xff\xff",
        b"\xff\x00junk",
    ],
)
def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(progressive, before):
    data, scan = progressive
    assert read_photo(data).pixels.shape == (64, 64, 3)
    with pytest.raises(PhotoError, match="at most 64 scans"):
        read_photo(data[:-2] + 70 * (before + scan) + b"\xff\xd9")


@pytest.mark.parametrize(
    "tables",
    [b"\xff\xd8\xff\xd9", 3 * b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xfe\x00\x04hi\xff\xd9"],
    ids=["empty", "thrice", "comment"],
)
def test_tables_that_end_before_the_picture_hide_no_scan_of_it(progressive, tables):
    data, scan = progressive
    assert read_photo(tables + data).pixels.shape == (64, 64, 3)
    with pytest.raises(PhotoError, match="at most 64 scans"):
        read_photo(tables + data[:-2] + 70 * scan + b"\xff\xd9")


def test_exactly_as_many_scans_as_are_allowed_are_read(progressive):
    data, scan = progressive
    n_more = 64 - data.count(b"\xff\xda")
    assert read_photo(data[:-2] + n_more * scan + b"\xff\xd9").pixels.shape == (64, 64, 3)
    with pytest.raises(PhotoError, match="at most 64 scans"):
        read_photo(data[:-2] + (n_more + 1) * scan + b"\xff\xd9")


@pytest.mark.parametrize("progressive", [False, True])
def test_what_only_looks_like_a_scan_of_a_jpeg_does_not_count(picture, progressive):
    data = encoded(picture, "JPEG", progressive=progressive)
    film = np.random.default_rng(0).bytes(8 * 2**20)
    assert film.count(b"\xff\xda") > 64
    thumbnail = b"\xff\xe3" + struct.pack(">H", 2 + 2 * 500) + 500 * b"\xff\xda"
    photo = read_photo(data)
    for other in (data + film, data[:2] + thumbnail + data[2:]):
        assert np.array_equal(read_photo(other).pixels, photo.pixels)
