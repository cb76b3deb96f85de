import threading
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from feedback.errors import (
    ForeignShardError,
    InvalidRatingError,
    RemoteBusyError,
    RemoteError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.remote import client
from feedback.remote import hub as hub_words
from feedback.remote.base import Snapshot, within
from feedback.remote.dataset_remote import DatasetRemote
from tests.hub_routes import find_route

ANNA = "hf_anna"
REPO = "anna/ratings"
SHARD = "data/ratings/ym=2026-11/a.parquet"
FILES = {SHARD: b"PAR1 rows of november", "tombstones/a.json": b"{}"}


@pytest.fixture
def remote(hub):
    return DatasetRemote(REPO, token=ANNA, endpoint=hub.endpoint, call_seconds=30)


def other(hub, token=ANNA, repo=REPO, **settings):
    return DatasetRemote(repo, token=token, endpoint=hub.endpoint, **settings)


def test_a_repository_that_was_never_seen_is_made_private(hub, remote):
    snapshot = remote.snapshot()
    assert hub.repo(REPO).is_private
    assert snapshot.revision == hub.repo(REPO).head.id
    assert len(hub.requests("create")) == 1


def test_what_is_committed_is_listed_and_read_back_in_one_commit(hub, remote):
    snapshot = remote.commit(remote.snapshot(), add=FILES, message="Add a shard")
    assert snapshot.revision == hub.repo(REPO).head.id
    assert remote.snapshot() == snapshot
    assert {path: remote.read(snapshot, path) for path in FILES} == FILES
    assert len(hub.requests("commit")) == 1


def test_a_digest_changes_with_the_content_and_only_then(remote):
    first = remote.commit(remote.snapshot(), add=FILES, message="m")
    second = remote.commit(first, add={SHARD: b"other rows"}, message="m")
    assert first.files[SHARD] != second.files[SHARD]
    assert first.files["tombstones/a.json"] == second.files["tombstones/a.json"]
    third = remote.commit(second, add={SHARD: FILES[SHARD]}, message="m")
    assert dict(third.files) == dict(first.files)


def test_adding_and_deleting_is_one_commit(hub, remote):
    first = remote.commit(remote.snapshot(), add=FILES, message="m")
    second = remote.commit(
        first, add={"data/b.parquet": b"b", "data/c.parquet": b"c"}, delete=[SHARD], message="m"
    )
    assert SHARD not in second.files
    assert second.files.keys() >= {"data/b.parquet", "data/c.parquet", "tombstones/a.json"}
    assert len(hub.requests("commit")) == 2
    assert remote.read(first, SHARD) == FILES[SHARD]


def test_what_is_there_already_makes_no_commit(hub, remote):
    first = remote.commit(remote.snapshot(), add=FILES, message="m")
    assert remote.commit(first, add=FILES, message="again") == first
    assert len(hub.requests("commit")) == 1


def test_a_commit_uses_no_other_thread(remote, monkeypatch):
    started = []
    start = threading.Thread.start

    def spy(self):
        if "Thread-" not in self.name or "process_request" not in self.name:
            started.append(self.name)
        start(self)

    snapshot = remote.snapshot()
    monkeypatch.setattr(threading.Thread, "start", spy)
    remote.commit(snapshot, add={f"data/{i}.parquet": b"%d" % i for i in range(4)}, message="m")
    assert started == []


def test_contents_go_over_plain_http_where_xet_is_installed_too(hub, remote, monkeypatch, caplog):
    snapshot = remote.snapshot()
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: True)
    with caplog.at_level("WARNING"):
        remote.commit(snapshot, add=FILES, message="m")
    assert len(hub.requests("put")) == 1
    assert caplog.messages == []


def test_contents_that_are_stored_already_are_not_sent_again_and_nothing_is_printed(
    hub, remote, capfd
):
    snapshot = remote.snapshot()
    hub.fail("commit", "429")
    with pytest.raises(RemoteBusyError):
        remote.commit(snapshot, add=FILES, message="m")
    remote.commit(snapshot, add=FILES, message="m")
    assert len(hub.requests("put")) == 1
    assert capfd.readouterr() == ("", "")


