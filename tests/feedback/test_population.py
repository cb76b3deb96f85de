from collections import Counter
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback import Consent, Posterior, Prior, Rating, ReleaseError, pool, prior_of
from feedback.page import new_id
from feedback.population.account import ACCOUNT_NAME, ReleaseAccount
from feedback.population.pooling import (
    MAX_ROUNDS,
    contributions,
    model_version_of,
    n_from_programs,
    rows_by_rater,
)
from feedback.population.release import MIN_RATERS, N_BINS, UNITS, total_units, units_of
from feedback.preference.judgement import judgements_of
from feedback.preference.response import STRENGTHS
from feedback.simulate.rows import SimulatedStudy, simulated_pages
from feedback.simulate.run import SimulationSettings, run_simulation, trace

SCOPES = ("personal_only", "aggregate", "publish_row")


def study(world, *, n_raters, n_pages=3, seed=1, scope="aggregate", habits="none"):
    """Rows of simulated raters."""
    simulated = SimulatedStudy(
        n_raters=n_raters, n_pages=n_pages, seed=seed, started_at=world.now, habits=habits
    )
    pages = simulated_pages(simulated, key=b"k" * 32, consent=Consent("2026-11", scope))
    return [row for _, rows in pages for row in rows]


def answer(world, rater_id, *, strength=0.5, response=2, minutes=0, **changes):
    """One just-about-right row."""
    return world.rating(
        rating_id=new_id(),
        rater_id=rater_id,
        page_id=new_id(),
        photo_id=new_id(),
        strength=strength,
        response_type="jar5",
        response=response,
        created_at=(world.now + timedelta(minutes=minutes)).replace(microsecond=0),
        **changes,
    )


# --- Who contributes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "use", "kept"),
    [
        (["aggregate", "aggregate"], "aggregate", 2),
        (["publish_row"], "aggregate", 1),
        (["personal_only"], "aggregate", 0),
        (["aggregate", "personal_only"], "aggregate", 0),
        (["personal_only", "aggregate"], "aggregate", 1),
        (["publish_row", "aggregate"], "publish_row", 0),
        (["aggregate", "publish_row"], "publish_row", 1),
        (["personal_only", "aggregate"], "personal_only", 2),
    ],
)
def test_a_row_counts_under_its_own_consent_and_the_rater_s_newest(world, scopes, use, kept):
    rater = new_id()
    rows = [
        answer(world, rater, minutes=minute, consent_scope=scope)
        for minute, scope in enumerate(scopes)
    ]
    for order in (rows, rows[::-1]):
        assert sum(map(len, rows_by_rater(order, scope=use).values())) == kept


def test_of_two_consents_at_one_moment_the_narrower_holds(world):
    rater = new_id()
    rows = [answer(world, rater, consent_scope=scope) for scope in ("aggregate", "personal_only")]
    assert rows_by_rater(rows, scope="aggregate") == {}
    assert rows_by_rater(rows[::-1], scope="aggregate") == {}


def test_ten_thousand_answers_still_make_one_contribution(world):
    rater = new_id()
    template = answer(world, rater, strength=0.8, response=2)
    many = [
        replace(template, rating_id=f"{i:032x}", page_id=f"{i:032x}", photo_id=f"{i % 40:032x}")
        for i in range(10_000)
    ]
    (units,) = contributions(many)
    assert sum(units) == UNITS
    others = [answer(world, new_id()) for _ in range(MIN_RATERS)]
    with_one, with_many = contributions([*others, template]), contributions([*others, *many])
    moved = np.subtract(total_units(with_one), total_units(with_many))
    assert np.abs(moved).sum() <= 2 * UNITS


def test_a_contribution_is_the_rater_s_own_posterior_from_the_flat_prior(world):
    rows = study(world, n_raters=3)
    together = contributions(rows)
    raters = sorted({row.rater_id for row in rows})
    for rater, units in zip(raters, together, strict=True):
        mine = [row for row in rows if row.rater_id == rater]
        assert contributions(mine) == (units,)
        own = Posterior.replay(judgements_of(mine), prior=Prior.flat())
        assert units == units_of(own.density())


