"""The rows of the unlearning benchmark: development faces, requests, revised pictures, features.

Makes each of them once and keeps it in a work folder outside the project; nothing of it is ever
committed. Knows no model that is trained and no metric.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet
from tqdm import tqdm

from benchmarks.development_faces import folder
from benchmarks.unlearning_requests import REQUESTED_SHARE, Faces
from feedback.simulate.raters import draw_people
from privacy_core.anonymize import Anonymizer
from privacy_core.backends import load_backend
from privacy_core.dataset import read_dataset
from privacy_core.diffusion.prepare import split_of
from privacy_core.faces import default_detector, read_photo
from privacy_core.faces.align import TEMPLATE
from privacy_core.revise.preferences import read_preferences
from privacy_core.revise.revision import Workplace, load_revision
from privacy_core.revise.rows import RowRules
from privacy_core.revise.run import ReviseConfig, revise
from privacy_core.revise.survey import survey_rows
from privacy_core.schema import RGB, AttributePolicy, Face
from privacy_core.unlearning.backbone import DlibBackbone
from privacy_core.unlearning.rows import LabelledImages, read_labelled

SPLIT, VALIDATION_SPLIT = (80, 99), (70, 79)
POLICY = AttributePolicy(keep=("smiling",))
TEST_SHARE = 0.2
SEED = 20
SIZE = 64
_MARGIN = 20
_SIDE = 168
_AT_ONCE = 128


class FixedFace:
    """Finds the one face where the development faces have it: they are aligned crops."""

    name = "aligned"

    def detect(self, pixels: RGB) -> list[Face]:
        """Return that face."""
        low, high = float(_MARGIN), float(pixels.shape[0] - _MARGIN)
        return [Face((low, low, high, high), TEMPLATE + _MARGIN, 1.0, self.name)]


def backbone() -> DlibBackbone:
    """Return the head model's backbone."""
    return DlibBackbone(FixedFace())


@dataclass(frozen=True)
class Store:
    """The work folder's rows; each file is made when first asked for.

    Attributes:
        work: A folder outside the project.
    """

    work: Path

    def faces(self, representation: str = "64 px") -> Faces:
        """Return everything as pictures ("64 px") or as descriptors ("dlib")."""
        table, revised = self.table, self.revised_rows

        def rows(name: str, like: LabelledImages) -> LabelledImages:
            return like.with_images(self._array(name, representation))

        trained = table[table.part == "train"]
        test = table[table.part == "test"]
        found = {part: _labelled(table[table.part == part]) for part in ("train", "test")}
        ids = found["train"].row_ids[trained.identity.isin(self._asking()).to_numpy()]
        seen = np.array([row["image"] is not None for row in revised])
        mine = LabelledImages(
            np.zeros((int(seen.sum()), 1)),
            found["train"].labels[np.searchsorted(found["train"].row_ids, ids[seen])],
            ids[seen],
        )
        return Faces(
            original=rows("train", found["train"]),
            people=trained.identity.to_numpy(str),
            young=trained.young.to_numpy(bool),
            revised=rows("revised", mine),
            strength=np.array([row["strength"] for row in revised], float)[seen],
            test=rows("test", found["test"]),
            test_people=test.identity.to_numpy(str),
            order=self._order(),
        )

    def validation(self, representation: str = "64 px") -> LabelledImages:
        """Return rows of yet other people, for judges and for choosing how long to train."""
        table = self.table[self.table.part == "validation"].reset_index(drop=True)
        return _labelled(table).with_images(self._array("validation", representation))

    @cached_property
    def table(self) -> pd.DataFrame:
        """All rows: image bytes, identity, label, young, part."""
        path = self.work / "table.parquet"
        if not path.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".part")
            _read_table().to_parquet(temporary)
            temporary.replace(path)
        return pd.read_parquet(path)

    @cached_property
    def revised_rows(self) -> list[dict[str, Any]]:
        """The revised data set's rows, in the order of the requested rows."""
        self.revision()
        return list(read_dataset(self.work / "revised"))

    def revision(self) -> dict[str, Any]:
        """Return `revision.json`, after revising everybody who may ask at their own strength."""
        place = Workplace(self.work / "revised")
        if place.out.exists():
            return load_revision(place.out)
        data, preferences = self.work / "requested.parquet", self.work / "preferences.json"
        chosen = self.table[self.table.part == "train"]
        chosen = chosen[chosen.identity.isin(self._asking())]
        if not data.exists():
            preferences.write_text(json.dumps(_preferences(self._asking())))
            _write_requested(chosen, data)
        source = read_dataset(data)
        return revise(
            source,
            survey_rows(source, subject_column="subject"),
            RowRules(read_preferences(preferences), policy=POLICY),
            place.out,
            anonymizer=Anonymizer(load_backend("embedded"), default_detector()),
            config=ReviseConfig(seed=SEED),
            resume=any(self.work.glob(".revised*")),
            report=_bar("Revising"),
        )

    def _order(self) -> tuple[str, ...]:
        trained = self.table[self.table.part == "train"]
        names = sorted(trained.identity.unique())
        return tuple(np.random.default_rng(SEED + 1).permutation(names).tolist())

    def _asking(self) -> tuple[str, ...]:
        return self._order()[: round(REQUESTED_SHARE * len(self._order()))]

    def _array(self, part: str, representation: str) -> NDArray[Any]:
        """Return a part's 64 px pictures or descriptors, each kept in a file of its own."""
        path = self.work / f"{part}-{representation.replace(' ', '')}.npy"
        if not path.exists():
            found = (_shrunk if representation == "64 px" else _described)(self._encoded(part))
            temporary = path.with_suffix(".part.npy")
            np.save(temporary, found)
            temporary.replace(path)
        array: NDArray[Any] = np.load(path)
        return array

    def _encoded(self, part: str) -> list[bytes]:
        if part == "revised":
            return [row["image"] for row in self.revised_rows if row["image"] is not None]
        encoded: list[bytes] = self.table[self.table.part == part].image.tolist()
        return encoded


