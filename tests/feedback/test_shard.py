import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from feedback import InvalidRatingError, parse_ratings
from feedback.columns import COLUMNS, features
from feedback.dataset import shard as shards
from feedback.dataset.shard import (
    Cut,
    cut_rows,
    merge_shards,
    read_shard,
    same_rows,
    shard_bytes,
    table_of,
)
from feedback.errors import ForeignShardError
from tests.feedback.strategies import ratings

PATH = "data/ratings/ym=2026-11/a.parquet"


@pytest.fixture
def old_shard(pytestconfig):
    """A shard written before `attributes` was a column."""
    return (pytestconfig.rootpath / "tests/golden/ratings-v1.parquet").read_bytes()


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def changed(table, name, values):
    """Return the table with other values in a column of the same type."""
    place = table.column_names.index(name)
    field = table.schema.field(name)
    return table.set_column(place, field, pa.array(values, field.type))


@settings(max_examples=50)
@given(st.lists(ratings(), max_size=4))
def test_a_shard_gives_the_ratings_it_was_made_of_and_never_the_same_bytes(rows):
    data = shard_bytes(rows)
    again = shard_bytes(iter(rows))
    assert read_shard(data, path=PATH) == read_shard(again, path=PATH) == rows
    assert table_in(data).equals(table_in(again), check_metadata=True)
    assert again != data


def test_the_same_rows_are_written_anew_with_their_schema_and_other_bytes(world, old_shard):
    for data, version in ((shard_bytes([world.rating()]), 2), (old_shard, 1)):
        again = same_rows(data)
        assert again != same_rows(again) != data
        assert table_in(again).equals(table_in(data), check_metadata=True)
        assert table_in(again).schema.equals(features(version).arrow_schema, check_metadata=True)
        assert read_shard(again, path=PATH) == read_shard(data, path=PATH)


def table_in(data):
    """Return the table of a shard without what tells two uploads of it apart."""
    table = pq.read_table(pa.BufferReader(data))
    about = {key: value for key, value in table.schema.metadata.items() if key != b"upload"}
    return table.replace_schema_metadata(about)


def test_a_shard_is_zstd_parquet_with_the_features_and_a_page_index(world):
    data = shard_bytes([world.rating()])
    file = pq.ParquetFile(pa.BufferReader(data))
    assert table_in(data).schema.equals(features().arrow_schema, check_metadata=True)
    column = file.metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert column.has_offset_index


def test_a_shard_of_the_first_schema_is_read(old_shard, pytestconfig):
    lines = (pytestconfig.rootpath / "tests/golden/ratings-v1.jsonl").read_text().splitlines()
    rows = read_shard(old_shard, path=PATH)
    assert rows == parse_ratings(json.loads(line) for line in lines)
    assert {row.schema_version for row in rows} == {1}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _data: b"",
        lambda _data: b"PAR1",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-9] + b"\0" * 9,
        lambda data: data[:40] + bytes(200) + data[240:],
        lambda _data: b"rating_id,strength\r\n",
    ],
)
def test_a_damaged_shard_is_refused_naming_the_file_and_the_way_out(world, spoil):
    with pytest.raises(ForeignShardError) as caught:
        read_shard(spoil(shard_bytes([world.rating()])), path=PATH)
    assert caught.value.path == PATH
    assert str(caught.value).startswith(f"{PATH} must be a shard of ratings written by this")
    assert "move it out" in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda _table: pa.table({"rating_id": ["0" * 32]}),
        lambda table: table.drop_columns(["rater_id"]),
        lambda table: table.select([*table.column_names[1:], "rating_id"]),
        lambda table: table.replace_schema_metadata(None),
        lambda table: table.cast(table.schema.set(11, pa.field("strength", pa.float64()))),
        lambda table: table.rename_columns([*table.column_names[:-1], "mood"]),
    ],
)
def test_a_table_of_other_columns_is_refused(world, make):
    with pytest.raises(ForeignShardError, match="got other columns"):
        read_shard(parquet(make(table_of([world.rating()]))), path=PATH)


def test_labels_in_another_order_are_another_program_s(world):
    table = table_of([world.rating()])
    metadata = {
        key: value.replace(b'"jar5", "best_of_n"', b'"best_of_n", "jar5"')
        for key, value in table.schema.metadata.items()
    }
    assert metadata != table.schema.metadata
    with pytest.raises(ForeignShardError, match="got other columns"):
        read_shard(parquet(table.replace_schema_metadata(metadata)), path=PATH)


