"""The development faces for benchmarks: real photos in `PRIVACY_DIAL_DATA`, never committed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from privacy_core.diffusion.prepare import split_of
from privacy_core.faces.photo import read_photo
from privacy_core.schema import Photo


@dataclass(frozen=True)
class DevelopmentPhoto:
    """One photo of the development faces.

    Attributes:
        photo: The decoded photo, 168 px.
        identity: Who is shown, None where unknown.
        source: Which collection.
    """

    photo: Photo
    identity: str | None
    source: str


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the development faces.

    Raises:
        SystemExit: The environment does not name it.
    """
    if "PRIVACY_DIAL_DATA" not in environment:
        raise SystemExit("Set PRIVACY_DIAL_DATA to the folder of the development faces.")
    return Path(environment["PRIVACY_DIAL_DATA"])


def one_photo_per_person(low: int, high: int, n: int, *, seed: int = 0) -> list[DevelopmentPhoto]:
    """Return `n` photos of `n` people whose split is in [low, high], drawn with a seed."""
    columns = ["image", "identity", "source"]
    shards = sorted(folder().glob("faces-*.parquet"))
    table = pd.concat([pd.read_parquet(shard, columns=columns) for shard in shards])
    table = table[table.identity.notna()]
    splits = {person: split_of(person, "") for person in table.identity.unique()}
    chosen = table[table.identity.map(splits).between(low, high)]
    chosen = chosen.sample(frac=1, random_state=seed).drop_duplicates("identity").head(n)
    if len(chosen) < n:
        raise SystemExit(f"Only {len(chosen)} people in the splits {low} to {high}, {n} wanted.")
    return [
        DevelopmentPhoto(read_photo(row.image["bytes"]), row.identity, row.source)
        for row in chosen.itertuples()
    ]


def numbers(photos: list[DevelopmentPhoto]) -> list[int]:
    """Return a number per person, in the order of the photos."""
    people = {name: i for i, name in enumerate(dict.fromkeys(p.identity for p in photos))}
    return [int(np.int64(people[photo.identity])) for photo in photos]