def test_of_two_writers_one_is_told_to_look_again(hub, remote):
    mine, theirs = remote.snapshot(), other(hub).snapshot()
    other(hub).commit(theirs, add={"data/b.parquet": b"b"}, message="m")
    with pytest.raises(StaleSnapshotError, match="look again"):
        remote.commit(mine, add=FILES, message="m")
    files = remote.snapshot().files
    assert "data/b.parquet" in files
    assert SHARD not in files


def test_deleting_what_the_snapshot_lacks_is_stale_and_asks_nothing(hub, remote):
    snapshot = remote.snapshot()
    n_requests = len(hub.log)
    with pytest.raises(StaleSnapshotError, match="data/x"):
        remote.commit(snapshot, add=FILES, delete=["data/x.parquet"], message="m")
    assert len(hub.log) == n_requests


def test_reading_needs_the_snapshot_s_state(hub, remote):
    snapshot = remote.commit(remote.snapshot(), add=FILES, message="m")
    with pytest.raises(StaleSnapshotError, match="in the snapshot"):
        remote.read(snapshot, "data/none.parquet")
    with pytest.raises(StaleSnapshotError):
        remote.read(Snapshot("0" * 40, snapshot.files), SHARD)
    hub.repo(REPO).delete_blobs(frozenset(hub.repo(REPO).blobs), rewrite_history=True)
    with pytest.raises(StaleSnapshotError):
        remote.read(snapshot, SHARD)


def test_a_copy_that_was_altered_or_cut_off_is_not_taken(hub, remote):
    snapshot = remote.commit(remote.snapshot(), add=FILES, message="m")
    for path in FILES:
        hub.fail("resolve", "cut")
        with pytest.raises(RemoteBusyError):
            remote.read(snapshot, path)
        with pytest.raises(RemoteBusyError, match="cut off or altered"):
            remote.read(Snapshot(snapshot.revision, {path: "0" * 64}), path)


def test_a_file_too_large_for_memory_is_left(remote, monkeypatch):
    snapshot = remote.commit(remote.snapshot(), add=FILES, message="m")
    monkeypatch.setattr("feedback.remote.dataset_remote.MAX_FILE_BYTES", 4)
    with pytest.raises(ForeignShardError) as caught:
        remote.read(snapshot, SHARD)
    assert caught.value.path == SHARD


def test_a_repository_without_a_commit_is_empty_and_takes_the_first(hub, remote, monkeypatch):
    made = remote.snapshot()
    info = HfApi.dataset_info

    def without_commit(self, repo_id, **settings):
        found = info(self, repo_id, **settings)
        found.sha = None
        return found

    monkeypatch.setattr(HfApi, "dataset_info", without_commit)
    assert remote.snapshot() == Snapshot("", {})
    monkeypatch.undo()
    assert SHARD in remote.commit(Snapshot("", {}), add=FILES, message="m").files
    assert hub.repo(REPO).head.id != made.revision


# What is refused, and what it is called.


def refused(remote, match, act=lambda remote: remote.snapshot()):
    with pytest.raises(RemoteRefusedError, match=match) as caught:
        act(remote)
    message = str(caught.value)
    assert "hf_" not in message
    assert "kept on this machine" in message or "Nothing was sent" in message


def test_a_repository_that_was_there_before_is_never_made_again(hub, remote):
    refused(other(hub, is_known=True), "must exist")
    remote.snapshot()
    HfApi(endpoint=hub.endpoint, token=ANNA).delete_repo(REPO, repo_type="dataset")
    refused(remote, "must exist")
    assert hub.requests("create")[-1:] == hub.requests("create")[:1]


def test_a_public_repository_gets_nothing(hub):
    hub.add_repo(REPO, private=False)
    n_commits = len(hub.requests("commit"))
    refused(other(hub), "must be private, got it public")
    assert len(hub.requests("commit")) == n_commits


def test_a_repository_that_became_public_is_refused_from_then_on(hub, remote):
    snapshot = remote.commit(remote.snapshot(), add=FILES, message="m")
    hub.repo(REPO).is_private = False
    refused(remote, "must be private")
    refused(remote, "must be private", lambda remote: remote.purge(snapshot))


