"""What is audited and how much is measured: models, rows, settings, checked before the work.

Knows no metric and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy_core.audit.parts import Part
from privacy_core.audit.shadows import Request
from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.targets import TargetModel


@dataclass(frozen=True)
class AuditSettings:
    """How much is measured; stored in `audit.json`.

    Attributes:
        n_models: K, shadow models per role; 0 measures the given models only.
        relearn_models: On how many of each group relearning is timed; 0 leaves it out.
        share: See `shadows.Request`.
        seed: Seed of shadow models and bootstraps.
    """

    n_models: int = 8
    relearn_models: int = 2
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            InvalidArgumentError: They cannot be.
        """
        if self.n_models not in {0, *range(3, 1025)}:
            raise InvalidArgumentError(
                "`n_models` must be 0 or from 3 to 1024, got "
                f"{self.n_models!r}: the attack leaves one out. Take 8, or 16 for a release."
            )
        if self.relearn_models < 0:
            raise InvalidArgumentError(
                f"`relearn_models` must be at least 0, got {self.relearn_models!r}."
            )


@dataclass(frozen=True)
class StandIn:
    """A request in place of the real one, whose originals were erased before the audit.

    Attributes:
        parts: The rows that are left: "retain", "revised" and "test" of the released model.
        n_rows: Rows of the stand-in.
        n_people: People shown in them.
        n_rows_asked: Rows of the real request.
    """

    parts: Mapping[str, Part] = field(repr=False)
    n_rows: int
    n_people: int
    n_rows_asked: int

    def as_json(self) -> dict[str, int | str]:
        """Return plain JSON values, the reason among them."""
        return {
            "n_rows": self.n_rows, "n_people": self.n_people, "n_rows_asked": self.n_rows_asked,
            "reason": "The originals were erased before the audit: the attacks ran on a request "
            "of retained people, revised and unlearned in the same way.",
        }  # fmt: skip


@dataclass(frozen=True)
class AuditRequest:
    """What is audited.

    Attributes:
        unlearned: The model to be released.
        against: The original model.
        shadows: Data, people and method that shadow models share.
        test: Rows of people who are not in the data; None where there are none.
        attribute: (n,) whether each original row has the attribute the revision hid.
        group: (n,) the group of each original row that metrics are also stated for.
        stand_in: What `shadows` stands for, where the originals were erased; None where they are
            there.
        reference: A retrained model; None to rely on shadow models.
        digests: Further digests to state, such as the revised folder's.
        provenance: Where data and preferences come from, as plain JSON values for the card.
    """

    unlearned: TargetModel
    against: TargetModel
    shadows: Request
    test: Part | None = None
    attribute: NDArray[np.bool_] | None = field(default=None, repr=False)
    group: NDArray[np.str_] | None = field(default=None, repr=False)
    stand_in: StandIn | None = None
    reference: TargetModel | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse models that do not belong together.

        Raises:
            InvalidArgumentError: They tell different labels.
        """
        names = self.against.label_names
        for one in (self.unlearned, self.reference):
            if one is not None and one.label_names != names:
                raise InvalidArgumentError(
                    f"All models must tell the same labels, got {', '.join(one.label_names)} and "
                    f"{', '.join(names)}. Audit models of one `train`."
                )

    def digests_of_all(self) -> dict[str, str]:
        """Return the digests of all weights and rows, and those that were given."""
        found = {
            "original_weights": self.against.digest(),
            "unlearned_weights": self.unlearned.digest(),
            "revised_rows": self.shadows.revised.digest(),
        }
        found["stand_in_rows" if self.stand_in else "original_rows"] = (
            self.shadows.original.digest()
        )
        if self.test is not None:
            found["test_rows"] = self.test.rows.digest()
        if self.reference is not None:
            found["reference_weights"] = self.reference.digest()
        return {**found, **self.digests}
