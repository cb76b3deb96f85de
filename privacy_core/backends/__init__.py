"""The backends by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from privacy_core.backends.base import Backend, FaceRequest, GeneratedFace
from privacy_core.backends.baselines import blur, pixelate, solid
from privacy_core.errors import InvalidArgumentError


def _embedded() -> Backend:
    """Diffusion in a code space; the one backend that guarantees an ε."""
    # torch is needed by this backend alone, and importing it takes over a second.
    from privacy_core.backends.embedded import EmbeddedBackend  # noqa: PLC0415

    return EmbeddedBackend.load()


BACKENDS: Mapping[str, Callable[[], Backend]] = MappingProxyType(
    {"embedded": _embedded, "blur": blur, "pixelate": pixelate, "solid": solid}
)
"""Name → what makes the backend; only `embedded` guarantees an ε."""


def load_backend(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        InvalidArgumentError: There is none of that name.
        ModelError: Its weights cannot be loaded.
    """
    if name not in BACKENDS:
        raise InvalidArgumentError(f"`backend` must be one of {', '.join(BACKENDS)}, got {name!r}.")
    return BACKENDS[name]()


__all__ = ["BACKENDS", "Backend", "FaceRequest", "GeneratedFace", "load_backend"]
