"""Adversaries on planted signals: what is there is found, what is not there is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy_core.audit.anonymization.adversary import LinkingAdversary, discriminants
from privacy_core.audit.anonymization.attacks import NO_ADVERSARY, NOT_ATTACKED, Attacker
from privacy_core.audit.anonymization.distances import ranks
from privacy_core.audit.anonymization.gather import Gathered
from privacy_core.audit.anonymization.identity import ONE_PHOTO, Gallery
from privacy_core.audit.anonymization.inference import measure_inference
from privacy_core.audit.anonymization.learning import (
    LearningConfig,
    Scale,
    held_out,
    projection_at,
    ridge,
    train,
    train_on_rows,
)
from privacy_core.audit.anonymization.order import Ladders, order_for_adversary
from privacy_core.audit.anonymization.repainting import Repainter
from privacy_core.audit.anonymization.reversal import Restorer, pictures_of, recognised
from privacy_core.audit.anonymization.settings import EMBEDDED, AuditConfig, Setting
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces.align import template_mask
from tests.privacy_core.tiny import tiny_code

RNG = np.random.default_rng(8)
QUICK = LearningConfig(width=32, steps=60, batch=64, check_every=15)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def photos_of(n_people, *, n_photos=3, seed=0, shared=6, size=24):
    """Return features in which only the first `shared` numbers belong to the person."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(n_people), n_photos)
    rows = rng.normal(0, 3, (len(people), size))
    rows[:, :shared] = rng.normal(0, 1, (n_people, shared))[people]
    rows[:, :shared] += rng.normal(0, 0.1, (len(people), shared))
    return torch.from_numpy(rows).float(), people


def found_first(adversary, variants, originals, n_people, n_photos=3):
    probes = adversary.embed_variants(variants)[::n_photos]
    gallery = adversary.embed_originals(originals)[1::n_photos]
    return (ranks(probes, gallery, np.arange(n_people)) == 1).mean()


# --- Linking ---------------------------------------------------------------------------------


def test_a_person_whom_variants_still_show_is_found_among_people_never_seen():
    rows, people = photos_of(120)
    # The variant keeps the person in other places and another scale.
    turned = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0))).Q
    start = LinkingAdversary(replace(QUICK, steps=1, check_every=2)).fit(
        rows @ turned, rows, people
    )
    adversary = LinkingAdversary(replace(QUICK, steps=150)).fit(rows @ turned, rows, people)
    held, _ = photos_of(60, seed=1)
    assert found_first(adversary, held @ turned, held, 60) > 0.5
    assert found_first(start, held @ turned, held, 60) < 0.3
    # The rest of the numbers are far larger, so that plain distances find hardly anybody.
    plain = ranks(held[::3].double().numpy(), held[1::3].double().numpy(), np.arange(60))
    assert (plain == 1).mean() < 0.2


def test_variants_that_show_nobody_are_found_by_chance_only():
    rows, people = photos_of(120)
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2))
    adversary = LinkingAdversary(QUICK).fit(noise, rows, people)
    held, _ = photos_of(60, seed=1)
    unseen = torch.randn(held.shape, generator=torch.Generator().manual_seed(3))
    assert found_first(adversary, unseen, held, 60) < 0.12


def test_one_photo_of_everybody_trains_no_adversary():
    rows, _ = photos_of(10, n_photos=1)
    with pytest.raises(InvalidArgumentError, match="two with two photos each, got 0"):
        LinkingAdversary(QUICK).fit(rows, rows, np.arange(10))


def ladders(rows, *, seed):
    """Return rows that one noise drowns more and more."""
    noise = np.random.default_rng(seed).normal(0, 1, rows.shape)
    steps = {0.0: 0.0, 0.4: 0.4, 0.8: 2.0, 1.0: 50.0}
    return Ladders({s: rows.numpy() + level * noise for s, level in steps.items()}, rows.numpy())


