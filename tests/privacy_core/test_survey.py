"""One look at the rows finds who is shown where, and copies that would spoil an audit."""

import datasets
import pytest

from privacy_core.dataset import RowSource, read_dataset
from privacy_core.errors import InvalidArgumentError
from privacy_core.revise.survey import MOST_PAIRS, survey_rows
from tests.privacy_core.people import photo_png, rows_of, source_of


def survey_of(tmp_path, rows, **options):
    source = source_of(tmp_path / "x.parquet", rows)
    return survey_rows(source, subject_column="subject", **options)


def test_everyone_is_found_in_every_row_and_the_digest_is_the_datas(tmp_path):
    rows = rows_of(5)
    rows[3]["subject"] = None
    seen = []
    found = survey_of(tmp_path, rows, report=lambda *step: seen.append(step))
    assert found.subjects == ("person-0", "person-1", "person-2")
    assert [found.subject(i) for i in range(5)] == [
        "person-0", "person-1", "person-2", None, "person-1",
    ]  # fmt: skip
    assert found.n_rows == 5
    assert found.digest == read_dataset(tmp_path / "x.parquet").digest()
    assert seen[-1] == ("Reading the rows", 5, 5)


def test_numbers_and_classes_are_subjects_too(tmp_path):
    rows = rows_of(3)
    for row, number in zip(rows, (7, 7, None), strict=True):
        row["subject"] = number
    assert survey_of(tmp_path, rows).subjects == ("7",)
    data = datasets.Dataset.from_list(rows_of(3)).cast_column("image", datasets.Image())
    data = data.cast_column(
        "subject", datasets.ClassLabel(names=["x", "person-0", "person-1", "person-2"])
    )
    data.save_to_disk(tmp_path / "saved")
    saved = survey_rows(read_dataset(tmp_path / "saved"), subject_column="subject")
    assert saved.subjects == ("person-0", "person-1", "person-2")


def test_copies_across_subjects_are_listed_and_within_one_only_counted(tmp_path):
    rows = rows_of(6)  # subjects 0 1 2 0 1 2
    rows[4]["image"] = rows[0]["image"]  # persons 1 and 0
    rows[5]["image"] = rows[2]["image"]  # person 2 twice
    found = survey_of(tmp_path, rows).duplicates
    assert found.pairs == ((0, 4),)
    assert (found.n_across_subjects, found.n_within_subject, found.n_across_splits) == (1, 1, 0)
    assert found.as_json()["pairs_across_subjects"] == [[0, 4]]


def test_copies_in_another_split_are_listed_with_their_place(tmp_path):
    other = rows_of(3)
    for i, row in enumerate(other):
        row["image"] = {"bytes": photo_png(50 + i), "path": None}
    mine = rows_of(4)
    other[2]["image"] = mine[1]["image"]
    beside = {"exam": source_of(tmp_path / "y.parquet", other)}
    seen = []
    report = lambda *step: seen.append(step)  # noqa: E731
    found = survey_of(tmp_path, mine, other_splits=beside, report=report).duplicates
    assert seen[-1] == ("Reading the split exam", 3, 3)
    assert found.split_pairs == ((1, "exam", 2),)
    assert (found.n_across_subjects, found.n_across_splits) == (0, 1)


def test_rows_without_a_readable_or_structured_photo_are_no_copies_of_each_other(tmp_path):
    rows = rows_of(4)
    rows[0]["image"] = rows[1]["image"] = None
    rows[2]["image"] = rows[3]["image"] = {"bytes": b"no picture", "path": None}
    found = survey_of(tmp_path, rows).duplicates
    assert (found.n_across_subjects, found.n_within_subject) == (0, 0)


def test_more_copies_than_can_be_listed_are_counted():
    photo = photo_png(1)
    rows = [{"image": photo, "subject": str(i)} for i in range(50)]
    source = RowSource("copies", "image", ("image", "subject"), 50, rows)
    found = survey_rows(source, subject_column="subject").duplicates
    assert found.n_across_subjects == 50 * 49 // 2 > MOST_PAIRS
    assert len(found.pairs) == MOST_PAIRS


def test_data_without_a_subject_column_is_refused(tmp_path):
    source = source_of(tmp_path / "x.parquet", rows_of(2))
    with pytest.raises(InvalidArgumentError) as error:
        survey_rows(source, subject_column="who")
    assert "`--subject-column`" in str(error.value)
    assert "image, subject, label, weight" in str(error.value)


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_subject_column_that_names_nobody_is_refused(tmp_path, empty):
    rows = [*rows_of(2)]
    for row in rows:
        row["subject"] = empty
    rows[0]["subject"] = ""  # keeps the column one of text
    with pytest.raises(InvalidArgumentError, match="empty in every row"):
        survey_of(tmp_path, rows)
