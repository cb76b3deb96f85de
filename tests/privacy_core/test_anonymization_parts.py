"""The audit of anonymization piece by piece: people's parts, records, summary, tables."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.audit.anonymization import gather
from privacy_core.audit.anonymization.instruments import Instruments
from privacy_core.audit.anonymization.observe import (
    observe_originals,
    observe_variants,
    open_photos,
)
from privacy_core.audit.anonymization.order import order_of
from privacy_core.audit.anonymization.people import ChosenPhoto, choose, digest_of
from privacy_core.audit.anonymization.settings import EMBEDDED, K_SAME, AuditConfig, Setting
from privacy_core.audit.anonymization.summary import (
    at_equal_reidentification,
    default_strength,
    kept_share,
    usable_recognisers,
)
from privacy_core.audit.anonymization.tables import as_plain, from_plain
from privacy_core.audit.estimates import Estimate
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.faces import QuickFirst
from privacy_core.noise import NoiseKey
from privacy_core.records import Records, flat, joined, table_of
from tests.privacy_core.anonymization_rows import all_rows, rows_of_people
from tests.privacy_core.people import MarkDetector, photo_png
from tests.privacy_core.tiny import tiny_model

# --- Parts -----------------------------------------------------------------------------------


def test_nobody_is_in_two_parts_and_people_with_two_photos_come_first():
    rows = [{**row, "image": row["image"]["bytes"]} for row in all_rows()]
    rows += [{**row, "image": row["image"]["bytes"]} for row in rows_of_people(80, 99, 20, 1)[12:]]
    found = choose(rows, AuditConfig(n_faces=28))
    people = {part: {photo.person for photo in photos} for part, photos in found.items()}
    assert sum(map(len, people.values())) == len(set.union(*people.values()))
    slots = [photo.slot for photo in found["test"]]
    assert len(found["test"]) == 28
    assert sum(slots) == 12
    assert [p.slot for p in found["test"][:24]].count(0) == 12
    assert choose(rows, AuditConfig(n_faces=28)) == found
    assert choose(rows, AuditConfig(n_faces=28, seed=1)) != found


def test_photos_labels_and_people_all_change_the_digest_of_a_part():
    rows = [{**row, "image": row["image"]["bytes"]} for row in rows_of_people(80, 99, 3, 2)]

    def digest(changed):
        return digest_of(choose(changed, AuditConfig())["test"])

    assert digest(rows) == digest(rows)
    for column, value in (("image", b"other"), ("gender", "male"), ("identity", "else")):
        assert digest([{**rows[0], column: value}, *rows[1:]]) != digest(rows)


def test_numbers_of_classes_are_read_by_their_names():
    rows = [
        {"image": b"x", "who": row["identity"], "gender": 1, "smiling": 0}
        for row in rows_of_people(80, 99, 1, 1)
    ]
    names = {"gender": ("male", "female"), "smiling": ("no", "yes"), "who": ("a",)}
    (photo,) = choose(rows, AuditConfig(), subject_column="who", class_names=names)["test"]
    assert photo.labels[:3] == (0, -1, 0)
    (photo,) = choose(
        [{**rows[0], "gender": -1}], AuditConfig(), subject_column="who", class_names=names
    )["test"]
    assert photo.labels[0] == -1


def test_parts_that_share_people_are_refused():
    with pytest.raises(InvalidArgumentError, match="must be different"):
        AuditConfig(adversary=(60, 80))
    with pytest.raises(InvalidArgumentError, match="at least one"):
        AuditConfig(settings=())


def test_the_usual_settings_hold_every_method_and_the_goals_strengths():
    config = AuditConfig()
    assert {s.method for s in config.settings} == {
        "embedded", "blur", "pixelate", "solid", "k-same", "latent-laplace",
    }  # fmt: skip
    plain = {s.strength for s in config.settings if s.method == EMBEDDED and not s.policy_name}
    assert {0.0, 0.7, 0.8, 0.85, 0.9, 1.0} <= plain
    assert AuditConfig(seed=1).digest() != config.digest() == AuditConfig().digest()
    with pytest.raises(InvalidArgumentError, match="policy_name"):
        Setting(EMBEDDED, 0.5, "keep")


# --- Records ---------------------------------------------------------------------------------


def test_chunks_come_back_as_they_were_and_damaged_ones_say_so(tmp_path):
    records = Records(tmp_path / "work", {"a": 1})
    arrays = {"x": np.arange(3), "names": np.array(["a", "b"])}
    assert np.array_equal(records.made("one", lambda: arrays)["x"], arrays["x"])
    assert records.made("one", lambda: pytest.fail("made again"))["names"].tolist() == ["a", "b"]
    (tmp_path / "work" / "one.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InvalidArgumentError, match="is damaged"):
        records.load("one")
    records.keep_state("judge", {"w": torch.ones(2)})
    assert records.load_state("judge")["w"].tolist() == [1, 1]
    (tmp_path / "work" / "judge.pt").write_bytes(b"cut off")
    with pytest.raises(InvalidArgumentError, match="is damaged"):
        records.load_state("judge")
    assert not list((tmp_path / "work").glob("*.part"))
    assert (tmp_path / "work").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Choose another place"):
        Records(tmp_path / "file" / "work", {})
    records = Records(tmp_path / "work", {})
    shutil.rmtree(tmp_path / "work")
    with pytest.raises(OutputError, match="cannot be written"):
        records.keep("one", {})


def test_tables_are_put_together_and_taken_apart_again():
    tables = {"embedded 0.8": {"x": np.arange(2)}, "blur 1": {"x": np.arange(3)}}
    assert np.array_equal(table_of(flat(tables), "blur 1")["x"], np.arange(3))
    assert joined([{"x": np.arange(2), "y": np.arange(2)}, {"x": np.arange(1)}])["x"].tolist() == [
        0, 1, 0,
    ]  # fmt: skip
    assert joined([]) == {}


# --- Summary ---------------------------------------------------------------------------------


def metrics_with(shares, *, method=EMBEDDED):
    """Return settings and metrics with these shares of re-identified variants."""
    settings = [Setting(method, s) for s in shares]
    metrics = {
        one.name: {
            "identity": {
                "r": {"self_reidentified": Estimate(share), "frechet": Estimate(0.1)},
                "q": {"self_reidentified": Estimate(share / 2)},
            },
            "fidelity": {"detected": Estimate(1.0), "kept": {"gender": Estimate(0.9)}},
        }
        for one, share in zip(settings, shares.values(), strict=True)
    }
    return settings, metrics


def test_the_default_strength_is_the_smallest_that_meets_the_goal_with_all_above_it():
    settings, metrics = metrics_with({0.5: 0.001, 0.72: 0.4, 0.8: 0.004, 0.83: 0.0, 1.0: 0.0})
    assert default_strength(settings, metrics, ["r"], n_people=200) == 0.8
    settings, metrics = metrics_with({0.8: 0.008, 1.0: 0.02})
    assert "no measured strength" in default_strength(settings, metrics, ["r"], n_people=200)
    settings, metrics = metrics_with({0.8: 0.008, 1.0: 0.0})
    assert default_strength(settings, metrics, ["q"], n_people=200) == 0.8
    assert default_strength(settings, metrics, ["q", "r"], n_people=200) == 1.0
    few = default_strength(settings, metrics, ["q"], n_people=199)
    assert few == "fewer than 200 people tested cannot show 0.5%"


def test_other_methods_stand_beside_the_weakest_strength_that_identifies_no_more():
    ours, metrics = metrics_with({0.2: 0.9, 0.6: 0.3, 1.0: 0.1})
    theirs, more = metrics_with({0.0: 0.5, 1.0: 0.01}, method=K_SAME)
    rows = at_equal_reidentification([*ours, *theirs], metrics | more, "r")
    assert rows[0]["embedded"]["setting"] == "embedded 0.6"
    assert rows[0]["embedded"]["kept_mean"] == 0.9
    assert "no measured strength" in rows[1]["embedded"]
    assert "no measured strength" in rows[0]["keeping"]


def test_other_methods_stand_beside_the_weakest_strength_that_keeps_all_attributes_too():
    ours, metrics = metrics_with({1.0: 0.1})
    theirs, more = metrics_with({1.0: 0.5}, method=K_SAME)
    keeping = [Setting(EMBEDDED, s, "keep all") for s in (0.9, 0.8, 0.5)]
    shares = metrics_with({0.9: 0.1, 0.8: 0.5, 0.5: 0.6})[1]
    metrics |= more | {one.name: shares[f"embedded {one.strength:g}"] for one in keeping}
    (row,) = at_equal_reidentification([*ours, *keeping, *theirs], metrics, "r")
    assert row["embedded"]["setting"] == "embedded 1"
    assert row["keeping"]["setting"] == "embedded keep all 0.8"


def test_a_weak_second_recogniser_does_not_set_the_default():
    known = {"r": {"cross_tar": Estimate(0.1)}, "q": {"cross_tar": Estimate(0.4)}}
    assert usable_recognisers(dict.fromkeys(known), known) == ("r",)
    known["q"] = {"cross_tar": Estimate(0.6)}
    assert usable_recognisers(dict.fromkeys(known), known) == ("r", "q")


def test_the_order_of_strengths_is_one_where_distances_grow():
    zero = np.zeros((5, 2))
    growing = {s: np.full((5, 2), s) for s in (0.0, 0.5, 1.0)}
    found = order_of(zero, growing)
    assert found["strengths"] == [0.0, 0.5, 1.0]
    assert found["spearman_median"] == 1
    assert found["adjacent_violations_below_0.7"] == found["adjacent_violations_above_0.7"] == 0
    growing[1.0] = np.full((5, 2), 0.1)
    found = order_of(zero, growing)
    assert found["adjacent_violations_above_0.7"] == 1
    assert found["adjacent_violations"] == [0, 1]
    assert "spearman_median_below_0.7" not in found
    assert "fewer than three" in order_of(zero, {0.0: np.zeros((5, 2))})["spearman"]


def test_the_order_up_to_07_does_not_count_stronger_ones():
    falling = {0.0: 0.0, 0.2: 1.0, 0.7: 2.0, 0.8: 1.5, 1.0: 0.5}
    found = order_of(np.zeros((3, 1)), {s: np.full((3, 1), d) for s, d in falling.items()})
    assert found["spearman_median_below_0.7"] == 1
    assert found["spearman_median"] < 0.5
    assert found["adjacent_violations"] == [0, 0, 1, 1]


def test_kept_attributes_are_compared_with_the_codes_own_reconstruction():
    settings, metrics = metrics_with({0.0: 1.0})
    keep = Setting(EMBEDDED, 0.8, "keep all")
    metrics[keep.name] = metrics["embedded 0"]
    for one in metrics.values():
        one["fidelity"]["kept"] = dict.fromkeys(
            ("gender", "age_group", "smiling", "eyeglasses"), Estimate(0.5)
        ) | {"beard": "nobody says"}
    found = kept_share(metrics, [*settings, keep])
    assert found[keep.name]["gender"] == 1
    assert found[keep.name]["beard"] == "nobody says"


# --- Tables ----------------------------------------------------------------------------------


def test_absent_metrics_go_to_json_and_back_with_their_reason():
    metrics = {
        "a": Estimate(0.5, 0.4, 0.6),
        "b": "nobody has it",
        "n": 3,
        "d": {"c": Estimate(1.0)},
    }
    plain = as_plain(metrics)
    assert plain["b"] == {"absent": "nobody has it"}
    assert from_plain(json.loads(json.dumps(plain))) == metrics


def test_a_thorough_detector_is_asked_only_where_the_quick_one_finds_nothing():
    class Finds:
        def __init__(self, name, faces):
            self.name, self.faces, self.calls = name, faces, 0

        def detect(self, _):
            self.calls += 1
            return self.faces

    slow = Finds("slow", ["face"])
    assert QuickFirst(Finds("quick", ["one"]), slow).detect(None) == ["one"]
    assert slow.calls == 0
    assert QuickFirst(Finds("quick", []), slow).detect(None) == ["face"]


def test_chunks_hold_every_photo_once():
    chunks = gather._chunks(tuple(range(70)))
    assert [start for start, _ in chunks] == [0, 32, 64]
    assert [one for _, part in chunks for one in part] == list(range(70))


class Lens:
    """Points on a circle, and embeddings that are the photo's mean colour."""

    def find(self, frame):
        turns = np.linspace(0, 6, 68)
        return np.stack([np.cos(turns), np.sin(turns)], 1) * 20 + frame.mean() / 100

    def embed(self, pixels, _):
        return pixels.mean((0, 1))