def test_an_adversary_of_all_strengths_sees_faces_in_the_order_of_strength():
    rows, people = photos_of(120)
    known, tested = ladders(rows[:240], seed=1), ladders(rows[240:], seed=2)
    found = order_for_adversary(known, tested, people[:240], learning=QUICK)
    assert found["strengths"] == [0.0, 0.4, 0.8, 1.0]
    assert found["spearman_median"] == 1
    # The other way round, what is weakest is furthest away.
    turned = Ladders({1 - s: seen for s, seen in tested.variants.items()}, tested.originals)
    assert order_for_adversary(known, turned, people[:240], learning=QUICK)["spearman_median"] < 0


def test_two_strengths_have_no_order():
    rows, people = photos_of(4)
    two = Ladders({0.0: rows.numpy(), 1.0: rows.numpy()}, rows.numpy())
    assert "three" in order_for_adversary(two, two, people, learning=QUICK)["spearman"]


def test_discriminants_turn_towards_what_tells_people_apart():
    rows, people = photos_of(100, shared=3)
    axes = discriminants(rows, people)
    best = axes[:, -3:] / axes[:, -3:].norm(dim=0)
    assert float((best[:3] ** 2).sum(0).min()) > 0.95


def test_the_same_seed_trains_the_same_adversary():
    rows, people = photos_of(40)
    one, two = (
        LinkingAdversary(QUICK).fit(rows, rows, people).embed_variants(rows) for _ in range(2)
    )
    assert np.array_equal(one, two)


# --- Shared training -------------------------------------------------------------------------


def test_people_left_out_are_left_out_whole():
    people = np.repeat(np.arange(20), 3)
    out = held_out(people, seed=0)
    assert 0 < out.sum() < 20
    assert not set(people[out]) & set(people[~out])
    assert not held_out(np.zeros(5, int), seed=0).any()


def test_training_that_only_harms_is_undone():
    module = projection_at(torch.eye(3), QUICK)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def away(_):
        return -sum(p.pow(2).sum() for p in module.parameters())

    best = train(
        module, away, lambda: float(sum(p.abs().sum() for p in module.parameters())), QUICK
    )
    assert best == pytest.approx(float(sum(v.abs().sum() for v in before.values())))
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("n_out", "chunk", "parts"),
    [(6, None, [6]), (6, 4, [4, 2]), (0, None, [20]), (0, 9, [9, 9, 2])],
)
def test_rows_left_out_are_validated_on_and_never_trained_on(n_out, chunk, parts):
    module = projection_at(torch.eye(3), QUICK)
    out = np.arange(20) >= 20 - n_out
    seen = {True: [], False: []}

    def error(rows):
        seen[module.training].append(rows)
        return (module(torch.ones(len(rows), 3)) ** 2).mean() + rows.float().mean()

    config = replace(QUICK, steps=20, check_every=50)
    best = train_on_rows(module, error, out, config, chunk=chunk)
    assert [len(rows) for rows in seen[True]] == [64] * 20
    assert set(torch.cat(seen[True]).tolist()) == set(np.flatnonzero(~out))
    assert [len(rows) for rows in seen[False]] == parts
    checked = torch.cat(seen[False])
    assert checked.tolist() == np.flatnonzero(out if n_out else ~out).tolist()
    # The map begins as the identity, whose squares are 1.
    expected = np.mean([float(rows.float().mean()) for rows in checked.split(chunk or 20)])
    assert best == pytest.approx(1 + expected)


def test_the_same_seed_begins_at_the_same_projection_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (
        projection_at(torch.eye(3), replace(QUICK, seed=seed)).hidden[1].weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_leaves_the_global_generator_alone():
    rows, people = photos_of(20)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Restorer(QUICK).fit(rows, rows, people)
    assert torch.equal(torch.get_rng_state(), before)


def test_ridge_finds_a_linear_map_and_scale_cuts_outliers():
    rows = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    true = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ridge(rows, rows @ true, penalty=1e-6), true, atol=1e-3)
    scale = Scale(rows.numpy())
    assert float(scale(100 + rows.numpy()).max()) == 6
    assert Scale(rows.numpy(), n_components=2)(rows.numpy()).shape == (400, 2)