def _shrunk(encoded: list[bytes]) -> NDArray[Any]:
    rows = ({"image": one, "label": i % 2} for i, one in enumerate(encoded))
    labelled, _ = read_labelled(rows, label_column="label", image_size=SIZE)
    return labelled.images


def _described(encoded: list[bytes]) -> NDArray[Any]:
    parts = [encoded[start : start + _AT_ONCE] for start in range(0, len(encoded), _AT_ONCE)]
    described = [
        backbone().features(np.stack([read_photo(one).pixels for one in part]))
        for part in tqdm(parts, desc="Describing", file=sys.stderr)
    ]
    return np.concatenate(described)


def _read_table() -> pd.DataFrame:
    columns = ["image", "identity", "gender", "attributes"]
    shards = sorted(folder().glob("faces-*.parquet"))
    table = pd.concat(
        [pd.read_parquet(shard, columns=columns) for shard in shards], ignore_index=True
    )
    table = table[table.identity.notna() & table.attributes.notna()]
    splits = {person: split_of(person, "") for person in table.identity.unique()}
    number = table.identity.map(splits)
    table = table[number.between(VALIDATION_SPLIT[0], SPLIT[1])].assign(split=number)
    table = table.assign(image=table.image.map(lambda one: one["bytes"]))
    digest = [hashlib.sha256(read_photo(one).pixels.tobytes()).hexdigest() for one in table.image]
    table = table.assign(digest=digest).drop_duplicates("digest").reset_index(drop=True)
    names = json.loads((folder() / "faces.json").read_text())["attribute_names"]
    smiling = table.attributes.map(lambda a: a[names.index("Smiling")])
    return table.assign(
        part=_part_of(table),
        young=table.attributes.map(lambda a: bool(a[names.index("Young")])),
        label=2 * (table.gender == "male").astype(int) + smiling,
    ).drop(columns=["attributes", "digest"])


def _part_of(table: pd.DataFrame) -> NDArray[np.str_]:
    is_own = table.split.to_numpy() >= SPLIT[0]
    people = np.random.default_rng(SEED).permutation(sorted(table.identity[is_own].unique()))
    test = people[: round(TEST_SHARE * len(people))]
    is_test = table.identity.isin(test).to_numpy()
    return np.where(is_own, np.where(is_test, "test", "train"), "validation")


def _labelled(table: pd.DataFrame) -> LabelledImages:
    """Return the rows without pictures."""
    return LabelledImages(
        np.zeros((len(table), 1)), table.label.to_numpy(np.int64), table.index.to_numpy(np.int64)
    )


def _preferences(people: Sequence[str]) -> dict[str, Any]:
    ideal = draw_people(len(people), np.random.default_rng(SEED + 2)).ideal
    subjects = {
        name: {"strength": round(float(one), 3)} for name, one in zip(people, ideal, strict=True)
    }
    return {"schema_version": 1, "subjects": subjects, "population": None}


def _write_requested(chosen: pd.DataFrame, path: Path) -> None:
    rows = {"image": chosen.image, "subject": chosen.identity}
    buffer = io.BytesIO()
    parquet.write_table(pa.table({name: pa.array(c.tolist()) for name, c in rows.items()}), buffer)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def _bar(name: str) -> Any:
    bar = tqdm(desc=name, file=sys.stderr)

    def report(_stage: str, done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return report
