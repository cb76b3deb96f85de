"""The audit's result as JSON values and as Markdown tables.

Knows the result; measures nothing. An absent metric is an object with its reason, or "–".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from privacy_core.audit.estimates import Estimate
from privacy_core.schema import ATTRIBUTES

Json = dict[str, Any]


def as_plain(value: object, *, key: str = "") -> Any:
    """Return metrics as JSON values; a sentence in a metric's place becomes its `absent`."""
    if isinstance(value, Estimate):
        return value.as_json()
    if isinstance(value, Mapping):
        return {str(name): as_plain(one, key=str(name)) for name, one in value.items()}
    if isinstance(value, str) and key not in _NAMES:
        return {"absent": value}
    if isinstance(value, list | tuple):
        return [as_plain(one, key=key) for one in value]
    return value


_NAMES = {"setting", "method", "policy", "name", "reason", "recogniser"}


def from_plain(value: Any) -> Any:
    """Return the metrics that `as_plain` was given."""
    if isinstance(value, Mapping):
        if set(value) == {"value", "low", "high"}:
            return Estimate(**value)
        if set(value) == {"absent"}:
            return value["absent"]
        return {name: from_plain(one) for name, one in value.items()}
    return value


def markdown(result: Json) -> str:
    """Return the result as a page of tables."""
    first = result["recognisers"][0]
    settings = result["settings"]
    rate = result["config"]["false_accept_rate"]
    counts = (
        f"{result['n_faces']} faces of {result['n_people']} people whom no training of this audit "
        f"saw; gallery of {result['gallery']} people. Shares in %, with intervals of 95 % over "
        f"people; verified at FAR {rate:g}. – means not measured, for the reason in the JSON."
    )
    parts = [
        f"# Anonymization audit of {result['model']}@{result['revision']}",
        counts,
        _summary(result),
        *_attacks(result),
        "## What is still good",
        _rows(
            ["setting", "detected", "eyes", "nose", "mouth", "kept (balanced mean)", "Fréchet",
             "pixels outside", "ms"],
            [_fidelity(one, first) for one in settings],
        ),
        "## By group, verified as the own original",
        _groups(settings, first),
        "## Limits",
        "\n".join(f"- {limit}" for limit in result["limits"]),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _attacks(result: Json) -> list[str]:
    """Return the tables of what attackers find."""
    settings = result["settings"]
    return [
        "## Who is recognised",
        _rows(
            ["setting", "self, worst", *(f"self, {name}" for name in result["recognisers"]),
             "cross-photo TAR", "rank-1", "set size", "link AUC"],
            [_identity(one, result["usable_recognisers"], result["recognisers"])
             for one in settings],
        ),
        "## Trained adversary, rank-1 across photos of unseen people",
        f"Chance {100 / max(1, result['gallery']):.2f} %; from the surroundings alone "
        f"{_share(_at(result, 'context_alone', 'rank_1'))}; on the originals inside the mask "
        f"{_share(_at(result, 'originals', 'adversary', 'inside', 'rank_1'))}, whole crop "
        f"{_share(_at(result, 'originals', 'adversary', 'whole_crop', 'rank_1'))}.",
        _rows(
            ["setting", "inside the mask", "× chance", "whole crop", "× chance",
             "code restored: rank-1", "pixels restored: rank-1", "the variants themselves"],
            [_adversary(one) for one in settings if "absent" not in one["adversary"]],
        ),
        "## Attributes read by a retrained classifier: balanced accuracy",
        "In M's opaque part, where no surroundings shine through; in brackets in all of M with its "
        "rim, and in the whole crop.",
        _rows(
            ["setting", *ATTRIBUTES],
            [_inference(one) for one in _read(result)],
        ),
        "## Attributes read by predictors trained on originals: balanced accuracy, whole crop",
        _rows(["setting", *ATTRIBUTES], _predicted(result)),
        "## Worst case: the exact original, the generator inverted",
        _rows(
            ["setting", "σ", "μ", "rank-1 from y", "TPR at FPR 10⁻³", "expected", "allowed by μ",
             "rank-1 from the picture"],
            [_matched(one) for one in settings],
        ),
    ]  # fmt: skip


_FALLS = "adjacent_violations_"
"""Begins the names of what is told apart below and above 0.7."""
_TOO_WEAK = " and does not count as worst: it misses more than half of them"


_ADVERSARY_SEES = {
    "inside": "an adversary trained on all these strengths, inside the mask",
    "whole_crop": "the same with the whole crop",
}


def _order(name: str, order: Mapping[str, Any]) -> str:
    falls = [
        f"{100 * value:.1f} % {key.removeprefix(_FALLS).replace('_', ' ')}"
        for key, value in order.items()
        if key.startswith(_FALLS)
    ]
    low = order.get("spearman_median_below_0.7")
    up_to = "" if low is None else f" ({low:.3f} over those up to 0.7)"
    return (
        f"Order of {len(order['strengths'])} strengths by {name}: Spearman "
        f"{order['spearman_median']:.3f}{up_to} in the median, "
        f"{order['spearman_5th_percentile']:.3f} at the 5th percentile; adjacent ones the wrong "
        f"way round in {' and '.join(falls)}."
    )


def _summary(result: Json) -> str:
    chosen = result["summary"]["default_strength"]
    strength = chosen["absent"] if isinstance(chosen, Mapping) else f"{chosen:.2f}"
    lines = [f"Default strength by the goal of self re-identification: **{strength}**."]
    orders = dict(result["summary"]["order"])
    orders |= {name: result["order"].get(sees, {}) for sees, name in _ADVERSARY_SEES.items()}
    lines += [_order(name, order) for name, order in orders.items() if "spearman_median" in order]
    lines += [
        f"{name} knows {_share(_at(result, 'originals', 'recognisers', name, 'cross_tar'))} % of "
        f"the pairs of originals{'' if name in result['usable_recognisers'] else _TOO_WEAK}."
        for name in result["recognisers"]
    ]
    failures = result["failures"].get("test", {})
    lines.append(f"Photos left out before any setting: {failures or 'none'}.")
    return " ".join(lines)


def _identity(one: Json, usable: Sequence[str], recognisers: Sequence[str]) -> list[str]:
    found = one["identity"]
    own = [found[name]["self_reidentified"] for name in usable]
    worst = max(own, key=lambda value: float(value["value"]))
    mine = found[recognisers[0]]
    return [
        one["name"], _share(worst), *(_share(found[name]["self_reidentified"])
                                      for name in recognisers), _share(mine["cross_tar"]),
        _share(mine["cross_rank_1"]), _number(mine["anonymity_set"], 0),
        _number(mine["linkability_auc"], 3),
    ]  # fmt: skip


def _adversary(one: Json) -> list[str]:
    row = [one["name"]]
    for sees in ("inside", "whole_crop"):
        found = one["adversary"][sees]
        row += [_share(found.get("rank_1")), _number(found.get("times_chance"), 1)]
    seen = ("restored", "repainted", "variant")
    return [*row, *(_share(one["reversal"].get(f"{what}_rank_1")) for what in seen)]


def _read(result: Json) -> list[Json]:
    """Return the originals and the settings on which classifiers were trained."""
    originals = {"name": "originals", "inference": result["originals"]["inference"]}
    rows = [originals, *result["settings"]]
    return [one for one in rows if "absent" not in one["inference"]]


def _inference(one: Json) -> list[str]:
    opaque, inside, whole = (one["inference"][sees] for sees in ("opaque", "inside", "whole_crop"))
    return [
        one["name"],
        *(
            f"{_share(opaque.get(name))} ({_short(inside.get(name))}, {_short(whole.get(name))})"
            for name in ATTRIBUTES
        ),
    ]


def _predicted(result: Json) -> list[list[str]]:
    """Return both predictors on the originals, and the first one on every setting."""
    known = result["originals"]["predictors"]
    rows = {"originals": known["predicted"], "originals, second predictor": known["judged"]}
    rows |= {one["name"]: one["read_by_predictor"] for one in result["settings"]}
    return [[name, *(_share(found.get(a)) for a in ATTRIBUTES)] for name, found in rows.items()]


def _matched(one: Json) -> list[str]:
    found = one["matched_filter"]
    numbers = [_plain(one.get("sigma")), _plain(one.get("mu"))]
    bounds = [_percent(found.get(name)) for name in ("pair_tpr_expected", "pair_tpr_allowed")]
    return [
        one["name"], *numbers, _share(found.get("rank_1")), _share(found.get("pair_tpr")),
        *bounds, _share(found.get("rank_1_from_picture")),
    ]  # fmt: skip


def _fidelity(one: Json, first: str) -> list[str]:
    found = one["fidelity"]
    kept = [v["value"] for v in found["kept"].values() if "value" in v]
    errors = [_share(found.get(f"landmark_error_{part}")) for part in ("eyes", "nose", "mouth")]
    return [
        one["name"], _share(found["detected"]), *errors,
        f"{100 * sum(kept) / len(kept):.1f}" if kept else "–",
        _number(one["identity"][first].get("frechet"), 3),
        str(found["pixels_changed_outside"]), f"{found['median_ms']:.0f}",
    ]  # fmt: skip


def _groups(settings: Sequence[Json], first: str) -> str:
    rows = []
    for one in settings:
        if one["method"] != "embedded" or one["policy"]:
            continue
        for stratum, values in one["groups"][first].items():
            cells = [
                f"{value} ({found['n_faces']}): {_short(found['self_reidentified'])}"
                for value, found in values.items()
            ]
            if cells:
                rows.append([one["name"], stratum, "; ".join(cells)])
    return _rows(["setting", "stratum", "value (faces): %"], rows)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Not measured, for the reason in the JSON."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _at(result: Json, *names: str) -> Any:
    found: Any = result
    for name in names:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def _share(found: Json | None) -> str:
    """Return "value [low, high]" in percent."""
    if not found or "value" not in found:
        return "–"
    text = f"{100 * found['value']:.1f}"
    if found["low"] is None:
        return text
    return f"{text} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _short(found: Json | None) -> str:
    return f"{100 * found['value']:.1f}" if found and "value" in found else "–"


def _number(found: Json | None, digits: int) -> str:
    if not found or "value" not in found:
        return "–"
    text = f"{found['value']:.{digits}f}"
    if found["low"] is None:
        return text
    return f"{text} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def _percent(value: Any) -> str:
    return f"{100 * value:.1f}" if isinstance(value, int | float) else "–"


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"