# --- Attributes ------------------------------------------------------------------------------


def labelled(n, *, seed, how):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 8))
    labels = np.full((n, 5), -1)
    labels[:, 0] = how(rows)
    labels[: n // 10, 0] = -1
    labels[:, 2] = 1
    return torch.from_numpy(rows).float(), labels, np.arange(n) // 2


def read(how, config=QUICK):
    one, two = labelled(600, seed=0, how=how), labelled(300, seed=1, how=how)
    return measure_inference(*one, *two, config=config)


def test_a_classifier_reads_what_no_linear_one_could():
    config = LearningConfig(width=64, steps=300, batch=128, dropout=0.0, learning_rate=1e-2)
    found = read(lambda rows: np.abs(rows[:, 0]) > 0.7, config)
    assert found["gender"].value > 0.75
    assert found["gender"].low > 0.6


def test_what_is_not_in_the_features_is_read_by_chance():
    rng = np.random.default_rng(5)
    found = read(lambda rows: rng.random(len(rows)) < 0.3)
    assert found["gender"].value == pytest.approx(0.5, abs=0.12)


def test_a_withheld_face_counts_as_read():
    one = labelled(400, seed=0, how=lambda rows: RNG.random(len(rows)) < 0.5)
    two = labelled(200, seed=1, how=lambda rows: RNG.random(len(rows)) < 0.5)
    half = np.arange(200) % 2 == 0
    found = measure_inference(*one, *two, config=replace(QUICK, steps=15), withheld=half)
    assert found["gender"].value == pytest.approx(0.75, abs=0.1)
    none = measure_inference(
        *one, *two, config=replace(QUICK, steps=15), withheld=np.ones(200, bool)
    )
    assert none["gender"].value == 1


def test_an_attribute_of_one_class_is_absent_with_the_reason():
    found = read(lambda rows: rows[:, 0] > 0)
    assert "people trained on" in found["smiling"]
    assert "people trained on" in found["beard"]


# --- Reversal --------------------------------------------------------------------------------


def test_a_reversible_change_is_restored_and_an_erasing_one_is_not():
    codes, people = photos_of(120, seed=3)
    turned = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0))).Q
    back = Restorer(QUICK).fit(codes @ turned + 2, codes, people)
    held, _ = photos_of(20, seed=4)
    n = len(held)
    error = float(((torch.from_numpy(back.restore(held @ turned + 2)) - held) ** 2).mean())
    assert error < 0.2 * float((held**2).mean())
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(1))
    lost = Restorer(QUICK).fit(noise, codes, people).restore(noise[:n])
    assert float(((torch.from_numpy(lost) - held) ** 2).mean()) > 0.7 * float((held**2).mean())


class PixelRecogniser:
    """Embeds a picture as its mean colour inside and outside M."""

    name = "pixels"

    def embed(self, pixels, landmarks):
        return np.concatenate([pixels[m].mean(0) for m in (template_mask(), ~template_mask())])


def test_a_restored_face_is_shown_in_its_own_surroundings():
    code = tiny_code()
    frames = np.full((2, 128, 128, 3), 9, np.uint8)
    found = recognised(pictures_of(np.zeros((2, 24)), frames, code), PixelRecogniser())
    assert found[:, 3:] == pytest.approx(9)
    assert found[:, :3] == pytest.approx(127, abs=2)


def faces(n, *, seed=0):
    """Return n frames, each of one colour inside M and of another outside."""
    rng = np.random.default_rng(seed)
    inside, outside = rng.integers(40, 216, (2, n, 1, 1, 3))
    return np.where(template_mask()[..., None], inside, outside).astype(np.uint8)


def in_mask(frames):
    return frames[:, template_mask()].astype(float)


