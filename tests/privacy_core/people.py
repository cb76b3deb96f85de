"""A small data set of nobody: photos without a real face, and a detector that reads a mark."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from privacy_core.dataset import read_dataset
from privacy_core.revise.preferences import Preferences
from tests.privacy_core.tiny import face_at, smooth_photo

NO_FACE, TWO_FACES, BROKEN, CROWD = 255, 254, 253, 252
LARGEST, SMALLER = face_at(20, 15), face_at(150, 10, 0.5)


def photo_png(seed, mark=0, *, width=170):
    """Return a photo as PNG; `mark` tells `MarkDetector` what it shall find."""
    pixels = np.array(smooth_photo(160, width, seed=seed).pixels)
    pixels[0, 0] = mark
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class MarkDetector:
    """Finds one face, unless the photo's first pixel says otherwise."""

    name = "mark"

    def detect(self, pixels):
        found = {
            NO_FACE: [],
            TWO_FACES: [LARGEST, SMALLER],
            BROKEN: [replace(LARGEST, landmarks=np.full((5, 2), np.nan))],
            CROWD: [LARGEST] * 40,
        }
        return found.get(int(pixels[0, 0, 0]), [LARGEST])


def rows_of(n=6, *, n_subjects=3, marks=None):
    """Return `n` rows, subjects taking turns, labels 0 and 1."""
    marks = marks or {}
    return [
        {
            "image": {"bytes": photo_png(i, marks.get(i, 0)), "path": None},
            "subject": f"person-{i % n_subjects}",
            "label": i % 2,
            "weight": i / 2,
        }
        for i in range(n)
    ]


def write_rows(path, rows):
    """Write rows as parquet and return the path."""
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def source_of(path, rows, **options):
    """Write rows and open them."""
    return read_dataset(write_rows(path, rows), **options)


def preferences(subjects=None, population=0.8, **others):
    """Return preferences that were never in a file."""
    return Preferences(
        {"person-0": 0.5} if subjects is None else subjects, population, digest="d", **others
    )


def write_preferences(path, subjects=None, population=0.8, **others):
    """Write a preferences.json of the contract and return its path."""
    subjects = {"person-0": 0.5} if subjects is None else subjects
    entries = {
        name: {"strength": strength, "mean": strength, "sd": 0.1, "n_ratings": 9, "source": "own"}
        for name, strength in subjects.items()
    }
    content = {
        "schema_version": 1,
        "model_version": "embedded@tiny",
        "population": {"strength": population, "sd": 0.1, "n_raters": 5},
        "subjects": entries,
    } | others
    path.write_text(json.dumps(content))
    return path
