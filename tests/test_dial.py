from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import ReleaseAccount
from feedback.preference.belief import Belief
from feedback.preference.judgement import Judgement
from feedback.preference.posterior import Posterior
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.report import verified_share_at
from privacy_core.schema import DEFAULT_STRENGTH, StrengthCurve
from shell.chart import HEIGHT, WIDTH, dial_chart, sentence
from shell.dial import (
    SCALE_FLOOR,
    privacy_floor,
    standing_of,
    starting_prior,
)
from shell.dial_words import progress_line, set_line, use_label, why_lines
from tests.privacy_core.tiny import CURVE

PHOTO = "0badcafe"


def judgement(strength, response, photo=PHOTO):
    return Judgement(kind="jar5", strengths=(strength,), response=response, photo_id=photo)


def standing(*judgements, floor=0.5):
    return standing_of(
        judgements, Posterior.replay(judgements), photo_id=PHOTO, floor=floor, model="0f3c2a"
    )


def settled():
    answers = ((0.5, 1), (0.6, 1), (0.65, 2), (0.7, 2), (0.8, 3), (0.75, 3), (0.6, 2), (0.9, 4))
    return standing(*(judgement(s, r) for s, r in answers * 2))


# --- The floor -----------------------------------------------------------------------------------


def test_the_shipped_models_floor_is_where_half_are_still_verified():
    curve = EmbeddedBackend.load().model.curve
    floor = privacy_floor(curve)
    sigmas = curve.rung_sigmas()
    assert floor == 0.5
    assert verified_share_at(sigmas[50 - 1], curve) <= 0.5
    assert verified_share_at(sigmas[45 - 1], curve) > 0.5


@pytest.mark.parametrize("curve", [None, CURVE])
def test_without_a_measurement_the_floor_is_what_the_scale_says(curve):
    assert privacy_floor(curve) == SCALE_FLOOR


def test_a_model_that_hides_nobody_has_its_floor_at_the_top():
    measured = {"sigmas": [0.05, 10.0], "verified": [1.0, 0.9, 0.8]}
    assert privacy_floor(replace(CURVE, measured=measured)) == 1.0


@given(st.floats(0.05, 0.95), st.floats(0.0, 0.45))
def test_the_floor_is_the_first_step_at_which_half_are_verified_or_fewer(high, low):
    measured = {"sigmas": [0.05, 0.5, 10.0], "verified": [1.0, 1.0, max(high, low), low]}
    curve = StrengthCurve((0.0, 0.5, 1.0), (0.05, 0.5, 10.0), measured)
    floor = privacy_floor(curve)
    sigmas = curve.rung_sigmas()
    shares = [verified_share_at(sigmas[5 * step - 1], curve) for step in range(1, 20)]
    steps = [step / 20 for step, share in enumerate(shares, 1) if share <= 0.5]
    assert floor == (steps[0] if steps else 1.0)


# --- Where a dial stands -------------------------------------------------------------------------


def test_more_answers_leave_fewer_to_give_until_it_is_settled():
    assert standing().answers_left > standing(judgement(0.7, 2)).answers_left > 0
    assert settled().is_settled
    assert settled().answers_left == 0


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(0, 4)), max_size=6))
def test_the_dial_is_on_a_step_never_below_the_decision_or_the_floor(answers):
    now = standing(*(judgement(tenths / 10, response) for tenths, response in answers))
    assert now.strength == round(now.strength * 20) / 20
    assert 0 <= now.strength - now.target.strength < 0.05
    assert now.floor <= now.strength <= 1
    assert now.low <= now.mean <= now.high


def test_a_decision_between_two_steps_is_rounded_towards_more_privacy():
    decisions = []
    for centre in (0.52, 0.58, 0.62, 0.68, 0.72):
        around = [
            judgement(centre + off, verdict) for off, verdict in ((-0.1, 1), (0, 2), (0.1, 3))
        ]
        decisions.append(standing(*around * 2))
    between = [now for now in decisions if now.target.strength % 0.05 > 0.005]
    assert between
    assert all(now.target.source == "own" for now in decisions)
    assert all(0 <= now.strength - now.target.strength < 0.05 for now in decisions)
    nearest = [round(now.target.strength * 20) / 20 for now in between]
    assert any(step < now.target.strength for step, now in zip(nearest, between, strict=True))


def test_a_standing_names_the_answers_it_came_from():
    first, second = standing(judgement(0.7, 2)), standing(judgement(0.7, 1))
    assert first.target.feedback_revision == standing(judgement(0.7, 2)).target.feedback_revision
    assert first.target.feedback_revision != second.target.feedback_revision
    assert first.target.model_version == "0f3c2a"


# --- Where a dial starts -------------------------------------------------------------------------

RELEASE = {
    "name": "dp-eps1-2026Q4",
    "epsilon": "1",
    "drawn_at": "2026-11-20T12:00:00+00:00",
    "model_version": "embedded@0f3c2a",
    "n_raters": 200,
    "histogram": [0, 0, 0, 90_000, 100_000, 10_000, 0, 0, 0, 0],
}


def account_with(tmp_path, *releases):
    path = tmp_path / "releases.json"
    path.write_text(json.dumps({"schema_version": 1, "releases": releases}))
    return ReleaseAccount(path)


def test_without_answers_a_dial_starts_at_the_default_strength():
    assert standing().target.strength == DEFAULT_STRENGTH
    assert standing().target.source == "population"


