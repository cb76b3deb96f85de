import pytest

from feedback import ExportError
from feedback.wholefile import whole_file


def test_a_file_appears_whole_and_is_its_owner_s(tmp_path):
    path = tmp_path / "table.json"
    with whole_file(path) as draft:
        draft.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "table.json"
    path.write_text("old")

    def fail_half_way():
        with whole_file(path) as draft:
            draft.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(ExportError, match="must be a file in a folder that can be written"),
        whole_file(tmp_path / "no" / "table.json"),
    ):
        pass
