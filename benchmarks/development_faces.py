"""The development faces for benchmarks: real photos in `PRIVACY_DIAL_DATA`, never committed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the development faces.

    Raises:
        SystemExit: The environment does not name it.
    """
    if "PRIVACY_DIAL_DATA" not in environment:
        raise SystemExit("Set PRIVACY_DIAL_DATA to the folder of the development faces.")
    return Path(environment["PRIVACY_DIAL_DATA"])
