import hashlib
import inspect
import sys
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import BucketBatchError, BucketNotFoundError, HfHubHTTPError

from feedback.errors import (
    ForeignShardError,
    RemoteBusyError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.remote.base import Purge, Snapshot
from feedback.remote.bucket_remote import BucketRemote

ANNA = "hf_anna"
BUCKET = "anna/bucket"


def answer(kind, status):
    request = httpx2.Request("POST", "http://127.0.0.1/api/buckets/anna/bucket")
    return kind("refused", response=httpx2.Response(status, request=request))


class FakeBuckets:
    """Buckets in memory behind the Hub client's methods; takes only arguments that they take."""

    def __init__(self):
        self.buckets = {}
        self.is_private = {}
        self.moved = {}
        self.calls = []
        self.failures = {}
        self.fail_after = {}

    def __getattribute__(self, name):
        if not hasattr(HfApi, name) or name.startswith("_"):
            return object.__getattribute__(self, name)
        act = object.__getattribute__(self, name)

        def checked(*args, **kwargs):
            bound = inspect.signature(getattr(HfApi, name)).bind(self, *args, **kwargs)
            self.calls.append(name)
            if error := self.failures.pop(name, None):
                raise error
            given = dict(bound.arguments)
            del given["self"]
            result = act(**given)
            if error := self.fail_after.pop(name, None):
                raise error
            return result

        return checked

    def _files(self, bucket_id):
        if bucket_id not in self.buckets:
            raise answer(BucketNotFoundError, 404)
        return self.buckets[bucket_id]

    def bucket_info(self, bucket_id):
        self._files(bucket_id)
        name = self.moved.get(bucket_id, bucket_id)
        return SimpleNamespace(id=name, private=self.is_private[bucket_id])

    def create_bucket(self, bucket_id, *, private, exist_ok):
        assert exist_ok
        if not bucket_id.startswith("anna/"):
            raise answer(HfHubHTTPError, 403)
        self.buckets.setdefault(bucket_id, {})
        self.is_private.setdefault(bucket_id, private)

    def list_bucket_tree(self, bucket_id, prefix=None, *, recursive):
        assert recursive
        for path, data in self._files(bucket_id).items():
            if path.startswith(prefix or ""):
                digest = hashlib.sha256(data).hexdigest()
                yield SimpleNamespace(type="file", path=path, size=len(data), xet_hash=digest)
        yield SimpleNamespace(type="directory", path="data")

    def batch_bucket_files(self, bucket_id, *, add, delete):
        files = self._files(bucket_id)
        for data, path in add:
            assert isinstance(data, bytes)
            files[path] = data
        for path in delete:
            del files[path]

    def download_bucket_files(self, bucket_id, files, *, raise_on_missing_files):
        assert raise_on_missing_files
        ((entry, destination),) = files
        destination.write_bytes(self._files(bucket_id)[entry.path])


@pytest.fixture
def api():
    return FakeBuckets()


@pytest.fixture
def remote(api):
    return BucketRemote(BUCKET, token=ANNA, api=api)


def test_the_fake_refuses_what_the_real_client_does(api):
    with pytest.raises(TypeError):
        api.bucket_info(BUCKET, is_private=True)
    with pytest.raises(TypeError):
        api.batch_bucket_files(BUCKET, [], remove=[])


def test_a_bucket_that_was_never_seen_is_made_private(api, remote):
    assert remote.snapshot() == Snapshot("", {})
    assert api.is_private == {BUCKET: True}


def test_what_is_committed_is_listed_and_read_back(remote):
    files = {"data/a.parquet": b"rows", "tombstones/a.json": b"{}"}
    snapshot = remote.commit(remote.snapshot(), add=files, message="m")
    assert remote.snapshot() == snapshot
    assert {path: remote.read(snapshot, path) for path in files} == files
    rest = remote.commit(
        snapshot, add={"data/b.parquet": b"b"}, delete=["data/a.parquet"], message="m"
    )
    assert rest.files.keys() == {"data/b.parquet", "tombstones/a.json"}


def test_it_says_that_it_does_not_swap(remote):
    assert remote.keeps
    assert not remote.swaps


def test_a_change_that_can_be_seen_is_stale_and_nothing_is_written(api, remote):
    mine = remote.snapshot()
    BucketRemote(BUCKET, token=ANNA, api=api).commit(mine, add={"b": b"b"}, message="m")
    with pytest.raises(StaleSnapshotError, match="look again"):
        remote.commit(mine, add={"a": b"a"}, message="m")
    assert api.buckets[BUCKET] == {"b": b"b"}


def test_reading_what_has_changed_since_is_stale(api, remote):
    snapshot = remote.commit(remote.snapshot(), add={"a": b"a"}, message="m")
    with pytest.raises(StaleSnapshotError):
        remote.read(snapshot, "b")
    api.buckets[BUCKET]["a"] = b"other"
    with pytest.raises(StaleSnapshotError):
        remote.read(snapshot, "a")


def test_a_file_too_large_for_memory_is_left(remote, monkeypatch):
    snapshot = remote.commit(remote.snapshot(), add={"a": b"abc"}, message="m")
    monkeypatch.setattr("feedback.remote.bucket_remote.MAX_FILE_BYTES", 2)
    with pytest.raises(ForeignShardError, match="a must have at most"):
        remote.read(snapshot, "a")


def test_reading_leaves_no_copy_on_this_machine(remote, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    snapshot = remote.commit(remote.snapshot(), add={"a": b"abc"}, message="m")
    assert remote.read(snapshot, "a") == b"abc"
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_was_there_before_is_never_made_again(api, remote):
    with pytest.raises(RemoteRefusedError, match="must exist"):
        BucketRemote(BUCKET, token=ANNA, api=api, is_known=True).snapshot()
    remote.snapshot()
    del api.buckets[BUCKET]
    with pytest.raises(RemoteRefusedError, match="must exist"):
        remote.snapshot()
    assert api.calls.count("create_bucket") == 1


def test_public_renamed_and_foreign_buckets_are_refused(api, remote):
    remote.snapshot()
    api.is_private[BUCKET] = False
    with pytest.raises(RemoteRefusedError, match="must be private"):
        remote.snapshot()
    api.moved[BUCKET] = "anna/elsewhere"
    with pytest.raises(RemoteRefusedError, match="renamed to anna/elsewhere"):
        remote.snapshot()
    with pytest.raises(RemoteRefusedError, match="right to write"):
        BucketRemote("ben/bucket", token=ANNA, api=api).snapshot()
    with pytest.raises(RemoteRefusedError, match="right to write"):
        BucketRemote(BUCKET, token=None, api=api).snapshot()


def test_a_bucket_that_became_public_since_it_was_looked_at_gets_nothing(api, remote):
    snapshot = remote.snapshot()
    api.is_private[BUCKET] = False
    with pytest.raises(RemoteRefusedError, match="must be private"):
        remote.commit(snapshot, add={"a": b"abc"}, message="m")
    assert api.buckets[BUCKET] == {}


def test_a_client_without_buckets_is_named_with_the_way_out(monkeypatch):
    with pytest.raises(RemoteRefusedError, match="without create_bucket, list_bucket_tree"):
        BucketRemote(BUCKET, token=ANNA, api=SimpleNamespace(bucket_info=None)).snapshot()
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    with pytest.raises(RemoteRefusedError, match=r"without hf_xet\. Install .* name a dataset"):
        BucketRemote(BUCKET, token=ANNA).snapshot()


def test_a_batch_that_was_done_in_part_may_have_been_made(api, remote):
    snapshot = remote.snapshot()
    api.fail_after["batch_bucket_files"] = answer(BucketBatchError, 200)
    with pytest.raises(UncertainCommitError, match="look again"):
        remote.commit(snapshot, add={"a": b"a"}, message="m")
    assert "a" in remote.snapshot().files


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (answer(HfHubHTTPError, 503), RemoteBusyError),
        (answer(HfHubHTTPError, 403), RemoteRefusedError),
        (ConnectionResetError(), RemoteBusyError),
        (RuntimeError("xet"), RemoteBusyError),
    ],
)
def test_what_the_client_raises_is_one_of_our_errors(api, remote, error, ours):
    snapshot = remote.snapshot()
    for method in ("bucket_info", "list_bucket_tree", "batch_bucket_files"):
        api.failures[method] = error
        with pytest.raises(ours):
            remote.commit(remote.snapshot(), add={"a": b"a"}, message="m")
    assert remote.snapshot() == snapshot


