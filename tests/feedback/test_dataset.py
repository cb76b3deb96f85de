import csv
import io
import json
import stat

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from feedback import ExportError, parse_ratings
from feedback.columns import COLUMNS, features
from feedback.dataset.export import export_csv, export_jsonl, export_parquet, write_csv, write_jsonl
from tests.feedback.strategies import IDS, ratings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    datasets.disable_progress_bars()
    yield tmp_path_factory.mktemp("exports")
    datasets.enable_progress_bars()


def load(path, cache):
    return datasets.load_dataset(
        "parquet", data_files=str(path), split="train", features=features(), cache_dir=str(cache)
    )


# Without shrinking: one example takes a fifth of a second.
@settings(
    max_examples=12,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(ratings(), min_size=1, max_size=12), IDS)
def test_parquet_read_with_datasets_gives_the_same_ratings(folder, rows, name):
    path = folder / f"{name}.parquet"
    assert export_parquet(rows, path) == len(rows)
    dataset = load(path, folder / "cache")
    assert dataset.features == features()
    assert parse_ratings(dataset) == rows


@given(st.lists(ratings(), max_size=5))
def test_json_lines_give_the_same_ratings(rows):
    file = io.StringIO()
    assert write_jsonl(rows, file) == len(rows)
    assert parse_ratings(json.loads(line) for line in file.getvalue().splitlines()) == rows


@given(st.lists(ratings(), max_size=5))
def test_csv_gives_the_same_ratings(rows):
    file = io.StringIO(newline="")
    assert write_csv(rows, file) == len(rows)
    header, *lines = csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True)
    assert header == [column.name for column in COLUMNS]
    assert file.getvalue().count("\r\n") == len(rows) + 1
    assert parse_ratings(_typed(dict(zip(header, line, strict=True))) for line in lines) == rows


def _typed(texts):
    """Return a CSV line's values as JSON has them."""
    kinds = {"bool": lambda text: {"true": True, "false": False}[text], "float32": float}
    kinds |= dict.fromkeys(("int8", "int16", "int32"), int)
    return {
        c.name: kinds.get(c.dtype, str)(texts[c.name]) if texts[c.name] else None for c in COLUMNS
    }


def test_the_file_itself_says_what_its_columns_are(world, folder):
    path = folder / "typed.parquet"
    export_parquet([world.rating()], path)
    dataset = datasets.Dataset.from_parquet(str(path), cache_dir=str(folder / "cache"))
    assert dataset.features == features()
    assert pq.read_schema(path) == features().arrow_schema
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_an_empty_export_keeps_the_columns(folder):
    path = folder / "empty.parquet"
    assert export_parquet([], path) == 0
    assert pq.read_table(path).schema == features().arrow_schema


def test_more_rows_than_a_group_are_all_written(world, folder):
    path = folder / "many.parquet"
    row = world.rating()
    assert export_parquet((row for _ in range(10_001)), path) == 10_001
    assert [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in (0, 1)] == [10_000, 1]


@pytest.mark.parametrize("export", [export_jsonl, export_parquet, export_csv])
def test_an_export_is_the_owner_s_only_and_replaces_the_last_one(world, tmp_path, export):
    path = tmp_path / "ratings.out"
    path.write_text("old")
    assert export([world.rating()], path) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() != b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("export", [export_jsonl, export_parquet, export_csv])
def test_an_export_that_fails_halfway_leaves_the_last_one(world, tmp_path, export):
    path = tmp_path / "ratings.out"
    path.write_text("old")

    def failing():
        yield world.rating()
        raise KeyError

    with pytest.raises(KeyError):
        export(failing(), path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("export", [export_jsonl, export_parquet, export_csv])
def test_a_place_that_cannot_be_written_is_named(world, tmp_path, export):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "ratings.out", tmp_path / "folder"):
        with pytest.raises(ExportError, match="must be a file in a folder that can be written"):
            export([world.rating()], path)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
