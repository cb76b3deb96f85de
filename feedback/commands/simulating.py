"""Raters whose taste is known: simulate, to see how well it is found, or to fill a store."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from feedback.columns import CONSENT_SCOPES, ConsentScope
from feedback.commands.shell import (
    DONE,
    Commands,
    Surroundings,
    check_written,
    counted,
    open_store,
    print_json,
    say,
)
from feedback.errors import InvalidRatingError
from feedback.fit.links import read_subjects, write_links
from feedback.page import Consent
from feedback.simulate.rows import SimulatedStudy, simulated_pages, study_raters
from feedback.simulate.run import SimulationResult, SimulationSettings, run_simulation

_CONSENT_VERSION = "simulated"
_CONSENT_SCOPE: ConsentScope = "aggregate"
_METHOD, _MODEL_REVISION = "embedded", "simulated"
_STARTED_AT = datetime(2025, 1, 1, tzinfo=UTC)
"""When simulated raters begin: with the time of the day no seed would make the same rows again."""
_RATERS, _ANSWERS = 200, 20
_RESPONSES = ("jar5", "best_of_n", "likert5", "binary")


def add_commands(commands: Commands) -> None:
    """Add simulate."""
    simulate = commands.add("simulate", _simulate, "simulate raters, in memory or into a store")
    for name, default, text in (
        ("--raters", _RATERS, "how many; %(default)s"),
        ("--answers", _ANSWERS, "of each; into a store, pages answered by each; %(default)s"),
        ("--seed", 0, "makes it repeatable; %(default)s"),
        ("--photos", None, "over how many photos the answers are spread"),
    ):
        simulate.add_argument(name, type=int, default=default, metavar="N", help=text)
    simulate.add_argument("--response", choices=_RESPONSES, help="the question; jar5")
    simulate.add_argument("--select", choices=("active", "random"), default="active")
    into = simulate.add_argument_group("into a store")
    into.add_argument("--store", type=Path, metavar="DIR", help="store folder, made if missing")
    into.add_argument("--subjects", metavar="FILE|N", help="whose faces: one name a line, or N")
    into.add_argument("--links-out", type=Path, metavar="CSV", help="who rates for whom")
    into.add_argument("--consent-scope", choices=CONSENT_SCOPES, help=_CONSENT_SCOPE)
    into.add_argument("--method", metavar="M", help=f"backend; {_METHOD}")
    into.add_argument("--model-revision", metavar="R", help=_MODEL_REVISION)


def _simulate(options: argparse.Namespace, surroundings: Surroundings) -> int:
    if (options.subjects is None) != (options.links_out is None):
        raise InvalidRatingError(
            "`--subjects` and `--links-out` must be given together, got one alone. The links say "
            "whose dial governs whose faces."
        )
    if options.store is not None:
        return _into_store(options, surroundings)
    for name in ("subjects", "consent_scope", "method", "model_revision"):
        if getattr(options, name) is not None:
            raise InvalidRatingError(
                f"`--{name.replace('_', '-')}` must be given with `--store`, got it without. Add "
                "`--store DIR`."
            )
    result = run_simulation(
        SimulationSettings(
            n_raters=options.raters,
            n_answers=options.answers,
            seed=options.seed,
            response=options.response or "jar5",
            select=options.select,
            n_photos=options.photos,
        )
    )
    if options.json:
        print_json(asdict(result))
    else:
        print(_table(result))
    return DONE


def _into_store(options: argparse.Namespace, surroundings: Surroundings) -> int:
    if options.response is not None:
        raise InvalidRatingError(
            "`--response` must be left out with `--store`, got it. Pages are answered as in the "
            "app: the best of four, then whether it is just right."
        )
    subjects = () if options.subjects is None else read_subjects(options.subjects)
    if options.links_out is not None:
        _check_links(options)
    study = SimulatedStudy(
        n_raters=options.raters,
        n_pages=options.answers,
        seed=options.seed,
        started_at=_STARTED_AT,
        method=options.method or _METHOD,
        model_revision=options.model_revision or _MODEL_REVISION,
        n_photos=1 if options.photos is None else options.photos,
        select=options.select,
    )
    n_rows = _fill(study, options, surroundings)
    raters = study_raters(study)
    if options.links_out is not None:
        write_links(
            options.links_out,
            [(raters[i % len(raters)].rater_id, name) for i, name in enumerate(subjects)],
        )
    if options.json:
        print_json({"rows": n_rows, "raters": len(raters), "subjects": len(subjects)})
    say(
        f"{counted(n_rows, 'rating')} by {counted(len(raters), 'simulated rater')} now in "
        f"{options.store}."
    )
    links = "" if options.links_out is None else f" --links {options.links_out}"
    say(f"Next: python -m feedback fit --store {options.store}{links} --out preferences.json")
    return DONE


def _check_links(options: argparse.Namespace) -> None:
    """Refuse, before anything is stored, links that could not be written after it."""
    out: Path = options.links_out
    check_written("--links-out", out, suffix=".csv", kept={"`--subjects`": Path(options.subjects)})
    # A new store makes its own folder, and those above it.
    store = options.store.absolute()
    if not out.parent.is_dir() and out.absolute().parent not in (store, *store.parents):
        raise InvalidRatingError(
            f"`--links-out` must be a file in a folder that is there, got {out}. Make the folder, "
            "or name another file."
        )


def _fill(study: SimulatedStudy, options: argparse.Namespace, surroundings: Surroundings) -> int:
    """Put the study's pages into the store and return how many rows."""
    consent = Consent(_CONSENT_VERSION, options.consent_scope or _CONSENT_SCOPE)
    key = hashlib.sha256(f"simulated|{study.seed}".encode()).digest()
    n_rows = 0
    with open_store(options, surroundings, create=True) as store:
        for page, rows in simulated_pages(study, key=key, consent=consent):
            store.add_page(page, rows)
            n_rows += len(rows)
    return n_rows


def _table(result: SimulationResult) -> str:
    lines = ["answers  rmse   coverage90"]
    lines += [
        f"{n:7}  {rmse:.3f}  {coverage:.3f}"
        for n, (rmse, coverage) in enumerate(zip(result.rmse, result.coverage90, strict=True))
    ]
    return "\n".join(lines)