@pytest.mark.parametrize("route", ["preupload", "put"])
def test_a_repository_that_becomes_public_during_an_upload_gets_no_commit(hub, remote, route):
    snapshot = remote.snapshot()
    fault = hub.fail(route, "pause")

    def open_up():
        if fault.reached.wait(30):
            hub.repo(REPO).is_private = False
            fault.release()

    opener = threading.Thread(target=open_up)
    opener.start()
    refused(remote, "must be private", lambda r: r.commit(snapshot, add=FILES, message="m"))
    opener.join()
    assert not hub.requests("commit")


def test_a_repository_that_became_public_since_it_was_looked_at_gets_no_byte(hub, remote):
    snapshot = remote.snapshot()
    hub.repo(REPO).is_private = False
    refused(remote, "must be private", lambda r: r.commit(snapshot, add=FILES, message="m"))
    assert not hub.requests("put")
    assert not hub.requests("preupload")


def test_a_renamed_repository_is_refused_naming_the_new_one(hub, remote):
    remote.snapshot()
    HfApi(endpoint=hub.endpoint, token=ANNA).move_repo(REPO, "anna/elsewhere", repo_type="dataset")
    refused(remote, "got it renamed to anna/elsewhere")


def test_someone_else_s_private_repository_is_refused(hub):
    hub.add_repo("ben/ratings")
    refused(other(hub, repo="ben/ratings"), "right to write to the private dataset ben/ratings")
    refused(other(hub, repo="ben/ratings", is_known=True), "someone else's")


def test_someone_else_s_name_is_not_taken(hub):
    refused(other(hub, repo="ben/new"), "right to write")


def test_someone_else_s_public_repository_is_refused(hub):
    hub.add_repo("ben/ratings", private=False)
    refused(other(hub, repo="ben/ratings"), "must be private")


@pytest.mark.parametrize("token", [None, "", "hf_wrong"])
def test_no_token_and_a_wrong_one_are_refused(hub, remote, token):
    remote.snapshot()
    refused(other(hub, token=token), "The token must have the right to write")
    assert not other(hub, token=token)._is_known


def test_without_a_token_nothing_is_asked_and_none_is_searched_for(hub, remote, monkeypatch):
    snapshot = remote.snapshot()
    n_requests = len(hub.log)
    monkeypatch.setenv("HF_TOKEN", "hf_anna")
    refused(other(hub, token=None), "The token must")
    assert len(hub.log) == n_requests
    refused(
        other(hub, token=None),
        "The token must",
        lambda remote: remote.commit(snapshot, add=FILES, message="m"),
    )
    assert len(hub.log) == n_requests


def test_a_token_without_the_right_to_write_is_refused_before_anything_is_sent(hub, remote):
    remote.snapshot()
    reader = "hf_reader"
    hub.add_user("anna", reader, role="read")
    refused(other(hub, token=reader), "right to write to the private dataset anna/ratings")


def test_a_token_that_expires_in_between_is_refused(hub, remote):
    snapshot = remote.snapshot()
    hub.revoke("hf_anna")
    refused(remote, "The token must", lambda r: r.commit(snapshot, add=FILES, message="m"))


def test_a_name_of_another_form_is_refused_at_once():
    with pytest.raises(InvalidRatingError, match="`dataset` must be NAME/REPO"):
        DatasetRemote("Ada Lovelace", token=ANNA)


# What goes wrong on the way.

FAULTS = ("500", "503", "close", "cut", "close-after", "429")


@pytest.mark.parametrize(
    ("route", "kind"),
    [
        (route, kind)
        for route in ("preupload", "batch", "put", "verify")
        for kind in FAULTS
        # The answers of the last two have no body that could be cut.
        if kind != "cut" or route in {"preupload", "batch"}
    ],
)
def test_what_fails_before_the_commit_is_sent_surely_changed_nothing(hub, remote, route, kind):
    snapshot = remote.snapshot()
    hub.fail(route, kind)
    with pytest.raises(RemoteBusyError):
        remote.commit(snapshot, add=FILES, message="m")
    assert hub.requests("commit") == []
    assert SHARD in remote.commit(snapshot, add=FILES, message="m").files


