"""Photo → variant: what may change, what may be known, and that it fails closed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.anonymize import LADDER, Anonymizer
from privacy_core.backends import load_backend
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import FaceFailedError, InvalidArgumentError, NoFaceError, PhotoError
from privacy_core.faces import encode_png, prepare
from privacy_core.faces.align import opaque_mask, template_mask
from privacy_core.noise import NoiseKey
from privacy_core.privacy import NO_NOISE, PUBLIC_NOISE
from privacy_core.schema import AttributePolicy, Photo
from tests.privacy_core.tiny import (
    FixedDetector,
    face_at,
    face_pixels,
    frame_slice,
    regions_of_code,
    separable_code,
    smooth_photo,
    tiny_model,
)

PLACE = (20, 15)
FACE = face_at(*PLACE)
OWN, BLIND = regions_of_code()
MASK = template_mask()
KEY = NoiseKey(b"k" * 32, secret=True)
BROKEN_FACE = replace(face_at(150, 10), landmarks=np.full((5, 2), np.nan))


@pytest.fixture(scope="module")
def backend():
    torch.set_num_threads(1)
    return EmbeddedBackend(tiny_model(separable_code()))


def photo_with(frame, *, place=PLACE, size=(160, 170)):
    """Return a photo whose face, at `place`, is a template frame's M."""
    pixels = smooth_photo(*size).pixels.copy()
    part = frame_slice(*place)
    pixels[part] = np.where(MASK[..., None], frame, pixels[part])
    return Photo(pixels)


def face(seed=0):
    return face_pixels(separable_code(), seed)


def variant(backend, photo, strength, *, key=KEY, faces=(FACE,), **options):
    opened = Anonymizer(backend, FixedDetector(*faces)).open(photo, key=key, **options)
    return opened.variant(strength)


def outside(faces, shape):
    """Return the pixels outside every face's M, (height, width) bool."""
    prepared = prepare(Photo(np.zeros((*shape, 3), np.uint8)), faces)
    everywhere = np.ones(shape, bool)
    for region in prepared.regions:
        everywhere[region.window] &= ~region.mask
    return everywhere


# --- What a variant may know -----------------------------------------------------------------


def test_at_strength_1_no_pixel_of_the_face_has_any_influence(backend):
    one, other = (variant(backend, photo_with(face(i)), 1).image for i in (0, 1))
    black = variant(backend, photo_with(np.zeros((128, 128, 3), np.uint8)), 1).image
    assert (one == other).all()
    assert (one == black).all()


@pytest.mark.parametrize("strength", [0, 0.3, 0.8])
def test_below_strength_1_the_face_has_influence_through_its_code_only(backend, strength):
    centre_of_blind = np.zeros((128, 128), bool)
    centre_of_blind[106:112, 50:76] = True
    assert BLIND[centre_of_blind].all()
    same_code = np.where(centre_of_blind[..., None], 255 - face(), face())
    one, other, third = (
        variant(backend, photo_with(pixels), strength).image
        for pixels in (face(), same_code, face(1))
    )
    assert (one == other).all()
    assert (one != third).any()


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_pixels_outside_the_mask_are_the_original_to_the_bit(backend, strength):
    faces = (FACE, face_at(90, 60, 0.6), face_at(-40, 100, 0.8))
    photo = smooth_photo()
    made = variant(backend, photo, strength, faces=faces).image
    unchanged = outside(faces, made.shape[:2])
    assert 0.2 < unchanged.mean() < 0.9
    assert (made[unchanged] == photo.pixels[unchanged]).all()
    assert (made != photo.pixels).any()


def test_the_surroundings_do_influence_a_variant(backend):
    one, other = (smooth_photo(seed=seed) for seed in (0, 1))
    first, second = (variant(backend, photo, 1).image for photo in (one, other))
    inside = ~outside((FACE,), one.pixels.shape[:2])
    assert (first[inside] != second[inside]).any()


def test_strength_0_is_the_codes_own_reconstruction(backend):
    photo = photo_with(face())
    made = variant(backend, photo, 0)
    code, prepared = backend.model.code, prepare(photo, (FACE,))
    codes = code.encode(torch.tensor(prepared.face_pixels(0))[None])
    codes = code.clip(codes, code.clip_radius(torch.ones_like(codes)))
    assert (made.image == prepared.paste({0: code.decode(codes)[0].numpy()})).all()
    assert (made.image == variant(backend, photo, 0, key=NoiseKey.fresh()).image).all()
    assert made.privacy.epsilon is None
    assert made.privacy.reason == NO_NOISE
    assert not made.protected


# --- Noise -----------------------------------------------------------------------------------


