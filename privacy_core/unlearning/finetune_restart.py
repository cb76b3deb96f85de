"""Fine-tune on the revised data from a restarted learning rate; the default for networks.

Reads no original rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from privacy_core.unlearning.base import Outcome, Problem, check_range
from privacy_core.unlearning.schedule import LoopSettings
from privacy_core.unlearning.targets import Recipe
from privacy_core.unlearning.training import Pass, cross_entropy, run_loop

_SHARE, _FEWEST = 0.35, 5


@dataclass(frozen=True)
class Settings:
    """How hard and how long.

    Attributes:
        factor: Peak learning rate as a multiple of the recipe's.
        epochs: Epochs on the revised data; 35 % of the recipe's, at least 5, when None.
    """

    factor: float = 1.0
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: A number is out of its range.
        """
        check_range("factor", self.factor, 1e-6, 1e6)
        if self.epochs is not None:
            check_range("epochs", self.epochs, 1, 100_000)


def unlearn(problem: Problem, settings: Settings) -> Outcome:
    """Minimise the cross entropy on D'."""
    loop = restart(problem, factor=settings.factor, epochs=settings.epochs)
    result = run_loop(
        problem.module,
        lambda _epoch: [Pass(problem.train, cross_entropy)],
        loop,
        watch=problem.watch,
        stage="fine-tuning",
    )
    return Outcome(problem.module, result.cost, measured={"epochs": float(loop.epochs)})


def restart(problem: Problem, *, factor: float, epochs: int | None) -> LoopSettings:
    """Return the recipe's loop with a restarted one-cycle rate: same decay, augmentation, batch."""
    recipe = problem.recipe
    return replace(
        recipe.loop(), learning_rate=factor * recipe.learning_rate, schedule="one cycle",
        epochs=default_epochs(recipe) if epochs is None else epochs, seed=problem.seed,
    )  # fmt: skip


def default_epochs(recipe: Recipe) -> int:
    """Return 35 % of the recipe's epochs, at least 5."""
    return max(_FEWEST, round(_SHARE * recipe.epochs))
