"""`unlearn`: a target model and revised data → the model without the originals."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from privacy_core.commands.output import as_json, check_new_folder, say
from privacy_core.commands.requests import check_ledger, enter_batch
from privacy_core.commands.secrecy import KEY, SALT, keep_secret, old_key
from privacy_core.commands.shell import PROGRAM, Commands, Tools, positive_number, whole_number
from privacy_core.commands.targets import (
    check_reference,
    checked_original,
    checkpoint,
    load_model,
    note_features_of,
    note_reference,
    perturbation_of,
    read_rows,
    rows_in,
    rows_of_others,
    watch,
    whole_or_nothing,
)
from privacy_core.crew import Crew
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.unlearning.base import UnlearnRequest, UnlearnResult
    from privacy_core.unlearning.rows import LabelledImages
    from privacy_core.unlearning.targets import TargetModel


def add_commands(commands: Commands) -> None:
    """Add `unlearn`."""
    text = "update a classifier to revised data"
    made = commands.add("unlearn", _unlearn, text, shares_work=True)
    add = made.add_argument
    add("model", metavar="MODEL", help="folder of `train`")
    add("--revised", required=True, metavar="DIR", help="revised data set of `revise`")
    add("--out", required=True, metavar="MODEL2", help="new folder to write; a rerun resumes")
    add("--method", default="auto", metavar="NAME", help="default: what the budget allows")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="the method's settings")
    add("--budget", metavar="SECONDS", help="retrain exactly where it takes no longer")
    add("--original", metavar="DATA", help="the originals, for methods that need them")
    add("--split", metavar="NAME", help="of --original, where it has several")
    add("--held-out", metavar="DATA", help="rows no model was trained on, for scrub's rewind")
    add(
        "--reference",
        default="none",
        metavar="retrain|PATH|none",
        help="retrain exactly too, into MODEL2-reference, or name such a model; `audit` uses it",
    )
    add("--label-column", metavar="L", help="default: the one of `train`")
    add("--image-column", default="image", metavar="NAME")
    add("--dry-run", action="store_true", help="print the plan and stop")
    add("--seed", metavar="N", help="repeat every draw; voids guarantees that rest on noise")
    add("--json", action="store_true", help="print what was done")


def _unlearn(options: argparse.Namespace, tools: Tools) -> None:
    folder = Path(options.model)
    for place in _places(options):
        check_new_folder(place)
    check_ledger(folder)
    tools.crew.wait()  # all have looked before one of them writes
    budget = None if options.budget is None else positive_number(options.budget, "--budget")
    from privacy_core.revise.revision import load_revision
    from privacy_core.unlearning.planner import plan

    revision = load_revision(Path(options.revised))
    model = load_model(folder, tools)
    pictures = read_rows(options, model, rows_in(options.revised, options.image_column))
    if tools.crew.is_first:
        note_features_of(model, folder, Path(options.revised))
    revised = model.prepare(pictures)
    given = None
    if options.reference not in {"retrain", "none"}:
        place = Path(options.reference)
        given = load_model(place, tools), place
        check_reference(given[0], model, [pictures, revised])
    chosen = plan(model, revised, method=options.method, budget=budget)
    tools.say(f"Plan: {chosen.reason}")
    method = _agreed(chosen.method, tools.crew)
    request = _request(options, model, revised, revision, method)
    if not options.dry_run:
        _carry_out(options, tools, request, revision, given)


def _carry_out(
    options: argparse.Namespace,
    tools: Tools,
    request: UnlearnRequest,
    revision: dict[str, Any],
    reference: tuple[TargetModel, Path] | None,
) -> None:
    """Unlearn with all processes; the first writes, and the others wait until it has."""
    from privacy_core.unlearning.run import unlearn

    (out, *besides), crew = _places(options), tools.crew
    result = unlearn(request, watch=watch(out, tools))
    body: dict[str, Any] = {}
    with whole_or_nothing(out, *besides) if crew.is_first else contextlib.nullcontext():
        for beside in besides:
            reference = _retrained(request, result, beside, tools), beside
        if crew.is_first:
            forgotten = _forgotten(request.revised, revision)
            body = _save(options, request.model, result, forgotten=forgotten, reference=reference)
    crew.wait()
    if not crew.is_first:
        return
    for place in (out, *besides):
        checkpoint(place).unlink(missing_ok=True)
    if options.json:
        print(as_json(body), end="")
    say(
        f"Wrote {out} by {result.method} in {result.cost.seconds:.3g} s, batch "
        f"{body['batch']['name']}. Next: {PROGRAM} audit {out} --original DATA --revised "
        f"{options.revised} --against {options.model}"
    )


def _places(options: argparse.Namespace) -> tuple[Path, ...]:
    """Return the folders to write: the model's, and its reference model's where one is made."""
    out = Path(options.out)
    beside = out.absolute().parent / f"{out.absolute().name}-reference"
    return (out, beside) if options.reference == "retrain" else (out,)


def _agreed(method: str, crew: Crew) -> str:
    """Return the first process's method: what a budget allows is timed in each."""
    import torch

    from privacy_core.unlearning.base import METHODS

    place = torch.tensor(list(METHODS).index(method))
    crew.take_from_first(place)
    return list(METHODS)[int(place)]


