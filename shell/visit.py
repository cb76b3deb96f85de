"""One visitor between two clicks: their photo, what they downloaded, the page they judge.

Memory of one tab and nothing else; knows no web page, no store, no key and no file.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import weakref
from dataclasses import dataclass, field

import numpy as np

from feedback import AnonymousRater, Page, new_id
from feedback.columns import Source
from feedback.preference.judgement import Judgement
from privacy_core.anonymize import Anonymizer, OpenPhoto
from privacy_core.errors import PhotoError
from privacy_core.faces import photo_from_pixels
from privacy_core.noise import NoiseKey
from privacy_core.privacy import total_statement
from privacy_core.report import ladder_statement
from privacy_core.schema import AttributePolicy, Photo, PrivacyStatement, Variant
from shell.pictures import reduced

WORKING_SIDE = 2048
"""Photos are reduced to this many pixels on the longer side, once, before anything reads them."""
MOST_UNDONE = 50
"""So many answered pages of a visit can be taken back, the latest first."""
_ACCOUNTING = threading.Lock()
"""Two downloads at once must not overlook each other."""


@dataclass(frozen=True)
class Question:
    """A page of blinded variants that waits for its answer.

    Attributes:
        page: What is shown, in order.
        variants: The same, without their pixels.
        asked_at: Seconds on the desk's timer.
        chosen_at: When a variant was first chosen, None before.
    """

    page: Page
    variants: tuple[Variant, ...] = field(repr=False)
    asked_at: float
    chosen_at: float | None = None


@dataclass(frozen=True)
class AnsweredPage:
    """What it takes to take an answer back.

    Attributes:
        judgements: What it added to the browser's history, as the history holds it.
        rating_ids: The rows it stored, none without consent.
        rater_id: Whose they are.
    """

    judgements: tuple[Judgement, ...] = field(repr=False)
    rating_ids: tuple[str, ...] = field(repr=False)
    rater_id: str = field(repr=False)


@dataclass(eq=False)
class Visit:
    """What is remembered of a visitor while their tab is open, in memory only.

    Attributes:
        opened: The photo, None before the first and after it was dropped.
        photo_id: Random name of the photo in rating rows.
        source: Whose photo it is.
        question: The page that waits for an answer.
        rater: Who answers, once they let answers be kept.
        answered: Pages that can be taken back, the latest last.
        n_downloads: Pictures downloaded, of all photos.
    """

    opened: OpenPhoto | None = field(default=None, repr=False)
    photo_id: str = ""
    source: Source = "own_photo"
    question: Question | None = field(default=None, repr=False)
    rater: AnonymousRater | None = field(default=None, repr=False)
    answered: list[AnsweredPage] = field(default_factory=list, repr=False)
    n_downloads: int = 0
    _weakest: dict[str, Variant] = field(default_factory=dict, repr=False)

    def open(self, anonymizer: Anonymizer, photo: Photo, *, source: Source) -> None:
        """Take a photo in place of the one before, with a noise key of its own.

        Raises:
            PrivacyDialError: No face was found, or one cannot be anonymized.
        """
        self.forget_photo()
        self.opened = anonymizer.open(working_photo(photo), key=NoiseKey.fresh())
        self.photo_id, self.source = new_id(), source

    def photo(self) -> OpenPhoto:
        """Return the open photo.

        Raises:
            PhotoError: There is none.
        """
        if self.opened is None:
            raise PhotoError(
                "`photo` must be open in this tab, got none: photos are dropped after a while. "
                "Choose it again."
            )
        return self.opened

    def set_policy(self, policy: AttributePolicy) -> None:
        """Treat attributes differently from now on; the backend draws other noise for it."""
        self.opened = dataclasses.replace(self.photo(), policy=policy)
        self.question = None

    def forget_photo(self) -> None:
        """Drop every pixel of the photo and its variants; counts of downloads stay."""
        self.opened, self.question = None, None

    def release(self, variant: Variant) -> PrivacyStatement:
        """Count a downloaded variant and return what all downloads guarantee together.

        Variants of one photo and policy lie on one noise path and cost what the weakest costs;
        other policies and other photos have noise of their own, and add up.
        """
        path = json.dumps([self.photo_id, variant.policy.as_json()], sort_keys=True)
        bare = without_pixels(variant)
        with _ACCOUNTING:
            before = self._weakest.get(path)
            weakest = ladder_statement([v for v in (before, bare) if v is not None])
            self._weakest[path] = dataclasses.replace(bare, privacy=weakest)
            self.n_downloads += 1
        statements = [kept.privacy for kept in self._weakest.values()]
        without = [s for s in statements if s.mu is None]
        if without:
            return without[0]
        return total_statement([s.mu for s in statements if s.mu is not None], secret=True)


class OpenPhotos:
    """Bounds memory: of more photos than `limit`, the one opened first is dropped.

    Holds visits weakly, so that none outlives its tab here.
    """

    def __init__(self, *, limit: int = 12) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._visits: list[weakref.ref[Visit]] = []

    def add(self, visit: Visit) -> None:
        """Count a visit that has just opened a photo."""
        with self._lock:
            alive = [v for v in (ref() for ref in self._visits) if v is not None]
            others = [v for v in alive if v is not visit and v.opened is not None]
            n_over = max(0, len(others) + 1 - self._limit)
            for oldest in others[:n_over]:
                oldest.forget_photo()
            self._visits = [weakref.ref(v) for v in (*others[n_over:], visit)]


def working_photo(photo: Photo) -> Photo:
    """Return the photo at no more than `WORKING_SIDE` pixels on its longer side.

    Everything, downloads included, is made from this one: the same face at two resolutions has
    two codes, and two codes under one noise would tell their difference.
    """
    longest = max(photo.pixels.shape[:2])
    if longest <= WORKING_SIDE:
        return photo
    small = photo_from_pixels(reduced(photo.pixels, WORKING_SIDE))
    note = f"reduced to {small.pixels.shape[1]} × {small.pixels.shape[0]} pixels"
    return Photo(small.pixels, (*photo.notes, note))


def without_pixels(variant: Variant) -> Variant:
    """Return the record without the picture: what is remembered longer than shown."""
    return dataclasses.replace(variant, image=np.empty((0, 0, 3), np.uint8))
