import json
import subprocess
import sys

import pytest
import yaml

from feedback.columns import COLUMNS, features
from feedback.dataset.card import dataset_card
from feedback.dataset.shard import merge_shards, shard_bytes

LOAD = """
import json, sys
import datasets
datasets.disable_progress_bars()
found = []
for folder in sys.argv[2:]:
    rows = datasets.load_dataset(folder, cache_dir=sys.argv[1], split="train")
    found.append([repr(rows.features), sorted(rows["rating_id"]), rows["attributes"][:]])
print(json.dumps(found))
"""


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_s_features_are_the_columns():
    from datasets import Features

    front = front_matter(dataset_card(name="anna/ratings"))
    (info,) = front["dataset_info"]
    assert Features._from_yaml_list(info["features"]) == features()
    assert front["viewer"] is False
    assert front["configs"][0]["config_name"] == info["config_name"] == "ratings"


def test_the_card_says_what_every_column_means_and_is_the_same_each_time():
    card = dataset_card(name="anna/ratings")
    assert card == dataset_card(name="anna/ratings")
    for column in COLUMNS:
        assert f"|`{column.name}`|" in card
    for word in ("anna/ratings", "private", "What is not stored", "forgotten", "tombstones"):
        assert word in card
    assert "{" not in card


@pytest.fixture
def repos(world, tmp_path, pytestconfig):
    """Folders as a repository has them: old shards, new ones, both, and both after compaction."""
    old = (pytestconfig.rootpath / "tests/golden/ratings-v1.parquet").read_bytes()
    new = shard_bytes([world.rating(attributes="none"), world.rating()])
    merged = merge_shards([("old", old), ("new", new)]).data
    contents = {
        "old": {"a": old},
        "new": {"b": new},
        "mixed": {"a": old, "b": new},
        "mixed-newest-first": {"a": new, "b": old},
        "compacted": {"c": merged},
    }
    for name, shards in contents.items():
        month = tmp_path / name / "data" / "ratings" / "ym=2026-11"
        month.mkdir(parents=True)
        for shard, data in shards.items():
            (month / f"{shard}.parquet").write_bytes(data)
        (tmp_path / name / "README.md").write_text(dataset_card(name="anna/ratings"))
        (tmp_path / name / "tombstones").mkdir()
        (tmp_path / name / "tombstones" / "x.json").write_text("{}")
    return {name: tmp_path / name for name in contents}


def test_datasets_loads_old_new_mixed_and_compacted_repositories_with_one_schema(repos, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "cache"), *map(str, repos.values())],
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(zip(repos, json.loads(done.stdout), strict=True))
    assert {schema for schema, _, _ in found.values()} == {repr(features())}
    assert len(found["old"][1]) == 3
    assert set(found["old"][2]) == {None}
    assert found["new"][2] == ["none", None]
    both = sorted(found["old"][1] + found["new"][1])
    assert found["mixed"][1] == found["mixed-newest-first"][1] == found["compacted"][1] == both
