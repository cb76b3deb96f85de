import io
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from feedback import Release, RemoteBusyError, RemoteRefusedError, UncertainCommitError, new_id
from feedback.publish.cells import select
from feedback.publish.publication import MARK, publication_files
from feedback.publish.publishing import public_dataset, publish

ANNA = "hf_anna"
REPO = "anna/public"
RELEASE = Release("dp-eps1-2026Q4", "1", "2026-11-20T12:00:00+00:00", "m@1", 200, (1000,) * 10)


@pytest.fixture
def remote(hub):
    return public_dataset(REPO, token=ANNA, endpoint=hub.endpoint)


@pytest.fixture
def send(world, remote):
    def send(private=(), *, remote=remote, variants=None, private_repo_ids=("anna/ratings",)):
        files = publication_files(
            select(private, key=os.urandom(32)),
            [RELEASE],
            name=remote.repo_id,
            licence="other",
            variants=variants,
            published_at=world.now,
        )
        return publish(remote, files, private_repo_ids=private_repo_ids)

    return send


def rows(world, n_raters=12):
    return [
        world.rating(rating_id=new_id(), rater_id=new_id(), consent_scope="publish_row")
        for _ in range(n_raters)
    ]


def ids_on(hub):
    """Every rating_id in any parquet file the Hub still holds anywhere."""
    found = set()
    for _, data in hub.every_byte():
        if data[:4] == b"PAR1":
            table = pq.read_table(io.BytesIO(data))
            if "rating_id" in table.column_names:
                found |= set(table.column("rating_id").to_pylist())
    return found


def test_what_is_published_is_public_in_one_commit(world, hub, send):
    private = rows(world)
    published = send(private)
    repo = hub.repo(REPO)
    assert not repo.is_private
    assert repo.head.id == published.revision
    assert set(repo.head.files) == {
        ".gitattributes",
        "README.md",
        MARK,
        "data/ratings/part-00000.parquet",
        "data/population/population.parquet",
    }
    assert len(ids_on(hub)) == 12
    assert not ids_on(hub) & {row.rating_id for row in private}


def test_publishing_again_replaces_everything_and_the_old_rows_are_nowhere(world, hub, send):
    private = rows(world, 14)
    first = send(private)
    old = ids_on(hub)
    second = send(private[2:])
    assert len(ids_on(hub)) == 12
    assert not ids_on(hub) & old
    assert first.revision != second.revision
    assert second.purge.revisions >= 1
    assert second.purge.blobs >= 1


def test_when_too_few_have_agreed_the_earlier_rows_go(world, hub, send):
    private = rows(world)
    send(private)
    send(private[:9])
    assert ids_on(hub) == set()
    assert not any(path.startswith("data/ratings") for path in hub.repo(REPO).head.files)


def test_a_failed_purge_is_made_good_by_publishing_again(world, hub, send):
    private = rows(world)
    send(private)
    old = ids_on(hub)
    hub.fail("super-squash", "500")
    with pytest.raises(RemoteBusyError):
        send(private)
    assert ids_on(hub) & old
    send(private)
    assert not ids_on(hub) & old


def test_a_commit_without_a_clear_answer_is_said_and_can_be_repeated(world, hub, send):
    private = rows(world)
    hub.fail("commit", "500-after")
    with pytest.raises(UncertainCommitError):
        send(private)
    send(private)
    assert len(ids_on(hub)) == 12


@pytest.mark.parametrize("name", ["anna/public", "Anna/Public"])
def test_the_private_repository_is_never_the_public_one(world, hub, send, name):
    with pytest.raises(RemoteRefusedError, match="must not be the private one"):
        send(rows(world), private_repo_ids=["x/y", name])
    assert hub.requests("commit") == hub.requests("create") == []


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": b"# mine"},
        {MARK: b'{"program": "another", "schema_version": 1}'},
        {"tombstones/a.json": b"{}", "data/ratings/ym=2026-11/a.parquet": b"PAR1"},
    ],
)
def test_a_repository_that_is_not_ours_stays_as_it_is(world, hub, send, files):
    repo = hub.add_repo(REPO, private=False)
    repo.write(files)
    head = repo.head.id
    with pytest.raises(RemoteRefusedError, match="must be empty or made by this command"):
        send(rows(world))
    assert repo.head.id == head


def test_a_private_repository_is_not_published_to(world, hub, send):
    hub.add_repo(REPO, private=True)
    with pytest.raises(RemoteRefusedError, match="be public, got it private"):
        send(rows(world))
    assert hub.requests("commit") == []


def test_a_renamed_repository_is_not_published_to(world, hub, send):
    send(rows(world))
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.endpoint, token=ANNA).move_repo(REPO, "anna/new", repo_type="dataset")
    with pytest.raises(RemoteRefusedError, match="renamed to anna/new"):
        send(rows(world))


@pytest.mark.parametrize("token", [None, "hf_ben"])
def test_without_the_right_to_write_nothing_is_sent(world, hub, send, token):
    hub.add_repo(REPO, private=False)
    mine = public_dataset(REPO, token=token, endpoint=hub.endpoint)
    with pytest.raises(RemoteRefusedError) as caught:
        send(rows(world), remote=mine)
    assert "hf_" not in str(caught.value)
    assert hub.requests("commit") == []


def test_an_empty_repository_made_by_hand_is_taken(world, hub, send):
    hub.add_repo(REPO, private=False)
    send(rows(world))
    assert len(ids_on(hub)) == 12


LOAD = """
import json, sys
from datasets import load_dataset
repo, revision = sys.argv[1:]
load = lambda name: load_dataset(repo, name, revision=revision, split="train")
ratings, population, variants = load("ratings"), load("population"), load("variants")
print(json.dumps({
    "rows": len(ratings),
    "labels": ratings.features["response_type"].names,
    "created_at": sorted({str(t) for t in ratings["created_at"]}),
    "population": population["noisy_raters"][:],
    "sizes": [picture.size for picture in variants["image"]],
}))
"""


def test_all_three_tables_are_loaded_back_with_datasets(world, hub, send, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(pictures / "a.png")
    published = send(rows(world), variants=pictures)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, REPO, published.revision],
        env=os.environ | hub.environment(tmp_path / "hf", token="hf_ben"),  # noqa: S106
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "rows": 12,
        "labels": ["jar5", "best_of_n", "likert5", "slider"],
        "created_at": ["2026-11-20 00:00:00+00:00"],
        "population": [1.0] * 10,
        "sizes": [[9, 6]],
    }
