"""An audit's result and its files: `audit.json` and `plots/` in a model folder.

Knows plain values; no model and no rows.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from privacy_core.audit.gate import GateResult
from privacy_core.audit.plots import draw_plots
from privacy_core.errors import OutputError
from privacy_core.unlearning.targets import write_json
from privacy_core.wholefile import whole_file

SCHEMA_VERSION = 1
AUDIT, PLOTS = "audit.json", "plots"
LIMITS = (
    "The attacks are those listed; others may find more.",
    "The per-example attack is on models made as the released one was, not on that one alone.",
    "A revised picture is still learned from: this is rectification with evidence, not erasure.",
    "Leaving a model out draws the attack below one half: compare with the control row.",
)
DRAWN = ("original", "unlearned", "reference")
"""Groups of models that the plots show."""


@dataclass(frozen=True)
class Audit:
    """What was found: `audit.json` as plain values, the gate, and what the plots need."""

    values: Mapping[str, Any]
    gate: GateResult
    curves: Mapping[str, Any] = field(repr=False)

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write `audit.json` and `plots/` into a model folder and return their paths.

        Raises:
            OutputError: A file cannot be written.
        """
        groups = self.values["models"]
        plots = draw_plots(
            folder / PLOTS,
            accuracies={name: one["accuracy"] for name, one in groups.items() if name in DRAWN},
            curves=self.curves,
            costs=self.values["costs"],
        )
        path = folder / AUDIT
        try:
            with whole_file(path) as draft:
                write_json(draft, self.values)
        except OSError as error:
            raise OutputError(
                f"The audit in {folder.name!r} cannot be written ({error.strerror}). "
                "Free space or choose another place."
            ) from error
        return (path, *plots)


def hardware_line() -> str:
    """Return what the costs were measured on, in one line without a name of the machine."""
    # Target models are trained on the CPU whatever else there is.
    spare = "a GPU unused" if torch.cuda.is_available() else "no GPU"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{platform.system()}, {spare}"
    )
