"""Calibration: the threshold, the anchors of the curve, whose photos count, a whole small run."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.calibrate import (
    CalibrationSet,
    Measurement,
    calibrate_model,
    calibration,
    fit_curve,
    held_out,
    measure_variants,
    measuring,
    spread,
    verification_threshold,
)
from privacy_core.diffusion.prepare import pixel_digest, split_of
from privacy_core.diffusion.sampler import CAUTION
from privacy_core.diffusion.training import SIGMA_MAX
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import fit_alignment, warp_to_template
from privacy_core.noise import NoiseKey
from privacy_core.records import Records
from privacy_core.schema import Photo
from tests.privacy_core.crews import together
from tests.privacy_core.tiny import FixedDetector, face_at, linear_denoiser, tiny_code, tiny_model

FACE = face_at(6, 8)
SIGMAS = np.geomspace(0.02, 18, 12)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def quiet(*_):
    return None


# --- Threshold -------------------------------------------------------------------------------


def test_the_threshold_lets_one_in_a_hundred_pairs_of_strangers_match():
    rng = np.random.default_rng(0)
    embeddings, people = rng.normal(size=(60, 8)), np.repeat(np.arange(30), 2)
    people[:6] = -1
    # Two photos of one person lie close together and must not count.
    embeddings[1::2] = embeddings[::2] + 1e-3
    embeddings[:6] = rng.normal(size=(6, 8))
    threshold, n_pairs = verification_threshold(embeddings, people, false_accept_rate=0.01)
    distances = [
        float(np.linalg.norm(embeddings[i] - embeddings[j]))
        for i, j in itertools.combinations(range(60), 2)
        if people[i] != people[j] or people[i] < 0
    ]
    assert n_pairs == len(distances) == 60 * 59 // 2 - 27
    matches = sum(distance < threshold for distance in distances)
    assert matches / n_pairs == pytest.approx(0.01, abs=1 / n_pairs)
    assert threshold > 0.1


def test_too_few_pairs_of_strangers_are_refused_with_both_numbers():
    embeddings = np.random.default_rng(0).normal(size=(60, 8))
    with pytest.raises(InvalidArgumentError, match=r"at least 10000 pairs.*got 1770"):
        verification_threshold(embeddings, np.arange(60))
    with pytest.raises(InvalidArgumentError, match="got 0"):
        verification_threshold(embeddings, np.zeros(60, int), false_accept_rate=0.01)


# --- Curve -----------------------------------------------------------------------------------


def measurement(rates, *, n=100_000, no_noise=1.0):
    """Return a measurement in which these shares of the variants are verified below 0.5."""
    all_rates = np.array([no_noise, *rates])
    ranks = (np.arange(n) + 0.5) / n
    distances = np.where(ranks < all_rates[:, None], 0.3, 0.8)
    empty = np.zeros((n, 1))
    return Measurement(
        np.linspace(0, 1, len(all_rates)), distances, np.ones_like(distances, bool), empty,
        np.zeros((len(all_rates), n, 1)), np.arange(n), 3,
    )  # fmt: skip


def falling():
    """Return shares that fall linearly in ln σ from 1 to 0."""
    return np.linspace(1, 0, 12)


def sigma_at(rate):
    """Return where `falling` has this share."""
    low, high = np.log(SIGMAS[[0, -1]])
    return float(np.exp(low + (1 - rate) * (high - low)))


def upper_bound(hits, n):
    """Return the share p at which so few hits have a chance of 10 %, by bisection."""
    low, high = hits / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binom.cdf(hits, n, middle) > 0.1 else (low, middle)
    return low


def test_the_anchors_lie_where_a_half_and_a_fiftieth_are_verified():
    curve = fit_curve(measurement(falling(), n=300_000), SIGMAS, 0.5)
    assert curve.strengths == (0.0, 0.5, 0.8, 1.0)
    assert curve.sigmas[1] == pytest.approx(sigma_at(0.5), rel=0.02)
    assert curve.sigmas[2] == pytest.approx(sigma_at(0.02), rel=0.02)
    assert curve.sigmas[0] == pytest.approx(SIGMAS[0])


@pytest.mark.parametrize("n", [130, 500])
def test_each_anchor_is_where_the_upper_confidence_bound_meets_its_share(n):
    counts = np.round(falling() * n)
    curve = fit_curve(measurement(counts / n, n=n), SIGMAS, 0.5)
    bounds = [1.0 if hits == n else upper_bound(hits, n) for hits in counts]
    for sigma, share in zip(curve.sigmas[1:3], (0.5, 0.02), strict=True):
        below = next(i for i, bound in enumerate(bounds) if bound <= share)
        at = np.interp(
            np.log(sigma), np.log(SIGMAS[[below - 1, below]]), bounds[below - 1 : below + 1]
        )
        assert at == pytest.approx(share, abs=1e-6)


def test_fewer_faces_ask_for_more_noise():
    few, many = (
        fit_curve(measurement(np.round(falling() * n) / n, n=n), SIGMAS, 0.5).sigmas
        for n in (200, 50_000)
    )
    assert few[1] > many[1] * 1.02
    assert few[2] > many[2] * 1.02


def test_a_bump_in_the_measured_shares_is_smoothed_out():
    rates = np.array([1, 1, 1, 1, 0.8, 0.3, 0.6, 0, 0, 0, 0, 0])
    curve = fit_curve(measurement(rates, n=300_000), SIGMAS, 0.5)
    # 0.3 and 0.6 become 0.45 twice, so a half lies between 0.8 and 0.45.
    low, high = np.log(SIGMAS[[4, 5]])
    expected = np.exp(low + (0.8 - 0.5) / (0.8 - 0.45) * (high - low))
    assert curve.sigmas[1] == pytest.approx(float(expected), rel=0.01)


def test_strength_begins_to_act_where_the_first_faces_are_lost():
    rates = np.array([1, 0.995, 0.99, 0.7, 0.4, 0.2, 0, 0, 0, 0, 0, 0])
    assert fit_curve(measurement(rates), SIGMAS, 0.5).sigmas[0] == pytest.approx(SIGMAS[2])


@pytest.mark.parametrize("last", [0.05, 0.9])
def test_a_model_that_cannot_meet_an_anchor_is_refused(last):
    with pytest.raises(InvalidArgumentError, match="down to"):
        fit_curve(measurement(np.linspace(1, last, 12)), SIGMAS, 0.5)


def test_too_few_faces_to_show_two_percent_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"2%.*more faces"):
        fit_curve(measurement(falling(), n=50), SIGMAS, 0.5)


@pytest.mark.parametrize(("no_noise", "rates"), [(0.3, np.zeros(12)), (1.0, np.zeros(12))])
def test_a_model_that_loses_everybody_at_once_is_refused(no_noise, rates):
    with pytest.raises(InvalidArgumentError, match="without noise"):
        fit_curve(measurement(rates, no_noise=no_noise), SIGMAS, 0.5)


@pytest.mark.parametrize("shift", [0, 4, 6])
def test_the_top_of_the_curve_stays_within_the_trained_noise(shift):
    rates = np.concatenate([np.ones(shift), np.linspace(1, 0, 12 - shift)])
    curve = fit_curve(measurement(rates), SIGMAS, 0.5)
    assert curve.sigmas[-2] < curve.sigmas[-1]
    assert CAUTION * curve.sigmas[-1] <= 1.25 * SIGMA_MAX * (1 + 1e-9)
    assert curve.sigmas[-1] >= SIGMA_MAX / 2


def test_the_curve_tells_how_it_was_measured():
    facts = fit_curve(measurement(falling(), n=1000), SIGMAS, 0.5).measured
    assert facts["threshold"] == 0.5
    assert facts["n_faces"] == 1000
    assert facts["no_face"] == 3
    assert facts["false_accept_rate"] == 1e-3
    assert facts["sigmas"] == pytest.approx(SIGMAS)
    assert facts["verified"] == pytest.approx([1.0, *falling()], abs=1e-3)
    assert facts["median_distance"][0] == 0.3
    assert len(facts["detected"]) == 13


# --- Whose photos ----------------------------------------------------------------------------


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), pixels


def names(low, high, n):
    found = (f"p{i}" for i in range(10_000) if low <= split_of(f"p{i}", "") <= high)
    return list(itertools.islice(found, n))


def test_only_people_of_the_calibration_split_are_held_out_and_grouped():
    for split in range(100):
        (name,) = names(split, split, 1)
        photos, people = held_out([{"image": picture(1)[0], "identity": name}] * 2)
        assert len(photos) == (2 if 70 <= split <= 79 else 0)
        assert people == [0] * len(photos)


def test_people_are_numbered_in_order_of_appearance():
    a, b = names(70, 79, 2)
    rows = [{"photo": picture(i)[0], "identity": who} for i, who in enumerate([a, b, a])]
    photos, people = held_out(rows, image_column="photo")
    assert people == [0, 1, 0]
    assert np.array_equal(photos[1].pixels, picture(1)[1])


def test_pictures_of_nobody_known_are_split_by_their_pixels():
    rows = [{"image": picture(seed)[0], "identity": None} for seed in range(60)]
    photos, people = held_out(rows)
    kept = {pixel_digest(photo.pixels) for photo in photos}
    digests = [pixel_digest(picture(seed)[1]) for seed in range(60)]
    assert kept == {digest for digest in digests if 70 <= split_of(None, digest) <= 79}
    assert 0 < len(kept) < 60
    assert set(people) == {-1}


def test_rows_without_a_readable_picture_are_left_out():
    (name,) = names(70, 79, 1)
    rows = [{"image": image, "identity": name} for image in (None, b"no", picture(0)[0])]
    assert len(held_out(rows)[0]) == 1


# --- Measuring -------------------------------------------------------------------------------


class CodeRecogniser:
    """Tells faces apart by their code; remembers which landmarks it was given."""

    name = "code"

    def __init__(self, code):
        self.code, self.seen = code, []

    def embed(self, pixels, landmarks):
        self.seen.append(landmarks)
        frame = torch.tensor(warp_to_template(pixels, fit_alignment(landmarks)))
        return self.code.encode(frame[None])[0].double().numpy()

    def distance(self, one, other):
        return float(np.linalg.norm(one - other))


class BlindToVariants(FixedDetector):
    """Finds the face in photos it was shown before, and none, or one elsewhere, in variants."""

    def __init__(self, photos, *elsewhere):
        super().__init__(FACE)
        self.known, self.elsewhere = {pixel_digest(p.pixels) for p in photos}, list(elsewhere)

    def detect(self, pixels):
        return super().detect(pixels) if pixel_digest(pixels) in self.known else self.elsewhere


@pytest.fixture(scope="module")
def code():
    torch.set_num_threads(1)
    return tiny_code()


def photos_of(code, n):
    """Return photos whose faces are drawn from the code's own population."""
    frames = code.decode(torch.randn(n, 24, generator=torch.Generator().manual_seed(0)))
    photos = []
    for frame in frames.numpy():
        pixels = np.full((140, 140, 3), 128, np.uint8)
        pixels[8:136, 6:134] = frame
        photos.append(Photo(pixels))
    return photos


