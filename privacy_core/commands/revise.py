"""`revise`: DATA and preferences → the revised data set; `erase-originals`: then no originals."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import as_json, say
from privacy_core.commands.shell import (
    PROGRAM,
    Commands,
    Tools,
    add_data,
    add_making,
    backend_of,
    items_of,
    policy_of,
    rows_of,
    whole_number,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from privacy_core.dataset import RowSource
    from privacy_core.revise.rows import RowRules
    from privacy_core.revise.survey import Survey

_HUB = "hf://datasets/"


def add_commands(commands: Commands) -> None:
    """Add `revise` and `erase-originals`."""
    text = "anonymize a data set, each subject by preference"
    made = commands.add("revise", _revise, text, shares_work=True)
    add_data(made)
    add_making(made)
    add = made.add_argument
    add("--preferences", required=True, metavar="FILE", help="preferences.json")
    add("--out", required=True, metavar="DIR", help="new folder, or hf://datasets/NAME/REPO")
    add("--subject-column", default="subject", metavar="NAME", help="says who is shown")
    add(
        "--mode",
        default="replace",
        choices=("replace", "drop-label", "drop-row"),
        help="for subjects in the preferences: new picture, no label either, or no row at all",
    )
    add(
        "--others",
        default="anonymize",
        choices=("anonymize", "keep"),
        help="subjects not in the preferences: at the population's strength, or as they are",
    )
    add("--label-column", metavar="NAME", help="emptied by `--mode drop-label`")
    add("--drop-columns", action="append", metavar="A,B", help="columns to drop, no others")
    add("--yes", action="store_true", help="drop every column that may identify somebody")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--seed", metavar="N", help="repeat the noise, for demonstrations; voids every guarantee")
    add("--json", action="store_true", help="print revision.json")
    gone = commands.add(
        "erase-originals", _erase_originals, "erase what a revised data set was made from"
    )
    gone.add_argument("data", metavar="DATA", help="where the originals are")
    gone.add_argument("--revision", required=True, metavar="DIR", help="the revised data set")
    gone.add_argument("--audited", metavar="MODEL", help="model folder with an audit of it")
    gone.add_argument("--erase-first", action="store_true", help="do not wait for an audit")
    gone.add_argument(
        "--shadows",
        action="append",
        default=[],
        metavar="DIR",
        help="shadow models of an audit, or features of a head, beside those that were noted",
    )
    gone.add_argument("--yes", action="store_true", help="do it; without, nothing is erased")
    gone.add_argument("--json", action="store_true", help="print the receipt")


def _revise(options: argparse.Namespace, tools: Tools) -> None:
    seed = None if options.seed is None else whole_number(options.seed, "--seed")
    out, repo_id = _places(options.out)
    rules = _rules(options)
    from privacy_core.anonymize import Anonymizer
    from privacy_core.revise.revision import Workplace
    from privacy_core.revise.run import ReviseConfig, revise
    from privacy_core.revise.survey import survey_rows

    if not options.resume and tools.crew.is_first:
        Workplace(out).check_free()
    rows = rows_of(options)
    anonymizer = Anonymizer(backend_of(options, tools), tools.detector())
    drop = _drop(options, rows, rules, tools)
    config = ReviseConfig(options.subject_column, drop, seed, crew=tools.crew)
    progress = tools.progress()
    others = {name: rows_of(options, split=name) for name in rows.other_splits}
    survey = survey_rows(
        rows, subject_column=config.subject_column, other_splits=others, report=progress
    )
    for sentence in _warnings(survey, rules, anonymizer.backend.revision):
        tools.say(sentence)
    revision = revise(
        rows,
        survey,
        rules,
        out,
        anonymizer=anonymizer,
        config=config,
        resume=options.resume,
        report=progress,
    )
    if repo_id is not None and tools.crew.is_first:
        _upload(out, repo_id)
    if options.json and tools.crew.is_first:
        print(as_json(revision), end="")
    tools.say(f"Wrote {out}: {_summary(revision['counts'])} {_next_step(out)}")


def _places(out: str) -> tuple[Path, str | None]:
    """Return the folder to write, and the data set on the Hub that it is sent to, if any."""
    if not out.startswith("hf://"):
        return Path(out), None
    from privacy_core.hub import NAMING, is_repo_id

    repo_id = out.removeprefix(_HUB).removesuffix("/")
    if not out.startswith(_HUB) or not is_repo_id(repo_id):
        raise InvalidArgumentError(
            f"`--out` must be hf://datasets/NAME/REPO if it is on the Hub, {NAMING}, got {out!r}. "
            "Name another, or a folder."
        )
    return Path(repo_id.replace("/", "--")), repo_id


def _upload(out: Path, repo_id: str) -> None:
    from privacy_core.hub import publish_rows

    found = publish_rows(out, repo_id=repo_id, client=_client())
    say(f"Sent {out} to {repo_id}, revision {found.revision}; it is private.")


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def _rules(options: argparse.Namespace) -> RowRules:
    from privacy_core.revise.preferences import read_preferences
    from privacy_core.revise.rows import RowRules

    return RowRules(
        read_preferences(Path(options.preferences)),
        options.mode,
        options.others,
        options.label_column,
        policy_of(options),
    )


def _drop(
    options: argparse.Namespace, rows: RowSource, rules: RowRules, tools: Tools
) -> tuple[str, ...] | None:
    """Return the columns to drop, None where nobody was asked, and refuse what cannot be."""
    from privacy_core.revise.columns import identifying_columns, plan_columns

    drop = None if options.drop_columns is None else tuple(items_of(options.drop_columns))
    columns = {
        "image_column": rows.image_column,
        "subject_column": options.subject_column,
        "label_column": rules.label_column,
    }
    if options.yes:
        drop = (*(drop or ()), *identifying_columns(rows.features, **columns))
    plan = plan_columns(rows.features, **columns, drop=drop)
    if plan.dropped:
        tools.say(f"Dropping {', '.join(plan.dropped)}.")
    if plan.kept_though_identifying:
        tools.say(
            f"Keeping {', '.join(plan.kept_though_identifying)}, which may identify somebody."
        )
    return drop


def _warnings(survey: Survey, rules: RowRules, revision: str) -> list[str]:
    """Return what is odd and no reason to stop, one sentence each."""
    preferences, found = rules.preferences, survey.duplicates
    n_absent = len(preferences.subjects) - sum(rules.is_named(s) for s in survey.subjects)
    version = preferences.model_version
    warnings = []
    if n_absent:
        warnings.append(
            f"{n_absent} of {len(preferences.subjects)} subjects in `--preferences` are not in the "
            "data; check `--subject-column` if they should be."
        )
    if version is not None and not version.endswith(revision):
        warnings.append(
            f"The preferences were given on another model ({version}; this is {revision}): the "
            "same strength may look different."
        )
    for n, where in (
        (found.n_across_subjects, "of different subjects"),
        (found.n_across_splits, "of this and another split"),
    ):
        if n:
            pairs = "pair" if n == 1 else "pairs"
            warnings.append(f"{n} near-duplicate {pairs} of photos {where}; see revision.json.")
    return warnings


def _summary(counts: Mapping[str, Any]) -> str:
    by_status = counts["by_status"]
    n_revised = by_status.get("revised", 0)
    parts = [f"{n_revised} {'row' if n_revised == 1 else 'rows'} revised"]
    parts += [
        f"{by_status[status]} {status}" for status in ("kept", "dropped") if by_status.get(status)
    ]
    if counts["withheld"]:
        parts.append(f"{counts['withheld']} withheld without a picture (revision.json says why)")
    return f"{', '.join(parts)}."


def _next_step(out: Path) -> str:
    private = f".{out.absolute().name}.private"
    return (
        f"Keep {private} beside it to yourself. Next, with MODEL from `train` on the originals: "
        f"{PROGRAM} unlearn MODEL --revised {out} --out MODEL2"
    )


def _erase_originals(options: argparse.Namespace, _: Tools) -> None:
    from privacy_core.revise.erase import erase, plan_erasure

    erasure = plan_erasure(
        options.data,
        Path(options.revision),
        audited=None if options.audited is None else Path(options.audited),
        erase_first=options.erase_first,
        shadows=[Path(folder) for folder in options.shadows],
    )
    stays = erasure.changed + erasure.foreign
    behind = " and who is behind which row" if erasure.audited else ""
    what = (
        f"{len(erasure.files)} original files, {len(erasure.shadows)} shadow models, "
        f"{len(erasure.features)} files of features, the noise key{behind}"
    )
    left = f" {stays} listed files are changed or elsewhere and stay." if stays else ""
    if not options.yes:
        raise InvalidArgumentError(
            f"`--yes` must confirm that {what} are erased for good, got no such option.{left} "
            "Add it if you mean it."
        )
    receipt = erase(erasure)
    if options.json:
        print(as_json(receipt), end="")
    say(f"Erased {what}.{left} The receipt is {erasure.workplace.out / 'erasure.json'}.")
