"""Every row is anonymized, kept on request, or loses its picture; and a stop costs nothing."""

import io
import json
import math
import resource
import stat
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from privacy_core.anonymize import Anonymizer
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.dataset import RowSource, read_dataset
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.faces import read_photo
from privacy_core.noise import NoiseKey
from privacy_core.privacy import epsilon_of, mu_of
from privacy_core.revise.revision import Workplace, load_revision
from privacy_core.revise.rows import BATCH, STATUSES, RowReviser, RowRules
from privacy_core.revise.run import ReviseConfig, revise
from privacy_core.revise.survey import survey_rows
from tests.privacy_core.people import (
    BROKEN,
    CROWD,
    NO_FACE,
    TWO_FACES,
    MarkDetector,
    photo_png,
    preferences,
    rows_of,
    source_of,
)
from tests.privacy_core.tiny import tiny_model

CONFIG = ReviseConfig(rows_per_shard=4)


@pytest.fixture(scope="module")
def anonymizer():
    torch.set_num_threads(1)
    return Anonymizer(EmbeddedBackend(tiny_model()), MarkDetector())


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def run(tmp_path, anonymizer):
    """Return a function that revises rows and returns (revised rows, revision)."""

    def run_revise(rows, *, out="out", rules=None, config=CONFIG, **options):
        source = rows if isinstance(rows, RowSource) else source_of(tmp_path / "x.parquet", rows)
        survey = survey_rows(source, subject_column=config.subject_column)
        options.setdefault("anonymizer", anonymizer)
        rules = rules or RowRules(preferences())
        revision = revise(source, survey, rules, tmp_path / out, config=config, **options)
        return table_of(tmp_path / out), revision

    return run_revise


def table_of(folder):
    files = sorted(folder.glob("data/*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def pixels_of(row):
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))


def files_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


# --- Strengths and ε -------------------------------------------------------------------------


def test_each_subject_has_its_strength_and_the_others_the_populations(run):
    rows, revision = run(rows_of(6), rules=RowRules(preferences({"person-1": 0.3}, 0.7)))
    assert [row["strength"] for row in rows] == [0.7, 0.3, 0.7, 0.7, 0.3, 0.7]
    assert [row["row_id"] for row in rows] == list(range(6))
    assert all(row["revised"] and row["status"] == "revised" for row in rows)
    assert {a["source"]: a["strength"] for a in revision["subjects"]} == {
        "own": 0.3,
        "population": 0.7,
    }


def test_every_face_changes_and_nothing_outside_the_mask_does(run):
    original = rows_of(3)
    rows, _ = run(original)
    for before, after in zip(original, rows, strict=True):
        one, other = pixels_of(before), pixels_of(after)
        assert (one != other).any()
        assert (one[:10] == other[:10]).all()


def test_a_row_without_a_subject_takes_the_populations_strength(run):
    original = rows_of(3)
    original[0]["subject"] = None
    rows, revision = run(original)
    assert [row["strength"] for row in rows] == [0.8, 0.8, 0.8]
    assert revision["original"]["n_rows_without_subject"] == 1
    assert sum(account["n_rows"] for account in revision["subjects"]) == 2


def test_the_epsilon_of_a_row_and_of_all_rows_of_a_subject(run, anonymizer):
    rows, revision = run(rows_of(6), rules=RowRules(preferences({"person-0": 0.5})))
    backend = anonymizer.backend
    sigma = backend.curve.rung_sigmas()[49]
    radius = float(backend.model.code.clip_radius(torch.ones(1, 24))[0])
    mu = mu_of(sigma, radius)
    assert rows[0]["epsilon"] == pytest.approx(epsilon_of(mu), rel=1e-6)
    account = next(a for a in revision["subjects"] if a["source"] == "own")
    # Two photos of one person: μ_total = 2C √(2 / σ²).
    assert account["n_rows"] == 2
    assert account["mu_total"] == pytest.approx(math.sqrt(2) * mu)
    assert account["epsilon_total"] == pytest.approx(epsilon_of(math.sqrt(2) * mu))


