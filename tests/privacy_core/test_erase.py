"""Originals are erased when an audit has read them, and only those, and so is the noise key."""

import json
from pathlib import Path

import datasets
import pytest
import torch

from privacy_core.anonymize import Anonymizer
from privacy_core.backends import load_backend
from privacy_core.dataset import read_dataset
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.revise.erase import (
    FEATURES,
    FEATURES_NOTE,
    SHADOWS,
    erase,
    note_folder,
    plan_erasure,
)
from privacy_core.revise.revision import load_revision
from privacy_core.revise.rows import RowRules
from privacy_core.revise.run import ReviseConfig, revise
from privacy_core.revise.survey import survey_rows
from tests.privacy_core.people import MarkDetector, photo_png, preferences, rows_of, write_rows


@pytest.fixture(autouse=True)
def quiet():
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def write_pictures(place):
    for i in range(4):
        path = place / f"person-{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_png(i))
    return place


def write_saved(place):
    data = datasets.Dataset.from_list(rows_of(4)).cast_column("image", datasets.Image())
    data.save_to_disk(place)
    return place


def write_table(place):
    place.mkdir()
    write_rows(place / "x.parquet", rows_of(4))
    return place


def revised(data, out, **options):
    source = read_dataset(data, **options)
    column = "subject" if "subject" in source.column_names else "label"
    revise(
        source,
        survey_rows(source, subject_column=column),
        RowRules(preferences()),
        out,
        anonymizer=Anonymizer(load_backend("solid"), MarkDetector()),
        config=ReviseConfig(subject_column=column, rows_per_shard=3),
    )
    return out


def audited(place, out):
    """Return a model folder with an audit of the revised data."""
    place.mkdir()
    (place / "audit.json").write_text("{}")
    digest = load_revision(out)["data_digest"]
    (place / "certificate.json").write_text(json.dumps({"data": {"revised": digest}}))
    return place


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def done(tmp_path):
    """A folder of a table and something else, its revised data, and an audited model."""
    data = write_table(tmp_path / "data")
    (data / "notes.txt").write_text("mine")
    out = revised(data, tmp_path / "out")
    return data, out, audited(tmp_path / "model", out)


@pytest.mark.parametrize("write", [write_table, write_saved, write_pictures])
def test_every_kind_of_original_is_erased_with_the_key_and_nothing_else(tmp_path, write):
    data = write(tmp_path / "data")
    for name in ("notes.txt", "plan.json"):
        (data / name).write_text("{}")
    out = revised(data, tmp_path / "out")
    model = audited(tmp_path / "model", out)
    before = names(out)
    receipt = erase(plan_erasure(str(data), out, audited=model))
    assert receipt["n_files_erased"] > 0
    assert names(data) == ["notes.txt", "plan.json"]
    assert not (tmp_path / ".out.private").exists()
    assert names(out) == sorted([*before, "erasure.json"])
    assert not any(p.name.startswith("person-") for p in tmp_path.rglob("*"))
    load_revision(out)
    assert datasets.load_dataset(str(out), split="train").num_rows == 4


def test_the_receipt_says_what_was_erased_and_what_erasing_does_not_reach(done):
    data, out, model = done
    receipt = erase(plan_erasure(str(data), out, audited=model))
    assert json.loads((out / "erasure.json").read_text()) == receipt
    assert receipt["n_files_erased"] == 1
    assert receipt["noise_key_erased"] is True
    assert receipt["erased_before_audit"] is False
    assert any("Backups" in sentence for sentence in receipt["not_reached"])
    assert str(data) not in json.dumps(receipt)


def test_finding_out_erases_nothing(done):
    data, out, model = done
    before = names(data.parent)
    erasure = plan_erasure(str(data), out, audited=model)
    assert len(erasure.files) == 1
    assert names(data.parent) == before


@pytest.mark.parametrize("change", ["other rows", "one byte"])
def test_a_file_that_was_changed_since_stays_and_stays_listed(done, change):
    data, out, model = done
    file = data / "x.parquet"
    if change == "one byte":
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    else:
        write_rows(file, rows_of(5))
    receipt = erase(plan_erasure(str(data), out, audited=model))
    assert (receipt["n_files_erased"], receipt["n_files_changed_and_left"]) == (0, 1)
    assert file.exists()
    assert names(out.parent / ".out.private") == ["originals.json"]


