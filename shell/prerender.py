"""`python -m shell.prerender`: makes the ladders of the example photos that the page starts with.

Knows the examples and the model, and no page. The noise is expanded from a public seed, so that
the same weights make the same pictures, and what is made tells nothing of any visitor's noise.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from privacy_core.anonymize import LADDER, Anonymizer
from privacy_core.backends.embedded import MODEL_FOLDER, EmbeddedBackend
from privacy_core.errors import OutputError, PrivacyDialError
from privacy_core.faces import default_detector, read_photo
from privacy_core.noise import NoiseKey
from privacy_core.schema import RGB
from shell.pictures import reduced, xmp_packet
from shell.previews import FOLDER, MANIFEST, SCHEMA_VERSION, digest, example_photos, file_name

SEED = 20_261_121
"""Public: whoever has it and the weights can undo the noise, of faces that belong to nobody."""
SIDE = 224
_QUALITY = 80
MOST_BYTES = 1_000_000


def prerender(anonymizer: Anonymizer, photos: Sequence[Path], *, model: str, out: Path) -> int:
    """Write the ladders of some photos into a folder, in place of what it held.

    Args:
        anonymizer: Makes variants.
        photos: Examples, of nobody who exists.
        model: Revision of the weights.
        out: Replaced whole.

    Returns:
        Bytes written.

    Raises:
        OutputError: They are too large to be shipped; nothing was replaced.
        PrivacyDialError: A photo holds no face.
    """
    mark = xmp_packet(anonymizer.backend.digital_source_type)
    files: dict[str, bytes] = {}
    sigmas: list[float | None] = []
    for path in photos:
        photo = read_photo(path.read_bytes())
        opened = anonymizer.open(photo, key=NoiseKey.from_seed(SEED).child(path.name))
        files[file_name(path, None)] = _webp(photo.pixels, mark)
        ladder = opened.ladder()
        sigmas = [variant.sigma for variant in ladder]
        for strength, variant in zip(LADDER, ladder, strict=True):
            files[file_name(path, strength)] = _webp(variant.image, mark)
    values = {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "seed": SEED,
        "strengths": list(LADDER),
        # A model that is calibrated again has other noise at the same strengths.
        "sigmas": sigmas,
        "photos": {path.name: digest(path.read_bytes()) for path in photos},
    }
    files[MANIFEST] = f"{json.dumps(values, indent=2)}\n".encode()
    if (n_bytes := sum(map(len, files.values()))) > MOST_BYTES:
        raise OutputError(
            f"The previews may have {MOST_BYTES:,} bytes in all, got {n_bytes:,}. Take fewer "
            "examples."
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
    return n_bytes


def _webp(pixels: RGB, mark: bytes) -> bytes:
    buffer = io.BytesIO()
    small = Image.fromarray(np.ascontiguousarray(reduced(pixels, SIDE)))
    small.save(buffer, "WEBP", quality=_QUALITY, method=6, xmp=mark)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the previews; return 0, or 2 for what was refused."""
    options = command_line().parse_args(arguments)
    torch.set_num_threads(1)
    try:
        backend = EmbeddedBackend.load(options.model)
        photos = example_photos(FOLDER.parent)
        n_bytes = prerender(
            Anonymizer(backend, default_detector()),
            photos,
            model=backend.revision,
            out=options.out,
        )
    except PrivacyDialError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"Ladders of {len(photos)} photos, {n_bytes / 1e3:.0f} kB.\n")
    return 0


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m shell.prerender",
        description="Make the example photos' ladders that the page shows before a model is warm.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="folder of the weights")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder, replaced whole")
    return parser


if __name__ == "__main__":
    sys.exit(main())
