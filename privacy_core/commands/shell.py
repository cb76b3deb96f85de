"""What the commands share: the parser's manners, DATA, numbers and lists from a command line.

Knows no single command. Imports of a command stand in the command, here too: torch, dlib and
`datasets` take seconds that `--help` must not.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from privacy_core.commands.output import Progress, say
from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.backends import Backend
    from privacy_core.dataset import RowSource
    from privacy_core.faces import FaceDetector
    from privacy_core.recognition import Recogniser
    from privacy_core.schema import AttributePolicy

PROGRAM = "python -m privacy_core"


@dataclass(frozen=True)
class Tools:
    """Collaborators; what was not given is made when a command first needs it."""

    given_load_backend: Callable[[str], Backend] | None
    given_detector: FaceDetector | None
    given_recogniser: Recogniser | None
    crew: Crew = field(default_factory=Crew)

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal, once for all processes of a run."""
        if self.crew.is_first:
            say(sentence)

    def progress(self) -> Callable[[str, int, int], None]:
        """Return what shows progress, one bar for all processes of a run."""
        return Progress() if self.crew.is_first else lambda _stage, _done, _total: None

    def load_backend(self, name: str, *, accept_licence: bool = False) -> Backend:
        """Return a backend by name; a model of the Hub measures and repairs what it makes."""
        from privacy_core.backends import HUB_MODELS, HubTools, load_backend
        from privacy_core.backends.registry import chosen

        if name.partition("@")[0] not in HUB_MODELS:
            return (self.given_load_backend or load_backend)(name)
        chosen(name, accept_licence=accept_licence)
        if self.given_load_backend is not None:
            return self.given_load_backend(name)
        tools = HubTools(recogniser=self.recogniser(), report=self.progress())
        return load_backend(name, accept_licence=accept_licence, tools=tools)

    def detector(self) -> FaceDetector:
        """Return what finds faces."""
        from privacy_core.faces import default_detector

        return self.given_detector or default_detector()

    def finder(self) -> FaceDetector:
        """Return what says whether a picture of one large face still shows it."""
        from privacy_core.faces import finder_of_one

        return self.given_detector or finder_of_one(self.detector())

    def recogniser(self, name: str = "dlib") -> Recogniser:
        """Return what measures identity distances; `name` as `find_recogniser` takes it."""
        from privacy_core.recognition import find_recogniser

        return self.given_recogniser or find_recogniser(name)

    def recognisers(self, name: str = "dlib") -> tuple[Recogniser, ...]:
        """Return the one named and, beside it, the project's own where that is another."""
        from privacy_core.recognition import MARGIN, find_recogniser

        first = self.recogniser(name)
        alone = self.given_recogniser is not None or name == MARGIN
        return (first,) if alone else (first, find_recogniser(MARGIN))


Run = Callable[[argparse.Namespace, Tools], None]
"""What a command does with its options."""


class Parser(argparse.ArgumentParser):
    """A parser that refuses as the package does."""

    def error(self, message: str) -> NoReturn:
        """Refuse in one sentence, as every other refusal; exit 2 comes from `main`."""
        raise InvalidArgumentError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


