"""Copies of a photo are found, other photos are not, and the search compares few of them."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from privacy_core.errors import InvalidArgumentError
from privacy_core.revise.duplicates import CONFIRMED, DISTANCE, WORDS, fingerprint, near_pairs
from tests.privacy_core.tiny import smooth_photo


def pairs_of(prints, **options):
    found = [
        (int(a), int(b))
        for first, second in near_pairs(np.asarray(prints, np.uint64), **options)
        for a, b in zip(first, second, strict=True)
    ]
    assert len(found) == len(set(found)), "a pair came twice"
    return set(found)


def saved_again(pixels, *, quality=70, scale=1.0, brighter=0):
    picture = Image.fromarray(pixels)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    buffer = io.BytesIO()
    picture.point(lambda v: min(255, v + brighter)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize(
    "change", [{}, {"scale": 0.5}, {"scale": 1.7}, {"brighter": 15}, {"quality": 40}]
)
def test_a_copy_that_was_changed_a_little_is_found(astronaut, change):
    prints = [fingerprint(pixels) for pixels in (astronaut, saved_again(astronaut, **change))]
    assert pairs_of(prints) == {(0, 1)}


def test_other_photos_are_not_taken_for_copies(astronaut):
    prints = [fingerprint(smooth_photo(seed=seed).pixels) for seed in range(60)]
    prints.append(fingerprint(astronaut))
    prints.append(fingerprint(astronaut[:, ::-1]))
    assert pairs_of(prints) == set()


def test_photos_that_only_the_short_hash_calls_alike_are_told_apart(astronaut):
    one = fingerprint(astronaut)
    other = one.copy()
    other[1:] ^= np.uint64(0xFF)
    assert pairs_of([one, other]) == set()
    assert pairs_of([one, other], confirmed=4 * 8) == {(0, 1)}


def test_a_flat_photo_has_a_print_of_zeros():
    assert not fingerprint(np.full((20, 30, 3), 90, np.uint8)).any()
    rising = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 40, 0).repeat(3, 2)
    assert fingerprint(rising).tolist() == [2**64 - 1] * WORDS


@settings(max_examples=30)
@given(
    st.integers(0, 7),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 63), max_size=9, unique=True),
)
def test_the_search_finds_exactly_what_comparing_all_pairs_finds(distance, seed, flipped):
    rng = np.random.default_rng(seed)
    prints = np.zeros((12, WORDS), np.uint64)
    prints[:, 0] = rng.integers(0, 2**63, 12, dtype=np.uint64)
    prints[5, 0] = prints[3, 0]
    prints[7, 0] = prints[2, 0] ^ np.uint64(sum(1 << bit for bit in flipped))
    wanted = {
        (a, b)
        for b in range(12)
        for a in range(b)
        if int(prints[a, 0] ^ prints[b, 0]).bit_count() <= distance
    }
    assert pairs_of(prints, distance=distance) == wanted


def test_many_copies_of_one_photo_are_all_paired():
    prints = np.full((2100, WORDS), 7, np.uint64)
    counted = sum(len(first) for first, _ in near_pairs(prints))
    assert counted == 2100 * 2099 // 2


def test_a_few_photos_among_many_are_found_without_comparing_all():
    rng = np.random.default_rng(0)
    prints = rng.integers(0, 2**63, (50_000, WORDS), dtype=np.uint64)
    prints[40_000] = prints[11]
    prints[40_000, 0] ^= np.uint64(0b1011)
    assert pairs_of(prints) == {(11, 40_000)}


@pytest.mark.parametrize("distance", [-1, 8])
def test_a_distance_out_of_range_is_refused(distance):
    with pytest.raises(InvalidArgumentError, match="`distance`"):
        pairs_of(np.zeros((2, WORDS)), distance=distance)


def test_nothing_to_compare_gives_nothing():
    assert pairs_of(np.zeros((0, WORDS))) == set()
    assert pairs_of(np.zeros((1, WORDS))) == set()
    assert DISTANCE <= 7
    assert CONFIRMED < 256