def test_the_largest_face_is_the_subjects_and_the_others_take_the_populations(run, anonymizer):
    class Recording:
        def __init__(self, backend):
            self.backend, self.seen = backend, []

        def __getattr__(self, name):
            return getattr(self.backend, name)

        def generate(self, requests):
            self.seen += [request.strength for request in requests]
            return self.backend.generate(requests)

    backend = Recording(anonymizer.backend)
    original = [
        {**row, "image": {"bytes": photo_png(i, TWO_FACES, width=260), "path": None}}
        for i, row in enumerate(rows_of(2))
    ]
    rows, _ = run(
        original,
        rules=RowRules(preferences({"person-0": 0.3}, 0.9)),
        anonymizer=Anonymizer(backend, MarkDetector()),
    )
    assert backend.seen == [0.3, 0.9, 0.9, 0.9]
    assert [row["strength"] for row in rows] == [0.3, 0.9]


def test_no_two_rows_share_their_noise_even_of_one_photo(run):
    original = rows_of(2, n_subjects=1)
    original[1]["image"] = original[0]["image"]
    rows, _ = run(original)
    assert rows[0]["image"] != rows[1]["image"]


def test_a_fresh_run_has_fresh_noise_and_a_seed_repeats_it_without_any_epsilon(run, tmp_path):
    seeded = replace(CONFIG, seed=4711)
    for name in "ab":
        run(rows_of(3), out=f"fresh-{name}")
        rows, revision = run(rows_of(3), out=f"seed-{name}", config=seeded)
    assert files_of(tmp_path / "seed-a") == files_of(tmp_path / "seed-b")
    shard = "data/train-00000-of-00001.parquet"
    assert (tmp_path / "fresh-a" / shard).read_bytes() != (
        tmp_path / "fresh-b" / shard
    ).read_bytes()
    assert [row["epsilon"] for row in rows] == [None] * 3
    assert {a["reason"] for a in revision["subjects"]} == {"noise not secret"}
    assert {a["mu_total"] for a in revision["subjects"]} == {None}
    assert "4711" not in json.dumps(revision)


# --- What never passes through ---------------------------------------------------------------


def hard_rows():
    rows = rows_of(9, marks={1: NO_FACE, 2: BROKEN, 3: CROWD})
    rows[4]["image"] = None
    rows[5]["image"] = {"bytes": b"no picture", "path": None}
    rows[6]["subject"] = "bare"
    return rows


HARD = {
    0: "revised", 1: "no_face", 2: "face_failed", 3: "too_many_faces", 4: "no_image",
    5: "unreadable", 6: "not_protected", 7: "revised", 8: "revised",
}  # fmt: skip


def test_a_row_that_cannot_be_anonymized_has_no_picture_and_is_listed(run):
    rows, revision = run(hard_rows(), rules=RowRules(preferences({"bare": 0.0})))
    assert {row["row_id"]: row["status"] for row in rows} == HARD
    for row in rows:
        withheld = row["status"] != "revised"
        assert (row["image"] is None) == withheld
        assert row["revised"] == (not withheld)
        assert (row["strength"] is None) == (row["epsilon"] is None) == withheld
    assert revision["withheld"] == [
        {"row": number, "status": status} for number, status in HARD.items() if status != "revised"
    ]
    assert revision["counts"]["withheld"] == 6
    assert revision["counts"]["by_status"]["revised"] == 3
    assert set(HARD.values()) <= set(STATUSES)


def test_a_withheld_face_never_reaches_a_file(run, tmp_path):
    original = hard_rows()
    run(original)
    written = b"".join(files_of(tmp_path / "out").values())
    for row in original:
        if row["image"] is not None and row["image"]["bytes"] != b"no picture":
            assert row["image"]["bytes"] not in written


def test_a_backend_that_hides_nothing_revises_nothing(run):
    blurring = Anonymizer(load_backend("blur"), MarkDetector())
    rows, _ = run(rows_of(2), anonymizer=blurring)
    assert [(row["status"], row["image"]) for row in rows] == [("not_protected", None)] * 2


def test_a_face_the_model_has_no_picture_for_is_withheld(run, anonymizer):
    class Failing:
        def __getattr__(self, name):
            return getattr(anonymizer.backend, name)

        def generate(self, requests):
            made = anonymizer.backend.generate(requests)
            return [replace(made[0], frame=None, failure="No picture."), *made[1:]]

    rows, _ = run(rows_of(3), anonymizer=Anonymizer(Failing(), MarkDetector()))
    assert [row["status"] for row in rows] == ["face_failed", "revised", "revised"]
    assert rows[0]["image"] is None