def test_a_shard_of_a_newer_version_says_that_an_update_helps(world):
    from datasets import Features, Value

    newer = Features(dict(features()) | {"mood": Value("string")})
    table = table_of([world.rating()]).append_column("mood", pa.array(["calm"]))
    with pytest.raises(ForeignShardError, match="newer version of this program; update it"):
        read_shard(parquet(table.cast(newer.arrow_schema)), path=PATH)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rating_id", "A" * 32),
        ("rating_id", None),
        ("schema_version", 3),
        ("schema_version", 0),
        ("rater_epoch", 0),
        ("position", 4),
        ("method", "Ada Lovelace"),
        ("strength", 1.5),
        ("strength", float("nan")),
        ("epsilon", float("inf")),
        ("response_type", 9),
        ("response_type", None),
        ("response", None),
        ("response_value", 0.5),
        ("is_catch", None),
        ("propensity", 0.0),
        ("response_ms", 50),
        ("consent_scope", -2),
        ("created_at", None),
        ("created_at", 2**62),
        ("attributes", "keep=b,a"),
    ],
)
def test_one_bad_value_refuses_the_whole_shard_and_is_not_repeated(world, name, value):
    table = table_of([world.rating(), world.rating()])
    values = [table[name][0].as_py(), value]
    with pytest.raises(ForeignShardError) as caught:
        read_shard(parquet(changed(table, name, values)), path=PATH)
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize(
    "metadata", [b"", b"[]", b"{}", b'{"info": 5}', b'{"info": {"features": []}}', b"[" * 99_999]
)
def test_metadata_of_another_form_is_another_program_s(world, metadata):
    table = table_of([world.rating()]).replace_schema_metadata({b"huggingface": metadata})
    with pytest.raises(ForeignShardError, match="got other columns"):
        read_shard(parquet(table), path=PATH)


def test_a_text_that_is_no_text_is_refused(world):
    table = table_of([world.rating()])
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    place = table.column_names.index("method")
    data = parquet(table.set_column(place, table.schema.field("method"), broken))
    with pytest.raises(ForeignShardError, match="it cannot be read"):
        read_shard(data, path=PATH)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 13_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_shard_with_altered_bytes_is_refused_or_holds_valid_ratings(old_shard, changes):
    altered = bytearray(old_shard)
    for place, value in changes:
        altered[place] = value
    try:
        rows = read_shard(bytes(altered), path=PATH)
    except ForeignShardError:
        return
    assert parse_ratings(row.as_record() for row in rows) == rows


def test_rows_newer_than_their_file_s_columns_are_refused(old_shard):
    table = pq.read_table(pa.BufferReader(old_shard))
    with pytest.raises(ForeignShardError, match="rows newer than its columns of schema 1"):
        read_shard(parquet(changed(table, "schema_version", [1, 2, 1])), path=PATH)


CELLS = st.one_of(
    st.none(),
    st.integers(-3, 20),
    st.floats(width=32),
    st.booleans(),
    st.sampled_from(["", "0" * 32, "none", "keep=a", "two words", "web"]),
    st.datetimes(timezones=st.just(UTC)),
)


# The two readers share the rules and not the way through them.
@settings(
    max_examples=50,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.lists(ratings(), min_size=2, max_size=3),
    st.lists(st.tuples(st.sampled_from([c.name for c in COLUMNS]), CELLS), max_size=2),
)
def test_a_shard_is_read_exactly_if_each_of_its_rows_is_valid(rows, mutations):
    table = table_of(rows)
    for name, cell in mutations:
        try:
            table = changed(table, name, [*table[name].to_pylist()[:-1], cell])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    try:
        expected = parse_ratings(table.to_pylist())
    # A time that `datetime` has no year for cannot even be looked at.
    except (InvalidRatingError, OverflowError):
        with pytest.raises(ForeignShardError):
            read_shard(parquet(table), path=PATH)
    else:
        assert read_shard(parquet(table), path=PATH) == expected