def as_bytes(backend, key, strength=0.5):
    made = variant(backend, photo_with(face()), strength, key=key)
    return encode_png(made.image, digital_source_type=backend.digital_source_type)


def test_one_seed_gives_identical_bytes_and_no_seed_never_does(backend):
    for strength in (0.5, 1):
        seeded = [as_bytes(backend, NoiseKey.from_seed(7), strength) for _ in range(2)]
        fresh = [as_bytes(backend, NoiseKey.fresh(), strength) for _ in range(2)]
        assert seeded[0] == seeded[1]
        assert fresh[0] != fresh[1]
        assert seeded[0] != as_bytes(backend, NoiseKey.from_seed(8), strength)


def test_a_seed_voids_epsilon(backend):
    secret, public = (
        variant(backend, smooth_photo(), 0.8, key=key) for key in (KEY, NoiseKey.from_seed(1))
    )
    assert secret.privacy.epsilon > 0
    assert secret.protected
    assert public.privacy.epsilon is None
    assert public.privacy.reason == PUBLIC_NOISE


def test_every_face_has_its_own_noise(backend):
    # Two faces that look the same, in surroundings that look the same.
    tile = photo_with(face()).pixels
    photo = Photo(np.concatenate([tile, tile], axis=1))
    faces = (FACE, face_at(PLACE[0] + tile.shape[1], PLACE[1]))
    for strength, differ in [(0, False), (0.5, True), (1, True)]:
        made = variant(backend, photo, strength, faces=faces).image
        # The middles, since the fill around the rims sees the seam.
        left, right = (made[60:100, x + 60 : x + 105].astype(int) for x in (0, tile.shape[1]))
        assert (np.abs(left - right).mean() > 3) == differ


def test_another_policy_or_revision_draws_other_noise(backend):
    photo = smooth_photo()
    usual = variant(backend, photo, 1).image
    asked = variant(backend, photo, 1, policy=AttributePolicy(keep=("beard",))).image
    other = EmbeddedBackend(replace(backend.model, revision="other"))
    assert (usual == variant(backend, photo, 1).image).all()
    assert (usual != asked).any()
    assert (usual != variant(other, photo, 1).image).any()


def test_a_ladder_is_the_same_as_its_variants_one_by_one(backend):
    photo = photo_with(face())
    opened = Anonymizer(backend, FixedDetector(FACE)).open(photo, key=KEY)
    for made in opened.ladder([*LADDER, 0]):
        alone = variant(backend, photo, made.strength)
        assert np.abs(made.image.astype(int) - alone.image).max() <= 1
        assert replace(made, image=None) == replace(alone, image=None)


def test_the_order_of_strengths_is_irrelevant(backend):
    opened = Anonymizer(backend, FixedDetector(FACE)).open(photo_with(face()), key=KEY)
    forwards, backwards = opened.ladder([0.2, 0.5, 1]), opened.ladder([1, 0.5, 0.2])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.strength == other.strength
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_neighbouring_rungs_differ(backend):
    opened = Anonymizer(backend, FixedDetector(FACE)).open(photo_with(face()), key=KEY)
    images = [made.image for made in opened.ladder(np.arange(1, 101, 9) / 100)]
    for one, other in itertools.pairwise(images):
        assert (one != other).any()


def test_a_ladder_of_no_strengths_is_empty(backend):
    opened = Anonymizer(backend, FixedDetector(FACE)).open(smooth_photo(), key=KEY)
    assert opened.ladder([]) == []


# --- Attributes ------------------------------------------------------------------------------


def test_a_hidden_attribute_of_the_face_changes_no_byte(backend):
    inner = np.zeros((128, 128), bool)
    inner[60:80, 20:32] = True
    assert OWN[inner].all()
    one, other = face(), np.where(inner[..., None], face(1), face())
    for policy, differ in [(AttributePolicy(hide=("gender",)), False), (None, True)]:
        first, second = (
            variant(backend, photo_with(pixels), 0.3, policy=policy).image
            for pixels in (one, other)
        )
        assert (first != second).any() == differ


def test_a_face_with_a_hidden_attribute_takes_no_colour_from_its_surroundings(backend):
    # A face of one colour, in surroundings a little lighter.
    class Plain:
        name, revision, zoom, curve = "plain", "1", 1, backend.curve
        digital_source_type = backend.digital_source_type

        def generate(self, requests):
            made = backend.generate(requests)
            flat = np.full((128, 128, 3), 130, np.uint8)
            return [replace(one, frame=flat) for one in made]

    photo = Photo(np.full((160, 170, 3), 145, np.uint8))
    opaque = np.zeros(photo.pixels.shape[:2], bool)
    opaque[frame_slice(*PLACE)] = opaque_mask()
    for policy, keeps_colour in [(AttributePolicy(hide=("gender",)), True), (None, False)]:
        made = variant(Plain(), photo, 1, policy=policy).image
        assert (made[opaque] == 130).all() == keeps_colour


