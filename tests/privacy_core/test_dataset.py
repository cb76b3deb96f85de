"""DATA in every form gives the same rows, undecoded, and says clearly when it cannot."""

import io
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from privacy_core.dataset import RowSource, read_dataset
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces import read_photo


def png(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(level) for level in (10, 20, 30)]
PEOPLE = ["ann", "bob", None]


def cells():
    return [{"bytes": picture, "path": None} for picture in PICTURES]


def write_parquet(path, images=None, **columns):
    columns = {"image": cells() if images is None else images, "identity": PEOPLE} | columns
    parquet.write_table(pa.table(columns), path)
    return path


def write_shards(folder):
    folder.mkdir()
    for i in range(3):
        part = {"image": [cells()[i]], "identity": pa.array([PEOPLE[i]], pa.string())}
        parquet.write_table(pa.table(part), folder / f"part-{i}.parquet")
    return folder


def write_saved(path):
    rows = datasets.Dataset.from_dict({"image": PICTURES, "identity": PEOPLE})
    rows.cast_column("image", datasets.Image()).save_to_disk(path)
    return path


def write_pictures(folder, *, names=("a/1.png", "a/2.png", "b/3.png")):
    for name, picture in zip(names, PICTURES, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    return folder


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


FORMS = {
    "a parquet file": lambda place: write_parquet(place / "x.parquet"),
    "a parquet file of plain bytes": lambda place: write_parquet(place / "x.parquet", PICTURES),
    "a folder of parquet files": lambda place: write_shards(place / "x"),
    "a pattern": lambda place: f"{write_shards(place / 'x')}/part-*.parquet",
    "a save_to_disk folder": lambda place: write_saved(place / "x"),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_rows_and_the_same_digest(tmp_path, make):
    source = read_dataset(make(tmp_path))
    assert len(source) == source.n_rows == 3
    assert source.column_names == ("image", "identity")
    for _ in range(2):
        rows = list(source)
        assert [row["image"] for row in rows] == PICTURES
        assert [row["identity"] for row in rows] == PEOPLE
    (tmp_path / "other").mkdir()
    assert source.digest() == read_dataset(write_shards(tmp_path / "other" / "y")).digest()


def test_a_folder_of_pictures_gives_files_and_labels(tmp_path):
    source = read_dataset(write_pictures(tmp_path / "x"))
    assert source.column_names == ("image", "label")
    assert [(row["image"], row["label"]) for row in source] == list(
        zip(PICTURES, [0, 0, 1], strict=True)
    )
    assert len(source) == 3


def test_pictures_stay_encoded_until_they_are_read(tmp_path):
    damaged = [*PICTURES[:2], b"no picture"]
    rows = list(read_dataset(write_parquet(tmp_path / "x.parquet", damaged)))
    assert rows[2]["image"] == b"no picture"
    assert read_photo(rows[0]["image"]).pixels.shape == (6, 8, 3)


def test_a_row_without_a_picture_has_none(tmp_path):
    images = [cells()[0], None, {"bytes": None, "path": None}]
    rows = list(read_dataset(write_parquet(tmp_path / "x.parquet", images)))
    assert [row["image"] for row in rows] == [PICTURES[0], None, None]


def test_a_table_cannot_point_at_files_of_this_machine(tmp_path):
    (tmp_path / "private.png").write_bytes(PICTURES[0])
    images = [{"bytes": None, "path": str(tmp_path / "private.png")}] * 3
    rows = list(read_dataset(write_parquet(tmp_path / "x.parquet", images)))
    assert [row["image"] for row in rows] == [None] * 3


def refused_row(source):
    with pytest.raises(InvalidArgumentError) as error:
        list(source)
    return str(error.value)


def test_a_folder_of_pictures_may_be_a_link_and_hold_links(tmp_path):
    folder = write_pictures(tmp_path / "x", names=("1.png", "2.png", "3.png"))
    (folder / "3.png").rename(tmp_path / "elsewhere.png")
    (folder / "3.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for place in (folder, tmp_path / "link", Path(os.path.relpath(tmp_path / "link"))):
        assert [row["image"] for row in read_dataset(place)] == PICTURES


def test_a_picture_that_is_gone_is_named_by_its_row(tmp_path):
    folder = write_pictures(tmp_path / "x", names=("1.png", "2.png", "3.png"))
    source = read_dataset(folder)
    (folder / "2.png").unlink()
    assert "2.png' in row 1 of " in refused_row(source)
    assert "cannot be read (FileNotFoundError)" in refused_row(source)


def test_another_column_may_hold_the_picture(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", PICTURES, image=[1, 2, 3], photo=PICTURES)
    source = read_dataset(path, image_column="photo")
    assert [row["photo"] for row in source] == PICTURES
    assert [row["image"] for row in source] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"images": [*PICTURES[:2], png(31)]},
        {"images": PICTURES[::-1]},
        {"identity": ["ann", "bob", "cid"]},
    ],
)
def test_the_digest_depends_on_pictures_order_and_columns(tmp_path, change):
    usual = read_dataset(write_parquet(tmp_path / "x.parquet", PICTURES)).digest()
    images = change.get("images", PICTURES)
    people = change.get("identity", PEOPLE)
    other = write_parquet(tmp_path / "y.parquet", images, identity=people)
    assert read_dataset(other).digest() != usual
    assert len(usual) == 64


def test_a_split_must_be_named_where_there_are_several(tmp_path):
    rows = datasets.Dataset.from_dict({"image": PICTURES}).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(tmp_path / "x")
    assert len(read_dataset(tmp_path / "x", split="test")) == 1
    for split in (None, "exam"):
        with pytest.raises(InvalidArgumentError, match="`split` must be one of train, test"):
            read_dataset(tmp_path / "x", split=split)


def test_shards_named_by_split_are_told_apart(tmp_path):
    for name, n in (("train", 2), ("exam", 1)):
        for i in range(n):
            write_parquet(tmp_path / f"{name}-{i:05d}-of-{n:05d}.parquet")
    assert len(read_dataset(tmp_path, split="train")) == 6
    assert read_dataset(tmp_path, split="train").other_splits == ("exam",)
    assert len(read_dataset(tmp_path, split="exam")) == 3
    with pytest.raises(InvalidArgumentError, match="`split` must be one of exam, train"):
        read_dataset(tmp_path)
    (tmp_path / "exam-00000-of-00001.parquet").unlink()
    only = read_dataset(tmp_path)
    assert (len(only), only.other_splits) == (6, ())


def test_the_splits_beside_the_one_asked_for_are_named(tmp_path):
    rows = datasets.Dataset.from_dict({"image": PICTURES}).cast_column("image", datasets.Image())
    splits = dict.fromkeys(("train", "test", "dev"), rows)
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "x")
    source = read_dataset(tmp_path / "x", split="test")
    assert (source.split, source.other_splits) == ("test", ("train", "dev"))
    for name in ("train", "test"):
        write_pictures(tmp_path / "y" / name, names=("1.png", "2.png", "3.png"))
    source = read_dataset(tmp_path / "y", split="test")
    assert (len(source), source.other_splits) == (3, ("train",))
    assert {file.parent.name for file in source.files} == {"test"}