def test_with_a_release_a_dial_starts_where_the_release_has_it(tmp_path):
    prior, said = starting_prior(
        account_with(tmp_path, RELEASE), model_version=RELEASE["model_version"]
    )
    assert said == "Dials start from release dp-eps1-2026Q4 about 200 raters (ε = 1)."
    now = standing_of(
        (), Posterior.replay((), prior=prior), photo_id=PHOTO, floor=0.0, model="0f3c2a"
    )
    assert now.target.strength == Belief(prior.density).quantile(0.8)
    assert 0.4 < now.target.strength < 0.6
    assert (now.target.source, now.target.prior) == ("population", RELEASE["name"])


def test_a_release_about_another_model_says_nothing_about_this_one(tmp_path):
    account = account_with(tmp_path, RELEASE)
    assert starting_prior(account, model_version="embedded@9a9a") == (None, None)
    assert starting_prior(ReleaseAccount(tmp_path / "no.json"), model_version="m@1") == (None, None)


def test_a_release_that_is_mostly_noise_is_used_and_called_so(tmp_path):
    few = RELEASE | {"n_raters": 20, "epsilon": "1/2"}
    prior, said = starting_prior(
        account_with(tmp_path, few), model_version=RELEASE["model_version"]
    )
    assert prior is not None
    assert "is mostly noise: raters times ε should be at least 20, got 10" in said


def test_an_account_that_cannot_be_read_keeps_no_page_from_starting(tmp_path):
    path = tmp_path / "releases.json"
    path.write_text("[]")
    prior, said = starting_prior(ReleaseAccount(path), model_version="m@1")
    assert prior is None
    assert "must be this program's account" in said
    assert said.endswith("Dials start from the public default.")


# --- The chart -----------------------------------------------------------------------------------


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(0, 4)), max_size=6))
def test_the_chart_is_one_picture_with_its_sentence_and_stays_in_its_frame(answers):
    now = standing(*(judgement(tenths / 10, response) for tenths, response in answers))
    svg = ElementTree.fromstring(dial_chart(now))  # noqa: S314 - drawn here
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == sentence(now)
    for element in svg.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, 0)) <= WIDTH
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= HEIGHT


def test_the_chart_shows_band_mean_floor_and_dial_where_they_are():
    now = standing(judgement(0.7, 2), judgement(0.8, 3), judgement(0.6, 1))
    svg = ElementTree.fromstring(dial_chart(now))  # noqa: S314 - drawn here
    parts = {element.get("class"): element for element in svg.iter() if element.get("class")}
    left, right = 14, 326

    def strength(x):
        return (x - left) / (right - left)

    band = [strength(x) for x in numbers(parts["band"], "x1", "x2")]
    assert band == pytest.approx([now.low, now.high], abs=1e-3)
    assert strength(numbers(parts["mean"], "cx")[0]) == pytest.approx(now.mean, abs=1e-3)
    assert strength(numbers(parts["floor"], "x1")[0]) == pytest.approx(0.5, abs=1e-3)
    (line,) = [e for e in svg.iter() if e.get("class") == "decision" and e.tag.endswith("line")]
    assert strength(numbers(line, "x1")[0]) == pytest.approx(now.strength, abs=1e-3)
    assert now.target.source == "population"
    assert f"for now {now.strength:.2f}" in "".join(svg.itertext())


def test_the_chart_calls_a_strength_yours_once_it_comes_from_your_answers():
    settled = standing(*(judgement(strength, 2) for strength in (0.7, 0.72, 0.7, 0.68, 0.7, 0.7)))
    assert settled.target.source == "own"
    assert f"your dial {settled.strength:.2f}" in dial_chart(settled)


def test_the_area_is_highest_where_the_belief_is():
    now = standing(judgement(0.7, 2), judgement(0.8, 3), judgement(0.6, 1))
    path = re.search(r'class="belief" d="M([^"]+)Z"', dial_chart(now))[1]
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    top = min(points, key=lambda point: point[1])
    peak = now.density.index(max(now.density)) / (len(now.density) - 1)
    assert (top[0] - 14) / 312 == pytest.approx(peak, abs=1e-3)
    assert len(points) == len(now.density) + 2


# --- Its words -----------------------------------------------------------------------------------


def test_the_words_follow_from_the_standing():
    early, late = standing(judgement(0.7, 2)), settled()
    assert re.match(r"About \d+ more answers? and", progress_line(early))
    assert "settled" in progress_line(late)
    assert "we stop asking" in progress_line(late)
    assert use_label(early) == "Use 0.95 for now"
    assert use_label(late) == f"Use my strength, {late.strength:.2f}"
    assert set_line(early) == ""
    assert f"your strength, {late.strength:.2f}" in set_line(late)


def test_one_more_answer_is_one():
    assert progress_line(replace(settled(), is_settled=False, answers_left=1)).startswith(
        "About 1 more answer and"
    )


def test_why_names_answers_floor_and_others():
    early, late = why_lines(standing(judgement(0.7, 2))), why_lines(settled())
    assert "1 answer about 1 photo" in early
    assert "where everyone starts" in early
    assert "16 answers about 1 photo" in late
    assert "80%" in late
    for lines in (early, late):
        assert "**The floor:** 0.50" in lines
        assert "Not covered by ε" in lines


def test_why_says_when_the_floor_raised_the_dial():
    answers = [judgement(s / 10, 3 if s > 1 else 2) for s in (1, 2, 3, 1, 2, 3)]
    now = standing(*answers)
    assert now.target.floor_applied
    assert "Your answers alone would say less" in why_lines(now)
    assert "Your answers alone" not in why_lines(settled())
