"""The template frame: an exact similarity, a symmetric mask, resampling without a shift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy_core.faces.align import (
    FEATHER,
    MASK_CENTRE,
    SIZE,
    TEMPLATE,
    Alignment,
    fit_alignment,
    mask_radius,
    opaque_mask,
    template_mask,
    template_radius,
    warp_to_template,
    window_of,
)
from privacy_core.faces.support import regions_of
from privacy_core.schema import Face


def similarity(x, y, scale, angle):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return Alignment(np.column_stack([turn, [x, y]]))


places = st.builds(
    similarity,
    st.floats(-500, 5000),
    st.floats(-500, 5000),
    st.floats(0.1, 30),
    st.floats(-3.1, 3.1),
)


@given(places)
def test_a_similarity_is_recovered_from_its_landmarks(truth):
    fitted = fit_alignment(truth.to_photo(TEMPLATE))
    assert np.allclose(fitted.matrix, truth.matrix, atol=1e-6)
    assert fitted.scale == pytest.approx(truth.scale)


@given(places)
def test_photo_and_template_coordinates_are_inverse(alignment):
    points = np.array([[0.0, 0.0], [127.0, 3.0], [64.0, 130.0]])
    assert np.allclose(alignment.to_template(alignment.to_photo(points)), points, atol=1e-6)


def test_noisy_landmarks_give_the_least_squares_fit():
    rng = np.random.default_rng(0)
    noisy = similarity(40, 30, 1.5, 0.2).to_photo(TEMPLATE) + rng.normal(0, 2, (5, 2))
    best = fit_alignment(noisy)
    error = ((best.to_photo(TEMPLATE) - noisy) ** 2).sum()
    for change in rng.normal(0, 0.01, (50, 4)):
        a, b, x, y = change
        other = best.matrix + np.array([[a, -b, x], [b, a, y]])
        assert ((Alignment(other).to_photo(TEMPLATE) - noisy) ** 2).sum() > error


def test_the_template_and_its_mask_are_symmetric_so_a_mirrored_face_aligns_mirrored():
    mirrored = (np.array([127.0, 0.0]) + TEMPLATE * [-1, 1])[[2, 3, 0, 1, 4]]
    assert np.allclose(mirrored, TEMPLATE)
    assert np.array_equal(template_mask(), template_mask()[:, ::-1])


def test_the_mask_covers_eyes_and_nose_and_stays_off_the_frames_corners():
    assert (mask_radius(TEMPLATE) < 1).all()
    assert mask_radius(np.array([MASK_CENTRE]))[0] == 0
    mask = template_mask()
    assert mask.shape == (SIZE, SIZE)
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert 0.55 < mask.mean() < 0.6


def test_the_opaque_part_is_where_a_pasted_face_covers_the_fill_wholly():
    landmarks = Alignment(np.array([[1.0, 0, 16], [0, 1, 16]])).to_photo(TEMPLATE)
    (region,) = regions_of([Face((40, 40, 120, 130), landmarks, 1.0, "known")], (160, 160))
    shown = np.zeros((160, 160), np.uint8)
    shown[region.window] = region.opacity
    frame = shown[16:144, 16:144]
    assert (frame[opaque_mask()] == 255).all()
    # Close to the opaque part an opacity rounds to the highest.
    assert (frame[template_radius() > 1 - 0.8 * FEATHER] < 255).all()
    assert 0.7 < opaque_mask().sum() / template_mask().sum() < 0.8


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.6, 7.3])
@pytest.mark.parametrize("zoom", [1, 2])
def test_every_frame_pixel_takes_the_colour_of_the_photo_point_under_it(scale, zoom):
    alignment = similarity(60 * scale, 20 * scale, scale, 0.35)
    side = int(260 * scale)
    y, x = np.mgrid[0:side, 0:side].astype(float)
    # A plane is reproduced exactly by every kernel, so that any shift shows as a level error.
    photo = np.stack([x / side * 250, y / side * 250, (x + y) / side * 125], 2).astype(np.float32)
    frame = warp_to_template(np.rint(photo).astype(np.uint8), alignment, zoom=zoom)
    assert frame.shape == (SIZE * zoom, SIZE * zoom, 3)
    i = np.arange(8, SIZE * zoom - 8)
    columns, rows = np.meshgrid(i, i)
    template = (np.stack([columns.ravel(), rows.ravel()], 1) - (zoom - 1) / 2) / zoom
    points = alignment.to_photo(template)
    inside = ((points > 8 * scale) & (points < side - 1 - 8 * scale)).all(1)
    assert inside.mean() > 0.5
    expected = points[inside, 0] / side * 250
    got = frame[rows.ravel()[inside], columns.ravel()[inside], 0].astype(float)
    # Pillow cuts fractions of a level off, half a level on average.
    assert abs((got - expected).mean() + 0.5) < 0.25
    assert np.abs(got - expected).max() < 2


def test_large_faces_are_averaged_so_that_nothing_aliases():
    checks = np.zeros((1200, 1200, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    frame = warp_to_template(checks, similarity(40, 40, 8.0, 0.0))
    assert np.abs(frame.astype(int) - 127.5).max() < 4


def test_beyond_the_photo_the_nearest_edge_pixel_is_repeated():
    photo = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    window = window_of(photo, -2, -1, 4, 3)
    assert window.shape == (4, 6, 3)
    assert (window[0, :3] == photo[0, 0]).all()
    assert (window[-1, -3:] == photo[1, 1]).all()