@pytest.mark.parametrize("kind", ["500", "503", "504", "408", "close"])
@pytest.mark.parametrize("when", ["", "-after"])
def test_a_commit_without_a_clear_answer_may_have_been_made(hub, remote, kind, when):
    snapshot = remote.snapshot()
    hub.fail("commit", kind + when)
    with pytest.raises(UncertainCommitError, match="look again"):
        remote.commit(snapshot, add=FILES, message="m")
    assert len(hub.requests("commit")) == 1
    assert (SHARD in remote.snapshot().files) is bool(when)


def test_a_commit_whose_confirmation_is_cut_off_may_have_been_made(hub, remote):
    snapshot = remote.snapshot()
    hub.fail("commit", "cut")
    with pytest.raises(UncertainCommitError):
        remote.commit(snapshot, add=FILES, message="m")
    assert SHARD in remote.snapshot().files


@pytest.mark.parametrize("kind", ["409", "412"])
def test_a_conflict_is_stale(hub, remote, kind):
    snapshot = remote.snapshot()
    hub.fail("commit", kind)
    with pytest.raises(StaleSnapshotError):
        remote.commit(snapshot, add=FILES, message="m")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("429", RemoteBusyError),
        ("400", RemoteBusyError),
        ("401", RemoteRefusedError),
        ("403", RemoteRefusedError),
        ("402", RemoteRefusedError),
        ("413", RemoteRefusedError),
    ],
)
def test_a_commit_that_is_refused_surely_changed_nothing(hub, remote, kind, error):
    snapshot = remote.snapshot()
    hub.fail("commit", kind)
    with pytest.raises(error):
        remote.commit(snapshot, add=FILES, message="m")
    assert remote.snapshot() == snapshot


@pytest.mark.parametrize("route", ["commit", "preupload", "info", "tree"])
def test_a_busy_hub_is_asked_once_and_says_when_to_come_back(hub, remote, route):
    snapshot = remote.snapshot()
    n_requests = len(hub.requests(route))
    hub.fail(route, "429", retry_after=120)
    with pytest.raises(RemoteBusyError) as caught:
        remote.commit(remote.snapshot(), add=FILES, message="m")
    assert caught.value.retry_after == 120
    assert len(hub.requests(route)) <= n_requests + 2
    assert remote.snapshot() == snapshot


@pytest.mark.parametrize(
    ("route", "kind"),
    [
        *((route, "cut") for route in ("info", "tree", "create")),
        *((r, k) for r in ("info", "auth-check", "tree", "create") for k in ("500", "close")),
    ],
)
def test_a_hub_that_fails_while_it_is_looked_at_is_busy(hub, remote, route, kind):
    hub.fail(route, kind)
    with pytest.raises(RemoteBusyError):
        remote.snapshot()
    assert remote.snapshot().files


def test_a_confirmed_commit_that_cannot_be_looked_at_may_have_been_made(hub, remote):
    snapshot = remote.snapshot()
    hub.fail("tree", "503")
    with pytest.raises(UncertainCommitError, match="no view of it"):
        remote.commit(snapshot, add=FILES, message="m")


def test_a_commit_whose_content_is_not_there_is_not_believed(remote, monkeypatch):
    snapshot = remote.snapshot()
    monkeypatch.setattr(DatasetRemote, "_tree", lambda *_: {SHARD: "0" * 64})
    with pytest.raises(UncertainCommitError, match="another state"):
        remote.commit(snapshot, add=FILES, message="m")


def test_a_repository_that_never_rests_is_busy(hub, remote):
    remote.snapshot()
    hub.fail("tree", "404", count=3, code="RevisionNotFound")
    with pytest.raises(RemoteBusyError, match="changed 3 times"):
        remote.snapshot()
    hub.fail("tree", "404", count=2, code="RevisionNotFound")
    assert remote.snapshot().files


def test_a_server_that_is_not_the_hub_is_busy():
    remote = DatasetRemote(REPO, token=ANNA, endpoint="http://127.0.0.1:9")
    with pytest.raises(RemoteBusyError, match="no whole answer") as caught:
        remote.snapshot()
    assert caught.value.retry_after is None


