"""Chunks in a folder: made once, by whoever shares the work, and of one description only."""

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
