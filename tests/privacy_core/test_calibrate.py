"""Calibration: the threshold, the anchors of the curve, whose photos count, a whole small run."""

import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from privacy_core.anonymize import Anonymizer, OpenPhoto
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
from privacy_core.errors import FaceFailedError, InvalidArgumentError
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


def measurement(rates, *, n=100_000, no_noise=1.0, threshold=0.5, recogniser="first"):
    """Return a measurement in which these shares of the variants are verified, in one draw."""
    all_rates = np.array([no_noise, *rates])
    ranks = (np.arange(n) + 0.5) / n
    distances = np.where(ranks < all_rates[:, None], 0.6 * threshold, 1.6 * threshold)[:, :, None]
    # Fewer originals than faces: all pairs of strangers lie at the threshold, and 150 are enough.
    originals = np.repeat(np.eye(150), 2, axis=1) * threshold / 2
    return Measurement(
        recogniser, np.linspace(0, 1, len(all_rates)), distances, np.ones_like(distances, bool),
        originals, np.arange(150), 3,
    )  # fmt: skip


def draws(*each):
    """Return one measurement of which these are the draws of noise."""
    return replace(
        each[0],
        distances=np.concatenate([one.distances for one in each], axis=2),
        detected=np.concatenate([one.detected for one in each], axis=2),
    )


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
    curve = fit_curve([measurement(falling(), n=300_000)], SIGMAS)
    assert curve.strengths == (0.0, 0.5, 0.8, 1.0)
    assert curve.sigmas[1] == pytest.approx(sigma_at(0.5), rel=0.02)
    assert curve.sigmas[2] == pytest.approx(sigma_at(0.02), rel=0.02)
    assert curve.sigmas[0] == pytest.approx(SIGMAS[0])


@pytest.mark.parametrize("n", [130, 500])
def test_each_anchor_is_where_the_upper_confidence_bound_meets_its_share(n):
    counts = np.round(falling() * n)
    curve = fit_curve([measurement(counts / n, n=n)], SIGMAS)
    bounds = [1.0 if hits == n else upper_bound(hits, n) for hits in counts]
    for sigma, share in zip(curve.sigmas[1:3], (0.5, 0.02), strict=True):
        below = next(i for i, bound in enumerate(bounds) if bound <= share)
        at = np.interp(
            np.log(sigma), np.log(SIGMAS[[below - 1, below]]), bounds[below - 1 : below + 1]
        )
        assert at == pytest.approx(share, abs=1e-6)


def test_fewer_faces_ask_for_more_noise():
    few, many = (
        fit_curve([measurement(np.round(falling() * n) / n, n=n)], SIGMAS).sigmas
        for n in (200, 50_000)
    )
    assert few[1] > many[1] * 1.02
    assert few[2] > many[2] * 1.02


def test_a_bump_in_the_measured_shares_is_smoothed_out():
    rates = np.array([1, 1, 1, 1, 0.8, 0.3, 0.6, 0, 0, 0, 0, 0])
    curve = fit_curve([measurement(rates, n=300_000)], SIGMAS)
    # 0.3 and 0.6 become 0.45 twice, so a half lies between 0.8 and 0.45.
    low, high = np.log(SIGMAS[[4, 5]])
    expected = np.exp(low + (0.8 - 0.5) / (0.8 - 0.45) * (high - low))
    assert curve.sigmas[1] == pytest.approx(float(expected), rel=0.01)


def test_strength_begins_to_act_where_the_first_faces_are_lost():
    rates = np.array([1, 0.995, 0.99, 0.7, 0.4, 0.2, 0, 0, 0, 0, 0, 0])
    assert fit_curve([measurement(rates)], SIGMAS).sigmas[0] == pytest.approx(SIGMAS[2])


@pytest.mark.parametrize("last", [0.05, 0.9])
def test_a_model_that_cannot_meet_an_anchor_is_refused(last):
    with pytest.raises(InvalidArgumentError, match="down to"):
        fit_curve([measurement(np.linspace(1, last, 12))], SIGMAS)


def test_too_few_faces_to_show_two_percent_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"2%.*more faces"):
        fit_curve([measurement(falling(), n=50)], SIGMAS)


@pytest.mark.parametrize(("no_noise", "rates"), [(0.3, np.zeros(12)), (1.0, np.zeros(12))])
def test_a_model_that_loses_everybody_at_once_is_refused(no_noise, rates):
    with pytest.raises(InvalidArgumentError, match="without noise"):
        fit_curve([measurement(rates, no_noise=no_noise)], SIGMAS)


