import http.client
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import app
from shell.pictures import take_upload
from shell.sweeping import Sweeper, sweeping
from tests.page_server import (  # noqa: F401 - fixtures come by their names
    API,
    portrait_fixture,
    running_fixture,
    visitor_fixture,
)
from tests.privacy_core.tiny import write_tiny_model


def test_what_is_old_goes_and_what_is_new_or_spared_stays(tmp_path):
    spared = tmp_path / "page" / "example.png"
    for path in (spared, tmp_path / "a" / "b" / "photo.jpg", tmp_path / "half an upload"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert Sweeper(tmp_path, seconds=60, spared=[str(spared)]).sweep() == 0
    sweeper = Sweeper(tmp_path, seconds=0, spared=[str(spared)])
    time.sleep(0.02)  # The clock of a file system ticks slower than the other.
    assert sweeper.sweep() == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [spared]
    time.sleep(0.02)
    sweeper.sweep()
    time.sleep(0.02)
    sweeper.sweep()
    assert sorted(tmp_path.rglob("*")) == [spared.parent, spared]


def test_a_file_that_cannot_be_deleted_keeps_no_other_from_it(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
    unlink = Path.unlink

    def stubborn(path):
        if path.name == "b":
            raise PermissionError(path)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", stubborn)
    time.sleep(0.02)
    assert Sweeper(tmp_path, seconds=0).sweep() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_sent_again_during_a_round_stays_known(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x")
    known, unlink = {str(path), "another"}, Path.unlink

    def sent_again(self):
        unlink(self)
        path.write_bytes(b"x")

    monkeypatch.setattr(Path, "unlink", sent_again)
    time.sleep(0.02)
    assert Sweeper(tmp_path, seconds=0, known=known).sweep() == 1
    assert known == {str(path), "another"}
    monkeypatch.undo()
    time.sleep(0.02)
    assert Sweeper(tmp_path, seconds=0, known=known).sweep() == 1
    assert known == {"another"}


def test_it_goes_on_round_after_round_until_the_block_ends(tmp_path):
    swept = threading.Semaphore(0)

    class Counted(Sweeper):
        def sweep(self):
            swept.release()
            return super().sweep()

    with sweeping(Counted(tmp_path, seconds=0), every=0.01):
        for _ in range(3):
            assert swept.acquire(timeout=30)
    assert "sweeping" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def swept_of(running):
    """Return a function that returns what is left once everything is old but the page's own."""
    own = {path for block in running.page.blocks.values() for path in block.keep_in_cache}

    def swept_of():
        time.sleep(0.02)
        app.sweeper_of(running.page, running.cache, seconds=0).sweep()
        return [path for path in running.served_files() if str(path) not in own]

    return swept_of


def test_an_upload_whose_file_was_swept_away_is_read_once_like_any_other(
    running, visitor, portrait, swept_of
):
    path = visitor.upload(portrait, "me.jpg")["path"]
    assert path in running.page.upload_file_set
    assert swept_of() == []
    assert path not in running.page.upload_file_set
    assert visitor.upload(portrait, "me.jpg")["path"] == path
    take_upload(path, running.page.upload_file_set)
    assert path not in map(str, running.served_files())


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_picture_of_a_visit_is_deleted(running, visitor, portrait, swept_of, language):
    visitor._http.headers["accept-language"] = language
    visitor.call("greet")
    visitor.open(portrait)
    # Gradio makes the picture that is compared anew, and then knows nothing of its files.
    visitor.call("compare", True)
    visitor.open(portrait)
    visitor.call("turn", 0.5)
    assert len(running.served_files()) >= 3
    assert swept_of() == []


def test_the_part_of_an_upload_that_broke_off_is_deleted(running, swept_of):
    address = urlsplit(running.url)
    before = set(running.served_files())
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="me.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + b"\xff\xd8\xff\xe1 where I was " * 20_000
    )
    connection.putrequest("POST", f"{API}/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(2 * len(part)))
    connection.endheaders(part)
    for _ in range(3_000):
        if set(running.served_files()) - before:
            break
        time.sleep(0.01)
    assert set(running.served_files()) - before
    connection.close()
    time.sleep(0.2)
    assert swept_of() == []


def test_the_app_sweeps_while_it_serves(tmp_path, monkeypatch):
    threads = []
    monkeypatch.setenv("PRIVACY_DIAL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PRIVACY_DIAL_MODEL", str(write_tiny_model(tmp_path / "model")))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        app, "serve", lambda *_: threads.extend(thread.name for thread in threading.enumerate())
    )
    assert app.main([]) == 0
    assert "sweeping" in threads