def test_a_link_is_not_followed(done):
    data, out, model = done
    file = data / "x.parquet"
    elsewhere = file.rename(data.parent / "elsewhere.parquet")
    file.symlink_to(elsewhere)
    assert plan_erasure(str(data), out, audited=model).changed == 1
    erase(plan_erasure(str(data), out, audited=model))
    assert elsewhere.exists()


def test_files_outside_the_place_named_stay(done, tmp_path):
    data, out, model = done
    (tmp_path / "data2").mkdir()
    for place in (tmp_path / "data2", data / "notes.txt", tmp_path / "dat", f"{data}/*.txt"):
        erasure = plan_erasure(str(place), out, audited=model)
        assert (erasure.files, erasure.foreign) == ((), 1)
    for place in (data, tmp_path, data / "x.parquet", f"{data}/*.parquet"):
        assert len(plan_erasure(str(place), out, audited=model).files) == 1


def test_without_an_audit_of_this_data_nothing_is_erased(done, tmp_path):
    data, out, model = done
    with pytest.raises(InvalidArgumentError, match="--erase-first"):
        plan_erasure(str(data), out)
    (model / "certificate.json").write_text('{"data": {"revised": "of another"}}')
    with pytest.raises(InvalidArgumentError, match="whose audit is of this revised data"):
        plan_erasure(str(data), out, audited=model)
    with pytest.raises(InvalidArgumentError, match="`--audited`"):
        plan_erasure(str(data), out, audited=tmp_path)
    assert (data / "x.parquet").exists()


def test_erasing_first_keeps_the_pseudonyms_of_rows_until_the_audit(done):
    data, out, model = done
    private = out.parent / ".out.private"
    receipt = erase(plan_erasure(str(data), out, erase_first=True))
    assert receipt["erased_before_audit"] is True
    assert names(private) == ["originals.json", "rows.parquet"]
    assert str(data) not in (private / "originals.json").read_text()
    assert names(data) == ["notes.txt"]
    erase(plan_erasure(str(data), out, audited=model))
    assert not private.exists()


def test_empty_folders_go_too_but_never_the_place_named_or_one_above(tmp_path):
    data = write_pictures(tmp_path / "only" / "data")
    out = revised(data, tmp_path / "out")
    erase(plan_erasure(str(data), out, erase_first=True))
    assert list(data.iterdir()) == []


def test_a_run_that_stopped_on_the_way_can_be_repeated(tmp_path):
    data = write_pictures(tmp_path / "data")
    out = revised(data, tmp_path / "out")
    erasure = plan_erasure(str(data), out, erase_first=True)
    erasure.files[2].unlink()
    erasure.files[2].mkdir()
    with pytest.raises(OutputError, match="after 2 were erased"):
        erase(erasure)
    assert (tmp_path / ".out.private/originals.json").exists()
    erasure.files[2].rmdir()
    receipt = erase(plan_erasure(str(data), out, erase_first=True))
    assert (receipt["n_files_erased"], receipt["n_files_missing"]) == (1, 3)


@pytest.mark.parametrize("content", [None, "{", '{"files": [{}]}'])
def test_a_damaged_list_of_originals_is_refused(done, content):
    data, out, model = done
    path = out.parent / ".out.private/originals.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InvalidArgumentError, match=r"\.out\.private"):
        plan_erasure(str(data), out, audited=model)
    assert (data / "x.parquet").exists()


def test_revised_data_that_was_changed_erases_nothing(done):
    data, out, model = done
    shard = out / "data/train-00000-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InvalidArgumentError, match="not as it was written"):
        plan_erasure(str(data), out, audited=model)
    shard.unlink()
    with pytest.raises(InvalidArgumentError, match="not as it was written"):
        load_revision(out)


@pytest.mark.parametrize("content", [None, "[]", '{"schema_version": 2, "shards": [], "kind": ""}'])
def test_a_folder_that_is_no_revised_data_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "revision.json").write_text(content)
    with pytest.raises(InvalidArgumentError, match="`--revised`"):
        load_revision(tmp_path)


