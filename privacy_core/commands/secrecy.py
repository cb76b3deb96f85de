"""What a model folder must not hold: keys and salts, in a folder of their own beside it.

Knows no model and no method.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from privacy_core.commands.output import unwritable
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.noise import NoiseKey
    from privacy_core.unlearning.targets import Recipe

KEY, SALT = "perturbation.key", "rows.salt"


def new_key(out: Path, recipe: Recipe) -> NoiseKey | None:
    """Draw and keep the secret term's key, where the recipe asks for one."""
    if recipe.perturbation_sd == 0:
        return None
    from privacy_core.noise import NoiseKey

    key = NoiseKey.fresh()
    keep_secret(out, KEY, key.material)
    return key


def old_key(folder: Path, recipe: Recipe) -> NoiseKey | None:
    """Return the key that `new_key` kept."""
    if recipe.perturbation_sd == 0:
        return None
    from privacy_core.noise import NoiseKey

    try:
        return NoiseKey((private_folder(folder) / KEY).read_bytes(), secret=True)
    except OSError as error:
        raise InvalidArgumentError(
            "MODEL must have its secret term beside it, got no "
            f"{private_folder(folder).name}/{KEY}. "
            "Bring it back, or train again with `--certify`."
        ) from error


def keep_secret(out: Path, name: str, content: bytes) -> None:
    """Write a secret beside the folder, never in it, for its owner's eyes only."""
    try:
        private_folder(out).mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (private_folder(out) / name).unlink()
        file = os.open(private_folder(out) / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
    except OSError as error:
        raise unwritable("--out", out, error) from error


def private_folder(out: Path) -> Path:
    """Return the folder beside a model that is never published."""
    return out.absolute().parent / f".{out.absolute().name}.private"
