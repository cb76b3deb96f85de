"""Raters whose taste is known: simulate, to see how well it is found, or to fill a store."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import asdict
from pathlib import Path

from feedback.columns import CONSENT_SCOPES
from feedback.commands.shell import (
    DONE,
    Commands,
    Surroundings,
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
    into.add_argument("--consent-scope", choices=CONSENT_SCOPES, default="aggregate")
    into.add_argument("--method", default="embedded", help="backend; %(default)s")
    into.add_argument("--model-revision", default="simulated", help="%(default)s")


def _simulate(options: argparse.Namespace, surroundings: Surroundings) -> int:
    if (options.subjects is None) != (options.links_out is None):
        raise InvalidRatingError(
            "`--subjects` and `--links-out` must be given together, got one alone. The links say "
            "whose dial governs whose faces."
        )
    if options.store is not None:
        return _into_store(options, surroundings)
    if options.subjects is not None:
        raise InvalidRatingError(
            "`--links-out` must be given with `--store`, got it without. Add `--store DIR`."
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
    study = SimulatedStudy(
        n_raters=options.raters,
        n_pages=options.answers,
        seed=options.seed,
        started_at=surroundings.clock(),
        method=options.method,
        model_revision=options.model_revision,
        n_photos=options.photos or 1,
        select=options.select,
    )
    subjects = () if options.subjects is None else read_subjects(options.subjects)
    consent = Consent(_CONSENT_VERSION, options.consent_scope)
    key = hashlib.sha256(f"simulated|{options.seed}".encode()).digest()
    n_rows = 0
    with open_store(options, surroundings, create=True) as store:
        for page, rows in simulated_pages(study, key=key, consent=consent):
            store.add_page(page, rows)
            n_rows += len(rows)
    raters = study_raters(study)
    if options.links_out is not None:
        write_links(
            options.links_out,
            [(raters[i % len(raters)].rater_id, name) for i, name in enumerate(subjects)],
        )
    if options.json:
        print_json({"rows": n_rows, "raters": len(raters), "subjects": len(subjects)})
    say(f"{n_rows} ratings by {len(raters)} simulated raters are in {options.store}.")
    links = "" if options.links_out is None else f" --links {options.links_out}"
    say(f"Next: python -m feedback fit --store {options.store}{links} --out preferences.json")
    return DONE


def _table(result: SimulationResult) -> str:
    lines = ["answers  rmse   coverage90"]
    lines += [
        f"{n:7}  {rmse:.3f}  {coverage:.3f}"
        for n, (rmse, coverage) in enumerate(zip(result.rmse, result.coverage90, strict=True))
    ]
    return "\n".join(lines)
