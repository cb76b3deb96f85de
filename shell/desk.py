"""Asks for answers, takes them, takes them back and erases them; knows no web page and no photo.

Joins both packages for `app.py`: variants come from a visit's open photo, rows go to the store,
and what was answered goes back to the browser as a sealed history.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from feedback import (
    Answer,
    Consent,
    InvalidRatingError,
    Keys,
    Page,
    Rating,
    RatingStore,
    Shown,
    TokenError,
    UsedPageError,
    issue_page,
    mint_rater,
    open_page,
    open_rater,
    rater_of,
    raters_of,
    recover_rater,
    rows_of_page,
    session_id,
)
from feedback.history import open_history, seal_history, short_id
from feedback.preference.judgement import Judgement, judgements_of
from feedback.preference.posterior import Posterior, Prior
from feedback.preference.selection import PageChoice, choose_page
from feedback.sync.erasure import Receipt
from feedback.sync.health import Health
from feedback.sync.loop import Sync
from privacy_core.schema import AttributePolicy, Variant
from shell.dial import SCALE_FLOOR, Standing, standing_of
from shell.visit import MOST_UNDONE, AnsweredPage, Question, Visit, without_pixels

VERSION = "0.1.0"
N_SHOWN = 4
PAGE_STRENGTHS = tuple(round(0.1 * i, 1) for i in range(1, 11))
PAGE_LIFE = timedelta(minutes=30)
CONSENT = Consent("2026-11-22", "aggregate")
"""What the page asks for; its text, in `wording.py`, changes only with the version."""
ROW_CONSENT = Consent(CONSENT.version, "publish_row")
"""What it asks for beyond that, by a tick of its own."""


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """An answer to a page as it arrives.

    Attributes:
        token: The page's token.
        session: The web session it comes from.
        best: Position of the chosen variant, None if none is good enough.
        just_right: 0 to 4, see `feedback.Answer`.
        has_consent: Whether the rows may be kept.
        may_publish: Whether they may also be published; means nothing without `has_consent`.
    """

    token: str = field(repr=False)
    session: str = field(repr=False)
    best: int | None
    just_right: int
    has_consent: bool
    may_publish: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of an answered page.

    Attributes:
        variants: As shown, in order, without their pixels.
        best: Position of the chosen one, None if none was good enough.
        n_saved: Rows kept; 0 without consent.
        recovery_code: The first time answers are kept, None otherwise.
        history: What the browser is to keep from now on.
    """

    variants: tuple[Variant, ...] = field(repr=False)
    best: int | None
    n_saved: int
    recovery_code: str | None = field(repr=False)
    history: str = field(repr=False)


