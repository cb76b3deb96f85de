"""Two baselines in the code space: k-Same and Laplace noise on the code, as backends.

They read the linear code of the embedded model and nothing else of it; measured, never offered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from privacy_core.audit.anonymization.distances import Ints, distances
from privacy_core.audit.anonymization.settings import K_SAME, LAPLACE
from privacy_core.audit.estimates import Floats
from privacy_core.backends.base import FaceRequest, GeneratedFace
from privacy_core.diffusion.code import LinearCode
from privacy_core.faces.output import DigitalSourceType
from privacy_core.noise import standard_normals
from privacy_core.privacy import measured_only
from privacy_core.schema import check_strength

_LARGEST_K = 50
_LEAST_SCALE, _SCALES = 0.1, 40.0


def k_of(strength: float) -> int:
    """Return k of k-Same: 2 at strength 0, 100 at 1, even in ln k between."""
    return round(2 * float(_LARGEST_K ** check_strength(strength)))


def scale_of(strength: float) -> float:
    """Return b of the Laplace noise in standard deviations of each number of the code."""
    return float(_LEAST_SCALE * _SCALES ** check_strength(strength))


def k_same_groups(scores: Floats, k: int) -> Ints:
    """Return the group of each face: groups of at least k, made one after another.

    The algorithm of Newell, Sweeney & Malin (2005): a face and its k − 1 nearest among those left
    form a group; the last group takes what is left. In a set that shows nobody twice every
    picture then has at least k equally likely originals.

    Args:
        scores: (n, d), principal components.
        k: At least 1.

    Returns:
        (n,) numbers from 0.
    """
    groups = np.full(len(scores), -1, np.int64)
    left, group = np.arange(len(scores)), 0
    while len(left) >= 2 * k:
        nearest = np.argsort(distances(scores[left[:1]], scores[left])[0], kind="stable")[:k]
        groups[left[nearest]] = group
        left, group = np.delete(left, nearest), group + 1
    groups[left] = group
    return groups


class KSameBackend:
    """Each face becomes the mean of its group in a fixed set of faces.

    Another face in a photo, which is not of the set, becomes the mean of the group that is nearest:
    it is replaced, and nothing is measured on it.

    Args:
        code: Pixels ↔ codes.
        codes: (n, K) codes of the set.
        sets: (n,) which set each belongs to; no set shows a person twice.
    """

    name, revision, curve, zoom = K_SAME, "1", None, 1
    digital_source_type: DigitalSourceType = "algorithmicallyEnhanced"

    def __init__(self, code: LinearCode, codes: Floats, sets: Ints) -> None:
        self._code, self._codes, self._sets = code, np.asarray(codes, np.float64), sets
        self._scores = self._codes @ code.inverse_metric.double().numpy().T
        self._means: dict[int, Floats] = {}

    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Return the mean face of each request's group; its own place is the nearest of the set."""
        if not requests:
            return []
        places = distances(_codes_of(self._code, requests), self._codes).argmin(1)
        means = [self._mean(k_of(r.strength))[p] for r, p in zip(requests, places, strict=True)]
        reason = "averaging faces adds no noise"
        return _decoded(self._code, np.stack(means), requests, reason)

    def _mean(self, k: int) -> Floats:
        if k not in self._means:
            means = np.empty_like(self._codes)
            for one in np.unique(self._sets):
                index = np.flatnonzero(self._sets == one)
                groups = k_same_groups(self._scores[index], k)
                for group in np.unique(groups):
                    members = index[groups == group]
                    means[members] = self._codes[members].mean(0)
            self._means[k] = means
        return self._means[k]


class LatentLaplaceBackend:
    """Independent Laplace noise on every number of the code, decoded as it is.

    Args:
        code: Pixels ↔ codes.
    """

    name, revision, curve, zoom = LAPLACE, "1", None, 1
    digital_source_type: DigitalSourceType = "algorithmicallyEnhanced"

    def __init__(self, code: LinearCode) -> None:
        self._code = code

    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Return the face of each noised code."""
        if not requests:
            return []
        codes = _codes_of(self._code, requests)
        sd = self._code.sd.double().numpy()
        noise = [scale_of(r.strength) * sd * _laplace(r, codes.shape[1]) for r in requests]
        reason = "the code is not bounded, so that its noise guarantees nothing"
        return _decoded(self._code, codes + np.stack(noise), requests, reason)


def _laplace(request: FaceRequest, n: int) -> Floats:
    """Return (n,) Laplace numbers of scale 1 that belong to the request's key and strength."""
    uniform = ndtr(standard_normals(request.key, f"laplace {request.strength}", n)) - 0.5
    return np.asarray(-np.sign(uniform) * np.log1p(-2 * np.abs(uniform)))


def _codes_of(code: LinearCode, requests: Sequence[FaceRequest]) -> Floats:
    pixels = torch.from_numpy(np.stack([request.pixels for request in requests]))
    codes: Tensor = code.encode(pixels)
    return np.asarray(codes.double().numpy())


def _decoded(
    code: LinearCode, codes: Floats, requests: Sequence[FaceRequest], reason: str
) -> list[GeneratedFace]:
    frames = code.decode(torch.from_numpy(codes).float()).numpy()
    return [
        GeneratedFace(frame, request.strength, None, measured_only(reason), protects=False)
        for frame, request in zip(frames, requests, strict=True)
    ]
