import json
import threading
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest

from feedback import ExportError, ReleaseError
from feedback.population.account import ACCOUNT_NAME, ReleaseAccount
from feedback.population.release import MIN_RATERS, N_BINS, units_of

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RATERS = [units_of(np.eye(51)[20 + number]) for number in range(MIN_RATERS)]


class Died(BaseException):
    """The program is killed."""


@pytest.fixture
def account(tmp_path):
    return ReleaseAccount(tmp_path / ACCOUNT_NAME, clock=lambda: NOON)


def draw(account, epsilon="1", model_version="m@1", **options):
    return account.draw(RATERS, epsilon=Fraction(epsilon), model_version=model_version, **options)


def test_without_a_release_nothing_is_spent_and_no_file_is_made(account):
    assert (account.releases(), account.spent(), account.latest("m@1")) == ((), 0, None)
    assert not account.path.exists()


def test_a_release_is_named_kept_and_read_back(account):
    made = draw(account)
    assert (made.name, made.n_raters, made.epsilon) == ("dp-eps1-2026Q4", MIN_RATERS, "1")
    assert len(made.histogram) == N_BINS
    assert ReleaseAccount(account.path).latest("m@1") == made
    assert account.path.stat().st_mode & 0o777 == 0o600


def test_a_link_to_the_account_is_followed_so_that_there_is_one_account(account, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(account.path)
    first = draw(ReleaseAccount(link, clock=lambda: NOON))
    draw(ReleaseAccount(link, clock=lambda: NOON), after=first)
    assert link.is_symlink()
    assert account.spent() == 2


def test_epsilon_of_all_releases_adds_up_exactly(account):
    for epsilon in ("0.1", "0.2", "1/3"):
        draw(account, epsilon, after=account.latest("m@1"))
    draw(account, "1", model_version="m@2")
    assert account.spent() == Fraction(3, 10) + Fraction(1, 3) + 1
    assert [r.name for r in account.releases()] == [
        "dp-eps0.1-2026Q4",
        "dp-eps0.2-2026Q4",
        "dp-eps0.333333-2026Q4",
        "dp-eps1-2026Q4",
    ]


def test_releases_of_one_quarter_have_different_names_and_the_newest_holds(account):
    first = draw(account)
    second = draw(account, after=first)
    assert (second.name, account.latest("m@1")) == ("dp-eps1-2026Q4-2", second)
    assert account.latest("m@2") is None


def test_epsilon_is_on_the_disk_before_the_noise_is_drawn(account):
    seen = []

    def randbelow(_n):
        seen.append(ReleaseAccount(account.path).spent())
        raise Died

    with pytest.raises(Died):
        draw(account, randbelow=randbelow)
    assert seen == [1]
    assert account.spent() == 1
    assert account.latest("m@1") is None
    assert draw(account).histogram is not None
    assert account.spent() == 2


def test_what_cannot_be_accounted_for_is_not_drawn(tmp_path):
    account = ReleaseAccount(tmp_path / "no" / ACCOUNT_NAME)
    with pytest.raises(ReleaseError, match="must be writable"):
        draw(account, randbelow=pytest.fail)


def test_an_account_that_cannot_be_replaced_stops_the_draw(account, monkeypatch):
    account.path.mkdir()
    monkeypatch.setattr(account, "releases", tuple)
    with pytest.raises(ExportError, match="Nothing was written"):
        draw(account, randbelow=pytest.fail)


def test_too_few_raters_cost_nothing(account):
    with pytest.raises(ReleaseError, match="at least 20"):
        account.draw(RATERS[:-1], epsilon=Fraction(1), model_version="m@1")
    assert account.spent() == 0


def test_two_programs_that_need_the_first_release_share_one(account):
    barrier, made = threading.Barrier(2), []

    def run():
        barrier.wait(30)
        made.append(draw(ReleaseAccount(account.path, clock=lambda: NOON)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made[0] == made[1]
    assert account.spent() == 1


ENTRY = {
    "name": "dp-eps1-2026Q4",
    "epsilon": "1",
    "drawn_at": "2026-11-20T12:00:00+00:00",
    "model_version": "m@1",
    "n_raters": 20,
    "histogram": [0] * N_BINS,
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({"schema_version": 2, "releases": []}),
        *(
            json.dumps({"schema_version": 1, "releases": [ENTRY | change]})
            for change in (
                {"epsilon": "0"},
                {"epsilon": 1},
                {"name": None},
                {"n_raters": "20"},
                {"histogram": [0] * 9},
                {"histogram": [0.5] * N_BINS},
                {"histogram": 3},
                {"more": 1},
            )
        ),
        json.dumps({"schema_version": 1, "releases": [{"name": "x"}]}),
    ],
)
def test_an_account_that_cannot_be_read_is_never_taken_for_an_empty_one(account, content):
    account.path.write_text(content)
    for use in (account.releases, account.spent, lambda: draw(account, randbelow=pytest.fail)):
        with pytest.raises(ReleaseError, match="must be this program's account"):
            use()
    assert account.path.read_text() == content


def test_the_account_says_nothing_of_anyone(account):
    draw(account)
    record = json.loads(account.path.read_text())
    assert record["releases"][0].keys() == ENTRY.keys()
