"""Draw the README's sheet: eight people who do not exist, each at six strengths of the dial.

The noise comes from a public seed, so that anyone gets the same sheet from the same weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.faces import default_detector, read_photo
from privacy_core.noise import NoiseKey

ROOT = Path(__file__).resolve().parents[1]
PEOPLE = ("02", "04", "05", "07", "09", "11", "13", "17")
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SIDE, MARGIN = 160, 22


def main() -> None:
    """Write `docs/screenshots/people.webp`: a row per strength, a column per person."""
    torch.set_num_threads(1)
    anonymizer = Anonymizer(EmbeddedBackend.load(), default_detector())
    labels = ("original", *(f"strength {strength:g}" for strength in STRENGTHS))
    sheet = Image.new("RGB", (len(PEOPLE) * SIDE, len(labels) * (SIDE + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, label in enumerate(labels):
        pen.text((4, row * (SIDE + MARGIN) + 5), label, fill="black")
    for column, person in enumerate(PEOPLE):
        photo = read_photo((ROOT / "examples" / f"person-{person}-a.png").read_bytes())
        opened = anonymizer.open(photo, key=NoiseKey.from_seed(0).child(person))
        pictures = [photo.pixels, *(v.image for v in opened.ladder(STRENGTHS))]
        for row, picture in enumerate(pictures):
            small = Image.fromarray(np.asarray(picture)).resize(
                (SIDE, SIDE), Image.Resampling.LANCZOS
            )
            sheet.paste(small, (column * SIDE, row * (SIDE + MARGIN) + MARGIN))
    sheet.save(ROOT / "docs" / "screenshots" / "people.webp", quality=82)


if __name__ == "__main__":
    main()
