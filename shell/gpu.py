"""Borrowed GPUs: makes a backend work inside the calls that a ZeroGPU Space grants one for.

Knows the interface of the `spaces` package, which only Spaces have, and no page.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from privacy_core.backends.base import Backend, FaceRequest, GeneratedFace
from privacy_core.faces.output import DigitalSourceType
from privacy_core.schema import StrengthCurve

Generate = Callable[[Sequence[FaceRequest]], list[GeneratedFace]]
Grant = Callable[[Generate], Generate]
"""Lets a function have a GPU while it runs."""
SECONDS = 30
"""Asked for with each call; a Space ends one that takes longer."""
LEAST_FACES = 2
"""A single face is quicker made here than a GPU is granted, and the dial makes one at each turn."""


def find_grant(load: Callable[[str], ModuleType] = importlib.import_module) -> Grant | None:
    """Return what grants GPUs on a Space with ZeroGPU; None elsewhere.

    Args:
        load: Imports a module by its name.
    """
    try:
        spaces: Any = load("spaces")
    except ImportError:
        return None
    grant: Grant = spaces.GPU(duration=SECONDS)
    return grant


class GrantedBackend:
    """A backend whose ladders are each made in one call that has a GPU.

    Args:
        backend: Makes the faces.
        grant: From `find_grant`.
    """

    def __init__(self, backend: Backend, grant: Grant) -> None:
        self._backend = backend
        self._granted = grant(backend.generate)
        self.name: str = backend.name
        self.revision: str = backend.revision
        self.zoom: int = backend.zoom
        self.digital_source_type: DigitalSourceType = backend.digital_source_type

    @property
    def curve(self) -> StrengthCurve | None:
        """Return the strength curve, None where strength means no noise."""
        return self._backend.curve

    def generate(self, requests: Sequence[FaceRequest]) -> list[GeneratedFace]:
        """Return one result per request, in order, all from one call."""
        is_ladder = len(requests) >= LEAST_FACES
        return (self._granted if is_ladder else self._backend.generate)(requests)