def test_revised_data_says_nothing_of_who_was_shown(run, tmp_path):
    original = [
        {**row, "file_name": f"secret-{i}.png", "subject": f"Jane {i % 2}"}
        for i, row in enumerate(rows_of(4))
    ]
    for row in original:
        row["image"]["path"] = "secret-path.png"
    rows, revision = run(
        original,
        rules=RowRules(preferences({"Jane 0": 0.4})),
        config=replace(CONFIG, drop_columns=("file_name",)),
    )
    assert list(rows[0]) == [
        "image", "label", "weight", "row_id", "revised", "strength", "epsilon", "status",
    ]  # fmt: skip
    written = b"".join(files_of(tmp_path / "out").values())
    assert b"Jane" not in written
    assert b"secret" not in written
    assert str(tmp_path).encode() not in written
    assert revision["columns"]["dropped"] == ["subject", "file_name"]
    assert {len(a["subject_key"]) for a in revision["subjects"]} == {32}


def test_revised_pictures_carry_the_mark_and_no_metadata(run):
    rows, _ = run(rows_of(1))
    data = rows[0]["image"]["bytes"]
    assert b"compositeWithTrainedAlgorithmicMedia" in data
    assert rows[0]["image"]["path"] is None


# --- Modes -----------------------------------------------------------------------------------


def test_dropping_the_label_empties_it_for_named_subjects_only(run):
    rules = RowRules(preferences({"person-0": 0.5}), "drop-label", label_column="label")
    rows, _ = run(rows_of(6), rules=rules)
    assert [row["label"] for row in rows] == [None, 1, 0, None, 0, 1]
    assert all(row["revised"] for row in rows)


def test_dropping_rows_deletes_those_of_named_subjects_and_numbers_stay(run, tmp_path):
    rows, revision = run(rows_of(9), rules=RowRules(preferences({"person-0": 0.5}), "drop-row"))
    assert [row["row_id"] for row in rows] == [1, 2, 4, 5, 7, 8]
    assert revision["counts"] == {
        "rows": 6,
        "withheld": 0,
        "by_status": {"revised": 6, "dropped": 3},
    }
    assert len(datasets.load_dataset(str(tmp_path / "out"), split="train")) == 6


def test_a_shard_of_nothing_but_dropped_rows_still_loads(run, tmp_path):
    original = rows_of(9, n_subjects=1)
    for row in original[4:]:
        row["subject"] = "stays"
    rows, _ = run(original, rules=RowRules(preferences({"person-0": 0.5}), "drop-row"))
    assert len(rows) == 5
    assert len(datasets.load_dataset(str(tmp_path / "out"), split="train")) == 5


def test_others_can_be_kept_with_their_pixels_and_without_their_metadata(run):
    original = rows_of(4)
    picture = Image.open(io.BytesIO(original[1]["image"]["bytes"]))
    exif = Image.Exif()
    exif[0x010E] = "secret words"
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    original[1]["image"]["bytes"] = buffer.getvalue()
    rows, revision = run(original, rules=RowRules(preferences({"person-0": 0.5}), others="keep"))
    assert [row["status"] for row in rows] == ["revised", "kept", "kept", "revised"]
    assert [row["revised"] for row in rows] == [True, False, False, True]
    assert (pixels_of(rows[1]) == read_photo(buffer.getvalue()).pixels).all()
    assert b"secret words" not in rows[1]["image"]["bytes"]
    assert rows[1]["epsilon"] is rows[1]["strength"] is None
    assert any("kept" in sentence for sentence in revision["not_covered"])


def test_a_mode_that_would_leave_nothing_is_refused(run, tmp_path):
    rules = RowRules(preferences({f"person-{i}": 0.5 for i in range(3)}), "drop-row")
    with pytest.raises(InvalidArgumentError, match="at least one row"):
        run(rows_of(6), rules=rules)
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize(
    ("options", "mention"),
    [
        ({"mode": "drop-label"}, "--label-column"),
        ({"mode": "delete"}, "`mode`"),
        ({"others": "ignore"}, "`others`"),
    ],
)
def test_rules_that_say_too_little_are_refused(options, mention):
    with pytest.raises(InvalidArgumentError, match=mention):
        RowRules(preferences(), **options)


