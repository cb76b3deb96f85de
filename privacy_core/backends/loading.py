"""NAME@SHA → a loaded backend: licence, download, device, stored curve, in this order.

Knows who does each of these, and does none of them itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from privacy_core.backends import curves
from privacy_core.backends.registry import HUB_MODELS, HubModel, chosen

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from privacy_core.backends.device import Machine
    from privacy_core.backends.inpainting import Decorate, InpaintingBackend, Report
    from privacy_core.recognition import Recogniser


@dataclass(frozen=True)
class HubTools:
    """What a model of the Hub is loaded and run with; what is None is made when needed.

    Attributes:
        client: Asks the Hub; the usual client, with the usual token, when None.
        cache: Folder of the Hub's cache, its usual place when None.
        curves: Folder of the stored curves.
        machine: What to run on; the best device there is when None.
        recogniser: Measures faces and repairs what is too like; nothing is measured when None.
        report: Progress.
        decorate: Wraps the one heavy call per ladder, for machines that lend their GPU by call.
        models: The table.
    """

    client: HfApi | None = field(default=None, repr=False)
    cache: Path | None = None
    curves: Path = curves.CURVES
    machine: Machine | None = None
    recogniser: Recogniser | None = field(default=None, repr=False)
    report: Report | None = field(default=None, repr=False)
    decorate: Decorate | None = field(default=None, repr=False)
    models: Mapping[str, HubModel] = field(default_factory=lambda: HUB_MODELS, repr=False)


def load_inpainting(
    name: str, *, accept_licence: bool = False, tools: HubTools | None = None
) -> InpaintingBackend:
    """Download (once), load and return a backend.

    Args:
        name: NAME@SHA (with an adapter NAME@SHA+SHA), or NAME where the table pins a commit.
        accept_licence: The user agreed to a licence that limits use.
        tools: Collaborators.

    Raises:
        InvalidArgumentError: The name, its licence or its commit.
        ModelError: The model cannot be had, does not fit the device, or is damaged.
    """
    tools = tools or HubTools()
    model, revision = chosen(name, accept_licence=accept_licence, models=tools.models)
    # Seconds of imports that a refusal above must not wait for.
    from huggingface_hub import HfApi  # noqa: PLC0415

    from privacy_core.backends.device import Machine, place  # noqa: PLC0415
    from privacy_core.backends.download import fetch  # noqa: PLC0415
    from privacy_core.backends.inpainting import InpaintingBackend  # noqa: PLC0415
    from privacy_core.backends.painter import load_painter  # noqa: PLC0415

    # Before gigabytes are downloaded for a device that cannot hold them.
    placement = place(tools.machine or Machine.here(), model.memory_gb, name=model.name)
    curve = curves.load(tools.curves, model, revision)
    client = tools.client or HfApi()
    commit, _, adapter_commit = revision.partition("+")
    folder = fetch(model.repo_id, commit, client=client, cache=tools.cache)
    adapter = _adapter(model, adapter_commit, client, tools.cache)
    return InpaintingBackend(
        load_painter(model, folder, placement, adapter=adapter),
        revision,
        curve=curve,
        curves=tools.curves,
        recogniser=tools.recogniser,
        report=tools.report,
        decorate=tools.decorate,
    )


def _adapter(model: HubModel, commit: str, client: HfApi, cache: Path | None) -> Path | None:
    from privacy_core.backends.download import fetch_file  # noqa: PLC0415

    if model.adapter is None:
        return None
    return fetch_file(model.adapter.repo_id, model.adapter.file, commit, client=client, cache=cache)
