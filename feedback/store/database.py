"""One SQLite file: opening, checking, migrating, transactions, scrubbing; knows no rating.

Write-ahead log with `synchronous=NORMAL`: a commit survives the death of the process, not always
that of the machine. One connection, one lock, and a second connection for tidying; other
processes are waited for, five seconds.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from feedback.errors import BusyStoreError, CorruptStoreError, FeedbackError, StoreError

APPLICATION_ID = 0x50444C31
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE event (
            seq INTEGER PRIMARY KEY, rating_id TEXT NOT NULL UNIQUE, rater_id TEXT NOT NULL,
            page_id TEXT NOT NULL, body TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'in_remote')),
            created INTEGER NOT NULL) STRICT""",
        "CREATE INDEX event_rater ON event (rater_id)",
        "CREATE INDEX event_outbox ON event (seq) WHERE state = 'new'",
        # Digests, so that what must outlive a row holds no byte of it.
        """CREATE TABLE page (
            digest TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "CREATE INDEX page_expires ON page (expires)",
        """CREATE TABLE tombstone (
            kind TEXT NOT NULL CHECK (kind IN ('rater', 'rating')), digest TEXT NOT NULL,
            requested INTEGER NOT NULL, done INTEGER, PRIMARY KEY (kind, digest)
            ) STRICT, WITHOUT ROWID""",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        # A shard's rows are recorded before it is sent, so that after a crash or an answer that
        # was lost the same rows go again under the same path.
        """CREATE TABLE shard (path TEXT PRIMARY KEY, made INTEGER NOT NULL,
            oldest INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
        "ALTER TABLE event ADD COLUMN shard TEXT",
        "CREATE INDEX event_shard ON event (shard) WHERE shard IS NOT NULL",
        "DROP INDEX event_outbox",
        "CREATE INDEX event_outbox ON event (created) WHERE state = 'new' AND shard IS NULL",
        # Kept by triggers: every page shows these counts, and counting reads every row.
        "CREATE TABLE tally (state TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """INSERT INTO tally SELECT s.value, (SELECT count(*) FROM event WHERE state = s.value)
            FROM json_each('["new", "in_remote"]') AS s""",
        """CREATE TRIGGER event_added AFTER INSERT ON event BEGIN
            UPDATE tally SET n = n + 1 WHERE state = NEW.state; END""",
        """CREATE TRIGGER event_removed AFTER DELETE ON event BEGIN
            UPDATE tally SET n = n - 1 WHERE state = OLD.state; END""",
        """CREATE TRIGGER event_moved AFTER UPDATE OF state ON event
            WHEN OLD.state <> NEW.state BEGIN
            UPDATE tally SET n = n - 1 WHERE state = OLD.state;
            UPDATE tally SET n = n + 1 WHERE state = NEW.state; END""",
        # `carried`: in a file of the remote; `receipt`: whose request it is, until it is done.
        "ALTER TABLE tombstone ADD COLUMN carried INTEGER",
        "ALTER TABLE tombstone ADD COLUMN receipt TEXT",
        "CREATE TABLE receipt (number TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID",
        # Files of the remote whose rows or tombstones are here already.
        "CREATE TABLE seen (path TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
)
"""Statements that lead from `user_version` i to i + 1; never edited, only added to. Times are
milliseconds since 1970, UTC."""
_BUSY_SECONDS = 5.0
_PAUSE_SECONDS = 0.01
_MOST_LOGGED_PAGES = 10_000
_LARGEST_IDLE_LOG = 1 << 24


class Database:
    """A store's file, open.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open the file, or make it with mode 600, and bring its tables up to date.

        Raises:
            StoreError: `path` is a folder, is missing and not to be made, or cannot be written.
            CorruptStoreError: The file is damaged or is no store; it is left as it is.
        """
        self.path = path
        self._lock = threading.RLock()
        self._tidying = threading.Lock()
        self._tidier: sqlite3.Connection | None = None
        with _speaking_of(path):
            _prepare_file(path, create=create)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._set_up()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        with self._tidying, self._lock:
            if self._tidier is not None:
                self._tidier.close()
            self._connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread, for statements that do not write."""
        with self._lock, _speaking_of(self.path):
            yield self._connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread; commit at the end, undo everything on an error."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def tidy(self) -> None:
        """Move the write-ahead log into the file, in this thread, while other threads write.

        Left to SQLite, a commit does this and every thread waits for its disk. Does nothing if
        another thread is at it; fails silently, since the commits before are durable anyway.
        """
        if not self._tidying.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(sqlite3.Error):
                if self._tidier is None:
                    self._tidier = sqlite3.connect(self.path, check_same_thread=False)
                self._tidier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            self._tidying.release()

    def scrub(self) -> None:
        """Rewrite the file and empty its write-ahead log, so that no deleted byte is left.

        Raises:
            BusyStoreError: Another process reads an older state, which must stay in the log.
        """
        with self._tidying, self.reading() as connection:
            try:
                connection.execute("VACUUM")
                ((is_busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                is_busy = True
        if is_busy:
            raise BusyStoreError(
                f"{self.path} must not be read by another process while it is scrubbed, got one "
                "that does. The rows are deleted, their traces not yet: close the other one, and "
                "erase again or let the app go on, which scrubs again."
            )

    def _set_up(self) -> None:
        """Check and configure, again while others do the same: SQLite does not wait there."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._check()
                self._configure()
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _check(self) -> None:
        """Check that the file is ours and whole, before anything is changed."""
        c = self._connection
        # In one statement, so that all three are of one moment: another process may be making it.
        application_id, version, n_tables = c.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) "
            "FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if application_id != APPLICATION_ID and (application_id or n_tables):
            raise CorruptStoreError(
                f"{self.path} must be a store of ratings, got another program's database. "
                "Nothing was changed; choose another file."
            )
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self.path} must have store version {len(MIGRATIONS)} or lower, got {version}. "
                "Nothing was changed; update the program."
            )
        if c.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise _corrupt(self.path)

    def _configure(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA secure_delete = ON")
        # Only for bulk work: pages are followed by `tidy` long before.
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_MOST_LOGGED_PAGES}")
        self._connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_IDLE_LOG}")
        if self._connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
            return
        with self.transaction() as c:
            # Read again: another process may have migrated while this one waited.
            version = c.execute("PRAGMA user_version").fetchone()[0]
            for statement in (s for statements in MIGRATIONS[version:] for s in statements):
                c.execute(statement)
            c.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            c.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _prepare_file(path: Path, *, create: bool) -> None:
    """Make the file if allowed, readable and writable by its owner only."""
    if path.is_dir():
        raise StoreError(
            f"The store must be a file, got the folder {path}. Name a file in it, such as "
            f"{path / 'ratings.sqlite3'}."
        )
    if not create and not path.exists():
        raise StoreError(
            f"There must be a store of ratings at {path}, got no file there. Check the folder; "
            "the app makes a store when a visitor's first answer is kept."
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _speaking_of(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system refuse into sentences about the store."""
    try:
        yield
    except FeedbackError:
        raise
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or type(error).__name__) from error


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """Return the store's error for SQLite's, or the same error if only a bug can cause it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _corrupt(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyStoreError(
            f"{path} must be free within {_BUSY_SECONDS:g} seconds, got it locked by another "
            "process. Nothing was stored; try again."
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"The disk of {path} must have room, got it full. Nothing was stored.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return _unwritable(path, str(error))
    return error


def _corrupt(path: Path) -> CorruptStoreError:
    return CorruptStoreError(
        f"{path} must be a whole SQLite file, got a damaged one. Nothing was changed; move it "
        "aside and start again, or put a copy in its place."
    )


def _unwritable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path} must be a file this program may write, got: {reason}. Nothing was stored; "
        "change the folder's rights or choose another folder."
    )
