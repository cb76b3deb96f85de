"""Train and measure the second recogniser: `models/recogniser/`.

Fits on people of splits 0-69 with two photos or more, stops when it is best on those of 70-79, and
measures on people of splits 80-99, whom no network here saw. Writes weights and figures only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.development_faces import prepared_faces
from privacy_core.audit.anonymization.adversary import discriminants
from privacy_core.audit.anonymization.distances import distances, threshold_of
from privacy_core.audit.anonymization.learning import LearningConfig
from privacy_core.audit.anonymization.learning import train as train_module
from privacy_core.diffusion.prepare import PreparedFaces
from privacy_core.margin_recogniser import (
    RECOGNISER_CONFIG,
    RECOGNISER_FOLDER,
    RECOGNISER_WEIGHTS,
    MarginNetwork,
    RecogniserConfig,
    features_of,
)

FITTED, WATCHED, TESTED = (0, 69), (70, 79), (80, 99)
FALSE_ACCEPT_RATES = (1e-3, 1e-2)
_CHUNK = 256


@dataclass(frozen=True)
class MarginTraining:
    """How the recogniser is trained.

    Attributes:
        steps: At most.
        batch: People per step.
        learning_rate: The highest.
        check_every: Steps between two looks at the people watched.
        seed: Seed of weights, batches and dropout.
        margin: Taken off the cosine of the true pair.
        temperature: Of the softmax over the batch's cosines.
    """

    steps: int = 400
    batch: int = 1024
    learning_rate: float = 5e-4
    check_every: int = 25
    seed: int = 0
    margin: float = 0.1
    temperature: float = 0.07


@dataclass(frozen=True)
class Photos:
    """Features (n, d) of photos and of their mirror images, and who is shown on each (n,)."""

    seen: Tensor
    mirrored: Tensor
    people: NDArray[np.int64]

    @classmethod
    def of(cls, prepared: PreparedFaces, splits: tuple[int, int]) -> Photos:
        """Return the photos of these splits' people who have two or more."""
        index = prepared.between(*splits)
        who = prepared.faces.identity[index]
        _, place, counts = np.unique(who, return_inverse=True, return_counts=True)
        faces = prepared.faces.take(index[(who >= 0) & (counts[place] > 1)])
        _, people = np.unique(faces.identity, return_inverse=True)
        frames = np.asarray(faces.frames)
        parts = [frames[start : start + _CHUNK] for start in range(0, len(frames), _CHUNK)]
        seen, mirrored = (
            torch.cat([features_of(part[:, :, ::step]) for part in parts]) for step in (1, -1)
        )
        return cls(seen, mirrored, people.astype(np.int64))


def train(photos: Photos, watched: Photos, at: MarginTraining) -> MarginNetwork:
    """Return the network: principal components, linear discriminants, then pairs with a margin."""
    torch.manual_seed(at.seed)
    network = MarginNetwork(RecogniserConfig())
    both = torch.cat([photos.seen, photos.mirrored])
    network.mean = both.mean(0)
    _, _, basis = torch.pca_lowrank(
        both - network.mean, network.config.n_components, center=False, niter=4
    )
    components = (both - network.mean) @ basis
    spread = components.std()
    network.basis, components = (basis / spread).contiguous(), components / spread
    people = np.concatenate([photos.people, photos.people])
    start = discriminants(components, people, n_directions=network.config.embedding)
    network.begin_at(start / (components @ start).std())
    _train_pairs(network, components.unflatten(0, (2, -1)), photos.people, watched, at)
    return network


def _train_pairs(
    network: MarginNetwork,
    components: Tensor,
    people: NDArray[np.int64],
    watched: Photos,
    at: MarginTraining,
) -> None:
    rows_of = [np.flatnonzero(people == person) for person in np.unique(people)]
    rng = np.random.default_rng(at.seed)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = rng.permutation(len(rows_of))[: at.batch]
        rows = torch.from_numpy(
            np.array([rng.choice(rows_of[i], 2, replace=False) for i in chosen])
        )
        sides = torch.randint(2, rows.shape, generator=generator)
        one, other = (
            nn.functional.normalize(
                network.embed_components(components[sides[:, k], rows[:, k]]), dim=1
            )
            for k in (0, 1)
        )
        cosines = one @ other.T - at.margin * torch.eye(len(rows))
        truth = torch.arange(len(rows))
        logits = cosines / at.temperature
        both: Tensor = nn.functional.cross_entropy(logits, truth) + nn.functional.cross_entropy(
            logits.T, truth
        )
        return both / 2

    def missed() -> float:
        found = measure(network, watched)
        print(found, flush=True)
        return 1 - found["tar_at_0.001"]

    learning = LearningConfig(
        steps=at.steps, batch=at.batch, learning_rate=at.learning_rate,
        check_every=at.check_every, seed=at.seed,
    )  # fmt: skip
    train_module(network, loss, missed, learning)


@torch.inference_mode()
def measure(network: MarginNetwork, photos: Photos) -> dict[str, float]:
    """Return the share of pairs of one person that are verified, at two false-accept rates."""
    both = network(photos.seen) + network(photos.mirrored)
    seen = nn.functional.normalize(both, dim=1).double().numpy()
    first, second = np.triu_indices(len(seen), 1)
    same = photos.people[first] == photos.people[second]
    apart = distances(seen, seen)[first, second][same]
    found: dict[str, float] = {"photos": len(seen), "people": len(np.unique(photos.people))}
    for rate in FALSE_ACCEPT_RATES:
        threshold, _ = threshold_of(seen, photos.people, false_accept_rate=rate)
        found[f"tar_at_{rate:g}"] = round(float((apart < threshold).mean()), 4)
    return found


def main() -> int:
    """Train on the development faces, and write weights, configuration and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="work folder of fit-model")
    parser.add_argument("--out", type=Path, default=RECOGNISER_FOLDER, help="where weights go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _, prepared = prepared_faces(options.work)
    photos, at = Photos.of(prepared, FITTED), MarginTraining()
    network = train(photos, Photos.of(prepared, WATCHED), at)
    weights = {name: value.half() for name, value in network.state_dict().items()}
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / RECOGNISER_WEIGHTS
    save_file(weights, path)
    stored = {
        "schema_version": 1,
        "revision": hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        "config": asdict(network.config),
        "training": asdict(at),
        "fitted_on": {
            "splits": FITTED, "photos": len(photos.people),
            "people": len(np.unique(photos.people)),
        },
        "watched": {"splits": WATCHED},
        "held_out": {"splits": TESTED, **measure(network, Photos.of(prepared, TESTED))},
    }  # fmt: skip
    text = json.dumps(stored, indent=1) + "\n"
    (options.out / RECOGNISER_CONFIG).write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
