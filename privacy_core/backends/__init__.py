"""The backends by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from privacy_core.backends.base import Backend, FaceRequest, GeneratedFace
from privacy_core.backends.baselines import blur, pixelate, solid
from privacy_core.backends.loading import HubTools, load_inpainting
from privacy_core.backends.registry import HUB_MODELS
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


def load_backend(
    name: str, *, accept_licence: bool = False, tools: HubTools | None = None
) -> Backend:
    """Return a backend by name.

    Args:
        name: One of `BACKENDS`, or a model of the Hub with its commit, NAME@SHA.
        accept_licence: The user agreed to a licence that limits use.
        tools: For models of the Hub.

    Raises:
        InvalidArgumentError: There is none of that name, or its licence or commit is missing.
        ModelError: Its weights cannot be loaded.
    """
    if name in BACKENDS:
        return BACKENDS[name]()
    models = HUB_MODELS if tools is None else tools.models
    if name.partition("@")[0] in models:
        return load_inpainting(name, accept_licence=accept_licence, tools=tools)
    raise InvalidArgumentError(
        f"`backend` must be one of {', '.join([*BACKENDS, *models])}, got {name!r}."
    )


__all__ = [
    "BACKENDS",
    "HUB_MODELS",
    "Backend",
    "FaceRequest",
    "GeneratedFace",
    "HubTools",
    "load_backend",
]
