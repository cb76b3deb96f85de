"""From metrics to answers: default strength, equal re-identification, what was kept.

Knows metrics; no photo. What cannot be answered says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from privacy_core.audit.anonymization.identity import Gallery, Metrics
from privacy_core.audit.anonymization.settings import EMBEDDED, KEEP, Setting, plain
from privacy_core.audit.estimates import Estimate
from privacy_core.schema import ATTRIBUTES

GOAL_SELF = 0.005
"""Largest share of variants that may be verified as their own original at the default strength."""
USEFUL_TAR = 0.5
"""A recogniser counts as one if it verifies this share of originals across photos."""
STEP = 0.05


def usable_recognisers(
    galleries: Mapping[str, Gallery], originals: Mapping[str, Metrics]
) -> tuple[str, ...]:
    """Return the recognisers that know the originals well enough; the first one always counts."""
    names = tuple(galleries)
    rest = [
        name
        for name in names[1:]
        if isinstance(tar := originals[name].get("cross_tar"), Estimate) and tar.value >= USEFUL_TAR
    ]
    return (names[0], *rest)


def worst(metrics: Metrics, name: str, recognisers: Sequence[str]) -> Estimate | None:
    """Return the largest of a metric over recognisers, None where none has it."""
    found = [metrics["identity"][one].get(name) for one in recognisers]
    values = [value for value in found if isinstance(value, Estimate)]
    return max(values, key=lambda value: value.value, default=None)


def default_strength(
    settings: Sequence[Setting], metrics: Mapping[str, Metrics], recognisers: Sequence[str],
    *, n_people: int,
) -> float | str:  # fmt: skip
    """Return the smallest measured multiple of 0.05 at which self re-identification meets the goal.

    Every stronger one that was measured has to meet it too, and there have to be so many people
    that one of them would be seen.
    """
    if n_people * GOAL_SELF < 1:
        return f"fewer than {1 / GOAL_SELF:.0f} people tested cannot show {GOAL_SELF:.1%}"
    chosen: float | str = f"no measured strength has self re-identification up to {GOAL_SELF:.1%}"
    for setting in reversed(plain(settings)):
        value = worst(metrics[setting.name], "self_reidentified", recognisers)
        if value is None or value.value > GOAL_SELF:
            break
        steps = setting.strength / STEP
        if abs(steps - round(steps)) < 1e-9:  # noqa: PLR2004
            chosen = setting.strength
    return chosen


def mean_kept(metrics: Metrics) -> float | None:
    """Return the mean agreement over the attributes that the second predictor can judge."""
    values = [v.value for v in metrics["fidelity"]["kept"].values() if isinstance(v, Estimate)]
    return float(np.mean(values)) if values else None


def kept_share(metrics: Mapping[str, Metrics], settings: Sequence[Setting]) -> Metrics | str:
    """Return kept agreement under the keep policy over that of the code's own reconstruction."""
    own = next((s for s in plain(settings) if s.strength == 0), None)
    keep = [s for s in settings if s.policy_name == KEEP]
    if own is None or not keep:
        return "strength 0 and the keep policy were not both measured"
    base = metrics[own.name]["fidelity"]["kept"]
    return {
        setting.name: {
            name: metrics[setting.name]["fidelity"]["kept"][name].value / base[name].value
            if isinstance(base[name], Estimate) and base[name].value > 0
            else str(base[name])
            for name in ATTRIBUTES
        }
        for setting in keep
    }


def at_equal_reidentification(
    settings: Sequence[Setting], metrics: Mapping[str, Metrics], recogniser: str
) -> list[Metrics]:
    """Return each other method's setting beside the weakest embedded ones that identify no more.

    One is without a policy, `embedded`, and one keeps all attributes, `keeping`: the other methods
    know no policy.

    Args:
        settings: All.
        metrics: Of each.
        recogniser: Whose self re-identification is made equal.
    """

    def identified(setting: Setting) -> float:
        return float(metrics[setting.name]["identity"][recogniser]["self_reidentified"].value)

    def beside(ladder: Sequence[Setting], limit: float) -> Metrics | str:
        match = next((one for one in ladder if identified(one) <= limit), None)
        if match is None:
            return "no measured strength identifies as little"
        return {"setting": match.name, **_use_of(metrics[match.name], recogniser)}

    ladder = [s for s in plain(settings) if s.strength > 0]
    keeping = sorted((s for s in settings if s.policy_name == KEEP), key=lambda s: s.strength)
    rows = []
    for setting in settings:
        if setting.method == EMBEDDED:
            continue
        limit = identified(setting)
        row: Metrics = {"setting": setting.name, "self_reidentified": limit}
        row |= _use_of(metrics[setting.name], recogniser)
        row |= {"embedded": beside(ladder, limit), "keeping": beside(keeping, limit)}
        rows.append(row)
    return rows


def _use_of(metrics: Metrics, recogniser: str) -> Metrics:
    frechet = metrics["identity"][recogniser].get("frechet")
    return {
        "detected": metrics["fidelity"]["detected"].value,
        "kept_mean": mean_kept(metrics),
        "frechet": frechet.value if isinstance(frechet, Estimate) else None,
    }
