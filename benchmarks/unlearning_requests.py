"""Who asks for a revision in the unlearning benchmark, and the revised data that follows.

Knows rows in memory; not where they come from and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from privacy_core.unlearning.rows import LabelledImages

REQUESTED_SHARE = 0.6
"""Share of the trained-on people who may ask: the first of the order."""


@dataclass(frozen=True)
class RequestSet:
    """Whose rows are revised: a share of the trained-on people, and which draw of them.

    Attributes:
        share: Share of the people, in (0, 0.6].
        number: Which draw, from 0; draws of one share show different people.
    """

    share: float
    number: int = 0

    @property
    def name(self) -> str:
        """What the results call it."""
        return f"{round(100 * self.share)} %, set {self.number + 1}"


@dataclass(frozen=True)
class Faces:
    """Everything that models are trained and measured on, in one representation.

    Attributes:
        original: D, the people models are trained on.
        people: (n,) who is shown in each of its rows.
        young: (n,) bool, an attribute that is not among the labels.
        revised: Its rows' replacements, for the people who may ask, with row ids of `original`.
        strength: (rows of `revised`,) each row's strength.
        test: Rows of people no model is trained on.
        test_people: (rows of `test`,) who is shown.
        order: The trained-on people in the order in which they ask.
    """

    original: LabelledImages
    people: NDArray[np.str_] = field(repr=False)
    young: NDArray[np.bool_] = field(repr=False)
    revised: LabelledImages
    strength: NDArray[np.float64] = field(repr=False)
    test: LabelledImages
    test_people: NDArray[np.str_] = field(repr=False)
    order: tuple[str, ...] = field(repr=False)

    def asking(self, request: RequestSet) -> tuple[str, ...]:
        """Return the people of a request set."""
        n = int(request.share * len(self.order))
        return self.order[request.number * n : (request.number + 1) * n]

    def requested(self, request: RequestSet) -> LabelledImages:
        """Return D': the rows of those who ask are replaced, or left out where they could not be.

        Raises:
            ValueError: Somebody asks whose pictures were not revised.
        """
        asking = self.asking(request)
        may_ask = self.order[: round(REQUESTED_SHARE * len(self.order))]
        if not asking or not set(asking) <= set(may_ask):
            raise ValueError(f"The request set {request.name!r} asks for people never revised.")
        asks = np.isin(self.people, asking)
        images, kept = self.original.images.copy(), ~asks
        place = np.searchsorted(self.original.row_ids, self.revised.row_ids)
        mine = asks[place]
        images[place[mine]] = self.revised.images[mine]
        kept[place[mine]] = True
        return replace(self.original, images=images, revised=asks).take(kept)

    @property
    def strength_of(self) -> Mapping[int, float]:
        """Return row id → strength."""
        return dict(zip(self.revised.row_ids.tolist(), self.strength.tolist(), strict=True))
