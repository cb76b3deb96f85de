"""`fit_model` from pictures to a model folder, killed after every stage, and refused."""

import io
import itertools
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from pyarrow import parquet

from privacy_core.__main__ import main
from privacy_core.diffusion.fit import FIT, VALIDATION, FitConfig, fit_model, sample_sheet
from privacy_core.diffusion.fit_code import CodeFitConfig
from privacy_core.diffusion.model import WEIGHTS, load_model
from privacy_core.diffusion.prepare import split_of
from privacy_core.diffusion.refiner import RefinerConfig
from privacy_core.diffusion.refiner_examples import RefinerFitConfig
from privacy_core.diffusion.training import TrainingConfig
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces import HogDetector
from privacy_core.schema import ATTRIBUTES

CONFIG = FitConfig(
    code=CodeFitConfig(n_components=8, n_context=4, copies=1, batch=32),
    training=TrainingConfig(
        n_faces=2048, batch_size=128, warmup_steps=4, ema=0.9, validate_every=512,
        checkpoint_minutes=0.0,
    ),
    refiner=RefinerFitConfig(
        RefinerConfig(4, 1), n_steps=3, n_paired=4, n_drawn=4, batch_size=4, checkpoint_minutes=0.0
    ),
    width=32,
    depth=2,
)  # fmt: skip
N_ROWS = 40


class KilledError(Exception):
    """Stands for a kill: nothing after it is executed."""


class Untouchable:
    """Stands for a detector that must not be used any more."""

    name = "untouchable"

    def detect(self, pixels):
        raise AssertionError("A finished stage was done again.")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def people():
    """Return names in turn: six to fit, two to validate, one that no stage may see."""
    names = {"fit": [], "validation": [], "unseen": []}
    for i in range(2000):
        split = split_of(f"p{i}", "")
        place = "fit" if split <= FIT[1] else "validation" if split <= VALIDATION[1] else "unseen"
        names[place].append(f"p{i}")
    return names["fit"][:6] + names["validation"][:2] + names["unseen"][:1]


def rows(astronaut):
    """Yield crops of one photo, shifted, turned, mirrored, lighter and darker."""
    rng, names = np.random.default_rng(0), people()
    photo = Image.fromarray(astronaut[0:230, 120:330])
    for i in range(N_ROWS - 1):
        picture = photo.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR)
        left, top = rng.integers(5, 25), rng.integers(20, 40)
        picture = picture.crop((left, top, left + 180, top + 180))
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.7, 1.2))
        picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.3, 1.5))
        if i % 2:
            picture = ImageOps.mirror(picture)
        file = io.BytesIO()
        picture.save(file, "PNG")
        yield {
            "image": file.getvalue(), "identity": names[i % len(names)],
            "gender": "female", "smiling": "yes" if i % 2 else "no",
        }  # fmt: skip
    yield {"image": b"no picture at all"}


def quiet(*_):
    return None


