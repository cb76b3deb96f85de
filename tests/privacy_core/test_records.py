"""Chunks in a folder: made once, by whoever shares the work, and of one description only."""

import shutil

import numpy as np
import pytest

from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.records import Records
from tests.privacy_core.crews import together

NAMES = [f"part {i}" for i in range(7)]


def quiet(_):
    return None


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_chunk_is_made_once_and_everybody_gets_all_in_order(tmp_path, size):
    made = []

    def make(place):
        made.append(place)
        return {"x": np.full(2, place)}

    def act(crew):
        records = Records(tmp_path / "work", {"a": 1}, crew)
        return [part["x"][0] for part in records.made_together(NAMES, make, report=quiet)]

    assert together(size, act) == [list(range(7))] * size
    assert sorted(made) == list(range(7))
    together(3, act)
    assert len(made) == 7


def test_progress_is_told_of_all_chunks_whoever_makes_them(tmp_path):
    def act(crew):
        seen = []
        records = Records(tmp_path / "work", {}, crew)
        records.made_together(NAMES, lambda place: {"x": np.array(place)}, report=seen.append)
        return seen

    assert together(2, act) == [list(range(8))] * 2


def test_a_chunk_that_another_process_kept_elsewhere_is_missed(tmp_path):
    def act(crew):
        records = Records(tmp_path / f"work{crew.rank}", {}, crew)
        return records.made_together(NAMES, lambda place: {"x": np.array(place)}, report=quiet)

    for error in together(2, act):
        assert isinstance(error, OutputError)
        assert "shared disk" in str(error)


def test_the_secret_stays_as_long_as_the_folder_and_is_its_owners(tmp_path):
    keys = together(3, lambda crew: Records(tmp_path / "work", {}, crew).secret())
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    assert (tmp_path / "work" / "noise.key").stat().st_mode & 0o177 == 0
    records = Records(tmp_path / "work", {})
    assert records.secret() == keys[0]
    records.forget()
    assert not records.folder.exists()
    assert Records(tmp_path / "work", {}).secret() != keys[0]


def test_another_description_is_refused_or_what_was_there_is_removed(tmp_path):
    Records(tmp_path / "work", {"photos": 1}).keep("part 0", {"x": np.arange(2)})
    with pytest.raises(InvalidArgumentError, match="of the same audit"):
        Records(tmp_path / "work", {"photos": 2})
    assert Records.anew(tmp_path / "work", {"photos": 1}, Crew()).has("part 0")
    found = together(2, lambda crew: Records.anew(tmp_path / "work", {"photos": 2}, crew))
    assert not any(records.has("part 0") for records in found)


@pytest.mark.parametrize("opened", [Records, Records.anew])
@pytest.mark.parametrize("size", [1, 3])
def test_chunks_without_a_description_are_nobodys(tmp_path, opened, size):
    old = Records(tmp_path / "work", {"photos": 1})
    old.keep("part 0", {"x": np.arange(2)})
    key = old.secret()
    (tmp_path / "work" / "config.json").unlink()
    found = together(size, lambda crew: opened(tmp_path / "work", {"photos": 2}, crew))
    assert not any(records.has("part 0") for records in found)
    assert key not in {records.secret() for records in found}
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_key_and_drafts_are_left_to_whoever_is_opening_the_folder(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "noise.key").write_bytes(b"k" * 32)
    (tmp_path / "work" / ".config.json.abcd.part").touch()
    assert Records(tmp_path / "work", {}).secret() == b"k" * 32
    assert (tmp_path / "work" / ".config.json.abcd.part").exists()


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    "removed",
    [
        lambda old: old.forget(),
        lambda old: Records.anew(old.folder, {"photos": 2}, Crew()),
        lambda old: (
            (old.folder / "config.json").unlink(),
            Records(old.folder, {"photos": 2}),
        ),
    ],
)
def test_a_removal_that_is_killed_leaves_no_chunk_to_the_next_run(tmp_path, monkeypatch, removed):
    old = Records(tmp_path / "a[b]", {"photos": 1})
    old.keep("part 0", {"x": np.arange(2)})

    def kill(folder, **_options):
        (folder / "config.json").unlink(missing_ok=True)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(KilledError):
            removed(old)
    assert not (tmp_path / "a[b]").exists()
    assert not Records.anew(tmp_path / "a[b]", {"photos": 3}, Crew()).has("part 0")
    assert [path.name for path in tmp_path.iterdir()] == ["a[b]"]  # nor is a face's code left


def test_a_folder_that_cannot_be_renamed_is_forgotten_all_the_same(tmp_path, monkeypatch):
    records = Records(tmp_path / "work", {})

    def refuse(*_arguments):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    records.forget()
    assert list(tmp_path.iterdir()) == []