def measure(
    code, photos, records, *, detector=None, strengths=(0.0, 0.5, 1.0), recogniser=None,
    secret=bytes(32),
):  # fmt: skip
    backend = EmbeddedBackend(tiny_model(code, linear_denoiser(code)))
    chosen = CalibrationSet(
        photos, range(len(photos)), detector or FixedDetector(FACE),
        recogniser or CodeRecogniser(code), records, quiet,
    )  # fmt: skip
    keys = [NoiseKey.from_row(secret, str(i)) for i in range(len(photos))]
    return measure_variants(
        Anonymizer(backend, chosen.detector), chosen, strengths=strengths, keys=keys
    )


@pytest.fixture
def fresh(tmp_path):
    """Return what makes records in which nothing is kept yet."""
    number = itertools.count()
    return lambda: Records(tmp_path / f"records{next(number)}", {})


def test_distances_grow_with_strength_and_belong_to_their_photo(code, fresh):
    photos = photos_of(code, 5)
    measured = measure(code, photos, fresh())
    assert measured.distances.shape == measured.detected.shape == (3, 5)
    assert measured.originals.shape == (5, 24)
    assert measured.variants.shape == (3, 5, 24)
    assert measured.people.tolist() == [0, 1, 2, 3, 4]
    assert measured.detected.all()
    distances = np.median(measured.distances, axis=1)
    assert distances[0] < distances[1] < distances[2]
    for i, photo in enumerate(photos):
        original = CodeRecogniser(code).embed(photo.pixels, FACE.landmarks)
        assert np.allclose(measured.originals[i], original)
        expected = np.linalg.norm(measured.variants[1, i] - original)
        assert measured.distances[1, i] == pytest.approx(expected)


def test_photos_without_a_face_are_left_out_and_counted(code, fresh):
    photos = photos_of(code, 3)
    measured = measure(code, photos, fresh(), detector=BlindToVariants([photos[0], photos[2]]))
    assert measured.no_face == 1
    assert measured.people.tolist() == [0, 2]
    with pytest.raises(InvalidArgumentError, match="got 3 without"):
        measure(code, photos, fresh(), detector=FixedDetector())


def test_a_variant_without_a_face_is_still_compared_at_the_originals_landmarks(code, fresh):
    photos = photos_of(code, 2)
    for elsewhere in ((), (face_at(-100, -100),)):
        recogniser = CodeRecogniser(code)
        detector = BlindToVariants(photos, *elsewhere)
        measured = measure(code, photos, fresh(), detector=detector, recogniser=recogniser)
        assert not measured.detected.any()
        assert all(np.array_equal(points, FACE.landmarks) for points in recogniser.seen)
        assert np.isfinite(measured.distances).all()


def test_a_found_variant_is_compared_at_its_own_landmarks(code, fresh):
    photos, recogniser, moved = photos_of(code, 1), CodeRecogniser(code), face_at(8, 9)
    detector = BlindToVariants(photos, face_at(-100, -100), moved)
    measured = measure(code, photos, fresh(), detector=detector, recogniser=recogniser)
    assert measured.detected.all()
    assert np.array_equal(recogniser.seen[0], FACE.landmarks)
    assert all(np.array_equal(points, moved.landmarks) for points in recogniser.seen[1:])


