"""Publishing to the test Hub with the real client: what is refused, one commit, loaded back."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi

from privacy_core.audit.protocol import audit
from privacy_core.audit.request import AuditRequest, AuditSettings, StandIn
from privacy_core.audit.shadows import Request
from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.hub import is_repo_id, publish
from privacy_core.unlearning.base import UnlearnRequest
from privacy_core.unlearning.certificate import certify, new_salt, row_tokens
from privacy_core.unlearning.loading import load_target
from privacy_core.unlearning.run import unlearn
from privacy_core.unlearning.targets import save_target, write_json
from tests.hub_server import HubServer
from tests.privacy_core.tiny_targets import (
    FlatBackbone,
    blobs,
    pictures,
    revise,
    tiny_head,
    trained_network,
)

REPO = "anna/unlearned"
REFUSED_NAMES = ["me/my--model", "me/a..b", "me/x.git", "me/abc-", "me/abc.", "me-/x"]
"""What the Hub's client raises a ValueError for."""
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def hub():
    with HubServer() as hub:
        hub.add_user("anna", "hf_anna")
        hub.add_user("anna", "hf_anna_read", role="read")
        hub.add_user("ben", "hf_ben")
        yield hub


@cache
def _made(kind, passed):
    torch.set_num_threads(1)
    if kind == "network":
        original, rows, method = trained_network(), pictures(), "finetune-restart"
    else:
        rows = blobs(60)
        original, method = tiny_head(rows), "newton-head"
    revised = revise(rows, 12)
    result = unlearn(UnlearnRequest(original, revised, method))
    request = AuditRequest(
        result.model, original, Request(original, rows, revised, np.arange(len(rows)) // 4, method),
        provenance={"dataset": "someone/faces", "preferences_sha256": "ab"},
    )  # fmt: skip
    found = audit(request, AuditSettings(n_models=0), shadow_folder=None, hardware="a test")
    return original, result, found, passed


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "m2")


def make(folder, *, kind="head", passed=True, audited=True, original="o1"):
    """Write a whole model folder, its gate as the test wants it."""
    _, result, found, _ = _made(kind, passed)
    save_target(result.model, folder)
    if audited:
        values = dict(found.values)
        values["gate"] = found.gate.as_json() | (
            {"passed": True, "reasons": []} if passed else {"passed": False}
        )
        found.write(folder)
        write_json(folder / "audit.json", values)
    certify(
        folder, original={"weights": original, "data": "d"}, revised={"data": "r"},
        update=result.as_json(), rows=row_tokens(new_salt(), range(12)),
    )  # fmt: skip
    return folder


def client_of(hub, token="hf_anna"):  # noqa: S107
    return HfApi(endpoint=hub.endpoint, token=token)


@pytest.fixture
def name():
    return f"anna/model-{next(_NUMBERS)}"


def commits(hub, name):
    return len(client_of(hub).list_repo_commits(name))


# --- What is published -----------------------------------------------------------------------


def test_a_model_and_its_evidence_are_one_private_commit(hub, folder, name):
    found = publish(folder, repo_id=name, client=client_of(hub))
    repo = hub.repo(name, kind="model")
    assert commits(hub, name) == 2  # the Hub's own first one, and ours
    assert found.revision == repo.head.id
    assert found.is_new
    assert client_of(hub).model_info(name).private
    sent = set(client_of(hub).list_repo_files(name)) - {".gitattributes"}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert sent == there | {"README.md"}
    for path in there:
        assert repo.read(path) == (folder / path).read_bytes()


def test_the_same_folder_twice_is_one_commit(hub, folder, name):
    first = publish(folder, repo_id=name, client=client_of(hub))
    again = publish(folder, repo_id=name, client=client_of(hub))
    assert (again.revision, again.is_new) == (first.revision, False)
    assert commits(hub, name) == 2


@pytest.mark.parametrize("kind", ["500", "500-after", "close-after"])
def test_a_failed_upload_can_be_repeated(hub, folder, name, kind):
    hub.fail("commit", kind)
    with pytest.raises(OutputError, match=r"[Pp]ublish again"):
        publish(folder, repo_id=name, client=client_of(hub))
    found = publish(folder, repo_id=name, client=client_of(hub))
    assert commits(hub, name) == 2
    assert found.is_new == (kind == "500")
    assert "certificate.json" in client_of(hub).list_repo_files(name)


def test_a_later_revision_replaces_files_and_removes_what_is_gone(hub, tmp_path, name):
    publish(make(tmp_path / "a"), repo_id=name, client=client_of(hub))
    later = make(tmp_path / "b", audited=False)
    found = publish(later, repo_id=name, client=client_of(hub), force=True)
    assert found.is_new
    files = set(client_of(hub).list_repo_files(name))
    assert "audit.json" not in files
    assert not any(path.startswith("plots/") for path in files)
    assert commits(hub, name) == 3


