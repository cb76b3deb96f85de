"""`train` and `unlearn`: DATA → a target model; revised data → the model without the originals."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import Progress, as_json, check_new_folder, say
from privacy_core.commands.secrecy import KEY, SALT, keep_secret, new_key, old_key
from privacy_core.commands.shell import (
    PROGRAM,
    Commands,
    Tools,
    add_data,
    rows_of,
    whole_number,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.noise import NoiseKey
    from privacy_core.unlearning.base import UnlearnRequest, UnlearnResult
    from privacy_core.unlearning.head_model import Backbone
    from privacy_core.unlearning.rows import LabelledImages
    from privacy_core.unlearning.targets import Recipe, TargetModel
    from privacy_core.unlearning.training import Watch


def add_commands(commands: Commands) -> None:
    """Add `train` and `unlearn`."""
    made = commands.add("train", _train, "train a classifier to unlearn from")
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
    made = commands.add("unlearn", _unlearn, "update a classifier to revised data")
    add = made.add_argument
    add("model", metavar="MODEL", help="folder of `train`")
    add("--revised", required=True, metavar="DIR", help="revised data set of `revise`")
    add("--out", required=True, metavar="MODEL2", help="new folder to write; a rerun resumes")
    add("--method", default="auto", metavar="NAME", help="default: what the budget allows")
    add("--budget", metavar="SECONDS", help="retrain exactly where it takes no longer")
    add("--original", metavar="DATA", help="the originals, for methods that need them")
    add("--reference", default="none", choices=("retrain", "none"), help="also retrain exactly")
    add("--label-column", metavar="L", help="default: the one of `train`")
    add("--image-column", default="image", metavar="NAME")
    add("--dry-run", action="store_true", help="print the plan and stop")
    add("--seed", metavar="N", help="repeat every draw; voids guarantees that rest on noise")
    add("--json", action="store_true", help="print what was done")


def _train(options: argparse.Namespace, tools: Tools) -> None:
    out, seed = Path(options.out), whole_number(options.seed, "--seed", at_least=0)
    check_new_folder(out)
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
    key = new_key(out, recipe)
    model = train(model, rows, perturbation=_perturbation(key, model), watch=_watch(out))
    save_target(model, out)
    _checkpoint(out).unlink(missing_ok=True)
    say(
        f"Wrote {out}: {len(names)} labels from {model.record.n_rows} rows. "
        f"Next: {PROGRAM} unlearn {out} --revised DIR --out MODEL2"
    )


def _unlearn(options: argparse.Namespace, tools: Tools) -> None:
    out, folder = Path(options.out), Path(options.model)
    check_new_folder(out)
    budget = None if options.budget is None else _number(options.budget, "--budget")
    seed = None if options.seed is None else whole_number(options.seed, "--seed", at_least=0)
    from privacy_core.revise.revision import load_revision
    from privacy_core.unlearning.base import UnlearnRequest
    from privacy_core.unlearning.loading import load_target
    from privacy_core.unlearning.planner import plan
    from privacy_core.unlearning.run import unlearn

    revision = load_revision(Path(options.revised))
    model = load_target(folder, backbone_of=lambda name: _backbone(name, tools))
    revised = _read(options, model, options.revised)
    chosen = plan(model, revised, method=options.method, budget=budget)
    say(f"Plan: {chosen.reason}")
    if options.dry_run:
        return
    open_original = None
    if options.original is not None:
        open_original = partial(_read, options, model, options.original)
    key = old_key(folder, model.record.recipe)
    request = UnlearnRequest(
        model,
        revised,
        chosen.method,
        open_original=open_original,
        perturbation=_perturbation(key, model),
        seed=seed,
    )
    result = unlearn(request, watch=_watch(out))
    if key is not None:
        keep_secret(out, KEY, key.material)  # the next request needs it
    if options.reference == "retrain":
        _save_reference(request, result, out)
    body = _save(result, model, revision, out, _forgotten(revised, revision))
    if options.json:
        print(as_json(body), end="")
    say(
        f"Wrote {out} by {result.method} in {result.cost.seconds:.3g} s. "
        f"Next: {PROGRAM} audit {out} --original DATA --revised {options.revised} "
        f"--against {folder}"
    )


def _read(options: argparse.Namespace, model: TargetModel, source: str) -> LabelledImages:
    from privacy_core.dataset import read_dataset
    from privacy_core.unlearning.rows import read_labelled

    column = options.label_column or model.record.label_column
    if not column:
        raise InvalidArgumentError(
            "`--label-column` must name the column the model was trained on, got none. Give it."
        )
    rows, _ = read_labelled(
        read_dataset(source, image_column=options.image_column),
        label_column=column,
        image_size=model.record.recipe.image_size,
        image_column=options.image_column,
        label_names=model.label_names,
    )
    return model.prepare(rows)


def _forgotten(revised: LabelledImages, revision: dict[str, Any]) -> list[int]:
    """Return the rows that are not in the revised data as they were."""
    kept = set(revised.row_ids[~revised.revised & (revised.labels >= 0)].tolist())
    return [row for row in range(int(revision["original"]["n_rows"])) if row not in kept]


def _save(
    result: UnlearnResult, original: TargetModel, revision: dict[str, Any], out: Path,
    forgotten: list[int],
) -> dict[str, Any]:  # fmt: skip
    from privacy_core.unlearning.certificate import certify, new_salt, row_tokens
    from privacy_core.unlearning.targets import save_target

    salt = new_salt()
    keep_secret(out, SALT, salt)
    save_target(result.model, out, files={"unlearning.json": as_json(result.as_json()).encode()})
    body = certify(
        out,
        original={"weights": original.digest(), "data": str(revision["original"]["digest"])},
        revised={
            "data": str(revision["data_digest"]),
            "preferences": str(revision["preferences"]["digest"]),
        },
        update=result.as_json(),
        rows=row_tokens(salt, forgotten),
    )
    _checkpoint(out).unlink(missing_ok=True)
    return body


def _save_reference(request: UnlearnRequest, result: UnlearnResult, out: Path) -> None:
    from dataclasses import replace

    from privacy_core.unlearning.run import unlearn
    from privacy_core.unlearning.targets import save_target

    place = out.absolute().parent / f"{out.name}-reference"
    check_new_folder(place)
    if result.method != "retrain":
        result = unlearn(replace(request, method="retrain"), watch=_watch(place))
    save_target(result.model, place)
    _checkpoint(place).unlink(missing_ok=True)
    say(f"Wrote the reference model to {place}, {result.cost.seconds:.3g} s.")


def _recipe(options: argparse.Namespace, seed: int) -> Recipe:
    from privacy_core.unlearning.targets import Recipe

    size = whole_number(options.image_size, "--image-size", at_least=8)
    sd = 0.0 if options.certify is None else _number(options.certify, "--certify")
    if options.certify is not None and options.kind != "head":
        raise InvalidArgumentError(
            f"`--certify` must go with --kind head, got {options.kind!r}. Leave it out."
        )

    def given(name: str, otherwise: float) -> float:
        value = getattr(options, name)
        return otherwise if value is None else _number(value, f"--{name.replace('_', '-')}")

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
        from privacy_core.unlearning.backbone import DlibBackbone
        from privacy_core.unlearning.head_model import new_head

        return new_head(DlibBackbone(tools.detector()), names, record)
    from privacy_core.unlearning.network import from_base, small_resnet

    return from_base(names, record) if options.base else small_resnet(names, record)


def _backbone(name: str, tools: Tools) -> Backbone:
    from privacy_core.unlearning.backbone import DlibBackbone

    return DlibBackbone(tools.detector() if "+" in name else None)


def _perturbation(key: NoiseKey | None, model: TargetModel) -> Any:
    if key is None:
        return None
    from privacy_core.unlearning.newton_head import draw_perturbation

    n_labels, width = model.module().get_parameter("weight").shape
    return draw_perturbation(key, (n_labels, width), model.record.recipe.perturbation_sd)


def _watch(out: Path) -> Watch:
    from privacy_core.unlearning.training import Watch

    return Watch(Progress(), _checkpoint(out))


def _checkpoint(out: Path) -> Path:
    return out.absolute().parent / f".{out.absolute().name}.run.pt"


def _number(value: str, argument: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise InvalidArgumentError(
            f"`{argument}` must be a positive number, got {value!r}. Write it in digits."
        )
    return number
