"""What a run of the loop leaves: the unlearned model and its evidence, in memory, as files.

Reads the folder that `unlearn` and `audit` wrote; knows no page.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.hub import publish
from privacy_core.unlearning_report import model_card

ARCHIVE = "privacy-dial-model.zip"
_NAME = "privacy-dial/unlearned"
_MOST_BYTES = 32_000_000
_DAY_ONE = (1980, 1, 1, 0, 0, 0)
"""As far back as an archive can date; it tells nothing."""

Publisher = Callable[[Path], str]
"""Sends a model folder to the Hub and returns where it is now."""


@dataclass(frozen=True)
class Evidence:
    """A model folder in memory.

    Attributes:
        audit: `audit.json`.
        files: Path below the folder → content, the card included.
    """

    audit: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def has_passed(self) -> bool:
        """Whether the gate let it through."""
        return bool(self.audit["gate"]["passed"])

    def picture(self, name: str) -> bytes | None:
        """Return a plot as SVG, None where the audit drew none of that name."""
        return self.files.get(f"plots/{name}.svg")

    def archive(self) -> bytes:
        """Return all files as one ZIP, the same bytes each time."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(self.files):
                archive.writestr(zipfile.ZipInfo(name, _DAY_ONE), self.files[name])
        return buffer.getvalue()

    def publish(self, publisher: Publisher) -> str:
        """Publish the folder and return what the publisher says.

        Raises:
            InvalidArgumentError: The gate failed.
        """
        if not self.has_passed:
            raise InvalidArgumentError(
                "The model must pass the gate to be published, got one that did not. Change the "
                "settings and run the loop again."
            )
        with tempfile.TemporaryDirectory(prefix="privacy-dial-publish-") as place:
            for name, content in self.files.items():
                path = Path(place) / "model" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            # Publishing writes a card of its own, under the repository's name.
            (Path(place) / "model" / "README.md").unlink(missing_ok=True)
            return publisher(Path(place) / "model")


def read_evidence(folder: Path) -> Evidence:
    """Read a model folder and write its card.

    Raises:
        ModelError: It is too large to be held here.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if (n_bytes := sum(path.stat().st_size for path in paths)) > _MOST_BYTES:
        raise ModelError(
            f"A model folder may have {_MOST_BYTES:,} bytes here, got {n_bytes:,}. Run the loop "
            "from the command line."
        )
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    values = {
        name: json.loads(files[f"{name}.json"])
        for name in ("config", "training", "certificate", "audit")
    }
    plots = [name for name in files if name.endswith(".png")]
    card = model_card(_NAME, **values, licence="other", plots=plots)
    return Evidence(values["audit"], {**files, "README.md": card.encode()})


def open_publisher(
    repo_id: str | None, *, token: str | None, endpoint: str | None = None
) -> tuple[Publisher | None, str]:
    """Return what publishes models, or None and why this app does not.

    Args:
        repo_id: NAME/REPO that models go to; only an operator names one, as visitors share it.
        token: With the right to write there.
        endpoint: Of another Hub.
    """
    instead = (
        "Download the folder instead, and send it yourself: "
        "`python -m privacy_core publish FOLDER --repo-id NAME/REPO`."
    )
    for name, value in (("HF_TOKEN", token), ("PRIVACY_DIAL_MODELS", repo_id)):
        if value is None:
            return None, f"this app was started without `{name}`. {instead}"

    def send(folder: Path) -> str:
        from huggingface_hub import HfApi  # noqa: PLC0415 - only publishing needs it

        sent = publish(folder, repo_id=str(repo_id), client=HfApi(endpoint=endpoint, token=token))
        return f"**Published** as {sent.repo_id}, revision {sent.revision[:12]}; it is private."

    return send, ""
