"""Attribute inference: a classifier retrained on variants reads an attribute of unseen people.

Knows features and labels; no picture, no setting. Non-linear, and begun from the linear one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from privacy_core.attributes import balanced_accuracy
from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.identity import Metrics
from privacy_core.audit.anonymization.learning import (
    LearningConfig,
    held_out,
    projection_at,
    ridge,
    train_on_rows,
)
from privacy_core.audit.estimates import N_DRAWS, Estimate, Floats, interval
from privacy_core.schema import ATTRIBUTES

FEWEST_OF_CLASS = 10
_ONE_CLASS = "fewer than {n} labelled faces of a class among the people {where}"


def measure_inference(
    fitted: Tensor, fitted_labels: Ints, fitted_people: Ints,
    tested: Tensor, tested_labels: Ints, tested_people: Ints,
    *, config: LearningConfig, withheld: NDArray[np.bool_] | None = None,
) -> Metrics:  # fmt: skip
    """Return the balanced accuracy of each attribute, or why it is absent.

    Args:
        fitted: (n, d) features of variants of the people trained on.
        fitted_labels: (n, 5) of their originals, 0, 1 or -1.
        fitted_people: (n,) who is shown.
        tested: (m, d) features of variants of other people.
        tested_labels: (m, 5).
        tested_people: (m,).
        config: Training.
        withheld: (m,) faces that were not released: they count as read, not as private.
    """
    found: Metrics = {}
    for place, name in enumerate(ATTRIBUTES):
        truth, target = fitted_labels[:, place], tested_labels[:, place]
        for where, labels in (("trained on", truth), ("tested", target)):
            if min((labels == value).sum() for value in (0, 1)) < FEWEST_OF_CLASS:
                found[name] = _ONE_CLASS.format(n=FEWEST_OF_CLASS, where=where)
                break
        else:
            rows = truth >= 0
            scores = _scores(fitted[rows], truth[rows], fitted_people[rows], tested, config)
            guess = scores > 0
            if withheld is not None:
                guess = np.where(withheld, target == 1, guess)
            found[name] = accuracy_over_people(guess, target, tested_people, seed=config.seed)
    return found


def accuracy_over_people(
    predicted: NDArray[Any], labels: Ints, people: Ints, *, seed: int, n_draws: int = N_DRAWS
) -> Estimate:
    """Return a balanced accuracy with an interval over people drawn anew."""
    known = labels >= 0
    guess, truth = np.asarray(predicted)[known], labels[known]
    value = balanced_accuracy(guess, truth)
    _, number = np.unique(people[known], return_inverse=True)
    n = int(number.max()) + 1
    right = (guess == truth).astype(np.float64)
    hits = [np.bincount(number, right * (truth == c), n) for c in (0, 1)]
    counts = [np.bincount(number, truth == c, n) for c in (0, 1)]
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n, np.full(n, 1 / n), n_draws)
    totals = [times @ count for count in counts]
    usable = (totals[0] > 0) & (totals[1] > 0)
    rates = [(times @ hit)[usable] / total[usable] for hit, total in zip(hits, totals, strict=True)]
    return interval(value, np.mean(rates, axis=0))


def _scores(
    rows: Tensor, labels: Ints, people: Ints, tested: Tensor, config: LearningConfig
) -> Floats:
    """Return (m,) log odds, less the threshold at which both classes are told equally well."""
    out = held_out(people, seed=config.seed)
    if not all((labels[part] == c).any() for part in (out, ~out) for c in (0, 1)):
        out = np.zeros(len(labels), np.bool_)
    truth = torch.from_numpy(labels.astype(np.float32))
    inside = torch.from_numpy(~out)
    weights = torch.where(truth > 0, 0.5 / truth[inside].mean(), 0.5 / (1 - truth[inside].mean()))
    start = ridge(rows[inside], (weights * (2 * truth - 1))[inside, None])
    reader = projection_at(2 * start / (rows[inside] @ start).std(), config)

    def entropy(chosen: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(
            reader(rows[chosen])[:, 0], truth[chosen], weights[chosen]
        )

    train_on_rows(reader, entropy, out, config)
    with torch.inference_mode():
        return np.asarray(reader(tested)[:, 0].double().numpy())
