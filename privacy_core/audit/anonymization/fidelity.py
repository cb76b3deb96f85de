"""What is still good: detection, landmarks, expression, kept attributes, pixels outside, time.

Knows what was observed of each variant, as arrays; no picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.audit.anonymization.distances import Ints, share_over_people
from privacy_core.audit.anonymization.identity import NOTHING, Metrics, median_over_people
from privacy_core.audit.anonymization.inference import FEWEST_OF_CLASS, accuracy_over_people
from privacy_core.audit.estimates import Floats
from privacy_core.schema import ATTRIBUTES

_PARTS = ("eyes", "nose", "mouth")
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
        "detected": share_over_people(seen["detected"] & released, people, seed=seed),
        "withheld": int((~released).sum()),
        "pixels_changed_outside": int(seen["changed_outside"].max(initial=0)),
        "median_ms": 1000 * float(np.median(seen["seconds"])),
    }
    errors = {f"landmark_error_{part}": seen[f"error_{part}"] for part in _PARTS}
    errors["mouth_open_difference"] = abs(seen["mouth_gap"] - original["mouth_gap"])
    errors["turn_difference"] = abs(seen["turn"] - original["turn"])
    for name, values in errors.items():
        found[name] = (
            median_over_people(values[released], people[released], seed=seed)
            if released.any()
            else NOTHING
        )
    return found


def agreement(
    seen: Floats, reference: Floats, released: NDArray[np.bool_], people: Ints, *, seed: int
) -> Metrics:
    """Return per attribute how often a predictor says the same of the variant and the original.

    What it says of the originals has two classes, each of which weighs one half: who wears glasses
    is rare, and a method that takes them from everybody must not look as if it kept them.

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
        truth = (reference[:, place] > 0.5).astype(np.int64)  # noqa: PLR2004
        if min(truth.sum(), len(truth) - truth.sum()) < FEWEST_OF_CLASS:
            found[name] = f"the second predictor sees fewer than {FEWEST_OF_CLASS} of a class"
            continue
        guess = np.where(released, seen[:, place] > 0.5, truth == 0)  # noqa: PLR2004
        found[name] = accuracy_over_people(guess, truth, people, seed=seed)
    return found
