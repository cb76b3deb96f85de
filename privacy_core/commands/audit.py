"""`audit`, `verify` and `publish`: evidence on an unlearned model, checked, and sent to the Hub."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import Progress, as_json, say
from privacy_core.commands.secrecy import private_folder
from privacy_core.commands.shell import PROGRAM, Commands, Tools, whole_number
from privacy_core.errors import InvalidArgumentError, ModelError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from privacy_core.audit.measure import Part
    from privacy_core.audit.protocol import Audit, AuditRequest
    from privacy_core.unlearning.targets import TargetModel


def add_commands(commands: Commands) -> None:
    """Add `audit`, `verify` and `publish`."""
    made = commands.add("audit", _audit, "measure an unlearned model against retrained ones")
    add = made.add_argument
    add("model", metavar="MODEL2", help="folder of `unlearn`; the evidence is written into it")
    add("--original", required=True, metavar="DATA", help="the originals")
    add("--revised", required=True, metavar="DIR", help="revised data set of `revise`")
    add("--against", required=True, metavar="MODEL", help="the original model")
    add("--reference", metavar="PATH", help="a retrained model, beside the shadow models")
    add("--test", metavar="DATA", help="rows of other people (default: DATA's split test)")
    add("--split", metavar="NAME", help="of DATA, where it has several")
    add("--image-column", default="image", metavar="NAME")
    add("--subject-column", default="subject", metavar="NAME", help="says who is shown")
    add("--attribute-column", metavar="NAME", help="a two-valued attribute that was to be hidden")
    add("--models", default=8, metavar="K", help="shadow models per role, 0 for none; default: 8")
    add("--shadows", metavar="DIR", help="where shadow models are kept (default: beside MODEL)")
    add("--seed", default=0, metavar="N")
    add("--json", action="store_true", help="print audit.json")
    made = commands.add("verify", _verify, "check a model folder against its certificate")
    made.add_argument("model", metavar="FOLDER")
    made.add_argument("--revised", metavar="DIR", help="also check the revised data set")
    made.add_argument("--json", action="store_true", help="print what was checked")
    made = commands.add("publish", _publish, "send a model and its evidence to the Hub")
    add = made.add_argument
    add("model", metavar="MODEL2", help="an audited folder")
    add("--repo-id", required=True, metavar="NAME/REPO", help="made when missing")
    add("--public", action="store_true", help="let everybody read it; otherwise private")
    add("--force", action="store_true", help="publish though the gate failed; the card says so")
    add("--licence", default="other", metavar="NAME", help="for the card; default: %(default)s")
    add("--json", action="store_true", help="print repository and revision")


def _audit(options: argparse.Namespace, tools: Tools) -> None:
    folder = Path(options.model)
    n_models = whole_number(options.models, "--models", at_least=0)
    seed = whole_number(options.seed, "--seed", at_least=0)
    from privacy_core.audit.protocol import AuditSettings, audit, hardware_line
    from privacy_core.unlearning.certificate import CERTIFICATE

    settings = AuditSettings(n_models=n_models, seed=seed)
    # Its own file may be newer than the certificate, where an audit was cut off; it is replaced.
    _verified(folder, but="audit.json")
    certificate = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))
    request = _request(options, tools, certificate)
    shadows = private_folder(Path(options.against)) / "shadows"
    found = audit(
        request,
        settings,
        shadow_folder=Path(options.shadows) if options.shadows else shadows,
        hardware=hardware_line(),
        progress=Progress(),
    )
    found.write(folder)
    _certify_again(folder, certificate, found)
    if options.json:
        print(as_json(dict(found.values)), end="")
    verdict = "passed the gate" if found.gate.passed else "did not pass the gate"
    reasons = " ".join(found.gate.reasons)
    following = "publish it" if found.gate.passed else "unlearn it in another way"
    next_step = (
        f" Next: {PROGRAM} publish {folder} --repo-id NAME/REPO" if found.gate.passed else ""
    )
    say(f"Wrote {folder / 'audit.json'}: {verdict}; {following}. {reasons}{next_step}".rstrip())


def _request(
    options: argparse.Namespace, tools: Tools, certificate: Mapping[str, Any]
) -> AuditRequest:
    from privacy_core.audit.protocol import AuditRequest
    from privacy_core.audit.shadows import Request
    from privacy_core.commands.unlearning import _backbone
    from privacy_core.revise.revision import load_revision
    from privacy_core.unlearning.base import load_method
    from privacy_core.unlearning.loading import load_target

    revision = load_revision(Path(options.revised))
    if revision["data_digest"] != certificate["revised"].get("data"):
        raise InvalidArgumentError(
            "`--revised` must be the data MODEL2 was updated to, got other data. Name that folder."
        )

    def load(place: str) -> TargetModel:
        return load_target(Path(place), backbone_of=lambda name: _backbone(name, tools))

    unlearned, against = load(options.model), load(options.against)
    if against.digest() != certificate["original"].get("weights"):
        raise InvalidArgumentError(
            "`--against` must be the model MODEL2 was made from, got another. Name that folder."
        )
    original = _read(options, against, options.original, split=options.split)
    revised = _read(options, against, options.revised, is_revised=True)
    update = certificate["update"]
    shadows = Request(
        against,
        original.rows,
        revised.rows,
        original.people,
        update["method"],
        load_method(update["method"]).Settings(**update["settings"]),
        whole_number(options.seed, "--seed"),
    )
    return AuditRequest(
        unlearned,
        against,
        shadows,
        test=_test_rows(options, against),
        attribute=original.attribute,
        reference=None if options.reference is None else load(options.reference),
        digests={"revised_data": str(revision["data_digest"])},
        provenance=_provenance(revision),
    )


def _read(
    options: argparse.Namespace,
    model: TargetModel,
    source: str,
    *,
    split: str | None = None,
    is_revised: bool = False,
) -> Part:
    """Read rows, who is shown in each, and the attribute where one is named."""
    from privacy_core.audit.measure import Part
    from privacy_core.dataset import read_dataset
    from privacy_core.unlearning.rows import read_labelled

    seen: list[tuple[Any, Any]] = []
    data = read_dataset(source, image_column=options.image_column, split=split)
    rows, _ = read_labelled(
        data if is_revised else _noted(data, options, seen),
        label_column=model.record.label_column,
        image_size=model.record.recipe.image_size,
        image_column=options.image_column,
        label_names=model.label_names,
    )
    rows = model.prepare(rows)
    people, values = _columns(seen)
    return Part(rows, people, _attribute(values, options.attribute_column))


def _noted(
    rows: Iterable[Mapping[str, Any]], options: argparse.Namespace, seen: list[tuple[Any, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Pass rows on, and note who is shown in those that have a picture."""
    for place, row in enumerate(rows):
        for argument in ("subject_column", "attribute_column"):
            column = getattr(options, argument)
            if column is not None and column not in row:
                raise InvalidArgumentError(
                    f"`--{argument.replace('_', '-')}` must name a column of the data, got "
                    f"{column!r}; the data has the columns {', '.join(row)}. Name one of them."
                )
        if row[options.image_column] is not None:
            subject = row[options.subject_column]
            # Nobody knows who is shown: then each row counts as a person of its own.
            person = f"row {place}" if subject is None else f"subject {subject}"
            attribute = row[options.attribute_column] if options.attribute_column else None
            seen.append((person, attribute))
        yield row


