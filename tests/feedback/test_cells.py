from dataclasses import replace

import pytest

from feedback import new_id
from feedback.publish.cells import K_RATERS, cell_of, select

KEY = bytes(range(32))


def rows(world, n_raters, *, strength=0.55, per_rater=1, **changes):
    made = []
    for _ in range(n_raters):
        rater, session = new_id(), new_id()
        made += [
            world.rating(
                rating_id=new_id(),
                rater_id=rater,
                session_id=session,
                page_id=new_id(),
                photo_id=new_id(),
                strength=strength,
                **({"consent_scope": "publish_row"} | changes),
            )
            for _ in range(per_rater)
        ]
    return made


def test_only_cells_of_ten_raters_are_published(world):
    large = rows(world, K_RATERS, strength=0.55)
    small = rows(world, K_RATERS - 1, strength=0.65, per_rater=3)
    selection = select([*large, *small], key=KEY)
    assert len(selection.rows) == selection.n_raters == K_RATERS
    assert {row.strength for row in selection.rows} == {0.55}
    assert (selection.n_in_small_cells, selection.n_cells) == (27, 1)


@pytest.mark.parametrize(
    "change", [{"model_revision": "other"}, {"strength": 0.61}, {"source": "own_photo"}]
)
def test_a_cell_is_model_tenth_and_source(world, change):
    common = rows(world, K_RATERS - 1)
    assert len(select([*common, *rows(world, 1)], key=KEY).rows) == K_RATERS
    assert select([*common, *rows(world, 1, **change)], key=KEY).rows == ()


def test_the_ends_of_the_dial_are_in_the_first_and_last_tenth(world):
    (low, high) = rows(world, 1, strength=0.0) + rows(world, 1, strength=1.0)
    assert (cell_of(low)[1], cell_of(high)[1]) == (0, 9)


def test_only_rows_meant_for_it_are_published(world):
    agreed = rows(world, K_RATERS)
    not_agreed = rows(world, 5, consent_scope="aggregate") + rows(
        world, 5, consent_scope="personal_only"
    )
    later = replace(
        agreed[0],
        rating_id=new_id(),
        consent_scope="aggregate",
        created_at=agreed[0].created_at.replace(year=2027),
    )
    selection = select([*agreed, *not_agreed], key=KEY)
    assert (len(selection.rows), selection.n_without_consent) == (K_RATERS, 10)
    # One of the ten narrows their consent: nine are left, too few for the cell.
    assert select([*agreed, later], key=KEY).rows == ()


def test_no_private_id_and_no_time_of_day_is_left(world):
    private = rows(world, K_RATERS, per_rater=3)
    public = select(private, key=KEY).rows
    names = ("rating_id", "rater_id", "session_id", "page_id", "photo_id")
    before = {getattr(row, name) for row in private for name in names}
    after = {getattr(row, name) for row in public for name in names}
    assert not before & after
    assert {row.created_at.isoformat() for row in public} == {"2026-11-20T00:00:00+00:00"}


def test_nothing_is_left_by_which_a_row_could_be_told_from_others(world):
    private = [
        replace(
            row,
            rater_epoch=7,
            response_ms=100 * (number + 1),
            propensity=0.00380952 + number / 1e6,
            quality=31.4159,
            app_version=f"0.{number}",
            attributes="keep=smiling",
        )
        for number, row in enumerate(rows(world, K_RATERS))
    ]
    public = select(private, key=KEY).rows
    left = {
        (r.rater_epoch, r.response_ms, r.propensity, r.quality, r.app_version, r.attributes)
        for r in public
    }
    assert left == {(1, 0, 0.0038, 31.0, "withheld", None)}
    # The judgement itself stays as it was.
    assert {(r.strength, r.response) for r in public} == {(r.strength, r.response) for r in private}


def test_rows_of_programs_neither_fill_a_cell_nor_are_published(world):
    people = rows(world, K_RATERS - 1)
    made_up = rows(world, 5, client="api")
    selection = select([*people, *made_up], key=KEY)
    assert selection.rows == ()
    assert (selection.n_from_programs, selection.n_without_consent) == (5, 0)
    selection = select([*people, *rows(world, 1), *made_up], key=KEY)
    assert len(selection.rows) == K_RATERS
    assert {row.client for row in selection.rows} == {"web"}


def test_a_consent_narrowed_for_another_model_counts(world):
    agreed = rows(world, K_RATERS)
    later = replace(
        agreed[0],
        rating_id=new_id(),
        model_revision="next",
        consent_scope="personal_only",
        created_at=agreed[0].created_at.replace(year=2027),
    )
    assert select([*agreed, later], key=KEY).rows == ()


def test_what_belongs_together_still_does_within_a_publication_only(world):
    private = rows(world, K_RATERS, per_rater=3)
    first, again, other = (select(private, key=key).rows for key in (KEY, KEY, bytes(32)))
    assert first == again
    assert sorted([row.rater_id for row in first]).count(first[0].rater_id) == 3
    assert len({row.rater_id for row in first}) == K_RATERS
    assert not {row.rater_id for row in first} & {row.rater_id for row in other}


def test_the_order_says_nothing(world):
    private = rows(world, 30)
    public = select(private, key=KEY).rows
    assert public == select(private[::-1], key=KEY).rows
    assert [row.rating_id for row in public] == sorted(row.rating_id for row in public)


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="at least 32 bytes, got 16"):
        select([], key=b"k" * 16)
