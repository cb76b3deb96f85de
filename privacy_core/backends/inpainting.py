"""The backend of the Hub's diffusion models: a face is noised, and a model paints it anew.

A face enters through its noised latents alone; at strength 1 not at all. Nothing bounds those
latents, so nothing is guaranteed and every statement says "measured only". Knows no file and no
photo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from privacy_core.backends.base import FaceRequest, GeneratedFace, refuse_policies
from privacy_core.backends.curves import highest_sigma, provisional
from privacy_core.backends.painter import Painter
from privacy_core.backends.repair import MOST_TRIES, Step, repair_ladder, target_distance
from privacy_core.faces.align import SIZE, TEMPLATE, template_mask
from privacy_core.faces.output import DigitalSourceType
from privacy_core.noise import NoiseKey
from privacy_core.privacy import measured_only
from privacy_core.recognition import Recogniser
from privacy_core.schema import RGB, PrivacyStatement, StrengthCurve

Report = Callable[[str, int, int], None]
Decorate = Callable[[Callable[..., Any]], Callable[..., Any]]
NOT_PROVEN = "the noise of an inpainting model lies on latents that nothing bounds"
NOT_CALIBRATED = "what its strengths mean was not measured at this commit"
MEASURED = (
    "the face was measured, and where it was too like its original up to "
    f"{MOST_TRIES} other noise levels were tried"
)
STILL_LIKE = "it stayed nearer to its original than it should be"
_PURE = 100


def _silent(_stage: str, _done: int, _total: int) -> None:
    return None


@dataclass(frozen=True)
class _Job:
    """One square to be painted; `sigma` 0 keeps the face, None is pure noise."""

    face: RGB = field(repr=False)
    filled: RGB = field(repr=False)
    sigma: float | None
    key: NoiseKey


@dataclass(frozen=True)
class _Made:
    frame: RGB | None = field(repr=False)
    sigma: float | None
    was_measured: bool = False
    is_short: bool = False


class InpaintingBackend:
    """A model of the Hub, loaded once.

    Args:
        painter: The loaded pipeline.
        revision: Commit of its repository.
        curve: What its strengths mean; None where that was not measured.
        curves: Folder where its curve is stored; the usual one when None.
        recogniser: Measures faces and has those repaired that are nearer to their original than
            the curve says, or than a weaker rung of their ladder; None measures nothing.
        report: Progress; told to nobody when None.
        decorate: Wraps the one heavy call per ladder, for machines that lend their GPU by call;
            nothing when None.
    """

    digital_source_type: DigitalSourceType = "compositeWithTrainedAlgorithmicMedia"

    def __init__(
        self,
        painter: Painter,
        revision: str,
        *,
        curve: StrengthCurve | None = None,
        curves: Path | None = None,
        recogniser: Recogniser | None = None,
        report: Report | None = None,
        decorate: Decorate | None = None,
    ) -> None:
        self.painter, self.model = painter, painter.model
        self.name, self.revision, self.curve = self.model.name, revision, curve
        self.zoom = max(1, self.model.side // SIZE)
        self.curves = curves
        self._recogniser = recogniser
        self._report, self._decorate = report or _silent, decorate
        self.uncalibrated = provisional(self.model)
        self._meaning = curve or self.uncalibrated
        self._sigmas = tuple(float(sigma) for sigma in self._meaning.rung_sigmas())
        self._make = decorate(self._make_all) if decorate else self._make_all

    def with_curve(self, curve: StrengthCurve | None) -> InpaintingBackend:
        """Return the same loaded model with other strengths, and without repair."""
        return InpaintingBackend(
            self.painter, self.revision, curve=curve, report=self._report, decorate=self._decorate
        )

    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Return one result per request; requests of one face and key share one noise.

        Raises:
            InvalidArgumentError: A request keeps, hides or sets an attribute.
            ModelError: The device ran out of memory.
        """
        refuse_policies(requests, self.name)
        rungs = [self._meaning.rung(request.strength) for request in requests]
        made: list[_Made] = self._make(list(requests), rungs) if requests else []
        return [
            GeneratedFace(
                one.frame,
                rung / 100,
                one.sigma,
                self._statement(one),
                rung > 0,
                None if one.frame is not None else "The model gave no usable picture.",
            )
            for one, rung in zip(made, rungs, strict=True)
        ]

    def _make_all(self, requests: list[FaceRequest], rungs: list[int]) -> list[_Made]:
        jobs = [self._job(r, rung) for r, rung in zip(requests, rungs, strict=True)]
        made = self._painted(jobs)
        if self._recogniser is not None:
            self._repair(self._recogniser, jobs, made)
        return made

    def _job(self, request: FaceRequest, rung: int) -> _Job:
        inside = template_mask(request.pixels.shape[0] // SIZE)[..., None]
        face = np.where(inside, request.pixels, request.context)
        sigma = None if rung == _PURE else 0.0 if rung == 0 else self._sigmas[rung - 1]
        # One noise for all strengths: no ε is claimed that a second picture could break.
        key = request.key.child(f"{self.name} {self.revision}")
        shown = request.context if sigma is None else face
        return _Job(shown, request.context, sigma, key)

    def _painted(self, jobs: Sequence[_Job]) -> list[_Made]:
        """Return one frame per job; jobs of one noise level are painted together."""
        made = [_Made(job.face, job.sigma) for job in jobs]
        groups: dict[float | None, list[int]] = {}
        for i, job in enumerate(jobs):
            if job.sigma != 0:
                groups.setdefault(job.sigma, []).append(i)
        done, total = 0, sum(len(group) for group in groups.values())
        for sigma, group in groups.items():
            for start in range(0, len(group), self.model.batch):
                self._report("painted faces", done, total)
                some = group[start : start + self.model.batch]
                pictures = self.painter.paint(
                    [_resized(jobs[i].filled, self.model.side) for i in some],
                    [_resized(jobs[i].face, self.model.side) for i in some],
                    sigma,
                    [jobs[i].key for i in some],
                )
                for i, picture in zip(some, pictures, strict=True):
                    made[i] = _Made(_frame(picture, len(jobs[i].face)), sigma)
                done += len(some)
        if total:
            self._report("painted faces", total, total)
        return made

    def _repair(self, recogniser: Recogniser, jobs: list[_Job], made: list[_Made]) -> None:
        """Replace in `made` what is too like its original, each face's ladder by itself."""
        ladders: dict[tuple[NoiseKey, bytes], list[int]] = {}
        for i, job in enumerate(jobs):
            # At the ends there is nothing to choose: the face itself, and noise alone.
            if job.sigma and made[i].frame is not None:
                ladders.setdefault((job.key, job.face.tobytes()), []).append(i)
        for members in ladders.values():
            if self.curve is None and len(members) == 1:
                continue  # Neither a target nor an order to miss.
            members.sort(key=lambda i: jobs[i].sigma or 0.0)
            ladder = self._repaired(recogniser, jobs[members[0]], [made[i] for i in members])
            for i, one in zip(members, ladder, strict=True):
                made[i] = one

    def _repaired(self, recogniser: Recogniser, job: _Job, made: list[_Made]) -> list[_Made]:
        original = _embedded(recogniser, job.face)

        def step(one: _Made) -> Step:
            far = -1.0
            if one.frame is not None:
                far = recogniser.distance(original, _embedded(recogniser, one.frame))
            return Step(one.sigma or 0.0, one, far)

        def again(sigma: float) -> Step:
            (one,) = self._painted([_Job(job.face, job.filled, sigma, job.key)])
            return step(one)

        ladder = repair_ladder(
            [step(one) for one in made],
            [target_distance(self._meaning, one.sigma or 0.0) for one in made],
            highest=highest_sigma(self.model),
            again=again,
        )
        return [
            _Made(one.made.frame, one.sigma, was_measured=True, is_short=one.is_short)
            for one in ladder
        ]

    def _statement(self, made: _Made) -> PrivacyStatement:
        reasons = [NOT_PROVEN]
        if self.curve is None:
            reasons.append(NOT_CALIBRATED)
        if made.was_measured:
            # Said of every measured face: that it was left as it is tells of it, too.
            reasons.append(MEASURED)
        if made.is_short:
            reasons.append(STILL_LIKE)
        return measured_only("; ".join(reasons))


def _embedded(recogniser: Recogniser, frame: RGB) -> NDArray[np.float64]:
    zoom = len(frame) / SIZE
    return recogniser.embed(frame, (TEMPLATE + 0.5) * zoom - 0.5)


def _resized(picture: RGB, side: int) -> RGB:
    if len(picture) == side:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def _frame(picture: NDArray[np.float32], side: int) -> RGB | None:
    if not np.isfinite(picture).all():
        return None
    levels = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    return _resized(levels, side)