def test_cached_copies_of_a_hub_data_set_are_erased_under_its_name(tmp_path):
    write_saved(tmp_path / "cache")

    def load(*_, **__):
        return datasets.DatasetDict({"train": datasets.load_from_disk(tmp_path / "cache")})

    out = revised("some/faces", tmp_path / "out", revision="abc", load_from_hub=load)
    assert load_revision(out)["original"]["name"] == "some/faces"
    erasure = plan_erasure("some/faces", out, erase_first=True)
    assert [Path(p).suffix for p in erasure.files] == [".arrow"]
    assert plan_erasure("other/faces", out, erase_first=True).files == ()
    erase(erasure)
    assert not list((tmp_path / "cache").glob("*.arrow"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the Hub with the pictures of some/faces, as links to blobs, and of another."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("some--faces", "some--faces2"):
        repo = tmp_path / "hub" / f"datasets--{name}"
        (repo / "blobs").mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs/main").write_text("abc")
        for i in range(4):
            link = repo / f"snapshots/abc/person-{i % 2}/{i}.png"
            link.parent.mkdir(parents=True, exist_ok=True)
            (repo / f"blobs/{i}").write_bytes(photo_png(i))
            link.symlink_to(f"../../../blobs/{i}")
    return tmp_path / "hub"


def from_cache(cache):
    """Return what opens some/faces as `datasets` does: Arrow files that name its pictures."""
    pictures = sorted((cache / "datasets--some--faces/snapshots").rglob("*.png"))
    people = [path.parent.name for path in pictures]
    cells = [{"bytes": None, "path": str(path)} for path in pictures]
    rows = datasets.Dataset.from_dict({"image": cells, "subject": people})
    features = {"image": datasets.Image(), "subject": datasets.Value("string")}
    rows.cast(datasets.Features(features)).save_to_disk(cache.parent / "arrow")
    return lambda *_, **__: datasets.load_from_disk(cache.parent / "arrow")


def revised_from(cache, out):
    return revised("some/faces", out, revision="abc", load_from_hub=from_cache(cache))


def contents(folder):
    """Return the bytes of what lies below a folder; a link has none."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_what_was_downloaded_from_the_hub_is_erased_and_no_other_repository(cache, tmp_path):
    other = contents(cache / "datasets--some--faces2")
    out = revised_from(cache, tmp_path / "out")
    receipt = erase(plan_erasure("some/faces", out, erase_first=True))
    assert (receipt["n_files_erased"], receipt["n_files_changed_and_left"]) == (4 + 1, 0)
    assert contents(cache / "datasets--some--faces") == {"refs/main": b"abc"}
    assert contents(cache / "datasets--some--faces2") == other
    assert not list((tmp_path / "arrow").glob("*.arrow"))
    # Nor who was there; the folder of the revision stays, as a ref names it.
    assert list((cache / "datasets--some--faces/snapshots").rglob("*")) == [
        cache / "datasets--some--faces/snapshots/abc"
    ]


def test_downloads_without_links_are_erased_too(cache, tmp_path):
    own = cache / "datasets--some--faces"
    for link in list(own.rglob("*.png")):
        blob = link.resolve()
        link.unlink()
        blob.rename(link)
    out = revised_from(cache, tmp_path / "out")
    assert erase(plan_erasure("some/faces", out, erase_first=True))["n_files_erased"] == 4 + 1
    assert contents(own) == {"refs/main": b"abc"}
    assert not list(own.rglob("person-*"))


def test_a_download_that_was_changed_since_stays_and_others_can_be_gone_on_with(cache, tmp_path):
    own = cache / "datasets--some--faces"
    out = revised_from(cache, tmp_path / "out")
    (own / "blobs/0").write_bytes(photo_png(9))
    erasure = plan_erasure("some/faces", out, erase_first=True)
    assert (len(erasure.files), erasure.changed) == (3 + 1, 1)
    (own / "blobs/3").unlink()
    (own / "blobs/3").mkdir()
    with pytest.raises(OutputError, match="were erased"):
        erase(erasure)
    (own / "blobs/3").rmdir()
    receipt = erase(plan_erasure("some/faces", out, erase_first=True))
    assert (receipt["n_files_changed_and_left"], receipt["n_files_missing"]) == (1, 4)
    assert set(contents(own)) == {"refs/main", "blobs/0"}
    assert (own / "snapshots/abc/person-0/0.png").read_bytes() == photo_png(9)


def test_a_file_that_repositories_share_stays_and_is_counted(cache, tmp_path):
    own, shared = cache / "datasets--some--faces", cache / "blobs/aa/0"
    shared.parent.mkdir(parents=True)
    (own / "blobs/0").rename(shared)
    (own / "blobs/0").symlink_to("../../blobs/aa/0")
    out = revised_from(cache, tmp_path / "out")
    erasure = plan_erasure("some/faces", out, erase_first=True)
    assert all(path.is_relative_to(own) for path in erasure.files if path.suffix != ".arrow")
    receipt = erase(erasure)
    assert (receipt["n_files_erased"], receipt["n_files_changed_and_left"]) == (3 + 1, 1)
    assert any("files that repositories share" in one for one in receipt["not_reached"])
    assert shared.read_bytes() == photo_png(0)


def test_a_download_that_came_to_its_end_meanwhile_does_not_stop_a_revision(cache, tmp_path):
    partial = cache / "datasets--some--faces/blobs/5.incomplete"
    partial.write_bytes(b"half")
    source = read_dataset("some/faces", revision="abc", load_from_hub=from_cache(cache))
    assert partial in source.files
    survey = survey_rows(source, subject_column="subject")
    partial.unlink()
    anonymizer = Anonymizer(load_backend("solid"), MarkDetector())
    rules, config = RowRules(preferences()), ReviseConfig()
    revise(source, survey, rules, tmp_path / "out", anonymizer=anonymizer, config=config)
    assert len(plan_erasure("some/faces", tmp_path / "out", erase_first=True).files) == 4 + 1


# --- Models of an audit ----------------------------------------------------------------------


def test_shadow_models_are_found_where_an_audit_noted_them_and_nothing_else_goes(done, tmp_path):
    data, out, model = done
    private, shadows = tmp_path / ".model.private", [tmp_path / name for name in ("a", "b")]
    for folder in (private, *shadows):
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    for folder in shadows:
        (folder / f"original-{'0' * 32}.safetensors").write_bytes(b"weights")
        (folder / f"control-{'a' * 32}.run.pt").write_bytes(b"half a run")
        (folder / "model.safetensors").write_bytes(b"another's")
        (private / SHADOWS).write_bytes(note_folder(private, SHADOWS, folder))
    erasure = plan_erasure(str(data), out, audited=model)
    assert len(erasure.shadows) == 4
    assert erase(erasure)["n_shadow_models_erased"] == 4
    for folder in shadows:
        assert names(folder) == ["model.safetensors", "notes.txt"]


def test_a_damaged_note_of_shadow_models_erases_nothing(done, tmp_path):
    data, out, model = done
    (tmp_path / ".model.private").mkdir()
    (tmp_path / ".model.private" / SHADOWS).write_text("[")
    with pytest.raises(InvalidArgumentError, match="must name the folders of shadow models"):
        plan_erasure(str(data), out, audited=model)


def test_features_of_pictures_are_erased_where_a_command_noted_them_and_nothing_else_goes(
    done, tmp_path
):
    data, out, model = done
    private, kept = tmp_path / ".out.private", [tmp_path / name for name in ("a", "b")]
    for folder in kept:
        folder.mkdir()
        (folder / FEATURES).write_bytes(b"features")
        (folder / "other.npz").write_bytes(b"mine")
        (private / FEATURES_NOTE).write_bytes(note_folder(private, FEATURES_NOTE, folder))
    (kept[1] / FEATURES).unlink()
    (kept[1] / FEATURES).symlink_to(kept[1] / "other.npz")
    erasure = plan_erasure(str(data), out, audited=model)
    assert erase(erasure)["n_files_of_features_erased"] == 1
    assert names(kept[0]) == ["other.npz"]
    assert names(kept[1]) == [FEATURES, "other.npz"]


def test_a_damaged_note_of_features_erases_nothing(done, tmp_path):
    data, out, model = done
    (tmp_path / ".out.private" / FEATURES_NOTE).write_text("[")
    with pytest.raises(InvalidArgumentError, match="must name the folders of features"):
        plan_erasure(str(data), out, audited=model)
