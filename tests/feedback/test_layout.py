import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.errors import ForeignShardError
from feedback.store.tombstones import Graves, Tombstone, digest_of, to_ms
from feedback.sync import layout

NOW = datetime(2026, 11, 20, 12, 0, 0, 123000, tzinfo=UTC)
times = st.datetimes(
    min_value=NOW.replace(1970, tzinfo=None),
    max_value=NOW.replace(5000, tzinfo=None),
    timezones=st.just(UTC),
)


@given(times)
def test_a_name_says_when_it_was_made(time):
    path = f"tombstones/{'0' * 12}-{layout.new_ulid(time)}.json"
    assert to_ms(layout.made_at(path)) == to_ms(time)


@given(times, times)
def test_names_sort_by_time(one, other):
    if to_ms(one) < to_ms(other):
        assert layout.new_ulid(one) < layout.new_ulid(other)


def test_names_of_one_moment_differ():
    assert len({layout.new_ulid(NOW) for _ in range(100)}) == 100


@pytest.mark.parametrize("path", ["x.json", "lease.json", f"{'U' * 26}.json", f"{'Z' * 26}.json"])
def test_other_names_say_no_time(path):
    assert layout.made_at(path) is None


def test_files_are_told_apart_and_ordered_by_time():
    later = NOW + timedelta(seconds=1)
    shards = [layout.shard_path(s, "2026-11", t) for s, t in (("b", NOW), ("a", later))]
    tombstones = [layout.tombstones_path(s, t) for s, t in (("b", NOW), ("a", later))]
    lists = [layout.compaction_path(t) for t in (NOW, later)]
    foreign = ["data/x.parquet", "data/ratings/x.csv", "tombstones/x.txt", "README.md"]
    paths = sorted([*shards, *tombstones, *lists, *foreign])
    assert layout.shards_in(paths) == shards
    assert set(layout.parquets_in(paths)) == {*shards, "data/x.parquet"}
    elsewhere = ["data/ratings/x.parquet", "data/ratings/old/2/x.parquet"]
    assert set(layout.shards_in(elsewhere)) == set(elsewhere)
    assert layout.tombstone_files_in(paths) == tombstones
    assert layout.compactions_in(paths) == lists
    assert layout.folder_of(shards[0]) == "data/ratings/ym=2026-11"
    assert layout.folder_of("README.md") == ""


tombstones = st.builds(
    Tombstone,
    st.sampled_from(["rater", "rating"]),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(0, (1 << 47) - 1),
)


@given(st.lists(tombstones))
def test_tombstones_are_read_as_written(written):
    assert layout.read_tombstones(layout.tombstones_bytes(written), path="t") == written


@pytest.mark.parametrize("until", ["1e999", "9" * 12, "9" * 18, "9" * 400, "NaN"])
def test_a_lease_without_a_time_is_named(until):
    data = f'{{"schema_version": 1, "holder": "x", "until": {until}}}'.encode()
    with contextlib.suppress(ForeignShardError):
        assert layout.read_lease(data)[1].year < 10_000


def test_no_two_files_of_one_content_have_the_same_bytes():
    assert layout.tombstones_bytes([]) != layout.tombstones_bytes([])
    assert layout.compaction_bytes([], {}) != layout.compaction_bytes([], {})


def test_lists_and_leases_are_read_as_written():
    written = layout.compaction_bytes(["a", "b"], {"c": 7})
    assert layout.read_compaction(written, path="c") == (["a", "b"], {"c": 7})
    assert layout.read_lease(layout.lease_bytes("me", NOW)) == ("me", NOW)


GOOD = b'{"kind": "rater", "digest": "%s", "requested": 1}' % (b"a" * 64)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"schema_version": 2, "tombstones": []}',
        b'{"schema_version": 1}',
        b"[" * 100_000,
        b'{"schema_version": 1, "tombstones": [%s]}'
        % GOOD.replace(b'"%s"' % (b"a" * 64), b"1" * 64),
        b'{"schema_version": 1, "tombstones": [{}]}',
        b'{"schema_version": 1, "tombstones": [%s]}' % GOOD.replace(b"rater", b"all"),
        b'{"schema_version": 1, "tombstones": [%s]}' % GOOD.replace(b"a" * 64, b"a"),
        b'{"schema_version": 1, "tombstones": [%s]}' % GOOD.replace(b": 1}", b": -1}"),
        b'{"schema_version": 1, "tombstones": [%s]}' % GOOD.replace(b": 1}", b": 1.5}"),
        b'{"schema_version": 1, "tombstones": [%s]}' % GOOD.replace(b": 1}", b": 1e999}"),
    ],
)
def test_what_is_no_file_of_tombstones_is_named(data):
    with pytest.raises(ForeignShardError, match="t must be a file this program wrote") as caught:
        layout.read_tombstones(data, path="t")
    assert caught.value.path == "t"


def test_graves_hold_a_rater_s_rows_until_the_request_and_a_rating_for_good():
    graves = Graves(
        [
            Tombstone("rater", digest_of("r"), to_ms(NOW)),
            Tombstone("rater", digest_of("r"), 5),
            Tombstone("rating", digest_of("x"), 0),
        ]
    )
    later = NOW + timedelta(milliseconds=1)
    assert len(graves) == 2
    asked = [("r", "y", NOW), ("r", "y", later), ("s", "x", later), ("s", "y", NOW)]
    assert [graves.has_row(*row) for row in asked] == [True, False, True, False]
    assert graves.buried == {digest_of("r"): 1, digest_of("s"): 1}
