"""The lasting account of all population releases and of the ε they cost: one small file.

Knows releases, a file and a clock; no rating and no posterior.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from feedback.errors import ReleaseError
from feedback.population.laplace import RandBelow
from feedback.population.release import N_BINS, Release, noisy, parse_epsilon, total_units
from feedback.wholefile import whole_file

ACCOUNT_NAME = "releases.json"
"""The account's file in a `--store` folder."""
ACCOUNT_VERSION = 1


class ReleaseAccount:
    """The account of all releases drawn from one store: a small file beside it, mode 600.

    A release is written down before it is drawn, so a crash can count ε that was not used but
    never forget ε that was.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Name the account's file; nothing is made before the first release.

        Args:
            path: The file; a link to it is followed, or replacing the link would fork the account.
            clock: Gives the time in UTC.
        """
        self.path = path.resolve()
        self._clock = clock

    def releases(self) -> tuple[Release, ...]:
        """Return all releases, oldest first, those that were only accounted for included.

        Raises:
            ReleaseError: The file is not this program's, or damaged.
        """
        try:
            return _parse_account(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError, RecursionError, ReleaseError) as error:
            raise ReleaseError(
                f"{self.path} must be this program's account of releases, got something else. "
                "Nothing is released without it, or ε would be forgotten; restore it from a copy."
            ) from error

    def spent(self) -> Fraction:
        """Return the ε of all releases together: each rater's total loss, by composition."""
        return sum((Fraction(r.epsilon) for r in self.releases()), Fraction(0))

    def latest(self, model_version: str) -> Release | None:
        """Return the newest release about a model's strengths, None without one."""
        drawn = [
            r
            for r in self.releases()
            if r.model_version == model_version and r.histogram is not None
        ]
        return drawn[-1] if drawn else None

    def draw(
        self,
        contributions: Sequence[Sequence[int]],
        *,
        epsilon: Fraction,
        model_version: str,
        after: Release | None = None,
        randbelow: RandBelow = secrets.randbelow,
    ) -> Release:
        """Make a new release: account for it, draw the noise, keep the result.

        Args:
            contributions: One per consenting rater, from `units_of`.
            epsilon: What it may cost.
            model_version: The model whose strengths were rated.
            after: The newest release about this model that the caller knows. If another process
                made a newer one meanwhile, that is returned and nothing is spent.
            randbelow: Source of the noise; another than `secrets.randbelow` voids ε.

        Raises:
            ReleaseError: Too few raters, a malformed contribution, or an unreadable account.
            ExportError: The account cannot be written; nothing was drawn.
        """
        units = total_units(contributions)
        with self._locked():
            before = self.releases()
            newest = self.latest(model_version)
            if newest is not None and newest != after:
                return newest
            now = self._clock()
            planned = Release(
                name=_name(epsilon, now, taken={r.name for r in before}),
                epsilon=str(epsilon),
                drawn_at=now.isoformat(timespec="seconds"),
                model_version=model_version,
                n_raters=len(contributions),
                histogram=None,
            )
            self._write([*before, planned])
            histogram = noisy(units, epsilon=epsilon, randbelow=randbelow)
            drawn = replace(planned, histogram=histogram)
            self._write([*before, drawn])
        return drawn

    def _write(self, releases: Sequence[Release]) -> None:
        record = {
            "schema_version": ACCOUNT_VERSION,
            "releases": [asdict(release) for release in releases],
        }
        with whole_file(self.path) as draft:
            draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time read, account and draw."""
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ReleaseError(
                f"The folder of {self.path} must be writable, or ε cannot be accounted for, got: "
                f"{error.strerror}. Nothing was drawn."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _parse_account(record: Mapping[str, Any]) -> tuple[Release, ...]:
    """Return the releases of the account, or raise for what breaks its form."""
    if record["schema_version"] != ACCOUNT_VERSION:
        raise ValueError
    return tuple(_parse_release(entry) for entry in record["releases"])


def _parse_release(entry: Mapping[str, Any]) -> Release:
    """Return one release of the account, or raise for what breaks its form."""
    texts = [entry[name] for name in ("name", "drawn_at", "model_version")]
    histogram = entry["histogram"]
    numbers = [entry["n_raters"], *(histogram or ())]
    if any(type(text) is not str for text in texts) or any(type(n) is not int for n in numbers):
        raise TypeError
    if histogram is not None and len(histogram) != N_BINS:
        raise ValueError
    parse_epsilon(entry["epsilon"])
    return Release(**{**entry, "histogram": None if histogram is None else tuple(histogram)})


def _name(epsilon: Fraction, now: datetime, *, taken: set[str]) -> str:
    """Return a name no release of this account has: ε, year and quarter, and a number if needed."""
    first = f"dp-eps{float(epsilon):g}-{now.year}Q{(now.month + 2) // 3}"
    number = 1
    while (name := first if number == 1 else f"{first}-{number}") in taken:
        number += 1
    return name
