"""The rows an audit measures on, and what one model says of them.

Knows rows, people and a model as what turns pictures into logits and features; no metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.audit.estimates import Floats
from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.rows import LabelledImages, split_revised
from privacy_core.unlearning.targets import TargetModel

SPLITS = ("retain", "forget", "revised", "test")
"""Unrevised rows, original rows to forget, the pictures in their place, rows never trained on."""


@dataclass(frozen=True)
class Part:
    """Labelled rows and what is known of each.

    Attributes:
        rows: Pictures and labels.
        people: (n,) who is shown.
        attribute: (n,) whether the original has the attribute to be hidden, None where not asked.
        group: (n,) the group that metrics are also stated for, "" in none; None where not asked.
    """

    rows: LabelledImages
    people: NDArray[Any] = field(repr=False)
    attribute: NDArray[np.bool_] | None = field(repr=False, default=None)
    group: NDArray[np.str_] | None = field(repr=False, default=None)


@dataclass(frozen=True)
class Outputs:
    """What one model says of each split: (n, C) logits, and (n, d) features where they are asked.

    Features are the last linear layer's inputs and the logits side by side.
    """

    logits: Mapping[str, Floats] = field(repr=False)
    features: Mapping[str, Floats] = field(repr=False)


def parts_of(
    original: LabelledImages,
    revised: LabelledImages,
    people: NDArray[Any],
    *,
    attribute: NDArray[np.bool_] | None = None,
    group: NDArray[np.str_] | None = None,
    test: Part | None = None,
) -> dict[str, Part]:
    """Split rows as `SPLITS` names them; a split without rows is left out.

    Args:
        original: D.
        revised: D'.
        people: (n,) who is shown in each row of `original`.
        attribute: (n,) whether each row of `original` has the attribute to be hidden.
        group: (n,) the group of each row of `original`.
        test: Rows never trained on.

    Raises:
        InvalidArgumentError: `revised` is not made from `original`, or a person of the test rows
            is in the data.
    """
    split = split_revised(revised, original)
    if test is not None and np.isin(test.people, people).any():
        raise InvalidArgumentError(
            "`test` must show people who are not in the data, got some who are. Split by person."
        )

    nothing = original.take(np.zeros(len(original), dtype=np.bool_))

    def part(rows: LabelledImages) -> Part:
        place = np.searchsorted(original.row_ids, rows.row_ids)
        return Part(
            rows, people[place], None if attribute is None else attribute[place],
            None if group is None else group[place],
        )  # fmt: skip

    found = {
        "retain": part(split.retain),
        "forget": part(nothing if split.forget is None else split.forget),
        "revised": part(split.replacement),
    }
    if test is not None:
        found["test"] = test
    return {name: one for name, one in found.items() if len(one.rows)}


def outputs_of(model: TargetModel, parts: Mapping[str, Part]) -> Outputs:
    """Return what a model says of every split."""
    logits = {name: model.logits(part.rows.images) for name, part in parts.items()}
    features = {
        name: np.concatenate([model.features(part.rows.images), logits[name]], 1)
        for name, part in parts.items()
        if part.attribute is not None and name in {"forget", "revised"}
    }
    return Outputs(logits, features)
