"""What programs may call by name: a variant, a ladder, a recommendation, the app's health.

Signatures and docstrings are what programs and agents are told. Knows no web page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from privacy_core.schema import DEFAULT_STRENGTH, Variant
from shell.api import (
    Attribute,
    JudgedStrength,
    PublicCalls,
    photo_of,
    picture_name,
    read_history,
    recommendation,
)
from shell.desk import RatingDesk
from shell.pictures import PICTURE_NAME, PictureFolder
from shell.updates import FileData, picture_file


class ApiHandlers:
    """What programs may call, by the names in `routes.PUBLIC_CALLS`; every call stands alone.

    Their docstrings are the description that programs get.

    Args:
        calls: Makes pictures.
        desk: Knows where a dial stands by some answers.
        pictures: What the page serves files from.
        report: What `GET /health` tells.
    """

    def __init__(
        self,
        calls: PublicCalls,
        desk: RatingDesk,
        *,
        pictures: PictureFolder,
        report: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._calls = calls
        self._desk = desk
        self._pictures = pictures
        self._report = report

    def anonymize(
        self,
        photo: FileData,
        strength: float = DEFAULT_STRENGTH,
        keep: list[Attribute] | None = None,
        hide: list[Attribute] | None = None,
    ) -> tuple[FileData, dict[str, Any]]:
        """Replace every face found in one photo by one that does not exist.

        The photo is read in memory and deleted at once; nothing of it is stored. The picture can
        be fetched for about 15 minutes and carries no metadata but the mark that it was edited.

        Args:
            photo: One uploaded picture (JPEG, PNG, WebP and the like; at most 25 MB), no address.
            strength: How much of a face is replaced, in [0, 1]: 0 keeps it, 1 replaces it
                completely, 0.95 is where every dial starts.
            keep: Attributes to keep from the photo, at the price of some privacy.
            hide: Attributes to drop and draw at random.

        Returns:
            The picture, a PNG of at most 2048 pixels on its longer side.
            The report: strength, noise (sigma), privacy loss (mu, epsilon at delta; null without
            a guarantee, with the reason), faces, model, and what is not covered.
        """
        made = self._calls.anonymize(photo, strength, keep=keep, hide=hide)
        return self._file(made.variants[0], PICTURE_NAME), made.report

    def ladder(
        self, photo: FileData, strengths: list[float] | None = None
    ) -> tuple[list[FileData], dict[str, Any]]:
        """Replace every face found in one photo, at several strengths on one noise path.

        All of the pictures together tell no more than the weakest. See anonymize for the rest.

        Args:
            photo: One uploaded picture, no address.
            strengths: 1 to 10 different numbers in [0, 1]; 0.2, 0.4, 0.6, 0.8 and 1 by default.

        Returns:
            The pictures, in the order of the strengths.
            The report, one entry in variants for each picture, and what they cost together.
        """
        made = self._calls.ladder(photo, strengths)
        files = [self._file(v, picture_name(i)) for i, v in enumerate(made.variants, 1)]
        return files, made.report

    def recommend(self, history: list[JudgedStrength] | None = None) -> dict[str, Any]:
        """Recommend a strength by answers to "how is it?"; nothing is remembered.

        Args:
            history: At most 200 answers, the latest last: strength in [0, 1]; just_right from 0
                (still far too recognisable) over 2 (just right) to 4 (changed far too much); and
                the photo it was about, by any name, if there are several.

        Returns:
            strength in [0, 1] for the photo of the latest answer, with low and high of the 90 %
            interval of the ideal; source "own" once the answers say enough, else "population".
        """
        judgements = read_history(history)
        return recommendation(self._desk.recommend(judgements, photo_id=photo_of(judgements)))

    def health(self) -> dict[str, Any]:
        """Tell how the app is: versions, digest of the model, age of the copy, length of the queue.

        Returns:
            The same as GET /health.
        """
        return dict(self._report())

    def _file(self, variant: Variant, name: str) -> FileData:
        path = self._pictures.download(variant, name=name)
        # As a dictionary: Gradio would not find it in a list, and never delete the file.
        return picture_file(path, name)