def test_rows_in_any_order_give_the_same_contributions(world):
    rows = study(world, n_raters=3)
    assert contributions(rows) == contributions(rows[::-1])


def test_consent_is_decided_on_the_rows_of_all_models(world):
    rater = new_id()
    old = answer(world, rater, consent_scope="aggregate")
    new = answer(world, rater, minutes=1, consent_scope="personal_only", model_revision="2")
    model = model_version_of(old)
    assert rows_by_rater([old], scope="aggregate", model_version=model) == {rater: [old]}
    assert rows_by_rater([old, new], scope="aggregate", model_version=model) == {}
    assert contributions([old, new], model_version=model) == ()
    assert pool([old, new], model_version=model).n_raters == 0
    other = answer(world, new_id(), consent_scope="aggregate", model_revision="2")
    assert pool([old, other], model_version=model).n_raters == 1
    assert len(contributions([old, other], model_version=model)) == 1


def test_rows_of_programs_count_for_their_own_rater_only(world):
    web, api = answer(world, new_id()), answer(world, new_id(), client="api")
    assert n_from_programs([web, api]) == 1
    assert set(rows_by_rater([web, api])) == {web.rater_id, api.rater_id}
    for scope in ("aggregate", "publish_row"):
        agreed = [replace(row, consent_scope=scope) for row in (web, api)]
        assert set(rows_by_rater(agreed, scope=scope)) == {web.rater_id}
    assert len(contributions([web, api])) == pool([web, api]).n_raters == 1


# --- Sensitivity -----------------------------------------------------------------------------


@st.composite
def hostile_rows(draw, world):
    """Rows of one rater that follow the schema and nothing else."""
    rater, page, photo = new_id(), new_id(), new_id()
    rows = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["jar5", "best_of_n", "likert5", "slider"]))
        is_slider = kind == "slider"
        highest = 1 if kind == "best_of_n" else 4
        rows.append(
            world.rating(
                rating_id=f"{number:032x}" if draw(st.booleans()) else new_id(),
                rater_id=rater,
                page_id=draw(st.sampled_from([page, new_id()])),
                photo_id=draw(st.sampled_from([photo, new_id()])),
                position=draw(st.integers(0, 3)),
                strength=draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))),
                response_type=kind,
                response=None if is_slider else draw(st.integers(0, highest)),
                response_value=draw(st.floats(0, 1)) if is_slider else None,
                response_ms=draw(st.sampled_from([0, 100, 86_400_000])),
                consent_scope=draw(st.sampled_from(SCOPES[1:])),
                created_at=world.now.replace(year=draw(st.integers(1970, 9000)), microsecond=0),
            )
        )
    return rows


@settings(max_examples=30)
@given(data=st.data())
def test_replacing_a_rater_by_any_other_moves_the_sum_by_at_most_two_totals(world, data):
    rest = REST or REST.extend(study(world, n_raters=MIN_RATERS - 1, n_pages=1)) or REST
    here = contributions([*rest, *data.draw(hostile_rows(world))])
    there = contributions([*rest, *data.draw(hostile_rows(world))])
    assert len(here) == len(there) == MIN_RATERS
    # One contribution changes and no other: nobody's is a function of anyone else's rows.
    assert (Counter(here) - Counter(there)).total() <= 1
    moved = np.abs(np.subtract(total_units(here), total_units(there))).sum()
    assert moved <= 2 * UNITS


REST: list[Rating] = []


# --- What new raters start from --------------------------------------------------------------