def test_what_is_not_certified_is_not_sent(hub, folder, name):
    (folder / "plots" / "notes.txt").write_text("private")
    (folder / ".hidden").write_text("private")
    publish(folder, repo_id=name, client=client_of(hub))
    assert not {"plots/notes.txt", ".hidden"} & set(client_of(hub).list_repo_files(name))


def test_public_only_when_asked_and_only_once_it_is_whole(hub, folder, name):
    hub.fail("commit", "500")
    with pytest.raises(OutputError):
        publish(folder, repo_id=name, client=client_of(hub), public=True)
    assert client_of(hub).model_info(name).private
    assert publish(folder, repo_id=name, client=client_of(hub), public=True).is_public
    assert not client_of(hub).model_info(name).private


def test_a_network_is_loaded_back_with_from_pretrained(hub, tmp_path, name):
    from transformers import AutoModelForImageClassification

    folder = make(tmp_path / "net", kind="network")
    found = publish(folder, repo_id=name, client=client_of(hub))
    local = client_of(hub).snapshot_download(
        name, revision=found.revision, local_dir=tmp_path / "back"
    )
    images = pictures().images[:4]
    loaded = AutoModelForImageClassification.from_pretrained(local).eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.inference_mode():
        logits = loaded(pixels).logits.double().numpy()
    expected = _made("network", True)[1].model.logits(images)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    card = (tmp_path / "back" / "README.md").read_text()
    assert f'AutoModelForImageClassification.from_pretrained("{name}")' in card
    assert front_matter(card)["library_name"] == "transformers"


def test_a_head_is_loaded_back_whole(hub, folder, name, tmp_path):
    found = publish(folder, repo_id=name, client=client_of(hub))
    place = tmp_path / "back"
    client_of(hub).snapshot_download(name, revision=found.revision, local_dir=place)
    loaded = load_target(place, backbone_of=lambda _name: FlatBackbone())
    expected = _made("head", True)[1].model
    np.testing.assert_array_equal(loaded.logits(blobs(8).images), expected.logits(blobs(8).images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("head", "assert weights.shape == (3, 13)"),
        ("network", "assert model.config.num_labels == 2 and processor.size['height'] == 8"),
    ],
)
def test_the_three_lines_of_the_card_load_the_model(hub, tmp_path, name, kind, check):
    publish(make(tmp_path / "m", kind=kind), repo_id=name, client=client_of(hub))
    code = card_of(hub, name).split("```python")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 3
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_anna", "HF_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", code + check], check=True, env=environment)


# --- The card --------------------------------------------------------------------------------


def front_matter(card):
    return yaml.safe_load(card.split("---")[1])


def card_of(hub, name):
    return hub.repo(name, kind="model").read("README.md").decode()


def test_the_card_has_a_model_index_and_says_what_is_not_claimed(hub, folder, name):
    publish(folder, repo_id=name, client=client_of(hub), licence="mit")
    card = card_of(hub, name)
    head = front_matter(card)
    assert head["license"] == "mit"
    assert head["datasets"] == ["someone/faces"]
    results = head["model-index"][0]["results"]
    metrics = {m["name"] for result in results for m in result["metrics"]}
    assert {"Accuracy, retain rows", "Accuracy, revised rows"} <= metrics
    for mention in (
        "Rectification with evidence, not erasure",
        "passed the gate",
        "newton-head",
        "load_file",
        "preferences sha256: ab",
        "plots/accuracy.png",
    ):
        assert mention in card
    assert "None" not in card
    assert "nan" not in card.lower().split()


def test_a_card_of_a_forced_model_says_so(hub, tmp_path, name):
    folder = make(tmp_path / "failed", passed=False)
    publish(folder, repo_id=name, client=client_of(hub), force=True)
    card = card_of(hub, name)
    assert "did not pass the gate for release; by force only is it published" in card
    assert "per-example attack AUC was not measured" in card


def test_a_card_without_an_audit_says_so(hub, tmp_path, name):
    folder = make(tmp_path / "bare", audited=False)
    publish(folder, repo_id=name, client=client_of(hub), force=True)
    card = card_of(hub, name)
    assert "This model was not audited." in card
    assert "model-index" not in front_matter(card)


def test_a_card_of_a_stand_in_says_that_the_originals_were_erased_first(hub, tmp_path, name):
    folder = make(tmp_path / "erased")
    values = json.loads((folder / "audit.json").read_text())
    stand_in = StandIn({}, 8, 2, 9).as_json()
    write_json(folder / "audit.json", values | {"stand_in": stand_in})
    body = json.loads((folder / "certificate.json").read_text())
    certify(
        folder, original=body["original"], revised=body["revised"], update=body["update"],
        rows=body["rows"]["hmac"], batch={"name": "1-abc", "requests": 2},
    )  # fmt: skip
    publish(folder, repo_id=name, client=client_of(hub))
    card = card_of(hub, name)
    assert "**The originals were erased before the audit" in card
    assert "8 rows of 2 people; 9 rows were asked for" in card
    assert "Batch of requests: 1-abc, 2 in all." in card


