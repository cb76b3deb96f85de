"""What is still good: detection, landmarks, expression, kept attributes, pixels outside, time.

Knows what was observed of each variant, as arrays; no picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.identity import Metrics, median_over_people
from privacy_core.audit.estimates import Floats, mean_over_people
from privacy_core.schema import ATTRIBUTES

NO_JUDGE = "DATA has too few labelled people for a second predictor"


def measure_fidelity(
    seen: dict[str, NDArray[Any]], original: dict[str, NDArray[Any]], *, seed: int
) -> Metrics:
    """Return what one setting leaves of a picture's use.

    Args:
        seen: Arrays of `observe.observe_variants`.
        original: Arrays of `observe.observe_originals`, the same faces.
        seed: Seed of the bootstraps.

    Returns:
        Metric → Estimate, number, or a sentence that says why it is absent.
    """
    people, released = original["person"], seen["released"]
    found: Metrics = {
        "detected": mean_over_people(seen["detected"] & released, people, seed=seed),
        "withheld": int((~released).sum()),
        "pixels_changed_outside": int(seen["changed_outside"].max(initial=0)),
        "median_ms": 1000 * float(np.median(seen["seconds"])),
    }
    if not released.any():
        return found
    kept = people[released]
    for part in ("eyes", "nose", "mouth"):
        error = seen[f"error_{part}"][released]
        found[f"landmark_error_{part}"] = median_over_people(error, kept, seed=seed)
    gap = abs(seen["mouth_gap"] - original["mouth_gap"])[released]
    found["mouth_open_difference"] = median_over_people(gap, kept, seed=seed)
    turn = abs(seen["turn"] - original["turn"])[released]
    found["turn_difference"] = median_over_people(turn, kept, seed=seed)
    return found


def agreement(
    seen: Floats, reference: Floats, released: NDArray[np.bool_], people: Ints, *, seed: int
) -> Metrics:
    """Return per attribute how often a predictor says the same of the variant and the original.

    Args:
        seen: (n, 5) probabilities on the variants; NaN where the attribute cannot be predicted.
        reference: (n, 5) probabilities on the originals.
        released: (n,) a face that was withheld agrees with nothing.
        people: (n,) who is shown.
        seed: Seed of the bootstraps.
    """
    found: Metrics = {}
    for place, name in enumerate(ATTRIBUTES):
        if np.isnan(reference[:, place]).any():
            found[name] = NO_JUDGE
            continue
        same = ((seen[:, place] > 0.5) == (reference[:, place] > 0.5)) & released  # noqa: PLR2004
        found[name] = mean_over_people(same, people, seed=seed)
    return found
