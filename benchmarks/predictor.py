"""Train and measure the attribute predictor that the app shows: `models/attributes/`.

Fits on people of the fit-model split and measures on people whom neither it nor the embedded model
saw. Writes weights and figures only, never a picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from benchmarks.development_faces import detector, prepared_faces
from privacy_core.anonymize import Anonymizer
from privacy_core.attributes import (
    PREDICTOR_CONFIG,
    PREDICTOR_FOLDER,
    PREDICTOR_WEIGHTS,
    AttributePredictor,
    PredictorConfig,
    balanced_accuracy,
    labels_of,
)
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.diffusion.fit import FIT
from privacy_core.diffusion.prepare import (
    PreparedFaces,
    identity_of,
    split_of,
)
from privacy_core.errors import PrivacyDialError
from privacy_core.faces import read_photo
from privacy_core.noise import NoiseKey
from privacy_core.schema import ATTRIBUTES

HELD_OUT = (80, 99)
CONFIG = PredictorConfig(width=24, epochs=10)
STRENGTHS = (0.5, 0.8, 1.0)
N_PROTECTED = 700
PROTECTED_SOURCE = "celeba"
_ALL = "all"


def measure(predictor: AttributePredictor, prepared: PreparedFaces) -> dict[str, Any]:
    """Return balanced accuracy and count per attribute on held-out people, by source and pooled."""
    index = prepared.between(*HELD_OUT)
    guess = predictor.predict(np.array(prepared.faces.frames[index])) >= 0.5
    truth, source = prepared.faces.attributes[index], prepared.source[index]
    found: dict[str, Any] = {}
    for name in (_ALL, *sorted(set(source.tolist()))):
        of_it = np.ones(len(index), np.bool_) if name == _ALL else source == name
        found[name] = _by_attribute(guess[of_it], truth[of_it])
    return found


def _by_attribute(guess: NDArray[np.bool_], truth: NDArray[np.int64]) -> dict[str, Any]:
    found = {}
    for place, name in enumerate(ATTRIBUTES):
        known = truth[:, place] >= 0
        if len(set(truth[known, place].tolist())) > 1:
            accuracy = balanced_accuracy(guess[:, place], truth[:, place])
            found[name] = {"balanced_accuracy": round(accuracy, 4), "faces": int(known.sum())}
    return found


def measure_protected(
    predictor: AttributePredictor, rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return balanced accuracy on variants of held-out people, one photo each, no policy."""
    anonymizer = Anonymizer(EmbeddedBackend.load(), detector())
    frames: dict[float, list[NDArray[np.uint8]]] = {strength: [] for strength in STRENGTHS}
    labels: list[tuple[int, ...]] = []
    people: set[str] = set()
    for row in rows:
        person = identity_of(row)
        is_other = row.get("source") != PROTECTED_SOURCE or person is None or person in people
        if is_other or split_of(person, "") not in range(HELD_OUT[0], HELD_OUT[1] + 1):
            continue
        people.add(str(person))
        try:
            opened = anonymizer.open(read_photo(row["image"] or b""), key=NoiseKey.fresh())
        except PrivacyDialError:
            continue
        for strength, variant in zip(STRENGTHS, opened.ladder(STRENGTHS), strict=True):
            frames[strength].append(opened.frame(0, variant.image))
        labels.append(labels_of(row))
        if len(labels) == N_PROTECTED:
            break
    truth = np.array(labels)
    found: dict[str, Any] = {"source": PROTECTED_SOURCE, "people": len(labels), "strengths": {}}
    for strength, shown in frames.items():
        guess = predictor.predict(np.stack(shown)) >= 0.5
        found["strengths"][str(strength)] = _by_attribute(guess, truth)
    return found


def main() -> int:
    """Train on the development faces, and write weights, configuration and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="work folder of fit-model")
    parser.add_argument("--out", type=Path, default=PREDICTOR_FOLDER, help="where weights go")
    parser.add_argument("--measure", action="store_true", help="measure the weights that are there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, prepared = prepared_faces(options.work)
    index = prepared.between(*FIT)
    index = index[(prepared.faces.attributes[index] >= 0).any(1)]
    predictor = AttributePredictor(CONFIG)
    if options.measure:
        predictor.load_state(load_file(options.out / PREDICTOR_WEIGHTS))
    else:
        predictor.fit(np.array(prepared.faces.frames[index]), prepared.faces.attributes[index])
        options.out.mkdir(parents=True, exist_ok=True)
        save_file(predictor.state(), options.out / PREDICTOR_WEIGHTS)
    stored = {
        "schema_version": 1,
        "config": asdict(CONFIG),
        "fitted_on": {"splits": FIT, "faces": len(index)},
        "held_out": {"splits": HELD_OUT, **measure(predictor, prepared)},
        "protected": measure_protected(predictor, rows),
    }
    text = json.dumps(stored, indent=1) + "\n"
    (options.out / PREDICTOR_CONFIG).write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
