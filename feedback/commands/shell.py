"""What the commands share: surroundings, arguments, data and talk; knows no single command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from feedback.errors import InvalidRatingError
from feedback.store.log import DATABASE_NAME, RatingStore

PROGRAM = "python -m feedback"
DONE, REFUSED = 0, 2


@dataclass(frozen=True)
class Surroundings:
    """What a command is given beside its arguments.

    Attributes:
        token: For the Hub, from HF_TOKEN; None without one.
        endpoint: Another Hub's address, from HF_ENDPOINT; None for the usual one.
        stdin: Bytes that are piped in.
        clock: Gives the time in UTC.
    """

    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    stdin: BinaryIO | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


Run = Callable[[argparse.Namespace, Surroundings], int]
"""What a command does with its options; returns the exit code."""


class Commands:
    """The commands of one program; each family of commands adds its own."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        """Prepare `parser` for commands."""
        self._made = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        """Add one command with `--json` and return its parser, for its arguments.

        Args:
            name: As it is typed.
            run: Called with the options.
            text: What it does, in the imperative, without a full stop.
        """
        made = self._made.add_parser(
            name,
            help=text,
            description=f"{text[:1].upper()}{text[1:]}.",
            allow_abbrev=False,
        )
        made.add_argument("--json", action="store_true", help="print the result as a JSON object")
        made.set_defaults(run=run)
        return made


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the store's folder."""
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="store folder")


def add_remote(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add where rows are carried to."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--repo-id", metavar="NAME/REPO", help="private dataset repository")
    where.add_argument("--bucket", metavar="NAME/BUCKET", help="private storage bucket")


def open_store(
    options: argparse.Namespace, surroundings: Surroundings, *, create: bool = False
) -> RatingStore:
    """Open the store of `--store`; a typing error makes no store."""
    return RatingStore(options.store / DATABASE_NAME, create=create, clock=surroundings.clock)


def confirm(question: str, *, is_sure: bool, surroundings: Surroundings) -> None:
    """Ask on stderr, so that stdout stays data, and refuse any answer but `yes`.

    Args:
        question: What would be done, ending in "?".
        is_sure: Whether `--yes` was given.
        surroundings: Where the answer is read from.
    """
    if is_sure:
        return
    sys.stderr.write(f"{question} Type yes: ")
    sys.stderr.flush()
    answer = b"" if surroundings.stdin is None else surroundings.stdin.readline(64)
    if answer.decode(errors="replace").strip().lower() != "yes":
        raise InvalidRatingError(
            "It must be confirmed with `yes`, got another answer. Nothing was changed; "
            "answer `yes`, or add `--yes`."
        )


def check_written(argument: str, path: Path, *, suffix: str, kept: Mapping[str, Path]) -> None:
    """Refuse to write a result over something else.

    Args:
        argument: Such as `--out`.
        path: The file that would be replaced.
        suffix: What its name must end in.
        kept: What must not be replaced, by what it is called.

    Raises:
        InvalidRatingError: The name ends otherwise, or it is one of `kept`.
    """
    if path.suffix != suffix:
        raise InvalidRatingError(
            f"`{argument}` must end in {suffix}, got {path}. Name another file."
        )
    for name, other in kept.items():
        if path.resolve() == other.resolve():
            raise InvalidRatingError(
                f"`{argument}` must be another file than {name}, got {path} for both. It would be "
                "overwritten; name another file."
            )


def counted(number: int, noun: str) -> str:
    """Return how many there are of something: "1 row", "2 rows"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(record, ensure_ascii=False))


def say(sentence: str) -> None:
    """Talk on stderr."""
    print(sentence, file=sys.stderr)
