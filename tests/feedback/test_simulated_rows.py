from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from feedback import Consent, InvalidRatingError, RatingStore
from feedback.preference.judgement import histories_of
from feedback.preference.posterior import Posterior
from feedback.simulate.rows import SimulatedStudy, simulated_pages, study_crowd, study_raters

STUDY = SimulatedStudy(
    n_raters=12, n_pages=5, seed=1, started_at=datetime(2026, 11, 20, tzinfo=UTC)
)
CONSENT = Consent("2026-11", "aggregate")


def pages_of(study=STUDY, **changes):
    return list(simulated_pages(replace(study, **changes), key=b"k" * 32, consent=CONSENT))


def test_simulated_pages_go_into_a_store_and_come_back(tmp_path):
    with RatingStore(tmp_path / "ratings.sqlite3") as store:
        for page, rows in pages_of():
            store.add_page(page, rows)
        assert (store.stats().raters, store.stats().pages, store.stats().rows) == (12, 60, 300)
        histories = histories_of(store.ratings())
        assert list(store.problems()) == []
    assert {len(h.judgements) for h in histories.values()} == {10}
    assert set(histories) == {rater.rater_id for rater in study_raters(STUDY)}


def test_the_stored_rows_tell_the_raters_tastes():
    rows = [row for _, rows in pages_of(n_raters=40, n_photos=2, n_pages=8) for row in rows]
    study = replace(STUDY, n_raters=40)
    truth = study_crowd(study).ideal
    histories = histories_of(rows)
    means = [
        Posterior.replay(histories[rater.rater_id].judgements).mean for rater in study_raters(study)
    ]
    assert np.sqrt(np.mean((means - truth) ** 2)) < 0.12
    assert np.corrcoef(means, truth)[0, 1] > 0.8


def test_the_same_seed_gives_the_same_rows_to_the_byte_and_another_seed_none_of_them():
    first, again, other = pages_of(), pages_of(), pages_of(seed=2)
    assert [r.as_json() for _, rows in first for r in rows] == [
        r.as_json() for _, rows in again for r in rows
    ]
    assert not {p.page_id for p, _ in first} & {p.page_id for p, _ in other}
    assert not {p.photo_id for p, _ in first} & {p.photo_id for p, _ in other}


def test_pages_follow_the_policy_they_record():
    shown = [page for page, _ in pages_of(n_raters=60, floor=0.5)]
    policies = [page.policy for page in shown]
    assert set(policies) == {f"mix80/{p}" for p in ("active", "uniform", "repeat", "catch")}
    assert policies.count("mix80/active") / len(policies) == pytest.approx(0.8, abs=0.1)
    assert all(max(v.strength for v in page.shown) >= 0.5 for page in shown)
    for page in shown:
        assert sum(v.is_repeat for v in page.shown) == (page.policy == "mix80/repeat")
        assert sum(v.is_catch for v in page.shown) == (page.policy == "mix80/catch")
    assert {page.source for page in shown} == {"synthetic_face"}


def test_random_pages_are_drawn_evenly_and_say_so():
    shown = [page for page, _ in pages_of(select="random")]
    assert {(page.policy, round(page.propensity, 6)) for page in shown} == {
        ("uniform", round(1 / 210, 6))
    }


def test_photos_follow_one_after_the_other():
    photos = [page.photo_id for page, _ in pages_of(n_raters=1, n_pages=6, n_photos=3)]
    assert len(set(photos)) == 3
    assert photos[0] == photos[1] != photos[2] == photos[3]


def test_drifting_raters_can_be_simulated_too():
    assert len(pages_of(n_raters=2, habits="drift")) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_raters": 0}, "`n_raters` must be an integer from 1"),
        ({"n_pages": 2.5}, "`n_pages` must be an integer"),
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"select": "fixed"}, "`select` must be active or random, got 'fixed'"),
        ({"habits": "lazy"}, "`habits` must be one of none"),
        ({"n_shown": 1}, "`n_shown` must be 2 to 16, got 1"),
    ],
)
def test_a_study_that_breaks_a_rule_is_refused_by_name(changes, message):
    with pytest.raises(InvalidRatingError, match=message):
        replace(STUDY, **changes)
