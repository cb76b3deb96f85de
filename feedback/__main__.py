"""`python -m feedback`: a thin shell; data on stdout or in files, talk on stderr.

Knows the families of commands in `feedback.commands`, and no single command.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from feedback.commands import learning, publishing, rating, simulating, upkeep
from feedback.commands.shell import DONE, PROGRAM, REFUSED, Commands, Run, Surroundings, say
from feedback.errors import FeedbackError

_FAMILIES = (rating, learning, simulating, upkeep, publishing)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input or refused."""
    options = _parser().parse_args(arguments)
    surroundings = Surroundings(
        token=os.environ.get("HF_TOKEN") or None,
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        stdin=getattr(sys.stdin, "buffer", None),
    )
    run: Run = options.run
    try:
        return run(options, surroundings)
    except FeedbackError as error:
        say(str(error))
        return REFUSED
    except BrokenPipeError:
        # Whoever read stdout has seen enough, as `head` does; nothing is left to tell them, nor to
        # Python, which would flush once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Collect ratings, learn preferences from them, carry, publish and erase them.",
        allow_abbrev=False,
    )
    commands = Commands(parser)
    for family in _FAMILIES:
        family.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
