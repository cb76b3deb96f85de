import json
import os
from dataclasses import replace

import pytest

from feedback import ForeignShardError, Release, RemoteRefusedError, new_id
from feedback.errors import RemoteBusyError
from feedback.publish.cells import select
from feedback.publish.crowd import crowd_view
from feedback.publish.publication import MARK, publication_files
from feedback.publish.publishing import public_dataset, publish
from feedback.publish.reading import read_publication

ANNA = "hf_anna"
REPO = "anna/public"
OLD = Release("dp-eps1-2026Q3", "1/2", "2026-07-20T12:00:00+00:00", "m@1", 100, (-300,) * 10)
NEW = Release("dp-eps1-2026Q4", "1", "2026-11-20T12:00:00+00:00", "m@1", 200, (2000,) * 10)


def rows(world, responses, *, strength=0.85, **columns):
    """One rater for each response."""
    return [
        world.rating(
            rating_id=new_id(),
            rater_id=new_id(),
            consent_scope="publish_row",
            response_type="jar5",
            response=response,
            strength=strength,
            **columns,
        )
        for response in responses
    ]


@pytest.fixture
def published(world, hub):
    """Publish rows and two releases; return how to read them as a stranger."""

    def published(ratings=()):
        files = publication_files(
            select(ratings, key=os.urandom(32)),
            [OLD, NEW],
            name=REPO,
            licence="other",
            variants=None,
            published_at=world.now,
        )
        mine = public_dataset(REPO, token=ANNA, endpoint=hub.endpoint)
        publish(mine, files, private_repo_ids=["anna/ratings"])
        return public_dataset(REPO, token=None, endpoint=hub.endpoint)

    return published


def test_what_was_published_is_read_back_without_a_token(world, published):
    stranger = published(rows(world, [2] * 12))
    found = read_publication(stranger)
    assert len(found.ratings) == 12
    assert len({row.rater_id for row in found.ratings}) == 12
    assert [release.name for release in found.releases] == [OLD.name, NEW.name]
    assert found.releases[1].noisy_raters == (2.0,) * 10
    assert found.releases[0].epsilon == 0.5
    assert found.releases[0].noisy_raters[0] == pytest.approx(-0.3)
    assert found.published_on == f"{world.now:%Y-%m-%d}"


def test_reading_writes_nothing_and_makes_no_repository(hub):
    stranger = public_dataset(REPO, token=None, endpoint=hub.endpoint)
    with pytest.raises(RemoteRefusedError, match="got none of that name"):
        read_publication(stranger)
    assert hub.requests("commit") == []
    assert hub.requests("create_repo") == []


def test_a_repository_that_was_not_published_by_us_is_refused(hub):
    hub.add_repo(REPO, private=False).write({"README.md": b"mine"})
    with pytest.raises(RemoteRefusedError, match="feedback publish"):
        read_publication(public_dataset(REPO, token=None, endpoint=hub.endpoint))


def test_a_private_repository_is_not_read_even_by_who_may(hub):
    hub.add_repo(REPO, private=True).write({MARK: b"{}"})
    with pytest.raises(RemoteRefusedError, match="be public, got it private"):
        read_publication(public_dataset(REPO, token=ANNA, endpoint=hub.endpoint))


@pytest.mark.parametrize("name", ["ratings/part-00000", "population/population"])
def test_a_damaged_table_is_refused_by_its_name(hub, name):
    mark = json.dumps({"program": "privacy-dial", "schema_version": 1}).encode()
    path = f"data/{name}.parquet"
    hub.add_repo(REPO, private=False).write({MARK: mark, path: b"PAR1 nonsense"})
    with pytest.raises(ForeignShardError, match=path):
        read_publication(public_dataset(REPO, token=None, endpoint=hub.endpoint))


def test_shares_and_intervals_are_those_of_a_hand_count(world):
    answers = [0, 1, 2, 2, 2, 3, 4, 2]
    view = crowd_view(rows(world, answers) + rows(world, [2], strength=1.0))
    (low, high) = view.tenths
    assert (low.low, high.low) == (0.8, 0.9)
    assert (low.n_answers, low.n_raters) == (8, 8)
    assert low.too_recognisable == pytest.approx(2 / 8)
    assert low.just_right == pytest.approx(4 / 8)
    assert low.too_changed == pytest.approx(2 / 8)
    assert low.interval[0] < low.just_right < low.interval[1]
    assert high.interval == (1.0, 1.0)


def test_many_answers_of_one_rater_leave_the_interval_as_wide_as_few_raters_do(world):
    few = rows(world, [2, 0, 2, 0])
    repeated = [replace(row, rating_id=new_id()) for row in few for _ in range(20)]
    wide = crowd_view(repeated).tenths[0].interval
    narrow = crowd_view(rows(world, [2, 0] * 40)).tenths[0].interval
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_a_kind_of_photo_nobody_answered_about_has_no_shares(world):
    view = crowd_view(rows(world, [2, 2], source="own_photo"), source="synthetic_face")
    assert (view.n_rows, view.n_raters, view.tenths) == (0, 0, ())


def test_a_hub_that_is_down_is_a_busy_remote(world, hub, published):
    stranger = published(rows(world, [2] * 12))
    hub.fail("any", 503, count=50)
    with pytest.raises(RemoteBusyError):
        read_publication(stranger)
