"""The rows of `audit`: originals with who is shown in them, rows of other people, a stand-in.

Knows command-line options; no metric and no model but as what reads pictures.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import say
from privacy_core.commands.requests import subjects_of_rows
from privacy_core.commands.shell import Tools
from privacy_core.commands.targets import checked_original, read_rows, rows_in, rows_of_others
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from privacy_core.audit.parts import Part
    from privacy_core.audit.request import StandIn
    from privacy_core.backends import Backend
    from privacy_core.unlearning.rows import LabelledImages
    from privacy_core.unlearning.targets import TargetModel

_COLUMNS = ("subject_column", "attribute_column", "group_column")


@dataclass
class _Seen:
    """What was noted about the rows that have a picture, in order."""

    people: list[str] = field(default_factory=list)
    attributes: list[Any] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


def original_part(
    options: argparse.Namespace, model: TargetModel, revision: Mapping[str, Any]
) -> Part:
    """Read the originals, and refuse data that is not what was revised."""
    rows = rows_in(options.original, options.image_column, split=options.split)
    return _part(options, model, checked_original(rows, revision, options.image_column))


def test_part(options: argparse.Namespace, model: TargetModel) -> Part | None:
    """Return rows never trained on; None, and the metrics on them absent, where there are none."""
    plain = argparse.Namespace(**{**vars(options), "attribute_column": None})
    if options.test is not None:
        return _part(plain, model, rows_of_others(options.test, options.image_column))
    if options.original is not None:
        source = rows_in(options.original, options.image_column, split=options.split)
        if "test" in source.other_splits:
            others = rows_in(options.original, options.image_column, split="test")
            return _part(plain, model, others)
    say("No rows of other people (`--test DATA`): metrics on them are left out.")
    return None


def revised_rows(options: argparse.Namespace, model: TargetModel) -> LabelledImages:
    """Read the pictures of the revised data."""
    return read_rows(options, model, rows_in(options.revised, options.image_column))


@dataclass(frozen=True)
class Erased:
    """What is left to audit where the originals are gone: a stand-in's D, D' and people."""

    original: LabelledImages
    revised: LabelledImages
    people: NDArray[np.str_]
    stand_in: StandIn


def stand_in_of(
    options: argparse.Namespace,
    tools: Tools,
    model: TargetModel,
    rows: LabelledImages,
    *,
    revision: Mapping[str, Any],
    certificate: Mapping[str, Any],
    test: Part | None,
    n_models: int,
) -> Erased:
    """Make a request of retained people that stands for the real one.

    Args:
        options: Where the revised data is, and the seed.
        tools: Backend and detector, for the stand-in's pictures.
        model: The original model.
        rows: The revised data, pictures.
        revision: `revision.json`.
        certificate: Says how many rows were asked for.
        test: Rows never trained on.
        n_models: Shadow models; without any nothing stands in, and only what is left is measured.
    """
    import numpy as np

    from privacy_core.audit.parts import Part
    from privacy_core.audit.request import StandIn
    from privacy_core.audit.standin import choose_rows, stand_in_rows

    people = _people_of(options, rows)
    n_asked, seed = int(certificate["rows"]["count"]), int(options.seed)
    chosen = np.zeros(len(rows), dtype=np.bool_)
    pictures: dict[int, Any] = {}
    if n_models:
        chosen = choose_rows(rows, people, n_rows=n_asked, seed=seed)
        if revision["mode"] == "replace":
            ids = set(rows.row_ids[chosen].tolist())
            pictures = _revised_pictures(options, tools, model, revision, ids)
    original, revised = stand_in_rows(rows, chosen, mode=str(revision["mode"]), pictures=pictures)
    is_labelled = rows.labels >= 0
    left = {"retain": ~rows.revised & is_labelled, "revised": rows.revised & is_labelled}
    parts = {
        name: Part(model.prepare(rows.take(mask)), people[mask])
        for name, mask in left.items()
        if mask.any()
    }
    if test is not None:
        parts["test"] = test
    n_people = len(np.unique(people[chosen]))
    return Erased(
        model.prepare(original), model.prepare(revised), people,
        StandIn(parts, int(chosen.sum()), n_people, n_asked),
    )  # fmt: skip


def _people_of(options: argparse.Namespace, rows: LabelledImages) -> NDArray[np.str_]:
    import numpy as np

    subject_of = subjects_of_rows(Path(options.revised))
    if not subject_of:
        raise InvalidArgumentError(
            "`--erase-first` must find who is behind which row by pseudonym, beside the revised "
            "data, got nothing: it was erased too. Split by person is not possible any more."
        )
    found = [(row, subject_of.get(row)) for row in rows.row_ids.tolist()]
    return np.array(
        [f"row {row}" if subject is None else f"subject {subject}" for row, subject in found]
    )


def _revised_pictures(
    options: argparse.Namespace,
    tools: Tools,
    model: TargetModel,
    revision: Mapping[str, Any],
    ids: set[int],
) -> dict[int, Any]:
    """Return row id → its picture anonymized at strengths of the real request, where it can be."""
    from privacy_core.anonymize import Anonymizer
    from privacy_core.errors import FaceFailedError, NoFaceError, PhotoError
    from privacy_core.faces import read_photo
    from privacy_core.noise import NoiseKey
    from privacy_core.schema import AttributePolicy
    from privacy_core.unlearning.rows import as_square

    backend = _backend_of(revision, tools)
    if backend.revision != revision["model"]["revision"]:
        say("The stand-in is anonymized by another revision of the model than the request was.")
    anonymizer = Anonymizer(backend, tools.detector())
    policy = AttributePolicy(
        tuple(revision["policy"]["keep"]), tuple(revision["policy"]["hide"]),
        dict(revision["policy"]["set"]),
    )  # fmt: skip
    strengths = [float(one["strength"]) for one in revision["subjects"]]
    # Only models in memory are made of these pictures, so their noise need not be secret, and the
    # same seed finds the same shadow models again.
    key, pictures = NoiseKey.from_seed(int(options.seed)), {}
    data = rows_in(options.revised, options.image_column)
    for place, row in enumerate(data):
        number = int(row.get("row_id", place))
        if number not in ids:
            continue
        try:
            photo = read_photo(row[options.image_column])
            opened = anonymizer.open(photo, key=key.child(f"row {number}"), policy=policy)
            variant = opened.variant(strengths[number % len(strengths)])
        except (NoFaceError, FaceFailedError, PhotoError):
            continue
        pictures[number] = as_square(variant.image, model.record.recipe.image_size)
    return pictures


def _backend_of(revision: Mapping[str, Any], tools: Tools) -> Backend:
    """Return the backend that made the revised data, a model of the Hub at the very commit."""
    from privacy_core.backends import HUB_MODELS

    name, commit = str(revision["model"]["id"]), str(revision["model"]["revision"])
    if name not in HUB_MODELS:
        return tools.load_backend(name)
    # Nobody gets this far without having accepted the licence for `revise`.
    return tools.load_backend(f"{name}@{commit}", accept_licence=True)


def _part(
    options: argparse.Namespace, model: TargetModel, data: Iterable[Mapping[str, Any]]
) -> Part:
    """Read rows, who is shown in each, and attribute and group where they are named."""
    import numpy as np

    from privacy_core.audit.parts import Part

    seen = _Seen()
    rows = model.prepare(read_rows(options, model, _noted(data, options, seen)))
    return Part(
        rows,
        np.array(seen.people, dtype=str),
        _attribute(seen.attributes, options.attribute_column),
        None if options.group_column is None else np.array(seen.groups, dtype=str),
    )


def _noted(
    rows: Iterable[Mapping[str, Any]], options: argparse.Namespace, seen: _Seen
) -> Iterator[Mapping[str, Any]]:
    """Pass rows on, and note what is known of those that have a picture."""
    for place, row in enumerate(rows):
        for argument in _COLUMNS:
            column = getattr(options, argument)
            if column is not None and column not in row:
                raise InvalidArgumentError(
                    f"`--{argument.replace('_', '-')}` must name a column of the data, got "
                    f"{column!r}; the data has the columns {', '.join(row)}. Name one of them."
                )
        if row[options.image_column] is not None:
            subject = row[options.subject_column]
            # Nobody knows who is shown: then each row counts as a person of its own.
            seen.people.append(f"row {place}" if subject is None else f"subject {subject}")
            seen.attributes.append(row[options.attribute_column or options.subject_column])
            group = row[options.group_column] if options.group_column else None
            seen.groups.append("" if group is None else str(group))
        yield row


def _attribute(values: list[Any], column: str | None) -> Any:
    import numpy as np

    if column is None or not values:
        return None
    found = sorted({str(value) for value in values})
    if len(found) != 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"`--attribute-column` must hold two values, got {len(found)} in {column!r}. "
            "Name another column."
        )
    return np.array([str(value) == found[1] for value in values])
