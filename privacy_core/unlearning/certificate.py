"""`certificate.json`: what was unlearned, from what, how, and the digests that prove the files.

A digest proves that nothing was altered since, not that what it says is true; only rerunning shows
that. Knows files and plain values; no model and no torch.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.wholefile import whole_file

CERTIFICATE = "certificate.json"
SCHEMA_VERSION = 1
LIMITS = (
    "Rectification with evidence, not erasure: the revised rows are still learned from.",
    "A digest shows that files are unaltered, not that the model was made as stated.",
    "People outside the request, and copies of the data elsewhere, are not covered.",
)
_SALT_BYTES = 32
_NOT_FILES = {CERTIFICATE, "README.md"}
"""Itself, and the card, which publishing writes. The audit writes its files and certifies again."""


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        problems: What does not fit, one sentence each; empty where all fits.
        checked: What was checked, in words.
    """

    problems: tuple[str, ...]
    checked: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Whether everything that was checked fits."""
        return not self.problems


def new_salt() -> bytes:
    """Return a secret salt for row tokens; it is kept apart from everything published."""
    return secrets.token_bytes(_SALT_BYTES)


def row_tokens(salt: bytes, row_ids: Iterable[int]) -> list[str]:
    """Return one HMAC-SHA256 per row in hex; without the salt nobody can tell which row it is.

    Raises:
        InvalidArgumentError: The salt is shorter than 32 bytes.
    """
    if len(salt) < _SALT_BYTES:
        raise InvalidArgumentError(
            f"`salt` must be at least {_SALT_BYTES} bytes long, got {len(salt)}. "
            "Make it with `new_salt`."
        )
    return sorted(
        hmac.new(salt, f"privacy-dial row {row}".encode(), "sha256").hexdigest() for row in row_ids
    )


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted keys and no spaces: one byte string per value.

    Raises:
        InvalidArgumentError: A value is no JSON, such as NaN.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            "A certificate must hold plain JSON values, got one that is none "
            f"({type(error).__name__}). Leave unknown numbers out."
        ) from error
    return text.encode()


def certify(
    folder: Path,
    *,
    original: Mapping[str, str],
    revised: Mapping[str, str],
    update: Mapping[str, Any],
    rows: Sequence[str],
    audit: Mapping[str, Any] | None = None,
    batch: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `certificate.json` for a model folder, over all its files, and return it.

    Args:
        folder: The unlearned model's folder.
        original: Digests of the original model and data ("weights", "data").
        revised: Digests of the revised data ("data", "revision").
        update: `UnlearnResult.as_json`.
        rows: `row_tokens` of the rows that were unlearned.
        audit: Metrics and gate, where the audit has run.
        batch: Name of the batch of requests that this release answers, and how many they are.

    Raises:
        OutputError: The file cannot be written.
    """
    body: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "original": dict(original),
        "revised": dict(revised),
        "update": dict(update),
        "batch": None if batch is None else dict(batch),
        "rows": {"count": len(rows), "hmac": list(rows)},
        "files": file_digests(folder),
        "audit": None if audit is None else dict(audit),
        "limits": list(LIMITS),
    }
    body["sha256"] = hashlib.sha256(canonical(body)).hexdigest()
    text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    try:
        with whole_file(folder / CERTIFICATE) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"The certificate in {folder.name!r} cannot be written ({error.strerror}). "
            "Free space or choose another place."
        ) from error
    return body


def verify(
    folder: Path,
    *,
    revised_digest: str | None = None,
    salt: bytes | None = None,
    row_ids: Iterable[int] | None = None,
) -> Verification:
    """Check a folder against its certificate, and data against it where they are given.

    Args:
        folder: The model folder.
        revised_digest: Digest of the revised data at hand.
        salt: The secret salt, to check which rows were unlearned.
        row_ids: Those rows; needs `salt`.

    Raises:
        ModelError: There is no certificate, or it cannot be read.
    """
    try:
        body = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))
        stated = {name: str(digest) for name, digest in body["files"].items()}
        named = str(body.pop("sha256"))
        revised, tokens = str(body["revised"].get("data", "")), list(body["rows"]["hmac"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"The certificate in {folder.name!r} cannot be read ({type(error).__name__}): it is "
            "missing or damaged. Run `unlearn` again."
        ) from error
    problems, checked = [], ["the certificate's own digest", f"{len(stated)} files"]
    if not hmac.compare_digest(named, hashlib.sha256(canonical(body)).hexdigest()):
        problems.append("The certificate was edited: its digest does not fit its content.")
    found = file_digests(folder)
    problems += [
        f"The file {name!r} is not the one that was certified."
        for name in sorted(stated.keys() | found.keys())
        if stated.get(name) != found.get(name)
    ]
    if revised_digest is not None:
        checked.append("the revised data")
        if revised_digest != revised:
            problems.append("The revised data is not the data the model was updated to.")
    if salt is not None and row_ids is not None:
        checked.append("the rows")
        if row_tokens(salt, row_ids) != sorted(tokens):
            problems.append("The rows are not those that were unlearned.")
    return Verification(tuple(problems), tuple(checked))


def file_digests(folder: Path) -> dict[str, str]:
    """Return name → SHA-256 of every file that the certificate speaks for, folders included."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in _NOT_FILES or name.startswith((".", "plots/")):
            continue
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