@pytest.mark.parametrize(
    ("make", "names"),
    [
        ("a folder of parquet files", {"part-0.parquet", "part-1.parquet", "part-2.parquet"}),
        (
            "a save_to_disk folder",
            {"data-00000-of-00001.arrow", "dataset_info.json", "state.json"},
        ),
    ],
)
def test_the_files_behind_the_rows_are_known_and_no_others(tmp_path, make, names):
    FORMS[make](tmp_path)
    (tmp_path / "x" / "notes.txt").write_text("mine")
    source = read_dataset(tmp_path / "x")
    assert {file.name for file in source.files} == names
    assert source.is_local


def test_the_files_of_a_folder_of_pictures_are_pictures_and_their_table(tmp_path):
    folder = write_pictures(tmp_path / "x", names=("1.png", "2.png", "3.png"))
    (folder / "metadata.csv").write_text("file_name,who\n1.png,ann\n2.png,bob\n3.png,cid\n")
    (folder / "notes.txt").write_text("mine")
    source = read_dataset(folder)
    assert [row["who"] for row in source] == ["ann", "bob", "cid"]
    assert {file.name for file in source.files} == {"1.png", "2.png", "3.png", "metadata.csv"}


def test_pictures_in_other_columns_stay_encoded_and_have_one_digest(tmp_path):
    rows = datasets.Dataset.from_dict({"image": PICTURES, "second": PICTURES})
    for name in ("image", "second"):
        rows = rows.cast_column(name, datasets.Image())
    rows.save_to_disk(tmp_path / "x")
    source = read_dataset(tmp_path / "x")
    assert [row["second"]["bytes"] for row in source] == PICTURES
    assert source.digest() == source.digest()
    assert source.features["second"] == datasets.Image()


