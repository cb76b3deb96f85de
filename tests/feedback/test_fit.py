import json
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest

from feedback import (
    Belief,
    Consent,
    FitSettings,
    InvalidRatingError,
    Posterior,
    ReleaseAccount,
    ReleaseError,
    choose_model,
    fit_preferences,
    judgements_of,
    new_id,
    prior_of,
    release_for,
    write_preferences,
)
from feedback.fit.basis import digest_of_rows
from feedback.population import pooling as population_module
from feedback.population.account import ACCOUNT_NAME
from feedback.simulate.rows import SimulatedStudy, simulated_pages, study_raters

MODEL = "embedded@simulated"
KEYS = {
    "schema_version",
    "generated_at",
    "feedback_revision",
    "model_version",
    "population",
    "subjects",
}


@pytest.fixture(scope="module")
def simulated(world):
    return SimulatedStudy(n_raters=24, n_pages=6, seed=4, started_at=world.now, n_photos=3)


@pytest.fixture(scope="module")
def crowd(simulated):
    pages = simulated_pages(simulated, key=b"k" * 32, consent=Consent("2026-11", "aggregate"))
    return [row for _, rows in pages for row in rows]


@pytest.fixture
def account(tmp_path, world):
    return ReleaseAccount(tmp_path / ACCOUNT_NAME, clock=lambda: world.now)


def fitted(
    world, ratings, links, *, release=None, spent=Fraction(0), model_version=MODEL, **settings
):
    return fit_preferences(
        ratings,
        links,
        release=release,
        spent=spent,
        feedback_revision="f" * 40,
        model_version=model_version,
        settings=FitSettings(**({"floor": 0.0} | settings)),
        generated_at=world.now,
    )


def likes(world, strength, *, n=8, rater=None, scope="aggregate", revision="simulated", **changes):
    """Rows of a rater who finds one strength just right, on different photos."""
    rater = rater or new_id()
    return [
        world.rating(
            rating_id=new_id(),
            rater_id=rater,
            page_id=new_id(),
            photo_id=new_id(),
            strength=min(max(strength + shift, 0.0), 1.0),
            response_type="jar5",
            response=response,
            consent_scope=scope,
            model_revision=revision,
            created_at=(world.now + timedelta(minutes=minute)).replace(microsecond=0),
            **changes,
        )
        for minute, (shift, response) in enumerate(([(0.0, 2), (-0.2, 1), (0.2, 3)] * n)[:n])
    ]


# --- Which rows ------------------------------------------------------------------------------


def test_the_one_model_is_taken_and_of_several_one_must_be_named(world):
    one = world.rating()
    other = world.rating(model_revision="9a9a")
    assert choose_model([one]) == "embedded@0f3c2a"
    assert choose_model([one, other], "embedded@9a9a") == "embedded@9a9a"
    assert choose_model([one, other], "9a9a") == "embedded@9a9a"
    with pytest.raises(InvalidRatingError, match="got several") as caught:
        choose_model([one, other, other])
    assert "embedded@0f3c2a (1 rows), embedded@9a9a (2 rows)" in str(caught.value)
    with pytest.raises(InvalidRatingError, match="with that name"):
        choose_model([one], "blur@1")
    twin = world.rating(method="blur")
    with pytest.raises(InvalidRatingError, match="none or several"):
        choose_model([one, twin], "0f3c2a")


def test_an_empty_store_has_nothing_to_fit():
    with pytest.raises(InvalidRatingError, match="at least one rating to fit, got none"):
        choose_model([])
    with pytest.raises(InvalidRatingError, match="got none"):
        choose_model([], MODEL)


def test_the_digest_of_rows_rows_changes_with_any_row_and_not_with_their_order(crowd):
    digest = digest_of_rows(crowd)
    assert digest.startswith("sha256:")
    assert digest == digest_of_rows(crowd[::-1])
    assert digest != digest_of_rows(crowd[1:])
    assert digest != digest_of_rows([replace(crowd[0], response_ms=86_000), *crowd[1:]])


# --- The population --------------------------------------------------------------------------


def test_a_release_is_drawn_once_and_then_reused(crowd, account):
    first = release_for(crowd, account, model_version=MODEL)
    again = release_for(crowd[:60], account, model_version=MODEL, epsilon=Fraction(1))
    assert first == again
    assert (first.n_raters, account.spent()) == (24, 1)
    second = release_for(crowd, account, model_version=MODEL, epsilon=Fraction(1, 2), is_new=True)
    assert second != first
    assert account.spent() == Fraction(3, 2)


def test_another_epsilon_than_the_kept_release_s_is_no_new_release(crowd, account):
    release_for(crowd, account, model_version=MODEL)
    with pytest.raises(ReleaseError, match="--new-release"):
        release_for(crowd, account, model_version=MODEL, epsilon=Fraction(2))
    assert account.spent() == 1


