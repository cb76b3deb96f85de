"""Making public what may be public: publish."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from feedback.commands.shell import (
    DONE,
    Commands,
    Surroundings,
    confirm,
    counted,
    print_json,
    say,
)
from feedback.commands.sources import Source, account_of, add_source, read_source
from feedback.errors import InvalidRatingError
from feedback.population.release import Release
from feedback.publish.cells import K_RATERS, Selection, select

_KEY_BYTES = 32


def add_commands(commands: Commands) -> None:
    """Add publish."""
    publish = commands.add("publish", _publish, "replace the public dataset by what may be public")
    publish.add_argument("--repo-id", required=True, metavar="NAME/REPO", help="public repository")
    publish.add_argument("--private", metavar="NAME/REPO", help="refused as the public one")
    publish.add_argument("--variants", type=Path, metavar="DIR", help="pictures to publish too")
    publish.add_argument("--license", default="other", metavar="ID", help="of the data")
    publish.add_argument("--dry-run", action="store_true", help="only count, publish nothing")
    publish.add_argument("--yes", action="store_true", help="do not ask")
    add_source(publish)


def _publish(options: argparse.Namespace, surroundings: Surroundings) -> int:
    # Imported here: Arrow and the Hub's client take a second each.
    from feedback.publish.publication import publication_files  # noqa: PLC0415
    from feedback.publish.publishing import (  # noqa: PLC0415
        check_target,
        public_dataset,
        publish,
    )

    remote = public_dataset(
        options.repo_id, token=surroundings.token, endpoint=surroundings.endpoint
    )
    source = read_source(options, surroundings, is_to_publish=True)
    private = _private_repositories(options, source)
    check_target(options.repo_id, private)
    _check_complete(source)
    releases = [r for r in account_of(source, options).releases() if r.histogram is not None]
    # Used once and kept nowhere: nobody can join public ids with private ones.
    selection = select(source.ratings, key=secrets.token_bytes(_KEY_BYTES))
    files = publication_files(
        selection,
        releases,
        name=options.repo_id,
        licence=options.license,
        variants=options.variants,
        published_at=surroundings.clock(),
    )
    if options.dry_run:
        _report(options, selection, releases, revision=None)
        _say_what_was_sent(source)
        return DONE
    confirm(
        f"Publish {counted(len(selection.rows), 'row')} of {counted(selection.n_raters, 'rater')} "
        f"as {options.repo_id}, in place of all that is there? Copies others make cannot be "
        "recalled.",
        is_sure=options.yes,
        surroundings=surroundings,
    )
    published = publish(remote, files, private_repo_ids=private)
    _report(options, selection, releases, revision=published.revision)
    say(f"Published as {options.repo_id} at {published.revision}; earlier revisions are gone.")
    return DONE


def _private_repositories(options: argparse.Namespace, source: Source) -> list[str]:
    """Return what must not be published to: what is named, read from, or carried to."""
    named = [name for name in (options.private, options.dataset) if name]
    # A remote's name ends in that of its repository.
    carried_to = [] if source.remote is None else [source.remote.rpartition(" ")[2]]
    return [*named, *carried_to]


def _check_complete(source: Source) -> None:
    """Refuse rows of which some may have been withdrawn where this source does not know it.

    Raises:
        InvalidRatingError: Such a source.
    """
    if source.gaps:
        raise InvalidRatingError(
            "What is published must lack everyone who has withdrawn, got "
            f"{' and '.join(source.gaps)}. Publish the newest revision (`--revision main`), all of "
            "whose files this program can read."
        )


def _report(
    options: argparse.Namespace,
    selection: Selection,
    releases: list[Release],
    *,
    revision: str | None,
) -> None:
    counts = {
        "rows": len(selection.rows),
        "raters": selection.n_raters,
        "cells": selection.n_cells,
        "from_programs": selection.n_from_programs,
        "without_consent": selection.n_without_consent,
        "in_small_cells": selection.n_in_small_cells,
        "releases": len(releases),
    }
    if options.json:
        print_json({"repo_id": options.repo_id, "revision": revision, **counts})
    else:
        print(
            f"{counted(counts['rows'], 'row')} by {counted(counts['raters'], 'rater')} in "
            f"{counted(counts['cells'], 'cell')} and "
            f"{counted(counts['releases'], 'population release')}; left out: "
            f"{counted(counts['without_consent'], 'row')} without consent, "
            f"{counts['in_small_cells']} in cells of fewer than {K_RATERS} raters, "
            f"{counts['from_programs']} sent by programs."
        )


def _say_what_was_sent(source: Source) -> None:
    """Say what a dry run did: a store that is carried somewhere was synced to be read."""
    sent = "Nothing was sent."
    if source.remote is not None:
        sent = f"Nothing was published; what waited may have been copied to {source.remote}."
    say(f"{sent} Run it without `--dry-run` to publish.")
