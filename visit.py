"""One visitor between two clicks: their photo, what they downloaded, the page they judge.

Joins `privacy_core` and `feedback` for `app.py`; knows no web page, no file and no environment.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
from PIL import Image

from feedback import (
    AnonymousRater,
    Answer,
    Consent,
    InvalidRatingError,
    Keys,
    Page,
    RatingStore,
    Shown,
    UsedPageError,
    issue_page,
    mint_rater,
    new_id,
    open_page,
    open_rater,
    rater_of,
    raters_of,
    recover_rater,
    rows_of_page,
    session_id,
)
from feedback.columns import Source
from privacy_core.anonymize import Anonymizer, OpenPhoto
from privacy_core.errors import PhotoError
from privacy_core.faces import photo_from_pixels
from privacy_core.noise import NoiseKey
from privacy_core.privacy import total_statement
from privacy_core.report import ladder_statement
from privacy_core.schema import RGB, AttributePolicy, Photo, PrivacyStatement, Variant

VERSION = "0.1.0"
WORKING_SIDE = 2048
"""Photos are reduced to this many pixels on the longer side, once, before anything reads them."""
DEFAULT_STRENGTH = 0.8
N_SHOWN = 4
PAGE_STRENGTHS = tuple(round(0.1 * i, 1) for i in range(2, 11))
PAGE_LIFE = timedelta(minutes=30)
CONSENT = Consent("2026-11", "aggregate")
"""What the page asks for; its text stands in `wording.py` and changes only with the version."""
_SETS = tuple(c for c in combinations(PAGE_STRENGTHS, N_SHOWN) if max(c) >= DEFAULT_STRENGTH)
_ACCOUNTING = threading.Lock()
"""Two downloads at once must not overlook each other."""
_CLOSE_UP = 2.2
_TILE = 480
_POLICY = "uniform_sets_of_4"


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


@dataclass(eq=False)
class Visit:
    """What is remembered of a visitor while their tab is open, in memory only.

    Attributes:
        opened: The photo, None before the first and after it was dropped.
        photo_id: Random name of the photo in rating rows.
        source: Whose photo it is.
        question: The page that waits for an answer.
        rater: Who answers, once they let answers be kept.
        n_downloads: Pictures downloaded, of all photos.
    """

    opened: OpenPhoto | None = field(default=None, repr=False)
    photo_id: str = ""
    source: Source = "own_photo"
    question: Question | None = field(default=None, repr=False)
    rater: AnonymousRater | None = field(default=None, repr=False)
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
        bare = _bare(variant)
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


@dataclass(frozen=True)
class Outcome:
    """What became of an answered page.

    Attributes:
        variants: As shown, in order, without their pixels.
        best: Position of the chosen one.
        n_saved: Rows kept; 0 without consent.
        recovery_code: The first time answers are kept, None otherwise.
    """

    variants: tuple[Variant, ...] = field(repr=False)
    best: int
    n_saved: int
    recovery_code: str | None = field(repr=False)


class RatingDesk:
    """Issues pages, takes answers, erases them.

    Args:
        store: Where answers are kept.
        keys: Secrets of tokens and pseudonyms.
        clock: Gives the time in UTC.
        timer: Gives seconds for response times.
        chooser: Draws strengths and their order.
    """

    def __init__(
        self,
        *,
        store: RatingStore,
        keys: Keys,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timer: Callable[[], float] = time.monotonic,
        chooser: secrets.SystemRandom | None = None,
    ) -> None:
        self.store = store
        self._keys = keys
        self._clock = clock
        self._timer = timer
        self._chooser = chooser or secrets.SystemRandom()

    def ask(self, visit: Visit, *, session: str) -> tuple[str, tuple[Variant, ...]]:
        """Put a new page into the visit and return its token and its variants, in order."""
        strengths = list(self._chooser.choice(_SETS))
        self._chooser.shuffle(strengths)
        variants = tuple(visit.photo().ladder(strengths))
        page = Page(
            session_id=session_id(self._keys, session),
            photo_id=visit.photo_id,
            method=variants[0].model_id,
            model_revision=variants[0].model_revision,
            shown=tuple(Shown(v.strength, v.privacy.epsilon) for v in variants),
            source=visit.source,
            app_version=VERSION,
            expires_at=self._clock() + PAGE_LIFE,
            policy=_POLICY,
            propensity=1 / len(_SETS),
        )
        visit.question = Question(page, tuple(map(_bare, variants)), self._timer())
        return issue_page(self._keys, page), variants

    def note_choice(self, visit: Visit) -> None:
        """Stop the clock of the first question, once."""
        question = visit.question
        if question is not None and question.chosen_at is None:
            visit.question = dataclasses.replace(question, chosen_at=self._timer())

    def answer(
        self,
        visit: Visit,
        *,
        token: str,
        session: str,
        best: int,
        just_right: int,
        has_consent: bool,
    ) -> Outcome:
        """Take the answer to the visit's page; keep it only with consent.

        Raises:
            TokenError: The token is forged, foreign, expired, or its page was answered before.
            InvalidRatingError: The answer names what was not shown.
            StoreError: It could not be kept; the page can be answered again.
        """
        now = self._clock()
        page = open_page(self._keys, token, session=session, now=now)
        question = visit.question
        if question is None or question.page.page_id != page.page_id:
            raise UsedPageError(
                "A page must be answered once and before the next one, got another answer. "
                "Nothing was stored; start a new page."
            )
        end = self._timer()
        chosen_at = end if question.chosen_at is None else question.chosen_at
        rater, is_new = visit.rater or mint_rater(self._keys), visit.rater is None
        rows = rows_of_page(
            page,
            Answer(
                best=best,
                just_right=just_right,
                best_ms=_milliseconds(chosen_at - question.asked_at),
                just_right_ms=_milliseconds(end - chosen_at),
                client="web",
                answered_at=now,
            ),
            rater=rater_of(self._keys, open_rater(self._keys, rater.token)),
            consent=CONSENT if has_consent else None,
            key=self._keys.derive("rating"),
        )
        self.store.add_page(page, rows)
        visit.question = None
        if rows:
            visit.rater = rater
        code = rater.recovery_code if rows and is_new else None
        return Outcome(question.variants, best, len(rows), code)

    def erase(self, visit: Visit, *, code: str = "") -> int:
        """Erase the answers that belong to a code, or without one to this visit.

        Returns:
            How many rows were erased.

        Raises:
            ForgedTokenError: The code is mistyped or not ours.
            InvalidRatingError: Neither a code nor answers in this visit.
            StoreError: The store could not be written.
        """
        rater = recover_rater(self._keys, code) if code.strip() else visit.rater
        if rater is None:
            raise InvalidRatingError(
                "`code` must be given, got none, and no answer was saved in this visit. "
                "Enter the code that was shown when your answers were saved."
            )
        sub = open_rater(self._keys, rater.token)
        n_erased = sum(self.store.erase_rater(r.rater_id) for r in raters_of(self._keys, sub))
        if visit.rater is not None and visit.rater.token == rater.token:
            visit.rater = None
        return n_erased


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


def reduced(pixels: RGB, longest_side: int) -> RGB:
    """Return the picture with its longer side at most that long."""
    height, width = pixels.shape[:2]
    zoom = longest_side / max(height, width)
    if zoom >= 1:
        return pixels
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def tile(pixels: RGB, box: Sequence[float]) -> RGB:
    """Return the square around a face, (480, 480, 3), moved inward at the photo's borders."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    side = min(height, width, math.ceil(_CLOSE_UP * max(right - left, bottom - top)))
    x = int(np.clip(round((left + right - side) / 2), 0, width - side))
    y = int(np.clip(round((top + bottom - side) / 2), 0, height - side))
    square = Image.fromarray(np.ascontiguousarray(pixels[y : y + side, x : x + side]))
    return np.asarray(square.resize((_TILE, _TILE), Image.Resampling.BICUBIC))


def _bare(variant: Variant) -> Variant:
    """Return the record without the picture: what is remembered longer than shown."""
    return dataclasses.replace(variant, image=np.empty((0, 0, 3), np.uint8))


def _milliseconds(seconds: float) -> int:
    return min(round(1000 * seconds), 86_400_000)
