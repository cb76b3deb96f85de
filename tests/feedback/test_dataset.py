import io
import json
import stat
from datetime import UTC

import datasets
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from feedback import ExportError, Rating, parse_ratings
from feedback.columns import CLIENTS, CONSENT_SCOPES, SOURCES, features, whole_ms
from feedback.dataset import export_jsonl, export_parquet, write_jsonl

IDS = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
WORDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._/+-]{0,20}\Z")
QUANTITIES = st.none() | st.floats(0, 3.4e38) | st.floats(0, 1000)


@st.composite
def ratings(draw):
    kind = draw(st.sampled_from(["jar5", "best_of_n", "likert5", "slider"]))
    n_shown = draw(st.integers(1, 16))
    highest = {"jar5": 4, "best_of_n": 1, "likert5": 4, "slider": 0}[kind]
    ids = {n: draw(IDS) for n in ("rating_id", "rater_id", "session_id", "page_id", "photo_id")}
    words = {
        n: draw(WORDS)
        for n in ("method", "model_revision", "policy", "consent_version", "app_version")
    }
    return Rating(
        **ids,
        **words,
        rater_epoch=draw(st.integers(1, 32767)),
        position=draw(st.integers(0, n_shown - 1)),
        n_shown=n_shown,
        strength=draw(st.floats(0, 1)),
        epsilon=draw(QUANTITIES),
        quality=draw(QUANTITIES),
        response_type=kind,
        response=None if kind == "slider" else draw(st.integers(0, highest)),
        response_value=draw(st.floats(0, 1)) if kind == "slider" else None,
        is_catch=draw(st.booleans()),
        is_repeat=draw(st.booleans()),
        propensity=draw(st.floats(1e-6, 1)),
        response_ms=draw(st.integers(0, 864_000)) * 100,
        client=draw(st.sampled_from(CLIENTS)),
        source=draw(st.sampled_from(SOURCES)),
        consent_scope=draw(st.sampled_from(CONSENT_SCOPES)),
        created_at=whole_ms(draw(st.datetimes(timezones=st.just(UTC)))),
    )


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


@pytest.mark.parametrize("export", [export_jsonl, export_parquet])
def test_an_export_is_the_owner_s_only_and_replaces_the_last_one(world, tmp_path, export):
    path = tmp_path / "ratings.out"
    path.write_text("old")
    assert export([world.rating()], path) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() != b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("export", [export_jsonl, export_parquet])
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


@pytest.mark.parametrize("export", [export_jsonl, export_parquet])
def test_a_place_that_cannot_be_written_is_named(world, tmp_path, export):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "ratings.out", tmp_path / "folder"):
        with pytest.raises(ExportError, match="must be a file in a folder that can be written"):
            export([world.rating()], path)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
