"""Utility and resemblance of models, from their logits: accuracy, gap, ToW, JS, distances, MIA.

Knows arrays; not how the models were made. Divergences and entropies are summed by hand in nats:
library calls average over rows and labels at once, or take their arguments the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata

from privacy_core.audit.estimates import Floats
from privacy_core.errors import InvalidArgumentError


def log_probabilities(logits: ArrayLike) -> Floats:
    """Return (..., C) log softmax."""
    z = np.asarray(logits, np.float64)
    return np.asarray(z - logsumexp(z, axis=-1, keepdims=True))


def probabilities(logits: ArrayLike) -> Floats:
    """Return (..., C) softmax."""
    return np.exp(log_probabilities(logits))


def is_correct(logits: ArrayLike, labels: NDArray[np.int64]) -> Floats:
    """Return (..., n): 1 where the largest logit is the label's, else 0."""
    return np.asarray(np.argmax(np.asarray(logits), -1) == labels, np.float64)


def losses(logits: ArrayLike, labels: NDArray[np.int64]) -> Floats:
    """Return (..., n) cross entropies in nats."""
    return -_at(log_probabilities(logits), labels)


def margin(logits: ArrayLike, labels: NDArray[np.int64]) -> Floats:
    """Return (..., n) φ = logit of the label − logsumexp of the others: the log odds of its row.

    Raises:
        InvalidArgumentError: There is only one label.
    """
    z = np.array(logits, np.float64)
    if z.shape[-1] < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"`logits` must be of at least two labels, got {z.shape[-1]}. Audit a classifier."
        )
    own = _at(z, labels)
    place = np.broadcast_to(labels, z.shape[:-1])[..., None]
    np.put_along_axis(z, place, -np.inf, -1)
    return np.asarray(own - logsumexp(z, axis=-1))


def modified_entropy(logits: ArrayLike, labels: NDArray[np.int64]) -> Floats:
    """Return −(1 − p_y) ln p_y − Σ_{i≠y} p_i ln(1 − p_i) per row (Song & Mittal 2021).

    Args:
        logits: (..., n, C).
        labels: (n,).
    """
    log_p = log_probabilities(logits)
    p, log_rest = np.exp(log_p), log1m(log_p)
    own = _at(log_p, labels)
    # (1 - p_y) from the others' sum, so that a certain row is not rounded to 0 · ∞.
    of_label = -np.exp(_at(log_rest, labels)) * own
    every = np.where(p > 0, -p * log_rest, 0.0)
    return np.asarray(of_label + every.sum(-1) - _at(every, labels))


def log1m(log_p: Floats) -> Floats:
    """Return ln(1 − p) of (..., C) probabilities that sum to 1, exact where one of them is near 1.

    The largest one's complement is summed from the others.
    """
    largest = np.argmax(log_p, -1)[..., None]
    others = log_p.copy()
    np.put_along_axis(others, largest, -np.inf, -1)
    with np.errstate(divide="ignore"):  # every other probability may be 0
        result = np.log1p(-np.exp(others))
        rest = logsumexp(others, axis=-1, keepdims=True)
    np.put_along_axis(result, largest, rest, -1)
    return np.asarray(result)


def js_divergence(p: ArrayLike, q: ArrayLike) -> Floats:
    """Return (..., n) Jensen–Shannon divergences in nats: symmetric, 0 to ln 2.

    ½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2, summed over the labels of each row.
    """
    one, two = np.asarray(p, np.float64), np.asarray(q, np.float64)
    middle = (one + two) / 2

    def divergence(a: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(a > 0, a * np.log(a / middle), 0.0).sum(-1))

    return np.maximum((divergence(one) + divergence(two)) / 2, 0.0)


def activation_distance(p: ArrayLike, q: ArrayLike) -> Floats:
    """Return (..., n) Euclidean distances of probabilities, 0 to √2."""
    difference = np.asarray(p, np.float64) - np.asarray(q, np.float64)
    return np.asarray(np.sqrt((difference**2).sum(-1)))


def over_pairs(measure: str, p: ArrayLike, q: ArrayLike, *, is_same: bool = False) -> Floats:
    """Return (pairs, n): a resemblance per row for every pair of models.

    Args:
        measure: "js" or "activation".
        p: (K, n, C) probabilities.
        q: (L, n, C) probabilities.
        is_same: Whether p and q are the same models: then each pair counts once, none with itself.

    Raises:
        InvalidArgumentError: There is no pair.
    """
    of = {"js": js_divergence, "activation": activation_distance}[measure]
    one, two = np.asarray(p, np.float64), np.asarray(q, np.float64)
    pairs = [(i, j) for i in range(len(one)) for j in range(len(two)) if not is_same or i < j]
    if not pairs:
        raise InvalidArgumentError(
            f"`p` and `q` must make at least one pair of models, got {len(one)} and {len(two)}. "
            "Train more reference models, or leave the metric out."
        )
    return np.stack([of(one[i], two[j]) for i, j in pairs])


def gap(value: float, references: ArrayLike) -> float:
    """Return |value − mean of the references'| in percentage points, for values in [0, 1]."""
    return 100 * abs(value - float(np.mean(np.asarray(references, np.float64))))


def average_gap(gaps: Mapping[str, float]) -> float:
    """Return the mean of gaps, in points.

    Raises:
        InvalidArgumentError: There are none.
    """
    if not gaps:
        raise InvalidArgumentError(
            "`gaps` must hold at least one gap, got none. Give a reference model."
        )
    return float(np.mean(list(gaps.values())))


def tug_of_war(
    accuracies: Mapping[str, float],
    references: Mapping[str, float],
    *,
    over: tuple[str, ...] = ("forget", "retain", "test"),
) -> float:
    """Return ToW = Π (1 − |a − a_ref|) over forget, retain and test: 1 is the reference itself.

    Raises:
        InvalidArgumentError: An accuracy is missing on either side.
    """
    missing = [name for name in over if name not in accuracies or name not in references]
    if missing:
        raise InvalidArgumentError(
            f"`accuracies` and `references` must hold {', '.join(over)}, got no {missing[0]}. "
            "Leave the metric out."
        )
    return float(np.prod([1 - abs(accuracies[name] - references[name]) for name in over]))


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Return the chance that a positive score is above a negative one, ties counted half.

    Raises:
        InvalidArgumentError: One side has no scores, or a score is NaN.
    """
    one, two = (np.asarray(side, np.float64).ravel() for side in (positive, negative))
    if len(one) == 0 or len(two) == 0 or np.isnan(one).any() or np.isnan(two).any():
        raise InvalidArgumentError(
            f"Both sides must have scores that are numbers, got {len(one)} and {len(two)}. "
            "Leave a metric without rows out."
        )
    ranks = rankdata(np.concatenate([one, two]))
    wins = ranks[: len(one)].sum() - len(one) * (len(one) + 1) / 2
    return float(wins / (len(one) * len(two)))


def population_attack(
    forget: ArrayLike,
    forget_labels: NDArray[np.int64],
    held_out: ArrayLike,
    held_out_labels: NDArray[np.int64],
) -> float:
    """Return the AUC of −loss, forget rows against rows never trained on; one threshold for all.

    Its target is the reference's value, not ½: some rows are easier for every model. Both sides
    weigh the same whatever their sizes. Context only: it says nothing about single rows.
    """
    return auc(-losses(forget, forget_labels), -losses(held_out, held_out_labels))


def _at(table: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return each row's entry at its own label."""
    place = np.broadcast_to(labels, table.shape[:-1])[..., None]
    return np.asarray(np.take_along_axis(table, place, -1)[..., 0])
