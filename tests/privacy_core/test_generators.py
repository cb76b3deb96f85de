"""Generators from whole keys: every word of their state, and numbers another program agrees on."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from privacy_core.backends import generators
from privacy_core.backends.generators import generator_of
from privacy_core.errors import ModelError
from privacy_core.noise import NoiseKey

KEY = NoiseKey(bytes(range(32)), secret=True)


def words_of(key, label):
    """Return the 624 words of the state, from the definition."""
    data = hashlib.shake_256(key.material + b"privacy-dial generator " + label.encode())
    return np.frombuffer(data.digest(4 * 624), "<u4")


def twister(words):
    """Return NumPy's generator in the state that follows when all words are used."""
    known = np.random.MT19937()
    known.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    return known


def raw(generator, n):
    """Return its next numbers less their highest bit."""
    return torch.empty(n, dtype=torch.int32).random_(generator=generator).numpy()


def normals(key, label="noise", n=8):
    return torch.randn(n, generator=generator_of(key, label))


def test_the_numbers_are_those_of_another_mersenne_twister_in_the_same_state():
    expected = twister(words_of(KEY, "noise")).random_raw(2000)
    assert (raw(generator_of(KEY, "noise"), 2000) == (expected & 0x7FFFFFFF)).all()


@pytest.mark.parametrize("byte", [0, 4, 7, 8, 31])
def test_every_byte_of_a_key_counts(byte):
    material = bytearray(KEY.material)
    material[byte] ^= 1
    other = NoiseKey(bytes(material), secret=True)
    assert not torch.isclose(normals(KEY), normals(other)).any()


def test_one_key_and_label_give_one_sequence_from_its_start_and_another_label_another():
    assert torch.equal(normals(KEY), normals(KEY))
    # An odd number of normals leaves one waiting, which must not reach the next generator.
    assert torch.equal(normals(KEY, n=3), normals(KEY)[:3])
    assert torch.equal(normals(KEY), normals(KEY))
    assert not torch.isclose(normals(KEY), normals(KEY, "identity")).any()
    used = generator_of(KEY, "noise")
    state = used.get_state()
    first = torch.randn(7, generator=used)
    used.set_state(state)
    assert torch.equal(torch.randn(7, generator=used), first)


def test_the_numbers_are_standard_normal():
    drawn = normals(KEY, n=200_000).double()
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)


def test_the_generator_of_everyone_is_not_touched():
    before = torch.get_rng_state()
    normals(KEY)
    assert torch.equal(before, torch.get_rng_state())


def test_a_torch_that_holds_its_state_otherwise_is_refused(monkeypatch):
    monkeypatch.setattr(generators, "_STATE_BYTES", 2560)
    with pytest.raises(ModelError, match=r"must have 2560 bytes, got 5056 in torch \d.*Install"):
        generator_of(KEY, "noise")
