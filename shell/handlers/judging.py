"""Asks about blinded variants, shows where the dial stands after that, and erases answers.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from feedback import AnonymousRater
from shell.callers import Request, session_of, speaker_of
from shell.chart import dial_chart, dial_csv
from shell.desk import Clicks, RatingDesk
from shell.dial import Standing
from shell.dial_words import progress_line, set_line, use_label, why_lines
from shell.face_words import ONE_STRENGTH
from shell.handlers.groups import no_face, show_groups
from shell.languages import Speaker
from shell.pictures import PictureFolder, tile
from shell.saving import chart_files, save_links
from shell.updates import update
from shell.visit import Visit
from shell.wording import (
    KEEP,
    LETTERS,
    NONE,
    PUBLISH,
    QUESTION,
    REVEALED,
    erased_line,
    read_answer,
    reveal_line,
    saved_line,
    storage_line,
    tile_label,
    undone_line,
)


class JudgingHandlers:
    """What the controls of a page of blinded variants do, and what is kept of the answers.

    Args:
        desk: Asks and keeps.
        pictures: What the page serves pictures from.
        show: Returns the picture of a variant, and what holds for it, said by `say`.
        warn: Shows a warning under a title.
    """

    def __init__(
        self,
        desk: RatingDesk,
        *,
        pictures: PictureFolder,
        show: Callable[..., tuple[str, str]],
        warn: Callable[..., object],
    ) -> None:
        self._desk = desk
        self._pictures = pictures
        self._show = show
        self._warn = warn

    def load(self, request: Request, history: object) -> tuple[Any, ...]:
        """Greet a browser: say how answers are kept, and drop a record that cannot be opened."""
        say = speaker_of(request)
        if refusal := self._desk.refusal(history):
            self._warn(say.fault(refusal), title=say("Starting again"))
            history = ""
        return self._storage(say=say), history

    def ask(self, request: Request, history: object, visit: Visit | None) -> tuple[Any, ...]:
        """Start a page of blinded variants."""
        say = speaker_of(request)
        visit = visit or Visit()
        token, variants = self._desk.ask(visit, session=session_of(request), history=history)
        box = visit.photo().faces[0].box
        pictures = [self._pictures.preview(tile(v.image, box)) for v in variants]
        original = self._pictures.preview(tile(visit.photo().photo.pixels, box))
        heading, *shown = _asking(is_asked=True, say=say)
        return (
            f"{heading} {say(ONE_STRENGTH)}" if len(visit.photo().faces) > 1 else heading,
            *shown,
            *(
                update(value=picture, label=letter)
                for picture, letter in zip(pictures, LETTERS, strict=True)
            ),
            original,
            *show_groups(dial=False, page=True),
            update(visible=True),
            update(visible=bool(visit.answered)),
            token,
            None,
            *_second_question(None),
            visit,
        )

    def choose(self, best: str | None, visit: Visit | None) -> tuple[Any, ...]:
        """Ask the second question once a variant, or none, is chosen."""
        visit = visit or Visit()
        self._desk.note_choice(visit)
        return *_second_question(best), visit

    def answer(  # noqa: PLR0913, PLR0917 - one for each control
        self,
        request: Request,
        token: str,
        best: str | None,
        just_right: str | None,
        why_not: str | None,
        agreed: Sequence[str],
        history: object,
        rater: AnonymousRater | None,
        visit: Visit | None,
    ) -> tuple[Any, ...]:
        """Take the answer, reveal the strengths, and show where the dial stands now."""
        say = speaker_of(request)
        visit = _of(rater, visit)
        position, judged = read_answer(best, just_right, why_not)
        visit.photo()  # Before anything is stored: it may have been dropped.
        outcome = self._desk.answer(
            visit,
            Clicks(
                token=token or "",
                session=session_of(request),
                best=position,
                just_right=judged,
                has_consent=KEEP in agreed,
                may_publish=PUBLISH in agreed,
            ),
            history=history,
        )
        lines = (
            reveal_line(outcome.variants, position, say=say),
            saved_line(outcome.n_saved, outcome.recovery_code, say=say),
        )
        labels = [
            update(label=tile_label(i, variant, position, say=say))
            for i, variant in enumerate(outcome.variants)
        ]
        standing = self._desk.standing(visit, outcome.history)
        return (
            *labels,
            visit.rater,
            *_asking(is_asked=False, say=say),
            "\n\n".join(lines),
            *_standing(standing, say=say),
            "",
            outcome.history,
            self._storage(say=say),
            visit,
        )

    def undo(self, request: Request, history: object, visit: Visit | None) -> tuple[Any, ...]:
        """Take back the latest answered page, and show where the dial stands without it."""
        say = speaker_of(request)
        visit = visit or Visit()
        visit.photo()
        n_removed, left = self._desk.undo(visit, history=history)
        return (
            update(visible=False),
            *_asking(is_asked=False, say=say),
            undone_line(n_removed, say=say),
            *_standing(self._desk.standing(visit, left), say=say),
            "",
            left,
            self._storage(say=say),
            visit,
        )

    def use(self, request: Request, history: object, visit: Visit | None) -> tuple[Any, ...]:
        """Set the dial to the decision."""
        say = speaker_of(request)
        visit = visit or Visit()
        standing = self._desk.standing(visit, history)
        visit.question = None
        return (
            *show_groups(dial=True, page=False),
            set_line(standing, say=say),
            standing.strength,
            *self._show(visit.variant(standing.strength), say=say),
            0,
            *no_face(),
            "",
            visit,
        )

    def leave(self, visit: Visit | None) -> tuple[Any, ...]:
        """Go back to the dial as it was."""
        visit = visit or Visit()
        visit.question = None
        return *show_groups(dial=True, page=False), "", visit

    def erase(
        self,
        request: Request,
        code: str,
        history: object,
        rater: AnonymousRater | None,
        visit: Visit | None,
    ) -> tuple[Any, ...]:
        """Erase a rater's answers, here, in the browser, and in time in the remote."""
        say = speaker_of(request)
        visit = _of(rater, visit)
        receipt = self._desk.erase(visit, code=code or "", history=history)
        said, stored = erased_line(receipt, say=say), self._storage(say=say)
        return said, "", "", stored, "", "", "", visit.rater, visit

    def _storage(self, *, say: Speaker) -> str:
        return storage_line(self._desk.health(), say=say)


