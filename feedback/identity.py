"""Who may rate what: rater pseudonyms and sealed page tokens; stores nothing about anyone.

Everything is derived from `Keys` with HMAC-SHA256. A page token is sealed, not just signed:
whoever reads the page's source must not learn the strengths before answering.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field
from datetime import datetime

from feedback.errors import (
    ExpiredTokenError,
    ForeignTokenError,
    ForgedTokenError,
    InvalidRatingError,
)
from feedback.keys import Keys
from feedback.page import Page, Rater, Shown
from feedback.sealing import NONCE_BYTES, from_base64, seal, to_base64, unseal

STUDY = "privacy-dial"
MAX_TOKEN_LENGTH = 8192
_SECRET_BYTES = 16
_TAG_BYTES = 32
_CODE_TAG_BYTES = 4
_CODE_LETTERS = 32
_MAX_SUB = 256
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def session_id(keys: Keys, session: str, *, epoch: int | None = None) -> str:
    """Return the pseudonym of a web session, 32 hexadecimal digits; the session is not kept."""
    return _hmac_hex(keys.derive("session", epoch=epoch), session)


@dataclass(frozen=True)
class AnonymousRater:
    """What an anonymous rater holds; both forms are secret and carry the same 128 random bits.

    Attributes:
        token: For the browser.
        recovery_code: For paper: eight groups of four letters and digits.
    """

    token: str = field(repr=False)
    recovery_code: str = field(repr=False)


def mint_rater(keys: Keys) -> AnonymousRater:
    """Make a new anonymous rater; nothing is stored until they rate with consent."""
    return _anonymous(keys, secrets.token_bytes(_SECRET_BYTES))


def open_rater(keys: Keys, token: str) -> str:
    """Return the `sub` of an anonymous rater's token, for `rater_of`.

    Raises:
        ForgedTokenError: The token was not minted with these keys.
    """
    prefix, _, text = token.partition(".") if len(token) <= MAX_TOKEN_LENGTH else ("", "", "")
    raw = from_base64(text) if prefix == "r1" else b""
    return _checked_sub(keys, raw, tag_bytes=_TAG_BYTES)


def recover_rater(keys: Keys, recovery_code: str) -> AnonymousRater:
    """Return what a rater holds from the code they wrote down; case, spaces and dashes are free.

    Raises:
        ForgedTokenError: The code is mistyped or was not made with these keys.
    """
    letters = "".join(recovery_code[:200].upper().split()).replace("-", "")
    letters = letters.translate(str.maketrans("OIL", "011"))
    known = len(letters) == _CODE_LETTERS and set(letters) <= set(_CROCKFORD)
    raw = base64.b32decode(letters.translate(str.maketrans(_CROCKFORD, _RFC4648)) if known else "")
    _checked_sub(keys, raw, tag_bytes=_CODE_TAG_BYTES)
    return _anonymous(keys, raw[:_SECRET_BYTES])


def rater_of(keys: Keys, sub: str) -> Rater:
    """Return the pseudonym new rows get: HMAC of `sub` in the last key epoch.

    Args:
        keys: All epochs' keys.
        sub: What stays the same about a rater: from `open_rater`, or "hf:" and the account's id.
    """
    return raters_of(keys, sub)[0]


def raters_of(keys: Keys, sub: str) -> tuple[Rater, ...]:
    """Return the rater's pseudonyms in all key epochs, newest first; erasing needs every one.

    Raises:
        InvalidRatingError: `sub` is empty or longer than 256 characters.
    """
    if not 1 <= len(sub) <= _MAX_SUB:
        raise InvalidRatingError(f"`sub` must have 1 to {_MAX_SUB} characters, got {len(sub)}.")
    message = f"v1|{STUDY}|{sub}"
    return tuple(
        Rater(_hmac_hex(keys.derive("rater", epoch=epoch), message), epoch)
        for epoch in sorted(keys.by_epoch, reverse=True)
    )


def issue_page(keys: Keys, page: Page) -> str:
    """Return the token that lets the page be answered, sealed with the last epoch's keys."""
    record = asdict(page) | {"expires_at": page.expires_at.isoformat()}
    plain = json.dumps(record, separators=(",", ":")).encode()
    return f"p1.{keys.epoch}.{to_base64(seal(keys, 'page', plain))}"