def test_without_a_strength_of_the_population_others_must_be_kept(run):
    missing = preferences({"person-0": 0.5}, None)
    with pytest.raises(InvalidArgumentError, match="--others keep"):
        run(rows_of(3), rules=RowRules(missing))
    rows, _ = run(rows_of(3), rules=RowRules(missing, others="keep"))
    assert [row["status"] for row in rows] == ["revised", "kept", "kept"]


# --- What is written -------------------------------------------------------------------------


def test_the_result_loads_as_any_data_set_does(run, tmp_path):
    run(rows_of(6))
    for loaded in (
        datasets.load_dataset(str(tmp_path / "out"), split="train"),
        datasets.load_dataset("parquet", data_dir=str(tmp_path / "out"), split="train"),
    ):
        assert loaded.num_rows == 6
        assert loaded[0]["image"].size == (170, 160)
    again = read_dataset(tmp_path / "out")
    assert len(again) == 6
    assert load_revision(tmp_path / "out")["counts"]["rows"] == 6


def test_a_split_keeps_its_name(run, tmp_path):
    data = datasets.Dataset.from_list(rows_of(3)).cast_column("image", datasets.Image())
    datasets.DatasetDict({"exam": data, "train": data}).save_to_disk(tmp_path / "saved")
    run(read_dataset(tmp_path / "saved", split="exam"))
    assert list(datasets.load_dataset(str(tmp_path / "out"))) == ["exam"]


