"""What a handler of the page returns, in plain values: new settings of components, and files.

Knows no web page: `app.py` turns an `Update` into the one of its framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict


@dataclass(frozen=True)
class Update:
    """New settings of one component.

    Attributes:
        settings: By their names; those that are not named stay as they are.
    """

    settings: Mapping[str, Any]


SKIP = Update({})
"""Leaves a component, or all that a handler shows, as it is."""


def update(**settings: Any) -> Update:
    """Return new settings of a component."""
    return Update(settings)


class FileData(TypedDict):
    """A file on its way from or to a program, as the web page writes it.

    Attributes:
        path: Below the page's cache.
        url: Where it can be fetched, if that is known.
        size: In bytes, if that is known.
        orig_name: What it is called.
        mime_type: What it holds.
        is_stream: Whether it comes in pieces.
        meta: What tells it from other dictionaries.
    """

    path: str
    url: str | None
    size: int | None
    orig_name: str | None
    mime_type: str | None
    is_stream: bool
    meta: dict[str, str]


def picture_file(path: str | Path, name: str) -> FileData:
    """Return what stands for a PNG that a program can fetch under some name."""
    return {
        "path": str(path),
        "url": None,
        "size": None,
        "orig_name": name,
        "mime_type": "image/png",
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }
