"""Kept attributes: predicted from M, noised beside the code, read again from the noise alone."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from privacy_core.attributes import balanced_accuracy
from privacy_core.audit.anonymization.measures import Measurer
from privacy_core.audit.anonymization.settings import EMBEDDED, AuditConfig, Setting
from privacy_core.audit.anonymization.settings import KEEP as KEEP_ALL
from privacy_core.backends import FaceRequest
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.diffusion.denoiser import NULL
from privacy_core.diffusion.kept import KEPT_SHARE, keeps, kept_coordinates, values_drawn
from privacy_core.diffusion.model import PREDICTOR, load_model, save_model, weights_digest
from privacy_core.errors import ModelError
from privacy_core.faces.align import template_mask
from privacy_core.noise import NoiseKey
from privacy_core.privacy import matched_filter_tpr, mu_of
from privacy_core.schema import ATTRIBUTES, AttributePolicy
from tests.privacy_core.tiny import (
    linear_denoiser,
    separable_code,
    tiny_code,
    tiny_denoiser,
    tiny_model,
    tiny_predictor,
    write_tiny_model,
)

QUAD = np.array([[0, 0], [127, 0], [127, 127], [0, 127]], np.float32)
MASK = template_mask()
KEEP = AttributePolicy(keep=("gender",))
EVERY = AttributePolicy(keep=tuple(ATTRIBUTES))


@pytest.fixture(scope="module")
def predictor():
    torch.set_num_threads(1)
    return tiny_predictor()


@pytest.fixture
def backend(predictor):
    code = separable_code()
    return EmbeddedBackend(tiny_model(code, linear_denoiser(code), predictor=predictor))


def face(level):
    return np.full((128, 128, 3), level, np.uint8)


def request(pixels, *, strength=0.5, key=None, policy=KEEP):
    key = key or NoiseKey.from_seed(0)
    return FaceRequest(pixels * MASK[..., None], face(128), QUAD, strength, key, policy)


def genders(backend, requests):
    backend.model.denoiser.seen.clear()
    backend.generate(requests)
    return [row[0] for row in backend.model.denoiser.seen[0]["attributes"].tolist()]


def test_only_kept_attributes_that_the_predictor_knows_have_a_number(predictor):
    assert keeps(predictor, EVERY).tolist() == [True, False, False, False, False]
    assert not keeps(predictor, AttributePolicy(hide=("gender",))).any()
    assert not keeps(None, EVERY).any()


def test_the_number_says_what_is_predicted_from_m_alone(predictor):
    light, dark = face(190), face(60)
    surrounded = np.where(MASK[..., None], dark, light)
    frames = torch.from_numpy(np.stack([light, dark, surrounded, light]))
    kept = torch.stack([keeps(predictor, KEEP)] * 3 + [keeps(predictor, AttributePolicy())])
    found = kept_coordinates(predictor, frames, kept, 2.5)
    assert found[:, 0].tolist() == [2.5, -2.5, -2.5, 0.0]
    assert not found[:, 1:].any()


@pytest.mark.parametrize("sigma", [0.5, 1.5, 6.0])
def test_a_value_is_drawn_from_what_the_noise_leaves_open(sigma):
    # Over noise and draws the share of value 1 is the population's, and a value told to be likely
    # with probability p is right that often.
    rng, prior, n = np.random.default_rng(0), 0.3, 6000
    truth = rng.random(n) < prior
    noised = np.where(truth, 1.0, -1.0) + sigma * rng.normal(size=n)
    drawn = np.array([
        values_drawn([y, 0, 0, 0, 0], sigma=sigma, amplitude=1.0, population={"gender": prior},
                     uniforms={"gender": u})["gender"]
        for y, u in zip(noised, rng.random(n), strict=True)
    ])  # fmt: skip
    assert drawn.mean() == pytest.approx(prior, abs=0.025)
    odds = prior * np.exp(-((noised - 1) ** 2) / (2 * sigma**2))
    against = (1 - prior) * np.exp(-((noised + 1) ** 2) / (2 * sigma**2))
    assert (drawn == truth).mean() == pytest.approx(
        np.mean(np.where(truth, odds, against) / (odds + against)), abs=0.025
    )


def test_a_kept_attribute_outlives_the_noise_and_dies_at_pure_noise(backend):
    keys = [NoiseKey.from_seed(i) for i in range(150)]

    def told(strength):
        asked = [request(face(190 if i % 2 else 60), strength=strength, key=key)
                 for i, key in enumerate(keys)]  # fmt: skip
        found = np.concatenate([genders(backend, asked[i : i + 50]) for i in (0, 50, 100)])
        return balanced_accuracy(found, np.arange(150) % 2)

    assert told(0.3) == 1
    # The tiny model's σ there is nearly the number's length.
    assert 0.65 < told(0.8) < 1
    # At pure noise a draw from the population is left, the same for every face.
    ends = [genders(backend, [request(face(level), strength=1.0, key=key)
                              for key in keys[:50]]) for level in (60, 190)]  # fmt: skip
    assert ends[0] == ends[1]
    assert set(ends[0]) == {0, 1}


def test_strength_0_and_what_is_not_kept_ask_for_nothing(backend):
    plain = AttributePolicy()
    assert genders(backend, [request(face(60), policy=plain)]) == [NULL]
    assert genders(backend, [request(face(60), policy=AttributePolicy(keep=("beard",)))]) == [NULL]
    assert backend.generate([request(face(60), strength=0.0)])[0].frame is not None


def test_its_number_is_paid_for_in_mu(backend):
    code = backend.model.code
    secret = NoiseKey(b"k" * 32, secret=True)
    found = {name: backend.generate([request(face(60), key=secret, policy=policy)])[0].privacy.mu
             for name, policy in (("kept", KEEP), ("plain", AttributePolicy()))}  # fmt: skip
    sigma = backend.generate([request(face(60))])[0].sigma
    scaled = float(code.clip_radius(code.policy_factors(KEEP)[None])[0])
    length = math.hypot(scaled, KEPT_SHARE * backend.clip_radius)
    assert backend.radius_of(KEEP) == pytest.approx(length)
    assert found["kept"] == pytest.approx(mu_of(sigma, length))
    assert found["plain"] == pytest.approx(mu_of(sigma, backend.clip_radius))


def test_no_two_inputs_lie_further_apart_than_the_radius_promises(backend):
    requests = [request(face(level)) for level in (0, 60, 190, 255)]
    factors = torch.stack([backend.model.code.policy_factors(KEEP)] * 4)
    noised = backend._clipped(requests, factors)
    assert noised.shape[1] == backend.model.code.sizes.n_components + len(ATTRIBUTES)
    assert (noised.norm(dim=1) <= backend.radius_of(KEEP) * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    "policy", [KEEP, AttributePolicy(), AttributePolicy(keep=("gender",), hide=("age_group",))]
)
def test_who_attacks_what_is_noised_gets_all_of_it(backend, policy):
    requests = [request(face(level), policy=policy) for level in (0, 60, 190, 255)]
    pixels = np.stack([one.pixels for one in requests])
    factors = torch.stack([backend.model.code.policy_factors(policy)] * 4)
    likely = torch.from_numpy(backend.model.predictor.predict(pixels))
    codes = backend.model.code.encode(torch.from_numpy(pixels))
    found = backend.noised_part(codes, likely, policy)
    assert torch.allclose(found, backend._clipped(requests, factors))


def test_the_audit_s_worst_case_counts_the_kept_numbers(backend):
    n = 40
    frames = np.stack([face(190 if i % 2 else 60) for i in range(n)])
    codes = np.random.default_rng(0).normal(size=(n, backend.model.code.sizes.n_components))
    test = {
        "person": np.arange(n), "slot": np.zeros(n, int), "code": codes,
        "request_code": codes.astype(np.float32),
        "request_kept": backend.model.predictor.predict(frames),
    }  # fmt: skip
    gathered = SimpleNamespace(originals={"test": test})
    measurer = Measurer(
        gathered, AuditConfig(settings=(Setting(EMBEDDED, 0.8),)), backend, None, None, None
    )
    seen, told = {"code": codes, "released": np.ones(n, bool)}, {}
    for name in (KEEP_ALL, ""):
        setting = Setting(EMBEDDED, 0.8, name)
        found = measurer._matched(setting, seen)
        distance = 2 * backend.radius_of(setting.policy)
        assert found["pair_tpr_allowed"] == matched_filter_tpr(
            distance, measurer.sigma_of(setting), fpr=1e-3
        )
        told[name] = found["pair_tpr_expected"]
    assert told[KEEP_ALL] > told[""]


def test_a_predictor_is_part_of_the_model_and_of_its_digest(tmp_path, predictor):
    folder, code = tmp_path / "model", tiny_code()
    folder.mkdir()
    save = {"population": dict.fromkeys(ATTRIBUTES, 0.5), "curve": None}
    save_model(folder, code, tiny_denoiser(code), **save)
    without = weights_digest(folder)
    save_model(folder, code, tiny_denoiser(code), **save, predictor=predictor)
    read = load_model(folder).predictor
    frames = np.stack([face(60), face(190)])
    assert read.config == replace(predictor.config)
    assert np.allclose(read.predict(frames), predictor.predict(frames), equal_nan=True)
    assert weights_digest(folder) != without
    save_model(folder, code, tiny_denoiser(code), **save)
    assert load_model(folder).predictor is None
    assert weights_digest(folder) == without


@pytest.mark.parametrize("file", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_half_a_predictor_is_refused(tmp_path, predictor, file):
    folder, code = write_tiny_model(tmp_path / "model"), tiny_code()
    population = dict.fromkeys(ATTRIBUTES, 0.5)
    save_model(folder, code, tiny_denoiser(code), population=population, curve=None,
               predictor=predictor)  # fmt: skip
    (folder / PREDICTOR / file).unlink()
    with pytest.raises(ModelError, match="fit-model"):
        load_model(folder)
