"""Reports: what a variant guarantees and does not, and nothing that must stay secret."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.anonymize import Anonymizer
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.noise import NoiseKey
from privacy_core.privacy import (
    NO_NOISE,
    NOT_COVERED,
    PUBLIC_NOISE,
    epsilon_of,
    matched_filter_tpr,
    mu_of,
)
from privacy_core.report import (
    OWNERS_EYES,
    identity_report,
    ladder_report,
    ladder_statement,
    variant_report,
    verified_share,
)
from privacy_core.schema import AttributePolicy
from tests.privacy_core.tiny import CURVE, FixedDetector, face_at, smooth_photo, tiny_model

FACES = (face_at(20, 15), face_at(100, 70, 0.5))
KEY = NoiseKey(b"k" * 32, secret=True)


@pytest.fixture(scope="module")
def backend():
    torch.set_num_threads(1)
    return EmbeddedBackend(tiny_model())


def opened(backend, *, faces=FACES, key=KEY, **options):
    return Anonymizer(backend, FixedDetector(*faces)).open(smooth_photo(), key=key, **options)


def report_of(backend, strength=0.5, **options):
    curve = backend.curve
    return variant_report(opened(backend, **options).variant(strength), curve=curve)


def plain(report):
    """Return the report after a trip through JSON, which refuses what JSON cannot say."""
    return json.loads(json.dumps(report, allow_nan=False))


def test_a_report_states_strength_noise_and_guarantee(backend):
    report = plain(report_of(backend))
    made = opened(backend).variant(0.5)
    assert report["schema_version"] == 1
    assert report["strength"] == 0.5
    assert report["sigma"] == pytest.approx(0.5)
    assert report["mu"] == pytest.approx(mu_of(0.5, 1.5 * math.sqrt(24)))
    assert report["epsilon"] == pytest.approx(epsilon_of(report["mu"]))
    assert report["delta"] == 1e-5
    assert report["basis"] == "gaussian mechanism"
    assert report["reason"] is None
    assert (report["model_id"], report["model_revision"]) == ("embedded", "tiny")
    assert report["protected"] is True
    assert report["n_faces"] == 2
    assert report["policy"] == made.policy.as_json()


@pytest.mark.parametrize("strength", [0, 0.3, 1])
@pytest.mark.parametrize("name", ["embedded", "blur", "pixelate", "solid"])
def test_every_report_says_what_is_not_covered(backend, name, strength):
    used = backend if name == "embedded" else load_backend(name)
    report = plain(report_of(used, strength))
    assert report["not_covered"] == list(NOT_COVERED)
    ladder = plain(ladder_report({"one.png": opened(used).variant(strength)}))
    assert ladder["not_covered"] == list(NOT_COVERED)


@pytest.mark.parametrize(
    ("name", "strength", "key", "reason"),
    [
        ("embedded", 0, KEY, NO_NOISE),
        ("embedded", 0.5, NoiseKey.from_seed(3), PUBLIC_NOISE),
        ("embedded", 1, NoiseKey.from_seed(3), PUBLIC_NOISE),
        ("blur", 0.5, KEY, "blur adds no noise and can be partly reversed"),
    ],
)
def test_without_a_guarantee_epsilon_is_null_with_a_reason(backend, name, strength, key, reason):
    used = backend if name == "embedded" else load_backend(name)
    report = plain(report_of(used, strength, key=key))
    for part in (report, report["all_faces"], *report["faces"]):
        assert part["epsilon"] is None
        assert part["mu"] is None
        assert part["reason"] == reason
        assert part["basis"] == "measured only"
    assert report["worst_case"]["true_positive_rate"] in (None, 1.0)


def test_pure_noise_costs_nothing(backend):
    report = plain(report_of(backend, 1))
    assert report["sigma"] is None
    assert report["epsilon"] == 0
    assert report["mu"] == 0
    assert report["worst_case"]["true_positive_rate"] == pytest.approx(1e-3)


def test_several_faces_together_cost_more_than_one(backend):
    report = plain(report_of(backend))
    assert [part["face"] for part in report["faces"]] == [1, 2]
    assert all(part["epsilon"] == report["epsilon"] for part in report["faces"])
    assert report["all_faces"]["mu"] == pytest.approx(math.sqrt(2) * report["mu"])
    assert report["all_faces"]["epsilon"] > report["epsilon"]
    assert "together" in report["all_faces"]["note"]
    single = plain(report_of(backend, faces=FACES[:1]))
    assert single["all_faces"]["mu"] == pytest.approx(single["mu"])


def test_a_covered_face_has_no_share_in_the_cost(backend):
    broken = face_at(100, 70, 0.1)
    report = plain(report_of(backend, faces=(FACES[0], broken), solid_on_failure=True))
    assert report["covered"] == [2]
    assert [part["covered"] for part in report["faces"]] == [False, True]
    assert report["faces"][1]["epsilon"] is None
    assert "covered" in report["faces"][1]["reason"]
    assert report["all_faces"]["mu"] == pytest.approx(report["mu"])


def test_a_ladder_costs_what_its_weakest_rung_costs(backend):
    variants = opened(backend).ladder([0.3, 0.5, 1])
    named = {f"{v.strength}.png": v for v in variants}
    report = plain(ladder_report(named, curve=CURVE))
    costs = [part["epsilon"] for part in report["variants"]]
    assert [part["file"] for part in report["variants"]] == list(named)
    assert report["ladder"]["epsilon"] == max(costs) == costs[0]
    assert ladder_statement(variants[::-1]) == ladder_statement(variants)


def test_a_ladder_with_a_rung_that_guarantees_nothing_guarantees_nothing(backend):
    variants = opened(backend).ladder([0.5, 0, 1])
    report = plain(ladder_report({str(i): v for i, v in enumerate(variants)}))
    assert report["ladder"]["epsilon"] is None
    assert report["ladder"]["reason"] == NO_NOISE


def test_the_worst_case_stands_beside_epsilon(backend):
    report = plain(report_of(backend, 0.8))
    worst = report["worst_case"]
    assert worst["code_distance"] == 6.0
    assert worst["false_positive_rate"] == 1e-3
    expected = matched_filter_tpr(6.0, report["sigma"], fpr=1e-3)
    assert worst["true_positive_rate"] == pytest.approx(expected)
    assert report_of(backend, 0)["worst_case"]["true_positive_rate"] == 1


def test_a_worst_case_that_was_not_measured_is_null_with_a_reason(backend):
    kept = report_of(backend, policy=AttributePolicy(keep=("beard",)))["worst_case"]
    without_curve = variant_report(opened(backend).variant(0.5))["worst_case"]
    baseline = report_of(load_backend("blur"))["worst_case"]
    public = report_of(backend, key=NoiseKey.from_seed(1))["worst_case"]
    for worst in (kept, without_curve, baseline, public):
        assert worst["true_positive_rate"] is None
        assert worst["reason"]
    assert public["reason"] == PUBLIC_NOISE


def test_notes_of_the_photo_are_passed_on(backend):
    made = opened(backend).variant(1)
    assert variant_report(made, photo_notes=("first frame of 3",))["photo_notes"] == [
        "first frame of 3"
    ]


def words(value):
    """Return every key and text in a report."""
    if isinstance(value, dict):
        return [*value, *(word for part in value.values() for word in words(part))]
    if isinstance(value, list):
        return [word for part in value for word in words(part)]
    return [value] if isinstance(value, str) else []


def test_no_report_holds_a_seed_a_key_or_a_similarity_unasked(backend):
    for key in (KEY, NoiseKey.from_seed(12345)):
        made = opened(backend, key=key).variant(0.5)
        for report in (variant_report(made, curve=CURVE), ladder_report({"a.png": made})):
            text = json.dumps(report)
            assert "12345" not in text
            assert key.material.hex() not in text
            assert not {"seed", "key", "similarity", "distance", "measured"} & set(words(report))


class MeanColour:
    """A recogniser that knows a face by its mean colour."""

    name = "mean-colour"

    def embed(self, pixels, landmarks):
        x, y = landmarks.mean(0).astype(int)
        return pixels[y - 5 : y + 5, x - 5 : x + 5].mean((0, 1))

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


def test_the_owner_may_see_how_far_each_face_moved(backend):
    photo = smooth_photo()
    broken = face_at(100, 70, 0.1)
    faces = (FACES[0], broken)
    made = opened(backend, faces=faces, solid_on_failure=True).variant(0.8)
    measured = identity_report(photo.pixels, made, faces, recogniser=MeanColour(), curve=CURVE)
    assert measured["note"] == OWNERS_EYES
    assert measured["recogniser"] == "mean-colour"
    assert measured["threshold"] is None
    expected = MeanColour().distance(
        *(MeanColour().embed(p, FACES[0].landmarks) for p in (photo.pixels, made.image))
    )
    assert measured["faces"][0] == {"face": 1, "distance": expected}
    assert measured["faces"][1]["distance"] is None
    report = plain(variant_report(made, measured=measured))
    assert report["measured"]["faces"][0]["distance"] == pytest.approx(expected)
    ladder = plain(ladder_report({"a.png": made}, measured={"a.png": measured}))
    assert ladder["variants"][0]["measured"] == report["measured"]


def test_the_threshold_comes_from_the_calibration(backend):
    curve = type(CURVE)(
        CURVE.strengths, CURVE.sigmas, {"threshold": 0.55, "recogniser": MeanColour.name}
    )
    made = opened(backend).variant(0.8)
    found = identity_report(
        smooth_photo().pixels, made, FACES, recogniser=MeanColour(), curve=curve
    )
    assert found["threshold"] == 0.55
    assert len(found["faces"]) == 2


def test_the_recognisers_share_stands_beside_epsilon_or_says_why_not(backend):
    measured = {"sigmas": [0.1, 5.0], "verified": [1.0, 0.9, 0.02], "recogniser": "some"}
    curve = replace(backend.curve, measured=measured)
    photo = smooth_photo()
    opened = Anonymizer(backend, FixedDetector(face_at(20, 15))).open(photo, key=KEY)
    shares = {}
    for strength in (0.0, 0.1, 1.0):
        found = variant_report(opened.variant(strength), curve=curve)["recogniser"]
        shares[strength] = found["verified_share_at_calibration"]
        assert (found["reason"] is None) == (shares[strength] is not None)
    assert shares == {0.0: None, 0.1: 0.9, 1.0: 0.02}
    assert variant_report(opened.variant(1.0))["recogniser"]["reason"]


def test_the_recognisers_share_is_read_between_the_noise_levels_that_were_measured(backend):
    opened = Anonymizer(backend, FixedDetector(face_at(20, 15))).open(smooth_photo(), key=KEY)
    variant = opened.variant(0.5)
    around = [variant.sigma / 4, variant.sigma * 2]
    curve = replace(backend.curve, measured={"sigmas": around, "verified": [1.0, 0.9, 0.3]})
    assert verified_share(variant, curve) == pytest.approx(0.5)
