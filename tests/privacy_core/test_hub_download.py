"""Downloads of models: only what is needed and safe, once, and a way out where it fails."""

import json
import shutil
import types

import pytest
from huggingface_hub import HfApi

from privacy_core.backends.download import fetch
from privacy_core.errors import ModelError
from tests.hub_server import HubServer

REPO = "anna/painter"
TOKEN = "hf_anna"  # noqa: S105  (of a Hub that lives for these tests)
INDEX = {
    "_class_name": "StableDiffusionInpaintPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
}
FILES = {
    "model_index.json": json.dumps(INDEX).encode(),
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors": b"1" * 100,
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors": b"2" * 100,
    "unet/diffusion_pytorch_model.safetensors.index.json": json.dumps(
        {
            "weight_map": {
                "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
                "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
            }
        }
    ).encode(),
    "text_encoder/model.safetensors": b"3" * 100,
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
}
UNNEEDED = {
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"4" * 100,
    "unet/modeling.py": b"raise SystemExit",
    "text_encoder/model.ckpt": b"pickle",
    "safety_checker/model.safetensors": b"5" * 100,
    "sd-v1-5-inpainting.safetensors": b"6" * 100,
    "README.md": b"",
}


@pytest.fixture
def hub(monkeypatch):
    # The client's own waits between attempts.
    clock = types.SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with HubServer() as server:
        server.add_user("anna", TOKEN)
        server.add_user("ben", "hf_ben")
        server.add_repo(REPO, "model").write(FILES | UNNEEDED)
        yield server


@pytest.fixture
def get(hub, tmp_path):
    def get_model(token=TOKEN, revision=None, repo=REPO):
        client = HfApi(endpoint=hub.endpoint, token=token)
        revision = revision or hub.repo(REPO, "model").head.id
        return fetch(repo, revision, client=client, cache=tmp_path / "cache")

    return get_model


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal_of(get, **arguments):
    with pytest.raises(ModelError) as error:
        get(**arguments)
    return str(error.value)


def test_only_safetensors_and_settings_of_needed_components_are_downloaded(get):
    assert files_of(get()) == FILES


def test_what_is_there_is_not_downloaded_again_and_serves_without_the_hub(get, hub):
    folder, revision = get(), hub.repo(REPO, "model").head.id
    downloads = len(hub.requests("resolve"))
    assert get() == folder
    hub.fail("any", "close", count=99)
    assert get() == folder
    hub.calm()
    del hub.repos["model", REPO]
    assert get(revision=revision) == folder
    assert len(hub.requests("resolve")) == downloads


@pytest.mark.parametrize("file", sorted(name for name in FILES if "safetensors" in name))
def test_half_a_model_in_the_cache_is_no_model_without_the_hub(get, hub, file):
    (get() / file).unlink()
    hub.fail("any", "close", count=99)
    assert "cannot be reached" in refusal_of(get)


@pytest.mark.parametrize("file", sorted(FILES))
def test_a_download_that_was_broken_off_is_finished(get, file):
    folder = get()
    (folder / file).unlink()
    assert files_of(get()) == FILES


def test_a_download_that_breaks_off_is_refused_and_goes_on_the_next_time(get, hub):
    hub.fail("resolve", "500", method="GET", skip=3, count=99)
    assert "Try again later" in refusal_of(get)
    hub.calm()
    assert files_of(get()) == FILES


def test_a_model_that_is_gone_is_refused_with_a_way_out(get):
    message = refusal_of(get, repo="anna/nothing")
    assert "anna/nothing was not found" in message
    assert "another backend" in message


def test_a_private_model_is_refused_to_others_and_names_the_token(get):
    assert "HF_TOKEN" in refusal_of(get, token="hf_ben")  # noqa: S106
    assert "HF_TOKEN" in refusal_of(get, token=False)


def test_a_token_that_expired_is_refused(get, hub):
    hub.revoke(TOKEN)
    assert "HF_TOKEN" in refusal_of(get)


def test_a_gated_model_is_refused_with_its_page(get, hub):
    hub.fail("resolve", "403", code="GatedRepo", count=9)
    message = refusal_of(get)
    assert "gated" in message
    assert f"https://huggingface.co/{REPO}" in message


def test_an_unknown_commit_is_refused(get):
    assert f"has no commit {'0' * 40}" in refusal_of(get, revision="0" * 40)


def test_a_repository_without_a_pipeline_is_refused(get, hub):
    hub.add_repo("anna/other", "model").write({"README.md": b""})
    revision = hub.repo("anna/other", "model").head.id
    message = refusal_of(get, repo="anna/other", revision=revision)
    assert "lacks a file of a pipeline" in message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_named_as_such(get, hub, status):
    hub.fail("info", str(status), count=99)
    assert f"HTTP {status}" in refusal_of(get)


def test_without_a_connection_the_way_out_is_the_embedded_backend(get, hub):
    hub.fail("any", "close", count=99)
    message = refusal_of(get)
    assert "cannot be reached" in message
    assert "embedded" in message
    hub.calm()
    hub.fail("info", "close", count=99)
    assert "cannot be reached" in refusal_of(get)


def test_weights_that_could_run_code_are_not_taken(get, hub):
    files = FILES | UNNEEDED | {"text_encoder/model.bin": b"pickle"}
    del files["text_encoder/model.safetensors"]
    hub.add_repo(REPO, "model").write(files)
    message = refusal_of(get)
    assert "text_encoder as safetensors" in message


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"unet": []}', '{"unet": [null, null]}'])
def test_a_damaged_index_is_refused(get, hub, index):
    hub.repo(REPO, "model").write({"model_index.json": index.encode()})
    assert "commit" in refusal_of(get)


@pytest.mark.filterwarnings("ignore:Not enough free disk space:UserWarning")
def test_a_disk_too_small_is_noticed_before_the_download(get, hub, monkeypatch):
    free = types.SimpleNamespace(free=350)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    message = refusal_of(get)
    assert "HF_HOME" in message
    assert not [r for r in hub.requests("resolve", "GET") if "safetensors" in r.path]


def test_a_disk_that_fills_up_is_named_as_such(get, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HfApi, "snapshot_download", full)
    assert "Make room" in refusal_of(get)
    monkeypatch.setattr(
        HfApi, "snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "I/O error"))
    )
    assert "I/O error" in refusal_of(get)
