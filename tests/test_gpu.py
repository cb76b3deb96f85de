"""Borrowed GPUs: a ladder is one granted call, a turn of the dial is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.faces import HogDetector, photo_from_pixels
from privacy_core.noise import NoiseKey
from shell.gpu import SECONDS, GrantedBackend, find_grant
from tests.privacy_core.tiny import write_tiny_model


class FakeSpaces:
    """The interface of the package that Spaces have, which grants and counts."""

    def __init__(self):
        self.asked, self.calls = [], []

    def GPU(self, *, duration):  # noqa: N802 - its name there
        self.asked.append(duration)

        def decorate(function):
            def granted(requests):
                self.calls.append(len(requests))
                return function(requests)

            return granted

        return decorate


@pytest.fixture
def spaces():
    return FakeSpaces()


@pytest.fixture
def backend(tmp_path):
    return EmbeddedBackend.load(write_tiny_model(tmp_path))


def opened(backend, pixels, seed):
    anonymizer = Anonymizer(backend, HogDetector(smallest_face=80, threshold=0.5))
    return anonymizer.open(photo_from_pixels(pixels), key=NoiseKey.from_seed(seed))


def test_a_ladder_is_one_granted_call_and_the_dial_asks_for_none(spaces, backend, astronaut):
    grant = find_grant({"spaces": spaces}.__getitem__)
    photo = opened(GrantedBackend(backend, grant), astronaut, 1)
    assert spaces.asked == [SECONDS]
    photo.variant(0.6)
    assert spaces.calls == []
    photo.ladder()
    assert spaces.calls == [5]


def test_with_or_without_a_grant_the_same_pictures_come_out(spaces, backend, astronaut):
    granted = GrantedBackend(backend, find_grant(lambda _: spaces))
    for name in ("name", "revision", "zoom", "digital_source_type", "curve"):
        assert getattr(granted, name) == getattr(backend, name)
    ours, theirs = (opened(b, astronaut, 2).ladder() for b in (backend, granted))
    assert [v.image.tobytes() for v in ours] == [v.image.tobytes() for v in theirs]


def test_where_there_is_no_such_package_there_is_no_grant():
    def load(name):
        raise ModuleNotFoundError(name)

    assert find_grant(load) is None
    assert find_grant(lambda _: SimpleNamespace(GPU=lambda **_: lambda f: f)) is not None
