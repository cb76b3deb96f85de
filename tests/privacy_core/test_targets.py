"""Target models: one interface over heads and networks; folders that load elsewhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.unlearning.head_model import load_head, new_head
from privacy_core.unlearning.loading import load_target
from privacy_core.unlearning.run import train
from privacy_core.unlearning.targets import (
    Recipe,
    TrainingRecord,
    model_type,
    save_target,
    versions,
)
from privacy_core.unlearning.training import Cost
from tests.privacy_core.tiny_targets import (
    HEAD,
    NETWORK,
    SIZE,
    FlatBackbone,
    pictures,
    record,
    tiny_network,
    trained_network,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def head():
    rows = pictures(noise=10)
    return train(new_head(FlatBackbone(), ("no", "yes"), record(HEAD)), rows)


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return trained_network()


def load_network(folder, **kwargs):
    from privacy_core.unlearning.network import load_network as load

    return load(folder, **kwargs)


def accuracy(model, rows):
    return (model.logits(rows.images).argmax(1) == rows.labels).mean()


# --- Both kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["head", "network"])
def test_a_trained_model_tells_labels_apart(kind, request):
    model = request.getfixturevalue(kind)
    assert model.kind == kind
    assert accuracy(model, pictures(200, seed=5, noise=10)) > 0.8


@pytest.mark.parametrize("kind", ["head", "network"])
def test_a_saved_model_loads_with_the_same_logits_to_the_bit(kind, request, tmp_path):
    model, rows = request.getfixturevalue(kind), pictures(9)
    save_target(model, tmp_path / "model", files={"extra.txt": b"kept"})
    folder = tmp_path / "model"
    loaded = load_head(folder, FlatBackbone()) if kind == "head" else load_network(folder)
    assert loaded.digest() == model.digest()
    assert loaded.label_names == ("no", "yes")
    assert loaded.record == model.record
    np.testing.assert_array_equal(loaded.logits(rows.images), model.logits(rows.images))
    assert (folder / "extra.txt").read_bytes() == b"kept"
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= names
    assert model_type(folder) == ("privacy-dial-head" if kind == "head" else "resnet")


@pytest.mark.parametrize("kind", ["head", "network"])
def test_the_module_gives_the_models_logits(kind, request):
    model, rows = request.getfixturevalue(kind), pictures(9)
    with torch.no_grad():
        found = model.module().eval()(model.rows(model.prepare(rows)).x)
    np.testing.assert_allclose(found.numpy(), model.logits(rows.images), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["head", "network"])
def test_logits_are_a_linear_function_of_the_features(kind, request):
    model, rows = request.getfixturevalue(kind), pictures(60)
    features = np.column_stack([model.features(rows.images), np.ones(60)])
    logits = model.logits(rows.images)
    solved, *_ = np.linalg.lstsq(features, logits, rcond=None)
    np.testing.assert_allclose(features @ solved, logits, atol=1e-4)
    assert features.shape[1] < 60


@pytest.mark.parametrize("kind", ["head", "network"])
def test_changing_the_module_does_not_change_the_model(kind, request):
    model = request.getfixturevalue(kind)
    before = model.digest()
    with torch.no_grad():
        for weight in model.module().parameters():
            weight.add_(1)
    assert model.digest() == before


@pytest.mark.parametrize("kind", ["head", "network"])
def test_first_weights_are_those_before_training(kind, request):
    model = request.getfixturevalue(kind)
    one, other = model.fresh(3), model.fresh(3)
    pairs = list(zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    trained = model.module().state_dict().values()
    assert not all(torch.equal(a, b) for (a, _), b in zip(pairs, trained, strict=True))


def test_a_networks_first_weights_depend_on_the_seed_and_leave_the_global_generator_alone(network):
    state = torch.get_rng_state()
    one, other = network.fresh(3), network.fresh(4)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    first = tiny_network().classifier.state_dict()
    again = network.fresh(NETWORK.seed).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())


# --- Heads -----------------------------------------------------------------------------------


def test_a_head_reads_features_that_were_taken_before(head):
    rows = pictures(7)
    prepared = head.prepare(rows)
    assert prepared.images.shape == (7, 12)
    read = head.backbone.n_read
    np.testing.assert_array_equal(head.logits(prepared.images), head.logits(rows.images))
    assert head.backbone.n_read == read + 7


def test_features_of_another_backbone_are_refused(head):
    with pytest.raises(InvalidArgumentError, match="12 features of 'flat', got 5"):
        head.logits(np.zeros((2, 5)))


def test_a_head_is_not_put_on_another_backbone(head, tmp_path):
    save_target(head, tmp_path / "model")
    other = FlatBackbone()
    other.name = "other"
    with pytest.raises(ModelError, match="backbone 'flat', got 'other'"):
        load_head(tmp_path / "model", other)


def test_dlibs_descriptor_is_a_backbone(astronaut):
    from privacy_core.faces import default_detector
    from privacy_core.unlearning.backbone import DlibBackbone

    backbone, aligned = DlibBackbone(), DlibBackbone(default_detector())
    found = backbone.features(np.stack([astronaut, astronaut[:, ::-1]]))
    assert found.shape == (2, 128)
    assert not np.array_equal(found[0], found[1])
    of_the_face = aligned.features(astronaut[None])
    assert of_the_face.shape == (1, 128)
    assert np.linalg.norm(of_the_face[0] - found[0]) > 0.3
    no_face = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(aligned.features(no_face), backbone.features(no_face))
    assert backbone.name != aligned.name


# --- Networks --------------------------------------------------------------------------------


def test_the_default_resnet_has_between_0_3_and_0_7_million_weights():
    from privacy_core.unlearning.network import small_resnet

    model = small_resnet(("no", "yes"), record(NETWORK))
    n_weights = sum(weight.numel() for weight in model.module().parameters())
    assert 300_000 < n_weights < 700_000


def test_a_network_loads_with_transformers_alone_and_sees_the_same_pictures(network, tmp_path):
    from PIL import Image
    from transformers import AutoModelForImageClassification
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    save_target(network, tmp_path / "model")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    rows = pictures(3)
    inputs = processor([Image.fromarray(image) for image in rows.images], return_tensors="pt")
    assert inputs["pixel_values"].shape == (3, 3, SIZE, SIZE)
    with torch.no_grad():
        logits = loaded.eval()(**inputs).logits.numpy()
    np.testing.assert_allclose(logits, network.logits(rows.images), atol=1e-4)
    assert loaded.config.id2label == {0: "no", 1: "yes"}


def test_a_folder_without_a_record_needs_a_recipe(network, tmp_path):
    save_target(network, tmp_path / "model")
    (tmp_path / "model" / "training.json").unlink()
    with pytest.raises(ModelError, match=r"has no training\.json"):
        load_network(tmp_path / "model")
    loaded = load_network(tmp_path / "model", recipe=replace(NETWORK, image_size=99))
    assert loaded.record.recipe.image_size == SIZE
    assert loaded.record.cost == Cost()


def test_a_public_base_gets_a_new_last_layer_and_keeps_the_rest(network, tmp_path):
    from privacy_core.unlearning.network import from_base

    save_target(network, tmp_path / "base")
    recipe = replace(NETWORK, base=str(tmp_path / "base"))
    model = from_base(("a", "b", "c"), record(recipe))
    assert model.logits(pictures(2).images).shape == (2, 3)
    base, found = network.module().state_dict(), model.module().state_dict()
    same = [name for name in base if torch.equal(base[name], found[name])]
    assert {name for name in base if "classifier" not in name} == set(same)
    again = model.fresh(recipe.seed).state_dict()
    assert all(torch.equal(again[name], value) for name, value in found.items())
    missing = replace(recipe, base=str(tmp_path / "none"))
    with pytest.raises(ModelError, match="public base"):
        from_base(("a", "b"), record(missing))


def test_a_network_without_a_linear_layer_is_refused(network):
    from privacy_core.unlearning.network import PictureClassifier

    with pytest.raises(ModelError, match="must end in a linear layer"):
        PictureClassifier(torch.nn.Conv2d(3, 2, 1), (0, 0, 0), (1, 1, 1)).last_linear()
    with pytest.raises(ModelError, match="PictureClassifier, got Linear"):
        network.updated(torch.nn.Linear(2, 2), network.record)


# --- Folders ---------------------------------------------------------------------------------


def test_a_folder_with_files_is_not_written_into(head, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="new or empty folder"):
        save_target(head, tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine.txt"]


def test_a_write_that_fails_leaves_nothing(head, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("privacy_core.unlearning.head_model.save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_target(head, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_head_is_refused(head, tmp_path, name, damage):
    save_target(head, tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(file.read_bytes()[:20]) if damage == "cut" else file.unlink()
    with pytest.raises(ModelError, match="missing or damaged"):
        load_head(tmp_path / "model", FlatBackbone())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_network_is_refused(network, tmp_path, name, damage):
    save_target(network, tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(file.read_bytes()[:20]) if damage == "cut" else file.unlink()
    with pytest.raises(ModelError, match="missing or damaged"):
        load_network(tmp_path / "model")


@pytest.mark.parametrize("kind", ["head", "network"])
def test_a_folder_of_either_kind_is_loaded_by_one_function(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    save_target(model, tmp_path / "model")
    asked = []

    def backbone_of(name):
        asked.append(name)
        return FlatBackbone()

    loaded = load_target(tmp_path / "model", backbone_of=backbone_of)
    assert loaded.digest() == model.digest()
    assert asked == (["flat"] if kind == "head" else [])


def test_a_head_that_names_no_backbone_is_refused(head, tmp_path):
    save_target(head, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    del config["backbone"]
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="missing or damaged"):
        load_target(tmp_path / "model", backbone_of=lambda _: FlatBackbone())


def test_what_is_no_model_folder_has_no_type(tmp_path):
    with pytest.raises(ModelError, match="missing or damaged"):
        model_type(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="missing or damaged"):
        model_type(tmp_path)


# --- Records ---------------------------------------------------------------------------------


def test_a_record_survives_json():
    one = TrainingRecord(NETWORK, "abc", 7, Cost(1.5, 3), "smiling", versions())
    assert TrainingRecord.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert one.as_json()["schema_version"] == 1
    updated = replace(one, full_cost=Cost(30.0, 60), full_rows=9)
    assert TrainingRecord.from_json(json.loads(json.dumps(updated.as_json()))) == updated
    assert (one.full_training(), updated.full_training()) == (
        (Cost(1.5, 3), 7),
        (Cost(30.0, 60), 9),
    )
    written_before = {k: v for k, v in one.as_json().items() if not k.startswith("full_")}
    assert TrainingRecord.from_json(written_before) == one
    assert {"torch", "threads"} <= set(one.versions)


def test_a_heads_recipe_trains_no_network():
    with pytest.raises(ModelError, match="trains no network"):
        HEAD.loop()
    assert Recipe("adamw", 0.01, seed=4).loop().seed == 4
