"""The app beside a Hub: rows are copied, a bad Hub stops nothing, and stopping copies the rest."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from feedback import Consent, Keys, RatingStore
from feedback.errors import RemoteRefusedError
from feedback.remote import hub as refusals
from feedback.remote.base import NullRemote
from feedback.sync.erasure import Receipt
from feedback.sync.health import Health
from feedback.sync.loop import Sync
from shell import copying
from shell.copying import health_report, open_copy, running
from shell.wording import erased_line, storage_line
from tests.feedback.conftest import World
from tests.feedback.memory_remote import MemoryRemote
from tests.hub_server import HubServer
from tests.ports import free_ports
from tests.privacy_core.tiny import write_tiny_model

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "hf_anna"  # noqa: S105 - of a Hub that lives for one test


@pytest.fixture
def hub():
    with HubServer() as hub:
        hub.add_user("anna", TOKEN)
        hub.add_user("ben", "hf_ben")
        yield hub


@pytest.fixture
def store(tmp_path):
    with RatingStore(tmp_path / "data" / "ratings.sqlite3") as store:
        yield store


@pytest.fixture
def said_in_time(monkeypatch):
    """Return a function that waits for words of the copy on stderr and returns all of them."""
    # Not `capsys`, which loses what another thread writes while it is read.
    written = io.StringIO()
    monkeypatch.setattr(copying, "sys", SimpleNamespace(stderr=written))

    def said_in_time(words):
        deadline = time.monotonic() + 60
        while words not in written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        return written.getvalue()

    return said_in_time


@pytest.fixture(autouse=True)
def signals_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def keep_page(store, world):
    page = world.page()
    rows = world.rows(page)
    store.add_page(page, rows)
    return rows


@pytest.fixture
def world():
    keys = Keys({1: bytes(range(32))}, is_generated=False, notice="")
    return World(datetime.now(UTC), keys, Consent("2026-11-21", "aggregate"))


def report(sync, **changes):
    return health_report(sync, **({"fault": None, "kind": "dataset", "model": "0f3c2a"} | changes))


# --- Which copy ----------------------------------------------------------------------------------


def test_without_a_name_there_is_no_copy_and_no_fault(store):
    remote, fault = open_copy(store)
    assert isinstance(remote, NullRemote)
    assert fault is None


@pytest.mark.parametrize(
    "place", [{"dataset": "no slash or what"}, {"dataset": "a/b", "bucket": "a/c"}]
)
def test_a_copy_that_cannot_be_named_leaves_ratings_here_and_says_so(store, place):
    remote, fault = open_copy(store, token=TOKEN, **place)
    assert isinstance(remote, NullRemote)
    assert "kept on this disk only" in fault
    assert TOKEN not in fault
    told = report(Sync(store, remote), fault=fault)
    assert told["last_error"] == fault


def test_a_copy_that_was_seen_before_and_is_gone_is_not_made_anew(store, hub, world):
    place = {"dataset": "anna/ratings", "token": TOKEN, "endpoint": hub.endpoint}
    first, _ = open_copy(store, **place)
    keep_page(store, world)
    Sync(store, first).tick()
    assert hub.repo("anna/ratings").is_private
    httpx.request(
        "DELETE",
        f"{hub.endpoint}/api/repos/delete",
        json={"name": "ratings", "organization": "anna", "type": "dataset"},
        headers={"authorization": f"Bearer {TOKEN}"},
    ).raise_for_status()
    again, _ = open_copy(store, **place)
    health = Sync(store, again).tick()
    assert health.last_error
    assert TOKEN not in health.last_error
    assert store.stats().rows == 5


def health(**changes):
    known = {"remote": "x", "keeps": True, "outbox_rows": 3, "in_remote_rows": 9}
    return Health(**{**known, "sync_lag_seconds": 12.0, **changes})


def test_the_page_says_where_answers_are_without_naming_the_place():
    at = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
    waiting = storage_line(health(last_success=at))
    assert "12 ratings" in waiting
    assert "3 of them wait" in waiting
    assert "last copied 2026-11-20 12:30 UTC" in waiting
    assert "all of them are copied" in storage_line(health(outbox_rows=0))
    late = storage_line(health(last_error="The repository anna/ratings is public."))
    assert "not copied yet" in late
    assert "cannot be used right now" in late
    assert "anna" not in late
    assert "nowhere else" in storage_line(health(keeps=False))


def test_a_receipt_says_when_the_copy_is_cleared():
    at = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
    receipt = Receipt("4f2a", at, None, at + timedelta(days=1), "x", rows_local=15)
    assert "15 rows here" in erased_line(receipt)
    assert "within 24 hours" in erased_line(receipt)
    assert "4f2a, 2026-11-20 12:30 UTC" in erased_line(receipt)
    done = replace(receipt, finished=at, due=None)
    assert "24 hours" not in erased_line(done)
    out_of_reach = erased_line(replace(receipt, due=None))
    assert "24 hours" not in out_of_reach
    assert "still on the Hub" in out_of_reach


# --- While the app runs --------------------------------------------------------------------------


def test_what_is_kept_is_copied_at_the_latest_when_the_app_stops(store, hub, world, capsys):
    remote, _ = open_copy(store, dataset="anna/ratings", token=TOKEN, endpoint=hub.endpoint)
    sync = Sync(store, remote)
    with running(sync):
        keep_page(store, world)
    told = report(sync)
    assert (told["outbox_rows"], told["in_remote_rows"]) == (0, 5)
    assert told["last_success"] is not None
    assert told["last_error"] is None
    assert "All 5 ratings are in" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["public", "foreign", "no rights"])
def test_a_hub_that_is_not_what_was_promised_is_told_and_gets_nothing(
    store, hub, world, said_in_time, monkeypatch, fault
):
    monkeypatch.setattr(copying, "WATCH_SECONDS", 0.02)
    owner = "ben" if fault == "foreign" else "anna"
    hub.add_repo(f"{owner}/ratings", private=fault != "public")
    hub.add_user("anna", "hf_read", role="read")
    token = "hf_read" if fault == "no rights" else TOKEN
    remote, _ = open_copy(store, dataset=f"{owner}/ratings", token=token, endpoint=hub.endpoint)
    sync = Sync(store, remote)
    with running(sync):
        rows = keep_page(store, world)
        said = said_in_time("The copy of the ratings:")
    assert said.count("The copy of the ratings:") == 1
    assert token not in said
    told = report(sync)
    assert told["last_error"]
    assert told["outbox_rows"] == 5
    assert not any(rows[0].rater_id.encode() in data for _, data in hub.every_byte())


def test_health_names_no_repository(store, hub, world):
    remote, _ = open_copy(store, dataset="anna/ratings", token=TOKEN, endpoint=hub.endpoint)
    sync = Sync(store, remote)
    keep_page(store, world)
    sync.tick()
    told = str(report(sync))
    assert "anna" not in told
    assert TOKEN not in told


def refusing(error):
    """Return a remote that refuses everything with an error."""

    def refuse():
        raise error

    remote = MemoryRemote()
    remote.faults = [("snapshot", refuse)]
    return remote


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (refusals.no_rights, "The token must have the right to write to the private dataset, got"),
        (refusals.missing, "The private dataset must exist and be open to this token, got neither"),
        (lambda name: refusals.not_as_visible(name, "private"), "The private dataset must be pri"),
        (lambda name: refusals.renamed(name, "ben/stolen.rows"), "got it renamed to (named in th"),
        (lambda name: refusals.renamed(name, "anna/ratings2"), "got it renamed to (named in the"),
        (lambda name: RemoteRefusedError(f"x/b.parquet must be in {name}."), "the private dataset"),
    ],
)
def test_health_says_what_is_wrong_with_the_copy_and_not_which_it_is(store, world, error, told):
    remote = MemoryRemote()
    sync = Sync(store, refusing(error(remote.name)))
    keep_page(store, world)
    whole = sync.tick().last_error
    assert "anna/ratings" in whole
    sentence = report(sync)["last_error"]
    assert told in sentence
    for name in ("anna", "/ratings", "ben", "stolen", "x/b", "parquet"):
        assert name not in sentence
    if "Ratings are kept on this machine." in whole:
        assert sentence.endswith("Ratings are kept on this machine.")


def test_health_of_a_store_that_cannot_be_read_names_no_path(
    store, world, said_in_time, monkeypatch
):
    monkeypatch.setattr(copying, "WATCH_SECONDS", 0.02)
    sync = Sync(store, NullRemote())
    keep_page(store, world)
    with store.database.reading() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA shrink_memory")
    with store.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (store.path.stat().st_size - 4096))
    with running(sync):
        said = said_in_time("The copy of the ratings:")
    # Who runs the app needs the place, and nobody else.
    assert f"{store.path} must be a whole SQLite file" in said
    sentence = report(sync)["last_error"]
    assert "The store of ratings must be" in sentence
    assert "/" not in sentence
    assert "sqlite" not in sentence.lower()


def test_health_repeats_no_word_of_how_the_copy_was_named(store):
    remote, fault = open_copy(store, dataset="anna", token=TOKEN)
    assert "'anna'" in fault
    sentence = report(Sync(store, remote), fault=fault)["last_error"]
    assert "anna" not in sentence
    assert "`dataset` must be NAME/REPO" in sentence
    assert "kept on this disk only" in sentence


# --- The whole app as a process ------------------------------------------------------------------


@pytest.fixture
def start_app(tmp_path):
    """Return a function that starts `app.py` with an environment and waits for its page."""
    model = write_tiny_model(tmp_path / "model")
    started = []

    def start_app(**environment):
        [port] = free_ports(1)
        hidden = ("HF_TOKEN", "PRIVACY_DIAL_DATASET", "PRIVACY_DIAL_BUCKET")
        inherited = {k: v for k, v in os.environ.items() if k not in hidden}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--port", str(port)],
            cwd=ROOT,
            env=inherited
            | {
                "PRIVACY_DIAL_DATA_DIR": str(tmp_path / "data"),
                "PRIVACY_DIAL_MODEL": str(model),
                "PYTHONUNBUFFERED": "1",
            }
            | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                http.get("/health").raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return process, http
        raise AssertionError(process.stderr.read() if process.poll() is not None else "no page")

    yield start_app
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_stopped_app_copies_what_waits_within_ten_seconds(start_app, hub, world, tmp_path):
    process, http = start_app(
        PRIVACY_DIAL_DATASET="anna/ratings", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.endpoint
    )
    assert http.get("/health").json()["remote"] == "dataset"
    with RatingStore(tmp_path / "data" / "ratings.sqlite3") as store:
        keep_page(store, world)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert process.returncode == 0
        assert store.stats().outbox_rows == 0
    assert "All 5 ratings are in" in said
    assert TOKEN not in said
    assert any(data.startswith(b"PAR1") for _, data in hub.every_byte())


@pytest.mark.slow
def test_an_app_whose_hub_is_silent_starts_says_so_and_still_stops(start_app, hub, world, tmp_path):
    hub.fail("any", "hang", count=1_000)
    process, http = start_app(
        PRIVACY_DIAL_DATASET="anna/ratings", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.endpoint
    )
    with RatingStore(tmp_path / "data" / "ratings.sqlite3") as store:
        keep_page(store, world)
        assert http.get("/health").json()["outbox_rows"] == 5
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert time.monotonic() - began < 14
        assert process.returncode == 0
        assert store.stats().outbox_rows == 5


@pytest.mark.slow
def test_an_app_whose_dataset_has_no_name_starts_and_says_so(start_app):
    process, http = start_app(PRIVACY_DIAL_DATASET="what is this")
    assert "kept on this disk only" in http.get("/health").json()["last_error"]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert "kept on this disk only" in said
    assert process.returncode == 0
