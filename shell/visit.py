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
from privacy_core.errors import InvalidArgumentError, PhotoError
from privacy_core.faces import photo_from_pixels
from privacy_core.noise import NoiseKey
from privacy_core.privacy import measured_only, total_statement
from privacy_core.report import weakest_statement
from privacy_core.schema import AttributePolicy, Photo, PrivacyStatement, Variant, check_strength
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
        strengths: Index of a face of the photo → its own strength; the others follow the dial.
        left: Indices of faces that are left as they are, by permission.
    """

    opened: OpenPhoto | None = field(default=None, repr=False)
    photo_id: str = ""
    source: Source = "own_photo"
    question: Question | None = field(default=None, repr=False)
    rater: AnonymousRater | None = field(default=None, repr=False)
    answered: list[AnsweredPage] = field(default_factory=list, repr=False)
    n_downloads: int = 0
    strengths: dict[int, float] = field(default_factory=dict, repr=False)
    left: frozenset[int] = frozenset()
    _weakest: dict[str, dict[int, PrivacyStatement]] = field(default_factory=dict, repr=False)
    _shown: set[tuple[str, int]] = field(default_factory=set, repr=False)

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

    def variant(self, strength: float) -> Variant:
        """Return the photo's variant at a strength, each face as it was chosen."""
        return self.photo().variant(strength, strengths=self.strengths, left=self.left)

    def turn_face(self, number: int, strength: float | None) -> None:
        """Give a face, from 1, a strength of its own, or let it follow the dial again.

        Raises:
            PrivacyDialError: There is no such face, or the strength is not in [0, 1].
        """
        index, own = self.index(number), dict(self.strengths)
        own.pop(index, None)
        if strength is not None:
            own[index] = check_strength(strength)
        self.strengths = own

    def leave_face(self, number: int, *, has_permission: bool) -> None:
        """Leave a person as they are from now on, which only they can allow.

        Raises:
            PrivacyDialError: There is no such face, no permission, no other face to anonymize, or
                a smaller face inside it.
        """
        index = self.index(number)
        if has_permission is not True:
            raise InvalidArgumentError(
                "`permission` must be given before a person is left as they are, got none. "
                "Confirm that you have it, or let their face be anonymized."
            )
        left = self.left | {index}
        if len(left) == len(self.photo().faces):
            raise InvalidArgumentError(
                "At least one face must be anonymized, got none. Let another one be anonymized "
                "first, or use your own photo as it is."
            )
        self.photo().check_left(left)  # before it is kept, or no variant could be made any more
        self.left = left

    def anonymize_face(self, number: int) -> None:
        """Anonymize a person again who was left as they are."""
        self.left -= {self.index(number)}

    def index(self, number: int) -> int:
        """Return the index of a face by its number, from 1.

        Raises:
            PrivacyDialError: There is no such face.
        """
        n_faces = len(self.photo().faces)
        if isinstance(number, bool) or number not in range(1, n_faces + 1):
            raise InvalidArgumentError(
                f"`face` must be one of the {n_faces} that were found, got another. Choose one."
            )
        return int(number) - 1

    def set_policy(self, policy: AttributePolicy) -> None:
        """Treat attributes differently from now on; the backend draws other noise for it."""
        self.opened = dataclasses.replace(self.photo(), policy=policy)
        self.question = None

    def forget_photo(self) -> None:
        """Drop every pixel of the photo and its variants; counts of downloads stay."""
        self.opened, self.question = None, None
        self.strengths, self.left = {}, frozenset()

    @property
    def n_left(self) -> int:
        """Return how many faces were left as they are in any download."""
        return len(self._shown)

    def release(self, variant: Variant) -> PrivacyStatement:
        """Count a downloaded variant and return what all downloads guarantee together.

        Variants of one face and policy lie on one noise path and cost what the weakest costs;
        other policies and other photos have noise of their own, and add up. A face that was ever
        left as it is has no part in that: for it nothing holds.
        """
        path = json.dumps([self.photo_id, variant.policy.as_json()], sort_keys=True)
        with _ACCOUNTING:
            weakest = self._weakest.setdefault(path, {})
            for number, face in enumerate(variant.faces, 1):
                if face.treatment == "left":
                    self._shown.add((self.photo_id, number))
                else:
                    known = [weakest[number]] if number in weakest else []
                    weakest[number] = weakest_statement([*known, face.privacy])
            self.n_downloads += 1
            statements = self._statements()
        if not statements:
            return measured_only("every face was left as it is in one of them")
        without = [s for s in statements if s.mu is None]
        if without:
            return without[0]
        return total_statement([s.mu for s in statements if s.mu is not None], secret=True)

    def _statements(self) -> list[PrivacyStatement]:
        """Return what holds for the weakest face of each photo and policy.

        Somebody is in a photo once, and may be any of its faces that were always anonymized.
        """
        found = []
        for path, faces in self._weakest.items():
            photo_id = json.loads(path)[0]
            hidden = [s for n, s in faces.items() if (photo_id, n) not in self._shown]
            if hidden:
                found.append(weakest_statement(hidden))
        return found


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
