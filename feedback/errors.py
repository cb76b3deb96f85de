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
├── ReleaseError           (also ValueError)        a population release cannot be made or read
├── ExportError            (also OSError)           an export could not be written
└── RemoteError            (also OSError)           a remote cannot be used; rows stay in the store
    ├── RemoteRefusedError (also PermissionError)   it said no, or is not what was promised
    ├── RemoteBusyError    (also TimeoutError)      it did not take the change now; try again later
    ├── UncertainCommitError (also TimeoutError)    it may have taken the change: look again
    ├── StaleSnapshotError (also BlockingIOError)   it changed since it was looked at: look again
    └── ForeignShardError  (also ValueError)        a file there is damaged or is no shard of ours

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


class ReleaseError(FeedbackError, ValueError):
    """A population release cannot be made, or the account of the ε it costs cannot be read."""


class RemoteError(FeedbackError, OSError):
    """A remote cannot be used; every row stays in the store."""


class RemoteRefusedError(RemoteError, PermissionError):
    """The remote refused for a reason that waiting does not cure.

    No token or no rights, a repository that is missing, renamed, someone else's, or public where
    private was promised.
    """


class RemoteBusyError(RemoteError, TimeoutError):
    """The remote surely did not take the change now; it may later.

    Attributes:
        retry_after: Seconds the remote asked to wait, None if it named none.
    """

    retry_after: float | None

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class UncertainCommitError(RemoteError, TimeoutError):
    """The connection broke while the remote was changing; it may or may not have changed."""


class StaleSnapshotError(RemoteError, BlockingIOError):
    """The remote has changed since the snapshot the change was made for; nothing was written."""


class ForeignShardError(RemoteError, ValueError):
    """A file in the remote is damaged or was not written by this program; it was left as it is.

    Attributes:
        path: The file, in the remote.
    """

    path: str

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(message)