def test_an_answer_of_another_form_is_busy_or_leaves_a_commit_in_doubt(remote, monkeypatch):
    snapshot = remote.snapshot()
    for error in (KeyError("sha"), AttributeError("get"), TypeError("list")):

        def stumble(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(HfApi, "dataset_info", stumble)
            with pytest.raises(RemoteBusyError, match="something else"):
                remote.snapshot()
    assert remote.snapshot() == snapshot


# Time.


@pytest.fixture
def leave_little_time_for(monkeypatch):
    """Return a function that leaves a call 0.2 seconds once it asks a route of the Hub.

    Until then no time passes for it: what comes before may take as long as the machine likes.
    """
    now, send = [0.0], client.BoundedClient.send

    def leave_little_time_for(route):
        def hurried(self, request, **options):
            if find_route(request.method, request.url.path)[0].name == route:
                now[0] = 30 - 0.2
            return send(self, request, **options)

        monkeypatch.setattr(client.BoundedClient, "send", hurried)
        monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now[0]))

    return leave_little_time_for


@pytest.mark.parametrize("route", ["info", "auth-check", "tree"])
def test_a_silent_hub_is_not_waited_for(hub, remote, leave_little_time_for, route):
    remote.snapshot()
    fault = hub.fail(route, "hang")
    leave_little_time_for(route)
    with pytest.raises(RemoteBusyError):
        remote.snapshot()
    assert fault.reached.wait(30)


@pytest.mark.parametrize(
    ("route", "error"),
    [("preupload", RemoteBusyError), ("put", RemoteBusyError), ("commit", UncertainCommitError)],
)
def test_a_commit_that_hangs_ends(hub, remote, leave_little_time_for, route, error):
    snapshot = remote.snapshot()
    fault = hub.fail(route, "hang-after")
    leave_little_time_for(route)
    with pytest.raises(error):
        remote.commit(snapshot, add=FILES, message="m")
    assert fault.reached.wait(30)


def test_a_body_that_drips_ends_too(hub, remote):
    snapshot = remote.commit(remote.snapshot(), add={SHARD: b"x" * 4000}, message="m")
    hub.fail("resolve", "slow").seconds = 0.15
    with pytest.raises(RemoteBusyError), within(0.3):
        remote.read(snapshot, SHARD)
    hub.fail("tree", "slow").seconds = 0.15
    with pytest.raises(RemoteBusyError), within(0.3):
        remote.snapshot()


def test_when_the_time_is_over_nothing_is_sent(hub, remote):
    snapshot = remote.snapshot()
    n_requests = len(hub.log)
    with within(0), pytest.raises(RemoteBusyError, match="in time"):
        remote.commit(snapshot, add=FILES, message="m")
    assert len(hub.log) == n_requests


def test_requests_of_others_in_the_process_are_repeated_as_before(hub, remote):
    remote.snapshot()
    hub.fail("tree", "503", retry_after=0)
    api = HfApi(endpoint=hub.endpoint, token=ANNA)
    assert list(api.list_repo_tree(REPO, repo_type="dataset"))
    assert [request.status for request in hub.requests("tree")[-2:]] == [503, 200]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30.0),
        ({"ratelimit": '"api";r=0;t=55', "Retry-After": "3"}, 55.0),
        ({"ratelimit": '"api";r=7;t=55'}, None),
        ({"Retry-After": "Fri, 20 Nov 2026 12:00:00 GMT"}, None),
        ({"Retry-After": "-1"}, None),
        ({}, None),
    ],
)
def test_the_wait_a_busy_server_asks_for_is_read(headers, seconds):
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    request = httpx2.Request("GET", "http://127.0.0.1/")
    error = HfHubHTTPError("busy", response=httpx2.Response(429, headers=headers, request=request))
    assert hub_words.retry_after(error) == seconds


def test_no_error_holds_on_to_the_token(hub):
    secret = "hf_secret_of_anna"  # noqa: S105
    remote = other(hub, token=secret)
    with pytest.raises(RemoteError) as caught:
        remote.snapshot()
    chain, texts = caught.value, []
    while chain is not None:
        texts.append(repr(chain))
        chain = chain.__cause__ or chain.__context__
    assert not any("hf_secret" in text for text in texts)


def test_a_repository_that_vanishes_before_the_commit_is_missing(hub, remote):
    snapshot = remote.snapshot()
    HfApi(endpoint=hub.endpoint, token=ANNA).delete_repo(REPO, repo_type="dataset")
    with pytest.raises(RemoteRefusedError, match="must exist"):
        remote.commit(snapshot, add=FILES, message="m")
