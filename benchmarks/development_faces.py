"""The development faces for benchmarks: real photos in `PRIVACY_DIAL_DATA`, never committed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from privacy_core.dataset import RowSource, read_dataset
from privacy_core.diffusion.prepare import PreparedFaces, prepare_faces
from privacy_core.faces.detect import HogDetector


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the development faces.

    Raises:
        SystemExit: The environment does not name it.
    """
    if "PRIVACY_DIAL_DATA" not in environment:
        raise SystemExit("Set PRIVACY_DIAL_DATA to the folder of the development faces.")
    return Path(environment["PRIVACY_DIAL_DATA"])


def detector() -> HogDetector:
    """Return a quick one that finds faces as large as theirs."""
    return HogDetector(longest_side=168, smallest_face=80)


def prepared_faces(work: Path) -> tuple[RowSource, PreparedFaces]:
    """Return their rows, and their aligned faces as `fit-model` keeps them in its work folder."""
    rows = read_dataset(f"{folder()}/faces-*.parquet")
    faces = prepare_faces(rows, len(rows), work, detector=detector(), report=lambda *_: None)
    return rows, faces