def _of(rater: AnonymousRater | None, visit: Visit | None) -> Visit:
    """Return the visit, or a new one, of who answered in this tab before the photo was dropped."""
    visit = visit or Visit()
    visit.rater = visit.rater or rater
    return visit


def _asking(*, is_asked: bool, say: Speaker) -> tuple[Any, Any, Any]:
    """Show the questions or the result, under their heading."""
    heading = say(QUESTION) if is_asked else say(REVEALED)
    return heading, update(visible=is_asked), update(visible=not is_asked)


def _second_question(best: str | None) -> tuple[Any, Any]:
    """Show what is asked after the first answer, and forget what was answered to it."""
    return (
        update(value=None, visible=best in tuple(LETTERS)),
        update(value=None, visible=best == NONE),
    )


def _standing(standing: Standing, *, say: Speaker) -> tuple[Any, ...]:
    """Show chart, progress, reasons, and the button that fits best first."""
    chart = dial_chart(standing, say=say)

    def label(kind: str) -> str:
        return say("Save as {kind}", kind=kind)

    more = say("Four more anyway") if standing.is_settled else say("Next four")
    main, other = ("secondary", "primary") if standing.is_settled else ("primary", "secondary")
    return (
        chart + save_links("dial", chart_files(chart, dial_csv(standing)), label=label),
        progress_line(standing, say=say),
        why_lines(standing, say=say),
        update(value=more, variant=main),
        update(value=use_label(standing, say=say), variant=other),
    )
