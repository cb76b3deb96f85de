"""Opens a photo, turns its dial, and hands out the variant that is shown.

Knows no web page: gets plain values of a call and returns what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback.columns import Source
from privacy_core.anonymize import Anonymizer
from privacy_core.errors import PhotoError
from privacy_core.faces import read_photo
from privacy_core.report import of_face, verified_share, worst_case
from privacy_core.schema import AttributePolicy, StrengthCurve, Variant
from shell.callers import Picked, Progress, Request, speaker_of
from shell.desk import RatingDesk
from shell.dial_words import set_line
from shell.face_words import ALL_FACES, mixed_lines, place_label
from shell.handlers.groups import no_face, show_groups
from shell.languages import Speaker
from shell.pictures import PictureFolder, numbered, take_upload
from shell.updates import SKIP, update
from shell.visit import OpenPhotos, Visit
from shell.wording import found_line, measured_line, privacy_line, total_line, worst_line


class PhotoHandlers:
    """What the controls of a photo do; all about a visitor is in the `Visit` they are given.

    Args:
        anonymizer: Makes variants.
        desk: Knows where a dial stands.
        examples: Pictures of nobody.
        pictures: What the page serves pictures from.
        curve: How strength was measured, None where it was not.
        uploads: Paths that the server itself gave to uploads; others are never opened.
    """

    def __init__(
        self,
        anonymizer: Anonymizer,
        desk: RatingDesk,
        *,
        uploads: set[str],
        examples: Sequence[Path],
        pictures: PictureFolder,
        curve: StrengthCurve | None,
    ) -> None:
        self._anonymizer = anonymizer
        self._desk = desk
        self._uploads = uploads
        self._examples = tuple(examples)
        self._pictures = pictures
        self._curve = curve
        self._open_photos = OpenPhotos()

    def open_upload(
        self,
        request: Request,
        path: str | None,
        history: object,
        visit: Visit | None,
        progress: Progress,
    ) -> Any:
        """Read an uploaded photo or webcam frame, and delete the file at once."""
        say = speaker_of(request)
        if path is None:  # The field was emptied, or the camera chosen.
            return SKIP
        data = take_upload(path, self._uploads)
        return self._open(data, "own_photo", history, visit, progress, say=say)

    def open_example(
        self,
        request: Request,
        event: Picked,
        history: object,
        visit: Visit | None,
        progress: Progress,
    ) -> tuple[Any, ...]:
        """Read one of the example pictures."""
        say = speaker_of(request)
        index = event.index
        if not isinstance(index, int) or not 0 <= index < len(self._examples):
            raise PhotoError("`example` must be one of those shown, got another. Choose one.")
        data = self._examples[index].read_bytes()
        return self._open(data, "synthetic_face", history, visit, progress, say=say)

    def turn(self, request: Request, strength: float, visit: Visit | None) -> tuple[Any, ...]:
        """Show the variant at another strength."""
        say = speaker_of(request)
        visit = visit or Visit()
        return *self.show(visit.variant(strength), say=say), visit

    def compare(self, is_shown: bool) -> tuple[Any, Any]:
        """Show or hide the original beside the variant, and what that means."""
        return update(visible=bool(is_shown)), update(visible=bool(is_shown))

    def set_policy(
        self,
        request: Request,
        keep: list[str],
        hide: list[str],
        strength: float,
        visit: Visit | None,
    ) -> tuple[Any, ...]:
        """Treat attributes differently and show the variant again."""
        visit = visit or Visit()
        visit.set_policy(AttributePolicy(keep=tuple(sorted(keep)), hide=tuple(sorted(hide))))
        variant = visit.variant(strength)
        return *self.show(variant, say=speaker_of(request)), visit

    def settle(self, own: float, number: int, strength: float, visit: Visit | None) -> Visit:
        """Take the dial of a face as it stands, in case a download overtook the finger."""
        visit = visit or Visit()
        if number and own != visit.strengths.get(number - 1, strength):
            visit.turn_face(number, own)
        return visit

    def download(self, request: Request, strength: float, visit: Visit | None) -> tuple[Any, ...]:
        """Make the file of the variant that is shown, and count it."""
        say = speaker_of(request)
        visit = visit or Visit()
        variant = visit.variant(strength)
        file = self._pictures.download(variant)
        total = visit.release(variant)
        return file, total_line(total, visit.n_downloads, visit.n_left, say=say), visit

    def close_photo(self, visit: Visit | None) -> tuple[Any, ...]:
        """Drop the photo and go back to the start."""
        visit = visit or Visit()
        visit.forget_photo()
        return update(visible=True), *show_groups(dial=False, page=False), None, None, "", "", visit

    def _open(
        self,
        data: bytes,
        source: Source,
        history: object,
        visit: Visit | None,
        progress: Progress,
        *,
        say: Speaker,
    ) -> tuple[Any, ...]:
        visit = visit or Visit()
        progress(0.1, desc=say("Looking for faces"))
        visit.open(self._anonymizer, read_photo(data), source=source)
        self._open_photos.add(visit)
        progress(0.7, desc=say("Making a variant"))
        opened = visit.photo()
        standing = self._desk.standing(visit, history)
        pixels, faces = opened.photo.pixels, opened.faces
        picture, line = self.show(opened.variant(standing.strength), say=say)
        return (
            update(visible=False),
            *show_groups(dial=True, page=False),
            found_line(len(faces), opened.photo.notes, say=say),
            self._pictures.preview(numbered(pixels, faces) if len(faces) > 1 else pixels),
            picture,
            standing.strength,
            line,
            [],
            [],
            set_line(standing, say=say),
            "",
            update(visible=len(faces) > 1),
            update(choices=_face_choices([face.box for face in faces], say=say), value=0),
            *no_face(),
            visit,
        )

    def show(self, variant: Variant, *, say: Speaker) -> tuple[str, str]:
        """Return the picture of a variant, and what holds for it."""
        return self._pictures.preview(variant.image), self._line(variant, say=say)

    def _line(self, variant: Variant, *, say: Speaker) -> str:
        """Say what is guaranteed, for each face where they are treated differently."""
        if not variant.is_mixed:
            return self._said(variant, say=say)
        alike: dict[object, list[int]] = {}
        for number, face in enumerate(variant.faces, 1):
            if face.treatment == "generated":
                alike.setdefault((face.strength, face.sigma), []).append(number)
        lines = [
            (faces, self._said(of_face(variant, faces[0]), say=say)) for faces in alike.values()
        ]
        return mixed_lines(variant, lines, say=say)

    def _said(self, variant: Variant, *, say: Speaker) -> str:
        """Say what is guaranteed, and what was measured where the policy is the measured one."""
        measured = measured_line(verified_share(variant, self._curve), say=say)
        rate = worst_case(variant, self._curve)["true_positive_rate"]
        worst = worst_line(rate, say=say) if measured and isinstance(rate, float) else ""
        return privacy_line(variant, say=say) + measured + worst


def _face_choices(boxes: Sequence[Sequence[float]], *, say: Speaker) -> list[tuple[str, int]]:
    numbers = range(1, len(boxes) + 1)
    return [
        (say(ALL_FACES), 0),
        *((place_label(number, boxes, say=say), number) for number in numbers),
    ]
