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
    open_store,
    print_json,
    say,
)
from feedback.commands.sources import add_source, read_source
from feedback.population.release import Release
from feedback.publish.cells import K_RATERS, Selection, select
from feedback.remote.dataset_remote import DatasetRemote

_KEY_BYTES = 32


def add_commands(commands: Commands) -> None:
    """Add publish."""
    publish = commands.add("publish", _publish, "replace the public dataset by what may be public")
    publish.add_argument("--repo-id", required=True, metavar="NAME/REPO", help="public repository")
    publish.add_argument("--private", metavar="NAME/REPO", help="refused as the public one")
    publish.add_argument("--variants", type=Path, metavar="DIR", help="pictures to publish too")
    publish.add_argument("--license", default="other", metavar="ID", help="of the data")
    publish.add_argument("--dry-run", action="store_true", help="only count; nothing is sent")
    publish.add_argument("--yes", action="store_true", help="do not ask")
    add_source(publish)


def _publish(options: argparse.Namespace, surroundings: Surroundings) -> int:
    source = read_source(options, surroundings)
    private = _private_repositories(options, surroundings)
    releases = [r for r in source.account.releases() if r.histogram is not None]
    # Used once and kept nowhere: nobody can join public ids with private ones.
    selection = select(source.ratings, key=secrets.token_bytes(_KEY_BYTES))
    if options.dry_run:
        _report(options, selection, releases, revision=None)
        return DONE
    confirm(
        f"Publish {len(selection.rows)} rows of {selection.n_raters} raters as {options.repo_id}, "
        "in place of all that is there? Copies others make cannot be recalled.",
        is_sure=options.yes,
        surroundings=surroundings,
    )
    # Imported here: Arrow and the Hub's client take a second each.
    from feedback.publish.publishing import PublicDatasetRemote, publish  # noqa: PLC0415

    published = publish(
        PublicDatasetRemote(
            options.repo_id, token=surroundings.token, endpoint=surroundings.endpoint
        ),
        selection,
        releases,
        private_repo_ids=private,
        licence=options.license,
        variants=options.variants,
        published_at=surroundings.clock(),
    )
    _report(options, selection, releases, revision=published.revision)
    return DONE


def _private_repositories(options: argparse.Namespace, surroundings: Surroundings) -> list[str]:
    """Return what must not be published to: what is named, read from, or carried to."""
    named = [name for name in (options.private, options.dataset) if name]
    if options.store is None:
        return named
    remote = DatasetRemote(options.repo_id, token=None)
    with open_store(options, surroundings) as store:
        is_carried_to = store.is_remote_known(remote.name)
    return [*named, options.repo_id] if is_carried_to else named


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
        "without_consent": selection.n_without_consent,
        "in_small_cells": selection.n_in_small_cells,
        "releases": len(releases),
    }
    if options.json:
        print_json({"repo_id": options.repo_id, "revision": revision, **counts})
    else:
        print(
            f"{counts['rows']} rows by {counts['raters']} raters in {counts['cells']} cells and "
            f"{counts['releases']} population releases; left out: {counts['without_consent']} rows "
            f"without consent, {counts['in_small_cells']} in cells of fewer than {K_RATERS} raters."
        )
    if revision is None:
        say("Nothing was sent. Run it without `--dry-run` to publish.")
    else:
        say(f"Published as {options.repo_id} at {revision}; earlier revisions are gone.")
