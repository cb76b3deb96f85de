"""What must stay away, as digests: tombstones, and the test of a row against them.

Knows ids and times, not where rows or tombstones lie.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Tombstone:
    """One rating that stays away for good, or what a rater answered until then.

    Attributes:
        kind: "rater" or "rating".
        digest: SHA-256 of the id, 64 hexadecimal digits.
        requested: Milliseconds since 1970, UTC; a rater's later rows are welcome.
    """

    kind: str
    digest: str
    requested: int


class Graves:
    """Answers whether a row is buried, and counts the rows it buried.

    Attributes:
        buried: Rows found dead so far by the digest of their rater.
    """

    def __init__(self, tombstones: Iterable[Tombstone]) -> None:
        self.buried: Counter[str] = Counter()
        self._raters: dict[str, int] = {}
        self._ratings: set[str] = set()
        self._digests: dict[str, str] = {}
        for tombstone in tombstones:
            if tombstone.kind == "rater":
                latest = max(tombstone.requested, self._raters.get(tombstone.digest, -1))
                self._raters[tombstone.digest] = latest
            else:
                self._ratings.add(tombstone.digest)

    def __len__(self) -> int:
        """Return the number of tombstones."""
        return len(self._raters) + len(self._ratings)

    def has_row(self, rater_id: str, rating_id: str, created_at: datetime) -> bool:
        """Return whether this row must go, counting it if so."""
        rater = self._digests.get(rater_id)
        if rater is None:
            rater = self._digests[rater_id] = digest_of(rater_id)
        is_dead = self._raters.get(rater, -1) >= to_ms(created_at) or (
            bool(self._ratings) and digest_of(rating_id) in self._ratings
        )
        self.buried[rater] += is_dead
        return is_dead


def digest_of(name: str) -> str:
    """Return what may outlive an id: its SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()


def to_ms(time: datetime) -> int:
    """Return a time as milliseconds since 1970, UTC."""
    return round(time.timestamp() * 1000)
