"""`train`: DATA → a target model, the classifier that is unlearned from later."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import check_new_folder, say
from privacy_core.commands.secrecy import new_key, private_folder
from privacy_core.commands.shell import (
    PROGRAM,
    Commands,
    Tools,
    add_data,
    positive_number,
    rows_of,
    whole_number,
)
from privacy_core.commands.targets import (
    backbone_of,
    checkpoint,
    perturbation_of,
    watch,
    whole_or_nothing,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.unlearning.targets import Recipe, TargetModel


def add_commands(commands: Commands) -> None:
    """Add `train`."""
    made = commands.add("train", _train, "train a classifier to unlearn from", shares_work=True)
    add_data(made)
    add = made.add_argument
    add("--label-column", required=True, metavar="L", help="what it shall tell")
    add("--out", required=True, metavar="MODEL", help="new folder to write; a rerun resumes")
    add("--kind", default="resnet", choices=("resnet", "head"), help="default: %(default)s")
    add("--base", metavar="M", help="a transformers image classifier to fine-tune instead")
    add("--base-revision", metavar="R", help="of a Hub id")
    add("--image-size", default=64, metavar="PX", help="default: %(default)s")
    add("--epochs", metavar="N", help="default: 30; 5 from a base")
    add("--learning-rate", metavar="X", help="default: 0.05; 0.00005 from a base")
    add("--weight-decay", metavar="X", help="default: 0.0005; 0.001 for a head")
    add("--certify", metavar="SD", help="train a head with a secret linear term of this size")
    add("--seed", default=0, metavar="N")


def _train(options: argparse.Namespace, tools: Tools) -> None:
    out, seed = Path(options.out), whole_number(options.seed, "--seed", at_least=0)
    check_new_folder(out)
    tools.crew.wait()  # all have looked before one of them writes
    recipe = _recipe(options, seed)
    source = rows_of(options)
    from privacy_core.unlearning.rows import read_labelled
    from privacy_core.unlearning.run import train
    from privacy_core.unlearning.targets import TrainingRecord, save_target
    from privacy_core.unlearning.training import Cost

    rows, names = read_labelled(
        source, label_column=options.label_column, image_size=recipe.image_size,
        image_column=options.image_column,
    )  # fmt: skip
    record = TrainingRecord(recipe, "", 0, Cost(), options.label_column)
    model = _untrained(options, tools, names, record)
    model.prepare(rows)  # a head's features are kept though the run is interrupted
    if not tools.crew.is_first:
        # A head, whose features are what takes long, is then solved by the first alone.
        if model.kind == "network":
            train(model, rows, watch=watch(out, tools))
        tools.crew.wait()
        return
    with whole_or_nothing(out):
        perturbation = perturbation_of(new_key(out, recipe), model)
        model = train(model, rows, perturbation=perturbation, watch=watch(out, tools))
        save_target(model, out)
    checkpoint(out).unlink(missing_ok=True)
    tools.crew.wait()
    say(
        f"Wrote {out}: {len(names)} labels from {model.record.n_rows} rows. "
        f"Next: {PROGRAM} unlearn {out} --revised DIR --out MODEL2"
    )


def _recipe(options: argparse.Namespace, seed: int) -> Recipe:
    from privacy_core.unlearning.targets import Recipe

    size = whole_number(options.image_size, "--image-size", at_least=8)
    sd = 0.0 if options.certify is None else positive_number(options.certify, "--certify")
    if options.certify is not None and options.kind != "head":
        raise InvalidArgumentError(
            f"`--certify` must go with --kind head, got {options.kind!r}. Leave it out."
        )

    def given(name: str, otherwise: float) -> float:
        value = getattr(options, name)
        return otherwise if value is None else positive_number(value, f"--{name.replace('_', '-')}")

    if options.kind == "head":
        return Recipe(
            "newton", given("weight_decay", 1e-3), seed, max(size, 128), perturbation_sd=sd
        )
    is_based = options.base is not None
    return Recipe(
        "adamw" if is_based else "sgd",
        given("weight_decay", 5e-4),
        seed,
        size,
        learning_rate=given("learning_rate", 5e-5 if is_based else 0.05),
        epochs=whole_number(options.epochs or (5 if is_based else 30), "--epochs", at_least=1),
        base=options.base,
        base_revision=options.base_revision,
    )


def _untrained(
    options: argparse.Namespace, tools: Tools, names: tuple[str, ...], record: Any
) -> TargetModel:
    if options.kind == "head":
        from privacy_core.unlearning.head_model import new_head

        backbone = backbone_of(private_folder(Path(options.out)), tools.detector(), tools)
        return new_head(backbone, names, record)
    from privacy_core.unlearning.network import from_base, small_resnet

    return from_base(names, record) if options.base else small_resnet(names, record)
