"""`audit-anonymization`: who is still recognised in anonymized faces, and what is still good."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from privacy_core.commands.output import as_json, say, unwritable
from privacy_core.commands.shell import (
    Commands,
    Tools,
    add_data,
    add_recogniser,
    items_of,
    rows_of,
    whole_number,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.audit.anonymization.instruments import Instruments
    from privacy_core.audit.anonymization.protocol import AuditRequest
    from privacy_core.audit.anonymization.settings import AuditConfig, Setting
    from privacy_core.backends.embedded import EmbeddedBackend
    from privacy_core.dataset import RowSource
    from privacy_core.recognition import Recogniser


def add_commands(commands: Commands) -> None:
    """Add `audit-anonymization`."""
    text = "measure what attackers find in anonymized faces"
    made = commands.add("audit-anonymization", _audit, text, shares_work=True)
    add_data(made)
    add = made.add_argument
    add("--subject-column", default="identity", metavar="NAME", help="default: %(default)s")
    add("--out", required=True, metavar="DIR", help="result; a rerun goes on where it stopped")
    add("--model", metavar="DIR", help="model folder (default: the shipped one)")
    add_recogniser(made)
    add("--faces", default=1000, metavar="N", help="photos tested at most; default: %(default)s")
    add("--adversary-faces", default=1500, metavar="N",
        help="photos attackers are trained on at most; default: %(default)s")  # fmt: skip
    add("--predictor-faces", default=1500, metavar="N",
        help="photos a predictor is trained on at most; default: %(default)s")  # fmt: skip
    add("--settings", action="append", default=[], metavar="METHOD=S,S",
        help="strengths of a method, in place of the usual list")  # fmt: skip
    add("--false-accept-rate", default=1e-3, metavar="R", help="default: %(default)s")
    add(
        "--keep-work", action="store_true", help="keep the codes of faces that a rerun goes on from"
    )
    add("--help-out", action="store_true",
        help="beside the same command elsewhere: work from the end, write no result")  # fmt: skip
    add("--seed", default=0, metavar="N", help="of choices and trainings; noise stays secret")
    add("--json", action="store_true", help="print the result")


def _audit(options: argparse.Namespace, tools: Tools) -> None:
    if options.help_out and tools.crew.size > 1:
        raise InvalidArgumentError(
            f"`--help-out` must go with one process, got {tools.crew.size}, which share the work "
            "without it. Leave it out."
        )
    config = _config(options)
    rows = rows_of(options)
    if options.subject_column not in rows.column_names:
        raise InvalidArgumentError(
            f"`--subject-column` must name the column that says who is shown, got "
            f"{options.subject_column!r}; `DATA` has {', '.join(rows.column_names)}. Name one of "
            "them, or add one."
        )
    from privacy_core.audit.anonymization.protocol import (
        NAME,
        audit_anonymization,
        forget,
        observe_only,
    )

    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable("--out", folder, error) from error
    request = _request(options, tools, rows, config)
    if options.help_out:
        observe_only(request, folder, report=tools.progress())
        say(f"Nothing is left to do in {folder} but the result, which the other process writes.")
        return
    result = audit_anonymization(request, folder, report=tools.progress(), crew=tools.crew)
    if not tools.crew.is_first:
        return
    if not options.keep_work:
        forget(folder)
    if options.json:
        print(as_json(result), end="")
    say(f"Wrote {folder / f'{NAME}.json'}, .md and .png. Next: read {folder / f'{NAME}.md'}")


def _request(
    options: argparse.Namespace, tools: Tools, rows: RowSource, config: AuditConfig
) -> AuditRequest:
    from privacy_core.audit.anonymization.learning import LearningConfig
    from privacy_core.audit.anonymization.people import choose
    from privacy_core.audit.anonymization.protocol import AuditRequest

    embedded = _embedded(options, tools)
    photos = choose(
        rows,
        config,
        image_column=options.image_column,
        subject_column=options.subject_column,
        class_names=_class_names(rows),
    )
    return AuditRequest(
        photos,
        config,
        embedded,
        _instruments(embedded, tools.recognisers(options.recogniser), tools),
        {"rows": len(rows)},
        LearningConfig(seed=config.seed),
    )


def _class_names(rows: RowSource) -> dict[str, list[str]]:
    """Return the names of classes of every column that holds numbers of them."""
    found = {name: getattr(feature, "names", None) for name, feature in rows.features.items()}
    return {name: list(names) for name, names in found.items() if names}


def _config(options: argparse.Namespace) -> AuditConfig:
    from privacy_core.audit.anonymization.settings import AuditConfig

    config = AuditConfig(
        n_faces=whole_number(options.faces, "--faces", at_least=2),
        n_adversary=whole_number(options.adversary_faces, "--adversary-faces", at_least=0),
        n_predictor=whole_number(options.predictor_faces, "--predictor-faces", at_least=0),
        false_accept_rate=_rate(options.false_accept_rate),
        seed=whole_number(options.seed, "--seed", at_least=0),
    )
    return replace(config, settings=_settings(options.settings)) if options.settings else config


def _settings(lists: list[str]) -> tuple[Setting, ...]:
    from privacy_core.audit.anonymization.settings import Setting

    found = []
    for one in lists:
        method, equals, strengths = one.partition("=")
        try:
            values = [float(value) for value in items_of([strengths])]
        except ValueError:
            values = []
        if not equals or not values:
            raise InvalidArgumentError(
                f"`--settings` must be a method and strengths, as in blur=0.5,1, got {one!r}."
            )
        found += [Setting(method.strip(), value) for value in values]
    return tuple(found)


def _rate(value: str | float) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise InvalidArgumentError(
            f"`--false-accept-rate` must be a number between 0 and 1, got {value!r}. "
            "0.001 is usual."
        )
    return rate


def _embedded(options: argparse.Namespace, tools: Tools) -> EmbeddedBackend:
    from privacy_core.backends.embedded import EmbeddedBackend

    if options.model:
        return EmbeddedBackend.load(Path(options.model))
    found = tools.load_backend("embedded")
    if not isinstance(found, EmbeddedBackend):
        raise InvalidArgumentError(
            f"The backend must be the embedded one, whose code reads every picture, got "
            f"{found.name!r}. Name its folder with `--model`."
        )
    return found


def _instruments(
    embedded: EmbeddedBackend, recognisers: Sequence[Recogniser], tools: Tools
) -> Instruments:
    from privacy_core.audit.anonymization.instruments import Instruments
    from privacy_core.audit.anonymization.landmarks import FacePoints

    detector, finder = tools.detector(), tools.finder()
    first, *others = recognisers
    second = others[0] if others else None
    model = embedded.model
    return Instruments(
        detector, finder, first, FacePoints(), model.code, second, kept=model.predictor
    )