def fit(
    out,
    data=(),
    *,
    config=CONFIG,
    detector=None,
    report=quiet,
    talk=quiet,
    n_rows=N_ROWS,
    digest="",
):
    return fit_model(
        data, n_rows, out, config=config, detector=detector or Untouchable(), report=report,
        talk=talk, digest=digest,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(astronaut, tmp_path_factory):
    """An uninterrupted run, its facts and what it said."""
    torch.set_num_threads(1)
    out, said, stages = tmp_path_factory.mktemp("fitted"), [], []
    detector = HogDetector(smallest_face=80)
    facts = fit(
        out, rows(astronaut), detector=detector, talk=said.append,
        report=lambda stage, *_: stages.append(stage),
    )  # fmt: skip
    return out, facts, said, list(dict.fromkeys(stages))


def weights(out):
    return [(out / part / WEIGHTS).read_bytes() for part in ("code", "denoiser", "refiner")]


# --- A whole run -----------------------------------------------------------------------------


def test_a_fit_gives_a_model_that_loads_and_is_not_calibrated(fitted):
    model = load_model(fitted[0])
    assert model.curve is None
    assert model.code.sizes.n_components == 8
    assert torch.equal(model.denoiser.sd, model.code.sd)
    assert model.denoiser.sizes.width == 32
    assert not (fitted[0] / "calibration.json").exists()


def test_the_weights_saved_are_the_best_of_the_run(fitted):
    best = torch.load(fitted[0] / "work" / "best.pt", weights_only=True)
    saved = load_model(fitted[0], dtype=torch.float32).denoiser.state_dict()
    for name, value in best.items():
        assert torch.equal(saved[name], value.half().float())


def test_the_facts_tell_settings_counts_and_losses(fitted):
    out, facts, said, stages = fitted
    assert json.loads((out / "fit.json").read_text()) == facts
    card = (out / "README.md").read_text()
    assert f"| fitted faces | {facts['fit_faces']} |" in card
    assert "| seed | 0 |" in card
    assert facts["counts"]["rows"] == N_ROWS
    assert facts["counts"]["unreadable"] == 1
    assert facts["counts"]["no_face"] <= 5
    used = N_ROWS - sum(facts["counts"][name] for name in ("unreadable", "no_face", "duplicates"))
    # One person of nine is in no split that the fit may see.
    assert facts["fit_faces"] + facts["validation_faces"] < used
    assert facts["validation_faces"] >= 4
    assert facts["config"]["code"]["n_components"] == 8
    assert facts["config"]["training"]["seed"] == 0
    assert [row["faces"] for row in facts["losses"]] == [512, 1024, 1536, 2048]
    assert facts["best_validation_loss"] == min(r["validation_loss"] for r in facts["losses"])
    assert facts["seconds_of_training"] > 0
    assert len(said) == 4
    assert "validation loss" in said[0]
    assert stages == [
        "aligned faces", "components", "codes", "context", "augmented codes", "generated faces",
        "refiner", "attribute predictor",
    ]  # fmt: skip


def test_only_the_splits_of_the_fit_reach_the_code(fitted):
    out, facts, *_ = fitted
    train, validation = torch.load(out / "work" / "codes.pt", weights_only=True)
    assert len(train["codes"]) == 3 * facts["fit_faces"]  # itself, mirrored, one copy
    assert len(validation["codes"]) == 2 * facts["validation_faces"]
    split = np.load(out / "work" / "faces.npz")["split"]
    assert facts["fit_faces"] == int((split <= 56).sum())
    assert facts["validation_faces"] == int(((split >= 57) & (split <= 59)).sum())


def test_the_population_is_that_of_the_labels(fitted):
    population = load_model(fitted[0]).population
    assert set(population) == set(ATTRIBUTES)
    assert population["gender"] == 0.0
    assert 0.3 < population["smiling"] < 0.7
    assert population["beard"] == 0.5  # nobody said


def test_the_predictor_learns_what_labels_tell_from_its_own_splits(fitted):
    predictor = load_model(fitted[0]).predictor
    known = dict(zip(ATTRIBUTES, predictor.classes_.tolist(), strict=True))
    # Everybody is labelled female, and nobody has any other label than a smile.
    assert known == dict.fromkeys(ATTRIBUTES, False) | {"smiling": True}
    assert not predictor.config.whole_crop


def test_the_sample_sheet_shows_four_rows_of_eight_faces(fitted):
    sheet = np.asarray(Image.open(fitted[0] / "samples.png"))
    assert sheet.shape == (4 * 128, 8 * 128, 3)
    tiles = sheet.reshape(4, 128, 8, 128, 3).transpose(0, 2, 1, 3, 4).reshape(32, -1)
    assert len(np.unique(tiles, axis=0)) == 32
    model = load_model(fitted[0], dtype=torch.float32)
    assert sample_sheet(model.code, model.denoiser, n=9).shape == (2 * 128, 8 * 128, 3)


def test_a_fit_has_a_refiner_unless_no_step_is_asked(fitted, aligned):
    assert load_model(fitted[0]).refiner.sizes == CONFIG.refiner.sizes
    (aligned / "work" / "settings.json").unlink()
    fit(aligned, config=replace(CONFIG, refiner=replace(CONFIG.refiner, n_steps=0)))
    assert load_model(aligned).refiner is None


# --- Resuming --------------------------------------------------------------------------------


def kill_at(stage):
    def report(name, *_):
        if name == stage:
            raise KilledError

    return report


def kill(_):
    raise KilledError


@pytest.fixture
def aligned(fitted, tmp_path):
    """A folder in which the alignment has just been finished."""
    work = tmp_path / "out" / "work"
    work.mkdir(parents=True)
    for name in ("settings.json", "frames.npy", "faces.npz", "counts.json"):
        shutil.copy(fitted[0] / "work" / name, work)
    return work.parent


@pytest.mark.parametrize("interruption", [
    {"report": kill_at("components")}, {"report": kill_at("augmented codes")}, {"talk": kill},
    {"report": kill_at("generated faces")}, {"report": kill_at("refiner")},
], ids=["code", "encoding", "training", "generating", "refining"])  # fmt: skip
def test_a_killed_fit_goes_on_to_the_same_code(fitted, aligned, interruption):
    with pytest.raises(KilledError):
        fit(aligned, **interruption)
    assert not (aligned / "denoiser").exists()
    facts = fit(aligned)
    assert weights(aligned)[0] == weights(fitted[0])[0]
    assert facts["losses"][-1]["faces"] == 2048
    if "report" in interruption:  # training itself was not cut in two (see test_training)
        assert weights(aligned)[1:] == weights(fitted[0])[1:]


def test_a_kill_while_a_stage_is_written_leaves_no_half_stage(aligned, monkeypatch):
    save = torch.save

    def half(_, path):
        path.write_bytes(b"half a file")
        raise KilledError

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KilledError):
        fit(aligned)
    monkeypatch.setattr(torch, "save", save)
    fit(aligned)
    assert load_model(aligned).code.sizes.n_components == 8


