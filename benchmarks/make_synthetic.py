"""Make people who do not exist: several photos of each, for examples, tests and screenshots.

A whole-head version of the embedded model (not shipped) draws heads: a subject is a draw of the
coordinates that tell people apart, and each photo keeps those, nearly, and draws all others anew
(between- and within-person covariance of codes). The embedded model then gives each subject one
sharper face, drawn from pure noise, and puts it with a little noise into every photo. A head
that singles out one fitted face more than 95 % of held-out faces do, or a photo that the recogniser
matches with one of its head's nearest fitted faces, is thrown away with its subject.

With `--table` the photos go into parquet files with labels, every second one asked to smile: the
split `test` holds the last eight subjects of each gender, `train` all others.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.development_faces import detector, folder
from privacy_core.backends.embedded import MODEL_FOLDER
from privacy_core.dataset import read_dataset
from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.fit import FIT, VALIDATION, FitConfig, fit_model
from privacy_core.diffusion.fit_code import CodeFitConfig
from privacy_core.diffusion.model import EmbeddedModel, load_model
from privacy_core.diffusion.prepare import PreparedFaces, prepare_faces
from privacy_core.diffusion.refiner_examples import RefinerFitConfig
from privacy_core.diffusion.sampler import sample
from privacy_core.diffusion.training import SIGMA_MAX, TrainingConfig
from privacy_core.faces import default_detector, photo_from_pixels, prepare
from privacy_core.faces.align import SIZE
from privacy_core.faces.output import write_png
from privacy_core.recognition import DlibRecogniser
from privacy_core.schema import ATTRIBUTES, RGB, AttributePolicy

MARGIN = 20
IDENTITY_NOISE = 0.25
"""Noise on the identity coordinates of each photo: how alike two photos of one subject are."""
FACE_NOISE = 0.5
"""Noise on the face's own code in each photo."""
CAUTION = 1.5
"""Heads are drawn more cautiously than faces: their backgrounds are beyond a linear code."""
SIDE = 256
SAME_PERSON = 0.55
TABLE_SIDE = 160
"""Pixels of a photo in the table: the face is then as large as the model draws it."""
LETTERS = "abcdefgh"
TEST_SUBJECTS = 8
"""Subjects of each gender in the table's test split: as many of one as of the other."""
CONFIG = FitConfig(
    code=CodeFitConfig(n_components=384, n_context=4, gain=0.5, copies=1, identity_width=64),
    training=TrainingConfig(n_faces=2_500_000, independent_groups=True, context_drop=1.0),
    refiner=RefinerFitConfig(n_steps=0),
    width=768,
    margin=MARGIN,
)


