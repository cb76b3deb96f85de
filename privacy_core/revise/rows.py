"""Rows in, revised rows out: what happens to one row, and the noise, strength and ε of each.

Knows rows, strengths and keys; no folder, no shard, no report. A row that should be anonymized and
cannot be loses its picture: there is no path on which it keeps it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from PIL import Image

from privacy_core.anonymize import Anonymizer, OpenPhoto
from privacy_core.errors import FaceFailedError, InvalidArgumentError, NoFaceError, PhotoError
from privacy_core.faces import encode_png, read_photo
from privacy_core.noise import NoiseKey
from privacy_core.revise.preferences import Preferences
from privacy_core.schema import RGB, AttributePolicy, Photo, Variant

Mode = Literal["replace", "drop-label", "drop-row"]
Others = Literal["anonymize", "keep"]
Status = Literal[
    "revised", "kept", "dropped",
    "no_image", "unreadable", "no_face", "too_many_faces", "face_failed", "not_protected",
]  # fmt: skip
STATUSES: Mapping[Status, str] = {
    "revised": "every face was anonymized",
    "kept": "not asked for, so the pixels are the original's",
    "dropped": "deleted: no such row in the revised data",
    "no_image": "withheld: the row had no picture",
    "unreadable": "withheld: the picture is damaged or too large",
    "no_face": "withheld: no face was detected",
    "too_many_faces": "withheld: too many faces were detected",
    "face_failed": "withheld: a face could not be anonymized",
    "not_protected": "withheld: the strength or the backend leaves the face recognizable",
}
"""Status → what it means."""
WITHHELD = tuple(s for s, meaning in STATUSES.items() if meaning.startswith("withheld"))
BATCH = 64
"""Photos whose faces are generated together, unless they are large."""
MOST_PIXELS = 40_000_000
"""Pixels of the photos held at once, unless a single one has more."""
_COMPRESSION = 4


@dataclass(frozen=True)
class RowRules:
    """What happens to whose rows.

    Attributes:
        preferences: Strengths.
        mode: What happens to the rows of subjects named in the preferences: `replace` gives them
            an anonymized picture, `drop-label` also takes their label, `drop-row` deletes them.
        others: What happens to all other rows: `anonymize` at the population's strength, or `keep`.
        label_column: Emptied by `drop-label`.
        policy: Treatment of attributes.
    """

    preferences: Preferences
    mode: Mode = "replace"
    others: Others = "anonymize"
    label_column: str | None = None
    policy: AttributePolicy = field(default_factory=AttributePolicy)

    def __post_init__(self) -> None:
        """Check that the rules say all they need.

        Raises:
            InvalidArgumentError: They do not.
        """
        for argument, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("others", self.others, get_args(Others)),
        ):
            if value not in known:
                raise InvalidArgumentError(
                    f"`{argument}` must be one of {', '.join(known)}, got {value!r}."
                )
        if self.mode == "drop-label" and self.label_column is None:
            raise InvalidArgumentError(
                "`label_column` must name the column that mode drop-label empties, got none. "
                "Give `--label-column`."
            )

    def is_named(self, subject: str | None) -> bool:
        """Return whether a row is one of those the preferences ask to change."""
        return subject is not None and subject in self.preferences.subjects

    def is_dropped(self, subject: str | None) -> bool:
        """Return whether a row leaves the data."""
        return self.mode == "drop-row" and self.is_named(subject)

    def is_kept(self, subject: str | None) -> bool:
        """Return whether a row keeps its pixels."""
        return self.others == "keep" and not self.is_named(subject)


@dataclass(frozen=True)
class RevisedRow:
    """One row of the revised data, or the note that there is none.

    Attributes:
        number: Row of the original data, from 0.
        subject: Who is shown, for the private account of ε only.
        status: What happened.
        columns: The row, None where it was dropped.
        mu: μ of the subject's face, None where nothing is guaranteed or released.
        reason: Why nothing is guaranteed for a revised row.
    """

    number: int
    subject: str | None
    status: Status
    columns: Mapping[str, Any] | None = field(repr=False)
    mu: float | None = None
    reason: str | None = None


@dataclass
class _Pending:
    """A row whose faces wait for the batch they are generated with."""

    number: int
    subject: str | None
    row: dict[str, Any]
    status: Status
    opened: OpenPhoto | None = None
    strength: float = 0.0
    image: bytes | None = None
    variant: Variant | None = None


class RowReviser:
    """Turns rows into revised rows.

    Args:
        anonymizer: Finds and makes faces.
        rules: What happens to whose rows.
        image_column: Holds the photo.
        key_of: Row number → that row's own noise key.
        batch: Photos whose faces are generated together.
        most_pixels: A batch also ends with the photo that reaches so many.
    """

    def __init__(
        self,
        anonymizer: Anonymizer,
        rules: RowRules,
        *,
        image_column: str,
        key_of: Callable[[int], NoiseKey],
        batch: int = BATCH,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        self._anonymizer = anonymizer
        self._rules = rules
        self._image_column = image_column
        self._key_of = key_of
        self._batch = batch
        self._most_pixels = most_pixels

    def batches(
        self, rows: Iterable[tuple[int, str | None, dict[str, Any]]]
    ) -> Iterator[list[RevisedRow]]:
        """Yield the revised rows in order, in batches that depend on the rows alone.

        Args:
            rows: (number, subject, columns) each; the columns hold the encoded photo.
        """
        pending: list[_Pending] = []
        n_pixels = 0
        for number, subject, row in rows:
            pending.append(self._opened(number, subject, row))
            photo = pending[-1].opened
            n_pixels += 0 if photo is None else photo.photo.pixels.size // 3
            if len(pending) >= self._batch or n_pixels >= self._most_pixels:
                yield self._revised(pending)
                pending, n_pixels = [], 0
        if pending:
            yield self._revised(pending)

    def _opened(self, number: int, subject: str | None, row: dict[str, Any]) -> _Pending:
        """Read a row's photo and find its faces, as far as the rules ask for it."""
        encoded = row.pop(self._image_column)
        if self._rules.is_dropped(subject):
            return _Pending(number, subject, row, "dropped")
        if encoded is None:
            return _Pending(number, subject, row, "no_image")
        try:
            photo = read_photo(encoded)
        except PhotoError:
            return _Pending(number, subject, row, "unreadable")
        if self._rules.is_kept(subject):
            return _Pending(number, subject, row, "kept", image=_plain_png(photo.pixels))
        pending = _Pending(number, subject, row, "revised")
        pending.status = self._find_faces(photo, pending)
        return pending

    def _find_faces(self, photo: Photo, pending: _Pending) -> Status:
        strength, _ = self._rules.preferences.strength_of(pending.subject)
        if strength is None:  # the survey refuses such data before any row is revised
            return "not_protected"
        key = self._key_of(pending.number)
        try:
            pending.opened = self._anonymizer.open(photo, key=key, policy=self._rules.policy)
        except NoFaceError:
            return "no_face"
        except PhotoError:
            return "too_many_faces"
        except FaceFailedError:
            return "face_failed"
        pending.strength = strength
        return "revised"

    def _revised(self, pending: list[_Pending]) -> list[RevisedRow]:
        self._generate([p for p in pending if p.opened is not None])
        return [self._finished(p) for p in pending]

    def _generate(self, pending: list[_Pending]) -> None:
        """Give each pending row its variant: the largest face at its subject's own strength."""
        others = self._rules.preferences.population
        faces = [
            (p, i, replace(
                request, strength=p.strength if i == 0 or others is None else others
            ))
            for p in pending
            if p.opened is not None
            for i, request in p.opened.requests.items()
        ]  # fmt: skip
        made = self._anonymizer.backend.generate([request for _, _, request in faces])
        results: dict[int, dict[int, Any]] = {}
        for (p, i, _), result in zip(faces, made, strict=True):
            results.setdefault(p.number, {})[i] = result
        for p in pending:
            if p.opened is None:
                continue
            try:
                variant = p.opened.assemble(p.strength, results[p.number])
            except FaceFailedError:
                p.status = "face_failed"
            else:
                p.status = "revised" if variant.protected else "not_protected"
                p.variant = variant if variant.protected else None

    def _finished(self, p: _Pending) -> RevisedRow:
        if p.status == "dropped":
            return RevisedRow(p.number, p.subject, "dropped", None)
        columns, variant, label = dict(p.row), p.variant, self._rules.label_column
        if self._rules.mode == "drop-label" and self._rules.is_named(p.subject) and label:
            columns[label] = None
        privacy = None if variant is None else variant.privacy
        image = p.image
        if variant is not None:
            mark = self._anonymizer.backend.digital_source_type
            image = encode_png(variant.image, digital_source_type=mark)
        columns |= {
            self._image_column: None if image is None else {"bytes": image, "path": None},
            "row_id": p.number,
            "revised": variant is not None,
            "strength": None if variant is None else variant.strength,
            "epsilon": None if privacy is None else privacy.epsilon,
            "status": p.status,
        }
        return RevisedRow(
            p.number,
            p.subject,
            p.status,
            columns,
            None if privacy is None else privacy.mu,
            None if privacy is None else privacy.reason,
        )


def _plain_png(pixels: RGB) -> bytes:
    """Return kept pixels without the metadata of their file, and without a mark of an edit."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_COMPRESSION)
    return buffer.getvalue()
