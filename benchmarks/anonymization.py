"""Measure the embedded model on people it was not trained on: re-identification per strength.

Writes `docs/results/anonymization.json` and `.png`. Threshold: the distance at which one in 1 000
pairs of different people's originals of the same test set match.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binomtest, spearmanr
from tqdm import tqdm

from benchmarks.development_faces import numbers, one_photo_per_person
from privacy_core.anonymize import Anonymizer
from privacy_core.backends import load_backend
from privacy_core.calibrate import Measurement, measure_variants, verification_threshold
from privacy_core.faces import default_detector
from privacy_core.noise import NoiseKey
from privacy_core.recognition import DlibRecogniser

TEST_SPLIT = (80, 99)
SPEARMAN_LADDER = tuple(np.linspace(0, 1, 9).round(3))
REPORTED = (0.0, 0.2, 0.5, 0.8, 1.0)
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def rank_1(measured: Measurement) -> NDArray[np.float64]:
    """Return per strength the share of variants whose nearest original is their own."""
    hits = []
    for variants in measured.variants:
        distances = np.linalg.norm(variants[:, None] - measured.originals[None], axis=2)
        hits.append((distances.argmin(1) == np.arange(len(variants))).mean())
    return np.array(hits)


def interval(values: NDArray[np.bool_]) -> list[float]:
    """Return the exact 95 % interval of a share (Clopper & Pearson 1934); one face per person."""
    found = binomtest(int(values.sum()), len(values)).proportion_ci(0.95, method="exact")
    return [float(found.low), float(found.high)]


def summary(measured: Measurement, sources: NDArray[np.str_]) -> dict[str, Any]:
    """Return the table: one row per strength, and the Spearman correlation over the ladder."""
    threshold, n_pairs = verification_threshold(measured.originals, measured.people)
    verified = measured.distances < threshold
    ranks = rank_1(measured)
    rows = [
        {
            "strength": float(strength),
            "verified": float(verified[i].mean()),
            "verified_95": interval(verified[i]),
            "rank_1": float(ranks[i]),
            "detected": float(measured.detected[i].mean()),
            "median_distance": float(np.median(measured.distances[i])),
            "verified_by_source": {
                str(name): float(verified[i][sources == name].mean()) for name in np.unique(sources)
            },
        }
        for i, strength in enumerate(measured.strengths)
    ]
    ladder = [int(np.argmin(abs(measured.strengths - s))) for s in SPEARMAN_LADDER]
    correlations = [
        spearmanr(SPEARMAN_LADDER, measured.distances[ladder, j]).statistic
        for j in range(measured.distances.shape[1])
    ]
    return {
        "n_faces": measured.distances.shape[1],
        "no_face_in_original": measured.no_face,
        "threshold": threshold,
        "n_pairs": n_pairs,
        "rows": rows,
        "spearman_median": float(np.median(correlations)),
        "spearman_5th_percentile": float(np.quantile(correlations, 0.05)),
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw verified, rank-1 and detected against strength."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    strengths = [row["strength"] for row in result["rows"]]
    for name in ("verified", "rank_1", "detected"):
        axes.plot(strengths, [100 * row[name] for row in result["rows"]], "o-", label=name)
    axes.set(xlabel="strength", ylabel="share of faces, %", ylim=(0, 102))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=600)
    arguments = parser.parse_args()
    photos = one_photo_per_person(*TEST_SPLIT, arguments.faces)
    backend = load_backend("embedded")
    strengths = sorted({*SPEARMAN_LADDER, *REPORTED})
    started = time.monotonic()
    with tqdm(total=len(photos), file=sys.stderr) as bar:
        measured = measure_variants(
            Anonymizer(backend, default_detector()),
            [photo.photo for photo in photos],
            numbers(photos),
            strengths=strengths,
            recogniser=DlibRecogniser(),
            keys=[NoiseKey.fresh() for _ in photos],
            report=lambda _stage, done, _total: bar.update(done - bar.n),
        )
    # One photo per person, so a person's number is the photo's place.
    sources = np.array([photo.source for photo in photos])[measured.people]
    result = {
        "model": backend.name,
        "revision": backend.revision,
        "recogniser": DlibRecogniser.name,
        "data": "the development faces, people of splits 80-99, one photo each",
        "seconds": time.monotonic() - started,
        **summary(measured, sources),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "anonymization.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, RESULTS / "anonymization.png")
    print(json.dumps(result["rows"], indent=1))


if __name__ == "__main__":
    main()
