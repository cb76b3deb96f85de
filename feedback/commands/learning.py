"""From ratings to strengths: fit."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from feedback.commands.shell import (
    DONE,
    Commands,
    Surroundings,
    check_written,
    counted,
    print_json,
    say,
)
from feedback.commands.sources import Source, account_of, add_source, read_source
from feedback.errors import ReleaseError
from feedback.fit.basis import choose_model, release_for
from feedback.fit.links import read_links
from feedback.fit.preferences import (
    DEFAULT_FLOOR,
    DEFAULT_QUANTILE,
    FitSettings,
    Preferences,
    fit_preferences,
    write_preferences,
)
from feedback.population.account import ACCOUNT_NAME
from feedback.population.pooling import model_version_of, n_from_programs, rows_by_rater
from feedback.population.release import MIN_RATERS, Release, parse_epsilon
from feedback.preference.judgement import histories_of
from feedback.store.log import DATABASE_NAME


@dataclass(frozen=True)
class _LeftOut:
    """Rows that were read and did not count.

    Attributes:
        duplicate: Of linked raters, because the same judgement was there already.
        contradictory: Of linked raters, because they contradict each other.
        incomplete: Of linked raters, of pages of which not every variant, or no choice, is there.
        by_programs: Of any rater: they count for their own rater, not for the population.
        unknown_raters: Linked raters of whom there is no row.
    """

    duplicate: int
    contradictory: int
    incomplete: int
    by_programs: int
    unknown_raters: int


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
    check_written("--out", options.out, suffix=".json", kept=_kept(options))
    links = {} if options.links is None else read_links(options.links)
    source = read_source(options, surroundings)
    model_version = choose_model(source.ratings, options.model_version)
    release = _release(options, source, model_version=model_version, epsilon=epsilon)
    preferences = fit_preferences(
        source.ratings,
        links,
        release=release,
        spent=Fraction(0) if source.account is None else source.account.spent(),
        feedback_revision=source.revision,
        model_version=model_version,
        settings=settings,
        generated_at=surroundings.clock(),
    )
    write_preferences(preferences, options.out)
    left_out = _left_out(source, links, model_version=model_version)
    if options.json:
        _print(options, preferences, left_out)
    if release is not None and release.warning is not None:
        say(release.warning)
    _report(options, preferences, left_out)
    return DONE


def _kept(options: argparse.Namespace) -> dict[str, Path]:
    """Return what the result must not be written over."""
    kept = {"`--account`": options.account, "`--links`": options.links}
    if options.store is not None:
        kept |= {
            "the store": options.store / DATABASE_NAME,
            "the store's account of releases": options.store / ACCOUNT_NAME,
        }
    return {name: path for name, path in kept.items() if path is not None}


def _release(
    options: argparse.Namespace, source: Source, *, model_version: str, epsilon: Fraction | None
) -> Release | None:
    """Return the population's release, None for the public default.

    Raises:
        InvalidRatingError: One would be drawn and accounted for nowhere.
        ReleaseError: One would be drawn from rows of which some may have been withdrawn.
    """
    kept = None if source.account is None else source.account.latest(model_version)
    if kept is None or options.new_release:
        agreed = rows_by_rater(source.ratings, scope="aggregate", model_version=model_version)
        if len(agreed) < MIN_RATERS and not options.new_release:
            return None
        if source.remote is not None:
            say(
                f"A new release must be about raters who have not withdrawn: whom {source.remote} "
                "was asked to erase is known here after `sync` only."
            )
        if source.gaps:
            raise ReleaseError(
                "A new release must be about raters who have not withdrawn, got "
                f"{' and '.join(source.gaps)}. Name the newest revision, all of whose files this "
                "program can read; or draw the release from that first, with the same `--account`."
            )
    return release_for(
        source.ratings,
        account_of(source, options),
        model_version=model_version,
        epsilon=epsilon,
        is_new=options.new_release,
    )


def _left_out(source: Source, links: Mapping[str, str], *, model_version: str) -> _LeftOut:
    linked = set(links.values())
    rows = [row for row in source.ratings if row.rater_id in linked]
    histories = histories_of(row for row in rows if model_version_of(row) == model_version)
    return _LeftOut(
        duplicate=sum(history.n_duplicates for history in histories.values()),
        contradictory=sum(history.n_contradictory for history in histories.values()),
        incomplete=sum(history.n_incomplete for history in histories.values()),
        by_programs=n_from_programs(source.ratings),
        unknown_raters=len(linked - {row.rater_id for row in rows}),
    )


def _print(options: argparse.Namespace, preferences: Preferences, left_out: _LeftOut) -> None:
    counts = asdict(left_out)
    print_json(
        {
            "out": str(options.out),
            "feedback_revision": preferences.feedback_revision,
            "model_version": preferences.model_version,
            "population": preferences.as_record()["population"],
            "subjects": len(preferences.subjects),
            "own": preferences.n_own,
            "unknown_raters": counts.pop("unknown_raters"),
            "left_out": counts,
        }
    )


def _report(options: argparse.Namespace, preferences: Preferences, left_out: _LeftOut) -> None:
    if left_out.unknown_raters:
        say(
            f"{counted(left_out.unknown_raters, 'rater')} of {options.links} without a rating "
            "here; their subjects get the population's strength."
        )
    if left_out.contradictory:
        say(
            f"{counted(left_out.contradictory, 'row')} of linked raters left out: they contradict "
            "each other."
        )
    if left_out.by_programs:
        say(
            f"{counted(left_out.by_programs, 'row')} sent by programs (client api): they count for "
            "their own rater, and not for the population."
        )
    population = preferences.population
    basis = (
        "the public default, as there is no release"
        if population.release is None
        else f"the release {population.release} about {population.n_raters} raters"
    )
    say(
        f"{counted(len(preferences.subjects), 'subject')} written to {options.out}, "
        f"{preferences.n_own} by their rater's own answers; everyone else gets "
        f"{population.strength:g}, from {basis} (ε in all: {population.epsilon:g})."
    )
    say(f"Next: python -m privacy_core revise DATA --preferences {options.out} --out DIR")