@pytest.mark.parametrize("shift", [0, 4, 6])
def test_the_top_of_the_curve_stays_within_the_trained_noise(shift):
    rates = np.concatenate([np.ones(shift), np.linspace(1, 0, 12 - shift)])
    curve = fit_curve([measurement(rates)], SIGMAS)
    assert curve.sigmas[-2] < curve.sigmas[-1]
    assert CAUTION * curve.sigmas[-1] <= 1.25 * SIGMA_MAX * (1 + 1e-9)
    assert curve.sigmas[-1] >= SIGMA_MAX / 2


def test_the_curve_tells_how_it_was_measured():
    facts = fit_curve([measurement(falling(), n=1000)], SIGMAS).measured
    assert facts["threshold"] == 0.5
    assert facts["n_faces"] == 1000
    assert facts["no_face"] == 3
    assert facts["false_accept_rate"] == 1e-3
    assert facts["sigmas"] == pytest.approx(SIGMAS)
    assert facts["verified"] == pytest.approx([1.0, *falling()], abs=1e-3)
    assert facts["median_distance"][0] == 0.3
    assert len(facts["detected"]) == 13
    assert facts["recogniser"] == "first"
    assert facts["n_pairs"] == 150 * 149 // 2
    assert facts["n_draws"] == 1
    assert facts["others"] == {}


# --- Several recognisers, several draws --------------------------------------------------------


def test_the_first_recogniser_sets_the_anchors_whatever_others_find():
    # Distances of another size: each recogniser has its own threshold.
    slow = measurement(falling(), threshold=2.0, recogniser="second")
    steep = measurement(falling() ** 2)
    for first, other in ((slow, steep), (steep, slow)):
        assert fit_curve([first, other], SIGMAS).sigmas == fit_curve([first], SIGMAS).sigmas
    assert fit_curve([slow], SIGMAS).sigmas != pytest.approx(
        fit_curve([steep], SIGMAS).sigmas, rel=0.01
    )


def test_the_curve_tells_what_every_recogniser_found_and_speaks_of_the_first():
    first = measurement(falling() ** 2, n=1000)
    second = measurement(falling(), n=1000, threshold=2.0, recogniser="second")
    facts = fit_curve([first, second], SIGMAS).measured
    by_itself = fit_curve([second], SIGMAS).measured
    names = ("threshold", "n_pairs", "verified", "median_distance")
    assert facts["others"] == {"second": {name: by_itself[name] for name in names}}
    assert facts["others"]["second"]["threshold"] == 2.0
    assert {**facts, "others": {}} == fit_curve([first], SIGMAS).measured
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("place", [0, 1])
def test_too_few_pairs_of_strangers_are_refused_for_any_recogniser(place):
    measured = [measurement(falling()), measurement(falling(), recogniser="second")]
    few = measured[place]
    measured[place] = replace(few, originals=few.originals[:100], people=few.people[:100])
    with pytest.raises(InvalidArgumentError, match=r"at least 10000 pairs.*got 4950"):
        fit_curve(measured, SIGMAS)


@pytest.mark.parametrize("n", [200, 1000])
def test_more_draws_of_the_same_photos_do_not_narrow_the_confidence_bound(n):
    once = measurement(np.round(falling() * n) / n, n=n)
    curve, twice = (fit_curve([each], SIGMAS) for each in (once, draws(once, once)))
    assert twice.sigmas == curve.sigmas
    assert twice.measured == {**curve.measured, "n_draws": 2}


def test_every_draw_of_noise_counts():
    one, other = measurement(falling()), measurement(falling() ** 2)
    other = replace(other, detected=~other.detected)
    mean = measurement((falling() + falling() ** 2) / 2)
    expected = fit_curve([mean], SIGMAS)
    for both in (draws(one, other), draws(other, one)):
        curve = fit_curve([both], SIGMAS)
        assert curve.sigmas == pytest.approx(expected.sigmas, rel=1e-3)
        assert curve.measured["verified"] == pytest.approx(expected.measured["verified"], abs=1e-4)
        assert curve.measured["detected"] == [0.5] * 13
    apart = draws(measurement(falling()), measurement(falling(), no_noise=0.0))
    # Half of all variants without noise lie at 0.3, the other half at 0.8.
    assert fit_curve([apart], SIGMAS).measured["median_distance"][0] == pytest.approx(0.55)


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


class Halves(CodeRecogniser):
    """Tells faces apart by half of their code, on another scale."""

    name = "halves"

    def embed(self, pixels, landmarks):
        return 10 * super().embed(pixels, landmarks)[:12]


def noise_keys(photos, secret=bytes(32), *, n_draws=1):
    """Return the keys of the noise of each photo."""
    return [
        [NoiseKey.from_row(secret, str(i)).child(f"{draw}") for draw in range(n_draws)]
        for i in range(len(photos))
    ]