def test_a_release_about_another_model_is_not_reused(crowd, account):
    release_for(crowd, account, model_version=MODEL)
    about_2 = [replace(row, model_revision="2") for row in crowd]
    other = release_for([*crowd, *about_2], account, model_version="embedded@2")
    assert (other.model_version, other.n_raters) == ("embedded@2", 24)
    assert account.spent() == 2


def test_a_release_and_a_fit_are_about_one_model_and_leave_the_rows_of_others_out(
    world, crowd, account
):
    few = likes(world, 0.4, n=9, revision="2")
    rater = few[0].rater_id
    both = [*crowd, *few, *likes(world, 0.9, n=9, rater=rater)]
    assert release_for(both, account, model_version="embedded@2") is None
    assert release_for(both, account, model_version=MODEL).n_raters == 25
    found = [
        fitted(world, rows, {"Ada": rater}, model_version="embedded@2") for rows in (few, both)
    ]
    assert found[0] == found[1]
    assert found[0].subjects["Ada"].mean == pytest.approx(0.4, abs=0.05)
    assert fitted(world, both, {"Ada": rater}).subjects["Ada"].mean == pytest.approx(0.9, abs=0.06)


def test_a_consent_narrowed_for_one_model_is_narrowed_for_all(world, crowd, account):
    me = crowd[0].rater_id
    later = likes(world, 0.4, n=1, rater=me, scope="personal_only", revision="2")
    later = [replace(later[0], created_at=world.now.replace(year=2027, microsecond=0))]
    assert release_for([*crowd, *later], account, model_version=MODEL).n_raters == 23
    assert fitted(world, crowd, {}).population.n_raters == 24
    assert fitted(world, [*crowd, *later], {}).population.n_raters == 23


def test_rows_of_programs_have_their_own_dial_and_make_no_release(world, crowd, account):
    by_programs = [replace(row, client="api") for row in crowd]
    assert release_for(by_programs, account, model_version=MODEL) is None
    assert fitted(world, by_programs, {}).population.n_raters == 0
    mine = likes(world, 0.4, n=9, client="api")
    assert fitted(world, mine, {"Ada": mine[0].rater_id}).subjects["Ada"].source == "own"


def test_the_release_is_what_a_linked_rater_starts_from(world, crowd, account):
    release = release_for(crowd, account, model_version=MODEL)
    rows = likes(world, 0.4, n=2)
    links = {"Ada": rows[0].rater_id, "Bo": new_id()}
    flat, known = (fitted(world, rows, links, release=r).subjects for r in (None, release))
    prior = prior_of(release)
    assert known["Ada"].mean == pytest.approx(
        Posterior.replay(judgements_of(rows), prior=prior).mean, abs=1e-9
    )
    assert abs(known["Ada"].mean - flat["Ada"].mean) > 0.005
    # Of whom nothing is known, everything comes from the release, by the quantile asked for.
    assert known["Bo"].mean == pytest.approx(Belief(prior.density).mean)
    for quantile in (0.5, 0.8, 0.95):
        found = fitted(world, rows, links, release=release, quantile=quantile)
        assert found.subjects["Bo"].strength == Belief(prior.density).quantile(quantile)
        assert found.subjects["Bo"].strength == found.population.strength


def test_too_few_raters_make_no_release_and_are_refused_a_new_one(crowd, account):
    raters = sorted({row.rater_id for row in crowd})[:19]
    few = [row for row in crowd if row.rater_id in raters]
    assert release_for(few, account, model_version=MODEL) is None
    with pytest.raises(ReleaseError, match="at least 20"):
        release_for(few, account, model_version=MODEL, is_new=True)
    assert account.spent() == 0


def test_without_a_release_everyone_gets_the_public_default(world, crowd):
    for ratings in (crowd[:5], likes(world, 0.1) + likes(world, 0.1)):
        population = fitted(world, ratings, {}).population
        assert (population.strength, population.release, population.epsilon) == (0.8, None, 0.0)
        assert population.sd == pytest.approx(0.2944, abs=1e-3)
    assert population.n_raters == 2


def test_the_population_is_the_release_s_and_states_what_it_cost(world, crowd, account):
    release = release_for(crowd, account, model_version=MODEL)
    population = fitted(
        world, crowd[:1], {}, release=release, spent=account.spent(), quantile=0.5
    ).population
    curve = prior_of(release).density
    assert population.strength == pytest.approx(
        np.linspace(0, 1, 51)[np.searchsorted(np.cumsum(curve), 0.5)]
    )
    assert (population.n_raters, population.epsilon) == (24, 1.0)
    assert population.release == "dp-eps1-2026Q4"