class FailsOften:
    """A backend that fails every second face."""

    def __init__(self, backend):
        self.backend, self.name = backend, backend.name

    def generate(self, requests):
        made = self.backend.generate(requests)
        return [
            replace(one, frame=None, failure="it failed") if i % 2 else one
            for i, one in enumerate(made)
        ]


def test_a_face_that_fails_is_withheld_not_dropped_and_nothing_is_read_off_its_photo():
    backend = EmbeddedBackend(tiny_model())
    lens = Lens()
    tools = Instruments(MarkDetector(), MarkDetector(), lens, lens, backend.model.code)
    photos = [ChosenPhoto(photo_png(seed), seed, 0, (-1,) * 5, "") for seed in range(4)]
    opened, failures = open_photos(photos, 0, backend, MarkDetector(), key=NoiseKey.from_seed(1))
    assert (len(opened), failures) == (4, [])
    points = observe_originals(opened, tools, complete=True)["points"]
    seen = observe_variants(
        opened, Setting(EMBEDDED, 0.8), FailsOften(backend), tools, points=points
    )
    assert seen["released"].tolist() == [True, False, True, False]
    assert seen["detected"].tolist() == [True, False, True, False]
    assert seen["changed_outside"].tolist() == [0] * 4
    assert not seen["embedding"][1].any()
    assert seen["embedding"][0].any()
    trained_on = observe_variants(
        opened, Setting(EMBEDDED, 0.8), FailsOften(backend), tools, points=None
    )
    assert set(trained_on) == {"released", "code", "opaque_code", "embedding"}
    assert trained_on["embedding"].any(1).tolist() == [True, False, True, False]
    # What stands in a withheld face's row is the code of an empty frame, not of the original.
    assert np.array_equal(seen["code"][1], seen["code"][3])
    assert not np.array_equal(seen["code"][0], seen["code"][2])
