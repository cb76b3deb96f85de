"""The audit of anonymization from rows to tables, on a tiny model and people of nobody."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy_core.__main__ import main
from privacy_core.audit.anonymization import gather, learning, observe
from privacy_core.audit.anonymization.learning import LearningConfig
from privacy_core.audit.anonymization.people import choose
from privacy_core.audit.anonymization.protocol import NAME, WORK
from privacy_core.audit.anonymization.records import Records, flat, joined, table_of
from privacy_core.audit.anonymization.settings import EMBEDDED, K_SAME, AuditConfig, Setting
from privacy_core.audit.anonymization.summary import (
    at_equal_reidentification,
    default_strength,
    kept_share,
    order_of,
    usable_recognisers,
)
from privacy_core.audit.anonymization.tables import as_plain, from_plain, markdown
from privacy_core.audit.estimates import Estimate
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.diffusion.prepare import split_of
from privacy_core.errors import InvalidArgumentError, OutputError
from tests.privacy_core.people import BROKEN, NO_FACE, MarkDetector, photo_png, write_rows
from tests.privacy_core.tiny import tiny_model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def names(low, high, n):
    """Return `n` identities whose split lies in [low, high]."""
    found = (name for i in range(10_000) if low <= split_of(name := f"nobody-{i}", "") <= high)
    return [next(found) for _ in range(n)]


def rows_of_people(low, high, n_people, n_photos, *, marks=None):
    """Return photos of people of some splits, with labels that take turns."""
    marks = marks or {}
    return [
        {
            "image": {
                "bytes": photo_png(100 * low + 7 * p + i, marks.get((p, i), 0)),
                "path": None,
            },
            "identity": name,
            "gender": ("female", "male")[p % 2],
            "smiling": ("no", "yes")[i % 2],
            "source": "drawn",
        }
        for p, name in enumerate(names(low, high, n_people))
        for i in range(n_photos)
    ]


def all_rows():
    """Return a data set with people for every part; one photo tested shows no face."""
    return [
        *rows_of_people(80, 99, 12, 2, marks={(0, 1): NO_FACE, (1, 0): BROKEN}),
        *rows_of_people(60, 69, 10, 2),
        *rows_of_people(0, 29, 4, 2),
        *rows_of_people(30, 59, 4, 2),
    ]


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
        for sees in ("inside", "whole_crop"):
            found = one["adversary"][sees]
            assert found["chance"] == pytest.approx(1 / 10)
            assert found["times_chance"]["value"] == pytest.approx(10 * found["rank_1"]["value"])
        assert one["reversal"]["n_faces"] > 0
    assert "rank_1" in result["context_alone"]


def test_nobody_and_no_place_is_named_in_what_is_written(made):
    for kind in ("json", "md"):
        text = (made[0] / "audit" / f"{NAME}.{kind}").read_text()
        assert "nobody-" not in text
        assert str(made[0]) not in text


def test_a_rerun_makes_no_picture_again_and_gives_the_same_numbers(run, result):
    code, out, err, recogniser = run("--json")
    assert code == 0
    again = json.loads(out)
    assert again["settings"] == result["settings"]
    # Only restored faces are shown to it again where their metrics are not kept; they are.
    assert recogniser.calls == 0
    assert "Next: read" in err


def test_an_interrupted_audit_goes_on_with_the_missing_chunk(run, made):
    chunks = sorted((made[0] / "audit" / WORK).glob("variants-*.npz"))
    run_folder_chunk = chunks[0].name
    missing = Path("audit") / WORK / run_folder_chunk
    missing.unlink()
    code, _, _, recogniser = run("--help-out")
    assert code == 0
    assert missing.is_file()
    assert recogniser.calls == 0 if "adversary" in run_folder_chunk else recogniser.calls > 0


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
    assert "column `identity`" in run()[2]
    write_rows(Path("d.parquet"), [{**row, "identity": ""} for row in rows])
    assert "got 4 rows without" in run()[2]
    write_rows(Path("d.parquet"), rows_of_people(60, 69, 3, 2))
    assert "splits 80 to 99" in run()[2]


def test_too_few_strangers_for_the_rate_are_refused(run):
    code, _, err, _ = run("--false-accept-rate", "0.001", "--out", "other")
    assert code == 2
    assert "at least 10000 pairs" in err


# --- One photo per person, nobody to train on ------------------------------------------------


def test_one_photo_of_each_and_nobody_to_train_on_leaves_metrics_out(run):
    write_rows(Path("d.parquet"), rows_of_people(80, 99, 22, 1))
    few = ("audit-anonymization", "d.parquet", "--out", "few", "--settings", "embedded=0,1",
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
    assert "second predictor" in one["fidelity"]["kept"]["gender"]["absent"]
    assert "–" in Path("few", f"{NAME}.md").read_text()


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
    assert {0.0, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0} <= plain
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
    assert default_strength(settings, metrics, ["r"]) == 0.8
    settings, metrics = metrics_with({0.8: 0.008, 1.0: 0.02})
    assert "no measured strength" in default_strength(settings, metrics, ["r"])
    settings, metrics = metrics_with({0.8: 0.008, 1.0: 0.0})
    assert default_strength(settings, metrics, ["q"]) == 0.8
    assert default_strength(settings, metrics, ["q", "r"]) == 1.0


def test_other_methods_stand_beside_the_weakest_strength_that_identifies_no_more():
    ours, metrics = metrics_with({0.2: 0.9, 0.6: 0.3, 1.0: 0.1})
    theirs, more = metrics_with({0.0: 0.5, 1.0: 0.01}, method=K_SAME)
    rows = at_equal_reidentification([*ours, *theirs], metrics | more, "r")
    assert rows[0]["embedded"]["setting"] == "embedded 0.6"
    assert rows[0]["embedded"]["kept_mean"] == 0.9
    assert "no measured strength" in rows[1]["embedded"]


def test_a_weak_second_recogniser_does_not_set_the_default():
    known = {"r": {"cross_tar": Estimate(0.1)}, "q": {"cross_tar": Estimate(0.4)}}
    assert usable_recognisers(dict.fromkeys(known), known) == ("r",)
    known["q"] = {"cross_tar": Estimate(0.6)}
    assert usable_recognisers(dict.fromkeys(known), known) == ("r", "q")


def test_the_order_of_strengths_is_one_where_distances_grow():
    class Zero:
        embeddings = np.zeros((5, 2))

    growing = {s: np.full((5, 2), s) for s in (0.0, 0.5, 1.0)}
    found = order_of(Zero, growing)
    assert found["spearman_median"] == 1
    assert found["adjacent_violations_below_0.7"] == found["adjacent_violations_above_0.7"] == 0
    growing[1.0] = np.full((5, 2), 0.1)
    assert order_of(Zero, growing)["adjacent_violations_above_0.7"] == 1
    assert "fewer than three" in order_of(Zero, {0.0: np.zeros((5, 2))})["spearman"]


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


def test_the_page_says_that_no_strength_met_the_goal(result):
    changed = {**result, "summary": {**result["summary"], "default_strength": {"absent": "none"}}}
    assert "**none**" in markdown(changed)
    changed["summary"]["default_strength"] = 0.85
    assert "**0.85**" in markdown(changed)


def test_a_thorough_detector_is_asked_only_where_the_quick_one_finds_nothing():
    class Finds:
        def __init__(self, name, faces):
            self.name, self.faces, self.calls = name, faces, 0

        def detect(self, _):
            self.calls += 1
            return self.faces

    slow = Finds("slow", ["face"])
    assert observe.QuickFirst(Finds("quick", ["one"]), slow).detect(None) == ["one"]
    assert slow.calls == 0
    assert observe.QuickFirst(Finds("quick", []), slow).detect(None) == ["face"]


def test_chunks_hold_every_photo_once():
    chunks = gather._chunks(tuple(range(70)))
    assert [start for start, _ in chunks] == [0, 32, 64]
    assert [one for _, part in chunks for one in part] == list(range(70))
