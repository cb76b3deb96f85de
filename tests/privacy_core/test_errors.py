"""Every expected failure is one sentence a visitor can act on."""

import inspect

import pytest

from privacy_core import errors
from privacy_core.errors import FaceFailedError, PrivacyDialError

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidArgumentError", ValueError),
        ("PhotoError", ValueError),
        ("NoFaceError", LookupError),
        ("FaceFailedError", RuntimeError),
        ("OutputError", OSError),
        ("ModelError", RuntimeError),
    ],
)
def test_a_caller_who_knows_only_builtins_catches_it_too(name, builtin):
    error = getattr(errors, name)
    assert issubclass(error, builtin)
    assert issubclass(error, PrivacyDialError)


def test_every_expected_failure_is_of_the_one_base():
    assert len(CLASSES) >= 7
    assert all(issubclass(error, PrivacyDialError) for error in CLASSES)


def test_a_failed_face_says_which_why_and_what_to_do():
    error = FaceFailedError(2, 3, "it is too small.")
    assert (error.index, error.n_faces, error.reason) == (2, 3, "it is too small.")
    message = str(error)
    assert message.startswith("Face 2 of 3 could not be anonymized: it is too small.")
    assert "Nothing was written" in message
    assert "--solid-on-failure" in message


def test_an_output_error_keeps_its_sentence_although_it_is_an_os_error():
    assert str(errors.OutputError("`out` must be writable.")) == "`out` must be writable."
