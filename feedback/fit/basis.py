"""What a fit rests on: one model, one state of the rows, one release; decides no strength."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from feedback.errors import InvalidRatingError, ReleaseError
from feedback.population.account import ReleaseAccount
from feedback.population.pooling import contributions, model_version_of
from feedback.population.release import MIN_RATERS, Release
from feedback.schema import Rating

DEFAULT_EPSILON = Fraction(1)


def choose_model(ratings: Iterable[Rating], asked: str | None = None) -> str:
    """Return which model's rows to use: strengths of two models do not mean the same.

    Args:
        ratings: All rows.
        asked: A model version, or its revision alone; may be None where there is only one.

    Raises:
        InvalidRatingError: There is not exactly one that fits; those there are listed.
    """
    counts = Counter(model_version_of(rating) for rating in ratings)
    if asked is not None:
        counts_of_asked = [v for v in counts if asked in (v, v.partition("@")[2])]
        if len(counts_of_asked) == 1:
            return counts_of_asked[0]
    elif len(counts) == 1:
        return next(iter(counts))
    if not counts:
        raise InvalidRatingError(
            "There must be at least one rating to fit, got none. Collect ratings, or make some "
            "with `python -m feedback simulate --store DIR`."
        )
    there = ", ".join(f"{version} ({n} rows)" for version, n in sorted(counts.items()))
    got = "several" if asked is None else "none or several with that name"
    raise InvalidRatingError(
        f"`model_version` must name one model the ratings are about, got {got}. "
        f"Choose one of: {there}."
    )


def digest_of_rows(ratings: Iterable[Rating]) -> str:
    """Return a digest of rows that does not depend on their order, as `feedback_revision`."""
    digest = hashlib.sha256()
    for line in sorted(rating.as_json() for rating in ratings):
        digest.update(line.encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def release_for(
    ratings: Sequence[Rating],
    account: ReleaseAccount,
    *,
    model_version: str,
    epsilon: Fraction | None = None,
    is_new: bool = False,
) -> Release | None:
    """Return the release these ratings' population is known by, drawing it only if it must be.

    Args:
        ratings: All rows, of every model: a consent narrowed for one is narrowed for all.
        account: Where releases are kept and accounted for.
        model_version: The model the release is about.
        epsilon: What a new release may cost, 1 by default; must be that of a kept one.
        is_new: Draw another release even if there is one.

    Returns:
        None if there is no release and there are too few raters to make one.

    Raises:
        ReleaseError: A new one was asked for and there are too few raters, `epsilon` is another
            than that of the kept release, or the account cannot be read.
    """
    kept = account.latest(model_version)
    if kept is not None and not is_new:
        if epsilon is not None and epsilon != Fraction(kept.epsilon):
            raise ReleaseError(
                f"`epsilon` must be that of the release in use, {kept.epsilon}, got {epsilon}. "
                "Leave it out, or add `--new-release`: then both count."
            )
        return kept
    units = contributions(ratings, model_version=model_version)
    if len(units) < MIN_RATERS and not is_new:
        return None
    return account.draw(
        units, epsilon=epsilon or DEFAULT_EPSILON, model_version=model_version, after=kept
    )
