"""Secret and unforgeable bytes for browsers to hold; knows no page, rater or history.

HMAC-SHA256 does both: in counter mode it hides, as a tag it proves. Every purpose has keys of its
own, so that no token is ever taken for another kind.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets

from feedback.keys import Keys

NONCE_BYTES = 16


def stream_xor(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt with HMAC-SHA256 in counter mode; `nonce` is used once per key."""
    blocks = range((len(data) + 31) // 32)
    stream = b"".join(hmac.digest(key, nonce + i.to_bytes(4, "big"), "sha256") for i in blocks)
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


def seal(keys: Keys, purpose: str, plain: bytes, *, tag_bytes: int = 32) -> bytes:
    """Hide and sign bytes with the last epoch's keys.

    Args:
        keys: The secrets.
        purpose: What the bytes are for, such as "page".
        plain: The bytes.
        tag_bytes: Length of the signature, 16 to 32.

    Returns:
        Nonce, hidden bytes and tag.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    body = nonce + stream_xor(keys.derive(f"{purpose} stream"), nonce, plain)
    return body + _tag(keys, purpose, keys.epoch, body)[:tag_bytes]


def unseal(
    keys: Keys, purpose: str, sealed: bytes, *, epoch: int, tag_bytes: int = 32
) -> bytes | None:
    """Return the bytes that were sealed, None if they were altered or sealed for another purpose.

    Args:
        keys: The secrets; they have `epoch`.
        purpose: As sealed.
        sealed: From `seal`.
        epoch: Key epoch it was sealed in.
        tag_bytes: As sealed.
    """
    body, tag = sealed[:-tag_bytes], sealed[-tag_bytes:]
    if len(body) < NONCE_BYTES:
        return None
    if not hmac.compare_digest(tag, _tag(keys, purpose, epoch, body)[:tag_bytes]):
        return None
    nonce, hidden = body[:NONCE_BYTES], body[NONCE_BYTES:]
    return stream_xor(keys.derive(f"{purpose} stream", epoch=epoch), nonce, hidden)


def to_base64(raw: bytes) -> str:
    """Return bytes as letters, digits, - and _, without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64(text: str) -> bytes:
    """Return the bytes of the one spelling `to_base64` gives them, else no bytes."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if to_base64(raw) == text else b""


def _tag(keys: Keys, purpose: str, epoch: int, body: bytes) -> bytes:
    return hmac.digest(keys.derive(f"{purpose} tag", epoch=epoch), body, "sha256")
