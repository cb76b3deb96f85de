"""Paste-back: what is pasted knows nothing of M, and what is outside M never changes."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privacy_core.errors import FaceFailedError, InvalidArgumentError
from privacy_core.faces.align import (
    TEMPLATE,
    Alignment,
    fit_alignment,
    mask_radius,
    template_mask,
    warp_to_template,
)
from privacy_core.faces.paste import prepare
from privacy_core.schema import Face, Photo


def face_at(x, y, scale, angle=0.0):
    """A face whose template centre lies at (x, y), `scale` photo pixels per template pixel."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, np.array([x, y]) - turn @ [63.5, 69.5]])
    landmarks = Alignment(matrix).to_photo(TEMPLATE)
    half = 52 * scale
    return Face((x - half, y - half, x + half, y + half), landmarks, 1.0, "test")


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def support(faces, shape, *, reach=1.0):
    """M by its definition, pixel by pixel: the independent oracle of these tests."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    points = np.stack([x.ravel(), y.ravel()], 1).astype(float)
    inside = np.zeros(shape, bool)
    for face in faces:
        radius = mask_radius(fit_alignment(face.landmarks).to_template(points))
        inside |= radius.reshape(shape) <= reach
    return inside


LAYOUTS = {
    "one upright face": [(100, 90, 0.8, 0.0)],
    "one turned face": [(100, 90, 0.9, 0.7)],
    "at the border": [(5, 150, 0.9, 0.2)],
    "in the corner": [(198, 158, 1.2, -0.3)],
    "overlapping": [(80, 80, 0.8, 0.1), (130, 90, 0.6, -0.2)],
    "one inside another": [(100, 80, 1.1, 0.0), (100, 80, 0.4, 0.3)],
    "three apart": [(40, 40, 0.5, 0.0), (150, 40, 0.4, 0.5), (100, 120, 0.45, -0.4)],
    "tiny": [(100, 80, 0.25, 0.0)],
    "larger than the photo": [(100, 80, 4.0, 0.1)],
}
SHAPE = (160, 200)


@pytest.fixture(params=LAYOUTS)
def faces(request):
    return [face_at(*place) for place in LAYOUTS[request.param]]


@pytest.mark.parametrize("zoom", [1, 2])
@pytest.mark.parametrize("unmatched", [(), (0,)])
def test_outside_m_every_pixel_is_the_original_and_inside_it_changes(faces, zoom, unmatched):
    pixels = noise((*SHAPE, 3))
    prepared = prepare(Photo(pixels), faces)
    assert prepared.failures == {}
    generated = {i: noise((128 * zoom, 128 * zoom, 3), i) for i in range(len(faces))}
    inside = support(faces, SHAPE)
    pasted = prepared.paste(generated, unmatched=unmatched)
    assert np.array_equal(pasted[~inside], pixels[~inside])
    assert np.array_equal(prepared.filled[~inside], pixels[~inside])
    assert (pasted[inside] != pixels[inside]).any(1).mean() > 0.95


def test_original_pixels_in_m_reach_nothing_but_the_face_pixels(faces):
    inside = support(faces, SHAPE)
    one = noise((*SHAPE, 3))
    other = np.where(inside[..., None], noise((*SHAPE, 3), 1), one)
    assert (one != other).any()
    a, b = prepare(Photo(one), faces), prepare(Photo(other), faces)
    generated = {i: noise((256, 256, 3), i) for i in range(len(faces))}
    assert np.array_equal(a.filled, b.filled)
    for i in range(len(faces)):
        assert np.array_equal(a.context_pixels(i), b.context_pixels(i))
        assert a.solid_colour(i) == b.solid_colour(i)
        # A face hidden under another has no pixels of its own.
        owns = a.regions[i].own.any()
        assert owns != np.array_equal(a.face_pixels(i), b.face_pixels(i))
    assert a.paste(generated).tobytes() == b.paste(generated).tobytes()
    assert a.paste({}, covered=range(len(faces))).tobytes() == (
        b.paste({}, covered=range(len(faces))).tobytes()
    )


def test_no_pixel_of_m_enters_two_codes(faces):
    pixels = noise((*SHAPE, 3))
    prepared = prepare(Photo(pixels), faces)
    counts = np.zeros(SHAPE, int)
    for region in prepared.regions:
        counts[region.window] += region.own
    assert np.array_equal(counts == 1, support(faces, SHAPE))
    assert counts.max() == 1
    for i, region in enumerate(prepared.regions):
        changed = pixels.copy()
        changed[support(faces, SHAPE)] ^= 255
        changed[region.window][region.own] = pixels[region.window][region.own]
        again = prepare(Photo(changed), faces).face_pixels(i)
        assert np.array_equal(again, prepared.face_pixels(i))


@given(
    x=st.floats(-20, 140),
    y=st.floats(-20, 120),
    scale=st.floats(0.25, 3),
    angle=st.floats(-3.1, 3.1),
    seed=st.integers(0, 2**32 - 1),
)
@example(x=0.0, y=32.5, scale=0.25, angle=0.0, seed=0)
@settings(max_examples=60)
def test_m_is_never_read_and_its_outside_never_written_for_any_face(x, y, scale, angle, seed):
    shape, faces = (100, 120), [face_at(x, y, scale, angle)]
    # A pixel that lies on the ellipse itself belongs to either side, as its radius is rounded.
    inside, on = (support(faces, shape, reach=1 + slack) for slack in (-1e-9, 1e-9))
    one = noise((*shape, 3), seed)
    other = np.where(inside[..., None], 255 - one, one)
    generated = {0: noise((128, 128, 3), seed)}
    a, b = prepare(Photo(one), faces), prepare(Photo(other), faces)
    if a.failures:
        assert not inside.any()
        return
    pasted = a.paste(generated)
    assert np.array_equal(pasted, b.paste(generated))
    assert np.array_equal(pasted[~on], one[~on])


def test_face_pixels_are_zero_outside_the_mask_and_the_warped_face_inside(astronaut):
    face = face_at(222, 125, 0.86, 0.05)
    prepared = prepare(Photo(astronaut), [face])
    pixels = prepared.face_pixels(0)
    mask = template_mask()
    assert not pixels[~mask].any()
    warped = warp_to_template(astronaut, fit_alignment(face.landmarks))
    assert np.array_equal(pixels[mask], warped[mask])


@pytest.mark.parametrize(("scale", "zoom"), [(0.5, 2), (1.0, 1), (1.0, 2), (2.5, 2), (1.7, 1)])
def test_pasting_a_photos_own_face_gives_nearly_the_same_photo(scale, zoom):
    # A smooth picture survives resampling; a shift of half a pixel would not go unseen.
    y, x = np.mgrid[0:400, 0:400].astype(float)
    wave = np.stack(
        [np.sin(x / 9 / scale), np.cos(y / 11 / scale), np.sin((x + y) / 14 / scale)], 2
    )
    pixels = np.rint(127.5 + 60 * wave).astype(np.uint8)
    face = face_at(200, 200, scale, 0.3)
    prepared = prepare(Photo(pixels), [face])
    own = warp_to_template(pixels, fit_alignment(face.landmarks), zoom=zoom)
    pasted = prepared.paste({0: own}, unmatched=[0])
    opaque = support([face_at(200, 200, scale * 0.8, 0.3)], (400, 400))
    difference = pasted[opaque].astype(float) - pixels[opaque]
    assert np.abs(difference).mean() < 1.5


def test_a_picture_much_finer_than_the_face_is_averaged_not_sampled():
    checks = np.zeros((1024, 1024, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    face = face_at(80, 80, 0.5)
    pasted = prepare(Photo(noise((160, 160, 3))), [face]).paste({0: checks}, unmatched=[0])
    core = support([face_at(80, 80, 0.4)], (160, 160))
    assert np.abs(pasted[core].astype(int) - 127.5).max() < 8


def test_the_fill_meets_its_surroundings_without_a_step():
    ramp = np.tile(np.arange(20, 220)[None, :, None], (200, 1, 3)).astype(np.uint8)
    face = face_at(100, 100, 0.8)
    filled = prepare(Photo(ramp), [face]).filled
    assert np.abs(filled.astype(int) - ramp).max() <= 10


def test_a_photo_that_is_all_face_is_filled_with_plain_grey():
    prepared = prepare(Photo(noise((60, 60, 3))), [face_at(30, 30, 3.0)])
    assert (prepared.filled == 128).all()


def test_grey_photos_get_grey_faces():
    grey = np.repeat(noise((160, 200, 1)), 3, 2)
    prepared = prepare(Photo(grey), [face_at(100, 80, 0.8)])
    pasted = prepared.paste({0: noise((128, 128, 3))})
    assert (pasted == pasted[..., :1]).all()


def test_whether_a_photo_is_grey_is_not_judged_by_the_face():
    grey = np.repeat(noise((160, 200, 1)), 3, 2)
    coloured = grey.copy()
    coloured[78:82, 98:102] = (200, 30, 30)
    pasted = [
        prepare(Photo(pixels), [face_at(100, 80, 0.8)]).paste({0: noise((128, 128, 3))})
        for pixels in (grey, coloured)
    ]
    assert np.array_equal(*pasted)


def test_each_of_several_faces_gets_its_own_picture():
    faces = [face_at(40, 40, 0.5), face_at(150, 110, 0.5)]
    prepared = prepare(Photo(noise((160, 200, 3))), faces)
    flat = {i: np.full((128, 128, 3), level, np.uint8) for i, level in enumerate((10, 240))}
    pasted = prepared.paste(flat, unmatched=[0, 1])
    assert (pasted[40, 40] == 10).all()
    assert (pasted[110, 150] == 240).all()


def test_the_first_face_lies_on_top_where_faces_overlap():
    faces = [face_at(80, 80, 0.7), face_at(110, 80, 0.6)]
    prepared = prepare(Photo(noise((160, 200, 3))), faces)
    flat = {i: np.full((128, 128, 3), level, np.uint8) for i, level in enumerate((10, 240))}
    pasted = prepared.paste(flat, unmatched=[0, 1])
    assert (pasted[80, 92] == 10).all()
    assert (pasted[80, 134] > 200).all()


def test_matching_colour_brings_the_rim_nearer_to_the_fill_and_leaves_the_centre():
    pixels = np.full((200, 200, 3), 120, np.uint8)
    face = face_at(100, 100, 1.0)
    prepared = prepare(Photo(pixels), [face])
    flat = {0: np.full((128, 128, 3), 135, np.uint8)}
    plain, matched = (prepared.paste(flat, unmatched=which) for which in ([0], []))
    y = int(100 - 0.8 * 58)  # inside the feather's end, near the rim
    assert plain[y, 100, 0] == 135
    assert matched[y, 100, 0] < 130
    assert matched[100, 100, 0] == 135


def test_a_face_without_a_picture_withholds_the_photo_and_is_named():
    faces = [face_at(40, 40, 0.5), face_at(150, 110, 0.5)]
    prepared = prepare(Photo(noise((160, 200, 3))), faces)
    with pytest.raises(FaceFailedError, match="Face 2 of 2") as caught:
        prepared.paste({0: noise((128, 128, 3))})
    assert (caught.value.index, caught.value.n_faces) == (2, 2)


def test_a_cover_hides_all_of_m_under_one_colour():
    face = face_at(100, 80, 0.8)
    prepared = prepare(Photo(noise((160, 200, 3))), [face])
    pasted = prepared.paste({}, covered=[0])
    inside = support([face], (160, 200))
    assert (pasted[inside] == prepared.solid_colour(0)).all()
    assert (prepared.solid_patch(0) == prepared.solid_colour(0)).all()


FAILING = {
    "too small": (face_at(100, 80, 0.2), "too small, its eyes are 8 pixels apart"),
    "landmarks elsewhere": (
        Face((60, 40, 140, 120), face_at(160, 120, 0.8).landmarks, 1.0, "test"),
        "not found where the face is",
    ),
    "landmarks collapsed": (
        Face((60, 40, 140, 120), np.full((5, 2), 100.0), 1.0, "test"),
        "too small",
    ),
    "landmarks not finite": (
        Face((60, 40, 140, 120), np.full((5, 2), np.nan), 1.0, "test"),
        "landmarks were not found",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_face_that_cannot_be_aligned_fails_alone_and_can_only_be_covered(case):
    face, reason = FAILING[case]
    pixels = noise((160, 200, 3))
    prepared = prepare(Photo(pixels), [face_at(30, 130, 0.3), face])
    assert list(prepared.failures) == [1]
    assert reason in prepared.failures[1]
    generated = {i: noise((128, 128, 3)) for i in (0, 1)}
    for read in (prepared.face_pixels, prepared.context_pixels):
        with pytest.raises(FaceFailedError, match="Face 2 of 2"):
            read(1)
    with pytest.raises(FaceFailedError, match="Face 2 of 2"):
        prepared.paste(generated)
    pasted = prepared.paste({0: generated[0]}, covered=[1])
    left, top, right, bottom = (round(edge) for edge in face.box)
    assert (pasted[top:bottom, left:right] == prepared.solid_colour(1)).all()


def test_a_face_outside_the_photo_fails_and_a_box_that_is_none_is_refused():
    photo = Photo(noise((160, 200, 3)))
    assert "outside the photo" in prepare(photo, [face_at(500, 80, 0.8)]).failures[0]
    for box in ((10, 10, 10, 40), (0, 0, np.inf, 10)):
        with pytest.raises(InvalidArgumentError, match="`faces` must have finite boxes"):
            prepare(photo, [Face(box, TEMPLATE, 1.0, "test")])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((100, 100, 3), np.uint8), np.zeros((128, 128, 3)), np.zeros((128, 128), np.uint8)],
)
def test_generated_pictures_of_another_shape_or_type_are_refused(picture):
    prepared = prepare(Photo(noise((160, 200, 3))), [face_at(100, 80, 0.8)])
    with pytest.raises(InvalidArgumentError, match="`generated` pictures must"):
        prepared.paste({0: picture})


def test_an_index_that_names_no_face_is_refused():
    prepared = prepare(Photo(noise((160, 200, 3))), [face_at(100, 80, 0.8)])
    with pytest.raises(InvalidArgumentError, match="faces from 0 to 0, got 1"):
        prepared.paste({0: noise((128, 128, 3)), 1: noise((128, 128, 3))})


def test_a_photo_without_faces_stays_as_it_is():
    pixels = noise((16, 20, 3))
    assert np.array_equal(prepare(Photo(pixels), []).paste({}), pixels)


def test_the_filled_photo_cannot_be_written_to_and_pixels_stay_out_of_the_repr():
    prepared = prepare(Photo(noise((160, 200, 3))), [face_at(100, 80, 0.8)])
    with pytest.raises(ValueError, match="read-only"):
        prepared.filled[0, 0] = 0
    for part in (prepared, prepared.regions[0]):
        assert "filled" not in repr(part)
        assert "mask" not in repr(part)
        assert "uint8" not in repr(part)


def test_a_two_thousand_pixel_face_in_twelve_megapixels_takes_less_than_a_second_or_two():
    pixels = np.tile(noise((100, 100, 3)), (30, 40, 1))
    started = time.process_time()
    prepared = prepare(Photo(pixels), [face_at(2000, 1500, 19.0)])
    prepared.paste({0: noise((256, 256, 3))})
    # About 0.7 s where it was written; the limit only catches another order of growth.
    assert time.process_time() - started < 4
