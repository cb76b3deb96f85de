"""What a revision says about itself: `revision.json`, and what all photos of a subject cost.

Plain values in, plain JSON values out; writes nothing and names nobody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privacy_core.dataset import RowSource
from privacy_core.privacy import NOT_COVERED, measured_only, total_statement
from privacy_core.revise.columns import ColumnPlan
from privacy_core.revise.revision import shards_digest
from privacy_core.revise.rows import STATUSES, WITHHELD, RowRules
from privacy_core.revise.survey import Survey
from privacy_core.schema import SCHEMA_VERSION

ALSO_NOT_COVERED = (
    "Rows that are kept: their pixels are the original's.",
    "A subject in the background of someone else's photo: that face is anonymized at the "
    "population's strength, and its noise is not in the subject's total.",
    "Which rows show the same person: rows with one strength may, and so may near-duplicates.",
    "Columns that were kept, and labels, which stay what they were in mode replace.",
)
"""What ε of a revised data set does not cover, besides `privacy.NOT_COVERED`."""


def subject_accounts(
    records: Sequence[Mapping[str, Any]], names: Mapping[str, str], rules: RowRules
) -> list[dict[str, Any]]:
    """Return what each revised subject's photos guarantee together, by pseudonym.

    Independent noises of one person compose to μ_total = 2C √(Σ 1/σᵢ²).

    Args:
        records: What was noted about each shard, in order.
        names: Pseudonym → subject.
        rules: Say whose strength comes from their own answers.
    """
    totals: dict[str, dict[str, Any]] = {}
    for record in records:
        for key, part in record["subjects"].items():
            total = totals.setdefault(key, {"n_rows": 0, "mu_squared": 0.0, "reason": None})
            total["n_rows"] += part["n_rows"]
            total["mu_squared"] += part["mu_squared"]
            total["reason"] = total["reason"] or part["reason"]
            total["strength"] = part["strength"]
    return [
        _account(key, totals[key], rules.preferences.is_own(names[key])) for key in sorted(totals)
    ]


def _account(key: str, total: Mapping[str, Any], is_own: bool) -> dict[str, Any]:
    if total["reason"] is not None:
        stated = measured_only(total["reason"])
    else:
        stated = total_statement([math.sqrt(total["mu_squared"])], secret=True)
    return {
        "subject_key": key,
        "n_rows": total["n_rows"],
        "strength": total["strength"],
        "source": "own" if is_own else "population",
        "mu_total": stated.mu,
        "epsilon_total": stated.epsilon,
        "delta": stated.delta,
        "reason": stated.reason,
    }


def revision_report(
    records: Sequence[Mapping[str, Any]],
    survey: Survey,
    rules: RowRules,
    *,
    source: RowSource,
    plan: ColumnPlan,
    model: Mapping[str, str],
    accounts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return `revision.json`: no name, no path, no seed, no time, so that a rerun repeats it.

    Args:
        records: What was noted about each shard, in order.
        survey: Of the original rows.
        rules: What was done to whose rows.
        source: The original rows.
        plan: What became of each column.
        model: Name and revision of what made the faces.
        accounts: From `subject_accounts`.
    """
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record["counts"])
    shards = {str(record["file"]): str(record["sha256"]) for record in records}
    preferences = rules.preferences
    n_used = sum(rules.is_named(subject) for subject in survey.subjects)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "revision",
        "data_digest": shards_digest(shards),
        "shards": [{"file": name, "sha256": digest} for name, digest in shards.items()],
        "original": {
            "name": Path(source.name).name if source.is_local else source.name,
            "split": source.split,
            "digest": survey.digest,
            "n_rows": survey.n_rows,
            "n_subjects": len(survey.subjects),
            "n_rows_without_subject": int((survey.subject_of < 0).sum()),
            "image_column": source.image_column,
        },
        "model": dict(model),
        "policy": rules.policy.as_json(),
        "preferences": {
            "digest": preferences.digest,
            "model_version": preferences.model_version,
            "n_subjects": len(preferences.subjects),
            "n_subjects_not_in_data": len(preferences.subjects) - n_used,
            **preferences.provenance,
        },
        "mode": rules.mode,
        "others": rules.others,
        "label_column": rules.label_column,
        "counts": {
            "rows": survey.n_rows - counts["dropped"],
            "withheld": sum(counts[status] for status in WITHHELD),
            "by_status": {status: counts[status] for status in STATUSES if counts[status]},
        },
        "statuses": dict(STATUSES),
        "withheld": [row for record in records for row in record["withheld"]],
        "subjects": [dict(account) for account in accounts],
        "columns": {
            "dropped": list(plan.dropped),
            "kept_though_identifying": list(plan.kept_though_identifying),
        },
        "near_duplicates": survey.duplicates.as_json(),
        "not_covered": [*NOT_COVERED, *ALSO_NOT_COVERED],
    }


def data_card(revision: Mapping[str, Any]) -> str:
    """Return the README.md of a revised data set on the Hub.

    Args:
        revision: `revision.json`.
    """
    counts, model = revision["counts"], revision["model"]
    split = revision["original"]["split"] or "train"
    status = [f"- `{name}`: {n}, {STATUSES[name]}" for name, n in counts["by_status"].items()]
    return "\n".join(
        [
            "---\nconfigs:\n- config_name: default\n  data_files:\n"
            f"  - split: {split}\n    path: data/*.parquet\n---\n",
            "# Revised faces\n",
            f"{counts['rows']} rows whose faces were anonymized, each subject's at a strength of "
            f"their own choice or the population's, by {model['id']} at {model['revision']}. "
            f"`revision.json` says how, and lists what was withheld.\n",
            *status,
            "\n## What ε does not cover\n",
            *(f"- {sentence}" for sentence in revision["not_covered"]),
            "",
        ]
    )
