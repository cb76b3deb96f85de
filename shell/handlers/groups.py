"""Updates that handlers of several stages share: what is shown and what is hidden.

Knows no web page.
"""

from __future__ import annotations

from typing import Any

from shell.updates import SKIP, update


def show_groups(*, dial: bool, page: bool) -> tuple[Any, Any]:
    """Show or hide the dial and the page of blinded variants."""
    return update(visible=dial), update(visible=page)


def no_face() -> tuple[Any, ...]:
    """Show the dial of all faces, in the order of `_Faces.shown`."""
    return update(visible=True), update(visible=False), *(SKIP for _ in range(6)), 0
