"""Data set + preferences → revised data set: each subject's photos at that subject's strength.

Joins rows, noise and places; writes shard by shard, so that memory does not grow with the data and
an interrupted run goes on where it stopped, to the same bytes. Several processes make a shard each
in turn, to the same bytes again. Knows no weights and no detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from privacy_core.anonymize import Anonymizer
from privacy_core.crew import Crew
from privacy_core.dataset import RowSource
from privacy_core.errors import InvalidArgumentError, OutputError
from privacy_core.noise import NoiseKey
from privacy_core.revise.columns import ColumnPlan, plan_columns
from privacy_core.revise.report import revision_report, subject_accounts
from privacy_core.revise.revision import Workplace, load_revision
from privacy_core.revise.rows import RowReviser, RowRules
from privacy_core.revise.shards import ShardWriter, rows_per_shard, subject_key
from privacy_core.revise.survey import Report, Survey


@dataclass(frozen=True)
class ReviseConfig:
    """What a revision does apart from its rules.

    Attributes:
        subject_column: Says who is shown; never in the revised data.
        drop_columns: Further columns to drop; None if nobody confirmed any.
        seed: Makes the noise repeatable and thereby void; None for secret noise.
        rows_per_shard: Rows of the original data behind each file; as `rows_per_shard` says when
            None.
        crew: The processes that revise the same data at once; what comes out is the same.
    """

    subject_column: str = "subject"
    drop_columns: tuple[str, ...] | None = None
    seed: int | None = None
    rows_per_shard: int | None = None
    crew: Crew = field(default_factory=Crew)


@dataclass(frozen=True)
class _Run:
    """Everything one run carries along."""

    source: RowSource
    survey: Survey
    rules: RowRules
    config: ReviseConfig
    plan: ColumnPlan
    place: Workplace
    master: bytes = field(repr=False)
    reviser: RowReviser = field(repr=False)
    rows_per_shard: int


def revise(
    source: RowSource,
    survey: Survey,
    rules: RowRules,
    out: Path,
    *,
    anonymizer: Anonymizer,
    config: ReviseConfig,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Write the revised data set and return its `revision.json`.

    Args:
        source: The original rows.
        survey: `survey_rows` of them.
        rules: What happens to whose rows.
        out: Folder to make; see `privacy_core.revise.revision` for what stands beside it.
        anonymizer: Finds and makes faces.
        config: Columns, shards, noise, processes.
        resume: Go on with an interrupted run of the same data and rules.
        report: Called with stage, done, total.

    Raises:
        InvalidArgumentError: Data, rules and preferences do not fit together, or the interrupted
            run was another one.
        OutputError: The data set cannot be written; what is there can be resumed.
    """
    plan = plan_columns(
        source.features,
        image_column=source.image_column,
        subject_column=config.subject_column,
        label_column=rules.label_column,
        drop=config.drop_columns,
    )
    _check_rules(survey, rules)
    place = Workplace(out)
    backend = anonymizer.backend
    model = {"id": backend.name, "revision": backend.revision}
    # Strengths of a model of the Hub may be measured anew between two runs.
    curve = None if backend.curve is None else [*backend.curve.strengths, *backend.curve.sigmas]
    settings = _settings(survey, source, rules, config)
    settings |= {"model": model, "curve": curve, "drop": plan.dropped}
    crew = config.crew
    master = _begun(place, _listed(settings), crew, resume=resume)
    if resume and place.is_whole():
        return load_revision(out)
    if config.seed is not None:
        master = NoiseKey.from_seed(config.seed).material
    reviser = RowReviser(
        anonymizer,
        rules,
        image_column=source.image_column,
        key_of=lambda number: _row_key(master, number, config.seed),
    )
    size = settings["rows_per_shard"]
    run = _Run(source, survey, rules, config, plan, place, master, reviser, size)
    written = _write_shards(run, report)
    crew.wait()
    if not crew.is_first:
        crew.wait()
        return load_revision(out, check_shards=False)
    records = [found or _of_another(place, name) for name, found in written.items()]
    accounts = subject_accounts(records, _names_by_key(run), rules)
    revision = revision_report(
        records, survey, rules, source=source, plan=plan, model=model, accounts=accounts
    )
    _keep_private(run, accounts)
    place.finish(revision)
    crew.wait()
    return revision


