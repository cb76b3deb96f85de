"""`anonymize`, `ladder` and `backends`: one photo in, variants out."""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.commands.output import (
    as_json,
    check_file,
    check_new_folder,
    say,
    write_folder,
    write_together,
)
from privacy_core.commands.shell import (
    PROGRAM,
    Commands,
    Tools,
    add_making,
    add_recogniser,
    backend_of,
    items_of,
    policy_of,
    whole_number,
)
from privacy_core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from privacy_core.anonymize import OpenPhoto
    from privacy_core.recognition import Recogniser
    from privacy_core.schema import RGB, Variant

_TILE = 320


def add_commands(commands: Commands) -> None:
    """Add `anonymize`, `ladder` and `backends`."""
    one = commands.add("anonymize", _anonymize, "write one variant of a photo")
    _add_photo(one, "OUT.png", "file to write")
    one.add_argument("--strength", metavar="S", help="0 to 1 (default: 0.95)")
    one.add_argument("--report", metavar="REPORT.json", help="write what is guaranteed to a file")
    several = commands.add("ladder", _ladder, "write variants of a photo at several strengths")
    _add_photo(several, "DIR", "new folder to write")
    several.add_argument("--strengths", metavar="S,S", help="default: 0.2,0.4,0.6,0.8,1.0")
    backends = commands.add("backends", _backends, "list what can make variants")
    backends.add_argument("--json", action="store_true", help="print a JSON object")


def _add_photo(parser: argparse.ArgumentParser, out: str, help_out: str) -> None:
    add = parser.add_argument
    add("photo", metavar="PHOTO", help="JPEG, PNG, WebP, TIFF, GIF or BMP")
    add("--out", required=True, metavar=out, help=help_out)
    add_making(parser)
    add("--measure", action="store_true", help="add identity distances, for the owner's eyes only")
    add_recogniser(parser)
    add("--solid-on-failure", action="store_true", help="cover a face that fails")
    add("--seed", metavar="N", help="repeat the noise, for demonstrations; voids every guarantee")
    add("--json", action="store_true", help="print the report as a JSON object")


def _anonymize(options: argparse.Namespace, tools: Tools) -> None:
    out, report_path = Path(options.out), Path(options.report) if options.report else None
    check_file(out, ".png", "--out", options.photo)
    if report_path is not None:
        check_file(report_path, ".json", "--report", options.photo)
    from privacy_core.schema import DEFAULT_STRENGTH, check_strength

    strength = check_strength(DEFAULT_STRENGTH if options.strength is None else options.strength)
    from privacy_core.faces import encode_png
    from privacy_core.report import variant_report

    opened = _open(options, tools)
    variant = opened.variant(strength)
    report = variant_report(
        variant,
        photo_notes=opened.photo.notes,
        curve=opened.backend.curve,
        measured=_measure(opened, [variant], tools.recogniser(options.recogniser))[0]
        if options.measure
        else None,
    )
    picture = encode_png(variant.image, digital_source_type=opened.backend.digital_source_type)
    files = [("--out", out, picture)]
    if report_path is not None:
        files.append(("--report", report_path, as_json(report).encode()))
    write_together(files)
    if options.json:
        print(as_json({"out": str(out), **report}), end="")
    say(f"Wrote {out}: {_summary(variant)} {_next_step(variant, report_path)}")


def _ladder(options: argparse.Namespace, tools: Tools) -> None:
    out = Path(options.out)
    check_new_folder(out)
    from privacy_core.anonymize import LADDER
    from privacy_core.faces import encode_png
    from privacy_core.report import ladder_report
    from privacy_core.schema import check_strength

    asked: Sequence[Any] = LADDER if options.strengths is None else items_of([options.strengths])
    strengths = sorted(check_strength(strength) for strength in asked)
    if len({round(100 * strength) for strength in strengths}) < len(strengths):
        raise InvalidArgumentError(
            "`--strengths` must name strengths that differ by at least 0.01, got "
            f"{options.strengths!r}. Drop the repeats."
        )
    opened = _open(options, tools)
    variants = opened.ladder(strengths)
    names = [f"strength-{round(100 * strength) / 100:.2f}.png" for strength in strengths]
    named = dict(zip(names, variants, strict=True))
    measured = (
        _measure(opened, variants, tools.recogniser(options.recogniser))
        if options.measure
        else None
    )
    report = ladder_report(
        named,
        photo_notes=opened.photo.notes,
        curve=opened.backend.curve,
        measured=None if measured is None else dict(zip(names, measured, strict=True)),
    )
    mark = opened.backend.digital_source_type
    files = {name: encode_png(v.image, digital_source_type=mark) for name, v in named.items()}
    files["contact.png"] = encode_png(_contact_sheet(variants), digital_source_type=mark)
    files["ladder.json"] = as_json(report).encode()
    write_folder(out, files)
    if options.json:
        print(as_json({"out": str(out), **report}), end="")
    unproven = _unproven(variants[0])
    say(f"Wrote {len(named)} variants to {out}.{unproven} Compare them in {out / 'contact.png'}.")