def measure_all(
    code, photos, records, *, recognisers, detector=None, strengths=(0.0, 0.5, 1.0), keys=None
):
    backend = EmbeddedBackend(tiny_model(code, linear_denoiser(code)))
    finder = detector or FixedDetector(FACE)
    chosen = CalibrationSet(photos, range(len(photos)), finder, finder, recognisers, records, quiet)
    return measure_variants(
        Anonymizer(backend, chosen.detector), chosen, strengths=strengths,
        keys=keys or noise_keys(photos),
    )  # fmt: skip


def measure(code, photos, records, *, recogniser=None, **others):
    (one,) = measure_all(
        code, photos, records, recognisers=[recogniser or CodeRecogniser(code)], **others
    )
    return one


@pytest.fixture
def fresh(tmp_path):
    """Return what makes records in which nothing is kept yet."""
    number = itertools.count()
    return lambda: Records(tmp_path / f"records{next(number)}", {})


def test_distances_grow_with_strength_and_belong_to_their_photo(code, fresh):
    photos, strengths, recogniser = photos_of(code, 5), (0.0, 0.5, 1.0), CodeRecogniser(code)
    keys = noise_keys(photos, n_draws=2)
    measured = measure(code, photos, fresh(), strengths=strengths, keys=keys)
    assert measured.recogniser == "code"
    assert measured.strengths.tolist() == list(strengths)
    assert measured.distances.shape == measured.detected.shape == (3, 5, 2)
    assert measured.originals.shape == (5, 24)
    assert measured.people.tolist() == [0, 1, 2, 3, 4]
    assert measured.detected.all()
    for distances in np.median(measured.distances, axis=1).T:
        assert distances[0] < distances[1] < distances[2]
    backend = EmbeddedBackend(tiny_model(code, linear_denoiser(code)))
    anonymizer = Anonymizer(backend, FixedDetector(FACE))
    for i, draw in np.ndindex(5, 2):
        original = recogniser.embed(photos[i].pixels, FACE.landmarks)
        assert np.allclose(measured.originals[i], original)
        expected = [
            np.linalg.norm(recogniser.embed(variant.image, FACE.landmarks) - original)
            for variant in anonymizer.open(photos[i], key=keys[i][draw]).ladder(strengths)
        ]
        assert measured.distances[:, i, draw] == pytest.approx(expected)


def test_two_draws_of_a_photo_have_different_noise_and_are_both_measured(code, fresh):
    photos = photos_of(code, 3)
    keys = noise_keys(photos, n_draws=2)
    both = measure(code, photos, fresh(), keys=keys)
    for draw in range(2):
        alone = measure(code, photos, fresh(), keys=[[each[draw]] for each in keys])
        assert np.array_equal(both.distances[:, :, [draw]], alone.distances)
    assert (both.distances[0, :, 0] == both.distances[0, :, 1]).all()  # strength 0: no noise
    assert (both.distances[1:, :, 0] != both.distances[1:, :, 1]).all()


def test_a_lost_face_is_counted_at_its_strength_and_draw(code, fresh):
    (photo,), strengths = photos_of(code, 1), (0.0, 0.5, 1.0)
    keys = noise_keys([photo], n_draws=2)
    backend = EmbeddedBackend(tiny_model(code, linear_denoiser(code)))
    opened = Anonymizer(backend, FixedDetector(FACE)).open(photo, key=keys[0][1])
    found = [Photo(variant.image) for variant in opened.ladder(strengths)[:2]]
    detector = BlindToVariants([photo, *found])
    measured = measure(code, [photo], fresh(), keys=keys, strengths=strengths, detector=detector)
    # Without noise both draws are one variant; the second draw's next one is found too.
    assert measured.detected[:, 0].tolist() == [[True, True], [False, True], [False, False]]


def test_every_recogniser_measures_the_same_variants_by_itself(code, fresh):
    photos = photos_of(code, 3)
    keys, detector = noise_keys(photos, n_draws=2), BlindToVariants(photos[1:])
    given = [CodeRecogniser(code), Halves(code)]
    found = measure_all(code, photos, fresh(), recognisers=given, keys=keys, detector=detector)
    assert [one.recogniser for one in found] == ["code", "halves"]
    for one, recogniser in zip(found, given, strict=True):
        alone = measure(code, photos, fresh(), recogniser=recogniser, keys=keys, detector=detector)
        assert one.no_face == alone.no_face == 1
        for name in ("strengths", "distances", "detected", "originals", "people"):
            assert np.array_equal(getattr(one, name), getattr(alone, name)), name
    assert found[1].originals.shape == (2, 12)
    assert not np.allclose(found[0].distances, found[1].distances)


def test_photos_without_a_face_are_left_out_and_counted(code, fresh):
    photos = photos_of(code, 3)
    measured = measure(code, photos, fresh(), detector=BlindToVariants([photos[0], photos[2]]))
    assert measured.no_face == 1
    assert measured.people.tolist() == [0, 2]
    with pytest.raises(InvalidArgumentError, match="got 3 without"):
        measure(code, photos, fresh(), detector=FixedDetector())