def test_more_rows_than_fit_are_refused_unread(world, monkeypatch):
    monkeypatch.setattr(shards, "MAX_ROWS", 1)
    with pytest.raises(ForeignShardError, match="more than 1 rows"):
        read_shard(shard_bytes([world.rating(), world.rating()]), path=PATH)


def test_a_long_text_that_each_row_points_to_is_held_once(world):
    table = table_of([world.rating()]).take(pa.array([0] * 60_000))
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), ["x" * 20_000])
    place = table.column_names.index("method")
    # Written coded, read as text by whoever does not ask for codes: 1.2 GB.
    coded = table.set_column(place, "method", bomb)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, coded.schema, store_schema=False) as writer:
        writer.add_key_value_metadata(
            {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        )
        writer.write_table(coded)
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counted)
    try:
        with pytest.raises(ForeignShardError, match="`method`"):
            read_shard(bytes(sink.getvalue()), path=PATH)
    finally:
        pa.set_memory_pool(usual)
    assert counted.max_memory() < 100 << 20


def test_cut_rows_go_and_the_others_keep_every_value(world, old_shard):
    rows = [world.rating() for _ in range(4)]
    asked = []

    def is_cut(rater_id, rating_id, created_at):
        asked.append((rater_id, rating_id, created_at))
        return rating_id == rows[1].rating_id

    cut = cut_rows(shard_bytes(rows), is_cut, path=PATH)
    assert asked == [(r.rater_id, r.rating_id, r.created_at) for r in rows]
    assert (cut.n_cut, cut.n_kept) == (1, 3)
    assert read_shard(cut.data, path=PATH) == [rows[0], *rows[2:]]
    assert rows[1].rating_id.encode() not in cut.data
    old = cut_rows(old_shard, lambda _rater, rating, _at: rating != first_id(old_shard), path=PATH)
    assert (old.n_cut, old.n_kept) == (2, 1)
    assert table_in(old.data).schema.equals(features(1).arrow_schema, check_metadata=True)


def first_id(data):
    return read_shard(data, path=PATH)[0].rating_id


def test_a_shard_of_which_nothing_or_all_is_cut(world):
    data = shard_bytes([world.rating(), world.rating()])
    assert cut_rows(data, lambda *_: False, path=PATH) == Cut(data, 0, 2)
    assert cut_rows(data, lambda *_: True, path=PATH) == Cut(None, 2, 0)
    with pytest.raises(ForeignShardError):
        cut_rows(data[:-1], lambda *_: True, path=PATH)


def test_merged_shards_are_one_of_the_newest_schema_with_the_first_of_each_rating(world, old_shard):
    rows = [world.rating(attributes="none") for _ in range(3)]
    again = world.rating(rating_id=rows[0].rating_id)
    old = read_shard(old_shard, path=PATH)
    merged = merge_shards(
        [("a", shard_bytes(rows[:2])), ("b", old_shard), ("c", shard_bytes([again, rows[2]]))]
    )
    assert (merged.n_cut, merged.n_kept) == (1, 6)
    assert table_in(merged.data).schema.equals(features().arrow_schema, check_metadata=True)
    assert read_shard(merged.data, path=PATH) == [*rows[:2], *old, rows[2]]


def test_merging_cuts_rows_and_names_the_shard_that_is_none(world):
    rows = [world.rating(), world.rating()]
    data = shard_bytes(rows)
    merged = merge_shards([("a", data)], is_cut=lambda _, rating, __: rating == rows[0].rating_id)
    assert (merged.n_cut, merged.n_kept) == (1, 1)
    assert read_shard(merged.data, path=PATH) == rows[1:]
    assert merge_shards([("a", data)], is_cut=lambda *_: True) == Cut(None, 2, 0)
    assert merge_shards([]) == Cut(None, 0, 0)
    with pytest.raises(ForeignShardError) as caught:
        merge_shards([("a", data), ("b", b"?")])
    assert caught.value.path == "b"


def test_numbers_of_a_shard_keep_six_digits_as_everywhere(world):
    table = changed(table_of([world.rating()]), "strength", [np.float32(0.123456789)])
    (rating,) = read_shard(parquet(table), path=PATH)
    assert rating.strength == 0.123457
    assert rating.created_at == datetime(2026, 11, 20, 12, 0, 0, 123000, tzinfo=UTC)
    assert rating.created_at.tzinfo is UTC
