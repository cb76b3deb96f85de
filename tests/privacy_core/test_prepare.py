"""DATA to aligned faces: splits, labels, what is left out, and what a second run reads."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from privacy_core.diffusion.prepare import (
    identity_of,
    pixel_digest,
    prepare_faces,
    split_of,
    widened,
)
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import MASK_CENTRE, Alignment
from privacy_core.schema import ATTRIBUTES
from tests.privacy_core.tiny import FixedDetector, face_at

CENTRE = face_at(20, 15)
"""A face in the middle of a picture of 168 px."""
ORDER = list(ATTRIBUTES)


def picture(seed=0, side=168):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def prepare(rows, folder, *, detector=None, report=lambda *_: None, **settings):
    folder.mkdir(exist_ok=True)
    detector = detector or FixedDetector(CENTRE)
    return prepare_faces(rows, len(rows), folder, detector=detector, report=report, **settings)


def labels(row, folder):
    faces = prepare([{"image": picture(), **row}], folder).faces
    return dict(zip(ORDER, faces.attributes[0].tolist(), strict=True)), int(faces.mouth_open[0])


# --- Splits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "split"), [("celeba-1", 57), ("congress-021950", 49), ("Zoë", 7)]
)
def test_a_persons_split_never_changes(identity, split):
    # sha256(identity) mod 100, as the design fixes it for every part of the project.
    assert split_of(identity, "whatever the picture") == split


def test_a_picture_of_nobody_known_is_split_by_its_pixels():
    black = np.zeros((2, 2, 3), np.uint8)
    digest = pixel_digest(black)
    assert digest == "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b"
    assert split_of(None, digest) == split_of("", digest) == 79
    assert pixel_digest(black + 1) != digest


def test_identities_are_text_and_empty_ones_are_nobody():
    assert [identity_of({"identity": who}) for who in ("a", 7, 0, "", None)] == [
        "a", "7", "0", None, None,
    ]  # fmt: skip
    assert identity_of({}) is None


def test_all_pictures_of_a_person_share_number_and_split(tmp_path):
    rows = [{"image": picture(i), "identity": who} for i, who in enumerate(["a", None, 0, "a", ""])]
    prepared = prepare(rows, tmp_path)
    assert prepared.faces.identity.tolist() == [0, -1, 1, 0, -1]
    split = prepared.split.tolist()
    assert split[0] == split[3] == split_of("a", "")
    assert split[1] == split_of(None, pixel_digest(pixels_of(rows[1]["image"])))
    inside = prepared.between(split[0], split[0])
    assert {0, 3} <= set(inside.tolist())
    assert len(prepared.between(0, 99)) == 5


# --- Rows ------------------------------------------------------------------------------------


def test_duplicates_faceless_and_unreadable_rows_are_left_out_and_counted(tmp_path):
    class Choosy(FixedDetector):
        def detect(self, pixels):
            return [] if np.array_equal(pixels, pixels_of(picture(3))) else super().detect(pixels)

    rows = [
        {"image": picture(1), "source": "x"}, {"image": picture(1)}, {"image": b"no picture"},
        {"image": None}, {"image": picture(3)}, {"image": picture(2)},
    ]  # fmt: skip
    prepared = prepare(rows, tmp_path, detector=Choosy(CENTRE))
    assert prepared.counts == {"rows": 6, "unreadable": 2, "no_face": 1, "duplicates": 1}
    assert prepared.source.tolist() == ["x", ""]
    assert prepared.faces.frames.shape == (2, 128, 128, 3)
    for i, seed in enumerate((1, 2)):
        frame = pixels_of(picture(seed))[15:143, 20:148]
        assert np.abs(prepared.faces.frames[i].astype(int) - frame).max() <= 1


def test_the_face_nearest_to_the_middle_is_the_one_the_picture_is_about(tmp_path):
    detector = FixedDetector(face_at(60, 60), CENTRE, face_at(-40, 10))
    prepared = prepare([{"image": picture()}], tmp_path, detector=detector)
    expected = pixels_of(picture())[15:143, 20:148]
    assert np.abs(prepared.faces.frames[0].astype(int) - expected).max() <= 1


def test_a_picture_whose_only_face_is_far_from_the_middle_has_none(tmp_path):
    with pytest.raises(InvalidArgumentError, match="faces that can be detected"):
        prepare([{"image": picture()}], tmp_path, detector=FixedDetector(face_at(70, 60)))


def test_the_photographed_area_is_the_picture_or_the_frame_that_the_row_names(tmp_path):
    corners = [0.0, 0, 167, 0, 167, 167, 0, 167]
    named = [30.0, 40, 120, 40, 120, 150, 30, 150]
    rows = [{"image": picture(0)}, {"image": picture(1), "frame": named},
            {"image": picture(2), "frame": np.array(named)}]  # fmt: skip
    quads = prepare(rows, tmp_path).faces.quads
    offset = np.array([20, 15])
    assert quads.dtype == np.float32
    assert np.allclose(quads[0], np.reshape(corners, (4, 2)) - offset, atol=1e-3)
    assert np.allclose(quads[1], np.reshape(named, (4, 2)) - offset, atol=1e-3)
    assert np.array_equal(quads[2], quads[1])


# --- Labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("no", [0, -1])
def test_celebas_forty_labels_give_smile_glasses_beard_and_mouth(tmp_path, no):
    for i, (place, name) in enumerate([(31, "smiling"), (15, "eyeglasses"), (21, None)]):
        listed = [no] * 40
        listed[24] = 1  # no beard
        listed[place] = 1
        found, mouth = labels({"attributes": listed}, tmp_path / str(i))
        assert found["beard"] == 0
        assert {found["smiling"], found["eyeglasses"], mouth} == {0, 1}
        assert mouth == (name is None)
        if name:
            assert found[name] == 1
    found, _ = labels({"attributes": [no] * 40}, tmp_path / "beard")
    assert found["beard"] == 1
    assert found["gender"] == found["age_group"] == -1


def test_named_columns_give_labels_and_unknown_values_none(tmp_path):
    row = {"gender": "male", "age_group": "not young", "smiling": "perhaps", "beard": None}
    found, mouth = labels(row, tmp_path)
    assert found == {"gender": 1, "age_group": 0, "smiling": -1, "eyeglasses": -1, "beard": -1}
    assert mouth == -1


def test_a_named_column_counts_more_than_celebas_list(tmp_path):
    found, _ = labels({"attributes": [0] * 40, "smiling": "yes"}, tmp_path)
    assert found["smiling"] == 1


def test_a_list_of_another_length_is_not_celebas(tmp_path):
    found, _ = labels({"attributes": [1] * 39}, tmp_path)
    assert set(found.values()) == {-1}


# --- Second runs -----------------------------------------------------------------------------


class Untouchable:
    """Stands for rows and a detector that must not be used."""

    name = "untouchable"

    def __len__(self):
        return 3

    def __iter__(self):
        raise AssertionError("The rows were read again.")

    def detect(self, pixels):
        raise AssertionError("The detector was used again.")


def test_a_complete_result_is_used_as_it_is(tmp_path):
    rows = [{"image": picture(i), "identity": f"p{i}", "gender": "male"} for i in range(3)]
    first = prepare(rows, tmp_path)
    again = prepare(Untouchable(), tmp_path, detector=Untouchable())
    assert again.counts == first.counts
    assert np.array_equal(again.faces.frames, first.faces.frames)
    for name in ("quads", "identity", "attributes", "mouth_open"):
        assert np.array_equal(getattr(again.faces, name), getattr(first.faces, name))
    assert np.array_equal(again.split, first.split)


def test_a_killed_run_is_started_anew(tmp_path):
    class KilledError(Exception):
        pass

    def kill(_, done, total):
        assert total == 3
        if done == 3:
            raise KilledError

    rows = [{"image": picture(i)} for i in range(3)]
    with pytest.raises(KilledError):
        prepare(rows, tmp_path, report=kill)
    assert not (tmp_path / "counts.json").exists()
    assert len(prepare(rows, tmp_path).split) == 3
    assert json.loads((tmp_path / "counts.json").read_text())["rows"] == 3


# --- Margin ----------------------------------------------------------------------------------


TURNED = Alignment(np.array([[1.2, -0.5, 40.0], [0.5, 1.2, 30.0]]))


def test_without_a_margin_the_alignment_stays():
    assert np.allclose(widened(TURNED, 0).matrix, TURNED.matrix)


@pytest.mark.parametrize("margin", [10.0, 32.0])
def test_a_margin_keeps_the_centre_and_reaches_further_on_every_side(margin):
    wide = widened(TURNED, margin)
    middle = np.array([[63.5, 63.5]])
    assert np.allclose(wide.to_photo(middle), TURNED.to_photo(middle))
    # The outer edges of the frame, half a pixel beyond the outermost centres.
    edges = np.array([[-0.5, -0.5], [127.5, -0.5], [127.5, 127.5], [-0.5, 127.5]])
    outwards = np.sign(edges - 63.5) * margin
    assert np.allclose(wide.to_photo(edges), TURNED.to_photo(edges + outwards))


def test_a_margin_shows_more_of_the_picture(tmp_path):
    rows = [{"image": picture(0, side=300)}]
    detector = FixedDetector(face_at(86, 80))
    plain = prepare(rows, tmp_path / "plain", detector=detector).faces
    wide = prepare(rows, tmp_path / "wide", detector=detector, margin=32).faces
    assert np.abs(MASK_CENTRE - np.array([64, 70])).max() < 1
    sides = [float(faces.quads[0, 1, 0] - faces.quads[0, 0, 0]) for faces in (plain, wide)]
    assert sides[1] == pytest.approx(sides[0] * 128 / 192)
