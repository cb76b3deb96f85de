"""Where noise comes from: secret keys, the numbers expanded from them, and the ladder's one path.

Knows keys, labels and standard deviations; no codes, no strength, no ε. One noise vector may serve
one code only: two codes under it reveal their difference, and one code under two scalings of it
is revealed itself. `BrownianLadder` is the safe way to have several σ for one code. What
computed noise cannot promise stands in `privacy_core.privacy`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import operator
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from privacy_core.errors import InvalidArgumentError

_KEY_BYTES = 32


@dataclass(frozen=True)
class NoiseKey:
    """The secret from which all noise of one face is expanded; its bytes never show in a `repr`.

    One key and label give one noise vector, for one code only. So whatever a code depends on (row
    or photo, face, model revision, attribute policy) belongs into the labels given to `child`.

    Attributes:
        material: 32 bytes.
        secret: False if anyone can repeat the noise; then no ε holds.

    Example:
        >>> NoiseKey.from_seed(7).child("face 1")
        NoiseKey(secret=False)
    """

    material: bytes = field(repr=False)
    secret: bool

    def __post_init__(self) -> None:
        """Check the length.

        Raises:
            InvalidArgumentError: `material` is not 32 bytes long.
        """
        if len(self.material) != _KEY_BYTES:
            raise InvalidArgumentError(
                f"`material` must be {_KEY_BYTES} bytes long, got {len(self.material)}. "
                "Make keys with `NoiseKey.fresh`."
            )

    @classmethod
    def fresh(cls) -> NoiseKey:
        """Return a new secret key from the operating system."""
        return cls(secrets.token_bytes(_KEY_BYTES), secret=True)

    @classmethod
    def from_seed(cls, seed: int) -> NoiseKey:
        """Return the same key for the same `seed`, for tests and demonstrations; not secret."""
        name = f"privacy-dial seed {operator.index(seed)}"
        return cls(hashlib.sha256(name.encode()).digest(), secret=False)

    @classmethod
    def from_row(cls, master: bytes, row_id: str) -> NoiseKey:
        """Return the key of one row of a data set, by HMAC-SHA256.

        For rows that anyone can repeat take `from_seed(seed).child(row_id)`.

        Args:
            master: At least 32 secret bytes, kept apart from everything published.
            row_id: What tells the row from all others, not empty.

        Raises:
            InvalidArgumentError: An argument breaks its rule.
        """
        if len(master) < _KEY_BYTES:
            raise InvalidArgumentError(
                f"`master` must be at least {_KEY_BYTES} bytes long, got {len(master)}. "
                "Make it with secrets.token_bytes(32)."
            )
        if not row_id:
            raise InvalidArgumentError("`row_id` must not be empty, got ''. Number the rows.")
        return cls(_hmac(master, f"privacy-dial row {row_id}"), secret=True)

    def child(self, label: str) -> NoiseKey:
        """Return the key that belongs to `label`, as secret as this one and unrelated to it."""
        return NoiseKey(_hmac(self.material, f"privacy-dial child {label}"), self.secret)


def standard_normals(key: NoiseKey, label: str, n: int) -> NDArray[np.float64]:
    """Return the `n` independent standard normal numbers that belong to `key` and `label`.

    SHAKE-256 of both, read as uniform numbers of 53 bits, through Box & Muller (1958). Nothing is
    kept between calls, so the order of requests is irrelevant. A longer draw begins with the
    shorter one.

    Returns:
        (n,) float64.

    Raises:
        InvalidArgumentError: `n` is negative.
    """
    if n < 0:
        raise InvalidArgumentError(f"`n` must be at least 0, got {n!r}.")
    n_pairs = (n + 1) // 2
    stream = hashlib.shake_256(key.material + f"privacy-dial normals {label}".encode())
    bits = np.frombuffer(stream.digest(16 * n_pairs), dtype="<u8").reshape(n_pairs, 2) >> 11
    # In (0, 1], exact in float64: the logarithm never meets 0.
    uniform = (bits.astype(np.float64) + 1.0) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0]))
    angle = 2.0 * np.pi * uniform[:, 1]
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]).ravel()[:n]


class BrownianLadder:
    """The noise of one face on all rungs: one Brownian path in σ², so that rungs never add up.

    A stronger rung is a weaker one plus fresh noise, hence anyone who holds several rungs knows no
    more than the weakest tells (scaled copies of one vector would give the code away exactly).
    The grid is part of every label: another grid under the same key is another, independent path.

    Args:
        key: This face's own key.
        sigmas: (K,) rungs, finite, strictly increasing, at least 0.
        dim: Length of a code.

    Example:
        >>> ladder = BrownianLadder(NoiseKey.fresh(), [0.5, 1.0, 2.0], dim=384)
        >>> ladder.noise_at(1).shape
        (384,)
    """

    def __init__(self, key: NoiseKey, sigmas: Iterable[float], dim: int) -> None:
        """Draw the path.

        Raises:
            InvalidArgumentError: The rungs are not a strictly increasing grid, or `dim` < 1.
        """
        if dim < 1:
            raise InvalidArgumentError(f"`dim` must be at least 1, got {dim!r}.")
        self.sigmas = _checked_grid(sigmas)
        self._key, self._dim = key, dim
        grid = hashlib.sha256(np.asarray(self.sigmas, dtype="<f8").tobytes()).hexdigest()
        self._name = f"ladder {grid} dim {dim}"
        below = (0.0, *self.sigmas[:-1])
        steps = [
            # √(σ_j² − σ_{j−1}²), factored against cancellation.
            math.sqrt((high - low) * (high + low))
            * standard_normals(key, f"{self._name} increment {j}", dim)
            for j, (low, high) in enumerate(zip(below, self.sigmas, strict=True))
        ]
        self._path = np.cumsum(steps, axis=0)
        self._path.flags.writeable = False

    def noise_at(self, rung: int) -> NDArray[np.float64]:
        """Return the noise to add to a code at `sigmas[rung]`.

        Args:
            rung: Index into `sigmas`, from 0.

        Returns:
            (dim,) float64, read-only; N(0, sigmas[rung]² I) over keys.

        Raises:
            InvalidArgumentError: There is no such rung.
        """
        if not 0 <= operator.index(rung) < len(self.sigmas):
            raise InvalidArgumentError(
                f"`rung` must be in [0, {len(self.sigmas) - 1}], got {rung!r}."
            )
        noise: NDArray[np.float64] = self._path[rung]
        return noise

    def pure(self) -> NDArray[np.float64]:
        """Return the start for strength 1: (dim,) N(0, I), independent of the whole path."""
        return standard_normals(self._key, f"{self._name} pure", self._dim)


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(errors="surrogatepass"), "sha256")


def _checked_grid(sigmas: Iterable[float]) -> tuple[float, ...]:
    grid = tuple(float(sigma) for sigma in sigmas)
    for low, high in zip((None, *grid), grid, strict=False):
        rises = high >= 0 if low is None else high > low
        if not (rises and high < math.inf):
            raise InvalidArgumentError(
                f"`sigmas` must be finite, at least 0 and strictly increasing, got {high!r}"
                f"{'' if low is None else f' after {low!r}'}. Sort the rungs and drop repeats; "
                "pure noise is `pure()`, not a rung."
            )
    if not grid:
        raise InvalidArgumentError("`sigmas` must name at least one rung, got none.")
    return grid
