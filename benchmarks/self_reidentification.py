"""Draw the noise again: how often a variant is verified as its own original, over several draws.

The audit draws each face's noise once, and a goal of 0.5 % is five faces in a thousand: chance
decides then which strength meets it. This makes the audit's test photos anew, with fresh noise, at
the strengths in question, and adds what is verified to what the audit and earlier runs found. Needs
the audit's work folder (`benchmarks.anonymization --work`) and writes
`docs/results/self_reidentification.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.anonymization_readme import DRAWS, RESULT
from benchmarks.development_faces import folder
from privacy_core.audit.anonymization.gather import CHUNK
from privacy_core.audit.anonymization.observe import faces_from_rows, open_photos
from privacy_core.audit.anonymization.people import ChosenPhoto, choose
from privacy_core.audit.anonymization.settings import EMBEDDED, AuditConfig
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.dataset import read_dataset
from privacy_core.faces import FaceDetector, default_detector, find_again, finder_of_one
from privacy_core.recognition import DlibRecogniser, embed_all

STRENGTHS = (0.8, 0.85, 0.9, 0.95, 1.0)


def distances(
    photos: Sequence[ChosenPhoto],
    place: int,
    originals: Mapping[str, NDArray[Any]],
    backend: EmbeddedBackend,
    detector: FaceDetector,
    strengths: Sequence[float],
) -> NDArray[np.float64]:
    """Return (strengths, faces) distances of the variants of one fresh draw to their originals.

    Args:
        photos: A chunk of the audit's test photos.
        place: The place of its first one.
        originals: The chunk's observations in the audit's work folder.
        backend: The model.
        detector: Finds the face again.
        strengths: On one path of noise per face.
    """
    recogniser = DlibRecogniser()
    known = faces_from_rows(originals["faces"])
    opened, _ = open_photos(photos, place, backend, detector, known=known)
    found = []
    for one, original in zip(opened, originals["embedding"], strict=True):
        pictures = [variant.image for variant in one.photo.ladder(strengths)]
        again = [find_again(detector, picture, one.landmarks) for picture in pictures]
        where = [one.landmarks if marks is None else marks for marks in again]
        seen = embed_all(recogniser, pictures, where)
        found.append(np.linalg.norm(seen - original, axis=1))
    return np.array(found).T


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="of benchmarks.anonymization")
    parser.add_argument("--draws", type=int, default=2, help="added to what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    audit = json.loads(RESULT.read_text(encoding="utf-8"))
    config = AuditConfig(n_faces=audit["config"]["n_faces"])
    photos = choose(read_dataset(f"{folder()}/faces-*.parquet"), config)["test"]
    backend, finder = EmbeddedBackend.load(), finder_of_one(default_detector())
    chunks = []
    for number, place in enumerate(tqdm(range(0, len(photos), CHUNK))):
        with np.load(arguments.work / "work" / f"originals-test-{number:04}.npz") as originals:
            part = photos[place : place + CHUNK]
            chunks += [
                distances(part, place, originals, backend, finder, STRENGTHS)
                for _ in range(arguments.draws)
            ]
    write(audit, dict(zip(STRENGTHS, np.concatenate(chunks, 1), strict=True)))


def write(audit: Mapping[str, Any], found: Mapping[float, NDArray[np.float64]]) -> None:
    """Add further draws to those of the audit and of earlier runs of this, and write the sums.

    Args:
        audit: The audit's result.
        found: Strength → distances of all further draws.
    """
    result = earlier(audit)
    for strength, far in found.items():
        row = result["strengths"][f"{strength:g}"]
        row["verified"] += int((far <= result["threshold"]).sum())
        row["of"] += len(far)
        row["draws"] = row["of"] // result["n_faces"]
        row["share"] = row["verified"] / row["of"]
    DRAWS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def earlier(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known already: the file, or the audit's own draw where it is of another."""
    name, n = DlibRecogniser.name, audit["n_faces"]
    own = {
        f"{s['strength']:g}": round(n * s["identity"][name]["self_reidentified"]["value"])
        for s in audit["settings"]
        if s["method"] == EMBEDDED and not s["policy"] and s["strength"] in STRENGTHS
    }
    result = {
        "revision": audit["revision"],
        "recogniser": name,
        "threshold": audit["originals"]["recognisers"][name]["threshold"],
        "n_faces": n,
        "strengths": {
            strength: {
                "draws": 1,
                "verified_in_the_audit": verified,
                "verified": verified,
                "of": n,
                "share": verified / n,
            }
            for strength, verified in own.items()
        },
    }
    if not DRAWS.is_file():
        return result
    stored: dict[str, Any] = json.loads(DRAWS.read_text(encoding="utf-8"))
    in_audit = {s: row["verified_in_the_audit"] for s, row in stored["strengths"].items()}
    same = all(stored[key] == result[key] for key in result if key != "strengths")
    return stored if same and in_audit == own else result


if __name__ == "__main__":
    main()