class Commands:
    """The commands of one program; each family of commands adds its own.

    Args:
        parser: The program's parser.
    """

    def __init__(self, parser: Parser) -> None:
        self._made = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(
        self, name: str, run: Run, text: str, *, shares_work: bool = False
    ) -> argparse.ArgumentParser:
        """Add one command and return its parser, for its arguments.

        Args:
            name: As it is typed.
            run: Called with the options.
            text: What it does, in the imperative, without a full stop.
            shares_work: Several processes may run it together.
        """
        made = self._made.add_parser(
            name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False
        )
        made.set_defaults(run=run, command=name, shares_work=shares_work)
        return made


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add DATA and what says how to read it."""
    parser.add_argument("data", metavar="DATA", help="parquet, pictures, save_to_disk or Hub id")
    parser.add_argument("--revision", metavar="R", help="of a Hub id")
    parser.add_argument("--split", metavar="NAME", help="where DATA has several")
    parser.add_argument("--image-column", default="image", metavar="NAME")


def add_recogniser(parser: argparse.ArgumentParser) -> None:
    """Add what names the recogniser that measures."""
    parser.add_argument(
        "--recogniser", default="dlib", metavar="NAME",
        help="dlib, margin, or MODULE:FUNCTION that returns your own",
    )  # fmt: skip


def add_making(parser: argparse.ArgumentParser) -> None:
    """Add what says how faces are made: attributes and the backend."""
    add = parser.add_argument
    add("--keep", action="append", default=[], metavar="A,B", help="attributes to protect")
    add("--hide", action="append", default=[], metavar="A,B", help="attributes to remove")
    add("--set", action="append", default=[], metavar="A=V", help="attributes to ask for")
    add_backend(parser)
    add("--model", metavar="DIR", help="model folder of `fit-model` (default: the shipped one)")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add what names the backend."""
    add = parser.add_argument
    add("--backend", default="embedded", metavar="NAME", help="NAME or NAME@SHA, see `backends`")
    add("--accept-licence", action="store_true", help="agree to a licence that limits use")


def rows_of(options: argparse.Namespace, *, split: str | None = None) -> RowSource:
    """Open DATA, or another split of it."""
    from privacy_core.dataset import read_dataset

    return read_dataset(
        options.data,
        image_column=options.image_column,
        revision=options.revision,
        split=options.split if split is None else split,
    )


def backend_of(options: argparse.Namespace, tools: Tools) -> Backend:
    """Return the backend of `--backend`, or the model folder of `--model`."""
    if options.model is None:
        return tools.load_backend(options.backend, accept_licence=options.accept_licence)
    if options.backend != "embedded":
        raise InvalidArgumentError(
            f"`--model` must go with the backend embedded, got {options.backend!r}. Leave one out."
        )
    from privacy_core.backends.embedded import EmbeddedBackend

    return EmbeddedBackend.load(Path(options.model))


def policy_of(options: argparse.Namespace) -> AttributePolicy:
    """Return the treatment of attributes."""
    from privacy_core.schema import ATTRIBUTES, AttributePolicy

    wanted: dict[str, str] = {}
    for item in items_of(options.set):
        name, equals, value = item.partition("=")
        if not equals or name in wanted:
            raise InvalidArgumentError(
                f"`--set` must give each attribute one value, as in eyeglasses=yes, got {item!r}."
            )
        wanted[name] = value
    keep, hide = tuple(items_of(options.keep)), tuple(items_of(options.hide))
    for argument, names in (("--keep", keep), ("--hide", hide), ("--set", tuple(wanted))):
        unknown = [name for name in names if name not in ATTRIBUTES]
        if unknown:
            raise InvalidArgumentError(
                f"`{argument}` must name attributes among {', '.join(ATTRIBUTES)}, got "
                f"{unknown[0]!r}."
            )
    return AttributePolicy(keep, hide, wanted)


def items_of(lists: Sequence[str]) -> list[str]:
    """Return the items of lists written with commas."""
    return [item.strip() for items in lists for item in items.split(",")]


def whole_number(value: str | int, argument: str, *, at_least: int | None = None) -> int:
    """Return an option as a whole number."""
    try:
        number = int(value)
    except ValueError:
        number = None
    if number is None or (at_least is not None and number < at_least):
        rule = "" if at_least is None else f" of at least {at_least}"
        raise InvalidArgumentError(
            f"`{argument}` must be a whole number{rule}, got {value!r}. Write it in digits."
        )
    return number


def positive_number(value: str, argument: str) -> float:
    """Return an option as a positive, finite number."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise InvalidArgumentError(
            f"`{argument}` must be a positive number, got {value!r}. Write it in digits."
        )
    return number