def crowd_prior(tmp_path, *, n_raters, taste=None, seed=5):
    """The prior of a release about simulated raters with six answers each."""
    believed = trace(
        SimulationSettings(n_raters=n_raters, n_answers=6, seed=seed, taste=taste)
    ).densities[-1]
    generator = np.random.default_rng(seed)
    release = ReleaseAccount(tmp_path / ACCOUNT_NAME).draw(
        [units_of(density) for density in believed],
        epsilon=Fraction(1),
        model_version="m@1",
        randbelow=lambda n: int(generator.integers(n)),
    )
    return prior_of(release)


@pytest.mark.parametrize("taste", [None, (0.55, 0.08)])
def test_with_a_release_about_200_raters_first_answers_are_no_worse_than_without(tmp_path, taste):
    prior = crowd_prior(tmp_path, n_raters=200, taste=taste)
    assert prior.name.startswith("dp-eps1-")

    def rmse(prior):
        return run_simulation(
            SimulationSettings(n_raters=600, n_answers=4, seed=9, taste=taste, prior=prior)
        ).rmse

    flat, released = rmse(None), rmse(prior)
    assert all(ours < theirs + 0.002 for ours, theirs in zip(released, flat, strict=True))
    assert released[1] < flat[1] - 0.005


def test_with_a_release_the_first_answer_makes_it_little_worse_in_a_narrow_population(tmp_path):
    taste = (0.55, 0.08)
    prior = crowd_prior(tmp_path, n_raters=200, taste=taste)
    settings_ = SimulationSettings(n_raters=600, n_answers=1, seed=9, taste=taste, prior=prior)
    before, after = run_simulation(settings_).rmse
    flat_before, flat_after = run_simulation(replace(settings_, prior=None)).rmse
    assert after < 0.095 < flat_after
    assert after - before < 0.3 * (flat_after - flat_before)


# --- Pooling ---------------------------------------------------------------------------------


def test_pooling_finds_where_the_raters_are(world):
    rows = [
        answer(world, new_id(), strength=strength, response=2)
        for strength in np.random.default_rng(3).normal(0.7, 0.05, size=60).clip(0, 1)
    ]
    pooled = pool(rows)
    assert pooled.belief.mean == pytest.approx(0.7, abs=0.05)
    assert pooled.n_raters == 60
    assert 1 < pooled.rounds <= MAX_ROUNDS
    # Less spread than the average of what is believed of each, which counts doubt as difference.
    mixture = np.mean([Posterior.replay(judgements_of([row])).density() for row in rows], axis=0)
    spread = np.sqrt(mixture @ (STRENGTHS - mixture @ STRENGTHS) ** 2)
    assert pooled.belief.sd < spread


def test_pooling_takes_consenting_raters_only(world):
    rows = [
        answer(world, new_id(), strength=0.3, consent_scope="aggregate"),
        answer(world, new_id(), strength=0.9, consent_scope="personal_only"),
    ]
    assert pool(rows).n_raters == 1
    assert pool(rows).belief.mean == pytest.approx(pool(rows[:1]).belief.mean)


def test_careless_raters_count_less(world):
    careful = [answer(world, new_id(), strength=0.3) for _ in range(5)]
    rater = new_id()
    contradicting = [
        answer(world, rater, strength=strength, response=response, minutes=minute)
        for minute, (strength, response) in enumerate([(0.1, 4), (0.9, 0)] * 6)
    ]
    weight_of_all = pool([*careful, *contradicting]).weight
    assert weight_of_all < pool(careful).weight + 0.35


def test_nobody_is_pooled_to_an_even_curve():
    pooled = pool([])
    assert (pooled.n_raters, pooled.weight) == (0, 0)
    assert np.ptp(pooled.belief.density) < 0.01


def test_the_model_version_names_method_and_revision(world):
    assert model_version_of(world.rating()) == "embedded@0f3c2a"


def test_too_few_consenting_raters_are_refused(world):
    rows = study(world, n_raters=MIN_RATERS - 1) + study(
        world, n_raters=5, seed=2, scope="personal_only"
    )
    with pytest.raises(ReleaseError, match="got 19"):
        total_units(contributions(rows))
    assert len(contributions(rows)[0]) == N_BINS
