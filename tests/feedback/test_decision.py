from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import InvalidRatingError
from feedback.preference.decision import Provenance, answers_left, decide, is_settled
from feedback.preference.judgement import Judgement
from feedback.preference.posterior import Posterior, Prior
from feedback.preference.selection import choose_page
from feedback.simulate.raters import answer, draw_people

RUNGS = tuple(round(0.05 + 0.1 * i, 2) for i in range(10))
PROVENANCE = Provenance(
    model_version="0f3c2a", feedback_revision="9" * 40, consent_scope="aggregate"
)


def jar(strength, response, photo):
    return Judgement(kind="jar5", strengths=(strength,), response=response, photo_id=photo)


def around(ideal, n, photo=None):
    """Return the posterior of a careful rater after n answers, by default each on a new photo."""
    turns = [(ideal, 2), (ideal - 0.15, 1), (ideal + 0.15, 3), (ideal, 2)]
    history = [jar(*turns[i % 4], photo or str(i)) for i in range(n)]
    return Posterior.replay(history)


def target(posterior, **changes):
    request = {"population": 0.7, "floor": 0.0, "provenance": PROVENANCE}
    return decide(posterior, **(request | changes))


def test_a_known_rater_gets_their_own_high_quantile():
    posterior = around(0.5, 12)
    found = target(posterior)
    assert found.source == "own"
    assert found.strength == posterior.quantile(0.8) >= found.mean
    assert not found.floor_applied


def test_a_target_says_what_it_rests_on():
    posterior = Posterior.replay(
        [jar(0.5, 2, str(i // 2)) for i in range(8)], prior=Prior("dp-eps1-2026Q4", (1.0,) * 51)
    )
    assert asdict(target(posterior, quantile=0.9)) == {
        "strength": posterior.quantile(0.9),
        "mean": posterior.mean,
        "sd": posterior.sd,
        "quantile": 0.9,
        "n_ratings": 8,
        "n_photos": 4,
        "source": "own",
        "floor_applied": False,
        "model_version": "0f3c2a",
        "feedback_revision": "9" * 40,
        "consent_scope": "aggregate",
        "prior": "dp-eps1-2026Q4",
    }


def test_too_few_answers_or_too_wide_a_posterior_give_the_populations_strength():
    few = around(0.3, 3)
    assert few.n_answers < 4
    wide = Posterior.replay([jar(0.05, 4 * (i % 2), str(i)) for i in range(6)])
    assert wide.sd > 0.10
    for posterior in (Posterior(), few, wide):
        found = target(posterior, population=0.7)
        assert (found.strength, found.source) == (0.7, "population")


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0, 2, 12]))
def test_the_floor_raises_and_never_lowers(floor, population, ideal, n):
    posterior = around(min(max(ideal, 0.2), 0.8), n)
    free = target(posterior, population=population)
    kept = target(posterior, population=population, floor=floor)
    assert kept.strength == max(free.strength, floor)
    assert kept.floor_applied == (kept.strength > free.strength)


@given(st.floats(0, 1), st.floats(0, 1))
def test_dearer_mistakes_towards_too_weak_give_more_strength(first, second):
    posterior = around(0.5, 8)
    low, high = sorted((first, second))
    assert target(posterior, quantile=low).strength <= target(posterior, quantile=high).strength


def test_one_photo_is_decided_by_its_own_ideal():
    posterior = Posterior.replay(
        [jar(s, 2, "light") for s in (0.35, 0.35, 0.35)] + [jar(0.75, 2, "dark")] * 3
    )
    light, dark = (target(posterior, photo_id=p).strength for p in ("light", "dark"))
    assert light + 0.1 < dark


@pytest.mark.parametrize("name", ["population", "floor", "quantile"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_numbers_outside_the_unit_are_refused_by_name(name, value):
    with pytest.raises(InvalidRatingError, match=rf"`{name}` must be in \[0, 1\], got {value}"):
        target(Posterior(), **{name: value})


# --- When to stop ----------------------------------------------------------------------------


def test_a_rater_is_settled_by_enough_agreeing_answers_and_not_by_two():
    assert not is_settled(Posterior())
    sure = Prior("sure", tuple(np.exp(-((np.arange(51) - 25) ** 2) / 8)))
    two = Posterior.replay([jar(0.5, 2, "a"), jar(0.5, 2, "b")], prior=sure)
    assert two.sd < 0.06
    assert not is_settled(two)
    assert answers_left(two) == 1
    assert is_settled(two.update(jar(0.5, 2, "c")))
    assert answers_left(two.update(jar(0.5, 2, "c"))) == 0


def test_one_photo_can_settle_itself_but_not_the_rater():
    posterior = around(0.5, 16, photo="only")
    assert is_settled(posterior, photo_id="only")
    assert not is_settled(posterior)
    assert answers_left(posterior) > answers_left(posterior, photo_id="only") == 0


def answer_until_settled(number, generator, *, photos):
    """Return what `answers_left` said before each answer, until one rater was settled."""
    person = draw_people(50, np.random.default_rng(7)).part(slice(number, number + 1))
    posterior, said = Posterior(), []
    for turn in range(40):
        photo = str(turn) if photos == "many" else "only"
        asked = None if photos == "many" else "only"
        if is_settled(posterior, photo_id=asked):
            break
        said.append(answers_left(posterior, photo_id=asked))
        chosen = choose_page(
            posterior, rungs=RUNGS, n_shown=1, floor=0.0, generator=generator, photo_id=photo
        )
        clicked = answer(person, "jar5", np.asarray([chosen.strengths]), generator)
        posterior = posterior.update(jar(chosen.strengths[0], int(clicked[0]), photo))
    return said


@pytest.mark.parametrize("photos", ["many", "one"])
def test_the_number_of_answers_left_is_about_right(photos):
    generator = np.random.default_rng(8)
    errors = {0: [], 3: [], 6: []}
    for number in range(50):
        said = answer_until_settled(number, generator, photos=photos)
        for turn, found in errors.items():
            if len(said) > turn:
                found.append(said[turn] - (len(said) - turn))
    for turn, found in errors.items():
        assert abs(np.median(found)) <= 3, (turn, np.median(found))
        assert np.mean(np.abs(found)) <= 5, (turn, np.mean(np.abs(found)))
