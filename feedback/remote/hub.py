"""What the Hub refuses, in our words; knows requests and their failures, no files and no rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from feedback.columns import describe
from feedback.errors import (
    FeedbackError,
    ForeignShardError,
    InvalidRatingError,
    RemoteBusyError,
    RemoteError,
    RemoteRefusedError,
    StaleSnapshotError,
    UncertainCommitError,
)
from feedback.remote.base import seconds_left

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

    from feedback.remote.client import Call

CALL_SECONDS = 60.0
"""How long one call may take."""
MAX_FILE_BYTES = 1 << 28
"""Largest file that is read into memory."""
_BUCKET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_CONFLICTS = (409, 412)
_NO_RIGHTS = (401, 403)
_TOO_MANY = 429
_TIMED_OUT = 408
_SERVER_FAULT = 500
_MAYBE_LATER = (400, 422)


def checked_repo_id(argument: str, repo_id: str) -> str:
    """Return a repository's name if it has the form NAME/REPO and the Hub's client takes it.

    Args:
        argument: `dataset` or `bucket`.
        repo_id: The name.

    Raises:
        InvalidRatingError: It has not, or the client would not.
    """
    # The client leaves the names of buckets to the Hub.
    if argument == "bucket":
        is_name, rule = _BUCKET_ID.fullmatch(repo_id) is not None, ""
    else:
        is_name = _is_taken(repo_id)
        rule = ", at most 96, neither - nor . at an end, no -- or .., and no .git last"
    if not is_name:
        raise InvalidRatingError(
            f"`{argument}` must be NAME/REPO, letters, digits and ._- in each{rule}, got "
            f"{describe(repo_id)}. Name another."
        )
    return repo_id


def _is_taken(repo_id: str) -> bool:
    # Imported here: the Hub's client is not needed to rate.
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        validate_repo_id,
    )

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return repo_id.count("/") == 1


@contextlib.contextmanager
def asking(name: str, *, seconds: float = CALL_SECONDS) -> Iterator[Call]:
    """Bound the requests to the Hub in the block, and turn their failures into ours.

    Args:
        name: The remote's, for messages.
        seconds: For all requests of the block; `within` may allow less.

    Raises:
        RemoteError: Whatever went wrong between us and the Hub.
    """
    # Imported here: the Hub's client is not needed to rate.
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    from feedback.remote.client import RequestError, bounded  # noqa: PLC0415

    unreadable = (RequestError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
    with bounded(seconds_left(seconds)) as call:
        try:
            yield call
        # An answer of another form than the Hub's makes its client stumble anywhere.
        except (OSError, *unreadable) as error:
            cause = _cause(error)
            if call.in_doubt:
                raise UncertainCommitError(
                    f"{upper(name)} must confirm a change, got no clear answer. It may have been "
                    "made: look again before repeating it."
                ) from error
            if isinstance(cause, FeedbackError):
                raise _about(cause, name) from error
            if isinstance(cause, HfHubHTTPError):
                raise _translated(cause, name) from error
            raise RemoteBusyError(
                f"{upper(name)} must answer as the Hub does, got something else "
                f"({type(cause).__name__}). Nothing was changed; try later."
            ) from error


def missing(name: str) -> RemoteRefusedError:
    """Return the refusal of a repository that is not there, or not for us."""
    return RemoteRefusedError(
        f"{upper(name)} must exist and be open to this token, got neither. If it was renamed, "
        "name the right one; if it was deleted, make an empty private one of the same name, to "
        "which all ratings are sent again; if it is someone else's, choose one of your own. "
        "Ratings are kept on this machine."
    )


def renamed(name: str, now: str) -> RemoteRefusedError:
    """Return the refusal of a repository that answers under another name."""
    return RemoteRefusedError(
        f"{upper(name)} must still have that name, got it renamed to {now}. Name the new one if "
        "it is the right one; ratings are kept on this machine."
    )


def not_as_visible(name: str, promised: str) -> RemoteRefusedError:
    """Return the refusal of a repository that everybody, or nobody, could read."""
    got = "public" if promised == "private" else "private"
    return RemoteRefusedError(
        f"{upper(name)} must be {promised}, got it {got}. Nothing was sent; make it {promised} in "
        "its settings, or name another one."
    )


def too_large(path: str) -> ForeignShardError:
    """Return the refusal of a file that does not fit into memory."""
    return ForeignShardError(
        f"{path} must have at most {MAX_FILE_BYTES >> 20} MiB, got more. It was left as it is; "
        "move it out of the folder.",
        path=path,
    )


def no_rights(name: str) -> RemoteRefusedError:
    """Return the refusal of a token that may not do what is needed."""
    return RemoteRefusedError(
        f"The token must have the right to write to {name}, got none or one without it. Make a "
        "fine-grained token with write access to this repository, or name one of your own. "
        "Ratings are kept on this machine."
    )


def retry_after(error: HfHubHTTPError) -> float | None:
    """Return the seconds a busy server asks to wait, None if it names none."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        parse_ratelimit_headers,
    )

    limit = parse_ratelimit_headers(error.response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    seconds = error.response.headers.get("Retry-After", "").strip()
    return float(seconds) if seconds.isascii() and seconds.isdigit() else None


def _cause(error: Exception) -> BaseException:
    """Return what really went wrong: the client wraps a failed upload once."""
    is_wrapped = type(error) is RuntimeError and error.__cause__ is not None
    return error.__cause__ or error if is_wrapped else error


def _about(error: FeedbackError, name: str) -> FeedbackError:
    """Return an error of the client's with the remote's name, others as they are."""
    if type(error) is RemoteBusyError:
        return RemoteBusyError(
            str(error).replace("The Hub", upper(name), 1), retry_after=error.retry_after
        )
    return error


def _translated(error: HfHubHTTPError, name: str) -> RemoteError:
    """Return our error for an answer of the Hub's that surely changed nothing."""
    from huggingface_hub.errors import (  # noqa: PLC0415
        BucketNotFoundError,
        EntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if status in _NO_RIGHTS:
        return no_rights(name)
    if isinstance(error, RepositoryNotFoundError | BucketNotFoundError):
        return missing(name)
    if isinstance(error, RevisionNotFoundError | EntryNotFoundError) or status in _CONFLICTS:
        return StaleSnapshotError(
            f"{upper(name)} must be as it was looked at, got it changed. Nothing was changed; "
            "look again and repeat."
        )
    if status in (_TOO_MANY, _TIMED_OUT, *_MAYBE_LATER) or status >= _SERVER_FAULT:
        return RemoteBusyError(
            f"{upper(name)} must accept requests, got status {status}. Nothing was changed; "
            "try later.",
            retry_after=retry_after(error),
        )
    return RemoteRefusedError(
        f"{upper(name)} must accept what is asked, got status {status}. Ratings are kept on this "
        "machine; look at the repository's page on the Hub for the reason."
    )


def upper(text: str) -> str:
    """Return a text that begins a sentence."""
    return text[0].upper() + text[1:]
