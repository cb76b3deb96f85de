import inspect
import time

import pytest

from feedback.errors import InvalidRatingError, StaleSnapshotError
from feedback.remote.base import NullRemote, Purge, Remote, Snapshot, seconds_left, within
from feedback.remote.bucket_remote import BucketRemote
from feedback.remote.dataset_remote import DatasetRemote
from feedback.remote.opening import open_remote

ANNA = "hf_anna"
METHODS = ("snapshot", "read", "commit", "purge")


@pytest.mark.parametrize("kind", [NullRemote, DatasetRemote, BucketRemote])
@pytest.mark.parametrize("method", METHODS)
def test_every_remote_has_the_protocol_s_methods_as_they_stand_there(kind, method):
    assert inspect.signature(getattr(kind, method)) == inspect.signature(getattr(Remote, method))


def test_the_null_remote_takes_everything_and_keeps_nothing():
    remote = NullRemote()
    snapshot = remote.snapshot()
    assert not remote.keeps
    assert snapshot == Snapshot("", {})
    assert remote.commit(snapshot, add={"a": b"a"}, delete=["b"], message="m") == snapshot
    assert remote.snapshot() == snapshot
    assert remote.purge(snapshot) == Purge(0, 0, 0)
    with pytest.raises(StaleSnapshotError, match="got none"):
        remote.read(snapshot, "a")


def test_a_narrower_time_counts_and_ends_with_its_block():
    assert seconds_left(60) == 60
    with within(50):
        assert 49 < seconds_left(60) <= 50
        assert seconds_left(5) == 5
        with within(100):
            assert seconds_left(60) <= 50
        with within(1):
            assert seconds_left(60) <= 1
        assert seconds_left(60) > 49
    assert seconds_left(60) == 60


def test_time_that_is_over_is_not_left():
    start = time.monotonic()
    with within(-1):
        assert seconds_left(60) < 0
    assert time.monotonic() - start < 1


def test_the_remote_that_is_named_is_opened_and_none_without_a_name():
    dataset = open_remote(dataset="anna/ratings", token=ANNA)
    bucket = open_remote(bucket="anna/bucket", token=ANNA)
    assert (dataset.name, dataset.keeps, dataset.swaps) == (
        "the private dataset anna/ratings",
        True,
        True,
    )
    assert (bucket.name, bucket.keeps, bucket.swaps) == (
        "the private bucket anna/bucket",
        True,
        False,
    )
    assert isinstance(open_remote(token=ANNA), NullRemote)
    assert isinstance(open_remote(dataset="", bucket=""), NullRemote)


@pytest.mark.parametrize(
    "names",
    [
        {"dataset": "ratings"},
        {"dataset": "a/b/c"},
        {"dataset": "anna/../ratings"},
        {"dataset": "anna/my--ratings"},
        {"dataset": "anna/a..b"},
        {"dataset": "anna/ratings.git"},
        {"dataset": "anna/ratings-"},
        {"dataset": "anna/ratings."},
        {"bucket": "https://x/y"},
        {"bucket": "anna/ "},
    ],
)
def test_a_name_of_another_form_is_refused_by_argument(names):
    (argument,) = names
    with pytest.raises(InvalidRatingError, match=f"`{argument}` must be NAME/REPO"):
        open_remote(**names, token=ANNA)


def test_two_remotes_at_once_are_refused():
    with pytest.raises(InvalidRatingError, match="must not both be named"):
        open_remote(dataset="a/b", bucket="a/c", token=ANNA)
