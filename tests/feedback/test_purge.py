import threading

import pytest
from huggingface_hub import HfApi

from feedback.errors import RemoteBusyError, RemoteError, RemoteRefusedError, StaleSnapshotError
from feedback.remote import purge as purging
from feedback.remote.base import Purge, Snapshot
from feedback.remote.dataset_remote import DatasetRemote

ANNA = "hf_anna"
REPO = "anna/ratings"
SHARD = "data/a.parquet"
# Not compressed, so that it can be searched for.
SECRET = b"PAR1 the rows of someone who wants to be forgotten"


@pytest.fixture
def remote(hub):
    return DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)


@pytest.fixture
def erased(hub, remote):
    """The newest snapshot of a repository whose older commits and refs hold the secret."""
    first = remote.commit(remote.snapshot(), add={SHARD: SECRET, "a.json": SECRET}, message="m")
    api = HfApi(endpoint=hub.endpoint, token=ANNA)
    api.create_branch(REPO, branch="copy", repo_type="dataset")
    api.create_tag(REPO, tag="v1", repo_type="dataset")
    hub.repo(REPO).add_pull_request({"b.json": SECRET})
    # Uploaded by a commit that never came.
    hub.repo(REPO).store(SECRET + b" again")
    second = remote.commit(first, add={SHARD: b"kept", "new.parquet": b"kept too"}, message="m")
    return remote.commit(second, add={}, delete=["a.json"], message="m")


def holders(hub):
    return [where for where, data in hub.every_byte() if SECRET in data]


def test_after_a_purge_no_byte_is_left_and_all_that_is_wanted_is(hub, remote, erased):
    assert len(holders(hub)) == 4
    old = set(hub.repo(REPO).refs().values()) | {erased.revision}
    purge = remote.purge(erased)
    assert holders(hub) == []
    # The first commit, two pushes, the deletion, and that of the pull request.
    assert purge == Purge(revisions=5, blobs=2, refs=3)
    now = remote.snapshot()
    assert now.files == erased.files
    assert {path: remote.read(now, path) for path in (SHARD, "new.parquet")} == {
        SHARD: b"kept",
        "new.parquet": b"kept too",
    }
    assert not old & {now.revision}
    for revision in old:
        with pytest.raises(StaleSnapshotError):
            remote.read(Snapshot(revision, erased.files), SHARD)


def test_a_second_purge_has_nothing_to_do(remote, erased):
    remote.purge(erased)
    now = remote.snapshot()
    assert remote.purge(now) == Purge(0, 0, 0)
    assert remote.snapshot() == now


def test_what_changed_since_the_snapshot_is_not_purged(hub, remote, erased):
    newer = remote.commit(erased, add={"c.parquet": b"c"}, message="m")
    with pytest.raises(StaleSnapshotError, match="got a newer state"):
        remote.purge(erased)
    assert holders(hub)
    remote.purge(newer)
    assert holders(hub) == []


STEPS = ["info", "lfs-files", "commits", "refs", "branch", "tag", "super-squash", "lfs-delete"]


@pytest.mark.parametrize("route", STEPS)
@pytest.mark.parametrize("kind", ["503", "close-after"])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_purge_that_broke_off_at_any_step_is_finished_by_the_next(
    hub, remote, erased, route, kind, is_restarted
):
    hub.fail(route, kind)
    with pytest.raises(RemoteBusyError):
        remote.purge(erased)
    again = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint) if is_restarted else remote
    again.purge(again.snapshot())
    assert holders(hub) == []
    assert again.snapshot().files == erased.files


@pytest.mark.parametrize("n_fine", range(20))
def test_a_purge_that_breaks_off_after_any_number_of_requests_is_finished(
    hub, remote, erased, n_fine
):
    hub.fail("any", "close-after", skip=n_fine)
    with pytest.raises(RemoteError):
        remote.purge(erased)
    remote.purge(remote.snapshot())
    assert holders(hub) == []
    assert remote.snapshot().files == erased.files