def _begun(place: Workplace, settings: Mapping[str, Any], crew: Crew, *, resume: bool) -> bytes:
    """Return the noise key: the first process begins, and the others find what it has begun."""
    if crew.is_first:
        master = place.begin(settings, resume=resume)
        crew.wait()
        return master
    crew.wait()
    return place.begin(settings, resume=True)


def _check_rules(survey: Survey, rules: RowRules) -> None:
    named = [rules.is_named(subject) for subject in survey.subjects]
    all_named = all(named) and not (survey.subject_of < 0).any()
    if rules.mode == "drop-row" and all_named:
        raise InvalidArgumentError(
            "`--mode` must leave at least one row, got 'drop-row' with every subject of the data "
            "in `--preferences`. Delete the data set instead."
        )
    if rules.preferences.population is None and rules.others == "anonymize" and not all_named:
        raise InvalidArgumentError(
            "`--preferences` must have a strength of the population for subjects it does not "
            "name, got none. Run `python -m feedback fit` again, or leave the others as they are "
            "with `--others keep`."
        )


def _settings(
    survey: Survey, source: RowSource, rules: RowRules, config: ReviseConfig
) -> dict[str, Any]:
    return {
        "data": survey.digest,
        "split": source.split,
        "image_column": source.image_column,
        "subject_column": config.subject_column,
        "preferences": rules.preferences.digest,
        "mode": rules.mode,
        "others": rules.others,
        "label_column": rules.label_column,
        "policy": rules.policy.as_json(),
        "seed": config.seed,
        "rows_per_shard": config.rows_per_shard or rows_per_shard(len(source)),
    }


def _listed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they come back from a JSON file."""
    return {n: list(value) if isinstance(value, tuple) else value for n, value in settings.items()}


def _row_key(master: bytes, number: int, seed: int | None) -> NoiseKey:
    if seed is None:
        return NoiseKey.from_row(master, str(number))
    return NoiseKey.from_seed(seed).child(f"row {number}")


def _write_shards(run: _Run, report: Report | None) -> dict[str, dict[str, Any] | None]:
    """Write this process's shards and return every shard's record, None of another's."""
    size = run.rows_per_shard
    n_shards = -(-len(run.source) // size)
    rows = iter(run.source)
    records: dict[str, dict[str, Any] | None] = {}
    for index in range(n_shards):
        name = f"{run.source.split or 'train'}-{index:05d}-of-{n_shards:05d}.parquet"
        first, last = index * size, min((index + 1) * size, len(run.source))
        is_mine = run.config.crew.does(index)
        records[name] = run.place.record(name) if is_mine else None
        if is_mine and records[name] is None:
            mine = islice(rows, last - first)
            writer = ShardWriter(
                run.reviser, run.plan, run.survey, run.master,
                rows=mine, first=first, file=f"data/{name}", report=report,
            )  # fmt: skip
            records[name] = run.place.write_shard(name, writer)
        else:
            # Another's, or already there and unchanged: its rows are passed over.
            for _ in islice(rows, last - first):
                pass
            if report is not None:
                report("Anonymizing", last, len(run.source))
    return records


def _of_another(place: Workplace, name: str) -> dict[str, Any]:
    record = place.record(name)
    if record is None:
        raise OutputError(
            f"`--out` must be one folder that all processes see, got none of the shard {name} that "
            "another was to write. Use a shared disk, then go on with `--resume`."
        )
    return record


def _names_by_key(run: _Run) -> dict[str, str]:
    return {subject_key(run.master, subject): subject for subject in run.survey.subjects}


def _keep_private(run: _Run, accounts: Sequence[Mapping[str, Any]]) -> None:
    """Keep what only the owner of the data may see: who is who, and which files are originals."""
    names = _names_by_key(run)
    run.place.keep("subjects.json", {names[str(a["subject_key"])]: dict(a) for a in accounts})
    keys = list(names)
    run.place.keep_rows([None if p < 0 else keys[p] for p in run.survey.subject_of.tolist()])
    # A download that was going on when the data was opened may have come to its end.
    files = [path for path in run.source.files if path.is_file()]
    run.place.keep_originals(files, name=run.source.name, local=run.source.is_local)