def test_a_finished_fit_is_not_trained_again(fitted, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(fitted[0], out)
    said = []
    facts = fit(out, talk=said.append)
    assert said == ["Resumed after 2048 faces."]
    assert weights(out) == weights(fitted[0])
    assert facts["losses"] == fitted[1]["losses"]


# --- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [
    replace(CONFIG, width=64), replace(CONFIG, code=replace(CONFIG.code, n_components=9)),
    replace(CONFIG, training=replace(CONFIG.training, seed=1)),
])  # fmt: skip
def test_other_settings_in_the_same_folder_are_refused(fitted, tmp_path, other):
    out = tmp_path / "copy"
    shutil.copytree(fitted[0], out)
    with pytest.raises(InvalidArgumentError, match="same settings"):
        fit(out, config=other)
    fit(out)  # and the refusal has not changed what is there


def test_other_data_in_the_same_folder_are_refused(aligned):
    with pytest.raises(InvalidArgumentError, match="same data"):
        fit(aligned, n_rows=N_ROWS + 1)


def test_as_many_rows_with_another_digest_are_refused_before_anything_is_done(tmp_path):
    def stop(*_):
        raise KilledError

    for _ in range(2):  # a rerun on the same rows goes on
        with pytest.raises(KilledError):
            fit(tmp_path, [{"image": b""}], report=stop, digest="a1")
    (tmp_path / "work" / "counts.json").write_text("no stage may read this")
    for digest in ("b2", ""):
        with pytest.raises(InvalidArgumentError, match=r"same data.*'a1'.*or delete '.*work'"):
            fit(tmp_path, digest=digest, config=replace(CONFIG, width=64))
    assert json.loads((tmp_path / "work" / "settings.json").read_text())["data"] == "a1"


def test_a_run_of_an_earlier_version_is_refused_as_one_that_noted_no_data(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "settings.json").write_text(json.dumps(asdict(CONFIG)))
    with pytest.raises(InvalidArgumentError, match="of an earlier version"):
        fit(tmp_path, digest="a1")


def test_the_command_tells_a_fit_which_rows_it_gets(tmp_path, astronaut, monkeypatch):
    data, seen = tmp_path / "d.parquet", []
    monkeypatch.setattr("privacy_core.diffusion.fit.fit_model", lambda *_, **f: seen.append(f))
    for gender in ("female", "male"):
        found = [{**row, "gender": gender} for row in itertools.islice(rows(astronaut), 3)]
        parquet.write_table(pa.Table.from_pylist(found), data)
        arguments = ["fit-model", str(data), "--out", str(tmp_path / "m")]
        assert main(arguments, detector=Untouchable()) == 0
    assert [f["digest"] for f in seen] == [f["provenance"]["SHA-256 of the rows"] for f in seen]
    assert len({f["digest"] for f in seen}) == 2


def test_too_few_faces_for_the_components_are_refused_with_both_numbers(fitted, aligned):
    (aligned / "work" / "settings.json").unlink()
    config = replace(CONFIG, code=replace(CONFIG.code, n_components=30))
    with pytest.raises(InvalidArgumentError, match=f"at least 60.*got {fitted[1]['fit_faces']}"):
        fit(aligned, config=config)
