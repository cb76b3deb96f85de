"""What `train`, `unlearn` and `audit` share: models from folders, their rows, secrets, checkpoints.

Knows no single command.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import as_json, say
from privacy_core.commands.requests import ledger_of
from privacy_core.commands.secrecy import keep_secret, private_folder
from privacy_core.commands.shell import Tools
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.dataset import RowSource
    from privacy_core.faces import FaceDetector
    from privacy_core.noise import NoiseKey
    from privacy_core.unlearning.head_model import Backbone
    from privacy_core.unlearning.rows import LabelledImages
    from privacy_core.unlearning.targets import TargetModel
    from privacy_core.unlearning.training import Watch

_REFERENCE = "reference.json"


def load_model(folder: Path, tools: Tools) -> TargetModel:
    """Load a target model with the backbone it names."""
    from privacy_core.unlearning.loading import load_target

    # Models made from one another share the features, beside the first of them.
    return load_target(
        folder,
        backbone_of=lambda name: backbone_of(
            ledger_of(folder).parent, tools.detector() if "+" in name else None, tools
        ),
    )


def backbone_of(private: Path, detector: FaceDetector | None, tools: Tools) -> Backbone:
    """Return the backbone of heads, which keeps what it has read in a private folder."""
    import dlib

    from privacy_core.commands.kept_features import KeptFeatures
    from privacy_core.unlearning import backbone

    return KeptFeatures(
        backbone.DlibBackbone(detector),
        private,
        identity=f"dlib {dlib.__version__}",
        progress=tools.progress(),
        tell=tools.say,
        crew=tools.crew,
    )


def note_features_of(model: TargetModel, folder: Path, revised: Path) -> None:
    """Note beside revised data where a head keeps features, so that `erase-originals` finds them.

    Args:
        model: The original model; a network keeps none.
        folder: Its folder.
        revised: The revised data set.
    """
    from privacy_core.revise.erase import FEATURES_NOTE, note_folder
    from privacy_core.revise.revision import Workplace

    private = Workplace(revised).private
    if model.kind == "head" and private.is_dir():
        note = note_folder(private, FEATURES_NOTE, ledger_of(folder).parent)
        keep_secret(revised, FEATURES_NOTE, note)


def read_rows(
    options: argparse.Namespace, model: TargetModel, data: Iterable[Mapping[str, Any]]
) -> LabelledImages:
    """Read the pictures and labels of rows as the model reads them.

    Args:
        options: Label and picture column.
        model: Says which labels there are, and the size of pictures.
        data: The rows, such as those of `rows_in`.
    """
    from privacy_core.unlearning.rows import read_labelled

    column = options.label_column or model.record.label_column
    if not column:
        raise InvalidArgumentError(
            "`--label-column` must name the column the model was trained on, got none. Give it."
        )
    rows, _ = read_labelled(
        data,
        label_column=column,
        image_size=model.record.recipe.image_size,
        image_column=options.image_column,
        label_names=model.label_names,
    )
    return rows


def rows_in(source: str, image_column: str, *, split: str | None = None) -> RowSource:
    """Open the originals, or revised data.

    Args:
        source: Where the data is.
        image_column: The column that holds the picture.
        split: Which one, where it has several.
    """
    from privacy_core.dataset import read_dataset

    return read_dataset(source, image_column=image_column, split=split)


def rows_of_others(source: str, image_column: str) -> RowSource:
    """Open rows no model was trained on: the split test where the data has several."""
    try:
        return rows_in(source, image_column)
    except InvalidArgumentError:
        return rows_in(source, image_column, split="test")


def checked_original(
    rows: Iterable[Mapping[str, Any]], revision: Mapping[str, Any], image_column: str
) -> Iterator[Mapping[str, Any]]:
    """Pass on the rows of `--original`, and refuse data that is not what was revised.

    Args:
        rows: The rows.
        revision: `revision.json`, which has the digest of the originals.
        image_column: The column that holds the picture.
    """
    from privacy_core.dataset import row_digest

    total = hashlib.sha256()
    for row in rows:
        total.update(row_digest(row, image_column))
        yield row
    if total.hexdigest() != revision["original"]["digest"]:
        raise InvalidArgumentError(
            "`--original` must be the data that was revised, got other data: its digest is not "
            "the one in revision.json. Name the data `revise` was given."
        )


def check_reference(
    reference: TargetModel, model: TargetModel, revised: Sequence[LabelledImages]
) -> None:
    """Refuse a reference model that is none: of other labels, or trained on other data.

    Args:
        reference: A model that was retrained elsewhere.
        model: The original model.
        revised: The revised data, as pictures and as the model prepares them: a head is retrained
            on features, a network on pictures, and `train` reads pictures.
    """
    if reference.label_names != model.label_names:
        raise InvalidArgumentError(
            f"`--reference` must tell the labels {', '.join(model.label_names)}, got "
            f"{', '.join(reference.label_names)}. Name a model of the same task."
        )
    if reference.record.data_digest not in {rows.digest() for rows in revised}:
        raise InvalidArgumentError(
            "`--reference` must be trained on the revised data, got a model of other data. Make it "
            "by `unlearn --method retrain` or `unlearn --reference retrain`."
        )


def note_reference(out: Path, place: Path, digest: str) -> None:
    """Note beside a model where its reference model is, for `audit`."""
    where = os.path.relpath(place.absolute(), private_folder(out))
    keep_secret(out, _REFERENCE, as_json({"folder": where, "weights": digest}).encode())


def noted_reference(folder: Path) -> Path | None:
    """Return where a model's reference model is; None where none was noted or it is gone."""
    private = private_folder(folder)
    try:
        found = json.loads((private / _REFERENCE).read_text(encoding="utf-8"))
        place = Path(os.path.normpath(private / str(found["folder"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"{private.name}/{_REFERENCE} must say where the reference model is, got a damaged "
            "file. Name the model by `--reference`, or give `--reference none`."
        ) from error
    if not place.is_dir():
        say(f"The reference model {place.name} is gone: it is left out.")
        return None
    return place


def perturbation_of(key: NoiseKey | None, model: TargetModel) -> Any:
    """Return the secret term that belongs to a key, None without one."""
    if key is None:
        return None
    from privacy_core.unlearning.newton_head import draw_perturbation

    n_labels, width = model.module().get_parameter("weight").shape
    return draw_perturbation(key, (n_labels, width), model.record.recipe.perturbation_sd)


def watch(out: Path, tools: Tools) -> Watch:
    """Return a bar, the checkpoint beside a folder to be written, and the processes."""
    from privacy_core.unlearning.training import Watch

    return Watch(tools.progress(), checkpoint(out), crew=tools.crew)


def checkpoint(out: Path) -> Path:
    """Return where a run that writes `out` keeps what an interrupted one goes on from."""
    return out.absolute().parent / f".{out.absolute().name}.run.pt"


@contextlib.contextmanager
def whole_or_nothing(*folders: Path) -> Iterator[None]:
    """Remove folders, and what is private beside them, where something fails on the way.

    Only what was not there before is removed.
    """
    places = [place for folder in folders for place in (folder, private_folder(folder))]
    new = [place for place in places if not place.exists() or _is_empty(place)]
    try:
        yield
    except BaseException:
        for place in new:
            shutil.rmtree(place, ignore_errors=True)
        raise


def _is_empty(place: Path) -> bool:
    return place.is_dir() and next(place.iterdir(), None) is None