def usable_rows(source: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the development faces whose whole picture was photographed."""
    for row in read_dataset(f"{source}/faces-*.parquet"):
        corners = np.array(row["frame"]).reshape(4, 2)
        if corners.min() <= 0 and corners.max(0).min() >= 167:
            yield row


def draw(
    model: EmbeddedModel, n_subjects: int, n_photos: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return (n_subjects, n_photos, K) codes and (n_subjects,) gender tokens."""
    k = model.code.sizes.n_components
    width = sum(model.code.sizes.groups.values())
    gender = torch.arange(n_subjects) % 2
    tokens = torch.full((n_subjects, len(ATTRIBUTES)), NULL)
    tokens[:, list(ATTRIBUTES).index("gender")] = gender

    def solve(y: Tensor, factors: Tensor, tokens: Tensor) -> Tensor:
        sigma = torch.full((len(y),), SIGMA_MAX)
        return sample(
            model.denoiser,
            y,
            sigma,
            factors.expand(len(y), k),
            context=None,
            attributes=tokens,
            n_steps=16,
            caution=CAUTION,
            guidance=0.0,
        )

    def noise(n: int) -> Tensor:
        return SIGMA_MAX * torch.randn(n, k, generator=generator)

    own = torch.arange(k) < width
    subjects = torch.where(own, solve(noise(n_subjects), torch.ones(k), tokens), 0.0)
    factors = torch.ones(k)
    factors[:width] = SIGMA_MAX / IDENTITY_NOISE
    each = subjects.repeat_interleave(n_photos, 0)
    y = factors * each + noise(len(each))
    codes = solve(y, factors, tokens.repeat_interleave(n_photos, 0))
    return codes.reshape(n_subjects, n_photos, k), gender


def nearness(codes: Tensor, others: Tensor) -> Tensor:
    """Return the distance to the nearest of `others` over that to the 50th nearest, per code.

    A copy of one face stands out by a small ratio; a face that is merely plain, and so near to
    everyone, does not.
    """
    distances = torch.cdist(codes.float(), others.float()).topk(50, largest=False).values
    return distances[:, 0] / distances[:, -1]


def matches(
    codes: Tensor,
    photos: list[RGB],
    prepared: PreparedFaces,
    fitted: Tensor,
    rows: NDArray[np.int64],
) -> bool:
    """Say whether the recogniser takes a photo for one of its head's 20 nearest fitted faces."""
    recogniser = DlibRecogniser()
    closest = torch.cdist(codes.float(), fitted.float()).topk(20, largest=False).indices.numpy()
    margin = round(MARGIN * SIDE / (SIZE + 2 * MARGIN))

    def embed(picture: RGB) -> NDArray[np.float64]:
        return recogniser.embed_frame(picture[margin:-margin, margin:-margin])

    for photo, near in zip(photos, closest, strict=True):
        own = embed(photo)
        others = enlarged(np.stack([prepared.faces.frames[rows[i]] for i in near]))
        if min(recogniser.distance(own, embed(other)) for other in others) < SAME_PERSON:
            return True
    return False


def whole_heads(folder_of_model: Path) -> tuple[EmbeddedModel, PreparedFaces]:
    """Return the whole-head model and its aligned faces, fitted unless they are there."""
    rows = list(usable_rows(folder()))
    finder = detector()
    bar = tqdm(file=sys.stderr)

    def report(stage: str, done: int, total: int) -> None:
        bar.set_description(f"{stage} {done}/{total}")

    if not (folder_of_model / "model_index.json").is_file():
        fit_model(
            rows,
            len(rows),
            folder_of_model,
            config=CONFIG,
            detector=finder,
            report=report,
            talk=bar.write,
        )
    work = folder_of_model / "work"
    prepared = prepare_faces(rows, len(rows), work, detector=finder, report=report, margin=MARGIN)
    return load_model(folder_of_model, dtype=torch.float32), prepared


def encoded(model: EmbeddedModel, prepared: PreparedFaces, index: NDArray[np.int64]) -> Tensor:
    """Return the codes of the aligned faces at `index`."""
    parts = np.array_split(index, max(1, len(index) // 512))
    frames = prepared.faces.frames
    return torch.cat([model.code.encode(torch.from_numpy(frames[part])) for part in parts])


def with_face(
    heads: list[RGB],
    gender: int,
    embedded: EmbeddedModel,
    generator: torch.Generator,
    *,
    smiles: bool,
) -> list[RGB] | None:
    """Give one subject's heads one face of the embedded model; None if a head shows no face.

    With `smiles`, the coordinates of smiling are drawn anew for each photo and every second one
    is asked to smile.
    """
    found = [default_detector().detect(head) for head in heads]
    if not all(found):
        return None
    photos = [photo_from_pixels(head) for head in heads]
    prepared = [prepare(photo, faces[:1]) for photo, faces in zip(photos, found, strict=True)]
    if any(one.failures for one in prepared):
        return None
    contexts = torch.from_numpy(np.stack([one.context_pixels(0) for one in prepared]))
    n, k = len(heads), embedded.code.sizes.n_components
    tokens = torch.full((n, len(ATTRIBUTES)), NULL)
    tokens[:, list(ATTRIBUTES).index("gender")] = gender

    def solve(code: Tensor, sigma: float, factors: Tensor) -> Tensor:
        rows = len(code)
        noise = torch.randn(code.shape, generator=generator)
        return sample(
            embedded.denoiser,
            factors * code + sigma * noise,
            torch.full((rows,), sigma),
            factors.expand(rows, k),
            context=embedded.code.context(contexts[:rows]),
            attributes=tokens[:rows],
        )

    own = solve(torch.zeros(1, k), SIGMA_MAX, torch.ones(k))
    if not smiles:
        each = solve(own.expand(n, k), FACE_NOISE, torch.ones(k))
    else:
        tokens[:, list(ATTRIBUTES).index("smiling")] = torch.arange(n) % 2
        smile = embedded.code.policy_factors(AttributePolicy(keep=("smiling",))) > 1
        factors = torch.where(smile, 1.0, SIGMA_MAX / FACE_NOISE)
        each = solve(own.expand(n, k), SIGMA_MAX, factors)
    frames = embedded.code.decode(each).numpy()
    return [one.paste({0: frame}) for one, frame in zip(prepared, frames, strict=True)]


def enlarged(frames: NDArray[np.uint8]) -> list[RGB]:
    """Return 256 px pictures of (n, 128, 128, 3) frames."""
    size = (SIDE, SIDE)
    return [np.asarray(Image.fromarray(f).resize(size, Image.Resampling.LANCZOS)) for f in frames]


def write_people(out: Path, people: list[list[RGB]]) -> None:
    """Write the photos of each person as person-NN-L.png."""
    out.mkdir(parents=True, exist_ok=True)
    for number, photos in enumerate(people, 1):
        for letter, photo in zip(LETTERS, photos, strict=False):
            path = out / f"person-{number:02d}-{letter}.png"
            write_png(path, photo, digital_source_type="trainedAlgorithmicMedia")


def write_table(out: Path, people: list[list[RGB]], gender: list[str]) -> None:
    """Write one row per photo: image, subject, gender and smiling, both as they were asked for."""
    import datasets  # noqa: PLC0415 - only the table needs it

    features = datasets.Features(
        {"image": datasets.Image(), "subject": datasets.Value("string")}
        | {
            name: datasets.ClassLabel(names=list(ATTRIBUTES[name]))
            for name in ("gender", "smiling")
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    for split, subjects in split_subjects(gender).items():
        rows = [
            {
                "image": {"bytes": _jpeg(photo), "path": None},
                "subject": f"person-{subject + 1:02d}",
                "gender": gender[subject],
                "smiling": ATTRIBUTES["smiling"][i % 2],
            }
            for subject in subjects
            for i, photo in enumerate(people[subject])
        ]
        # Named as `datasets` names shards, so that readers take them for splits.
        path = out / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)


def split_subjects(gender: list[str]) -> dict[str, list[int]]:
    """Return the subjects of each split: the last `TEST_SUBJECTS` of each gender are the test."""
    everyone = range(len(gender))
    last = [[i for i in everyone if gender[i] == one][-TEST_SUBJECTS:] for one in set(gender)]
    test = sorted(subject for some in last for subject in some)
    return {"train": [i for i in everyone if i not in test], "test": test}


def _jpeg(photo: RGB) -> bytes:
    buffer = io.BytesIO()
    small = Image.fromarray(photo).resize((TABLE_SIDE, TABLE_SIDE), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main() -> None:
    """Fit the whole-head model unless it is there, draw people, check and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the whole-head model")
    parser.add_argument("--out", type=Path, default=Path("examples"))
    parser.add_argument("--subjects", type=int, default=20)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=3, help="subjects drawn per subject kept")
    parser.add_argument("--table", action="store_true", help="parquet files with labels")
    arguments = parser.parse_args()
    model, prepared = whole_heads(arguments.model)
    fit_index = prepared.between(*FIT)
    fitted = encoded(model, prepared, fit_index)
    held_out = nearness(encoded(model, prepared, prepared.between(*VALIDATION)), fitted)
    limit = float(held_out.quantile(0.05))
    generator = torch.Generator().manual_seed(arguments.seed)
    codes, gender = draw(model, arguments.draws * arguments.subjects, arguments.photos, generator)
    ratio = nearness(codes.flatten(0, 1), fitted).reshape(codes.shape[:2])
    fresh = (ratio > limit).all(1)
    embedded = load_model(MODEL_FOLDER, dtype=torch.float32)
    chosen: list[int] = []
    people: list[list[RGB]] = []
    for subject in torch.nonzero(fresh).flatten().tolist():
        if len(chosen) == arguments.subjects:
            break
        heads = enlarged(model.code.decode(codes[subject]).numpy())
        photos = with_face(heads, int(gender[subject]), embedded, generator, smiles=arguments.table)
        if photos and not matches(codes[subject], photos, prepared, fitted, fit_index):
            chosen.append(subject)
            people.append(photos)
    asked = [ATTRIBUTES["gender"][int(gender[i])] for i in chosen]
    if arguments.table:
        write_table(arguments.out, people, asked)
    else:
        write_people(arguments.out, people)
    facts = {
        "subjects": len(chosen),
        "photos_of_each": arguments.photos,
        "seed": arguments.seed,
        "gender_asked": asked,
        "distance_to_nearest_over_50th_nearest_fitted_face": {
            "drawn_median": float(ratio[chosen].median()),
            "drawn_smallest": float(ratio[chosen].min()),
            "held_out_median": float(held_out.median()),
            "held_out_5th_percentile": limit,
            "drawn_subjects_rejected": int((~fresh).sum()),
        },
    }
    text = json.dumps(facts, indent=1) + "\n"
    (arguments.out / "people.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
