"""The audit of anonymization from end to end: observe, measure, tables, figure.

Knows the order of the stages and the folder; no command line. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from privacy_core.audit.anonymization.baselines import k_of, scale_of
from privacy_core.audit.anonymization.distances import Ints
from privacy_core.audit.anonymization.gather import Gathered, Gatherer, Report
from privacy_core.audit.anonymization.identity import Metrics, gallery_size
from privacy_core.audit.anonymization.instruments import Instruments
from privacy_core.audit.anonymization.learning import LearningConfig
from privacy_core.audit.anonymization.measures import Measurer, groups_of
from privacy_core.audit.anonymization.observe import faces_from_rows, open_photos
from privacy_core.audit.anonymization.order import order_of
from privacy_core.audit.anonymization.people import ChosenPhoto, digest_of
from privacy_core.audit.anonymization.plots import draw
from privacy_core.audit.anonymization.settings import (
    EMBEDDED,
    K_SAME,
    LAPLACE,
    AuditConfig,
    Setting,
    plain,
)
from privacy_core.audit.anonymization.summary import (
    at_equal_reidentification,
    default_strength,
    kept_share,
    usable_recognisers,
)
from privacy_core.audit.anonymization.tables import Json, as_plain, from_plain, markdown
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.crew import Crew
from privacy_core.errors import OutputError
from privacy_core.privacy import NOT_COVERED, epsilon_of, mu_of
from privacy_core.records import Records
from privacy_core.wholefile import whole_file

SCHEMA_VERSION = 1
NAME, WORK = "anonymization", "work"
_KNOWN = "originals"
LIMITS = (
    "The attacks are those listed; others may find more.",
    "Trained adversaries saw few people here; one with more people and time may find more.",
    "The mask covers the face: hair, clothes and background outside it are not protected.",
    "The code of a picture also reads the rim of M, where surroundings shine through: "
    "what `solid` gives away to the exact original comes from there.",
    "Landmarks of eyes, nose and mouth are a predictor's, on variants too.",
    "Faces are restored by a network on codes, and by an image-to-image network on 64 x 64 pixels "
    "that sees what the code tells of a variant; larger ones may restore more.",
)


@dataclass(frozen=True)
class AuditRequest:
    """What an audit works with.

    Attributes:
        photos: Part → photos, of `people.choose`.
        config: Settings, sizes, seed.
        embedded: The embedded backend.
        instruments: What measures.
        description: What tells these data from others, for the folder; no names of people.
        learning: How adversaries are trained.
    """

    photos: Mapping[str, Sequence[ChosenPhoto]]
    config: AuditConfig
    embedded: EmbeddedBackend
    instruments: Instruments
    description: Mapping[str, Any]
    learning: LearningConfig


def observe_only(request: AuditRequest, folder: Path, *, report: Report) -> None:
    """Help an audit of the same folder: make its missing chunks from the end, and no result."""
    records = Records(folder / WORK, _description(request))
    Gatherer(
        request.photos, request.config, request.embedded, request.instruments, records, report,
        backwards=True,
    ).gather()  # fmt: skip


def audit_anonymization(
    request: AuditRequest, folder: Path, *, report: Report, crew: Crew | None = None
) -> Json:
    """Run the audit and write `anonymization.json`, `.md` and `.png` into `folder`.

    Args:
        request: Photos, settings and instruments.
        folder: New, or of the same audit, which then goes on.
        report: Progress.
        crew: The processes that share the chunks and the settings; the first writes the result.

    Raises:
        InvalidArgumentError: The folder belongs to another audit, or no face is detected.
        OutputError: Something cannot be written.
    """
    started, crew = time.monotonic(), crew or Crew()
    torch.manual_seed(request.config.seed)
    records = Records(folder / WORK, _description(request), crew)
    gathered = Gatherer(
        request.photos, request.config, request.embedded, request.instruments, records, report,
        crew=crew,
    ).gather()  # fmt: skip
    measurer = Measurer(
        gathered, request.config, request.embedded, request.instruments.recogniser,
        _second_name(request), _Surroundings(request, gathered), request.learning,
    )  # fmt: skip
    kept = _measured(measurer, records, crew, report)
    if crew.is_first:
        known = kept.pop(_KNOWN)
        metrics = {name: from_plain(found) for name, found in kept.items()}
        result = _result(request, measurer, metrics, known) | {
            "seconds": {"this run": time.monotonic() - started}
        }
        write(folder, result)
    crew.wait()
    found: Json = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
    return found


def _measured(measurer: Measurer, records: Records, crew: Crew, report: Report) -> dict[str, Json]:
    """Return the plain metrics of every setting by its name, and what is known of originals."""
    # What takes longest comes first, so that processes end at about the same time.
    settings = sorted(measurer.config.settings, key=lambda setting: not setting.is_attacked)
    wanted: dict[str, tuple[str, Callable[[], Json]]] = {
        _KNOWN: (f"metrics of {_KNOWN}", partial(_known_metrics, measurer))
    }
    for setting in settings:
        make = partial(_plain_metrics, measurer, setting)
        wanted[setting.name] = f"metrics {setting.name}", make
    for place, kept in enumerate(wanted.values()):
        report("metrics", place, len(wanted))
        if crew.does(place):
            records.made_json(*kept)
    report("metrics", len(wanted), len(wanted))
    crew.wait()
    return {name: records.made_json(*kept) for name, kept in wanted.items()}


def write(folder: Path, result: Json) -> None:
    """Write the result as JSON, Markdown and PNG.

    Raises:
        OutputError: A file cannot be written.
    """
    files = {
        f"{NAME}.json": (json.dumps(result, indent=1, allow_nan=False) + "\n").encode(),
        f"{NAME}.md": markdown(result).encode(),
        f"{NAME}.png": draw(result),
    }
    try:
        for name, content in files.items():
            with whole_file(folder / name) as draft:
                draft.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"The folder {folder.name!r} cannot be written "
            f"({error.strerror or type(error).__name__}). Free space and run again."
        ) from error


def forget(folder: Path) -> None:
    """Remove what was kept to go on from: codes of real faces."""
    shutil.rmtree(folder / WORK, ignore_errors=True)


class _Surroundings:
    """Part, rows of it → frames of the photos with every face filled."""

    def __init__(self, request: AuditRequest, gathered: Gathered) -> None:
        self._request, self._originals = request, gathered.originals

    def __call__(self, part: str, rows: Ints) -> NDArray[np.uint8]:
        """Return (n, 128, 128, 3) frames."""
        known, frames = faces_from_rows(self._originals[part]["faces"]), []
        for place in self._originals[part]["place"][rows]:
            (opened,), _ = open_photos(
                self._request.photos[part][place : place + 1],
                int(place),
                self._request.embedded,
                self._request.instruments.detector,
                known=known,
            )
            frames.append(opened.photo.requests[0].context)
        return np.stack(frames)


def _second_name(request: AuditRequest) -> str | None:
    second = request.instruments.second
    return None if second is None else second.name


def _description(request: AuditRequest) -> dict[str, Any]:
    return {
        "config": request.config.digest(),
        "model": request.embedded.revision,
        "recogniser": request.instruments.recogniser.name,
        "second recogniser": _second_name(request),
        "photos": {part: digest_of(photos) for part, photos in request.photos.items()},
        **request.description,
    }


def _result(
    request: AuditRequest, measurer: Measurer, metrics: Mapping[str, Metrics], known: Json
) -> Json:
    config, galleries = request.config, measurer.galleries
    first = next(iter(galleries.values()))
    usable = usable_recognisers(galleries, from_plain(known["originals"]["recognisers"]))
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "anonymization audit",
        "model": request.embedded.name,
        "revision": request.embedded.revision,
        "n_faces": len(first.people),
        "n_people": len(np.unique(first.people)),
        "gallery": gallery_size(first),
        "failures": {part: dict(found) for part, found in measurer.gathered.failures.items()},
        "groups": groups_of(measurer.groups),
        "n_adversary": _n_rows(measurer, "adversary"),
        "recognisers": list(galleries),
        "usable_recognisers": list(usable),
        **known,
        "settings": [_setting(request, measurer, s, metrics[s.name]) for s in config.settings],
        "summary": as_plain(_summary(measurer, metrics, usable)),
        "config": config.as_json(),
        "limits": list(LIMITS),
        "not_covered": list(NOT_COVERED),
    }


def _summary(measurer: Measurer, metrics: Mapping[str, Metrics], usable: Sequence[str]) -> Metrics:
    settings, galleries = measurer.config.settings, measurer.galleries
    first = next(iter(galleries.values()))
    return {
        "default_strength": default_strength(
            settings, metrics, usable, n_people=len(np.unique(first.people))
        ),
        "order": {
            name: order_of(
                gallery.embeddings,
                {s.strength: measurer.embeddings(name, s) for s in plain(settings)},
            )
            for name, gallery in galleries.items()
        },
        "kept_over_reconstruction": kept_share(metrics, settings),
        "at_equal_reidentification": at_equal_reidentification(settings, metrics, first.recogniser),
    }


def _n_rows(measurer: Measurer, part: str) -> int:
    found = measurer.gathered.originals.get(part, {})
    return len(found["place"]) if "place" in found else 0


def _setting(request: AuditRequest, measurer: Measurer, setting: Setting, metrics: Metrics) -> Json:
    row: Json = {
        "name": setting.name,
        "method": setting.method,
        "strength": setting.strength,
        "policy": setting.policy_name,
    }
    if setting.method == K_SAME:
        row["k"] = k_of(setting.strength)
    if setting.method == LAPLACE:
        row["scale"] = scale_of(setting.strength)
    if setting.method == EMBEDDED:
        row |= _guarantee(request, measurer, setting)
    plain_metrics: Json = as_plain(metrics)
    return row | plain_metrics


def _guarantee(request: AuditRequest, measurer: Measurer, setting: Setting) -> Json:
    """Return σ, μ and ε; null where there is none, with the reason."""
    radius = request.embedded.radius_of(setting.policy)
    sigma = measurer.sigma_of(setting)
    if sigma == 0:
        return {"sigma": 0.0, "mu": None, "epsilon": None, "reason": "strength 0 adds no noise"}
    mu = mu_of(sigma, radius)
    found: Json = {"sigma": None if math.isinf(sigma) else sigma, "mu": mu}
    if request.config.repeatable:
        return found | {"epsilon": None, "reason": "noise not secret"}
    return found | {"epsilon": epsilon_of(mu)}


def _plain_metrics(measurer: Measurer, setting: Setting) -> Json:
    found: Json = as_plain(measurer.of_setting(setting))
    return found


def _known_metrics(measurer: Measurer) -> Json:
    """Return what is found on the originals themselves, and from their surroundings alone."""
    found = measurer.of_originals()
    apart = {name: found.pop(name) for name in ("context_alone", "order")}
    known: Json = as_plain({"originals": found, **apart})
    return known
