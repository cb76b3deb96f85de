"""`audit`: evidence on an unlearned model, written into its folder and certified."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.audit_rows import original_part, revised_rows, stand_in_of, test_part
from privacy_core.commands.output import Progress, as_json, say
from privacy_core.commands.release import checked_folder
from privacy_core.commands.requests import move_requests
from privacy_core.commands.secrecy import keep_secret, private_folder
from privacy_core.commands.shell import PROGRAM, Commands, Tools, whole_number
from privacy_core.commands.targets import (
    check_reference,
    load_model,
    note_features_of,
    noted_reference,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.audit.evidence import Audit
    from privacy_core.audit.request import AuditRequest
    from privacy_core.unlearning.rows import LabelledImages
    from privacy_core.unlearning.targets import TargetModel

_MODELS, _HEADS = 8, 64


def add_commands(commands: Commands) -> None:
    """Add `audit`."""
    made = commands.add("audit", _audit, "measure an unlearned model against retrained ones")
    add = made.add_argument
    add("model", metavar="MODEL2", help="folder of `unlearn`; the evidence is written into it")
    add("--original", metavar="DATA", help="the originals")
    add("--erase-first", action="store_true", help="they are erased: attack a stand-in request")
    add("--revised", required=True, metavar="DIR", help="revised data set of `revise`")
    add("--against", required=True, metavar="MODEL", help="the original model")
    add(
        "--reference",
        metavar="PATH|none",
        help="a retrained model, beside the shadow models (default: that of `unlearn`)",
    )
    add(
        "--test",
        metavar="DATA",
        help="rows of other people (default: the split test of --original)",
    )
    add("--split", metavar="NAME", help="of --original, where it has several")
    add("--image-column", default="image", metavar="NAME")
    add("--label-column", metavar="L", help="default: the one of `train`")
    add("--subject-column", default="subject", metavar="NAME", help="says who is shown")
    add("--attribute-column", metavar="NAME", help="a two-valued attribute that was to be hidden")
    add("--group-column", metavar="NAME", help="groups to state metrics for, such as gender")
    add("--models", metavar="K", help="shadow models per role, 0 for none; default: 8, of heads 64")
    add("--shadows", metavar="DIR", help="where shadow models are kept (default: beside MODEL)")
    add("--seed", default=0, metavar="N")
    add("--json", action="store_true", help="print audit.json")


def _audit(options: argparse.Namespace, tools: Tools) -> None:
    folder = Path(options.model)
    n_models = _n_models(options)
    seed = whole_number(options.seed, "--seed", at_least=0)
    _check_originals(options)
    from privacy_core.audit.evidence import hardware_line
    from privacy_core.audit.protocol import audit
    from privacy_core.audit.request import AuditSettings
    from privacy_core.revise.erase import SHADOWS, note_folder
    from privacy_core.unlearning.certificate import CERTIFICATE

    settings = AuditSettings(n_models=n_models, seed=seed)
    # Its own file may be newer than the certificate, where an audit was cut off; it is replaced.
    checked_folder(folder, but="audit.json")
    certificate = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))
    request = _request(options, tools, certificate, n_models=n_models)
    shadows = private_folder(Path(options.against)) / "shadows"
    if options.shadows is not None:
        shadows = Path(options.shadows)
    if n_models:
        # They are trained on the originals: `erase-originals` must find them.
        keep_secret(folder, SHADOWS, note_folder(private_folder(folder), SHADOWS, shadows))
    found = audit(
        request, settings, shadow_folder=shadows, hardware=hardware_line(), progress=Progress()
    )
    found.write(folder)
    digest = _certify_again(folder, certificate, found)
    gate = "passed" if found.gate.passed else "failed"
    move_requests(folder, "audited", gate=gate, certificate=digest)
    if options.json:
        print(as_json(dict(found.values)), end="")
    verdict = "passed the gate" if found.gate.passed else "did not pass the gate"
    reasons = " ".join(found.gate.reasons)
    following = "publish it" if found.gate.passed else "unlearn it in another way"
    next_step = (
        f" Next: {PROGRAM} publish {folder} --repo-id NAME/REPO" if found.gate.passed else ""
    )
    say(f"Wrote {folder / 'audit.json'}: {verdict}; {following}. {reasons}{next_step}".rstrip())


def _n_models(options: argparse.Namespace) -> int:
    """Return K; of heads more by default, which cost little and scatter with the people drawn."""
    if options.models is not None:
        return whole_number(options.models, "--models", at_least=0)
    from privacy_core.unlearning.head_model import HEAD_TYPE
    from privacy_core.unlearning.targets import model_type

    return _HEADS if model_type(Path(options.against)) == HEAD_TYPE else _MODELS


def _check_originals(options: argparse.Namespace) -> None:
    if (options.original is None) != options.erase_first:
        got = "neither" if options.original is None else "both"
        raise InvalidArgumentError(
            "`--original` must name the originals, or `--erase-first` say that they are erased "
            f"already, got {got}. Give one of them."
        )
    for argument in ("attribute_column", "group_column"):
        if options.erase_first and getattr(options, argument) is not None:
            raise InvalidArgumentError(
                f"`--{argument.replace('_', '-')}` must be read from the originals, got "
                "`--erase-first`. Leave it out."
            )


def _request(
    options: argparse.Namespace, tools: Tools, certificate: Mapping[str, Any], *, n_models: int
) -> AuditRequest:
    from privacy_core.audit.request import AuditRequest
    from privacy_core.audit.shadows import Request
    from privacy_core.revise.revision import load_revision
    from privacy_core.unlearning.base import load_method

    revision = load_revision(Path(options.revised))
    if revision["data_digest"] != certificate["revised"].get("data"):
        raise InvalidArgumentError(
            "`--revised` must be the data MODEL2 was updated to, got other data. Name that folder."
        )
    unlearned = load_model(Path(options.model), tools)
    against = load_model(Path(options.against), tools)
    if against.digest() != certificate["original"].get("weights"):
        raise InvalidArgumentError(
            "`--against` must be the model MODEL2 was made from, got another. Name that folder."
        )
    note_features_of(against, Path(options.against), Path(options.revised))
    test, update = test_part(options, against), certificate["update"]
    pictures = revised_rows(options, against)
    revised = against.prepare(pictures)
    erased = part = None
    if options.erase_first:
        erased = stand_in_of(
            options, tools, against, pictures, revision=revision, certificate=certificate,
            test=test, n_models=n_models,
        )  # fmt: skip
        rows = (erased.original, erased.revised, erased.people)
    else:
        part = original_part(options, against, revision)
        rows = (part.rows, revised, part.people)
    settings = load_method(update["method"]).Settings(**update["settings"])
    return AuditRequest(
        unlearned,
        against,
        Request(against, *rows, update["method"], settings, int(options.seed)),
        test=test,
        attribute=None if part is None else part.attribute,
        group=None if part is None else part.group,
        stand_in=None if erased is None else erased.stand_in,
        reference=_reference(options, tools, against, [pictures, revised]),
        digests={"revised_data": str(revision["data_digest"])},
        provenance=_provenance(revision),
    )


def _reference(
    options: argparse.Namespace,
    tools: Tools,
    against: TargetModel,
    revised: Sequence[LabelledImages],
) -> TargetModel | None:
    """Return the retrained model that was named, or that `unlearn` made or was told of."""
    if options.reference == "none":
        return None
    place = Path(options.reference) if options.reference else noted_reference(Path(options.model))
    if place is None:
        return None
    reference = load_model(place, tools)
    check_reference(reference, against, revised)
    return reference


def _provenance(revision: Mapping[str, Any]) -> dict[str, Any]:
    subjects, preferences = revision["subjects"], revision["preferences"]
    population, own = preferences.get("population") or {}, preferences.get("own") or {}
    return {
        "dataset": revision["original"]["name"],
        "original_data_sha256": revision["original"]["digest"],
        "revised_data_sha256": revision["data_digest"],
        "mode": revision["mode"],
        "anonymizer": "@".join(str(value) for value in revision["model"].values()),
        "preferences_sha256": preferences["digest"],
        "preferences_chosen_on": preferences["model_version"],
        "preferences_ratings_revision": preferences.get("feedback_revision"),
        "preferences_made_at": preferences.get("generated_at"),
        "subjects_with_their_own_preference": sum(one["source"] == "own" for one in subjects),
        "their_mean_sd_of_strength": own.get("mean_sd"),
        "their_ratings_in_all": own.get("n_ratings"),
        "subjects_with_the_populations": sum(one["source"] == "population" for one in subjects),
        "population_strength": population.get("strength"),
        "population_sd": population.get("sd"),
        "population_raters": population.get("n_raters"),
        "population_release": population.get("release") or "none: a prior, from no ratings",
        "population_release_epsilon": population.get("epsilon"),
    }


def _certify_again(folder: Path, certificate: Mapping[str, Any], found: Audit) -> str:
    """Write the certificate with what was found, and return its digest."""
    from privacy_core.unlearning.certificate import certify

    unlearned = found.values["models"]["unlearned"]
    body = certify(
        folder,
        original=certificate["original"],
        revised=certificate["revised"],
        update=certificate["update"],
        rows=certificate["rows"]["hmac"],
        batch=certificate.get("batch"),
        audit={
            "gate": found.gate.as_json(),
            "gap_to_retrain": unlearned.get("gap_to_retrain"),
            "u_lira": unlearned.get("u_lira"),
        },
    )
    return str(body["sha256"])