def test_a_variant_names_its_policy_model_and_strength(backend):
    policy = AttributePolicy(set={"beard": "no"})
    made = variant(backend, smooth_photo(), 0.803, policy=policy)
    assert made.policy == policy
    assert (made.model_id, made.model_revision) == ("embedded", "tiny")
    assert made.strength == 0.8
    assert made.n_faces == 1


# --- Failing closed --------------------------------------------------------------------------


def test_no_face_is_an_error(backend):
    with pytest.raises(NoFaceError, match="found none"):
        variant(backend, smooth_photo(), 0.8, faces=())


def test_one_failing_face_of_three_withholds_the_photo_and_is_named(backend):
    faces = (FACE, BROKEN_FACE, face_at(20, 60, 0.5))
    with pytest.raises(FaceFailedError) as error:
        variant(backend, smooth_photo(), 0.8, faces=faces)
    assert (error.value.index, error.value.n_faces) == (2, 3)
    assert "landmarks" in error.value.reason


def test_a_failing_face_is_covered_where_that_is_asked_for(backend):
    photo = smooth_photo(160, 300)
    faces = (FACE, BROKEN_FACE)
    made = variant(backend, photo, 0.8, faces=faces, solid_on_failure=True)
    assert made.covered == (2,)
    assert made.protected
    left, top, right, bottom = (round(edge) for edge in BROKEN_FACE.box)
    patch = made.image[top : min(bottom, 160), left:right].reshape(-1, 3)
    assert len(np.unique(patch, axis=0)) == 1
    unchanged = outside(faces, (160, 300))
    assert (made.image[unchanged] == photo.pixels[unchanged]).all()


def test_a_photo_whose_only_face_is_covered_shows_nothing_of_it(backend):
    one, other = (
        variant(backend, Photo(pixels), 0.3, faces=(BROKEN_FACE,), solid_on_failure=True)
        for pixels in (
            smooth_photo(160, 300).pixels,
            np.where(
                outside((BROKEN_FACE,), (160, 300))[..., None], smooth_photo(160, 300).pixels, 9
            ),
        )
    )
    assert (one.image == other.image).all()
    assert one.covered == (1,)
    assert one.protected
    assert one.privacy.epsilon is None
    assert "covered" in one.privacy.reason


def test_a_face_the_model_cannot_make_withholds_the_photo_or_is_covered():
    model = tiny_model()
    with torch.no_grad():
        model.denoiser.out.bias.fill_(float("nan"))
    broken = EmbeddedBackend(model)
    with pytest.raises(FaceFailedError, match="Face 1 of 1"):
        variant(broken, smooth_photo(), 0.8)
    covered = variant(broken, smooth_photo(), 0.8, solid_on_failure=True)
    assert covered.covered == (1,)
    assert len(np.unique(covered.image[60:100, 60:100].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "much", None])
def test_a_strength_that_is_none_is_refused_before_anything_is_made(backend, strength):
    opened = Anonymizer(backend, FixedDetector(FACE)).open(smooth_photo(), key=KEY)
    with pytest.raises(InvalidArgumentError, match="`strength`"):
        opened.ladder([0.5, strength])


# --- Baselines -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blur", "pixelate", "solid"])
def test_a_baseline_leaves_the_surroundings_and_claims_nothing(name):
    photo = smooth_photo()
    made = variant(load_backend(name), photo, 0.8)
    unchanged = outside((FACE,), photo.pixels.shape[:2])
    assert (made.image[unchanged] == photo.pixels[unchanged]).all()
    assert (made.image != photo.pixels).any()
    assert made.protected == (name == "solid")
    assert made.privacy.basis == "measured only"


def test_an_open_photo_shows_neither_pixels_nor_its_key_when_it_is_printed(backend):
    opened = Anonymizer(backend, FixedDetector(FACE)).open(smooth_photo(), key=KEY)
    assert "kkkk" not in repr(opened)
    assert "uint8" not in repr(opened)


def test_a_photo_of_too_many_faces_is_refused(backend):
    crowd = FixedDetector(*[face_at(30 + 5 * i, 60, scale=0.3) for i in range(33)])
    with pytest.raises(PhotoError, match="at most 32 faces, found 33"):
        Anonymizer(backend, crowd).open(smooth_photo(), key=NoiseKey.fresh())
