"""Measure groups of models on the same rows: utility, resemblance to the references, attacks.

A metric whose reference or rows are missing is left out of the result. Knows what models said of
which rows; no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from privacy_core.audit import metrics
from privacy_core.audit.estimates import Floats, mean_over_models, mean_over_people
from privacy_core.audit.forgetting import forgetting_quality, forgetting_score, person_scores
from privacy_core.audit.leak import View, cross_probe_auc, difference, match_rank1
from privacy_core.audit.parts import Outputs, Part
from privacy_core.audit.ulira import (
    Attack,
    Control,
    Scores,
    attack,
    control,
    evaluate,
    leave_one_out,
)
from privacy_core.errors import InvalidArgumentError

T = TypeVar("T")


def control_of(
    references: Sequence[Outputs],
    others: Sequence[Outputs],
    parts: Mapping[str, Part],
    *,
    seed: int,
    absent: dict[str, str],
) -> Control | None:
    """Return the attack of reference models on reference models.

    None, and why in `absent`, where it cannot be run.
    """
    if "forget" not in parts or not references or not others:
        return None
    one, two = (_phi(side, "forget", parts["forget"]) for side in (references, others))
    return _or_absent("u_lira_control", absent, lambda: control(one, two, seed=seed))


@dataclass(frozen=True)
class Measured:
    """A group's metrics as plain JSON values, and its attack where it could be run."""

    values: Mapping[str, Any]
    attack: Attack | None = field(repr=False, default=None)


def measure(
    models: Sequence[Outputs],
    references: Sequence[Outputs],
    parts: Mapping[str, Part],
    *,
    seed: int,
) -> Measured:
    """Measure a group of models against reference models, or alone where there are none.

    Args:
        models: Originals, unlearned models, or further references as a control; at least one.
        references: Reference models; may be empty.
        parts: From `parts_of`.
        seed: Seed of every bootstrap.
    """
    values: dict[str, Any] = {"n_models": len(models), "accuracy": _accuracy(models, parts, seed)}
    groups = _accuracy_by_group(models, parts, seed)
    if groups:
        values["accuracy_by_group"] = groups
    if "forget" in parts and "test" in parts:
        values["population_attack_auc"] = mean_over_models(
            [_population(one, parts) for one in models], seed=seed
        ).as_json()
    absent: dict[str, str] = {}
    found = None
    if references:
        values["n_references"] = len(references)
        values |= _resemblance(models, references, parts, seed)
        group = _Group(models, references, parts, seed, absent)
        values |= group.leak()
        found, more = group.attacks()
        values |= more
    else:
        absent["all that compares with retraining"] = "There is no reference model."
    if "test" not in parts:
        absent["all on test rows"] = "There are no rows of people the model never saw."
    return Measured(values | {"absent": absent}, found)


def _accuracies(models: Sequence[Outputs], name: str, part: Part) -> Floats:
    """Return (K, n): 1 where right."""
    return np.stack([metrics.is_correct(one.logits[name], part.rows.labels) for one in models])


def _accuracy(
    models: Sequence[Outputs], parts: Mapping[str, Part], seed: int
) -> dict[str, dict[str, float | None]]:
    return {
        name: mean_over_people(_accuracies(models, name, part), part.people, seed=seed).as_json()
        for name, part in parts.items()
    }


