"""Observations → the metrics of every setting: each measured, or absent with its reason.

Knows arrays of all settings; opens no photo but for restored faces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from privacy_core.attributes import skin_tone
from privacy_core.audit.anonymization.attacks import Attacker, Surroundings
from privacy_core.audit.anonymization.fidelity import NO_JUDGE, agreement, measure_fidelity
from privacy_core.audit.anonymization.gather import PREDICTORS, Gathered
from privacy_core.audit.anonymization.identity import (
    Gallery,
    Metrics,
    by_group,
    measure_identity,
    of_originals,
)
from privacy_core.audit.anonymization.inference import FEWEST_OF_CLASS, accuracy_over_people
from privacy_core.audit.anonymization.learning import LearningConfig
from privacy_core.audit.anonymization.matched import measure_matched_filter, picture_rank_1
from privacy_core.audit.anonymization.settings import EMBEDDED, AuditConfig, Setting
from privacy_core.audit.estimates import Floats
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.recognition import Recogniser
from privacy_core.records import Arrays
from privacy_core.schema import ATTRIBUTES

NO_PREDICTOR = "DATA has too few labelled people for a predictor"
_FEWEST_OF_SOURCE = 10


@dataclass(frozen=True)
class Measurer:
    """Computes metrics from observations.

    Args:
        gathered: The observations.
        config: Settings, rates and seed.
        embedded: Its code and noise levels.
        recogniser: The first recogniser, for restored faces.
        second: Name of the second one, None without one.
        surroundings: Of the photos, with every face filled.
        learning: How adversaries are trained.
    """

    gathered: Gathered
    config: AuditConfig
    embedded: EmbeddedBackend
    recogniser: Recogniser
    second: str | None
    surroundings: Surroundings
    learning: LearningConfig = field(default_factory=LearningConfig)

    @property
    def test(self) -> Arrays:
        """Return what was observed of the originals of the people tested."""
        return self.gathered.originals["test"]

    @cached_property
    def attacker(self) -> Attacker:
        """Return what trains attacks."""
        return Attacker(
            self.gathered, self._first, self.config, self.learning, self.embedded.model.code,
            self.recogniser, self.surroundings,
        )  # fmt: skip

    def seen(self, setting: Setting, part: str = "test") -> Arrays:
        """Return what was observed of the variants of one setting."""
        return self.gathered.variants[part][setting.name]

    @cached_property
    def galleries(self) -> dict[str, Gallery]:
        """Return the originals in each recogniser's embedding, with its threshold."""
        found = {self.recogniser.name: self._first}
        if self.second is not None:
            found[self.second] = self._gallery(self.second, self.test["second_embedding"])
        return found

    def embeddings(self, recogniser: str, setting: Setting) -> Floats:
        """Return the variants of one setting in a recogniser's embedding."""
        name = "second_embedding" if recogniser == self.second else "embedding"
        return np.asarray(self.seen(setting)[name])

    @cached_property
    def _first(self) -> Gallery:
        return self._gallery(self.recogniser.name, self.test["embedding"])

    def _gallery(self, name: str, embeddings: Floats) -> Gallery:
        rate = self.config.false_accept_rate
        return Gallery.of(name, embeddings, self.test["person"], self.test["slot"], rate=rate)

    @cached_property
    def groups(self) -> dict[str, NDArray[np.str_]]:
        """Return stratum → each test photo's value, "" where unknown."""
        labels = self.test["labels"]
        source = self.test["source"].astype(str)
        names, counts = np.unique(source, return_counts=True)
        # A value that few photos have may name a photo or a person, and is never printed.
        rare = np.isin(source, names[counts < _FEWEST_OF_SOURCE])
        found = {"source": np.where(rare, "", source)}
        for name in ("gender", "age_group"):
            values = np.array([*ATTRIBUTES[name], ""])
            found[name] = values[labels[:, list(ATTRIBUTES).index(name)]]
        found["skin_tone"] = np.array([skin_tone(angle) for angle in self.test["ita"]])
        return found

    def of_setting(self, setting: Setting) -> Metrics:
        """Return all metrics of one setting."""
        seen, seed = self.seen(setting), self.config.seed
        released = seen["released"]
        result: Metrics = {"identity": {}, "groups": {}}
        for name, gallery in self.galleries.items():
            variants = self.embeddings(name, setting)
            result["identity"][name] = measure_identity(gallery, variants, released, seed=seed)
            result["groups"][name] = by_group(gallery, variants, released, self.groups, seed=seed)
        result["fidelity"] = measure_fidelity(seen, self.test, seed=seed)
        result["fidelity"]["kept"] = self._kept(seen)
        result["read_by_predictor"] = self._accuracy(seen, "predicted")
        result["matched_filter"] = self._matched(setting, seen)
        return result | self.attacker.on_setting(setting)

    def of_originals(self) -> Metrics:
        """Return what is found on originals: recognisers, attacks, and how good predictors are."""
        seed = self.config.seed
        known = {name: of_originals(one, seed=seed) for name, one in self.galleries.items()}
        return {
            "recognisers": known,
            "predictors": {name: self._accuracy(self.test, name) for name in PREDICTORS.values()},
            **self.attacker.on_originals(),
        }

    def _accuracy(self, seen: Arrays, predictor: str) -> Metrics:
        """Return a predictor's balanced accuracy against the labels of people it never saw."""
        if predictor not in seen:
            return dict.fromkeys(ATTRIBUTES, NO_PREDICTOR)
        labels, released = self.test["labels"], seen.get("released")
        found: Metrics = {}
        for place, name in enumerate(ATTRIBUTES):
            truth, guess = labels[:, place], seen[predictor][:, place] > 0.5  # noqa: PLR2004
            if np.isnan(seen[predictor][:, place]).any():
                found[name] = NO_PREDICTOR
            elif min((truth == value).sum() for value in (0, 1)) < FEWEST_OF_CLASS:
                found[name] = f"fewer than {FEWEST_OF_CLASS} labelled faces of a class tested"
            else:
                read = guess if released is None else np.where(released, guess, truth == 1)
                found[name] = accuracy_over_people(
                    read, truth, self.test["person"], seed=self.config.seed
                )
        return found

    def _kept(self, seen: Arrays) -> Metrics:
        if "judged" not in self.test:
            return dict.fromkeys(ATTRIBUTES, NO_JUDGE)
        return agreement(
            seen["judged"], self.test["judged"], seen["released"], self.test["person"],
            seed=self.config.seed,
        )  # fmt: skip

    def _matched(self, setting: Setting, seen: Arrays) -> Metrics:
        people, slots = self.test["person"], self.test["slot"]
        found = picture_rank_1(
            self.test["code"].astype(np.float64), seen["code"].astype(np.float64),
            people, slots, released=seen["released"], seed=self.config.seed,
        )  # fmt: skip
        if setting.method != EMBEDDED:
            return found
        noised = self.embedded.noised_part(
            torch.from_numpy(self.test["request_code"]),
            torch.from_numpy(self.test["request_kept"]),
            setting.policy,
        )
        return found | measure_matched_filter(
            noised.double().numpy(), people, slots, sigma=self.sigma_of(setting),
            radius=self.embedded.radius_of(setting.policy), seed=self.config.seed,
        )  # fmt: skip

    def sigma_of(self, setting: Setting) -> float:
        """Return σ of an embedded setting: 0 at strength 0, ∞ at 1."""
        rung = self.embedded.curve.rung(setting.strength)
        ends = {0: 0.0, 100: math.inf}
        return ends[rung] if rung in ends else float(self.embedded.curve.rung_sigmas()[rung - 1])


def groups_of(values: Mapping[str, NDArray[np.str_]]) -> dict[str, dict[str, int]]:
    """Return how many photos each value of each stratum has."""
    return {
        name: {str(v): int((column == v).sum()) for v in np.unique(column) if v != ""}
        for name, column in values.items()
    }
