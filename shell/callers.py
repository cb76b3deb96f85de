"""What a handler of the page is told of a call beside its values, as far as handlers look.

Protocols, so that handlers know no web page: `app.py` gives them what its framework has.
"""

from __future__ import annotations

from typing import Any, Protocol

from shell.languages import Speaker, language_of, speaker


class Request(Protocol):
    """Who calls: a browser, from one of its tabs."""

    @property
    def headers(self) -> Any:
        """Headers of the request, by their names in small letters."""

    @property
    def session_hash(self) -> str | None:
        """Names the tab, None where a program calls without one."""


class Picked(Protocol):
    """What was picked of several things that are shown."""

    @property
    def index(self) -> Any:
        """Its place, from 0; anything, as a browser sends it."""


class Progress(Protocol):
    """Shows how far a call is."""

    def __call__(self, progress: float, *, desc: str) -> Any:
        """Show a share in [0, 1] and what is being done."""


class Profile(Protocol):
    """An account that a visitor signed in with."""

    @property
    def username(self) -> str:
        """Its name on the Hub."""


class Token(Protocol):
    """The right that a visitor gave by signing in."""

    @property
    def token(self) -> str:
        """A secret of the visitor's."""


def speaker_of(request: Request) -> Speaker:
    """Return who speaks the language that a browser asks for."""
    return speaker(language_of(request.headers.get("accept-language")))


def session_of(request: Request) -> str:
    """Return the name of the tab that calls."""
    return request.session_hash or "no session"