def test_secrets_stand_beside_the_data_for_their_owner_only(run, tmp_path):
    _, revision = run(rows_of(6))
    private = tmp_path / ".out.private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "noise.key").stat().st_mode) == 0o600
    key = (private / "noise.key").read_bytes()
    assert len(key) == 32
    assert key not in b"".join(files_of(tmp_path / "out").values())
    mine = json.loads((private / "subjects.json").read_text())
    assert set(mine) == {"person-0", "person-1", "person-2"}
    behind = parquet.read_table(private / "rows.parquet").to_pylist()
    assert behind[4]["subject_key"] == mine["person-1"]["subject_key"]
    assert mine["person-1"] in revision["subjects"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.private", "out", "x.parquet"]


def test_the_revision_names_its_sources_and_what_epsilon_does_not_cover(run):
    rows = rows_of(6)
    rows[4]["image"] = rows[0]["image"]
    _, revision = run(rows, rules=RowRules(preferences({"person-0": 0.5, "ghost": 0.1})))
    assert revision["schema_version"] == 1
    assert revision["model"] == {"id": "embedded", "revision": "tiny"}
    assert revision["original"]["name"] == "x.parquet"
    assert revision["preferences"]["n_subjects_not_in_data"] == 1
    assert revision["near_duplicates"]["pairs_across_subjects"] == [[0, 4]]
    assert len(revision["not_covered"]) > 8
    assert len(revision["data_digest"]) == 64


# --- Stops and restarts ----------------------------------------------------------------------


class StopsAfter:
    """Rows that end in an interrupt after `n` of them."""

    def __init__(self, rows, n):
        self.rows, self.n = rows, n

    def __iter__(self):
        for i, row in enumerate(self.rows):
            if i >= self.n:
                raise KeyboardInterrupt
            yield row


def interrupted(rows, n, **options):
    """Run until row `n`, as if someone had pressed Ctrl-C there."""
    source = source_of(options.pop("place") / "x.parquet", rows)
    survey = survey_rows(source, subject_column="subject")
    stopping = replace(source, _rows=StopsAfter(source._rows, n))
    with pytest.raises(KeyboardInterrupt):
        revise(stopping, survey, **options)
    return source


@pytest.mark.parametrize("n", [0, 6, 10])
def test_an_interrupted_run_ends_in_the_same_bytes(anonymizer, tmp_path, n):
    config = replace(CONFIG, seed=1)
    options = {"rules": RowRules(preferences()), "anonymizer": anonymizer, "config": config}
    interrupted(rows_of(11), n, place=tmp_path, out=tmp_path / "cut", **options)
    assert not (tmp_path / "cut").exists()
    source = source_of(tmp_path / "x.parquet", rows_of(11))
    survey = survey_rows(source, subject_column="subject")
    revise(source, survey, out=tmp_path / "cut", resume=True, **options)
    revise(source, survey, out=tmp_path / "whole", **options)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def begun(anonymizer, tmp_path, *, n=9):
    """Leave an interrupted run with two whole shards and return how to go on."""
    options = {"rules": RowRules(preferences()), "anonymizer": anonymizer, "config": CONFIG}
    source = interrupted(rows_of(11), n, place=tmp_path, out=tmp_path / "out", **options)
    survey = survey_rows(source, subject_column="subject")

    def go_on(**changes):
        return revise(
            source, survey, out=tmp_path / "out", **(options | {"resume": True} | changes)
        )

    return go_on


def test_going_on_does_not_make_again_what_is_there(anonymizer, tmp_path):
    go_on = begun(anonymizer, tmp_path)
    made = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".out.part/data").iterdir()}
    assert len(made) == 2
    seen = []
    go_on(report=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == [4, 8, 11]
    for name, time in made.items():
        assert (tmp_path / "out/data" / name).stat().st_mtime_ns == time
    assert [row["row_id"] for row in table_of(tmp_path / "out")] == list(range(11))


@pytest.mark.parametrize("spoil", ["cut off", "gone", "no record", "bad record"])
def test_a_damaged_shard_is_made_again_to_the_same_bytes(anonymizer, tmp_path, spoil):
    go_on = begun(anonymizer, tmp_path)
    shard = tmp_path / ".out.part/data/train-00000-of-00003.parquet"
    record = tmp_path / ".out.private/shards/train-00000-of-00003.parquet.json"
    before = shard.read_bytes()
    {
        "cut off": lambda: shard.write_bytes(before[:1000]),
        "gone": shard.unlink,
        "no record": record.unlink,
        "bad record": lambda: record.write_text('{"sha256": 1'),
    }[spoil]()
    go_on()
    assert (tmp_path / "out/data" / shard.name).read_bytes() == before
    load_revision(tmp_path / "out")


def test_going_on_with_other_data_preferences_or_options_is_refused(run, anonymizer, tmp_path):
    go_on = begun(anonymizer, tmp_path)
    before = files_of(tmp_path)
    for changes, mention in (
        ({"rules": RowRules(replace(preferences(), digest="other"))}, "preferences"),
        ({"rules": RowRules(preferences(), others="keep")}, "others"),
        ({"config": replace(CONFIG, seed=3)}, "seed"),
        ({"config": replace(CONFIG, rows_per_shard=5)}, "rows_per_shard"),
        ({"anonymizer": Anonymizer(load_backend("solid"), MarkDetector())}, "model"),
    ):
        with pytest.raises(InvalidArgumentError, match=mention):
            go_on(**changes)
    with pytest.raises(InvalidArgumentError, match="data"):
        run(rows_of(12), resume=True)
    # The data file was another one in between; everything else is untouched.
    before.pop("x.parquet")
    assert before.items() <= files_of(tmp_path).items()


@pytest.mark.parametrize("name", ["state.json", "noise.key"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{"])
def test_a_damaged_state_is_refused_and_named(anonymizer, tmp_path, name, content):
    go_on = begun(anonymizer, tmp_path)
    path = tmp_path / ".out.private" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidArgumentError) as error:
        go_on()
    assert ".out.private" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_begun_run_is_not_begun_again_by_accident(anonymizer, tmp_path):
    go_on = begun(anonymizer, tmp_path)
    with pytest.raises(OutputError, match="--resume"):
        go_on(resume=False)


def test_going_on_where_nothing_was_begun_starts_and_where_all_is_done_ends(run, tmp_path):
    _, first = run(rows_of(5), resume=True)
    before = files_of(tmp_path)
    _, second = run(rows_of(5), resume=True)
    assert first == second
    assert files_of(tmp_path) == before


def test_a_folder_of_someone_else_is_never_touched(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="files in it"):
        run(rows_of(3))
    with pytest.raises(OutputError, match="files in it"):
        run(rows_of(3), resume=True)
    assert files_of(tmp_path / "out") == {"mine.txt": b"mine"}


def test_an_empty_folder_may_take_the_data(run, tmp_path):
    (tmp_path / "out").mkdir()
    rows, _ = run(rows_of(2))
    assert len(rows) == 2


@pytest.mark.parametrize("out", ["no/such/place", "file/out", "file"])
def test_a_place_that_cannot_be_written_is_refused(run, tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="`--out`"):
        run(rows_of(2), out=out)


def test_a_full_disk_leaves_what_can_be_resumed_and_nothing_that_looks_whole(run, tmp_path):
    source = source_of(tmp_path / "x.parquet", rows_of(6))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(OutputError) as error:
            run(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "--resume" in str(error.value)
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".out.part/data").iterdir()) == []
    rows, _ = run(source, resume=True)
    assert len(rows) == 6


# --- Memory ----------------------------------------------------------------------------------


class CountedRows:
    """Rows made on demand that count how many were taken."""

    def __init__(self, n):
        self.n, self.taken, self.photo = n, 0, photo_png(0)

    def __iter__(self):
        self.taken = 0
        for i in range(self.n):
            self.taken += 1
            yield {"image": self.photo, "subject": f"p{i % 7}"}


class Watching:
    """A backend that remembers how far reading had come each time it generated."""

    def __init__(self, rows):
        self.backend, self.rows, self.done, self.ahead = load_backend("solid"), rows, 0, 0

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def generate(self, requests):
        self.ahead = max(self.ahead, self.rows.taken - self.done)
        self.done += len(requests)
        return self.backend.generate(requests)


def test_rows_are_read_no_further_ahead_than_one_batch():
    rows = CountedRows(20)
    backend = Watching(rows)
    reviser = RowReviser(
        Anonymizer(backend, MarkDetector()),
        RowRules(preferences()),
        image_column="image",
        key_of=NoiseKey.from_seed,
        batch=6,
    )
    numbered = ((i, row["subject"], row) for i, row in enumerate(rows))
    assert [len(batch) for batch in reviser.batches(numbered)] == [6, 6, 6, 2]
    assert backend.done == 20
    assert backend.ahead == 6


@pytest.mark.slow
def test_a_whole_run_reads_no_further_ahead_than_one_batch(tmp_path):
    rows = CountedRows(300)
    features = datasets.Features({"image": datasets.Image(), "subject": datasets.Value("string")})
    source = RowSource("many", "image", tuple(features), 300, rows, features=features)
    survey = survey_rows(source, subject_column="subject")
    backend = Watching(rows)
    revise(
        source,
        survey,
        RowRules(preferences()),
        tmp_path / "out",
        anonymizer=Anonymizer(backend, MarkDetector()),
        config=ReviseConfig(rows_per_shard=100),
    )
    assert backend.done == 300
    assert backend.ahead == BATCH


def test_a_batch_of_large_photos_is_a_small_one(anonymizer):
    reviser = RowReviser(
        anonymizer,
        RowRules(preferences()),
        image_column="image",
        key_of=NoiseKey.from_seed,
        most_pixels=3 * 160 * 170,
    )
    rows = ((i, "a", {"image": photo_png(i)}) for i in range(4))
    assert [len(batch) for batch in reviser.batches(rows)] == [3, 1]


# --- Real weights ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_model_revises_the_example_people(tmp_path):
    from privacy_core.faces import default_detector

    folder = Path(__file__).parents[2] / "examples"
    rows = [
        {"image": {"bytes": p.read_bytes(), "path": None}, "subject": p.name[:9], "label": 0}
        for p in sorted(folder.glob("person-0[1-4]-*.png"))
    ]
    source = source_of(tmp_path / "x.parquet", rows)
    survey = survey_rows(source, subject_column="subject")
    revision = revise(
        source,
        survey,
        RowRules(preferences({"person-01": 0.6}, 0.85)),
        tmp_path / "out",
        anonymizer=Anonymizer(load_backend("embedded"), default_detector()),
        config=CONFIG,
    )
    assert survey.duplicates.n_across_subjects == 0
    assert revision["counts"]["by_status"] == {"revised": 16}
    assert Workplace(tmp_path / "out").is_whole()
