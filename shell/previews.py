"""Ladders of the example photos, made beforehand: shown at once, while a model warms up.

Reads what `shell.prerender` wrote and refuses what is of other weights or photos; knows no model
and no page. Their noise is public, so they are pictures to look at, and nothing that is rated or
downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from privacy_core.errors import InvalidArgumentError
from shell.languages import ENGLISH, Speaker, message

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "ladders"
MANIFEST = "ladders.json"
SCHEMA_VERSION = 1
N_EXAMPLES = 6
REMAKE = "Make them again: `python -m shell.prerender`."
CAPTION = message("What the dial does to this person, who does not exist:")
NOTE = message(
    "These small pictures were made beforehand, with public noise: they show what the dial does, "
    "and no guarantee holds for them. What you rate or download is made afresh, with secret noise."
)


@dataclass(frozen=True)
class Preview:
    """The ladder of one photo.

    Attributes:
        strengths: Of the variants, ascending.
        photo: The photo itself, small, as WebP.
        variants: As many pictures as strengths, as WebP.
    """

    strengths: tuple[float, ...]
    photo: bytes = field(repr=False)
    variants: tuple[bytes, ...] = field(repr=False)


def example_photos(folder: Path) -> list[Path]:
    """Return the photos of the gallery, one of each of the first people."""
    return sorted(folder.glob("*-a.png"))[:N_EXAMPLES]


def read_previews(
    photos: Sequence[Path], *, model: str, folder: Path = FOLDER
) -> tuple[Preview, ...]:
    """Return the ladders of some photos, in their order.

    Args:
        photos: Files whose ladders are wanted.
        model: Revision of the weights in use.
        folder: What `shell.prerender` wrote.

    Raises:
        InvalidArgumentError: They are missing, or of other weights or photos.
    """
    try:
        values = json.loads((folder / MANIFEST).read_bytes())
        if values["schema_version"] != SCHEMA_VERSION or values["model"] != model:
            raise InvalidArgumentError(
                f"The examples' previews must be of the weights in use, got those of others. "
                f"{REMAKE}"
            )
        return tuple(_read(path, values, folder) for path in photos)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise InvalidArgumentError(
            f"The examples' previews must be complete, got {type(error).__name__} while reading "
            f"them. {REMAKE}"
        ) from error


def file_name(photo: Path, strength: float | None) -> str:
    """Return what the preview of a photo, or of its variant at a strength, is called."""
    end = "photo" if strength is None else f"{round(100 * strength):03d}"
    return f"{photo.stem}-{end}.webp"


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def preview_html(preview: Preview, *, say: Speaker = ENGLISH) -> str:
    """Return a ladder as a list of pictures, each with its strength, and what they are."""
    alt = message("The photo with the face replaced, at strength {strength:g}")
    pictures = [(preview.photo, say("The photo"), say("photo"))] + [
        (data, say(alt, strength=strength), say.number(strength, "g"))
        for strength, data in zip(preview.strengths, preview.variants, strict=True)
    ]
    items = "".join(
        f'<li><img alt="{escape(alt)}" src="data:image/webp;base64,'
        f'{base64.b64encode(data).decode()}"/><span aria-hidden="true">{escape(under)}</span></li>'
        for data, alt, under in pictures
    )
    return (
        f'<p id="preview-caption">{escape(say(CAPTION))}</p>'
        f'<ul class="ladder" aria-labelledby="preview-caption">{items}</ul>'
        f'<p class="quiet">{escape(say(NOTE))}</p>'
    )


def _read(photo: Path, values: Any, folder: Path) -> Preview:
    if values["photos"][photo.name] != digest(photo.read_bytes()):
        raise InvalidArgumentError(
            f"The examples' previews must be of the photos in use, got those of another "
            f"{photo.name!r}. {REMAKE}"
        )
    strengths = tuple(float(strength) for strength in values["strengths"])
    return Preview(
        strengths,
        (folder / file_name(photo, None)).read_bytes(),
        tuple((folder / file_name(photo, s)).read_bytes() for s in strengths),
    )
