"""`python -m privacy_core`: a thin shell; data on stdout or in files, talk on stderr.

Knows the families of commands in `privacy_core.commands`, and no single command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from privacy_core.commands import (
    anonymization_audit,
    audit,
    crew,
    model,
    photo,
    release,
    revise,
    training,
    unlearning,
)
from privacy_core.commands.output import say
from privacy_core.commands.shell import PROGRAM, Commands, Parser, Run, Tools
from privacy_core.errors import InvalidArgumentError, PrivacyDialError

if TYPE_CHECKING:
    from privacy_core.backends import Backend
    from privacy_core.faces import FaceDetector
    from privacy_core.recognition import Recogniser

_FAMILIES = (photo, model, revise, training, unlearning, audit, anonymization_audit, release)


def main(
    arguments: Sequence[str] | None = None,
    *,
    load_backend: Callable[[str], Backend] | None = None,
    detector: FaceDetector | None = None,
    recogniser: Recogniser | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input or refused.

    Args:
        arguments: The command line; the process's own when None.
        load_backend: Name → backend, in place of `privacy_core.backends.load_backend`.
        detector: In place of the default detector.
        recogniser: In place of dlib's.
        environment: Says which of several processes this is; the process's own when None.
    """
    environment = os.environ if environment is None else environment
    try:
        options = _parser().parse_args(arguments)
        run: Run = options.run
        n_processes = crew.size_of(environment)
        if n_processes > 1 and not options.shares_work:
            raise InvalidArgumentError(
                f"`{options.command}` must be run by one process, got {n_processes}. Start it with "
                f"`{PROGRAM}` alone."
            )
        with crew.joined(environment) as members:
            run(options, Tools(load_backend, detector, recogniser, members))
    except PrivacyDialError as error:
        say(" ".join(str(error).split()))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description="Anonymize the faces of a photo.", allow_abbrev=False)
    commands = Commands(parser)
    for family in _FAMILIES:
        family.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
