"""Labelled rows: read from a data set, checked, split into what stays and what is forgotten."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.rows import (
    LabelledImages,
    read_labelled,
    split_revised,
)
from tests.privacy_core.tiny_targets import pictures, revise


def png(colour, size=(20, 12)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "png")
    return data.getvalue()


def table(*labels, **columns):
    rows = [{"image": png((40 * i, 0, 0)), "smiling": label} for i, label in enumerate(labels)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def read(rows, **kwargs):
    return read_labelled(rows, label_column="smiling", image_size=8, **kwargs)


# --- Reading ---------------------------------------------------------------------------------


def test_pictures_become_squares_and_labels_numbers_in_their_order():
    rows, names = read(table("yes", "no", "yes"))
    assert names == ("no", "yes")
    assert rows.labels.tolist() == [1, 0, 1]
    assert rows.images.shape == (3, 8, 8, 3)
    assert rows.images[:, 0, 0, 0].tolist() == [0, 40, 80]
    assert rows.row_ids.tolist() == [0, 1, 2]
    assert not rows.revised.any()


@pytest.mark.parametrize(
    ("labels", "names"),
    [((10, 9, 2), ("2", "9", "10")), ((True, False), ("False", "True")), (("b", "a"), ("a", "b"))],
)
def test_labels_of_any_type_are_numbered_in_their_order(labels, names):
    rows, found = read(table(*labels))
    assert found == names
    assert [found[label] for label in rows.labels] == [str(label) for label in labels]


def test_a_models_own_names_number_the_labels():
    rows, names = read(table("yes", "yes"), label_names=("no", "yes", "maybe"))
    assert rows.labels.tolist() == [1, 1]
    assert names == ("no", "yes", "maybe")
    with pytest.raises(InvalidArgumentError, match=r"the model's labels \(no\), got 1 others"):
        read(table("no", "yes"), label_names=("no",))


def test_a_row_without_a_picture_is_left_out_and_one_without_a_label_keeps_none():
    rows = table("no", None, "yes", "no", revised=(False, True, True, False))
    rows[2]["image"] = None
    found, _ = read(rows, label_names=("no", "yes"))
    assert found.row_ids.tolist() == [0, 1, 3]
    assert found.labels.tolist() == [0, -1, 0]
    assert found.revised.tolist() == [False, True, False]
    assert found.labelled().row_ids.tolist() == [0, 3]


def test_a_column_of_row_ids_counts_where_rows_were_dropped():
    found, _ = read(table("no", "yes", row_id=(4, 9)))
    assert found.row_ids.tolist() == [4, 9]


def test_a_photo_taken_sideways_is_turned_upright():
    picture = Image.new("RGB", (8, 8))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3
    data = io.BytesIO()
    picture.save(data, "png", exif=exif)
    rows = table("no", "yes")
    rows[0]["image"] = data.getvalue()
    assert read(rows)[0].images[0, 7, 7, 0] == 255


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": b"", "age": 1}], "`label_column` must name a column .* image, age"),
        (table("no", "no"), "at least two different labels, got 1 in 'smiling'"),
        ([{"image": None, "smiling": "no"}], "at least one row with a picture"),
        ([{"image": b"no picture", "smiling": "no"}], "damaged one in row 0"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(rows, message):
    with pytest.raises(InvalidArgumentError, match=message):
        read(rows)


# --- Rows ------------------------------------------------------------------------------------


def test_lengths_must_agree_and_ids_increase():
    images, labels = np.zeros((2, 3)), np.zeros(2, dtype=np.int64)
    with pytest.raises(InvalidArgumentError, match="must have one length"):
        LabelledImages(images, labels, np.arange(3))
    with pytest.raises(InvalidArgumentError, match="`row_ids` must increase"):
        LabelledImages(images, labels, np.array([1, 1]))


@given(st.integers(0, 3), st.integers(0, 9))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_digest_changes_with_every_part(part, place):
    rows = pictures(10)
    parts = [rows.images.copy(), rows.labels.copy(), rows.row_ids.copy(), rows.revised.copy()]
    if part == 2:
        parts[2][place:] += 5
    else:
        parts[part][place] = 1 - parts[part][place].astype(int) % 2
    other = LabelledImages(*parts)
    changed = any(
        not np.array_equal(a, b)
        for a, b in zip(parts, (rows.images, rows.labels, rows.row_ids, rows.revised), strict=True)
    )
    assert (other.digest() != rows.digest()) == changed
    assert rows.digest() == pictures(10).digest()


# --- Splitting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "n_train", "n_replacement"),
    [("replace", 64, 16), ("drop-label", 48, 0), ("drop-row", 48, 0)],
)
def test_what_is_not_kept_as_it_was_is_to_be_forgotten(mode, n_train, n_replacement):
    original = pictures()
    split = split_revised(revise(original, mode=mode), original)
    assert (len(split.train), len(split.replacement)) == (n_train, n_replacement)
    assert split.forget.row_ids.tolist() == list(range(16))
    assert split.retain.row_ids.tolist() == list(range(16, 64))
    np.testing.assert_array_equal(split.forget.images, original.images[:16])
    assert split_revised(revise(original, mode=mode)).forget is None


def test_a_row_whose_face_could_not_be_anonymized_is_to_be_forgotten():
    original = pictures()
    revised = revise(original)
    failed = revised.take(np.arange(64) != 20)  # it has no picture, so reading left it out
    split = split_revised(failed, original)
    assert 20 in split.forget.row_ids
    assert len(split.train) == 63


@pytest.mark.parametrize("part", ["picture", "label", "row", "size"])
def test_other_data_than_was_revised_is_refused(part):
    original, revised = pictures(), revise(pictures())
    images, labels = original.images.copy(), original.labels.copy()
    if part == "picture":
        images[40, 0, 0, 0] ^= 1
    if part == "label":
        labels[40] = 1 - labels[40]
    other = LabelledImages(images, labels, original.row_ids)
    if part == "row":
        other = other.take(np.arange(64) != 5)
    if part == "size":
        other = other.with_images(images[:, :4])
    with pytest.raises(InvalidArgumentError, match="`original` must be the data that was revised"):
        split_revised(revised, other)


def test_data_without_any_label_is_refused():
    rows = pictures()
    gone = LabelledImages(rows.images, np.full(64, -1), rows.row_ids)
    with pytest.raises(InvalidArgumentError, match="a picture and a label, got none"):
        split_revised(gone)
