"""Attribute leak: what a model's view of a revised picture says about the person's original one.

(a) A probe of the original's attribute on features of originals, for context: an attribute that is
visible in the picture is found by every model. (b) The test: from f(z̃), infer z's attribute and
find z in a gallery, with the unlearned and with the reference model. Knows features and logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy_core.audit.estimates import Estimate, Floats, mean_over_models
from privacy_core.audit.metrics import auc
from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.head import HeadProblem, fit_head, with_ones

_WEIGHT_DECAY = 1e-2
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class View:
    """What one model sees, and what is true of the originals.

    Attributes:
        features: (n, d), for example penultimate features and logits side by side.
        attribute: (n,) bool, of each row's original.
        people: (n,) who is shown.
    """

    features: Floats = field(repr=False)
    attribute: NDArray[np.bool_] = field(repr=False)
    people: NDArray[Any] = field(repr=False)


def probe_auc(fitted_on: View, asked: View) -> float:
    """Return how well a linear probe reads the attribute, as an AUC.

    For the leak test both views are of *revised* pictures, anonymized by one policy; the probe
    never sees the people it is asked about.

    Raises:
        InvalidArgumentError: The same person is in both views, or one attribute value is missing.
    """
    if np.isin(asked.people, fitted_on.people).any():
        raise InvalidArgumentError(
            "`fitted_on` and `asked` must show different people, got some in both. Split by person."
        )
    _check_both_kinds("fitted_on", fitted_on)
    _check_both_kinds("asked", asked)
    score = _probe_scores(fitted_on, asked.features)
    return auc(score[asked.attribute], score[~asked.attribute])


def cross_probe_auc(view: View, *, folds: int = 5, seed: int = 0) -> float:
    """Return the AUC of probes that are each fitted on the other folds' people.

    For revised rows that are all of one request: every person is asked about once.

    Args:
        view: Rows of at least two people.
        folds: Into how many groups of people.
        seed: Seed of the groups.

    Raises:
        InvalidArgumentError: There are fewer than two people, or some fold's rest shows the
            attribute always or never.
    """
    names, person = np.unique(view.people, return_inverse=True)
    if len(names) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"`view` must show at least two people, got {len(names)}. Leave the metric out."
        )
    group = np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names))
    scores = np.empty(len(person))
    for fold in range(group.max() + 1):
        is_asked = group[person] == fold
        rest = View(view.features[~is_asked], view.attribute[~is_asked], view.people[~is_asked])
        _check_both_kinds("view", rest)
        scores[is_asked] = _probe_scores(rest, view.features[is_asked])
    return auc(scores[view.attribute], scores[~view.attribute])


def match_rank1(queries: View, gallery: View) -> float:
    """Return the share of queries whose nearest gallery row, by cosine, shows the same person.

    Args:
        queries: Features of revised pictures.
        gallery: Features of originals, every queried person among them.

    Raises:
        InvalidArgumentError: A queried person is not in the gallery.
    """
    if not np.isin(queries.people, gallery.people).all():
        raise InvalidArgumentError(
            "`gallery` must show every person of `queries`, got some without a row. Add them."
        )
    centre = gallery.features.mean(0)
    similarity = _unit(queries.features - centre) @ _unit(gallery.features - centre).T
    return float((gallery.people[similarity.argmax(1)] == queries.people).mean())


def difference(unlearned: Sequence[float], references: Sequence[float], *, seed: int) -> Estimate:
    """Return the mean of the unlearned models' values minus the references', over models.

    Raises:
        InvalidArgumentError: A side is empty.
    """
    if not references:
        raise InvalidArgumentError(
            "`references` must hold at least one value, got none. Leave the metric out."
        )
    if len(unlearned) == len(references):
        return mean_over_models(np.subtract(unlearned, references), seed=seed)
    return mean_over_models(np.asarray(unlearned) - np.mean(references), seed=seed)


def _check_both_kinds(name: str, view: View) -> None:
    if len(np.unique(view.attribute)) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"`{name}` must hold rows with and without the attribute, got one kind. "
            "Choose another attribute."
        )


def _probe_scores(fitted_on: View, features: Floats) -> Floats:
    """Return (n,) log odds by a linear probe on standardized features."""
    mean, sd = fitted_on.features.mean(0), fitted_on.features.std(0)
    scale = np.where(sd > 0, sd, 1.0)
    fit = fit_head(
        HeadProblem(
            with_ones((fitted_on.features - mean) / scale),
            fitted_on.attribute.astype(np.int64), 2, _WEIGHT_DECAY, None,
        ),
        tolerance=_TOLERANCE,
    )  # fmt: skip
    logits = with_ones((features - mean) / scale) @ fit.weights.T
    return np.asarray(logits[:, 1] - logits[:, 0])


def _unit(rows: ArrayLike) -> Floats:
    table = np.asarray(rows, np.float64)
    norm = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / np.where(norm > 0, norm, 1.0))
