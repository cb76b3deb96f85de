"""The exceptions of `privacy_core`; every expected failure inherits `PrivacyDialError`.

PrivacyDialError
├── InvalidArgumentError   (also ValueError)         an argument breaks a rule
├── PhotoError             (also ValueError)         the photo cannot be read
├── NoFaceError            (also LookupError)        no face was detected
├── FaceFailedError        (also RuntimeError)       a detected face could not be anonymized
├── OutputError            (also OSError)            a result could not be written
└── ModelError             (also RuntimeError)       weights are missing, damaged or uncalibrated

Messages name the argument, the rule, the value and the way out, and are fit for a visitor.
"""

from __future__ import annotations


class PrivacyDialError(Exception):
    """Base of every expected failure in `privacy_core`."""


class InvalidArgumentError(PrivacyDialError, ValueError):
    """An argument breaks a rule, for example "`strength` must be in [0, 1], got 1.3."."""


class PhotoError(PrivacyDialError, ValueError):
    """The photo cannot be read: missing, damaged, too large, or not a supported picture."""


class NoFaceError(PrivacyDialError, LookupError):
    """No face was detected, so there is nothing to anonymize and nothing is written."""


class FaceFailedError(PrivacyDialError, RuntimeError):
    """A detected face could not be anonymized, so the whole photo is withheld.

    Attributes:
        index: Which face failed, counted from 1 in reading order of the detector's list.
        n_faces: How many faces were detected in the photo.
        reason: Why, in words for a visitor.
    """

    def __init__(self, index: int, n_faces: int, reason: str) -> None:
        self.index = index
        self.n_faces = n_faces
        self.reason = reason
        super().__init__(
            f"Face {index} of {n_faces} could not be anonymized: {reason} Nothing was written. "
            "Cut the photo down to the other faces, or cover this one with a solid patch "
            "(`--solid-on-failure`)."
        )

    def __reduce__(self) -> tuple[type[FaceFailedError], tuple[int, int, str]]:
        """Survive the way between processes."""
        return type(self), (self.index, self.n_faces, self.reason)


class OutputError(PrivacyDialError, OSError):
    """A result could not be written; no partial file remains."""


class ModelError(PrivacyDialError, RuntimeError):
    """Weights are missing, damaged or uncalibrated."""
