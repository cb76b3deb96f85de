import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from feedback import BusyStoreError, CorruptStoreError, StoreError
from feedback.store.database import APPLICATION_ID, MIGRATIONS, Database


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ratings.sqlite3"


def pragma(database: Database, name: str):
    with database.reading() as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_it_is_configured_for_durable_and_erasable_rows(path):
    database = Database(path, create=True)
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 1
    assert pragma(database, "busy_timeout") == 5000
    assert pragma(database, "secure_delete") == 1
    assert pragma(database, "application_id") == APPLICATION_ID
    assert pragma(database, "user_version") == len(MIGRATIONS)
    database.close()


def test_its_files_are_the_owner_s_only(tmp_path):
    path = tmp_path / "made" / "deep" / "ratings.sqlite3"
    database = Database(path, create=True)
    with database.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    database.close()
    assert modes == dict.fromkeys([f"{path.name}{end}" for end in ("", "-wal", "-shm")], 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path):
    Database(path, create=True).close()
    path.chmod(0o644)
    Database(path, create=False).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(path):
    database = Database(path, create=True)
    statements = ("INSERT INTO meta VALUES ('a', 'b')", "INSERT INTO meta VALUES ('a', NULL)")
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        list(map(connection.execute, statements))
    with database.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM meta").fetchone() == (0,)
    database.close()


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"must be a file, got the folder .*ratings\.sqlite3"):
        Database(tmp_path, create=True)


def test_a_missing_file_is_not_made_unless_asked(path):
    with pytest.raises(StoreError, match="got no file there"):
        Database(path, create=False)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    # Root may write anywhere but in /proc.
    folder = Path("/proc") if os.geteuid() == 0 else tmp_path
    if os.geteuid():
        folder.chmod(0o500)
    with pytest.raises(StoreError, match="must be a file this program may write"):
        Database(folder / "ratings.sqlite3", create=True)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match="must be a file this program may write"):
        Database(tmp_path / "store" / "ratings.sqlite3", create=True)


def damaged_header(path: Path) -> None:
    path.write_bytes(b"This is not a database, but long enough to be one. " * 100)


def damaged_pages(path: Path) -> None:
    Database(path, create=True).close()
    raw = bytearray(path.read_bytes())
    raw[4096 + 8 : 3 * 4096] = b"\xa5" * (2 * 4096 - 8)
    path.write_bytes(raw)


def cut_off(path: Path) -> None:
    Database(path, create=True).close()
    path.write_bytes(path.read_bytes()[: 3 * 4096])


def other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE event (a)")
    connection.close()


def other_application_id(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.execute("VACUUM")
    connection.close()


@pytest.mark.parametrize(
    "damage", [damaged_header, damaged_pages, cut_off, other_program, other_application_id]
)
def test_a_damaged_or_foreign_file_is_refused_and_left_as_it_is(path, damage):
    damage(path)
    before = path.read_bytes()
    with pytest.raises(CorruptStoreError, match="Nothing was changed"):
        Database(path, create=True)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_of_a_newer_program_is_refused_and_left_as_it_is(path):
    Database(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="update the program") as caught:
        Database(path, create=True)
    assert not isinstance(caught.value, CorruptStoreError)
    assert path.read_bytes() == before


def test_a_full_disk_is_said_and_undone(path):
    database = Database(path, create=True)
    with database.reading() as connection:
        n_pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {n_pages}")
    rows = [("small", "x"), ("large", "x" * 100_000)]
    with pytest.raises(StoreError, match="got it full"), database.transaction() as connection:
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
    with database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM meta").fetchone() == (0,)
    database.close()


def test_a_file_locked_by_another_process_is_said(path):
    database, other = Database(path, create=True), sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with database.reading() as connection:
        connection.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(BusyStoreError, match="locked by another process"), database.transaction():
        pass
    other.execute("ROLLBACK")
    with database.transaction():
        pass
    other.close()
    database.close()


def test_a_bug_in_a_statement_stays_a_bug(path):
    database = Database(path, create=True)
    with pytest.raises(sqlite3.OperationalError, match="no such table"), database.reading() as c:
        c.execute("SELECT * FROM no_such")
    database.close()


def test_a_read_only_connection_is_said(path):
    database = Database(path, create=True)
    with database.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="readonly"), database.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    database.close()


def test_scrubbing_leaves_no_deleted_byte_and_an_empty_log(path):
    database = Database(path, create=True)
    for statement in ("INSERT INTO meta VALUES ('a', 'TRACE')", "DELETE FROM meta"):
        with database.transaction() as connection:
            connection.execute(statement)
    log = path.with_name(path.name + "-wal")
    assert b"TRACE" in log.read_bytes()
    database.scrub()
    assert log.read_bytes() == b""
    assert b"TRACE" not in path.read_bytes()
    database.close()


def test_scrubbing_under_a_reader_says_that_traces_remain(path):
    database, reader = Database(path, create=True), sqlite3.connect(path, isolation_level=None)
    with database.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'TRACE')")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    with database.transaction() as connection:
        connection.execute("DELETE FROM meta")
        connection.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(BusyStoreError, match="erase again"):
        database.scrub()
    reader.close()
    database.scrub()
    assert b"TRACE" not in path.read_bytes()
    database.close()


def test_scrubbing_under_a_writer_says_that_traces_remain(path):
    database, writer = Database(path, create=True), sqlite3.connect(path, isolation_level=None)
    with database.reading() as connection:
        connection.execute("PRAGMA busy_timeout = 0")
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyStoreError, match="erase again"):
        database.scrub()
    writer.close()
    database.close()


def test_a_fault_in_scrubbing_that_is_not_waiting_is_no_busy_store(path):
    database = Database(path, create=True)
    with database.reading() as connection:
        connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="readonly") as caught:
        database.scrub()
    assert not isinstance(caught.value, BusyStoreError)
    database.close()


def test_many_that_open_a_new_file_at_once_all_find_it_whole(path):
    barrier, opened = threading.Barrier(8), []

    def start():
        barrier.wait()
        database = Database(path, create=True)
        opened.append(pragma(database, "user_version"))
        database.close()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [len(MIGRATIONS)] * 8


def test_closing_twice_is_fine(path):
    database = Database(path, create=True)
    database.close()
    database.close()
