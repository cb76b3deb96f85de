"""The files of the public dataset: tables and the card; knows no Hub.

Heavy imports stand in the functions: Arrow and `datasets` are only needed to publish.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.columns import features
from feedback.dataset.shard import shard_bytes
from feedback.population.release import N_BINS, UNITS, Release
from feedback.publish.cells import K_RATERS, WITHHELD, Selection
from feedback.publish.pictures import variant_rows

if TYPE_CHECKING:
    import datasets

MARK = "publication.json"
"""By this file a repository is known for ours."""
PROGRAM = "privacy-dial"
PUBLICATION_VERSION = 1
_ROWS_PER_SHARD = 250_000
_PICTURES_PER_GROUP = 100


def publication_files(
    selection: Selection,
    releases: Sequence[Release],
    *,
    name: str,
    licence: str,
    variants: Path | None,
    published_at: datetime,
) -> dict[str, bytes]:
    """Return every file of the public repository, by path.

    Args:
        selection: The rows.
        releases: All population releases that were drawn.
        name: The dataset's name, NAME/REPO.
        licence: Of the data, an id the Hub knows.
        variants: Folder of pictures to publish, of people who do not exist or who gave them.
        published_at: UTC time; the day is kept.

    Raises:
        InvalidRatingError: A picture may not be published as it is.
    """
    files: dict[str, bytes] = {}
    configs: dict[str, datasets.Features] = {}
    for number, start in enumerate(range(0, len(selection.rows), _ROWS_PER_SHARD)):
        rows = selection.rows[start : start + _ROWS_PER_SHARD]
        files[f"data/ratings/part-{number:05}.parquet"] = shard_bytes(rows)
        configs["ratings"] = features()
    if releases:
        configs["population"] = population_features()
        files["data/population/population.parquet"] = _parquet(
            population_rows(releases), configs["population"]
        )
    if variants is not None:
        configs["variants"] = variant_features()
        files["data/variants/variants.parquet"] = _parquet(
            variant_rows(variants), configs["variants"]
        )
    files[MARK] = _mark(selection, published_at)
    files["README.md"] = _card(selection, configs, name=name, licence=licence).encode()
    return files


def population_features() -> datasets.Features:
    """Return the columns of the population table: one row per release and tenth of the dial."""
    from datasets import Features, Value

    texts = ("release", "drawn_at", "model_version")
    numbers = ("epsilon", "strength_from", "strength_to", "noisy_raters")
    return Features(
        {name: Value("string") for name in texts}
        | {"n_raters": Value("int32")}
        | {name: Value("float32") for name in numbers}
    )


def population_rows(releases: Iterable[Release]) -> list[dict[str, Any]]:
    """Return the rows of the population table; all of it is differentially private."""
    return [
        {
            "release": release.name,
            "drawn_at": release.drawn_at[:10],
            "model_version": release.model_version,
            "n_raters": release.n_raters,
            "epsilon": _ratio(release.epsilon),
            "strength_from": tenth / N_BINS,
            "strength_to": (tenth + 1) / N_BINS,
            "noisy_raters": units / UNITS,
        }
        for release in releases
        for tenth, units in enumerate(release.histogram or ())
    ]


def variant_features() -> datasets.Features:
    """Return the columns of the pictures."""
    from datasets import Features, Image, Value

    return Features({"image": Image(), "name": Value("string")})


def is_ours(data: bytes) -> bool:
    """Return whether a file at `MARK` was written by this program."""
    try:
        record = json.loads(data)
        return bool(record["program"] == PROGRAM and record["schema_version"] >= 1)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _parquet(rows: Sequence[Mapping[str, Any]], columns: datasets.Features) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=columns.arrow_schema)
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=_PICTURES_PER_GROUP,
        write_page_index=True,
    )
    return sink.getvalue()


def _mark(selection: Selection, published_at: datetime) -> bytes:
    record = {
        "schema_version": PUBLICATION_VERSION,
        "program": PROGRAM,
        "published_on": f"{published_at:%Y-%m-%d}",
        "rows": len(selection.rows),
        "raters": selection.n_raters,
        "cells": selection.n_cells,
    }
    return (json.dumps(record, indent=1) + "\n").encode()


def _card(
    selection: Selection, configs: Mapping[str, datasets.Features], *, name: str, licence: str
) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        license=licence,
        pretty_name="Privacy Dial ratings",
        tags=[PROGRAM, "human-feedback", "privacy"],
        configs=[
            {"config_name": config, "data_files": f"data/{config}/*.parquet"} for config in configs
        ],
        dataset_info=[
            {"config_name": config, "features": columns._to_yaml_list()}
            for config, columns in configs.items()
        ],
    )
    about = {
        "ratings": _RATINGS.format(
            rows=len(selection.rows),
            raters=selection.n_raters,
            cells=selection.n_cells,
            k=K_RATERS,
            version=WITHHELD,
        ),
        "population": _POPULATION.format(units=UNITS),
        "variants": _VARIANTS,
    }
    parts = "\n".join(about[config] for config in configs) or _NOTHING
    example = next(iter(configs), "ratings")
    return f"---\n{data.to_yaml()}\n---\n{_TEXT.format(name=name, parts=parts, example=example)}"


def _ratio(text: str) -> float:
    top, _, bottom = text.partition("/")
    return int(top) / int(bottom or 1)


_TEXT = """
# Privacy Dial ratings

What people said about anonymized faces at different strengths, so that others can study how much
anonymization people want. No photo of anyone is in it, and nothing that identifies a rater.

```python
from datasets import load_dataset

ratings = load_dataset("{name}", "{example}", revision="<commit>")
```

{parts}
## Limits

The raters are those who came; they stand for no one else. This repository is replaced as a whole
with each publication and its history is removed, so that rows whose raters have withdrawn vanish
from it. Copies downloaded before cannot be recalled: whoever holds one should replace it.
"""
_RATINGS = """## ratings

{rows} judgements by {raters} raters, one row for each judgement of one variant. Only rows whose
raters agreed to publish them; only cells (model, tenth of the dial, whose photo) with at least
{k} raters, of which there are {cells}. All ids were made anew for this publication
with a key that was thrown away: they say which rows belong together in here, and nothing else.
A page whose variants lie in several cells may lack some of its rows.

So that a row cannot be told from its neighbours by what it says besides the judgement, some columns
say less than they could: `created_at` is the day, `response_ms` is 0 everywhere, `propensity` and
`quality` have two digits, `attributes` is null, `app_version` is "{version}" and `rater_epoch` 1.
Rows sent by programs, which can make up raters, are left out. One rater is one pseudonym: someone
who rated without an account from two browsers counts as two.
"""
_POPULATION = """## population

For each release, how many raters prefer a strength in each tenth of the dial, with noise.
ε-differentially private for replacing one rater; ε of several releases adds up. One rater is one
pseudonym: someone who rated under j of them has a loss of j × ε. Each rater gives one histogram of
{units} units in all, from their own answers alone; every tenth has two-sided geometric noise of
scale 2 × {units} / ε units added, so numbers may be negative.
"""
_VARIANTS = """## variants

Anonymized faces of people who do not exist, or who gave the pictures for this purpose.
"""
_NOTHING = """At present there are no rows: fewer raters than needed have agreed.
"""