@pytest.fixture(scope="module")
def repainted():
    """Return a network that saw negatives, on faces that it did not see, and those faces."""
    torch.set_num_threads(1)
    config = LearningConfig(steps=40, batch=8, check_every=20, learning_rate=5e-3)
    shown, asked = faces(40), faces(6, seed=1)
    return Repainter(config).fit(255 - shown, shown, np.arange(40)).restore(255 - asked), asked


def test_a_reversible_change_of_pixels_is_painted_back(repainted):
    painted, asked = repainted
    before = np.abs(in_mask(255 - asked) - in_mask(asked)).mean()
    assert np.abs(in_mask(painted) - in_mask(asked)).mean() < 0.5 * before


def test_no_pixel_outside_the_mask_is_painted(repainted):
    painted, asked = repainted
    assert np.array_equal(painted[:, ~template_mask()], (255 - asked)[:, ~template_mask()])


def test_what_cannot_be_restored_stays_as_it_is_and_is_made_no_worse():
    shown, asked = faces(8), faces(40, seed=2)
    painter = Repainter(LearningConfig(steps=4, batch=8, check_every=4))
    restored = painter.fit(shown, shown, np.arange(8)).restore(asked)
    # Nothing was to change, so validation keeps the beginning: a network that adds nothing.
    assert np.array_equal(restored, asked)


def test_one_person_is_enough_to_train_on_without_anybody_left_out():
    shown = faces(3)
    painter = Repainter(LearningConfig(steps=1, batch=2, check_every=1)).fit(
        shown, shown, np.zeros(3, int)
    )
    assert painter.restore(shown).shape == shown.shape


class First:
    """Embeds a picture as some of its pixels."""

    name = "r"

    def embed(self, pixels, landmarks):
        return pixels[64, 40:46, 0].astype(float)


# --- On a setting ----------------------------------------------------------------------------

ATTACKED = Setting(EMBEDDED, 0.8)


def attacker(*, released=True, n_photos=2, n_others=10, n_reversed=4):
    """Return attacks on people of nobody whose variants are all noise."""

    def originals(n, photos, first):
        people, slots = np.repeat(np.arange(n), photos) + first, np.tile(np.arange(photos), n)
        rows = RNG.normal(size=(len(people), 6))
        labels = np.full((len(people), 5), -1)
        return {"person": people, "slot": slots, "labels": labels, "code": rows,
                "opaque_code": rows, "outside": rows[:, :4] + 1, "embedding": rows}  # fmt: skip

    tested = originals(30, n_photos, 0)
    found = {"test": tested, "adversary": originals(n_others, 2, 100)}
    variants = {
        part: {
            ATTACKED.name: {
                "code": RNG.normal(size=one["code"].shape),
                "opaque_code": RNG.normal(size=one["code"].shape),
                "embedding": RNG.normal(size=one["code"].shape),
                "released": np.full(len(one["person"]), released),
            }
        }
        for part, one in found.items()
    }
    gallery = Gallery.of("r", tested["embedding"], tested["person"], tested["slot"], rate=0.1)
    config = AuditConfig(n_reversed=n_reversed)
    quick = replace(QUICK, steps=4, check_every=2)
    return Attacker(Gathered(found, variants, {}), gallery, config, quick, None, None, None)


def test_withheld_faces_count_as_found_by_the_trained_adversary():
    found = attacker(n_reversed=0).on_setting(ATTACKED)["adversary"]
    assert all(one["rank_1"].value < 0.5 for one in found.values())
    withheld = attacker(released=False).on_setting(ATTACKED)
    for one in withheld["adversary"].values():
        assert one["rank_1"].value == 1
        assert one["times_chance"].value == 30
    assert withheld["reversal"] == "no variant was released"


AROUND = {"test": faces(60), "adversary": faces(20, seed=1)}


class Around:
    """Hands out the surroundings and remembers of whom."""

    def __init__(self):
        self.asked = []

    def __call__(self, part, rows):
        self.asked.append((part, rows.tolist()))
        return AROUND[part][rows]


