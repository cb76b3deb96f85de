"""Tiny real target models and data with a known structure, for the tests of unlearning."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from privacy_core.unlearning.head_model import HeadModel, new_head
from privacy_core.unlearning.rows import LabelledImages
from privacy_core.unlearning.run import train
from privacy_core.unlearning.targets import Recipe, TrainingRecord
from privacy_core.unlearning.training import Cost

SIZE = 8
NETWORK = Recipe(
    "sgd", 5e-4, image_size=SIZE, learning_rate=0.05, epochs=6, batch_size=16, augmentation="none"
)
HEAD = Recipe("newton", 1e-3, tolerance=1e-10)
NAMES = ("no", "yes")


class FlatBackbone:
    """Reads the mean colours of quarters: a real, frozen, deterministic backbone."""

    name = "flat"
    n_features = 12

    def __init__(self):
        self.n_read = 0

    def features(self, images):
        self.n_read += len(images)
        half = images.shape[1] // 2
        quarters = [
            images[:, y : y + half, x : x + half].mean((1, 2)) for y in (0, half) for x in (0, half)
        ]
        return np.concatenate(quarters, 1) / 255


def record(recipe):
    return TrainingRecord(recipe, "", 0, Cost())


def pictures(n=64, *, seed=0, noise=40):
    """Return pictures whose left half is brighter where the label is 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    base = rng.uniform(60, 160, (n, 1, 1, 3)) + rng.normal(0, noise, (n, SIZE, SIZE, 3))
    base[:, :, : SIZE // 2] += 50 * labels[:, None, None, None]
    return LabelledImages(base.clip(0, 255).astype(np.uint8), labels, np.arange(n))


def revise(original, n_revised=16, *, mode="replace", seed=9):
    """Return the revised data of `original`: its first rows get other pictures or go."""
    chosen = np.arange(len(original)) < n_revised
    images, labels = original.images.copy(), original.labels.copy()
    rng = np.random.default_rng(seed)
    if images.dtype == np.uint8:
        images[chosen] = rng.integers(0, 256, images[chosen].shape)
    else:
        images[chosen] = rng.normal(0, 1, images[chosen].shape)
    if mode == "drop-label":
        labels[chosen] = -1
    revised = LabelledImages(images, labels, original.row_ids, chosen)
    return revised.take(~chosen) if mode == "drop-row" else revised


def tiny_network(recipe=NETWORK, **sizes):
    from privacy_core.unlearning.network import small_resnet

    sizes = {"widths": (4, 8), "depths": (1, 1)} | sizes
    return small_resnet(NAMES, record(recipe), **sizes)


@cache
def trained_network():
    """Return a tiny network trained on `pictures()`; models are never changed by anything."""
    return train(tiny_network(), pictures())


def blobs(n=300, *, d=12, n_labels=3, seed=0):
    """Return overlapping normal classes as features."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels, n)
    centres = rng.normal(0, 1, (n_labels, d))
    return LabelledImages(centres[labels] + rng.normal(0, 1.5, (n, d)), labels, np.arange(n))


def tiny_head(rows, recipe=HEAD, **changes) -> HeadModel:
    """Return a head trained on features."""
    names = tuple(str(i) for i in range(rows.labels.max() + 1))
    untrained = new_head(FlatBackbone(), names, record(replace(recipe, **changes)))
    return train(untrained, rows)