class RatingDesk:
    """Issues pages, takes answers, undoes and erases them.

    Args:
        store: Where answers are kept.
        keys: Secrets of tokens, histories and pseudonyms.
        sync: Carries rows to the remote, which may be none.
        model: Revision of the model whose strengths are rated.
        floor: The model's privacy floor, from `dial.privacy_floor`.
        prior: What is believed of a visitor before their first answer; flat by default.
        clock: Gives the time in UTC.
        timer: Gives seconds for response times.
        generator: Draws strengths and their order.
    """

    def __init__(  # noqa: PLR0913 - collaborators, all but three with a default
        self,
        *,
        store: RatingStore,
        keys: Keys,
        sync: Sync,
        model: str = "",
        floor: float = SCALE_FLOOR,
        prior: Prior | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timer: Callable[[], float] = time.monotonic,
        generator: np.random.Generator | None = None,
    ) -> None:
        self.store = store
        self.floor = floor
        self._keys = keys
        self._sync = sync
        self._model = model
        self._prior = prior
        self._clock = clock
        self._timer = timer
        self._generator = generator or np.random.default_rng(secrets.randbits(128))

    def judgements(self, history: object) -> tuple[Judgement, ...]:
        """Return what a browser's history says; none where it cannot be opened."""
        try:
            return open_history(self._keys, history, model=self._model)
        except TokenError:
            return ()

    def refusal(self, history: object) -> str | None:
        """Return why a browser's history cannot be opened, None if it can."""
        try:
            open_history(self._keys, history, model=self._model)
        except TokenError as error:
            return str(error)
        return None

    def standing(self, visit: Visit, history: object) -> Standing:
        """Return where the dial stands for the visit's photo."""
        return self.recommend(self.judgements(history), photo_id=short_id(visit.photo_id))

    def recommend(self, judgements: Sequence[Judgement], *, photo_id: str) -> Standing:
        """Return where a dial stands by some answers, whoever gave them; remembers nothing."""
        return standing_of(
            judgements,
            Posterior.replay(judgements, prior=self._prior),
            photo_id=photo_id,
            floor=self.floor,
            model=self._model,
        )

    def ask(
        self, visit: Visit, *, session: str, history: object
    ) -> tuple[str, tuple[Variant, ...]]:
        """Put a new page into the visit and return its token and its variants, in order."""
        choice = self._choose(visit, self.judgements(history))
        opened = visit.photo()
        variants = tuple(opened.ladder(list(choice.strengths)))
        page = Page(
            session_id=session_id(self._keys, session),
            photo_id=visit.photo_id,
            method=variants[0].model_id,
            model_revision=variants[0].model_revision,
            shown=tuple(
                Shown(
                    variant.strength,
                    variant.privacy.epsilon,
                    is_catch=position == choice.catch,
                    is_repeat=position == choice.repeat,
                )
                for position, variant in enumerate(variants)
            ),
            source=visit.source,
            app_version=VERSION,
            expires_at=self._clock() + PAGE_LIFE,
            policy=choice.policy,
            propensity=choice.propensity,
            attributes=attributes_of(opened.policy),
        )
        visit.question = Question(page, tuple(map(without_pixels, variants)), self._timer())
        return issue_page(self._keys, page), variants

    def note_choice(self, visit: Visit) -> None:
        """Stop the clock of the first question, once."""
        question = visit.question
        if question is not None and question.chosen_at is None:
            visit.question = dataclasses.replace(question, chosen_at=self._timer())

    def answer(self, visit: Visit, clicks: Clicks, *, history: object) -> Outcome:
        """Take the answer to the visit's page; keep its rows only with consent.

        Raises:
            TokenError: The token is forged, foreign, expired, or its page was answered before.
            InvalidRatingError: The answer names what was not shown.
            StoreError: It could not be kept; the page can be answered again.
        """
        now = self._clock()
        page = open_page(self._keys, clicks.token, session=clicks.session, now=now)
        question = visit.question
        if question is None or question.page.page_id != page.page_id:
            raise UsedPageError(
                "A page must be answered once and before the next one, got another answer. "
                "Nothing was stored; start a new page."
            )
        rater, is_new = visit.rater or mint_rater(self._keys), visit.rater is None
        pseudonym = rater_of(self._keys, open_rater(self._keys, rater.token))
        rows = rows_of_page(
            page,
            self._timed(question, clicks, now),
            rater=pseudonym,
            consent=ROW_CONSENT if clicks.may_publish else CONSENT,
            key=self._keys.derive("rating"),
        )
        kept = rows if clicks.has_consent else ()
        self.store.add_page(page, kept)
        visit.question = None
        if kept:
            visit.rater = rater
            self._carry_soon()
        sealed = self._remember(visit, history, rows, kept)
        code = rater.recovery_code if kept and is_new else None
        return Outcome(question.variants, clicks.best, len(kept), code, sealed)

    def undo(self, visit: Visit, *, history: object) -> tuple[int, str]:
        """Take back the latest answered page of the visit: its rows, and its part of the history.

        Returns:
            How many rows were removed, and what the browser is to keep from now on.

        Raises:
            InvalidRatingError: There is no answered page left.
            StoreError: The store could not be written; nothing was taken back.
        """
        try:
            last = visit.answered.pop()  # At once, so that two clicks do not take two pages.
        except IndexError as error:
            raise InvalidRatingError(
                "There must be an answered page of this visit to take back, got none. "
                "Older answers can be deleted below."
            ) from error
        try:
            n_removed = self._undo_rows(last)
        except Exception:
            visit.answered.append(last)
            raise
        visit.question = None
        left = _without(self.judgements(history), last.judgements)
        return n_removed, seal_history(self._keys, left, model=self._model)

    def erase(self, visit: Visit, *, code: str, history: object) -> Receipt | None:
        """Erase the stored answers that belong to a code, or without one to this visit.

        Returns:
            The receipt; None if this visit knows of nothing stored, and only the browser has
                answers.

        Raises:
            ForgedTokenError: The code is mistyped or not ours.
            InvalidRatingError: No code, nothing known to be stored, nothing in the browser.
            StoreError: The store could not be written.
        """
        rater = recover_rater(self._keys, code) if code.strip() else visit.rater
        if rater is None:
            if not history:
                raise InvalidRatingError(
                    "`code` must be given, got none, and this page knows of no answer that was "
                    "saved. Enter the code that was shown when your answers were saved."
                )
            visit.answered.clear()
            return None
        sub = open_rater(self._keys, rater.token)
        receipt = self._sync.erase_locally([r.rater_id for r in raters_of(self._keys, sub)])
        if visit.rater is not None and visit.rater.token == rater.token:
            visit.rater = None
        visit.answered.clear()
        return receipt

    def health(self) -> Health:
        """Return how the store and its copy are."""
        return self._sync.health()

    def _choose(self, visit: Visit, judgements: Sequence[Judgement]) -> PageChoice:
        photo_id = short_id(visit.photo_id)
        seen = [s for j in judgements if j.photo_id == photo_id for s in j.strengths]
        return choose_page(
            Posterior.replay(judgements, prior=self._prior),
            rungs=PAGE_STRENGTHS,
            n_shown=N_SHOWN,
            floor=self.floor,
            generator=self._generator,
            photo_id=photo_id,
            history=seen,
        )

    def _timed(self, question: Question, clicks: Clicks, now: datetime) -> Answer:
        end = self._timer()
        chosen_at = end if question.chosen_at is None else question.chosen_at
        return Answer(
            best=clicks.best,
            just_right=clicks.just_right,
            best_ms=_milliseconds(chosen_at - question.asked_at),
            just_right_ms=_milliseconds(end - chosen_at),
            client="web",
            answered_at=now,
        )

    def _remember(
        self, visit: Visit, history: object, rows: Sequence[Rating], kept: Sequence[Rating]
    ) -> str:
        """Add an answered page to what can be undone, and return the browser's new history."""
        new = judgements_of(rows)
        sealed = seal_history(self._keys, (*self.judgements(history), *new), model=self._model)
        as_kept = self.judgements(sealed)[-len(new) :]
        rating_ids = tuple(row.rating_id for row in kept)
        visit.answered.append(AnsweredPage(as_kept, rating_ids, rows[0].rater_id))
        del visit.answered[:-MOST_UNDONE]
        return sealed

    def _undo_rows(self, page: AnsweredPage) -> int:
        if not page.rating_ids:
            return 0
        n_removed = self.store.undo(page.rating_ids, rater_id=page.rater_id)
        self._carry_soon()
        return n_removed

    def _carry_soon(self) -> None:
        """Wake the copying, unless it waits after a failure: every answer would be a retry."""
        if self._sync.health().last_error is None:
            self._sync.wake()


def attributes_of(policy: AttributePolicy) -> str:
    """Return a policy in the spelling of the rating row's `attributes`."""
    sections = {
        "keep": sorted(policy.keep),
        "hide": sorted(policy.hide),
        "set": sorted(f"{k}:{v.replace(' ', '_')}" for k, v in policy.set.items()),
    }
    parts = [f"{name}={','.join(items)}" for name, items in sections.items() if items]
    return ";".join(parts) or "none"


def _without(judgements: tuple[Judgement, ...], part: tuple[Judgement, ...]) -> list[Judgement]:
    """Return judgements without the last place where `part` stands in them."""
    for start in range(len(judgements) - len(part), -1, -1):
        if judgements[start : start + len(part)] == part:
            return [*judgements[:start], *judgements[start + len(part) :]]
    return list(judgements)


def _milliseconds(seconds: float) -> int:
    return min(round(1000 * seconds), 86_400_000)