def test_a_change_that_cannot_be_seen_afterwards_may_have_been_made(remote, monkeypatch):
    snapshot = remote.snapshot()
    monkeypatch.setattr(FakeBuckets, "batch_bucket_files", lambda *_, **__: None)
    with pytest.raises(UncertainCommitError, match="another state"):
        remote.commit(snapshot, add={"a": b"a"}, message="m")

    def lose_sight(self, *_, **__):
        self.failures["list_bucket_tree"] = ConnectionResetError()

    monkeypatch.setattr(FakeBuckets, "batch_bucket_files", lose_sight)
    with pytest.raises(UncertainCommitError, match="no view"):
        remote.commit(snapshot, add={"a": b"a"}, message="m")


def test_a_purge_looks_that_what_was_deleted_is_gone(api, remote):
    snapshot = remote.commit(remote.snapshot(), add={"a": b"a", "b": b"b"}, message="m")
    rest = remote.commit(snapshot, add={}, delete=["a"], message="m")
    api.buckets[BUCKET]["a"] = b"a"
    with pytest.raises(RemoteRefusedError, match="1 files still there"):
        remote.purge(rest)
    del api.buckets[BUCKET]["a"]
    assert remote.purge(rest) == Purge(revisions=0, blobs=1, refs=0)
    assert remote.purge(rest) == Purge(0, 0, 0)
    api.buckets[BUCKET]["c"] = b"c"
    with pytest.raises(StaleSnapshotError):
        remote.purge(rest)


def test_the_real_client_asks_the_hub_and_a_hub_without_buckets_is_busy(hub):
    remote = BucketRemote(BUCKET, token=ANNA, endpoint=hub.endpoint)
    with pytest.raises(RemoteBusyError, match="status 501"):
        remote.snapshot()
    assert hub.log[0].path == f"/api/buckets/{BUCKET}"
