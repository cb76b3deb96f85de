"""`preferences.json` → who is shown at which strength; knows no data set and no rating.

The file is the only thing this package learns about answers; its contract is the design's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from privacy_core.errors import InvalidArgumentError
from privacy_core.schema import SCHEMA_VERSION, check_strength

_MAKE = "Make the file with `python -m feedback fit`."
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Preferences:
    """Strengths by subject, and the one of everybody else.

    Attributes:
        subjects: Subject → strength in [0, 1].
        population: Strength of everybody else, None where the file has none.
        model_version: What the strengths were chosen on, None where the file does not say.
        digest: SHA-256 of the file, in hex.
        taken: Subjects in the file whose strength is the population's, too little being known.
        provenance: Where the strengths come from, as plain JSON values about nobody in particular:
            "feedback_revision", "generated_at", "population" and "own".

    Example:
        >>> preferences = Preferences(subjects={"ann": 0.4}, population=0.8)
        >>> preferences.strength_of("ann"), preferences.strength_of("bob")
        ((0.4, 'own'), (0.8, 'population'))
    """

    subjects: Mapping[str, float] = field(repr=False)
    population: float | None
    model_version: str | None = None
    digest: str = ""
    taken: frozenset[str] = field(default=frozenset(), repr=False)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def strength_of(self, subject: str | None) -> tuple[float | None, Literal["own", "population"]]:
        """Return the strength for a subject, and whether it is named in the file."""
        if subject is not None and subject in self.subjects:
            return self.subjects[subject], "own"
        return self.population, "population"

    def is_own(self, subject: str) -> bool:
        """Return whether a subject's strength comes from its own answers."""
        return subject in self.subjects and subject not in self.taken


def read_preferences(path: Path) -> Preferences:
    """Read a `preferences.json`.

    Raises:
        InvalidArgumentError: It is missing, no JSON, of another version, or names a strength that
            is none; every problem is counted, and no subject's name is repeated.
    """
    try:
        data = path.read_bytes()
        found = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise InvalidArgumentError(
            f"`preferences` must be a file that can be read, got {str(path)!r} "
            f"({error.strerror or type(error).__name__}). {_MAKE}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"`preferences` must be a JSON file, got {str(path)!r}, which is damaged. {_MAKE}"
        ) from error
    problems: list[str] = []
    subjects, population = _checked(found, problems)
    if problems:
        more = f" And {len(problems) - _MOST_SHOWN} more." if len(problems) > _MOST_SHOWN else ""
        raise InvalidArgumentError(
            f"`preferences` must follow the contract of preferences.json, got {str(path)!r}: "
            f"{' '.join(problems[:_MOST_SHOWN])}{more} {_MAKE}"
        )
    version = found.get("model_version")
    return Preferences(
        MappingProxyType(subjects),
        population,
        None if version is None else str(version),
        hashlib.sha256(data).hexdigest(),
        frozenset(s for s, e in found["subjects"].items() if e.get("source") == "population"),
        _provenance(found),
    )


def _provenance(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card may say of the ratings behind a file; what is missing is None."""
    population = found.get("population") or {}
    own = [one for one in found["subjects"].values() if one.get("source") == "own"]
    sds = [one["sd"] for one in own if _is_number(one.get("sd"))]
    counts = [one["n_ratings"] for one in own if _is_number(one.get("n_ratings"))]
    return {
        **{name: _text(found.get(name)) for name in ("feedback_revision", "generated_at")},
        "population": {
            **{
                name: population[name] if _is_number(population.get(name)) else None
                for name in ("strength", "sd", "n_raters", "epsilon")
            },
            "release": _text(population.get("release")),
        },
        "own": {
            "n_subjects": len(own),
            "mean_sd": math.fsum(sds) / len(sds) if sds else None,
            "n_ratings": sum(counts) if counts else None,
        },
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _checked(found: Any, problems: list[str]) -> tuple[dict[str, float], float | None]:
    if not isinstance(found, Mapping) or found.get("schema_version") != SCHEMA_VERSION:
        problems.append(f"It must be an object with `schema_version` {SCHEMA_VERSION}.")
        return {}, None
    subjects, population = found.get("subjects"), found.get("population")
    if not isinstance(subjects, Mapping):
        problems.append("`subjects` must be an object.")
        subjects = {}
    if population is not None and not isinstance(population, Mapping):
        problems.append("`population` must be an object or null.")
        population = None
    shared = None if population is None else population.get("strength")
    return (
        {
            name: _strength(entry.get("strength") if isinstance(entry, Mapping) else None,
                            f"Subject {number} of {len(subjects)}", problems)
            for number, (name, entry) in enumerate(subjects.items(), 1)
        },
        None if shared is None else _strength(shared, "`population`", problems),
    )  # fmt: skip


def _strength(value: Any, whose: str, problems: list[str]) -> float:
    try:
        # A number in quotes is a file someone else wrote; the contract says number.
        return check_strength("none" if isinstance(value, str) else value)  # type: ignore[arg-type]
    except InvalidArgumentError:
        problems.append(f"{whose} must have a `strength` that is a number in [0, 1].")
        return 0.0
