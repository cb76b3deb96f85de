"""What is audited: one setting per method, level and attribute policy; how many people and photos.

Knows names and numbers; no photo and no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import ATTRIBUTES, AttributePolicy, check_strength

EMBEDDED, K_SAME, LAPLACE = "embedded", "k-same", "latent-laplace"
METHODS = (EMBEDDED, "blur", "pixelate", "solid", K_SAME, LAPLACE)
_STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
_BETWEEN = (0.2, 0.7, 0.85, 0.95)
"""Strengths that no adversary is trained on."""
_OTHERS = (("blur", 1.0), ("pixelate", 0.75), ("solid", 1.0), (K_SAME, 0.5), (LAPLACE, 0.75))
HIDE, KEEP = "hide gender", "keep all"
_POLICIES = {
    "": AttributePolicy(),
    HIDE: AttributePolicy(hide=("gender",)),
    KEEP: AttributePolicy(keep=tuple(ATTRIBUTES)),
}


@dataclass(frozen=True)
class Setting:
    """One way of anonymizing that is measured.

    Attributes:
        method: One of `METHODS`.
        strength: In [0, 1]; k-Same and latent Laplace read their own k and scale from it.
        policy_name: "" for none, `HIDE` or `KEEP`.
        is_attacked: Adversaries are trained on it too, which needs variants of their own people.
    """

    method: str
    strength: float
    policy_name: str = ""
    is_attacked: bool = True

    def __post_init__(self) -> None:
        """Check the names and the strength.

        Raises:
            InvalidArgumentError: One of them is none.
        """
        check_strength(self.strength)
        for argument, value, known in (
            ("method", self.method, METHODS),
            ("policy_name", self.policy_name, tuple(_POLICIES)),
        ):
            if value not in known:
                raise InvalidArgumentError(
                    f"`{argument}` must be one of {', '.join(map(repr, known))}, got {value!r}."
                )

    @property
    def policy(self) -> AttributePolicy:
        """Return the attribute policy."""
        return _POLICIES[self.policy_name]

    @property
    def name(self) -> str:
        """Return what tells this setting from the others."""
        policy = f" {self.policy_name}" if self.policy_name else ""
        return f"{self.method}{policy} {self.strength:g}"


def _usual() -> tuple[Setting, ...]:
    """Return what is measured unless something else is asked for."""
    found = [
        *(Setting(EMBEDDED, s, is_attacked=s not in _BETWEEN) for s in _STRENGTHS),
        Setting(EMBEDDED, 1.0, HIDE),
        *(Setting(EMBEDDED, s, KEEP, is_attacked=False) for s in (0.8, 0.95)),
        *(Setting(method, s) for method, s in _OTHERS),
    ]
    return tuple(found)


@dataclass(frozen=True)
class AuditConfig:
    """How much is measured; stored beside the result.

    Attributes:
        settings: What is measured.
        n_faces: Test photos at most, two per person where there are two.
        n_adversary: Photos the adversaries are trained on at most.
        n_predictor: Photos each of the two attribute predictors is trained on at most.
        test: Splits (design §4) of the people tested.
        adversary: Splits of the people adversaries are trained on.
        predictor: Splits of the people the attribute predictor is trained on.
        judge: Splits of the people the second predictor is trained on.
        false_accept_rate: Share of pairs of strangers' originals that may match.
        seed: Seed of choices, trainings and bootstraps; noise stays secret.
        repeatable: Draw the noise from the seed too, for tests; no ε holds then.
        n_reversed: Photos on which restored faces are shown to the recogniser at most.
    """

    settings: tuple[Setting, ...] = field(default_factory=_usual)
    n_faces: int = 1000
    n_adversary: int = 1500
    n_predictor: int = 1500
    test: tuple[int, int] = (80, 99)
    adversary: tuple[int, int] = (60, 69)
    predictor: tuple[int, int] = (0, 29)
    judge: tuple[int, int] = (30, 59)
    false_accept_rate: float = 1e-3
    seed: int = 0
    repeatable: bool = False
    n_reversed: int = 250

    def __post_init__(self) -> None:
        """Check that people of one part are in no other, and that names are not repeated.

        Raises:
            InvalidArgumentError: Two parts overlap, or two settings are one.
        """
        parts = sorted([self.test, self.adversary, self.predictor, self.judge])
        if any(low[1] >= high[0] for low, high in pairwise(parts)):
            raise InvalidArgumentError(
                f"The people of `test`, `adversary`, `predictor` and `judge` must be different, "
                f"got the splits {parts}. Give splits that do not overlap."
            )
        names = [setting.name for setting in self.settings]
        if len(set(names)) != len(names) or not names:
            raise InvalidArgumentError(
                f"`settings` must name each setting once and at least one, got {names}."
            )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def digest(self) -> str:
        """Return 16 hex digits that differ for other configurations."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(settings: Sequence[Setting]) -> list[Setting]:
    """Return the embedded settings without an attribute policy, the weakest first."""
    found = [s for s in settings if s.method == EMBEDDED and not s.policy_name]
    return sorted(found, key=lambda s: s.strength)
