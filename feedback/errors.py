"""The exceptions of `feedback`; every expected failure inherits `FeedbackError`.

FeedbackError
├── InvalidRatingError     (also ValueError)        a row, an answer or an argument breaks a rule
├── InvalidKeyError        (also ValueError)        a key is malformed, or its file is unsafe
├── TokenError             (also PermissionError)   a token does not give the right it is used for
│   ├── ForgedTokenError   (also PermissionError)   altered, cut off, or not made with these keys
│   ├── ExpiredTokenError  (also PermissionError)   its time is over
│   ├── ForeignTokenError  (also PermissionError)   made for another web session
│   ├── UsedPageError      (also PermissionError)   the page was answered before
│   └── ErasedRaterError   (also PermissionError)   the rater was erased after answering
├── StoreError             (also OSError)           the store cannot be opened, read or written
│   ├── CorruptStoreError  (also OSError)           the file is damaged or is no store
│   └── BusyStoreError     (also TimeoutError)      another process holds the store
└── ExportError            (also OSError)           an export could not be written

Messages name the argument, the rule, the value and the way out, and are fit for a visitor. They
never repeat a token, a key or a text of unknown content.
"""

from __future__ import annotations

_MOST_SHOWN = 5


class FeedbackError(Exception):
    """Base of every expected failure in `feedback`."""


class InvalidRatingError(FeedbackError, ValueError):
    """A row, an answer or an argument breaks a rule, and nothing was stored.

    Attributes:
        problems: Every broken rule, one sentence each.
    """

    problems: tuple[str, ...]

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        shown = problems[:_MOST_SHOWN]
        more = len(problems) - len(shown)
        super().__init__(" ".join([*shown, f"And {more} more problems."] if more else shown))


class InvalidKeyError(FeedbackError, ValueError):
    """A key is malformed, or the file it is kept in can be read by others."""


class TokenError(FeedbackError, PermissionError):
    """A token does not give the right it is used for."""


class ForgedTokenError(TokenError):
    """The token was altered, cut off, or not made with these keys."""


class ExpiredTokenError(TokenError):
    """The token was good once; its time is over."""


class ForeignTokenError(TokenError):
    """The token was made for another web session."""


class UsedPageError(TokenError):
    """The page was answered before; a page counts once."""


class ErasedRaterError(TokenError):
    """The rater was erased after giving these answers, so they are not kept."""


class StoreError(FeedbackError, OSError):
    """The store cannot be opened, read or written."""


class CorruptStoreError(StoreError):
    """The file is damaged or is no store of ours; it was not changed."""


class BusyStoreError(StoreError, TimeoutError):
    """Another process holds the store for longer than we wait."""


class ExportError(FeedbackError, OSError):
    """An export could not be written; no partial file remains."""
