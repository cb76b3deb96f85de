"""A model folder's evidence → its model card: what was done, measured, and what is not claimed.

Knows plain JSON values; reads no file and talks to no Hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NO_AUDIT = "This model was not audited."
_GROUPS = ("original", "unlearned", "reference", "released", "given reference")
_SPLITS = ("retain", "forget", "revised", "test")
_NOT_CLAIMED = (
    "Rectification with evidence, not erasure: the model still learns from the revised pictures.",
    "What a revised picture shows (hair, clothes, background, kept attributes) is not forgotten.",
    "The attacks are those listed in the audit; others may find more.",
    "Copies of the data, earlier revisions of this model and models derived from it are not "
    "reached.",
)
_TASK = "image-classification"


def model_card(
    repo_id: str,
    *,
    config: Mapping[str, Any],
    training: Mapping[str, Any],
    certificate: Mapping[str, Any],
    audit: Mapping[str, Any] | None,
    licence: str,
    plots: Sequence[str] = (),
) -> str:
    """Return README.md.

    Args:
        repo_id: NAME/REPO.
        config: `config.json`.
        training: `training.json`.
        certificate: `certificate.json`.
        audit: `audit.json`, None where there is none; then the card says so.
        licence: A licence's name on the Hub, such as "apache-2.0" or "other".
        plots: Paths of pictures in the folder, to be shown.
    """
    head = _metadata(repo_id, config=config, training=training, audit=audit, licence=licence)
    sections = [
        f"---\n{head}\n---\n",
        f"# {repo_id.partition('/')[2]}\n",
        _gate_section(audit),
        _loading(repo_id, config),
        _done(certificate),
        *([] if audit is None else [_measured(audit)]),
        *(f"![{name}]({name})\n" for name in plots),
        *([] if audit is None else [_provenance(audit)]),
        "## What is not claimed\n\n" + _bullets(_NOT_CLAIMED),
    ]
    return "\n".join(sections)


def _metadata(
    repo_id: str,
    *,
    config: Mapping[str, Any],
    training: Mapping[str, Any],
    audit: Mapping[str, Any] | None,
    licence: str,
) -> str:
    from huggingface_hub import ModelCardData  # noqa: PLC0415  (takes a while)

    is_network = "backbone" not in config
    base = training["recipe"].get("base")
    data = None if audit is None else audit["provenance"].get("dataset")
    results = [] if audit is None else _results(audit)
    card = ModelCardData(
        model_name=repo_id.partition("/")[2],
        license=licence,
        base_model=base,
        # Only a name that the Hub may know; a local file's is nobody's business.
        datasets=[data] if isinstance(data, str) and data.count("/") == 1 else None,
        library_name="transformers" if is_network else None,
        pipeline_tag=_TASK,
        tags=["machine-unlearning", "privacy"],
        eval_results=results or None,
    )
    return str(card.to_yaml())


def _results(audit: Mapping[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult  # noqa: PLC0415

    one = audit["models"].get("released", audit["models"]["unlearned"])
    found = [
        ("accuracy", f"Accuracy, {split} rows", one["accuracy"][split]["value"], split)
        for split in _SPLITS
        if split in one["accuracy"]
    ]
    attacked = audit["models"]["unlearned"].get("u_lira")
    if attacked is not None:
        found.append(("roc_auc", "Per-example attack AUC (lower is better)",
                      attacked["auc"]["value"], "forget"))  # fmt: skip
    revision = str(audit["digests"]["revised_rows"])
    return [
        EvalResult(
            task_type=_TASK,
            dataset_type=str(audit["provenance"].get("dataset") or "local"),
            dataset_name=str(audit["provenance"].get("dataset") or "local data"),
            metric_type=metric,
            metric_value=round(float(value), 4),
            metric_name=name,
            dataset_split=split,
            dataset_args={"revised_rows_sha256": revision},
        )
        for metric, name, value, split in found
    ]


def _gate_section(audit: Mapping[str, Any] | None) -> str:
    if audit is None:
        return f"**{_NO_AUDIT} It did not pass the gate for release.**\n"
    if audit["gate"]["passed"]:
        text = "This model passed the gate for release; the checks are in `audit.json`.\n"
    else:
        reasons = _bullets(audit["gate"]["reasons"])
        failed = "**This model did not pass the gate for release; by force only is it published:**"
        text = f"{failed}\n\n{reasons}"
    return text + _stand_in(audit.get("stand_in"))


def _stand_in(stand_in: Mapping[str, Any] | None) -> str:
    if stand_in is None:
        return ""
    return (
        f"\n**{stand_in['reason']}** The stand-in has {stand_in['n_rows']} rows of "
        f"{stand_in['n_people']} people; {stand_in['n_rows_asked']} rows were asked for. The "
        "columns original, unlearned and reference are models of the stand-in; released is this "
        "model, on the rows that are left.\n"
    )


def _loading(repo_id: str, config: Mapping[str, Any]) -> str:
    if "backbone" in config:
        lines = (
            "from huggingface_hub import snapshot_download",
            "from safetensors.numpy import load_file",
            f'weights = load_file(snapshot_download("{repo_id}") + "/model.safetensors")["weight"]',
        )
        note = (
            f"\nA softmax head, bias last, on the features of the backbone `{config['backbone']}`; "
            "`privacy_core.unlearning.loading.load_target` loads it whole.\n"
        )
    else:
        lines = (
            "from transformers import AutoImageProcessor, AutoModelForImageClassification",
            f'processor = AutoImageProcessor.from_pretrained("{repo_id}")',
            f'model = AutoModelForImageClassification.from_pretrained("{repo_id}")',
        )
        note = ""
    code = "\n".join(lines)
    return f"## Use\n\n```python\n{code}\n```\n{note}"


def _done(certificate: Mapping[str, Any]) -> str:
    update, guarantee = certificate["update"], certificate["update"]["guarantee"]
    cost = update["cost"]
    proof = (
        f"ε = {guarantee['epsilon']:.3g} at δ = {guarantee['delta']:.0e}. {guarantee['reason']}"
        if guarantee["epsilon"] is not None and guarantee["delta"] is not None
        else f"No ε. {guarantee['reason']}"
    )
    lines = (
        f"Method: {update['method']} ({update['source']}).",
        *_batch(certificate.get("batch")),
        f"Rows unlearned: {certificate['rows']['count']}; retained: {update['n_retain']}; with a "
        f"revised picture: {update['n_replacement']}.",
        f"Cost: {cost['seconds']:.3g} s of process time, {cost['gradient_evaluations']} gradient "
        "evaluations.",
        f"Proved: {proof}",
        f"Digest of the original weights: `{certificate['original'].get('weights', 'unknown')}`.",
        f"Digest of the revised data: `{certificate['revised'].get('data', 'unknown')}`.",
    )
    return "## What was done\n\n" + _bullets(lines)


def _batch(batch: Mapping[str, Any] | None) -> list[str]:
    if batch is None:
        return []
    return [f"Batch of requests: {batch['name']}, {batch['requests']} in all."]


def _measured(audit: Mapping[str, Any]) -> str:
    models = audit["models"]
    groups = [name for name in _GROUPS if name in models]
    rows = [
        (f"accuracy, {split} rows, %", [_accuracy(models[name], split) for name in groups])
        for split in _SPLITS
        if any(split in models[name]["accuracy"] for name in groups)
    ]
    rows += [
        ("average gap to retraining, points",
         [_number(models[name].get("gap_to_retrain", {}).get("average")) for name in groups]),
        ("tug of war", [_interval(models[name].get("tug_of_war")) for name in groups]),
        ("JS divergence, nats", [_interval(models[name].get("js_divergence")) for name in groups]),
        ("per-example attack AUC",
         [_interval(models[name].get("u_lira", {}).get("auc")) for name in groups]),
        ("per-person attack AUC",
         [_interval(models[name].get("u_lira_by_person", {}).get("auc")) for name in groups]),
        ("forgetting quality",
         [_number(models[name].get("forgetting_quality")) for name in groups]),
    ]  # fmt: skip
    rows = [(name, cells) for name, cells in rows if any(cell != "" for cell in cells)]
    table = "\n".join(
        ["| | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
        + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows]
    )
    k, seed = audit["settings"]["n_models"], audit["settings"]["seed"]
    ratio = audit["costs"].get("ratio_to_retraining", {}).get("seconds")
    notes = [
        f'K = {k} models per column ("released" is this one), seed {seed}; intervals hold 95 % of '
        "bootstrap draws over people and models. The reference column is retrained models against "
        "further retrained ones: the control.",
        f"Measured on {audit['hardware']}.",
    ]
    if ratio is not None:
        notes.insert(1, f"Unlearning took {ratio:.2f} of the time of retraining.")
    return f"## What was measured\n\n{table}\n\n" + "\n\n".join(notes) + "\n"


def _provenance(audit: Mapping[str, Any]) -> str:
    lines = [f"{name.replace('_', ' ')}: {_plain(value)}"
             for name, value in audit["provenance"].items() if value is not None]  # fmt: skip
    if not lines:
        return "## Provenance\n\nNot stated.\n"
    return "## Provenance\n\n" + _bullets(lines)


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _accuracy(model: Mapping[str, Any], split: str) -> str:
    one = model["accuracy"].get(split)
    return "" if one is None else _interval({k: v and 100 * v for k, v in one.items()}, digits=1)


def _interval(one: Mapping[str, float | None] | None, *, digits: int = 3) -> str:
    if not one:
        return ""
    text = f"{one['value'] or 0:.{digits}f}"
    if one["low"] is None or one["high"] is None:
        return text
    return f"{text} ({one['low']:.{digits}f} to {one['high']:.{digits}f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
