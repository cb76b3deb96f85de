"""`python -m privacy_core`: a thin shell; data on stdout or in files, talk on stderr.

Parses, calls the package, and writes everything or nothing. Imports of a command stand in the
command: torch and dlib take seconds that `--help` must not.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from privacy_core.errors import InvalidArgumentError, OutputError, PrivacyDialError

if TYPE_CHECKING:
    from privacy_core.anonymize import OpenPhoto
    from privacy_core.backends import Backend
    from privacy_core.dataset import RowSource
    from privacy_core.faces import FaceDetector
    from privacy_core.recognition import Recogniser
    from privacy_core.schema import RGB, AttributePolicy, Variant

DEFAULT_STRENGTH = 0.8
_PROGRAM = "python -m privacy_core"
_TILE = 320


def main(
    arguments: Sequence[str] | None = None,
    *,
    load_backend: Callable[[str], Backend] | None = None,
    detector: FaceDetector | None = None,
    recogniser: Recogniser | None = None,
) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input or refused.

    Args:
        arguments: The command line; the process's own when None.
        load_backend: Name → backend, in place of `privacy_core.backends.load_backend`.
        detector: In place of the default detector.
        recogniser: In place of dlib's.
    """
    try:
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace, _Tools], None] = options.run
        run(options, _Tools(load_backend, detector, recogniser))
    except PrivacyDialError as error:
        _say(" ".join(str(error).split()))
        return 2
    return 0


