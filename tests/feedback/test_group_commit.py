import threading

import pytest

from feedback.errors import StoreError
from feedback.store.group_commit import GroupCommit

INTERRUPT = 99


def wait_until(is_so):
    """Wait for what another thread is about to do."""
    for _ in range(20_000):
        if is_so():
            return
        threading.Event().wait(0.001)
    pytest.fail("It did not come to that within seconds.")


def in_threads(actions):
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    return threads


class Writer:
    """Writes batches; the first one is held until `release`."""

    def __init__(self):
        self.batches = []
        self.begun = threading.Event()
        self.release = threading.Event()

    def __call__(self, batch):
        self.batches.append(list(batch))
        self.begun.set()
        if len(self.batches) == 1:
            self.release.wait(30)
        if INTERRUPT in batch:
            raise KeyboardInterrupt
        return [StoreError(f"no {work}") if work < 0 else None for work in batch]


def test_what_waits_during_a_write_is_written_together_in_its_order():
    writer = Writer()
    group = GroupCommit(writer)
    threads = in_threads([lambda: group.submit(1)])
    assert writer.begun.wait(30)
    for number in range(2, 6):
        threads += in_threads([lambda n=number: group.submit(n)])
        wait_until(lambda n=number: len(group._waiting) >= n - 1)
    writer.release.set()
    for thread in threads:
        thread.join(30)
    assert writer.batches == [[1], [2, 3, 4, 5]]


def test_an_error_reaches_the_one_it_belongs_to():
    group = GroupCommit(lambda batch: [StoreError("no") if w < 0 else None for w in batch])
    group.submit(1)
    with pytest.raises(StoreError, match="no"):
        group.submit(-1)
    group.submit(2)


def test_an_interrupted_write_is_told_to_all_in_it_and_the_next_one_works():
    writer, told = Writer(), []
    group = GroupCommit(writer)

    def submit(work):
        try:
            group.submit(work)
        except (StoreError, KeyboardInterrupt) as error:
            told.append((work, type(error)))

    threads = in_threads([lambda: submit(1)])
    assert writer.begun.wait(30)
    for number, work in enumerate((INTERRUPT, 3), 1):
        threads += in_threads([lambda w=work: submit(w)])
        wait_until(lambda n=number: len(group._waiting) >= n)
    writer.release.set()
    for thread in threads:
        thread.join(30)
    # Whoever leads sees the interrupt, the others that nothing was acknowledged.
    assert sorted(work for work, _ in told) == [3, INTERRUPT]
    assert {kind for _, kind in told} == {StoreError, KeyboardInterrupt}
    group.submit(4)
