"""From ratings to strengths: fit."""

from __future__ import annotations

import argparse
from pathlib import Path

from feedback.commands.shell import DONE, Commands, Surroundings, print_json, say
from feedback.commands.sources import add_source, read_source
from feedback.fit.links import read_links
from feedback.fit.preferences import (
    DEFAULT_FLOOR,
    DEFAULT_QUANTILE,
    FitSettings,
    Preferences,
    choose_model,
    fit_preferences,
    release_for,
    write_preferences,
)
from feedback.population.account import ACCOUNT_NAME
from feedback.population.pooling import model_version_of
from feedback.population.release import parse_epsilon


def add_commands(commands: Commands) -> None:
    """Add fit."""
    fit_ = commands.add("fit", _fit, "decide every linked subject's strength from the ratings")
    fit_.add_argument("--links", type=Path, metavar="CSV", help="columns rater_id,subject")
    fit_.add_argument("--out", type=Path, required=True, metavar="JSON", help="preferences.json")
    fit_.add_argument("--epsilon", metavar="E", help="what a new population release costs; 1")
    fit_.add_argument("--new-release", action="store_true", help="draw another, though one is kept")
    fit_.add_argument(
        "--floor",
        type=float,
        default=DEFAULT_FLOOR,
        metavar="F",
        help="least strength; %(default)s",
    )
    fit_.add_argument(
        "--quantile", type=float, default=DEFAULT_QUANTILE, metavar="Q", help="%(default)s"
    )
    fit_.add_argument("--model-version", metavar="V", help="needed where there are several")
    add_source(fit_)


def _fit(options: argparse.Namespace, surroundings: Surroundings) -> int:
    settings = FitSettings(floor=options.floor, quantile=options.quantile)
    epsilon = None if options.epsilon is None else parse_epsilon(options.epsilon)
    links = {} if options.links is None else read_links(options.links)
    source = read_source(options, surroundings, account=options.out.parent / ACCOUNT_NAME)
    model_version = choose_model(source.ratings, options.model_version)
    ratings = [row for row in source.ratings if model_version_of(row) == model_version]
    release = release_for(
        ratings,
        source.account,
        model_version=model_version,
        epsilon=epsilon,
        is_new=options.new_release,
    )
    preferences = fit_preferences(
        ratings,
        links,
        release=release,
        spent=source.account.spent(),
        feedback_revision=source.revision,
        model_version=model_version,
        settings=settings,
        generated_at=surroundings.clock(),
    )
    write_preferences(preferences, options.out)
    known = {row.rater_id for row in source.ratings}
    _report(options, preferences, n_unknown=len(set(links.values()) - known))
    return DONE


def _report(options: argparse.Namespace, preferences: Preferences, *, n_unknown: int) -> None:
    own = sum(found.source == "own" for found in preferences.subjects.values())
    if n_unknown:
        say(
            f"{n_unknown} raters of {options.links} have no rating here; their subjects get the "
            "population's strength."
        )
    if options.json:
        print_json(
            {
                "out": str(options.out),
                "feedback_revision": preferences.feedback_revision,
                "model_version": preferences.model_version,
                "population": preferences.as_record()["population"],
                "subjects": len(preferences.subjects),
                "own": own,
                "unknown_raters": n_unknown,
            }
        )
    population = preferences.population
    basis = (
        "the public default, as there is no release"
        if population.release is None
        else f"the release {population.release} about {population.n_raters} raters"
    )
    say(
        f"{len(preferences.subjects)} subjects written to {options.out}, {own} by their rater's "
        f"own answers; everyone else gets {population.strength:g}, from {basis} "
        f"(ε in all: {population.epsilon:g})."
    )
    say(f"Next: python -m privacy_core revise DATA --preferences {options.out} --out DIR")
