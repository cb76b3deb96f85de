"""Taking ratings in: rate."""

from __future__ import annotations

import argparse
import io
import sys

from feedback.commands.shell import (
    DONE,
    REFUSED,
    Commands,
    Surroundings,
    add_store,
    counted,
    open_store,
    print_json,
    say,
)
from feedback.store.intake import Person, take_lines


def add_commands(commands: Commands) -> None:
    """Add rate."""
    rate = commands.add("rate", _rate, "store ratings, one JSON object per line, as they come")
    rate.add_argument("--stdin", action="store_true", required=True, help="read them from stdin")
    add_store(rate)


def _rate(options: argparse.Namespace, surroundings: Surroundings) -> int:
    n_bad = n_stored = 0
    person = Person()
    with open_store(options, surroundings, create=True) as store:
        lines = surroundings.stdin or io.BytesIO()
        for outcome in take_lines(lines, store, person=person, clock=surroundings.clock):
            if outcome.rating_id is None:
                n_bad += 1
                say(f"Line {outcome.line}: {outcome.problem} It was not stored.")
                continue
            n_stored += 1
            if options.json:
                print_json({"rating_id": outcome.rating_id})
            else:
                print(outcome.rating_id)
            # Whoever waits for the acknowledgement must get it now, not with the next block.
            sys.stdout.flush()
    say(
        f"{counted(n_stored, 'rating')} stored, {counted(n_bad, 'line')} refused. Lines without a "
        f"rater_id are by rater {person.rater_id}."
    )
    return REFUSED if n_bad else DONE
