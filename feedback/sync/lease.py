"""Who may compact: one process at a time, for a while; knows a file of the remote and no shard."""

from __future__ import annotations

from datetime import datetime, timedelta

from feedback.remote.base import Snapshot
from feedback.sync import layout
from feedback.sync.carrier import Carrier, Change

MOST_AHEAD = timedelta(hours=1)
"""How far the clocks of replicas may differ."""


def take_lease(carrier: Carrier, holder: str, *, seconds: float) -> bool:
    """Return whether this process has the lease, having taken it if it was free."""
    until = carrier.outbox.store.clock() + timedelta(seconds=seconds)
    is_free = False

    def plan(snapshot: Snapshot) -> Change:
        nonlocal is_free
        is_free = _is_free(carrier, snapshot, holder, latest=until + MOST_AHEAD)
        if not is_free:
            return Change()
        return Change("Lease", {layout.LEASE: layout.lease_bytes(holder, until)})

    carrier.swap(plan)
    return is_free


def _is_free(carrier: Carrier, snapshot: Snapshot, holder: str, *, latest: datetime) -> bool:
    """Return whether nobody else has a lease that ends in the future, and not too far in it."""
    if layout.LEASE not in snapshot.files:
        return True
    found = carrier.understood(layout.read_lease, snapshot, layout.LEASE)
    if found is None:
        return False
    return found[0] == holder or not carrier.outbox.store.clock() < found[1] <= latest


def holds_lease(carrier: Carrier, snapshot: Snapshot, holder: str) -> bool:
    """Return whether a process has the lease, in one state of the remote."""
    if layout.LEASE not in snapshot.files:
        return False
    found = carrier.understood(layout.read_lease, snapshot, layout.LEASE)
    return found is not None and found[0] == holder
