"""The audit's long part: photos → observations of every setting, chunk by chunk, resumable.

Knows parts, chunks and methods; no metric.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from privacy_core.attributes import AttributePredictor, PredictorConfig
from privacy_core.audit.anonymization.baselines import KSameBackend, LatentLaplaceBackend
from privacy_core.audit.anonymization.distances import check_strangers
from privacy_core.audit.anonymization.instruments import Instruments
from privacy_core.audit.anonymization.observe import (
    Opened,
    faces_as_rows,
    faces_from_rows,
    frames_of,
    observe_originals,
    observe_variants,
    open_photos,
)
from privacy_core.audit.anonymization.people import ChosenPhoto
from privacy_core.audit.anonymization.settings import (
    EMBEDDED,
    K_SAME,
    LAPLACE,
    AuditConfig,
    Setting,
)
from privacy_core.backends import load_backend
from privacy_core.backends.base import Backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError
from privacy_core.noise import NoiseKey
from privacy_core.records import Arrays, Records, flat, joined, table_of

CHUNK = 32
PREDICTORS = {"predictor": "predicted", "judge": "judged"}
"""Part whose people it is trained on → name of the predictor."""
_SHAPES = {
    "predictor": PredictorConfig(width=24, depth=4, seed=1),
    "judge": PredictorConfig(width=16, depth=3, seed=2),
}
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Gathered:
    """Everything that was observed.

    Attributes:
        originals: Part → arrays, one row per photo with a face.
        variants: Part → setting's name → arrays, rows as in `originals`.
        failures: Part → reason → how many photos could not be opened.
    """

    originals: Mapping[str, Arrays]
    variants: Mapping[str, Mapping[str, Arrays]]
    failures: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Gatherer:
    """Observes the photos of an audit.

    Args:
        photos: Part → photos.
        config: Settings, sizes, seed.
        embedded: The embedded backend; its code reads every picture.
        instruments: What measures, without predictors.
        records: Where chunks are kept.
        report: Progress.
        backwards: Begin with the last chunk, beside another process that begins with the first.
        crew: The processes that share the work and the records; each gets the same result.
    """

    photos: Mapping[str, Sequence[ChosenPhoto]] = field(repr=False)
    config: AuditConfig
    embedded: EmbeddedBackend
    instruments: Instruments
    records: Records
    report: Report
    backwards: bool = False
    crew: Crew = field(default_factory=Crew)

    def gather(self) -> Gathered:
        """Return what was observed; chunks that are there already are not made again.

        Raises:
            InvalidArgumentError: In none of the photos tested is a face, or too few people are
                tested for the false-accept rate.
        """
        rate = self.config.false_accept_rate
        people = np.array([photo.person for photo in self.photos["test"]])
        check_strangers(people, false_accept_rate=rate)
        self.measuring  # noqa: B018  (the predictors come first, under bars of their own)
        originals = {
            part: self._originals(part) for part in ("test", "adversary") if self.photos[part]
        }
        if "place" not in originals["test"]:
            raise InvalidArgumentError(
                f"`DATA` must show faces that can be detected, got {len(self.photos['test'])} "
                "photos without. Use upright, mostly frontal portraits."
            )
        # Known before the long part: photos without a face have left.
        check_strangers(originals["test"]["person"], false_accept_rate=rate)
        backends = self._backends(originals)
        variants = {
            part: self._variants(part, arrays, backends)
            for part, arrays in originals.items()
            if "place" in arrays
        }
        failures = {
            part: dict(Counter(arrays["failures"].tolist())) for part, arrays in originals.items()
        }
        return Gathered(originals, variants, failures)

    def _originals(self, part: str) -> Arrays:
        def make(start: int, photos: Sequence[ChosenPhoto]) -> Arrays:
            opened, failures = open_photos(photos, start, self.embedded, self.instruments.detector)
            arrays = {"failures": np.array(failures, dtype="U24")}
            if opened:
                arrays["faces"] = faces_as_rows(opened)
                arrays |= observe_originals(opened, self.measuring, complete=part == "test")
            return arrays

        chunks = self._made("originals", part, make)
        failures = np.concatenate([chunk["failures"] for chunk in chunks])
        return joined([chunk for chunk in chunks if "place" in chunk]) | {"failures": failures}

    def _variants(
        self, part: str, originals: Arrays, backends: Mapping[str, Backend]
    ) -> dict[str, Arrays]:
        settings = [s for s in self.config.settings if part == "test" or s.is_attacked]
        known = faces_from_rows(originals["faces"])
        # Kept with the chunks, so that a chunk is the same whoever makes it, and when.
        key = NoiseKey(self.records.secret(), secret=True)
        if self.config.repeatable:
            key = NoiseKey.from_seed(self.config.seed)
        key = key.child(part)

        def make(start: int, photos: Sequence[ChosenPhoto]) -> Arrays:
            rows = (originals["place"] >= start) & (originals["place"] < start + len(photos))
            if not rows.any():
                return {}
            opened, _ = open_photos(
                photos, start, self.embedded, self.instruments.detector, known=known, key=key
            )
            points = originals["points"][rows] if part == "test" else None
            return flat(
                {s.name: self._seen(opened, s, backends[s.method], points) for s in settings}
            )

        chunks = [chunk for chunk in self._made("variants", part, make) if chunk]
        return {s.name: joined([table_of(chunk, s.name) for chunk in chunks]) for s in settings}

    def _made(
        self, stage: str, part: str, make: Callable[[int, Sequence[ChosenPhoto]], Arrays]
    ) -> list[Arrays]:
        """Return all chunks of a stage in order, made where they are missing."""
        chunks = _chunks(self.photos[part])
        return self.records.made_together(
            [f"{stage}-{part}-{number:04}" for number in range(len(chunks))],
            lambda number: make(*chunks[number]),
            report=lambda done: self.report(f"{stage}, {part}", done, len(chunks)),
            backwards=self.backwards,
        )

    def _seen(
        self,
        opened: Sequence[Opened],
        setting: Setting,
        backend: Backend,
        points: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None,
    ) -> Arrays:
        return observe_variants(opened, setting, backend, self.measuring, points=points)

    def _backends(self, originals: Mapping[str, Arrays]) -> dict[str, Backend]:
        """Return each method's backend; k-Same averages the very faces that are replaced."""
        wanted = {setting.method for setting in self.config.settings}
        made: dict[str, Backend] = {EMBEDDED: self.embedded}
        for name in wanted - {EMBEDDED, K_SAME, LAPLACE}:
            made[name] = load_backend(name)
        if LAPLACE in wanted:
            made[LAPLACE] = LatentLaplaceBackend(self.embedded.model.code)
        if K_SAME in wanted:
            with_faces = [arrays for arrays in originals.values() if "place" in arrays]
            codes = np.concatenate([arrays["request_code"] for arrays in with_faces])
            slots = np.concatenate(
                [arrays["slot"] + 1000 * i for i, arrays in enumerate(with_faces)]
            )
            made[K_SAME] = KSameBackend(self.embedded.model.code, codes, slots)
        return made

    @cached_property
    def measuring(self) -> Instruments:
        """The instruments with their attribute predictors, trained where that was not done yet."""
        for place, part in enumerate(PREDICTORS):
            if self.crew.does(place) and not self.records.has_state(part):
                self._train_predictor(part)
        self.crew.wait()
        predictors = {
            name: AttributePredictor(_SHAPES[part]).load_state(self.records.load_state(part))
            for part, name in PREDICTORS.items()
            if self.records.has_state(part)
        }
        return replace(self.instruments, predictors=predictors)

    def _train_predictor(self, part: str) -> None:
        """Train and keep a predictor, where there are enough labelled people for one."""
        predictor = AttributePredictor(_SHAPES[part])
        frames, labels = [], []
        photos = [photo for photo in self.photos[part] if max(photo.labels) >= 0]
        for start, chunk in _chunks(photos):
            self.report(f"originals, {part}", start, len(photos))
            opened, _ = open_photos(chunk, start, self.embedded, self.instruments.finder)
            if opened:
                frames.append(frames_of(opened))
                labels += [o.chosen.labels for o in opened]
        self.report(f"originals, {part}", len(photos), len(photos))
        if not frames:
            return
        try:
            predictor.fit(np.concatenate(frames), np.array(labels))
        except InvalidArgumentError:
            return
        self.records.keep_state(part, predictor.state())


def _chunks(photos: Sequence[ChosenPhoto]) -> list[tuple[int, Sequence[ChosenPhoto]]]:
    starts = itertools.takewhile(lambda start: start < len(photos), itertools.count(0, CHUNK))
    return [(start, photos[start : start + CHUNK]) for start in starts]
