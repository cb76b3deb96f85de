"""Ladders of the examples that are shown before any model is warm: made, read and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privacy_core.anonymize import LADDER, Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.faces import HogDetector, read_photo
from privacy_core.noise import NoiseKey
from shell import prerender
from shell.prerender import MOST_BYTES, main
from shell.previews import (
    FOLDER,
    MANIFEST,
    NOTE,
    Preview,
    example_photos,
    preview_html,
    read_previews,
)
from tests.privacy_core.tiny import write_tiny_model

PHOTOS = example_photos(FOLDER.parent)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    backend = EmbeddedBackend.load(write_tiny_model(tmp_path_factory.mktemp("model")))
    return Anonymizer(backend, HogDetector(smallest_face=80, threshold=0.5))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory, astronaut):
    path = tmp_path_factory.mktemp("photos") / "one.png"
    Image.fromarray(astronaut).save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny, portrait):
    folder = tmp_path_factory.mktemp("ladders") / "made"
    prerender.prerender(tiny, [portrait], model="abc", out=folder)
    return folder


def test_the_shipped_previews_are_of_the_shipped_weights_and_photos():
    model = EmbeddedBackend.load().revision
    previews = read_previews(PHOTOS, model=model)
    assert len(previews) == 6
    assert all(preview.strengths == tuple(LADDER) for preview in previews)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES


def test_the_shipped_previews_have_the_noise_of_the_shipped_curve(portrait):
    backend = EmbeddedBackend.load()
    opened = Anonymizer(backend, HogDetector(smallest_face=80)).open(
        read_photo(portrait.read_bytes()), key=NoiseKey.fresh()
    )
    shipped = json.loads((FOLDER / MANIFEST).read_text(encoding="utf-8"))
    assert shipped["sigmas"] == [variant.sigma for variant in opened.ladder()]


def test_what_is_shipped_is_marked_as_made_by_an_algorithm():
    for path in FOLDER.glob("*.webp"):
        with Image.open(path) as image:
            assert b"DigitalSourceType" in image.info["xmp"]
            assert not image.getexif()


def test_the_same_weights_make_the_same_previews_and_each_strength_another(
    tiny, portrait, made, tmp_path
):
    prerender.prerender(tiny, [portrait], model="abc", out=tmp_path / "again")
    names = sorted(path.name for path in made.iterdir())
    assert len(names) == len(LADDER) + 2
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes()
    (preview,) = read_previews([portrait], model="abc", folder=made)
    assert len({preview.photo, *preview.variants}) == len(LADDER) + 1


def test_other_weights_make_the_previews_stale(portrait, made):
    with pytest.raises(InvalidArgumentError, match=r"others\. Make them again"):
        read_previews([portrait], model="abd", folder=made)


def test_another_photo_of_the_same_name_is_not_shown_with_the_old_ladder(made, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(InvalidArgumentError, match=r"another 'one\.png'"):
        read_previews([tmp_path / "one.png"], model="abc", folder=made)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
        lambda folder: (folder / MANIFEST).write_text("[]"),
        lambda folder: (folder / "one-060.webp").unlink(),
        lambda folder: (folder / MANIFEST).write_text(json.dumps({"schema_version": 2})),
    ],
)
def test_an_incomplete_folder_is_refused_with_the_command_that_makes_it(
    portrait, made, tmp_path, spoil
):
    folder = Path(shutil.copytree(made, tmp_path / "spoilt"))
    spoil(folder)
    with pytest.raises(InvalidArgumentError, match=r"python -m shell\.prerender"):
        read_previews([portrait], model="abc", folder=folder)


def test_too_large_previews_replace_nothing(tiny, portrait, made, monkeypatch):
    before = sorted(made.iterdir())
    monkeypatch.setattr(prerender, "MOST_BYTES", 100)
    with pytest.raises(OutputError, match="may have 100 bytes"):
        prerender.prerender(tiny, [portrait], model="abc", out=made)
    assert sorted(made.iterdir()) == before


def test_the_command_says_what_it_made_or_why_not(tmp_path, capsys, monkeypatch):
    model = write_tiny_model(tmp_path / "model")
    monkeypatch.setattr(prerender, "default_detector", lambda: HogDetector(smallest_face=80))
    monkeypatch.setattr(prerender, "example_photos", lambda _: PHOTOS[:1])
    assert main(["--model", str(model), "--out", str(tmp_path / "out")]) == 0
    assert "Ladders of 1 photos" in capsys.readouterr().out
    assert main(["--model", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_pictures_have_alternatives_and_the_page_says_that_their_noise_is_public():
    html = preview_html(Preview((0.2, 1.0), b"p", (b"a", b"b")))
    assert html.count("<img alt=") == 3
    assert "at strength 0.2" in html
    assert "public noise" in NOTE
    assert "public noise" in html
