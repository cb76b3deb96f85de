"""The dataset card of the private repository of ratings; knows the columns, no row and no Hub."""

from __future__ import annotations

from feedback.columns import COLUMNS, SCHEMA_VERSION, Column

_MEANINGS = {
    "rating_id": "the one possible id of the judgement: a keyed digest of page, place, question",
    "schema_version": "version of these columns the row was written with",
    "rater_id": "pseudonym of who answered: a keyed digest, or drawn at random",
    "rater_epoch": "which key made the pseudonym",
    "session_id": "pseudonym of the web session",
    "page_id": "random; the page of variants that was answered",
    "photo_id": "random; the photo, not derived from it",
    "position": "place of the variant on the page, from 0",
    "n_shown": "variants on the page",
    "method": "what made the variants",
    "model_revision": "digest or commit of its weights",
    "strength": "how strongly the variant was anonymized, 0 to 1",
    "epsilon": "privacy loss of the variant, null where none is claimed",
    "quality": "measured picture quality, null if not measured",
    "response_type": "the question",
    "response": "jar5: 0 far too recognisable, 2 just right, 4 changed far too much; best_of_n: 1 "
    "for the chosen variant, 0 for the others; likert5: 0 to 4",
    "response_value": "slider: the strength it was left at",
    "is_catch": "shown to see whether the rater pays attention",
    "is_repeat": "shown before, to see whether the rater agrees with themselves",
    "policy": "how the strengths were chosen",
    "propensity": "probability with which they were chosen",
    "response_ms": "time to answer, in steps of 100 ms",
    "client": "where the answer came from",
    "source": "whose photo it was",
    "consent_version": "the text that was agreed to",
    "consent_scope": "what was agreed to, from the narrowest to the widest",
    "created_at": "when, UTC",
    "app_version": "version of the app",
    "attributes": "what the variant keeps, hides and sets; none for nothing, null if not recorded",
}
_FRONT = """---
pretty_name: Ratings of anonymized faces
viewer: false
tags:
- privacy
configs:
- config_name: ratings
  data_files:
  - split: train
    path: data/ratings/**/*.parquet
  default: true
dataset_info:
- config_name: ratings
  features:
{features}
---
"""
_TEXT = """
# Ratings of anonymized faces

{name} holds how strongly people want faces to be anonymized: one row is one judgement of one
variant that was shown. It is private, and it must stay private: rows are pseudonymous, not
anonymous. It is written by Privacy Dial; do not add files to `data/` by hand.

Every row has the columns of schema version {version}; files of earlier versions lack the last
ones, which are then read as null. Name a revision when you load it:

```python
datasets.load_dataset("{name}", revision="COMMIT", split="train")
```

Leave out what the files in `tombstones/` name: ratings that were taken back but not yet removed.

## Columns

|column|type|meaning|
|---|---|---|
{columns}

## What is not stored

No photo, no variant, no embedding, no similarity of a face to another, no seed, no name, no
address, no browser and no free text.

## How a person is forgotten

When a rater asks for it, their rows are removed from every file here, the history is squashed to
one commit, other branches, tags and pull requests are deleted, the stored contents nobody names
any more are deleted for good, and the old commits are asked for to see that they are gone. What is
left in `tombstones/` are digests, so that no copy brings the rows back. What was downloaded before
cannot be recalled, and releases of totals or models made from the rows are not undone.
"""


def dataset_card(*, name: str) -> str:
    """Return the README.md of the private repository, which makes every loader use one schema.

    Args:
        name: NAME/REPO.
    """
    front = _FRONT.format(features="\n".join(map(_feature, COLUMNS)))
    rows = (f"|`{c.name}`|{_type(c)}|{_MEANINGS[c.name]}|" for c in COLUMNS)
    return front + _TEXT.format(name=name, version=SCHEMA_VERSION, columns="\n".join(rows))


def _feature(column: Column) -> str:
    """Return the column as YAML, the form `datasets` writes and reads."""
    lines = [f"  - name: {column.name}"]
    if column.labels:
        lines += ["    dtype:", "      class_label:", "        names:"]
        lines += [f"          '{i}': {label}" for i, label in enumerate(column.labels)]
    else:
        lines.append(f"    dtype: {column.dtype}")
    return "\n".join(lines)


def _type(column: Column) -> str:
    kind = ", ".join(column.labels) if column.labels else column.dtype
    return f"{kind} or null" if column.nullable else kind
