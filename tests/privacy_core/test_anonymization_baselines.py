"""k-Same and latent Laplace: groups of at least k, noise of the scale that was asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy_core.audit.anonymization.baselines import (
    KSameBackend,
    LatentLaplaceBackend,
    k_of,
    k_same_groups,
    scale_of,
)
from privacy_core.backends.base import FaceRequest
from privacy_core.noise import NoiseKey
from privacy_core.schema import AttributePolicy
from tests.privacy_core.tiny import face_pixels, tiny_code

N = 9


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def request(code, seed, *, strength=0.0, key=0):
    pixels = face_pixels(code, seed)
    quad = np.zeros((4, 2))
    return FaceRequest(pixels, pixels, quad, strength, NoiseKey.from_seed(key), AttributePolicy())


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40)
def test_every_group_has_at_least_k_faces_unless_there_are_fewer(n, k, seed):
    groups = k_same_groups(np.random.default_rng(seed).normal(size=(n, 3)), k)
    counts = np.bincount(groups)
    assert counts.sum() == n
    assert counts.min() >= min(k, n)
    assert counts.max() < 2 * k or n < 2 * k


def test_groups_are_of_near_faces():
    scores = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    groups = k_same_groups(scores, 2)
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3


def test_strength_goes_from_pairs_to_a_hundred_and_noise_grows_with_it():
    assert (k_of(0), k_of(1)) == (2, 100)
    assert scale_of(1) == pytest.approx(40 * scale_of(0))


def k_same(code, seeds, sets=None):
    pixels = torch.from_numpy(np.stack([face_pixels(code, seed) for seed in seeds]))
    codes = code.encode(pixels).double().numpy()
    return KSameBackend(code, codes, np.zeros(len(seeds), int) if sets is None else sets), codes


def test_a_face_becomes_the_mean_of_its_group_and_the_whole_group_looks_the_same():
    code = tiny_code()
    backend, codes = k_same(code, range(N))
    frames = [face.frame for face in backend.generate([request(code, i) for i in range(N)])]
    groups = k_same_groups(codes @ code.inverse_metric.double().numpy().T, 2)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        assert len(members) >= 2
        mean = code.decode(torch.from_numpy(codes[members].mean(0))[None].float())[0].numpy()
        assert all(np.array_equal(frames[i], mean) for i in members)


def test_faces_of_two_sets_are_never_averaged():
    code = tiny_code()
    backend, codes = k_same(code, range(4), np.array([0, 0, 1, 1]))
    found = backend.generate([request(code, i, strength=1.0) for i in range(4)])
    first = code.decode(torch.from_numpy(codes[:2].mean(0))[None].float())[0].numpy()
    assert np.array_equal(found[0].frame, first)
    assert not np.array_equal(found[2].frame, first)


def test_another_face_in_the_photo_becomes_the_mean_of_the_nearest_group():
    code = tiny_code()
    backend, _ = k_same(code, range(N))
    stranger, member = backend.generate([request(code, N + 20), request(code, 0)])
    of_the_set = [backend.generate([request(code, seed)])[0].frame for seed in range(N)]
    assert any(np.array_equal(stranger.frame, frame) for frame in of_the_set)
    assert not np.array_equal(stranger.frame, face_pixels(code, N + 20))
    assert member.frame is not None


def test_laplace_noise_has_the_scale_that_was_asked_for_and_its_own_key():
    code = tiny_code()
    backend = LatentLaplaceBackend(code)
    requests = [request(code, 0, strength=0.5, key=i) for i in range(40)]
    frames = np.stack([face.frame for face in backend.generate(requests)])
    noised = code.encode(torch.from_numpy(frames)) - code.encode(
        torch.from_numpy(requests[0].pixels)[None]
    )
    # The mean size of a Laplace number is its scale; pixels are cut at 0 and 255.
    expected = scale_of(0.5) * float(code.sd.mean())
    assert float(noised.abs().mean()) == pytest.approx(expected, rel=0.15)
    again = backend.generate(requests[:1])[0].frame
    # Another batch size may round a level otherwise.
    assert abs(again.astype(int) - frames[0]).max() <= 1
    assert abs(frames[1].astype(int) - frames[0]).max() > 20


@pytest.mark.parametrize("kind", ["k-same", "laplace"])
def test_neither_claims_a_guarantee_or_protection(kind):
    code = tiny_code()
    backend = k_same(code, range(4))[0] if kind == "k-same" else LatentLaplaceBackend(code)
    (found,) = backend.generate([request(code, 0)])
    assert (found.privacy.epsilon, found.privacy.mu, found.protects) == (None, None, False)
    assert found.privacy.reason
    assert backend.generate([]) == []