def test_what_others_answered_reaches_nobody_but_through_the_release(
    world, simulated, crowd, account, monkeypatch
):
    release = release_for(crowd, account, model_version=MODEL)
    me = study_raters(simulated)[0].rater_id
    links = {"Ada": me, "Bo": new_id()}
    mine = [row for row in crowd if row.rater_id == me]
    monkeypatch.setattr(population_module, "pool", pytest.fail)
    for others in ([], likes(world, 0.02), likes(world, 0.98, n=40)):
        neighbour = fitted(world, [*mine, *others], links, release=release)
        assert neighbour == fitted(world, crowd, links, release=release)


# --- One's own dial --------------------------------------------------------------------------


def test_enough_answers_give_one_s_own_strength_and_too_few_the_population_s(world):
    sure, unsure = likes(world, 0.4, n=9), likes(world, 0.4, n=2)
    links = {"Ada": sure[0].rater_id, "Bo": unsure[0].rater_id, "Cy": new_id()}
    found = fitted(world, [*sure, *unsure], links).subjects
    assert list(found) == ["Ada", "Bo", "Cy"]
    ada, bo, cy = found.values()
    assert (ada.source, ada.n_ratings, ada.n_photos, ada.floor_applied) == ("own", 9, 9, False)
    assert ada.mean == pytest.approx(0.4, abs=0.05)
    assert ada.mean < ada.strength < ada.mean + 0.15
    assert (bo.source, bo.strength, bo.n_ratings) == ("population", 0.8, 2)
    assert (cy.source, cy.strength, cy.n_ratings, cy.n_photos) == ("population", 0.8, 0, 0)


def test_a_rater_may_decide_for_several_subjects(world):
    rows = likes(world, 0.4, n=9)
    rater = rows[0].rater_id
    found = fitted(world, rows, {"Ada": rater, "Bo": rater}).subjects
    assert found["Ada"] == found["Bo"]


def test_personal_only_raters_have_their_dial_and_are_not_in_the_population(world):
    rows = likes(world, 0.4, n=9, scope="personal_only")
    preferences = fitted(world, rows, {"Ada": rows[0].rater_id})
    assert preferences.subjects["Ada"].source == "own"
    assert preferences.population.n_raters == 0


def test_the_floor_raises_a_strength_and_never_lowers_one(world):
    low, high = likes(world, 0.1, n=9), likes(world, 0.85, n=9)
    links = {"low": low[0].rater_id, "high": high[0].rater_id, "none": new_id()}
    free = fitted(world, [*low, *high], links).subjects
    floored = fitted(world, [*low, *high], links, floor=0.5).subjects
    assert (floored["low"].strength, floored["low"].floor_applied) == (0.5, True)
    assert floored["high"] == free["high"]
    assert floored["none"] == free["none"]
    above = fitted(world, [*low, *high], links, floor=0.9)
    assert {found.strength for found in above.subjects.values()} == {0.9}
    assert above.subjects["none"].floor_applied
    assert above.population.strength == 0.9


def test_a_higher_quantile_protects_more(world):
    rows = likes(world, 0.4, n=9)
    links = {"Ada": rows[0].rater_id}
    strengths = [
        fitted(world, rows, links, quantile=q).subjects["Ada"].strength for q in (0.5, 0.8, 0.95)
    ]
    assert strengths == sorted(strengths)
    assert strengths[0] < strengths[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floor": 1.1}, "`floor` must be in"),
        ({"floor": float("nan")}, "`floor` must be in"),
        ({"quantile": 1.0}, "`quantile` must be between"),
        ({"quantile": float("nan"), "floor": -1}, r"`floor` .* `quantile`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InvalidRatingError, match=message):
        FitSettings(**settings)


# --- The file --------------------------------------------------------------------------------


def test_the_file_is_the_contract_s_and_names_no_rater(world, crowd, account, tmp_path):
    release = release_for(crowd, account, model_version=MODEL)
    rater = crowd[0].rater_id
    preferences = fitted(world, crowd, {"Ada ü": rater}, release=release, spent=account.spent())
    path = tmp_path / "preferences.json"
    write_preferences(preferences, path)
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    assert record.keys() == KEYS
    assert record["schema_version"] == 1
    assert record["generated_at"] == "2026-11-20T12:00:00+00:00"
    assert (record["model_version"], record["feedback_revision"]) == (MODEL, "f" * 40)
    assert record["population"].keys() == {"strength", "sd", "n_raters", "epsilon", "release"}
    assert record["subjects"]["Ada ü"].keys() == {
        "strength",
        "mean",
        "sd",
        "n_ratings",
        "n_photos",
        "source",
        "floor_applied",
    }
    assert not {row.rater_id for row in crowd} & set(text.replace('"', " ").split())
    assert rater not in text
    assert path.stat().st_mode & 0o777 == 0o600
