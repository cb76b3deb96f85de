"""Where rows are read from: a store, or a revision of a dataset repository."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.commands.shell import Surroundings, counted, open_store, say
from feedback.errors import InvalidRatingError
from feedback.fit.basis import digest_of_rows
from feedback.population.account import ACCOUNT_NAME, ReleaseAccount
from feedback.remote.opening import open_remote
from feedback.schema import Rating
from feedback.store.log import RatingStore
from feedback.sync.loop import Sync

if TYPE_CHECKING:
    from feedback.fit.revision import RevisionRows


@dataclass(frozen=True)
class Source:
    """Rows and where they come from.

    Attributes:
        ratings: All rows.
        revision: Commit of the repository, or digest of the store's rows.
        account: Of the releases made from them; None where none was named for a data set.
        remote: The remote that the store's rows were carried to; None for a data set, and for a
            store that was carried nowhere.
        gaps: Why there may be rows whose raters withdrew elsewhere, in words; empty where the
            remote had none, or was not asked.
    """

    ratings: tuple[Rating, ...]
    revision: str
    account: ReleaseAccount | None
    remote: str | None = None
    gaps: tuple[str, ...] = ()


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
        help=f"account of releases; default: {ACCOUNT_NAME} in the store",
    )


def read_source(
    options: argparse.Namespace, surroundings: Surroundings, *, is_to_publish: bool = False
) -> Source:
    """Read all rows.

    Args:
        options: From `add_source`.
        surroundings: Token and endpoint.
        is_to_publish: Whether there must be an account, and a store that is carried somewhere is
            synced first, so that it lacks whom other copies were asked to erase.

    Raises:
        InvalidRatingError: The options do not fit each other.
        RemoteError: The remote did not answer, or did not take what waits here.
    """
    if (options.dataset is None) != (options.revision is None):
        raise InvalidRatingError(
            "`--revision` must be given with `--dataset` and only with it, got one alone. Name "
            "the commit, so that the result can be made again."
        )
    clock = surroundings.clock
    if options.dataset is None:
        path = options.account or options.store / ACCOUNT_NAME
        with open_store(options, surroundings) as store:
            remote = store.remote_name
            gaps: tuple[str, ...] = ()
            if remote is not None and is_to_publish:
                gaps = _synced(store, remote, surroundings)
            ratings = tuple(store.ratings())
        account = ReleaseAccount(path, clock=clock)
        return Source(ratings, digest_of_rows(ratings), account, remote, gaps)
    if is_to_publish and options.account is None:
        raise _no_account(options)
    # Imported here: the Hub's client is not needed for a store.
    from feedback.fit.revision import read_revision  # noqa: PLC0415

    found = read_revision(
        options.dataset,
        options.revision,
        token=surroundings.token,
        endpoint=surroundings.endpoint,
    )
    return Source(
        found.ratings,
        found.revision,
        None if options.account is None else ReleaseAccount(options.account, clock=clock),
        gaps=_gaps(found),
    )


def account_of(source: Source, options: argparse.Namespace) -> ReleaseAccount:
    """Return the account of the source's releases.

    Raises:
        InvalidRatingError: None was named; with one of its own for each result, ε would not add up.
    """
    if source.account is None:
        raise _no_account(options)
    return source.account


def _no_account(options: argparse.Namespace) -> InvalidRatingError:
    return InvalidRatingError(
        "`--account` must name a file with `--dataset`, got none. In it the ε of all releases from "
        f"{options.dataset} adds up: name the same file every time."
    )


def _gaps(found: RevisionRows) -> tuple[str, ...]:
    old = () if found.is_newest else ("a revision that is not the newest",)
    return (*old, *_unreadable(found.foreign))


def _synced(store: RatingStore, name: str, surroundings: Surroundings) -> tuple[str, ...]:
    """Bring the store and its remote to one state, and return what may still be missing in it."""
    say(f"The store is synced with {name} first, to lack whom that was asked to erase.")
    # A remote's name is what it is and which: "the private dataset name/repo".
    *_, kind, place = name.split(" ")
    remote = open_remote(
        **{kind: place},
        token=surroundings.token,
        endpoint=surroundings.endpoint,
        is_known=True,
    )
    return _unreadable(Sync(store, remote).flush().foreign_shards)


def _unreadable(paths: Sequence[str]) -> tuple[str, ...]:
    for path in paths:
        say(f"{path} was left out: it is damaged or was written by another program.")
    return (f"{counted(len(paths), 'file')} that cannot be read",) if paths else ()
