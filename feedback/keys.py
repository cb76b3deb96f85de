"""The secrets all identities and tokens are derived from, one per key epoch; knows no rater.

Keys come from the operator's environment, or from a file of mode 600 that is made on first use.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feedback.errors import InvalidKeyError

KEY_VARIABLE = "PRIVACY_DIAL_FEEDBACK_KEY"
KEY_FILE = "feedback.key"
_MIN_SECRET_BYTES = 32
_MAX_EPOCH = 32_767
_NEW_KEY = 'Make one with `python -c "import secrets; print(secrets.token_hex(32))"`.'


@dataclass(frozen=True)
class Keys:
    """The secrets of all key epochs.

    Attributes:
        by_epoch: Epoch, from 1, to at least 32 secret bytes; new pseudonyms use the last epoch.
        is_generated: The keys were made here and are kept in a file, not given by the operator.
        notice: A sentence for the operator about where the keys are.
    """

    by_epoch: Mapping[int, bytes] = field(repr=False)
    is_generated: bool
    notice: str

    def __post_init__(self) -> None:
        """Check epochs and lengths.

        Raises:
            InvalidKeyError: There is no key, an epoch is out of range, or a key is short.
        """
        for epoch, secret in self.by_epoch.items():
            if not 1 <= epoch <= _MAX_EPOCH or len(secret) < _MIN_SECRET_BYTES:
                raise InvalidKeyError(
                    f"A key must have an epoch from 1 to {_MAX_EPOCH} and at least 64 hexadecimal "
                    f"digits, got epoch {epoch} with {2 * len(secret)} digits. {_NEW_KEY}"
                )
        if not self.by_epoch:
            raise InvalidKeyError(f"There must be at least one key, got none. {_NEW_KEY}")

    @property
    def epoch(self) -> int:
        """The epoch new pseudonyms are made in."""
        return max(self.by_epoch)

    def derive(self, purpose: str, *, epoch: int | None = None) -> bytes:
        """Return the 32-byte key for one purpose, such as "rating"; the last epoch by default."""
        secret = self.by_epoch[self.epoch if epoch is None else epoch]
        return hmac.digest(secret, f"v1|key|{purpose}".encode(), "sha256")


def load_keys(folder: Path, *, environment: Mapping[str, str]) -> Keys:
    """Take the keys from the environment, else from the data folder, else make one there.

    Args:
        folder: Data folder, outside everything that is served or published.
        environment: Where `PRIVACY_DIAL_FEEDBACK_KEY` is looked up: `HEX`, or `1:HEX,2:HEX` with
            one key per epoch. Unset or empty means a key file of mode 600 in `folder`.

    Raises:
        InvalidKeyError: A key is malformed, or the key file can be read by others or not at all.
    """
    if text := environment.get(KEY_VARIABLE, "").strip():
        keys = _parse_keys(text, where=f"`{KEY_VARIABLE}`")
        return Keys(keys, is_generated=False, notice=f"Keys come from {KEY_VARIABLE}.")
    path = folder / KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_new_key(path)
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InvalidKeyError(
            f"The key file {path} must be a readable text file, got {type(error).__name__}. "
            f"Make its folder writable, or set {KEY_VARIABLE}."
        ) from error
    if mode & 0o077:
        raise InvalidKeyError(
            f"The key file {path} must be readable by its owner only (mode 600), got mode "
            f"{mode:o}. Others may have read it: run `chmod 600`, or set {KEY_VARIABLE}."
        )
    notice = (
        f"{KEY_VARIABLE} is not set, so a random key is kept in {path} (mode 600). "
        "Keep a copy: without it raters cannot find their ratings again."
    )
    return Keys(_parse_keys(text, where=str(path)), is_generated=True, notice=notice)


def _parse_keys(text: str, *, where: str) -> dict[int, bytes]:
    """Read `HEX` or `1:HEX,2:HEX`; a message never repeats any of it."""
    by_epoch: dict[int, bytes] = {}
    for part in text.split(","):
        epoch, _, digits = part.strip().rpartition(":")
        try:
            number, secret = int(epoch or "1"), bytes.fromhex(digits)
        except ValueError as error:
            raise InvalidKeyError(
                f"{where} must be hexadecimal digits, or `EPOCH:DIGITS` separated by commas; "
                f"it is not. {_NEW_KEY}"
            ) from error
        if number in by_epoch:
            raise InvalidKeyError(f"{where} must name each epoch once, got {number} twice.")
        by_epoch[number] = secret
    return by_epoch


def _write_new_key(path: Path) -> None:
    """Put a random key at `path`; of several processes starting at once, the first one wins."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"1:{secrets.token_hex(_MIN_SECRET_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
