"""The audit of anonymization from rows to tables, on a tiny model and people of nobody."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy_core.__main__ import main
from privacy_core.audit.anonymization import learning
from privacy_core.audit.anonymization.learning import LearningConfig
from privacy_core.audit.anonymization.protocol import NAME, WORK
from privacy_core.audit.anonymization.settings import EMBEDDED
from privacy_core.audit.anonymization.tables import markdown
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.commands import anonymization_audit
from privacy_core.commands.shell import Tools
from tests.privacy_core.anonymization_rows import all_rows, rows_of_people
from tests.privacy_core.people import NO_FACE, MarkDetector, write_rows
from tests.privacy_core.tiny import tiny_model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class WindowRecogniser:
    """Embeds a photo as the mean colours of a grid; counts what it is shown."""

    name = "window"

    def __init__(self):
        self.calls = 0

    def embed(self, pixels, landmarks):
        self.calls += 1
        return (
            np.stack(
                [
                    block.mean((0, 1))
                    for row in np.array_split(pixels, 4)
                    for block in np.array_split(row, 4, 1)
                ]
            ).ravel()
            / 100
        )


class MiddleRecogniser:
    """Embeds a photo as the mean colour of its middle."""

    name = "middle"

    def embed(self, pixels, landmarks):
        height, width = pixels.shape[:2]
        return pixels[height // 3 : -height // 3, width // 3 : -width // 3].mean((0, 1)) / 100


COMMAND = (
    "audit-anonymization", "d.parquet", "--out", "audit", "--settings", "embedded=0,0.8,1",
    "--settings", "k-same=0",
    "--false-accept-rate", "0.05", "--seed", "3",
)  # fmt: skip


QUICK = LearningConfig(width=8, steps=8, batch=16, check_every=4)


def quick_learning(*, seed):
    return replace(QUICK, seed=seed)


def load(name):
    return EmbeddedBackend(tiny_model()) if name == EMBEDDED else load_backend(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run the command once and return its folder, output and recogniser."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("anonymization")
    write_rows(folder / "d.parquet", all_rows())
    recogniser = WindowRecogniser()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(learning, "LearningConfig", quick_learning)
        patch.setattr(Tools, "recognisers", lambda *_: (recogniser, MiddleRecogniser()))
        code = main([*COMMAND, "--keep-work"], load_backend=load, detector=MarkDetector(),
                    recogniser=recogniser)  # fmt: skip
    assert code == 0
    return folder, recogniser


@pytest.fixture
def run(made, tmp_path, capsys, monkeypatch):
    """Return a function that runs the command in a copy of `made`: (exit code, stdout, stderr)."""
    shutil.copytree(made[0], tmp_path / "work")
    monkeypatch.setattr(learning, "LearningConfig", quick_learning)
    monkeypatch.chdir(tmp_path / "work")
    recogniser = WindowRecogniser()
    monkeypatch.setattr(Tools, "recognisers", lambda *_: (recogniser, MiddleRecogniser()))

    def call(*options, command=COMMAND):
        code = main([*command, *options], load_backend=load, detector=MarkDetector(),
                    recogniser=recogniser)  # fmt: skip
        return (code, *capsys.readouterr(), recogniser)

    return call


@pytest.fixture(scope="module")
def result(made):
    return json.loads((made[0] / "audit" / f"{NAME}.json").read_text())


# --- The command -----------------------------------------------------------------------------


def test_every_setting_is_in_the_result_the_table_and_the_figure(made, result):
    named = [one["name"] for one in result["settings"]]
    assert named == [
        "embedded 0", "embedded 0.8", "embedded 1", "k-same 0",
    ]  # fmt: skip
    page = (made[0] / "audit" / f"{NAME}.md").read_text()
    assert all(f"| {name} |" in page for name in named)
    assert (made[0] / "audit" / f"{NAME}.png").read_bytes().startswith(b"\x89PNG")


def test_photos_that_could_not_be_opened_are_counted_by_reason(result):
    assert result["failures"]["test"] == {"FaceFailedError": 1, "NoFaceError": 1}
    assert result["n_faces"] == 22
    assert result["gallery"] == 10


def test_no_pixel_outside_the_mask_changes_whatever_the_method(result):
    assert [one["fidelity"]["pixels_changed_outside"] for one in result["settings"]] == [0] * 4


def test_every_share_has_an_interval_around_it(result):
    for one in result["settings"]:
        for name in ("self_reidentified", "cross_tar", "cross_rank_1", "linkability_auc"):
            found = one["identity"]["window"][name]
            assert found["low"] <= found["value"] <= found["high"]


def test_both_recognisers_stand_beside_each_other(made, result):
    assert result["recognisers"] == ["window", "middle"]
    for one in result["settings"]:
        assert 0 <= one["identity"]["middle"]["self_reidentified"]["value"] <= 1
    own = result["settings"][0]["identity"]
    assert own["middle"]["self_distance"] != own["window"]["self_distance"]
    assert set(result["originals"]["recognisers"]) == {"window", "middle"}
    assert {"window", "middle"} == set(result["summary"]["order"])
    page = (made[0] / "audit" / f"{NAME}.md").read_text()
    assert "| self, window | self, middle |" in page
    assert "middle knows" in page


def test_reversal_is_tried_on_codes_and_on_pixels(made, result):
    for one in result["settings"]:
        for name in ("restored_rank_1", "repainted_rank_1", "variant_rank_1"):
            assert 0 <= one["reversal"][name]["value"] <= 1, name
    assert "| pixels restored: rank-1 |" in (made[0] / "audit" / f"{NAME}.md").read_text()


def test_the_guarantee_stands_beside_the_attacks(result):
    zero, middle, pure, averaged = result["settings"]
    assert zero["epsilon"] is None
    assert zero["reason"]
    assert middle["mu"] > 0
    assert middle["epsilon"] > 0
    assert (pure["mu"], pure["epsilon"]) == (0, 0)
    assert "epsilon" not in averaged
    assert middle["matched_filter"]["pair_tpr"]["value"] <= (
        middle["matched_filter"]["pair_tpr_allowed"] + 0.05
    )


def test_what_cannot_be_measured_is_absent_with_a_reason_and_never_zero(result):
    for one in result["settings"]:
        # Nobody is labelled with a beard.
        assert "absent" in one["inference"]["inside"]["beard"]
        assert "absent" in one["fidelity"]["kept"]["beard"]
        assert "value" in one["inference"]["inside"]["gender"]
    assert "absent" in result["summary"]["kept_over_reconstruction"]


def test_both_adversaries_are_trained_on_every_setting(result):
    for one in result["settings"]:
        for sees in ("opaque", "inside", "whole_crop"):
            found = one["adversary"][sees]
            assert found["chance"] == pytest.approx(1 / 10)
            assert found["times_chance"]["value"] == pytest.approx(10 * found["rank_1"]["value"])
        assert one["reversal"]["n_faces"] > 0
    assert "rank_1" in result["context_alone"]
    for sees in ("inside", "whole_crop"):
        assert -1 <= result["order"][sees]["spearman_median"] <= 1


def test_what_the_predictors_are_worth_stands_beside_what_they_read(result):
    known = result["originals"]["predictors"]
    assert set(known) == {"predicted", "judged"}
    for found in (*known.values(), *(one["read_by_predictor"] for one in result["settings"])):
        assert found["gender"]["low"] <= found["gender"]["value"] <= found["gender"]["high"]
        assert "absent" in found["beard"]


def test_a_source_of_many_photos_is_a_group_of_its_own(result):
    assert result["groups"]["source"] == {"drawn": 21}


def test_nobody_and_no_place_is_named_in_what_is_written(made):
    for kind in ("json", "md"):
        text = (made[0] / "audit" / f"{NAME}.{kind}").read_text()
        assert "nobody-" not in text
        # A source that few photos have could name somebody.
        assert "example.org" not in text
        assert str(made[0]) not in text


def test_a_rerun_makes_no_picture_again_and_gives_the_same_numbers(run, result):
    code, out, err, recogniser = run("--json")
    assert code == 0
    again = json.loads(out)
    assert again["settings"] == result["settings"]
    # Only restored faces are shown to it again where their metrics are not kept; they are.
    assert recogniser.calls == 0
    assert "Next: read" in err


def test_an_interrupted_audit_goes_on_with_the_missing_chunk(run):
    missing = Path("audit") / WORK / "variants-adversary-0000.npz"
    missing.unlink()
    code, _, _, recogniser = run("--help-out")
    assert code == 0
    assert missing.is_file()
    # 20 photos at four settings, and nothing of what was there.
    assert recogniser.calls == 80


def test_the_codes_of_faces_are_removed_unless_asked_to_keep(run):
    assert run()[0] == 0
    assert not (Path("audit") / WORK).exists()
    assert (Path("audit") / f"{NAME}.json").is_file()


def test_another_audit_does_not_mix_with_the_folder(run):
    code, _, err, _ = run("--faces", "10")
    assert code == 2
    assert "one of the same audit" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--settings", "blur"), "--settings"),
        (("--settings", "blur=x"), "--settings"),
        (("--settings", "magic=1"), "`method` must be one of"),
        (("--settings", "blur=2"), "`strength` must be a number in [0, 1]"),
        (("--settings", "k-same=0"), "must name each setting once"),
        (("--false-accept-rate", "0"), "--false-accept-rate"),
        (("--false-accept-rate", "x"), "--false-accept-rate"),
        (("--faces", "1"), "--faces"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(run, options, said):
    code, out, err, _ = run(*options)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_data_without_identities_or_people_to_test_are_refused(run):
    rows = [{k: v for k, v in row.items() if k != "identity"} for row in all_rows()[:4]]
    write_rows(Path("d.parquet"), rows)
    assert "got 'identity'; `DATA` has" in run()[2]
    write_rows(Path("d.parquet"), [{**row, "identity": ""} for row in rows])
    assert "empty in all of 4 rows" in run()[2]
    write_rows(Path("d.parquet"), rows_of_people(60, 69, 3, 2))
    assert "splits 80 to 99" in run()[2]


def test_too_few_strangers_for_the_rate_are_refused(run):
    code, _, err, recogniser = run("--false-accept-rate", "0.001", "--out", "other")
    assert code == 2
    assert "at least 10000 pairs" in err
    # Said at once: no photo was opened and no network trained.
    assert recogniser.calls == 0
    assert {path.name for path in Path("other", WORK).iterdir()} == {"config.json", "noise.key"}


def test_photos_without_faces_are_refused_after_they_were_looked_at(run):
    marks = {(person, photo): NO_FACE for person in range(12) for photo in range(2)}
    write_rows(Path("d.parquet"), rows_of_people(80, 99, 12, 2, marks=marks))
    code, _, err, _ = run("--out", "other")
    assert code == 2
    assert "faces that can be detected, got 24 photos without" in err


def test_a_folder_or_model_that_cannot_be_used_says_so(run, monkeypatch):
    Path("file").write_text("")
    code, _, err, _ = run("--out", "file/audit")
    assert code != 0
    assert "--out" in err
    assert run("--model", "nowhere", "--out", "other")[0] == 2
    monkeypatch.setattr(sys.modules[__name__], "load", lambda _: load_backend("blur"))
    assert "must be the embedded one" in run("--out", "other")[2]


def test_an_own_detector_is_asked_only_where_a_quick_one_finds_nothing():
    embedded = EmbeddedBackend(tiny_model())
    named = [WindowRecogniser()]
    ours = anonymization_audit._instruments(embedded, named, Tools(None, None, None))
    assert ours.finder.name == f"dlib-hog then {ours.detector.name}"
    given = Tools(None, MarkDetector(), None)
    assert anonymization_audit._instruments(embedded, named, given).finder is given.detector()


# --- One photo per person, nobody to train on ------------------------------------------------


def test_one_photo_of_each_and_nobody_to_train_on_leaves_metrics_out(run):
    write_rows(Path("d.parquet"), rows_of_people(80, 99, 22, 1))
    few = ("audit-anonymization", "d.parquet", "--out", "few", "--settings", "embedded=0",
           "--settings", "blur=1", "--settings", "latent-laplace=0",
           "--false-accept-rate", "0.05")  # fmt: skip
    code, out, _, _ = run("--json", command=few)
    assert code == 0
    found = json.loads(out)
    one = found["settings"][0]
    assert "second photo" in one["identity"]["window"]["cross_tar"]["absent"]
    assert "value" in one["identity"]["window"]["self_rank_1"]
    assert "too few people" in one["adversary"]["absent"]
    assert "too few people" in one["inference"]["absent"]
    assert "too few people" in found["context_alone"]["absent"]
    assert "too few people" in found["order"]["absent"]
    assert "second predictor" in one["fidelity"]["kept"]["gender"]["absent"]
    assert "–" in Path("few", f"{NAME}.md").read_text()


def test_the_page_says_that_no_strength_met_the_goal(result):
    changed = {**result, "summary": {**result["summary"], "default_strength": {"absent": "none"}}}
    assert "**none**" in markdown(changed)
    changed["summary"]["default_strength"] = 0.85
    assert "**0.85**" in markdown(changed)