@pytest.mark.parametrize("rows_per_group", [64, 8000])
def test_reading_holds_a_few_rows_at_a_time_however_long_the_file(tmp_path, rows_per_group):
    # `datasets` reads such a file to its end, up to a gigabyte ahead of whoever asked for a row.
    noise, size, n = np.random.default_rng(0).bytes(8000 * 3000), 3000, 8000
    images = [noise[i * size : (i + 1) * size] for i in range(n)]
    table = pa.table({"image": images, "n": range(n)})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=rows_per_group)
    del table
    source = read_dataset(tmp_path / "x.parquet")
    before, largest = pa.total_allocated_bytes(), 0
    for n_read, row in enumerate(source):
        assert row["n"] == n_read
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert n_read == n - 1
    # Arrow writes pages of at least 1,024 rows: two of them, and what is cut from them.
    assert largest < 3 * 1024 * size


def test_rows_of_nested_and_other_columns_come_back_as_they_were_written(tmp_path):
    rows = datasets.Dataset.from_dict(
        {"image": PICTURES, "who": ["a", "b", "a"], "boxes": [[[1, 2]], [], [[3, 4], [5, 6]]],
         "facts": [{"x": 1, "y": None}] * 3}
    )  # fmt: skip
    rows = rows.cast_column("image", datasets.Image()).class_encode_column("who")
    rows.to_parquet(tmp_path / "x.parquet")
    source = read_dataset(tmp_path / "x.parquet")
    assert source.features["who"].names == ["a", "b"]
    found = list(source)
    assert [row["who"] for row in found] == [0, 1, 0]
    assert [row["boxes"] for row in found] == [[[1, 2]], [], [[3, 4], [5, 6]]]
    assert found[0]["facts"] == {"x": 1, "y": None}
    assert [row["image"] for row in found] == PICTURES


# --- What cannot be read ---------------------------------------------------------------------


def message_of(source, **options):
    with pytest.raises(InvalidArgumentError) as error:
        read_dataset(source, **options)
    return str(error.value)


def test_a_missing_path_is_named(tmp_path):
    assert "no-such-folder" in message_of(tmp_path / "no-such-folder")
    assert "'*.parquet'" in message_of("*.parquet").replace(str(tmp_path), "")


def test_an_empty_folder_is_named_with_what_would_do(tmp_path):
    message = message_of(tmp_path)
    assert tmp_path.name in message
    assert "parquet" in message
    assert "pictures" in message


def test_a_table_without_rows_is_refused(tmp_path):
    write_parquet(tmp_path / "x.parquet", pa.array([], pa.binary()), identity=pa.array([]))
    assert "at least one row" in message_of(tmp_path / "x.parquet")


