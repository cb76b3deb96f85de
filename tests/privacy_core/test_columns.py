"""What may say who somebody is leaves the data, and nobody is asked afterwards."""

import pytest
from datasets import Array2D, Audio, ClassLabel, Features, Image, List, Value

from privacy_core.errors import InvalidArgumentError
from privacy_core.revise.columns import ADDED, identifying_columns, plan_columns

TEXT = Value("string")
OWN = {"image_column": "image", "subject_column": "subject"}


def features(**others):
    return Features({"image": Image(), "subject": TEXT} | others)


@pytest.mark.parametrize(
    "name",
    [
        "identity", "origin", "landmarks", "file_name", "filename", "path", "image_id", "bbox",
        "celebName", "EXIF", "GPSLatitude", "face-box", "user.email", "landmarks5", "frame", "md5",
    ],
)  # fmt: skip
def test_a_column_that_may_say_who_somebody_is_is_found_by_its_name(name):
    assert identifying_columns(features(**{name: TEXT}), **OWN) == (name,)


@pytest.mark.parametrize("name", ["smiling", "gender", "age_group", "label", "boxing", "valid"])
def test_a_harmless_column_stays(name):
    assert identifying_columns(features(**{name: TEXT}), **OWN) == ()


@pytest.mark.parametrize(
    "feature",
    [
        Image(), Audio(), Value("binary"), Value("large_binary"), List(Image()),
        {"bytes": Value("binary"), "path": TEXT}, Array2D((8, 8), "uint8"), List(List(Image())),
    ],
)  # fmt: skip
def test_a_column_of_pictures_or_arrays_never_stays_whatever_it_is_called(feature):
    # The original photo once more, under another name.
    known = features(second=feature)
    assert identifying_columns(known, **OWN) == ("second",)
    plan = plan_columns(known, **OWN, drop=())
    assert plan.dropped == ("subject", "second")


def test_the_label_is_what_models_learn_and_not_asked_about():
    known = features(title=ClassLabel(names=["a", "b"]))
    assert identifying_columns(known, **OWN, label_column="title") == ()
    assert "title" in plan_columns(known, **OWN, label_column="title").features


def test_nothing_identifying_is_dropped_or_kept_without_a_word():
    with pytest.raises(InvalidArgumentError) as error:
        plan_columns(features(origin=TEXT, smiling=TEXT, file_name=TEXT), **OWN)
    assert "origin, file_name" in str(error.value)
    assert "--yes" in str(error.value)
    assert "--drop-columns" in str(error.value)


def test_what_is_kept_by_name_is_noted():
    plan = plan_columns(features(origin=TEXT, smiling=TEXT, url=TEXT), **OWN, drop=("url",))
    assert plan.dropped == ("subject", "url")
    assert plan.kept_though_identifying == ("origin",)
    assert list(plan.features) == ["image", "origin", "smiling", *ADDED]


def test_the_columns_of_revised_data_keep_their_types_and_the_picture_its_place():
    plan = plan_columns(features(smiling=ClassLabel(names=["no", "yes"])), **OWN)
    assert plan.features["smiling"] == ClassLabel(names=["no", "yes"])
    assert plan.features["image"] == Image()
    assert plan.features["epsilon"] == Value("float64")
    assert "subject" not in str(plan.features.arrow_schema.metadata)


def test_names_of_classes_go_with_their_column():
    known = Features({"image": Image(), "label": ClassLabel(names=["ann", "bob"])})
    plan = plan_columns(known, image_column="image", subject_column="label")
    assert b"ann" not in plan.features.arrow_schema.metadata[b"huggingface"]


@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"subject_column": "who"}, ["`--subject-column`", "'who'", "image, subject"]),
        ({"label_column": "smile"}, ["`--label-column`", "'smile'"]),
        ({"drop": ("x",)}, ["`--drop-columns`", "'x'"]),
        ({"label_column": "subject"}, ["`--label-column`", "'subject'", "dropped"]),
    ],
)
def test_a_column_that_is_not_there_is_refused(options, mentions):
    with pytest.raises(InvalidArgumentError) as error:
        plan_columns(features(), **(OWN | options))
    for mention in mentions:
        assert mention in str(error.value)


def test_data_that_was_revised_before_is_refused_unless_the_columns_are_named():
    known = features(revised=Value("bool"))
    with pytest.raises(InvalidArgumentError, match="'revised'"):
        plan_columns(known, **OWN)
    assert plan_columns(known, **OWN, drop=("revised",)).dropped == ("subject", "revised")