def _columns(seen: list[tuple[Any, Any]]) -> tuple[Any, list[Any]]:
    import numpy as np

    return np.array([person for person, _ in seen], dtype=str), [value for _, value in seen]


def _attribute(values: list[Any], column: str | None) -> Any:
    import numpy as np

    if column is None or not values:
        return None
    found = sorted({str(value) for value in values})
    if len(found) != 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"`--attribute-column` must hold two values, got {len(found)} in {column!r}. "
            "Name another column."
        )
    return np.array([str(value) == found[1] for value in values])


def _test_rows(options: argparse.Namespace, model: TargetModel) -> Part | None:
    """Return rows never trained on; None, and the metrics on them absent, where there are none."""
    from privacy_core.dataset import read_dataset

    plain = argparse.Namespace(**{**vars(options), "attribute_column": None})
    if options.test is not None:
        return _read(plain, model, options.test)
    source = read_dataset(options.original, image_column=options.image_column, split=options.split)
    if "test" in source.other_splits:
        return _read(plain, model, options.original, split="test")
    say("No rows of other people (`--test DATA`): metrics on them are left out.")
    return None


def _provenance(revision: Mapping[str, Any]) -> dict[str, Any]:
    subjects = revision["subjects"]
    return {
        "dataset": revision["original"]["name"],
        "original_data_sha256": revision["original"]["digest"],
        "revised_data_sha256": revision["data_digest"],
        "preferences_sha256": revision["preferences"]["digest"],
        "preferences_chosen_on": revision["preferences"]["model_version"],
        "subjects_with_their_own_preference": sum(one["source"] == "own" for one in subjects),
        "subjects_with_the_populations": sum(one["source"] == "population" for one in subjects),
        "mode": revision["mode"],
        "anonymizer": "@".join(str(value) for value in revision["model"].values()),
    }


def _certify_again(folder: Path, certificate: Mapping[str, Any], found: Audit) -> None:
    from privacy_core.unlearning.certificate import certify

    unlearned = found.values["models"]["unlearned"]
    certify(
        folder,
        original=certificate["original"],
        revised=certificate["revised"],
        update=certificate["update"],
        rows=certificate["rows"]["hmac"],
        audit={
            "gate": found.gate.as_json(),
            "gap_to_retrain": unlearned.get("gap_to_retrain"),
            "u_lira": unlearned.get("u_lira"),
        },
    )


def _verified(
    folder: Path, *, revised_digest: str | None = None, but: str | None = None
) -> tuple[str, ...]:
    from privacy_core.unlearning.certificate import verify

    found = verify(folder, revised_digest=revised_digest)
    problems = [one for one in found.problems if but is None or repr(but) not in one]
    if problems:
        raise ModelError(
            f"{folder.name!r} does not fit its certificate: {' '.join(problems)} "
            "Run `unlearn` again, or bring the files back."
        )
    return found.checked


def _verify(options: argparse.Namespace, _: Tools) -> None:
    digest = None
    if options.revised is not None:
        from privacy_core.revise.revision import load_revision

        digest = str(load_revision(Path(options.revised))["data_digest"])
    checked = _verified(Path(options.model), revised_digest=digest)
    if options.json:
        print(as_json({"valid": True, "checked": list(checked)}), end="")
    say(f"{options.model} fits its certificate; checked {', '.join(checked)}.")


def _publish(options: argparse.Namespace, _: Tools) -> None:
    from privacy_core.hub import publish

    found = publish(
        Path(options.model),
        repo_id=options.repo_id,
        client=_client(),
        public=options.public,
        force=options.force,
        licence=options.licence,
    )
    if options.json:
        value = {"repo_id": found.repo_id, "revision": found.revision, "new": found.is_new}
        print(as_json(value), end="")
    where = "everybody can read it" if found.is_public else "it is private"
    what = "Published" if found.is_new else "Nothing to send, the Hub already holds"
    say(f"{what} {found.repo_id} at revision {found.revision}; {where}.")


def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()
