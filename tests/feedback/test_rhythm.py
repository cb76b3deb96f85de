from dataclasses import replace
from datetime import UTC, datetime

import pytest

from feedback.errors import RemoteBusyError, RemoteRefusedError, StoreError
from feedback.sync.health import Health
from feedback.sync.rhythm import Rhythm, SyncSettings

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def rhythm():
    return Rhythm(SyncSettings(), lambda: 0.0)


def test_the_first_round_is_due_at_once(rhythm):
    assert rhythm.is_due(0, is_dirty=False)


def test_rows_wait_for_the_floor_and_looking_for_longer(rhythm):
    rhythm.succeeded(NOW, 100)
    assert [rhythm.is_due(t, is_dirty=True) for t in (159, 160)] == [False, True]
    assert [rhythm.is_due(t, is_dirty=False) for t in (999, 1000)] == [False, True]
    assert rhythm.seconds_to_next(130) == 30
    assert rhythm.seconds_to_next(500) == 60


def test_waits_are_lengthened_by_up_to_the_jitter():
    late = Rhythm(SyncSettings(), lambda: 1.0)
    late.succeeded(NOW, 0)
    assert late.seconds_to_next(0) == pytest.approx(72)


def test_failures_in_a_row_double_the_wait_up_to_the_cap(rhythm):
    waits = []
    for _ in range(8):
        rhythm.failed(StoreError("full"), 0)
        waits.append(rhythm.retry_at)
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]
    assert rhythm.last_error == "full"
    rhythm.succeeded(NOW, 0)
    rhythm.failed(StoreError("full"), 0)
    assert rhythm.retry_at == 30


def test_endless_failures_overflow_nothing(rhythm):
    for _ in range(5000):
        rhythm.failed(StoreError("full"), 0)
    assert rhythm.retry_at == 900


def test_a_longer_wait_that_was_asked_for_is_honoured(rhythm):
    rhythm.failed(RemoteBusyError("later", retry_after=5000), 0)
    assert rhythm.retry_at == 5000
    rhythm.forgive()
    assert rhythm.retry_at == 5000


def test_a_refusal_waits_long_unless_someone_asks_again(rhythm):
    rhythm.failed(RemoteRefusedError("no"), 10)
    assert rhythm.retry_at == 3610
    assert not rhythm.is_due(3609, is_dirty=True)
    rhythm.forgive()
    assert rhythm.retry_at == 70
    assert rhythm.is_due(70, is_dirty=True)


HEALTH = Health("the private dataset anna/ratings", True, 0, 7, 0.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "All 7 ratings are in the private dataset anna/ratings."),
        (
            {"outbox_rows": 3, "sync_lag_seconds": 61.7},
            "3 ratings wait to be copied to the private dataset anna/ratings, the oldest for 62 s; "
            "7 are there.",
        ),
        ({"keeps": False, "outbox_rows": 3}, "10 ratings are kept on this disk only."),
        # What an error may be about: nobody knows now what is there.
        (
            {"last_error": "It must exist, got nothing there."},
            "All 7 ratings were in the private dataset anna/ratings when last seen. It must exist, "
            "got nothing there.",
        ),
        (
            {"outbox_rows": 3, "sync_lag_seconds": 61.7, "last_error": "It must answer."},
            "3 ratings wait to be copied to the private dataset anna/ratings, the oldest for 62 s; "
            "7 were there when last seen. It must answer.",
        ),
        (
            {"pending_erasures": 2},
            "All 7 ratings are in the private dataset anna/ratings. 2 erasures are still to be "
            "finished there.",
        ),
    ],
)
def test_health_is_said_in_words(changes, sentence):
    assert replace(HEALTH, **changes).sentence() == sentence


def test_health_is_json():
    record = replace(HEALTH, last_success=NOW, foreign_shards=("a",)).as_record()
    assert record["last_success"] == "2026-11-20T00:00:00+00:00"
    assert (record["retry_at"], record["foreign_shards"]) == (None, ["a"])