def test_processes_share_the_photos_and_an_interrupted_measurement_goes_on(
    code, tmp_path, monkeypatch
):
    monkeypatch.setattr(measuring, "_CHUNK", 2)
    photos = photos_of(code, 5)
    secret = Records(tmp_path / "one", {}).secret()

    def act(crew, place="one", recogniser=None):
        return measure(
            code, photos, Records(tmp_path / place, {}, crew),
            detector=BlindToVariants([*photos[:2], *photos[3:]]), recogniser=recogniser,
            secret=secret,
        )  # fmt: skip

    (alone,) = together(1, act)
    (tmp_path / "one" / "measured photos 000002.npz").unlink()
    again = CodeRecogniser(code)
    (resumed,) = together(1, lambda crew: act(crew, recogniser=again))
    assert len(again.seen) == 4  # the one photo of that chunk in which a face is found
    for found in (resumed, *together(2, lambda crew: act(crew, "two"))):
        assert found.no_face == alone.no_face == 1
        for name in ("distances", "detected", "originals", "variants", "people"):
            assert np.array_equal(getattr(found, name), getattr(alone, name)), name


def closed_form_distances(sigma, n, *, seed=0):
    """Return ‖x₀ − c‖ for x₀ = (c + σ n)/√(1 + σ²), the end of the ODE of normal codes."""
    codes, normals = np.random.default_rng(seed).normal(size=(2, n, 24))
    return np.linalg.norm((codes + sigma * normals) / np.sqrt(1 + sigma**2) - codes, axis=1)


def test_calibration_reads_the_noise_it_measured_at(code, fresh, monkeypatch):
    # The closed form stands in for two thousand variants; photos only give the typical distance.
    def measured(anonymizer, chosen, *, strengths, keys):
        assert all(key.secret for key in keys)
        assert len({key.material for key in keys}) == len(chosen.photos)
        curve = anonymizer.backend.curve
        noise = [curve.rung_sigmas()[curve.rung(s) - 1] if s else 0.0 for s in strengths]
        distances = np.stack([closed_form_distances(s, 300, seed=1) for s in noise])
        originals = np.random.default_rng(2).normal(size=(300, 24))
        variants = np.zeros((len(strengths), 300, 24))
        found = np.ones(distances.shape, bool)
        people = np.full(300, -1)
        return Measurement(np.array(strengths), distances, found, originals, variants, people, 0)

    monkeypatch.setattr(calibration, "measure_variants", measured)
    model = tiny_model(code, linear_denoiser(code), curve=None)
    curve = calibrate_model(
        model,
        CalibrationSet(
            photos_of(code, 30),
            [-1] * 30,
            FixedDetector(FACE),
            CodeRecogniser(code),
            fresh(),
            quiet,
        ),
    )
    assert curve.strengths == (0.0, 0.5, 0.8, 1.0)
    assert curve.measured["recogniser"] == "code"
    assert curve.measured["n_faces"] == 300
    assert curve.measured["n_pairs"] == 300 * 299 // 2
    assert len(curve.measured["sigmas"]) == 10
    # Codes have deviation one, so two of them lie √(2 · 24) apart.
    assert curve.measured["typical_code_distance"] == pytest.approx(48**0.5, rel=0.1)
    shares = [
        (closed_form_distances(sigma, 4000) < curve.measured["threshold"]).mean()
        for sigma in curve.sigmas[1:3]
    ]
    assert 0.35 < shares[0] < 0.55
    assert shares[1] < 0.022
    assert curve.sigmas[2] < 10


def test_the_photos_measured_are_spread_over_known_people_where_there_are_enough():
    photos = [object() for _ in range(6)]
    people = [-1, 0, 1, -1, 2, 3]
    assert spread(photos, people, 2) == ([photos[1], photos[5]], [0, 3])
    assert spread(photos, people, 5)[1] == [-1, 0, 1, -1, 3]
    assert spread(photos, people, 50) == (photos, people)
