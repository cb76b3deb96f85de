"""Observations → the metrics of every setting: each measured, or absent with its reason.

Knows arrays of all settings; trains the adversaries, opens no photo but for restored faces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy_core.attributes import skin_tone
from privacy_core.audit.anonymization.adversary import LinkingAdversary, recogniser_on_codes
from privacy_core.audit.anonymization.distances import Ints, distances, ranks
from privacy_core.audit.anonymization.fidelity import NO_JUDGE, agreement, measure_fidelity
from privacy_core.audit.anonymization.gather import Gathered
from privacy_core.audit.anonymization.identity import (
    ONE_PHOTO,
    Gallery,
    Metrics,
    by_group,
    gallery_size,
    measure_identity,
)
from privacy_core.audit.anonymization.inference import measure_inference
from privacy_core.audit.anonymization.landmarks import Arrays
from privacy_core.audit.anonymization.learning import LearningConfig, Scale
from privacy_core.audit.anonymization.matched import measure_matched_filter, picture_rank_1
from privacy_core.audit.anonymization.reversal import Restorer, recognised
from privacy_core.audit.anonymization.settings import EMBEDDED, AuditConfig, Setting
from privacy_core.audit.estimates import Estimate, Floats, mean_over_people
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError
from privacy_core.recognition import Recogniser
from privacy_core.schema import ATTRIBUTES

SECOND = "code-contrastive"
"""The second recogniser: trained here on originals of other people, reads the pixels of M."""
NO_ADVERSARY = "DATA has too few people to train an adversary on"
NOT_ATTACKED = "no adversary is trained on this setting"
_N_OUTSIDE = 96
_FEWEST_PEOPLE = 8


@dataclass(frozen=True)
class Measurer:
    """Computes metrics from observations.

    Args:
        gathered: The observations.
        config: Settings, rates and seed.
        embedded: Its code and noise levels.
        recogniser: The first recogniser, for restored faces.
        learning: How adversaries are trained.
        surroundings: Test rows → (n, 128, 128, 3) frames of their surroundings.
    """

    gathered: Gathered
    config: AuditConfig
    embedded: EmbeddedBackend
    recogniser: Recogniser
    surroundings: Callable[[Ints], NDArray[np.uint8]]
    learning: LearningConfig = field(default_factory=LearningConfig)

    @property
    def test(self) -> Arrays:
        """Return what was observed of the originals of the people tested."""
        return self.gathered.originals["test"]

    @cached_property
    def others(self) -> Arrays | None:
        """Return the same of the people adversaries are trained on, None where they are too few."""
        found = self.gathered.originals.get("adversary")
        if found is None or "person" not in found:
            return None
        _, counts = np.unique(found["person"], return_counts=True)
        return found if (counts > 1).sum() >= _FEWEST_PEOPLE else None

    def seen(self, setting: Setting, part: str = "test") -> Arrays:
        """Return what was observed of the variants of one setting."""
        return self.gathered.variants[part][setting.name]

    @cached_property
    def galleries(self) -> dict[str, Gallery]:
        """Return the originals in each recogniser's embedding, with its threshold."""
        test, rate = self.test, self.config.false_accept_rate
        embeddings = {self.recogniser.name: test["embedding"]}
        if self.second is not None:
            embeddings[SECOND] = self.second(test["code"])
        return {
            name: Gallery.of(name, found, test["person"], test["slot"], rate=rate)
            for name, found in embeddings.items()
        }

    @cached_property
    def second(self) -> Callable[[NDArray[Any]], Floats] | None:
        """Return codes → embeddings of the second recogniser, which saw originals only."""
        if self.others is None:
            return None
        scale = Scale(self.others["code"])
        reader = recogniser_on_codes(
            scale(self.others["code"]), self.others["person"], self.learning
        )

        def embed(codes: NDArray[Any]) -> Floats:
            with torch.inference_mode():
                found = torch.nn.functional.normalize(reader(scale(codes)), dim=1)
            return np.asarray(found.double().numpy())

        return embed

    @cached_property
    def groups(self) -> dict[str, NDArray[np.str_]]:
        """Return stratum → each test photo's value, "" where unknown."""
        labels = self.test["labels"]
        found = {"source": self.test["source"].astype(str)}
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
            second = self.second if name == SECOND else None
            variants = seen["embedding"] if second is None else second(seen["code"])
            result["identity"][name] = measure_identity(gallery, variants, released, seed=seed)
            result["groups"][name] = by_group(gallery, variants, released, self.groups, seed=seed)
        result["fidelity"] = measure_fidelity(seen, self.test, seed=seed)
        result["fidelity"]["kept"] = self._kept(seen)
        result["matched_filter"] = self._matched(setting, seen)
        result["adversary"] = self._adversaries(setting)
        result["inference"] = self._inferences(setting)
        result["reversal"] = self._reversal(setting)
        return result

    def context_alone(self) -> Metrics | str:
        """Return the adversary that sees the surroundings of the face only, of any setting."""
        if self.others is None:
            return NO_ADVERSARY
        return self._linked(
            self._outside(self.others["outside"]), self._outside(self.test["outside"]),
            self._outside(self.others["outside"]), self._outside(self.test["outside"]),
        )  # fmt: skip

    def of_originals(self) -> Metrics:
        """Return the adversaries and classifiers on the originals themselves: the upper end."""
        if self.others is None:
            return {"adversary": NO_ADVERSARY, "inference": NO_ADVERSARY}
        return {
            "adversary": self._both(self.others["code"], self.test["code"], self._link),
            "inference": self._both(self.others["code"], self.test["code"], self._infer),
        }

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
            people, slots, seed=self.config.seed,
        )  # fmt: skip
        if setting.method != EMBEDDED:
            return found
        code = self.embedded.model.code
        factors = code.policy_factors(setting.policy)
        codes = torch.from_numpy(self.test["request_code"])
        mapped = factors * code.without_hidden(codes, setting.policy)
        return found | measure_matched_filter(
            mapped.double().numpy(), people, slots, sigma=self.sigma_of(setting),
            clip_radius=float(code.clip_radius(factors[None])[0]), seed=self.config.seed,
        )  # fmt: skip

    def sigma_of(self, setting: Setting) -> float:
        """Return σ of an embedded setting: 0 at strength 0, ∞ at 1."""
        rung = self.embedded.curve.rung(setting.strength)
        ends = {0: 0.0, 100: math.inf}
        return ends[rung] if rung in ends else float(self.embedded.curve.rung_sigmas()[rung - 1])

    def _adversaries(self, setting: Setting) -> Metrics | str:
        return self._attacked(setting, self._link)

    def _inferences(self, setting: Setting) -> Metrics | str:
        return self._attacked(setting, self._infer)

    def _attacked(
        self, setting: Setting, attack: Callable[[Tensor, Tensor, str], Metrics | str]
    ) -> Metrics | str:
        if not setting.is_attacked:
            return NOT_ATTACKED
        if self.others is None:
            return NO_ADVERSARY
        return self._both(
            self.seen(setting, "adversary")["code"], self.seen(setting)["code"], attack
        )

    def _both(
        self,
        fitted: NDArray[Any],
        tested: NDArray[Any],
        attack: Callable[[Tensor, Tensor, str], Metrics | str],
    ) -> Metrics:
        """Return an attack that sees the pixels inside M only, and one that sees the whole crop."""
        scale = Scale(fitted)
        inside, probes = scale(fitted), scale(tested)
        others = self.others or {}
        around = self._outside(others["outside"]), self._outside(self.test["outside"])
        return {
            "inside": attack(inside, probes, "inside"),
            "whole_crop": attack(
                torch.cat([inside, around[0]], 1), torch.cat([probes, around[1]], 1), "whole_crop"
            ),
        }

    def _link(self, fitted: Tensor, tested: Tensor, sees: str) -> Metrics | str:
        others = self.others or {}
        scale = Scale(others["code"])
        originals, gallery = scale(others["code"]), scale(self.test["code"])
        if sees == "whole_crop":
            originals = torch.cat([originals, self._outside(others["outside"])], 1)
            gallery = torch.cat([gallery, self._outside(self.test["outside"])], 1)
        return self._linked(fitted, tested, originals, gallery)

    def _linked(
        self, fitted: Tensor, tested: Tensor, originals: Tensor, gallery: Tensor
    ) -> Metrics | str:
        others = self.others or {}
        known = next(iter(self.galleries.values()))
        probes, mates = known.places()
        if len(probes) < 2:  # noqa: PLR2004
            return ONE_PHOTO
        try:
            adversary = LinkingAdversary(self.learning).fit(fitted, originals, others["person"])
        except InvalidArgumentError:
            return NO_ADVERSARY
        mine, theirs = adversary.embed_variants(tested), adversary.embed_originals(gallery)
        hits = np.zeros((2, len(probes)))
        for slot in (0, 1):
            rows = np.flatnonzero(known.slots[probes] == slot)
            rank = ranks(mine[probes[rows]], theirs[mates[rows]], np.arange(len(rows)))
            hits[:, rows] = rank == 1, rank <= 10  # noqa: PLR2004
        size, people = gallery_size(known), known.people[probes]
        first = mean_over_people(hits[0], people, seed=self.config.seed)
        return {
            "rank_1": first,
            "rank_10": mean_over_people(hits[1], people, seed=self.config.seed),
            "chance": 1 / size,
            "times_chance": _times(first, size),
        }

    def _infer(self, fitted: Tensor, tested: Tensor, _: str) -> Metrics:
        others = self.others or {}
        return measure_inference(
            fitted, others["labels"], others["person"],
            tested, self.test["labels"], self.test["person"], config=self.learning,
        )  # fmt: skip

    def _reversal(self, setting: Setting) -> Metrics | str:
        if not setting.is_attacked or self.config.n_reversed == 0:
            return NOT_ATTACKED
        if self.others is None:
            return NO_ADVERSARY
        codes = self.seen(setting, "adversary")["code"]
        scale, around = Scale(codes), self._outside(self.others["outside"])
        truth = torch.from_numpy(self.others["code"]).float()
        restorer = Restorer(self.learning).fit(
            torch.cat([scale(codes), around], 1), truth, self.others["person"]
        )
        n, gallery = self.config.n_reversed, self.galleries[self.recogniser.name]
        rows = np.flatnonzero((gallery.slots == 0) & self.seen(setting)["released"])[:n]
        tested = torch.cat(
            [scale(self.seen(setting)["code"][rows]), self._outside(self.test["outside"][rows])], 1
        )
        found = recognised(
            restorer.restore(tested), self.surroundings(rows), self.embedded.model.code,
            self.recogniser,
        )  # fmt: skip
        everyone = np.flatnonzero(gallery.slots == 0)
        own = np.searchsorted(everyone, rows)
        return {
            "n_faces": len(rows),
            **_shown(found, gallery, everyone, own, "restored", self.config.seed),
            **_shown(self.seen(setting)["embedding"][rows], gallery, everyone, own, "variant",
                     self.config.seed),
        }  # fmt: skip

    def _outside(self, rows: NDArray[Any]) -> Tensor:
        return self._outside_scale(rows)

    @cached_property
    def _outside_scale(self) -> Scale:
        others = self.others or {}
        n = min(_N_OUTSIDE, len(others["outside"]) - 1)
        return Scale(others["outside"], n_components=n)


def _shown(
    embeddings: Floats, gallery: Gallery, everyone: Ints, own: Ints, what: str, seed: int
) -> Metrics:
    """Return how often a picture is verified as, and first found to be, its own original."""
    apart = distances(embeddings, gallery.embeddings[everyone])
    people = gallery.people[everyone[own]]
    true = apart[np.arange(len(own)), own]
    return {
        f"{what}_verified": mean_over_people(true < gallery.threshold, people, seed=seed),
        f"{what}_rank_1": mean_over_people(apart.argmin(1) == own, people, seed=seed),
    }


def _times(rate: Estimate, size: int) -> Estimate:
    low, high = (None if end is None else end * size for end in (rate.low, rate.high))
    return Estimate(rate.value * size, low, high)


def groups_of(values: Mapping[str, NDArray[np.str_]]) -> dict[str, dict[str, int]]:
    """Return how many photos each value of each stratum has."""
    return {
        name: {str(v): int((column == v).sum()) for v in np.unique(column) if v != ""}
        for name, column in values.items()
    }
