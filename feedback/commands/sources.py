"""Where rows are read from: a store, or a revision of a dataset repository."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from feedback.commands.shell import Surroundings, open_store, say
from feedback.errors import InvalidRatingError
from feedback.fit.preferences import digest_of
from feedback.population.account import ACCOUNT_NAME, ReleaseAccount
from feedback.schema import Rating


@dataclass(frozen=True)
class Source:
    """Rows and where they come from.

    Attributes:
        ratings: All rows.
        revision: Commit of the repository, or digest of the store's rows.
        account: Of the releases made from them.
    """

    ratings: tuple[Rating, ...]
    revision: str
    account: ReleaseAccount


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add where rows are read from and where releases are accounted for."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--store", type=Path, metavar="DIR", help="store folder")
    where.add_argument("--dataset", metavar="NAME/REPO", help="dataset repository on the Hub")
    parser.add_argument("--revision", metavar="SHA", help="of --dataset; has no default")
    parser.add_argument(
        "--account",
        type=Path,
        metavar="FILE",
        help=f"account of releases; default: {ACCOUNT_NAME} in the store, or beside --out",
    )


def read_source(
    options: argparse.Namespace, surroundings: Surroundings, *, account: Path | None = None
) -> Source:
    """Read all rows.

    Args:
        options: From `add_source`.
        surroundings: Token and endpoint.
        account: Where releases from a data set are accounted for unless `--account` says it.

    Raises:
        InvalidRatingError: The options do not fit each other.
    """
    if (options.dataset is None) != (options.revision is None):
        raise InvalidRatingError(
            "`--revision` must be given with `--dataset` and only with it, got one alone. Name "
            "the commit, so that the result can be made again."
        )
    if options.dataset is None:
        path = options.account or options.store / ACCOUNT_NAME
        with open_store(options, surroundings) as store:
            ratings = tuple(store.ratings())
        return Source(ratings, digest_of(ratings), ReleaseAccount(path, clock=surroundings.clock))
    path = options.account or account
    if path is None:
        raise InvalidRatingError(
            "`--account` must name a file with `--dataset`, got none. Name the one `fit` used: in "
            "it the ε of all releases from these ratings adds up."
        )
    # Imported here: the Hub's client is not needed for a store.
    from feedback.fit.revision import read_revision  # noqa: PLC0415

    found = read_revision(
        options.dataset,
        options.revision,
        token=surroundings.token,
        endpoint=surroundings.endpoint,
    )
    for foreign in found.foreign:
        say(f"{foreign} was left out: it is damaged or was written by another program.")
    say(f"ε of releases from {options.dataset} is accounted for in {path}: always use that file.")
    return Source(found.ratings, found.revision, ReleaseAccount(path, clock=surroundings.clock))
