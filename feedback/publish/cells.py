"""Which rows may be public and in what form; knows rows, no file and no Hub.

A row is published if its rater agreed to that for the row, and if at least ten raters share its
cell: model, tenth of the dial, and whose photo it was. It then has new ids, the day for a time, and
nothing else by which it could be told from others.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from feedback.population.pooling import model_version_of, n_from_programs, rows_by_rater
from feedback.population.release import N_BINS
from feedback.schema import Rating

K_RATERS = 10
WITHHELD = "withheld"
"""Stands for the version of the app, which would tell when a row was made."""
_KEY_BYTES = 32
_ID_COLUMNS = ("rating_id", "rater_id", "session_id", "page_id", "photo_id")

Cell = tuple[str, int, str]


@dataclass(frozen=True)
class Selection:
    """What can be published of some rows.

    Attributes:
        rows: As they may be public, in an order that says nothing.
        n_raters: Whose they are.
        n_from_programs: Rows left out because a program sent them, which can make up raters.
        n_without_consent: Others left out because their rater did not agree, or no longer does.
        n_in_small_cells: Rows left out because fewer than `K_RATERS` share their cell.
        n_cells: Cells that are published.
    """

    rows: tuple[Rating, ...]
    n_raters: int
    n_from_programs: int
    n_without_consent: int
    n_in_small_cells: int
    n_cells: int


def select(ratings: Iterable[Rating], *, key: bytes) -> Selection:
    """Choose the rows that may be public and take from them what leads back to the private ones.

    Args:
        ratings: All rows, of any consent, in any order.
        key: 32 secret random bytes, used for this publication only and then forgotten: then even
            its maker cannot join public rows with private ones by their ids. One rater's rows
            have one new `rater_id` within a publication, and another in the next.

    Raises:
        ValueError: `key` is short.
    """
    if len(key) < _KEY_BYTES:
        raise ValueError(f"`key` must have at least {_KEY_BYTES} bytes, got {len(key)}.")
    everyone = list(ratings)
    by_programs = n_from_programs(everyone)
    agreed = [row for rows in rows_by_rater(everyone, scope="publish_row").values() for row in rows]
    raters: dict[Cell, set[str]] = {}
    for row in agreed:
        raters.setdefault(cell_of(row), set()).add(row.rater_id)
    large = {cell for cell, ids in raters.items() if len(ids) >= K_RATERS}
    kept = [row for row in agreed if cell_of(row) in large]
    public = sorted((_public(row, key) for row in kept), key=lambda row: row.rating_id)
    return Selection(
        rows=tuple(public),
        n_raters=len({row.rater_id for row in kept}),
        n_from_programs=by_programs,
        n_without_consent=len(everyone) - by_programs - len(agreed),
        n_in_small_cells=len(agreed) - len(kept),
        n_cells=len(large),
    )


def cell_of(rating: Rating) -> Cell:
    """Return a row's cell: model, tenth of the dial, whose photo."""
    tenth = min(int(rating.strength * N_BINS), N_BINS - 1)
    return model_version_of(rating), tenth, rating.source


def _public(row: Rating, key: bytes) -> Rating:
    ids: dict[str, Any] = {name: _new_id(key, name, getattr(row, name)) for name in _ID_COLUMNS}
    day = row.created_at.replace(hour=0, minute=0, second=0, microsecond=0)
    return replace(
        row,
        created_at=day,
        rater_epoch=1,
        response_ms=0,
        propensity=_two_digits(row.propensity),
        quality=None if row.quality is None else _two_digits(row.quality),
        app_version=WITHHELD,
        attributes=None,
        **ids,
    )


def _two_digits(number: float) -> float:
    return float(f"{number:.1e}")


def _new_id(key: bytes, column: str, value: str) -> str:
    return hmac.digest(key, f"v1|{column}|{value}".encode(), "sha256").hex()[:32]
