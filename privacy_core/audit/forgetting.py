"""Forgetting per row and per person: the NeurIPS 2023 challenge's score, and membership of people.

Triantafillou et al. 2024 (arXiv 2406.09073); RaMIA's trimmed mean (Tao & Shokri 2025) for people.
Knows arrays per model and row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from privacy_core.audit.estimates import Floats
from privacy_core.audit.ulira import Scores
from privacy_core.errors import InvalidArgumentError

DELTA = 1e-5
_BUCKET = 0.5
_TRIM = 0.2


def forgetting_quality(
    unlearned: ArrayLike, reference: ArrayLike, *, delta: float = DELTA
) -> float:
    """Return F: the mean over rows of 2^−⌊ε/½⌋, 0 for rows that a threshold tells apart wholly.

    More models can show a larger ε, so F is comparable at the same number of models only.

    Args:
        unlearned: (K, n) φ of unlearned models.
        reference: (K, n) φ of reference models, as many.
        delta: δ of the (ε, δ) that ε belongs to.
    """
    eps, is_separated = row_epsilons(unlearned, reference, delta=delta)
    points = np.where(is_separated, 0.0, 2.0 ** -np.floor(eps / _BUCKET))
    return float(points.mean())


def row_epsilons(
    unlearned: ArrayLike, reference: ArrayLike, *, delta: float = DELTA
) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Return (n,) ε of the best single threshold, and which rows it tells apart wholly.

    A threshold says "unlearned" on the side of the unlearned median. One with a false-positive or
    false-negative rate of 0 proves nothing with few models and is left out, unless both are 0:
    then ε is the cap ln K.

    Raises:
        InvalidArgumentError: The sides differ in shape, or have fewer than two models.
    """
    one, two = np.asarray(unlearned, np.float64), np.asarray(reference, np.float64)
    if one.shape != two.shape or one.ndim != 2 or len(one) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            "`unlearned` and `reference` must hold the same rows for as many models, at least two, "
            f"got the shapes {one.shape} and {two.shape}. Train as many of each."
        )
    sign = np.where(np.median(one, 0) >= np.median(two, 0), 1.0, -1.0)
    one, two = one * sign, two * sign
    cap = math.log(len(one))
    best, is_separated = np.zeros(one.shape[1]), np.zeros(one.shape[1], dtype=np.bool_)
    for threshold in np.concatenate([one, two]):
        fpr, fnr = (two >= threshold).mean(0), (one < threshold).mean(0)
        is_separated |= (fpr == 0) & (fnr == 0)
        is_usable = (fpr > 0) & (fnr > 0)
        safe_fpr, safe_fnr = np.where(is_usable, fpr, 1.0), np.where(is_usable, fnr, 1.0)
        ratio = np.maximum((1 - delta - fpr) / safe_fnr, (1 - delta - fnr) / safe_fpr)
        eps = np.log(np.maximum(ratio, 1.0))
        best = np.maximum(best, np.where(is_usable, eps, 0.0))
    return np.where(is_separated, cap, np.minimum(best, cap)), is_separated


def forgetting_score(
    quality: float,
    *,
    retain: tuple[float, float],
    test: tuple[float, float],
) -> float:
    """Return F (RA_u/RA_ref)(TA_u/TA_ref).

    Args:
        quality: F.
        retain: Accuracies on retain rows, unlearned and reference, in [0, 1].
        test: Accuracies on test rows, the same way.

    Raises:
        InvalidArgumentError: A reference accuracy is 0.
    """
    if retain[1] <= 0 or test[1] <= 0:
        raise InvalidArgumentError(
            f"Accuracies of the reference must be positive, got {retain[1]:g} and {test[1]:g}. "
            "Check how the reference was trained."
        )
    return quality * (retain[0] / retain[1]) * (test[0] / test[1])


def person_scores(scores: Scores, people: ArrayLike, *, trim: float = _TRIM) -> Scores:
    """Return one score per person: "was any photo of this person trained on?".

    Args:
        scores: Scores per row.
        people: (n,) who is shown.
        trim: Share of a person's photos left out at either end, in [0, 0.5).

    Returns:
        Trimmed means, people in sorted order.

    Raises:
        InvalidArgumentError: `trim` is out of range, or `people` has another length.
    """
    _, number = np.unique(np.asarray(people), return_inverse=True)
    if not 0 <= trim < 0.5:  # noqa: PLR2004
        raise InvalidArgumentError(f"`trim` must be in [0, 0.5), got {trim!r}.")
    if len(number) != scores.unlearned.shape[1]:
        raise InvalidArgumentError(
            f"`people` must name one person per row, got {len(number)} for "
            f"{scores.unlearned.shape[1]} rows. Read them with the rows."
        )

    def by_person(table: Floats) -> Floats:
        columns = []
        for person in range(number.max() + 1):
            own = np.sort(table[:, number == person], 1)
            cut = int(trim * own.shape[1])
            columns.append(own[:, cut : own.shape[1] - cut].mean(1))
        return np.stack(columns, 1)

    return Scores(by_person(scores.unlearned), by_person(scores.reference))
