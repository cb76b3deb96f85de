"""One model of the Hub at one commit → a local folder: safetensors and configuration only.

Knows the Hub's client, which is given, and what may go wrong on the way; loads no model.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privacy_core.errors import ModelError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

INDEX = "model_index.json"
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Components that inpainting a face does without."""
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?"
)
_WHOLE = {"diffusion_pytorch_model.safetensors", "model.safetensors"}
_SETTINGS = re.compile(r"[^/]+\.(json|txt|model|jinja)")
_MISSING, _NO_RIGHTS = (404, 410), (401, 403)


def fetch(repo_id: str, revision: str, *, client: HfApi, cache: Path | None = None) -> Path:
    """Return the folder of a model; files in the cache are not downloaded again.

    A whole model in the cache is used even where the Hub cannot be reached or no longer has it.

    Args:
        repo_id: NAME/REPO.
        revision: A full commit.
        client: The Hub's client; it holds the token.
        cache: Folder of the Hub's cache, its usual place when None.

    Raises:
        ModelError: The model is missing, closed, not as safetensors, larger than the disk, or the
            Hub cannot be reached. Each says what to do.
    """
    import httpx2  # noqa: PLC0415  (the client's own HTTP library: its errors are no OSErrors)

    with _asking(repo_id, revision):
        index = client.hf_hub_download(repo_id, INDEX, revision=revision, cache_dir=cache)
        components = wanted(json.loads(Path(index).read_text()))
        folder = Path(index).parent
        try:
            info = client.model_info(repo_id, revision=revision, files_metadata=True)
        except (OSError, httpx2.HTTPError):
            if _looks_complete(folder, components):
                return folder
            raise
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or () if _is_used(s.rfilename)}
        files = [name for name in sizes if name.partition("/")[0] in components]
        _check_weights(repo_id, components, files)
        missing = [name for name in files if not (folder / name).exists()]
        _check_room(folder, sum(sizes[name] for name in missing))
        if missing:
            client.snapshot_download(
                repo_id, revision=revision, cache_dir=cache, allow_patterns=missing
            )
        return folder


def fetch_file(
    repo_id: str, file: str, revision: str, *, client: HfApi, cache: Path | None = None
) -> Path:
    """Return one file of a repository; see `fetch`."""
    with _asking(repo_id, revision):
        return Path(client.hf_hub_download(repo_id, file, revision=revision, cache_dir=cache))


def wanted(index: Any) -> dict[str, str]:
    """Return the components of a pipeline that are needed → their class.

    Raises:
        ModelError: It is no index of a pipeline.
    """
    try:
        named = {
            name: str(value[1])
            for name, value in index.items()
            if isinstance(value, list) and value[1] is not None and name not in LEFT_OUT
        }
    except (AttributeError, IndexError, TypeError):
        named = {}
    if not named:
        raise ModelError(
            f"`backend` must be a pipeline whose {INDEX} names its components, got one that names "
            "none. Choose another commit."
        )
    return named


def _is_used(file: str) -> bool:
    folder, slash, name = file.partition("/")
    return bool(folder and slash and "/" not in name) and bool(
        _WEIGHTS.fullmatch(name) or (_SETTINGS.fullmatch(name) and ".safetensors." not in name)
    )


def _has_weights(component: str) -> bool:
    return not component.startswith(("scheduler", "tokenizer", "processor"))


def _looks_complete(folder: Path, components: dict[str, str]) -> bool:
    """Return whether an earlier download seems finished: every component, every shard."""
    for component in components:
        names = {path.name for path in (folder / component).glob("*")}
        if not names:
            return False
        if not _has_weights(component):
            continue
        listed = [name for name in names if name.endswith(".safetensors.index.json")]
        if listed:
            shards = json.loads((folder / component / listed[0]).read_text())["weight_map"]
            if not set(shards.values()) <= names:
                return False
        elif not names & _WHOLE:
            return False
    return True


def _check_weights(repo_id: str, components: dict[str, str], files: list[str]) -> None:
    found = {name.partition("/")[0] for name in files if name.endswith(".safetensors")}
    for component in components:
        if _has_weights(component) and component not in found:
            raise ModelError(
                f"The model {repo_id} must hold the weights of {component} as safetensors, found "
                "none. Other formats can run code of strangers and are not loaded; choose another "
                "commit."
            )


def _check_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise _no_room(n_bytes / 1e9, free / 1e9)


def _no_room(needed_gb: float | None, free_gb: float | None) -> ModelError:
    needed = "" if needed_gb is None else f" of {needed_gb:.1f} GB"
    free = "none" if free_gb is None else f"{free_gb:.1f} GB"
    return ModelError(
        f"The model's download{needed} must fit on the disk of the Hub's cache, got {free} free. "
        "Make room, or set HF_HOME to a folder on a larger disk."
    )


@contextlib.contextmanager
def _asking(repo_id: str, revision: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence with a way out."""
    import httpx2  # noqa: PLC0415

    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise _explained(error, repo_id, revision) from error


def _explained(error: Exception, repo_id: str, revision: str) -> ModelError:
    from huggingface_hub import errors  # noqa: PLC0415

    page = f"https://huggingface.co/{repo_id}"
    # The first that fits: some of these are kinds of others.
    known: tuple[tuple[type[Exception], str], ...] = (
        (
            errors.GatedRepoError,
            f"is gated. Agree to its terms at {page}, then log in by `hf auth login` or set "
            "HF_TOKEN.",
        ),
        (
            errors.RepositoryNotFoundError,
            "was not found on the Hub: it is gone, renamed, or private. Take another backend, or "
            "set HF_TOKEN to a token that may read it.",
        ),
        (
            errors.RevisionNotFoundError,
            f"has no commit {revision}. Take one from {page}/commits/main.",
        ),
        (
            errors.RemoteEntryNotFoundError,
            f"lacks a file of a pipeline at commit {revision}. Take another commit from "
            f"{page}/commits/main.",
        ),
    )
    for kind, message in known:
        if isinstance(error, kind):
            return ModelError(f"The model {repo_id} {message}")
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(repo_id, error)
    if isinstance(error, ValueError):
        return ModelError(
            f"The model {repo_id} has a damaged {INDEX} or list of weights. Take another commit."
        )
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | ConnectionError):
        return _disk(repo_id, error)
    return _unreachable(repo_id, error)


def _unreachable(repo_id: str, error: Exception) -> ModelError:
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
        return _no_room(None, None)
    return ModelError(
        f"The model {repo_id} is not in the Hub's cache and the Hub cannot be reached. Connect "
        "once, or take the backend embedded, which needs no download."
    )


def _refused(repo_id: str, error: Any) -> ModelError:
    status = getattr(error.response, "status_code", None)
    if status in _NO_RIGHTS:
        way_out = "Log in by `hf auth login`, or set HF_TOKEN to a token that may read it."
    elif status in _MISSING:
        way_out = "It is gone, renamed, or private; take another backend."
    else:
        way_out = "Try again later."
    return ModelError(f"The Hub did not give the model {repo_id} (HTTP {status}). {way_out}")


def _disk(repo_id: str, error: OSError) -> ModelError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _no_room(None, None)
    return ModelError(
        f"The model {repo_id} could not be downloaded ({error.strerror or type(error).__name__}). "
        "Check the connection and the folder of the Hub's cache (HF_HOME), then try again."
    )