# --- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "reason"), [
    ({"passed": False}, "was not measured"), ({"audited": False}, "It was not audited."),
])  # fmt: skip
def test_a_model_that_failed_the_gate_is_not_published(hub, tmp_path, name, options, reason):
    folder = make(tmp_path / "m", **options)
    with pytest.raises(InvalidArgumentError, match="must have passed the gate") as caught:
        publish(folder, repo_id=name, client=client_of(hub))
    assert reason in str(caught.value)
    assert not client_of(hub).repo_exists(name)


@pytest.mark.parametrize("force", [False, True])
def test_an_edited_audit_is_never_published(hub, folder, name, force):
    values = json.loads((folder / "audit.json").read_text())
    values["gate"]["reasons"] = []
    write_json(folder / "audit.json", values | {"hardware": "better"})
    with pytest.raises(ModelError, match="does not fit its certificate"):
        publish(folder, repo_id=name, client=client_of(hub), force=force)
    assert not client_of(hub).repo_exists(name)


def test_a_folder_without_a_certificate_is_no_release(hub, folder, name):
    (folder / "certificate.json").unlink()
    with pytest.raises(ModelError, match="certificate"):
        publish(folder, repo_id=name, client=client_of(hub), force=True)


def test_a_repository_with_another_model_is_left_alone(hub, tmp_path, name):
    publish(make(tmp_path / "a"), repo_id=name, client=client_of(hub))
    before = hub.repo(name, kind="model").head.id
    with pytest.raises(InvalidArgumentError, match="holds something else"):
        publish(
            make(tmp_path / "b", original="o2"), repo_id=name, client=client_of(hub), force=True
        )
    assert hub.repo(name, kind="model").head.id == before


def test_a_repository_with_files_of_ours_not_is_left_alone(hub, folder, name):
    client_of(hub).create_repo(name, private=True)
    hub.repo(name, kind="model").write({"model.safetensors": b"someone's"})
    with pytest.raises(InvalidArgumentError, match="holds something else"):
        publish(folder, repo_id=name, client=client_of(hub))
    assert hub.repo(name, kind="model").read("model.safetensors") == b"someone's"


def test_a_public_repository_needs_public(hub, folder, name):
    client_of(hub).create_repo(name, private=False)
    with pytest.raises(InvalidArgumentError, match="everybody can read"):
        publish(folder, repo_id=name, client=client_of(hub))
    assert commits(hub, name) == 1


@pytest.mark.parametrize("token", ["hf_ben", "hf_anna_read", "hf_nobody"])
def test_a_token_without_rights_is_said_plainly(hub, folder, name, token):
    with pytest.raises(OutputError) as caught:
        publish(folder, repo_id=name, client=client_of(hub, token))
    message = str(caught.value)
    assert "right to write" in message
    assert token not in message
    assert "http" not in message


def test_a_repository_changed_meanwhile_is_not_overwritten(hub, folder, name, monkeypatch):
    client = client_of(hub)
    client.create_repo(name, private=True)
    real = client.create_commit

    def late(*arguments, **named):
        hub.repo(name, kind="model").write({"other.txt": b"meanwhile"})
        return real(*arguments, **named)

    monkeypatch.setattr(client, "create_commit", late)
    with pytest.raises(OutputError, match="changed while publishing"):
        publish(folder, repo_id=name, client=client)


def test_a_hub_that_is_not_there_is_an_output_error(folder):
    client = HfApi(endpoint="http://127.0.0.1:9", token=False)
    with pytest.raises(OutputError, match="The Hub must answer"):
        publish(folder, repo_id=REPO, client=client)


@pytest.mark.parametrize("wrong", ["anna", "anna/a/b", "../x", "anna/ü", *REFUSED_NAMES])
def test_a_name_that_is_none_is_refused(hub, folder, wrong):
    with pytest.raises(InvalidArgumentError, match="`--repo-id` must be NAME/REPO"):
        publish(folder, repo_id=wrong, client=client_of(hub))


def test_every_name_that_the_client_takes_is_one():
    assert all(map(is_repo_id, ["anna/x", "_a/b_", "a-b/c.d", f"{'a' * 96}/{'b' * 96}"]))


def test_a_damaged_file_is_named(hub, folder, name):
    (folder / "training.json").write_text("[]")
    shutil.rmtree(folder / "plots")
    certificate = json.loads((folder / "certificate.json").read_text())
    certify(
        folder, original=certificate["original"], revised=certificate["revised"],
        update=certificate["update"], rows=certificate["rows"]["hmac"],
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"training\.json"):
        publish(folder, repo_id=name, client=client_of(hub))
    (folder / "training.json").unlink()
    certify(
        folder, original=certificate["original"], revised=certificate["revised"],
        update=certificate["update"], rows=certificate["rows"]["hmac"],
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"readable training\.json"):
        publish(folder, repo_id=name, client=client_of(hub))
