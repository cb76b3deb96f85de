import csv

import pytest

from feedback import ExportError, InvalidRatingError, read_links, write_links
from feedback.fit.links import read_subjects

A, B = "a" * 32, "b" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "links.csv"


@pytest.mark.parametrize(
    "text",
    [
        f"rater_id,subject\n{A},Ada\n{B},Bo\n{A},Cy\n",
        f"subject,rater_id\r\nAda,{A}\r\nBo,{B}\r\n\r\nCy,{A}",
        f'\ufeffrater_id, subject\n{A} , Ada\n{B},"Bo"\n{A},Cy\n',
    ],
)
def test_links_are_read_in_order_whatever_the_spelling_of_the_table(path, text):
    path.write_text(text, encoding="utf-8")
    assert list(read_links(path).items()) == [("Ada", A), ("Bo", B), ("Cy", A)]


def test_written_links_are_read_back(path):
    pairs = [(A, 'a "quoted", name'), (B, "Bo")]
    assert write_links(path, pairs) == 2
    assert read_links(path) == {subject: rater for rater, subject in pairs}
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == ["rater_id", "subject"]


def test_links_that_cannot_be_written_say_so(tmp_path):
    with pytest.raises(ExportError, match="must be a file in a folder"):
        write_links(tmp_path / "no" / "links.csv", [])


def test_all_bad_lines_are_listed_by_number_without_a_name(path):
    path.write_text(
        f"rater_id,subject\n{A},Ada\nxyz,Bo\n{B},Ada\n{A}\n{A},\n{B},Ada\n{B},{'n' * 201}\n"
    )
    with pytest.raises(InvalidRatingError) as caught:
        read_links(path)
    problems = "\n".join(caught.value.problems)
    for expected in (
        "Line 3: `rater_id` must be 32",
        "Line 5: there must be 2 columns, got 1",
        "Line 6: `subject` must be 1 to 200",
        "Line 8: `subject` must be 1 to 200",
        "Lines 2, 4, 7: a subject must have one rater, got it 3 times",
    ):
        assert expected in problems
    assert "Ada" not in problems
    assert "xyz" not in problems


@pytest.mark.parametrize("text", ["", "a,b\n", f"{A},Ada\n", "rater_id,subject,more\n"])
def test_another_header_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(InvalidRatingError, match="must have the header rater_id,subject"):
        read_links(path)


@pytest.mark.parametrize("content", [None, b"rater_id,subject\n\xff\xfe", b'rater_id,subject\n"a'])
def test_a_table_that_cannot_be_read_is_refused(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRatingError, match="must be a readable CSV file"):
        read_links(path)


def test_subjects_are_counted_or_listed(tmp_path):
    assert read_subjects("2") == ("subject-0001", "subject-0002")
    listed = tmp_path / "subjects.txt"
    listed.write_text("Ada\n\n Bo \n")
    assert read_subjects(str(listed)) == ("Ada", "Bo")


@pytest.mark.parametrize("content", ["", "Ada\nAda\n", f"{'n' * 201}\n"])
def test_what_are_no_subjects_is_refused(tmp_path, content):
    listed = tmp_path / "subjects.txt"
    listed.write_text(content)
    with pytest.raises(InvalidRatingError, match="must be different names"):
        read_subjects(str(listed))


@pytest.mark.parametrize("text", ["0", "100001", "-1", "no such file"])
def test_a_number_of_subjects_must_make_sense(text):
    with pytest.raises(InvalidRatingError, match="`subjects` must be"):
        read_subjects(text)