@dataclass(frozen=True)
class _Tools:
    """Collaborators; what was not given is made when a command first needs it."""

    given_load_backend: Callable[[str], Backend] | None
    given_detector: FaceDetector | None
    given_recogniser: Recogniser | None

    def load_backend(self, name: str) -> Backend:
        from privacy_core.backends import load_backend

        return (self.given_load_backend or load_backend)(name)

    def detector(self) -> FaceDetector:
        from privacy_core.faces import default_detector

        return self.given_detector or default_detector()

    def recogniser(self) -> Recogniser:
        from privacy_core.recognition import DlibRecogniser

        return self.given_recogniser or DlibRecogniser()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse in one sentence, as every other refusal; exit 2 comes from `main`."""
        raise InvalidArgumentError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM, description="Anonymize the faces of a photo.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, run: Callable[[argparse.Namespace, _Tools], None], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False
        )
        made.set_defaults(run=run)
        return made

    one = command("anonymize", _anonymize, "write one variant of a photo")
    _add_photo(one, "OUT.png", "file to write")
    one.add_argument("--strength", default=DEFAULT_STRENGTH, help="0 to 1 (default: %(default)s)")
    one.add_argument("--report", metavar="REPORT.json", help="write what is guaranteed to a file")
    several = command("ladder", _ladder, "write variants of a photo at several strengths")
    _add_photo(several, "DIR", "new folder to write")
    several.add_argument("--strengths", metavar="S,S", help="default: 0.2,0.4,0.6,0.8,1.0")
    backends = command("backends", _backends, "list what can make variants")
    backends.add_argument("--json", action="store_true", help="print a JSON object")
    fit = command("fit-model", _fit_model, "train the embedded model on faces")
    _add_data(fit)
    fit.add_argument("--out", required=True, metavar="DIR", help="model folder; a rerun resumes")
    fit.add_argument("--components", default=512, metavar="K", help="numbers per face")
    fit.add_argument("--faces", default=7_000_000, metavar="N", help="faces to train on, repeated")
    fit.add_argument("--seed", default=0, metavar="N")
    calibrate = command("calibrate", _calibrate, "fit what strength means to held-out people")
    _add_data(calibrate)
    calibrate.add_argument("--backend", default="embedded", metavar="NAME")
    calibrate.add_argument("--model", metavar="DIR", help="model folder (default: the shipped one)")
    calibrate.add_argument("--faces", default=600, metavar="N", help="photos to measure at most")
    return parser


def _add_photo(parser: argparse.ArgumentParser, out: str, help_out: str) -> None:
    add = parser.add_argument
    add("photo", metavar="PHOTO", help="JPEG, PNG, WebP, TIFF, GIF or BMP")
    add("--out", required=True, metavar=out, help=help_out)
    add("--keep", action="append", default=[], metavar="A,B", help="attributes to protect")
    add("--hide", action="append", default=[], metavar="A,B", help="attributes to remove")
    add("--set", action="append", default=[], metavar="A=V", help="attributes to ask for")
    add("--backend", default="embedded", metavar="NAME", help="see `backends`")
    add("--model", metavar="DIR", help="model folder of `fit-model` (default: the shipped one)")
    add("--measure", action="store_true", help="add identity distances, for the owner's eyes only")
    add("--solid-on-failure", action="store_true", help="cover a face that fails")
    add("--seed", metavar="N", help="repeat the noise, for demonstrations; voids every guarantee")
    add("--json", action="store_true", help="print the report as a JSON object")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="parquet, pictures, save_to_disk or Hub id")
    parser.add_argument("--revision", metavar="R", help="of a Hub id")
    parser.add_argument("--split", metavar="NAME", help="where DATA has several")
    parser.add_argument("--image-column", default="image", metavar="NAME")


def _anonymize(options: argparse.Namespace, tools: _Tools) -> None:
    out, report_path = Path(options.out), Path(options.report) if options.report else None
    _check_file(out, ".png", "--out", options.photo)
    if report_path is not None:
        _check_file(report_path, ".json", "--report", options.photo)
    from privacy_core.schema import check_strength

    strength = check_strength(options.strength)
    from privacy_core.faces import encode_png
    from privacy_core.report import variant_report

    opened = _open(options, tools)
    variant = opened.variant(strength)
    report = variant_report(
        variant,
        photo_notes=opened.photo.notes,
        curve=opened.backend.curve,
        measured=_measure(opened, [variant], tools)[0] if options.measure else None,
    )
    picture = encode_png(variant.image, digital_source_type=opened.backend.digital_source_type)
    files = [("--out", out, picture)]
    if report_path is not None:
        files.append(("--report", report_path, _as_json(report).encode()))
    _write_together(files)
    if options.json:
        print(_as_json({"out": str(out), **report}), end="")
    _say(f"Wrote {out}: {_summary(variant)} {_next_step(variant, report_path)}")


def _ladder(options: argparse.Namespace, tools: _Tools) -> None:
    out = Path(options.out)
    _check_new_folder(out)
    from privacy_core.anonymize import LADDER
    from privacy_core.faces import encode_png
    from privacy_core.report import ladder_report
    from privacy_core.schema import check_strength

    asked: Sequence[Any] = LADDER if options.strengths is None else _items([options.strengths])
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
    measured = _measure(opened, variants, tools) if options.measure else None
    report = ladder_report(
        named,
        photo_notes=opened.photo.notes,
        curve=opened.backend.curve,
        measured=None if measured is None else dict(zip(names, measured, strict=True)),
    )
    mark = opened.backend.digital_source_type
    files = {name: encode_png(v.image, digital_source_type=mark) for name, v in named.items()}
    files["contact.png"] = encode_png(_contact_sheet(variants), digital_source_type=mark)
    files["ladder.json"] = _as_json(report).encode()
    _write_folder(out, files)
    if options.json:
        print(_as_json({"out": str(out), **report}), end="")
    _say(f"Wrote {len(named)} variants to {out}. Compare them in {out / 'contact.png'}.")


def _backends(options: argparse.Namespace, _: _Tools) -> None:
    from privacy_core.backends import BACKENDS

    found = [
        {
            "name": name,
            "basis": "gaussian mechanism" if name == "embedded" else "measured only",
            "description": (make.__doc__ or "").strip().splitlines()[0],
        }
        for name, make in BACKENDS.items()
    ]
    if options.json:
        print(_as_json({"backends": found}), end="")
        return
    for entry in found:
        print(f"{entry['name']:<10}{entry['basis']:<20}{entry['description']}")
    _say(f"Next: {_PROGRAM} anonymize PHOTO --out OUT.png --backend NAME")


def _fit_model(options: argparse.Namespace, tools: _Tools) -> None:
    components, n_faces, seed = (
        _whole(getattr(options, name), f"--{name}", at_least=low)
        for name, low in (("components", 8), ("faces", 1), ("seed", 0))
    )
    rows = _rows(options)
    from privacy_core.diffusion.fit import FitConfig, fit_model
    from privacy_core.diffusion.fit_code import CodeFitConfig
    from privacy_core.diffusion.training import TrainingConfig

    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable("--out", out, error) from error
    config = FitConfig(
        code=CodeFitConfig(n_components=components, seed=seed),
        training=TrainingConfig(n_faces=n_faces, seed=seed),
    )
    fit_model(
        ({**row, "image": row[options.image_column]} for row in rows),
        len(rows),
        out,
        config=config,
        detector=tools.detector(),
        report=_Progress(),
        talk=_say,
        provenance={
            "command": f"`{_PROGRAM} fit-model DATA --out DIR --components {components} "
            f"--faces {n_faces} --seed {seed}`",
            "rows": str(len(rows)),
            "SHA-256 of the rows": rows.digest(),
        },
    )
    _say(f"Wrote the model to {out}. Next: {_PROGRAM} calibrate {options.data} --model {out}")


def _calibrate(options: argparse.Namespace, tools: _Tools) -> None:
    if options.backend != "embedded":
        raise InvalidArgumentError(
            f"`--backend` must be embedded, the one with a strength curve, got {options.backend!r}."
        )
    rows = _rows(options)
    from privacy_core.backends.embedded import MODEL_FOLDER
    from privacy_core.calibrate import calibrate_model, held_out, spread
    from privacy_core.diffusion.model import load_model, save_curve

    folder = Path(options.model) if options.model else MODEL_FOLDER
    model = load_model(folder, with_curve=False)
    n_faces = _whole(options.faces, "--faces", at_least=1)
    photos, people = spread(*held_out(rows, image_column=options.image_column), n_faces)
    curve = calibrate_model(
        model,
        photos,
        people,
        detector=tools.detector(),
        recogniser=tools.recogniser(),
        report=_Progress(),
    )
    save_curve(folder, curve)
    chosen = f" --model {folder}" if options.model else ""
    _say(
        f"Wrote the strength curve to {folder}. "
        f"Next: {_PROGRAM} anonymize PHOTO --out OUT.png{chosen}"
    )


def _rows(options: argparse.Namespace) -> RowSource:
    from privacy_core.dataset import read_dataset

    return read_dataset(
        options.data,
        image_column=options.image_column,
        revision=options.revision,
        split=options.split,
    )


def _open(options: argparse.Namespace, tools: _Tools) -> OpenPhoto:
    """Check what can be checked without weights, then load them and find the faces."""
    from privacy_core.anonymize import Anonymizer
    from privacy_core.faces import read_photo
    from privacy_core.noise import NoiseKey

    policy = _policy(options)
    seed = None if options.seed is None else _whole(options.seed, "--seed")
    photo = read_photo(options.photo)
    backend = _backend(options, tools)
    return Anonymizer(backend, tools.detector()).open(
        photo,
        key=NoiseKey.fresh() if seed is None else NoiseKey.from_seed(seed),
        policy=policy,
        solid_on_failure=options.solid_on_failure,
    )


def _backend(options: argparse.Namespace, tools: _Tools) -> Backend:
    if options.model is None:
        return tools.load_backend(options.backend)
    if options.backend != "embedded":
        raise InvalidArgumentError(
            f"`--model` must go with the backend embedded, got {options.backend!r}. Leave one out."
        )
    from privacy_core.backends.embedded import EmbeddedBackend

    return EmbeddedBackend.load(Path(options.model))


def _policy(options: argparse.Namespace) -> AttributePolicy:
    from privacy_core.schema import ATTRIBUTES, AttributePolicy

    wanted: dict[str, str] = {}
    for item in _items(options.set):
        name, equals, value = item.partition("=")
        if not equals or name in wanted:
            raise InvalidArgumentError(
                f"`--set` must give each attribute one value, as in eyeglasses=yes, got {item!r}."
            )
        wanted[name] = value
    keep, hide = tuple(_items(options.keep)), tuple(_items(options.hide))
    for argument, names in (("--keep", keep), ("--hide", hide), ("--set", tuple(wanted))):
        unknown = [name for name in names if name not in ATTRIBUTES]
        if unknown:
            raise InvalidArgumentError(
                f"`{argument}` must name attributes among {', '.join(ATTRIBUTES)}, got "
                f"{unknown[0]!r}."
            )
    return AttributePolicy(keep, hide, wanted)


def _items(lists: Sequence[str]) -> list[str]:
    return [item.strip() for items in lists for item in items.split(",")]


def _whole(value: str | int, argument: str, *, at_least: int | None = None) -> int:
    try:
        number = int(value)
    except ValueError:
        number = None
    if number is None or (at_least is not None and number < at_least):
        rule = "" if at_least is None else f" of at least {at_least}"
        raise InvalidArgumentError(
            f"`{argument}` must be a whole number{rule}, got {value!r}. Write it in digits."
        )
    return number


def _measure(
    opened: OpenPhoto, variants: Sequence[Variant], tools: _Tools
) -> list[dict[str, object]]:
    from privacy_core.report import identity_report

    recogniser, curve, pixels = tools.recogniser(), opened.backend.curve, opened.photo.pixels
    return [
        identity_report(pixels, variant, opened.faces, recogniser=recogniser, curve=curve)
        for variant in variants
    ]


def _summary(variant: Variant) -> str:
    faces = "1 face" if variant.n_faces == 1 else f"{variant.n_faces} faces"
    if not variant.protected:
        return f"{faces} NOT hidden ({variant.privacy.reason})."
    covered = f", {len(variant.covered)} of them covered" if variant.covered else ""
    return f"{faces} anonymized at strength {variant.strength:.2f}{covered}."


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


def _check_file(path: Path, suffix: str, argument: str, photo: str) -> None:
    """Refuse before any work what cannot or must not be written."""
    if path.suffix.lower() != suffix:
        raise InvalidArgumentError(f"`{argument}` must end in {suffix}, got {str(path)!r}.")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise OutputError(
            f"`{argument}` must be a file in a folder you can write to, got {str(path)!r}. "
            "Choose another place."
        )
    if path.exists() and Path(photo).exists() and path.samefile(photo):
        raise InvalidArgumentError(
            f"`{argument}` must not be the photo itself, got {str(path)!r}. Choose another name."
        )


def _check_new_folder(out: Path) -> None:
    if (out.exists() and not out.is_dir()) or not os.access(out.absolute().parent, os.W_OK):
        raise OutputError(
            f"`--out` must be a new folder in one you can write to, got {str(out)!r}. "
            "Choose another place."
        )
    if out.is_dir() and next(out.iterdir(), None) is not None:
        raise OutputError(
            f"`--out` must be a new or empty folder, got {str(out)!r} with files in it. "
            "Choose another name."
        )


def _write_together(files: Sequence[tuple[str, Path, bytes]]) -> None:
    """Write all files or none: each beside its place first, then all renamed."""
    token, argument, path = secrets.token_hex(4), "", Path()
    try:
        with contextlib.ExitStack() as undo:
            ready = []
            for argument, path, data in files:
                ready.append((argument, path, path.parent / f".{path.name}.{token}.part"))
                undo.callback(ready[-1][2].unlink, missing_ok=True)
                ready[-1][2].write_bytes(data)
            for argument, path, temporary in ready:  # noqa: B007  (the message names it)
                temporary.replace(path)
                undo.callback(path.unlink, missing_ok=True)
            undo.pop_all()
    except OSError as error:
        raise _unwritable(argument, path, error) from error


def _write_folder(out: Path, files: dict[str, bytes]) -> None:
    """Write a folder whole or not at all."""
    temporary = out.absolute().parent / f".{out.absolute().name}.{secrets.token_hex(4)}.part"
    try:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.replace(out)
    except OSError as error:
        raise _unwritable("--out", out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(argument: str, path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"`{argument}` must be in a place you can write to, got {str(path)!r} "
        f"({error.strerror or type(error).__name__}). Choose another place."
    )


class _Progress:
    """One bar per stage, on stderr."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make, self._stage = tqdm, ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self._stage, self._bar = stage, self._make(total=total, desc=stage, file=sys.stderr)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()


def _as_json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