def test_old_commits_are_verified_though_the_purge_that_removed_them_broke_off(hub, remote, erased):
    hub.fail("lfs-delete", "503")
    with pytest.raises(RemoteBusyError):
        remote.purge(erased)
    assert remote.purge(remote.snapshot()).revisions == 5


def test_old_commits_are_verified_by_a_later_process_too(hub, remote, erased):
    noted = []
    hub.fail("lfs-delete", "503")
    with pytest.raises(RemoteBusyError):
        remote.purge(erased, remember=lambda old: noted.append(set(old)))
    assert len(noted[0]) == 5
    later = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)
    assert later.purge(later.snapshot(), old=noted[0]).revisions == 5


def test_what_is_to_be_verified_is_told_before_anything_is_removed(hub, remote, erased):
    before = len(hub.log)
    told = []
    remote.purge(erased, remember=lambda _: told.append(len(hub.log)))
    removing = [
        number
        for number, request in enumerate(hub.log[before:], before)
        if request.method == "DELETE" or request.route in {"super-squash", "lfs-delete"}
    ]
    assert told[0] <= min(removing)


def test_of_very_many_old_commits_a_sample_is_asked_for(hub, remote, erased, monkeypatch):
    monkeypatch.setattr(purging, "_MOST_ASKED", 2)
    n_before = len(hub.requests("info"))
    assert remote.purge(erased).revisions == 5
    assert len([r for r in hub.requests("info")[n_before:] if "/revision/" in r.path]) <= 2 + 2


def test_a_ref_that_cannot_be_removed_is_named_with_the_way_out(hub, remote, erased):
    for skip, name in enumerate(["copy", "refs/pr/1"]):
        hub.fail("branch", "403", method="DELETE", skip=skip)
        with pytest.raises(RemoteRefusedError, match=name) as caught:
            remote.purge(erased)
        assert "repository's page on the Hub" in str(caught.value)
    hub.repo(REPO).converts["parquet"] = erased.revision
    with pytest.raises(RemoteRefusedError, match="refs/convert/parquet must be removed"):
        remote.purge(erased)
    del hub.repo(REPO).converts["parquet"]
    hub.fail("tag", "403", method="DELETE")
    with pytest.raises(RemoteRefusedError, match="v1 must be removed"):
        remote.purge(erased)


def test_a_ref_that_somebody_else_removed_meanwhile_is_fine(hub, remote, erased):
    hub.fail("branch", "404-after", method="DELETE", code="RevisionNotFound")
    remote.purge(erased)
    assert holders(hub) == []


def test_an_old_commit_that_is_still_served_is_not_called_erased(hub, remote, erased, monkeypatch):
    monkeypatch.setattr(type(hub.repo(REPO)), "forget_unreachable", lambda _: None)
    with pytest.raises(RemoteRefusedError, match="an old commit still answered"):
        remote.purge(erased)


def test_contents_that_are_still_stored_are_not_called_erased(hub, remote, erased, monkeypatch):
    monkeypatch.setattr(type(hub.repo(REPO)), "delete_blobs", lambda *_, **__: None)
    with pytest.raises(RemoteRefusedError, match="contents that were deleted still answered"):
        remote.purge(erased)


def test_a_commit_made_during_the_purge_keeps_its_content(hub, remote, erased):
    fault = hub.fail("lfs-delete", "pause")
    other = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)

    def push():
        if fault.reached.wait(30):
            other.commit(other.snapshot(), add={"late.parquet": b"late"}, message="m")
            fault.release()

    pusher = threading.Thread(target=push)
    pusher.start()
    remote.purge(erased)
    pusher.join()
    assert holders(hub) == []
    now = remote.snapshot()
    assert remote.read(now, "late.parquet") == b"late"


def test_who_uploaded_before_the_purge_and_commits_after_it_is_told_to_look_again(
    hub, remote, erased
):
    other = DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint)
    before = other.snapshot()
    remote.purge(erased)
    with pytest.raises(StaleSnapshotError):
        other.commit(before, add={"late.parquet": b"late"}, message="m")
    other.commit(other.snapshot(), add={"late.parquet": b"late"}, message="m")
    assert remote.read(remote.snapshot(), "late.parquet") == b"late"
