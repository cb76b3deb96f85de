"""When to carry ratings to a remote: rounds, waits, a thread, and what to say; knows no file there.

Ratings are safe in the store before any of this begins, and a remote that fails is told in
`Health`, never to the one who rates.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from feedback.errors import FeedbackError
from feedback.remote.base import Remote, within
from feedback.store.log import RatingStore
from feedback.sync import compaction, erasure
from feedback.sync.carrier import Carrier
from feedback.sync.compaction import Compaction
from feedback.sync.erasure import Receipt
from feedback.sync.health import Health
from feedback.sync.outbox import Counts, Outbox
from feedback.sync.rhythm import PASSING, Rhythm, SyncSettings

_FIRST_PAUSE_SECONDS = 0.25


class Sync:
    """Carries one store's ratings to one remote, in rounds; safe for threads.

    Example:
        >>> import pathlib, tempfile
        >>> from feedback.remote.base import NullRemote
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RatingStore(pathlib.Path(folder) / "ratings.sqlite3") as store:
        ...         Sync(store, NullRemote()).health().sentence()
        '0 ratings are kept on this disk only.'
    """

    def __init__(
        self,
        store: RatingStore,
        remote: Remote,
        *,
        settings: SyncSettings | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        uniform: Callable[[], float] | None = None,
    ) -> None:
        """Remember both sides; no thread is started and no network touched.

        Args:
            store: Whose clock gives the time, too.
            remote: `NullRemote` where there is none.
            settings: Defaults are for a hosted app.
            monotonic: Gives seconds that never run backwards, for waits.
            sleep: Waits between tries of one round.
            uniform: Gives numbers in [0, 1), for jitter.
        """
        self.settings = settings or SyncSettings()
        self._store = store
        self._remote = remote
        self._monotonic = monotonic
        self._sleep = sleep
        uniform = uniform or secrets.SystemRandom().random
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._uniform = uniform
        self._carrier = self._new_carrier(Outbox(store))
        self._holder = f"{store.instance_id}-{secrets.token_hex(4)}"
        # One thread at a time uses the remote; the other lock is never held for long.
        self._round = threading.Lock()
        self._rhythm = Rhythm(self.settings, uniform)
        self._counts = Counts(0, 0, None, 0, 0, 0)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the background thread; its first round brings back what this disk lacks."""
        if not self._remote.keeps:
            self.tick()
        elif self._thread is None:
            self._thread = threading.Thread(target=self._run, name="feedback-sync", daemon=True)
            self._thread.start()

    def stop(self, *, flush_seconds: float = 8.0) -> Health:
        """End the thread and carry what waits, as far as the time suffices; raise nothing.

        Works in the calling thread, without pools, and may be called while the interpreter shuts
        down; from a signal handler only by raising `SystemExit` there and calling this after.

        Args:
            flush_seconds: Time for everything; rows that are left are on the disk.
        """
        deadline = self._monotonic() + flush_seconds
        self._stopping.set()
        self._woken.set()
        if self._remote.keeps:
            is_free = self._round.acquire(timeout=max(flush_seconds, 0) / 2)
            try:
                with within(max(deadline - self._monotonic(), 0.1)):
                    self._persist(lambda: self._leave(is_free=is_free), deadline)
            except FeedbackError as error:
                self._failed(error)
            finally:
                if is_free:
                    self._round.release()
        return self.health()

    def wake(self) -> None:
        """Say that something is new, or that a remote that failed should be asked again."""
        self._rhythm.forgive()
        self._woken.set()

    def tick(self) -> Health:
        """Do one round now, in this thread; what fails is in the result's `last_error`.

        A round learns what others erased, carries what is new, brings back what this disk lacks
        (the first time), finishes erasures, and compacts if that is due. Without a remote it only
        scrubs what an erasure left.
        """
        with self._round:
            try:
                if self._remote.keeps:
                    self._carry()
                    self._compact_if_due()
                else:
                    self._store.scrub()
            except FeedbackError as error:
                self._failed(error)
        return self.health()

    def flush(self, *, seconds: float = 60.0) -> Health:
        """Carry everything that waits, now, trying again for some time if the remote is busy.

        Raises:
            RemoteError: It did not take everything; the rest waits in the store.
            StoreError: The store cannot be read or written.
        """
        if self._remote.keeps:
            with self._round:
                try:
                    self._persist(self._carry, self._monotonic() + seconds)
                except FeedbackError as error:
                    self._failed(error)
                    raise
        return self.health()

    def restore(self) -> int:
        """Bring back ratings that the remote has and this disk has not; return how many.

        Raises:
            RemoteError: It does not answer or refused.
        """
        with self._round:
            if not self._remote.keeps:
                return 0
            self._carrier.look()
            self._carrier.reconcile()
            n_new = self._carrier.restore()
            self._store.scrub()
            return n_new

    def compact(self) -> Compaction | None:
        """Merge small files of the remote; None if there is nothing to do, or another does it.

        Raises:
            RemoteError: It does not answer or refused.
        """
        if not self._remote.keeps:
            return None
        with self._round:
            self._carrier.look()
            self._store.scrub()
            return compaction.compact(self._carrier, self.settings.compaction, holder=self._holder)

    def erase(self, rater_ids: Sequence[str]) -> Receipt:
        """Erase raters here at once, and from the remote if it answers now.

        Returns:
            The receipt; without `finished` if the remote is still to follow, in later rounds.

        Raises:
            StoreError: The store cannot be written.
            BusyStoreError: Another process kept traces of the rows in a file; erase again.
        """
        receipt = self.erase_locally(rater_ids)
        if self._remote.keeps:
            with self._round:
                try:
                    self._carrier.look()
                    erasure.clear_remote(self._carrier)
                    self._store.scrub()
                    self._succeeded()
                except FeedbackError as error:
                    self._failed(error)
        return self.receipt(receipt.number) or receipt

    def erase_locally(self, rater_ids: Sequence[str]) -> Receipt:
        """Erase raters here and leave the remote to the next round.

        Raises:
            StoreError: The store cannot be written.
            BusyStoreError: Another process kept traces of the rows in a file; erase again.
        """
        try:
            return erasure.request(self._carrier, rater_ids)
        finally:
            self.wake()

    def receipt(self, number: str) -> Receipt | None:
        """Return the newest state of a receipt, None for a number this store never gave."""
        return erasure.receipt_of(self._carrier, number)

    def health(self) -> Health:
        """Return the state, without reading rows or asking the remote."""
        rhythm, now = self._rhythm, self._store.clock()
        error = rhythm.last_error
        try:
            self._counts = self._carrier.outbox.counts()
        except FeedbackError as broken:
            error = str(broken)
        counts = self._counts
        lag = 0.0 if counts.oldest_new is None else (now - counts.oldest_new).total_seconds()
        wait = rhythm.retry_at - self._monotonic()
        return Health(
            remote=self._remote.name,
            keeps=self._remote.keeps,
            outbox_rows=counts.new,
            in_remote_rows=counts.in_remote,
            sync_lag_seconds=max(lag, 0.0),
            last_success=rhythm.last_success,
            last_error=error,
            retry_at=now + timedelta(seconds=wait) if rhythm.last_error and wait > 0 else None,
            foreign_shards=tuple(sorted(self._carrier.foreign.copy())),
            pending_erasures=counts.erasures,
            restored_rows=self._carrier.restored,
            unreadable_rows=counts.unreadable,
        )

    def _run(self) -> None:
        """Do rounds until told to stop."""
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                if self._rhythm.is_due(self._monotonic(), is_dirty=self._is_dirty()):
                    self.tick()
            except Exception as error:  # noqa: BLE001 - a bug must not end carrying for good
                self._failed(error)
            self._woken.wait(self._rhythm.seconds_to_next(self._monotonic()))

    def _is_dirty(self) -> bool:
        try:
            counts = self._carrier.outbox.counts()
            if self._carrier.outbox.is_purge_due():
                return True
        except FeedbackError as error:
            self._failed(error)
            return False
        return counts.new > counts.unreadable or counts.erasures + counts.undone > 0

    def _new_carrier(self, outbox: Outbox) -> Carrier:
        return Carrier(
            outbox,
            self._remote,
            max_tries=self.settings.max_tries,
            pause=self._sleep,
            uniform=self._uniform,
            # Half of what tombstones are kept for: some are older than the file they are in.
            trust=timedelta(seconds=self.settings.compaction.keep_seconds / 2),
        )

    def _carry(self) -> None:
        """Do everything that a restart must not lose, in the order of its importance."""
        carrier = self._carrier
        carrier.look()
        self._each(
            # First what exists nowhere else, before anything that may take long or be refused.
            lambda: self._push(carrier),
            lambda: self._push(carrier) if carrier.reconcile() else None,
            lambda: carrier.restore() if carrier.restored is None else None,
            lambda: erasure.clear_remote(carrier),
            lambda: carrier.steady(carrier.purge) if carrier.outbox.is_purge_due() else None,
            self._store.scrub,
        )
        self._succeeded()

    def _leave(self, *, is_free: bool) -> None:
        """Do what a restart must not lose and can be done in little time.

        Args:
            is_free: Whether no other thread is in a round; one that is hangs, or brings rows back.
        """
        # With a view of its own where it must, as another process would have.
        carrier = self._carrier if is_free else self._new_carrier(self._carrier.outbox)
        carrier.look()
        self._push(carrier)
        if is_free:
            erasure.clear_remote(carrier)
        self._succeeded()

    def _push(self, carrier: Carrier) -> None:
        """Carry what waits."""
        if carrier.outbox.is_relinked():
            # The remote may have rows that wait here.
            carrier.restore()
        carrier.push(max_rows=self.settings.max_shard_rows)

    @staticmethod
    def _each(*steps: Callable[[], object]) -> None:
        """Do every step, whatever becomes of those before, then raise the first failure.

        A remote that does not answer now answers no other step either.
        """
        failures: list[FeedbackError] = []
        for step in steps:
            try:
                step()
            except PASSING:
                raise
            except FeedbackError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _compact_if_due(self) -> None:
        if compaction.is_due(self._carrier, self._carrier.newest(), self.settings.compaction):
            compaction.compact(self._carrier, self.settings.compaction, holder=self._holder)

    def _persist(self, action: Callable[[], None], deadline: float) -> None:
        """Do an action, again after failures that may pass, until a time."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except PASSING as error:
                wanted = getattr(error, "retry_after", None) or 0.0
                pause = max(pause, wanted)
                if self._monotonic() + pause > deadline:
                    raise
            self._sleep(pause)
            pause *= 2

    def _succeeded(self) -> None:
        self._rhythm.succeeded(self._store.clock(), self._monotonic())

    def _failed(self, error: Exception) -> None:
        self._rhythm.failed(error, self._monotonic())
