"""What is said of a handler's failure: the sentence of an expected one, nothing of any other.

Knows no web page; what a bug says may hold what was uploaded, so it reaches neither page nor log.
"""

from __future__ import annotations

import sys

from feedback import FeedbackError
from feedback.errors import StoreError
from privacy_core.errors import FaceFailedError, PrivacyDialError
from shell.languages import Speaker
from shell.routes import CRASHED


def sentence_of(error: Exception, *, say: Speaker, name: str) -> str:
    """Return what is shown of a failure, and name it to the log where that helps its operator.

    Args:
        error: What was raised.
        say: Says it.
        name: Of the handler that raised it.
    """
    if isinstance(error, FaceFailedError):
        return say(
            "Face {index} of {n_faces} could not be anonymized: {reason} Nothing was made. Cut the "
            "photo down to the other faces, or choose another.",
            index=error.index,
            n_faces=error.n_faces,
            reason=say.retell(error.reason),
        )
    if isinstance(error, StoreError):
        sys.stderr.write(f"The store of ratings: {type(error).__name__}\n")
        return say("Answers cannot be reached right now. Please try again later.")
    if isinstance(error, PrivacyDialError | FeedbackError):
        return say.fault(str(error))
    sys.stderr.write(f"{name} failed: {type(error).__name__}\n")
    return say(CRASHED)
