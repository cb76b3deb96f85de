"""Treats single faces of a photo differently, and says what an observer infers of one.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from privacy_core.errors import InvalidArgumentError
from shell.callers import Request, speaker_of
from shell.face_words import again_label, face_line, leave_label, own_strength_label
from shell.handlers.groups import no_face
from shell.languages import Speaker
from shell.observer import Observer, observed_html
from shell.updates import update
from shell.visit import Visit


class FaceHandlers:
    """What the controls of single faces do, in a photo of several.

    A face is named by its number, from 1, and 0 stands for all of them. The dial of one face
    comes with the number it was shown for, so that a click on another one cannot move it.

    Args:
        show: Returns the picture of a variant, and what holds for it, said by `say`.
        observer: Says what can be inferred of a face; None where there is none.
    """

    def __init__(self, show: Callable[..., tuple[str, str]], *, observer: Observer | None) -> None:
        self._show = show
        self._observer = observer

    def choose_face(
        self, request: Request, chosen: int | None, strength: float, visit: Visit | None
    ) -> Any:
        """Show the dial of all faces or of one."""
        say = speaker_of(request)
        visit = visit or Visit()
        return *self._controls(visit, chosen or 0, strength, say=say), visit

    def turn_face(
        self, request: Request, own: float, number: int, strength: float, visit: Visit | None
    ) -> Any:
        """Give a face a strength of its own."""
        say = speaker_of(request)
        visit = visit or Visit()
        visit.turn_face(number, own)
        said = face_line(number, has_own=True, is_left=number - 1 in visit.left, say=say)
        return *self._show(visit.variant(strength), say=say), update(visible=True), said, visit

    def follow_dial(
        self, request: Request, number: int, strength: float, visit: Visit | None
    ) -> Any:
        """Let a face follow the dial of all faces again."""
        say = speaker_of(request)
        visit = visit or Visit()
        visit.turn_face(number, None)
        return self._changed(visit, number, strength, say=say)

    def permit(self, permission: bool) -> Any:
        """Offer to leave a face only once the permission is confirmed."""
        return update(interactive=permission is True)

    def leave_face(
        self,
        request: Request,
        permission: bool,
        number: int,
        strength: float,
        visit: Visit | None,
    ) -> Any:
        """Leave a person as they are who allowed it."""
        say = speaker_of(request)
        visit = visit or Visit()
        visit.leave_face(number, has_permission=permission)
        return self._changed(visit, number, strength, say=say)

    def anonymize_face(
        self, request: Request, number: int, strength: float, visit: Visit | None
    ) -> Any:
        """Anonymize a person again."""
        say = speaker_of(request)
        visit = visit or Visit()
        visit.anonymize_face(number)
        return self._changed(visit, number, strength, say=say)

    def observe(self, request: Request, number: int, strength: float, visit: Visit | None) -> str:
        """Show what an observer infers of the chosen face, of the largest where none is."""
        say = speaker_of(request)
        if self._observer is None:
            raise InvalidArgumentError("The app must have a classifier to ask, got none.")
        visit = visit or Visit()
        variant, face = visit.variant(strength), number or 1
        visit.index(face)
        readings = self._observer.look(visit.photo(), variant, face)
        return observed_html(readings, variant, face, say=say)

    def _changed(
        self, visit: Visit, number: int, strength: float, *, say: Speaker
    ) -> tuple[Any, ...]:
        controls = self._controls(visit, number, strength, say=say)
        return *controls, *self._show(visit.variant(strength), say=say), visit

    def _controls(
        self, visit: Visit, number: int, strength: float, *, say: Speaker
    ) -> tuple[Any, ...]:
        """Show what can be done with a face, in the order of `_Faces.shown`."""
        if not number:
            return no_face()
        own = visit.strengths.get(visit.index(number))
        is_left = number - 1 in visit.left
        return (
            update(visible=False),
            update(visible=True),
            update(
                value=strength if own is None else own,
                label=own_strength_label(number, say=say),
                visible=not is_left,
            ),
            update(visible=own is not None and not is_left),
            update(value=False, visible=not is_left),
            update(value=leave_label(number, say=say), visible=not is_left, interactive=False),
            update(value=again_label(number, say=say), visible=is_left),
            face_line(number, has_own=own is not None, is_left=is_left, say=say),
            number,
        )