def open_page(keys: Keys, token: str, *, session: str, now: datetime) -> Page:
    """Return the page a token was issued for.

    That a page is answered once is for the store to see, in the transaction that keeps the rows.

    Args:
        keys: The keys it was issued with, or these and newer epochs.
        token: From `issue_page`.
        session: The web session that sends the answer.
        now: UTC time.

    Raises:
        ForgedTokenError: It was altered, cut off, or not issued with these keys.
        ExpiredTokenError: Its time is over.
        ForeignTokenError: It was issued to another web session.
    """
    epoch, sealed = _split_page_token(keys, token)
    plain = unseal(keys, "page", sealed, epoch=epoch)
    if plain is None:
        raise _forged("page token")
    record = json.loads(plain)
    record["shown"] = tuple(Shown(**variant) for variant in record["shown"])
    record["expires_at"] = datetime.fromisoformat(record["expires_at"])
    page = Page(**record)
    if not hmac.compare_digest(page.session_id, session_id(keys, session, epoch=epoch)):
        raise ForeignTokenError(
            "The page token must come from your own web session, got one of another session. "
            "Reload the page and answer the new one."
        )
    if now >= page.expires_at:
        raise ExpiredTokenError(
            f"The page token must be used before {page.expires_at:%Y-%m-%d %H:%M} UTC, got it "
            "later. Reload the page and answer the new one."
        )
    return page


def _split_page_token(keys: Keys, token: str) -> tuple[int, bytes]:
    """Return epoch and sealed bytes of a token that has the right form."""
    parts = token.split(".") if len(token) <= MAX_TOKEN_LENGTH else []
    epochs = {str(epoch): epoch for epoch in keys.by_epoch}
    if len(parts) != 3 or parts[0] != "p1" or parts[1] not in epochs:  # noqa: PLR2004
        raise _forged("page token")
    raw = from_base64(parts[2])
    if len(raw) <= NONCE_BYTES + _TAG_BYTES:
        raise _forged("page token")
    return epochs[parts[1]], raw


def _anonymous(keys: Keys, secret: bytes) -> AnonymousRater:
    tag = hmac.digest(keys.derive("anonymous"), secret, "sha256")
    code = base64.b32encode(secret + tag[:_CODE_TAG_BYTES]).decode()
    code = code.translate(str.maketrans(_RFC4648, _CROCKFORD))
    groups = [code[i : i + 4] for i in range(0, len(code), 4)]
    return AnonymousRater(token=f"r1.{to_base64(secret + tag)}", recovery_code="-".join(groups))


def _checked_sub(keys: Keys, raw: bytes, *, tag_bytes: int) -> str:
    """Return the `sub` of secret and tag, if some epoch's key made the tag."""
    secret, tag = raw[:_SECRET_BYTES], raw[_SECRET_BYTES:]
    for epoch in keys.by_epoch:
        right = hmac.digest(keys.derive("anonymous", epoch=epoch), secret, "sha256")
        if hmac.compare_digest(tag, right[:tag_bytes]):
            return f"anon:{secret.hex()}"
    raise _forged("rater token" if tag_bytes == _TAG_BYTES else "recovery code")


def _forged(what: str) -> ForgedTokenError:
    way_out = {
        "page token": "Reload the page and answer the new one.",
        "rater token": "Start again as a new rater, or enter your recovery code.",
        "recovery code": "Compare it with what you wrote down; it has 32 letters and digits.",
    }[what]
    return ForgedTokenError(
        f"The {what} must be one issued here, unaltered; this one is not. {way_out}"
    )


def _hmac_hex(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256").hex()[:32]
