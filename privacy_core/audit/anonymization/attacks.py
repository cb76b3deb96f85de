"""Trained attacks on one setting: linking, attribute inference, reversal.

Each sees the pixels inside M only, as a code, or those of M's opaque part, through which nothing of
the surroundings shines, or the whole crop: the code, the surroundings and the first recogniser's
embedding. All are trained on people who are not tested.
A face that was withheld counts as found; of reversal, which then has nothing to restore, the number
stands beside. Knows observations; measures nothing that needs no training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy_core.audit.anonymization.adversary import LinkingAdversary
from privacy_core.audit.anonymization.distances import Ints, distances, ranks, share_over_people
from privacy_core.audit.anonymization.gather import Gathered
from privacy_core.audit.anonymization.identity import ONE_PHOTO, Gallery, Metrics, gallery_size
from privacy_core.audit.anonymization.inference import measure_inference
from privacy_core.audit.anonymization.learning import LearningConfig, Scale
from privacy_core.audit.anonymization.order import Ladders, order_for_adversary
from privacy_core.audit.anonymization.repainting import Repainter
from privacy_core.audit.anonymization.reversal import Restorer, pictures_of, recognised
from privacy_core.audit.anonymization.settings import AuditConfig, Setting, plain
from privacy_core.audit.estimates import Estimate, Floats
from privacy_core.diffusion.code import LinearCode
from privacy_core.errors import InvalidArgumentError
from privacy_core.recognition import Recogniser
from privacy_core.records import Arrays

NO_ADVERSARY = "DATA has too few people to train an adversary on"
NOT_ATTACKED = "no adversary is trained on this setting"
_N_OUTSIDE = 96
_FEWEST_PEOPLE = 8


@dataclass(frozen=True)
class _Side:
    """What an attack sees of the faces it is trained on and of those it is tested on.

    Attributes:
        fitted: (n, d) features of variants.
        tested: (m, d).
        originals: (n, e) features of the same faces' originals.
        gallery: (m, e).
        released: (m,) False for faces that were withheld.
    """

    fitted: Tensor = field(repr=False)
    tested: Tensor = field(repr=False)
    originals: Tensor = field(repr=False)
    gallery: Tensor = field(repr=False)
    released: NDArray[np.bool_] = field(repr=False)


Surroundings = Callable[[str, Ints], NDArray[np.uint8]]
"""Part, rows of it → (n, 128, 128, 3) frames of their surroundings."""


@dataclass(frozen=True)
class Attacker:
    """Trains attacks on observations.

    Args:
        gathered: The observations.
        gallery: The originals in the first recogniser's embedding.
        config: Seed and how many faces are restored.
        learning: How attacks are trained.
        code: Decodes restored faces.
        recogniser: The first recogniser, for restored faces.
        surroundings: Of the photos, with every face filled.
    """

    gathered: Gathered
    gallery: Gallery
    config: AuditConfig
    learning: LearningConfig
    code: LinearCode = field(repr=False)
    recogniser: Recogniser
    surroundings: Surroundings

    @cached_property
    def others(self) -> Arrays | None:
        """Return the originals of the people trained on, None where they are too few."""
        found = self.gathered.originals.get("adversary")
        if found is None or "person" not in found:
            return None
        _, counts = np.unique(found["person"], return_counts=True)
        return found if (counts > 1).sum() >= _FEWEST_PEOPLE else None

    def on_setting(self, setting: Setting) -> Metrics:
        """Return every attack on one setting, or why there is none."""
        if not setting.is_attacked or self.others is None:
            reason = NO_ADVERSARY if setting.is_attacked else NOT_ATTACKED
            return dict.fromkeys(("adversary", "inference", "reversal"), reason)
        fitted = self.gathered.variants["adversary"][setting.name]
        tested = self.gathered.variants["test"][setting.name]
        sides = self._sides(fitted, tested, tested["released"])
        return {
            "adversary": {sees: self._link(side) for sees, side in sides.items()},
            "inference": {sees: self._infer(side) for sees, side in sides.items()},
            "reversal": self._reverse(setting, sides["whole_crop"]),
        }

    def on_originals(self) -> Metrics:
        """Return the attacks on the originals themselves, the upper end, and without any face."""
        names = ("adversary", "inference", "context_alone", "order")
        if self.others is None:
            return dict.fromkeys(names, NO_ADVERSARY)
        everyone = np.ones(len(self._test["person"]), np.bool_)
        sides = self._sides(self.others, self._test, everyone)
        around = self._outside(self.others["outside"]), self._outside(self._test["outside"])
        return {
            "adversary": {sees: self._link(side) for sees, side in sides.items()},
            "inference": {sees: self._infer(side) for sees, side in sides.items()},
            "context_alone": self._link(_Side(*around, *around, everyone)),
            "order": {
                "inside": self._order(whole_crop=False),
                "whole_crop": self._order(whole_crop=True),
            },
        }

    @property
    def _test(self) -> Arrays:
        return self.gathered.originals["test"]

    @property
    def _others(self) -> Arrays:
        return self.others or {}

    def _sides(
        self, fitted: Arrays, tested: Arrays, released: NDArray[np.bool_]
    ) -> dict[str, _Side]:
        """Return what is seen of M's opaque part, of all of M, and of the whole crop."""
        opaque, code, face = (
            (*_scaled(fitted[name], tested[name]),
             *_scaled(self._others[name], self._test[name]))
            for name in ("opaque_code", "code", "embedding")
        )  # fmt: skip
        train, test = self._outside(self._others["outside"]), self._outside(self._test["outside"])
        around = (train, test, train, test)
        whole = [torch.cat(parts, 1) for parts in zip(code, face, around, strict=True)]
        return {
            "opaque": _Side(opaque[0], opaque[1], opaque[2], opaque[3], released),
            "inside": _Side(code[0], code[1], code[2], code[3], released),
            "whole_crop": _Side(whole[0], whole[1], whole[2], whole[3], released),
        }

    def _link(self, side: _Side) -> Metrics | str:
        probes, mates = self.gallery.places()
        if len(probes) < 2:  # noqa: PLR2004
            return ONE_PHOTO
        adversary = LinkingAdversary(self.learning)
        try:
            adversary.fit(side.fitted, side.originals, self._others["person"])
        except InvalidArgumentError:
            return NO_ADVERSARY
        mine = adversary.embed_variants(side.tested)
        theirs = adversary.embed_originals(side.gallery)
        rank = np.ones(len(probes), np.int64)
        for slot in (0, 1):
            rows = np.flatnonzero(self.gallery.slots[probes] == slot)
            rank[rows] = ranks(mine[probes[rows]], theirs[mates[rows]], np.arange(len(rows)))
        rank = np.where(side.released[probes], rank, 1)
        people, seed = self.gallery.people[probes], self.config.seed
        first = share_over_people(rank == 1, people, seed=seed)
        size = gallery_size(self.gallery)
        return {
            "rank_1": first,
            "rank_10": share_over_people(rank <= 10, people, seed=seed),  # noqa: PLR2004
            "chance": 1 / size,
            "times_chance": _times(first, size),
        }

    def _order(self, *, whole_crop: bool) -> Metrics | str:
        """Return how well strength orders faces for an adversary that knows all strengths."""
        settings = [one for one in plain(self.config.settings) if one.is_attacked]

        def features(arrays: Arrays, around: Tensor) -> Floats:
            parts = (arrays["code"], arrays["embedding"], around)
            return np.concatenate(parts if whole_crop else parts[:1], 1, dtype=np.float64)

        def seen(part: str, originals: Arrays) -> Ladders:
            shown, around = self.gathered.variants[part], self._outside(originals["outside"])
            variants = {one.strength: features(shown[one.name], around) for one in settings}
            return Ladders(variants, features(originals, around))

        fitted, tested = seen("adversary", self._others), seen("test", self._test)
        try:
            return order_for_adversary(
                fitted, tested, self._others["person"], learning=self.learning
            )
        except InvalidArgumentError:
            return NO_ADVERSARY

    def _infer(self, side: _Side) -> Metrics:
        return measure_inference(
            side.fitted, self._others["labels"], self._others["person"],
            side.tested, self._test["labels"], self._test["person"],
            config=self.learning, withheld=~side.released,
        )  # fmt: skip

    def _reverse(self, setting: Setting, side: _Side) -> Metrics | str:
        """Return how often restored faces are recognised, beside the variants themselves.

        One network restores the code from all that the whole crop tells, and one the pixels.
        """
        asked = self._firsts[: self.config.n_reversed]
        if len(asked) == 0:
            return NOT_ATTACKED
        own = np.flatnonzero(side.released[asked])
        if len(own) == 0:
            return "no variant was released"
        rows, around = asked[own], self._asked_around[own]
        restorer = Restorer(self.learning).fit(
            side.fitted, torch.from_numpy(self._others["code"]).float(), self._others["person"]
        )
        restored = pictures_of(restorer.restore(side.tested[rows]), around, self.code)
        tested = self.gathered.variants["test"][setting.name]
        shown = {
            "restored": recognised(restored, self.recogniser),
            "variant": np.asarray(tested["embedding"][rows]),
        }
        if painter := self._repainter(setting):
            given = pictures_of(tested["code"][rows], around, self.code)
            shown["repainted"] = recognised(painter.restore(given), self.recogniser)
        found: Metrics = {"n_faces": len(rows), "n_withheld": len(asked) - len(rows)}
        found |= dict.fromkeys(("repainted_verified", "repainted_rank_1"), NO_ADVERSARY)
        for what, embeddings in shown.items():
            found |= self._shown(embeddings, own, what)
        return found

    def _repainter(self, setting: Setting) -> Repainter | None:
        """Return an image-to-image network trained on the others' pairs; None of too few."""
        fitted = self.gathered.variants["adversary"][setting.name]
        released = np.flatnonzero(fitted["released"])
        if len(released) < _FEWEST_PEOPLE:
            return None
        originals = self._others_pictures[released]
        # Of the originals' pictures nothing inside M is read: they stand for the surroundings.
        variants = pictures_of(fitted["code"][released], originals, self.code)
        people = self._others["person"][released]
        return Repainter(self.learning).fit(variants, originals, people)

    @cached_property
    def _others_pictures(self) -> NDArray[np.uint8]:
        """Return the decoded originals of the people trained on, 48 KiB each."""
        rows = np.arange(len(self._others["person"]))
        return pictures_of(self._others["code"], self.surroundings("adversary", rows), self.code)

    @cached_property
    def _firsts(self) -> Ints:
        """Return the row of each tested person's first photo."""
        return np.flatnonzero(self.gallery.slots == 0)

    @cached_property
    def _asked_around(self) -> NDArray[np.uint8]:
        """Return the surroundings of the photos to be restored, 48 KiB each."""
        return self.surroundings("test", self._firsts[: self.config.n_reversed])

    def _shown(self, embeddings: Floats, own: Ints, what: str) -> Metrics:
        """Return how often a picture is verified as, and first found to be, its own original."""
        gallery = self.gallery.embeddings[self._firsts]
        rank = ranks(embeddings, gallery, own)
        true = distances(embeddings, gallery)[np.arange(len(own)), own]
        people, seed = self.gallery.people[self._firsts[own]], self.config.seed
        hits = true < self.gallery.threshold
        return {
            f"{what}_verified": share_over_people(hits, people, seed=seed),
            f"{what}_rank_1": share_over_people(rank == 1, people, seed=seed),
        }

    def _outside(self, rows: NDArray[Any]) -> Tensor:
        return self._outside_scale(rows)

    @cached_property
    def _outside_scale(self) -> Scale:
        rows = self._others["outside"]
        return Scale(rows, n_components=min(_N_OUTSIDE, len(rows) - 1))


def _scaled(fitted: NDArray[Any], tested: NDArray[Any]) -> tuple[Tensor, Tensor]:
    scale = Scale(fitted)
    return scale(fitted), scale(tested)


def _times(rate: Estimate, size: int) -> Estimate:
    low, high = (None if end is None else end * size for end in (rate.low, rate.high))
    return Estimate(rate.value * size, low, high)