def test_a_missing_image_column_names_the_columns_there_are(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [1, 2, 3], photo=PICTURES)
    for asked in ("image", "picture"):
        message = message_of(path, image_column=asked)
        assert f"'{asked}'" in message
        assert "image, identity, photo" in message
        assert "Try 'photo'" in message


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("image\n1\n")
    assert "x.csv" in message_of(tmp_path / "x.csv")


@pytest.mark.parametrize("n_bytes", [0, 6, 300])
def test_a_damaged_table_is_refused(tmp_path, n_bytes):
    path = write_parquet(tmp_path / "x.parquet")
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert "cannot be read" in message_of(path)


def test_a_damaged_save_to_disk_folder_is_refused(tmp_path):
    folder = write_saved(tmp_path / "x")
    (folder / "dataset_info.json").write_text("{")
    assert "cannot be read" in message_of(folder)


# --- The Hub ---------------------------------------------------------------------------------


def hub(name, *, revision):
    assert (name, revision) == ("some/faces", "abc")
    rows = datasets.Dataset.from_dict({"image": PICTURES, "identity": PEOPLE})
    return datasets.DatasetDict({"train": rows.cast_column("image", datasets.Image())})


def test_a_hub_id_is_read_at_its_revision(tmp_path):
    source = read_dataset("some/faces", revision="abc", load_from_hub=hub)
    assert [row["image"] for row in source] == PICTURES
    assert source.digest() == read_dataset(write_parquet(tmp_path / "x.parquet")).digest()


@pytest.mark.parametrize(
    ("path", "revision", "asked"),
    [
        ("hf://datasets/some/faces@abc", None, "abc"),
        ("hf://datasets/some/faces@abc/", "abc", "abc"),
        ("hf://datasets/some/faces@refs%2Fpr%2F1", None, "refs/pr/1"),
        ("hf://datasets/some/faces", "abc", "abc"),
    ],
)
def test_a_path_on_the_hub_is_read_at_its_revision(path, revision, asked):
    seen = []

    def load(name, *, revision):
        seen.append((name, revision))
        return hub(name, revision="abc")

    source = read_dataset(path, revision=revision, load_from_hub=load)
    assert seen == [("some/faces", asked)]
    assert (source.name, source.is_local) == (path, False)


@pytest.mark.parametrize(
    ("path", "revision", "mention"),
    [
        ("hf://datasets/some/faces", None, "must name the commit"),
        ("hf://datasets/some/faces@abc", "def", "must be said once"),
        ("hf://datasets/some/faces@abc/data/x.parquet", None, "Name the whole data set"),
        ("hf://models/some/faces@abc", None, "must be hf://datasets/NAME/REPO@REVISION"),
        ("hf://datasets/faces@abc", None, "must be hf://datasets/NAME/REPO@REVISION"),
    ],
)
def test_a_path_on_the_hub_that_says_too_little_or_too_much_is_refused(path, revision, mention):
    assert mention in message_of(path, revision=revision, load_from_hub=hub)


def pictures_on_the_hub(*paths):
    """Return what loads a data set whose rows name pictures by their paths."""

    def load(*_, **__):
        cells = [{"bytes": None, "path": str(path)} for path in paths]
        rows = datasets.Dataset.from_dict({"image": cells, "n": list(range(len(cells)))})
        features = datasets.Features({"image": datasets.Image(), "n": datasets.Value("int64")})
        return datasets.DatasetDict({"train": rows.cast(features)})

    return load


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the Hub with the pictures of some/faces, as links to blobs, and of another."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("some--faces", "some--faces2"):
        repo = tmp_path / "hub" / f"datasets--{name}"
        write_pictures(repo / "blobs", names=("1", "2", "3"))
        (repo / "snapshots/abc").mkdir(parents=True)
        for i in (1, 2, 3):
            (repo / f"snapshots/abc/{i}.png").symlink_to(f"../../blobs/{i}")
    return tmp_path / "hub"