class Finds(FixedDetector):
    """Finds these faces in one photo, and the usual one in all others."""

    def __init__(self, photo, *faces):
        super().__init__(FACE)
        self.odd, self.faces_there = pixel_digest(photo.pixels), list(faces)

    def detect(self, pixels):
        return self.faces_there if pixel_digest(pixels) == self.odd else super().detect(pixels)


def test_a_photo_of_a_crowd_is_left_out_and_counted(code, fresh):
    photos = photos_of(code, 3)
    measured = measure(code, photos, fresh(), detector=Finds(photos[1], *[FACE] * 33))
    assert measured.no_face == 1
    assert measured.people.tolist() == [0, 2]


def test_a_photo_whose_face_cannot_be_made_is_left_out_and_counted(code, fresh, monkeypatch):
    photos = photos_of(code, 3)
    ladder, key = OpenPhoto.ladder, noise_keys(photos, n_draws=2)[1][1]

    def failing(self, strengths):
        if self.key == key:
            raise FaceFailedError(1, 1, "Nothing was made of it.")
        return ladder(self, strengths)

    monkeypatch.setattr(OpenPhoto, "ladder", failing)
    measured = measure(code, photos, fresh(), keys=noise_keys(photos, n_draws=2))
    assert measured.no_face == 1
    assert measured.people.tolist() == [0, 2]
    assert measured.distances.shape == (3, 2, 2)


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

    def act(crew, place="one", first=None):
        return measure_all(
            code, photos, Records(tmp_path / place, {}, crew),
            recognisers=[first or CodeRecogniser(code), Halves(code)],
            detector=BlindToVariants([*photos[:2], *photos[3:]]),
            keys=noise_keys(photos, secret, n_draws=2),
        )  # fmt: skip

    (alone,) = together(1, act)
    (tmp_path / "one" / "measured photos 000002.npz").unlink()
    again = CodeRecogniser(code)
    (resumed,) = together(1, lambda crew: act(crew, first=again))
    # The one photo of that chunk in which a face is found, and its two draws at each strength.
    assert len(again.seen) == 1 + 2 * 3
    for found in (resumed, *together(2, lambda crew: act(crew, "two"))):
        for one, whole in zip(found, alone, strict=True):
            assert one.recogniser == whole.recogniser
            assert one.no_face == whole.no_face == 1
            for name in ("strengths", "distances", "detected", "originals", "people"):
                assert np.array_equal(getattr(one, name), getattr(whole, name)), name


def closed_form_distances(sigma, n, *, seed=0):
    """Return ‖x₀ − c‖ for x₀ = (c + σ n)/√(1 + σ²), the end of the ODE of normal codes."""
    codes, normals = np.random.default_rng(seed).normal(size=(2, n, 24))
    return np.linalg.norm((codes + sigma * normals) / np.sqrt(1 + sigma**2) - codes, axis=1)


def test_calibration_reads_the_noise_it_measured_at(code, fresh, monkeypatch):
    # The closed form stands in for two thousand variants; photos only give the typical distance.
    def measured(anonymizer, chosen, *, strengths, keys):
        assert [len(each) for each in keys] == [calibration.N_DRAWS] * len(chosen.photos)
        every = [key for each in keys for key in each]
        assert all(key.secret for key in every)
        assert len({key.material for key in every}) == len(every) == 60
        curve = anonymizer.backend.curve
        noise = [curve.rung_sigmas()[curve.rung(s) - 1] if s else 0.0 for s in strengths]
        distances = np.stack(
            [
                np.stack([closed_form_distances(s, 300, seed=seed) for seed in (1, 3)], 1)
                for s in noise
            ]
        )
        originals = np.random.default_rng(2).normal(size=(300, 24))
        found, people = np.ones(distances.shape, bool), np.full(300, -1)
        return tuple(
            Measurement(one.name, np.array(strengths), distances, found, originals, people, 0)
            for one in chosen.recognisers
        )

    monkeypatch.setattr(calibration, "measure_variants", measured)
    model = tiny_model(code, linear_denoiser(code), curve=None)
    curve = calibrate_model(
        model,
        CalibrationSet(
            photos_of(code, 30),
            [-1] * 30,
            FixedDetector(FACE),
            FixedDetector(FACE),
            [CodeRecogniser(code), Halves(code)],
            fresh(),
            quiet,
        ),
    )
    assert curve.strengths == (0.0, 0.5, 0.8, 1.0)
    assert curve.measured["recogniser"] == "code"
    assert list(curve.measured["others"]) == ["halves"]
    assert curve.measured["n_faces"] == 300
    assert curve.measured["n_draws"] == 2
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
