"""`python -m feedback`: a thin shell over the store; data on stdout, talk on stderr."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from feedback.dataset import export_jsonl, export_parquet, write_jsonl
from feedback.errors import FeedbackError, InvalidRatingError
from feedback.store import DATABASE_NAME, RatingStore


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input or refused."""
    options = _parser().parse_args(arguments)
    run: Callable[[RatingStore, argparse.Namespace], int] = options.run
    try:
        with RatingStore(options.store / DATABASE_NAME, create=False) as store:
            return run(store, options)
    except FeedbackError as error:
        _say(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m feedback", description="Count, check, export and erase stored ratings."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[RatingStore, argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        made.add_argument("--store", type=Path, required=True, metavar="DIR", help="store folder")
        made.add_argument("--json", action="store_true", help="print the result as a JSON object")
        made.set_defaults(run=run)
        return made

    command("stats", _stats, "count ratings, raters, pages and what waits for a remote")
    command("validate", _validate, "check the file and every row, listing all faults")
    export = command("export", _export, "write all ratings to a file")
    export.add_argument("--out", type=Path, metavar="FILE", help="default: JSON lines on stdout")
    export.add_argument("--format", choices=("parquet", "jsonl"), help="default: FILE's ending")
    erase = command("erase", _erase, "remove everything one rater answered")
    erase.add_argument("--rater", required=True, metavar="ID", help="rater_id, 32 digits")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _stats(store: RatingStore, options: argparse.Namespace) -> int:
    stats = store.stats()
    if options.json:
        print(json.dumps(asdict(stats)))
        return 0
    print(
        f"{stats.rows} ratings by {stats.raters} raters on {stats.pages} pages, {stats.outbox_rows}"
        f" of them not yet carried to a remote; {stats.tombstones} tombstones."
    )
    _say(f"Next: python -m feedback export --store {options.store} --out ratings.parquet")
    return 0


def _validate(store: RatingStore, options: argparse.Namespace) -> int:
    problems = list(store.problems())
    rows = store.stats().rows
    if options.json:
        print(json.dumps({"rows": rows, "problems": problems}))
    else:
        print("\n".join([*problems, f"{rows} rows checked, {len(problems)} faults."]))
    if problems:
        _say(
            f"{store.path} must have no faults, got {len(problems)}. Keep a copy of the file, then "
            "erase the raters whose rows cannot be read."
        )
        return 2
    return 0


def _export(store: RatingStore, options: argparse.Namespace) -> int:
    out: Path | None = options.out
    kind = options.format or ("jsonl" if out is None else out.suffix.removeprefix("."))
    if kind not in ("parquet", "jsonl") or (out is not None and out.suffix != f".{kind}"):
        raise InvalidRatingError(
            f"`--out` must end in .parquet or .jsonl and agree with `--format`, got {out}. "
            "Name it ratings.parquet, for example."
        )
    if out is None:
        if kind == "parquet" or options.json:
            raise InvalidRatingError(
                "`--out` must name a file for parquet and with `--json`, got none. "
                "Add `--out ratings.parquet`."
            )
        write_jsonl(store.ratings(), sys.stdout)
        return 0
    rows = (export_parquet if kind == "parquet" else export_jsonl)(store.ratings(), out)
    if options.json:
        print(json.dumps({"rows": rows, "out": str(out), "format": kind}))
    _say(f"{rows} ratings written to {out}. They name no one, yet are personal data: keep them so.")
    return 0


def _erase(store: RatingStore, options: argparse.Namespace) -> int:
    rater: str = options.rater
    if not re.fullmatch(r"[0-9a-f]{32}", rater):
        raise InvalidRatingError(
            f"`--rater` must be 32 lower-case hexadecimal digits, got {len(rater)} characters. "
            "Take it from the column rater_id of `export`."
        )
    if not options.yes and not _is_confirmed(rater):
        raise InvalidRatingError(
            "Erasing must be confirmed with `yes`, got another answer. Nothing was erased; "
            "answer `yes`, or add `--yes`."
        )
    rows = store.erase_rater(rater)
    if options.json:
        print(json.dumps({"rows": rows}))
    _say(
        f"{rows} ratings of this rater were erased from {store.path}. Exports and copies made "
        "before still have them: delete those too."
    )
    return 0


def _is_confirmed(rater: str) -> bool:
    """Ask on stderr, so that stdout stays data."""
    sys.stderr.write(f"Erase everything rater {rater} answered? Type yes: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "yes"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