def test_a_hub_id_of_pictures_is_read_from_its_own_part_of_the_cache(cache):
    paths = [cache / f"datasets--some--faces/snapshots/abc/{i}.png" for i in (1, 2, 3)]
    load = pictures_on_the_hub(*paths)
    source = read_dataset("some/faces", revision="abc", load_from_hub=load)
    assert [row["image"] for row in source] == PICTURES


def test_what_was_downloaded_of_a_data_set_on_the_hub_is_among_its_files(cache):
    own = cache / "datasets--some--faces"
    source = read_dataset("some/faces", revision="abc", load_from_hub=hub)
    assert set(source.files) == {own / f"blobs/{i}" for i in (1, 2, 3)}
    # As on a system without links.
    (own / "snapshots/abc/1.png").unlink()
    (own / "blobs/1").rename(own / "snapshots/abc/1.png")
    source = read_dataset("some/faces", revision="abc", load_from_hub=hub)
    assert set(source.files) == {own / "snapshots/abc/1.png", own / "blobs/2", own / "blobs/3"}


@pytest.mark.parametrize("folder", ["blobs", "snapshots", "snapshots/abc"])
def test_no_file_outside_a_data_sets_part_of_the_cache_is_among_its_files(cache, tmp_path, folder):
    own = cache / "datasets--some--faces"
    (own / folder).rename(tmp_path / "elsewhere")
    (own / folder).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/private.png").write_bytes(PICTURES[0])
    source = read_dataset("some/faces", revision="abc", load_from_hub=hub)
    blobs = set() if folder == "blobs" else {own / f"blobs/{i}" for i in (1, 2, 3)}
    assert set(source.files) == blobs


@pytest.mark.parametrize(
    "path",
    [
        "{here}/private.png",
        "{cache}/datasets--some--faces2/snapshots/abc/1.png",
        "{cache}/datasets--some--faces/../../private.png",
        "{cache}/datasets--some--faces/snapshots/abc/missing.png",
        "{cache}/datasets--some--faces/snapshots",
        "private.png",
        "../private.png",
        "",
        "file://{here}/private.png",
        "zip://1.png::{cache}/datasets--some--faces/snapshots/abc/x.zip",
    ],
)
def test_a_data_set_on_the_hub_cannot_point_at_files_of_this_machine(
    cache, tmp_path, monkeypatch, path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.png").write_bytes(PICTURES[0])
    own = cache / "datasets--some--faces/snapshots/abc/1.png"
    load = pictures_on_the_hub(own, path.format(here=tmp_path, cache=cache))
    source = read_dataset("some/faces", revision="abc", load_from_hub=load)
    message = refused_row(source)
    assert "in row 1 of 'some/faces'" in message
    assert "push_to_hub" in message
    with pytest.raises(InvalidArgumentError, match="in row 1"):
        source.digest()


def test_a_hub_id_without_a_revision_is_refused():
    message = message_of("some/faces", load_from_hub=hub)
    assert "`revision`" in message
    assert "folder" in message


def test_a_revision_of_something_local_is_refused(tmp_path):
    assert "`revision`" in message_of(write_parquet(tmp_path / "x.parquet"), revision="abc")


def test_without_a_network_the_message_says_so(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = message_of("nobody/at-all", revision="main")
    assert "nobody/at-all" in message
    assert "no answer from the Hub" in message
    assert "Check the connection" in message


def test_a_data_set_the_hub_does_not_have_is_named():
    def load(name, *, revision):
        raise FileNotFoundError(f"{name}@{revision}")

    message = message_of("nobody/at-all", revision="v1", load_from_hub=load)
    assert "was not found" in message
    assert "'v1'" in message


def test_a_row_source_shows_no_rows_when_it_is_printed():
    source = RowSource("two", "image", ("image",), 1, [{"image": b"PIXELS"}])
    assert "PIXELS" not in repr(source)
