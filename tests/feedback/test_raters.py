import numpy as np
import pytest

from feedback import InvalidRatingError
from feedback.preference.posterior import Prior
from feedback.preference.response import BOUNDS, CUTS, STRENGTHS, likelihood, nuisances
from feedback.simulate.raters import HABITS, Crowd, Habits, answer, draw_from_grid, draw_people

N = 40_000


def crowd_at(m, cell, **habits):
    """Return N equal raters in one cell of the model's grid."""
    noise, leniency, lapse, _ = (axis[cell] for axis in nuisances())
    full = [np.full(N, value) for value in (STRENGTHS[m], noise, leniency, lapse)]
    return Crowd(*full, Habits(**habits))


@pytest.mark.parametrize("kind", [*CUTS, *BOUNDS, "best_of_n"])
@pytest.mark.parametrize(("m", "cell"), [(20, 14), (30, 1), (45, 22)])
def test_raters_of_the_model_answer_as_its_tables_say(kind, m, cell):
    shown = (0.35, 0.55, 0.85) if kind == "best_of_n" else (0.55,)
    answers = answer(crowd_at(m, cell), kind, np.tile(shown, (N, 1)), np.random.default_rng(0))
    expected = likelihood(kind, shown)[:, m, cell]
    found = np.bincount(answers, minlength=len(expected)) / N
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_habits_change_answers_in_their_direction():
    shown = np.full((N, 1), 0.7)

    def share(response, **habits):
        answers = answer(crowd_at(20, 14, **habits), "jar5", shown, np.random.default_rng(1))
        return (answers == response).mean()

    assert share(2, cut_scale=1.6) > share(2) + 0.05
    assert share(0, strong_side_noise=1.8) > share(0)


def test_people_are_as_described():
    people = draw_people(N, np.random.default_rng(0))
    assert people.ideal.mean() == pytest.approx(0.6 * 0.42 + 0.4 * 0.70, abs=0.01)
    assert (people.lapse == 0.3).mean() == pytest.approx(0.1, abs=0.01)
    assert np.median(people.noise) == pytest.approx(0.12, abs=0.005)
    assert people.ideal.min() >= 0.02
    careless = draw_people(N, np.random.default_rng(0), habits=HABITS["careless"])
    assert (careless.lapse == 0.3).mean() == pytest.approx(0.3, abs=0.01)
    narrow = draw_people(N, np.random.default_rng(0), taste=(0.55, 0.08))
    assert narrow.ideal.std() == pytest.approx(0.08, abs=0.005)


def test_raters_from_the_grid_follow_the_prior():
    prior = Prior("low", tuple(float(i < 10) for i in range(51)))
    raters = draw_from_grid(N, np.random.default_rng(0), prior=prior.density)
    assert (raters.ideal < 0.2).mean() == pytest.approx(prior.density[:10].sum(), abs=0.01)
    assert set(np.round(raters.ideal * 50, 9)) <= set(range(51))


def test_a_part_of_a_crowd_and_another_ideal_keep_the_rest():
    people = draw_people(5, np.random.default_rng(0))
    part = people.part(slice(1, 3)).at(np.zeros(2))
    assert part.ideal.tolist() == [0, 0]
    assert part.noise.tolist() == people.noise[1:3].tolist()


def test_a_question_without_listed_answers_is_refused():
    with pytest.raises(InvalidRatingError, match="`kind` must have listed answers, got 'slider'"):
        answer(crowd_at(1, 1), "slider", np.zeros((N, 1)), np.random.default_rng(0))