def reversing(recogniser):
    """Return attacks that restore four faces, with a code that decodes."""
    one = attacker(n_reversed=4)
    for part in ("test", "adversary"):
        n = len(one.gathered.originals[part]["person"])
        for arrays in (one.gathered.originals[part], one.gathered.variants[part][ATTACKED.name]):
            arrays["code"] = np.random.default_rng(n).normal(size=(n, 24))
    quick = replace(one.learning, steps=2, batch=8)
    return replace(
        one, code=tiny_code(), recogniser=recogniser, surroundings=Around(), learning=quick
    )


def test_each_photo_is_opened_once_for_all_settings_and_each_setting_gets_what_is_its_own():
    one, other = reversing(First()), Setting(EMBEDDED, 0.9)
    for part, settings in one.gathered.variants.items():
        first = settings[ATTACKED.name]
        settings[other.name] = {**first, "code": -first["code"], "released": np.arange(
            len(first["code"])) % 6 != 2}  # fmt: skip
        assert not settings[other.name]["released"][:8].all(), part
    together = [one.on_setting(setting)["reversal"] for setting in (ATTACKED, other)]
    assert one.surroundings.asked == [
        ("test", [0, 2, 4, 6]), ("adversary", list(range(20)))
    ]  # fmt: skip
    assert together[1] == replace(one).on_setting(other)["reversal"]
    assert [found["n_withheld"] for found in together] == [0, 1]


class Seen(PixelRecogniser):
    """Remembers what it was shown outside M."""

    def __init__(self):
        self.outside = []

    def embed(self, pixels, landmarks):
        self.outside.append(pixels[~template_mask()])
        return np.zeros(6)


def test_with_some_faces_withheld_the_others_keep_their_own_surroundings():
    one = reversing(Seen())
    one.gathered.variants["test"][ATTACKED.name]["released"][[0, 4]] = False
    assert one.on_setting(ATTACKED)["reversal"]["n_faces"] == 2
    own = AROUND["test"][[2, 6]][:, ~template_mask()]
    # Restored from the code, and painted.
    assert np.array_equal(one.recogniser.outside, [*own, *own])


def test_reversal_on_pixels_is_absent_where_too_few_were_released_to_train_on():
    one = reversing(First())
    found = one.on_setting(ATTACKED)["reversal"]
    assert found["n_faces"] == 4
    assert {f"{w}_rank_1" for w in ("restored", "repainted", "variant")} < set(found)
    assert found["repainted_rank_1"].value <= 1
    one.gathered.variants["adversary"][ATTACKED.name]["released"][7:] = False
    found = one.on_setting(ATTACKED)["reversal"]
    assert found["repainted_rank_1"] == found["repainted_verified"] == NO_ADVERSARY
    assert found["restored_rank_1"].value <= 1


def test_the_whole_crop_shows_more_than_the_mask():
    one = attacker(n_others=40, n_reversed=0)
    for part in ("test", "adversary"):
        original = one.gathered.originals[part]
        known = np.random.default_rng(3).normal(size=(200, 6))[original["person"] % 200]
        original["embedding"] = one.gathered.variants[part][ATTACKED.name]["embedding"] = known
    found = one.on_setting(ATTACKED)["adversary"]
    assert found["inside"]["rank_1"].value < 0.3
    assert found["whole_crop"]["rank_1"].value > 2 * found["inside"]["rank_1"].value


def test_attacks_that_cannot_be_made_say_why():
    assert attacker().on_setting(replace(ATTACKED, is_attacked=False)) == dict.fromkeys(
        ("adversary", "inference", "reversal"), NOT_ATTACKED
    )
    few = attacker(n_others=7)
    assert set(few.on_setting(ATTACKED).values()) == {NO_ADVERSARY}
    assert set(few.on_originals().values()) == {NO_ADVERSARY}
    alone = attacker(n_photos=1, n_reversed=0).on_setting(ATTACKED)
    assert alone["adversary"] == dict.fromkeys(("opaque", "inside", "whole_crop"), ONE_PHOTO)
    assert alone["reversal"] == NOT_ATTACKED
