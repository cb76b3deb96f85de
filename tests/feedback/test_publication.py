import io
import json
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from feedback import Release
from feedback.dataset.shard import read_shard
from feedback.publish.cells import select
from feedback.publish.publication import (
    MARK,
    is_ours,
    population_rows,
    publication_files,
)

RELEASE = Release(
    "dp-eps0.5-2026Q4",
    "1/2",
    "2026-11-20T12:00:00+00:00",
    "m@1",
    200,
    tuple(range(-2000, 8000, 1000)),
)
NOBODY = select([], key=bytes(32))


def files_of(world, selection=NOBODY, releases=(), variants=None):
    return publication_files(
        selection,
        releases,
        name="anna/public",
        licence="cc-by-4.0",
        variants=variants,
        published_at=world.now,
    )


def rows_of(world, n=12):
    return select(
        [
            world.rating(rater_id=f"{i:032x}", rating_id=f"{i:032x}", consent_scope="publish_row")
            for i in range(n)
        ],
        key=bytes(32),
    )


def picture(path, size=(8, 8), **options):
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, **options)


def test_rows_are_in_shards_that_are_read_back(world):
    selection = rows_of(world)
    files = files_of(world, selection)
    assert set(files) == {"data/ratings/part-00000.parquet", MARK, "README.md"}
    path = "data/ratings/part-00000.parquet"
    assert tuple(read_shard(files[path], path=path)) == selection.rows


def test_the_population_table_states_noise_and_cost(world):
    rows = population_rows([RELEASE])
    assert len(rows) == 10
    assert rows[0] == {
        "release": "dp-eps0.5-2026Q4",
        "drawn_at": "2026-11-20",
        "model_version": "m@1",
        "n_raters": 200,
        "epsilon": float(Fraction(1, 2)),
        "strength_from": 0.0,
        "strength_to": 0.1,
        "noisy_raters": -2.0,
    }
    files = files_of(world, releases=[RELEASE])
    table = pq.read_table(io.BytesIO(files["data/population/population.parquet"]))
    assert table.num_rows == 10


def test_the_mark_is_known_for_ours_and_nothing_else_is(world):
    mark = files_of(world)[MARK]
    assert is_ours(mark)
    assert json.loads(mark)["published_on"] == "2026-11-20"
    for other in (b"", b"{}", b"[]", b'{"program": "x", "schema_version": 1}', b"[" * 10**5):
        assert not is_ours(other)


def test_the_card_lists_exactly_the_tables_there_are(world, tmp_path):
    picture(tmp_path / "a.png")
    full = files_of(world, rows_of(world), [RELEASE], tmp_path)["README.md"].decode()
    for config in ("ratings", "population", "variants"):
        assert f"config_name: {config}" in full
        assert f"## {config}" in full
        assert f"data/{config}/*.parquet" in full
    assert "12 judgements by 12 raters" in full
    assert "license: cc-by-4.0" in full
    empty = files_of(world)["README.md"].decode()
    assert "config_name" not in empty
    assert "At present there are no rows" in empty
    assert "{" not in full.split("```")[2]


def test_the_card_says_what_the_columns_leave_out_and_whose_loss_it_is(world):
    card = files_of(world, rows_of(world), [RELEASE])["README.md"].decode()
    for column in ("response_ms", "propensity", "quality", "attributes", "app_version"):
        assert f"`{column}`" in card
    assert "Rows sent by programs, which can make up raters, are left out" in card
    assert "under j of them has a loss of j × ε" in card


def test_pictures_go_out_as_they_are_but_without_their_names(world, tmp_path):
    for name in ("ada.png", "bo.jpg", "cy.webp"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    files = files_of(world, variants=tmp_path)
    rows = pq.read_table(io.BytesIO(files["data/variants/variants.parquet"])).to_pylist()
    assert [row["image"]["bytes"] for row in rows] == [
        (tmp_path / name).read_bytes() for name in ("ada.png", "bo.jpg", "cy.webp")
    ]
    assert [row["name"] for row in rows] == ["variant-00001", "variant-00002", "variant-00003"]
    assert b"ada" not in files["data/variants/variants.parquet"]
