"""Where the requests of a model are kept: in a ledger beside the first original, never published.

A model that was unlearned points to its ledger, so that a later request on it is entered in the
same one. Knows files; what a request is, `privacy_core.unlearning.requests` knows.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import as_json, say
from privacy_core.commands.secrecy import keep_secret, private_folder
from privacy_core.errors import InvalidArgumentError, ModelError, OutputError

if TYPE_CHECKING:
    from privacy_core.unlearning.chain import State

LEDGER, LEDGER_SALT, POINTER = "requests.sqlite3", "requests.salt", "batch.json"


def ledger_of(folder: Path) -> Path:
    """Return the ledger that requests on a model are entered in."""
    found = _pointer(folder)
    if found is not None and found[0].exists():
        return found[0]
    return private_folder(folder) / LEDGER


def check_ledger(folder: Path) -> None:
    """Refuse at once, before a long run, a ledger that cannot be written.

    Raises:
        OutputError: It is damaged, or there is none and no place for one.
    """
    ledger = ledger_of(folder)
    if ledger.exists():
        from privacy_core.unlearning.ledger import Ledger

        Ledger(ledger)
    elif not os.access(folder.absolute().parent, os.W_OK):
        raise OutputError(
            "MODEL must lie in a folder you can write to, since the ledger of requests is kept "
            f"beside it, got {str(folder)!r}. Copy the model to a place of your own."
        )


def enter_batch(
    folder: Path,
    out: Path,
    *,
    revised: Path,
    forgotten: Sequence[int],
    save: Callable[[dict[str, Any]], str],
) -> None:
    """Enter the requests of a revision as unlearned and save the model, both or neither.

    Args:
        folder: The model that was unlearned from.
        out: The model made.
        revised: The revised data set.
        forgotten: Rows that were unlearned.
        save: Called with what the certificate shall say of the batch; saves the model and returns
            the certificate's digest. Where it fails, the ledger stays as it was.
    """
    from privacy_core.revise.revision import load_revision
    from privacy_core.unlearning.requests import asked_of, record_batch

    revision = load_revision(revised, check_shards=False)
    ledger = ledger_of(folder)
    is_new = not ledger.exists()
    asked = asked_of(revision, forgotten, subjects_of_rows(revised))

    def work(name: str) -> str:
        digest = save({"name": name, "requests": len(asked)})
        where = os.path.relpath(ledger, private_folder(out))
        keep_secret(out, POINTER, as_json({"ledger": where, "batch": name}).encode())
        return digest

    try:
        salt = _salt(ledger)
        record_batch(ledger, asked, digest=str(revision["data_digest"]), salt=salt, work=work)
    except BaseException:
        if is_new:
            ledger.unlink(missing_ok=True)
            (ledger.parent / LEDGER_SALT).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                ledger.parent.rmdir()  # only where nothing else is in it
        raise


def move_requests(folder: Path, state: State, **content: str) -> None:
    """Enter what became of the requests a model was unlearned for, where they are known."""
    found = _pointer(folder)
    if found is None:
        return
    from privacy_core.unlearning.ledger import Ledger
    from privacy_core.unlearning.requests import move_batch

    ledger, batch = found
    if not ledger.exists():
        say(f"The ledger {ledger.name} is not where {folder} says: nothing was entered in it.")
        return
    standing = move_batch(Ledger(ledger), batch, state, **content)
    say(f"{len(standing)} requests of batch {batch} are {state} in the ledger.")


def verify_ledger(folder: Path) -> tuple[str, ...]:
    """Return what was checked of the ledger, in words; nothing where there is none.

    Raises:
        ModelError: Its chain is broken.
    """
    if not ledger_of(folder).exists():
        return ()
    from privacy_core.unlearning.ledger import Ledger

    ledger = Ledger(ledger_of(folder))
    problems = ledger.verify()
    if problems:
        raise ModelError(
            f"The ledger of {folder.name!r} was altered: {' '.join(problems)} Bring it back from "
            "a copy."
        )
    late = len(ledger.overdue())
    say(f"The ledger holds {len(ledger.requests())} requests, {late} of them overdue.")
    return ("the request ledger's chain",)


def _pointer(folder: Path) -> tuple[Path, str] | None:
    """Return ledger and batch that a model points to, None where it points to none."""
    private = private_folder(folder)
    try:
        found = json.loads((private / POINTER).read_text(encoding="utf-8"))
        ledger, batch = Path(os.path.normpath(private / found["ledger"])), str(found["batch"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"{private.name}/{POINTER} must say where the ledger of {folder.name!r} is, got a "
            "damaged file. Bring it back, or remove it to begin another ledger."
        ) from error
    return ledger, batch


def _salt(ledger: Path) -> bytes:
    """Return the salt of a ledger's row tokens, which lies beside it; new for a new ledger."""
    from privacy_core.revise.revision import write_atomically
    from privacy_core.unlearning.certificate import new_salt

    place, salt = ledger.parent / LEDGER_SALT, new_salt()
    try:
        if place.exists():
            return place.read_bytes()
        ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(place, salt, mode=0o600)
    except OSError as error:
        raise OutputError(
            f"The salt of the ledger, {LEDGER_SALT}, cannot be read or written "
            f"({error.strerror or type(error).__name__}). Check the rights and the free space; "
            "nothing was changed."
        ) from error
    return salt


def subjects_of_rows(revised: Path) -> dict[int, str | None]:
    """Return row → pseudonym of a revised data set, nothing where that was erased."""
    from pyarrow import parquet

    from privacy_core.revise.revision import Workplace

    path = Workplace(revised).private / "rows.parquet"
    if not path.is_file():
        return {}
    table = parquet.read_table(path).to_pydict()
    return dict(zip(table["row_id"], table["subject_key"], strict=True))
