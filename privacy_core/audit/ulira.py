"""U-LiRA: can an attacker tell, row by row, the unlearned models from the retrained ones?

Hayes, Shumailov, Triantafillou, Khalifa & Papernot 2024, with Student's t and shrunken variances
for few models. Knows φ per model and row (`metrics.margin`); not how the models were made. Its
chance level is below ½, so compare with a control of as many models, never with ½.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from privacy_core.audit.estimates import N_DRAWS, Estimate, Floats, interval
from privacy_core.errors import InvalidArgumentError

NU0 = 4.0
"""Weight of the rows' median variance, in models."""
FPRS = (0.01, 0.05)
N_SPLITS = 40
_WORST = 0.05
_SURE = 0.5
_FEWEST = 3
"""Models per side: one is left out, and a variance takes two."""


@dataclass(frozen=True)
class Scores:
    """Log likelihood ratios, unlearned over reference, of models in neither fit.

    Attributes:
        unlearned: (K, n).
        reference: (L, n).
    """

    unlearned: Floats = field(repr=False)
    reference: Floats = field(repr=False)


@dataclass(frozen=True)
class Attack:
    """What the attack achieves.

    Attributes:
        auc: All scores pooled; the interval is over models drawn anew.
        tpr: False-positive rate → true-positive rate, pooled.
        share_advantage: Share of rows on which max(TPR − FPR) is above one half.
        worst_rows: Mean advantage of the worst 5 % of rows.
        roc: (2, m) false- and true-positive rates of the pooled scores.
        n_models: K and L.
        n_rows: Rows, or people, that were scored.
    """

    auc: Estimate
    tpr: Mapping[float, Estimate]
    share_advantage: float
    worst_rows: float
    roc: Floats = field(repr=False)
    n_models: tuple[int, int]
    n_rows: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, without the curve."""
        return {
            "auc": self.auc.as_json(),
            "tpr_at_fpr": {f"{fpr:g}": tpr.as_json() for fpr, tpr in self.tpr.items()},
            "share_of_rows_with_advantage_above_half": self.share_advantage,
            "mean_advantage_of_worst_5_percent": self.worst_rows,
            "n_models": list(self.n_models),
            "n_rows": self.n_rows,
        }


@dataclass(frozen=True)
class Control:
    """What the attack "achieves" between reference models, over splits of them into two sides.

    One split is a draw: an exact method would be above it half of the time.

    Attributes:
        auc: Mean over the splits, and the middle 95 % of them.
        share_advantage: The same, of the share of rows with an advantage above one half.
        n_splits: How many.
    """

    auc: Estimate
    share_advantage: Estimate
    n_splits: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "auc": self.auc.as_json(),
            "share_of_rows_with_advantage_above_half": self.share_advantage.as_json(),
            "n_splits": self.n_splits,
        }


def control(
    reference: ArrayLike, others: ArrayLike, *, seed: int, n_splits: int = N_SPLITS
) -> Control:
    """Attack reference models by reference models, in many splits of both sets together.

    Args:
        reference: (K, n) φ of reference models.
        others: (L, n) φ of as many further ones with other seeds.
        seed: Seed of the splits; the first split is the one given.
        n_splits: How many.

    Raises:
        InvalidArgumentError: As `leave_one_out`.
    """
    one, two = np.asarray(reference, np.float64), np.asarray(others, np.float64)
    _check(one, two)
    every, rng = np.concatenate([one, two]), np.random.default_rng(seed)
    aucs, shares = [], []
    for number in range(n_splits):
        order = np.arange(len(every)) if number == 0 else rng.permutation(len(every))
        scores = leave_one_out(every[order[: len(one)]], every[order[len(one) :]])
        aucs.append(float(_pair_aucs(scores.unlearned, scores.reference).mean()))
        shares.append(float((row_advantages(scores) > _SURE).mean()))
    return Control(
        interval(float(np.mean(aucs)), aucs), interval(float(np.mean(shares)), shares), n_splits
    )


def leave_one_out(unlearned: ArrayLike, reference: ArrayLike, *, nu0: float = NU0) -> Scores:
    """Score every model by fits that have not seen it.

    Args:
        unlearned: (K, n) φ under "trained on the rows, then unlearned", K ≥ 3.
        reference: (L, n) φ under "never trained on the rows", L ≥ 3.
        nu0: Weight of the rows' median variance in each row's own, in models.

    Raises:
        InvalidArgumentError: A side has fewer than three models, the rows differ, a value is not
            finite, or all models of a side are the same.
    """
    one, two = np.asarray(unlearned, np.float64), np.asarray(reference, np.float64)
    _check(one, two)
    of_one, of_two = _Fit(one, nu0), _Fit(two, nu0)
    scores_one, scores_two = np.empty_like(one), np.empty_like(two)
    for k in range(len(one)):
        fit = _Fit(np.delete(one, k, 0), nu0)
        scores_one[k] = fit.log_density(one[k]) - of_two.log_density(one[k])
    for k in range(len(two)):
        fit = _Fit(np.delete(two, k, 0), nu0)
        scores_two[k] = of_one.log_density(two[k]) - fit.log_density(two[k])
    return Scores(scores_one, scores_two)


def evaluate(scores: Scores, *, seed: int, n_draws: int = N_DRAWS) -> Attack:
    """Return what the scores achieve, with intervals over models drawn anew.

    The draws resample scored models; fits and scores stay.

    Args:
        scores: From `leave_one_out`, or their aggregates per person.
        seed: Seed of the bootstrap.
        n_draws: How often to resample.
    """
    one, two = scores.unlearned, scores.reference
    pairs = _pair_aucs(one, two)
    rng = np.random.default_rng(seed)
    picks = [
        (rng.integers(0, len(one), len(one)), rng.integers(0, len(two), len(two)))
        for _ in range(n_draws)
    ]
    aucs = [pairs[np.ix_(i, j)].mean() for i, j in picks]
    advantages = row_advantages(scores)
    n_worst = max(1, round(_WORST * len(advantages)))
    rates = {fpr: [_tpr(one[i], two[j], fpr) for i, j in picks] for fpr in FPRS}
    return Attack(
        auc=interval(float(pairs.mean()), aucs),
        tpr={fpr: interval(_tpr(one, two, fpr), draws) for fpr, draws in rates.items()},
        share_advantage=float((advantages > _SURE).mean()),
        worst_rows=float(np.sort(advantages)[-n_worst:].mean()),
        roc=roc(one, two),
        n_models=(len(one), len(two)),
        n_rows=one.shape[1],
    )


def attack(unlearned: ArrayLike, reference: ArrayLike, *, seed: int) -> Attack:
    """Return `evaluate` of `leave_one_out`; for a control, give two sets of reference models."""
    return evaluate(leave_one_out(unlearned, reference), seed=seed)


def row_advantages(scores: Scores) -> Floats:
    """Return (n,): each row's largest TPR − FPR over all thresholds on its own scores, in [0, 1].

    With few models some rows reach much of it by luck.
    """
    thresholds = np.concatenate([scores.unlearned, scores.reference])
    best = np.zeros(thresholds.shape[1])
    for threshold in thresholds:
        hits = (scores.unlearned >= threshold).mean(0)
        alarms = (scores.reference >= threshold).mean(0)
        best = np.maximum(best, hits - alarms)
    return best


def roc(unlearned: Floats, reference: Floats) -> Floats:
    """Return (2, m) false- and true-positive rates of pooled scores, from (0, 0) to (1, 1)."""
    pooled = np.concatenate([unlearned.ravel(), reference.ravel()])
    is_unlearned = np.arange(len(pooled)) < unlearned.size
    order = np.argsort(-pooled, kind="stable")
    # Tied scores are one threshold: only the last of them is a point of the curve.
    last = np.append(np.flatnonzero(np.diff(pooled[order])), len(pooled) - 1)
    hits = np.cumsum(is_unlearned[order])[last] / unlearned.size
    alarms = np.cumsum(~is_unlearned[order])[last] / reference.size
    return np.stack([np.append(0.0, alarms), np.append(0.0, hits)])


class _Fit:
    """Student's t per row, with variances drawn towards the rows' median."""

    def __init__(self, values: Floats, nu0: float) -> None:
        n = len(values)
        own = values.var(0, ddof=1)
        shrunk = (nu0 * np.median(own) + (n - 1) * own) / (nu0 + n - 1)
        if not np.all(shrunk > 0):
            raise InvalidArgumentError(
                "The models of a side must differ, got the same values for all of them. Vary "
                "their seeds, or the people they are trained on."
            )
        self._mean = values.mean(0)
        self._variance = shrunk * (1 + 1 / n)
        self._df = nu0 + n - 1

    def log_density(self, x: Floats) -> Floats:
        """Return ln t(x) per row, up to nothing: the constants differ between fits."""
        df = self._df
        constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi)
        squared = (x - self._mean) ** 2 / (df * self._variance)
        density = constant - 0.5 * np.log(self._variance) - (df + 1) / 2 * np.log1p(squared)
        return np.asarray(density)


def _check(one: Floats, two: Floats) -> None:
    if one.ndim != 2 or two.ndim != 2 or one.shape[1:] != two.shape[1:] or one.size == 0:  # noqa: PLR2004
        raise InvalidArgumentError(
            "`unlearned` and `reference` must be (models, rows) of the same rows, got the shapes "
            f"{one.shape} and {two.shape}. Evaluate both on the same rows."
        )
    if min(len(one), len(two)) < _FEWEST:
        raise InvalidArgumentError(
            f"`unlearned` and `reference` must hold at least {_FEWEST} models each, got {len(one)} "
            f"and {len(two)}. Train more, or leave the attack out."
        )
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise InvalidArgumentError(
            "`unlearned` and `reference` must be finite, got a value that is not. Check the models."
        )


def _pair_aucs(one: Floats, two: Floats) -> Floats:
    """Return (K, L): pooled AUC of each pair of models, whose mean is the AUC of all pooled."""
    sorted_two = np.sort(two, 1)
    n = two.shape[1]
    result = np.empty((len(one), len(two)))
    for j, row in enumerate(sorted_two):
        below = np.searchsorted(row, one, "left")
        not_above = np.searchsorted(row, one, "right")
        result[:, j] = (below + not_above).mean(1) / (2 * n)
    return result


def _tpr(one: Floats, two: Floats, fpr: float) -> float:
    """Return the share of unlearned scores above a threshold that `fpr` of references exceed."""
    ranked = np.sort(two.ravel())[::-1]
    # At most floor(fpr · n) references may be strictly above the threshold.
    threshold = ranked[min(int(np.floor(fpr * len(ranked) + 1e-9)), len(ranked) - 1)]
    return float((one > threshold).mean())
