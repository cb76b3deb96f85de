"""The loop that the *Models* page runs: what may be chosen, its data, and its six commands.

Knows command lines and the shipped synthetic people; starts no process and knows no page. The
commands are those of the README: they are tested as they are typed, can be killed at any moment,
and give their memory back.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from privacy_core.errors import InvalidArgumentError
from privacy_core.unlearning.base import METHODS

TARGETS = {"head": "head", "resnet": "network"}
"""What `train` calls a target → its kind in the registry of methods."""
LABELS = ("smiling", "gender")
SHARES = (0.1, 0.25, 0.5)
N_MODELS = (3, 4, 8)
N_PEOPLE = (24, 48)
AUTO = "auto"
UNLEARNED, REVISED = "unlearned", "revised"
"""Folders that the commands leave."""
_EPOCHS = 20
"""Of the small network: enough to fit two dozen people."""
_PAGES = 8
"""Answered by each simulated rater."""
_TRAIN, _TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


@dataclass(frozen=True)
class LoopSettings:
    """What a visitor chose.

    Attributes:
        target: "head", a linear head on dlib's descriptor, or "resnet", a small network.
        label: What the model shall tell.
        share: Share of the people who turn their dial, of `SHARES`.
        method: "auto", or one that applies to the target.
        n_models: Shadow models per role, of `N_MODELS`.
        n_people: People the model is trained on, of `N_PEOPLE`.

    Example:
        >>> LoopSettings().n_revised
        6
    """

    target: str = "head"
    label: str = "smiling"
    share: float = 0.25
    method: str = AUTO
    n_models: int = 3
    n_people: int = 24

    def __post_init__(self) -> None:
        """Check every choice.

        Raises:
            InvalidArgumentError: One is none of those offered.
        """
        offered: tuple[tuple[str, object, Sequence[object]], ...] = (
            ("target", self.target, tuple(TARGETS)),
            ("label", self.label, LABELS),
            ("share", self.share, SHARES),
            ("n_models", self.n_models, N_MODELS),
            ("n_people", self.n_people, N_PEOPLE),
        )
        for name, value, choices in offered:
            if value not in choices:
                raise InvalidArgumentError(
                    f"`{name}` must be one of {', '.join(map(str, choices))}, got another value. "
                    "Choose one of those shown."
                )
        if self.method not in methods_for(self.target):
            raise InvalidArgumentError(
                f"`method` must fit the target model, one of "
                f"{', '.join(methods_for(self.target))}; got another. Choose one of those shown."
            )

    @property
    def n_revised(self) -> int:
        """How many people turn their dial."""
        return round(self.share * self.n_people)


@dataclass(frozen=True)
class Step:
    """One command of the loop.

    Attributes:
        name: One word for it.
        arguments: The whole command line.
    """

    name: str
    arguments: tuple[str, ...]


def methods_for(target: str) -> tuple[str, ...]:
    """Return the methods that apply to a target, "auto" first."""
    kind = TARGETS[target]
    return (AUTO, *(name for name, method in METHODS.items() if kind in method.kinds))


def plan_loop(settings: LoopSettings, folder: Path, *, data: Path) -> tuple[Step, ...]:
    """Write the loop's data into a folder and return the commands to run there.

    Args:
        settings: What was chosen.
        folder: Empty, and nobody else's.
        data: The shipped people, with the splits train and test.
    """
    people = _write_data(folder / "data", data, settings.n_people)
    revised = people[: settings.n_revised]
    (folder / "subjects.txt").write_text("\n".join(revised) + "\n", encoding="utf-8")
    feedback, core = ((sys.executable, "-P", "-m", name) for name in ("feedback", "privacy_core"))
    train = ("data", "--split", "train")
    label = ("--label-column", settings.label)
    needs_original = settings.method != AUTO and METHODS[settings.method].needs_original
    original = ("--original", f"data/{_TRAIN}") if needs_original else ()
    length = ("--epochs", str(_EPOCHS)) if settings.target == "resnet" else ()
    return (
        Step("simulate", (
            *feedback, "simulate", "--store", "store", "--subjects", "subjects.txt",
            "--raters", str(len(revised)), "--answers", str(_PAGES), "--links-out", "links.csv",
        )),
        Step("fit", (
            *feedback, "fit", "--store", "store", "--links", "links.csv",
            "--out", "preferences.json",
        )),
        Step("revise", (
            *core, "revise", *train, "--preferences", "preferences.json", "--others", "keep",
            *label, "--yes", "--out", REVISED,
        )),
        Step("train", (
            *core, "train", *train, *label, "--kind", settings.target, *length, "--out", "model",
        )),
        Step("unlearn", (
            *core, "unlearn", "model", "--revised", REVISED, "--out", UNLEARNED,
            "--method", settings.method, *original, "--reference", "retrain",
        )),
        Step("audit", (
            *core, "audit", UNLEARNED, "--original", *train, "--revised", REVISED,
            "--against", "model", "--models", str(settings.n_models),
        )),
    )  # fmt: skip


def child_environment(found: dict[str, str], *, root: Path, folder: Path) -> dict[str, str]:
    """Return what a command sees of the environment: where programs are, and no secret.

    Whatever it keeps for itself, caches included, goes into the folder, and goes with it.

    Args:
        found: What the app was started with, less what is nobody's business.
        root: Where the packages are.
        folder: The run's own.
    """
    private = dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "MPLCONFIGDIR"), str(folder))
    return {
        **found,
        **private,
        "PYTHONPATH": str(root),
        # More would wait for each other wherever the page, too, has work to do.
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "Agg",
    }


def _write_data(out: Path, data: Path, n_people: int) -> list[str]:
    """Write the first people of both genders, in turn, and return who is in the train split."""
    from pyarrow import parquet  # noqa: PLC0415 - only a run needs it

    out.mkdir()
    # As many people never trained on as there are among all: a third.
    for name, n in ((_TEST, n_people // 3), (_TRAIN, n_people)):
        table = parquet.read_table(data / name)
        rows = zip(table["subject"].to_pylist(), table["gender"].to_pylist(), strict=True)
        people = _in_turn(dict(rows))[:n]
        places = [i for i, who in enumerate(table["subject"].to_pylist()) if who in set(people)]
        parquet.write_table(table.take(places), out / name)
    return people


def _in_turn(gender_of: dict[str, int]) -> list[str]:
    """Return people of the two genders in turn, those left over last."""
    groups = [[who for who, sex in gender_of.items() if sex == one] for one in (0, 1)]
    paired = [who for pair in zip(*groups, strict=False) for who in pair]
    return paired + [who for who in gender_of if who not in set(paired)]
