"""A backbone reads each picture once; what it found is its owner's, and no other backbone's."""

import stat

import numpy as np
import pytest

from privacy_core.commands.kept_features import KeptFeatures
from privacy_core.commands.output import Progress
from tests.privacy_core.crews import together
from tests.privacy_core.tiny_targets import FlatBackbone, pictures

IMAGES = pictures(6).images


class Kept:
    """A fresh `KeptFeatures` as the next command makes it, and what it says."""

    def __init__(self, folder, *, identity="1", backbone=None, crew=None):
        self.backbone = backbone or FlatBackbone()
        self.steps, self.said = [], []
        self.features = KeptFeatures(
            self.backbone, folder, identity=identity,
            progress=lambda *step: self.steps.append(step), tell=self.said.append, crew=crew,
        ).features  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".m.private"


def test_what_was_read_before_is_not_read_again(folder):
    first = Kept(folder).features(IMAGES)
    then = Kept(folder)
    np.testing.assert_array_equal(then.features(IMAGES[::-1]), first[::-1])
    np.testing.assert_array_equal(first, FlatBackbone().features(IMAGES))
    assert (then.backbone.n_read, then.steps) == (0, [])


def test_only_new_pictures_are_read_each_once_and_counted(folder):
    Kept(folder).features(IMAGES[:4])
    then = Kept(folder)
    then.features(np.concatenate([IMAGES, IMAGES]))
    assert then.backbone.n_read == 2
    assert then.steps == [("Reading pictures", 1, 2), ("Reading pictures", 2, 2)]


def test_only_the_owner_can_read_what_is_kept(folder):
    Kept(folder).features(IMAGES)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def other_width(_folder):
    backbone = FlatBackbone()
    backbone.n_features = 13
    return {"backbone": backbone}


def other_name(_folder):
    backbone = FlatBackbone()
    backbone.name = "flat+eyes"
    return {"backbone": backbone}


def damaged(folder):
    file = folder / "features.npz"
    file.write_bytes(file.read_bytes()[:-200])
    return {}


def emptied(folder):
    (folder / "features.npz").write_bytes(b"")
    return {}


@pytest.mark.parametrize(
    "change", [lambda _: {"identity": "2"}, other_name, other_width, damaged, emptied]
)
def test_features_of_another_backbone_or_a_damaged_file_are_not_taken(folder, change):
    Kept(folder).features(IMAGES)
    then = Kept(folder, **change(folder))
    then.features(IMAGES)
    assert then.backbone.n_read == len(IMAGES)


def test_several_processes_share_the_reading_and_know_the_same_afterwards(folder):
    def act(crew):
        kept = Kept(folder, crew=crew)
        first, again = kept.features(IMAGES), kept.features(IMAGES[::-1])
        return first, again, kept.backbone.n_read

    found = together(3, act)
    for first, again, _ in found:
        np.testing.assert_array_equal(first, FlatBackbone().features(IMAGES))
        np.testing.assert_array_equal(again, first[::-1])
    assert sorted(n_read for *_, n_read in found) == [2, 2, 2]
    then = Kept(folder)
    then.features(IMAGES)
    assert then.backbone.n_read == 0


def test_other_pictures_of_the_same_bytes_are_others(folder):
    one = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    kept = Kept(folder)
    kept.features(one)
    kept.features(one.reshape(1, 2, 8, 3))
    assert kept.backbone.n_read == 2


def test_what_an_interrupted_run_has_read_is_kept(folder):
    class Killed(FlatBackbone):
        def features(self, images):
            if self.n_read == 3:
                raise KeyboardInterrupt
            return super().features(images)

    with pytest.raises(KeyboardInterrupt):
        Kept(folder, backbone=Killed()).features(IMAGES)
    then = Kept(folder)
    then.features(IMAGES)
    assert then.backbone.n_read == 3


def test_where_nothing_can_be_kept_the_features_are_there_all_the_same(folder):
    folder.write_text("in the way")
    kept = Kept(folder)
    assert kept.features(IMAGES).shape == (6, 12)
    (sentence,) = kept.said
    assert "could not be kept beside the model (File exists)" in sentence


def test_reading_pictures_a_second_time_shows_a_second_bar(capsys):
    progress = Progress()
    for total in (2, 3):
        for done in range(1, total + 1):
            progress("Reading pictures", done, total)
    said = capsys.readouterr().err
    assert "2/2" in said
    assert "3/3" in said
