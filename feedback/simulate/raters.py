"""Simulated raters: whole crowds with true tastes and habits, and how they answer; infers nothing.

They are people, not the grid: tastes, noise and leniency are continuous, and they can differ from
what the preference model assumes about them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedback.columns import describe
from feedback.errors import InvalidRatingError
from feedback.preference.response import (
    BOUNDS,
    CHOICE_NOISE,
    CHOICE_WIDTH,
    CUTS,
    STRENGTHS,
    Array,
    nuisances,
)

PHOTO_SD = 0.08
Ints = NDArray[np.intp]
_LIGHT_SHARE = 0.6
_CARELESS_SHARE = 0.10
_CARELESS, _CAREFUL = 0.30, 0.02


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a crowd differs from what the model assumes.

    Attributes:
        cut_scale: Factor on where answers change over.
        strong_side_noise: Factor on the noise where the variant is stronger than the ideal.
        careless_share: Share of raters who answer at random three times in ten.
        drift_sd: Standard deviation of the drift of taste with each answer, in strength.
    """

    cut_scale: float = 1.0
    strong_side_noise: float = 1.0
    careless_share: float = _CARELESS_SHARE
    drift_sd: float = 0.0


HABITS = {
    "none": Habits(),
    "wide": Habits(cut_scale=1.6),
    "narrow": Habits(cut_scale=0.6),
    "noisy_strong_side": Habits(strong_side_noise=1.8),
    "careless": Habits(careless_share=0.30),
    "drift": Habits(drift_sd=0.03),
}
"""The departures that are reported; "none" answers as the model assumes."""


@dataclass(frozen=True, eq=False)
class Crowd:
    """Raters, by array; all (raters,).

    Attributes:
        ideal: Preferred strength for the photo at hand.
        noise: σ of their answers, in strength.
        leniency: Factor on how far from the ideal they still call just right.
        lapse: Probability of a random answer.
        habits: What they all have in common.
    """

    ideal: Array
    noise: Array
    leniency: Array
    lapse: Array
    habits: Habits

    def at(self, ideal: Array) -> Crowd:
        """Return the same raters with other ideals, as for another photo."""
        return replace(self, ideal=ideal)

    def part(self, chosen: slice) -> Crowd:
        """Return some of them."""
        return Crowd(
            self.ideal[chosen],
            self.noise[chosen],
            self.leniency[chosen],
            self.lapse[chosen],
            self.habits,
        )


def draw_people(
    n: int,
    generator: np.random.Generator,
    *,
    habits: Habits = HABITS["none"],
    taste: tuple[float, float] | None = None,
) -> Crowd:
    """Draw raters as the documentation's figures use them.

    Args:
        n: How many.
        generator: Draws them.
        habits: How they differ from the model.
        taste: Mean and standard deviation of their ideals; without it six in ten like about 0.42
            and four in ten about 0.70.
    """
    if taste is None:
        is_light = generator.random(n) < _LIGHT_SHARE
        ideal = np.where(is_light, generator.normal(0.42, 0.11, n), generator.normal(0.70, 0.10, n))
    else:
        ideal = generator.normal(*taste, n)
    return Crowd(
        ideal=np.clip(ideal, 0.02, 0.98),
        noise=np.clip(np.exp(generator.normal(np.log(0.12), 0.35, n)), 0.04, 0.30),
        leniency=np.clip(np.exp(generator.normal(0, 0.25, n)), 0.6, 1.7),
        lapse=np.where(generator.random(n) < habits.careless_share, _CARELESS, _CAREFUL),
        habits=habits,
    )


def draw_from_grid(n: int, generator: np.random.Generator, *, prior: Array) -> Crowd:
    """Draw raters from the model's own prior, (51,), for simulation-based calibration."""
    noise, leniency, lapse, weights = nuisances()
    cell = generator.choice(len(weights), n, p=weights)
    ideal = generator.choice(STRENGTHS, n, p=prior)
    return Crowd(ideal, noise[cell], leniency[cell], lapse[cell], Habits())


def answer(crowd: Crowd, kind: str, strengths: Array, generator: np.random.Generator) -> Ints:
    """Return each rater's answer about what each was shown, (raters,) of integers.

    Args:
        crowd: Who answers.
        kind: A kind of question with listed answers.
        strengths: (raters, shown); one shown except for best_of_n.
        generator: Draws noise and lapses.

    Raises:
        InvalidRatingError: The kind has no listed answers.
    """
    offset = strengths - crowd.ideal[:, None]
    if kind == "best_of_n":
        sharpness = CHOICE_NOISE / crowd.noise[:, None]
        worth = -sharpness * (offset / CHOICE_WIDTH) ** 2
        careful, n_answers = (
            np.argmax(worth + generator.gumbel(size=worth.shape), axis=1),
            len(strengths[0]),
        )
    else:
        careful, n_answers = _felt(crowd, kind, offset[:, 0], generator)
    at_random = generator.integers(n_answers, size=len(careful))
    return np.where(generator.random(len(careful)) < crowd.lapse, at_random, careful)


def _felt(
    crowd: Crowd, kind: str, offset: Array, generator: np.random.Generator
) -> tuple[Ints, int]:
    """Return answers given with care about one strength each, and how many answers there are."""
    rough = np.where(offset > 0, crowd.habits.strong_side_noise, 1.0)
    felt = offset + crowd.noise * rough * generator.standard_normal(len(offset))
    edges = np.asarray(CUTS.get(kind, BOUNDS.get(kind, ())))
    if not len(edges):
        raise InvalidRatingError(
            f"`kind` must have listed answers, got {describe(kind)}. "
            f"Choose one of: best_of_n, {', '.join((*CUTS, *BOUNDS))}."
        )
    reach = crowd.leniency[:, None] * crowd.habits.cut_scale * edges
    if kind in CUTS:
        return (felt[:, None] > reach).sum(axis=1), len(edges) + 1
    return (np.abs(felt)[:, None] <= reach).sum(axis=1), len(edges) + 1
