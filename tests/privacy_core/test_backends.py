"""Backends: what of a face reaches a release, what a policy does, and how weights may fail."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.backends import BACKENDS, FaceRequest, load_backend
from privacy_core.backends.embedded import HIDDEN_TRUST, EmbeddedBackend
from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.model import CALIBRATION, WEIGHTS, load_model
from privacy_core.diffusion.sampler import CAUTION
from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.faces.align import template_mask
from privacy_core.noise import NoiseKey
from privacy_core.privacy import NO_NOISE, PUBLIC_NOISE, mu_of
from privacy_core.schema import ATTRIBUTES, AttributePolicy
from tests.privacy_core.tiny import (
    face_pixels,
    linear_denoiser,
    regions_of_code,
    separable_code,
    tiny_code,
    tiny_model,
    tiny_refiner,
    write_tiny_model,
)

QUAD = np.array([[0, 0], [127, 0], [127, 127], [0, 127]], np.float32)
MASK = template_mask()
OWN, BLIND = regions_of_code()
KEY = NoiseKey(b"k" * 32, secret=True)
PLAIN = AttributePolicy()


CODE = separable_code()


def frame(seed=0):
    return face_pixels(CODE, seed)


def request(pixels=None, *, strength=0.5, key=KEY, policy=PLAIN, context=None):
    pixels = frame() if pixels is None else pixels
    context = frame(9) if context is None else context
    return FaceRequest(pixels * MASK[..., None], context, QUAD, strength, key, policy)


def changed(pixels, where):
    """Return the face with part of it taken from another one."""
    return np.where(where[..., None], frame(77), pixels)


def pictures(backend, *requests):
    """Return the frames of requests made one at a time: rounding depends on the batch."""
    return [backend.generate([one])[0].frame for one in requests]


@pytest.fixture(scope="module", params=["plain", "refined"])
def backend(request):
    torch.set_num_threads(1)
    refiner = tiny_refiner(loud=0.1) if request.param == "refined" else None
    return EmbeddedBackend(replace(tiny_model(separable_code()), refiner=refiner))


@pytest.fixture
def linear():
    code = separable_code()
    return EmbeddedBackend(tiny_model(code, linear_denoiser(code)))


# --- What of the face reaches the release ----------------------------------------------------


@pytest.mark.parametrize("strength", [0, 0.3, 0.8, 1])
def test_pixels_that_do_not_move_the_code_change_nothing(backend, strength):
    one, other = frame(), changed(frame(), BLIND)
    assert (one[MASK] != other[MASK]).any()
    first, second = pictures(
        backend, request(one, strength=strength), request(other, strength=strength)
    )
    assert (first == second).all()


def test_pixels_that_move_the_code_change_a_variant_but_never_pure_noise(backend):
    one, other = frame(), changed(frame(), MASK)
    for strength, differ in [(0, True), (0.3, True), (1, False)]:
        first, second = pictures(
            backend, request(one, strength=strength), request(other, strength=strength)
        )
        assert (first != second).any() == differ


def test_codes_that_are_equal_after_clipping_give_equal_faces():
    code = tiny_code()
    code.mean.copy_(code.pixels(torch.full((1, 128, 128, 3), 128, dtype=torch.uint8))[0])
    code.sd.fill_(0.5)  # every code below is longer than C
    backend = EmbeddedBackend(tiny_model(code))
    direction = face_pixels(code).astype(int) - 128
    near, far = ((128 + times * direction).clip(0, 255).astype(np.uint8) for times in (1, 2))
    first, second, elsewhere = pictures(
        backend, request(near), request(far), request(face_pixels(code, 3))
    )
    assert np.abs(first.astype(int) - second).mean() < 0.2
    assert np.abs(first.astype(int) - elsewhere).mean() > 2


def test_the_noised_code_lies_within_reach_of_the_clip_radius(linear):
    results = linear.generate([request(strength=0.5)])
    radius = float(linear.model.code.clip_radius(torch.ones(1, 24))[0])
    assert results[0].privacy.mu == pytest.approx(mu_of(results[0].sigma, radius))


def test_strength_0_is_the_codes_own_reconstruction_and_guarantees_nothing(linear):
    (result,) = linear.generate([request(strength=0)])
    code = linear.model.code
    codes = code.encode(torch.from_numpy(request().pixels)[None])
    clipped = code.clip(codes, code.clip_radius(torch.ones_like(codes)))
    assert (result.frame == code.decode(clipped)[0].numpy()).all()
    assert not result.protects
    assert result.privacy.epsilon is None
    assert result.privacy.reason == NO_NOISE


def test_a_strength_that_rounds_to_0_does_not_count_as_protection(backend):
    (result,) = backend.generate([request(strength=0.004)])
    assert result.strength == 0
    assert not result.protects


def test_more_strength_guarantees_more_and_pure_noise_everything(backend):
    results = backend.generate([request(strength=s) for s in (0.2, 0.5, 0.8, 1)])
    epsilons = [result.privacy.epsilon for result in results]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] == 0
    assert results[-1].sigma is None
    assert [result.sigma for result in results[:3]] == sorted(r.sigma for r in results[:3])


def test_public_noise_guarantees_nothing_at_any_strength(backend):
    key = NoiseKey.from_seed(1)
    for result in backend.generate([request(strength=s, key=key) for s in (0.2, 0.8, 1)]):
        assert result.privacy.epsilon is None
        assert result.privacy.reason == PUBLIC_NOISE


def test_a_face_that_the_model_cannot_make_fails_alone():
    model = tiny_model()
    with torch.no_grad():
        model.denoiser.out.bias.fill_(float("nan"))
    results = EmbeddedBackend(model).generate([request(strength=0), request(strength=0.5)])
    assert results[0].frame is not None
    assert results[1].frame is None
    assert results[1].failure


def test_no_requests_give_no_results(backend):
    assert backend.generate([]) == []


# --- Noise -----------------------------------------------------------------------------------


def noise_of(backend, **arguments):
    """Return what was added to the code of the standard face, from what the denoiser was given."""
    backend.model.denoiser.seen.clear()
    backend.generate([request(**arguments)])
    code = backend.model.code
    c = code.encode(torch.from_numpy(request().pixels)[None])
    c = code.clip(c, code.clip_radius(torch.ones_like(c)))
    return (backend.model.denoiser.seen[0]["y"] - c)[0].numpy()


def test_policies_revisions_and_keys_never_share_noise(linear):
    model = replace(linear.model, revision="other")
    noises = [
        noise_of(linear),
        noise_of(linear, policy=AttributePolicy(keep=("smiling",))),
        noise_of(linear, policy=AttributePolicy(hide=("smiling",))),
        noise_of(EmbeddedBackend(model)),
        noise_of(linear, key=NoiseKey(b"l" * 32, secret=True)),
    ]
    assert (noise_of(linear) == noises[0]).all()
    for i, one in enumerate(noises):
        for other in noises[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.7


def test_what_asks_for_a_value_only_or_names_in_another_order_is_the_same_code_and_noise(linear):
    asked = AttributePolicy(set={"smiling": "yes"})
    assert (noise_of(linear, policy=asked) == noise_of(linear)).all()
    one, other = (
        AttributePolicy(hide=names) for names in (("beard", "gender"), ("gender", "beard"))
    )
    assert (noise_of(linear, policy=one) == noise_of(linear, policy=other)).all()


def test_two_rungs_lie_on_one_path_and_are_no_scaled_copies(linear):
    low, high = noise_of(linear, strength=0.7), noise_of(linear, strength=0.75)
    assert np.corrcoef(low, high)[0, 1] > 0.7
    assert np.corrcoef(low, high - low)[0, 1] < 0.7


def test_the_order_and_company_of_requests_is_irrelevant(backend):
    requests = [request(frame(i), strength=s) for i, s in enumerate((0.2, 0.9, 1, 0, 0.5))]
    together = [result.frame for result in backend.generate(requests)]
    backwards = [result.frame for result in backend.generate(requests[::-1])][::-1]
    alone = pictures(backend, *requests)
    for one, other, third in zip(together, backwards, alone, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
        assert np.abs(one.astype(int) - third).max() <= 1


# --- Attributes ------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0, 0.3, 0.8, 1])
def test_a_hidden_coordinate_of_the_code_changes_nothing(backend, strength):
    one, other = frame(), changed(frame(), OWN)
    hide = AttributePolicy(hide=("gender",))

    def differ(policy):
        first, second = pictures(
            backend,
            request(one, strength=strength, policy=policy),
            request(other, strength=strength, policy=policy),
        )
        return bool((first != second).any())

    assert not differ(hide)
    assert differ(PLAIN) == (strength < 1)


def recovered(backend, where, policy):
    """Return how much of a change of the face's code is still in the variant's code."""
    one, other = request(frame(), policy=policy), request(changed(frame(), where), policy=policy)
    code = backend.model.code
    before, after = (
        torch.from_numpy(np.stack(frames))
        for frames in ([one.pixels, other.pixels], pictures(backend, one, other))
    )
    change = np.diff(code.encode(before).numpy(), axis=0)[0]
    left = np.diff(code.encode(after).numpy(), axis=0)[0]
    return float(left @ change / (change @ change))


def test_a_kept_attribute_survives_the_noise_better_and_nothing_else_does(linear):
    # The linear denoiser's path ends at y · sd / √(sd² + σ²), with the σ it is told, and a quarter
    # of it where kept.
    linear.model.code.sd.fill_(100.0)  # nothing is clipped
    linear.model.denoiser.sd.fill_(1.0)
    keep = AttributePolicy(keep=("gender",))
    sigma = CAUTION * linear.generate([request()])[0].sigma
    usual, kept = ((1 + (sigma / times) ** 2) ** -0.5 for times in (1, 4))
    others = MASK & ~OWN & ~BLIND
    assert kept > 1.08 * usual
    assert recovered(linear, OWN, PLAIN) == pytest.approx(usual, rel=0.04)
    assert recovered(linear, OWN, keep) == pytest.approx(kept, rel=0.04)
    assert recovered(linear, others, PLAIN) == pytest.approx(usual, rel=0.04)
    assert recovered(linear, others, keep) == pytest.approx(usual, rel=0.04)


def test_keeping_costs_privacy_and_hiding_does_not(backend):
    policies = [AttributePolicy(keep=("gender",)), PLAIN, AttributePolicy(hide=("gender",))]
    mus = [r.privacy.mu for r in backend.generate([request(policy=p) for p in policies])]
    assert mus == sorted(mus, reverse=True)
    assert mus[0] > mus[1]


def tokens_of(backend, *requests):
    """Return what the denoiser was told for each request, by attribute."""
    backend.model.denoiser.seen.clear()
    backend.generate(requests)
    tokens = backend.model.denoiser.seen[0]["attributes"].tolist()
    return [dict(zip(ATTRIBUTES, row, strict=True)) for row in tokens]


def test_only_set_and_hidden_attributes_are_asked_for(linear):
    policy = AttributePolicy(keep=("beard",), set={"eyeglasses": "yes", "smiling": "no"})
    plain, asked = tokens_of(linear, request(), request(policy=policy))
    assert plain == dict.fromkeys(ATTRIBUTES, NULL)
    assert asked == plain | {"eyeglasses": 1, "smiling": 0}


def test_where_an_attribute_is_hidden_the_surroundings_say_less_and_lend_no_colour(linear):
    linear.model.denoiser.seen.clear()
    made = linear.generate(
        [request(policy=policy) for policy in (PLAIN, AttributePolicy(hide=("gender",)))]
    )
    plain, hidden = linear.model.denoiser.seen[0]["context"]
    assert plain.abs().max() > 0
    assert torch.allclose(hidden, HIDDEN_TRUST * plain)
    assert [one.matches_colour for one in made] == [True, False]


def test_a_hidden_attribute_is_drawn_from_the_population_whatever_the_face(linear):
    hide = AttributePolicy(hide=("gender",))

    def draws(pixels, keys):
        asked = [request(pixels, key=key, policy=hide) for key in keys]
        return [tokens["gender"] for tokens in tokens_of(linear, *asked)]

    keys = [NoiseKey.from_seed(i) for i in range(300)]
    drawn = draws(frame(1), keys)
    assert set(drawn) == {0, 1}
    assert np.mean(drawn) == pytest.approx(linear.model.population["gender"], abs=0.1)
    assert draws(frame(5), keys[:20]) == drawn[:20]


# --- Weights ---------------------------------------------------------------------------------


def test_a_written_model_is_read_back(tmp_path):
    backend = EmbeddedBackend.load(write_tiny_model(tmp_path))
    assert len(backend.revision) == 12
    assert backend.generate([request()])[0].frame.shape == (128, 128, 3)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BROKEN = {
    "no folder": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "no weights": lambda folder: (folder / "denoiser" / WEIGHTS).unlink(),
    "no settings": lambda folder: (folder / "code" / "config.json").unlink(),
    "cut off weights": lambda folder: truncate(folder / "denoiser" / WEIGHTS),
    "cut off code": lambda folder: truncate(folder / "code" / WEIGHTS),
    "empty weights": lambda folder: (folder / "code" / WEIGHTS).write_bytes(b""),
    "settings that are no JSON": lambda folder: truncate(folder / "denoiser" / "config.json"),
    "settings of another kind": lambda folder: edit(folder / "code" / "config.json", hats=3),
    "settings of another size": lambda folder: edit(folder / "denoiser" / "config.json", width=64),
    "settings as a list": lambda folder: (folder / "code" / "config.json").write_text("[]"),
    "foreign calibration": lambda folder: edit(folder / CALIBRATION, weights="0" * 64),
    "cut off calibration": lambda folder: truncate(folder / CALIBRATION),
    "empty calibration": lambda folder: (folder / CALIBRATION).write_text("{}"),
    "falling calibration": lambda folder: edit(folder / CALIBRATION, sigmas=[4, 3, 2, 1]),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_damaged_model_folder_is_refused_with_a_way_out(tmp_path, damage):
    folder = write_tiny_model(tmp_path / "model")
    load_model(folder)
    damage(folder)
    with pytest.raises(ModelError, match=r"fit-model|calibrate"):
        load_model(folder)


def test_a_model_without_a_curve_cannot_be_used(tmp_path):
    folder = write_tiny_model(tmp_path, curve=None)
    assert load_model(folder).curve is None
    with pytest.raises(ModelError, match="calibrate"):
        EmbeddedBackend.load(folder)


# --- Baselines -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blur", "pixelate", "solid"])
def test_baselines_guarantee_nothing_and_only_solid_hides_the_face(name):
    baseline = load_backend(name)
    for result in baseline.generate([request(strength=s) for s in (0, 0.5, 1)]):
        assert result.privacy.basis == "measured only"
        assert result.privacy.epsilon is None
        assert result.privacy.reason
        assert result.sigma is None
        assert result.protects == (name == "solid")
        assert result.frame.shape == (128, 128, 3)


def difference(one, other):
    return np.abs(one.astype(float) - other)[MASK].mean()


@pytest.mark.parametrize("name", ["blur", "pixelate"])
def test_a_stronger_filter_leaves_less_of_the_face(name):
    baseline = load_backend(name)
    strengths = np.linspace(0, 1, 6)
    frames = pictures(baseline, *[request(strength=s) for s in strengths])
    spread = [picture[MASK].astype(float).std(0).mean() for picture in frames]
    assert difference(frames[0], frame()) == 0
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < spread[0] / 2


@pytest.mark.parametrize("name", ["blur", "pixelate"])
def test_filters_read_the_face_at_every_strength(name):
    baseline = load_backend(name)
    for strength in (0.5, 1):
        first, second = pictures(
            baseline,
            request(strength=strength),
            request(changed(frame(), MASK), strength=strength),
        )
        assert (first != second).any()


def test_solid_reads_the_surroundings_only():
    first, second = pictures(load_backend("solid"), request(frame(1)), request(frame(2)))
    assert (first == second).all()
    assert len(np.unique(first.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    "policy",
    [
        AttributePolicy(keep=("beard",)),
        AttributePolicy(hide=("beard",)),
        AttributePolicy(set={"beard": "no"}),
    ],
)
def test_a_filter_refuses_a_wish_it_cannot_fulfil(policy):
    with pytest.raises(InvalidArgumentError, match="beard"):
        load_backend("blur").generate([request(policy=policy)])


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(InvalidArgumentError) as error:
        load_backend("magic")
    assert "'magic'" in str(error.value)
    assert all(name in str(error.value) for name in BACKENDS)


def test_the_baselines_do_without_torch():
    code = (
        "import sys; from privacy_core.backends import load_backend; "
        "[load_backend(n) for n in ('blur', 'pixelate', 'solid')]; "
        "import privacy_core.anonymize; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
