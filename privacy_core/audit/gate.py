"""The gate for release: which measurements an unlearned model must pass, and why it did not.

Knows numbers. A number that is missing fails its check; none is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AUC_FLOOR = 0.60
AUC_MARGIN = 0.10
MOST_GAP = 2.0
"""Points of accuracy."""
GAPS = ("retain", "test", "revised")
"""On which rows the gap to retraining counts."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Check:
    """One measurement against its limit; `value` and `limit` are None where unknown."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    reason: str


@dataclass(frozen=True)
class GateResult:
    """Whether a model may be released.

    Attributes:
        checks: Every check, in a fixed order.

    Example:
        >>> decide(auc=None, control_auc=None).passed
        False
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the gate failed, one sentence per failed check."""
        return tuple(check.reason for check in self.checks if not check.passed)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "checks": [
                {"name": c.name, "passed": c.passed, "value": c.value, "limit": c.limit}
                for c in self.checks
            ],
        }


def decide(
    *,
    auc: float | None,
    control_auc: float | None,
    share_advantage: float | None = None,
    control_share_advantage: float | None = None,
    gaps: Mapping[str, float] | None = None,
    rows: Sequence[str] = GAPS,
    released: Mapping[str, tuple[float | None, float]] | None = None,
) -> GateResult:
    """Apply the gate.

    Args:
        auc: Per-example attack on the unlearned models; None where it was not run.
        control_auc: The same attack, reference against reference, with as many models.
        share_advantage: Share of rows with an advantage above one half.
        control_share_advantage: The largest that splits of reference models show.
        rows: Rows whose gap counts: all of `GAPS`, less "revised" where no picture was replaced.
        gaps: Rows → gap of the mean accuracy to retraining, in points.
        released: Rows → the released model's own gap and the largest that a reference model has
            to the references' mean, in points: one model scatters as retrained ones do. The gap
            is None where it could not be measured.
    """
    limit = None if control_auc is None else max(AUC_FLOOR, control_auc + AUC_MARGIN)
    checks = [
        _check("per-example attack AUC", auc, limit),
        _check("share of rows with an advantage above 0.5", share_advantage,
               control_share_advantage),
    ]  # fmt: skip
    found = gaps or {}
    checks += [
        _check(f"gap to retraining, {name} rows", found.get(name), MOST_GAP) for name in rows
    ]
    checks += [
        _check(f"released model's gap, {name} rows", value, max(MOST_GAP, spread))
        for name, (value, spread) in (released or {}).items()
    ]
    return GateResult(tuple(checks))


def _check(name: str, value: float | None, limit: float | None) -> Check:
    # NaN passes no comparison, so it fails as a missing number does.
    if value is None or limit is None:
        which = "was not measured" if value is None else "has no control to compare with"
        return Check(name, False, value, limit, f"The {name} {which}.")
    passed = value <= limit + _ROUNDING
    reason = f"The {name} is {value:.3g}; the limit is {limit:.3g}."
    return Check(name, passed, value, limit, reason)
