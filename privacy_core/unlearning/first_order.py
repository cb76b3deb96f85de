"""One step along the influence gradient (Warnecke et al. 2023), as a labelled baseline."""

from __future__ import annotations

import time
from dataclasses import dataclass

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.step import influence_gradient, take_step
from privacy_core.unlearning.training import Cost


@dataclass(frozen=True)
class Settings:
    """How long the step is.

    Attributes:
        step: τ in w − τ G, halved while the revised objective rises.
        reach: Largest length as a share of the weights' own.
    """

    step: float = 1.0
    reach: float = 0.1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("step", self.step, 1e-12, 1e6)
        check_range("reach", self.reach, 1e-6, 1e3)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Return w − τ G."""
    started = time.process_time()
    direction = [-settings.step * part for part in influence_gradient(problem)]
    measured = take_step(problem, direction, reach=settings.reach)
    n_rows = len(problem.to_forget()) + len(problem.replacement)
    return Outcome(problem.module, Cost(time.process_time() - started, n_rows), measured=measured)