def _backends(options: argparse.Namespace, _: Tools) -> None:
    from privacy_core.backends import BACKENDS, HUB_MODELS

    found: list[dict[str, object]] = [
        {
            "name": name,
            "basis": "gaussian mechanism" if name == "embedded" else "measured only",
            "description": (make.__doc__ or "").strip().splitlines()[0],
        }
        for name, make in BACKENDS.items()
    ]
    found += [model.as_json() for model in HUB_MODELS.values()]
    if options.json:
        print(as_json({"backends": found}), end="")
        return
    for entry in found:
        needs = f" {_needs(entry)}" if "licence" in entry else ""
        print(f"{entry['name']:<17}{entry['basis']:<20}{entry['description']}{needs}")
    say(
        f"Next: {PROGRAM} anonymize PHOTO --out OUT.png --backend NAME; with a model of the Hub "
        "NAME@SHA, a commit of it."
    )


def _needs(entry: Mapping[str, object]) -> str:
    licence = f"{entry['licence']}{' (--accept-licence)' if entry['needs_accept_licence'] else ''}"
    note = f"; {entry['note']}" if entry["note"] else ""
    return f"{licence}; {entry['memory_gb']} GB in 16 bits; {entry['steps']} steps{note}"


def _open(options: argparse.Namespace, tools: Tools) -> OpenPhoto:
    """Check what can be checked without weights, then load them and find the faces."""
    from privacy_core.anonymize import Anonymizer
    from privacy_core.faces import read_photo
    from privacy_core.noise import NoiseKey

    policy = policy_of(options)
    seed = None if options.seed is None else whole_number(options.seed, "--seed")
    photo = read_photo(options.photo)
    backend = backend_of(options, tools)
    return Anonymizer(backend, tools.detector()).open(
        photo,
        key=NoiseKey.fresh() if seed is None else NoiseKey.from_seed(seed),
        policy=policy,
        solid_on_failure=options.solid_on_failure,
    )


def _measure(
    opened: OpenPhoto, variants: Sequence[Variant], recogniser: Recogniser
) -> list[dict[str, object]]:
    from privacy_core.report import identity_report

    curve, pixels = opened.backend.curve, opened.photo.pixels
    return [
        identity_report(pixels, variant, opened.faces, recogniser=recogniser, curve=curve)
        for variant in variants
    ]


def _summary(variant: Variant) -> str:
    faces = "1 face" if variant.n_faces == 1 else f"{variant.n_faces} faces"
    if not variant.protected:
        return f"{faces} NOT hidden ({variant.privacy.reason})."
    covered = f", {len(variant.covered)} of them covered" if variant.covered else ""
    return f"{faces} anonymized at strength {variant.strength:.2f}{covered}.{_unproven(variant)}"


def _unproven(variant: Variant) -> str:
    if variant.privacy.epsilon is not None or len(variant.covered) == variant.n_faces:
        return ""
    return f" Nothing is guaranteed: {variant.privacy.reason}."


def _next_step(variant: Variant, report_path: Path | None) -> str:
    if not variant.protected:
        return "Raise `--strength` with the embedded backend before you post it."
    if report_path is None:
        return "Look at it before you post it; `--report` writes what is guaranteed."
    return f"Look at it before you post it; {report_path} says what is guaranteed."


def _contact_sheet(variants: Sequence[Variant]) -> RGB:
    """Return the variants side by side, each under its strength."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    small = [Image.fromarray(variant.image) for variant in variants]
    for picture in small:
        picture.thumbnail((_TILE, _TILE))
    label = _TILE // 10
    sheet = Image.new("RGB", (_TILE * len(small), label + max(p.height for p in small)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(label * 0.6)
    for i, (picture, variant) in enumerate(zip(small, variants, strict=True)):
        draw.text((_TILE * i + 8, label * 0.15), f"strength {variant.strength:.2f}", "black", font)
        sheet.paste(picture, (_TILE * i + (_TILE - picture.width) // 2, label))
    return np.array(sheet)