def _accuracy_by_group(
    models: Sequence[Outputs], parts: Mapping[str, Part], seed: int
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return group → split → accuracy, of the rows that are in a group."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, part in parts.items():
        if part.group is None:
            continue
        right = _accuracies(models, name, part)
        for group in sorted(set(part.group.tolist()) - {""}):
            mine = part.group == group
            one = mean_over_people(right[:, mine], part.people[mine], seed=seed)
            found.setdefault(group, {})[name] = one.as_json()
    return found


def _population(one: Outputs, parts: Mapping[str, Part]) -> float:
    forget, test = parts["forget"].rows.labels, parts["test"].rows.labels
    return metrics.population_attack(one.logits["forget"], forget, one.logits["test"], test)


def _resemblance(
    models: Sequence[Outputs], references: Sequence[Outputs], parts: Mapping[str, Part], seed: int
) -> dict[str, Any]:
    mine = {name: _accuracies(models, name, part).mean(1) for name, part in parts.items()}
    theirs = {name: _accuracies(references, name, part).mean(1) for name, part in parts.items()}
    gaps = {name: metrics.gap(float(mine[name].mean()), theirs[name]) for name in parts}
    result: dict[str, Any] = {
        "gap_to_retrain": gaps | {"average": metrics.average_gap(gaps)},
    }
    if {"forget", "retain", "test"} <= parts.keys():
        mean = {name: float(theirs[name].mean()) for name in parts}
        result["tug_of_war"] = mean_over_models(
            [
                metrics.tug_of_war({name: float(mine[name][k]) for name in parts}, mean)
                for k in range(len(models))
            ],
            seed=seed,
        ).as_json()
    if "forget" in parts:
        p, q = (
            np.stack([metrics.probabilities(one.logits["forget"]) for one in side])
            for side in (models, references)
        )
        for key, measure_name in (("js_divergence", "js"), ("activation_distance", "activation")):
            pairs = metrics.over_pairs(measure_name, p, q)
            result[key] = mean_over_people(pairs, parts["forget"].people, seed=seed).as_json()
    return result


def _phi(models: Sequence[Outputs], name: str, part: Part) -> Floats:
    return np.stack([metrics.margin(one.logits[name], part.rows.labels) for one in models])


@dataclass(frozen=True)
class _Group:
    """What is attacked: models against references on the same rows."""

    models: Sequence[Outputs]
    references: Sequence[Outputs]
    parts: Mapping[str, Part]
    seed: int
    absent: dict[str, str]

    def attacks(self) -> tuple[Attack | None, dict[str, Any]]:
        """Return the per-example attack on the forget rows, and all attacks as JSON."""
        if "forget" not in self.parts:
            return None, {}
        part = self.parts["forget"]
        one, two = (_phi(side, "forget", part) for side in (self.models, self.references))
        scores = _or_absent("u_lira", self.absent, lambda: leave_one_out(one, two))
        if scores is None:
            return None, {}
        rows = evaluate(scores, seed=self.seed)
        people = evaluate(person_scores(scores, part.people), seed=self.seed)
        result: dict[str, Any] = {"u_lira": rows.as_json(), "u_lira_by_person": people.as_json()}
        result |= self._by_group(scores, part)
        retained = self._retained()
        if retained is not None:
            result["u_lira_on_retain"] = retained.as_json()
        return rows, result | self._forgetting(one, two)

    def _by_group(self, scores: Scores, part: Part) -> dict[str, Any]:
        """Return the same scores, group by group: unlearning may serve some less than others."""
        if part.group is None:
            return {}
        found = {}
        for group in sorted(set(part.group.tolist()) - {""}):
            mine = part.group == group
            some = Scores(scores.unlearned[:, mine], scores.reference[:, mine])
            found[group] = evaluate(some, seed=self.seed).as_json()
        return {"u_lira_by_group": found}

    def leak(self) -> dict[str, Any]:
        """Return the attribute leak, where an attribute was named."""
        revised, forget = self.parts.get("revised"), self.parts.get("forget")
        if revised is None or revised.attribute is None or forget is None:
            return {}

        def probe(one: Outputs) -> float:
            return cross_probe_auc(_view(one, "revised", revised), seed=self.seed)

        def rank(one: Outputs) -> float:
            return match_rank1(_view(one, "revised", revised), _view(one, "forget", forget))

        result: dict[str, Any] = {}
        for name, run in (("attribute_probe_auc", probe), ("gallery_rank_1", rank)):
            sides = _or_absent(name, self.absent, partial(self._both, run))
            if sides is not None:
                mine, theirs = sides
                result[name] = {
                    "value": float(np.mean(mine)),
                    "reference": float(np.mean(theirs)),
                    "leak": difference(mine, theirs, seed=self.seed).as_json(),
                }
        return {"attribute_leak": result} if result else {}

    def _both(self, run: Callable[[Outputs], float]) -> tuple[list[float], list[float]]:
        return [run(one) for one in self.models], [run(one) for one in self.references]

    def _retained(self) -> Attack | None:
        """Return the same attack on retain rows: unlearning can expose those who stay."""
        part = self.parts.get("retain")
        if part is None:
            return None
        one, two = (_phi(side, "retain", part) for side in (self.models, self.references))
        return _or_absent("u_lira_on_retain", self.absent, lambda: attack(one, two, seed=self.seed))

    def _forgetting(self, one: Floats, two: Floats) -> dict[str, Any]:
        quality = _or_absent(
            "forgetting_quality", self.absent, lambda: forgetting_quality(one, two)
        )
        if quality is None:
            return {}
        if not {"retain", "test"} <= self.parts.keys():
            return {"forgetting_quality": quality}
        (mine_r, their_r), (mine_t, their_t) = (
            tuple(
                float(_accuracies(side, name, self.parts[name]).mean())
                for side in (self.models, self.references)
            )
            for name in ("retain", "test")
        )
        score = _or_absent(
            "forgetting_score",
            self.absent,
            lambda: forgetting_score(quality, retain=(mine_r, their_r), test=(mine_t, their_t)),
        )
        found = {} if score is None else {"forgetting_score": score}
        return {"forgetting_quality": quality, **found}


def _view(one: Outputs, name: str, part: Part) -> View:
    return View(one.features[name], np.asarray(part.attribute, dtype=np.bool_), part.people)


def _or_absent(name: str, absent: dict[str, str], run: Callable[[], T]) -> T | None:
    """Return a metric; None, and why, where the models or rows cannot give one."""
    try:
        return run()
    except InvalidArgumentError as error:
        absent[name] = str(error)
        return None
