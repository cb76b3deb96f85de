"""Looking after a store: stats, validate, export, erase, sync."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from pathlib import Path

from feedback.commands.shell import (
    DONE,
    REFUSED,
    Commands,
    Surroundings,
    add_remote,
    add_store,
    confirm,
    counted,
    open_store,
    print_json,
    say,
)
from feedback.dataset.export import (
    export_csv,
    export_jsonl,
    export_parquet,
    write_csv,
    write_jsonl,
)
from feedback.errors import InvalidRatingError
from feedback.population.pooling import pool_by_model
from feedback.remote.opening import open_remote
from feedback.store.log import RatingStore
from feedback.sync.loop import Sync

_EXPORTS = {"csv": export_csv, "jsonl": export_jsonl, "parquet": export_parquet}


def add_commands(commands: Commands) -> None:
    """Add stats, validate, export, erase and sync."""
    stats = commands.add(
        "stats", _stats, "count ratings, raters, pages and what waits to be carried"
    )
    stats.add_argument(
        "--population",
        action="store_true",
        help="also what raters have in common: exact, so for your eyes only",
    )
    validate = commands.add(
        "validate", _validate, "check the file and every row, listing all faults"
    )
    export = commands.add("export", _export, "write all ratings to a file")
    export.add_argument("--out", type=Path, metavar="FILE", help="default: stdout, not for parquet")
    export.add_argument(
        "--format", choices=sorted(_EXPORTS), help="default: FILE's ending, or jsonl"
    )
    erase = commands.add("erase", _erase, "remove everything one rater answered, here and remotely")
    erase.add_argument("--rater", required=True, metavar="ID", help="rater_id, 32 digits")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    add_remote(erase, required=False)
    sync = commands.add("sync", _sync, "carry what waits to the Hub, and fetch what is only there")
    sync.add_argument("--restore", action="store_true", help="make the store if it is not there")
    add_remote(sync, required=True)
    for command in (stats, validate, export, erase, sync):
        add_store(command)


def _stats(options: argparse.Namespace, surroundings: Surroundings) -> int:
    with open_store(options, surroundings) as store:
        stats = store.stats()
        pooled = pool_by_model(list(store.ratings())) if options.population else {}
    population = {version: found.as_record() for version, found in pooled.items()}
    if options.json:
        print_json(asdict(stats) | ({"population": population} if options.population else {}))
        return DONE
    print(
        f"{counted(stats.rows, 'rating')} by {counted(stats.raters, 'rater')} on "
        f"{counted(stats.pages, 'page')}, {stats.outbox_rows} of them not yet carried to a "
        f"remote; {counted(stats.tombstones, 'tombstone')}."
    )
    for version, found in population.items():
        print(
            f"{version}: {found['n_raters']} consenting raters prefer {found['mean']:g} "
            f"(sd {found['sd']:g}); {found['weight']:g} of them pay attention."
        )
    if options.population:
        say("These numbers are exact: publish none of them, and choose nobody's strength by them.")
    say(f"Next: python -m feedback export --store {options.store} --out ratings.parquet")
    return DONE


def _validate(options: argparse.Namespace, surroundings: Surroundings) -> int:
    with open_store(options, surroundings) as store:
        problems = list(store.problems())
        rows = store.stats().rows
    if options.json:
        print_json({"rows": rows, "problems": problems})
    else:
        print("\n".join([*problems, f"{rows} rows checked, {len(problems)} faults."]))
    if problems:
        say(
            f"{store.path} must have no faults, got {len(problems)}. Keep a copy of the file, then "
            "erase the raters whose rows cannot be read."
        )
        return REFUSED
    return DONE


def _export(options: argparse.Namespace, surroundings: Surroundings) -> int:
    out: Path | None = options.out
    kind = options.format or ("jsonl" if out is None else out.suffix.removeprefix("."))
    if kind not in _EXPORTS or (out is not None and out.suffix != f".{kind}"):
        raise InvalidRatingError(
            f"`--out` must end in .parquet, .jsonl or .csv and agree with `--format`, got {out}. "
            "Name it ratings.parquet, for example."
        )
    if out is None and (kind == "parquet" or options.json):
        raise InvalidRatingError(
            "`--out` must name a file for parquet and with `--json`, got none. "
            "Add `--out ratings.parquet`."
        )
    with open_store(options, surroundings) as store:
        if out is None:
            (write_csv if kind == "csv" else write_jsonl)(store.ratings(), sys.stdout)
            return DONE
        rows = _EXPORTS[kind](store.ratings(), out)
    if options.json:
        print_json({"rows": rows, "out": str(out), "format": kind})
    say(f"{rows} ratings written to {out}. They name no one, yet are personal data: keep them so.")
    return DONE


def _erase(options: argparse.Namespace, surroundings: Surroundings) -> int:
    rater: str = options.rater
    if not re.fullmatch(r"[0-9a-f]{32}", rater):
        raise InvalidRatingError(
            f"`--rater` must be 32 lower-case hexadecimal digits, got {len(rater)} characters. "
            "Take it from the column rater_id of `export`."
        )
    with open_store(options, surroundings) as store:
        confirm(
            f"Erase everything rater {rater} answered?",
            is_sure=options.yes,
            surroundings=surroundings,
        )
        sync = _sync_of(options, store, surroundings)
        is_elsewhere = sync.health().in_remote_rows > 0
        receipt = sync.erase([rater])
        health = sync.health()
    if options.json:
        print_json({"rows": receipt.rows_local, "receipt": receipt.as_record()})
    say(
        f"{receipt.rows_local} ratings of this rater were erased from {store.path}. "
        f"{receipt.sentence()} Exports and copies made before still have them: delete those too, "
        "and run `publish` again where a public dataset was made."
    )
    if health.keeps and not receipt.is_done:
        say(f"The remote copy is not cleared yet. {health.last_error} Then run `sync`.")
        return REFUSED
    if is_elsewhere and not health.keeps:
        say("Ratings of this store are in a remote too: `sync --repo-id` clears this rater there.")
    return DONE


def _sync(options: argparse.Namespace, surroundings: Surroundings) -> int:
    with open_store(options, surroundings, create=options.restore) as store:
        health = _sync_of(options, store, surroundings).flush()
    if options.json:
        print_json(health.as_record())
    else:
        print(health.sentence())
    return DONE


def _sync_of(options: argparse.Namespace, store: RatingStore, surroundings: Surroundings) -> Sync:
    where = {
        "dataset": options.repo_id,
        "bucket": options.bucket,
        "token": surroundings.token,
        "endpoint": surroundings.endpoint,
    }
    remote = open_remote(**where)
    if store.is_remote_known(remote.name):
        # Missing now, it is not made anew: that would look like a fresh start.
        remote = open_remote(**where, is_known=True)
    return Sync(store, remote)
