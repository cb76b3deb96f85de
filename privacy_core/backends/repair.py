"""Give a face that is still too like its original more noise: at most three tries, by bisection.

For backends that claim no ε only: where ε is claimed nothing may be chosen by looking at the face.
Noise is only ever added, so no face ends up less private than its strength says. Knows noise
levels and distances; no pictures and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from privacy_core.schema import StrengthCurve

MOST_TRIES = 3
TOLERANCE = 0.05
"""How much nearer to its original than the median face a variant may be, in the recogniser's
distance."""


@dataclass(frozen=True)
class Step:
    """One rung of a face's ladder.

    Attributes:
        sigma: Noise level, > 0.
        made: What was made at it.
        distance: Of the picture to the original; larger is less alike, -1 where there is none.
        is_short: Whether it is still nearer to the original than it should be.
    """

    sigma: float
    made: Any
    distance: float
    is_short: bool = False


def target_distance(curve: StrengthCurve, sigma: float) -> float | None:
    """Return the median distance that calibration found at a noise level, None without one."""
    sigmas, medians = (curve.measured.get(name) for name in ("sigmas", "median_distance"))
    if not isinstance(sigmas, list | tuple) or not isinstance(medians, list | tuple):
        return None
    rising = np.maximum.accumulate(medians[1:])
    return float(np.interp(math.log(sigma), np.log(sigmas), rising))


def repair_ladder(
    steps: Sequence[Step],
    targets: Sequence[float | None],
    *,
    highest: float,
    again: Callable[[float], Step],
) -> list[Step]:
    """Return the ladder with every rung at its target and no rung nearer than a weaker one.

    Where the tries do not suffice the rung takes what came out least alike and says so.

    Args:
        steps: One face's rungs in order of noise.
        targets: Median distance of each rung's noise, None where none is known.
        highest: The most noise to try.
        again: Noise level → what is made at it, with the face's own noise.
    """
    repaired: list[Step] = []
    floor = -math.inf
    for step, target in zip(steps, targets, strict=True):
        wanted = floor if target is None else max(floor, target - TOLERANCE)
        chosen = step
        if step.distance < wanted and step.sigma < highest:
            chosen = _raised(step, wanted, highest, again)
        floor = max(floor, chosen.distance)
        repaired.append(replace(chosen, is_short=True) if chosen.distance < wanted else chosen)
    return repaired


def _raised(step: Step, wanted: float, highest: float, again: Callable[[float], Step]) -> Step:
    """Return the least noise found that gives the distance, else what came out least alike."""
    low, high, best = math.log(step.sigma), math.log(highest), step
    for _ in range(MOST_TRIES):
        middle = (low + high) / 2
        tried = again(math.exp(middle))
        if tried.distance >= wanted:
            high, best = middle, tried
        else:
            low = middle
            # Among equals the one with more noise, which comes last.
            best = max(tried, best, key=lambda one: one.distance)
    return best
