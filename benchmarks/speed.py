"""Measure the speed of the embedded backend on one CPU core; writes `docs/results/speed.json`.

Ladder of five on a 512 px portrait from detection to finished pictures, generation alone, one
slider step on an open photo, and batch anonymization of small photos.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut

from privacy_core.anonymize import LADDER, Anonymizer, OpenPhoto, anonymize_batch
from privacy_core.backends import load_backend
from privacy_core.faces import default_detector, photo_from_pixels
from privacy_core.noise import NoiseKey
from privacy_core.schema import Photo

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
_BATCH = 64


def median_ms(call: Callable[[], Any], *, repeats: int) -> float:
    """Return the median wall time of a call in milliseconds, after one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def small_photos(n: int) -> list[Photo]:
    """Return `n` different 192 px photos cut around the astronaut's face."""
    picture = Image.fromarray(astronaut())
    photos = []
    for i in range(n):
        left, top = 125 + i % 8, 25 + i // 8
        small = picture.crop((left, top, left + 192, top + 192))
        photos.append(photo_from_pixels(np.asarray(small)))
    return photos


def measure(repeats: int) -> dict[str, float]:
    """Return all figures, in milliseconds or faces per second."""
    backend = load_backend("embedded")
    anonymizer = Anonymizer(backend, default_detector())
    portrait = photo_from_pixels(astronaut())

    def ladder() -> None:
        anonymizer.open(portrait, key=NoiseKey.fresh()).ladder(LADDER)

    opened: OpenPhoto = anonymizer.open(portrait, key=NoiseKey.fresh())
    requests = [replace(opened.requests[0], strength=strength) for strength in LADDER]
    photos = small_photos(_BATCH)

    def batch() -> None:
        anonymize_batch([(anonymizer.open(p, key=NoiseKey.fresh()), 0.8) for p in photos])

    return {
        "ladder_of_5_ms": median_ms(ladder, repeats=repeats),
        "generation_of_5_ms": median_ms(lambda: backend.generate(requests), repeats=repeats),
        "slider_step_ms": median_ms(lambda: opened.variant(0.65), repeats=repeats),
        "detection_ms": median_ms(
            lambda: anonymizer.detector.detect(portrait.pixels), repeats=repeats
        ),
        "batch_faces_per_second": _BATCH * 1000 / median_ms(batch, repeats=max(1, repeats // 4)),
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
        **measure(arguments.repeats),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "speed.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