def _request(
    options: argparse.Namespace,
    model: TargetModel,
    revised: LabelledImages,
    revision: Mapping[str, Any],
    method: str,
) -> UnlearnRequest:
    from privacy_core.unlearning.base import UnlearnRequest

    def read_original() -> LabelledImages:
        rows = rows_in(options.original, options.image_column, split=options.split)
        checked = checked_original(rows, revision, options.image_column)
        return model.prepare(read_rows(options, model, checked))

    held_out = None
    if options.held_out is not None:
        others = rows_of_others(options.held_out, options.image_column)
        held_out = model.prepare(read_rows(options, model, others))
    return UnlearnRequest(
        model,
        revised,
        method,
        settings=_settings(options.set, method),
        open_original=None if options.original is None else read_original,
        held_out=held_out,
        perturbation=perturbation_of(old_key(Path(options.model), model.record.recipe), model),
        seed=None if options.seed is None else whole_number(options.seed, "--seed", at_least=0),
    )


def _settings(items: Sequence[str], method: str) -> Any | None:
    """Return a method's settings with what `--set` changes; None where it changes nothing."""
    from privacy_core.unlearning.base import load_method

    if not items:
        return None
    chosen = load_method(method).Settings()
    kinds = get_type_hints(type(chosen))
    changed: dict[str, Any] = {}
    for item in items:
        name, _, text = item.partition("=")
        value = _value(text)
        if name not in kinds or not _is_of(value, kinds[name]):
            shown = ", ".join(f"{key}={one}" for key, one in asdict(chosen).items())
            raise InvalidArgumentError(
                f"`--set` must give a setting of {method} a value of its kind, got {item!r}. "
                f"It has: {shown or 'nothing to set'}."
            )
        changed[name] = value
    return replace(chosen, **changed)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_of(value: Any, kind: Any) -> bool:
    """Return whether a value is of an annotated kind: a number, None or one of some words."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _forgotten(revised: LabelledImages, revision: dict[str, Any]) -> list[int]:
    """Return the rows that are not in the revised data as they were.

    A row that had no picture taught nothing, and its picture is not gone.
    """
    kept = set(revised.row_ids[~revised.revised].tolist())
    kept |= {int(one["row"]) for one in revision["withheld"] if one["status"] == "no_image"}
    return [row for row in range(int(revision["original"]["n_rows"])) if row not in kept]


def _save(
    options: argparse.Namespace,
    model: TargetModel,
    result: UnlearnResult,
    *,
    forgotten: list[int],
    reference: tuple[TargetModel, Path] | None,
) -> dict[str, Any]:
    """Write MODEL2, enter its requests in the ledger, and return the certificate."""
    from privacy_core.revise.revision import load_revision
    from privacy_core.unlearning.certificate import certify, new_salt, row_tokens
    from privacy_core.unlearning.targets import save_target

    out, folder, salt = Path(options.out), Path(options.model), new_salt()
    revision = load_revision(Path(options.revised), check_shards=False)
    update = result.as_json()
    keep_secret(out, SALT, salt)
    key = old_key(folder, model.record.recipe)
    if key is not None:
        keep_secret(out, KEY, key.material)  # the next request needs it
    if reference is not None:
        update["reference"] = reference[0].digest()
        note_reference(out, reference[1], update["reference"])
    body: dict[str, Any] = {}

    def save(batch: dict[str, Any]) -> str:
        save_target(result.model, out, files={"unlearning.json": as_json(update).encode()})
        body.update(
            certify(
                out,
                original={
                    "weights": model.digest(),
                    "data": str(revision["original"]["digest"]),
                },
                revised={
                    "data": str(revision["data_digest"]),
                    "preferences": str(revision["preferences"]["digest"]),
                },
                update=update,
                rows=row_tokens(salt, forgotten),
                batch=batch,
            )
        )
        return str(body["sha256"])

    enter_batch(folder, out, revised=Path(options.revised), forgotten=forgotten, save=save)
    return body


def _retrained(
    request: UnlearnRequest, result: UnlearnResult, place: Path, tools: Tools
) -> TargetModel:
    """Make the reference model, the result itself where that was retrained; the first writes."""
    from privacy_core.unlearning.run import unlearn
    from privacy_core.unlearning.targets import save_target

    if result.method != "retrain":
        again = replace(request, method="retrain", settings=None)
        result = unlearn(again, watch=watch(place, tools))
    if tools.crew.is_first:
        save_target(result.model, place)
    tools.say(f"Wrote the reference model to {place}, {result.cost.seconds:.3g} s.")
    return result.model
